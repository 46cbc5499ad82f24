//! The step IdentityPropagated: every integration of every mapped API passes on who called, under the headers of the spec, and nothing of it
//! stays where the spec does not want it any more. What we set is marked on the API by one tag per header ([`HEADER_TAG`]) before it is set, and
//! the tag goes after it; a header that somebody else set is left as it is. Where a change takes a deployment to become effective, a second
//! tag ([`PENDING_IDENTITY_TAG`]) remembers which deployments do not have it yet, so that anybody's next deployment counts.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Judged, Step, Verdict, custom_domain, references::unsupported};
use crate::{
    api::{RestDeployment, conditions::Reason},
    aws::gateway::{Integration, Place, Protocol, Stage},
    domain::{
        desired::{Desired, Home},
        observed::{Api, Observed, Seen},
    },
};

/// On an API, before the name of a header that we set there; the value is the owner's mark.
pub const HEADER_TAG: &str = "mtls-operator.io/header.";
/// On an API between a change of its headers and its deployment: the ids of the deployments that the mapped stages had before.
pub const PENDING_IDENTITY_TAG: &str = "mtls-operator.io/pending-identity";
/// The longest value of a tag. Source: API Gateway Developer Guide, "Tag restrictions".
const LONGEST_TAG: usize = 256;
/// How often headers of one API are put back before somebody has to find out who takes them away.
pub const MOST_REPAIRS: u32 = 3;

/// A header in place: the API, the integration and the header's name.
pub type InPlace = BTreeSet<(String, Place, String)>;

/// `None`: nothing is asked for, and nothing is left to take away.
pub(super) fn identity(d: &Desired, o: &Observed) -> Option<Judged> {
    let mut all: Vec<Judged> = Vec::new();
    let none = BTreeMap::new();
    for (id, api) in &o.apis {
        let mapped = d.mappings.values().any(|m| m.id == *id);
        let wanted = if mapped { &d.identity } else { &none };
        match api {
            Err(why) if !wanted.is_empty() => all.push(Verdict::unknown(why).into()),
            Ok(Some(api)) if unsupported(&api.api).is_none() => {
                let repairs = o.repairs.get(id).copied().unwrap_or_default();
                all.extend(of_api(&d.home, api, wanted, d.rest_deployment, repairs));
            }
            _ if !wanted.is_empty() => all.push(Verdict::Behind(Step::ResolvedRefs).into()),
            _ => {}
        }
    }
    if all.is_empty() {
        let nothing = "no API is mapped";
        return (!d.identity.is_empty()).then(|| Verdict::done(Reason::Programmed, nothing).into());
    }
    if custom_domain::is_barred(d, o) {
        return Some(Verdict::Behind(Step::DomainProgrammed).into());
    }
    Judged::of_all(all)
}

/// What takes our headers out of an API again that is to have none, and our marks off; `None`: there are none, or the API is gone.
pub fn removal(home: &Home, api: &Seen<Option<Api>>, rest_deployment: RestDeployment) -> Option<Judged> {
    match api {
        Err(why) => Some(Verdict::unknown(why).into()),
        Ok(None) => None,
        Ok(Some(api)) => of_api(home, api, &BTreeMap::new(), rest_deployment, 0),
    }
}

/// What takes our marks off an API whose headers stay as they are.
pub fn unmarking(home: &Home, api: &Api) -> Option<Action> {
    let mut keys: Vec<_> = ours(home, api).map(|name| format!("{HEADER_TAG}{name}")).collect();
    if keys.is_empty() {
        return None;
    }
    let is_pending = api.api.tags.contains_key(PENDING_IDENTITY_TAG) && !others(home, api);
    keys.extend(is_pending.then(|| PENDING_IDENTITY_TAG.to_owned()));
    Some(Action::UntagApi { arn: api.api.arn.clone(), keys })
}

/// Whether a mapping to it has to stay, because headers of ours have to be taken out of it first.
pub(super) fn holds(home: &Home, api: &Seen<Option<Api>>) -> bool {
    match api {
        Err(_) => true,
        Ok(api) => api.as_ref().is_some_and(|api| ours(home, api).next().is_some()),
    }
}

/// The headers that are ours and in place.
pub fn in_place(d: &Desired, o: &Observed) -> InPlace {
    let apis = o.apis.iter().filter_map(|(id, api)| Some((id, api.as_ref().ok()?.as_ref()?)));
    let headers = apis.flat_map(|(id, api)| {
        let ours: BTreeSet<_> = ours(&d.home, api).collect();
        let headers = d.identity.iter().filter(move |(name, _)| ours.contains(name.as_str()));
        headers.flat_map(move |(name, source)| {
            let there =
                covered(api).filter(move |i| value(api, i, name) == Some(&expression(api.api.protocol, source)));
            there.map(move |i| (id.clone(), i.at.clone(), name.clone()))
        })
    });
    headers.collect()
}

/// The names of the headers that we marked as ours.
fn ours<'a>(home: &'a Home, api: &'a Api) -> impl Iterator<Item = &'a str> {
    marks(api).filter(|(_, owner)| **owner == home.owner).map(|(name, _)| name)
}

fn marks(api: &Api) -> impl Iterator<Item = (&str, &String)> {
    api.api.tags.iter().filter_map(|(key, owner)| Some((key.strip_prefix(HEADER_TAG)?, owner)))
}

/// Whether somebody else has headers there, who still has to know what is not deployed.
fn others(home: &Home, api: &Api) -> bool {
    marks(api).any(|(_, owner)| *owner != home.owner)
}

/// Whether a header there is this owner's.
pub fn is_marked(home: &Home, tags: &BTreeMap<String, String>) -> bool {
    tags.iter().any(|(key, owner)| key.starts_with(HEADER_TAG) && *owner == home.owner)
}

fn of_api(
    home: &Home,
    api: &Api,
    wanted: &BTreeMap<String, String>,
    rest_deployment: RestDeployment,
    repairs: u32,
) -> Option<Judged> {
    let id = &api.api.id;
    let leaving: Vec<_> = ours(home, api).filter(|name| !wanted.contains_key(*name)).map(str::to_owned).collect();
    let pending = api.api.tags.get(PENDING_IDENTITY_TAG);
    if wanted.is_empty() && leaving.is_empty() {
        return None;
    }
    if let Some(Err(why)) = &api.integrations {
        return Some(Verdict::unknown(why).into());
    }
    let mut tags = BTreeMap::new();
    let (mut foreign, mut missing) = (vec![], vec![]);
    let mut changes: BTreeMap<&Place, (BTreeMap<String, String>, BTreeSet<String>)> = BTreeMap::new();
    for (name, source) in wanted {
        let expression = expression(api.api.protocol, source);
        let mark = marks(api).find(|(marked, _)| marked == name).map(|(_, owner)| owner);
        let wrong: Vec<_> = covered(api).filter(|i| value(api, i, name) != Some(&expression)).collect();
        let is_ours = mark == Some(&home.owner);
        let theirs = wrong.iter().find(|i| !is_ours && (mark.is_some() || sets(i, name)));
        if let Some(there) = theirs {
            foreign.push(format!("{name} at {} of {id}", there.at));
            continue;
        }
        if wrong.is_empty() {
            continue;
        }
        if !is_ours {
            tags.insert(format!("{HEADER_TAG}{name}"), home.owner.clone());
        }
        for integration in wrong {
            missing.push(format!("{name} at {} of {id}", integration.at));
            let (set, remove) = changes.entry(&integration.at).or_default();
            // Under other keys the caller's own would be passed on, too.
            remove.extend(keys(integration, name).filter(|key| **key != parameter(api, name)).cloned());
            set.insert(parameter(api, name), expression.clone());
        }
    }
    for name in &leaving {
        for integration in
            api.integrations.iter().flatten().flatten().filter(|i| value(api, i, name).is_some_and(|v| is_context(v)))
        {
            changes.entry(&integration.at).or_default().1.insert(parameter(api, name));
        }
    }
    if repairs > MOST_REPAIRS && !missing.is_empty() {
        return Some(
            Verdict::blocked(
                Reason::ContestedByOther,
                format!(
                    "something else keeps taking away {}: have what manages that API (CloudFormation, Terraform, ...) set the header itself, or \
                     take it out of spec.identity; until then callers can send it themselves",
                    missing.join(", ")
                ),
            )
            .into(),
        );
    }
    let by_hand: Vec<_> = api.by_hand().collect();
    let may_deploy = api.api.protocol != Protocol::Rest || rest_deployment == RestDeployment::Allow;
    let mut actions = Vec::new();
    if !changes.is_empty() && !by_hand.is_empty() {
        tags.insert(PENDING_IDENTITY_TAG.to_owned(), deployments(&by_hand));
    }
    let arn = &api.api.arn;
    if !tags.is_empty() {
        actions.push(Action::TagApi { arn: arn.clone(), tags });
    }
    let changed = !changes.is_empty();
    actions.extend(changes.into_iter().map(|(at, (set, remove))| Action::ChangeParameters {
        api_id: id.clone(),
        at: at.clone(),
        set,
        remove,
    }));
    // What is still served without the change: all, once there is one; else those whose deployment is one from before.
    let before: BTreeSet<_> = pending.iter().flat_map(|ids| ids.split(' ')).collect();
    let behind = |stage: &&&Stage| changed || pending.is_some() && before.contains(deployment(stage));
    let undeployed: Vec<_> = by_hand.iter().filter(behind).map(|stage| stage.name.clone()).collect();
    let deployed = undeployed.is_empty() || may_deploy;
    let settled = deployed || wanted.is_empty();
    if may_deploy && !undeployed.is_empty() {
        let (protocol, api_id) = (api.api.protocol, id.clone());
        actions.push(Action::Deploy { protocol, api_id, stages: undeployed.clone() });
    }
    let mut done = Vec::new();
    if settled {
        done.extend(leaving.iter().map(|name| format!("{HEADER_TAG}{name}")));
        // Never without a header's mark beside it: nobody would know whose it is.
        if (pending.is_some() || changed && !by_hand.is_empty()) && (deployed || !others(home, api)) {
            done.push(PENDING_IDENTITY_TAG.to_owned());
        }
    }
    if !done.is_empty() {
        actions.push(Action::UntagApi { arn: arn.clone(), keys: done });
    }
    let verdict = if !foreign.is_empty() {
        Verdict::blocked(
            Reason::ForeignOwner,
            format!(
                "somebody else sets {}: it is left as it is. Take it away there, or choose another name in spec.identity",
                foreign.join(", ")
            ),
        )
    } else if !settled {
        Verdict::blocked(
            Reason::WaitingForDeployment,
            format!(
                "the headers of {id} are set, but not served: it takes a deployment to stage {}, which publishes every other pending change of \
                 {id} too. Deploy it, or set spec.restDeployment to Allow",
                undeployed.join(", ")
            ),
        )
    } else if !actions.is_empty() {
        let what = if missing.is_empty() { format!("headers of {id}") } else { missing.join(", ") };
        Verdict::Act(format!("setting {what}"))
    } else {
        Verdict::done(Reason::Programmed, "every integration of the mapped APIs passes the headers on")
    };
    Some(Judged { verdict, actions })
}

/// The integrations that headers can be mapped on.
fn covered(api: &Api) -> impl Iterator<Item = &Integration> {
    api.integrations.iter().flatten().flatten().filter(|integration| integration.takes_headers)
}

/// The request parameter that sets a header whatever the caller sends. `append:` would leave the caller's in front.
fn parameter(api: &Api, name: &str) -> String {
    match api.api.protocol {
        Protocol::Rest => format!("integration.request.header.{name}"),
        Protocol::Http | Protocol::WebSocket => format!("overwrite:header.{name}"),
    }
}

/// The request parameters about a header, however its name is written.
fn keys<'a>(integration: &'a Integration, name: &'a str) -> impl Iterator<Item = &'a String> {
    let about =
        move |key: &str| key.rsplit_once("header.").is_some_and(|(_, header)| header.eq_ignore_ascii_case(name));
    integration.parameters.keys().filter(move |key| about(key))
}

/// Whether anybody has set a header there.
fn sets(integration: &Integration, name: &str) -> bool {
    keys(integration, name).next().is_some()
}

/// The value of a header, when it is set as we set it and in no other way beside that.
fn value<'a>(api: &Api, integration: &'a Integration, name: &str) -> Option<&'a String> {
    let mut about = keys(integration, name);
    match (about.next(), about.next()) {
        (Some(key), None) if *key == parameter(api, name) => integration.parameters.get(key),
        _ => None,
    }
}

/// Where the value comes from, as an API of that kind writes it.
fn expression(protocol: Protocol, source: &str) -> String {
    match protocol {
        Protocol::Rest => format!("context.{source}"),
        Protocol::Http | Protocol::WebSocket => format!("$context.{source}"),
    }
}

fn is_context(value: &str) -> bool {
    value.trim_start_matches('$').starts_with("context.identity.clientCert.")
}

/// A stage that nothing was deployed to yet is named, too: its first deployment is another.
fn deployment(stage: &Stage) -> &str {
    if stage.deployment_id.is_empty() { "none" } else { &stage.deployment_id }
}

/// As many as the tag holds; the rest, more than twenty stages with a deployment of its own each, counts as deployed.
fn deployments(stages: &[&Stage]) -> String {
    let ids: BTreeSet<_> = stages.iter().map(|stage| deployment(stage)).collect();
    let mut all = String::new();
    for id in ids {
        if all.len() + id.len() < LONGEST_TAG {
            all += if all.is_empty() { "" } else { " " };
            all += id;
        }
    }
    all
}

#[cfg(test)]
mod tests;
