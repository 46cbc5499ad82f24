//! The upgrade gate: a world that an earlier release made, restored to its recorded state, meets the operator
//! of this build and the CRDs of this tree. The test fails on every write to AWS or Kubernetes that
//! [`EXPECTED`] does not name, and on every caller who gets another answer than before.
//!
//! `world/` holds the record; its README.md describes the content. The record is created again when a release
//! is made and at no other time, by that release's own build, so that the test covers the state that users
//! have:
//!
//!     RECORD_WORLD=1 cargo test --test upgrade
//!
//! **Intended writes.** A change of the operator may have to write something once to the resources of an
//! earlier release. Add a line to [`EXPECTED`] for it, as narrow as it can be and with the reason, and say so
//! in CHANGELOG.md. The failing test prints the line to add. A line for a write that does not come is wrong,
//! too, and all lines go when the world is recorded again.
mod fixture;
mod record;
mod stage;
mod writes;

use std::{collections::BTreeSet, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use sandbox::{api_proxy::ApiProxy, control::Calls};
use serde_json::Value;
use tokio::sync::watch;

use fixture::{Recorded, folder};
use stage::{Caller, Identity, Stage, eventually, full_name, of_kind};
use writes::{Expected, judge, of_event, of_objects, to_aws, to_kubernetes};

/// Writes that an upgrade from the recorded release makes.
const EXPECTED: &[Expected] = &[
    Expected {
        what: &["Event KeystorePasswordMissing"],
        whose: &["client-certificates/acme"],
        at_most: 1,
        why: "the Secret of a keystore's password needs a label, and the recorded one has none",
    },
    Expected {
        what: &["AWS PutObject", "AWS UpdateDomainName"],
        whose: &["cross-signed/partners"],
        at_most: 1,
        why: "of two certificates of one name and key the self-signed one, whose chain nothing can break, \
              takes the place",
    },
    Expected {
        what: &["AWS PutObject", "AWS UpdateDomainName"],
        whose: &["distrusted/partners"],
        at_most: 1,
        why: "the truststore object records the keys that a Distrusted entry keeps out from now on",
    },
    Expected {
        what: &["Kubernetes PATCH mtlsdomains/status"],
        whose: &["cross-signed/partners", "distrusted/partners"],
        at_most: 6,
        why: "the truststore's version and warnings, and the steps on the way",
    },
    Expected {
        what: &["Kubernetes PATCH mtlsdomains/status"],
        whose: &[
            "eku/partners",
            "extra-in-ca-crt/partners",
            "key-usage/partners",
            "path-length/partners",
        ],
        at_most: 2,
        why: "new warnings: constraints of authorities, and certificates that an earlier release trusted \
              beside a chain",
    },
    Expected {
        what: &["Kubernetes PATCH mtlsdomains/status"],
        whose: &[
            "client-certificates/partners",
            "client-grant/partners",
            "existing-truststore/partners",
            "former-authority/partners",
            "gitops/partners",
            "identity-authorizer/partners",
            "identity-rest-api/partners",
            "issuing-secret/partners",
            "observed/partners",
            "options/partners",
            "pasted/partners",
            "private-ca/partners",
            "quickstart/partners",
            "renewed/partners",
            "rest-api/partners",
            "selector/partners",
            "self-signed-granted/partners",
            "self-signed-openssl-req/partners",
            "self-signed/partners",
            "two-generated/partners",
            "unlisted-mapping/partners",
        ],
        at_most: 1,
        why: "condition messages in the field's words",
    },
    Expected {
        what: &["Kubernetes PATCH clientcertificates/status"],
        whose: &[
            "client-certificates/acme",
            "client-certificates/globex",
            "client-certificates/initech",
            "client-grant-acme/orders",
            "client-grant/client1",
            "distrusted/client1",
            "extra-in-ca-crt/client1",
            "former-authority/client1",
            "gitops-acme/acme-orders",
            "identity-authorizer/client1",
            "identity-rest-api/client1",
            "issuing-secret/client1",
            "options/client1",
            "quickstart/client1",
            "renewed/client1",
            "renewed/itself",
            "rest-api/client1",
            "selector/client1",
            "self-signed-granted-tenant/orders",
            "two-generated/client1",
        ],
        at_most: 1,
        why: "condition messages in the field's words",
    },
    Expected {
        what: &["Kubernetes PATCH clientgrants/status"],
        whose: &["client-grant/acme", "gitops/acme", "self-signed-granted/tenant"],
        at_most: 1,
        why: "condition messages in the field's words",
    },
];

/// Number of namespaces that the operator is given at a time. A certificate whose domain has not been read
/// ten seconds after the start says so in its status, which on a busy machine is no fault of the upgrade.
const AT_A_TIME: usize = 10;

/// Number of times that the operator reads all of AWS about each domain without a write before it counts as
/// finished.
const RESYNCS: usize = 3;
/// Maximum number of such times, should the operator write forever.
const MOST_RESYNCS: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_makes_only_expected_writes_and_refuses_no_caller() {
    if std::env::var_os("RECORD_WORLD").is_some() {
        record_world().await;
    }
    let recorded = Recorded::read();
    let stage = Stage::start().await;
    let namespaces = recorded.namespaces();

    // The recorded state first, and then the steps of `helm upgrade`.
    stage
        .world
        .kubernetes
        .install_crds(&folder("crds"))
        .await
        .expect("the CRDs of then");
    stage
        .world
        .kubernetes
        .restore(&recorded.objects)
        .await
        .expect("the objects of then");
    stage.load(&recorded.aws).await;
    stage
        .world
        .kubernetes
        .install_crds(&root().join("crds"))
        .await
        .expect("the CRDs of this tree");
    let proxy = ApiProxy::start(stage.world.kubernetes.admin_config())
        .await
        .expect("a proxy");
    stage.grant(&namespaces).await;
    let (before, mark) = (stage.objects(&namespaces).await, stage.last_call().await);
    assert_eq!(before.len(), recorded.objects.len(), "all objects are restored");

    let mut wrong = BTreeSet::new();
    for group in groups(&before) {
        wrong.extend(upgraded(&stage, &proxy, &recorded, &group, &before).await);
    }
    wrong.extend(wrong_answers(&stage, &recorded.callers.iter().collect::<Vec<_>>(), "afterwards").await);
    wrong.extend(let_in(&stage, &recorded).await);

    let to_aws_since = Calls {
        since: mark,
        writes: true,
        ..Calls::default()
    };
    let calls = stage
        .control()
        .calls(&to_aws_since)
        .await
        .expect("the journal")
        .calls;
    let mut writes: Vec<_> = calls.iter().map(|call| to_aws(call, &before)).collect();
    let requests = proxy.seen().iter().filter_map(to_kubernetes).collect();
    writes.extend(of_objects(&before, &stage.objects(&namespaces).await, requests));
    let events = Api::<Event>::all(stage.client.clone())
        .list(&ListParams::default())
        .await
        .expect("Events");
    writes.extend(events.iter().filter_map(of_event));
    wrong.extend(judge(&writes, EXPECTED));
    assert!(
        wrong.is_empty(),
        "{} things:\n{}",
        wrong.len(),
        wrong.into_iter().collect::<Vec<_>>().join("\n")
    );
}

/// Namespaces that belong together, about [`AT_A_TIME`] of them: a domain's and those of its certificates.
fn groups(objects: &[Value]) -> Vec<Vec<String>> {
    let text =
        |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let mut groups = vec![vec![]];
    for domain in of_kind(objects, "MtlsDomain") {
        let own = text(domain, "/metadata/namespace").expect("a namespace");
        let asks = |object: &&Value| text(object, "/spec/domainRef/namespace").as_ref() == Some(&own);
        let tenants = objects
            .iter()
            .filter(asks)
            .filter_map(|object| text(object, "/metadata/namespace"));
        let all: BTreeSet<_> = tenants.chain([own.clone()]).collect();
        let last: &mut Vec<_> = groups.last_mut().expect("one at least");
        last.extend(all);
        if last.len() >= AT_A_TIME {
            groups.push(vec![]);
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Faults that callers notice while the operator of this build takes over these namespaces.
async fn upgraded(
    stage: &Stage,
    proxy: &ApiProxy,
    recorded: &Recorded,
    namespaces: &[String],
    objects: &[Value],
) -> BTreeSet<String> {
    let of_ours = |o: &&Value| {
        o["metadata"]["namespace"]
            .as_str()
            .is_some_and(|n| namespaces.iter().any(|ours| ours == n))
    };
    let objects: Vec<_> = objects.iter().filter(of_ours).cloned().collect();
    let hosts: Vec<_> = of_kind(&objects, "MtlsDomain")
        .filter_map(|d| d["spec"]["domainName"].as_str())
        .collect();
    let callers: Vec<_> = recorded
        .callers
        .iter()
        .filter(|c| hosts.contains(&c.host.as_str()))
        .collect();
    let mut operator = stage.operator(namespaces).await;
    operator
        .go_through(&proxy.url())
        .expect("its kubeconfig can be written");
    let mark = stage.last_call().await;
    operator.restart().expect("the operator starts");
    let (done, mut is_done) = watch::channel(false);
    let (_, wrong) = tokio::join!(
        async {
            until_all_is_read(stage, proxy, &objects, mark).await;
            done.send_replace(true);
        },
        async {
            let mut wrong = BTreeSet::new();
            while !*is_done.borrow_and_update() {
                wrong.extend(wrong_answers(stage, &callers, "meanwhile").await);
            }
            wrong
        },
    );
    let failed = stage
        .counted("controller_runtime_reconcile_errors_total", "")
        .await;
    assert_eq!(
        failed,
        Ok(0.0),
        "no reconcile fails; see {}",
        operator.log().display()
    );
    operator.stop().await.expect("the operator stops");
    wrong
}

/// The record expires one day, which is no fault of any change: this test says so a year before.
#[test]
fn nothing_recorded_falls_due_within_a_year() {
    let objects = Recorded::read().objects;
    let year = Timestamp::now() + SignedDuration::from_hours(24 * 365);
    let soon = |object: &Value, pointer: &str| {
        let at = object
            .pointer(pointer)
            .and_then(Value::as_str)?
            .parse::<Timestamp>()
            .expect("a time");
        (at < year).then(|| format!("{} {pointer} is {at}", full_name(object)))
    };
    let times = [
        "/status/renewalTime",
        "/status/notAfter",
        "/status/certificate/notAfter",
        "/status/latestExpiry",
    ];
    let of_object = |object: &Value| {
        times
            .iter()
            .filter_map(|pointer| soon(object, pointer))
            .collect::<Vec<_>>()
    };
    let mut found: Vec<_> = objects.iter().flat_map(of_object).collect();
    for domain in of_kind(&objects, "MtlsDomain") {
        let trusted = domain
            .pointer("/status/truststore/authorities")
            .and_then(Value::as_array);
        for n in 0..trusted.map_or(0, Vec::len) {
            found.extend(soon(
                domain,
                &format!("/status/truststore/authorities/{n}/notAfter"),
            ));
        }
    }
    assert_eq!(
        found, [""; 0],
        "record the world again: see tests/upgrade/main.rs"
    );
    assert!(objects.iter().any(|object| object.pointer(times[0]).is_some()));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

async fn record_world() {
    let stage = Stage::start().await;
    let crds = root().join("crds");
    stage
        .world
        .kubernetes
        .install_crds(&crds)
        .await
        .expect("the CRDs");
    record::record(&stage).await.write();
    for file in std::fs::read_dir(crds).expect("the CRDs").flatten() {
        std::fs::create_dir_all(folder("crds")).expect("a folder");
        std::fs::copy(file.path(), folder("crds").join(file.file_name())).expect("a copy");
    }
}

/// Waits until the operator has read everything about the recorded objects, again and again.
async fn until_all_is_read(stage: &Stage, proxy: &ApiProxy, objects: &[Value], mark: u64) {
    let text =
        |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let served = of_kind(objects, "MtlsDomain").filter(|domain| domain["spec"]["suspend"] != true);
    let hosts: Vec<_> = served
        .filter_map(|domain| text(domain, "/spec/domainName"))
        .collect();
    let written = async || {
        let to_aws = Calls {
            since: mark,
            writes: true,
            ..Calls::default()
        };
        let calls = stage
            .control()
            .calls(&to_aws)
            .await
            .expect("the journal")
            .calls
            .len();
        calls + proxy.seen().iter().filter_map(to_kubernetes).count()
    };
    let (mut since, mut unchanged, mut before) = (mark, 0, written().await);
    for resync in 0..MOST_RESYNCS {
        since = eventually(&format!("resync {resync} of every domain"), async || {
            let reads = Calls {
                since,
                ..Calls::default()
            };
            let journal = stage.control().calls(&reads).await.map_err(|e| e.to_string())?;
            let is_read = |host: &&String| {
                journal
                    .calls
                    .iter()
                    .any(|call| call.resource.contains(host.as_str()))
            };
            let unread: Vec<_> = hosts.iter().filter(|host| !is_read(host)).collect();
            if unread.is_empty() {
                Ok(journal.last)
            } else {
                Err(format!("nothing was read of {unread:?}"))
            }
        })
        .await;
        let now = written().await;
        unchanged = if now == before { unchanged + 1 } else { 0 };
        before = now;
        if unchanged == RESYNCS {
            break;
        }
    }
    let secrets: Vec<_> = of_kind(objects, "ClientCertificate")
        .map(|certificate| {
            let name = text(certificate, "/spec/secretName").or(text(certificate, "/metadata/name"));
            let namespace = text(certificate, "/metadata/namespace").expect("a namespace");
            format!("/api/v1/namespaces/{namespace}/secrets/{}", name.expect("a name"))
        })
        .collect();
    eventually("the Secret of every ClientCertificate is read", async || {
        let seen = proxy.seen();
        let unread = secrets
            .iter()
            .find(|path| !seen.iter().any(|seen| seen.path == **path));
        unread.map_or(Ok(()), |path| Err(path.clone()))
    })
    .await;
    for (controller, kind) in [
        ("clientcertificate", "ClientCertificate"),
        ("clientgrant", "ClientGrant"),
    ] {
        let all = of_kind(objects, kind).count() as f64;
        eventually(&format!("every {kind} is reconciled"), async || {
            let count = stage
                .counted("controller_runtime_reconcile_total", controller)
                .await?;
            if count >= all {
                Ok(())
            } else {
                Err(format!("{count} of {all}"))
            }
        })
        .await;
    }
}

/// Callers who get another answer than they got when the world was recorded.
async fn wrong_answers(stage: &Stage, callers: &[&Caller], when: &str) -> Vec<String> {
    let mut wrong = vec![];
    for caller in callers {
        let status = stage
            .call(&caller.host, &caller.path, Some(&caller.identity))
            .await;
        if status != caller.status {
            wrong.push(format!(
                "{} gets {status} {when}, not {}",
                caller.name, caller.status
            ));
        }
    }
    wrong
}

/// Domains that answer a caller whom they should refuse.
async fn let_in(stage: &Stage, recorded: &Recorded) -> Vec<String> {
    let mut params = rcgen::CertificateParams::new(vec![]).expect("no names");
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "unknown");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let unknown = Identity {
        certificate,
        key: key.serialize_pem(),
    };
    let hosts: BTreeSet<_> = recorded.callers.iter().map(|caller| &caller.host).collect();
    let mut wrong = vec![];
    for host in hosts {
        for (who, identity, wanted) in [
            ("an unknown caller", Some(&unknown), 403),
            ("a caller without a certificate", None, 0),
        ] {
            let status = stage.call(host, "/", identity).await;
            if status != wanted {
                wrong.push(format!("{who} gets {status} from {host}, not {wanted}"));
            }
        }
    }
    wrong
}
