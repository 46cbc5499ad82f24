//! Runs docs/install-eks.md: bash executes its shell blocks in their order, with stand-ins for programs that
//! need a cluster or an account. The test checks each command of the AWS CLI against AWS's models, and
//! renders each release of Helm. The policy is the operator's own.
use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use sandbox::aws::python_with;
use serde_json::Value;

use crate::helm::{self, here};

/// Shell script that records its arguments, and prints the answers that the page continues with.
const STAND_IN: &str = r#"#!/bin/sh
name=$(basename "$0")
{ printf '%s\037' "$name" "$@"; printf '\036'; } >> "$CALLS"
case "$name $1 $2" in
"aws sts get-caller-identity") echo 123456789012 ;;
"aws route53 list-hosted-zones-by-name") echo /hostedzone/Z0123456789ABCDEFGHIJ ;;
"aws eks describe-cluster") echo https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE ;;
"aws eks list-pod-identity-associations") echo a-abcdefghijklmnop1 ;;
"aws apigatewayv2 create-api") echo a1b2c3d4e5 ;;
"docker run --rm") shift 3; exec "$OPERATOR" "$@" ;;
"helm install "* | "helm upgrade "* | "helm template "*)
    command=$1
    shift
    # Of a live release only: what `helm template` does not know.
    for argument do
        shift
        case $argument in --create-namespace | --take-ownership) ;; *) set -- "$@" "$argument" ;; esac
    done
    "$HELM" template "$@" --kube-version 1.35.0 > "$RENDERED/$(date +%s%N)-$command.yaml" || exit 1
    cat "$RENDERED"/*-"$command.yaml"
    ;;
esac
"#;

/// Returns the page's shell blocks, one after the other.
fn script(page: &str) -> String {
    let (mut script, mut inside) = (String::new(), None);
    for line in page.lines() {
        let bare = line.trim_start();
        match (inside, bare) {
            (None, "```sh") => inside = Some(line.len() - bare.len()),
            (Some(_), "```") => inside = None,
            (Some(indent), _) => {
                script.push_str(line.get(indent..).unwrap_or_default());
                script.push('\n');
            }
            _ => {}
        }
    }
    script
}

/// Runs the page in this folder. Returns the commands that the page called, each with its arguments.
fn run(folder: &Path) -> Vec<Vec<String>> {
    let bin = folder.join("bin");
    let rendered = folder.join("rendered");
    for made in [&bin, &rendered] {
        fs::create_dir(made).expect("the folder can be made");
    }
    let stand_in = bin.join("stand-in");
    fs::write(&stand_in, STAND_IN).expect("the file can be written");
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    for name in ["aws", "kubectl", "docker", "helm", "kind", "git", "curl", "cargo"] {
        symlink(&stand_in, bin.join(name)).expect("the link can be made");
    }
    symlink(here("charts"), folder.join("charts")).expect("the link can be made");
    let page = fs::read_to_string(here("docs/install-eks.md")).expect("the file can be read");
    let calls = folder.join("calls");
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script(&page)])
        .current_dir(folder)
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()))
        .env("CALLS", &calls)
        .env("RENDERED", &rendered)
        .env("HELM", helm::built("helm", "helm.sh/helm/v3/cmd/helm"))
        .env("OPERATOR", env!("CARGO_BIN_EXE_mtls-operator"))
        .output()
        .expect("bash runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let calls = fs::read_to_string(calls).expect("the page called something");
    let words = |call: &str| call.split_terminator('\u{1f}').map(str::to_owned).collect();
    calls.split_terminator('\u{1e}').map(words).collect()
}

/// Returns the objections of AWS's models to these commands.
fn against_models(commands: &[&[String]]) -> String {
    let python = python_with("double", &here("sandbox/aws/requirements.txt")).expect("a venv with botocore");
    let mut python = Command::new(python);
    python
        .arg(here("tests/chart/aws_commands.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = python.spawn().expect("the program starts");
    let lines: String = commands
        .iter()
        .map(|words| format!("{}\n", serde_json::json!(words)))
        .collect();
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(lines.as_bytes())
        .expect("the program reads its input");
    let out = child.wait_with_output().expect("the program ends");
    assert!(out.status.success());
    String::from_utf8(out.stdout).expect("UTF-8")
}

#[test]
fn every_command_of_the_page_is_valid() {
    let folder = tempfile::tempdir().expect("a folder");
    let calls = run(folder.path());
    let of =
        |name: &str| -> Vec<&[String]> { calls.iter().filter(|c| c[0] == name).map(|c| &c[1..]).collect() };

    let aws = of("aws");
    assert!(aws.len() > 20, "{aws:?}");
    assert_eq!(against_models(&aws), "");
    // The check finds a wrong command.
    let wrong = ["iam", "create-role", "--role", "x"].map(str::to_owned);
    let found = against_models(&[&wrong]);
    assert!(
        found.contains("no option --role") && found.contains("needs --role-name"),
        "{found}"
    );

    let program = helm::built("helm4", "helm.sh/helm/v4/cmd/helm");
    for words in of("helm") {
        let help = Command::new(&program)
            .args([words[0].as_str(), "--help"])
            .output()
            .expect("helm runs");
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag.as_str()), "helm {} has no {flag}", words[0]);
        }
    }

    let read = |file: &str| fs::read_to_string(folder.path().join(file)).expect("the page writes it");
    for file in ["policy.json", "trust.json"] {
        let policy: Value =
            serde_json::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(policy["Version"], "2012-10-17", "{file}");
    }
    assert!(read("policy.json").contains("truststores-123456789012-eu-west-1"));
    assert!(read("install.yaml").contains("--cluster-id=prod-eu"));
    assert!(
        !read("install.yaml").contains("helm.sh/hook"),
        "a plain apply would create the Pod of helm test"
    );
    let irsa: Value = serde_saphyr::from_str(&read("irsa.yaml")).expect("YAML");
    assert!(
        helm::template("mtls", &crate::with(&irsa))
            .expect("the release renders")
            .contains(":role/mtls-operator")
    );
}
