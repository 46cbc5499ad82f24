//! Tests of `execute`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;

use crate::{
    api::{MtlsDomain, object_id::ObjectId},
    aws::{
        acm::CertificateRequest,
        action::{acm::AcmAction, api_gateway::ApiGatewayAction, lambda::LambdaAction, s3::S3Action},
        arn::Arn,
        call_guard::Gate,
        fake,
        gateway::{
            apis::Protocol,
            domains::{DomainRequest, IpAddressType},
        },
        quota::{Class, Quota},
        rates::{Operation, Rates},
    },
    controllers::mtls_domain::{
        execute::{ApplyContext, Done, Refusals, execute},
        report::step_conditions::Outcome,
        simulation::world::{desired, now},
    },
    model::{action::Action, step::Step},
    server_certificate::request_limiter::RequestLimiter,
};
use crate::{runtime::workers::Workers, telemetry::metrics::Metrics};

/// Returns the outcome of the actions and the AWS calls that they made. AWS answers each call with
/// `status`.
async fn executed(rates: &str, status: u16, actions: &[(Step, Action)]) -> (Done, Vec<String>) {
    executed_after(&Refusals::new(), rates, (status, "m"), actions).await
}

/// As [`executed`], after lasting refusals. AWS answers with this status and message.
async fn executed_after(
    refused: &Refusals,
    rates: &str,
    (status, message): (u16, &'static str),
    actions: &[(Step, Action)],
) -> (Done, Vec<String>) {
    let gate = Gate::new(Quota::new(Rates::with(&[rates.parse().unwrap()])), || true);
    let calls = Arc::new(Mutex::new(vec![]));
    let log = calls.clone();
    let session = fake::session(&gate, move |call, _| {
        log.lock().unwrap().push(call.to_owned());
        let arn = json!({"CertificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/1"});
        let code = match status {
            403 => "AccessDeniedException",
            404 => "ResourceNotFoundException",
            _ => "InternalFailure",
        };
        let body = match call.contains(".s3.") {
            _ if status == 200 => arn.to_string(),
            true => format!("<Error><Code>{code}</Code></Error>"),
            false => json!({"__type": code, "message": message}).to_string(),
        };
        (status, body)
    });
    let client = crate::runtime::fake::client(|_, _, _| crate::runtime::fake::refusal(404, "NotFound"));
    let d = desired();
    let domain = serde_json::from_value(json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
        "metadata": {"name": "partners", "namespace": "ns"}, "spec": {"domainName": "api.example.com"},
    }));
    let apply_context = ApplyContext {
        client: &client,
        workers: &Workers::start(&Metrics::new().0).unwrap(),
        session: &session,
        quota: &gate.quota,
        request_limiter: &RequestLimiter::default(),
        placement: &d.placement,
        domain: &domain.unwrap(),
        authorities: &d.authorities,
        old_conditions: &[],
        class: Class::Distrust,
        since: now(),
        refused,
        longest_pause: Duration::from_secs(300),
        now: now(),
    };
    let done = execute(
        actions.iter().map(|(step, action)| (*step, action)),
        &apply_context,
    )
    .await;
    let calls = std::mem::take(&mut *calls.lock().unwrap());
    (done, calls)
}

fn request() -> DomainRequest {
    DomainRequest {
        name: "api.example.com".into(),
        certificate_arn: "arn".into(),
        ownership_certificate_arn: None,
        truststore_uri: "s3://b/k".into(),
        truststore_version: "v".into(),
        ip_address_type: IpAddressType::Ipv4,
    }
}

fn scarce_actions() -> Vec<(Action, Operation)> {
    let (api_id, stages) = ("a1".to_owned(), vec!["prod".to_owned()]);
    let all = [
        (
            ApiGatewayAction::CreateDomain(request()),
            Operation::CreateDomainName,
        ),
        (
            ApiGatewayAction::UpdateDomain(request()),
            Operation::UpdateDomainName,
        ),
        (
            ApiGatewayAction::RestoreSecurityPolicy {
                name: "api.example.com".into(),
                from: "TLS_1_0".into(),
            },
            Operation::UpdateDomainName,
        ),
        (
            ApiGatewayAction::DeleteDomain {
                name: "api.example.com".into(),
            },
            Operation::DeleteDomainName,
        ),
        (
            ApiGatewayAction::Deploy {
                protocol: Protocol::Http,
                api_id,
                stages,
            },
            Operation::CreateDeployment,
        ),
    ];
    all.map(|(action, operation)| (Action::from(action), operation))
        .into()
}

#[tokio::test]
async fn a_scarce_call_is_queued_and_not_made_before_its_ticket_is_granted() {
    for (action, operation) in scarce_actions() {
        assert_eq!(action.operation(), Some(operation), "{action}");
        // A bucket begins empty.
        let (done, calls) = executed("acm=unlimited", 200, &[(Step::DomainProgrammed, action.clone())]).await;
        let queued = done
            .outcomes
            .get(&Step::DomainProgrammed)
            .is_some_and(Outcome::is_queued);
        assert!(
            queued && done.effects == 0 && calls.is_empty(),
            "{action}: {done:?} {calls:?}"
        );
        let (done, calls) = executed("*=unlimited", 200, &[(Step::DomainProgrammed, action.clone())]).await;
        assert!(
            done.effects == 1 && done.outcomes.is_empty() && calls.len() == 1,
            "{action}: {done:?} {calls:?}"
        );
    }
    for action in [
        Action::from(ApiGatewayAction::TagDomain { arn: "a".into() }),
        S3Action::EnableVersioning { bucket: "b".into() }.into(),
    ] {
        assert_eq!(action.operation(), None, "{action}");
    }
}

#[tokio::test]
async fn a_deletion_of_a_missing_resource_succeeds() {
    let arn = || "arn:aws:apigateway:eu-west-1::/apis/a1".to_owned();
    let (api_id, protocol) = ("a1".to_owned(), Protocol::Http);
    let function = Arn::from("arn:aws:lambda:eu-west-1:123456789012:function:f");
    let deletions: [Action; 9] = [
        AcmAction::DeleteCertificate { arn: arn() }.into(),
        ApiGatewayAction::ReleaseDomain { arn: arn() }.into(),
        AcmAction::ReleaseCertificate {
            arn: arn(),
            keys: vec!["k".into()],
        }
        .into(),
        ApiGatewayAction::DeleteDomain {
            name: "api.example.com".into(),
        }
        .into(),
        ApiGatewayAction::DeleteMapping {
            id: "m".into(),
            path: String::new(),
        }
        .into(),
        ApiGatewayAction::UntagApi {
            arn: arn(),
            keys: vec!["k".into()],
        }
        .into(),
        ApiGatewayAction::DeleteAuthorizer {
            protocol,
            api_id: api_id.clone(),
            id: "z".into(),
        }
        .into(),
        LambdaAction::ForbidFunction {
            function,
            statement: "s".into(),
        }
        .into(),
        S3Action::DeleteTruststoreVersion {
            bucket: "b".into(),
            key: "k".into(),
            version: "v".into(),
        }
        .into(),
    ];
    for action in deletions {
        let (done, calls) = executed("*=unlimited", 404, &[(Step::DomainProgrammed, action.clone())]).await;
        assert!(
            done.effects == 1 && done.outcomes.is_empty() && !calls.is_empty(),
            "{action}: {done:?}"
        );
        let (done, _) = executed("*=unlimited", 403, &[(Step::DomainProgrammed, action.clone())]).await;
        assert!(
            done.effects == 0 && done.outcomes.len() == 1,
            "{action}: {done:?}"
        );
    }
    for action in [
        ApiGatewayAction::TagDomain { arn: arn() },
        ApiGatewayAction::UpdateMapping {
            id: "m".into(),
            path: String::new(),
            api_id,
            stage: "s".into(),
        },
    ] {
        let (done, _) = executed(
            "*=unlimited",
            404,
            &[(Step::DomainProgrammed, action.clone().into())],
        )
        .await;
        assert!(
            done.effects == 0 && done.outcomes.len() == 1,
            "{action} is no deletion: {done:?}"
        );
    }
}

#[tokio::test]
async fn a_step_stops_at_its_first_failure_and_the_others_continue() {
    let tag = |arn: &str| Action::from(ApiGatewayAction::TagDomain { arn: arn.into() });
    let (mapped, programmed) = (Step::MappingsProgrammed, Step::DomainProgrammed);
    let actions = [(programmed, tag("a")), (programmed, tag("b")), (mapped, tag("c"))];
    let (done, calls) = executed("*=unlimited", 500, &actions).await;
    let made = |arn: &str| calls.iter().any(|call| call.ends_with(&format!("/tags/{arn}")));
    assert_eq!(
        [made("a"), made("b"), made("c")],
        [true, false, true],
        "{calls:?}"
    );
    assert_eq!(
        done.outcomes.keys().copied().collect::<Vec<_>>(),
        [programmed, mapped]
    );
    assert_eq!(done.effects, 0);
}

#[tokio::test]
async fn a_lasting_refusal_is_not_repeated_before_the_end_of_its_pause() {
    const DENIED: &str = "no, with an explicit deny in a service control policy";
    let step = Step::DomainProgrammed;
    let tag = |arn: &str| {
        [(
            step,
            Action::from(ApiGatewayAction::TagDomain { arn: arn.into() }),
        )]
    };
    let pauses = async |refused: &Refusals, answer, arn: &str| {
        let (done, calls) = executed_after(refused, "*=unlimited", answer, &tag(arn)).await;
        (done, calls.len())
    };
    tokio::time::pause();
    let (first, calls) = pauses(&Refusals::new(), (403, DENIED), "a").await;
    assert!(
        calls == 1 && first.retry_at.is_some() && first.outcomes.len() == 1,
        "{first:?}"
    );
    // Another wake-up in the meantime.
    tokio::time::advance(Duration::from_secs(59)).await;
    let (again, calls) = pauses(&first.refused, (200, DENIED), "a").await;
    assert_eq!((calls, again.retry_at), (0, first.retry_at), "{again:?}");
    assert_eq!(format!("{:?}", again.outcomes), format!("{:?}", first.outcomes));
    let (other, calls) = pauses(&again.refused, (200, DENIED), "b").await;
    assert_eq!(
        (calls, other.effects, other.retry_at),
        (1, 1, None),
        "another action"
    );
    let (again, calls) = pauses(&other.refused, (200, DENIED), "a").await;
    assert_eq!(calls, 0, "{again:?}");
    // A reconcile without an action of the step.
    let (idle, _) = executed_after(&again.refused, "*=unlimited", (200, DENIED), &[]).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let (second, calls) = pauses(&idle.refused, (403, DENIED), "a").await;
    assert_eq!(calls, 1, "{second:?}");
    tokio::time::advance(Duration::from_secs(119)).await;
    assert_eq!(
        pauses(&second.refused, (403, DENIED), "a").await.1,
        0,
        "twice as long"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    let (lifted, calls) = pauses(&second.refused, (200, DENIED), "a").await;
    assert_eq!(
        (calls, lifted.effects, lifted.refused.len()),
        (1, 1, 0),
        "{lifted:?}"
    );

    for message in [
        "m",
        "because no identity-based policy allows the apigateway:POST action",
    ] {
        let (done, _) = pauses(&Refusals::new(), (403, message), "a").await;
        assert!(
            done.retry_at.is_none() && done.refused.is_empty(),
            "{message}: {done:?}"
        );
    }
}

#[tokio::test]
async fn certificate_requests_are_limited() {
    let wanted = CertificateRequest {
        domain_name: "api.example.com".into(),
        names: vec![],
        key_algorithm: crate::aws::acm::KeyAlgorithm::Rsa2048,
        idempotency_token: "t".into(),
        tags: BTreeMap::new(),
    };
    let (step, again) = (Step::CertificateIssued, Step::TruststorePublished);
    let actions = [
        (step, Action::from(AcmAction::RequestCertificate(wanted.clone()))),
        (again, Action::from(AcmAction::RequestCertificate(wanted.clone()))),
    ];
    let (done, calls) = executed("*=unlimited", 200, &actions).await;
    assert!(done.effects == 1 && calls.len() == 2, "{done:?}");
    assert!(
        matches!(done.outcomes[&again], Outcome::NotShown(_)),
        "the same certificate again: {done:?}"
    );

    let request_limiter = RequestLimiter::default();
    let object = ObjectId::new("ns", "partners");
    for n in 0..5 {
        assert!(request_limiter.note(&object, &n.to_string(), now()));
    }
    let gate = Gate::new(Quota::new(Rates::with(&["*=unlimited".parse().unwrap()])), || {
        true
    });
    let session = fake::session(&gate, |call, _| panic!("{call} is one too many"));
    let client = crate::runtime::fake::client(|_, _, _| crate::runtime::fake::refusal(404, "NotFound"));
    let d = desired();
    let domain: MtlsDomain = serde_json::from_value(json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
        "metadata": {"name": "partners", "namespace": "ns"}, "spec": {"domainName": "api.example.com"},
    }))
    .unwrap();
    let apply_context = ApplyContext {
        client: &client,
        workers: &Workers::start(&Metrics::new().0).unwrap(),
        session: &session,
        quota: &gate.quota,
        request_limiter: &request_limiter,
        placement: &d.placement,
        domain: &domain,
        authorities: &d.authorities,
        old_conditions: &[],
        class: Class::Drift,
        since: now(),
        refused: &Refusals::new(),
        longest_pause: Duration::from_secs(300),
        now: now(),
    };
    let done = execute(
        [(step, &AcmAction::RequestCertificate(wanted).into())].into_iter(),
        &apply_context,
    )
    .await;
    assert!(
        matches!(done.outcomes[&step], Outcome::Limited { .. }) && done.outcomes[&step].is_queued(),
        "{done:?}"
    );
}

#[tokio::test]
async fn the_key_of_a_generated_authority_is_on_record_before_it_is_in_a_secret() {
    let rejects = Some("no room");
    // The first POST is a dry run.
    for (recorded, rejects, expected) in [
        (
            true,
            None,
            &["POST secrets", "PATCH mtlsdomains", "POST secrets"][..],
        ),
        (false, None, &["POST secrets", "PATCH mtlsdomains"]),
        (true, rejects, &["POST secrets"]),
    ] {
        let log = Arc::new(Mutex::new(vec![]));
        let said = log.clone();
        let client = crate::runtime::fake::client(move |method, path, body| {
            let kind = path
                .split('/')
                .find(|part| ["secrets", "mtlsdomains"].contains(part))
                .unwrap();
            said.lock().unwrap().push(format!("{method} {kind}"));
            match method.as_str() {
                "POST" if let Some(why) = rejects => crate::runtime::fake::refusal(403, why),
                "PATCH" if !recorded => crate::runtime::fake::refusal(404, "NotFound"),
                "PATCH" => (200, json!({"metadata": {}})),
                _ => (201, body),
            }
        });
        let gate = Gate::new(Quota::new(Rates::with(&["*=unlimited".parse().unwrap()])), || {
            true
        });
        let session = fake::session(&gate, |call, _| panic!("unexpected call: {call}"));
        let d = desired();
        let domain: MtlsDomain = serde_json::from_value(json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
            "metadata": {"name": "partners", "namespace": "ns", "resourceVersion": "1"},
            "spec": {"domainName": "api.example.com"},
        }))
        .unwrap();
        let apply_context = ApplyContext {
            client: &client,
            workers: &Workers::start(&Metrics::new().0).unwrap(),
            session: &session,
            quota: &gate.quota,
            request_limiter: &RequestLimiter::default(),
            placement: &d.placement,
            domain: &domain,
            authorities: &d.authorities,
            old_conditions: &[],
            class: Class::Drift,
            since: now(),
            refused: &Refusals::new(),
            longest_pause: Duration::from_secs(300),
            now: now(),
        };
        let action = Action::GenerateAuthority {
            authority: "partners".into(),
            recorded: None,
        };
        let done = execute([(Step::ResolvedRefs, &action)].into_iter(), &apply_context).await;
        assert_eq!(*log.lock().unwrap(), expected);
        assert_eq!(
            (done.effects, done.outcomes.len()),
            if recorded && rejects.is_none() {
                (1, 0)
            } else {
                (0, 1)
            }
        );
        if let Some(why) = rejects {
            let outcome = &done.outcomes[&Step::ResolvedRefs];
            assert!(
                matches!(outcome, Outcome::Rejected(told) if told.contains(why)),
                "{outcome:?}"
            );
        }
    }
}
