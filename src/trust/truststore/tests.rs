//! Distrust in a domain, and the report of the truststore in the status.

use AuthorityState::{Active, Distrusted};
use jiff::SignedDuration;

use std::sync::Arc;

use crate::{
    api::{AuthorityState, MtlsDomainStatus, conditions::Reason},
    aws::{action::s3::S3Action, s3::Encryption},
    controllers::mtls_domain::{
        plan::unlimited as plan,
        report,
        simulation::world::{authority_certificate, front_again, now, settled},
    },
    model::{
        action::Action,
        authorities::{DesiredAuthority, DesiredSource},
        desired::Desired,
        observed::{CanIssue, Observed, Pinned, Published, Source},
        step::Plan,
    },
    observation::seen::Unseen,
    pki::{
        authority::{self, AuthorityRequest},
        certificate::Certificate,
        digest::{sha256, short_hash},
        keys::KeyKind,
        lint::{self, Finding, Severity},
        pem_certificates::parse_pem_bundle,
        pem_error::ParseError,
        truststore::Bundle,
    },
    trust::truststore::{told, without_trust},
};

fn ca(common_name: &str) -> Certificate {
    let request = AuthorityRequest {
        common_name: common_name.into(),
        organizations: vec![],
        duration: SignedDuration::from_hours(87_600),
        key: KeyKind::EcdsaP256,
    };
    parse_pem_bundle(&authority::generate(&request, now()).unwrap().certificate_pem)
        .unwrap()
        .remove(0)
}

fn read(certificates: &[&Certificate]) -> Source {
    let certificates = Ok(certificates.iter().map(|c| (*c).clone()).collect());
    Source::Read {
        certificates,
        completing: Ok(vec![]),
        can_issue: CanIssue::No,
    }
}

fn broken() -> Source {
    Source::Read {
        certificates: Err(ParseError::NotPem),
        completing: Ok(vec![]),
        can_issue: CanIssue::No,
    }
}

fn missing() -> Source {
    Source::Missing("there is no ConfigMap of that name".into())
}

fn unseen() -> Source {
    Source::Unseen(Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    })
}

/// Domain with its authority over several reconciles.
struct World {
    d: Desired,
    o: Observed,
    status: MtlsDomainStatus,
}

impl World {
    /// Creates a world with two partners in the entry `all`.
    fn new(one: &Certificate, other: &Certificate) -> World {
        let (d, o) = settled();
        let mut world = World {
            d,
            o,
            status: MtlsDomainStatus::default(),
        };
        world.lists("all", AuthorityState::Active, read(&[one, other]));
        world.settles();
        world
    }

    fn lists(&mut self, name: &str, state: AuthorityState, source: Source) {
        let wanted = match source {
            Source::Several(_) => DesiredSource::ConfigMaps {
                labels: [].into(),
                key: "ca.crt".into(),
            },
            _ => DesiredSource::ConfigMap {
                name: name.into(),
                key: "ca.crt".into(),
            },
        };
        self.d.authorities.retain(|wanted| wanted.name != name);
        self.d.authorities.push(DesiredAuthority {
            name: name.into(),
            state,
            source: wanted,
        });
        self.o.authorities.insert(name.into(), source);
    }

    fn reconcile(&mut self) -> Plan {
        let plan = plan(&self.d, &self.o, now());
        self.status = report::report(
            &self.status,
            1,
            &self.d.placement,
            &plan,
            &self.o,
            &Default::default(),
            now(),
        );
        plan
    }

    /// Publishes and pins the desired truststore until no action is left; then an unchanged world gives an
    /// unchanged status.
    fn settles(&mut self) -> Plan {
        for _ in 0..5 {
            let plan = self.reconcile();
            let body = plan.actions().find_map(|(_, action)| match action {
                Action::S3(S3Action::PutTruststore { body, .. }) => Some(body.clone()),
                _ => None,
            });
            match body {
                Some(body) => self.publishes(&body),
                None if plan.actions().next().is_some() => self.pins(),
                None => {
                    let before = self.status.clone();
                    self.reconcile();
                    assert_eq!(self.status, before);
                    return plan;
                }
            }
        }
        panic!("no stable state");
    }

    fn publishes(&mut self, body: &str) {
        self.o.published = Ok(Some(Published {
            version: short_hash(body),
            owner: Some(self.d.placement.owner.clone()),
            sha256: sha256(body.as_bytes()),
            bundle: Bundle::parse(body).unwrap().into(),
            kms_key: None,
            desired_kms_key: None,
            encryption: None,
            tags: std::collections::BTreeSet::new(),
        }));
    }

    fn pins(&mut self) {
        let Published { version, bundle, .. } = self.o.published.clone().unwrap().unwrap();
        let used = self
            .o
            .domain
            .as_mut()
            .unwrap()
            .as_mut()
            .unwrap()
            .truststore
            .as_mut()
            .unwrap();
        (used.uri, used.version) = (self.d.truststore.uri(), Some(version));
        self.o.pinned = Ok(Some(Pinned {
            owner: Some(self.d.placement.owner.clone()),
            bundle,
        }));
    }

    fn trusts(&self, certificate: &Certificate) -> bool {
        self.o
            .pinned
            .as_ref()
            .unwrap()
            .as_ref()
            .unwrap()
            .bundle
            .find(certificate)
            .is_some()
    }

    fn says(&self, type_: &str) -> (String, String, String) {
        let c = self
            .status
            .conditions
            .iter()
            .find(|c| c.type_ == type_)
            .expect("there");
        (c.status.clone(), c.reason.clone(), c.message.clone())
    }

    fn warnings(&self) -> String {
        self.status
            .truststore
            .as_ref()
            .expect("there")
            .warnings
            .join("\n")
    }
}

#[test]
fn a_distrust_without_a_readable_source_is_reported() {
    let [one, other] = ["One", "Other"].map(ca);
    for (source, reason, what) in [
        (
            broken(),
            "InvalidCACertificateRef",
            "there is no -----BEGIN CERTIFICATE----- line",
        ),
        (missing(), "RefNotFound", "there is no ConfigMap of that name"),
        (
            Source::Several([("x".to_owned(), broken())].into()),
            "InvalidCACertificateRef",
            "authority out, ConfigMap x: ",
        ),
        (
            Source::Several([("x".to_owned(), missing())].into()),
            "RefNotFound",
            "there is no ConfigMap of that name",
        ),
    ] {
        let mut world = World::new(&one, &other);
        world.lists("out", Distrusted, source);
        world.settles();
        assert!(world.trusts(&one));
        let (refs, ready) = (world.says("ResolvedRefs"), world.says("Ready"));
        assert_eq!(
            (refs.0.as_str(), refs.1.as_str(), ready.0.as_str()),
            ("False", reason, "False")
        );
        for part in [
            "the distrust has no effect yet",
            "Put the certificates to distrust there as PEM",
            what,
        ] {
            assert!(refs.2.contains(part), "{part:?} is not in {:?}", refs.2);
        }
        assert_eq!(refs.2.matches("authority out").count(), 1, "once: {:?}", refs.2);
    }
    // An unknown source: the operator does not know whether it is readable.
    let mut world = World::new(&one, &other);
    world.lists("out", Distrusted, unseen());
    world.settles();
    assert_eq!(
        world.says("ResolvedRefs"),
        ("Unknown".into(), "Unreachable".into(), "no answer".into())
    );
    assert_eq!(world.warnings(), "");
}

#[test]
fn a_distrust_stays_after_any_change_of_its_source() {
    let [one, other, third] = ["One", "Other", "Third"].map(ca);
    let several = |objects: &[(&str, Source)]| {
        Source::Several(
            objects
                .iter()
                .map(|(name, found)| ((*name).to_owned(), found.clone()))
                .collect(),
        )
    };
    for (first, later) in [
        (read(&[&one]), vec![broken(), missing(), read(&[&third])]),
        (
            several(&[("x", read(&[&one]))]),
            vec![
                several(&[("x", broken())]),
                several(&[("x", missing())]),
                several(&[]),
                several(&[("y", read(&[&third]))]),
                read(&[&third]),
            ],
        ),
    ] {
        let mut world = World::new(&one, &other);
        world.lists("out", Distrusted, first);
        let plan = world.reconcile();
        assert!(
            plan.truststore.unwrap().distrusts,
            "before other changes in the queue"
        );
        world.settles();
        assert!(!world.trusts(&one) && world.trusts(&other));
        assert_eq!(world.says("Ready").0, "True");
        let (before, warnings) = (world.status.clone(), world.warnings());
        world.o.authorities.insert("out".into(), unseen());
        assert_eq!(
            world.settles().truststore.unwrap().bundle,
            *world.o.published.as_ref().unwrap().as_ref().unwrap().bundle
        );
        assert_eq!(
            world.warnings(),
            warnings,
            "a missing response changes no warning"
        );
        for later in later {
            world.lists("out", Distrusted, later.clone());
            world.settles();
            assert!(!world.trusts(&one) && world.trusts(&other), "{later:?}");
            assert_eq!(
                (
                    world.says("Ready").0.as_str(),
                    world.says("ResolvedRefs").0.as_str()
                ),
                ("True", "True"),
                "{later:?}"
            );
            let told = world.warnings();
            assert!(
                told.contains("authority out")
                    && told.contains("(keys: 1)")
                    && told.contains("until the entry is removed"),
                "{told}"
            );
            assert_ne!(world.status, before);
        }
        // The distrust ends with the entry.
        world.d.authorities.retain(|wanted| wanted.name != "out");
        world.settles();
        assert!(world.trusts(&one) && world.o.published.unwrap().unwrap().bundle.distrusted.is_empty());
    }
}

#[test]
fn the_recorded_distrust_includes_the_bundle_in_use_also_during_a_move_and_no_other_owners() {
    let [one, other] = ["One", "Other"].map(ca);
    let distrusts = || {
        let mut world = World::new(&one, &other);
        world.lists("out", Distrusted, read(&[&one]));
        world.settles();
        world.o.authorities.insert("out".into(), missing());
        world
    };
    let is_out = |mut world: World| {
        world.settles();
        !world.trusts(&one)
    };
    assert!(is_out(distrusts()));
    let mut lost = distrusts();
    lost.o.published = Ok(None);
    assert!(is_out(lost), "the latest version was removed");
    let mut overwritten = distrusts();
    overwritten.o.published.as_mut().unwrap().as_mut().unwrap().owner = None;
    overwritten.o.published.as_mut().unwrap().as_mut().unwrap().bundle = Bundle::default().into();
    assert!(is_out(overwritten));
    let mut moves = distrusts();
    (moves.d.truststore.key, moves.o.published) = ("elsewhere.pem".into(), Ok(None));
    assert!(is_out(moves), "the truststore moves");
    // A distrust during the move: published at the new place, while the domain still uses the old place.
    let mut moving = World::new(&one, &other);
    moving.d.truststore.key = "elsewhere.pem".into();
    moving.lists("out", Distrusted, read(&[&one]));
    let body = moving.reconcile().truststore.unwrap().bundle.render();
    moving.publishes(&body);
    moving.o.authorities.insert("out".into(), missing());
    assert!(is_out(moving));
    // The recorded state of another owner does not count.
    let mut not_owned = World::new(&one, &other);
    let mut published = not_owned.o.published.as_ref().unwrap().as_ref().unwrap().clone();
    Arc::make_mut(&mut published.bundle).distrusted =
        [("out".to_owned(), [(one.spki_sha256.clone(), true)].into())].into();
    published.owner = Some("other/ns/partners".into());
    not_owned.o.published = Ok(Some(published));
    not_owned.lists("out", Distrusted, missing());
    let compiled = not_owned.reconcile().truststore.unwrap();
    assert!(compiled.bundle.find(&one).is_some() && compiled.bundle.distrusted.is_empty());
}

#[test]
fn a_distrusted_generated_authority_without_its_secret_leaves_by_its_name() {
    let [one, other] = ["One", "Other"].map(ca);
    let mut world = World::new(&one, &other);
    world.d.authorities[0].state = Distrusted;
    world
        .o
        .authorities
        .insert("partners".into(), Source::Missing("there is no Secret".into()));
    world.settles();
    assert_eq!(world.says("Ready").0, "True");
    let generated = world
        .o
        .published
        .as_ref()
        .unwrap()
        .as_ref()
        .unwrap()
        .bundle
        .distrusted["partners"]
        .clone();
    assert_eq!(generated.values().collect::<Vec<_>>(), [&true]);
    assert!(
        world
            .warnings()
            .contains("authority partners: its source is missing"),
        "{}",
        world.warnings()
    );
}

#[test]
fn a_distrust_does_not_need_a_readable_chain() {
    let [one, other] = ["One", "Other"].map(ca);
    let secret = |completing| Source::Read {
        certificates: Ok(vec![one.clone()]),
        completing,
        can_issue: CanIssue::No,
    };
    let mut world = World::new(&one, &other);
    world.lists("out", Distrusted, secret(Err(ParseError::NotPem)));
    world.settles();
    assert!(!world.trusts(&one));
    assert_eq!(world.says("Ready").0, "True");
    // A Secret with a broken part accepts no caller.
    world.lists("out", Active, secret(Err(ParseError::NotPem)));
    world.settles();
    assert_eq!(world.says("ResolvedRefs").1, "InvalidCACertificateRef");
    world.lists("out", Active, secret(Ok(vec![one.clone(), ca("Stranger")])));
    world.settles();
    assert_eq!(world.says("ResolvedRefs").0, "True");
    assert!(
        world
            .warnings()
            .contains("authority out: CN=Stranger stands in ca.crt"),
        "{}",
        world.warnings()
    );
}

#[test]
fn a_distrusted_certificate_leaves_although_the_spec_has_no_other() {
    let [one, other] = ["One", "Other"].map(ca);
    let mut world = World::new(&one, &other);
    world.d.authorities.clear();
    world.lists("out", Distrusted, read(&[&one, &authority_certificate()]));
    world.settles();
    assert!(
        !world.trusts(&one) && world.trusts(&other),
        "the last certificates stay"
    );
    let (truststore, ready) = (world.says("TruststorePublished"), world.says("Ready"));
    assert_eq!(
        (truststore.1.as_str(), ready.0.as_str()),
        ("NoValidCACertificate", "False")
    );
    // No other certificate is left: the compromised certificate is still accepted, and the status reports it.
    world.lists("out", Distrusted, read(&[&one, &other, &authority_certificate()]));
    world.settles();
    assert!(world.trusts(&other));
    assert_eq!(
        (
            world.says("TruststorePublished").1.as_str(),
            world.says("Ready").0.as_str()
        ),
        ("NoValidCACertificate", "False")
    );
}

#[test]
fn a_long_name_is_cut_in_the_status() {
    let finding = |subject: String| Finding {
        severity: Severity::Warning,
        authority: "all".into(),
        subject,
        reason: lint::Reason::ExpiresSoon,
        message: "expires soon".into(),
    };
    let long = told(&finding(format!("CN={}", "ö".repeat(100_000))));
    assert!(long.len() < 300 && long.ends_with("… expires soon"), "{long}");
    let issuer = Finding {
        message: "ö".repeat(100_000),
        ..finding(String::new())
    };
    assert!(told(&issuer).len() <= 1024 && told(&issuer).ends_with('…'));

    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "ö".repeat(20_000));
    let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let long = Certificate::from_der(made.der()).unwrap();
    let mut world = World::new(&long, &ca("Other"));
    let status = world.status.truststore.clone().unwrap();
    assert!(
        status
            .authorities
            .iter()
            .any(|a| a.subject.len() <= 1024 && a.subject.ends_with('…')),
        "{status:?}"
    );
    let weak: Vec<_> = (0..500).map(|n| (format!("x{n}"), broken())).collect();
    world.lists("out", Distrusted, Source::Several(weak.into_iter().collect()));
    world.settles();
    assert!(serde_json::to_string(&world.status).unwrap().len() < 100_000);
    // The list of warnings is cut.
    let many: Vec<_> = (0..500).map(|n| (format!("x{n}"), read(&[&long]))).collect();
    world.lists("out", Distrusted, Source::Several(many.into_iter().collect()));
    world.settles();
    world.lists("out", Distrusted, Source::Several([].into()));
    world.settles();
    let warnings = world.status.truststore.unwrap().warnings;
    assert!(
        warnings.len() == 101 && warnings[100].starts_with("and ") && warnings[100].ends_with(" more"),
        "{warnings:?}"
    );
    assert!(warnings.iter().all(|warning| warning.len() <= 1024));
}

#[test]
fn a_domain_without_authorities_is_refused_unless_it_has_a_truststore() {
    let (mut d, mut o) = settled();
    d.authorities.clear();
    d.self_signed.clear();
    let now = now();
    let long_ago = Some(now - SignedDuration::from_secs(30));
    assert_eq!(
        without_trust(&d, &o, long_ago, now),
        None,
        "its truststore is taken over, or stays"
    );
    if let Ok(Some(domain)) = &mut o.domain {
        domain.truststore = None;
    }
    front_again(&mut o);
    let refused = without_trust(&d, &o, long_ago, now).unwrap();
    assert_eq!(refused.reason, Reason::InvalidSpec);
    assert!(
        refused
            .message
            .starts_with("spec.trust: there is no authority to trust"),
        "{}",
        refused.message
    );
    o.domain = Ok(None);
    front_again(&mut o);
    assert_eq!(without_trust(&d, &o, long_ago, now), Some(refused));
    assert_eq!(
        without_trust(&d, &o, Some(now), now),
        None,
        "its first self-signed certificate may still come"
    );
    o.domain = Err(Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    });
    front_again(&mut o);
    assert_eq!(
        without_trust(&d, &o, long_ago, now),
        None,
        "the truststore is unknown"
    );
    o.domain = Ok(None);
    front_again(&mut o);
    d.authorities = settled().0.authorities;
    assert_eq!(without_trust(&d, &o, long_ago, now), None);
}

#[test]
fn other_tags_and_another_encryption_store_the_truststore_again() {
    let (one, other) = (ca("One"), ca("Other"));
    let stores = |world: &mut World| {
        let plan = world.reconcile();
        plan.actions()
            .any(|(_, action)| matches!(action, Action::S3(S3Action::PutTruststore { .. })))
    };
    let mut world = World::new(&one, &other);
    world.settles();
    assert!(!stores(&mut world));
    let tagged = [("team".to_owned(), "payments".to_owned())].into();
    let before = std::mem::replace(&mut world.d.placement.tags, tagged);
    assert!(stores(&mut world), "a tag");
    world.d.placement.tags = before;
    world.d.encryption = Some(Encryption::SseS3);
    assert!(stores(&mut world), "an encryption");
    // The object that this encryption was named for.
    let published = world.o.published.as_mut().unwrap().as_mut().unwrap();
    published.encryption = Some(Encryption::SseS3.as_str().to_owned());
    assert!(!stores(&mut world));
}
