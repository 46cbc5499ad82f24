//! The API server accepts all objects of the chart without a warning, and the operator runs with exactly the
//! service account, the arguments and the environment of its Deployment.
use std::{path::PathBuf, process::Stdio};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use sandbox::{
    operator::{Operator, OperatorOptions},
    process, tools,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{
    helm::{here, template},
    test_env::TestEnv,
    world::{eventually, run, world},
};

/// CustomResourceDefinitions of the Prometheus operator that the chart can use.
fn monitoring_crds() -> Vec<PathBuf> {
    let module = "github.com/prometheus-operator/prometheus-operator";
    let folder = tools::go_module(&here("tests/chart/monitoring"), module).expect("the module is available");
    let file = |kind| {
        folder.join(format!(
            "example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
        ))
    };
    ["servicemonitors", "podmonitors", "prometheusrules"]
        .map(file)
        .into()
}

/// Applies manifests like a `kubectl apply` that refuses fields outside of the schema. Returns its output.
async fn apply(manifests: &str) -> String {
    let kubernetes = &world().kubernetes;
    let mut kubectl = tokio::process::Command::new(kubernetes.bin_dir().join("kubectl"));
    kubectl.arg("--kubeconfig").arg(&kubernetes.kubeconfig);
    kubectl.args(["apply", "--server-side", "--validate=strict", "-f", "-"]);
    kubectl
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = kubectl.spawn().expect("the program starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(manifests.as_bytes())
        .await
        .expect("the program reads its input");
    let out = child.wait_with_output().await.expect("the program ends");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    said
}

/// Binds the chart's role to a ServiceAccount, whose token then gets the metrics; no other request does.
async fn metrics_are_for_readers(namespace: &str, port: u16) {
    let kubernetes = &world().kubernetes;
    let token = async |account: &str| {
        let path = world().dir.join(format!("{namespace}-{account}.kubeconfig"));
        let written = kubernetes
            .service_account_kubeconfig(namespace, account, &path)
            .await;
        written.expect("the API server gives a token");
        let text = std::fs::read_to_string(&path).expect("a kubeconfig");
        let config: Value = serde_saphyr::from_str(&text).expect("YAML");
        let token = config["users"][0]["user"]["token"].as_str().expect("a token");
        format!("Bearer {token}")
    };
    let (prometheus, other) = (token("prometheus").await, token("other").await);
    apply(
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("{namespace}-prometheus")},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": format!("partners-mtls-operator-{namespace}-metrics-reader"),
            },
            "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": namespace}],
        })
        .to_string(),
    )
    .await;
    // reqwest brings no crypto provider: the first caller installs it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let get = async |path: &str, authorization: Option<&str>| {
        let mut request = http.get(format!("http://127.0.0.1:{port}{path}"));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    };
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(path, None).await.0, 200, "{path}");
    }
    for (status, authorization) in [
        (401, None),
        (401, Some("Bearer stranger")),
        (403, Some(other.as_str())),
    ] {
        assert_eq!(get("/metrics", authorization).await.0, status);
    }
    // The authorizer of the API server reads the binding a moment later, and a decision holds for a minute.
    eventually("the metrics", async || {
        match get("/metrics", Some(&prometheus)).await {
            (200, text) if text.contains("mtls_operator_condition_status") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[test]
fn the_operator_of_the_chart_serves_a_domain() {
    run(async {
        let mut env = TestEnv::start("chart").await;
        env.operator.stop().await.expect("the operator stops");
        let monitoring = tokio::task::spawn_blocking(monitoring_crds)
            .await
            .expect("the CRDs are there");
        for crds in monitoring {
            world()
                .kubernetes
                .install_crds(&crds)
                .await
                .expect("the CRDs can be installed");
        }
        let port = process::free_port().expect("a port");
        let settings = world().operator_env(&env.account, &env.prepared.bucket);
        let settings = settings
            .into_iter()
            .filter(|(name, _)| !["LISTEN", "TRUSTSTORE_BUCKET"].iter().any(|s| name.ends_with(s)));
        let credentials = json!({"credentials": {"name": "prometheus-token", "key": "token"}});
        let values = json!({
            "clusterId": "chart",
            "watch": {"namespaces": [env.namespace]},
            "policy": {"mode": "AllowAll"},
            "truststoreBucket": env.prepared.bucket,
            "aws": {"rates": ["*=unlimited"]},
            "driftInterval": "1s",
            "truststorePropagation": "1s",
            "port": port,
            // The CRDs belong to the cluster, and all other tests use them.
            "crds": {"enabled": false},
            // No controller of this world makes the default ServiceAccount, which the test Pod runs as.
            "tests": {"enabled": false},
            "metrics": {
                "auth": true,
                "serviceMonitor": {"enabled": true, "authorization": credentials},
                "podMonitor": {"enabled": true, "authorization": credentials},
                "prometheusRule": {"enabled": true}, "dashboard": {"enabled": true},
            },
            // Settings that make an operator use this world instead of AWS.
            "extraEnv": settings
                .filter(|(name, _)| !name.ends_with("AWS_RATE") && !name.ends_with("DRIFT_INTERVAL"))
                .map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>(),
        });
        let namespace = env.namespace.clone();
        let manifests = tokio::task::spawn_blocking(move || template(&namespace, &values))
            .await
            .expect("the program ends")
            .expect("the chart is rendered");
        let said = apply(&manifests).await;
        assert!(!said.contains("Warning"), "{said}");

        // The Deployment as the API server has it, not as it was sent.
        let deployments = Api::<Deployment>::namespaced(env.client.clone(), &env.namespace);
        let deployment = deployments
            .get("partners-mtls-operator")
            .await
            .expect("the Deployment");
        let pod = deployment
            .spec
            .and_then(|spec| spec.template.spec)
            .expect("a Pod");
        let container = &pod.containers[0];
        let value = |variable: &k8s_openapi::api::core::v1::EnvVar| {
            let field = variable
                .value_from
                .as_ref()
                .and_then(|from| from.field_ref.as_ref());
            match field.map(|field| field.field_path.as_str()) {
                None => variable.value.clone().unwrap_or_default(),
                Some("metadata.name") => "partners-mtls-operator-0".into(),
                Some("metadata.namespace") => env.namespace.clone(),
                Some(other) => panic!("a kubelet would know {other}"),
            }
        };
        let variables = container
            .env
            .iter()
            .flatten()
            .map(|variable| (variable.name.clone(), value(variable)))
            .collect();
        let options = OperatorOptions {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_mtls-operator")),
            dir: world().dir.join(format!("{}-of-the-chart", env.namespace)),
            namespace: env.namespace.clone(),
            watch: vec![],
            env: variables,
            args: container.args.clone().unwrap_or_default(),
        };
        let account = pod.service_account_name.expect("a service account");
        env.operator = Operator::start_as(&world().kubernetes, &account, options)
            .await
            .expect("the operator starts");

        env.create_domain("d", json!({})).await;
        env.ready("d").await;
        env.create_certificate("client1", "d").await;
        env.certificate_ready("client1").await;
        let client1 = env.identity("client1").await;
        assert_eq!(env.call(&env.host(), "/", Some(&client1)).await.status, 200);
        metrics_are_for_readers(&env.namespace, port).await;
        env.delete_domain("d").await;
    });
}
