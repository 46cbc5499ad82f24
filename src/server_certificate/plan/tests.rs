//! Selection and checks of the certificate, case by case.

use std::collections::BTreeMap;

use crate::{
    api::{AdoptionPolicy, conditions::Reason},
    aws::{
        acm::{self, CertificateKind, CertificateStatus},
        action::{AcmAction, ApiGatewayAction},
        arn::Arn,
        tags::{ADOPTED_TAG, OWNER_TAG},
    },
    controllers::mtls_domain::{
        plan::unlimited as plan,
        simulation::world::{World, desired, domain, empty, front_again, now},
    },
    model::{
        action::Action,
        desired::{Desired, DesiredCertificate},
        observed::Observed,
        placement::DesiredDns,
        step::{Step, StepPlan, StepState},
    },
    observation::seen::Unseen,
    server_certificate::{
        owned::validation,
        plan::{certificates, chosen, ownership},
    },
};

const NAME: &str = "api.example.com";

/// Returns another owner's certificate for `names`, ISSUED.
fn not_owned(arn: &str, kind: CertificateKind, names: &[&str]) -> acm::Certificate {
    let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
    let key = acm::KeyAlgorithm::Rsa2048;
    let c = crate::controllers::mtls_domain::simulation::world::certificate(
        arn,
        "",
        CertificateStatus::Issued,
        &names,
        key,
    );
    acm::Certificate {
        kind,
        tags: BTreeMap::new(),
        ..c
    }
}

fn existing(ownership_arn: Option<&str>) -> Desired {
    let certificate = DesiredCertificate::Existing {
        arn: "arn:there".into(),
        ownership_arn: ownership_arn.map(Arn::from),
    };
    Desired {
        certificate,
        ..desired()
    }
}

/// Returns a world with only these certificates.
fn world(certificates: Vec<acm::Certificate>) -> World {
    let mut w = empty();
    w.certificates = certificates;
    w
}

/// Returns reason and message of CertificateIssued.
pub(crate) fn state(d: &Desired, w: &World) -> (Reason, String) {
    match certificates(d, &w.observed(), now()) {
        StepPlan::Done(reason, message)
        | StepPlan::Correcting(reason, message, _)
        | StepPlan::Pending(StepState::Wait(reason, message) | StepState::Blocked(reason, message), _) => {
            (reason, message)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_existing_certificate_is_checked_as_api_gateway_does() {
    use CertificateKind::*;
    let at = |kind, names: &[&str]| vec![not_owned("arn:there", kind, names)];
    let with = |kind, proof: acm::Certificate| vec![not_owned("arn:there", kind, &[NAME]), proof];
    let proof = || not_owned("arn:proof", Requested, &[NAME]);
    let status = |status| acm::Certificate {
        status,
        ..not_owned("arn:there", Requested, &[NAME])
    };
    let day = jiff::SignedDuration::from_hours(24);
    let until = |t| acm::Certificate {
        not_after: Some(t),
        ..not_owned("arn:there", Requested, &[NAME])
    };
    let own = Some("arn:proof");
    for (there, ownership, reason, says) in [
        (
            at(Requested, &[NAME]),
            None,
            Reason::Issued,
            "arn:there is ISSUED",
        ),
        (at(Requested, &["*.example.com"]), None, Reason::Issued, ""),
        (
            vec![until(now() + day)],
            None,
            Reason::Issued,
            "valid until 2027-01-16",
        ),
        (
            vec![],
            None,
            Reason::RefNotFound,
            "spec.serverCertificate.existing.arn: there is no certificate arn:there",
        ),
        (
            at(Requested, &["example.com", "*.api.example.com"]),
            None,
            Reason::CertificateFailed,
            "but for example.com",
        ),
        (
            at(Requested, &["*.com", "*.*.com"]),
            None,
            Reason::CertificateFailed,
            "is not for api.example.com",
        ),
        (
            vec![status(CertificateStatus::PendingValidation)],
            None,
            Reason::CertificateFailed,
            "PENDING_VALIDATION",
        ),
        (
            vec![status(CertificateStatus::Revoked)],
            None,
            Reason::CertificateFailed,
            "is REVOKED",
        ),
        (vec![until(now())], None, Reason::CertificateFailed, "is EXPIRED"),
        (
            at(Imported, &[NAME]),
            None,
            Reason::InvalidSpec,
            "ownershipVerificationArn: arn:there was imported",
        ),
        (
            at(PrivateCa, &[NAME]),
            None,
            Reason::InvalidSpec,
            "ownershipVerificationArn: arn:there is from AWS Private",
        ),
        (with(Imported, proof()), own, Reason::Issued, ""),
        (with(PrivateCa, proof()), own, Reason::Issued, ""),
        (
            with(Requested, proof()),
            own,
            Reason::InvalidSpec,
            "ownershipVerificationArn: leave it out",
        ),
        (
            at(Imported, &[NAME]),
            own,
            Reason::RefNotFound,
            "ownershipVerificationArn: there is no certificate arn:proof",
        ),
        (
            with(Imported, not_owned("arn:proof", Imported, &[NAME])),
            own,
            Reason::InvalidSpec,
            "ownershipVerificationArn: arn:proof is not a public",
        ),
        (
            with(Imported, not_owned("arn:proof", Requested, &["www.example.com"])),
            own,
            Reason::CertificateFailed,
            "ownershipVerificationArn: arn:proof is not for",
        ),
        (
            with(
                Imported,
                acm::Certificate {
                    status: CertificateStatus::Expired,
                    ..proof()
                },
            ),
            own,
            Reason::CertificateFailed,
            "ownershipVerificationArn: arn:proof is EXPIRED",
        ),
    ] {
        let w = world(there);
        let (told, message) = state(&existing(ownership), &w);
        assert!(
            told == reason && message.contains(says),
            "{reason}, {says}: {told}, {message}"
        );
        let step_plan = certificates(&existing(ownership), &w.observed(), now());
        assert!(!step_plan.has_actions(), "the operator only reads it");
    }
}

#[test]
fn the_proof_of_the_name_goes_into_the_same_call() {
    let there = not_owned("arn:there", CertificateKind::Imported, &[NAME]);
    let proof = not_owned("arn:proof", CertificateKind::Requested, &[NAME]);
    let d = existing(Some("arn:proof"));
    let mut w = world(vec![there, proof]);
    w.converge(&d);
    let g = w.domain.as_ref().expect("made");
    assert_eq!(
        (&*g.certificate_arn, g.ownership_certificate_arn.as_deref()),
        ("arn:there", Some("arn:proof"))
    );
    // Another proof certificate is one update.
    w.certificates.push(not_owned(
        "arn:proof2",
        CertificateKind::Requested,
        &["*.example.com"],
    ));
    let d = existing(Some("arn:proof2"));
    let plan = plan(&d, &w.observed(), now());
    let actions: Vec<_> = plan.actions().collect();
    let [(Step::DomainProgrammed, Action::ApiGateway(ApiGatewayAction::UpdateDomain(r)))] = actions[..]
    else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(r.ownership_certificate_arn.as_deref(), Some("arn:proof2"));
}

/// The change from an owned to an existing certificate: the owned certificate is deleted, but not while the
/// spec names it, also as a proof.
#[test]
fn an_owned_certificate_is_deleted_after_its_replacement() {
    let mut w = empty();
    w.converge(&desired());
    let ours = w.certificates[0].arn.clone();
    w.certificates
        .push(not_owned("arn:there", CertificateKind::Imported, &[NAME]));
    w.converge(&existing(Some(&ours)));
    let g = w.domain.as_ref().expect("there");
    assert_eq!(
        (&*g.certificate_arn, g.ownership_certificate_arn.as_ref()),
        ("arn:there", Some(&ours))
    );
    w.certificates
        .push(not_owned("arn:proof", CertificateKind::Requested, &[NAME]));
    w.converge(&existing(Some("arn:proof")));
    let left: Vec<_> = w.certificates.iter().map(|c| &*c.arn).collect();
    assert_eq!(left, ["arn:there", "arn:proof"]);
    // The change back.
    w.converge(&desired());
    let g = w.domain.as_ref().expect("there");
    assert_eq!(
        (w.certificates.len(), &g.certificate_arn),
        (3, &w.certificates[2].arn)
    );
}

#[test]
fn a_domain_that_is_taken_over_keeps_its_certificate() {
    let came_with = |kind| {
        let mut g = domain("", "arn:there", "v1");
        g.tags.clear();
        let mut w = world(vec![not_owned("arn:there", kind, &[NAME])]);
        w.domain = Some(g);
        w
    };
    let chosen_arn = |d: &Desired, w: &World| chosen(d, &w.observed()).map(|c| c.arn.clone());
    let unowned = Desired {
        adoption: AdoptionPolicy::Unowned,
        ..desired()
    };
    let w = came_with(CertificateKind::Requested);
    assert_eq!(chosen_arn(&unowned, &w).as_deref(), Some("arn:there"));
    assert!(state(&unowned, &w).1.contains("came with, arn:there is ISSUED"));
    // Without a takeover, or with a certificate in the spec, the operator requests one.
    let asks = |d: &Desired, w: &World| {
        matches!(
            certificates(d, &w.observed(), now()).into_actions()[..],
            [Action::Acm(AcmAction::RequestCertificate(_))]
        )
    };
    assert!(asks(&desired(), &w));
    let DesiredCertificate::Request { request, .. } = desired().certificate else {
        unreachable!()
    };
    let spelled_out = Desired {
        certificate: DesiredCertificate::Request { request, keep: false },
        ..unowned.clone()
    };
    assert!(asks(&spelled_out, &w));

    // A taken-over domain, according to its tags, with any policy.
    let mut w = came_with(CertificateKind::Requested);
    let tags = &mut w.domain.as_mut().expect("there").tags;
    tags.extend([
        (OWNER_TAG.to_owned(), desired().placement.owner),
        (ADOPTED_TAG.to_owned(), "true".to_owned()),
    ]);
    assert_eq!(chosen_arn(&desired(), &w).as_deref(), Some("arn:there"));
    w.domain
        .as_mut()
        .expect("there")
        .tags
        .insert(OWNER_TAG.to_owned(), "other".to_owned());
    assert!(asks(&unowned, &w), "of another owner");
    let tags = &mut w.domain.as_mut().expect("there").tags;
    *tags = [(OWNER_TAG.to_owned(), desired().placement.owner)].into();
    assert!(
        asks(&unowned, &w),
        "created by the operator, with another owner's certificate"
    );

    // A certificate that the operator requested since counts as requested.
    let mut w = came_with(CertificateKind::Requested);
    w.certificates[0]
        .tags
        .insert(OWNER_TAG.to_owned(), desired().placement.owner);
    w.certificates[0].key_algorithm = acm::KeyAlgorithm::EcPrime256v1;
    assert_eq!(state(&unowned, &w).1, "arn:there is ISSUED");

    // The domain's own proof of the name stays; without a proof the spec must name one.
    let mut w = came_with(CertificateKind::Imported);
    let (reason, message) = state(&unowned, &w);
    assert_eq!(reason, Reason::InvalidSpec);
    assert!(
        message.contains("ownershipVerificationArn") && message.contains("existing.arn"),
        "{message}"
    );
    w.certificates
        .push(not_owned("arn:proof", CertificateKind::Requested, &[NAME]));
    w.domain.as_mut().expect("there").ownership_certificate_arn = Some("arn:proof".to_owned());
    assert_eq!(state(&unowned, &w).0, Reason::Issued);
    assert_eq!(
        ownership(&unowned, &w.observed()).map(|c| &*c.arn),
        Some("arn:proof")
    );

    // Unknown state decides nothing.
    let mut o = w.observed();
    o.domain = Err(Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    });
    front_again(&mut o);
    assert!(matches!(
        certificates(&unowned, &o, now()),
        StepPlan::Pending(StepState::Unknown(_), _)
    ));
}

/// A spec without a key algorithm: the certificate that is there stays, whatever its key.
#[test]
fn only_an_explicit_key_algorithm_replaces_a_certificate() {
    use acm::KeyAlgorithm::*;
    let with_key = |key| {
        let mut d = desired();
        let DesiredCertificate::Request { request, .. } = &mut d.certificate else {
            unreachable!()
        };
        request.token = format!("{key:?}"); // as for another spec
        request.key_algorithm = key;
        d
    };
    let requests = |d: &Desired, w: &World| {
        let actions = certificates(d, &w.observed(), now()).into_actions();
        actions.into_iter().find_map(|action| match action {
            Action::Acm(AcmAction::RequestCertificate(r)) => Some(r.key_algorithm),
            _ => None,
        })
    };
    assert_eq!(
        requests(&with_key(None), &empty()),
        Some(Rsa2048),
        "a new certificate"
    );
    for there in [EcPrime256v1, EcSecp384r1, Rsa2048, Other("RSA_4096".into())] {
        for status in [CertificateStatus::Issued, CertificateStatus::PendingValidation] {
            let mut w = empty();
            w.converge(&with_key(None));
            (w.certificates[0].key_algorithm, w.certificates[0].status) = (there.clone(), status);
            assert_eq!(requests(&with_key(None), &w), None, "{there:?}");
            for asked in [EcPrime256v1, EcSecp384r1, Rsa2048] {
                let expected = (asked != there).then(|| asked.clone());
                assert_eq!(requests(&with_key(Some(asked)), &w), expected, "{there:?}");
            }
        }
    }
    // An explicit algorithm that is removed from the spec keeps its certificate.
    let mut w = empty();
    w.converge(&with_key(Some(EcSecp384r1)));
    let before = w.certificates.clone();
    w.converge(&with_key(None));
    assert_eq!(w.certificates, before);
}

/// Tags that are demanded later are added to what exists. Tags of others, and an existing certificate, stay.
#[test]
fn demanded_tags_reach_what_exists() {
    let mut w = empty();
    w.converge(&desired());
    let tag = |tags: &mut BTreeMap<String, String>, key: &str, value: &str| {
        tags.insert(key.to_owned(), value.to_owned())
    };
    tag(&mut w.certificates[0].tags, "theirs", "x");
    tag(&mut w.certificates[0].tags, "team", "old");
    let mut d = desired();
    tag(&mut d.placement.tags, "team", "payments");
    let mut actions: Vec<_> = plan(&d, &w.observed(), now())
        .actions()
        .map(|(_, action)| action.to_string())
        .collect();
    actions.sort();
    let certificate = format!("tag {} with team", w.certificates[0].arn);
    let upload = format!("upload {}", d.truststore.uri());
    assert_eq!(
        actions,
        [certificate, upload],
        "the domain follows with the new version"
    );
    w.converge(&d);
    let tags = &w.certificates[0].tags;
    assert_eq!((&*tags["theirs"], &*tags["team"]), ("x", "payments"));
    assert_eq!(w.domain.as_ref().expect("there").tags["team"], "payments");
    // A tag that is demanded no more stays, and so does the truststore's version.
    let before = (w.certificates.clone(), w.versions.len());
    assert_eq!(plan(&desired(), &w.observed(), now()).actions().count(), 0);
    w.converge(&desired());
    assert_eq!((w.certificates.clone(), w.versions.len()), before);

    let mut w = world(vec![not_owned("arn:there", CertificateKind::Requested, &[NAME])]);
    let mut d = existing(None);
    tag(&mut d.placement.tags, "team", "payments");
    w.converge(&d);
    assert_eq!(
        w.certificates[0].tags,
        BTreeMap::new(),
        "the operator only reads it"
    );
    assert_eq!(plan(&d, &w.observed(), now()).actions().count(), 0);
}

#[test]
fn an_unreadable_certificate_is_unknown() {
    let mut w = empty();
    w.converge(&desired());
    let mut o = w.observed();
    o.named.insert(
        "arn:there".into(),
        Err(Unseen {
            reason: Reason::Unreachable,
            message: "no answer".into(),
        }),
    );
    let plan = plan(&existing(None), &o, now());
    assert!(matches!(
        plan.steps[&Step::CertificateIssued],
        StepPlan::Pending(StepState::Unknown(_), _)
    ));
    assert_eq!(plan.actions().count(), 0, "the domain stays as it is");
}

#[test]
fn external_records_are_reported_as_zone_file_lines() {
    let mut d = desired();
    d.placement.dns = DesiredDns::External {
        verify: crate::api::DnsVerification::PublicDNS,
    };
    let DesiredCertificate::Request { request, .. } = &mut d.certificate else {
        unreachable!()
    };
    request.names = vec!["*.api.example.com".into(), NAME.into(), "www.example.org".into()];
    let mut w = empty();
    let o = Observed {
        zones: Ok(BTreeMap::new()),
        ..w.observed()
    };
    let actions = certificates(&d, &o, now()).into_actions();
    let [Action::Acm(AcmAction::RequestCertificate(r))] = &actions[..] else {
        panic!("{actions:?}")
    };
    w.perform(AcmAction::RequestCertificate(r.clone()).into());
    assert_eq!(state(&d, &w).1, "ACM has not named the validation record yet");
    for v in &mut w.certificates[0].validation {
        let base = v.domain.trim_start_matches("*.");
        v.record = Some((format!("_x.{base}"), format!("_y.{base}.acm-validations.aws.")));
    }
    let (reason, message) = state(&d, &w);
    let lines = "_x.api.example.com. CNAME _y.api.example.com.acm-validations.aws.; \
                 _x.www.example.org. CNAME _y.www.example.org.acm-validations.aws.";
    assert_eq!(
        (reason, message),
        (
            Reason::WaitingForValidation,
            format!("create in public DNS: {lines}")
        )
    );
    assert_eq!(validation(&w.certificates[0]).len(), 2);
}
