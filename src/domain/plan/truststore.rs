//! The step TruststorePublished: what is trusted, compiled from the sources and what is remembered, in S3.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Action, Judged, Step, Verdict, bucket, custom_domain, self_signed};
use crate::{
    api::{AdoptionPolicy, AuthorityState, conditions::Reason},
    conditions,
    domain::{
        clients,
        desired::{AuthorityWish, Desired, SourceWish, sha256},
        observed::{Key, Observed, Published, Source},
    },
    pki::{
        compile::{self, CompileInput, Compiled},
        lint::{self, Finding, Severity, SourceError},
        truststore::{Bundle, DistrustedKeys},
    },
};

/// Maximum bytes of a subject before the rest of a sentence: a name of any length must not hide what is said
/// of it.
const MAX_SUBJECT: usize = 256;

const NOTHING_SELECTED: &str = "no ConfigMap in this namespace has the labels of its configMapSelector";

/// A finding for people: whose, about which certificate, what is wrong and what to do.
pub fn told(finding: &Finding) -> String {
    let whose = match finding.authority.split_once('/') {
        Some((authority, object)) => format!("authority {authority}, ConfigMap {object}: "),
        None if finding.authority.is_empty() => String::new(),
        None => format!("authority {}: ", finding.authority),
    };
    let subject = match finding.subject.as_str() {
        "" => String::new(),
        subject => format!("{} ", conditions::cut(subject, MAX_SUBJECT)),
    };
    conditions::shown(&format!("{whose}{subject}{}", finding.message))
}

/// The memory of what was trusted: what is published, completed by what is in use.
pub(super) fn compile(d: &Desired, o: &Observed, now: Timestamp) -> Option<Compiled> {
    let (published, pinned, domain) = (o.published.as_ref().ok()?, o.pinned.as_ref().ok()?, o.domain.as_ref().ok()?);
    let is_ours = |owner: &Option<String>| owner.as_ref() == Some(&d.home.owner);
    let published = published.as_ref().filter(|p| is_ours(&p.owner)).map(|p| &p.bundle);
    let pinned = pinned.as_ref().filter(|p| is_ours(&p.owner)).map(|p| &p.bundle);
    let used = domain.as_ref().and_then(|g| g.truststore.as_ref());
    let previous = match pinned {
        // The truststore moves. What an earlier move left at the new place is out of date, and must not be
        // trusted again; what is distrusted since this move began is remembered there already.
        Some(pinned) if used.is_some_and(|t| t.uri != d.home.truststore_uri()) => {
            let distrusted = merged_keys(published.into_iter().chain([pinned]));
            Some(Bundle { distrusted, ..pinned.clone() })
        }
        _ => merged(published, pinned),
    };
    let authorities = d.authorities.iter().flat_map(|wish| sources(wish, o, d, previous.as_ref()));
    let sources: Vec<_> = authorities.chain(self_signed::sources(d, o, previous.as_ref())).collect();
    let input = CompileInput { sources: &sources, previous: previous.as_ref(), overlap: d.overlap, now };
    let mut compiled = compile::compile(&input);
    // What stands in the way of a self-signed certificate is said on its ClientCertificate.
    compiled.findings.retain(|finding| !clients::is_self_signed(&finding.authority));
    if !compiled.without_room.is_empty() {
        compiled.findings.push(Finding {
            severity: Severity::Warning,
            authority: String::new(),
            subject: String::new(),
            reason: lint::Reason::TooLarge,
            message: format!(
                "the truststore is full: the certificates of {} self-signed ClientCertificates do not fit, as their \
                 conditions say",
                compiled.without_room.len()
            ),
        });
    }
    let is_empty = |name: &str| matches!(o.authorities.get(name), Some(Source::Several(all)) if all.is_empty());
    compiled.findings.extend(d.authorities.iter().filter(|wish| is_empty(&wish.name)).map(|wish| Finding {
        severity: Severity::Warning,
        authority: wish.name.clone(),
        subject: String::new(),
        reason: lint::Reason::NothingSelected,
        message: match wish.state {
            AuthorityState::Active => NOTHING_SELECTED.to_owned(),
            AuthorityState::Distrusted => format!("{NOTHING_SELECTED}: this entry lists nothing to distrust"),
        },
    }));
    Some(compiled)
}

/// What is published says what is remembered of a certificate; what is in use must not be forgotten, even if somebody removed the
/// version that followed it.
fn merged(published: Option<&Bundle>, pinned: Option<&Bundle>) -> Option<Bundle> {
    let mut all = published.or(pinned)?.clone();
    for entry in pinned.iter().flat_map(|b| &b.entries) {
        if all.find(&entry.certificate).is_none() {
            all.entries.push(entry.clone());
        }
    }
    all.distrusted = merged_keys([published, pinned].into_iter().flatten());
    Some(all)
}

fn merged_keys<'b>(bundles: impl Iterator<Item = &'b Bundle>) -> DistrustedKeys {
    let mut all = DistrustedKeys::new();
    for (authority, keys) in bundles.flat_map(|bundle| &bundle.distrusted) {
        let known = all.entry(authority.clone()).or_default();
        for (key, took_effect) in keys {
            *known.entry(key.clone()).or_default() |= took_effect;
        }
    }
    all
}

/// What a label selector finds are authorities each by itself, `<authority>/<object>`, so that one that is broken keeps what it had and
/// the others go on changing.
fn sources(wish: &AuthorityWish, o: &Observed, d: &Desired, previous: Option<&Bundle>) -> Vec<compile::Source> {
    let part = |object: &str| format!("{}/{object}", wish.name);
    let found = o.authorities.get(&wish.name);
    let mut all = match (found, &wish.source) {
        (Some(Source::Several(all)), _) => {
            all.iter().map(|(object, found)| source(part(object), wish, Some(found), d)).collect()
        }
        // Not seen: what is there of it stays.
        (_, SourceWish::ConfigMaps { .. }) => {
            let names: BTreeSet<_> = previous.iter().flat_map(|b| &b.entries).map(|entry| &entry.authority).collect();
            let parts = names.into_iter().filter(|name| name.starts_with(&part("")));
            parts.map(|name| source(name.clone(), wish, found, d)).collect()
        }
        (found, _) => vec![source(wish.name.clone(), wish, found, d)],
    };
    if wish.state == AuthorityState::Distrusted {
        let is_seen = !matches!(found, Some(Source::Unseen(_)));
        all.extend(remembered(wish, &all, is_seen, previous));
    }
    all
}

/// Parts of a Distrusted entry that its source does not have any more: what was distrusted, or stands in the
/// truststore under its name.
fn remembered(
    wish: &AuthorityWish,
    known: &[compile::Source],
    is_seen: bool,
    previous: Option<&Bundle>,
) -> Vec<compile::Source> {
    let of_entries = previous.iter().flat_map(|b| &b.entries).map(|entry| &entry.authority);
    let names: BTreeSet<_> = previous.iter().flat_map(|b| b.distrusted.keys()).chain(of_entries).collect();
    let is_part = |name: &str| name.split('/').next() == Some(&wish.name);
    let names = names.into_iter().filter(|name| is_part(name) && !known.iter().any(|s| s.authority == **name));
    let gone = |name: &String| compile::Source {
        authority: name.clone(),
        state: compile::State::Distrusted,
        issues: false,
        longest_leaf: None,
        certificates: if is_seen { Ok(vec![]) } else { Err(SourceError::Unseen) },
        completing: vec![],
        client: false,
    };
    names.map(gone).collect()
}

fn source(authority: String, wish: &AuthorityWish, found: Option<&Source>, d: &Desired) -> compile::Source {
    let state = match wish.state {
        AuthorityState::Active => compile::State::Active,
        AuthorityState::Distrusted => compile::State::Distrusted,
    };
    let mut beside = Vec::new();
    let (certificates, key) = match found {
        // The key that we made lost its certificate to another one: no reason to trust that.
        Some(Source::Read { key: Key::Misfit, .. }) if matches!(wish.source, SourceWish::Generated { .. }) => {
            (Err(SourceError::Missing), Key::Misfit)
        }
        Some(Source::Read { certificates, completing, key }) => {
            let certificates = match (certificates, completing) {
                (Err(error), _) => Err(SourceError::Unreadable(error.clone())),
                // What only completes a chain is not needed to distrust what is below.
                (Ok(_), Err(error)) if state == compile::State::Active => Err(SourceError::Unreadable(error.clone())),
                (Ok(certificates), completing) => {
                    beside.extend(completing.iter().flatten().cloned());
                    Ok(certificates.clone())
                }
            };
            (certificates, *key)
        }
        Some(Source::Unseen(_)) => (Err(SourceError::Unseen), Key::Absent),
        _ => (Err(SourceError::Missing), Key::Absent),
    };
    // A Secret whose key is gone may still have living leaves: that it could issue is remembered in the bundle.
    let issues = key == Key::Fits && wish.issues();
    let longest_leaf = issues.then_some(d.longest_leaf);
    compile::Source { authority, state, issues, longest_leaf, certificates, completing: beside, client: false }
}

pub(super) fn publish(d: &Desired, o: &Observed, refs: &Judged, compiled: Option<&Compiled>) -> Judged {
    match bucket::bucket(d, o) {
        Err(missing) => missing,
        // The truststore first, and without a fuss: nobody who is to be let in or kept out waits for a setting of the bucket.
        Ok(repairs) => {
            let mut judged = object(d, o, refs, compiled);
            judged.actions.extend(repairs);
            judged
        }
    }
}

fn object(d: &Desired, o: &Observed, refs: &Judged, compiled: Option<&Compiled>) -> Judged {
    let (bucket, key) = (&d.home.bucket, &d.home.key);
    let published = match (&o.published, &o.pinned, &o.domain) {
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return Verdict::unknown(why).into(),
        (Ok(published), Ok(_), Ok(_)) => published.as_ref(),
    };
    if let Some(foreign) = published.and_then(|p| foreign(d, o, p)) {
        return foreign.into();
    }
    let Some(compiled) = compiled else { return Verdict::Behind(Step::ResolvedRefs).into() };
    if !refs.actions.is_empty() {
        return Verdict::Behind(Step::ResolvedRefs).into();
    }
    // What is trusted is never emptied, whatever the spec says: API Gateway needs a certificate. What is
    // Distrusted goes all the same, as long as anything is left.
    let would_be_empty = compiled.findings.iter().any(|f| f.reason == lint::Reason::WouldBeEmpty);
    let is_emptied = would_be_empty && !compiled.distrusts;
    if is_emptied || compiled.bundle.entries.is_empty() {
        return if is_emptied || matches!(o.domain, Ok(Some(_))) {
            Verdict::blocked(
                Reason::NoValidCACertificate,
                "nothing would be left in the truststore, and API Gateway needs a certificate: what the domain trusts now stays trusted. Add \
                 an authority, or delete the MtlsDomain to let nobody in",
            )
        } else {
            Verdict::wait(Reason::WaitingForAuthority, "no authority has a certificate to trust yet")
        }
        .into();
    }
    let body = compiled.bundle.render();
    match published {
        Some(p) if is_published(d, p, &body) => {
            let warnings = compiled.findings.iter().filter(|f| f.severity != Severity::Refused).count();
            let more =
                if warnings == 0 { String::new() } else { format!("; {warnings} warnings in status.truststore") };
            Verdict::done(Reason::Published, format!("s3://{bucket}/{key} version {}{more}", p.version)).into()
        }
        _ => Judged::act(
            format!("uploading s3://{bucket}/{key}"),
            vec![Action::PutTruststore { bucket: bucket.clone(), key: key.clone(), body, kms_key: d.kms_key.clone() }],
        ),
    }
}

/// Why the object at our key is not ours to store a version over.
fn foreign(d: &Desired, o: &Observed, p: &Published) -> Option<Verdict> {
    let uri = d.home.truststore_uri();
    match &p.owner {
        Some(owner) if *owner == d.home.owner => None,
        Some(other) => {
            let message = format!("{uri} belongs to {other}; name another key in spec.truststore.key");
            Some(Verdict::blocked(Reason::ForeignOwner, message))
        }
        None if d.adoption == AdoptionPolicy::Unowned => None,
        // Our domain uses this object: somebody has overwritten ours.
        None if custom_domain::ours(&d.home, &o.domain)
            .is_ok_and(|g| g.truststore.as_ref().is_some_and(|t| t.uri == uri)) =>
        {
            None
        }
        None => {
            let message = format!(
                "{uri} exists already and carries no owner's mark; it is left alone. Name another key in spec.truststore.key, or set \
                 spec.adoptionPolicy to Unowned: then new versions are stored over it, and those that are there stay"
            );
            Some(Verdict::blocked(Reason::ForeignOwner, message))
        }
    }
}

fn is_published(d: &Desired, p: &Published, body: &str) -> bool {
    // S3 answers with the key behind an alias: which one was asked for is in the object's metadata.
    let is_alias = |key: &String| key.contains(":alias/");
    let encrypted = p.wished_kms_key == d.kms_key
        && d.kms_key.as_ref().is_none_or(|key| is_alias(key) || p.kms_key.as_ref() == Some(key));
    let pinnable = !p.version.is_empty();
    pinnable && encrypted && p.owner.as_ref() == Some(&d.home.owner) && p.sha256 == sha256(body.as_bytes())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        api::MtlsDomainStatus,
        domain::{
            desired::short_hash,
            observed::{Pinned, Unseen},
            plan::{Plan, plan},
            report,
            simulation::{authority_certificate, now, settled},
        },
        pki::{
            authority::{self, AuthorityRequest},
            certificate::{Certificate, ParseError, parse_pem_bundle},
            keys::KeyKind,
        },
    };

    fn ca(common_name: &str) -> Certificate {
        let request = AuthorityRequest {
            common_name: common_name.into(),
            organizations: vec![],
            duration: SignedDuration::from_hours(87_600),
            key: KeyKind::EcdsaP256,
        };
        parse_pem_bundle(&authority::generate(&request, now()).unwrap().certificate_pem).unwrap().remove(0)
    }

    fn read(certificates: &[&Certificate]) -> Source {
        let certificates = Ok(certificates.iter().map(|c| (*c).clone()).collect());
        Source::Read { certificates, completing: Ok(vec![]), key: Key::Absent }
    }

    fn broken() -> Source {
        Source::Read { certificates: Err(ParseError::NotPem), completing: Ok(vec![]), key: Key::Absent }
    }

    fn missing() -> Source {
        Source::Missing("there is no ConfigMap of that name".into())
    }

    fn unseen() -> Source {
        Source::Unseen(Unseen { reason: Reason::Unreachable, message: "no answer".into() })
    }

    /// One domain with its authority, look after look.
    struct World {
        d: Desired,
        o: Observed,
        status: MtlsDomainStatus,
    }

    impl World {
        /// With two partners, whom `all` lists.
        fn new(one: &Certificate, other: &Certificate) -> World {
            let (d, o) = settled();
            let mut world = World { d, o, status: MtlsDomainStatus::default() };
            world.lists("all", AuthorityState::Active, read(&[one, other]));
            world.settles();
            world
        }

        fn lists(&mut self, name: &str, state: AuthorityState, source: Source) {
            let wish = match source {
                Source::Several(_) => SourceWish::ConfigMaps { labels: [].into(), key: "ca.crt".into() },
                _ => SourceWish::ConfigMap { name: name.into(), key: "ca.crt".into() },
            };
            self.d.authorities.retain(|wish| wish.name != name);
            self.d.authorities.push(AuthorityWish { name: name.into(), state, source: wish });
            self.o.authorities.insert(name.into(), source);
        }

        fn looks(&mut self) -> Plan {
            let plan = plan(&self.d, &self.o, now());
            self.status = report::report(&self.status, 1, &self.d.home, &plan, &self.o, &Default::default(), now());
            plan
        }

        /// Publishes and pins what is to be trusted, until nothing is left to do; then an unchanged world
        /// gives an unchanged status.
        fn settles(&mut self) -> Plan {
            for _ in 0..5 {
                let plan = self.looks();
                let body = plan.actions().find_map(|(_, action)| match action {
                    Action::PutTruststore { body, .. } => Some(body.clone()),
                    _ => None,
                });
                match body {
                    Some(body) => self.publishes(&body),
                    None if plan.actions().next().is_some() => self.pins(),
                    None => {
                        let before = self.status.clone();
                        self.looks();
                        assert_eq!(self.status, before);
                        return plan;
                    }
                }
            }
            panic!("it never comes to rest");
        }

        fn publishes(&mut self, body: &str) {
            self.o.published = Ok(Some(Published {
                version: short_hash(body),
                owner: Some(self.d.home.owner.clone()),
                sha256: sha256(body.as_bytes()),
                bundle: Bundle::parse(body).unwrap(),
                kms_key: None,
                wished_kms_key: None,
            }));
        }

        fn pins(&mut self) {
            let Published { version, bundle, .. } = self.o.published.clone().unwrap().unwrap();
            let used = self.o.domain.as_mut().unwrap().as_mut().unwrap().truststore.as_mut().unwrap();
            (used.uri, used.version) = (self.d.home.truststore_uri(), Some(version));
            self.o.pinned = Ok(Some(Pinned { owner: Some(self.d.home.owner.clone()), bundle }));
        }

        fn trusts(&self, certificate: &Certificate) -> bool {
            self.o.pinned.as_ref().unwrap().as_ref().unwrap().bundle.find(certificate).is_some()
        }

        fn says(&self, type_: &str) -> (String, String, String) {
            let c = self.status.conditions.iter().find(|c| c.type_ == type_).expect("there");
            (c.status.clone(), c.reason.clone(), c.message.clone())
        }

        fn warnings(&self) -> String {
            self.status.truststore.as_ref().expect("there").warnings.join("\n")
        }
    }

    use AuthorityState::{Active, Distrusted};

    #[test]
    fn a_distrust_that_cannot_be_read_from_the_start_is_said_aloud() {
        let [one, other] = ["One", "Other"].map(ca);
        for (source, reason, what) in [
            (broken(), "InvalidCACertificateRef", "there is no -----BEGIN CERTIFICATE----- line"),
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
            assert_eq!((refs.0.as_str(), refs.1.as_str(), ready.0.as_str()), ("False", reason, "False"));
            for part in ["the distrust has no effect yet", "Put the certificates to distrust there as PEM", what] {
                assert!(refs.2.contains(part), "{part:?} is not in {:?}", refs.2);
            }
            assert_eq!(refs.2.matches("authority out").count(), 1, "once: {:?}", refs.2);
        }
        // Nobody knows whether it can be read.
        let mut world = World::new(&one, &other);
        world.lists("out", Distrusted, unseen());
        world.settles();
        assert_eq!(world.says("ResolvedRefs"), ("Unknown".into(), "Unreachable".into(), "no answer".into()));
        assert_eq!(world.warnings(), "");
    }

    #[test]
    fn whatever_becomes_of_its_source_a_distrust_stays() {
        let [one, other, third] = ["One", "Other", "Third"].map(ca);
        let several = |objects: &[(&str, Source)]| {
            Source::Several(objects.iter().map(|(name, found)| ((*name).to_owned(), found.clone())).collect())
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
            let plan = world.looks();
            assert!(plan.truststore.unwrap().distrusts, "ahead of others at AWS's quota");
            world.settles();
            assert!(!world.trusts(&one) && world.trusts(&other));
            assert_eq!(world.says("Ready").0, "True");
            let (before, warnings) = (world.status.clone(), world.warnings());
            world.o.authorities.insert("out".into(), unseen());
            assert_eq!(
                world.settles().truststore.unwrap().bundle,
                world.o.published.as_ref().unwrap().as_ref().unwrap().bundle
            );
            assert_eq!(world.warnings(), warnings, "an answer that is missing is no news");
            for later in later {
                world.lists("out", Distrusted, later.clone());
                world.settles();
                assert!(!world.trusts(&one) && world.trusts(&other), "{later:?}");
                assert_eq!(
                    (world.says("Ready").0.as_str(), world.says("ResolvedRefs").0.as_str()),
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
            // Until the entry goes.
            world.d.authorities.retain(|wish| wish.name != "out");
            world.settles();
            assert!(world.trusts(&one) && world.o.published.unwrap().unwrap().bundle.distrusted.is_empty());
        }
    }

    #[test]
    fn the_memory_is_completed_by_what_is_in_use_also_when_the_truststore_moves_and_never_by_others() {
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
        overwritten.o.published.as_mut().unwrap().as_mut().unwrap().bundle = Bundle::default();
        assert!(is_out(overwritten));
        let mut moves = distrusts();
        (moves.d.home.key, moves.o.published) = ("elsewhere.pem".into(), Ok(None));
        assert!(is_out(moves), "it moves");
        // Distrusted while it moves: published at the new place, and the domain still uses the old one.
        let mut moving = World::new(&one, &other);
        moving.d.home.key = "elsewhere.pem".into();
        moving.lists("out", Distrusted, read(&[&one]));
        let body = moving.looks().truststore.unwrap().bundle.render();
        moving.publishes(&body);
        moving.o.authorities.insert("out".into(), missing());
        assert!(is_out(moving));
        // Another owner's memory is none of ours.
        let mut foreign = World::new(&one, &other);
        let mut memory = foreign.o.published.as_ref().unwrap().as_ref().unwrap().clone();
        memory.bundle.distrusted = [("out".to_owned(), [(one.spki_sha256.clone(), true)].into())].into();
        memory.owner = Some("other/ns/partners".into());
        foreign.o.published = Ok(Some(memory));
        foreign.lists("out", Distrusted, missing());
        let compiled = foreign.looks().truststore.unwrap();
        assert!(compiled.bundle.find(&one).is_some() && compiled.bundle.distrusted.is_empty());
    }

    #[test]
    fn of_a_generated_authority_without_its_secret_what_stood_under_its_name_is_distrusted() {
        let [one, other] = ["One", "Other"].map(ca);
        let mut world = World::new(&one, &other);
        world.d.authorities[0].state = Distrusted;
        world.o.authorities.insert("partners".into(), Source::Missing("there is no Secret".into()));
        world.settles();
        assert_eq!(world.says("Ready").0, "True");
        let generated = world.o.published.as_ref().unwrap().as_ref().unwrap().bundle.distrusted["partners"].clone();
        assert_eq!(generated.values().collect::<Vec<_>>(), [&true]);
        assert!(world.warnings().contains("authority partners: its source is missing"), "{}", world.warnings());
    }

    #[test]
    fn what_completes_a_chain_need_not_be_readable_to_distrust_what_is_below() {
        let [one, other] = ["One", "Other"].map(ca);
        let secret = |completing| Source::Read { certificates: Ok(vec![one.clone()]), completing, key: Key::Absent };
        let mut world = World::new(&one, &other);
        world.lists("out", Distrusted, secret(Err(ParseError::NotPem)));
        world.settles();
        assert!(!world.trusts(&one));
        assert_eq!(world.says("Ready").0, "True");
        // Nobody is let in by half a Secret.
        world.lists("out", Active, secret(Err(ParseError::NotPem)));
        world.settles();
        assert_eq!(world.says("ResolvedRefs").1, "InvalidCACertificateRef");
        world.lists("out", Active, secret(Ok(vec![one.clone(), ca("Stranger")])));
        world.settles();
        assert_eq!(world.says("ResolvedRefs").0, "True");
        assert!(world.warnings().contains("authority out: CN=Stranger stands in ca.crt"), "{}", world.warnings());
    }

    #[test]
    fn what_is_distrusted_goes_although_the_spec_leaves_nothing() {
        let [one, other] = ["One", "Other"].map(ca);
        let mut world = World::new(&one, &other);
        world.d.authorities.clear();
        world.lists("out", Distrusted, read(&[&one, &authority_certificate()]));
        world.settles();
        assert!(!world.trusts(&one) && world.trusts(&other), "the last certificates stay");
        let (truststore, ready) = (world.says("TruststorePublished"), world.says("Ready"));
        assert_eq!((truststore.1.as_str(), ready.0.as_str()), ("NoValidCACertificate", "False"));
        // Nothing at all is left: the compromised one still lets callers in, and that is said.
        world.lists("out", Distrusted, read(&[&one, &other, &authority_certificate()]));
        world.settles();
        assert!(world.trusts(&other));
        assert_eq!(
            (world.says("TruststorePublished").1.as_str(), world.says("Ready").0.as_str()),
            ("NoValidCACertificate", "False")
        );
    }

    #[test]
    fn no_name_makes_a_status_long_or_hides_what_is_said_of_it() {
        let finding = |subject: String| Finding {
            severity: Severity::Warning,
            authority: "all".into(),
            subject,
            reason: lint::Reason::ExpiresSoon,
            message: "expires soon".into(),
        };
        let long = told(&finding(format!("CN={}", "ö".repeat(100_000))));
        assert!(long.len() < 300 && long.ends_with("… expires soon"), "{long}");
        let issuer = Finding { message: "ö".repeat(100_000), ..finding(String::new()) };
        assert!(told(&issuer).len() <= 1024 && told(&issuer).ends_with('…'));

        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "ö".repeat(20_000));
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let long = Certificate::from_der(made.der()).unwrap();
        let mut world = World::new(&long, &ca("Other"));
        let status = world.status.truststore.clone().unwrap();
        assert!(status.authorities.iter().any(|a| a.subject.len() <= 1024 && a.subject.ends_with('…')), "{status:?}");
        let weak: Vec<_> = (0..500).map(|n| (format!("x{n}"), broken())).collect();
        world.lists("out", Distrusted, Source::Several(weak.into_iter().collect()));
        world.settles();
        assert!(serde_json::to_string(&world.status).unwrap().len() < 100_000);
        // As many warnings as anybody reads.
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
}
