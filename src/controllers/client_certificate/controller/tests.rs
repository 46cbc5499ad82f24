//! Tests of `controller`, with a fake Kubernetes API server.

use super::{failed, reconcile, reconcile_certificate, tell_of_deletion};

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::controller::Action as Next;
use serde_json::{Value, json};

use crate::{
    api::{ClientCertificate, MtlsDomain, object_id::ObjectId},
    controllers::client_certificate::{
        admission::SOON,
        context::FIRST_RETRY,
        fixture::{Stage, There, certificate, domain, grant, guard, secret},
    },
    pki::{
        authority::tests::request,
        pem_certificates::parse_pem_bundle,
        truststore::{Bundle, Entry},
    },
    runtime::{reconcile::Error, watch::Cached},
};

/// Returns the Secret of an authority and the bundle of a truststore with it.
fn authority() -> (Secret, Bundle) {
    let made = crate::pki::authority::generate(&request("Acme"), Timestamp::now()).unwrap();
    let secret = secret(
        "acme-ca",
        &[("tls.crt", &made.certificate_pem), ("tls.key", &made.key_pem)],
        |_| {},
    );
    let certificate = parse_pem_bundle(&made.certificate_pem).unwrap().remove(0);
    let max_leaf = Some(SignedDuration::from_hours(2160));
    let entry = Entry {
        authority: "acme".into(),
        certificate,
        max_leaf,
        keep_until: None,
    };
    (
        secret,
        Bundle {
            entries: vec![entry],
            ..Bundle::default()
        },
    )
}

#[tokio::test]
async fn a_reconcile_of_a_certificate_writes_as_its_state_requires() {
    let (ca, bundle) = authority();
    let key = ObjectId::new("shop", "partners");
    let cross_namespace = |o: &mut Value| o["metadata"]["namespace"] = json!("acme");
    let deleted = |o: &mut Value| o["metadata"]["deletionTimestamp"] = json!("2026-01-03T00:00:00Z");
    let suspend = |o: &mut Value| o["spec"]["suspend"] = json!(true);
    let self_signed = |o: &mut Value| o["spec"]["issuance"] = json!("SelfSigned");
    let strange = || secret("client1", &[("tls.crt", "x")], |_| {});
    let issued = &["POST secret client1", "PATCH status Accepted Issued"][..];
    let plain = || domain(|_| {});
    let secs = |seconds| Next::requeue(Duration::from_secs(seconds));
    struct Case<'a> {
        what: &'a str,
        cert: ClientCertificate,
        there: There,
        /// Trust of the domain: known, and with the authority in it.
        trust: [bool; 2],
        expected: &'a [&'a str],
        next: Option<Next>,
    }
    let case = |what, cert, there, expected| Case {
        what,
        cert,
        there,
        trust: [true; 2],
        expected,
        next: None,
    };
    let with = |domains: Vec<Cached<MtlsDomain>>| There {
        domains,
        ..There::default()
    };
    let winner = |change: fn(&mut Value)| {
        guard(certificate(|o| {
            o["spec"]["issuance"] = json!("SelfSigned");
            o["metadata"]["name"] = json!("older");
            o["metadata"]["uid"] = json!("older");
            o["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            change(o);
        }))
    };
    let stop = Some(Next::await_change());
    let cases = vec![
        case(
            "a new certificate",
            certificate(|_| {}),
            with(vec![plain()]),
            issued,
        ),
        Case {
            next: stop.clone(),
            ..case("deleted", certificate(deleted), with(vec![plain()]), &[])
        },
        Case {
            next: stop.clone(),
            ..case(
                "suspended",
                certificate(suspend),
                with(vec![plain()]),
                &["PATCH status Suspended -"],
            )
        },
        Case {
            next: stop.clone(),
            ..case(
                "of another namespace, without a grant",
                certificate(cross_namespace),
                with(vec![plain()]),
                &["PATCH status RefNotPermitted -", "POST event RefNotPermitted"],
            )
        },
        case(
            "of another namespace, with a grant",
            certificate(cross_namespace),
            There {
                grants: vec![grant(|_| {})],
                ..with(vec![plain()])
            },
            issued,
        ),
        case(
            "of another namespace, with an unreadable grant",
            certificate(cross_namespace),
            There {
                grants: vec![grant(|o| o["spec"] = json!(1))],
                ..with(vec![plain()])
            },
            &["PATCH status RefNotPermitted -", "POST event RefNotPermitted"],
        ),
        case(
            "of another namespace, with the last slot of a grant",
            certificate(cross_namespace),
            There {
                grants: vec![grant(|o| o["spec"]["maxCertificates"] = json!(1))],
                ..with(vec![plain()])
            },
            issued,
        ),
        case(
            "of another namespace, just created, with a slot that another certificate may have",
            certificate(|o| {
                cross_namespace(o);
                o["metadata"]["creationTimestamp"] = json!(Timestamp::now().to_string());
            }),
            There {
                grants: vec![grant(|o| o["spec"]["maxCertificates"] = json!(1))],
                ..with(vec![plain()])
            },
            &[],
        ),
        Case {
            trust: [false; 2],
            next: Some(secs(10)),
            ..case(
                "the domain has not had its first reconcile",
                certificate(|_| {}),
                with(vec![plain()]),
                &[],
            )
        },
        Case {
            trust: [true, false],
            ..case(
                "the domain trusts nothing yet",
                certificate(|_| {}),
                with(vec![plain()]),
                &["PATCH status Accepted WaitingForDomainTrust"],
            )
        },
        case(
            "there is no domain",
            certificate(|_| {}),
            with(vec![]),
            &["PATCH status Accepted RefNotFound", "POST event RefNotFound"],
        ),
        case(
            "a Secret of another owner exists",
            certificate(|_| {}),
            There {
                secrets: vec![strange()],
                ..with(vec![plain()])
            },
            &[
                "PATCH status Accepted SecretNotOwned",
                "POST event SecretNotOwned",
            ],
        ),
        Case {
            next: stop.clone(),
            ..case(
                "longer than the domain allows",
                certificate(|o| o["spec"]["duration"] = json!("48h")),
                with(vec![domain(|o| {
                    o["spec"]["clients"] = json!({"maxDuration": "24h"})
                })]),
                &[
                    "PATCH status DurationNotAllowed -",
                    "POST event DurationNotAllowed",
                ],
            )
        },
        case(
            "the authority is distrusted",
            certificate(|_| {}),
            with(vec![domain(|o| {
                o["spec"]["trust"]["authorities"][0]["state"] = json!("Distrusted")
            })]),
            &[
                "PATCH status Accepted AuthorityNotFound",
                "POST event AuthorityNotFound",
            ],
        ),
        Case {
            next: Some(Next::requeue(FIRST_RETRY)),
            ..case(
                "another writer wrote the Secret first",
                certificate(|_| {}),
                There {
                    refuses: Some((409, "AlreadyExists")),
                    ..with(vec![plain()])
                },
                &["POST secret client1"],
            )
        },
        Case {
            next: Some(Next::requeue(FIRST_RETRY)),
            ..case(
                "the API server refuses",
                certificate(|_| {}),
                There {
                    refuses: Some((403, "Forbidden")),
                    ..with(vec![plain()])
                },
                &[
                    "POST secret client1",
                    "PATCH status Accepted SecretRejected",
                    "POST event SecretRejected",
                ],
            )
        },
        Case {
            next: Some(Next::requeue(Duration::ZERO)),
            ..case(
                "it signs itself",
                certificate(self_signed),
                with(vec![plain()]),
                &["POST secret client1-next"],
            )
        },
        Case {
            next: stop,
            ..case(
                "an older certificate has the subject",
                certificate(self_signed),
                There {
                    certificates: vec![winner(|_| {})],
                    ..with(vec![plain()])
                },
                &["PATCH status SubjectInUse -", "POST event SubjectInUse"],
            )
        },
        case(
            "an older certificate without a grant has no claim on the subject",
            certificate(self_signed),
            There {
                certificates: vec![winner(|o| o["metadata"]["namespace"] = json!("acme"))],
                ..with(vec![plain()])
            },
            &["POST secret client1-next"],
        ),
        case(
            "a certificate of an authority may have the subject",
            certificate(|_| {}),
            There {
                certificates: vec![winner(|_| {})],
                ..with(vec![plain()])
            },
            issued,
        ),
    ];
    for Case {
        what,
        cert,
        mut there,
        trust: [known, trusted],
        expected,
        next,
    } in cases
    {
        there.certificates.push(guard(cert.clone()));
        there.secrets.push(ca.clone());
        let stage = Stage::new(there);
        let long_ago = Timestamp::now() - SignedDuration::from_hours(1);
        if known {
            stage
                .ctx
                .active_trust
                .set(&key, trusted.then_some(&bundle), None, long_ago);
        }
        let found = reconcile_certificate(&cert, &stage.ctx).await.unwrap();
        assert_eq!(stage.log(), expected, "{what}");
        if let Some(next) = next {
            assert_eq!(found, next, "{what}");
        }
    }
}

#[tokio::test]
async fn a_reconcile_waits_for_its_own_last_write() {
    let cert = certificate(|o| o["spec"]["suspend"] = json!(true));
    let stage = Stage::new(There {
        certificates: vec![guard(cert.clone())],
        ..There::default()
    });
    reconcile_certificate(&cert, &stage.ctx).await.unwrap();
    assert_eq!(stage.log(), ["PATCH status Suspended -"]);
    assert_eq!(
        reconcile_certificate(&cert, &stage.ctx).await.unwrap(),
        Next::requeue(SOON),
        "the cache shows the previous version"
    );
    assert_eq!(stage.log(), [""; 0]);
    let mut shown = cert;
    shown.metadata.resource_version = Some("2".into());
    reconcile_certificate(&shown, &stage.ctx).await.unwrap();
    assert_eq!(stage.log(), ["PATCH status Suspended -"]);
}

#[tokio::test]
async fn a_failed_reconcile_is_retried_unless_the_object_is_unreadable() {
    let cert = Arc::new(guard(certificate(|_| {})));
    let stage = Stage::new(There {
        certificates: vec![(*cert).clone()],
        ..There::default()
    });
    assert_eq!(
        failed(cert.clone(), &Error::TooLong, stage.ctx.clone()),
        Next::requeue(FIRST_RETRY)
    );
    assert_eq!(
        failed(cert.clone(), &Error::TooLong, stage.ctx.clone()),
        Next::requeue(FIRST_RETRY * 2)
    );
    stage.ctx.succeeded("client1");
    assert_eq!(
        failed(cert.clone(), &Error::TooLong, stage.ctx.clone()),
        Next::requeue(FIRST_RETRY)
    );
    let bad: Cached<ClientCertificate> =
        serde_json::from_value(json!({"metadata": {"name": "client1", "namespace": "shop"}, "spec": 1}))
            .unwrap();
    let error = Error::Unreadable(Box::new(bad.0.unwrap_err()));
    assert_eq!(failed(cert, &error, stage.ctx.clone()), Next::await_change());
    let gone = Arc::new(guard(certificate(|o| o["metadata"]["name"] = json!("gone"))));
    assert_eq!(
        reconcile(gone, stage.ctx.clone()).await.unwrap(),
        Next::await_change()
    );
}

#[tokio::test]
async fn a_deletion_reports_a_certificate_that_stays_valid() {
    let alive = certificate(|o| {
        o["status"] = json!({"serialNumber": "1", "notAfter": "2099-01-01T00:00:00Z"});
    });
    let expired = certificate(|o| {
        o["metadata"]["name"] = json!("expired");
        o["status"] = json!({"serialNumber": "1", "notAfter": "2020-01-01T00:00:00Z"});
    });
    let there = Stage::new(There {
        certificates: vec![guard(alive.clone())],
        ..There::default()
    });
    tell_of_deletion(Arc::new(guard(alive.clone())), &there.ctx).await;
    assert_eq!(there.log(), [""; 0], "the object exists");
    let stage = Stage::new(There::default());
    tell_of_deletion(Arc::new(guard(expired)), &stage.ctx).await;
    assert_eq!(stage.log(), [""; 0]);
    tell_of_deletion(Arc::new(guard(alive)), &stage.ctx).await;
    assert_eq!(stage.log(), ["POST event StillAccepted"]);
}
