//! Tests of the AWS emulator through the SDK and through its control API.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aws_sdk_apigatewayv2::types::ProtocolType;
use http::Method;
use sandbox::aws::{self, Account, Aws, Options};
use sandbox::control::{Calls, CertificateState, Fault, Profile, When};
use sandbox::echo::{Echo, Echoed};
use sandbox::prepare::{
    Preparation, add_http_route, add_rest_resource, deploy_rest, hosted_zone, http_api, http_proxy_api,
    prepare, rest_orders_api, rest_proxy_api,
};

async fn start() -> (Aws, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Aws::start(dir.path(), &Options::default()).await.unwrap(), dir)
}

fn gateway(account: &Account) -> aws_sdk_apigatewayv2::Client {
    aws_sdk_apigatewayv2::Client::new(&account.sdk())
}

#[tokio::test]
async fn accounts_are_separate_and_the_journal_names_them() {
    let (aws, _dir) = start().await;
    let (one, other) = (aws.new_account(), aws.new_account());
    assert_ne!(one.id, other.id);
    let before = aws.control().calls(&Calls::default()).await.unwrap().last;
    let prepared = prepare(&one, &Preparation::of_its_own(&one)).await.unwrap();

    let zones = aws_sdk_route53::Client::new(&other.sdk())
        .list_hosted_zones()
        .send()
        .await
        .unwrap();
    assert!(zones.hosted_zones.is_empty());
    assert!(
        gateway(&other)
            .get_api()
            .api_id(&prepared.api_id)
            .send()
            .await
            .is_err()
    );
    assert_eq!(
        gateway(&one)
            .get_api()
            .api_id(&prepared.api_id)
            .send()
            .await
            .unwrap()
            .name
            .unwrap(),
        "hello"
    );
    let bucket = aws_sdk_s3::Client::new(&one.sdk());
    let place = bucket
        .get_bucket_location()
        .bucket(&prepared.bucket)
        .send()
        .await
        .unwrap();
    assert_eq!(place.location_constraint.unwrap().as_str(), one.region);
    let versioning = bucket
        .get_bucket_versioning()
        .bucket(&prepared.bucket)
        .send()
        .await
        .unwrap();
    assert_eq!(versioning.status.unwrap().as_str(), "Enabled");

    let writes = Calls {
        account: &one.id,
        since: before,
        writes: true,
        ..Calls::default()
    };
    let journal = aws.control().calls(&writes).await.unwrap();
    let operations: Vec<_> = journal.calls.iter().map(|call| call.operation.as_str()).collect();
    let want = [
        "CreateHostedZone",
        "CreateBucket",
        "PutBucketVersioning",
        "CreateFunction",
        "CreateApi",
        "CreateIntegration",
        "CreateRoute",
        "CreateStage",
    ];
    assert_eq!(operations, want);
    assert!(
        journal
            .calls
            .iter()
            .all(
                |call| call.status.is_some_and(|status| status < 300) && call.region == one.region
                    || call.service == "route53"
            )
    );
    let failed = Calls {
        account: &other.id,
        operation: "GetApi",
        ..Calls::default()
    };
    assert_eq!(
        aws.control().calls(&failed).await.unwrap().calls[0].code,
        "NotFoundException"
    );
    let stats = aws
        .control()
        .stats(&Calls {
            account: &one.id,
            ..Calls::default()
        })
        .await
        .unwrap();
    assert_eq!(
        (
            stats.writes,
            stats.throttled,
            stats.by_operation["apigatewayv2.CreateApi"].ok
        ),
        (8, 0, 1)
    );
}

#[tokio::test]
async fn an_api_can_have_a_chosen_id() {
    let (aws, _dir) = start().await;
    let (one, other) = (aws.new_account(), aws.new_account());
    assert_eq!(
        http_api(&one, "hello", Some("a1b2c3d4e5")).await.unwrap(),
        "a1b2c3d4e5"
    );
    let shown = gateway(&one).get_api().api_id("a1b2c3d4e5").send().await.unwrap();
    let endpoint = format!("https://a1b2c3d4e5.execute-api.{}.amazonaws.com", one.region);
    assert_eq!(shown.api_endpoint.unwrap(), endpoint);
    assert!(
        http_api(&other, "hello", Some("a1b2c3d4e5")).await.is_err(),
        "ids are unique"
    );
    assert_ne!(http_api(&one, "other", None).await.unwrap(), "a1b2c3d4e5");
}

#[tokio::test]
async fn knobs_quotas_faults_and_denials_are_of_one_account() {
    let (aws, _dir) = start().await;
    let (one, other) = (aws.new_account(), aws.new_account());
    let control = aws.control();
    let create = |account: &Account| {
        gateway(account)
            .create_api()
            .name("a")
            .protocol_type(ProtocolType::Http)
            .send()
    };

    control.set_profile(&one.id, Profile::Aws).await.unwrap();
    control
        .set_knobs(&one.id, &[("apigateway_burst", 1.0), ("apigateway_rate", 0.001)])
        .await
        .unwrap();
    assert_eq!(
        control.knobs(&one.id).await.unwrap()["domain_write_interval"],
        30.0
    );
    assert_eq!(
        control.knobs(&other.id).await.unwrap()["domain_write_interval"],
        0.0
    );
    assert!(control.set_knobs("", &[("no_such_knob", 1.0)]).await.is_err());
    create(&one).await.unwrap();
    let throttled = create(&one).await.unwrap_err();
    assert!(
        throttled
            .as_service_error()
            .unwrap()
            .is_too_many_requests_exception(),
        "{throttled:?}"
    );
    create(&other).await.unwrap();
    control.advance(&one.id, Duration::from_secs(1000)).await.unwrap();
    create(&one).await.unwrap();
    control.set_profile(&one.id, Profile::Fast).await.unwrap();
    create(&one).await.unwrap();

    control.deny(&one.id, &["apigateway:POST"]).await.unwrap();
    assert_eq!(
        create(&one)
            .await
            .unwrap_err()
            .raw_response()
            .unwrap()
            .status()
            .as_u16(),
        403
    );
    control.deny(&one.id, &[]).await.unwrap();

    let hold = Fault {
        operation: "CreateApi",
        account: &one.id,
        when: When::After,
        hold: true,
        ..Fault::default()
    };
    let rule = control.add_faults(&[hold]).await.unwrap().remove(0);
    let held = tokio::spawn(create(&one));
    common::eventually("the call is held", async || {
        control
            .faults()
            .await
            .unwrap()
            .iter()
            .any(|fault| fault.id == rule.id && fault.held == 1)
    })
    .await;
    assert_eq!(control.release(rule.id).await.unwrap(), 1);
    held.await.unwrap().unwrap();
    let lost = Fault {
        operation: "CreateApi",
        account: &one.id,
        times: -1,
        drop_reply: true,
        ..Fault::default()
    };
    let rule = control.add_faults(&[lost]).await.unwrap().remove(0);
    assert!(create(&one).await.unwrap_err().raw_response().is_none());
    create(&other).await.unwrap();
    control.remove_fault(rule.id).await.unwrap();
    create(&one).await.unwrap();
}

#[tokio::test]
async fn states_can_be_forced() {
    let (aws, _dir) = start().await;
    let account = aws.new_account();
    let prepared = prepare(&account, &Preparation::of_its_own(&account))
        .await
        .unwrap();
    let name = format!("api.{}", prepared.zone);
    let (arn, target) = common::domain(&account, &prepared, &name, None).await;
    let control = aws.control();

    let forced = control
        .set_domain_status(&account.id, &name, "PENDING_CERTIFICATE_REIMPORT", "m")
        .await
        .unwrap();
    let view = control.edge(&account.id).await.unwrap();
    assert_eq!(
        (forced, view.domains[0].status.as_str()),
        (1, "PENDING_CERTIFICATE_REIMPORT")
    );
    assert_eq!(
        control.edge_of_host(&target).await.unwrap().domains[0].domain_name,
        name
    );
    assert!(
        control
            .edge_of_host("elsewhere.example.com")
            .await
            .unwrap()
            .domains
            .is_empty()
    );

    let expired = CertificateState {
        arn: &arn,
        status: "EXPIRED",
        not_after: Some(0.0),
        ..CertificateState::default()
    };
    assert_eq!(control.set_certificate(&expired).await.unwrap(), 1);
    let view = control.edge(&account.id).await.unwrap();
    assert_eq!(view.domains[0].certificate.as_ref().unwrap().status, "EXPIRED");

    hosted_zone(&account, &format!("sub.{}", prepared.zone))
        .await
        .unwrap();
    let zones = control
        .zones_above(&format!("x.sub.{}.", prepared.zone))
        .await
        .unwrap();
    assert_eq!(zones.len(), 2);
    control.reset().await.unwrap();
    assert!(control.zones("").await.unwrap().is_empty());
}

/// Sends a request to the default endpoint of an API; returns the request as it arrived at the back end.
async fn echoed(
    aws: &Aws,
    account: &Account,
    api: &str,
    method: Method,
    path: &str,
) -> (u16, Option<Echoed>) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.request(method, format!("{}{path}", aws.endpoint()));
    let request = request.header(
        "host",
        format!("{api}.execute-api.{}.amazonaws.com", account.region),
    );
    let answer = request.header("x-sent", "by the caller").send().await.unwrap();
    (
        answer.status().as_u16(),
        serde_json::from_slice(&answer.bytes().await.unwrap()).ok(),
    )
}

#[tokio::test]
async fn apis_pass_requests_on_to_a_back_end_as_they_were_deployed() {
    let (aws, _dir) = start().await;
    let (account, echo) = (aws.new_account(), Echo::start().await.unwrap());
    let arrived = async |api: &str, method: Method, path: &str| {
        let (status, echoed) = echoed(&aws, &account, api, method, path).await;
        (status, echoed.expect("an echo"))
    };

    let http = http_proxy_api(&account, "http", &echo.url(), false)
        .await
        .unwrap();
    let (status, got) = arrived(&http, Method::PUT, "/a/b?q=1").await;
    assert_eq!(
        (status, got.method.as_str(), got.path.as_str()),
        (200, "PUT", "/a/b")
    );
    assert_eq!(got.headers["x-sent"], "by the caller");
    let v2 = gateway(&account);
    let integration = add_http_route(&account, &http, "GET /a", &echo.url())
        .await
        .unwrap();
    let set = v2.update_integration().api_id(&http).integration_id(integration);
    set.request_parameters("overwrite:header.x-sent", "by the API")
        .send()
        .await
        .unwrap();
    assert_eq!(
        arrived(&http, Method::GET, "/a").await.1.headers["x-sent"],
        "by the caller"
    );
    v2.create_deployment()
        .api_id(&http)
        .stage_name("$default")
        .send()
        .await
        .unwrap();
    assert_eq!(
        arrived(&http, Method::GET, "/a").await.1.headers["x-sent"],
        "by the API"
    );

    let proxy = rest_proxy_api(&account, "proxy", &echo.url()).await.unwrap();
    let (status, got) = arrived(&proxy, Method::DELETE, "/prod/a/b").await;
    assert_eq!(
        (status, got.method.as_str(), got.path.as_str()),
        (200, "DELETE", "/a/b")
    );
    assert_eq!(got.headers["x-sent"], "by the caller");

    let orders = rest_orders_api(&account, "orders", &echo.url()).await.unwrap();
    let (_, got) = arrived(&orders, Method::GET, "/prod/orders").await;
    assert_eq!(
        (got.method.as_str(), got.headers.get("x-sent").map(String::as_str)),
        ("GET", Some("by the caller"))
    );
    let (_, got) = arrived(&orders, Method::POST, "/prod/orders").await;
    assert_eq!(
        (got.method.as_str(), got.path.as_str(), got.headers.get("x-sent")),
        ("POST", "/orders", None)
    );
    assert_eq!(
        echoed(&aws, &account, &orders, Method::OPTIONS, "/prod/orders").await,
        (200, None)
    );
    add_rest_resource(&account, &orders, "returns", &echo.url())
        .await
        .unwrap();
    assert_eq!(
        echoed(&aws, &account, &orders, Method::GET, "/prod/returns")
            .await
            .0,
        403,
        "not deployed"
    );
    deploy_rest(&account, &orders).await.unwrap();
    assert_eq!(
        arrived(&orders, Method::GET, "/prod/returns").await.1.path,
        "/orders"
    );
}

#[test]
fn the_emulator_passes_its_own_tests() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("aws");
    let python = aws::python_with("selftest", &source.join("selftest/requirements.txt")).unwrap();
    let tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "selftest"];
    let mut command = Command::new(python);
    command
        .args(tests)
        .current_dir(&source)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[tokio::test]
async fn a_dumped_account_is_the_same_in_another_emulator() {
    let (aws, _dir) = start().await;
    let account = aws.new_account();
    let prepared = prepare(&account, &Preparation::of_its_own(&account))
        .await
        .unwrap();
    // Only after the function of the API has become active.
    let lambda = aws_sdk_lambda::Client::new(&account.sdk());
    common::eventually("the function is active", async || {
        let found = lambda
            .get_function_configuration()
            .function_name("hello")
            .send()
            .await
            .unwrap();
        found.state.is_some_and(|state| state.as_str() == "Active")
    })
    .await;
    let dump = aws.control().dump(&account.id).await.unwrap();

    let (other, _dir) = start().await;
    let there = other.account(&account.id);
    assert!(
        gateway(&there)
            .get_api()
            .api_id(&prepared.api_id)
            .send()
            .await
            .is_err()
    );
    other.control().load(&dump).await.unwrap();
    assert_eq!(other.control().dump(&account.id).await.unwrap(), dump);
    assert_eq!(
        gateway(&there)
            .get_api()
            .api_id(&prepared.api_id)
            .send()
            .await
            .unwrap()
            .name
            .unwrap(),
        "hello"
    );
    let mut unknown = dump.clone();
    unknown["stores"]["s3._nothing_like_it"] = serde_json::json!([]);
    assert!(other.control().load(&unknown).await.is_err());
}
