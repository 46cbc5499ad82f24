//! The step MappingsProgrammed: each mapping of the spec exists, and no other mapping that should not exist.

use super::{
    apis::unsupported,
    custom_domain::{keeps_unlisted, ours},
    identity,
};

use crate::{
    api::conditions::Reason,
    aws::{action::ApiGatewayAction, gateway::mappings::Mapping},
    model::{
        desired::Desired,
        observed::{Api, Observed},
        step::{Actions, Step, StepPlan, StepState},
    },
};

pub(crate) fn mappings(d: &Desired, o: &Observed) -> StepPlan {
    let g = match ours(&d.placement, &o.domain) {
        Err(state) => return state.into(),
        Ok(g) => g,
    };
    let there = match &o.mappings {
        Err(why) => return StepState::unknown(why).into(),
        Ok(there) => there,
    };
    let (mut actions, mut missing, mut unseen) = (vec![], vec![], None);
    // The operator finds an API with its headers only over the mapping, so that the mapping stays until the
    // headers are removed.
    let held = |m: &Mapping| {
        let listed = d.mappings.values().any(|mapped| mapped.id == m.api_id);
        !listed
            && o.apis
                .get(&m.api_id)
                .is_some_and(|api| identity::holds(&d.placement, api))
    };
    let mut holding = false;
    let unlisted: Vec<_> = there
        .iter()
        .filter(|m| !d.mappings.contains_key(&m.path))
        .collect();
    if !keeps_unlisted(&d.placement, g) {
        let (stay, go): (Vec<&Mapping>, Vec<&Mapping>) = unlisted.iter().partition(|m| held(m));
        holding |= !stay.is_empty();
        actions.extend(go.iter().map(|m| ApiGatewayAction::DeleteMapping {
            id: m.id.clone(),
            path: m.path.clone(),
        }));
    }
    for (path, mapped) in &d.mappings {
        let existing = there.iter().find(|m| m.path == *path);
        if existing.is_some_and(|m| m.api_id == mapped.id && m.stage == mapped.stage) {
            continue;
        }
        if existing.is_some_and(held) {
            holding = true;
            continue;
        }
        match o.apis.get(&mapped.id) {
            Some(Err(why)) => unseen = Some(why),
            Some(Ok(Some(api))) if serves(api, &mapped.stage) => {
                let (path, api_id, stage) = (path.clone(), mapped.id.clone(), mapped.stage.clone());
                actions.push(match existing {
                    None => ApiGatewayAction::CreateMapping { path, api_id, stage },
                    Some(m) => ApiGatewayAction::UpdateMapping {
                        id: m.id.clone(),
                        path,
                        api_id,
                        stage,
                    },
                });
            }
            _ => missing.push(format!("{path:?} ({}/{})", mapped.id, mapped.stage)),
        }
    }
    if !missing.is_empty() {
        return StepState::blocked(
            Reason::RefNotFound,
            format!(
                "these mappings wait for their API or stage, the others are served: {}",
                missing.join(", ")
            ),
        )
        .with(actions);
    }
    if let Some(why) = unseen {
        return StepState::unknown(why).with(actions);
    }
    if let Some(actions) = Actions::of(actions) {
        return StepPlan::in_progress(
            format!("writing the API mappings of {}", d.placement.domain_name),
            actions,
        );
    }
    if holding {
        StepState::WaitingFor(Step::IdentityPropagated).into()
    } else if !unlisted.is_empty() {
        let kept: Vec<_> = unlisted.iter().map(|m| format!("{:?}", m.path)).collect();
        StepPlan::done(
            Reason::Programmed,
            format!("all mappings are there; kept unlisted: {}", kept.join(", ")),
        )
    } else {
        StepPlan::done(Reason::Programmed, "all mappings are there, and no others")
    }
}

fn serves(api: &Api, stage: &str) -> bool {
    unsupported(&api.api).is_none() && api.stages.get(stage).is_some_and(Option::is_some)
}
