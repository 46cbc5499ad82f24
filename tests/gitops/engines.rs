//! Argo CD's and Flux's answers about objects, by their own packages, which are built once on a machine.
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sandbox::tools;
use serde_json::Value;

/// Path in the repository.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Health scripts and actions of the project, in Argo CD's own layout.
pub fn customizations() -> PathBuf {
    here("examples/gitops/argo-cd/resource_customizations")
}

/// Builds Argo CD's engine and Flux's packages where they are not built yet. That takes minutes and the whole
/// machine.
pub fn build() -> [PathBuf; 2] {
    [("argo-cd-lua", "tests/argo-cd"), ("flux", "tests/flux")].map(|(name, source)| {
        tools::go_program(name, &here(source), ".", &[]).expect("the program can be built")
    })
}

/// Runs Argo CD's Lua engine over the project's scripts.
pub fn argo_cd(arguments: &[&str], input: &str) -> Output {
    let [engine, _] = build();
    fed(Command::new(engine).arg(customizations()).args(arguments), input)
}

/// Runs a command of `tests/flux`, in the folder examples/.
pub fn flux(arguments: &[&str], input: &str) -> String {
    let [_, program] = build();
    let out = fed(
        Command::new(program)
            .args(arguments)
            .current_dir(here("examples")),
        input,
    );
    assert!(
        out.status.success(),
        "flux {arguments:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("UTF-8")
}

fn fed(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("the program reads its input");
    child.wait_with_output().expect("the program ends")
}

/// Health of each object: in Argo CD, by Flux's healthCheckExprs, and by kstatus, which Flux uses without
/// them.
pub fn health(objects: &[Value]) -> Vec<[String; 3]> {
    let lines: String = objects.iter().map(|object| format!("{object}\n")).collect();
    let argo_cd = argo_cd(&["health"], &lines);
    assert!(
        argo_cd.status.success(),
        "{}",
        String::from_utf8_lossy(&argo_cd.stderr)
    );
    let argo_cd = String::from_utf8(argo_cd.stdout).expect("UTF-8");
    let flux = flux(&["health", "gitops/flux/kustomizations.yaml"], &lines);
    let pairs = argo_cd.lines().zip(flux.lines());
    let all: Vec<_> = pairs
        .map(|(argo_cd, flux)| {
            let (with, without) = flux.split_once(' ').expect("two words");
            [argo_cd, with, without].map(str::to_owned)
        })
        .collect();
    assert_eq!(all.len(), objects.len());
    all
}
