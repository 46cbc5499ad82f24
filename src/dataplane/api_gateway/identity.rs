//! The step IdentityPropagated: every integration of every mapped API passes on the caller's identity, under
//! the headers of the spec; an authorizer authorizes callers where the spec has one; and the operator removes
//! its headers and authorizers that the spec no longer has. Before the operator sets a header or an
//! authorizer, it tags the API, with one tag per header ([`HEADER_TAG`]) and one for the authorizer
//! ([`AUTHORIZER_TAG`]); it removes the tag last. It does not change a header of another writer. Where a
//! change needs a deployment, another tag ([`PENDING_IDENTITY_TAG`]) holds the deployments without the
//! change, so that the next deployment by any user counts.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    apis::unsupported,
    authorizer::{self, AUTHORIZER_TAG},
    contention::MAX_CORRECTIONS,
    custom_domain,
    deployments::{PENDING_IDENTITY_TAG, deployment, deployments},
    ownership::{HEADER_TAG, has_authorizer, has_ownership_tag, others, ours},
    parameters::parameters,
};

use crate::{
    api::{RestDeployment, conditions::Reason},
    aws::{
        action::api_gateway::ApiGatewayAction,
        gateway::apis::{Protocol, Stage},
    },
    model::{
        action::Action,
        desired::{AUTHORIZER_SOURCE, Desired, DesiredAuthorizer},
        observed::{Api, Observed},
        placement::Placement,
        step::{Actions, Step, StepPlan, StepState},
    },
    observation::seen::Seen,
};

/// Desired headers and authorizer of an API; none for an API without a mapping.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
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

/// Returns the step plan; `None` when the spec has no identity and the operator has nothing left to remove.
pub(crate) fn identity(d: &Desired, o: &Observed) -> Option<StepPlan> {
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
        return (!asked.is_nothing()).then(|| StepPlan::done(Reason::Programmed, nothing));
    }
    if custom_domain::is_barred(d, o) {
        return Some(StepState::WaitingFor(Step::DomainProgrammed).into());
    }
    let mut step_plan = StepPlan::of_all(all)?;
    if let StepPlan::Done(_, message) | StepPlan::Correcting(_, message, _) = &mut step_plan {
        remarks
            .iter()
            .for_each(|remark| *message += &format!("; {remark}"));
    }
    Some(step_plan)
}

/// Returns the step plan that removes the operator's headers and ownership tags from an API; `None` when
/// there are none, or the API no longer exists.
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

/// Returns the action that removes the ownership tags from an API whose headers stay as they are.
pub fn untagging(placement: &Placement, api: &Api) -> Option<ApiGatewayAction> {
    let mut keys: Vec<_> = ours(placement, api)
        .map(|name| format!("{HEADER_TAG}{name}"))
        .collect();
    keys.extend(has_authorizer(placement, &api.api.tags).then(|| AUTHORIZER_TAG.to_owned()));
    if keys.is_empty() {
        return None;
    }
    let is_pending = api.api.tags.contains_key(PENDING_IDENTITY_TAG) && !others(placement, api);
    keys.extend(is_pending.then(|| PENDING_IDENTITY_TAG.to_owned()));
    Some(ApiGatewayAction::UntagApi {
        arn: api.api.arn.clone(),
        keys,
    })
}

/// True when a mapping to the API has to stay, because the operator has to remove its headers first.
pub(crate) fn holds(placement: &Placement, api: &Seen<Option<Api>>) -> bool {
    match api {
        Err(_) => true,
        Ok(api) => api
            .as_ref()
            .is_some_and(|api| has_ownership_tag(placement, &api.api.tags)),
    }
}

/// Returns the step plan of one API. `remarks` receives remarks about an API in the desired state too.
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
                    "another writer keeps removing {}: set it in the tool that manages that API \
                     (CloudFormation, Terraform, ...), or remove it from spec.identity; until then callers \
                     can send such headers themselves",
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
        let tag = ApiGatewayAction::TagApi {
            arn: arn.clone(),
            tags,
        };
        actions.push(Action::from(tag));
    }
    actions.extend(authorizer.first);
    actions.extend(authorizer.routes);
    actions.extend(parameters.actions.into_iter().map(Action::from));
    // Stages without the change: all stages after a change; otherwise the stages with an earlier deployment.
    let pending = api.api.tags.get(PENDING_IDENTITY_TAG);
    let before: BTreeSet<_> = pending.iter().flat_map(|ids| ids.split(' ')).collect();
    let behind = |stage: &&&Stage| changed || pending.is_some() && before.contains(deployment(stage));
    let undeployed: Vec<_> = by_hand
        .iter()
        .filter(behind)
        .map(|stage| stage.name.clone())
        .collect();
    let deployed = undeployed.is_empty() || may_deploy;
    // Headers that the spec no longer has do no harm until the next deployment. A deleted authorizer would.
    let settled = deployed || wanted.is_nothing() && !is_ours;
    if may_deploy && !undeployed.is_empty() {
        let (protocol, api_id) = (api.api.protocol, id.clone());
        let stages = undeployed.clone();
        let deploy = ApiGatewayAction::Deploy {
            protocol,
            api_id,
            stages,
        };
        actions.push(deploy.into());
    }
    let mut done = Vec::new();
    if settled {
        actions.extend(authorizer.last);
        done.extend(leaving.iter().map(|name| format!("{HEADER_TAG}{name}")));
        done.extend(authorizer.untag);
        // The pending tag never stays without an ownership tag: its owner would be unknown.
        if (pending.is_some() || changed && !by_hand.is_empty()) && (deployed || !others(placement, api)) {
            done.push(PENDING_IDENTITY_TAG.to_owned());
        }
    }
    if !done.is_empty() {
        let untag = ApiGatewayAction::UntagApi {
            arn: arn.clone(),
            keys: done,
        };
        actions.push(untag.into());
    }
    let from_authorizer = headers
        .values()
        .any(|source| source.starts_with(AUTHORIZER_SOURCE));
    let blocked = if let Some((reason, problem)) = authorizer.problem {
        Some(StepState::blocked(reason, problem))
    } else if !parameters.not_owned.is_empty() {
        Some(StepState::blocked(
            Reason::ForeignOwner,
            format!(
                "another writer sets {}: the operator does not change it. Remove it there, or choose another \
                 name in spec.identity",
                parameters.not_owned.join(", ")
            ),
        ))
    } else if from_authorizer && !authorizer.others.is_empty() {
        Some(StepState::blocked(
            Reason::ForeignOwner,
            format!(
                "{}: another authorization is there and the operator does not change it, so that the \
                 authorizer of spec.identity is not used. Remove that authorization, or the headers with \
                 authorizerKey",
                authorizer.others.join(", ")
            ),
        ))
    } else if !settled {
        let what = if wanted.is_nothing() {
            "removed from"
        } else {
            "set on"
        };
        Some(StepState::blocked(
            Reason::WaitingForDeployment,
            format!(
                "spec.identity is {what} {id}, but not in effect: it takes a deployment to stage {}, which \
                 publishes every other pending change of {id} too. Deploy it, or set spec.restDeployment to \
                 Allow",
                undeployed.join(", ")
            ),
        ))
    } else {
        None
    };
    let at = |what: &[String]| what.join(", ");
    let others = Some(&authorizer.others).filter(|others| !others.is_empty());
    let untagged = Some(&parameters.untagged).filter(|untagged| !untagged.is_empty());
    remarks.extend(others.map(|others| {
        format!(
            "the operator does not change the other authorization of {}",
            at(others)
        )
    }));
    remarks.extend(untagged.map(|untagged| {
        format!(
            "without the ownership tag (the tag {HEADER_TAG}...), so that it stays after its removal from \
             the spec: {}",
            at(untagged)
        )
    }));
    if let Some(state) = blocked {
        return Some(state.with(actions));
    }
    Some(match Actions::of(actions) {
        Some(actions) => {
            let what = if missing.is_empty() {
                format!("headers of {id}")
            } else {
                missing.join(", ")
            };
            StepPlan::in_progress(format!("setting {what}"), actions)
        }
        None => StepPlan::done(
            Reason::Programmed,
            "every integration of the mapped APIs that takes headers passes them on",
        ),
    })
}

#[cfg(test)]
pub(crate) mod tests;
