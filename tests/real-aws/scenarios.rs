//! Actions of a user: the quickstart from nothing to nothing, and a custom domain that serves, taken over and
//! released. On the way the suite tries the emulator's assumptions, where it has the means.
use std::panic::AssertUnwindSafe;

use aws_sdk_acm::types::ValidationMethod;
use aws_sdk_apigatewayv2::types::{DomainNameConfiguration, DomainNameStatus, EndpointType, SecurityPolicy};
use aws_sdk_route53::types::{
    AliasTarget, Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType,
};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams},
};
use mtls_operator::api::{ClientCertificate, MtlsDomain};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use crate::{
    account::{Account, Identity},
    assumptions::{self, Findings},
};

/// Runs everything. A scenario that fails does not stop the assumptions. Returns the failures.
pub async fn all(account: &Account, findings: &mut Findings) -> Vec<String> {
    let _operator = account.operator().await;
    let api = assumptions::mock_api(account, "api").await;
    let mut failures = vec![];
    failures.extend(failure("quickstart", quickstart(account, &api, findings)).await);
    assumptions::without_a_domain(account, findings).await;
    let domain = by_hand(account, &api, findings).await;
    assumptions::with_a_domain(account, &domain, findings).await;
    failures.extend(failure("take-over", take_over(account, &api, &domain)).await);
    assumptions::at_the_end(account, &domain, findings).await;
    failures
}

async fn failure(scenario: &str, run: impl Future<Output = ()>) -> Option<String> {
    let panic = AssertUnwindSafe(run).catch_unwind().await.err()?;
    let failure = format!("{scenario}: {}", assumptions::text_of(&*panic));
    println!("{failure}");
    Some(failure)
}

/// Quickstart from nothing to an endpoint that requires a client certificate, and back.
async fn quickstart(account: &Account, api: &str, findings: &mut Findings) {
    let host = account.host("quick");
    let spec = json!({
        "domainName": host,
        "truststore": {"bucketCreation": "IfMissing"},
        "trust": {"authorities": [{"name": "partners", "generate": {}}]},
        "mappings": [{"path": "", "api": {"id": api, "stage": "prod"}}],
        "dns": {"route53": {"hostedZoneId": account.zone_id}},
    });
    create(account, "MtlsDomain", "quick", spec).await;
    let spec = json!({
        "domainRef": {"name": "quick"}, "subject": {"commonName": "client1"}, "secretName": "client1",
    });
    create(account, "ClientCertificate", "client1", spec).await;
    ready(account, "MtlsDomain", "quick").await;
    ready(account, "ClientCertificate", "client1").await;

    let secret = Api::<Secret>::namespaced(account.client(), account.namespace())
        .get("client1")
        .await
        .expect("the Secret");
    let text =
        |key: &str| String::from_utf8(secret.data.as_ref().expect("data")[key].0.clone()).expect("PEM");
    let client1 = Identity {
        certificate: text("tls.crt"),
        key: text("tls.key"),
    };
    let front = regional(account, &host).await;
    let status = async |caller: Option<&Identity>| account.status(&host, &front, "/", caller, &[]).await;
    account
        .eventually("client1 is answered", async || {
            expect("200", &status(Some(&client1)).await)
        })
        .await;
    account
        .settles("without a certificate", "000", async || status(None).await)
        .await;
    let unknown = self_signed("client1");
    account
        .settles("the same name by an unknown authority", "403", async || {
            status(Some(&unknown)).await
        })
        .await;
    let closed = execute_api(account, api);
    account
        .settles("the API's own endpoint", "403", async || {
            account.status(&closed, &closed, "/prod/", None, &[]).await
        })
        .await;
    assumptions::with_mutual_tls(account, api, &host, &front, findings).await;

    delete::<ClientCertificate>(account, "client1").await;
    delete::<MtlsDomain>(account, "quick").await;
    println!("quickstart: {host} answered client1 and no other caller, and is gone");
}

/// Custom domain without mutual TLS that answers every caller, made by hand.
pub struct ByHand {
    pub host: String,
    /// Target of the alias for the domain's name.
    pub front: String,
}

async fn by_hand(account: &Account, api: &str, findings: &mut Findings) -> ByHand {
    let host = account.host("hand");
    let certificate = certificate(account, &host).await;
    let config = DomainNameConfiguration::builder()
        .certificate_arn(&certificate)
        .endpoint_type(EndpointType::Regional)
        .security_policy(SecurityPolicy::Tls12)
        .build();
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk);
    account
        .eventually("CreateDomainName", async || {
            let request = gateway
                .create_domain_name()
                .domain_name(&host)
                .domain_name_configurations(config.clone());
            request.send().await.map(|_| ()).map_err(|e| format!("{e:?}"))
        })
        .await;
    settled(account, &host).await;
    assumptions::of_certificates_in_use(account, &certificate, findings).await;
    let mapping = gateway
        .create_api_mapping()
        .domain_name(&host)
        .api_id(api)
        .stage("prod")
        .send()
        .await;
    let mapping = mapping.expect("CreateApiMapping").api_mapping_id.expect("an id");
    findings
        .item("mapping-known-before-listed", async {
            let get = gateway.get_api_mapping().domain_name(&host);
            let known = get.api_mapping_id(mapping).send().await;
            (known.is_ok(), format!("{known:?}"))
        })
        .await;

    let domain = gateway
        .get_domain_name()
        .domain_name(&host)
        .send()
        .await
        .expect("GetDomainName");
    let config = domain.domain_name_configurations.expect("one").remove(0);
    let front = config.api_gateway_domain_name.expect("a name");
    let target = AliasTarget::builder()
        .dns_name(&front)
        .hosted_zone_id(config.hosted_zone_id.expect("a zone"))
        .evaluate_target_health(false)
        .build()
        .expect("complete");
    let alias = ResourceRecordSet::builder()
        .name(&host)
        .r#type(RrType::A)
        .alias_target(target)
        .build();
    change_record(account, ChangeAction::Upsert, alias.expect("complete")).await;
    let status = async || expect("200", &account.status(&host, &front, "/", None, &[]).await);
    account.eventually("everybody is answered", status).await;
    ByHand { host, front }
}

/// Gives the domain mutual TLS in place, and checks that it stays so when the object goes.
async fn take_over(account: &Account, api: &str, domain: &ByHand) {
    let caller = self_signed("caller");
    let spec = json!({
        "domainName": domain.host,
        "adoptionPolicy": "Unowned",
        "trust": {"authorities": [{"name": "caller", "pem": caller.certificate}]},
        "mappings": [{"path": "", "api": {"id": api, "stage": "prod"}}],
        "dns": {"route53": {"hostedZoneId": account.zone_id}},
    });
    create(account, "MtlsDomain", "hand", spec).await;
    ready(account, "MtlsDomain", "hand").await;
    let status = async |caller: Option<&Identity>| {
        account
            .status(&domain.host, &domain.front, "/", caller, &[])
            .await
    };
    account
        .eventually("the caller is answered", async || {
            expect("200", &status(Some(&caller)).await)
        })
        .await;
    account
        .settles("without a certificate", "000", async || status(None).await)
        .await;
    delete::<MtlsDomain>(account, "hand").await;
    account
        .settles("released as it is", "200", async || status(Some(&caller)).await)
        .await;
    println!(
        "take-over: {} got mutual TLS in place, and was released",
        domain.host
    );
}

// ---- Kubernetes

async fn create(account: &Account, kind: &str, name: &str, spec: Value) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mtls-operator.io", "v1alpha1", kind));
    let api = Api::<DynamicObject>::namespaced_with(account.client(), account.namespace(), &resource);
    let object = DynamicObject::new(name, &resource).data(json!({"spec": spec}));
    api.create(&PostParams::default(), &object)
        .await
        .expect("the API server takes it");
}

async fn ready(account: &Account, kind: &str, name: &str) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mtls-operator.io", "v1alpha1", kind));
    let api = Api::<DynamicObject>::namespaced_with(account.client(), account.namespace(), &resource);
    account
        .eventually(&format!("{kind} {name} is Ready"), async || {
            let object = api.get(name).await.map_err(|e| e.to_string())?;
            let conditions = object.data["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let is_ready = conditions
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            if is_ready {
                Ok(())
            } else {
                Err(json!(conditions).to_string())
            }
        })
        .await;
}

async fn delete<K>(account: &Account, name: &str)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api = Api::<K>::namespaced(account.client(), account.namespace());
    api.delete(name, &DeleteParams::default())
        .await
        .expect("the object can be deleted");
    account
        .eventually(&format!("{name} is gone"), async || {
            let left = api.get_opt(name).await.map_err(|e| e.to_string())?;
            left.map_or(Ok(()), |left| Err(format!("{left:?}")))
        })
        .await;
}

// ---- AWS

fn expect(wanted: &str, status: &str) -> Result<(), String> {
    if status == wanted {
        Ok(())
    } else {
        Err(status.to_owned())
    }
}

pub fn execute_api(account: &Account, api: &str) -> String {
    format!("{api}.execute-api.{}.amazonaws.com", account.region)
}

/// Custom domain's own name in AWS.
async fn regional(account: &Account, host: &str) -> String {
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk);
    let domain = gateway
        .get_domain_name()
        .domain_name(host)
        .send()
        .await
        .expect("GetDomainName");
    let config = domain.domain_name_configurations.expect("one").remove(0);
    config.api_gateway_domain_name.expect("a name")
}

/// Waits until the domain takes changes.
pub async fn settled(account: &Account, host: &str) {
    let gateway = aws_sdk_apigatewayv2::Client::new(&account.sdk);
    account
        .eventually(&format!("{host} is AVAILABLE"), async || {
            let domain = gateway
                .get_domain_name()
                .domain_name(host)
                .send()
                .await
                .map_err(|e| format!("{e:?}"))?;
            let config = domain.domain_name_configurations.unwrap_or_default().pop();
            let status = config.and_then(|c| c.domain_name_status);
            if status == Some(DomainNameStatus::Available) {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
}

/// Certificate that is ISSUED, by a record in the zone.
async fn certificate(account: &Account, host: &str) -> String {
    let acm = aws_sdk_acm::Client::new(&account.sdk);
    let request = acm
        .request_certificate()
        .domain_name(host)
        .validation_method(ValidationMethod::Dns);
    let arn = request
        .send()
        .await
        .expect("RequestCertificate")
        .certificate_arn
        .expect("an ARN");
    let described = async || {
        let answer = acm
            .describe_certificate()
            .certificate_arn(&arn)
            .send()
            .await
            .map_err(|e| format!("{e:?}"))?;
        answer.certificate.ok_or_else(|| "no certificate".to_owned())
    };
    let validation = account
        .eventually("the validation record", async || {
            let options = described().await?.domain_validation_options.unwrap_or_default();
            options
                .first()
                .and_then(|o| o.resource_record.clone())
                .ok_or_else(|| format!("{options:?}"))
        })
        .await;
    let value = ResourceRecord::builder()
        .value(&validation.value)
        .build()
        .expect("complete");
    let record = ResourceRecordSet::builder()
        .name(&validation.name)
        .r#type(RrType::Cname)
        .ttl(60);
    change_record(
        account,
        ChangeAction::Upsert,
        record.resource_records(value).build().expect("complete"),
    )
    .await;
    account
        .eventually("the certificate is ISSUED", async || {
            let status = described().await?.status;
            if status.as_ref().is_some_and(|s| s.as_str() == "ISSUED") {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
    arn
}

pub async fn change_record(account: &Account, action: ChangeAction, record: ResourceRecordSet) {
    let change = Change::builder()
        .action(action)
        .resource_record_set(record)
        .build()
        .expect("complete");
    let batch = ChangeBatch::builder().changes(change).build().expect("complete");
    let request = aws_sdk_route53::Client::new(&account.sdk).change_resource_record_sets();
    let request = request.hosted_zone_id(&account.zone_id).change_batch(batch);
    request.send().await.expect("ChangeResourceRecordSets");
}

/// Certificate that is itself in the truststore, or nowhere.
pub fn self_signed(common_name: &str) -> Identity {
    self_signed_until(common_name, rcgen::date_time_ymd(2045, 1, 1))
}

/// Certificate as the operator makes it with `issuance: SelfSigned`, which says that it is no authority, and
/// a certificate that is signed with its key.
pub fn anchor_and_child() -> (Identity, Identity) {
    let make = |common_name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2045, 1, 1));
        (params, KeyPair::generate().expect("a key"))
    };
    let ((anchor, anchor_key), (child, child_key)) = (make("anchor"), make("child"));
    let certificate = anchor.self_signed(&anchor_key).expect("a certificate").pem();
    let issuer = Issuer::new(anchor, &anchor_key);
    let signed = child.signed_by(&child_key, &issuer).expect("a certificate").pem();
    let child = Identity {
        certificate: signed,
        key: child_key.serialize_pem(),
    };
    (
        Identity {
            certificate,
            key: anchor_key.serialize_pem(),
        },
        child,
    )
}

pub fn self_signed_until(common_name: &str, not_after: time::OffsetDateTime) -> Identity {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), not_after);
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    Identity {
        certificate,
        key: key.serialize_pem(),
    }
}
