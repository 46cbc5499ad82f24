//! The step TruststorePublished: the desired truststore, compiled from the sources and the recorded state, in
//! S3.

use jiff::Timestamp;

use super::{
    bucket,
    self_signed::is_self_signed,
    self_signed_sources,
    truststore_sources::{NOTHING_SELECTED, merged, merged_keys, sources},
};

use crate::{
    api::{AdoptionPolicy, AuthorityState, conditions::Reason},
    aws::{
        action::s3::S3Action,
        s3::Encryption,
        tags::{self, Tags},
    },
    model::{
        desired::Desired,
        front::managed,
        observed::{Observed, Published, Source},
        step::{Step, StepPlan, StepState},
    },
    pki::{
        compile::{self, Compiled, TooLong, offer::CompileInput},
        digest::sha256,
        lint::{self, Finding, Severity},
        truststore::Bundle,
    },
    status::{Refused, conditions, text},
};

/// Maximum bytes of a subject in a message: a long name must not hide the rest of the message.
const MAX_SUBJECT: usize = 256;

/// Returns the text of a finding: the authority, the certificate, the problem and the remedy.
pub fn told(finding: &Finding) -> String {
    let whose = match finding.authority.split_once('/') {
        Some((authority, object)) => format!("authority {authority}, ConfigMap {object}: "),
        None if finding.authority.is_empty() => String::new(),
        None => format!("authority {}: ", finding.authority),
    };
    let subject = match finding.subject.as_str() {
        "" => String::new(),
        subject => format!("{} ", text::cut(subject, MAX_SUBJECT)),
    };
    text::shown(&format!("{whose}{subject}{}", finding.message))
}

/// Compiles the truststore; `Ok(None)`: what there is now is unknown. The previous state is the published
/// bundle, completed by the bundle in use.
///
/// # Errors
/// Returns [`TooLong`] once `limit` has returned true.
pub(crate) fn compile(
    d: &Desired,
    o: &Observed,
    now: Timestamp,
    limit: &dyn Fn() -> bool,
) -> Result<Option<Compiled>, TooLong> {
    let (Ok(published), Ok(pinned), Ok(front)) = (&o.published, &o.pinned, &o.front) else {
        return Ok(None);
    };
    let is_ours = |owner: &Option<String>| owner.as_ref() == Some(&d.placement.owner);
    let published = published
        .as_ref()
        .filter(|p| is_ours(&p.owner))
        .map(|p| &*p.bundle);
    let pinned = pinned.as_ref().filter(|p| is_ours(&p.owner)).map(|p| &*p.bundle);
    let used = front.as_ref().and_then(|front| front.truststore_uri.as_ref());
    let previous = match pinned {
        // The truststore moves. The objects that an earlier move left at the new place are out of date, and
        // must not become trusted again. The new place already records the distrust since this move began.
        Some(pinned) if used.is_some_and(|uri| *uri != d.truststore.uri()) => {
            let distrusted = merged_keys(published.into_iter().chain([pinned]));
            Some(Bundle {
                distrusted,
                ..pinned.clone()
            })
        }
        _ => merged(published, pinned),
    };
    let authorities = d
        .authorities
        .iter()
        .flat_map(|wanted| sources(wanted, o, d, previous.as_ref()));
    let mut sources: Vec<_> = authorities.collect();
    sources.extend(self_signed_sources::sources(
        d,
        o,
        previous.as_ref(),
        &sources,
        now,
    ));
    let input = CompileInput {
        sources: &sources,
        previous: previous.as_ref(),
        overlap: d.overlap,
        now,
    };
    let mut compiled = compile::compile(&input, limit)?;
    // A ClientCertificate's own conditions report the problems of its self-signed certificate.
    compiled
        .findings
        .retain(|finding| !is_self_signed(&finding.authority));
    if !compiled.without_room.is_empty() {
        compiled.findings.push(Finding {
            severity: Severity::Warning,
            authority: String::new(),
            subject: String::new(),
            reason: lint::Reason::TooLarge,
            message: format!(
                "the truststore is full, or the maxBytes of a ClientGrant are used up: the certificates of \
                 {} self-signed ClientCertificates do not fit, as their conditions say",
                compiled.without_room.len()
            ),
        });
    }
    let is_empty =
        |name: &str| matches!(o.authorities.get(name), Some(Source::Several(all)) if all.is_empty());
    compiled.findings.extend(
        d.authorities
            .iter()
            .filter(|wanted| is_empty(&wanted.name))
            .map(|wanted| Finding {
                severity: Severity::Warning,
                authority: wanted.name.clone(),
                subject: String::new(),
                reason: lint::Reason::NothingSelected,
                message: match wanted.state {
                    AuthorityState::Active => NOTHING_SELECTED.to_owned(),
                    AuthorityState::Distrusted => {
                        format!("{NOTHING_SELECTED}: this entry lists nothing to distrust")
                    }
                },
            }),
    );
    Ok(Some(compiled))
}

pub(crate) fn publish(d: &Desired, o: &Observed, refs: &StepPlan, compiled: Option<&Compiled>) -> StepPlan {
    match bucket::bucket(d, o) {
        Err(missing) => missing,
        // The truststore comes first, and without a change of the condition: a correction of the bucket must
        // not delay a change of trust.
        Ok(corrections) => object(d, o, refs, compiled).then(corrections),
    }
}

pub(crate) fn object(d: &Desired, o: &Observed, refs: &StepPlan, compiled: Option<&Compiled>) -> StepPlan {
    let (bucket, key) = (&d.truststore.bucket, &d.truststore.key);
    let published = match (&o.published, &o.pinned, &o.front) {
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return StepState::unknown(why).into(),
        (Ok(published), Ok(_), Ok(_)) => published.as_ref(),
    };
    if let Some(not_owned) = published.and_then(|p| not_owned(d, o, p)) {
        return not_owned.into();
    }
    let Some(compiled) = compiled else {
        return StepState::WaitingFor(Step::ResolvedRefs).into();
    };
    if refs.has_actions() {
        return StepState::WaitingFor(Step::ResolvedRefs).into();
    }
    // The operator never empties the truststore: API Gateway needs a certificate. Distrusted certificates
    // leave all the same, as long as another certificate is left.
    let would_be_empty = compiled
        .findings
        .iter()
        .any(|f| f.reason == lint::Reason::WouldBeEmpty);
    let is_emptied = would_be_empty && !compiled.distrusts;
    if is_emptied || compiled.bundle.entries.is_empty() {
        return if is_emptied || matches!(o.front, Ok(Some(_))) {
            StepState::blocked(
                Reason::NoValidCACertificate,
                "nothing would be left in the truststore, and API Gateway needs a certificate: the domain \
                 still trusts its present certificates. Add an authority, or delete the MtlsDomain to reject \
                 all callers",
            )
        } else {
            StepState::wait(
                Reason::WaitingForAuthority,
                "no authority has a certificate to trust yet",
            )
        }
        .into();
    }
    let body = compiled.bundle.render();
    let tags = tags::of_object(&d.placement.tags);
    match published {
        Some(p) if is_published(d, p, &body) => {
            let warnings = compiled
                .findings
                .iter()
                .filter(|f| f.severity != Severity::Refused)
                .count();
            let more = if warnings == 0 {
                String::new()
            } else {
                format!("; {warnings} warnings in status.truststore")
            };
            StepPlan::done(
                Reason::Published,
                format!("s3://{bucket}/{key} version {}{more}", p.version),
            )
        }
        _ => StepPlan::in_progress(
            format!("uploading s3://{bucket}/{key}"),
            S3Action::PutTruststore {
                bucket: bucket.clone(),
                key: key.clone(),
                body,
                kms_key: d.kms_key.clone(),
                encryption: d.encryption,
                tags_recorded: (!tags.is_empty()).then(|| fingerprints(&tags).join(",")),
                tags,
            },
        ),
    }
}

/// Returns the refusal of a domain without any authority: API Gateway needs a certificate. A domain with a
/// truststore keeps it, and the spec must list its certificates, or the owner must remove them, first. A new
/// domain may wait for its first self-signed certificate.
pub fn without_trust(
    d: &Desired,
    o: &Observed,
    created: Option<Timestamp>,
    now: Timestamp,
) -> Option<Refused> {
    let is_empty = d.authorities.is_empty() && d.self_signed.is_empty();
    let is_known =
        matches!(&o.front, Ok(front) if front.as_ref().is_none_or(|front| front.truststore_uri.is_none()));
    let refused = Refused {
        reason: Reason::InvalidSpec,
        message: "spec.trust: there is no authority to trust, and API Gateway needs a certificate: add an \
                  authority to spec.trust.authorities, or create a ClientCertificate for this domain with \
                  issuance SelfSigned"
            .into(),
    };
    (is_empty && is_known && conditions::fresh_until(created, now).is_none()).then_some(refused)
}

/// Returns why the operator may not store a version over the object at the desired key.
pub(crate) fn not_owned(d: &Desired, o: &Observed, p: &Published) -> Option<StepState> {
    let uri = d.truststore.uri();
    match &p.owner {
        Some(owner) if *owner == d.placement.owner => None,
        Some(other) => {
            let message = format!("{uri} belongs to {other}; name another key in spec.truststore.key");
            Some(StepState::blocked(Reason::ForeignOwner, message))
        }
        None if d.adoption == AdoptionPolicy::Unowned => None,
        // The owned domain uses this object: another writer has overwritten the operator's version.
        None if managed(&o.front).is_ok_and(|front| front.truststore_uri.as_ref() == Some(&uri)) => None,
        None => {
            let message = format!(
                "{uri} exists already and carries no ownership tag; the operator does not change it. Name \
                 another key in spec.truststore.key, or set spec.adoptionPolicy to Unowned: the operator \
                 then stores new versions over it, and the present versions stay"
            );
            Some(StepState::blocked(Reason::ForeignOwner, message))
        }
    }
}

fn is_published(d: &Desired, p: &Published, body: &str) -> bool {
    // S3 returns the key behind an alias; the object's metadata holds the requested key.
    let is_alias = |key: &String| key.contains(":alias/");
    let named = d.encryption.filter(|_| d.kms_key.is_none());
    let encrypted = p.desired_kms_key == d.kms_key
        && p.encryption.as_deref() == named.map(Encryption::as_str)
        && d.kms_key
            .as_ref()
            .is_none_or(|key| is_alias(key) || p.kms_key.as_ref() == Some(key));
    let pinnable = !p.version.is_empty();
    // A tag that the spec does not demand any more stays with this version.
    let is_tagged = |fingerprint: &String| p.tags.contains(fingerprint);
    let tagged = fingerprints(&tags::of_object(&d.placement.tags))
        .iter()
        .all(is_tagged);
    pinnable
        && encrypted
        && tagged
        && p.owner.as_ref() == Some(&d.placement.owner)
        && p.sha256 == sha256(body.as_bytes())
}

/// Returns the fingerprints of an object's tags, for its metadata: the tags themselves do not fit into the
/// 2 KB that S3 allows, and need a call and a right of their own to be read.
fn fingerprints(tags: &Tags) -> Vec<String> {
    tags.iter()
        .map(|(key, value)| sha256(format!("{key}={value}").as_bytes())[..12].to_owned())
        .collect()
}

#[cfg(test)]
pub(crate) mod names;

#[cfg(test)]
pub(crate) mod tests;
