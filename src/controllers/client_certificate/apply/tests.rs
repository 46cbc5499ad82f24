//! Tests of `apply`.

use super::{Outcome, apply};

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::{
    controllers::client_certificate::fixture::certificate,
    issuance::{
        desired::desired,
        execute::ApplyContext,
        issuer::{Issuer, tests::Deferred},
        leaf_secret::held,
        observed::{Observed, Past},
        plan::plan,
    },
    pki::{
        authority::tests::{at, issuer},
        truststore::{Bundle, Entry},
    },
    runtime::fake,
    trust::active_trust::Trust,
};
use crate::{runtime::workers::Workers, telemetry::metrics::Metrics};

#[tokio::test]
async fn a_pending_request_keeps_its_staged_key_until_the_leaf_is_written() {
    let secrets = Arc::<Mutex<BTreeMap<String, Secret>>>::default();
    let log = Arc::<Mutex<Vec<String>>>::default();
    let (stored, calls) = (secrets.clone(), log.clone());
    let client = fake::client(move |method, path, body| {
        let mut stored = stored.lock().unwrap();
        let name = match body["metadata"]["name"].as_str() {
            Some(name) => name.to_owned(),
            None => path.rsplit('/').next().unwrap().to_owned(),
        };
        calls.lock().unwrap().push(format!("{method} {name}"));
        if method == "DELETE" {
            stored.remove(&name);
            return (200, json!({"kind": "Status", "status": "Success"}));
        }
        stored.insert(name, serde_json::from_value(body.clone()).unwrap());
        (201, body)
    });
    let now = at("2026-11-24T12:00:00Z");
    let cert = certificate(|_| {});
    let d = desired(&cert, None, None).unwrap();
    let deferred = Arc::new(Deferred::new(issuer("Partners", now), 2));
    let entry = Entry {
        authority: "partners".into(),
        certificate: deferred.authority.chain().authority().clone(),
        max_leaf: Some(SignedDuration::from_hours(2160)),
        keep_until: None,
    };
    let bundle = Bundle {
        entries: vec![entry],
        ..Bundle::default()
    };
    let apply_context = ApplyContext {
        cert: &cert,
        d: &d,
        password: None,
        client: &client,
        workers: &Workers::start(&Metrics::new().0).unwrap(),
    };
    let expected: [(&str, &[&str]); 5] = [
        ("done", &["POST client1-next"]),
        ("pending", &[]),
        ("pending", &[]),
        ("issued", &["POST client1", "DELETE client1-next"]),
        ("done", &[]),
    ];
    let mut staged = None;
    for (reconcile, (outcome, writes)) in expected.into_iter().enumerate() {
        let [secret, next] =
            ["client1", "client1-next"].map(|name| secrets.lock().unwrap().get(name).cloned());
        staged = staged.or(next
            .as_ref()
            .and_then(|next| next.data.clone()?.remove("tls.key")));
        let mut o = Observed {
            domain_gone: false,
            issuer: Ok(Some(Issuer::Deferred(deferred.clone()))),
            secret: None,
            next: None,
            past: Past::default(),
            password: None,
            trust: Some(Trust::of(&bundle, None, now)),
        };
        if let Some(secret) = secret {
            o.secret = Some(held(&d, secret, None));
        }
        if let Some(next) = next {
            o.next = Some(held(&d, next, None));
        }
        let planned = plan(&d, &o, SignedDuration::ZERO, now);
        let found = match apply(&apply_context, &planned, &o, now).await.unwrap() {
            Outcome::Issued { .. } => "issued",
            Outcome::Pending => "pending",
            Outcome::Done | Outcome::Completed | Outcome::Contested(_) => "done",
        };
        let written = std::mem::take(&mut *log.lock().unwrap());
        assert_eq!(
            (found, &written[..]),
            (
                outcome,
                &writes.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()[..]
            ),
            "{reconcile}"
        );
    }
    let issued = secrets.lock().unwrap()["client1"].data.clone().unwrap();
    assert!(staged.is_some() && staged.as_ref() == issued.get("tls.key"));
}
