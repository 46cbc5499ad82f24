//! Tests of `references`.

use crate::{
    api::{AuthorityState, conditions::Reason},
    controllers::mtls_domain::{
        plan::unlimited as plan,
        simulation::world::{self, empty, now, settled},
    },
    model::{
        action::Action,
        authorities::{DesiredAuthority, DesiredSource},
        desired::Desired,
        observed::{CanIssue, Observed, Source},
        step::{Step, StepPlan, StepState},
    },
    observation::seen::Unseen,
    pki::{
        authority::{self, AuthorityRequest, tests::request},
        certificate::Certificate,
        pem_certificates::parse_pem_bundle,
        pem_error::ParseError,
    },
};

fn made(common_name: &str) -> Certificate {
    let request = AuthorityRequest {
        common_name: common_name.into(),
        ..request(common_name)
    };
    parse_pem_bundle(&authority::generate(&request, now()).unwrap().certificate_pem)
        .unwrap()
        .remove(0)
}

fn read(certificates: &[&Certificate], can_issue: CanIssue) -> Source {
    Source::Read {
        certificates: Ok(certificates.iter().map(|c| (*c).clone()).collect()),
        completing: Ok(vec![]),
        can_issue,
    }
}

/// Returns the reason why ResolvedRefs is blocked, its message, and the number of actions.
fn resolved(d: &Desired, o: &Observed) -> (Option<Reason>, String, usize) {
    let plan = plan(d, o, now());
    let step_plan = &plan.steps[&Step::ResolvedRefs];
    let actions = step_plan.actions().count();
    match step_plan {
        StepPlan::Pending(StepState::Blocked(reason, message), _) => {
            (Some(*reason), message.clone(), actions)
        }
        _ => (None, String::new(), actions),
    }
}

fn trusts(d: &Desired, o: &Observed, certificate: &Certificate) -> bool {
    let compiled = plan(d, o, now()).truststore.expect("a compiled truststore");
    compiled.bundle.find(certificate).is_some()
}

/// Adds a second generated authority, `next`, with these contents of its Secret.
fn with_next(found: Source) -> (Desired, Observed) {
    let (mut d, mut o) = settled();
    d.authorities.push(DesiredAuthority {
        name: "next".into(),
        state: AuthorityState::Active,
        source: DesiredSource::Generated {
            secret: "partners.next-ca".into(),
            request: request("Partners 2027"),
        },
    });
    o.authorities.insert("next".into(), found);
    (d, o)
}

#[test]
fn a_planted_secret_is_reported_and_neither_trusted_nor_used_to_issue() {
    let (own, twin, mallory) = (made("Partners 2027"), made("Partners 2027"), made("Mallory"));
    let missing = Source::Missing("there is no Secret partners.next-ca in this namespace".into());
    let (d, o) = with_next(missing);
    assert_eq!(
        resolved(&d, &o),
        (None, String::new(), 1),
        "the operator generates it"
    );

    let (d, mut o) = with_next(read(&[&own, &own], CanIssue::Yes));
    o.recorded.insert("next".into(), own.spki_sha256.clone());
    assert_eq!(resolved(&d, &o), (None, String::new(), 0));
    assert!(trusts(&d, &o, &own));

    let unlabelled = Source::NotOwned("it lacks the label x=y".into());
    for (what, found, planted) in [
        (
            "another subject",
            read(&[&mallory, &mallory], CanIssue::Yes),
            &mallory,
        ),
        ("without a key", read(&[&mallory], CanIssue::No), &mallory),
        ("the right subject", read(&[&twin, &twin], CanIssue::Yes), &twin),
        (
            "with the owned certificate",
            read(&[&own, &mallory], CanIssue::Yes),
            &mallory,
        ),
        ("without labels", unlabelled, &mallory),
    ] {
        let (d, mut o) = with_next(found);
        o.recorded.insert("next".into(), own.spki_sha256.clone());
        let (reason, message, actions) = resolved(&d, &o);
        assert_eq!((reason, actions), (Some(Reason::SecretNotOwned), 0), "{what}");
        for word in ["authority next", "partners.next-ca", "Delete it", "secretRef"] {
            assert!(message.contains(word), "{what}: {message}");
        }
        assert!(!trusts(&d, &o, planted), "{what}");
        let refused = plan(&d, &o, now()).truststore.unwrap().refused_issuers;
        assert_eq!(
            refused, [""; 0],
            "{what}: nothing issues with it, so that nothing is rejected"
        );
    }
}

#[test]
fn a_missing_key_is_lost_with_or_without_a_record() {
    let (d, mut o) = settled();
    o.authorities
        .insert("partners".into(), Source::Missing("no Secret".into()));
    assert_eq!(resolved(&d, &o).0, Some(Reason::AuthorityKeyLost));
    o.recorded.clear();
    assert_eq!(resolved(&d, &o).0, Some(Reason::AuthorityKeyLost));
    // Another certificate in the Secret does not replace the lost key.
    let twin = made("Partners");
    o.authorities
        .insert("partners".into(), read(&[&twin, &twin], CanIssue::Yes));
    assert_eq!(resolved(&d, &o).0, Some(Reason::SecretNotOwned));
    let (_, own) = settled();
    o.authorities = own.authorities;
    assert_eq!(resolved(&d, &o).0, None, "restored, and in the truststore");
    let Some(Source::Read {
        certificates: Ok(certificates),
        ..
    }) = o.authorities.get("partners")
    else {
        panic!()
    };
    let own = certificates[0].clone();
    o.authorities
        .insert("partners".into(), read(&[&own], CanIssue::No));
    assert_eq!(
        resolved(&d, &o).0,
        Some(Reason::AuthorityKeyLost),
        "owned, without its key"
    );
    // The truststore never held the authority: the operator generates a recorded authority without a
    // Secret again.
    let mut o = empty().observed();
    o.recorded.insert("partners".into(), own.spki_sha256.clone());
    let again = plan(&d, &o, now());
    let again: Vec<_> = again.actions().map(|(_, action)| action).collect();
    let expected = Action::GenerateAuthority {
        authority: "partners".into(),
        recorded: Some(own.spki_sha256),
    };
    assert!(again.contains(&&expected), "{again:?}");
}

#[test]
fn an_unknown_truststore_decides_no_ownership() {
    let (d, mut o) = settled();
    o.recorded.clear();
    let unseen = || Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    };
    o.published = Err(unseen());
    let plan = plan(&d, &o, now());
    assert_eq!(
        plan.steps[&Step::ResolvedRefs],
        StepPlan::done(Reason::ResolvedRefs, "everything the spec refers to is there"),
        "the truststore in use decides"
    );
    let empty = world::empty().observed();
    o.pinned = empty.pinned;
    let plan = crate::controllers::mtls_domain::plan::unlimited(&d, &o, now());
    let unknown = StepState::Unknown(unseen());
    assert_eq!(plan.steps[&Step::ResolvedRefs], unknown.into());
}

#[test]
fn distrust_removes_the_certificates_of_the_entry_with_any_planted_secret() {
    let (mut d, mut o) = settled();
    let Some(Source::Read {
        certificates: Ok(own),
        ..
    }) = o.authorities.get("partners").cloned()
    else {
        panic!()
    };
    let other = made("Other");
    d.authorities.push(DesiredAuthority {
        name: "other".into(),
        state: AuthorityState::Active,
        source: DesiredSource::Pem(String::new()),
    });
    o.authorities
        .insert("other".into(), read(&[&other], CanIssue::No));
    assert!(trusts(&d, &o, &own[0]) && trusts(&d, &o, &other));
    d.authorities[0].state = AuthorityState::Distrusted;
    let unlabelled = Source::NotOwned("it lacks the label x=y".into());
    for (what, found) in [
        ("its own", read(&[&own[0], &own[0]], CanIssue::Yes)),
        (
            "a trusted certificate of another authority",
            read(&[&other, &other], CanIssue::Yes),
        ),
        ("the same without a key", read(&[&other], CanIssue::No)),
        ("the same with its own", read(&[&own[0], &other], CanIssue::Yes)),
        ("without labels", unlabelled),
        ("none", Source::Missing("no Secret".into())),
    ] {
        o.authorities.insert("partners".into(), found);
        assert!(!trusts(&d, &o, &own[0]), "{what}: the certificate stays trusted");
        assert!(
            trusts(&d, &o, &other),
            "{what}: another authority loses its trust"
        );
        assert_eq!(resolved(&d, &o).0, None, "{what}");
    }
}

#[test]
fn a_key_that_cannot_issue_has_its_own_reason_once() {
    let own = made("Own");
    let broken = |why: &str, of_key| CanIssue::Broken {
        why: why.to_owned(),
        of_key,
    };
    let secret = |found: Source| {
        let (mut d, mut o) = settled();
        d.authorities[0].source = DesiredSource::Secret { name: "own".into() };
        o.authorities.insert(d.authorities[0].name.clone(), found);
        resolved(&d, &o)
    };
    let (reason, message, _) = secret(read(
        &[&own],
        broken("tls.key: the private key is encrypted", true),
    ));
    assert_eq!(reason, Some(Reason::InvalidCACertificateRef));
    assert!(
        message.starts_with("authority partners: tls.key: the private key is encrypted"),
        "{message}"
    );
    // Without a finding, the reason of the certificates is told too.
    let (_, message, _) = secret(read(&[&own], broken("the chain stops", false)));
    assert!(message.contains("the chain stops"), "{message}");
    let unreadable = Source::Read {
        certificates: Err(ParseError::NotPem),
        completing: Ok(vec![]),
        can_issue: broken("tls.crt: it is not PEM", false),
    };
    let (_, message, _) = secret(unreadable);
    assert!(
        message.contains("there is no -----BEGIN CERTIFICATE----- line") && !message.contains("tls.crt"),
        "{message}"
    );
}
