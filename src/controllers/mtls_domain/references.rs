//! The step ResolvedRefs: every object that the spec names exists and is usable, and the operator generates
//! authorities.

use std::collections::BTreeSet;

use crate::{
    api::{AuthorityState, conditions::Reason},
    dataplane::api_gateway::apis::unsupported,
    model::{
        action::Action,
        authorities::DesiredSource,
        desired::Desired,
        observed::{Api, CanIssue, Observed, Source},
        step::{Actions, StepPlan, StepState},
    },
    observation::seen::Unseen,
    pki::{
        compile::{Compiled, TooLong},
        lint::{self, Severity},
    },
    runtime::workers::LIMIT,
    status::text::{MOST_TOLD, WHOLE, listed, shown},
    trust::{
        generated_authority::{self, Ownership},
        truststore::told,
    },
};

pub(crate) fn resolved_refs(
    d: &Desired,
    o: &Observed,
    compiled: Option<&Compiled>,
    too_long: Option<&TooLong>,
) -> StepPlan {
    let mut actions = Vec::new();
    let mut problems = Vec::new();
    let mut unseen = None;
    for wanted in &d.authorities {
        match generated_authority::ownership(d, o, wanted) {
            // The operator ignores the Secret's contents, so that there is no problem to correct.
            _ if wanted.state == AuthorityState::Distrusted => {}
            Ownership::Ours => {}
            Ownership::Unknown(why) => {
                unseen = Some(why);
                continue;
            }
            Ownership::NotOurs(why) => {
                let secret = wanted.source.secret().map_or("", String::as_str);
                problems.push((
                    Reason::SecretNotOwned,
                    format!(
                        "authority {}: the operator did not create the Secret {secret}: {why}. It is not \
                         trusted, and issues nothing. Delete it (the operator then creates its own, unless \
                         one was lost: restore that), or use it on purpose, with secretRef in an authority \
                         of another name",
                        wanted.name
                    ),
                ));
                continue;
            }
        }
        match (o.authorities.get(&wanted.name), &wanted.source) {
            (Some(Source::Unseen(why)), _) => unseen = Some(why),
            (
                Some(Source::Read {
                    can_issue: CanIssue::Broken { why, of_key },
                    ..
                }),
                _,
            ) if wanted.may_issue() => {
                // A finding on the certificates says the same.
                if *of_key || !is_refused(compiled, &wanted.name) {
                    problems.push((
                        Reason::InvalidCACertificateRef,
                        shown(&format!("authority {}: {why}", wanted.name)),
                    ));
                }
            }
            // The operator generated both, and the certificate issues nothing without its key.
            (
                Some(Source::Read {
                    can_issue: CanIssue::No,
                    ..
                }),
                DesiredSource::Generated { secret, .. },
            ) if wanted.state == AuthorityState::Active => problems.push((
                Reason::AuthorityKeyLost,
                format!(
                    "authority {}: the Secret {secret} has no private key any more. Restore it from a \
                         backup, or add an authority under another name and set issuingAuthority to it",
                    wanted.name
                ),
            )),
            (Some(Source::Read { .. } | Source::NotOwned(_)), _) => {}
            // A finding reports the missing source, unless the truststore records what the entry distrusts.
            (_, _) if wanted.state == AuthorityState::Distrusted => {
                if compiled.is_none() {
                    unseen = unseen.or(known(d, o).err()).or(o.front.as_ref().err());
                }
            }
            (Some(Source::Several(all)), _) => {
                let missing = all.values().filter_map(|found| match found {
                    Source::Missing(what) => {
                        Some((Reason::RefNotFound, format!("authority {}: {what}", wanted.name)))
                    }
                    _ => None,
                });
                problems.extend(missing);
            }
            (None | Some(Source::Missing(_)), DesiredSource::Generated { .. }) => match known(d, o) {
                Err(why) => unseen = Some(why),
                Ok(known) if known.contains(wanted.name.as_str()) => problems.push((
                    Reason::AuthorityKeyLost,
                    format!(
                        "authority {}: its Secret no longer exists while its certificate is trusted. Restore \
                         the Secret from a backup, or add an authority under another name and set \
                         issuingAuthority to it",
                        wanted.name
                    ),
                )),
                Ok(_) => {
                    let recorded = o.recorded.get(&wanted.name).cloned();
                    actions.push(Action::GenerateAuthority {
                        authority: wanted.name.clone(),
                        recorded,
                    });
                }
            },
            (None, _) => problems.push((
                Reason::RefNotFound,
                format!("authority {}: its source does not exist", wanted.name),
            )),
            (Some(Source::Missing(what)), _) => {
                problems.push((Reason::RefNotFound, format!("authority {}: {what}", wanted.name)))
            }
        }
    }
    if let Some(TooLong { authority }) = too_long {
        problems.push((Reason::InvalidCACertificateRef, costly(authority)));
    }
    for finding in compiled
        .iter()
        .flat_map(|c| &c.findings)
        .filter(|f| f.severity == Severity::Refused)
    {
        let reason = match finding.reason {
            lint::Reason::SubjectReused => Reason::AuthoritySubjectReused,
            // The code above, or the condition of the truststore, reports these problems.
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
                    mapped.id, d.placement.region, d.placement.account
                ),
            )),
            Some(Ok(Some(Api { api, .. }))) if let Some(why) = unsupported(api) => {
                problems.push((
                    Reason::ApiNotSupported,
                    format!("mapping {path:?}: the API {} {why}", mapped.id),
                ));
            }
            Some(Ok(Some(api))) if api.stages.get(&mapped.stage).is_none_or(Option::is_none) => problems
                .push((
                    Reason::StageNotFound,
                    format!(
                        "mapping {path:?}: the API {} has no stage {}",
                        mapped.id, mapped.stage
                    ),
                )),
            Some(Ok(Some(_))) => {}
            Some(Err(why)) => unseen = Some(why),
        }
    }
    match (problems.first(), unseen) {
        (Some((reason, _)), _) => StepState::blocked(
            *reason,
            listed(
                problems.iter().map(|(_, problem)| problem.as_str()),
                MOST_TOLD,
                WHOLE,
            ),
        )
        .with(actions),
        (None, Some(why)) => StepState::unknown(why).with(actions),
        (None, None) => match Actions::of(actions) {
            Some(actions) => StepPlan::in_progress("generating the authority's key and certificate", actions),
            None => StepPlan::done(Reason::ResolvedRefs, "everything the spec refers to is there"),
        },
    }
}

/// True when a finding that [`resolved_refs`] reports refuses certificates of the authority.
fn is_refused(compiled: Option<&Compiled>, authority: &str) -> bool {
    compiled.iter().flat_map(|c| &c.findings).any(|finding| {
        finding.severity == Severity::Refused
            && finding.authority == authority
            && !matches!(
                finding.reason,
                lint::Reason::SourceMissing | lint::Reason::WouldBeEmpty
            )
    })
}

/// Returns the missing part of an authority's source, or of one of its objects (`<authority>/<object>`).
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

/// Returns the authorities with a certificate in the truststore that the operator published, or that the
/// domain uses.
fn known<'o>(d: &Desired, o: &'o Observed) -> Result<BTreeSet<&'o str>, &'o Unseen> {
    o.published.as_ref()?;
    o.pinned.as_ref()?;
    Ok(generated_authority::trusted(d, o)
        .into_iter()
        .map(|entry| entry.authority.as_str())
        .collect())
}

/// Returns the problem of authorities whose certificates take too long to check.
fn costly(authority: &str) -> String {
    let whose = match authority.split_once('/') {
        _ if authority.is_empty() => "spec.trust.authorities".to_owned(),
        Some((authority, object)) => format!("authority {authority}, ConfigMap {object}"),
        None => format!("authority {authority}"),
    };
    format!(
        "{whose}: checking which key signed which certificate takes longer than {} s, so that the \
         truststore stays as it is. Most often there are many certificates of one name: remove those that no \
         caller needs",
        LIMIT.as_secs()
    )
}

#[cfg(test)]
mod tests;
