//! Certificates in ACM: public, imported, in other states; and what the domain's status and Events say of
//! them.
use aws_sdk_acm::{
    primitives::Blob,
    types::{CertificateDetail, ValidationMethod},
};
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ResourceRecord, ResourceRecordSet, RrType};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::events::v1::Event, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Api, api::ListParams};
use mtls_operator::api::CertificateState as Shown;
use rcgen::{CertificateParams, DnType, KeyPair};
use sandbox::control::CertificateState;
use serde_json::{Value, json};

use crate::support::{test_env::TestEnv, world::eventually};

pub const DAY: SignedDuration = SignedDuration::from_hours(24);

pub fn in_days(days: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * days)
}

#[allow(clippy::cast_precision_loss)] // whole seconds of this century
pub fn epoch(at: Timestamp) -> Option<f64> {
    Some(at.as_second() as f64)
}

/// Puts a certificate into a state that only AWS causes.
pub async fn becomes(env: &TestEnv, state: CertificateState<'_>) {
    assert_eq!(
        env.control().set_certificate(&state).await.expect("the emulator"),
        1,
        "{state:?}"
    );
}

pub async fn described(env: &TestEnv, arn: &str) -> CertificateDetail {
    let answer = env.acm().describe_certificate().certificate_arn(arn).send().await;
    answer
        .expect("DescribeCertificate")
        .certificate
        .expect("a certificate")
}

pub async fn upsert(env: &TestEnv, zone_id: &str, name: &str, value: &str) {
    let value = ResourceRecord::builder().value(value).build().unwrap();
    let record = ResourceRecordSet::builder()
        .name(name)
        .r#type(RrType::Cname)
        .ttl(60)
        .resource_records(value);
    let change = Change::builder()
        .action(ChangeAction::Upsert)
        .resource_record_set(record.build().unwrap());
    let batch = ChangeBatch::builder()
        .changes(change.build().unwrap())
        .build()
        .unwrap();
    let request = env
        .route53()
        .change_resource_record_sets()
        .hosted_zone_id(zone_id)
        .change_batch(batch);
    request.send().await.expect("the record can be written");
}

/// Creates another user's public certificate for a name in the zone of this environment, ISSUED.
pub async fn public(env: &TestEnv, name: &str) -> String {
    let request = env
        .acm()
        .request_certificate()
        .domain_name(name)
        .validation_method(ValidationMethod::Dns);
    let arn = request
        .send()
        .await
        .expect("RequestCertificate")
        .certificate_arn
        .expect("an ARN");
    let record = described(env, &arn).await.domain_validation_options()[0]
        .resource_record()
        .unwrap()
        .clone();
    upsert(env, &env.prepared.zone_id, record.name(), record.value()).await;
    eventually("their certificate", async || {
        let status = described(env, &arn).await.status.expect("a status");
        if status.as_str() == "ISSUED" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    arn
}

/// Imports another user's own certificate for a name, under an ARN that exists or a new one.
pub async fn imported(env: &TestEnv, name: &str, days: i64, arn: Option<&str>) -> String {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    let end = in_days(days).to_zoned(jiff::tz::TimeZone::UTC);
    let (month, day) = (end.month().unsigned_abs(), end.day().unsigned_abs());
    params.not_after = rcgen::date_time_ymd(end.year().into(), month, day);
    let certificate = Blob::new(params.self_signed(&key).expect("a certificate").pem());
    let request = env
        .acm()
        .import_certificate()
        .certificate(certificate)
        .private_key(Blob::new(key.serialize_pem()));
    let answer = request
        .set_certificate_arn(arn.map(str::to_owned))
        .send()
        .await
        .expect("ImportCertificate");
    answer.certificate_arn.expect("an ARN")
}

pub fn existing(arn: &str, ownership_arn: Option<&str>) -> Value {
    let mut existing = json!({"arn": arn});
    if let Some(arn) = ownership_arn {
        existing["ownershipVerificationArn"] = json!(arn);
    }
    json!({"serverCertificate": {"existing": existing, "request": null}})
}

/// Changes the certificate of the spec, and waits until the domain is Ready with it.
pub async fn changed(env: &TestEnv, spec: Value) {
    env.change("d", spec).await;
    env.ready("d").await;
}

pub async fn refused(env: &TestEnv, reason: &str, says: &str) -> Condition {
    let told = |c: &Condition| c.status == "False" && c.reason == reason && c.message.contains(says);
    let condition = env.condition("d", "CertificateIssued", told).await;
    env.condition("d", "Ready", |c| {
        c.status == "False" && c.message == condition.message
    })
    .await;
    condition
}

/// Certificate that the custom domain has, and the certificate that proves its name.
pub async fn in_use(env: &TestEnv) -> (String, Option<String>) {
    let config = env
        .gateway_domain()
        .await
        .domain_name_configurations
        .unwrap_or_default()
        .remove(0);
    let ownership = config
        .ownership_verification_certificate_arn
        .filter(|arn| !arn.is_empty());
    (config.certificate_arn.expect("a certificate"), ownership)
}

/// Certificate in the status, once `is` holds.
pub async fn shown(env: &TestEnv, what: &str, is: impl Fn(&Shown) -> bool) -> Shown {
    eventually(what, async || {
        let status = env
            .domains()
            .get("d")
            .await
            .map_err(|e| e.to_string())?
            .status
            .unwrap_or_default();
        status
            .certificate
            .clone()
            .filter(&is)
            .ok_or_else(|| format!("{:?}", status.certificate))
    })
    .await
}

/// Type and text of the Events of that reason, in order.
pub async fn events(env: &TestEnv, reason: &str) -> Vec<(String, String)> {
    let all = Api::<Event>::namespaced(env.client.clone(), &env.namespace)
        .list(&ListParams::default())
        .await;
    let of = all
        .expect("Events")
        .items
        .into_iter()
        .filter(|e| e.reason.as_deref() == Some(reason));
    of.map(|e| (e.type_.unwrap_or_default(), e.note.unwrap_or_default()))
        .collect()
}

/// Waits for the one Event of that reason.
pub async fn told(env: &TestEnv, reason: &str, type_: &str, says: &str) {
    eventually(&format!("an Event {reason}"), async || {
        match events(env, reason).await.as_slice() {
            [(t, note)] if t == type_ && note.contains(says) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

pub fn count(writes: &[String], operation: &str) -> usize {
    writes.iter().filter(|w| w.starts_with(operation)).count()
}
