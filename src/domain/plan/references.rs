//! The step ResolvedRefs: everything that the spec names is there and usable; generated authorities are made.

use std::collections::BTreeSet;

use super::{Action, Judged, Verdict, custom_domain, truststore::told};
use crate::{
    api::{AuthorityState, conditions::Reason},
    aws::gateway::{self, Protocol},
    conditions::listed,
    domain::{
        desired::{Desired, SourceWish},
        observed::{Api, Key, Observed, Source, Unseen},
    },
    pki::{
        compile::Compiled,
        lint::{self, Severity},
    },
};

/// Problems that a condition's message lists.
pub(super) const MOST_TOLD: usize = 20;

pub(super) fn resolved_refs(d: &Desired, o: &Observed, compiled: Option<&Compiled>) -> Judged {
    let mut actions = Vec::new();
    let mut problems = Vec::new();
    let mut unseen = None;
    for wish in &d.authorities {
        match (o.authorities.get(&wish.name), &wish.source) {
            (Some(Source::Unseen(why)), _) => unseen = Some(why),
            (Some(Source::Read { key: Key::Misfit, .. }), _) if wish.issues() => problems.push((
                Reason::InvalidCACertificateRef,
                format!("authority {}: the private key does not belong to its certificate", wish.name),
            )),
            // We made both, and the certificate without its key issues nothing.
            (Some(Source::Read { key: Key::Absent, .. }), SourceWish::Generated { secret, .. })
                if wish.state == AuthorityState::Active =>
            {
                problems.push((
                    Reason::AuthorityKeyLost,
                    format!(
                        "authority {}: the Secret {secret} has no private key any more. Restore it from a backup, or add an authority under \
                         another name and make that the issuing one",
                        wish.name
                    ),
                ))
            }
            (Some(Source::Read { .. }), _) => {}
            // Said below, unless what it distrusts is remembered.
            (_, _) if wish.state == AuthorityState::Distrusted => {
                if compiled.is_none() {
                    unseen = unseen.or(known(d, o).err()).or(o.domain.as_ref().err());
                }
            }
            (Some(Source::Several(all)), _) => {
                let missing = all.values().filter_map(|found| match found {
                    Source::Missing(what) => Some((Reason::RefNotFound, format!("authority {}: {what}", wish.name))),
                    _ => None,
                });
                problems.extend(missing);
            }
            (None | Some(Source::Missing(_)), SourceWish::Generated { .. }) => match known(d, o) {
                Err(why) => unseen = Some(why),
                Ok(known) if known.contains(&wish.name) => problems.push((
                    Reason::AuthorityKeyLost,
                    format!(
                        "authority {}: its Secret is gone while its certificate is trusted. Restore the Secret from a backup, or add an \
                         authority under another name and make that the issuing one",
                        wish.name
                    ),
                )),
                Ok(_) => actions.push(Action::GenerateAuthority { authority: wish.name.clone() }),
            },
            (None, _) => problems.push((Reason::RefNotFound, format!("authority {}: its source is not there", wish.name))),
            (Some(Source::Missing(what)), _) => problems.push((Reason::RefNotFound, format!("authority {}: {what}", wish.name))),
        }
    }
    for finding in compiled.iter().flat_map(|c| &c.findings).filter(|f| f.severity == Severity::Refused) {
        let reason = match finding.reason {
            lint::Reason::SubjectReused => Reason::AuthoritySubjectReused,
            // Said above, with the object's name; or by the truststore's own condition.
            lint::Reason::SourceMissing | lint::Reason::WouldBeEmpty => continue,
            lint::Reason::DistrustUnread => match missing(o, &finding.authority) {
                Some(what) => {
                    problems.push((Reason::RefNotFound, format!("{} ({what})", told(finding))));
                    continue;
                }
                None => Reason::InvalidCACertificateRef,
            },
            _ => Reason::InvalidCACertificateRef,
        };
        problems.push((reason, told(finding)));
    }
    for (path, mapped) in &d.mappings {
        match o.apis.get(&mapped.id) {
            None | Some(Ok(None)) => problems.push((
                Reason::ApiNotFound,
                format!(
                    "mapping {path:?}: there is no HTTP or REST API {} in {} of account {}",
                    mapped.id, d.home.region, d.home.account
                ),
            )),
            Some(Ok(Some(Api { api, .. }))) if let Some(why) = unsupported(api) => {
                problems.push((Reason::ApiNotSupported, format!("mapping {path:?}: the API {} {why}", mapped.id)));
            }
            Some(Ok(Some(api))) if api.stages.get(&mapped.stage).is_none_or(Option::is_none) => problems.push((
                Reason::StageNotFound,
                format!("mapping {path:?}: the API {} has no stage {}", mapped.id, mapped.stage),
            )),
            Some(Ok(Some(_))) => {}
            Some(Err(why)) => unseen = Some(why),
        }
    }
    let verdict = match (problems.first(), unseen, actions.is_empty()) {
        (Some((reason, _)), ..) => {
            Verdict::blocked(*reason, listed(problems.iter().map(|(_, problem)| problem.as_str()), MOST_TOLD))
        }
        (None, Some(why), _) => Verdict::unknown(why),
        (None, None, false) => Verdict::Act("generating the authority's key and certificate".into()),
        (None, None, true) => Verdict::done(Reason::ResolvedRefs, "everything the spec refers to is there"),
    };
    Judged { verdict, actions }
}

/// What is not there of the source of an authority, or of one of its objects (`<authority>/<object>`).
fn missing<'o>(o: &'o Observed, authority: &str) -> Option<&'o str> {
    let found = match authority.split_once('/') {
        None => o.authorities.get(authority),
        Some((authority, object)) => match o.authorities.get(authority)? {
            Source::Several(all) => all.get(object),
            _ => None,
        },
    };
    match found? {
        Source::Missing(what) => Some(what),
        _ => None,
    }
}

/// Why no custom domain with mutual TLS can serve it. Source: API Gateway Developer Guide, "How to turn on mutual TLS authentication".
pub(super) fn unsupported(api: &gateway::Api) -> Option<&'static str> {
    match api.protocol {
        Protocol::WebSocket => Some("is a WebSocket API: mutual TLS is for HTTP and REST APIs; map one of those"),
        Protocol::Rest if api.private => {
            Some("is private, and mutual TLS is not for private APIs: map a regional one, or change its endpoint type")
        }
        Protocol::Http | Protocol::Rest => None,
    }
}

/// The authorities that have a certificate in a truststore that we published, or that our domain uses.
fn known<'o>(d: &Desired, o: &'o Observed) -> Result<BTreeSet<String>, &'o Unseen> {
    let (published, pinned) = (o.published.as_ref()?, o.pinned.as_ref()?);
    let is_ours = |owner: &Option<String>| owner.as_ref() == Some(&d.home.owner);
    let published = published.iter().filter(|p| is_ours(&p.owner)).map(|p| &p.bundle);
    let used = custom_domain::ours(&d.home, &o.domain).is_ok();
    let pinned = pinned.iter().filter(|p| used || is_ours(&p.owner)).map(|p| &p.bundle);
    Ok(published.chain(pinned).flat_map(|b| b.entries.iter().map(|e| e.authority.clone())).collect())
}
