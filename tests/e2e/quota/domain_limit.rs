//! Domains wait for the quota of their account, and all of them become Ready.
use serde_json::json;

use crate::support::{test_env::TestEnv, world::run};

#[test]
fn two_domains_created_at_once_queue_for_the_quota_and_both_become_ready() {
    run(async {
        let rates = [("MTLS_OPERATOR_AWS_RATE", "*=unlimited,CreateDomainName=1/5:1")];
        let env = TestEnv::start_with("quota", &rates).await;
        // AWS is a little more patient than the operator's clock, and refuses a caller that does not keep to
        // AWS's interval.
        env.control()
            .set_knobs(&env.account.id, &[("domain_write_interval", 4.0)])
            .await
            .unwrap();
        env.create_domain("first", json!({})).await;
        env.create_domain(
            "second",
            json!({"domainName": format!("second.{}", env.prepared.zone)}),
        )
        .await;
        let queued = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| c.reason == "Queued";
        let either = futures::future::select(
            Box::pin(env.condition("first", "DomainProgrammed", queued)),
            Box::pin(env.condition("second", "DomainProgrammed", queued)),
        );
        let (condition, _) = either.await.factor_first();
        assert_ne!(condition.status, "False", "waiting is not an error");
        env.ready("first").await;
        env.ready("second").await;
        let writes = env.writes(0).await;
        assert_eq!(
            writes.iter().filter(|w| *w == "CreateDomainName").count(),
            2,
            "none was refused and repeated"
        );
        assert_eq!(env.gateway_domains().await.len(), 2);
    });
}
