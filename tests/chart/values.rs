//! The chart's values: their comments make the README's table, the schema knows each of them, and each
//! changes the rendered objects.
use std::fs;

use serde_json::{Value, json};

use crate::{
    helm::{self, here},
    objects, of_kind, with,
};

const BEGIN: &str = "<!-- Generated from values.yaml: WRITE_DOCS=1 cargo test --test chart -->";
const END: &str = "<!-- End of what is generated. -->";

/// Comment of values.yaml in the form of helm-docs: `# -- ` begins the description of the key below, and
/// `# @default -- ` the text that replaces its default.
struct Comment {
    path: Vec<String>,
    description: String,
    default: Option<String>,
}

fn comments(text: &str) -> Vec<Comment> {
    let (mut all, mut above) = (vec![], vec![]);
    let mut path: Vec<(usize, String)> = vec![];
    for line in text.lines() {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        if let Some(comment) = bare.strip_prefix('#') {
            above.push(comment.trim());
            continue;
        }
        if let Some((key, _)) = bare
            .split_once(':')
            .filter(|(key, _)| key.chars().all(char::is_alphanumeric))
        {
            path.retain(|(at, _)| *at < indent);
            path.push((indent, key.to_owned()));
            let (mut description, mut default) = (None::<String>, None::<String>);
            for comment in &above {
                if let Some(begin) = comment.strip_prefix("-- ") {
                    description = Some(begin.to_owned());
                } else if let Some(begin) = comment.strip_prefix("@default -- ") {
                    default = Some(begin.to_owned());
                } else if let Some(more) = default.as_mut().or(description.as_mut()) {
                    more.push(' ');
                    more.push_str(comment);
                }
            }
            if let Some(description) = description {
                let path = path.iter().map(|(_, key)| key.clone()).collect();
                all.push(Comment {
                    path,
                    description,
                    default,
                });
            }
        }
        above.clear();
    }
    all
}

fn values() -> (String, Value) {
    let text = fs::read_to_string(here("charts/mtls-operator/values.yaml")).expect("the file can be read");
    let values = serde_saphyr::from_str(&text).expect("YAML");
    (text, values)
}

/// Collects the paths that need a comment: each value, or the object around it.
fn undocumented(value: &Value, path: &mut Vec<String>, documented: &[Comment], into: &mut Vec<String>) {
    if documented.iter().any(|comment| comment.path == *path) {
        return;
    }
    match value.as_object().filter(|members| !members.is_empty()) {
        Some(members) => {
            for (key, member) in members {
                path.push(key.clone());
                undocumented(member, path, documented, into);
                path.pop();
            }
        }
        None => into.push(path.join(".")),
    }
}

fn table() -> String {
    let (text, values) = values();
    let comments = comments(&text);
    let mut missing = vec![];
    undocumented(&values, &mut vec![], &comments, &mut missing);
    assert_eq!(
        missing,
        Vec::<String>::new(),
        "values without a comment that begins with \"# -- \""
    );
    let mut table =
        String::from("| Key | Type | Default | Description |\n|-----|------|---------|-------------|\n");
    for Comment {
        path,
        description,
        default,
    } in comments
    {
        let value = path.iter().fold(&values, |value, key| &value[key]);
        let kind = match value {
            Value::Bool(_) => "bool",
            Value::Number(_) => "int",
            Value::String(_) => "string",
            Value::Array(_) => "list",
            Value::Object(_) => "object",
            Value::Null => panic!("{path:?} is null, which has no type: use an empty value"),
        };
        let default = default.unwrap_or_else(|| format!("`{value}`"));
        table.push_str(&format!(
            "| {} | {kind} | {default} | {description} |\n",
            path.join(".")
        ));
    }
    table
}

#[test]
fn the_readme_has_every_value() {
    let path = here("charts/mtls-operator/README.md");
    let readme = fs::read_to_string(&path).expect("the file can be read");
    let (before, rest) = readme.split_once(BEGIN).expect("the marker");
    let (_, after) = rest.split_once(END).expect("the marker");
    let expected = format!("{before}{BEGIN}\n\n{}\n{END}{after}", table());
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::write(&path, &expected).expect("the file can be written");
        return;
    }
    assert!(
        readme == expected,
        "the README's table is not that of values.yaml: WRITE_DOCS=1 cargo test --test chart"
    );
}

/// Compares the members of values and schema, all the way down, except where users set a whole object of
/// Kubernetes.
fn same_members(values: &Value, schema: &Value, path: &str) {
    let Some(known) = schema["properties"].as_object() else {
        return;
    };
    let shared = path == ".global";
    assert!(
        shared || schema["additionalProperties"] == false,
        "{path} takes any member"
    );
    let members = values
        .as_object()
        .unwrap_or_else(|| panic!("{path} is no object"));
    for key in members.keys() {
        assert!(
            known.contains_key(key),
            "values.schema.json does not know {path}.{key}"
        );
    }
    // The chart sets only some members of these objects, or none.
    let parts = [".livenessProbe", ".readinessProbe", ".strategy"].contains(&path);
    for (key, schema) in known {
        match members.get(key) {
            Some(value) => same_members(value, schema, &format!("{path}.{key}")),
            None => assert!(parts, "values.yaml does not have {path}.{key}"),
        }
    }
}

#[test]
fn values_and_their_schema_have_the_same_members() {
    let schema =
        fs::read_to_string(here("charts/mtls-operator/values.schema.json")).expect("the file can be read");
    same_members(&values().1, &serde_json::from_str(&schema).expect("JSON"), "");
}

#[test]
fn every_value_arrives() {
    let deployment = "Deployment";
    let container = "/spec/template/spec/containers/0";
    let at = |field: &str| format!("{container}/{field}");
    let pod = |field: &str| format!("/spec/template/spec/{field}");
    let monitor = json!({
        "enabled": true, "scrapeTimeout": "10s", "annotations": {"a": "b"},
        "relabelings": [{"action": "labeldrop", "regex": "pod"}], "metricRelabelings": [{"action": "keep"}],
    });
    for (values, kind, path, expected) in [
        (
            json!({"global": {"imageRegistry": "mirror:5000"}}),
            deployment,
            at("image"),
            json!("mirror:5000/mtls-operator/mtls-operator:0.1.0"),
        ),
        (
            json!({"image": {"registry": "a.example"}}),
            deployment,
            at("image"),
            json!("a.example/mtls-operator/mtls-operator:0.1.0"),
        ),
        (
            json!({
                "image": {"registry": "a.example", "repository": "team/op", "tag": "v1"},
                "global": {"imageRegistry": "b.example"},
            }),
            deployment,
            at("image"),
            json!("b.example/team/op:v1"),
        ),
        (
            json!({"image": {"repository": "op"}}),
            deployment,
            at("image"),
            json!("op:0.1.0"),
        ),
        (
            json!({
                "global": {"imagePullSecrets": ["a", {"name": "b"}]},
                "imagePullSecrets": [{"name": "b"}, {"name": "c"}],
            }),
            deployment,
            pod("imagePullSecrets"),
            json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]),
        ),
        (
            json!({"deploymentAnnotations": {"a": "b"}}),
            deployment,
            "/metadata/annotations/a".into(),
            json!("b"),
        ),
        (
            json!({"revisionHistoryLimit": 3}),
            deployment,
            "/spec/revisionHistoryLimit".into(),
            json!(3),
        ),
        (
            json!({"strategy": {"type": "Recreate"}}),
            deployment,
            "/spec/strategy/type".into(),
            json!("Recreate"),
        ),
        (
            json!({"dnsPolicy": "Default"}),
            deployment,
            pod("dnsPolicy"),
            json!("Default"),
        ),
        (
            json!({"hostNetwork": true}),
            deployment,
            pod("hostNetwork"),
            json!(true),
        ),
        (
            json!({"hostNetwork": true}),
            deployment,
            pod("dnsPolicy"),
            json!("ClusterFirstWithHostNet"),
        ),
        (json!({}), deployment, pod("dnsPolicy"), Value::Null),
        (
            json!({"dnsConfig": {"nameservers": ["1.1.1.1"]}}),
            deployment,
            pod("dnsConfig/nameservers/0"),
            json!("1.1.1.1"),
        ),
        (
            json!({"hostAliases": [{"ip": "10.0.0.1"}]}),
            deployment,
            pod("hostAliases/0/ip"),
            json!("10.0.0.1"),
        ),
        (
            json!({"runtimeClassName": "gvisor"}),
            deployment,
            pod("runtimeClassName"),
            json!("gvisor"),
        ),
        (
            json!({"envFrom": [{"secretRef": {"name": "x"}}]}),
            deployment,
            at("envFrom/0/secretRef/name"),
            json!("x"),
        ),
        (
            json!({"extraContainers": [{"name": "x"}]}),
            deployment,
            pod("containers/1/name"),
            json!("x"),
        ),
        (
            json!({"initContainers": [{"name": "x"}]}),
            deployment,
            pod("initContainers/0/name"),
            json!("x"),
        ),
        (
            json!({"livenessProbe": {"failureThreshold": 9}}),
            deployment,
            at("livenessProbe/failureThreshold"),
            json!(9),
        ),
        (
            json!({"livenessProbe": {"failureThreshold": 9}}),
            deployment,
            at("livenessProbe/httpGet/path"),
            json!("/livez"),
        ),
        (
            json!({"readinessProbe": {"initialDelaySeconds": 2}}),
            deployment,
            at("readinessProbe/initialDelaySeconds"),
            json!(2),
        ),
        (
            json!({}),
            "PodDisruptionBudget",
            "/spec".into(),
            json!({
                "minAvailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {
                    "matchLabels": {
                        "app.kubernetes.io/name": "mtls-operator", "app.kubernetes.io/instance": "partners",
                    },
                },
            }),
        ),
        (
            json!({"podDisruptionBudget": {"maxUnavailable": "50%"}}),
            "PodDisruptionBudget",
            "/spec/maxUnavailable".into(),
            json!("50%"),
        ),
        (
            json!({"podDisruptionBudget": {"maxUnavailable": 0}}),
            "PodDisruptionBudget",
            "/spec/minAvailable".into(),
            Value::Null,
        ),
        (
            json!({"serviceAccount": {"labels": {"a": "b"}}}),
            "ServiceAccount",
            "/metadata/labels/a".into(),
            json!("b"),
        ),
        (
            json!({"metrics": {"service": {"ipFamilyPolicy": "PreferDualStack"}}}),
            "Service",
            "/spec/ipFamilyPolicy".into(),
            json!("PreferDualStack"),
        ),
        (
            json!({"metrics": {"service": {"ipFamilies": ["IPv6"]}}}),
            "Service",
            "/spec/ipFamilies/0".into(),
            json!("IPv6"),
        ),
        (
            json!({"metrics": {"service": {"annotations": {"a": "b"}}}}),
            "Service",
            "/metadata/annotations/a".into(),
            json!("b"),
        ),
        (
            json!({"metrics": {"serviceMonitor": monitor}}),
            "ServiceMonitor",
            "/spec/endpoints/0".into(),
            json!({
                "port": "http", "path": "/metrics", "honorLabels": true, "interval": "30s",
                "scrapeTimeout": "10s",
                "relabelings": [{"action": "labeldrop", "regex": "pod"}],
                "metricRelabelings": [{"action": "keep"}],
            }),
        ),
        (
            json!({"metrics": {"podMonitor": monitor}}),
            "PodMonitor",
            "/spec/podMetricsEndpoints/0/metricRelabelings".into(),
            json!([{"action": "keep"}]),
        ),
        (
            json!({"metrics": {"podMonitor": monitor}}),
            "PodMonitor",
            "/metadata/annotations/a".into(),
            json!("b"),
        ),
        (
            json!({"metrics": {"prometheusRule": {"enabled": true, "annotations": {"a": "b"}}}}),
            "PrometheusRule",
            "/metadata/annotations/a".into(),
            json!("b"),
        ),
        (
            json!({"tests": {"enabled": false}}),
            "Pod",
            "/metadata/name".into(),
            Value::Null,
        ),
        (
            json!({"imagePullSecrets": [{"name": "x"}]}),
            "Pod",
            "/spec/imagePullSecrets/0/name".into(),
            json!("x"),
        ),
    ] {
        let all = objects(&with(&values));
        let found = of_kind(&all, kind)
            .first()
            .and_then(|object| object.pointer(&path))
            .cloned()
            .unwrap_or_default();
        assert_eq!(found, expected, "{values}: {kind} {path}");
    }
}

#[test]
fn contradictory_values_are_refused() {
    for values in [
        json!({"livenessProbe": {"httpGet": {"path": "/"}}}),
        json!({"strategy": {"type": "Never"}}),
        json!({"podDisruptionBudget": {"minAvailable": "half"}}),
        json!({"podDisruptionBudget": {"unhealthyPodEvictionPolicy": "Never"}}),
        json!({"metrics": {"service": {"ipFamilyPolicy": "IPv6"}}}),
        json!({"dnsPolicy": "Mine"}),
        json!({"listenAddress": "localhost:80"}),
    ] {
        helm::template("mtls", &with(&values)).expect_err(&values.to_string());
    }
}

#[test]
fn everything_of_the_operator_goes_into_another_namespace() {
    let all = objects(&with(&json!({
        "namespaceOverride": "elsewhere", "policy": {"mode": "Rules"},
        "metrics": {
            "serviceMonitor": {"enabled": true}, "dashboard": {"enabled": true},
            "prometheusRule": {"enabled": true},
        },
    })));
    for object in all
        .iter()
        .filter(|object| object["metadata"]["namespace"] != "elsewhere")
    {
        let kind = object["kind"].as_str().expect("a kind");
        assert!(
            kind.starts_with("Cluster") || kind == "CustomResourceDefinition",
            "{object}"
        );
        assert_eq!(object["metadata"]["namespace"], Value::Null, "{object}");
    }
    let args = of_kind(&all, "Deployment")[0]
        .pointer("/spec/template/spec/containers/0/args")
        .expect("args")
        .to_string();
    assert!(args.contains("--watch-namespace=elsewhere"), "{args}");
    for binding in of_kind(&all, "RoleBinding") {
        assert_eq!(binding["subjects"][0]["namespace"], "elsewhere");
    }
}

/// The chart's named choice, which is off by default: every user who may edit in an MtlsDomain's namespace
/// gets a certificate for the MtlsDomain.
#[test]
fn editors_may_request_certificates_where_that_is_chosen() {
    for (chosen, expected) in [(false, Value::Null), (true, json!("true"))] {
        let all = objects(&with(&json!({"rbac": {"editMayRequest": chosen}})));
        for role in of_kind(&all, "ClusterRole") {
            let name = role["metadata"]["name"].as_str().expect("a name");
            let label = &role["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"];
            if name.ends_with("may-request") {
                assert_eq!(*label, expected, "{chosen}");
            } else if name.ends_with("-edit") || name.ends_with("may-grant") {
                assert_eq!(*label, Value::Null, "{name}");
            }
        }
    }
}

/// Writes of MtlsDomains use the operator's permissions in AWS: no built-in role gets them unless the values
/// say so. The role to read aggregates in any case.
#[test]
fn administrators_may_write_where_that_is_chosen() {
    for (values, expected) in [
        (json!({}), Value::Null),
        (json!({"rbac": {"adminMayWrite": false}}), Value::Null),
        (json!({"rbac": {"adminMayWrite": true}}), json!("true")),
    ] {
        let all = objects(&with(&values));
        for role in of_kind(&all, "ClusterRole") {
            let name = role["metadata"]["name"].as_str().expect("a name");
            let labels = &role["metadata"]["labels"];
            let aggregated = |to: &str| &labels[format!("rbac.authorization.k8s.io/aggregate-to-{to}")];
            let writes = role["rules"].to_string().contains("create");
            for (to, of_edit) in [
                ("admin", &expected),
                ("edit", &Value::Null),
                ("view", &Value::Null),
            ] {
                let expected = match name.rsplit_once('-') {
                    Some((_, "edit")) => of_edit,
                    Some((_, "view")) => &json!("true"),
                    _ => &Value::Null,
                };
                assert_eq!(aggregated(to), expected, "{values}: {name} to {to}");
            }
            assert_eq!(writes, !name.ends_with("-view"), "{name}");
        }
    }
    let off = objects(&with(
        &json!({"rbac": {"userRoles": false, "adminMayWrite": true}}),
    ));
    assert_eq!(of_kind(&off, "ClusterRole"), Vec::<&Value>::new());
}

/// No Service, PodDisruptionBudget, NetworkPolicy or monitor selects the Pod of `helm test` as one of the
/// operator's.
#[test]
fn the_test_pod_is_not_selected() {
    let all = objects(&with(&json!({"nameOverride": "x"})));
    let labels = &of_kind(&all, "Pod")[0]["metadata"]["labels"];
    let selector = of_kind(&all, "Deployment")[0]["spec"]["selector"]["matchLabels"]
        .as_object()
        .expect("labels")
        .clone();
    assert!(
        selector.iter().any(|(key, value)| labels[key] != *value),
        "{labels}"
    );
    let pod = &of_kind(&all, "Pod")[0]["spec"];
    assert_eq!(pod["containers"][0]["args"], json!(["--version"]));
    assert_eq!(pod["automountServiceAccountToken"], false);
    let all = objects(&with(&json!({})));
    let labels = &of_kind(&all, "Pod")[0]["metadata"]["labels"];
    let isolated = of_kind(&all, "NetworkPolicy")
        .into_iter()
        .find(|o| o["spec"]["egress"].is_null())
        .expect("there is one");
    for (key, value) in isolated["spec"]["podSelector"]["matchLabels"]
        .as_object()
        .expect("labels")
    {
        assert_eq!(labels[key], *value);
    }
    assert_eq!(
        pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"],
        true
    );
}

/// Returns the notes that `helm install` prints at its end. `helm template` shows them only through another
/// template.
fn notes(more: &Value) -> String {
    let text = r#"{{ dict "apiVersion" "v1" "kind" "Notes" "text" (include "mtls-operator/templates/NOTES.txt" .) | toJson }}"#;
    let mut values = with(&json!({"extraObjects": [text]}));
    crate::merge(&mut values, more);
    let all = objects(&values);
    of_kind(&all, "Notes")[0]["text"]
        .as_str()
        .expect("text")
        .to_owned()
}

#[test]
fn notes_say_the_next_steps() {
    let role = "arn:aws:iam::123456789012:role/mtls-operator";
    for (values, there, not_there) in [
        (
            json!({}),
            "create-pod-identity-association --cluster-name CLUSTER",
            "policy.rules is empty",
        ),
        (
            json!({"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": role}}}),
            role,
            "create-pod-identity-association",
        ),
        (
            json!({"policy": {"mode": "Rules"}}),
            "every MtlsDomain is refused with NotPermitted",
            "policy.mode is AllowAll",
        ),
        (
            json!({"truststoreBucket": "b"}),
            "policy.mode is AllowAll",
            "truststoreBucket is empty",
        ),
        (
            json!({}),
            "Bind a team to the ClusterRole partners-mtls-operator-mtls-edit",
            "rbac.adminMayWrite",
        ),
        (
            json!({"rbac": {"adminMayWrite": true}}),
            "(the built-in role admin) may create MtlsDomains",
            "Bind a team to the ClusterRole",
        ),
        (
            json!({"rbac": {"userRoles": false}}),
            "policy.mode is AllowAll",
            "Bind a team to the ClusterRole",
        ),
        (
            json!({"namespaceOverride": "o"}),
            "kubectl --namespace o rollout status deployment/partners-mtls-operator",
            "namespace mtls",
        ),
    ] {
        let notes = notes(&values);
        assert!(
            notes.contains(there) && !notes.contains(not_there),
            "{values}: {notes}"
        );
    }
}

/// Source: docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html and the EC2 user guide on IMDS.
#[test]
fn the_network_policy_knows_where_credentials_come_from() {
    let all = objects(&with(&json!({})));
    let policies = of_kind(&all, "NetworkPolicy").into_iter();
    let egress: String = policies
        .map(|policy| policy["spec"]["egress"].to_string())
        .collect();
    for address in [
        "169.254.169.254/32",
        "169.254.170.23/32",
        "fd00:ec2::254/128",
        "fd00:ec2::23/128",
    ] {
        assert!(egress.contains(address), "{address}: {egress}");
    }
}

#[test]
fn a_network_policy_isolates_the_pods_unless_it_is_turned_off() {
    let proxy = json!({
        "to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}], "ports": [{"protocol": "TCP", "port": 3128}],
    });
    let all = objects(&with(&json!({"networkPolicy": {"extraEgress": [proxy]}})));
    let pods = &of_kind(&all, "Deployment")[0]["spec"]["selector"]["matchLabels"];
    let isolates = |policy: &&Value| policy["spec"]["podSelector"]["matchLabels"] == *pods;
    let policies = of_kind(&all, "NetworkPolicy");
    let policy = &policies.iter().find(|policy| isolates(policy)).expect("a policy")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(
        policy["ingress"],
        json!([{"ports": [{"protocol": "TCP", "port": 8080}]}])
    );
    let rules = policy["egress"].as_array().expect("rules");
    assert!(rules.contains(&proxy), "{rules:?}");
    let ports: Vec<_> = rules
        .iter()
        .flat_map(|rule| rule["ports"].as_array().expect("every rule names its ports"))
        .map(|port| {
            format!(
                "{}/{}",
                port["protocol"].as_str().expect("a protocol"),
                port["port"]
            )
        })
        .collect();
    assert_eq!(
        ports,
        ["UDP/53", "TCP/53", "TCP/443", "TCP/6443", "TCP/80", "TCP/3128"]
    );

    let off = objects(&with(&json!({"networkPolicy": {"enabled": false}})));
    assert_eq!(of_kind(&off, "NetworkPolicy"), Vec::<&Value>::new());
}

#[test]
fn metrics_ask_for_a_token_where_that_is_chosen() {
    let off = objects(&least_of_metrics(false));
    assert_eq!(of_kind(&off, "ClusterRole"), Vec::<&Value>::new());
    assert!(!args_of(&off).contains("metrics-auth"));

    let on = objects(&least_of_metrics(true));
    assert!(args_of(&on).contains("--metrics-auth=true"));
    let rules = |suffix: &str| {
        let roles = of_kind(&on, "ClusterRole").into_iter();
        let mut named =
            roles.filter(|role| role["metadata"]["name"] == format!("partners-mtls-operator-mtls-{suffix}"));
        named.next().expect("the chart has it")["rules"].clone()
    };
    assert_eq!(
        rules("metrics-auth"),
        json!([
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {
                "apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"],
                "verbs": ["create"],
            },
        ])
    );
    assert_eq!(
        rules("metrics-reader"),
        json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}])
    );
    let binding = &of_kind(&on, "ClusterRoleBinding")[0];
    assert_eq!(
        binding["roleRef"]["name"],
        "partners-mtls-operator-mtls-metrics-auth"
    );
    assert_eq!(binding["subjects"][0]["namespace"], "mtls");
    for (kind, list) in [
        ("ServiceMonitor", "endpoints"),
        ("PodMonitor", "podMetricsEndpoints"),
    ] {
        let name = &of_kind(&on, kind)[0]["spec"][list][0]["authorization"]["credentials"]["name"];
        assert_eq!(*name, "token", "{kind}");
    }
}

fn least_of_metrics(auth: bool) -> Value {
    let monitor =
        json!({"enabled": true, "authorization": {"credentials": {"name": "token", "key": "token"}}});
    with(&json!({
        "rbac": {"userRoles": false},
        "metrics": {"auth": auth, "serviceMonitor": monitor, "podMonitor": monitor},
    }))
}

fn args_of(objects: &[Value]) -> String {
    of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
}
