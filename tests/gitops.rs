//! The operator's objects in Argo CD and Flux, by their own packages: health and actions by Argo CD's Lua
//! engine, the same test data by Flux's healthCheckExprs, and manifests of `examples/kustomize` as kustomize
//! builds them.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

#[path = "gitops/engines.rs"]
mod engines;

use engines::{argo_cd, customizations, flux, health, here};

#[test]
fn argo_cd_tells_the_health_of_our_kinds_and_takes_their_actions() {
    let out = argo_cd(&[], "");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let tests = said.lines().filter(|line| line.ends_with(": ok"));
    assert!(tests.count() >= 34, "{said}");
}

/// Scripts of a kind: its health, and its actions by their names.
fn scripts(kind: &Path) -> (String, BTreeMap<String, String>) {
    let read = |path: PathBuf| fs::read_to_string(path).expect("the file can be read");
    let folders = fs::read_dir(kind.join("actions"))
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("an entry").path());
    let actions = folders.filter(|folder| folder.join("action.lua").exists());
    let named = |folder: PathBuf| {
        (
            folder.file_name().expect("a name").to_string_lossy().into_owned(),
            read(folder.join("action.lua")),
        )
    };
    (read(kind.join("health.lua")), actions.map(named).collect())
}

#[test]
fn the_config_map_has_the_same_scripts() {
    let text =
        fs::read_to_string(here("examples/gitops/argo-cd/argocd-cm.yaml")).expect("the file can be read");
    let map: Value = serde_saphyr::from_str(&text).expect("YAML");
    let mut keys: Vec<_> = map["data"].as_object().expect("data").keys().cloned().collect();
    for entry in fs::read_dir(customizations().join("mtls-operator.io")).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let kind = path.file_name().expect("a name").to_string_lossy().into_owned();
        let (health, actions) = scripts(&path);
        let mut key = |what: &str| {
            let key = format!("resource.customizations.{what}.mtls-operator.io_{kind}");
            keys.retain(|other| *other != key);
            map["data"][&key].as_str().map(str::to_owned)
        };
        assert_eq!(key("health").as_deref(), Some(health.as_str()), "{kind}");
        let Some(told) = key("actions") else {
            assert!(actions.is_empty(), "{kind} has actions");
            continue;
        };
        let told: Value = serde_saphyr::from_str(&told).expect("YAML");
        let discovery = fs::read_to_string(path.join("actions/discovery.lua")).expect("the file can be read");
        assert_eq!(told["discovery.lua"], discovery, "{kind}");
        let definitions = told["definitions"].as_array().expect("definitions").iter();
        let definitions = definitions.map(|d| {
            (
                d["name"].as_str().expect("a name").to_owned(),
                d["action.lua"].as_str().expect("a script").to_owned(),
            )
        });
        assert_eq!(definitions.collect::<BTreeMap<_, _>>(), actions, "{kind}");
    }
    assert!(keys.is_empty(), "of kinds that are not there: {keys:?}");
}

const KUSTOMIZATIONS: &str = "gitops/flux/kustomizations.yaml";

/// Objects in a file of `examples/`.
fn example(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(here("examples").join(file)).expect("the file can be read");
    serde_saphyr::from_multiple(&text).expect("YAML")
}

/// Flux reports the same health as Argo CD for each kind of state, with the same test data.
#[test]
fn flux_tells_the_health_of_our_kinds() {
    let (mut names, mut objects) = (vec![], vec![]);
    for kind in ["ClientCertificate", "ClientGrant", "MtlsDomain"] {
        let folder = customizations()
            .join("mtls-operator.io")
            .join(kind)
            .join("testdata");
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            // Flux does not ask about an object that it no longer applies.
            if name != "progressing_deleted" {
                let text = fs::read_to_string(&path).expect("text");
                objects.push(serde_saphyr::from_str::<Value>(&text).expect("YAML"));
                names.push(format!("{kind}/{name}"));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (name, [argo_cd, with, without]) in names.iter().zip(health(&objects)) {
        let state = name.split_once('/').expect("a kind").1;
        let (expected, in_argo_cd) = match state.split('_').next() {
            Some("healthy") => ("Current", "Healthy"),
            Some("suspended") => ("Current", "Suspended"),
            Some("degraded") => ("Failed", "Degraded"),
            Some("progressing") => ("InProgress", "Progressing"),
            _ => panic!("{name} begins with no state"),
        };
        assert_eq!(
            (with.as_str(), argo_cd.as_str()),
            (expected, in_argo_cd),
            "{name}"
        );
        // The reason for the expressions.
        if state == "degraded" || state == "suspended_new" {
            assert_eq!(without, "InProgress", "{name}: kstatus would do");
        }
        seen.insert(expected);
    }
    assert_eq!(seen.len(), 3);
    assert!(names.len() >= 20, "{names:?}");
}

#[test]
fn flux_takes_the_examples() {
    let read = flux(
        &["check", KUSTOMIZATIONS, "gitops/flux/operator/release.yaml"],
        "",
    );
    assert_eq!(
        read.lines().filter(|kind| *kind == "Kustomization").count(),
        3,
        "{read}"
    );
    assert!(read.contains("HelmRelease"), "{read}");

    let all = example(KUSTOMIZATIONS);
    let named = |kind: &str, name: &Value, namespace: &Value| {
        all.iter().any(|o| {
            o["kind"] == kind && o["metadata"]["name"] == *name && o["metadata"]["namespace"] == *namespace
        })
    };
    for one in all.iter().filter(|object| object["kind"] == "Kustomization") {
        let (name, namespace, spec) = (
            &one["metadata"]["name"],
            &one["metadata"]["namespace"],
            &one["spec"],
        );
        assert_eq!(spec["retryInterval"], "1m", "{name}");
        let source = &spec["sourceRef"];
        assert_eq!(
            source["namespace"],
            Value::Null,
            "{name}: tenants may not read the sources of another namespace"
        );
        assert!(
            named("GitRepository", &source["name"], namespace),
            "{name} has no source"
        );
        // Flux looks for the ServiceAccount there, whatever the target namespace is.
        if spec["serviceAccountName"].is_string() {
            assert!(
                named("ServiceAccount", &spec["serviceAccountName"], namespace),
                "{name} has no ServiceAccount"
            );
            assert!(
                named("Role", &spec["serviceAccountName"], namespace),
                "{name} has no rights"
            );
        }
        for other in spec["dependsOn"].as_array().into_iter().flatten() {
            let other_namespace = if other["namespace"].is_null() {
                namespace
            } else {
                &other["namespace"]
            };
            assert!(
                named("Kustomization", &other["name"], other_namespace),
                "{name} depends on nothing"
            );
        }
        assert_eq!(spec["dependsOn"].is_array(), *name != "mtls-operator", "{name}");
    }
}

/// An object that fails, or that is suspended, would hold up everything that comes in a later wave.
#[test]
fn no_example_has_sync_waves() {
    let mut folders = vec![here("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = fs::read_to_string(&path).expect("text");
                assert!(!text.contains("sync-wave"), "{}", path.display());
            }
        }
    }
    for application in example("gitops/argo-cd/applications.yaml") {
        let policy = &application["spec"]["syncPolicy"];
        assert_eq!(
            policy["retry"]["refresh"], true,
            "a retry goes on with the commit that failed"
        );
        assert_eq!(policy["retry"]["limit"], -1);
    }
}

/// Collects the fields in which an object of this kind names another: the paths of its schema, in kustomize's
/// form, that end in a name within a reference.
fn references(schema: &Value, name: &str, path: &str, into: &mut Vec<String>) {
    let schema = if schema["items"].is_object() {
        &schema["items"]
    } else {
        schema
    };
    for (key, member) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{key}");
        if key == "name" && name.ends_with("Ref") {
            into.push(path);
        } else {
            references(member, key, &path, into);
        }
    }
}

#[test]
fn kustomize_is_told_every_reference() {
    let text =
        fs::read_to_string(here("examples/kustomize/base/references.yaml")).expect("the file can be read");
    let configuration: Value = serde_saphyr::from_str(&text).expect("YAML");
    let mut told = BTreeSet::new();
    for target in configuration["nameReference"].as_array().expect("a list") {
        for field in target["fieldSpecs"].as_array().expect("a list") {
            assert_eq!(field["group"], "mtls-operator.io");
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            told.insert((text(&field["kind"]), text(&field["path"])));
        }
    }
    let mut there = BTreeSet::new();
    for file in fs::read_dir(here("crds")).expect("the folder is there") {
        let text = fs::read_to_string(file.expect("an entry").path()).expect("text");
        let crd: Value = serde_saphyr::from_str(&text).expect("YAML");
        let kind = crd["spec"]["names"]["kind"].as_str().expect("a kind");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut found = vec![];
        references(schema, "spec", "spec", &mut found);
        there.extend(found.into_iter().map(|path| (kind.to_owned(), path)));
    }
    assert!(there.len() >= 5, "{there:?}");
    assert_eq!(told, there, "examples/kustomize/base/references.yaml");
}

#[test]
fn kustomize_renames_references() {
    let all: Vec<Value> =
        serde_saphyr::from_multiple(&flux(&["kustomize", "kustomize/staging"], "")).expect("YAML");
    let named = |kind: &str| -> Vec<&str> {
        all.iter()
            .filter(|o| o["kind"] == kind)
            .map(|o| o["metadata"]["name"].as_str().expect("a name"))
            .collect()
    };
    assert_eq!(named("MtlsDomain"), ["staging-partners"]);
    for object in all
        .iter()
        .filter(|o| ["ClientCertificate", "ClientGrant"].contains(&o["kind"].as_str().unwrap_or_default()))
    {
        assert_eq!(
            object["spec"]["domainRef"]["name"], "staging-partners",
            "{object}"
        );
    }
    let domain = all
        .iter()
        .find(|o| o["kind"] == "MtlsDomain")
        .expect("the MtlsDomain is there");
    let authorities = domain["spec"]["trust"]["authorities"].as_array().expect("a list");
    let config_map = authorities
        .iter()
        .find_map(|a| a["configMapRef"]["name"].as_str())
        .expect("there is one");
    assert!(
        config_map.starts_with("staging-acme-ca-") && named("ConfigMap") == [config_map],
        "{config_map}"
    );
    // The kustomization does not have this Secret.
    assert!(authorities.iter().any(|a| a["secretRef"]["name"] == "legacy-ca"));
    let mut certificates = all.iter().filter(|o| o["kind"] == "ClientCertificate");
    let password = certificates
        .find_map(|o| o.pointer("/spec/keystores/pkcs12/passwordSecretRef/name"))
        .expect("there is one");
    assert_eq!(named("Secret"), [password.as_str().expect("a name")]);
    let secret = all.iter().find(|o| o["kind"] == "Secret").expect("there is one");
    assert_eq!(
        secret["metadata"]["labels"]["mtls-operator.io/keystore-password"],
        "true"
    );
}
