//! The step BypassClosed: no mapped API answers on its execute-api endpoint. The flag of the API says that
//! the endpoint should be disabled; the response of the endpoint shows whether it is disabled. A deployment
//! makes the flag effective; with REST APIs any change of a stage does. The only state is a tag of the API
//! ([`PENDING_TAG`]), from which the next reconcile continues.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::apis::unsupported;

use crate::{
    api::{DefaultEndpoint, RestDeployment, conditions::Reason},
    aws::{
        action::ApiGatewayAction,
        gateway::apis::Protocol,
        tags::{DEPLOYED, PENDING_TAG},
    },
    model::{
        desired::Desired,
        observed::{Api, Observed},
        step::{Actions, Step, StepPlan, StepState},
    },
    probe::https,
};

/// Maximum time until a change of a stage takes effect at the endpoint. An estimate: AWS documents no time.
const TAKES_EFFECT: SignedDuration = SignedDuration::from_mins(1);

pub(crate) fn bypass(d: &Desired, o: &Observed, dns: &StepPlan, now: Timestamp) -> StepPlan {
    if d.default_endpoint == DefaultEndpoint::Keep {
        return StepState::blocked(
            Reason::KeptOpen,
            "spec.defaultEndpoint is Keep: callers without a certificate can use the execute-api endpoint",
        )
        .into();
    }
    let ids: BTreeSet<_> = d.mappings.values().map(|m| &m.id).collect();
    let step_plan = ids.into_iter().map(|id| match o.apis.get(id) {
        Some(Err(why)) => StepState::unknown(why).into(),
        Some(Ok(Some(api))) if unsupported(&api.api).is_none() => endpoint(api, d.rest_deployment, dns, now),
        None | Some(Ok(_)) => StepState::WaitingFor(Step::ResolvedRefs).into(),
    });
    StepPlan::of_all(step_plan.collect())
        .unwrap_or_else(|| StepPlan::done(Reason::Closed, "no API is mapped"))
}

fn endpoint(api: &Api, rest_deployment: RestDeployment, dns: &StepPlan, now: Timestamp) -> StepPlan {
    let id = &api.api.id;
    let tag_pending = ApiGatewayAction::TagPending {
        api_arn: api.api.arn.clone(),
    };
    if !api.api.endpoint_closed {
        if !dns.is_done() {
            return StepState::WaitingFor(Step::DnsProgrammed).into();
        }
        let close = Actions::from(ApiGatewayAction::CloseEndpoint {
            protocol: api.api.protocol,
            api_id: id.clone(),
        });
        let actions = if takes_two(api) {
            close.after([tag_pending]).then(publish(api, rest_deployment))
        } else {
            close
        };
        return StepPlan::in_progress(format!("closing the execute-api endpoint of {id}"), actions);
    }
    let tag = api.api.tags.get(PENDING_TAG);
    let deployed = tag.is_some_and(|tag| tag == DEPLOYED);
    if tag.is_some() && !deployed {
        return match Actions::of(publish(api, rest_deployment)) {
            None => StepState::WaitingFor(Step::ResolvedRefs).into(),
            Some(actions) => {
                StepPlan::in_progress(format!("making the closed endpoint of {id} effective"), actions)
            }
        };
    }
    let untag = || match deployed {
        true => vec![ApiGatewayAction::UntagPending {
            api_arn: api.api.arn.clone(),
        }],
        false => vec![],
    };
    let fresh = api.there().any(|stage| {
        stage
            .updated_at
            .is_some_and(|at| now.duration_since(at) < TAKES_EFFECT)
    });
    match &api.probe {
        Some(https::ProbeResult::Refused(_)) => StepPlan::done(
            Reason::Closed,
            "every mapped API refuses callers on its execute-api endpoint",
        )
        .then(untag()),
        Some(https::ProbeResult::Answered(status)) => {
            let still = format!(
                "the execute-api endpoint of {id} is set to be closed, but still answers with status {status}"
            );
            match rest_deployment {
                _ if deployed || api.api.protocol != Protocol::Rest => {
                    StepState::wait(Reason::StillAnswering, still).into()
                }
                _ if !dns.is_done() => StepState::WaitingFor(Step::DnsProgrammed).into(),
                RestDeployment::Allow if fresh => StepState::wait(Reason::StillAnswering, still).into(),
                RestDeployment::Allow => StepPlan::in_progress(
                    format!("deploying {id}, so that its closed endpoint becomes effective"),
                    Actions::from(tag_pending).then(publish(api, rest_deployment)),
                ),
                RestDeployment::Never => {
                    let stages: Vec<_> = api.there().map(|stage| stage.name.as_str()).collect();
                    let missing = format!(
                        "{still}: it takes a deployment to stage {}, which publishes every other pending \
                         change of {id} too. Deploy it, or set spec.restDeployment to Allow",
                        stages.join(", ")
                    );
                    let state = if fresh {
                        StepState::Wait
                    } else {
                        StepState::Blocked
                    };
                    state(Reason::WaitingForDeployment, missing).into()
                }
            }
        }
        unseen => {
            let why = match unseen {
                Some(https::ProbeResult::Unreachable(why)) => format!(": {why}"),
                _ => String::new(),
            };
            // The tag stays after the first failed probe after a deployment: an answer at the next probe must
            // not cause another deployment.
            StepPlan::done(
                Reason::NotVerified,
                format!("the execute-api endpoint of {id} is set to be closed; not verified{why}"),
            )
            .then(if fresh { vec![] } else { untag() })
        }
    }
}

/// True when the flag needs a second call to take effect: not with a stage that deploys automatically.
fn takes_two(api: &Api) -> bool {
    api.api.protocol == Protocol::Rest || api.by_hand().next().is_some()
}

/// Returns the actions that make the flag effective and then update the tag; none while no stage exists for
/// them.
fn publish(api: &Api, rest_deployment: RestDeployment) -> Vec<ApiGatewayAction> {
    let (id, arn, protocol) = (&api.api.id, &api.api.arn, api.api.protocol);
    let untag = ApiGatewayAction::UntagPending { api_arn: arn.clone() };
    let deploy = || {
        let stages = api.by_hand().map(|stage| stage.name.clone()).collect();
        ApiGatewayAction::Deploy {
            protocol,
            api_id: id.clone(),
            stages,
        }
    };
    match (protocol, api.by_hand().next()) {
        (Protocol::Rest, None) => vec![],
        (Protocol::Rest, Some(stage)) if rest_deployment == RestDeployment::Never => {
            let (api_id, tracing, stage) = (id.clone(), stage.tracing, stage.name.clone());
            vec![
                ApiGatewayAction::TouchStage {
                    api_id,
                    stage,
                    tracing,
                },
                untag,
            ]
        }
        (Protocol::Rest, Some(_)) => vec![deploy(), ApiGatewayAction::TagDeployed { api_arn: arn.clone() }],
        (_, Some(_)) => vec![deploy(), untag],
        (_, None) => vec![untag],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use RestDeployment::{Allow, Never};
    use jiff::{SignedDuration, Timestamp};

    use crate::{
        api::{RestDeployment, conditions::Reason},
        aws::{
            gateway::apis::{self, Protocol},
            tags::{DEPLOYED, PENDING_TAG},
        },
        model::{observed::Api, step::StepState},
        probe::https,
    };

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    /// Returns a REST API with the stage prod, which was touched `ago` seconds ago.
    fn rest(closed: bool, tag: Option<&str>, probe: Option<https::ProbeResult>, ago: i64) -> Api {
        let stage = apis::Stage {
            name: "prod".into(),
            auto_deploy: false,
            tracing: true,
            deployment_id: "d1".into(),
            updated_at: Some(NOW - SignedDuration::from_secs(ago)),
        };
        Api {
            api: apis::Api {
                id: "r1".into(),
                arn: "arn:r1".into(),
                protocol: Protocol::Rest,
                private: false,
                endpoint_closed: closed,
                tags: tag
                    .map(|tag| (PENDING_TAG.to_owned(), tag.to_owned()))
                    .into_iter()
                    .collect(),
            },
            stages: [("prod".to_owned(), Some(stage))].into(),
            probe,
            integrations: None,
            authorizers: None,
        }
    }

    /// Returns the state and the actions, a word each.
    fn told(api: &Api, rest_deployment: RestDeployment, dns: bool) -> String {
        let dns = if dns {
            StepPlan::done(Reason::Programmed, "")
        } else {
            StepState::WaitingFor(Step::DomainProgrammed).into()
        };
        let step_plan = endpoint(api, rest_deployment, &dns, NOW);
        let state = match &step_plan {
            StepPlan::Done(reason, _) | StepPlan::Correcting(reason, ..) => format!("Done {reason}"),
            StepPlan::Pending(StepState::Wait(reason, _), _) => format!("Wait {reason}"),
            StepPlan::Pending(StepState::Blocked(reason, message), _) => {
                assert!(
                    message.contains("r1") && message.contains("prod") && message.contains("restDeployment")
                );
                format!("Blocked {reason}")
            }
            StepPlan::Pending(StepState::WaitingFor(step), _) => format!("WaitingFor {step:?}"),
            StepPlan::InProgress(..) => "InProgress".into(),
            StepPlan::Pending(StepState::Unknown(_), _) => "Unknown".into(),
        };
        step_plan.actions().fold(state, |all, action| {
            let word = format!("{action:?}");
            format!("{all} {}", word.split([' ', '{']).next().unwrap_or_default())
        })
    }

    #[test]
    fn a_rest_api_has_these_states_and_actions() {
        let (refused, answered) = (
            Some(https::ProbeResult::Refused(403)),
            Some(https::ProbeResult::Answered(200)),
        );
        let blind = Some(https::ProbeResult::Unreachable("no way out".into()));
        let ours = Some("lives/ns/d");
        let close_by_touch = "InProgress TagPending CloseEndpoint TouchStage UntagPending";
        let close_by_deployment = "InProgress TagPending CloseEndpoint Deploy TagDeployed";
        for (may, closed, tag, probe, ago, expected) in [
            // Open, with any tag.
            (Never, false, None, &None, 3600, close_by_touch),
            (Allow, false, None, &None, 3600, close_by_deployment),
            (Never, false, Some(DEPLOYED), &None, 3600, close_by_touch),
            (Allow, false, Some(DEPLOYED), &None, 0, close_by_deployment),
            // An interrupted closing, of this or another domain.
            (
                Never,
                true,
                ours,
                &None,
                3600,
                "InProgress TouchStage UntagPending",
            ),
            (Allow, true, ours, &None, 3600, "InProgress Deploy TagDeployed"),
            (
                Allow,
                true,
                Some("other/ns/d"),
                &None,
                3600,
                "InProgress Deploy TagDeployed",
            ),
            // Deployed, and not effective yet.
            (Allow, true, Some(DEPLOYED), &answered, 5, "Wait StillAnswering"),
            (
                Allow,
                true,
                Some(DEPLOYED),
                &answered,
                3600,
                "Wait StillAnswering",
            ),
            (
                Never,
                true,
                Some(DEPLOYED),
                &answered,
                3600,
                "Wait StillAnswering",
            ),
            (
                Allow,
                true,
                Some(DEPLOYED),
                &refused,
                5,
                "Done Closed UntagPending",
            ),
            (Allow, true, Some(DEPLOYED), &blind, 5, "Done NotVerified"),
            (
                Allow,
                true,
                Some(DEPLOYED),
                &blind,
                3600,
                "Done NotVerified UntagPending",
            ),
            // Touched, or closed without a deployment.
            (Never, true, None, &answered, 5, "Wait WaitingForDeployment"),
            (Never, true, None, &answered, 61, "Blocked WaitingForDeployment"),
            (Allow, true, None, &answered, 5, "Wait StillAnswering"),
            (
                Allow,
                true,
                None,
                &answered,
                61,
                "InProgress TagPending Deploy TagDeployed",
            ),
            (Never, true, None, &refused, 61, "Done Closed"),
            (Allow, true, None, &blind, 61, "Done NotVerified"),
        ] {
            let api = rest(closed, tag, probe.clone(), ago);
            assert_eq!(
                told(&api, may, true),
                expected,
                "{may:?} closed={closed} {tag:?} {probe:?} {ago} s"
            );
        }
        // Before the domain's own name works, the operator does nothing that callers notice.
        for api in [
            rest(false, None, None, 61),
            rest(true, None, answered.clone(), 61),
        ] {
            assert_eq!(told(&api, Allow, false), "WaitingFor DnsProgrammed");
            assert_eq!(told(&api, Never, false), "WaitingFor DnsProgrammed");
        }
        // Without its stage, the flag cannot become effective; the tag stays until the stage exists.
        let mut api = rest(false, None, None, 61);
        api.stages.insert("prod".into(), None);
        assert_eq!(told(&api, Never, true), "InProgress TagPending CloseEndpoint");
        (api.api.endpoint_closed, api.api.tags) = (true, [(PENDING_TAG.to_owned(), "x".to_owned())].into());
        assert_eq!(told(&api, Allow, true), "WaitingFor ResolvedRefs");
    }

    #[test]
    fn an_http_api_is_deployed_only_without_auto_deploy() {
        let mut api = rest(false, None, None, 61);
        api.api.protocol = Protocol::Http;
        for may in [Never, Allow] {
            assert_eq!(
                told(&api, may, true),
                "InProgress TagPending CloseEndpoint Deploy UntagPending"
            );
        }
        api.stages
            .get_mut("prod")
            .and_then(Option::as_mut)
            .unwrap()
            .auto_deploy = true;
        assert_eq!(told(&api, Never, true), "InProgress CloseEndpoint");
    }
}
