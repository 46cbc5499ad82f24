//! Tests of `self_signed_sources`.

use super::*;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use std::sync::Arc;

use crate::{
    api::{AuthorityState, ClientGrantSpec, conditions::Reason},
    controllers::mtls_domain::simulation::world,
    model::{
        authorities::{DesiredAuthority, DesiredSource},
        desired::{Desired, SelfSigned},
        observed::{CanIssue, Observed, Pinned, Published, Source},
    },
    observation::seen::Unseen,
    pki::{
        certificate::Certificate,
        keys::{KeyKind, generate},
        leaf::{self, LeafRequest, tests::request},
        truststore::{Bundle, Entry},
    },
    trust::{self_signed, truststore},
};

fn certificate(common_name: &str) -> Certificate {
    leaf::self_sign(
        &request(common_name),
        &generate(KeyKind::EcdsaP256).unwrap(),
        world::now(),
    )
    .unwrap()
    .certificate
}

fn wanted(name: &str) -> SelfSigned {
    let entry = format!("clientcertificates/ns/{name}/uid");
    SelfSigned {
        namespace: "ns".into(),
        name: name.into(),
        entry,
        secrets: Some([name.into(), self_signed::next_secret(name)]),
        request: request(name),
        share: None,
        grants: None,
    }
}

/// Domain with its authority over several reconciles.
struct World {
    d: Desired,
    o: Observed,
}

impl World {
    fn new() -> World {
        let (d, o) = world::settled();
        World { d, o }
    }

    fn has(&mut self, name: &str, certificates: &[&Certificate]) {
        let wanted = wanted(name);
        if !self.d.self_signed.contains(&wanted) {
            self.d.self_signed.push(wanted.clone());
        }
        let certificates = certificates.iter().map(|c| (*c).clone()).collect();
        self.o
            .self_signed
            .as_mut()
            .unwrap()
            .insert(wanted.entry, certificates);
    }

    /// Compiles and publishes the truststore.
    fn reconcile(&mut self, now: Timestamp) -> Bundle {
        let bundle = truststore::compile(&self.d, &self.o, now, &|| false)
            .unwrap()
            .expect("a compiled truststore")
            .bundle;
        let owner = Some(self.d.placement.owner.clone());
        self.o.published = Ok(Some(Published {
            version: "v".into(),
            owner: owner.clone(),
            sha256: String::new(),
            bundle: bundle.clone().into(),
            kms_key: None,
            desired_kms_key: None,
            encryption: None,
            tags: std::collections::BTreeSet::new(),
        }));
        self.o.pinned = Ok(Some(Pinned {
            owner,
            bundle: bundle.clone().into(),
        }));
        assert_eq!(
            truststore::compile(&self.d, &self.o, now, &|| false)
                .unwrap()
                .unwrap()
                .bundle,
            bundle,
            "a second reconcile changes nothing"
        );
        bundle
    }

    fn trusts(&mut self, now: Timestamp, certificate: &Certificate) -> bool {
        self.reconcile(now)
            .entries
            .iter()
            .any(|e| e.certificate == *certificate)
    }
}

#[test]
fn a_superseded_certificate_stays_for_the_overlap_and_a_deleted_one_leaves_at_once() {
    let (hour, now) = (SignedDuration::from_hours(1), world::now());
    let [first, other] = ["client1", "client2"].map(certificate);
    let next = LeafRequest {
        serial_number: Some("2".into()),
        ..request("client1")
    };
    let second = leaf::self_sign(&next, &generate(KeyKind::EcdsaP256).unwrap(), now)
        .unwrap()
        .certificate;
    let mut world = World::new();
    world.d.overlap = Some(hour);
    world.has("client1", &[&first]);
    world.has("client2", &[&other]);
    assert!(world.trusts(now, &first) && world.trusts(now, &other));
    world.has("client1", &[&first, &second]);
    assert!(world.trusts(now, &first) && world.trusts(now, &second));
    // After the swap, the old certificate has an hour left.
    world.has("client1", &[&second]);
    assert!(world.trusts(now, &first) && world.trusts(now + hour - SignedDuration::from_mins(1), &first));
    assert!(!world.trusts(now + hour * 2, &first) && world.trusts(now + hour * 2, &second));
    // After the deletion, none of its certificates is left, and the other certificate stays.
    world.has("client1", &[&first, &second]);
    world.reconcile(now);
    world.d.self_signed.retain(|wanted| wanted.name != "client1");
    assert_eq!(
        withdrawn(
            &world.d,
            &world.o.pinned.as_ref().unwrap().as_ref().unwrap().bundle
        ),
        ["clientcertificates/ns/client1/uid"].into()
    );
    let bundle = world.reconcile(now);
    assert!(
        !bundle
            .entries
            .iter()
            .any(|e| [&first, &second].contains(&&e.certificate)),
        "{bundle:?}"
    );
    assert!(bundle.entries.iter().any(|e| e.certificate == other) && bundle.entries.len() == 2);
}

/// Adds an entry that a malicious tenant, or an earlier release, put into the truststore under the name
/// of an entry.
fn planted(world: &mut World, entry: &str, certificate: &Certificate) {
    let life = SignedDuration::from_hours(2160);
    let planted = Entry {
        authority: entry.into(),
        certificate: certificate.clone(),
        max_leaf: Some(life),
        keep_until: None,
    };
    for bundle in [
        &mut world.o.published.as_mut().unwrap().as_mut().unwrap().bundle,
        &mut world.o.pinned.as_mut().unwrap().as_mut().unwrap().bundle,
    ] {
        Arc::make_mut(bundle).entries.push(planted.clone());
    }
}

/// Returns a tenant's own authority, which signs itself and has no basicConstraints.
fn forged(common_name: &str) -> Certificate {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, common_name);
    params.key_usages = vec![
        rcgen::KeyUsagePurpose::KeyCertSign,
        rcgen::KeyUsagePurpose::DigitalSignature,
    ];
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2036, 1, 1));
    let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let certificate = Certificate::from_der(certificate.der()).unwrap();
    assert!(
        certificate.self_signed && !certificate.is_ca && certificate.may_sign,
        "as the check of earlier releases accepted it"
    );
    certificate
}

#[test]
fn only_a_certificate_that_fits_the_spec_becomes_trusted() {
    let now = world::now();
    let good = certificate("client1");
    let key = generate(KeyKind::EcdsaP256).unwrap();
    let signed = |request: &LeafRequest| leaf::self_sign(request, &key, now).unwrap().certificate;
    let authority = world::settled().1.authorities["partners"].clone();
    let Source::Read {
        certificates: Ok(authority),
        ..
    } = authority
    else {
        panic!("it was read")
    };
    let longer = LeafRequest {
        duration: SignedDuration::from_hours(2161),
        ..request("client1")
    };
    let names = LeafRequest {
        dns_names: vec!["a.example".into()],
        ..request("client1")
    };
    for (what, other) in [
        ("a CA certificate", authority[0].clone()),
        ("keyCertSign without basicConstraints", forged("client1")),
        ("another object's subject", certificate("client2")),
        ("another name too", signed(&names)),
        ("a longer life", signed(&longer)),
    ] {
        let mut world = World::new();
        world.has("client1", &[&other]);
        let bundle = world.reconcile(now);
        assert!(
            !bundle
                .entries
                .iter()
                .any(|e| e.authority.starts_with("clientcertificates")),
            "{what}: {bundle:?}"
        );
        // The same holds for the next certificate beside a valid certificate.
        world.has("client1", &[&good, &other]);
        assert!(world.trusts(now, &good));
        assert!(
            !world
                .reconcile(now)
                .entries
                .iter()
                .any(|e| e.certificate == other && e.authority != "partners"),
            "{what}"
        );
    }
}

#[test]
fn a_changed_spec_causes_no_gap_even_without_overlap() {
    let (now, later) = (world::now(), world::now() + SignedDuration::from_hours(1));
    let day = SignedDuration::from_hours(24);
    type Change = fn(&mut LeafRequest, Timestamp);
    let changes: [(&str, Change); 4] = [
        ("another subject", |r, _| r.common_name = "client2".into()),
        ("other names", |r, _| r.dns_names = vec!["a.example".into()]),
        ("a shorter duration", |r, _| {
            r.duration = SignedDuration::from_hours(24)
        }),
        ("a grant that ends", |r, now| {
            r.not_after = Some(now + SignedDuration::from_hours(24))
        }),
    ];
    for (what, change) in changes {
        let mut world = World::new();
        world.d.overlap = Some(SignedDuration::ZERO);
        let first = certificate("client1");
        world.has("client1", &[&first]);
        assert!(world.trusts(now, &first));
        change(&mut world.d.self_signed[0].request, now);
        let wanted = world.d.self_signed[0].clone();
        assert!(world.trusts(later, &first), "{what}: no successor yet");
        let asked = LeafRequest {
            serial_number: Some("2".into()),
            ..wanted.request.clone()
        };
        let second = leaf::self_sign(&asked, &generate(KeyKind::EcdsaP256).unwrap(), later)
            .unwrap()
            .certificate;
        world
            .o
            .self_signed
            .as_mut()
            .unwrap()
            .insert(wanted.entry.clone(), vec![first.clone(), second.clone()]);
        assert!(
            world.trusts(later, &first) && world.trusts(later, &second),
            "{what}: the present and the next certificate"
        );
        world
            .o
            .self_signed
            .as_mut()
            .unwrap()
            .insert(wanted.entry.clone(), vec![second.clone()]);
        assert!(
            !world.trusts(later, &first) && world.trusts(later, &second),
            "{what}: swapped"
        );
        assert!(
            world.trusts(later + day - SignedDuration::from_mins(90), &second),
            "{what}"
        );
    }
    // A certificate that was never trusted does not become trusted because it is in the Secret.
    let mut world = World::new();
    let stranger = certificate("client2");
    world.has("client1", &[&stranger]);
    assert!(!world.trusts(now, &stranger));
    // The trust for another ClientCertificate does not count either.
    world.has("client2", &[&stranger]);
    assert!(world.trusts(now, &stranger));
    world.d.self_signed.retain(|wanted| wanted.name != "client2");
    world
        .o
        .self_signed
        .as_mut()
        .unwrap()
        .remove("clientcertificates/ns/client2/uid");
    assert!(!world.trusts(now, &stranger));
}

#[test]
fn a_forged_anchor_in_the_truststore_leaves_at_once() {
    let now = world::now();
    let (good, anchor) = (certificate("client1"), forged("client1 too"));
    let entry = "clientcertificates/ns/client1/uid";
    let trusted = |entry: &str| {
        let mut world = World::new();
        world.has("client1", &[&good]);
        assert!(world.trusts(now, &good));
        planted(&mut world, entry, &anchor);
        world
    };
    let leaves = |world: &mut World, what: &str| {
        let compiled = truststore::compile(&world.d, &world.o, now, &|| false)
            .unwrap()
            .unwrap();
        assert!(
            compiled.distrusts,
            "{what}: it does not wait in the queue of ordinary changes"
        );
        assert_eq!(compiled.findings, [], "{what}");
        let bundle = world.reconcile(now);
        assert!(!bundle.entries.iter().any(|e| e.certificate == anchor), "{what}");
        assert!(
            bundle.entries.iter().any(|e| e.certificate == good),
            "{what}: the other certificate stays"
        );
    };
    leaves(&mut trusted(entry), "with the certificate in the Secret");
    let mut world = trusted(entry);
    world.has("client1", &[&anchor]);
    leaves(
        &mut world,
        "in the Secret itself, and the valid certificate stays until its successor",
    );
    let mut world = trusted(entry);
    world.has("client1", &[]);
    leaves(&mut world, "a missing Secret");
    let mut world = trusted("clientcertificates/client1/uid");
    leaves(&mut world, "under a name of the first versions");
    let mut world = trusted("clientcertificates/elsewhere/client1/uid");
    world.d.watched = Some(["ns".to_owned()].into());
    leaves(&mut world, "in an unwatched namespace");
    let mut world = trusted(entry);
    world.d.self_signed[0].secrets = None;
    leaves(&mut world, "an unreadable object");
    let mut world = trusted(entry);
    world.o.self_signed = Err(Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    });
    leaves(&mut world, "unlisted Secrets");
    // A certificate that the spec lists as an authority is trusted as that authority.
    let mut world = trusted(entry);
    let source = Source::Read {
        certificates: Ok(vec![anchor.clone()]),
        completing: Ok(vec![]),
        can_issue: CanIssue::No,
    };
    world.o.authorities.insert("pasted".into(), source);
    world.d.authorities.push(DesiredAuthority {
        name: "pasted".into(),
        state: AuthorityState::Active,
        source: DesiredSource::Pem(String::new()),
    });
    let bundle = world.reconcile(now);
    assert!(
        bundle
            .entries
            .iter()
            .any(|e| e.certificate == anchor && e.authority == "pasted"),
        "{bundle:?}"
    );
}

#[test]
fn unknown_state_keeps_the_trust() {
    let now = world::now();
    let first = certificate("client1");
    let trusted = || {
        let mut world = World::new();
        world.has("client1", &[&first]);
        assert!(world.trusts(now, &first));
        world
    };
    let mut world = trusted();
    world.o.self_signed = Err(Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    });
    assert!(world.trusts(now, &first), "unlisted Secrets");
    let mut world = trusted();
    world.d.self_signed[0].secrets = None;
    world.has("client1", &[]);
    assert!(world.trusts(now, &first), "an unreadable object");
    let mut world = trusted();
    world.has("client1", &[]);
    assert!(world.trusts(now, &first), "a lost Secret");
    let mut narrowed = trusted();
    narrowed.d.self_signed.clear();
    narrowed.d.watched = Some(["elsewhere".to_owned()].into());
    assert!(
        narrowed.trusts(now, &first),
        "a namespace that the operator no longer watches"
    );
    narrowed.d.watched = Some(["elsewhere", "ns"].map(str::to_owned).into());
    assert!(
        !narrowed.trusts(now, &first),
        "a watched namespace without the object"
    );
    // With a successor, the certificate of the lost Secret stays as long as any superseded certificate.
    let next = LeafRequest {
        serial_number: Some("2".into()),
        ..request("client1")
    };
    let second = leaf::self_sign(&next, &generate(KeyKind::EcdsaP256).unwrap(), now)
        .unwrap()
        .certificate;
    world.has("client1", &[&second]);
    assert!(world.trusts(now, &first) && world.trusts(now, &second));
    assert!(!world.trusts(first.not_after, &first));
}

/// A tenant can delay the successor: the certificate must not keep names that its grant no longer
/// permits.
#[test]
fn names_that_no_grant_permits_any_more_leave_at_once() {
    let now = world::now();
    let grant = |name: &str| {
        let spec = json!({
            "domainRef": {"name": "partners"}, "namespaces": {"names": ["ns"]}, "commonNames": [name]
        });
        serde_json::from_value::<ClientGrantSpec>(spec).unwrap()
    };
    let (earlier, next) = (certificate("payments"), certificate("client1"));
    let mut world = World::new();
    world.has("client1", &[&earlier]);
    world.d.self_signed[0].request = request("payments");
    world.d.self_signed[0].grants = Some(vec![grant("*")]);
    assert!(world.trusts(now, &earlier));
    // The spec changed: the certificate stays until its successor is trusted, and for the overlap.
    world.d.self_signed[0].request = request("client1");
    assert!(world.trusts(now, &earlier));
    for (grants, stays) in [
        (None, true),
        (Some(vec![grant("client1"), grant("payments")]), true),
        (Some(vec![grant("client1")]), false),
        (Some(vec![]), false),
    ] {
        let mut world = World {
            d: world.d.clone(),
            o: world.o.clone(),
        };
        world.d.self_signed[0].grants = grants.clone();
        assert_eq!(world.trusts(now, &earlier), stays, "in the Secret: {grants:?}");
        let mut world = World {
            d: world.d.clone(),
            o: world.o.clone(),
        };
        world
            .o
            .self_signed
            .as_mut()
            .unwrap()
            .insert(wanted("client1").entry, vec![next.clone()]);
        assert_eq!(world.trusts(now, &next), grants != Some(vec![]), "{grants:?}");
        assert_eq!(world.trusts(now, &earlier), stays, "superseded: {grants:?}");
    }
}

/// Entries of the first versions have the form `clientcertificates/<name>/<uid>`.
#[test]
fn an_entry_without_a_namespace_counts_as_any_other() {
    let now = world::now();
    let first = certificate("client1");
    let mut world = World::new();
    world.d.watched = Some(["ns".to_owned()].into());
    world.has("client1", &[&first]);
    let before = world
        .reconcile(now)
        .render()
        .replace("clientcertificates/ns/", "clientcertificates/");
    let bundle = Bundle::parse(&before).unwrap();
    let older = |o: &mut Observed| {
        o.published.as_mut().unwrap().as_mut().unwrap().bundle = bundle.clone().into();
        o.pinned.as_mut().unwrap().as_mut().unwrap().bundle = bundle.clone().into();
    };
    older(&mut world.o);
    assert!(world.trusts(now, &first), "its ClientCertificate exists");
    older(&mut world.o);
    world.d.self_signed.clear();
    assert!(!world.trusts(now, &first), "its ClientCertificate is deleted");
}

#[test]
fn a_subject_in_use_is_no_finding_of_the_domain() {
    let now = world::now();
    let twin = certificate("Partners");
    let mut world = World::new();
    world.has("client1", &[&twin]);
    let compiled = truststore::compile(&world.d, &world.o, now, &|| false)
        .unwrap()
        .unwrap();
    assert!(!compiled.bundle.entries.iter().any(|e| e.certificate == twin));
    assert_eq!(compiled.findings, []);
}
