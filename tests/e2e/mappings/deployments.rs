//! A REST API is deployed where the spec allows it, once for all its stages, and never twice for one change.
use mtls_operator::aws::tags::DEPLOYED;
use sandbox::prepare::rest_api;
use serde_json::json;

use crate::support::{
    aws::mapped_apis::{
        about_apis, closed, deploy, execute_api, forbidden, knobs, mapping, replace, set_flag, state, tag,
        unseen, v1,
    },
    test_env::TestEnv,
    world::run,
};

#[test]
fn a_stage_that_needs_a_deployment_gets_one_where_the_spec_allows_it() {
    run(async {
        let env = TestEnv::start("drafts").await;
        knobs(&env, &[("stage_update_publishes", 0.0)]).await;
        let api = rest_api(&env.account, "rest", None).await.unwrap();
        let mark = env.mark().await;
        env.create_domain("d", json!({"mappings": [mapping("", &api, "prod")]}))
            .await;
        let waits = env
            .condition("d", "BypassClosed", |c| c.reason == "WaitingForDeployment")
            .await;
        assert_eq!(
            waits.status, "Unknown",
            "the change may yet take effect: {}",
            waits.message
        );
        let ready = env
            .condition("d", "Ready", |c| c.reason == "WaitingForDeployment")
            .await;
        assert_eq!(ready.status, "Unknown");
        assert_eq!(
            about_apis(&env, mark).await,
            ["TagResource", "UpdateRestApi", "UpdateStage", "UntagResource"]
        );
        assert_eq!(
            (state(&env, &api).await, execute_api(&env, &api).await.0),
            ((true, None), 200)
        );

        // A minute later.
        knobs(&env, &[("rest_date_lag", 120.0)]).await;
        let touch = v1(&env).update_stage().rest_api_id(&api).stage_name("prod");
        touch
            .patch_operations(replace("/description", "later"))
            .send()
            .await
            .unwrap();
        let blocked = env.condition("d", "BypassClosed", |c| c.status == "False").await;
        assert_eq!(blocked.reason, "WaitingForDeployment");
        for part in [api.as_str(), "stage prod", "spec.restDeployment to Allow"] {
            assert!(blocked.message.contains(part), "{part}: {}", blocked.message);
        }
        env.condition("d", "Ready", |c| {
            c.status == "False" && c.reason == "WaitingForDeployment"
        })
        .await;
        let mark = env.mark().await;
        env.reconciles(2).await;
        assert_eq!(
            env.writes(mark).await,
            [""; 0],
            "the operator waits without a write"
        );

        env.change("d", json!({"restDeployment": "Allow"})).await;
        env.ready("d").await;
        closed(&env, &api).await;
        assert_eq!(execute_api(&env, &api).await, forbidden());
        let once = ["TagResource", "CreateDeployment", "TagResource", "UntagResource"];
        assert_eq!(about_apis(&env, mark).await, once);
        env.reconciles(2).await;
        assert_eq!(about_apis(&env, mark).await, once);

        // With restDeployment Never again, another user deploys in the operator's place.
        env.change("d", json!({"restDeployment": "Never"})).await;
        unseen(&env, "d", async || {
            set_flag(&env, &api, false).await;
            deploy(&env, &api).await;
        })
        .await;
        env.condition("d", "BypassClosed", |c| {
            c.status == "False" && c.reason == "WaitingForDeployment"
        })
        .await;
        deploy(&env, &api).await;
        env.ready("d").await;
        assert_eq!(execute_api(&env, &api).await, forbidden());
    });
}

#[test]
fn the_operator_makes_no_second_deployment_while_one_takes_effect() {
    run(async {
        let env = TestEnv::start("effect").await;
        let api = rest_api(&env.account, "rest", None).await.unwrap();
        env.create_domain(
            "d",
            json!({"mappings": [mapping("", &api, "prod")], "restDeployment": "Allow"}),
        )
        .await;
        env.ready("d").await;
        closed(&env, &api).await;
        // As if the deployment had been made a while ago, and the endpoint did not know of it yet.
        knobs(&env, &[("rest_date_lag", 120.0)]).await;
        unseen(&env, "d", async || {
            set_flag(&env, &api, false).await;
            deploy(&env, &api).await;
            set_flag(&env, &api, true).await;
            tag(&env, &api, DEPLOYED).await;
        })
        .await;
        let mark = env.mark().await;
        let answers = env
            .condition("d", "BypassClosed", |c| c.reason == "StillAnswering")
            .await;
        assert_eq!(answers.status, "Unknown");
        env.reconciles(3).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        // The deployment takes effect.
        deploy(&env, &api).await;
        closed(&env, &api).await;
        env.ready("d").await;
        assert_eq!(
            about_apis(&env, mark).await,
            ["CreateDeployment", "UntagResource"],
            "the user's deployment, and the operator's"
        );
    });
}

#[test]
fn several_stages_get_one_deployment() {
    run(async {
        let rates = [("MTLS_OPERATOR_AWS_RATE", "*=unlimited,CreateDeployment=1/3:1")];
        let env = TestEnv::start_with("stages", &rates).await;
        let api = rest_api(&env.account, "rest", None).await.unwrap();
        for stage in ["dev", "test"] {
            v1(&env)
                .create_deployment()
                .rest_api_id(&api)
                .stage_name(stage)
                .send()
                .await
                .unwrap();
        }
        let mark = env.mark().await;
        let mappings = json!([
            mapping("", &api, "prod"),
            mapping("dev", &api, "dev"),
            mapping("test", &api, "test")
        ]);
        env.create_domain("d", json!({"mappings": mappings, "restDeployment": "Allow"}))
            .await;
        env.ready("d").await;
        closed(&env, &api).await;
        let writes = about_apis(&env, mark).await;
        assert_eq!(
            writes.iter().filter(|w| *w == "CreateDeployment").count(),
            1,
            "{writes:?}"
        );
        let stages = v1(&env).get_stages().rest_api_id(&api).send().await.unwrap();
        let served: std::collections::BTreeSet<_> = stages.item().iter().map(|s| s.deployment_id()).collect();
        assert_eq!(served.len(), 1, "{stages:?}");
    });
}
