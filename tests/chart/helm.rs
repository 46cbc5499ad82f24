//! Helm, built once on a machine, and the objects that it renders from the chart.
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use sandbox::tools;
use serde_json::Value;

static HELM: LazyLock<PathBuf> = LazyLock::new(|| built("helm", "helm.sh/helm/v3/cmd/helm"));

/// Path of a Helm program that `tests/chart/helm` requires.
pub fn built(name: &str, package: &str) -> PathBuf {
    tools::go_program(name, &here("tests/chart/helm"), package, &[]).expect("helm can be built")
}

/// Path in the repository.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a Helm command over the chart with these values.
pub fn helm(command: &[&str], values: &Value) -> Output {
    run(&HELM, &here("charts/mtls-operator"), command, values)
}

/// Runs a command of this Helm over the chart in this folder.
pub fn run(program: &Path, chart: &Path, command: &[&str], values: &Value) -> Output {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), values.to_string()).expect("the file is written");
    let mut helm = Command::new(program);
    helm.args(command).args(["--kube-version", "1.35.0"]).arg(chart);
    helm.arg("--values").arg(file.path()).output().expect("helm runs")
}

/// Returns the manifests of the release `partners` in this namespace, or Helm's error about the values.
pub fn template(namespace: &str, values: &Value) -> Result<String, String> {
    rendered(&helm(&["template", "partners", "--namespace", namespace], values))
}

/// Returns Helm's output, or its error about the chart or its values.
pub fn rendered(out: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() {
        Ok(text(&out.stdout))
    } else {
        Err(text(&out.stderr))
    }
}
