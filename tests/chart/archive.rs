//! The chart as it arrives in a cluster: packed by Flux's source-controller, which leaves out symbolic links,
//! and rendered by helm 3 and helm 4.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sandbox::tools;
use serde_json::{Value, json};

use crate::{
    helm::{self, here},
    least, objects, of_kind, with,
};

/// Returns the files of a folder and of its subfolders, by their path in it. Panics at a symbolic link.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)
            .expect("a folder")
            .map(|entry| entry.expect("an entry"))
        {
            let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
            assert!(
                !kind.is_symlink(),
                "{} is a symbolic link, which archives of Flux leave out",
                path.display()
            );
            if kind.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .expect("the file is in the folder")
                    .to_owned();
                all.insert(name, fs::read(&path).expect("the file can be read"));
            }
        }
    }
    all
}

fn write(folder: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        fs::write(path, content).expect("the file can be written");
    }
}

/// Compares the chart's folder `files/crds` with `crds/`: `WRITE_DOCS=1 cargo test --test chart` copies it
/// again.
#[test]
fn the_chart_has_the_crds_of_the_repository() {
    let (ours, copy) = (files(&here("crds")), here("charts/mtls-operator/files/crds"));
    if std::env::var_os("WRITE_DOCS").is_some() {
        fs::remove_dir_all(&copy).expect("the copy is there");
        write(&copy, &ours);
    }
    assert!(!ours.is_empty());
    assert!(
        files(&copy) == ours,
        "charts/mtls-operator/files/crds is not a copy of crds: WRITE_DOCS=1 cargo test --test chart"
    );
}

#[test]
fn every_helm_renders_the_same_from_an_archive_of_flux() {
    let flux =
        tools::go_program("flux", &here("tests/flux"), ".", &[]).expect("Flux's packages can be built");
    let unpacked = tempfile::tempdir().expect("a folder");
    let out = Command::new(flux)
        .arg("archive")
        .arg(here("charts"))
        .arg(unpacked.path())
        .output()
        .expect("the program runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let chart = unpacked.path().join("mtls-operator");
    // No template may need a file that Flux leaves out by its name, such as a picture.
    let packed = files(&chart);
    for (name, content) in files(&here("charts/mtls-operator")) {
        if packed.get(&name) != Some(&content) {
            assert!(
                name.ends_with(".helmignore"),
                "Flux leaves out {}",
                name.display()
            );
        }
    }

    let values = with(&json!({
        "replicaCount": 2,
        "metrics": {
            "serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true},
            "dashboard": {"enabled": true},
        },
    }));
    let expected = objects(&values);
    for (name, package) in [
        ("helm", "helm.sh/helm/v3/cmd/helm"),
        ("helm4", "helm.sh/helm/v4/cmd/helm"),
    ] {
        let program = helm::built(name, package);
        let template = ["template", "partners", "--namespace", "mtls"];
        let out = helm::run(&program, &chart, &template, &values);
        assert!(
            out.stderr.is_empty(),
            "{name}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let rendered = helm::rendered(&out).expect("the chart is rendered");
        // Compared as objects: helm 4 leaves other blank lines between them.
        let all: Vec<Value> = serde_saphyr::from_multiple(&rendered).expect("YAML");
        let all: Vec<_> = all.into_iter().filter(|object| !object.is_null()).collect();
        assert!(!of_kind(&all, "CustomResourceDefinition").is_empty(), "{name}");
        assert!(all == expected, "{name} renders something else");
        let lint = helm::run(&program, &chart, &["lint", "--strict"], &values);
        assert!(
            lint.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&lint.stdout)
        );
    }
}

#[test]
fn a_chart_without_its_crds_is_refused() {
    let mut rest = files(&here("charts/mtls-operator"));
    rest.retain(|name, _| !name.starts_with("files/crds"));
    let chart = tempfile::tempdir().expect("a folder");
    write(chart.path(), &rest);
    let program = helm::built("helm", "helm.sh/helm/v3/cmd/helm");
    let template = |values: &Value| {
        helm::rendered(&helm::run(
            &program,
            chart.path(),
            &["template", "partners"],
            values,
        ))
    };
    let values = least();
    let refusal = template(&values).expect_err("a chart without CRDs");
    assert!(
        refusal.contains("no CustomResourceDefinitions in files/crds"),
        "{refusal}"
    );
    let values = with(&json!({"crds": {"enabled": false}}));
    template(&values).expect("the values ask for no CRDs");
}
