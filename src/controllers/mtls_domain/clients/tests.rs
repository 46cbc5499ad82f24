//! Tests of the certificates that count for a domain.

use super::*;

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    api::{ClientCertificate, object_id::ObjectId},
    controllers::mtls_domain::controller::tests::stage::domain,
    grants::evaluation::{Decision, Terms},
    trust::self_signed::entry_name,
};

fn certificate(
    name: &str,
    namespace: &str,
    change: impl FnOnce(&mut Value),
) -> Arc<Cached<ClientCertificate>> {
    let mut object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "ClientCertificate",
        "metadata": {"name": name, "namespace": namespace, "uid": name},
        "spec": {
            "domainRef": {"name": "partners", "namespace": "shop"}, "issuance": "SelfSigned",
            "subject": {"commonName": name},
        },
    });
    change(&mut object);
    Arc::new(serde_json::from_value(object).unwrap())
}

fn terms(max: Option<i64>) -> Terms {
    let max_duration = max.map(jiff::SignedDuration::from_hours);
    Terms {
        grant: "g".into(),
        authority: None,
        max_duration,
        not_after: None,
        max_bytes: 65_536,
        is_counted: false,
    }
}

#[test]
fn only_granted_cross_namespace_certificates_count() {
    let me = domain(|_| {});
    let key = ObjectId::new("shop", "partners");
    let own = certificate("own", "shop", |_| {});
    let other = certificate("other", "shop", |o| {
        o["spec"]["domainRef"] = json!({"name": "another"})
    });
    let leaf = certificate("leaf", "shop", |o| {
        o["spec"]["issuance"] = json!("Authority");
        o["spec"]["duration"] = json!("5000h");
    });
    let damaged = certificate("damaged", "acme", |o| o["spec"] = json!(1));
    let names = ["fits", "misfits", "unknown", "leaf2"];
    let [fits, misfits, unknown, leaf2] = names.map(|name| {
        certificate(name, "acme", |o| {
            if name == "leaf2" {
                o["spec"]["issuance"] = json!("Authority");
                o["spec"]["duration"] = json!("9000h");
            }
        })
    });
    let cross_namespace = [
        (fits.clone(), Decision::Allowed(terms(Some(1)))),
        (misfits.clone(), Decision::Denied("m".into())),
        (unknown.clone(), Decision::Unknown("m".into())),
        (leaf2.clone(), Decision::Denied("m".into())),
    ];
    let all = [&own, &other, &leaf, &damaged, &fits, &misfits, &unknown, &leaf2].map(Clone::clone);
    let theirs = certificates_for(&key, all.to_vec(), &cross_namespace);
    let named = |all: &[Arc<Cached<ClientCertificate>>]| all.iter().map(|c| c.name_any()).collect::<Vec<_>>();
    assert_eq!(named(&theirs), ["own", "leaf", "fits", "unknown"]);

    let clients = clients_of(&me, &theirs, &cross_namespace, &all, None, &|_| None);
    assert_eq!(
        clients.longest.as_hours(),
        5000,
        "the longest leaf that an authority issues and that may be granted"
    );
    let entries: Vec<_> = clients
        .self_signed
        .iter()
        .map(|wanted| (wanted.entry.clone(), wanted.secrets.is_some()))
        .collect();
    let entry = |c: &Arc<Cached<ClientCertificate>>, known| (entry_name(&**c), known);
    assert_eq!(
        entries,
        [
            entry(&own, true),
            entry(&fits, true),
            entry(&unknown, false),
            entry(&damaged, false)
        ]
    );
    assert_eq!(
        clients.self_signed[1].request.duration.as_hours(),
        1,
        "no longer than the grant allows"
    );
    let shares: Vec<_> = clients
        .self_signed
        .iter()
        .map(|wanted| wanted.share.clone())
        .collect();
    let share = Share {
        grant: "g".into(),
        bytes: 65_536,
    };
    assert_eq!(shares, [None, Some(share), None, None]);
    assert_eq!(
        clients_of(&me, &[], &[], &[], None, &|_| None).longest,
        durations::DEFAULT_LEAF
    );
}
