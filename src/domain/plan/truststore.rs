//! The step TruststorePublished: what is trusted, compiled from the sources and what is remembered, in S3.

use jiff::Timestamp;

use super::{Action, Judged, Step, Verdict, custom_domain};
use crate::{
    api::{AdoptionPolicy, AuthorityState, conditions::Reason},
    domain::{
        desired::{AuthorityWish, Desired, sha256},
        observed::{Key, Observed, Published, Source, Unseen},
    },
    pki::{
        compile::{self, CompileInput, Compiled},
        lint::{Severity, SourceError},
        truststore::Bundle,
    },
};

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
    let sources: Vec<_> = d.authorities.iter().map(|wish| source(wish, o, d)).collect();
    Some(compile::compile(&CompileInput { sources: &sources, previous: previous.as_ref(), overlap: d.overlap, now }))
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
    if let Err(missing) = bucket(d, o) {
        return missing;
    }
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
            vec![Action::PutTruststore { bucket: bucket.clone(), key: key.clone(), body, kms_key: d.kms_key.clone() }],
        ),
    }
}

/// What keeps the bucket from taking a truststore, and what we do about that.
fn bucket(d: &Desired, o: &Observed) -> Result<(), Judged> {
    let (bucket, account) = (&d.home.bucket, &d.home.account);
    let blocked = |reason, message| Err(Verdict::Blocked(reason, message).into());
    match &o.bucket {
        // S3 says no more than "no", also of a bucket that another account has.
        Err(why) if why.reason == Reason::PermissionDenied => {
            let message = format!(
                "bucket {bucket}: {}; or name another bucket, if this one is not account {account}'s",
                why.message
            );
            Err(Verdict::Unknown(Unseen { message, ..why.clone() }).into())
        }
        Err(why) => Err(Verdict::unknown(why).into()),
        Ok(None) if d.create_bucket => Err(Judged::act(
            format!("creating the bucket {bucket}"),
            vec![Action::CreateBucket { bucket: bucket.clone() }],
        )),
        Ok(None) => blocked(
            Reason::BucketNotFound,
            format!(
                "there is no bucket {bucket} in account {account}; create it with versioning, set spec.truststore.bucketCreation to \
                 IfMissing, or name another in spec.truststore.bucket"
            ),
        ),
        Ok(Some(found)) if found.region != d.home.region => blocked(
            Reason::BucketInOtherRegion,
            format!(
                "bucket {bucket} is in {}; name one in {}, the domain's Region, in spec.truststore.bucket",
                found.region, d.home.region
            ),
        ),
        Ok(Some(found)) if found.versioned => Ok(()),
        // It is one that the operator made, and not finished. Versioning comes last: with it nobody looks at the rest again.
        Ok(Some(found)) if found.owner.as_ref().is_some_and(|owner| d.home.is_of_this_cluster(owner)) => {
            let (bucket, kms_key) = (bucket.clone(), d.kms_key.clone());
            Err(Judged::act(
                format!("setting up the bucket {bucket}"),
                vec![
                    Action::BlockPublicAccess { bucket: bucket.clone() },
                    Action::EncryptBucket { bucket: bucket.clone(), kms_key },
                    Action::EnableVersioning { bucket },
                ],
            ))
        }
        Ok(Some(_)) => blocked(
            Reason::BucketNotVersioned,
            format!(
                "bucket {bucket} has no versioning, so no version of the truststore can be pinned; turn versioning on"
            ),
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
