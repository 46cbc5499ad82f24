//! The step IdentityPropagated: every integration of every mapped API passes on who called, under the headers
//! of the spec, an authorizer is asked where the spec has one, and nothing of it stays where the spec does
//! not want it any more. What we set is marked on the API by one tag per header ([`HEADER_TAG`]) and one for
//! the authorizer ([`AUTHORIZER_TAG`]) before it is set, and the tag goes after it; a header that somebody
//! else set is left as it is. Where a change takes a deployment to become effective, another tag
//! ([`PENDING_IDENTITY_TAG`]) remembers which deployments do not have it yet, so that anybody's next
//! deployment counts.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Step, StepPlan, StepState, authorizer, custom_domain, references::unsupported};
use crate::{
    api::{RestDeployment, conditions::Reason},
    aws::gateway::{Authorization, Integration, Place, Protocol, Stage},
    domain::{
        desired::{AUTHORIZER_SOURCE, Desired, DesiredAuthorizer, Placement},
        observed::{Api, Observed, Seen},
    },
};

/// On an API, before the name of a header that we set there; the value is the ownership tag.
pub const HEADER_TAG: &str = "mtls-operator.io/header.";
/// On an API, before an authorizer of ours is made there; the value is the ownership tag.
pub const AUTHORIZER_TAG: &str = "mtls-operator.io/authorizer";
/// On an API between a change of its headers and its deployment: the ids of the deployments that the mapped
/// stages had before.
pub const PENDING_IDENTITY_TAG: &str = "mtls-operator.io/pending-identity";
/// The longest value of a tag. Source: API Gateway Developer Guide, "Tag restrictions".
const LONGEST_TAG: usize = 256;
/// How often headers of one API are restored before somebody has to find out who takes them away.
pub const MAX_CORRECTIONS: u32 = 3;

/// What an API is to have; of one that is not mapped nothing.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    headers: &'a BTreeMap<String, String>,
    authorizer: Option<&'a DesiredAuthorizer>,
}

impl Wanted<'_> {
    const NOTHING: Wanted<'static> = Wanted {
        headers: &BTreeMap::new(),
        authorizer: None,
    };

    fn is_nothing(&self) -> bool {
        self.headers.is_empty() && self.authorizer.is_none()
    }
}

/// A header in place: the API, the integration and the header's name. Or an authorizer: the API, the route
/// and the authorizer's id.
pub type InPlace = BTreeSet<(String, Place, String)>;

/// `None`: nothing is asked for, and nothing is left to take away.
pub(super) fn identity(d: &Desired, o: &Observed) -> Option<StepPlan> {
    let (mut all, mut remarks): (Vec<StepPlan>, Vec<String>) = Default::default();
    let asked = Wanted {
        headers: &d.identity,
        authorizer: d.authorizer.as_ref(),
    };
    for (id, api) in &o.apis {
        let mapped = d.mappings.values().any(|m| m.id == *id);
        let wanted = if mapped { asked } else { Wanted::NOTHING };
        match api {
            Err(why) if !wanted.is_nothing() => all.push(StepState::unknown(why).into()),
            Ok(Some(api)) if unsupported(&api.api).is_none() => {
                let corrections = o.corrections.get(id).copied().unwrap_or_default();
                all.extend(of_api(
                    &d.placement,
                    api,
                    &wanted,
                    d.rest_deployment,
                    corrections,
                    &mut remarks,
                ));
            }
            _ if !wanted.is_nothing() => all.push(StepState::WaitingFor(Step::ResolvedRefs).into()),
            _ => {}
        }
    }
    if all.is_empty() {
        let nothing = "no API is mapped";
        return (!asked.is_nothing()).then(|| StepState::done(Reason::Programmed, nothing).into());
    }
    if custom_domain::is_barred(d, o) {
        return Some(StepState::WaitingFor(Step::DomainProgrammed).into());
    }
    let mut step_plan = StepPlan::of_all(all)?;
    if let StepState::Done(_, message) = &mut step_plan.state {
        remarks
            .iter()
            .for_each(|remark| *message += &format!("; {remark}"));
    }
    Some(step_plan)
}

/// What takes our headers out of an API again that is to have none, and our ownership tags off; `None`: there
/// are none, or the API is gone.
pub fn removal(
    placement: &Placement,
    api: &Seen<Option<Api>>,
    rest_deployment: RestDeployment,
) -> Option<StepPlan> {
    match api {
        Err(why) => Some(StepState::unknown(why).into()),
        Ok(None) => None,
        Ok(Some(api)) => of_api(placement, api, &Wanted::NOTHING, rest_deployment, 0, &mut vec![]),
    }
}

/// What takes our ownership tags off an API whose headers stay as they are.
pub fn untagging(placement: &Placement, api: &Api) -> Option<Action> {
    let mut keys: Vec<_> = ours(placement, api)
        .map(|name| format!("{HEADER_TAG}{name}"))
        .collect();
    keys.extend(has_authorizer(placement, &api.api.tags).then(|| AUTHORIZER_TAG.to_owned()));
    if keys.is_empty() {
        return None;
    }
    let is_pending = api.api.tags.contains_key(PENDING_IDENTITY_TAG) && !others(placement, api);
    keys.extend(is_pending.then(|| PENDING_IDENTITY_TAG.to_owned()));
    Some(Action::UntagApi {
        arn: api.api.arn.clone(),
        keys,
    })
}

/// Whether a mapping to it has to stay, because what is ours has to be taken out of it first.
pub(super) fn holds(placement: &Placement, api: &Seen<Option<Api>>) -> bool {
    match api {
        Err(_) => true,
        Ok(api) => api
            .as_ref()
            .is_some_and(|api| has_ownership_tag(placement, &api.api.tags)),
    }
}

/// The headers that are in place, whether or not their mark is, and the authorizers that are ours and asked.
pub fn in_place(d: &Desired, o: &Observed) -> InPlace {
    let mut all = InPlace::new();
    for (id, api) in o
        .apis
        .iter()
        .filter_map(|(id, api)| Some((id, api.as_ref().ok()?.as_ref()?)))
    {
        for (name, source) in &d.identity {
            let expression = expression(api.api.protocol, source);
            let there = covered(api).filter(|i| value(api, i, name) == Some(&expression));
            all.extend(there.map(|i| (id.clone(), i.at.clone(), name.clone())));
        }
        for there in api.authorizers.iter().flatten() {
            let is_ours = |asked: &String| {
                there
                    .all
                    .iter()
                    .any(|a| a.id == *asked && authorizer::is_ours(&d.placement, a))
            };
            all.extend(
                there
                    .routes
                    .iter()
                    .filter_map(|route| match &route.authorization {
                        Authorization::Authorizer(asked) if is_ours(asked) => {
                            Some((id.clone(), route.at.clone(), asked.clone()))
                        }
                        _ => None,
                    }),
            );
        }
    }
    all
}

/// The names of the headers that we marked as ours.
fn ours<'a>(placement: &'a Placement, api: &'a Api) -> impl Iterator<Item = &'a str> {
    ownership_tags(api)
        .filter(|(_, owner)| **owner == placement.owner)
        .map(|(name, _)| name)
}

fn ownership_tags(api: &Api) -> impl Iterator<Item = (&str, &String)> {
    api.api
        .tags
        .iter()
        .filter_map(|(key, owner)| Some((key.strip_prefix(HEADER_TAG)?, owner)))
}

/// Whether somebody else has headers or an authorizer there, who still has to know what is not deployed.
fn others(placement: &Placement, api: &Api) -> bool {
    api.api
        .tags
        .iter()
        .any(|(key, owner)| is_ownership_tag(key) && *owner != placement.owner)
}

/// Whether a header or an authorizer there is this owner's.
pub fn has_ownership_tag(placement: &Placement, tags: &BTreeMap<String, String>) -> bool {
    tags.iter()
        .any(|(key, owner)| is_ownership_tag(key) && *owner == placement.owner)
}

/// Whether an authorizer of this owner's is there, or was to be made.
pub fn has_authorizer(placement: &Placement, tags: &BTreeMap<String, String>) -> bool {
    tags.get(AUTHORIZER_TAG) == Some(&placement.owner)
}

fn is_ownership_tag(key: &str) -> bool {
    key.starts_with(HEADER_TAG) || key == AUTHORIZER_TAG
}

/// `remarks` are told of an API even where all is as it should be.
fn of_api(
    placement: &Placement,
    api: &Api,
    wanted: &Wanted,
    rest_deployment: RestDeployment,
    corrections: u32,
    remarks: &mut Vec<String>,
) -> Option<StepPlan> {
    let id = &api.api.id;
    let headers = wanted.headers;
    let leaving: Vec<_> = ours(placement, api)
        .filter(|name| !headers.contains_key(*name))
        .map(str::to_owned)
        .collect();
    let is_ours = has_authorizer(placement, &api.api.tags);
    if wanted.is_nothing() && leaving.is_empty() && !is_ours {
        return None;
    }
    let authorizer = match (&api.integrations, &api.authorizers) {
        (Some(Err(why)), _) | (_, Some(Err(why))) => return Some(StepState::unknown(why).into()),
        (_, Some(Ok(there))) => authorizer::changes(placement, api, there, wanted.authorizer),
        (_, None) => authorizer::Changes::default(),
    };
    let parameters = parameters(placement, api, headers, &leaving);
    let (mut tags, mut missing) = (parameters.tags, parameters.missing);
    tags.extend(authorizer.tags);
    missing.extend(authorizer.missing);
    if corrections > MAX_CORRECTIONS && !missing.is_empty() {
        return Some(
            StepState::blocked(
                Reason::ContestedByOther,
                format!(
                    "something else keeps taking away {}: have what manages that API (CloudFormation, \
                     Terraform, ...) set it itself, or \
                     take it out of spec.identity; until then callers can send such headers themselves",
                    missing.join(", ")
                ),
            )
            .into(),
        );
    }
    let by_hand: Vec<_> = api.by_hand().collect();
    let may_deploy = api.api.protocol != Protocol::Rest || rest_deployment == RestDeployment::Allow;
    let changed = !parameters.actions.is_empty() || !authorizer.routes.is_empty();
    if changed && !by_hand.is_empty() {
        tags.insert(PENDING_IDENTITY_TAG.to_owned(), deployments(&by_hand));
    }
    let arn = &api.api.arn;
    let mut actions = Vec::new();
    if !tags.is_empty() {
        actions.push(Action::TagApi {
            arn: arn.clone(),
            tags,
        });
    }
    actions.extend(authorizer.first);
    actions.extend(authorizer.routes);
    actions.extend(parameters.actions);
    // What is still served without the change: all, once there is one; else those whose deployment is one
    // from before.
    let pending = api.api.tags.get(PENDING_IDENTITY_TAG);
    let before: BTreeSet<_> = pending.iter().flat_map(|ids| ids.split(' ')).collect();
    let behind = |stage: &&&Stage| changed || pending.is_some() && before.contains(deployment(stage));
    let undeployed: Vec<_> = by_hand
        .iter()
        .filter(behind)
        .map(|stage| stage.name.clone())
        .collect();
    let deployed = undeployed.is_empty() || may_deploy;
    // Headers that nobody asks for any more do no harm until somebody deploys. An authorizer that is gone
    // would.
    let settled = deployed || wanted.is_nothing() && !is_ours;
    if may_deploy && !undeployed.is_empty() {
        let (protocol, api_id) = (api.api.protocol, id.clone());
        actions.push(Action::Deploy {
            protocol,
            api_id,
            stages: undeployed.clone(),
        });
    }
    let mut done = Vec::new();
    if settled {
        actions.extend(authorizer.last);
        done.extend(leaving.iter().map(|name| format!("{HEADER_TAG}{name}")));
        done.extend(authorizer.untag);
        // Never without another mark beside it: nobody would know whose it is.
        if (pending.is_some() || changed && !by_hand.is_empty()) && (deployed || !others(placement, api)) {
            done.push(PENDING_IDENTITY_TAG.to_owned());
        }
    }
    if !done.is_empty() {
        actions.push(Action::UntagApi {
            arn: arn.clone(),
            keys: done,
        });
    }
    let from_authorizer = headers
        .values()
        .any(|source| source.starts_with(AUTHORIZER_SOURCE));
    let state = if let Some((reason, problem)) = authorizer.problem {
        StepState::blocked(reason, problem)
    } else if !parameters.not_owned.is_empty() {
        StepState::blocked(
            Reason::ForeignOwner,
            format!(
                "somebody else sets {}: it is left as it is. Take it away there, or choose another name in \
                 spec.identity",
                parameters.not_owned.join(", ")
            ),
        )
    } else if from_authorizer && !authorizer.others.is_empty() {
        StepState::blocked(
            Reason::ForeignOwner,
            format!(
                "{}: another authorization is there and is left as it is, so that the authorizer of \
                 spec.identity is not asked. Take that one \
                 away, or the headers with authorizerKey",
                authorizer.others.join(", ")
            ),
        )
    } else if !settled {
        let what = if wanted.is_nothing() { "taken out" } else { "set" };
        StepState::blocked(
            Reason::WaitingForDeployment,
            format!(
                "what {id} has of spec.identity is {what}, but not served so: it takes a deployment to stage \
                 {}, which publishes every other \
                 pending change of {id} too. Deploy it, or set spec.restDeployment to Allow",
                undeployed.join(", ")
            ),
        )
    } else if !actions.is_empty() {
        let what = if missing.is_empty() {
            format!("headers of {id}")
        } else {
            missing.join(", ")
        };
        StepState::InProgress(format!("setting {what}"))
    } else {
        StepState::done(
            Reason::Programmed,
            "every integration of the mapped APIs that takes headers passes them on",
        )
    };
    let at = |what: &[String]| what.join(", ");
    let others = Some(&authorizer.others).filter(|others| !others.is_empty());
    let untagged = Some(&parameters.untagged).filter(|untagged| !untagged.is_empty());
    remarks.extend(others.map(|others| format!("another authorization is left as it is on {}", at(others))));
    remarks.extend(untagged.map(|untagged| {
        format!(
            "without the ownership tag (the tag {HEADER_TAG}...), so that it stays when nobody asks for it \
             any more: {}",
            at(untagged)
        )
    }));
    Some(StepPlan { state, actions })
}

/// The changes of one API's integrations.
#[derive(Default)]
struct Parameters {
    /// Before anything else.
    tags: BTreeMap<String, String>,
    actions: Vec<Action>,
    missing: Vec<String>,
    /// Headers that somebody else sets.
    not_owned: Vec<String>,
    /// Headers that are as they should be and not marked as ours.
    untagged: Vec<String>,
}

fn parameters(
    placement: &Placement,
    api: &Api,
    headers: &BTreeMap<String, String>,
    leaving: &[String],
) -> Parameters {
    let id = &api.api.id;
    let mut p = Parameters::default();
    let mut changes: BTreeMap<&Place, (BTreeMap<String, String>, BTreeSet<String>)> = BTreeMap::new();
    for (name, source) in headers {
        let expression = expression(api.api.protocol, source);
        let tag = ownership_tags(api)
            .find(|(tagged, _)| tagged == name)
            .map(|(_, owner)| owner);
        let wrong: Vec<_> = covered(api)
            .filter(|i| value(api, i, name) != Some(&expression))
            .collect();
        let is_ours = tag == Some(&placement.owner);
        let theirs = wrong
            .iter()
            .find(|i| !is_ours && (tag.is_some() || sets(i, name)));
        if let Some(there) = theirs {
            p.not_owned.push(format!("{name} at {} of {id}", there.at));
            continue;
        }
        if wrong.is_empty() {
            // Whether we set it or somebody else, nobody can tell.
            if !is_ours && covered(api).next().is_some() {
                p.untagged.push(format!("{name} of {id}"));
            }
            continue;
        }
        if !is_ours {
            p.tags
                .insert(format!("{HEADER_TAG}{name}"), placement.owner.clone());
        }
        for integration in wrong {
            p.missing.push(format!("{name} at {} of {id}", integration.at));
            let (set, remove) = changes.entry(&integration.at).or_default();
            // Under other keys the caller's own would be passed on, too.
            remove.extend(
                keys(integration, name)
                    .filter(|key| **key != parameter(api, name))
                    .cloned(),
            );
            set.insert(parameter(api, name), expression.clone());
        }
    }
    for name in leaving {
        for integration in api
            .integrations
            .iter()
            .flatten()
            .flatten()
            .filter(|i| value(api, i, name).is_some_and(|v| is_context(v)))
        {
            changes
                .entry(&integration.at)
                .or_default()
                .1
                .insert(parameter(api, name));
        }
    }
    for integration in api.integrations.iter().flatten().flatten() {
        let Some((set, remove)) = changes.remove(&integration.at) else {
            continue;
        };
        let others = integration
            .parameters
            .iter()
            .filter(|(key, _)| !set.contains_key(*key) && !remove.contains(*key));
        let others = others.map(|(key, value)| (key.clone(), value.clone())).collect();
        let (api_id, at) = (id.clone(), integration.at.clone());
        p.actions.push(Action::ChangeParameters {
            api_id,
            at,
            set,
            remove,
            others,
        });
    }
    p
}

/// The integrations that headers can be mapped on.
fn covered(api: &Api) -> impl Iterator<Item = &Integration> {
    api.integrations
        .iter()
        .flatten()
        .flatten()
        .filter(|integration| integration.takes_headers)
}

/// The request parameter that sets a header whatever the caller sends. `append:` would leave the caller's in
/// front.
fn parameter(api: &Api, name: &str) -> String {
    match api.api.protocol {
        Protocol::Rest => format!("integration.request.header.{name}"),
        Protocol::Http | Protocol::WebSocket => format!("overwrite:header.{name}"),
    }
}

/// The request parameters about a header, however its name is written.
fn keys<'a>(integration: &'a Integration, name: &'a str) -> impl Iterator<Item = &'a String> {
    let about = move |key: &str| {
        key.rsplit_once("header.")
            .is_some_and(|(_, header)| header.eq_ignore_ascii_case(name))
    };
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
    let value = value.trim_start_matches('$');
    ["context.identity.clientCert.", "context.authorizer."]
        .iter()
        .any(|source| value.starts_with(source))
}

/// A stage that nothing was deployed to yet is named, too: its first deployment is another.
fn deployment(stage: &Stage) -> &str {
    if stage.deployment_id.is_empty() {
        "none"
    } else {
        &stage.deployment_id
    }
}

/// As many as the tag holds; the rest, more than twenty stages with a deployment of its own each, counts as
/// deployed.
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
