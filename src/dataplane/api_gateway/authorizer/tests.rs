//! Tests of `authorizer`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::{
    api::conditions::Reason,
    aws::{
        action::{ApiGatewayAction, LambdaAction},
        gateway::{
            apis::{self, Protocol},
            authorizers::{Authorization, Authorizer, Route},
            integrations::Place,
        },
    },
    controllers::mtls_domain::simulation::world::desired,
    dataplane::api_gateway::authorizer::{AUTHORIZER_TAG, Changes, changes, is_ours, name, statement},
    model::{
        action::Action,
        desired::DesiredAuthorizer,
        observed::{Api, Authorizers},
        placement::Placement,
    },
};

const FUNCTION: &str = "arn:aws:lambda:eu-west-1:1:function:who";
const OTHER_FUNCTION: &str = "arn:aws:lambda:eu-west-1:1:function:who:live";

fn placement() -> Placement {
    desired().placement
}

fn api(tags: &[(&str, &str)]) -> Api {
    Api {
        api: apis::Api {
            id: "a1".into(),
            arn: "arn:a1".into(),
            protocol: Protocol::Http,
            private: false,
            endpoint_closed: true,
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        },
        stages: BTreeMap::new(),
        probe: None,
        integrations: None,
        authorizers: None,
    }
}

fn route(key: &str, authorization: Authorization) -> Route {
    Route {
        at: Place::Route {
            id: key.to_lowercase().replace([' ', '/'], ""),
            key: key.into(),
        },
        authorization,
    }
}

fn asks(id: &str) -> Authorization {
    Authorization::Authorizer(id.into())
}

fn made(id: &str, function: &str) -> Authorizer {
    Authorizer {
        id: id.into(),
        name: name(&placement(), &function.into()),
        function: Some(function.into()),
        as_made: true,
    }
}

fn theirs(id: &str) -> Authorizer {
    Authorizer {
        id: id.into(),
        name: "theirs".into(),
        function: Some(FUNCTION.into()),
        as_made: false,
    }
}

fn wanted(function: &str) -> DesiredAuthorizer {
    DesiredAuthorizer::Function(function.into())
}

fn words(c: &Changes) -> String {
    let tags = c.tags.keys().map(|tag| format!("tag {tag}"));
    let actions = c
        .first
        .iter()
        .chain(&c.routes)
        .chain(&c.last)
        .map(ToString::to_string);
    let untag = c.untag.iter().map(|tag| format!("untag {tag}"));
    let others = c.others.iter().map(|other| format!("other on {other}"));
    let problem = c.problem.iter().map(|(reason, _)| reason.to_string());
    let all: Vec<_> = tags
        .chain(actions)
        .chain(untag)
        .chain(others)
        .chain(problem)
        .collect();
    all.join(" | ")
}

#[test]
fn an_authorizer_is_created_permitted_attached_and_later_removed() {
    let placement = placement();
    let mine: &[_] = &[(AUTHORIZER_TAG, placement.owner.as_str())];
    let open = || {
        vec![
            route("GET /a", Authorization::None),
            route("OPTIONS /a", Authorization::None),
        ]
    };
    let nothing = Authorizers {
        routes: open(),
        ..Authorizers::default()
    };
    let first = words(&changes(&placement, &api(&[]), &nothing, Some(&wanted(FUNCTION))));
    assert_eq!(
        first,
        format!("tag {AUTHORIZER_TAG} | create an authorizer of a1: {FUNCTION}")
    );

    let there = Authorizers {
        all: vec![made("z1", FUNCTION)],
        ..nothing.clone()
    };
    let source = "arn:aws:execute-api:eu-west-1:111111111111:a1/authorizers/z1";
    let source = source
        .replace("eu-west-1", &placement.region)
        .replace("111111111111", &placement.account);
    assert_eq!(
        words(&changes(&placement, &api(mine), &there, Some(&wanted(FUNCTION)))),
        format!("permit {source} to call {FUNCTION} | attach authorizer z1 to route GET /a of a1")
    );

    let permitted: BTreeSet<_> = ["z1".to_owned()].into();
    let asked = vec![
        route("GET /a", asks("z1")),
        route("OPTIONS /a", Authorization::None),
    ];
    let done = Authorizers {
        all: vec![made("z1", FUNCTION)],
        routes: asked,
        permitted,
    };
    assert_eq!(
        words(&changes(&placement, &api(mine), &done, Some(&wanted(FUNCTION)))),
        ""
    );
    let removed = words(&changes(&placement, &api(mine), &done, None));
    let statement = statement(&placement, "z1");
    assert_eq!(
        removed,
        format!(
            "detach the authorizer from route GET /a of a1 | remove {statement} from the policy of \
             {FUNCTION} | delete authorizer z1 of a1 | untag {AUTHORIZER_TAG}"
        )
    );

    // Another writer has added a cache.
    let cached = Authorizer {
        as_made: false,
        ..made("z1", FUNCTION)
    };
    let edited = Authorizers {
        all: vec![cached],
        ..done.clone()
    };
    let restored = words(&changes(&placement, &api(mine), &edited, Some(&wanted(FUNCTION))));
    assert_eq!(restored, format!("change authorizer z1 of a1: {FUNCTION}"));

    // Another function needs another authorizer; the old authorizer is deleted once no route uses it.
    let both = Authorizers {
        all: vec![made("z1", FUNCTION), made("z2", OTHER_FUNCTION)],
        ..done.clone()
    };
    let moved = words(&changes(
        &placement,
        &api(mine),
        &both,
        Some(&wanted(OTHER_FUNCTION)),
    ));
    assert!(moved.contains("attach authorizer z2 to route GET /a"), "{moved}");
    assert!(moved.ends_with("delete authorizer z1 of a1"), "{moved}");
}

#[test]
fn another_authorization_stays() {
    let placement = placement();
    let mine: &[_] = &[(AUTHORIZER_TAG, placement.owner.as_str())];
    let routes = vec![
        route("GET /a", asks("t1")),
        route("GET /b", Authorization::Other),
        route("GET /c", asks("z1")),
    ];
    let permitted: BTreeSet<_> = ["z1".to_owned()].into();
    let there = Authorizers {
        all: vec![theirs("t1"), made("z1", FUNCTION)],
        routes,
        permitted,
    };
    assert_eq!(
        words(&changes(&placement, &api(mine), &there, Some(&wanted(FUNCTION)))),
        "other on route GET /a of a1 | other on route GET /b of a1"
    );
    let without = words(&changes(&placement, &api(mine), &there, None));
    assert!(
        !without.contains("GET /a") && !without.contains("GET /b") && !without.contains("t1"),
        "{without}"
    );
    // An authorizer of another MtlsDomain.
    let not_owned = api(&[(AUTHORIZER_TAG, "c/ns/other")]);
    assert_eq!(
        words(&changes(&placement, &not_owned, &there, Some(&wanted(FUNCTION)))),
        "ForeignOwner"
    );
}

#[test]
fn an_existing_authorizer_is_attached_and_never_detached() {
    let placement = placement();
    let wanted = DesiredAuthorizer::Existing([("a1".to_owned(), "t1".to_owned())].into());
    let routes = vec![route("GET /a", Authorization::None), route("GET /b", asks("t1"))];
    let there = Authorizers {
        all: vec![theirs("t1")],
        routes,
        permitted: BTreeSet::new(),
    };
    let put = words(&changes(&placement, &api(&[]), &there, Some(&wanted)));
    assert_eq!(put, "attach authorizer t1 to route GET /a of a1");
    let asked = Authorizers {
        routes: vec![route("GET /a", asks("t1"))],
        ..there.clone()
    };
    assert_eq!(words(&changes(&placement, &api(&[]), &asked, None)), "");
    let gone = Authorizers { all: vec![], ..there };
    let problem = changes(&placement, &api(&[]), &gone, Some(&wanted))
        .problem
        .unwrap();
    assert!(
        problem.0 == Reason::RefNotFound && problem.1.contains("t1"),
        "{problem:?}"
    );
}

/// Applies an action as AWS does. AWS rejects the deletion of an authorizer in use, and the attachment to a
/// missing route.
fn perform(there: &mut Authorizers, action: Action, made: &mut usize) {
    match action {
        Action::ApiGateway(ApiGatewayAction::CreateAuthorizer { name, function, .. }) => {
            *made += 1;
            there.all.push(Authorizer {
                id: format!("z{made}"),
                name,
                function: Some(function),
                as_made: true,
            });
        }
        Action::ApiGateway(ApiGatewayAction::RestoreAuthorizer { id, function, .. }) => {
            let changed = there.all.iter_mut().find(|a| a.id == id).expect("it is there");
            (changed.as_made, changed.function) = (true, Some(function));
        }
        Action::Lambda(LambdaAction::PermitFunction { statement: made, .. }) => {
            let of = there
                .all
                .iter()
                .find(|a| statement(&placement(), &a.id) == made)
                .expect("it is there");
            assert!(there.permitted.insert(of.id.clone()));
        }
        Action::Lambda(LambdaAction::ForbidFunction { statement: taken, .. }) => {
            let id = there
                .permitted
                .iter()
                .find(|id| statement(&placement(), id) == taken)
                .cloned();
            there.permitted.remove(&id.expect("it is there"));
        }
        Action::ApiGateway(ApiGatewayAction::DeleteAuthorizer { id, .. }) => {
            assert!(
                there.routes.iter().all(|r| r.authorization != asks(&id)),
                "a route uses it"
            );
            assert!(
                !there.permitted.contains(&id),
                "the authorizer is deleted after its statement"
            );
            there.all.retain(|a| a.id != id);
        }
        Action::ApiGateway(ApiGatewayAction::Authorize { at, authorizer, .. }) => {
            let known = |id: &String| there.all.iter().any(|a| a.id == *id) && there.permitted.contains(id);
            assert!(
                authorizer.as_ref().is_none_or(known),
                "callers would get status 500"
            );
            let route = there.routes.iter_mut().find(|r| r.at == at).expect("it is there");
            route.authorization = authorizer.map_or(Authorization::None, Authorization::Authorizer);
        }
        other => panic!("{other}"),
    }
}

fn drive(
    api: &mut Api,
    there: &mut Authorizers,
    wanted: Option<&DesiredAuthorizer>,
    budget: &mut usize,
    made: &mut usize,
) {
    for _ in 0..5 {
        let c = changes(&placement(), api, there, wanted);
        let mut step = |act: &mut dyn FnMut()| {
            if *budget > 0 {
                *budget -= 1;
                act();
            }
        };
        step(&mut || api.api.tags.extend(c.tags.clone()));
        for action in c.first.into_iter().chain(c.routes).chain(c.last) {
            step(&mut || perform(there, action.clone(), made));
        }
        step(&mut || api.api.tags.retain(|key, _| !c.untag.contains(key)));
    }
}

proptest! {
    /// After an interruption at any action, every open route uses the one permitted authorizer, and no other
    /// owned authorizer is left. Without a desired authorizer, no owned authorizer is left, and other
    /// authorizations are unchanged.
    #[test]
    fn authorizers_are_created_changed_and_removed_and_others_stay(
        kinds in proptest::collection::vec(0..3u8, 0..5),
        another in any::<bool>(),
        stopped_after in 0..14usize,
    ) {
        let routes = kinds.iter().enumerate().map(|(i, kind)| route(&format!("GET /{i}"), match kind {
            0 => Authorization::None,
            1 => asks("t1"),
            _ => Authorization::Other,
        }));
        let mut there = Authorizers {
            all: vec![theirs("t1")],
            routes: routes.collect(),
            permitted: BTreeSet::new(),
        };
        let (before, mut api, mut made) = (there.clone(), api(&[]), 0);
        drive(&mut api, &mut there, Some(&wanted(FUNCTION)), &mut { stopped_after }, &mut made);
        let last = if another { OTHER_FUNCTION } else { FUNCTION };
        drive(&mut api, &mut there, Some(&wanted(last)), &mut 1000, &mut made);
        let ours: Vec<_> = there.all.iter().filter(|a| is_ours(&placement(), a)).cloned().collect();
        prop_assert_eq!(ours.iter().map(|a| a.function.clone()).collect::<Vec<_>>(), [Some(last.into())]);
        prop_assert_eq!(&there.permitted, &BTreeSet::from([ours[0].id.clone()]));
        for (now, then) in there.routes.iter().zip(&before.routes) {
            let expected = match &then.authorization {
                Authorization::None => asks(&ours[0].id),
                other => other.clone(),
            };
            prop_assert_eq!(&now.authorization, &expected);
        }
        drive(&mut api, &mut there, None, &mut { stopped_after }, &mut made);
        drive(&mut api, &mut there, None, &mut 1000, &mut made);
        prop_assert_eq!(there, before);
        prop_assert!(api.api.tags.is_empty(), "{:?}", api.api.tags);
    }
}
