//! The server certificate: requested, replaced, watched, given up and tried again; or one that is in ACM already, which is only read.
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

use crate::world::{Life, eventually, run};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn in_days(days: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * days)
}

#[allow(clippy::cast_precision_loss)] // whole seconds of this century
fn epoch(at: Timestamp) -> Option<f64> {
    Some(at.as_second() as f64)
}

/// What only AWS does to a certificate.
async fn becomes(life: &Life, state: CertificateState<'_>) {
    assert_eq!(life.control().set_certificate(&state).await.expect("the double"), 1, "{state:?}");
}

async fn described(life: &Life, arn: &str) -> CertificateDetail {
    let answer = life.acm().describe_certificate().certificate_arn(arn).send().await;
    answer.expect("DescribeCertificate").certificate.expect("a certificate")
}

async fn upsert(life: &Life, zone_id: &str, name: &str, value: &str) {
    let value = ResourceRecord::builder().value(value).build().unwrap();
    let record = ResourceRecordSet::builder().name(name).r#type(RrType::Cname).ttl(60).resource_records(value);
    let change = Change::builder().action(ChangeAction::Upsert).resource_record_set(record.build().unwrap());
    let batch = ChangeBatch::builder().changes(change.build().unwrap()).build().unwrap();
    let request = life.route53().change_resource_record_sets().hosted_zone_id(zone_id).change_batch(batch);
    request.send().await.expect("the record can be written");
}

/// Somebody's public certificate for a name in the zone of this life, ISSUED.
async fn public(life: &Life, name: &str) -> String {
    let request = life.acm().request_certificate().domain_name(name).validation_method(ValidationMethod::Dns);
    let arn = request.send().await.expect("RequestCertificate").certificate_arn.expect("an ARN");
    let record = described(life, &arn).await.domain_validation_options()[0].resource_record().unwrap().clone();
    upsert(life, &life.prepared.zone_id, record.name(), record.value()).await;
    eventually("their certificate", async || {
        let status = described(life, &arn).await.status.expect("a status");
        if status.as_str() == "ISSUED" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    arn
}

/// Somebody's own certificate for a name, imported, under an ARN that is there or a new one.
async fn imported(life: &Life, name: &str, days: i64, arn: Option<&str>) -> String {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    let end = in_days(days).to_zoned(jiff::tz::TimeZone::UTC);
    let (month, day) = (end.month().unsigned_abs(), end.day().unsigned_abs());
    params.not_after = rcgen::date_time_ymd(end.year().into(), month, day);
    let certificate = Blob::new(params.self_signed(&key).expect("a certificate").pem());
    let request = life.acm().import_certificate().certificate(certificate).private_key(Blob::new(key.serialize_pem()));
    let answer = request.set_certificate_arn(arn.map(str::to_owned)).send().await.expect("ImportCertificate");
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
async fn changed(life: &Life, spec: Value) {
    life.change("d", spec).await;
    life.ready("d").await;
}

async fn refused(life: &Life, reason: &str, says: &str) -> Condition {
    let told = |c: &Condition| c.status == "False" && c.reason == reason && c.message.contains(says);
    let condition = life.condition("d", "CertificateIssued", told).await;
    life.condition("d", "Ready", |c| c.status == "False" && c.message == condition.message).await;
    condition
}

/// The certificate that the custom domain has, and the one that proves its name.
async fn in_use(life: &Life) -> (String, Option<String>) {
    let config = life.gateway_domain().await.domain_name_configurations.unwrap_or_default().remove(0);
    let ownership = config.ownership_verification_certificate_arn.filter(|arn| !arn.is_empty());
    (config.certificate_arn.expect("a certificate"), ownership)
}

/// The certificate in status, once it is so.
async fn shown(life: &Life, what: &str, is: impl Fn(&Shown) -> bool) -> Shown {
    eventually(what, async || {
        let status = life.domains().get("d").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        status.certificate.clone().filter(&is).ok_or_else(|| format!("{:?}", status.certificate))
    })
    .await
}

/// Type and text of the Events of that reason, in order.
async fn events(life: &Life, reason: &str) -> Vec<(String, String)> {
    let all = Api::<Event>::namespaced(life.client.clone(), &life.namespace).list(&ListParams::default()).await;
    let of = all.expect("Events").items.into_iter().filter(|e| e.reason.as_deref() == Some(reason));
    of.map(|e| (e.type_.unwrap_or_default(), e.note.unwrap_or_default())).collect()
}

/// Waits for the one Event of that reason.
async fn told(life: &Life, reason: &str, type_: &str, says: &str) {
    eventually(&format!("an Event {reason}"), async || match events(life, reason).await.as_slice() {
        [(t, note)] if t == type_ && note.contains(says) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

fn count(writes: &[String], operation: &str) -> usize {
    writes.iter().filter(|w| w.starts_with(operation)).count()
}

#[test]
fn an_existing_certificate_is_used_and_otherwise_left_alone() {
    run(async {
        let life = Life::start("existing").await;
        let wildcard = public(&life, &format!("*.{}", life.prepared.zone)).await;
        let (own, proof) = (imported(&life, &life.host(), 300, None).await, public(&life, &life.host()).await);
        let other_proof = public(&life, &life.host()).await;
        let mut theirs = vec![wildcard.clone(), own.clone(), proof.clone(), other_proof.clone()];
        theirs.sort();

        // One that ACM issued, for a wildcard.
        let mark = life.mark().await;
        life.create_domain("d", existing(&wildcard, None)).await;
        life.ready("d").await;
        assert_eq!(in_use(&life).await, (wildcard.clone(), None));
        let told = shown(&life, "its ARN", |c| c.arn == wildcard).await;
        assert_eq!((told.status.as_str(), told.not_after.is_some()), ("ISSUED", true));

        // An imported one needs a proof of the name; until then all stays as it is. Then both go into one call.
        life.change("d", existing(&own, None)).await;
        refused(&life, "InvalidSpec", "spec.serverCertificate.existing.ownershipVerificationArn").await;
        assert_eq!(in_use(&life).await, (wildcard.clone(), None));
        changed(&life, existing(&own, Some(&proof))).await;
        assert_eq!(in_use(&life).await, (own.clone(), Some(proof.clone())));
        changed(&life, existing(&own, Some(&other_proof))).await;
        assert_eq!(in_use(&life).await, (own.clone(), Some(other_proof.clone())));
        life.change("d", existing(&wildcard, Some(&proof))).await;
        refused(&life, "InvalidSpec", "leave it out").await;
        changed(&life, json!({"serverCertificate": {"existing": {"arn": wildcard, "ownershipVerificationArn": null}}}))
            .await;
        assert_eq!(in_use(&life).await.0, wildcard);

        life.delete_domain("d").await;
        let writes = life.writes(mark).await;
        assert_eq!(count(&writes, "CreateDomainName"), 1, "{writes:?}");
        assert_eq!(count(&writes, "UpdateDomainName"), 3, "one for each change: {writes:?}");
        let touches = |w: &&String| w.contains("Certificate") || w.contains("CNAME");
        assert_eq!(writes.iter().filter(touches).collect::<Vec<_>>(), [""; 0], "only read");
        assert_eq!(life.server_certificates().await, theirs);
        for arn in theirs {
            let tags = life.acm().list_tags_for_certificate().certificate_arn(arn).send().await.unwrap();
            assert_eq!(tags.tags(), []);
        }
    });
}

#[test]
fn an_existing_certificate_that_cannot_serve_is_named_with_the_reason() {
    run(async {
        let life = Life::start("unusable").await;
        let mark = life.mark().await;
        let (region, account) = (&life.account.region, &life.account.id);
        let arn = |region: &str, account: &str| format!("arn:aws:acm:{region}:{account}:certificate/nowhere");
        life.create_domain("d", existing(&arn("eu-north-1", account), None)).await;
        let elsewhere = |field: &'static str, where_: &'static str| {
            move |c: &Condition| c.reason == "InvalidSpec" && c.message.contains(field) && c.message.contains(where_)
        };
        let field = "spec.serverCertificate.existing.arn";
        life.condition("d", "Accepted", elsewhere(field, "eu-north-1")).await;
        life.change("d", existing(&arn(region, "999999999999"), None)).await;
        life.condition("d", "Accepted", elsewhere(field, "999999999999")).await;
        let proof = arn("eu-north-1", account);
        life.change("d", existing(&arn(region, account), Some(&proof))).await;
        life.condition("d", "Accepted", elsewhere("existing.ownershipVerificationArn", "eu-north-1")).await;
        assert_eq!(life.writes(mark).await, [""; 0], "refused before anything is written");

        let spec =
            json!({"serverCertificate": {"existing": {"arn": arn(region, account), "ownershipVerificationArn": null}}});
        life.change("d", spec).await;
        let condition = refused(&life, "RefNotFound", &arn(region, account)).await;
        assert!(condition.message.contains(field), "{}", condition.message);
        let request = life.acm().request_certificate().domain_name(life.host());
        let pending = request.validation_method(ValidationMethod::Dns).send().await.unwrap().certificate_arn.unwrap();
        life.change("d", existing(&pending, None)).await;
        refused(&life, "CertificateFailed", "PENDING_VALIDATION").await;
        let other_name = public(&life, &format!("www.{}", life.prepared.zone)).await;
        life.change("d", existing(&other_name, None)).await;
        refused(&life, "CertificateFailed", &format!("is not for {}", life.host())).await;
        assert_eq!(life.gateway_domains().await, [""; 0]);

        // Put right by its owner, it is taken as it is.
        life.change("d", existing(&pending, None)).await;
        let record = described(&life, &pending).await.domain_validation_options()[0].resource_record().unwrap().clone();
        upsert(&life, &life.prepared.zone_id, record.name(), record.value()).await;
        life.ready("d").await;

        // It expires: said, and nothing is torn down for it.
        let mark = life.mark().await;
        becomes(&life, CertificateState { arn: &pending, status: "EXPIRED", ..CertificateState::default() }).await;
        refused(&life, "CertificateFailed", "is EXPIRED").await;
        life.reconciles(2).await;
        assert_eq!(life.writes(mark).await, [""; 0]);
    });
}

#[test]
fn ours_is_replaced_by_an_existing_one_and_back() {
    run(async {
        let life = Life::start("exchanged").await;
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        let ours = in_use(&life).await.0;
        let theirs = public(&life, &life.host()).await;
        let only = async |arn: &str| {
            eventually("the other one's end", async || match life.server_certificates().await {
                all if all == [arn] => Ok(()),
                all => Err(format!("{all:?}")),
            })
            .await;
        };
        let mark = life.mark().await;
        changed(&life, existing(&theirs, None)).await;
        assert_eq!(in_use(&life).await.0, theirs);
        only(&theirs).await;
        assert_eq!(life.writes(mark).await, ["UpdateDomainName", "DeleteCertificate"]);

        let mark = life.mark().await;
        changed(&life, json!({"serverCertificate": null})).await;
        let new = in_use(&life).await.0;
        assert!(new != theirs && new != ours);
        assert_eq!(life.writes(mark).await, ["RequestCertificate", "UpdateDomainName"], "the record is there still");
        assert_eq!(life.server_certificates().await.len(), 2, "theirs stays");
    });
}

/// Killed after the swap, and again while ACM says that the old one is in use still.
#[test]
fn another_key_and_more_names_are_one_new_certificate_swapped_in_place() {
    run(async {
        let mut life = Life::start("swap").await;
        let (account, control) = (life.account.id.clone(), life.control());
        let zone2 = format!("z{account}.example.org");
        let zone2_id = hosted_zone(&life.account, &zone2).await.unwrap();
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        let old = in_use(&life).await.0;
        assert_eq!(described(&life, &old).await.key_algorithm.unwrap().as_str(), "EC-prime256v1");
        control.set_knobs(&account, &[("in_use_linger", 3600.0)]).await.unwrap();
        let hold = Fault {
            operation: "UpdateDomainName",
            account: &account,
            when: When::After,
            hold: true,
            ..Fault::default()
        };
        let fault = control.add_faults(&[hold]).await.unwrap().remove(0).id;

        let mark = life.mark().await;
        let names = [format!("www.{}", life.prepared.zone), format!("*.{zone2}"), zone2.clone()];
        let request = json!({"keyAlgorithm": "RSA_2048", "subjectAlternativeNames": names});
        life.change("d", json!({"serverCertificate": {"request": request}})).await;
        life.kill_at(fault, "the swap").await;
        life.ready("d").await;

        let new = in_use(&life).await.0;
        assert_ne!(new, old);
        let certificate = described(&life, &new).await;
        assert_eq!(certificate.status.as_ref().unwrap().as_str(), "ISSUED");
        assert_eq!(certificate.key_algorithm.as_ref().unwrap().as_str(), "RSA-2048");
        let mut covered = certificate.subject_alternative_names().to_vec();
        covered.sort();
        let mut wanted: Vec<_> = names.iter().cloned().chain([life.host()]).collect();
        wanted.sort();
        assert_eq!(covered, wanted);
        let in_zone2 = life.route53().list_resource_record_sets().hosted_zone_id(&zone2_id).send().await.unwrap();
        let cnames = in_zone2.resource_record_sets().iter().filter(|r| r.r#type == RrType::Cname).count();
        assert_eq!(cnames, 1, "a name and its wildcard share a record");

        // In use still, says ACM: it stays, and nobody tries to delete it or waits for that.
        life.reconciles(2).await;
        assert_eq!(life.server_certificates().await.len(), 2);
        life.operator.kill();
        life.operator.restart().unwrap();
        life.reconciles(2).await;
        assert_eq!(count(&life.writes(mark).await, "DeleteCertificate"), 0);
        control.advance(&account, std::time::Duration::from_secs(3601)).await.unwrap();
        eventually("the old one's end", async || match life.server_certificates().await {
            all if all == [new.as_str()] => Ok(()),
            all => Err(format!("{all:?}")),
        })
        .await;
        let writes = life.writes(mark).await;
        let counted =
            ["RequestCertificate", "UpdateDomainName", "DeleteDomainName", "CreateDomainName", "DeleteCertificate"]
                .map(|operation| count(&writes, operation));
        assert_eq!(counted, [1, 1, 0, 0, 1], "{writes:?}");
    });
}

#[test]
fn without_a_zone_for_every_name_nothing_is_requested() {
    run(async {
        let life = Life::start("nozone").await;
        let other = format!("z{}.example.net", life.account.id);
        let request = json!({"subjectAlternativeNames": [format!("www.{other}")]});
        let mark = life.mark().await;
        life.create_domain("d", json!({"serverCertificate": {"request": request}})).await;
        refused(&life, "HostedZoneNotFound", &format!("www.{other}")).await;
        life.reconciles(2).await;
        assert_eq!(count(&life.writes(mark).await, "RequestCertificate"), 0);
        hosted_zone(&life.account, &other).await.unwrap();
        life.ready("d").await;
        assert_eq!(count(&life.writes(mark).await, "RequestCertificate"), 1);
    });
}

#[test]
fn what_failed_or_timed_out_is_requested_again_later_and_later() {
    run(async {
        let life = Life::start("invain").await;
        let control = life.control();
        control.set_knobs(&life.account.id, &[("issue_delay", 1e9)]).await.unwrap();
        let mark = life.mark().await;
        life.create_domain("d", json!({})).await;
        let failed = async |known: &[String]| {
            let new = eventually("another request", async || match life.server_certificates().await {
                all if all.len() == known.len() + 1 => Ok(all.into_iter().find(|arn| !known.contains(arn)).unwrap()),
                all => Err(format!("{all:?}")),
            })
            .await;
            life.condition("d", "CertificateIssued", |c| c.reason == "WaitingForValidation").await;
            new
        };
        let ends = async |arn: &str, status: &str, reason: &str, age: SignedDuration| {
            let created_at = epoch(Timestamp::now() - age);
            becomes(&life, CertificateState { arn, status, reason, created_at, ..CertificateState::default() }).await;
        };
        let first = failed(&[]).await;
        ends(&first, "FAILED", "CAA_ERROR", DAY).await;
        let condition = refused(&life, "CertificateFailed", "CAA_ERROR").await;
        assert!(condition.message.contains("amazon.com") && condition.message.contains(&first), "{condition:?}");
        life.reconciles(2).await;
        assert_eq!(life.server_certificates().await, [first.as_str()], "not before three days have gone");

        ends(&first, "FAILED", "CAA_ERROR", DAY * 8).await;
        let second = failed(std::slice::from_ref(&first)).await;
        // ACM gives up after 72 hours.
        ends(&second, "VALIDATION_TIMED_OUT", "", DAY * 7 / 2).await;
        let record = described(&life, &second).await.domain_validation_options()[0].resource_record().unwrap().clone();
        refused(&life, "CertificateFailed", &format!("{} CNAME {}", record.name(), record.value())).await;
        life.reconciles(2).await;
        assert_eq!(life.server_certificates().await.len(), 2, "not before four days have gone");
        ends(&second, "VALIDATION_TIMED_OUT", "", DAY * 9 / 2).await;
        let third = failed(&[first, second]).await;

        control.set_knobs(&life.account.id, &[("issue_delay", 0.0)]).await.unwrap();
        life.ready("d").await;
        assert_eq!(in_use(&life).await.0, third);
        eventually("the end of those in vain", async || match life.server_certificates().await {
            all if all == [third.as_str()] => Ok(()),
            all => Err(format!("{all:?}")),
        })
        .await;
        assert_eq!(count(&life.writes(mark).await, "RequestCertificate"), 3);
    });
}

#[test]
fn each_step_of_a_renewal_is_in_status_and_in_one_event() {
    run(async {
        let life = Life::start("renewal").await;
        life.create_domain("d", json!({})).await;
        let ready = life.ready("d").await;
        let arn = in_use(&life).await.0;
        let mark = life.mark().await;
        let renewal_step = async |renewal: &str, reason: &str, days: i64| {
            let not_after = epoch(in_days(days));
            becomes(&life, CertificateState { arn: &arn, renewal, reason, not_after, ..CertificateState::default() })
                .await;
            shown(&life, renewal, |c| c.renewal.as_deref() == Some(renewal)).await
        };
        assert_eq!(renewal_step("PENDING_AUTO_RENEWAL", "", 45).await.warnings, [""; 0]);
        let record = described(&life, &arn).await.domain_validation_options()[0].resource_record().unwrap().clone();
        let line = format!("{} CNAME {}", record.name(), record.value());
        assert!(renewal_step("PENDING_VALIDATION", "", 45).await.warnings[0].contains(&line));
        told(&life, "RenewalPending", "Warning", &line).await;
        renewal_step("PENDING_VALIDATION", "", 20).await;
        told(&life, "CertificateExpiring", "Warning", &arn).await;
        let state = renewal_step("FAILED", "CAA_ERROR", 20).await;
        assert_eq!(state.warnings.len(), 2, "{state:?}");
        told(&life, "RenewalFailed", "Warning", "CAA_ERROR").await;
        let state = renewal_step("SUCCESS", "", 198).await;
        assert_eq!(state.warnings, [""; 0]);
        told(&life, "CertificateRenewed", "Normal", &arn).await;

        life.reconciles(2).await;
        for reason in ["RenewalPending", "CertificateExpiring", "RenewalFailed", "CertificateRenewed"] {
            assert_eq!(events(&life, reason).await.len(), 1, "{reason}");
        }
        assert_eq!(life.writes(mark).await, [""; 0]);
        assert_eq!(life.ready("d").await, ready, "Ready throughout");
    });
}

#[test]
fn an_imported_certificate_is_watched_too() {
    run(async {
        let life = Life::start("imported").await;
        let (own, proof) = (imported(&life, &life.host(), 10, None).await, public(&life, &life.host()).await);
        life.create_domain("d", existing(&own, Some(&proof))).await;
        life.ready("d").await;
        told(&life, "CertificateExpiring", "Warning", &own).await;
        assert_eq!(shown(&life, "the warning", |c| !c.warnings.is_empty()).await.warnings.len(), 1);
        imported(&life, &life.host(), 300, Some(&own)).await;
        told(&life, "CertificateRenewed", "Normal", &own).await;
        assert_eq!(shown(&life, "no warning", |c| c.warnings.is_empty()).await.arn, own);

        // The proof must stay valid as well.
        becomes(&life, CertificateState { arn: &proof, status: "EXPIRED", ..CertificateState::default() }).await;
        refused(&life, "CertificateFailed", &format!("ownershipVerificationArn: {proof} is EXPIRED")).await;
    });
}

#[test]
fn a_domain_locked_for_its_certificate_says_so_and_takes_the_one_that_helps() {
    run(async {
        let life = Life::start("locked").await;
        let (own, proof) = (imported(&life, &life.host(), 300, None).await, public(&life, &life.host()).await);
        life.create_domain("d", existing(&own, Some(&proof))).await;
        life.ready("d").await;
        let mark = life.mark().await;
        for (status, message) in [
            ("PENDING_CERTIFICATE_REIMPORT", "the re-imported certificate has another name"),
            ("PENDING_OWNERSHIP_VERIFICATION", "the ownership certificate has expired"),
        ] {
            let set = life.control().set_domain_status(&life.account.id, &life.host(), status, message).await;
            assert_eq!(set.unwrap(), 1);
            let condition = life.condition("d", "DomainProgrammed", |c| c.message.contains(status)).await;
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "DomainRejected"));
            assert!(condition.message.contains(message), "{}", condition.message);
        }
        life.reconciles(2).await;
        assert_eq!(life.writes(mark).await, [""; 0], "nothing that would be refused");
        let other_proof = public(&life, &life.host()).await;
        let mark = life.mark().await;
        changed(&life, existing(&own, Some(&other_proof))).await;
        assert_eq!(in_use(&life).await, (own, Some(other_proof)));
        assert_eq!(life.writes(mark).await, ["UpdateDomainName"]);
    });
}

#[test]
fn a_request_that_acm_does_not_list_yet_is_one_certificate_and_few_calls() {
    run(async {
        let life = Life::start("unlisted").await;
        let delays = [("certificate_delay", 3.0), ("record_delay", 5.0)];
        life.control().set_knobs(&life.account.id, &delays).await.unwrap();
        let mark = life.mark().await;
        life.create_domain("d", json!({})).await;
        life.ready("d").await;
        assert_eq!(life.server_certificates().await, [in_use(&life).await.0]);
        let writes = life.writes(mark).await;
        assert!(count(&writes, "RequestCertificate") < 10, "{writes:?}");
    });
}

/// What somebody deletes leaves no trace in ACM, but AWS counts it for a year.
#[test]
fn whoever_deletes_our_certificates_makes_us_request_no_more_than_twelve_in_a_day() {
    run(async {
        let life = Life::start("deleter").await;
        life.control().set_knobs(&life.account.id, &[("issue_delay", 1e9)]).await.unwrap();
        life.create_domain("d", json!({})).await;
        for n in 1..=12 {
            let arn = eventually(&format!("request {n}"), async || match &life.server_certificates().await[..] {
                [arn] => Ok(arn.clone()),
                all => Err(format!("{all:?}")),
            })
            .await;
            life.acm().delete_certificate().certificate_arn(arn).send().await.expect("it can be deleted");
        }
        let queued = life.condition("d", "CertificateIssued", |c| c.reason == "Queued").await;
        assert_eq!(queued.status, "Unknown", "{queued:?}");
        life.reconciles(2).await;
        assert_eq!(life.server_certificates().await, [""; 0]);
    });
}
