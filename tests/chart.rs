//! The Helm chart, rendered by Helm: the rendered objects, the refused values, and identical output of two
//! runs. `tests/e2e/installation/helm_chart.rs` runs the rendered objects in a cluster. Prometheus's own tool
//! tests the alerts.
use std::{collections::BTreeMap, path::Path, process::Command};

use serde_json::{Value, json};

#[path = "chart/archive.rs"]
mod archive;
#[path = "chart/helm.rs"]
mod helm;
#[path = "chart/install.rs"]
mod install;
#[path = "chart/pages.rs"]
mod pages;
#[path = "chart/values.rs"]
mod values;

use helm::{helm, here};
use sandbox::tools;

/// Minimal values that the chart requires, for one namespace.
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
    assert!(
        out.status.success(),
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Argo CD renders at every reconcile, and shows every difference.
#[test]
fn the_same_values_render_the_same_bytes() {
    let values = with(&json!({"replicaCount": 3, "metrics": {"podMonitor": {"enabled": true}}}));
    assert_eq!(template(&values), template(&values));
}

#[test]
fn incomplete_values_are_refused_with_the_value_to_set() {
    for (values, words) in [
        (
            json!({"policy": {"mode": "AllowAll"}}),
            "clusterId: name this cluster",
        ),
        (json!({"clusterId": "c1"}), "policy.mode: choose Rules"),
        (
            with(&json!({"policy": {"rules": [{"name": "x"}]}})),
            "policy.rules: they count only with policy.mode Rules",
        ),
        (
            with(&json!({"watch": {"scope": "Cluster", "namespaces": ["a"]}})),
            "watch.namespaces: with watch.scope Cluster",
        ),
        (
            with(&json!({"serviceAccount": {"create": false}})),
            "serviceAccount.name: name the ServiceAccount",
        ),
        (
            with(&json!({"metrics": {"service": {"enabled": false}, "serviceMonitor": {"enabled": true}}})),
            "metrics.serviceMonitor: it needs metrics.service.enabled",
        ),
        (
            with(&json!({"replicas": 3})),
            "additional properties 'replicas' not allowed",
        ),
        (with(&json!({"watch": {"scope": "All"}})), "watch/scope"),
        (with(&json!({"driftInterval": "5 minutes"})), "driftInterval"),
    ] {
        let refusal = template(&values).expect_err(words);
        assert!(refusal.contains(words), "{values}: {refusal}");
    }
}

#[test]
fn rights_are_namespaced_unless_the_cluster_is_asked_for() {
    let namespaced = objects(&with(
        &json!({"watch": {"namespaces": ["payments", "orders"]}, "rbac": {"userRoles": false}}),
    ));
    assert_eq!(of_kind(&namespaced, "ClusterRole"), Vec::<&Value>::new());
    assert_eq!(of_kind(&namespaced, "ClusterRoleBinding"), Vec::<&Value>::new());
    let mut places: Vec<_> = of_kind(&namespaced, "Role")
        .iter()
        .map(|role| role["metadata"]["namespace"].clone())
        .collect();
    places.sort_by_key(Value::to_string);
    assert_eq!(places, ["mtls", "orders", "payments"]);
    let args = |objects: &[Value]| {
        of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"].clone()
    };
    let told = args(&namespaced).to_string();
    assert!(
        told.contains("--watch-namespace=payments") && told.contains("--watch-namespace=orders"),
        "{told}"
    );

    // Without a list: the namespace of the release.
    assert!(
        args(&objects(&least()))
            .to_string()
            .contains("--watch-namespace=mtls")
    );

    let labels = objects(&with(
        &json!({"rbac": {"userRoles": false, "namespaceLabels": true}}),
    ));
    assert!(
        of_kind(&labels, "ClusterRole")[0]["rules"]
            .to_string()
            .contains("namespaces")
    );

    let cluster = objects(
        &json!({"watch": {"scope": "Cluster"}, "policy": {"mode": "AllowAll"}, "rbac": {"userRoles": false}}),
    );
    let roles = of_kind(&cluster, "ClusterRole");
    assert_eq!(roles.len(), 1);
    assert!(
        roles[0]["rules"].to_string().contains("secrets")
            && roles[0]["rules"].to_string().contains("kube-system")
    );
    assert!(!args(&cluster).to_string().contains("watch-namespace"));
}

/// The attack tests run as users with the rights of this example.
#[test]
fn roles_to_grant_and_request_have_the_rights_of_the_example() {
    let example = std::fs::read_to_string(here("examples/rbac.yaml")).expect("the file can be read");
    let example: Vec<Value> = serde_saphyr::from_multiple(&example).expect("YAML");
    let all = objects(&least());
    for suffix in ["may-grant", "may-request"] {
        let is_it = |role: &&Value| {
            role["metadata"]["name"]
                .as_str()
                .is_some_and(|name| name.ends_with(suffix))
        };
        let ours = of_kind(&all, "ClusterRole")
            .into_iter()
            .find(is_it)
            .expect("the chart has it");
        let theirs = example.iter().find(is_it).expect("the example has it");
        assert_eq!(ours["rules"], theirs["rules"], "{suffix}");
    }
}

#[test]
fn every_flag_is_one_that_the_operator_knows() {
    let values = with(&json!({
        "truststoreBucket": "stores-{account}", "policy": {"mode": "Rules"},
        "aws": {"region": "eu-west-1", "rates": ["*=unlimited"], "tags": {"cost center": "4711"}},
        "metrics": {"auth": true},
    }));
    let all = objects(&values);
    let args = &of_kind(&all, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"];
    let flags: Vec<_> = args
        .as_array()
        .expect("a list")
        .iter()
        .map(|arg| arg.as_str().expect("a string"))
        .collect();
    // clap refuses the first argument that is unknown or invalid. Otherwise --version ends the process there.
    let out = Command::new(env!("CARGO_BIN_EXE_mtls-operator"))
        .args(&flags)
        .arg("--version")
        .output()
        .expect("the program runs");
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
        let file =
            std::fs::read_to_string(here(&format!("crds/{plural}.yaml"))).expect("the file can be read");
        let file: Value = serde_saphyr::from_str(&file).expect("YAML");
        assert!(
            crd["spec"] == file["spec"],
            "{plural} differs from crds/{plural}.yaml"
        );
    }
    let gone = objects(&with(&json!({"crds": {"keep": false}})));
    assert!(
        of_kind(&gone, "CustomResourceDefinition")
            .iter()
            .all(|crd| crd["metadata"]["annotations"].is_null())
    );
    assert_eq!(
        of_kind(
            &objects(&with(&json!({"crds": {"enabled": false}}))),
            "CustomResourceDefinition"
        ),
        Vec::<&Value>::new()
    );
}

/// Alerts as the chart renders them.
fn rules() -> Value {
    let all = objects(&with(
        &json!({"metrics": {"prometheusRule": {"enabled": true, "labels": {"release": "x"}}}}),
    ));
    let rule = of_kind(&all, "PrometheusRule")[0];
    assert_eq!(rule["metadata"]["labels"]["release"], "x");
    rule["spec"].clone()
}

/// Rules of the spec, one by one.
fn each(rules: &Value) -> impl Iterator<Item = &Value> {
    rules["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"))
}

fn promtool(dir: &Path, arguments: &[&str]) {
    let package = "github.com/prometheus/prometheus/cmd/promtool";
    let program = tools::go_program(
        "promtool",
        &here("tests/chart/promtool"),
        package,
        &["remove_all_sd"],
    );
    let program = program.expect("promtool can be built");
    let out = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("the program runs");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(out.status.success(), "promtool {}: {said}", arguments.join(" "));
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    let mut rules = rules();
    let dir = tempfile::tempdir().expect("a folder");
    let write = |file: &str, content: &str| std::fs::write(dir.path().join(file), content).expect("a file");
    write("rules.yaml", &rules.to_string());
    promtool(
        dir.path(),
        &["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"],
    );

    let tests = std::fs::read_to_string(here("tests/chart/alerts.yaml")).expect("the file can be read");
    let groups = rules["groups"].as_array_mut().expect("groups").iter_mut();
    for rule in groups.flat_map(|group| group["rules"].as_array_mut().expect("rules")) {
        let alert = rule["alert"].as_str().expect("a name").to_owned();
        let annotations = rule["annotations"]
            .as_object_mut()
            .expect("an alert says something");
        assert!(
            annotations.remove("description").is_some() && annotations.contains_key("summary"),
            "{alert}"
        );
        // The alert's own section, which `pages` checks.
        let runbook = annotations.remove("runbook_url").expect("an alert has a runbook");
        let section = format!("/docs/alerts.md#{}", alert.to_lowercase());
        assert!(
            runbook.as_str().is_some_and(|url| url.ends_with(&section)),
            "{alert}: {runbook}"
        );
    }
    write("rules.yaml", &rules.to_string());
    write("alerts.yaml", &tests);
    promtool(dir.path(), &["test", "rules", "alerts.yaml"]);

    // Each alert fires in at least one test.
    let tests: Value = serde_saphyr::from_str(&tests).expect("YAML");
    let of_tests = tests["tests"].as_array().expect("a list").iter();
    let cases: Vec<_> = of_tests
        .flat_map(|test| test["alert_rule_test"].as_array().expect("a list"))
        .collect();
    for rule in each(&rules) {
        let comes = |case: &&Value| {
            case["alertname"] == rule["alert"] && case["exp_alerts"].as_array().is_some_and(|a| !a.is_empty())
        };
        assert!(cases.iter().any(comes), "{} fires in no test", rule["alert"]);
    }
}

/// Metrics of docs/metrics.md, which another test keeps up to date: the name in queries, and the labels.
fn documented() -> BTreeMap<String, Vec<String>> {
    let doc = std::fs::read_to_string(here("docs/metrics.md")).expect("the file can be read");
    let rows = doc
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| row.split(" | ").collect::<Vec<_>>());
    let mut all = BTreeMap::new();
    for row in
        rows.filter(|row| row.len() == 4 && ["counter", "gauge", "histogram", "info"].contains(&row[1]))
    {
        let name = row[0].trim_end_matches('`');
        let labels: Vec<_> = row[2]
            .split(", ")
            .map(|label| label.trim_matches('`').to_owned())
            .collect();
        let suffixes: &[&str] = if row[1] == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        all.extend(
            suffixes
                .iter()
                .map(|suffix| (format!("{name}{suffix}"), labels.clone())),
        );
    }
    all
}

/// Returns each metric in a PromQL query that has the form of an operator's metric, with the labels that
/// select it.
fn asked(query: &str) -> Vec<(String, Vec<String>)> {
    let ours = [
        "mtls_operator_",
        "controller_runtime_",
        "leader_election_",
        "process_",
    ];
    let mut asked = vec![];
    let mut rest = query;
    while let Some(start) = ours.iter().filter_map(|prefix| rest.find(prefix)).min() {
        let end = rest[start..]
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .map_or(rest.len(), |n| start + n);
        let metric = rest[start..end].to_owned();
        rest = &rest[end..];
        let chosen = rest
            .strip_prefix('{')
            .and_then(|rest| Some(rest.split_once('}')?.0))
            .unwrap_or_default();
        let labels = chosen
            .split(", ")
            .filter_map(|matcher| Some(matcher.split_once(['=', '!'])?.0.to_owned()));
        asked.push((metric, labels.collect()));
    }
    asked
}

/// Every metric that an alert or the dashboard queries is a metric of the operator, with that label.
#[test]
fn alerts_and_dashboard_query_existing_metrics() {
    let documented = documented();
    let all = objects(&with(&json!({"metrics": {"dashboard": {"enabled": true}}})));
    let is_it = |map: &&&Value| map["metadata"]["name"] == "partners-mtls-operator-dashboard";
    let maps = of_kind(&all, "ConfigMap");
    let map = maps.iter().find(is_it).expect("the dashboard");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard: Value =
        serde_json::from_str(map["data"]["mtls-operator.json"].as_str().expect("a file")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    for panel in panels {
        let (title, unit) = (&panel["title"], &panel["fieldConfig"]["defaults"]["unit"]);
        assert!(unit.is_string(), "{title} has no unit");
        assert!(
            panel["description"].as_str().is_some_and(|text| text.len() > 10),
            "{title} has no description"
        );
        for target in panel["targets"]
            .as_array()
            .expect("each panel asks for something")
        {
            let query = target["expr"].as_str().expect("a query");
            let metrics = asked(query);
            for variable in ["cluster=~\"$cluster\"", "job=~\"$job\""] {
                assert_eq!(
                    query.matches(variable).count(),
                    metrics.len(),
                    "{title}: {variable} in {query}"
                );
            }
        }
    }
    let variables = dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
        .iter();
    let variables: Vec<_> = variables
        .map(|variable| variable["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(variables, ["datasource", "cluster", "job", "namespace"]);
    // The operator asks for absent resources in normal operation: that is no error.
    let errors = panels
        .iter()
        .find(|panel| panel["title"] == "AWS API errors")
        .expect("the panel is there");
    assert!(
        errors["targets"][0]["expr"]
            .as_str()
            .is_some_and(|query| query.contains("!~\"ok|not_found\""))
    );
    let targets = panels.iter().flat_map(|panel| {
        panel["targets"]
            .as_array()
            .expect("each panel asks for something")
    });
    let rules = rules();
    let queries: Vec<_> = targets
        .chain(each(&rules))
        .map(|q| q["expr"].as_str().expect("a query").to_owned())
        .collect();
    assert!(queries.len() > 20, "{queries:?}");
    for query in &queries {
        let asked = asked(query);
        assert!(!asked.is_empty(), "no metric of the operator in {query}");
        for (metric, labels) in asked {
            let known = documented
                .get(&metric)
                .unwrap_or_else(|| panic!("the operator has no {metric}: {query}"));
            for label in labels {
                // Labels of any series, whichever process made it: those of a histogram's buckets, and those
                // of the scrape.
                let given = ["le", "job", "cluster"].contains(&label.as_str());
                assert!(
                    given || known.contains(&label),
                    "{metric} has no label {label}: {query}"
                );
            }
        }
    }
}
