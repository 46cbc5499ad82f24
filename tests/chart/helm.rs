//! What the chart renders, by Helm itself, which is built once on a machine.
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use sandbox::tools;
use serde_json::Value;

static HELM: LazyLock<PathBuf> = LazyLock::new(|| {
    tools::go_program("helm", &here("tests/chart/helm"), "helm.sh/helm/v3/cmd/helm", &[]).expect("helm can be built")
});

/// A path of the repository.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A command of Helm's over the chart with these values.
pub fn helm(command: &[&str], values: &Value) -> Output {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), values.to_string()).expect("it is written");
    let mut helm = Command::new(&*HELM);
    helm.args(command).args(["--kube-version", "1.35.0"]).arg(here("charts/mtls-operator"));
    helm.arg("--values").arg(file.path()).output().expect("helm runs")
}

/// The manifests of the release `partners` in this namespace, or what Helm has against the values.
pub fn template(namespace: &str, values: &Value) -> Result<String, String> {
    let out = helm(&["template", "partners", "--namespace", namespace], values);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}
