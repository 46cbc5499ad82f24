//! AWS Certificate Manager: server certificates, both requested by the operator and already existing.
//! Long because each service has one file.

use aws_config::SdkConfig;
use aws_sdk_acm::{Client, types as sdk};
use jiff::Timestamp;

use super::{
    call_guard::CallContext,
    errors::{Error, Kind},
    route53,
    tags::Tags,
};

#[derive(Debug, Clone)]
pub struct Acm {
    client: Client,
    context: CallContext,
}

/// Certificate as ListCertificates returns it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listed {
    pub arn: String,
    pub domain_name: String,
    /// Fingerprint of the status, the expiry and the use: it differs when one of them differs.
    state: String,
}

/// Certificate, from DescribeCertificate and ListTagsForCertificate.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    pub arn: String,
    pub domain_name: String,
    /// All names in the certificate, including the domain name; lower case, sorted.
    pub names: Vec<String>,
    pub status: CertificateStatus,
    pub key_algorithm: KeyAlgorithm,
    pub kind: CertificateKind,
    pub not_after: Option<Timestamp>,
    /// Time of the request or the import; absent when AWS gives no date.
    pub created_at: Option<Timestamp>,
    /// True while an AWS service uses the certificate. Lags: up to an hour after a custom domain stops using
    /// the certificate.
    pub in_use: bool,
    /// ACM error code of a FAILED request: `CAA_ERROR`, `INVALID_PUBLIC_DOMAIN`, ...
    pub failure: Option<String>,
    /// State of ACM's current or last renewal; absent before the first.
    pub renewal: Option<Renewal>,
    pub validation: Vec<Validation>,
    pub tags: Tags,
}

/// Renewal by ACM, from RenewalSummary. ACM begins it some 45 days before a requested certificate that is in
/// use expires; the ARN stays. Source: ACM User Guide, "Managed certificate renewal".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    pub status: RenewalStatus,
    /// ACM error code of a FAILED renewal.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewalStatus {
    /// ACM is checking the validation records.
    PendingAutoRenewal,
    /// ACM did not find all validation records; the owner of the zone has to create them.
    PendingValidation,
    Success,
    /// The renewal failed and the certificate will expire.
    Failed,
    Other(String),
}

/// Proof of control over one name, as ACM requires it.
#[derive(Debug, Clone, PartialEq)]
pub struct Validation {
    pub domain: String,
    /// CNAME that ACM checks for: name (normalised) and value (as ACM gives it). Absent in the first seconds.
    pub record: Option<(String, String)>,
    pub status: ValidationStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValidationStatus {
    Pending,
    Success,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateStatus {
    PendingValidation,
    Issued,
    Inactive,
    Expired,
    /// ACM gave up after 72 hours of validation; only a new request helps.
    ValidationTimedOut,
    Revoked,
    Failed,
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyAlgorithm {
    Rsa2048,
    EcPrime256v1,
    EcSecp384r1,
    /// Key algorithm that ACM imports but does not issue on request: `RSA_4096`.
    Other(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateKind {
    /// Issued by Amazon's public CA, renewed by ACM.
    Requested,
    /// Imported by a user, who also renews it.
    Imported,
    /// Issued by an AWS Private CA.
    PrivateCa,
}

/// Request for a public certificate, validated by DNS.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateRequest {
    pub domain_name: String,
    /// Further names; ACM adds the domain name itself.
    pub names: Vec<String>,
    pub key_algorithm: KeyAlgorithm,
    /// Token of at most 32 characters of `[A-Za-z0-9_]`. Within an hour ACM returns the same certificate for
    /// the same token.
    pub idempotency_token: String,
    pub tags: Tags,
}

impl Acm {
    pub(crate) fn new(config: &SdkConfig, context: &CallContext) -> Acm {
        Acm {
            client: Client::new(config),
            context: context.clone(),
        }
    }

    /// Returns the certificate with this ARN; `None` when ACM does not know it, or does not know it yet.
    pub async fn certificate(&self, arn: &str) -> Result<Option<Certificate>, Error> {
        let describe = self.client.describe_certificate().certificate_arn(arn).send();
        let detail = match self.context.call("acm:DescribeCertificate", describe).await {
            Ok(answer) => answer.certificate,
            Err(e) if e.kind == Kind::NotFound => None,
            Err(e) => return Err(e),
        };
        let Some(detail) = detail else {
            return Ok(None);
        };
        let list = self
            .client
            .list_tags_for_certificate()
            .certificate_arn(arn)
            .send();
        match self.context.call("acm:ListTagsForCertificate", list).await {
            Ok(answer) => Ok(Some(certificate(arn, detail, answer.tags.unwrap_or_default()))),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns all certificates of every status and key algorithm. A certificate requested a moment ago may
    /// be missing for some seconds: repeat the request with the same idempotency token.
    pub async fn listed(&self) -> Result<Vec<Listed>, Error> {
        // By default ListCertificates hides every key algorithm but RSA up to 2048.
        let all_keys = sdk::KeyAlgorithm::values()
            .iter()
            .map(|v| sdk::KeyAlgorithm::from(*v));
        let filters = sdk::Filters::builder()
            .set_key_types(Some(all_keys.collect()))
            .build();
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let list = self
                .client
                .list_certificates()
                .includes(filters.clone())
                .set_next_token(next)
                .max_items(1000)
                .send();
            let page = self.context.call("acm:ListCertificates", list).await?;
            all.extend(
                page.certificate_summary_list
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|summary| {
                        let state = format!(
                            "{:?} {:?} {:?}",
                            summary.status, summary.in_use, summary.not_after
                        );
                        Some(Listed {
                            arn: summary.certificate_arn?,
                            domain_name: summary.domain_name?,
                            state,
                        })
                    }),
            );
            next = page.next_token;
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    /// Requests a certificate and returns its ARN; the same ARN for the same token within an hour.
    pub async fn request(&self, request: &CertificateRequest) -> Result<String, Error> {
        const REQUEST: &str = "acm:RequestCertificate";
        let send = self
            .client
            .request_certificate()
            .domain_name(&request.domain_name)
            .set_subject_alternative_names((!request.names.is_empty()).then(|| request.names.clone()))
            .validation_method(sdk::ValidationMethod::Dns)
            .key_algorithm(sdk::KeyAlgorithm::from(request.key_algorithm.as_str()))
            .idempotency_token(&request.idempotency_token)
            .set_tags((!request.tags.is_empty()).then(|| sdk_tags(&request.tags)))
            .send();
        let answer = self.context.call(REQUEST, send).await?;
        answer
            .certificate_arn
            .ok_or_else(|| Error::ours(Kind::Transient, REQUEST, "the answer names no certificate"))
    }

    /// Adds tags to a certificate, and changes the values of those that are there.
    pub async fn tag(&self, arn: &str, tags: &Tags) -> Result<(), Error> {
        let send = self
            .client
            .add_tags_to_certificate()
            .certificate_arn(arn)
            .set_tags(Some(sdk_tags(tags)))
            .send();
        self.context.call("acm:AddTagsToCertificate", send).await?;
        Ok(())
    }

    /// Removes tags from a certificate; [`Kind::NotFound`] when the certificate is gone.
    pub async fn untag(&self, arn: &str, keys: &[String]) -> Result<(), Error> {
        let tag = |key| sdk::Tag::builder().key(key).build().expect("the key is set");
        let send = self
            .client
            .remove_tags_from_certificate()
            .certificate_arn(arn)
            .set_tags(Some(keys.iter().map(tag).collect()))
            .send();
        self.context.call("acm:RemoveTagsFromCertificate", send).await?;
        Ok(())
    }

    /// Deletes a certificate; [`Kind::Conflict`] while a service uses it, [`Kind::NotFound`] when it is gone.
    pub async fn delete(&self, arn: &str) -> Result<(), Error> {
        let send = self.client.delete_certificate().certificate_arn(arn).send();
        self.context.call("acm:DeleteCertificate", send).await?;
        Ok(())
    }
}

impl KeyAlgorithm {
    /// Name in the form of RequestCertificate; DescribeCertificate writes hyphens.
    pub fn as_str(&self) -> &str {
        match self {
            KeyAlgorithm::Rsa2048 => "RSA_2048",
            KeyAlgorithm::EcPrime256v1 => "EC_prime256v1",
            KeyAlgorithm::EcSecp384r1 => "EC_secp384r1",
            KeyAlgorithm::Other(name) => name,
        }
    }
}

impl From<&str> for KeyAlgorithm {
    fn from(name: &str) -> KeyAlgorithm {
        match name.replace('-', "_").as_str() {
            "RSA_2048" => KeyAlgorithm::Rsa2048,
            "EC_prime256v1" => KeyAlgorithm::EcPrime256v1,
            "EC_secp384r1" => KeyAlgorithm::EcSecp384r1,
            other => KeyAlgorithm::Other(other.to_owned()),
        }
    }
}

impl CertificateStatus {
    /// ACM's name of the status.
    pub fn as_str(&self) -> &str {
        match self {
            CertificateStatus::PendingValidation => "PENDING_VALIDATION",
            CertificateStatus::Issued => "ISSUED",
            CertificateStatus::Inactive => "INACTIVE",
            CertificateStatus::Expired => "EXPIRED",
            CertificateStatus::ValidationTimedOut => "VALIDATION_TIMED_OUT",
            CertificateStatus::Revoked => "REVOKED",
            CertificateStatus::Failed => "FAILED",
            CertificateStatus::Other(word) => word,
        }
    }
}

impl From<&str> for CertificateStatus {
    fn from(word: &str) -> CertificateStatus {
        match word {
            "PENDING_VALIDATION" => CertificateStatus::PendingValidation,
            "ISSUED" => CertificateStatus::Issued,
            "INACTIVE" => CertificateStatus::Inactive,
            "EXPIRED" => CertificateStatus::Expired,
            "VALIDATION_TIMED_OUT" => CertificateStatus::ValidationTimedOut,
            "REVOKED" => CertificateStatus::Revoked,
            "FAILED" => CertificateStatus::Failed,
            other => CertificateStatus::Other(other.to_owned()),
        }
    }
}

impl RenewalStatus {
    /// ACM's name of the status.
    pub fn as_str(&self) -> &str {
        match self {
            RenewalStatus::PendingAutoRenewal => "PENDING_AUTO_RENEWAL",
            RenewalStatus::PendingValidation => "PENDING_VALIDATION",
            RenewalStatus::Success => "SUCCESS",
            RenewalStatus::Failed => "FAILED",
            RenewalStatus::Other(word) => word,
        }
    }
}

impl From<&str> for RenewalStatus {
    fn from(word: &str) -> RenewalStatus {
        match word {
            "PENDING_AUTO_RENEWAL" => RenewalStatus::PendingAutoRenewal,
            "PENDING_VALIDATION" => RenewalStatus::PendingValidation,
            "SUCCESS" => RenewalStatus::Success,
            "FAILED" => RenewalStatus::Failed,
            other => RenewalStatus::Other(other.to_owned()),
        }
    }
}

fn sdk_tags(tags: &Tags) -> Vec<sdk::Tag> {
    let tag = |(key, value)| sdk::Tag::builder().key(key).value(value).build();
    tags.iter().map(|t| tag(t).expect("the key is set")).collect()
}

fn certificate(arn: &str, detail: sdk::CertificateDetail, tags: Vec<sdk::Tag>) -> Certificate {
    let domain_name = detail.domain_name.unwrap_or_default().to_ascii_lowercase();
    let mut names: Vec<String> = detail
        .subject_alternative_names
        .unwrap_or_default()
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .chain([domain_name.clone()])
        .collect();
    names.sort();
    names.dedup();
    let date = |at: Option<aws_sdk_acm::primitives::DateTime>| {
        at.and_then(|at| Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).unwrap_or(0)).ok())
    };
    Certificate {
        arn: arn.to_owned(),
        domain_name,
        names,
        status: CertificateStatus::from(detail.status.as_ref().map_or("", |s| s.as_str())),
        key_algorithm: KeyAlgorithm::from(detail.key_algorithm.as_ref().map_or("", |k| k.as_str())),
        kind: match detail.r#type {
            Some(sdk::CertificateType::Imported) => CertificateKind::Imported,
            Some(sdk::CertificateType::Private) => CertificateKind::PrivateCa,
            _ => CertificateKind::Requested,
        },
        not_after: date(detail.not_after),
        created_at: date(detail.created_at.or(detail.imported_at)),
        in_use: detail.in_use_by.is_some_and(|users| !users.is_empty()),
        failure: detail.failure_reason.map(|reason| reason.as_str().to_owned()),
        renewal: detail.renewal_summary.map(|renewal| Renewal {
            status: RenewalStatus::from(renewal.renewal_status.as_str()),
            reason: renewal
                .renewal_status_reason
                .map(|reason| reason.as_str().to_owned()),
        }),
        validation: detail
            .domain_validation_options
            .unwrap_or_default()
            .into_iter()
            .map(|option| Validation {
                domain: option.domain_name.to_ascii_lowercase(),
                record: option
                    .resource_record
                    .map(|record| (route53::normalise(&record.name), record.value)),
                status: match option.validation_status {
                    Some(sdk::DomainStatus::Success) => ValidationStatus::Success,
                    Some(sdk::DomainStatus::Failed) => ValidationStatus::Failed,
                    _ => ValidationStatus::Pending,
                },
            })
            .collect(),
        tags: tags
            .into_iter()
            .map(|tag| (tag.key, tag.value.unwrap_or_default()))
            .collect(),
    }
}
