//! Custom domains with mutual TLS. Every change sends the full configuration, in place: API Gateway rejects a
//! partial one, and deleting and creating a domain again is an outage.

use std::collections::BTreeMap;

use aws_sdk_apigatewayv2::{operation::get_domain_name::GetDomainNameOutput, types as sdk};

use super::patch::replace;

use crate::aws::{
    errors::{Error, Kind},
    gateway::Gateway,
    route53::normalise,
};

/// The only TLS policy that mutual TLS allows: TLS 1.2 and, despite its name, TLS 1.3.
pub const MUTUAL_TLS_POLICY: &str = "TLS_1_2";

/// Custom domain as API Gateway returns it.
#[derive(Debug, Clone, PartialEq)]
pub struct Domain {
    pub name: String,
    pub arn: String,
    /// Empty when the domain has no regional certificate (edge-optimized).
    pub certificate_arn: String,
    pub ownership_certificate_arn: Option<String>,
    /// None when the domain has no mutual TLS.
    pub truststore: Option<Truststore>,
    pub status: DomainStatus,
    /// API Gateway's message about the status, mostly none.
    pub status_message: Option<String>,
    /// Target of the domain's DNS record: `d-....execute-api.<region>.amazonaws.com`.
    pub target: String,
    /// Hosted zone id of `target`, for an alias.
    pub hosted_zone_id: String,
    pub ip_address_type: IpAddressType,
    /// `REGIONAL`, the only type that the operator manages, or `EDGE`, ...
    pub endpoint_type: String,
    /// [`MUTUAL_TLS_POLICY`] or another.
    pub security_policy: String,
    /// `API_MAPPING_ONLY` unless a user set up routing rules.
    pub routing_mode: String,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Truststore {
    /// `s3://bucket/key`.
    pub uri: String,
    /// None when the last update named no version and took the newest.
    pub version: Option<String>,
    /// Problems that API Gateway found in the truststore's certificates at the last update; the update
    /// succeeds despite them.
    pub warnings: Vec<String>,
}

impl Truststore {
    /// Returns bucket and key.
    pub fn place(&self) -> Option<(&str, &str)> {
        self.uri.strip_prefix("s3://")?.split_once('/')
    }
}

/// Status of a custom domain. Source: API Gateway Developer Guide, "Troubleshoot your domain name status".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainStatus {
    Available,
    /// A change is in progress; the domain serves its previous configuration and accepts no other change.
    Updating,
    /// Not ready yet, says v1.
    Pending,
    /// The answer names no status.
    Unstated,
    /// The re-imported certificate does not match.
    PendingCertificateReimport,
    /// The ownership certificate has expired; API Gateway locks the domain until it gets another.
    PendingOwnershipVerification,
    Other(String),
}

impl DomainStatus {
    fn of(word: &str) -> DomainStatus {
        match word {
            "AVAILABLE" => DomainStatus::Available,
            "UPDATING" => DomainStatus::Updating,
            "PENDING" => DomainStatus::Pending,
            "" => DomainStatus::Unstated,
            "PENDING_CERTIFICATE_REIMPORT" => DomainStatus::PendingCertificateReimport,
            "PENDING_OWNERSHIP_VERIFICATION" => DomainStatus::PendingOwnershipVerification,
            other => DomainStatus::Other(other.to_owned()),
        }
    }

    /// True while API Gateway is working on the domain, or does not say that it is not: the domain may serve
    /// its previous configuration, and accepts no change.
    pub fn is_in_progress(&self) -> bool {
        matches!(
            self,
            DomainStatus::Updating | DomainStatus::Pending | DomainStatus::Unstated
        )
    }

    /// Returns API Gateway's name of the status.
    pub fn as_str(&self) -> &str {
        match self {
            DomainStatus::Available => "AVAILABLE",
            DomainStatus::Updating => "UPDATING",
            DomainStatus::Pending => "PENDING",
            DomainStatus::Unstated => "without a status",
            DomainStatus::PendingCertificateReimport => "PENDING_CERTIFICATE_REIMPORT",
            DomainStatus::PendingOwnershipVerification => "PENDING_OWNERSHIP_VERIFICATION",
            DomainStatus::Other(word) => word,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpAddressType {
    Ipv4,
    Dualstack,
}

/// Full configuration of a domain. The rest is fixed: Regional, TLS 1.2 and newer, routing by API mappings
/// only.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainRequest {
    pub name: String,
    pub certificate_arn: String,
    /// Public certificate for the same name; required when the certificate is imported or from a private CA.
    pub ownership_certificate_arn: Option<String>,
    /// `s3://bucket/key`. API Gateway reads the object with the caller's permissions before it answers.
    pub truststore_uri: String,
    pub truststore_version: String,
    pub ip_address_type: IpAddressType,
}

impl Gateway {
    /// Returns the custom domain. The v2 API does not show a domain that is edge-optimized or has another TLS
    /// policy than `TLS_1_2`: of such a domain the result has only the settings that are incompatible with
    /// mutual TLS.
    pub async fn domain(&self, name: &str) -> Result<Option<Domain>, Error> {
        const GET: &str = "apigateway:GetDomainName";
        let send = self.client.get_domain_name().domain_name(name).send();
        let refused = match self.context.call(GET, send).await {
            Ok(answer) => return Ok(Some(domain(name, self.domain_arn(name), answer))),
            Err(e) if e.kind == Kind::NotFound => return Ok(None),
            Err(e) if e.kind == Kind::Invalid => e,
            Err(e) => return Err(e),
        };
        let send = self.v1.get_domain_name().domain_name(name).send();
        match self.context.call(GET, send).await {
            Ok(answer) => Ok(Some(only_v1(name, self.domain_arn(name), answer))),
            Err(e) if e.kind == Kind::NotFound => Err(refused), // v2 did not refuse it for its type
            Err(e) => Err(e),
        }
    }

    /// Returns all custom domains that the v2 API lists, by name.
    pub async fn all_domains(&self) -> Result<BTreeMap<String, Domain>, Error> {
        let mut domains = BTreeMap::new();
        let mut next = None;
        loop {
            let send = self.client.get_domain_names().set_next_token(next).send();
            let page = self.context.call("apigateway:GetDomainNames", send).await?;
            for item in page.items.unwrap_or_default() {
                let Some(name) = item.domain_name else { continue };
                let answer = GetDomainNameOutput::builder()
                    .set_domain_name_configurations(item.domain_name_configurations)
                    .set_mutual_tls_authentication(item.mutual_tls_authentication)
                    .set_routing_mode(item.routing_mode)
                    .set_tags(item.tags);
                let found = domain(&name, self.domain_arn(&name), answer.build());
                domains.insert(name, found);
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(domains);
            }
        }
    }

    /// Creates a domain; [`Kind::Taken`] when the name is taken, in this account or in any other. Own
    /// quota: 1 per 30 s.
    pub async fn create_domain(
        &self,
        request: &DomainRequest,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let send = self
            .client
            .create_domain_name()
            .domain_name(&request.name)
            .domain_name_configurations(request.configuration())
            .mutual_tls_authentication(request.mutual_tls())
            .set_tags((!tags.is_empty()).then(|| tags.clone().into_iter().collect()))
            .send();
        self.context.call("apigateway:CreateDomainName", send).await?;
        Ok(())
    }

    /// Updates a domain; [`Kind::Conflict`] while another update is in progress. Own quota: 1 per 30 s.
    pub async fn update_domain(&self, request: &DomainRequest) -> Result<(), Error> {
        let send = self
            .client
            .update_domain_name()
            .domain_name(&request.name)
            .domain_name_configurations(request.configuration())
            .mutual_tls_authentication(request.mutual_tls())
            .routing_mode(sdk::RoutingMode::ApiMappingOnly)
            .send();
        self.context.call("apigateway:UpdateDomainName", send).await?;
        Ok(())
    }

    /// Sets the TLS policy to the policy that mutual TLS allows, through v1: v2 does not show a domain with
    /// another policy. The other settings stay, but v2 has to return the domain again to show them.
    /// [`Kind::Conflict`] while another update is in progress. The same quota as [`Gateway::update_domain`].
    /// `from`: the present policy. An enhanced policy has an endpoint access mode, which goes with it; a
    /// domain with another policy has none. Source: API Gateway Developer Guide, "Choose a security policy
    /// for your custom domain" and "How to change a security policy".
    pub async fn restore_security_policy(&self, name: &str, from: &str) -> Result<(), Error> {
        let is_enhanced = from.starts_with("SecurityPolicy_");
        let mode = is_enhanced.then(|| replace("/endpointAccessMode", ""));
        let patch = [replace("/securityPolicy", MUTUAL_TLS_POLICY)];
        let send = self
            .v1
            .update_domain_name()
            .domain_name(name)
            .set_patch_operations(Some(patch.into_iter().chain(mode).collect()))
            .send();
        self.context.call("apigateway:UpdateDomainName", send).await?;
        Ok(())
    }

    /// Deletes a domain and all its mappings. Own quota: 1 per 30 s.
    pub async fn delete_domain(&self, name: &str) -> Result<(), Error> {
        let send = self.client.delete_domain_name().domain_name(name).send();
        self.context.call("apigateway:DeleteDomainName", send).await?;
        Ok(())
    }
}

impl DomainRequest {
    fn configuration(&self) -> sdk::DomainNameConfiguration {
        sdk::DomainNameConfiguration::builder()
            .certificate_arn(&self.certificate_arn)
            .set_ownership_verification_certificate_arn(self.ownership_certificate_arn.clone())
            .endpoint_type(sdk::EndpointType::Regional)
            .security_policy(sdk::SecurityPolicy::Tls12)
            .ip_address_type(match self.ip_address_type {
                IpAddressType::Ipv4 => sdk::IpAddressType::Ipv4,
                IpAddressType::Dualstack => sdk::IpAddressType::Dualstack,
            })
            .build()
    }

    fn mutual_tls(&self) -> sdk::MutualTlsAuthenticationInput {
        sdk::MutualTlsAuthenticationInput::builder()
            .truststore_uri(&self.truststore_uri)
            .truststore_version(&self.truststore_version)
            .build()
    }
}

fn domain(name: &str, arn: String, answer: GetDomainNameOutput) -> Domain {
    let configuration = answer
        .domain_name_configurations
        .unwrap_or_default()
        .into_iter()
        .next()
        .unwrap_or_else(|| sdk::DomainNameConfiguration::builder().build());
    Domain {
        name: name.to_owned(),
        arn,
        certificate_arn: configuration.certificate_arn.unwrap_or_default(),
        ownership_certificate_arn: configuration.ownership_verification_certificate_arn,
        truststore: answer.mutual_tls_authentication.and_then(|mutual_tls| {
            Some(Truststore {
                uri: mutual_tls.truststore_uri.filter(|uri| !uri.is_empty())?,
                version: mutual_tls
                    .truststore_version
                    .filter(|version| !version.is_empty()),
                warnings: mutual_tls.truststore_warnings.unwrap_or_default(),
            })
        }),
        status: DomainStatus::of(
            configuration
                .domain_name_status
                .as_ref()
                .map_or("", |s| s.as_str()),
        ),
        status_message: configuration
            .domain_name_status_message
            .filter(|message| !message.is_empty()),
        target: normalise(&configuration.api_gateway_domain_name.unwrap_or_default()),
        hosted_zone_id: configuration.hosted_zone_id.unwrap_or_default(),
        ip_address_type: match configuration.ip_address_type {
            Some(sdk::IpAddressType::Dualstack) => IpAddressType::Dualstack,
            _ => IpAddressType::Ipv4, // AWS's default, also for domains older than the choice
        },
        endpoint_type: configuration
            .endpoint_type
            .map_or(String::new(), |t| t.as_str().to_owned()),
        security_policy: configuration
            .security_policy
            .map_or(String::new(), |p| p.as_str().to_owned()),
        routing_mode: answer
            .routing_mode
            .map_or("API_MAPPING_ONLY".to_owned(), |mode| mode.as_str().to_owned()),
        tags: answer.tags.unwrap_or_default().into_iter().collect(),
    }
}

fn only_v1(
    name: &str,
    arn: String,
    answer: aws_sdk_apigateway::operation::get_domain_name::GetDomainNameOutput,
) -> Domain {
    let types = answer
        .endpoint_configuration
        .and_then(|e| e.types)
        .unwrap_or_default();
    Domain {
        name: name.to_owned(),
        arn,
        certificate_arn: answer.regional_certificate_arn.unwrap_or_default(),
        ownership_certificate_arn: None,
        truststore: None,
        status: DomainStatus::of(answer.domain_name_status.as_ref().map_or("", |s| s.as_str())),
        status_message: answer
            .domain_name_status_message
            .filter(|message| !message.is_empty()),
        target: normalise(
            &answer
                .regional_domain_name
                .or(answer.distribution_domain_name)
                .unwrap_or_default(),
        ),
        hosted_zone_id: answer
            .regional_hosted_zone_id
            .or(answer.distribution_hosted_zone_id)
            .unwrap_or_default(),
        ip_address_type: IpAddressType::Ipv4,
        endpoint_type: types.first().map_or("unknown", |t| t.as_str()).to_owned(),
        security_policy: answer
            .security_policy
            .map_or(String::new(), |p| p.as_str().to_owned()),
        routing_mode: answer
            .routing_mode
            .map_or(String::new(), |mode| mode.as_str().to_owned()),
        tags: answer.tags.unwrap_or_default().into_iter().collect(),
    }
}
