//! Headers and parameters of other writers survive every change of the operator.
use std::collections::BTreeMap;

use sandbox::{echo::Echo, prepare::http_proxy_api};
use serde_json::json;

use crate::support::{
    aws::back_ends::{HEADER, echoed, headers, mapped, parameters, programmed, served},
    test_env::TestEnv,
    world::{eventually, run},
};

#[test]
fn headers_of_others_are_left_alone_and_contention_ends() {
    run(async {
        let (env, echo) = (
            TestEnv::start("contested").await,
            Echo::start().await.expect("a back end"),
        );
        let api = http_proxy_api(&env.account, "orders", &echo.url(), true)
            .await
            .expect("an API");
        let id = env
            .gateway()
            .get_integrations()
            .api_id(&api)
            .send()
            .await
            .unwrap()
            .items
            .unwrap()
            .remove(0)
            .integration_id
            .unwrap();
        let set = async |value: &str| {
            let parameters = [(format!("overwrite:header.{HEADER}"), value.to_owned())].into();
            let request = env
                .gateway()
                .update_integration()
                .api_id(&api)
                .integration_id(&id);
            request
                .set_request_parameters(Some(parameters))
                .send()
                .await
                .expect("UpdateIntegration");
        };
        set("'fixed'").await;
        env.create_domain(
            "d",
            json!({"mappings": mapped(&api, "$default"), "identity": headers(&[(HEADER, "SubjectDN")])}),
        )
        .await;
        let not_owned = env
            .condition("d", "IdentityPropagated", |c| c.reason == "ForeignOwner")
            .await;
        assert!(
            not_owned.message.contains(HEADER) && not_owned.message.contains(&api),
            "{}",
            not_owned.message
        );
        assert_eq!(
            parameters(&env, &api).await[0][&format!("overwrite:header.{HEADER}")],
            "'fixed'"
        );
        set("").await;
        programmed(&env).await;

        for _ in 0..3 {
            let mark = env.mark().await;
            set("").await;
            eventually("the header is restored", async || {
                let writes = env.writes(mark).await;
                // The other writer's update and the operator's.
                if writes.iter().filter(|w| *w == "UpdateIntegration").count() == 2 {
                    Ok(())
                } else {
                    Err(format!("{writes:?}"))
                }
            })
            .await;
            programmed(&env).await;
            env.reconciles(1).await;
        }
        set("").await;
        let contested = env
            .condition("d", "IdentityPropagated", |c| c.reason == "ContestedByOther")
            .await;
        assert!(
            contested.message.contains(HEADER) && contested.message.contains(&api),
            "{}",
            contested.message
        );
        let mark = env.mark().await;
        env.reconciles(3).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        // A changed spec makes the operator try again.
        let both = headers(&[(HEADER, "SubjectDN"), ("x-client-cert-until", "NotAfter")]);
        env.change("d", json!({"identity": both})).await;
        programmed(&env).await;
    });
}

/// AWS does not document whether it keeps request parameters that a change does not name: both ways are
/// tried.
#[test]
fn parameters_of_others_survive_partial_and_full_replacements() {
    run(async {
        for merge in [0.0, 1.0] {
            let (env, echo) = (
                TestEnv::start("parameters").await,
                Echo::start().await.expect("a back end"),
            );
            env.control()
                .set_knobs(&env.account.id, &[("parameters_merge", merge)])
                .await
                .expect("a knob");
            let api = http_proxy_api(&env.account, "orders", &echo.url(), true)
                .await
                .expect("an API");
            let all = env
                .gateway()
                .get_integrations()
                .api_id(&api)
                .send()
                .await
                .expect("GetIntegrations");
            let id = all
                .items
                .unwrap_or_default()
                .remove(0)
                .integration_id
                .expect("an id");
            let theirs = BTreeMap::from([("overwrite:header.x-theirs".to_owned(), "kept".to_owned())]);
            let request = env
                .gateway()
                .update_integration()
                .api_id(&api)
                .integration_id(&id);
            let request = request.set_request_parameters(Some(theirs.clone().into_iter().collect()));
            request.send().await.expect("UpdateIntegration");
            let both = headers(&[(HEADER, "SubjectDN"), ("x-client-cert-until", "NotAfter")]);
            served(
                &env,
                json!({"mappings": mapped(&api, "$default"), "identity": both}),
            )
            .await;
            programmed(&env).await;
            assert_eq!(parameters(&env, &api).await[0].len(), 3, "merge {merge}");
            env.change("d", json!({"identity": headers(&[(HEADER, "SubjectDN")])}))
                .await;
            programmed(&env).await;
            let mut got = echoed(&env, "GET", "/").await.headers;
            assert_eq!(got.remove(HEADER).as_deref(), Some("CN=client1"), "merge {merge}");
            assert_eq!(got.remove("x-theirs").as_deref(), Some("kept"), "merge {merge}");
            assert_eq!(parameters(&env, &api).await[0].len(), 2, "merge {merge}");
            env.delete_domain("d").await;
            assert_eq!(parameters(&env, &api).await, [theirs], "merge {merge}");
        }
    });
}
