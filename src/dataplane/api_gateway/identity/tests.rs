//! Tests of `identity`.

use super::*;

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{
    api::{RestDeployment, conditions::Reason},
    aws::{
        action::api_gateway::ApiGatewayAction,
        gateway::{
            apis::{self, Protocol, Stage},
            authorizers::{Authorization, Authorizer, Route},
            integrations::{Integration, Place},
        },
    },
    controllers::mtls_domain::simulation::world::desired,
    dataplane::api_gateway::{
        authorizer::{self, AUTHORIZER_TAG},
        contention::MAX_CORRECTIONS,
        deployments::PENDING_IDENTITY_TAG,
        identity::{Wanted, of_api},
        parameters::{covered, expression, is_context, value},
    },
    model::{
        action::Action,
        desired::DesiredAuthorizer,
        observed::{Api, Authorizers},
        step::{StepPlan, StepState},
    },
};

const OURS: &str = "cluster/ns/partners";
const SUBJECT: &str = "identity.clientCert.subjectDN";

fn integration(id: &str, parameters: &[(&str, &str)]) -> Integration {
    let parameters = parameters
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Integration {
        at: Place::Integration(id.into()),
        parameters,
        takes_headers: true,
    }
}

fn api(protocol: Protocol, auto_deploy: bool, integrations: Vec<Integration>, tags: &[(&str, &str)]) -> Api {
    let stage = Stage {
        name: "prod".into(),
        auto_deploy,
        tracing: false,
        deployment_id: "d1".into(),
        updated_at: None,
    };
    Api {
        api: apis::Api {
            id: "a1".into(),
            arn: "arn:a1".into(),
            protocol,
            private: false,
            endpoint_closed: true,
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        },
        stages: [("prod".to_owned(), Some(stage))].into(),
        probe: None,
        integrations: Some(Ok(integrations)),
        authorizers: None,
    }
}

fn wanted(names: &[&str]) -> BTreeMap<String, String> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), SUBJECT.to_owned()))
        .collect()
}

fn judge(api: &Api, names: &[&str], may: RestDeployment, corrections: u32) -> Option<StepPlan> {
    let headers = wanted(names);
    of_api(
        &desired().placement,
        api,
        &Wanted {
            headers: &headers,
            authorizer: None,
        },
        may,
        corrections,
        &mut vec![],
    )
}

fn words(step_plan: &Option<StepPlan>) -> String {
    let Some(step_plan) = step_plan else {
        return "nothing".into();
    };
    let state = match step_plan {
        StepPlan::Done(..) => "Done".into(),
        StepPlan::Correcting(..) => "Correcting".into(),
        StepPlan::InProgress(..) => "InProgress".into(),
        StepPlan::Pending(StepState::Blocked(reason, _), _) => reason.to_string(),
        StepPlan::Pending(other, _) => format!("{other:?}"),
    };
    let actions = step_plan.actions().map(|action| format!(" | {action}"));
    actions.fold(state, |all, action| all + &action)
}

const TAG: (&str, &str) = ("mtls-operator.io/header.x-sub", OURS);

#[test]
fn a_header_is_tagged_first_and_set_on_every_integration() {
    let both = || {
        vec![
            integration("i1", &[]),
            integration("i2", &[("overwrite:header.x-other", "$context.stage")]),
        ]
    };
    let http = api(Protocol::Http, true, both(), &[]);
    assert_eq!(
        words(&judge(&http, &["x-sub"], RestDeployment::Never, 0)),
        "InProgress | tag arn:a1 with mtls-operator.io/header.x-sub \
         | change integration i1 of a1: overwrite:header.x-sub=$context.identity.clientCert.subjectDN \
         | change integration i2 of a1: overwrite:header.x-sub=$context.identity.clientCert.subjectDN"
    );
    // Where that is not enough, the pending tag also comes first, and the deployment removes it.
    let by_hand = api(Protocol::Http, false, vec![integration("i1", &[])], &[]);
    assert_eq!(
        words(&judge(&by_hand, &["x-sub"], RestDeployment::Never, 0)),
        "InProgress | tag arn:a1 with mtls-operator.io/header.x-sub, mtls-operator.io/pending-identity \
         | change integration i1 of a1: overwrite:header.x-sub=$context.identity.clientCert.subjectDN \
         | deploy a1 to prod | remove the tags mtls-operator.io/pending-identity from arn:a1"
    );
}

#[test]
fn a_rest_api_is_deployed_only_if_allowed_and_any_deployment_counts() {
    let set = [(
        "integration.request.header.x-sub",
        "context.identity.clientCert.subjectDN",
    )];
    let waiting = api(
        Protocol::Rest,
        false,
        vec![integration("i1", &set)],
        &[TAG, (PENDING_IDENTITY_TAG, "d1")],
    );
    assert_eq!(
        words(&judge(&waiting, &["x-sub"], RestDeployment::Never, 0)),
        "WaitingForDeployment"
    );
    assert_eq!(
        words(&judge(&waiting, &["x-sub"], RestDeployment::Allow, 0)),
        "InProgress | deploy a1 to prod | remove the tags mtls-operator.io/pending-identity from arn:a1"
    );
    let deployed = api(
        Protocol::Rest,
        false,
        vec![integration("i1", &set)],
        &[TAG, (PENDING_IDENTITY_TAG, "d0")],
    );
    assert_eq!(
        words(&judge(&deployed, &["x-sub"], RestDeployment::Never, 0)),
        "InProgress | remove the tags mtls-operator.io/pending-identity from arn:a1"
    );
}

#[test]
fn a_header_of_another_writer_stays_and_is_reported() {
    for (parameters, tags, expected) in [
        (
            ("overwrite:header.x-sub", "$context.stage"),
            vec![],
            "ForeignOwner",
        ),
        (
            ("overwrite:header.X-Sub", "$context.stage"),
            vec![],
            "ForeignOwner",
        ),
        (("append:header.x-sub", "$context.stage"), vec![], "ForeignOwner"),
        (
            ("overwrite:header.x-sub", "$context.stage"),
            vec![("mtls-operator.io/header.x-sub", "c/ns/other")],
            "ForeignOwner",
        ),
        // The same value of another writer is in the desired state too.
        (
            ("overwrite:header.x-sub", "$context.identity.clientCert.subjectDN"),
            vec![],
            "Done",
        ),
    ] {
        let api = api(
            Protocol::Http,
            true,
            vec![integration("i1", &[parameters])],
            &tags,
        );
        assert_eq!(
            words(&judge(&api, &["x-sub"], RestDeployment::Never, 0)),
            expected,
            "{parameters:?} {tags:?}"
        );
        assert_eq!(
            words(&judge(&api, &[], RestDeployment::Never, 0)),
            "nothing",
            "{parameters:?} {tags:?}"
        );
    }
}

/// A method uses an authorizer, but the deployment does not yet, or still does.
#[test]
fn an_authorizer_is_deployed_like_a_header_and_deleted_only_when_no_deployment_uses_it() {
    let function = "arn:aws:lambda:eu-west-1:1:function:who";
    let wanted = DesiredAuthorizer::Function(function.into());
    let placement = desired().placement;
    let probe = authorizer::changes(
        &placement,
        &api(Protocol::Rest, false, vec![], &[]),
        &Authorizers::default(),
        Some(&wanted),
    );
    let Some(Action::ApiGateway(ApiGatewayAction::CreateAuthorizer { name, .. })) =
        probe.first.first().cloned()
    else {
        panic!("{probe:?}")
    };
    let ours = Authorizer {
        id: "z1".into(),
        name,
        function: Some(function.into()),
        as_made: true,
    };
    let at = Place::Method {
        resource_id: "r".into(),
        path: "/a".into(),
        method: "GET".into(),
    };
    let with = |tags: &[(&str, &str)], authorization| {
        let routes = vec![Route {
            at: at.clone(),
            authorization,
        }];
        let permitted = ["z1".to_owned()].into();
        let there = Authorizers {
            all: vec![ours.clone()],
            routes,
            permitted,
        };
        Api {
            authorizers: Some(Ok(there)),
            ..api(Protocol::Rest, false, vec![], tags)
        }
    };
    let mine = (AUTHORIZER_TAG, OURS);
    let none = BTreeMap::new();
    let judge = |api: &Api, asked: bool, may| {
        let wanted = Wanted {
            headers: &none,
            authorizer: asked.then_some(&wanted),
        };
        words(&of_api(&placement, api, &wanted, may, 0, &mut vec![]))
    };
    let open = with(&[mine], Authorization::None);
    assert_eq!(
        judge(&open, true, RestDeployment::Never),
        "WaitingForDeployment | tag arn:a1 with mtls-operator.io/pending-identity | attach authorizer z1 to \
         GET /a of a1"
    );
    let put = with(
        &[mine, (PENDING_IDENTITY_TAG, "d1")],
        Authorization::Authorizer("z1".into()),
    );
    assert_eq!(judge(&put, true, RestDeployment::Never), "WaitingForDeployment");
    let served = with(
        &[mine, (PENDING_IDENTITY_TAG, "d0")],
        Authorization::Authorizer("z1".into()),
    );
    assert_eq!(
        judge(&served, true, RestDeployment::Never),
        "InProgress | remove the tags mtls-operator.io/pending-identity from arn:a1"
    );
    // Removed from the method: the deployment still uses the authorizer.
    let settled = with(&[mine], Authorization::Authorizer("z1".into()));
    assert_eq!(
        judge(&settled, false, RestDeployment::Never),
        "WaitingForDeployment | tag arn:a1 with mtls-operator.io/pending-identity | detach the authorizer \
         from GET /a of a1"
    );
    let off = |deployment| with(&[mine, (PENDING_IDENTITY_TAG, deployment)], Authorization::None);
    assert_eq!(
        judge(&off("d1"), false, RestDeployment::Never),
        "WaitingForDeployment"
    );
    for (api, may, deploys) in [
        (off("d0"), RestDeployment::Never, ""),
        (off("d1"), RestDeployment::Allow, " | deploy a1 to prod"),
    ] {
        let told = judge(&api, false, may);
        assert!(
            told.starts_with(&format!("InProgress{deploys} | remove mtls-operator-")),
            "{told}"
        );
        assert!(
            told.contains("| delete authorizer z1 of a1 | remove the tags mtls-operator.io/authorizer, "),
            "{told}"
        );
    }
}

#[test]
fn a_repeatedly_removed_header_is_restored_three_times() {
    let api = api(Protocol::Http, true, vec![integration("i1", &[])], &[TAG]);
    assert!(
        words(&judge(&api, &["x-sub"], RestDeployment::Never, MAX_CORRECTIONS)).starts_with("InProgress")
    );
    assert_eq!(
        words(&judge(
            &api,
            &["x-sub"],
            RestDeployment::Never,
            MAX_CORRECTIONS + 1
        )),
        "ContestedByOther"
    );
}

/// Applies an action as AWS does.
fn perform(api: &mut Api, action: Action) {
    let Some(Ok(integrations)) = &mut api.integrations else {
        panic!("unread integrations")
    };
    let Action::ApiGateway(action) = action else {
        panic!("{action}")
    };
    match action {
        ApiGatewayAction::TagApi { tags, .. } => api.api.tags.extend(tags),
        ApiGatewayAction::UntagApi { keys, .. } => api.api.tags.retain(|key, _| !keys.contains(key)),
        ApiGatewayAction::ChangeParameters { at, set, others, .. } => {
            let there = integrations.iter_mut().find(|i| i.at == at).expect("it is there");
            // AWS removes every parameter that the call does not send.
            there.parameters = others;
            there.parameters.extend(set);
        }
        ApiGatewayAction::Deploy { stages, .. } => {
            for stage in stages {
                let stage = api
                    .stages
                    .get_mut(&stage)
                    .and_then(Option::as_mut)
                    .expect("it is there");
                stage.deployment_id += "+";
            }
        }
        other => panic!("{other}"),
    }
}

proptest! {
    /// Every integration finally, from any start, has the desired headers, or the state names the writer in
    /// the way. Headers of other writers are unchanged, also after the removal of the operator's headers,
    /// from an interruption at any action.
    #[test]
    fn headers_are_set_and_removed_and_others_stay(
        rest in any::<bool>(),
        auto_deploy in any::<bool>(),
        allow in any::<bool>(),
        names in proptest::sample::subsequence(vec!["x-a", "x-b", "x-c"], 0..=3),
        there in proptest::collection::vec(proptest::collection::btree_map("x-[abcd]", 0..3u8, 0..4), 0..3),
        tagged in proptest::sample::subsequence(vec!["x-a", "x-b", "x-c", "x-d"], 0..=4),
        stopped_after in 0..12usize,
    ) {
        let protocol = if rest { Protocol::Rest } else { Protocol::Http };
        let may = if allow { RestDeployment::Allow } else { RestDeployment::Never };
        let prefix = if rest { "integration.request.header." } else { "overwrite:header." };
        // Only headers with the ownership tag have the operator's value.
        let value = |name: &str, kind: u8| match kind {
            0 if tagged.contains(&name) => expression(protocol, SUBJECT),
            1 => "'static'".to_owned(),
            _ => "method.request.header.other".to_owned(),
        };
        let integrations = there.iter().enumerate().map(|(i, headers)| {
            let parameters = headers
                .iter()
                .map(|(name, kind)| (format!("{prefix}{name}"), value(name, *kind)))
                .collect();
            Integration { at: Place::Integration(format!("i{i}")), parameters, takes_headers: true }
        });
        let mut api = api(protocol, auto_deploy && !rest, integrations.collect(), &[]);
        api.api.tags.extend(tagged.iter().map(|name| (format!("{HEADER_TAG}{name}"), OURS.to_owned())));
        let not_owned = |api: &Api| -> Vec<_> {
            let all = api.integrations.iter().flatten().flatten();
            all.flat_map(|i| i.parameters.iter().filter(|(key, value)| {
                let name = key.rsplit_once('.').expect("a header").1;
                !is_context(value) && !tagged.contains(&name)
            }).map(|(k, v)| (i.at.clone(), k.clone(), v.clone())).collect::<Vec<_>>()).collect()
        };
        let before = not_owned(&api);
        let mut budget = stopped_after;
        for _ in 0..4 {
            for action in judge(&api, &names, may, 0).map(StepPlan::into_actions).unwrap_or_default() {
                if budget > 0 {
                    perform(&mut api, action);
                    budget -= 1;
                }
            }
        }
        prop_assert_eq!(not_owned(&api), before.clone());
        for _ in 0..4 {
            for action in judge(&api, &names, may, 0).map(StepPlan::into_actions).unwrap_or_default() {
                perform(&mut api, action);
            }
        }
        let end = judge(&api, &names, may, 0);
        prop_assert!(end.as_ref().is_none_or(|step_plan| !step_plan.has_actions()), "{}", words(&end));
        match end {
            None => prop_assert!(names.is_empty()),
            Some(StepPlan::Done(..)) => {
                for integration in covered(&api) {
                    prop_assert!(names.iter().all(|name| value_of(&api, integration, name)), "{api:?}");
                }
            }
            Some(StepPlan::Pending(StepState::Blocked(Reason::ForeignOwner, _), _)) => {
                prop_assert!(!before.is_empty())
            }
            Some(StepPlan::Pending(StepState::Blocked(Reason::WaitingForDeployment, _), _)) => {
                prop_assert!(rest && !allow)
            },
            other => prop_assert!(false, "{other:?}"),
        }
        prop_assert_eq!(not_owned(&api), before.clone());
        for _ in 0..4 {
            for action in judge(&api, &[], may, 0).map(StepPlan::into_actions).unwrap_or_default() {
                perform(&mut api, action);
            }
        }
        prop_assert!(api.api.tags.is_empty(), "{:?}", api.api.tags);
        prop_assert!(covered(&api).all(|i| i.parameters.values().all(|value| !is_context(value))));
        prop_assert_eq!(not_owned(&api), before);
    }
}

fn value_of(api: &Api, integration: &Integration, name: &str) -> bool {
    value(api, integration, name) == Some(&expression(api.api.protocol, SUBJECT))
}
