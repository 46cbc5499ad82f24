//! The step TruststorePublished: what is trusted, compiled from the sources and what is remembered, in S3.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Action, Judged, Step, Verdict, bucket, custom_domain, self_signed};
use crate::{
    api::{AdoptionPolicy, AuthorityState, conditions::Reason},
    domain::{
        clients,
        desired::{AuthorityWish, Desired, SourceWish, sha256},
        generated::{self, Ownership},
        observed::{Key, Observed, Published, Source},
    },
    pki::{
        compile::{self, CompileInput, Compiled},
        lint::{self, Finding, Severity, SourceError},
        truststore::Bundle,
    },
};

/// A finding for people: whose, about which certificate, what is wrong and what to do.
pub fn told(finding: &Finding) -> String {
    let whose = match finding.authority.split_once('/') {
        Some((authority, object)) => format!("authority {authority}, ConfigMap {object}: "),
        None if finding.authority.is_empty() => String::new(),
        None => format!("authority {}: ", finding.authority),
    };
    let subject = if finding.subject.is_empty() { String::new() } else { format!("{} ", finding.subject) };
    format!("{whose}{subject}{}", finding.message)
}

/// The memory of what was trusted: what is published, completed by what is in use.
pub(super) fn compile(d: &Desired, o: &Observed, now: Timestamp) -> Option<Compiled> {
    let (published, pinned, domain) = (o.published.as_ref().ok()?, o.pinned.as_ref().ok()?, o.domain.as_ref().ok()?);
    let is_ours = |owner: &Option<String>| owner.as_ref() == Some(&d.home.owner);
    let published = published.as_ref().filter(|p| is_ours(&p.owner)).map(|p| &p.bundle);
    let pinned = pinned.as_ref().filter(|p| is_ours(&p.owner)).map(|p| &p.bundle);
    let used = domain.as_ref().and_then(|g| g.truststore.as_ref());
    let previous = match pinned {
        // The truststore moves. What an earlier move left at the new place is out of date, and must not be trusted again.
        Some(pinned) if used.is_some_and(|t| t.uri != d.home.truststore_uri()) => Some(pinned.clone()),
        _ => merged(published, pinned),
    };
    let authorities = d.authorities.iter().flat_map(|wish| sources(wish, o, d, previous.as_ref()));
    let mut sources: Vec<_> = authorities.collect();
    sources.extend(self_signed::sources(d, o, previous.as_ref(), &sources, now));
    let input = CompileInput { sources: &sources, previous: previous.as_ref(), overlap: d.overlap, now };
    let mut compiled = compile::compile(&input);
    // What stands in the way of a self-signed certificate is said on its ClientCertificate.
    compiled.findings.retain(|finding| !clients::is_self_signed(&finding.authority));
    let is_empty = |name: &str| matches!(o.authorities.get(name), Some(Source::Several(all)) if all.is_empty());
    compiled.findings.extend(d.authorities.iter().filter(|wish| is_empty(&wish.name)).map(|wish| Finding {
        severity: Severity::Warning,
        authority: wish.name.clone(),
        subject: String::new(),
        reason: lint::Reason::NothingSelected,
        message: "no ConfigMap in this namespace has the labels of its configMapSelector".to_owned(),
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
    Some(all)
}

/// What a label selector finds are authorities each by itself, `<authority>/<object>`, so that one that is broken keeps what it had and
/// the others go on changing.
fn sources(wish: &AuthorityWish, o: &Observed, d: &Desired, previous: Option<&Bundle>) -> Vec<compile::Source> {
    let part = |object: &str| format!("{}/{object}", wish.name);
    match (o.authorities.get(&wish.name), &wish.source) {
        (Some(Source::Several(all)), _) => {
            all.iter().map(|(object, found)| source(part(object), wish, Some(found), d, o)).collect()
        }
        // Not seen: what is there of it stays.
        (_, SourceWish::ConfigMaps { .. }) => {
            let names: BTreeSet<_> = previous.iter().flat_map(|b| &b.entries).map(|entry| &entry.authority).collect();
            let is_part = |name: &&String| name.starts_with(&part("")) && !clients::is_self_signed(name);
            let parts = names.into_iter().filter(is_part);
            parts.map(|name| source(name.clone(), wish, None, d, o)).collect()
        }
        (found, _) => vec![source(wish.name.clone(), wish, found, d, o)],
    }
}

fn source(
    authority: String,
    wish: &AuthorityWish,
    found: Option<&Source>,
    d: &Desired,
    o: &Observed,
) -> compile::Source {
    let (certificates, key) = match found {
        // The key that we made lost its certificate to another one: no reason to trust that.
        Some(Source::Read { key: Key::Misfit, .. }) if matches!(wish.source, SourceWish::Generated { .. }) => {
            (Err(SourceError::Missing), Key::Misfit)
        }
        // Not one that we made, or nobody can tell: nothing of it is believed, whether it is to be trusted or distrusted.
        Some(Source::Read { .. }) if generated::ownership(d, o, wish) != Ownership::Ours => {
            (Err(SourceError::Missing), Key::Absent)
        }
        Some(Source::Read { certificates, key }) => (certificates.clone().map_err(SourceError::Unreadable), *key),
        _ => (Err(SourceError::Missing), Key::Absent),
    };
    // A Secret whose key is gone may still have living leaves: that it could issue is remembered in the bundle.
    let issues = key == Key::Fits && wish.issues();
    compile::Source {
        authority,
        state: match wish.state {
            AuthorityState::Active => compile::State::Active,
            AuthorityState::Distrusted => compile::State::Distrusted,
        },
        issues,
        longest_leaf: issues.then_some(d.longest_leaf),
        certificates,
    }
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
    // What is trusted is never emptied, whatever the spec says: API Gateway needs a certificate.
    let is_emptied = compiled.findings.iter().any(|f| f.reason == lint::Reason::WouldBeEmpty);
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
    use super::*;
    use crate::{
        domain::{
            observed::{Pinned, Unseen},
            simulation::{now, settled},
        },
        pki::{authority::tests::request, certificate::Certificate, truststore::Entry},
    };

    fn made(common_name: &str) -> Certificate {
        crate::pki::authority::generate(&request(common_name), now()).unwrap().certificate
    }

    fn publish(d: &Desired, o: &mut Observed, bundle: &Bundle) {
        let owner = Some(d.home.owner.clone());
        o.published.as_mut().unwrap().as_mut().unwrap().bundle = bundle.clone();
        o.pinned = Ok(Some(Pinned { owner, bundle: bundle.clone() }));
    }

    /// The entries of self-signed ClientCertificates begin with the same word.
    #[test]
    fn an_authority_called_clientcertificates_is_one_as_any_other() {
        let certificate = made("clientcertificates");
        let found = || Source::Read { certificates: Ok(vec![certificate.clone()]), key: Key::Absent };
        let keyed = || Source::Read { certificates: Ok(vec![certificate.clone()]), key: Key::Fits };
        let several = || Source::Several([("third.party".to_owned(), found())].into());
        let secret = "partners.clientcertificates-ca".to_owned();
        let kinds = [
            ("pem", SourceWish::Pem(String::new()), found()),
            ("secretRef", SourceWish::Secret { name: "x".into() }, keyed()),
            ("configMapRef", SourceWish::ConfigMap { name: "x".into(), key: "ca.crt".into() }, found()),
            ("configMapSelector", SourceWish::ConfigMaps { labels: [].into(), key: "ca.crt".into() }, several()),
            ("generate", SourceWish::Generated { secret, request: request("clientcertificates") }, keyed()),
        ];
        for (kind, wish, source) in kinds {
            let (mut d, mut o) = settled();
            let name = "clientcertificates".to_owned();
            d.authorities.push(AuthorityWish { name: name.clone(), state: AuthorityState::Active, source: wish });
            o.recorded.insert(name.clone(), certificate.spki_sha256.clone());
            o.authorities.insert(name.clone(), source);
            let first = compile(&d, &o, now()).unwrap();
            assert!(first.bundle.find(&certificate).is_some(), "{kind}: {:?}", first.bundle);
            assert!(!first.distrusts && first.findings.is_empty(), "{kind}: {:?}", first.findings);
            for look in 1..4 {
                publish(&d, &mut o, &first.bundle);
                let again = compile(&d, &o, now()).unwrap();
                assert_eq!(again.bundle.render(), first.bundle.render(), "{kind}: look {look} uploads another one");
            }
            // What is wrong with it is said as of any other.
            let broken = Source::Read { certificates: parse("nothing"), key: Key::Absent };
            let several = matches!(o.authorities[&name], Source::Several(_));
            let broken = if several { Source::Several([("third.party".to_owned(), broken)].into()) } else { broken };
            o.authorities.insert(name.clone(), broken);
            let kept = compile(&d, &o, now()).unwrap();
            assert!(kept.bundle.find(&certificate).is_some(), "{kind}: what was good last stays");
            assert!(!kept.findings.is_empty(), "{kind}");
            // It leaves when it is distrusted, and takes nobody along.
            d.authorities[1].state = AuthorityState::Distrusted;
            let gone = compile(&d, &o, now()).unwrap();
            assert!(gone.distrusts && gone.bundle.find(&certificate).is_none(), "{kind}");
            assert_eq!(gone.bundle.entries.len(), 1, "{kind}");
        }
    }

    fn parse(text: &str) -> Result<Vec<Certificate>, crate::pki::certificate::ParseError> {
        crate::pki::certificate::parse_pem_bundle(text)
    }

    #[test]
    fn its_selection_and_the_certificates_that_sign_themselves_are_told_apart() {
        let (certificate, key) =
            (made("Third"), crate::pki::keys::generate(crate::pki::keys::KeyKind::EcdsaP256).unwrap());
        let leaf =
            crate::pki::leaf::self_sign(&crate::pki::leaf::tests::request("client1"), &key, now()).unwrap().certificate;
        let entry = |authority: &str, certificate: &Certificate| Entry {
            authority: authority.into(),
            certificate: certificate.clone(),
            max_leaf: None,
            keep_until: None,
        };
        let (mut d, mut o) = settled();
        let source = SourceWish::ConfigMaps { labels: [].into(), key: "ca.crt".into() };
        d.authorities.push(AuthorityWish { name: "clientcertificates".into(), state: AuthorityState::Active, source });
        let mut bundle = o.pinned.clone().unwrap().unwrap().bundle;
        bundle.entries.push(entry("clientcertificates/third", &certificate));
        bundle.entries.push(entry("clientcertificates/ns/client1/uid", &leaf));
        publish(&d, &mut o, &bundle);
        // Its ConfigMaps cannot be listed: what was selected stays, and a ClientCertificate that is gone does not.
        let unseen = Unseen { reason: Reason::Unreachable, message: "no answer".into() };
        o.authorities.insert("clientcertificates".into(), Source::Unseen(unseen));
        let compiled = compile(&d, &o, now()).unwrap().bundle;
        assert!(compiled.find(&certificate).is_some() && compiled.find(&leaf).is_none(), "{compiled:?}");
        // One ConfigMap less: nobody takes what it had for a ClientCertificate's that cannot be seen.
        d.watched = Some([].into());
        o.authorities.insert("clientcertificates".into(), Source::Several([].into()));
        let compiled = compile(&d, &o, now()).unwrap().bundle;
        assert!(compiled.find(&certificate).is_none() && compiled.find(&leaf).is_some(), "{compiled:?}");
    }
}
