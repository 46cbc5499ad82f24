//! The custom resources in the API server: the files in crds/, and every rule of the schemas.

mod applied;
mod cases;

use std::path::Path;

use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Client, Resource};
use mtls_operator::api::{self, ClientCertificate, ClientGrant, MtlsDomain};
use serde_json::{Value, json};

/// The files in `crds/` match the types.
#[test]
fn files_are_up_to_date() {
    let dir = root().join("crds");
    let mut expected = Vec::new();
    for (name, yaml) in api::crds() {
        let stale = std::fs::read_to_string(dir.join(&name)).ok().as_deref() != Some(&yaml);
        assert!(
            !stale,
            "crds/{name} is stale: cargo run --bin mtls-operator -- crds crds/"
        );
        expected.push(name);
    }
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            expected.contains(&name),
            "crds/{name} belongs to no kind: remove it"
        );
    }
}

/// A manifest with every field survives the Rust types: no field is misspelt, lost or of another shape.
#[test]
fn every_field_survives_the_types() {
    let domain = cases::full_domain();
    let read: MtlsDomain = serde_json::from_value(domain.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap()["spec"], domain["spec"]);
    let certificate = cases::full_certificate();
    let read: ClientCertificate = serde_json::from_value(certificate.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap()["spec"], certificate["spec"]);
    let grant = cases::full_grant();
    let read: ClientGrant = serde_json::from_value(grant.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap()["spec"], grant["spec"]);
}

/// Each rule has a case that it refuses, so every rule can fire. The message identifies the rule.
#[test]
fn every_rule_has_a_case() {
    let mut cases: Vec<&str> = [cases::domain(), cases::certificate(), cases::grant()]
        .iter()
        .flatten()
        .map(|c| c.2)
        .collect();
    let changes = [
        cases::domain_changes(),
        cases::certificate_changes(),
        cases::grant_changes(),
    ];
    cases.extend(changes.iter().flatten().map(|c| c.3));
    cases.retain(|message| !message.is_empty());
    for crd in api::definitions() {
        for message in messages(&serde_json::to_value(&crd).unwrap()) {
            assert!(
                cases.iter().any(|part| message.contains(part)),
                "no case for the rule {message:?} of {}",
                crd.spec.names.kind
            );
        }
    }
}

fn messages(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(map) => {
            let rules = map
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let own = rules.map(|rule| {
                rule["message"]
                    .as_str()
                    .expect("every rule has a message")
                    .to_owned()
            });
            own.chain(map.values().flat_map(messages)).collect()
        }
        Value::Array(items) => items.iter().flat_map(messages).collect(),
        _ => Vec::new(),
    }
}

/// A default inside an object that may be written `{}` fills in a field that the manifest does not have. A
/// server-side apply of the same manifest after a client-side one then takes the field away and leaves a
/// null, which the API server refuses (kubernetes/kubernetes#135841).
#[test]
fn no_default_stands_in_an_object_that_may_be_empty() {
    let hollow = |required: &[&str]| {
        json!({
            "type": "object", "required": required,
            "properties": {"a": {"type": "string", "default": "x"}, "b": {"type": "string"}},
        })
    };
    let of = |schema: Value| {
        defaults_in_hollow_objects(
            "spec",
            &json!({"type": "object", "properties": {"all": {"type": "array", "items": schema}}}),
        )
    };
    assert_eq!(of(hollow(&[])), ["spec.all[].a"], "the walk finds the default");
    assert_eq!(of(hollow(&["b"])), [""; 0], "the object is never empty");
    for crd in api::definitions() {
        let crd = serde_json::to_value(&crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(
            defaults_in_hollow_objects(kind, schema),
            [""; 0],
            "set the default in code, and say it in the field's doc"
        );
    }
}

/// Returns the paths of all defaults whose object has no required member.
fn defaults_in_hollow_objects(path: &str, schema: &Value) -> Vec<String> {
    let members = schema["properties"].as_object();
    let is_hollow = schema["required"].as_array().is_none_or(Vec::is_empty);
    let own = members
        .into_iter()
        .flatten()
        .filter(|(_, of)| is_hollow && of.get("default").is_some());
    let own = own.map(|(name, _)| format!("{path}.{name}"));
    let below = members
        .into_iter()
        .flatten()
        .flat_map(|(name, of)| defaults_in_hollow_objects(&format!("{path}.{name}"), of));
    let (each, any) = (&schema["items"], &schema["additionalProperties"]);
    let each = if each.is_object() {
        defaults_in_hollow_objects(&format!("{path}[]"), each)
    } else {
        vec![]
    };
    let any = if any.is_object() {
        defaults_in_hollow_objects(&format!("{path}{{}}"), any)
    } else {
        vec![]
    };
    own.chain(below).chain(each).chain(any).collect()
}

/// The API server accepts the files of crds/ (structure, rule cost), and enforces their rules.
#[tokio::test]
async fn the_api_server_enforces_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    let kubernetes = sandbox::kubernetes::Kubernetes::start(dir.path()).await.unwrap();
    kubernetes.install_crds(&root().join("crds")).await.unwrap();
    let client = kubernetes.admin();

    let domains = objects::<MtlsDomain>(&client);
    let certificates = objects::<ClientCertificate>(&client);
    let grants = objects::<ClientGrant>(&client);
    let mut wrong = Vec::new();
    for (api, base, cases) in [
        (&domains, cases::minimal_domain(), cases::domain()),
        (&certificates, cases::minimal_certificate(), cases::certificate()),
        (&grants, cases::minimal_grant(), cases::grant()),
    ] {
        for (what, patch, expected) in cases {
            let answer = api.create(&dry_run(), &object(&base, &patch)).await;
            wrong.extend(judge(what, answer, expected));
        }
    }
    for (api, base, cases) in [
        (&domains, cases::minimal_domain(), cases::domain_changes()),
        (
            &certificates,
            cases::minimal_certificate(),
            cases::certificate_changes(),
        ),
        (&grants, cases::minimal_grant(), cases::grant_changes()),
    ] {
        for (n, (what, before, after, expected)) in cases.into_iter().enumerate() {
            let name = json!({"metadata": {"name": format!("change-{n}")}});
            let old = api
                .create(&PostParams::default(), &object(&base, &merged(&before, &name)))
                .await
                .expect(what);
            let mut new = object(&base, &merged(&merged(&before, &after), &name));
            new.metadata.resource_version = old.metadata.resource_version;
            let answer = api.replace(&format!("change-{n}"), &dry_run(), &new).await;
            wrong.extend(judge(what, answer, expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // The API server neither drops nor changes a field of the complete manifest.
    for (api, full) in [
        (&domains, cases::full_domain()),
        (&certificates, cases::full_certificate()),
        (&grants, cases::full_grant()),
    ] {
        let taken = api.create(&dry_run(), &object(&full, &json!({}))).await.unwrap();
        assert_eq!(merged(&taken.data["spec"], &full["spec"]), taken.data["spec"]);
    }

    // A null means the same as an absent field.
    let mut nulls = cases::minimal_domain();
    nulls["spec"]["aws"] = json!({"region": null});
    nulls["spec"]["trust"] = Value::Null;
    nulls["spec"]["adoptionPolicy"] = Value::Null;
    let taken = domains
        .create(&dry_run(), &object(&nulls, &json!({})))
        .await
        .unwrap();
    let spec = &taken.data["spec"];
    assert_eq!(
        (&spec["aws"], spec.get("trust"), &spec["adoptionPolicy"]),
        (&json!({}), None, &json!("Never"))
    );

    // The API server accepts the example. The status says that no reconcile has run yet.
    let example = std::fs::read_to_string(root().join("examples/quickstart.yaml")).unwrap();
    let example: Vec<Value> = serde_saphyr::from_multiple(&example).unwrap();
    assert_eq!(example.len(), 2);
    for (api, manifest) in [&domains, &certificates].into_iter().zip(&example) {
        let made = api
            .create(&PostParams::default(), &object(manifest, &json!({})))
            .await
            .unwrap();
        assert_eq!(made.data["status"], json!({"observedGeneration": -1}));
    }

    // Selectable fields.
    for (api, selector) in [
        (&domains, "spec.domainName=mtls.example.com"),
        (&certificates, "spec.secretName=client1-mtls"),
        (
            &certificates,
            "spec.secretName=client1-mtls,spec.domainRef.name=partners",
        ),
    ] {
        let found = api.list(&ListParams::default().fields(selector)).await.unwrap();
        assert_eq!(found.items.len(), 1, "{selector}");
    }
}

/// Root folder of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn objects<K: Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), "default", &ApiResource::erase::<K>(&()))
}

fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

fn object(base: &Value, patch: &Value) -> DynamicObject {
    serde_json::from_value(merged(base, patch)).unwrap()
}

/// Returns the fault of an answer. `expected` is a part of the refusal's message, or empty when the API
/// server must accept.
fn judge(what: &str, answer: kube::Result<DynamicObject>, expected: &str) -> Option<String> {
    match answer {
        Ok(_) if expected.is_empty() => None,
        Ok(_) => Some(format!("{what}: accepted")),
        Err(kube::Error::Api(status)) if !expected.is_empty() && status.message.contains(expected) => None,
        Err(error) => Some(format!("{what}: {error}")),
    }
}

/// JSON merge patch (RFC 7396).
fn merged(base: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else {
        return patch.clone();
    };
    let mut result = base.as_object().cloned().unwrap_or_default();
    for (key, change) in changes {
        if change.is_null() {
            result.remove(key);
        } else {
            let old = result.get(key).cloned().unwrap_or_default();
            result.insert(key.clone(), merged(&old, change));
        }
    }
    Value::Object(result)
}
