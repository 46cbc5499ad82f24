//! What Argo CD makes of the operator's objects, by its own engine (util/lua of its Go module): health and actions with the test data beside them.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sandbox::tools;
use serde_json::Value;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn customizations() -> PathBuf {
    here("examples/gitops/argo-cd/resource_customizations")
}

#[test]
fn argo_cd_tells_the_health_of_our_kinds_and_takes_their_actions() {
    let engine =
        tools::go_program("argo-cd-lua", &here("tests/argo-cd"), ".", &[]).expect("Argo CD's engine can be built");
    let out = Command::new(engine).arg(customizations()).output().expect("it runs");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    let tests = said.lines().filter(|line| line.ends_with(": ok"));
    assert!(tests.count() >= 29, "{said}");
}

/// The scripts of a kind: its health, and its actions by their names.
fn scripts(kind: &Path) -> (String, BTreeMap<String, String>) {
    let read = |path: PathBuf| fs::read_to_string(path).expect("it can be read");
    let folders = fs::read_dir(kind.join("actions")).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    let actions = folders.filter(|folder| folder.join("action.lua").exists());
    let named = |folder: PathBuf| {
        (folder.file_name().expect("a name").to_string_lossy().into_owned(), read(folder.join("action.lua")))
    };
    (read(kind.join("health.lua")), actions.map(named).collect())
}

#[test]
fn the_config_map_has_the_same_scripts() {
    let text = fs::read_to_string(here("examples/gitops/argo-cd/argocd-cm.yaml")).expect("it can be read");
    let map: Value = serde_saphyr::from_str(&text).expect("YAML");
    let mut keys: Vec<_> = map["data"].as_object().expect("data").keys().cloned().collect();
    for entry in fs::read_dir(customizations().join("mtls-operator.io")).expect("it is there") {
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
        let discovery = fs::read_to_string(path.join("actions/discovery.lua")).expect("it can be read");
        assert_eq!(told["discovery.lua"], discovery, "{kind}");
        let definitions = told["definitions"].as_array().expect("definitions").iter();
        let definitions = definitions.map(|d| {
            (d["name"].as_str().expect("a name").to_owned(), d["action.lua"].as_str().expect("a script").to_owned())
        });
        assert_eq!(definitions.collect::<BTreeMap<_, _>>(), actions, "{kind}");
    }
    assert!(keys.is_empty(), "of kinds that are not there: {keys:?}");
}
