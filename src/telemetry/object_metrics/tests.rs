//! Tests of `object_metrics`.

use super::*;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;

use kube::{
    core::DeserializeGuard,
    runtime::{
        reflector::{self, store::Writer},
        watcher::Event,
    },
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    api::{ClientCertificate, ClientGrant, MtlsDomain},
    aws::{
        quota::{Bucket, Class, Quota, Ticket},
        rates::{Operation, Rates},
    },
};

type Cache<K> = Writer<DeserializeGuard<K>>;

/// Caches that a test fills.
struct World {
    domains: Cache<MtlsDomain>,
    certificates: Cache<ClientCertificate>,
    grants: Cache<ClientGrant>,
    leads: Arc<AtomicBool>,
    objects: Arc<Objects>,
    registry: Registry,
}

fn world(each_certificate: bool) -> World {
    let (domains, d) = reflector::store();
    let (certificates, c) = reflector::store();
    let (grants, g) = reflector::store();
    let leads = Arc::new(AtomicBool::new(true));
    let is = leads.clone();
    let objects = Arc::new(Objects {
        domains,
        certificates,
        grants,
        quota: Quota::new(Rates::with(&[])),
        leads: Box::new(move || is.load(Ordering::Relaxed)),
        each_certificate,
    });
    let mut registry = Registry::default();
    registry.register_collector(Box::new(objects.clone()));
    World {
        domains: d,
        certificates: c,
        grants: g,
        leads,
        objects,
        registry,
    }
}

/// Returns objects with a series of each metric.
pub fn one_of_each() -> Arc<Objects> {
    let mut w = world(true);
    w.domains.apply_watcher_event(&Event::Apply(domain(
        "d",
        &[condition("Ready", "Unknown", "Queued")],
    )));
    w.certificates.apply_watcher_event(&Event::Apply(certificate(
        "c",
        "True",
        "2026-01-01T00:00:00Z",
        false,
    )));
    wait(&w.objects.quota, "n/d", 0);
    w.objects
}

/// Requests a ticket for a call that has to wait.
fn wait(quota: &Quota, object: &str, since: i64) {
    let bucket = Bucket::new("111111111111", "eu-west-1", Operation::UpdateDomainName);
    let since = Timestamp::from_second(since).unwrap();
    let ticket = Ticket {
        class: Class::SpecChange,
        since,
        object: object.into(),
    };
    quota.request(&bucket, ticket, String::new());
}

impl World {
    fn shown(&self) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    fn assert_shown(&self, lines: &[&str]) {
        let shown = self.shown();
        for line in lines {
            assert!(
                shown.iter().any(|l| l == line),
                "{line} is not in\n{}",
                shown.join("\n")
            );
        }
    }
}

fn object<K: DeserializeOwned + kube::Resource<DynamicType = ()>>(
    kind: &str,
    name: &str,
    spec: &Value,
    status: &Value,
) -> DeserializeGuard<K> {
    let object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": kind,
        "metadata": {"namespace": "n", "name": name},
        "spec": spec, "status": status,
    });
    DeserializeGuard(Ok(serde_json::from_value(object).unwrap()))
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn domain(name: &str, conditions: &[Value]) -> DeserializeGuard<MtlsDomain> {
    let trust = json!({"authorities": [
        {"name": "partners", "generate": {}},
        {"name": "others", "configMapSelector": {"matchLabels": {"a": "b"}}},
    ]});
    let spec = json!({"domainName": "a.example.com", "trust": trust, "mappings": []});
    let authority =
        |name: &str, not_after: &str| json!({"name": name, "subject": "CN=x", "notAfter": not_after});
    let status = json!({
        "conditions": conditions,
        "certificate": {"arn": "arn:x", "status": "ISSUED", "notAfter": "1970-01-01T00:01:40Z"},
        "truststore": {"uri": "s3://b/k", "authorities": [
            authority("partners", "1970-01-01T00:05:00Z"),
            authority("partners", "1970-01-01T00:03:20Z"),
            authority("others/map", "1970-01-01T00:06:40Z"),
            authority("left-the-spec", "1970-01-01T00:00:01Z"),
        ]},
    });
    object("MtlsDomain", name, &spec, &status)
}

fn certificate(name: &str, ready: &str, renewal: &str, suspend: bool) -> DeserializeGuard<ClientCertificate> {
    let spec = json!({
        "domainRef": {"name": "d"}, "subject": {"commonName": name}, "secretName": name,
        "suspend": suspend,
    });
    let refused = if ready == "False" { "False" } else { "True" };
    let conditions = [
        condition("Accepted", refused, "Accepted"),
        condition("Ready", ready, "Ready"),
    ];
    let status =
        json!({"conditions": conditions, "notAfter": "1970-01-01T00:16:40Z", "renewalTime": renewal});
    object("ClientCertificate", name, &spec, &status)
}

#[test]
fn the_series_of_an_object_disappear_with_it() {
    let mut w = world(true);
    let blocked = domain(
        "d",
        &[
            condition("Ready", "False", "PermissionDenied"),
            condition("Accepted", "True", "Accepted"),
            condition("SomebodyElses", "False", "Whatever"),
        ],
    );
    w.domains.apply_watcher_event(&Event::Apply(blocked));
    let one = certificate("one", "True", "1970-01-01T00:10:00Z", false);
    w.certificates.apply_watcher_event(&Event::Apply(one.clone()));
    let spec = json!({"domainRef": {"name": "d"}, "namespaces": {"names": ["m"]}, "commonNames": ["x"]});
    let grant = object(
        "ClientGrant",
        "g",
        &spec,
        &json!({"conditions": [condition("Ready", "True", "Ready")]}),
    );
    w.grants.apply_watcher_event(&Event::Apply(grant));
    let of = r#"kind="MtlsDomain",namespace="n",name="d""#;
    w.assert_shown(&[
    &format!(r#"condition_status{{{of},type="Ready",status="True"}} 0"#),
    &format!(r#"condition_status{{{of},type="Ready",status="False"}} 1"#),
    &format!(r#"condition_status{{{of},type="Ready",status="Unknown"}} 0"#),
    &format!(r#"condition_reason{{{of},type="Ready",reason="PermissionDenied"}} 1"#),
    r#"condition_status{kind="ClientGrant",namespace="n",name="g",type="Ready",status="True"} 1"#,
    r#"condition_status{kind="ClientCertificate",namespace="n",name="one",type="Ready",status="True"} 1"#,
    r#"certificate_expiration_timestamp_seconds{certificate="server",namespace="n",name="d"} 100"#,
    r#"certificate_expiration_timestamp_seconds{certificate="authority",namespace="n",name="d",authority="partners"} 200"#,
    r#"certificate_expiration_timestamp_seconds{certificate="authority",namespace="n",name="d",authority="others/map"} 400"#,
    r#"certificate_expiration_timestamp_seconds{certificate="client",namespace="n",name="one"} 1000"#,
    r#"certificate_renewal_timestamp_seconds{certificate="client",namespace="n",name="one"} 600"#,
]);
    let shown = w.shown().join("\n");
    for absent in ["SomebodyElses", "left-the-spec", r#"type="Accepted",reason"#] {
        assert!(!shown.contains(absent), "{absent} in\n{shown}");
    }

    // One process leads, and only that process shows the series.
    w.leads.store(false, Ordering::Relaxed);
    assert_eq!(w.shown(), [""; 0]);
    w.leads.store(true, Ordering::Relaxed);
    w.domains.apply_watcher_event(&Event::Delete(domain("d", &[])));
    w.certificates.apply_watcher_event(&Event::Delete(one));
    w.grants
        .apply_watcher_event(&Event::Delete(object("ClientGrant", "g", &spec, &json!({}))));
    assert_eq!(w.shown(), [""; 0]);
}

#[test]
fn certificates_are_summed_up_by_domain() {
    let mut w = world(false);
    for (name, ready, renewal, suspend) in [
        ("one", "True", "1970-01-01T00:10:00Z", false),
        ("two", "True", "1970-01-01T00:05:00Z", false),
        ("three", "Unknown", "1970-01-01T00:20:00Z", false),
        // Neither is renewed, as intended.
        ("suspended", "True", "1970-01-01T00:00:01Z", true),
        ("refused", "False", "1970-01-01T00:00:01Z", false),
    ] {
        w.certificates
            .apply_watcher_event(&Event::Apply(certificate(name, ready, renewal, suspend)));
    }
    assert_eq!(
        w.shown(),
        [
            r#"client_certificates{namespace="n",name="d",ready="True"} 3"#,
            r#"client_certificates{namespace="n",name="d",ready="False"} 1"#,
            r#"client_certificates{namespace="n",name="d",ready="Unknown"} 1"#,
            r#"client_certificates_next_renewal_timestamp_seconds{namespace="n",name="d"} 300"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_ticket_is_shown_until_it_is_granted() {
    let w = world(true);
    wait(&w.objects.quota, "n/d", 1000);
    wait(&w.objects.quota, "n/e", 2000);
    w.assert_shown(&[
    r#"aws_quota_place{namespace="n",name="d",operation="UpdateDomainName"} 0"#,
    r#"aws_quota_place{namespace="n",name="e",operation="UpdateDomainName"} 1"#,
    r#"aws_quota_queue_position{namespace="n",name="d",operation="UpdateDomainName"} 0"#,
    r#"aws_quota_queue_position{namespace="n",name="e",operation="UpdateDomainName"} 1"#,
    r#"aws_quota_wait_seconds{namespace="n",name="d",operation="UpdateDomainName"} 30"#,
    r#"aws_quota_wait_seconds{namespace="n",name="e",operation="UpdateDomainName"} 60"#,
    r#"aws_quota_waiting_since_timestamp_seconds{namespace="n",name="e",operation="UpdateDomainName"} 2000"#,
]);
    w.objects.quota.withdraw("n/d");
    w.objects.quota.withdraw("n/e");
    assert_eq!(w.shown(), [""; 0]);
}

/// Measures a scrape with the maximum number of certificates: some megabytes, for a moment.
#[test]
fn ten_thousand_certificates_are_a_few_megabytes_of_text() {
    let mut w = world(true);
    for i in 0..10_000 {
        let one = certificate(&format!("client-{i}"), "True", "2026-01-01T00:10:00Z", false);
        w.certificates.apply_watcher_event(&Event::Apply(one));
    }
    let mut text = String::new();
    encode(&mut text, &w.registry).unwrap();
    assert!(text.len() < 5_000_000, "{}", text.len());
}
