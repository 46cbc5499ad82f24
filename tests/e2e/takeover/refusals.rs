//! A domain that cannot have mutual TLS is named with the reason and left alone.
use aws_sdk_apigateway::types::{EndpointConfiguration, EndpointType, SecurityPolicy};
use aws_sdk_apigatewayv2::types::RoutingMode;
use serde_json::json;

use crate::support::{
    aws::existing_resources::{self, tags},
    test_env::TestEnv,
    world::run,
};

#[test]
fn a_domain_that_cannot_have_mutual_tls_is_named_and_left_alone() {
    run(async {
        // The operator creates no domain of its own between those of the test: the first token of its queue
        // comes in an hour.
        let rate = ("MTLS_OPERATOR_AWS_RATE", "CreateDomainName=1/3600:1");
        let env = TestEnv::start_with("unfit", &[rate]).await;
        let arn = existing_resources::certificate(&env).await;
        let v1 = aws_sdk_apigateway::Client::new(&env.account.sdk());
        let made = async |kind: EndpointType, policy: SecurityPolicy| {
            let types = EndpointConfiguration::builder().types(kind.clone()).build();
            let mut request = v1
                .create_domain_name()
                .domain_name(env.host())
                .endpoint_configuration(types);
            request = match kind {
                EndpointType::Edge => request.certificate_arn(&arn),
                _ => request.regional_certificate_arn(&arn),
            };
            request.security_policy(policy).send().await.unwrap();
        };
        let remove = async || {
            v1.delete_domain_name()
                .domain_name(env.host())
                .send()
                .await
                .unwrap()
        };

        made(EndpointType::Edge, SecurityPolicy::Tls12).await;
        let mark = env.mark().await;
        env.create_domain("d", json!({"adoptionPolicy": "Unowned"})).await;
        let refused = env
            .condition("d", "DomainProgrammed", |c| c.reason == "DomainRejected")
            .await;
        assert!(refused.message.contains("EDGE"), "{}", refused.message);
        remove().await;
        // v2 may show such a domain, or leave it to v1.
        for refuses in [0.0, 1.0] {
            let knob = ("v2_refuses_tls_1_0", refuses);
            env.control().set_knobs(&env.account.id, &[knob]).await.unwrap();
            env.condition("d", "DomainProgrammed", |c| c.reason != "DomainRejected")
                .await;
            made(EndpointType::Regional, SecurityPolicy::Tls10).await;
            env.condition("d", "DomainProgrammed", |c| {
                c.reason == "DomainRejected" && c.message.contains("TLS_1_0")
            })
            .await;
            remove().await;
        }
        let writes = env.writes(mark).await;
        let ours = |w: &&String| !w.starts_with("DeleteDomainName") && !w.starts_with("CreateDomainName");
        let touched: Vec<_> = writes
            .iter()
            .filter(ours)
            .filter(|w| w.contains("Domain") || w.contains("Tag"))
            .collect();
        assert_eq!(touched, [""; 0], "{writes:?}");
    });
}

/// Routing rules would decide before mappings do, so the spec does not describe a domain of that mode.
#[test]
fn a_domain_with_another_routing_mode_is_named() {
    run(async {
        let env = TestEnv::start("routing").await;
        existing_resources::serving(&env, None).await;
        let config = env
            .gateway_domain()
            .await
            .domain_name_configurations
            .unwrap()
            .remove(0);
        let config = aws_sdk_apigatewayv2::types::DomainNameConfiguration::builder()
            .set_certificate_arn(config.certificate_arn)
            .set_endpoint_type(config.endpoint_type)
            .set_security_policy(config.security_policy)
            .build();
        let request = env
            .gateway()
            .update_domain_name()
            .domain_name(env.host())
            .domain_name_configurations(config);
        request
            .routing_mode(RoutingMode::RoutingRuleThenApiMapping)
            .send()
            .await
            .unwrap();
        env.create_domain("partners", json!({"adoptionPolicy": "Unowned"}))
            .await;
        let refused = env
            .condition("partners", "DomainProgrammed", |c| c.reason == "DomainRejected")
            .await;
        assert!(
            refused.message.contains("ROUTING_RULE_THEN_API_MAPPING"),
            "{}",
            refused.message
        );
        assert_eq!(tags(&env).await, []);
    });
}

#[test]
fn a_status_that_only_aws_ends_is_shown_with_its_message() {
    run(async {
        let env = TestEnv::start("locked").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let host = env.host();
        let say = async |status: &str, message: &str| {
            env.control()
                .set_domain_status(&env.account.id, &host, status, message)
                .await
                .unwrap();
        };
        for (status, remedy) in [
            ("PENDING_CERTIFICATE_REIMPORT", "import a certificate"),
            ("PENDING_OWNERSHIP_VERIFICATION", "ownershipVerificationArn"),
            ("FAILED", "API Gateway gives no details"),
        ] {
            say(status, "the emulator says why").await;
            let locked = env
                .condition("d", "DomainProgrammed", |c| c.reason == "DomainRejected")
                .await;
            assert_eq!(locked.status, "False");
            for part in [status, "the emulator says why", remedy] {
                assert!(locked.message.contains(part), "{}", locked.message);
            }
            say("", "").await;
            env.ready("d").await;
        }
    });
}

#[test]
fn a_domain_that_is_pending_is_waited_for() {
    run(async {
        let env = TestEnv::start("pending").await;
        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        let say = async |status: &str| {
            let (account, host) = (&env.account.id, env.host());
            let set = env.control().set_domain_status(account, &host, status, "").await;
            assert_eq!(set.unwrap(), 1);
        };
        let mark = env.mark().await;
        say("PENDING").await;
        let waits = env
            .condition("d", "DomainProgrammed", |c| c.reason == "WaitingForDomain")
            .await;
        assert_eq!(waits.status, "Unknown");
        assert!(waits.message.contains("PENDING"), "{waits:?}");
        env.reconciles(2).await;
        assert_eq!(env.writes(mark).await, [""; 0]);
        say("").await;
        env.ready("d").await;
    });
}
