//! Metrics and Events follow an object from its creation to its end; probes and the log level work as
//! Kubernetes expects.
use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::DeleteParams};
use mtls_operator::api::events::EventReason;
use reqwest::{Client, Method, StatusCode};
use sandbox::{
    kubernetes::Kubernetes,
    operator::{Operator, OperatorOptions},
    process::free_port,
    tools,
};
use serde_json::json;

use crate::support::{
    kubernetes::objects::{DOMAIN, until},
    test_env::TestEnv,
    world::{eventually, run, world},
};

/// Address at which an operator listens.
struct Port {
    listen: String,
    http: Client,
}

impl Port {
    fn new() -> Port {
        // reqwest brings no crypto provider: the first caller installs it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()
            .expect("a client");
        Port {
            listen: format!("127.0.0.1:{}", free_port().expect("a port")),
            http,
        }
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> Result<(StatusCode, String), String> {
        let request = self
            .http
            .request(method, format!("http://{}{path}", self.listen))
            .body(body.to_owned());
        let answer = request.send().await.map_err(|e| e.to_string())?;
        let status = answer.status();
        Ok((status, answer.text().await.map_err(|e| e.to_string())?))
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, String), String> {
        self.send(Method::GET, path, "").await
    }

    /// Waits until a probe answers with this status, and with these words in its body.
    async fn says(&self, path: &str, status: StatusCode, words: &str) {
        eventually(&format!("{path}: {status} {words}"), async || {
            match self.get(path).await? {
                (now, body) if now == status && body.contains(words) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    async fn series(&self) -> Result<Vec<String>, String> {
        let (_, text) = self.get("/metrics").await?;
        Ok(text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect())
    }

    /// Waits until each text of `wanted` is the beginning of a series.
    async fn shows(&self, wanted: &[&str]) {
        eventually("the metrics", async || {
            let all = self.series().await?;
            let missing = wanted
                .iter()
                .find(|wanted| !all.iter().any(|line| line.starts_with(**wanted)));
            missing.map_or(Ok(()), |missing| {
                Err(format!("{missing} is not in\n{}", all.join("\n")))
            })
        })
        .await;
    }

    /// Waits until no series is about this object.
    async fn forgets(&self, namespace: &str, name: &str) {
        let labels = format!("namespace=\"{namespace}\",name=\"{name}\"");
        eventually(&format!("no series of {name}"), async || {
            let all = self.series().await?;
            all.into_iter()
                .find(|line| line.contains(&labels))
                .map_or(Ok(()), Err)
        })
        .await;
    }
}

/// Checks that Prometheus's own tool has no complaint about the metrics.
fn promtool_accepts(metrics: &str) {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/chart/promtool");
    let package = "github.com/prometheus/prometheus/cmd/promtool";
    let program =
        tools::go_program("promtool", &source, package, &["remove_all_sd"]).expect("promtool can be built");
    let mut promtool = Command::new(program);
    promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("the program starts");
    promtool
        .stdin
        .take()
        .expect("a pipe")
        .write_all(metrics.as_bytes())
        .expect("the program reads its input");
    let out = promtool.wait_with_output().expect("the program ends");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(
        out.status.success() && said.trim().is_empty(),
        "{said}\n{metrics}"
    );
}

#[test]
fn series_and_events_tell_an_objects_lifecycle() {
    run(async {
        let port = Port::new();
        let mut env = TestEnv::start_with(
            "observability",
            &[
                ("MTLS_OPERATOR_LISTEN", &port.listen),
                ("MTLS_OPERATOR_AWS_RATE", "CreateDomainName=1/3600:1"),
            ],
        )
        .await;
        let ns = &env.namespace.clone();
        port.says("/readyz", StatusCode::OK, "ok").await;
        port.says("/livez", StatusCode::OK, "ok").await;
        let errors = r#"controller="mtlsdomain",category="KubernetesApi""#;
        port.shows(&[
            r#"leader_election_master_status{name="mtls-operator"} 1"#,
            "mtls_operator_policy_in_force 0",
            &format!("controller_runtime_reconcile_errors_total{{{errors}}} 0"),
        ])
        .await;

        // The object is in the queue, whose first token comes in an hour.
        let of = |kind: &str, name: &str| format!(r#"kind="{kind}",namespace="{ns}",name="{name}""#);
        let domain = of(DOMAIN, "queued");
        env.create_domain("queued", json!({})).await;
        until(&env, DOMAIN, "queued", "DomainProgrammed", "Unknown", "Queued").await;
        port.shows(&[
            &format!(r#"mtls_operator_condition_status{{{domain},type="Ready",status="True"}} 0"#),
            &format!(r#"mtls_operator_condition_status{{{domain},type="Ready",status="Unknown"}} 1"#),
            &format!(
                r#"mtls_operator_condition_reason{{{domain},type="DomainProgrammed",reason="Queued"}} 1"#
            ),
            &format!(r#"mtls_operator_aws_quota_queue_position{{namespace="{ns}",name="queued",operation="CreateDomainName"}} 0"#),
            &format!(
                r#"mtls_operator_aws_quota_waiting_since_timestamp_seconds{{namespace="{ns}",name="queued",operation="CreateDomainName"}} 1"#
            ),
        ])
        .await;
        env.delete_domain("queued").await;
        port.forgets(ns, "queued").await;
        env.operator.set_env("MTLS_OPERATOR_AWS_RATE", "*=unlimited");
        env.operator.stop().await.expect("the operator stops");
        env.operator.restart().expect("the operator starts again");

        // Not allowed, then allowed: from blocked to Ready.
        env.control()
            .deny(&env.account.id, &["acm:RequestCertificate"])
            .await
            .expect("a denial");
        let domain = of(DOMAIN, "d");
        env.create_domain("d", json!({})).await;
        until(
            &env,
            DOMAIN,
            "d",
            "CertificateIssued",
            "False",
            "PermissionDenied",
        )
        .await;
        port.shows(&[
            &format!(r#"mtls_operator_condition_status{{{domain},type="Ready",status="False"}} 1"#),
            &format!(
                r#"mtls_operator_condition_reason{{{domain},type="Ready",reason="PermissionDenied"}} 1"#
            ),
            r#"mtls_operator_aws_api_calls_total{service="acm",operation="RequestCertificate",outcome="denied",error_code="AccessDenied"#,
        ])
        .await;
        env.control().deny(&env.account.id, &[]).await.expect("no denial");
        env.ready("d").await;
        env.create_certificate("client1", "d").await;
        env.certificate_ready("client1").await;
        port.shows(&[
            &format!(r#"mtls_operator_condition_status{{{domain},type="Ready",status="True"}} 1"#),
            &format!(r#"mtls_operator_certificate_expiration_timestamp_seconds{{certificate="server",namespace="{ns}",name="d"}} "#),
            &format!(
                r#"mtls_operator_certificate_expiration_timestamp_seconds{{certificate="authority",namespace="{ns}",name="d",authority="partners"}} "#
            ),
            &format!(
                r#"mtls_operator_condition_status{{{},type="Ready",status="True"}} 1"#,
                of("ClientCertificate", "client1")
            ),
            &format!(r#"mtls_operator_certificate_renewal_timestamp_seconds{{certificate="client",namespace="{ns}",name="client1"}} "#),
            &format!(r#"mtls_operator_client_certificates{{namespace="{ns}",name="d",ready="True"}} 1"#),
            r#"mtls_operator_first_time_to_readiness_seconds_count{kind="MtlsDomain"} 1"#,
            r#"mtls_operator_first_time_to_readiness_seconds_count{kind="ClientCertificate"} 1"#,
            r#"mtls_operator_step_duration_seconds_count{kind="MtlsDomain",type="DNSProgrammed"} 1"#,
            r#"mtls_operator_reconcile_stage_duration_seconds_count{controller="mtlsdomain",stage="execute"} "#,
            r#"mtls_operator_aws_api_calls_total{service="apigateway",operation="CreateDomainName",outcome="ok",error_code=""} 1"#,
            r#"mtls_operator_aws_api_call_duration_seconds_count{service="acm",operation="RequestCertificate"} "#,
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_start_time_seconds ",
        ])
        .await;
        let series = port.series().await.expect("the metrics");
        assert!(
            !series.iter().any(|line| line.contains("arn:")),
            "no ARN is a label"
        );
        assert!(
            !series
                .iter()
                .any(|line| line.starts_with("mtls_operator_condition_reason") && line.contains(&domain))
        );

        let (_, text) = port.get("/metrics").await.expect("the metrics");
        tokio::task::spawn_blocking(move || promtool_accepts(&text))
            .await
            .expect("no complaint");

        env.certificates()
            .delete("client1", &DeleteParams::default())
            .await
            .expect("the object can be deleted");
        port.forgets(ns, "client1").await;
        env.delete_domain("d").await;
        port.forgets(ns, "d").await;

        // Every Event's reason is in the list, with the type that the list says.
        let events = Api::<Event>::namespaced(env.client.clone(), ns)
            .list(&Default::default())
            .await
            .expect("a list");
        let events = events
            .items
            .into_iter()
            .filter(|e| e.reporting_controller.as_deref() == Some("mtls-operator"));
        let mut told = vec![];
        for event in events {
            let (reason, type_) = (event.reason.unwrap_or_default(), event.type_.unwrap_or_default());
            let known = EventReason::all().find(|known| known.as_str() == reason);
            let known = known.unwrap_or_else(|| panic!("{reason} is in no list"));
            assert_eq!(
                type_,
                if known.is_warning() { "Warning" } else { "Normal" },
                "{reason}"
            );
            told.push(reason);
        }
        for wanted in ["PermissionDenied", "Ready", "StillAccepted"] {
            assert!(
                told.iter().any(|reason| reason == wanted),
                "{wanted} is not among {told:?}"
            );
        }
    });
}

#[test]
fn the_log_level_changes_while_the_operator_runs() {
    run(async {
        let port = Port::new();
        let _env = TestEnv::start_with("loglevel", &[("MTLS_OPERATOR_LISTEN", &port.listen)]).await;
        port.says("/loglevel", StatusCode::OK, "info").await;
        let set = async |level: &str| {
            port.send(Method::PUT, "/loglevel", level)
                .await
                .expect("an answer")
        };
        assert_eq!(
            set("debug").await,
            (StatusCode::OK, "info,mtls_operator=debug\n".to_owned())
        );
        port.says("/loglevel", StatusCode::OK, "info,mtls_operator=debug")
            .await;
        assert_eq!(set("kube=trace").await.0, StatusCode::BAD_REQUEST);
        assert_eq!(set("").await, (StatusCode::OK, "info\n".to_owned()));
    });
}

/// Runs in a cluster of its own, because the others' clusters have the CRDs.
#[test]
fn an_operator_without_its_crds_is_not_ready_and_waits_for_them() {
    run(async {
        let env = TestEnv::start("no-crds").await; // for its account
        let dir = tempfile::tempdir().expect("a folder");
        let kubernetes = Kubernetes::start(dir.path()).await.expect("another API server");
        let port = Port::new();
        let mut variables = world().operator_env(&env.account, &env.prepared.bucket);
        let settings = [("LISTEN", port.listen.as_str()), ("CLUSTER_ID", "no-crds")];
        variables.extend(settings.map(|(name, value)| (format!("MTLS_OPERATOR_{name}"), value.to_owned())));
        kubernetes.namespace("n").await.expect("a namespace");
        let mut operator = Operator::start(
            &kubernetes,
            OperatorOptions {
                binary: PathBuf::from(env!("CARGO_BIN_EXE_mtls-operator")),
                dir: dir.path().join("operator"),
                namespace: "n".into(),
                watch: vec!["n".into()],
                env: variables,
                args: vec![],
            },
        )
        .await
        .expect("the operator starts");
        let missing =
            "the API server does not know MtlsDomain: its CustomResourceDefinition is not installed";
        port.says("/readyz", StatusCode::SERVICE_UNAVAILABLE, missing)
            .await;
        port.says("/livez", StatusCode::OK, "ok").await;
        let id = operator.process().expect("the operator runs").id();
        kubernetes
            .install_crds(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds"))
            .await
            .expect("the API server takes the CRDs");
        port.says("/readyz", StatusCode::OK, "ok").await;
        let process = operator.process().expect("the operator still runs");
        assert_eq!(process.id(), id);
    });
}
