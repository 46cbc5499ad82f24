//! The step ResolvedRefs: everything that the spec names is there and usable; generated authorities are made.

use std::collections::BTreeSet;

use super::{Action, Judged, Verdict};
use crate::{
    api::{AuthorityState, conditions::Reason},
    domain::{
        desired::{Desired, SourceWish},
        observed::{Key, Observed, Source, Unseen},
    },
    pki::{
        compile::Compiled,
        lint::{self, Severity},
    },
};
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
            (Some(Source::Read { .. }), _) => {}
            (_, SourceWish::Generated { .. }) if wish.state == AuthorityState::Distrusted => {}
            (None | Some(Source::Missing(_)), SourceWish::Generated { .. }) => match known(o) {
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
            lint::Reason::SourceMissing => continue, // said above, with the object's name
            _ => Reason::InvalidCACertificateRef,
        };
        problems.push((reason, format!("authority {}: {}", finding.authority, finding.message)));
    }
    for (path, mapped) in &d.mappings {
        match o.apis.get(&mapped.id) {
            None | Some(Ok(None)) => problems.push((
                Reason::ApiNotFound,
                format!(
                    "mapping {path:?}: there is no HTTP API {} in {} of account {} (REST APIs are not supported yet)",
                    mapped.id, d.home.region, d.home.account
                ),
            )),
            Some(Ok(Some(api))) if api.stages.get(&mapped.stage).is_none_or(Option::is_none) => problems.push((
                Reason::StageNotFound,
                format!("mapping {path:?}: the API {} has no stage {}", mapped.id, mapped.stage),
            )),
            Some(Ok(Some(_))) => {}
            Some(Err(why)) => unseen = Some(why),
        }
    }
    let verdict = match (problems.split_first(), unseen, actions.is_empty()) {
        (Some(((reason, first), rest)), ..) => {
            Verdict::blocked(*reason, rest.iter().fold(first.clone(), |all, (_, next)| format!("{all}; {next}")))
        }
        (None, Some(why), _) => Verdict::unknown(why),
        (None, None, false) => Verdict::Act("generating the authority's key and certificate".into()),
        (None, None, true) => Verdict::done(Reason::ResolvedRefs, "everything the spec refers to is there"),
    };
    Judged { verdict, actions }
}

/// The authorities that have a certificate in the truststore, published or in use.
fn known(o: &Observed) -> Result<BTreeSet<String>, &Unseen> {
    let (published, pinned) = (o.published.as_ref()?, o.pinned.as_ref()?);
    let bundles = published.iter().map(|p| &p.bundle).chain(pinned.iter().map(|p| &p.bundle));
    Ok(bundles.flat_map(|b| b.entries.iter().map(|e| e.authority.clone())).collect())
}
