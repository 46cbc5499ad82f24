//! The step BypassClosed: no mapped API answers on its execute-api endpoint.

use std::collections::BTreeSet;

use super::{Action, Judged, PENDING_TAG, Step, Verdict};
use crate::{
    api::{DefaultEndpoint, conditions::Reason},
    domain::{
        desired::Desired,
        observed::{Api, Observed},
    },
    outside::probe,
};
pub(super) fn bypass(d: &Desired, o: &Observed, dns: &Verdict) -> Judged {
    if d.default_endpoint == DefaultEndpoint::Keep {
        return Verdict::blocked(
            Reason::KeptOpen,
            "spec.defaultEndpoint is Keep: callers without a certificate can use the execute-api endpoint",
        )
        .into();
    }
    let (mut actions, mut verdicts) = (vec![], vec![]);
    let ids: BTreeSet<_> = d.mappings.values().map(|m| &m.id).collect();
    for id in ids {
        match o.apis.get(id) {
            Some(Err(why)) => verdicts.push(Verdict::unknown(why)),
            Some(Ok(Some(api))) => {
                let judged = endpoint(api, dns);
                actions.extend(judged.actions);
                verdicts.push(judged.verdict);
            }
            None | Some(Ok(None)) => verdicts.push(Verdict::Behind(Step::ResolvedRefs)),
        }
    }
    // The worst of them speaks for the step.
    let worst = |v: &Verdict| match v {
        Verdict::Blocked(..) => 0,
        Verdict::Unknown(_) => 1,
        Verdict::Act(_) => 2,
        Verdict::Wait(..) => 3,
        Verdict::Behind(_) => 4,
        Verdict::Done(Reason::NotVerified, _) => 5,
        Verdict::Done(..) => 6,
    };
    let verdict =
        verdicts.into_iter().min_by_key(worst).unwrap_or_else(|| Verdict::done(Reason::Closed, "no API is mapped"));
    Judged { verdict, actions }
}

fn endpoint(api: &Api, dns: &Verdict) -> Judged {
    let id = &api.api.id;
    // Stages that serve what was last deployed see no change before the next deployment.
    let by_hand: Vec<_> =
        api.stages.iter().filter(|(_, s)| s.as_ref().is_some_and(|s| !s.auto_deploy)).map(|(name, _)| name).collect();
    let deploy = || {
        let deployments = by_hand.iter().map(|stage| Action::Deploy { api_id: id.clone(), stage: (*stage).clone() });
        deployments.chain([Action::UnmarkPending { api_arn: api.api.arn.clone() }])
    };
    if !api.api.endpoint_closed {
        if !dns.is_done() {
            return Verdict::Behind(Step::DnsProgrammed).into();
        }
        let mut actions = vec![];
        if !by_hand.is_empty() {
            actions.push(Action::MarkPending { api_arn: api.api.arn.clone() });
        }
        actions.push(Action::CloseEndpoint { api_id: id.clone() });
        if !by_hand.is_empty() {
            actions.extend(deploy());
        }
        return Judged::act(format!("closing the execute-api endpoint of {id}"), actions);
    }
    if api.api.tags.contains_key(PENDING_TAG) {
        return Judged::act(
            format!("deploying {id}, so that its closed endpoint becomes effective"),
            deploy().collect(),
        );
    }
    match &api.probe {
        Some(probe::Verdict::Refused(_)) => {
            Verdict::done(Reason::Closed, "every mapped API refuses callers on its execute-api endpoint")
        }
        Some(probe::Verdict::Answered(status)) => Verdict::wait(
            Reason::StillAnswering,
            format!("the execute-api endpoint of {id} is set to be closed, but still answers with status {status}"),
        ),
        Some(probe::Verdict::Unreachable(why)) => Verdict::done(
            Reason::NotVerified,
            format!("the execute-api endpoint of {id} is set to be closed; not verified: {why}"),
        ),
        None => Verdict::done(
            Reason::NotVerified,
            format!("the execute-api endpoint of {id} is set to be closed; not verified"),
        ),
    }
    .into()
}
