//! The examples as users and GitOps controllers apply them: by `kubectl apply`, then server-side by two
//! managers, replaced and compared. The test runs with new objects, and with objects made under the CRDs of
//! an earlier release, whose defaults stand in etcd.

use std::path::{Path, PathBuf};

use sandbox::kubernetes::Kubernetes;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::root;

/// Field managers of Argo CD and Flux. Both override other managers.
const MANAGERS: [&str; 2] = ["argocd-controller", "kustomize-controller"];

#[tokio::test]
async fn a_server_side_apply_takes_what_kubectl_apply_made() {
    let dir = tempfile::tempdir().unwrap();
    let kubernetes = Kubernetes::start(dir.path()).await.unwrap();
    let manifests = |namespace: &str| {
        let of_namespace = examples()
            .into_iter()
            .map(|(file, all)| (file, in_namespace(namespace, all)));
        of_namespace
            .map(|(file, all)| (file, written(dir.path(), namespace, all)))
            .collect::<Vec<_>>()
    };
    kubernetes
        .install_crds(&root().join("tests/upgrade/world/crds"))
        .await
        .unwrap();
    let old = manifests("old");
    kubernetes.namespace("old").await.unwrap();
    for (_, file) in &old {
        kubectl(&kubernetes, &["apply"], file).await.unwrap();
    }
    let domains = stored(&kubernetes, &old[0].1).await;
    let generated = json!({"spec": domains["items"][0]["spec"]["trust"]["authorities"][0]["generate"]});
    assert_eq!(
        generated["spec"]["duration"], "87600h",
        "the earlier release's default stands in etcd"
    );

    kubernetes.install_crds(&root().join("crds")).await.unwrap();
    kubernetes.namespace("new").await.unwrap();
    let mut wrong = vec![];
    for (what, file) in old.into_iter().chain(manifests("new")) {
        let mut steps: Vec<Vec<&str>> = vec![vec!["apply"], vec!["diff"]];
        for manager in MANAGERS.iter().chain(&MANAGERS) {
            steps.push(vec![
                "apply",
                "--server-side",
                "--force-conflicts",
                "--field-manager",
                manager,
            ]);
            steps.push(vec![
                "diff",
                "--server-side",
                "--force-conflicts",
                "--field-manager",
                manager,
            ]);
        }
        // A user in a hurry replaces the objects; the controllers apply theirs again.
        steps.extend([vec!["replace"], vec!["diff"], vec!["apply"]]);
        for manager in MANAGERS {
            steps.push(vec![
                "apply",
                "--server-side",
                "--force-conflicts",
                "--field-manager",
                manager,
            ]);
        }
        for step in steps {
            if let Err(why) = kubectl(&kubernetes, &step, &file).await {
                wrong.push(format!(
                    "{what} in {}: kubectl {}: {why}",
                    file.display(),
                    step.join(" ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the project's objects in each file of examples/, and one file with every object written `{}` that
/// may be empty.
fn examples() -> Vec<(String, Vec<Value>)> {
    let mut found = vec![("what may be empty".to_owned(), hollow())];
    for folder in ["", "gitops/platform", "gitops/partner"] {
        let mut files: Vec<_> = std::fs::read_dir(root().join("examples").join(folder))
            .unwrap()
            .flatten()
            .map(|f| f.path())
            .collect();
        files.retain(|file| file.extension().is_some_and(|e| e == "yaml"));
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let mut all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            all.retain(|object| object["apiVersion"] == "mtls-operator.io/v1alpha1");
            if !all.is_empty() {
                found.push((file.strip_prefix(root()).unwrap().display().to_string(), all));
            }
        }
    }
    assert!(found.len() > 8, "{found:?}");
    found
}

fn hollow() -> Vec<Value> {
    let object = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
        })
    };
    let authority = |name: &str, generate: Value| json!({"name": name, "generate": generate});
    let generated = [
        authority("a", json!({})),
        authority("b", json!({"privateKey": {}})),
    ];
    let domain = json!({
        "domainName": "empty.example.com", "aws": {}, "serverCertificate": {"request": {}}, "truststore": {},
        "dns": {"external": {}},
        "trust": {"issuingAuthority": "a", "authorities": generated}, "clients": {},
    });
    let route53 = json!({
        "domainName": "empty2.example.com", "dns": {"route53": {}},
        "trust": {"authorities": [authority("a", json!({"organizations": []}))]},
    });
    let certificate = json!({
        "domainRef": {"name": "empty"}, "subject": {"commonName": "empty"}, "privateKey": {},
        "secretTemplate": {}, "keystores": {},
    });
    vec![
        object("MtlsDomain", "empty", domain),
        object("MtlsDomain", "empty2", route53),
        object("ClientCertificate", "empty", certificate),
    ]
}

fn in_namespace(namespace: &str, mut all: Vec<Value>) -> Vec<Value> {
    all.iter_mut()
        .for_each(|object| object["metadata"]["namespace"] = namespace.into());
    all
}

/// Writes a file that kubectl reads.
fn written(dir: &Path, namespace: &str, all: Vec<Value>) -> PathBuf {
    let count = std::fs::read_dir(dir).unwrap().count();
    let path = dir.join(format!("{namespace}-{count}.json"));
    std::fs::write(
        &path,
        json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string(),
    )
    .unwrap();
    path
}

async fn kubectl(kubernetes: &Kubernetes, arguments: &[&str], file: &Path) -> Result<String, String> {
    let mut command = Command::new(kubernetes.bin_dir().join("kubectl"));
    command
        .arg("--kubeconfig")
        .arg(&kubernetes.kubeconfig)
        .args(arguments)
        .arg("-f")
        .arg(file);
    let output = command.output().await.map_err(|error| error.to_string())?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(said(&output.stdout))
    } else {
        Err(said(&output.stdout) + &said(&output.stderr))
    }
}

async fn stored(kubernetes: &Kubernetes, file: &Path) -> Value {
    serde_json::from_str(&kubectl(kubernetes, &["get", "-o", "json"], file).await.unwrap()).unwrap()
}
