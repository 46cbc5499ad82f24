//! The Helm chart, through Helm itself: what it renders, what it refuses, and that it says the same thing twice. That what it renders works
//! in a cluster is a whole life of its own (`tests/lives/chart.rs`).
use std::process::Command;

use serde_json::{Value, json};

#[path = "chart/helm.rs"]
mod helm;

use helm::{helm, here};

/// The values without which there is no chart, for one namespace.
fn least() -> Value {
    json!({"clusterId": "c1", "policy": {"mode": "AllowAll"}})
}

fn template(values: &Value) -> Result<String, String> {
    helm::template("mtls", values)
}

fn objects(values: &Value) -> Vec<Value> {
    let yaml = template(values).unwrap_or_else(|error| panic!("{values}: {error}"));
    let all: Vec<Value> = serde_saphyr::from_multiple(&yaml).expect("YAML");
    all.into_iter().filter(|object| !object.is_null()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn with(more: &Value) -> Value {
    let mut values = least();
    merge(&mut values, more);
    values
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

#[test]
fn lint_finds_nothing() {
    let out = helm(&["lint", "--strict"], &least());
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

/// Argo CD renders at every look, and shows whatever differs.
#[test]
fn the_same_values_render_the_same_bytes() {
    let values = with(&json!({"replicaCount": 3, "metrics": {"podMonitor": {"enabled": true}}}));
    assert_eq!(template(&values), template(&values));
}

#[test]
fn what_only_the_user_knows_is_asked_for() {
    for (values, words) in [
        (json!({"policy": {"mode": "AllowAll"}}), "clusterId: name this cluster"),
        (json!({"clusterId": "c1"}), "policy.mode: choose Rules"),
        (with(&json!({"policy": {"rules": [{"name": "x"}]}})), "policy.rules: they count only with policy.mode Rules"),
        (
            with(&json!({"watch": {"scope": "Cluster", "namespaces": ["a"]}})),
            "watch.namespaces: with watch.scope Cluster",
        ),
        (with(&json!({"serviceAccount": {"create": false}})), "serviceAccount.name: name the ServiceAccount"),
        (
            with(&json!({"metrics": {"service": {"enabled": false}, "serviceMonitor": {"enabled": true}}})),
            "metrics.serviceMonitor: it needs metrics.service.enabled",
        ),
        (with(&json!({"replicas": 3})), "additional properties 'replicas' not allowed"),
        (with(&json!({"watch": {"scope": "All"}})), "watch/scope"),
        (with(&json!({"driftInterval": "5 minutes"})), "driftInterval"),
    ] {
        let refusal = template(&values).expect_err(words);
        assert!(refusal.contains(words), "{values}: {refusal}");
    }
}

#[test]
fn rights_are_namespaced_unless_the_cluster_is_asked_for() {
    let namespaced =
        objects(&with(&json!({"watch": {"namespaces": ["payments", "orders"]}, "rbac": {"userRoles": false}})));
    assert_eq!(of_kind(&namespaced, "ClusterRole"), Vec::<&Value>::new());
    assert_eq!(of_kind(&namespaced, "ClusterRoleBinding"), Vec::<&Value>::new());
    let mut places: Vec<_> =
        of_kind(&namespaced, "Role").iter().map(|role| role["metadata"]["namespace"].clone()).collect();
    places.sort_by_key(Value::to_string);
    assert_eq!(places, ["mtls", "orders", "payments"]);
    let args = |objects: &[Value]| {
        of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"].clone()
    };
    let told = args(&namespaced).to_string();
    assert!(told.contains("--watch-namespace=payments") && told.contains("--watch-namespace=orders"), "{told}");

    // Without a list: where the release is.
    assert!(args(&objects(&least())).to_string().contains("--watch-namespace=mtls"));

    let labels = objects(&with(&json!({"rbac": {"userRoles": false, "namespaceLabels": true}})));
    assert!(of_kind(&labels, "ClusterRole")[0]["rules"].to_string().contains("namespaces"));

    let cluster =
        objects(&json!({"watch": {"scope": "Cluster"}, "policy": {"mode": "AllowAll"}, "rbac": {"userRoles": false}}));
    let roles = of_kind(&cluster, "ClusterRole");
    assert_eq!(roles.len(), 1);
    assert!(roles[0]["rules"].to_string().contains("secrets") && roles[0]["rules"].to_string().contains("kube-system"));
    assert!(!args(&cluster).to_string().contains("watch-namespace"));
}

/// Those that the attack tests hold off.
#[test]
fn who_may_grant_and_request_has_the_rights_of_the_example() {
    let example = std::fs::read_to_string(here("examples/rbac.yaml")).expect("it is there");
    let example: Vec<Value> = serde_saphyr::from_multiple(&example).expect("YAML");
    let all = objects(&least());
    for suffix in ["may-grant", "may-request"] {
        let is_it = |role: &&Value| role["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(suffix));
        let ours = of_kind(&all, "ClusterRole").into_iter().find(is_it).expect("the chart has it");
        let theirs = example.iter().find(is_it).expect("the example has it");
        assert_eq!(ours["rules"], theirs["rules"], "{suffix}");
    }
}

#[test]
fn every_flag_is_one_that_the_operator_knows() {
    let values = with(&json!({
        "truststoreBucket": "stores-{account}", "policy": {"mode": "Rules"}, "aws": {"region": "eu-west-1", "rates": ["*=unlimited"]},
    }));
    let all = objects(&values);
    let args = &of_kind(&all, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"];
    let flags: Vec<_> = args.as_array().expect("a list").iter().map(|arg| arg.as_str().expect("a string")).collect();
    // clap refuses the first one that it does not know or understand; --version ends it there otherwise.
    let out =
        Command::new(env!("CARGO_BIN_EXE_mtls-operator")).args(&flags).arg("--version").output().expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn pods_are_as_restricted_as_pod_security_asks() {
    let all = objects(&least());
    let pod = &of_kind(&all, "Deployment")[0]["spec"]["template"]["spec"];
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
}

#[test]
fn crds_are_those_of_the_repository_and_stay_when_asked() {
    let files = here("crds").read_dir().expect("crds").count();
    let all = objects(&least());
    let crds = of_kind(&all, "CustomResourceDefinition");
    assert_eq!(crds.len(), files);
    for crd in crds {
        assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        let plural = crd["spec"]["names"]["plural"].as_str().expect("a name");
        let file = std::fs::read_to_string(here(&format!("crds/{plural}.yaml"))).expect("it is there");
        let file: Value = serde_saphyr::from_str(&file).expect("YAML");
        assert!(crd["spec"] == file["spec"], "{plural} differs from crds/{plural}.yaml");
    }
    let gone = objects(&with(&json!({"crds": {"keep": false}})));
    assert!(of_kind(&gone, "CustomResourceDefinition").iter().all(|crd| crd["metadata"]["annotations"].is_null()));
    assert_eq!(
        of_kind(&objects(&with(&json!({"crds": {"enabled": false}}))), "CustomResourceDefinition"),
        Vec::<&Value>::new()
    );
}
