//! The server certificate: requested, replaced, watched, given up and requested again; or an existing
//! certificate of ACM, which the operator only reads.
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
use sandbox::{
    control::{CertificateState, Fault, When},
    prepare::hosted_zone,
};
use serde_json::{Value, json};

use crate::world::{TestEnv, eventually, run};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn in_days(days: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * days)
}

#[allow(clippy::cast_precision_loss)] // whole seconds of this century
fn epoch(at: Timestamp) -> Option<f64> {
    Some(at.as_second() as f64)
}

/// Puts a certificate into a state that only AWS causes.
async fn becomes(env: &TestEnv, state: CertificateState<'_>) {
    assert_eq!(
        env.control().set_certificate(&state).await.expect("the emulator"),
        1,
        "{state:?}"
    );
}

async fn described(env: &TestEnv, arn: &str) -> CertificateDetail {
    let answer = env.acm().describe_certificate().certificate_arn(arn).send().await;
    answer
        .expect("DescribeCertificate")
        .certificate
        .expect("a certificate")
}

async fn upsert(env: &TestEnv, zone_id: &str, name: &str, value: &str) {
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
async fn public(env: &TestEnv, name: &str) -> String {
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
async fn imported(env: &TestEnv, name: &str, days: i64, arn: Option<&str>) -> String {
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

fn existing(arn: &str, ownership_arn: Option<&str>) -> Value {
    let mut existing = json!({"arn": arn});
    if let Some(arn) = ownership_arn {
        existing["ownershipVerificationArn"] = json!(arn);
    }
    json!({"serverCertificate": {"existing": existing, "request": null}})
}

/// Changes the certificate of the spec, and waits until the domain is Ready with it.
async fn changed(env: &TestEnv, spec: Value) {
    env.change("d", spec).await;
    env.ready("d").await;
}

async fn refused(env: &TestEnv, reason: &str, says: &str) -> Condition {
    let told = |c: &Condition| c.status == "False" && c.reason == reason && c.message.contains(says);
    let condition = env.condition("d", "CertificateIssued", told).await;
    env.condition("d", "Ready", |c| {
        c.status == "False" && c.message == condition.message
    })
    .await;
    condition
}

/// Certificate that the custom domain has, and the certificate that proves its name.
async fn in_use(env: &TestEnv) -> (String, Option<String>) {
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
async fn shown(env: &TestEnv, what: &str, is: impl Fn(&Shown) -> bool) -> Shown {
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
async fn events(env: &TestEnv, reason: &str) -> Vec<(String, String)> {
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
async fn told(env: &TestEnv, reason: &str, type_: &str, says: &str) {
    eventually(&format!("an Event {reason}"), async || {
        match events(env, reason).await.as_slice() {
            [(t, note)] if t == type_ && note.contains(says) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

fn count(writes: &[String], operation: &str) -> usize {
    writes.iter().filter(|w| w.starts_with(operation)).count()
}

#[test]
fn an_existing_certificate_is_used_and_otherwise_left_alone() {
    run(async {
        let env = TestEnv::start("existing").await;
        let wildcard = public(&env, &format!("*.{}", env.prepared.zone)).await;
        let (own, proof) = (
            imported(&env, &env.host(), 300, None).await,
            public(&env, &env.host()).await,
        );
        let other_proof = public(&env, &env.host()).await;
        let mut theirs = vec![wildcard.clone(), own.clone(), proof.clone(), other_proof.clone()];
        theirs.sort();

        // A certificate that ACM issued, for a wildcard.
        let mark = env.mark().await;
        env.create_domain("d", existing(&wildcard, None)).await;
        env.ready("d").await;
        assert_eq!(in_use(&env).await, (wildcard.clone(), None));
        let told = shown(&env, "its ARN", |c| c.arn == wildcard).await;
        assert_eq!((told.status.as_str(), told.not_after.is_some()), ("ISSUED", true));

        // An imported certificate needs a proof of the name; until then all stays as it is. Then both go into
        // one call.
        env.change("d", existing(&own, None)).await;
        refused(
            &env,
            "InvalidSpec",
            "spec.serverCertificate.existing.ownershipVerificationArn",
        )
        .await;
        assert_eq!(in_use(&env).await, (wildcard.clone(), None));
        changed(&env, existing(&own, Some(&proof))).await;
        assert_eq!(in_use(&env).await, (own.clone(), Some(proof.clone())));
        changed(&env, existing(&own, Some(&other_proof))).await;
        assert_eq!(in_use(&env).await, (own.clone(), Some(other_proof.clone())));
        env.change("d", existing(&wildcard, Some(&proof))).await;
        refused(&env, "InvalidSpec", "leave it out").await;
        changed(
            &env,
            json!({"serverCertificate": {"existing": {"arn": wildcard, "ownershipVerificationArn": null}}}),
        )
        .await;
        assert_eq!(in_use(&env).await.0, wildcard);

        env.delete_domain("d").await;
        let writes = env.writes(mark).await;
        assert_eq!(count(&writes, "CreateDomainName"), 1, "{writes:?}");
        assert_eq!(
            count(&writes, "UpdateDomainName"),
            3,
            "one for each change: {writes:?}"
        );
        let touches = |w: &&String| w.contains("Certificate") || w.contains("CNAME");
        assert_eq!(
            writes.iter().filter(touches).collect::<Vec<_>>(),
            [""; 0],
            "only read"
        );
        assert_eq!(env.server_certificates().await, theirs);
        for arn in theirs {
            let tags = env
                .acm()
                .list_tags_for_certificate()
                .certificate_arn(arn)
                .send()
                .await
                .unwrap();
            assert_eq!(tags.tags(), []);
        }
    });
}

#[test]
fn an_existing_certificate_that_cannot_serve_is_named_with_the_reason() {
    run(async {
        let env = TestEnv::start("unusable").await;
        let mark = env.mark().await;
        let (region, account) = (&env.account.region, &env.account.id);
        let arn = |region: &str, account: &str| format!("arn:aws:acm:{region}:{account}:certificate/nowhere");
        env.create_domain("d", existing(&arn("eu-north-1", account), None))
            .await;
        let elsewhere = |field: &'static str, where_: &'static str| {
            move |c: &Condition| {
                c.reason == "InvalidSpec" && c.message.contains(field) && c.message.contains(where_)
            }
        };
        let field = "spec.serverCertificate.existing.arn";
        env.condition("d", "Accepted", elsewhere(field, "eu-north-1"))
            .await;
        env.change("d", existing(&arn(region, "999999999999"), None))
            .await;
        env.condition("d", "Accepted", elsewhere(field, "999999999999"))
            .await;
        let proof = arn("eu-north-1", account);
        env.change("d", existing(&arn(region, account), Some(&proof)))
            .await;
        env.condition(
            "d",
            "Accepted",
            elsewhere("existing.ownershipVerificationArn", "eu-north-1"),
        )
        .await;
        assert_eq!(
            env.writes(mark).await,
            [""; 0],
            "refused before anything is written"
        );

        let spec = json!({
            "serverCertificate": {
                "existing": {"arn": arn(region, account), "ownershipVerificationArn": null},
            },
        });
        env.change("d", spec).await;
        let condition = refused(&env, "RefNotFound", &arn(region, account)).await;
        assert!(condition.message.contains(field), "{}", condition.message);
        let request = env.acm().request_certificate().domain_name(env.host());
        let pending = request
            .validation_method(ValidationMethod::Dns)
            .send()
            .await
            .unwrap()
            .certificate_arn
            .unwrap();
        env.change("d", existing(&pending, None)).await;
        refused(&env, "CertificateFailed", "PENDING_VALIDATION").await;
        let other_name = public(&env, &format!("www.{}", env.prepared.zone)).await;
        env.change("d", existing(&other_name, None)).await;
        refused(&env, "CertificateFailed", &format!("is not for {}", env.host())).await;
        assert_eq!(env.gateway_domains().await, [""; 0]);

        // The operator takes the certificate as it is once its owner has corrected it.
        env.change("d", existing(&pending, None)).await;
        let record = described(&env, &pending).await.domain_validation_options()[0]
            .resource_record()
            .unwrap()
            .clone();
        upsert(&env, &env.prepared.zone_id, record.name(), record.value()).await;
        env.ready("d").await;

        // The certificate expires: the operator says so, and removes nothing because of it.
        let mark = env.mark().await;
        becomes(
            &env,
            CertificateState {
                arn: &pending,
                status: "EXPIRED",
                ..CertificateState::default()
            },
        )
        .await;
        refused(&env, "CertificateFailed", "is EXPIRED").await;
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
    });
}

#[test]
fn ours_is_replaced_by_an_existing_one_and_back() {
    run(async {
        let env = TestEnv::start("exchanged").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let ours = in_use(&env).await.0;
        let theirs = public(&env, &env.host()).await;
        let only = async |arn: &str| {
            eventually("the other certificate is gone", async || {
                match env.server_certificates().await {
                    all if all == [arn] => Ok(()),
                    all => Err(format!("{all:?}")),
                }
            })
            .await;
        };
        let mark = env.mark().await;
        changed(&env, existing(&theirs, None)).await;
        assert_eq!(in_use(&env).await.0, theirs);
        only(&theirs).await;
        assert_eq!(env.writes(mark).await, ["UpdateDomainName", "DeleteCertificate"]);

        let mark = env.mark().await;
        changed(&env, json!({"serverCertificate": null})).await;
        let new = in_use(&env).await.0;
        assert!(new != theirs && new != ours);
        assert_eq!(
            env.writes(mark).await,
            ["RequestCertificate", "UpdateDomainName"],
            "the record stays"
        );
        assert_eq!(env.server_certificates().await.len(), 2, "theirs stays");
    });
}

/// The operator is killed after the swap, and again while ACM says that the old certificate is still in use.
#[test]
fn another_key_and_more_names_are_one_new_certificate_swapped_in_place() {
    run(async {
        let mut env = TestEnv::start("swap").await;
        let (account, control) = (env.account.id.clone(), env.control());
        let zone2 = format!("z{account}.example.org");
        let zone2_id = hosted_zone(&env.account, &zone2).await.unwrap();
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let old = in_use(&env).await.0;
        assert_eq!(
            described(&env, &old).await.key_algorithm.unwrap().as_str(),
            "EC-prime256v1"
        );
        control
            .set_knobs(&account, &[("in_use_linger", 3600.0)])
            .await
            .unwrap();
        let hold = Fault {
            operation: "UpdateDomainName",
            account: &account,
            when: When::After,
            hold: true,
            ..Fault::default()
        };
        let fault = control.add_faults(&[hold]).await.unwrap().remove(0).id;

        let mark = env.mark().await;
        let names = [
            format!("www.{}", env.prepared.zone),
            format!("*.{zone2}"),
            zone2.clone(),
        ];
        let request = json!({"keyAlgorithm": "RSA_2048", "subjectAlternativeNames": names});
        env.change("d", json!({"serverCertificate": {"request": request}}))
            .await;
        env.kill_at(fault, "the swap").await;
        env.ready("d").await;

        let new = in_use(&env).await.0;
        assert_ne!(new, old);
        let certificate = described(&env, &new).await;
        assert_eq!(certificate.status.as_ref().unwrap().as_str(), "ISSUED");
        assert_eq!(certificate.key_algorithm.as_ref().unwrap().as_str(), "RSA-2048");
        let mut covered = certificate.subject_alternative_names().to_vec();
        covered.sort();
        let mut wanted: Vec<_> = names.iter().cloned().chain([env.host()]).collect();
        wanted.sort();
        assert_eq!(covered, wanted);
        let in_zone2 = env
            .route53()
            .list_resource_record_sets()
            .hosted_zone_id(&zone2_id)
            .send()
            .await
            .unwrap();
        let cnames = in_zone2
            .resource_record_sets()
            .iter()
            .filter(|r| r.r#type == RrType::Cname)
            .count();
        assert_eq!(cnames, 1, "a name and its wildcard share a record");

        // ACM says that the old certificate is still in use: the operator keeps it, and neither tries to
        // delete it nor waits for that.
        env.reconciles(2).await;
        assert_eq!(env.server_certificates().await.len(), 2);
        env.operator.kill();
        env.operator.restart().unwrap();
        env.reconciles(2).await;
        assert_eq!(count(&env.writes(mark).await, "DeleteCertificate"), 0);
        control
            .advance(&account, std::time::Duration::from_secs(3601))
            .await
            .unwrap();
        eventually("the old certificate is gone", async || {
            match env.server_certificates().await {
                all if all == [new.as_str()] => Ok(()),
                all => Err(format!("{all:?}")),
            }
        })
        .await;
        let writes = env.writes(mark).await;
        let counted = [
            "RequestCertificate",
            "UpdateDomainName",
            "DeleteDomainName",
            "CreateDomainName",
            "DeleteCertificate",
        ]
        .map(|operation| count(&writes, operation));
        assert_eq!(counted, [1, 1, 0, 0, 1], "{writes:?}");
    });
}

#[test]
fn without_a_zone_for_every_name_nothing_is_requested() {
    run(async {
        let env = TestEnv::start("nozone").await;
        let other = format!("z{}.example.net", env.account.id);
        let request = json!({"subjectAlternativeNames": [format!("www.{other}")]});
        let mark = env.mark().await;
        env.create_domain("d", json!({"serverCertificate": {"request": request}}))
            .await;
        refused(&env, "HostedZoneNotFound", &format!("www.{other}")).await;
        env.reconciles(2).await;
        assert_eq!(count(&env.writes(mark).await, "RequestCertificate"), 0);
        hosted_zone(&env.account, &other).await.unwrap();
        env.ready("d").await;
        assert_eq!(count(&env.writes(mark).await, "RequestCertificate"), 1);
    });
}

#[test]
fn a_failed_or_timed_out_certificate_is_requested_again_later_and_later() {
    run(async {
        let env = TestEnv::start("invain").await;
        let control = env.control();
        control
            .set_knobs(&env.account.id, &[("issue_delay", 1e9)])
            .await
            .unwrap();
        let mark = env.mark().await;
        env.create_domain("d", json!({})).await;
        let failed = async |known: &[String]| {
            let new = eventually("another request", async || {
                match env.server_certificates().await {
                    all if all.len() == known.len() + 1 => {
                        Ok(all.into_iter().find(|arn| !known.contains(arn)).unwrap())
                    }
                    all => Err(format!("{all:?}")),
                }
            })
            .await;
            env.condition("d", "CertificateIssued", |c| c.reason == "WaitingForValidation")
                .await;
            new
        };
        let ends = async |arn: &str, status: &str, reason: &str, age: SignedDuration| {
            let created_at = epoch(Timestamp::now() - age);
            becomes(
                &env,
                CertificateState {
                    arn,
                    status,
                    reason,
                    created_at,
                    ..CertificateState::default()
                },
            )
            .await;
        };
        let first = failed(&[]).await;
        ends(&first, "FAILED", "CAA_ERROR", DAY).await;
        let condition = refused(&env, "CertificateFailed", "CAA_ERROR").await;
        assert!(
            condition.message.contains("amazon.com") && condition.message.contains(&first),
            "{condition:?}"
        );
        env.reconciles(2).await;
        assert_eq!(
            env.server_certificates().await,
            [first.as_str()],
            "not before three days have gone"
        );

        ends(&first, "FAILED", "CAA_ERROR", DAY * 8).await;
        let second = failed(std::slice::from_ref(&first)).await;
        // ACM gives up after 72 hours.
        ends(&second, "VALIDATION_TIMED_OUT", "", DAY * 7 / 2).await;
        let record = described(&env, &second).await.domain_validation_options()[0]
            .resource_record()
            .unwrap()
            .clone();
        refused(
            &env,
            "CertificateFailed",
            &format!("{} CNAME {}", record.name(), record.value()),
        )
        .await;
        env.reconciles(2).await;
        assert_eq!(
            env.server_certificates().await.len(),
            2,
            "not before four days have gone"
        );
        ends(&second, "VALIDATION_TIMED_OUT", "", DAY * 9 / 2).await;
        let third = failed(&[first, second]).await;

        control
            .set_knobs(&env.account.id, &[("issue_delay", 0.0)])
            .await
            .unwrap();
        env.ready("d").await;
        assert_eq!(in_use(&env).await.0, third);
        eventually("the failed certificates are gone", async || {
            match env.server_certificates().await {
                all if all == [third.as_str()] => Ok(()),
                all => Err(format!("{all:?}")),
            }
        })
        .await;
        assert_eq!(count(&env.writes(mark).await, "RequestCertificate"), 3);
    });
}

#[test]
fn each_step_of_a_renewal_is_in_status_and_in_one_event() {
    run(async {
        let env = TestEnv::start("renewal").await;
        env.create_domain("d", json!({})).await;
        let ready = env.ready("d").await;
        let arn = in_use(&env).await.0;
        let mark = env.mark().await;
        let renewal_step = async |renewal: &str, reason: &str, days: i64| {
            let not_after = epoch(in_days(days));
            becomes(
                &env,
                CertificateState {
                    arn: &arn,
                    renewal,
                    reason,
                    not_after,
                    ..CertificateState::default()
                },
            )
            .await;
            shown(&env, renewal, |c| c.renewal.as_deref() == Some(renewal)).await
        };
        assert_eq!(
            renewal_step("PENDING_AUTO_RENEWAL", "", 45).await.warnings,
            [""; 0]
        );
        let record = described(&env, &arn).await.domain_validation_options()[0]
            .resource_record()
            .unwrap()
            .clone();
        let line = format!("{} CNAME {}", record.name(), record.value());
        assert!(renewal_step("PENDING_VALIDATION", "", 45).await.warnings[0].contains(&line));
        told(&env, "RenewalPending", "Warning", &line).await;
        renewal_step("PENDING_VALIDATION", "", 20).await;
        told(&env, "CertificateExpiring", "Warning", &arn).await;
        let state = renewal_step("FAILED", "CAA_ERROR", 20).await;
        assert_eq!(state.warnings.len(), 2, "{state:?}");
        told(&env, "RenewalFailed", "Warning", "CAA_ERROR").await;
        let state = renewal_step("SUCCESS", "", 198).await;
        assert_eq!(state.warnings, [""; 0]);
        told(&env, "CertificateRenewed", "Normal", &arn).await;

        env.reconciles(2).await;
        for reason in [
            "RenewalPending",
            "CertificateExpiring",
            "RenewalFailed",
            "CertificateRenewed",
        ] {
            assert_eq!(events(&env, reason).await.len(), 1, "{reason}");
        }
        assert_eq!(env.writes(mark).await, [""; 0]);
        assert_eq!(env.ready("d").await, ready, "Ready throughout");
    });
}

#[test]
fn an_imported_certificate_is_watched_too() {
    run(async {
        let env = TestEnv::start("imported").await;
        let (own, proof) = (
            imported(&env, &env.host(), 10, None).await,
            public(&env, &env.host()).await,
        );
        env.create_domain("d", existing(&own, Some(&proof))).await;
        env.ready("d").await;
        told(&env, "CertificateExpiring", "Warning", &own).await;
        assert_eq!(
            shown(&env, "the warning", |c| !c.warnings.is_empty())
                .await
                .warnings
                .len(),
            1
        );
        imported(&env, &env.host(), 300, Some(&own)).await;
        told(&env, "CertificateRenewed", "Normal", &own).await;
        assert_eq!(
            shown(&env, "no warning", |c| c.warnings.is_empty()).await.arn,
            own
        );

        // The proof must stay valid as well.
        becomes(
            &env,
            CertificateState {
                arn: &proof,
                status: "EXPIRED",
                ..CertificateState::default()
            },
        )
        .await;
        refused(
            &env,
            "CertificateFailed",
            &format!("ownershipVerificationArn: {proof} is EXPIRED"),
        )
        .await;
    });
}

#[test]
fn a_domain_locked_for_its_certificate_says_so_and_takes_the_one_that_helps() {
    run(async {
        let env = TestEnv::start("locked").await;
        let (own, proof) = (
            imported(&env, &env.host(), 300, None).await,
            public(&env, &env.host()).await,
        );
        env.create_domain("d", existing(&own, Some(&proof))).await;
        env.ready("d").await;
        let mark = env.mark().await;
        for (status, message) in [
            (
                "PENDING_CERTIFICATE_REIMPORT",
                "the re-imported certificate has another name",
            ),
            (
                "PENDING_OWNERSHIP_VERIFICATION",
                "the ownership certificate has expired",
            ),
        ] {
            let set = env
                .control()
                .set_domain_status(&env.account.id, &env.host(), status, message)
                .await;
            assert_eq!(set.unwrap(), 1);
            let condition = env
                .condition("d", "DomainProgrammed", |c| c.message.contains(status))
                .await;
            assert_eq!(
                (condition.status.as_str(), condition.reason.as_str()),
                ("False", "DomainRejected")
            );
            assert!(condition.message.contains(message), "{}", condition.message);
        }
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0], "no write that AWS would refuse");
        let other_proof = public(&env, &env.host()).await;
        let mark = env.mark().await;
        changed(&env, existing(&own, Some(&other_proof))).await;
        assert_eq!(in_use(&env).await, (own, Some(other_proof)));
        assert_eq!(env.writes(mark).await, ["UpdateDomainName"]);
    });
}

#[test]
fn a_request_that_acm_does_not_list_yet_is_one_certificate_and_few_calls() {
    run(async {
        let env = TestEnv::start("unlisted").await;
        let delays = [("certificate_delay", 3.0), ("record_delay", 5.0)];
        env.control().set_knobs(&env.account.id, &delays).await.unwrap();
        let mark = env.mark().await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        assert_eq!(env.server_certificates().await, [in_use(&env).await.0]);
        let writes = env.writes(mark).await;
        assert!(count(&writes, "RequestCertificate") < 10, "{writes:?}");
    });
}

/// Certificates that another user deletes leave no trace in ACM, but AWS counts them for a year.
#[test]
fn certificates_that_a_user_keeps_deleting_are_requested_at_most_twelve_times_a_day() {
    run(async {
        let env = TestEnv::start("deleter").await;
        env.control()
            .set_knobs(&env.account.id, &[("issue_delay", 1e9)])
            .await
            .unwrap();
        env.create_domain("d", json!({})).await;
        for n in 1..=12 {
            let arn = eventually(&format!("request {n}"), async || {
                match &env.server_certificates().await[..] {
                    [arn] => Ok(arn.clone()),
                    all => Err(format!("{all:?}")),
                }
            })
            .await;
            env.acm()
                .delete_certificate()
                .certificate_arn(arn)
                .send()
                .await
                .expect("the certificate can be deleted");
        }
        let queued = env
            .condition("d", "CertificateIssued", |c| c.reason == "Queued")
            .await;
        assert_eq!(queued.status, "Unknown", "{queued:?}");
        env.reconciles(2).await;
        assert_eq!(env.server_certificates().await, [""; 0]);
    });
}
