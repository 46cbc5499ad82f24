//! The step TruststorePublished: what is trusted, compiled from the sources and what is remembered, in S3.

use jiff::Timestamp;

use super::{Action, Judged, Step, Verdict, self_signed};
use crate::{
    api::{AuthorityState, conditions::Reason},
    domain::{
        clients,
        desired::{AuthorityWish, Desired, sha256},
        observed::{Key, Observed, Pinned, Published, Source},
    },
    pki::{
        compile::{self, CompileInput, Compiled},
        lint::{Severity, SourceError},
        truststore::Bundle,
    },
};
/// The memory of what was trusted: what is published, completed by what is in use.
pub(super) fn compile(d: &Desired, o: &Observed, now: Timestamp) -> Option<Compiled> {
    let (published, pinned) = (o.published.as_ref().ok()?, o.pinned.as_ref().ok()?);
    let is_ours = |owner: &Option<String>| owner.as_ref() == Some(&d.home.owner);
    let published = published.as_ref().filter(|p| is_ours(&p.owner)).map(|p| &p.bundle);
    let pinned = pinned.as_ref().filter(|p| is_ours(&p.owner)).map(|p| &p.bundle);
    let previous = merged(published, pinned);
    let authorities = d.authorities.iter().map(|wish| source(wish, o, d));
    let sources: Vec<_> = authorities.chain(self_signed::sources(d, o, previous.as_ref())).collect();
    let input = CompileInput { sources: &sources, previous: previous.as_ref(), overlap: d.overlap, now };
    let mut compiled = compile::compile(&input);
    // What stands in the way of a self-signed certificate is said on its ClientCertificate.
    compiled.findings.retain(|finding| !clients::is_self_signed(&finding.authority));
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

fn source(wish: &AuthorityWish, o: &Observed, d: &Desired) -> compile::Source {
    let (certificates, key) = match o.authorities.get(&wish.name) {
        Some(Source::Read { certificates, key }) => (certificates.clone().map_err(SourceError::Unreadable), *key),
        _ => (Err(SourceError::Missing), Key::Absent),
    };
    // A Secret whose key is gone may still have living leaves: that it could issue is remembered in the bundle.
    let issues = key == Key::Fits && wish.issues();
    compile::Source {
        authority: wish.name.clone(),
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
    let (bucket, key) = (&d.home.bucket, &d.home.key);
    match &o.bucket {
        Err(why) => return Verdict::unknown(why).into(),
        Ok(None) => {
            return Verdict::blocked(
                Reason::BucketNotFound,
                format!("there is no bucket {bucket} in account {}; create it with versioning, or name another in spec.truststore.bucket", d.home.account),
            )
            .into();
        }
        Ok(Some(found)) if !found.versioned => {
            return Verdict::blocked(
                Reason::BucketNotVersioned,
                format!("bucket {bucket} has no versioning, so no version of the truststore can be pinned; turn versioning on"),
            )
            .into();
        }
        Ok(Some(_)) => {}
    }
    let published = match (&o.published, &o.pinned) {
        (Err(why), _) | (_, Err(why)) => return Verdict::unknown(why).into(),
        (Ok(published), Ok(_)) => published.as_ref(),
    };
    if let Some(other) = published.and_then(|p| p.owner.as_ref()).filter(|o| **o != d.home.owner) {
        return Verdict::blocked(
            Reason::ForeignOwner,
            format!("s3://{bucket}/{key} belongs to {other}; name another key in spec.truststore.key"),
        )
        .into();
    }
    let Some(compiled) = compiled else { return Verdict::Behind(Step::ResolvedRefs).into() };
    if !refs.actions.is_empty() {
        return Verdict::Behind(Step::ResolvedRefs).into();
    }
    let in_use = |used: &Pinned| used.owner.as_ref() == Some(&d.home.owner) && !used.bundle.entries.is_empty();
    if compiled.bundle.entries.is_empty() && o.pinned.iter().flatten().any(in_use) {
        return Verdict::blocked(
            Reason::NoValidCACertificate,
            "nothing is left to trust, and API Gateway needs at least one certificate: what is Distrusted, or was deleted, is let in until there \
             is another one. Add an authority",
        )
        .into();
    }
    if compiled.bundle.entries.is_empty() {
        return Verdict::wait(Reason::WaitingForAuthority, "no authority has a certificate to trust yet").into();
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
            vec![Action::PutTruststore { bucket: bucket.clone(), key: key.clone(), body }],
        ),
    }
}

fn is_published(d: &Desired, p: &Published, body: &str) -> bool {
    p.owner.as_ref() == Some(&d.home.owner) && p.sha256 == sha256(body.as_bytes())
}
