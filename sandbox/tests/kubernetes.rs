//! Tests of the real API server, its garbage collector and the operator's permissions in it, and of the
//! cleanup of processes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use sandbox::control_plane;
use sandbox::kubernetes::{Error, Kubernetes};
use sandbox::operator::{Operator, OperatorOptions};
use sandbox::process::Process;
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);

/// Two small CRDs under the names of the operator's: permissions depend on names, not on schemas.
const CRDS: &str = include_str!("crds.yaml");

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_with_everything_that_deletion_needs() {
    let dir = tempfile::tempdir().unwrap();
    // On several threads: the second control plane starts at the same time as the first.
    let (first, second) = tokio::join!(start(dir.path().join("a")), start(dir.path().join("b")));
    assert_ne!(
        fs::read_to_string(&first.kubeconfig).unwrap(),
        fs::read_to_string(&second.kubeconfig).unwrap()
    );
    assert!(matches!(
        Kubernetes::start(&dir.path().join("a")).await,
        Err(Error::ControlPlane(control_plane::Error::InUse { .. }))
    ));

    let version = first.admin().apiserver_version().await.unwrap();
    assert!(
        version.git_version.starts_with("v1."),
        "the version is not stamped: {version:?}"
    );
    let names = kubectl(&first, &["get", "namespaces", "--output=name"]);
    assert!(
        names.contains("namespace/default") && names.contains("namespace/kube-system"),
        "{names}"
    );

    for kubernetes in [&first, &second] {
        kubernetes.namespace("payments").await.unwrap();
        kubernetes.namespace("payments").await.unwrap();
        garbage_is_collected(kubernetes).await;
    }
    let only_here = Api::<Namespace>::all(first.admin());
    first.namespace("only-here").await.unwrap();
    assert!(
        Api::<Namespace>::all(second.admin())
            .get_opt("only-here")
            .await
            .unwrap()
            .is_none()
    );
    only_here
        .delete("only-here", &DeleteParams::default())
        .await
        .unwrap();
    until("the namespace is gone", async || {
        only_here.get_opt("only-here").await.unwrap().is_none()
    })
    .await;
    let kept = owner_and_owned(&first).await;
    drop(first);

    // A second start in the same folder begins empty.
    let again = start(dir.path().join("a")).await;
    assert!(
        Api::<Namespace>::all(again.admin())
            .get_opt("payments")
            .await
            .unwrap()
            .is_none()
    );
    // Or with the restored objects of the first.
    again
        .install_crds(&again.kubeconfig.with_file_name("crds.yaml"))
        .await
        .unwrap();
    again.restore(&kept).await.unwrap();
    assert_eq!(as_they_are(&again).await, kept);
    kubectl(&again, &["delete", "mtlsdomain", "kept", "--namespace=payments"]);
    let maps = Api::<ConfigMap>::namespaced(again.admin(), "payments");
    until("what it owns is gone", async || {
        maps.get_opt("kept-too").await.unwrap().is_none()
    })
    .await;
}

/// Creates a namespace, an object in it, and another object that it owns.
async fn owner_and_owned(kubernetes: &Kubernetes) -> Vec<Value> {
    let manifest = kubernetes.kubeconfig.with_file_name("kept.yaml");
    let object = "{apiVersion: mtls-operator.io/v1alpha1, kind: MtlsDomain, \
                  metadata: {name: kept, namespace: payments}}";
    fs::write(&manifest, object).unwrap();
    kubectl(kubernetes, &["apply", "--filename", manifest.to_str().unwrap()]);
    let uid = kubectl(
        kubernetes,
        &[
            "get",
            "mtlsdomain",
            "kept",
            "--namespace=payments",
            "--output=jsonpath={.metadata.uid}",
        ],
    );
    let owner =
        json!({"apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "name": "kept", "uid": uid});
    let owned =
        json!({"metadata": {"name": "kept-too", "ownerReferences": [owner]}, "data": {"key": "value"}});
    let maps = Api::<ConfigMap>::namespaced(kubernetes.admin(), "payments");
    maps.create(&PostParams::default(), &serde_json::from_value(owned).unwrap())
        .await
        .unwrap();
    as_they_are(kubernetes).await
}

/// Returns those three objects, without their resourceVersion.
async fn as_they_are(kubernetes: &Kubernetes) -> Vec<Value> {
    let get = |arguments: &[&str]| {
        let shown = kubectl(
            kubernetes,
            &[&["get", "--output=json", "--show-managed-fields"], arguments].concat(),
        );
        let mut object: Value = serde_json::from_str(&shown).unwrap();
        object["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion")
            .expect("it has one");
        object
    };
    let there = ["--namespace=payments", "mtlsdomain", "kept"];
    vec![
        get(&["namespace", "payments"]),
        get(&there),
        get(&[there[0], "configmap", "kept-too"]),
    ]
}

/// Checks that an object whose owner is deleted goes too, for an owner of a built-in kind and of a new one.
async fn garbage_is_collected(kubernetes: &Kubernetes) {
    let crds = kubernetes.kubeconfig.with_file_name("crds.yaml");
    fs::write(&crds, CRDS).unwrap();
    kubernetes.install_crds(&crds).await.unwrap();
    kubernetes.install_crds(&crds).await.unwrap();
    kubectl(
        kubernetes,
        &["create", "configmap", "owner", "--namespace=payments"],
    );
    let manifest = kubernetes.kubeconfig.with_file_name("domain.yaml");
    let domain = "{apiVersion: mtls-operator.io/v1alpha1, kind: MtlsDomain, \
                  metadata: {name: owner, namespace: payments}}";
    fs::write(&manifest, domain).unwrap();
    kubectl(kubernetes, &["apply", "--filename", manifest.to_str().unwrap()]);

    let maps = Api::<ConfigMap>::namespaced(kubernetes.admin(), "payments");
    for (api_version, kind, resource) in [
        ("v1", "ConfigMap", "configmap"),
        ("mtls-operator.io/v1alpha1", "MtlsDomain", "mtlsdomain"),
    ] {
        let uid = kubectl(
            kubernetes,
            &[
                "get",
                resource,
                "owner",
                "--namespace=payments",
                "--output=jsonpath={.metadata.uid}",
            ],
        );
        let reference = json!({
            "apiVersion": api_version, "kind": kind, "name": "owner", "uid": uid,
            "controller": true, "blockOwnerDeletion": true,
        });
        let owned: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": "owned", "ownerReferences": [reference]},
        }))
        .unwrap();
        maps.create(&PostParams::default(), &owned).await.unwrap();
        let start = Instant::now();
        kubectl(kubernetes, &["delete", resource, "owner", "--namespace=payments"]);
        until("the owned object is gone", async || {
            maps.get_opt("owned").await.unwrap().is_none()
        })
        .await;
        println!(
            "owned by a {kind}: gone {:?} after kubectl delete started",
            start.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_has_the_rights_of_the_chart_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let kubernetes = start(dir.path().join("kubernetes")).await;
    fs::create_dir(dir.path().join("crds")).unwrap();
    fs::write(dir.path().join("crds/all.yaml"), CRDS).unwrap();
    fs::write(dir.path().join("crds/README.md"), "not YAML: {").unwrap();
    kubernetes.install_crds(&dir.path().join("crds")).await.unwrap();
    kubernetes.namespace("other").await.unwrap();

    let options = OperatorOptions {
        binary: "/bin/sh".into(),
        dir: dir.path().join("operator"),
        namespace: "mtls-system".into(),
        watch: vec!["payments".into(), "orders".into()],
        env: vec![("GREETING".into(), "hello".into())],
        args: vec!["-c".into(), stand_in().into()],
    };
    let mut operator = Operator::start(&kubernetes, options.clone()).await.unwrap();
    let kubeconfig = options.dir.join("operator.kubeconfig");
    let narrow = client(&kubeconfig).await;
    let can_here = async |verb: &str, what: &str, namespace: &str| can(&narrow, verb, what, namespace).await;

    for namespace in ["payments", "orders"] {
        for (verbs, resource) in [
            ("get list watch patch", "mtlsdomains"),
            ("get list watch", "clientcertificates"),
            ("get list watch", "clientgrants"),
            ("patch", "mtlsdomains/status"),
            ("patch", "clientcertificates/status"),
            ("patch", "clientgrants/status"),
            ("update", "clientcertificates/finalizers"),
            ("get list watch create patch delete", "secrets"),
            ("get list watch", "configmaps"),
            ("create patch", "events"),
        ] {
            for verb in verbs.split(' ') {
                assert!(
                    can_here(verb, resource, namespace).await,
                    "{verb} {resource} in {namespace} is forbidden"
                );
            }
        }
        for (verb, resource) in [
            ("create", "mtlsdomains"),
            ("delete", "mtlsdomains"),
            ("update", "mtlsdomains"),
            ("patch", "clientcertificates"),
            ("patch", "clientgrants"),
            ("update", "mtlsdomains/status"),
            ("update", "clientcertificates/status"),
            ("update", "clientgrants/status"),
            ("update", "mtlsdomains/finalizers"),
            ("update", "clientgrants/finalizers"),
            ("update", "secrets"),
            ("deletecollection", "secrets"),
            ("create", "configmaps"),
            ("get", "leases"),
            ("list", "pods"),
            ("create", "roles"),
            ("create", "serviceaccounts/token"),
        ] {
            assert!(
                !can_here(verb, resource, namespace).await,
                "{verb} {resource} in {namespace} is allowed"
            );
        }
    }
    assert!(!can_here("get", "secrets", "other").await && !can_here("list", "mtlsdomains", "other").await);
    assert!(
        !can_here("get", "secrets", "mtls-system").await,
        "its own namespace is not watched"
    );
    assert!(
        can_here("create", "leases", "mtls-system").await
            && can_here("update", "leases=mtls-operator", "mtls-system").await
    );
    assert!(
        !can_here("update", "leases=other", "mtls-system").await
            && !can_here("delete", "leases=mtls-operator", "mtls-system").await
    );
    assert!(!can_here("get", "namespaces=kube-system", "").await);

    // The permissions hold for real requests, not only in the API server's access reviews.
    assert_eq!(narrow.default_namespace(), "mtls-system");
    let secrets =
        |namespace| Api::<k8s_openapi::api::core::v1::Secret>::namespaced(narrow.clone(), namespace);
    secrets("payments").list(&ListParams::default()).await.unwrap();
    let refused = secrets("other").list(&ListParams::default()).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.is_forbidden()),
        "{refused:?}"
    );

    a_run_of_the_operator(&mut operator, &kubeconfig).await;

    let everywhere = OperatorOptions {
        watch: vec![],
        namespace: "everywhere".into(),
        ..options
    };
    drop(Operator::start(&kubernetes, everywhere).await.unwrap());
    let wide = client(&kubeconfig).await;
    for (verb, resource, namespace, allowed) in [
        ("list", "secrets", "other", true),
        ("patch", "mtlsdomains/status", "other", true),
        ("get", "namespaces=kube-system", "", true),
        ("get", "namespaces=other", "", false),
        ("list", "namespaces", "", false),
        ("get", "leases=mtls-operator", "everywhere", true),
        ("get", "leases=mtls-operator", "mtls-system", false),
    ] {
        assert_eq!(
            can(&wide, verb, resource, namespace).await,
            allowed,
            "{verb} {resource} in {namespace:?}"
        );
    }
}

/// Returns a script that prints its environment, then lives until SIGTERM, which it handles.
fn stand_in() -> &'static str {
    r#"trap 'echo stopped; exit 7' TERM; echo "$GREETING $KUBECONFIG $MTLS_OPERATOR_WATCH_NAMESPACE $AWS_CONFIG_FILE"
       while :; do sleep 0.1; done"#
}

async fn a_run_of_the_operator(operator: &mut Operator, kubeconfig: &Path) {
    let log = operator.log();
    let says = |text: String| {
        let log = log.clone();
        async move { until(&text, async || fs::read_to_string(&log).unwrap().contains(&text)).await }
    };
    says(format!(
        "hello {} payments,orders /dev/null",
        kubeconfig.display()
    ))
    .await;
    let before = operator.process().unwrap().id();
    operator.kill();
    assert!(!alive(before) && operator.process().is_none());
    assert!(operator.stop().await.unwrap().is_none());
    operator.restart().unwrap();
    until("it greets again", async || {
        fs::read_to_string(&log).unwrap().matches("hello").count() == 2
    })
    .await;
    let status = operator.stop().await.unwrap().unwrap();
    assert_eq!(status.code(), Some(7), "it was killed without SIGTERM");
    says("stopped".into()).await;
}

/// The test runs itself as the parent, kills the parent with SIGKILL, and checks its child.
#[tokio::test(flavor = "multi_thread")]
async fn killing_the_parent_leaves_no_child() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let mut parent = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "parent_of_a_child_from_a_short_lived_thread",
        ])
        .env("TEST_PIDS", &pids)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the parent has a child", async || {
        fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    let child: u32 = fs::read_to_string(&pids).unwrap().trim().parse().unwrap();
    assert!(alive(child), "the child has gone with the thread that started it");
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("the child is gone", async || !alive(child)).await;
}

/// Not a test but the parent in the test above.
#[test]
#[ignore = "run by killing_the_parent_leaves_no_child"]
fn parent_of_a_child_from_a_short_lived_thread() {
    let Some(pids) = env::var_os("TEST_PIDS").map(PathBuf::from) else {
        return;
    };
    let log = pids.with_file_name("child.log");
    let child = std::thread::spawn(move || {
        let mut command = Command::new("sleep");
        command.arg("600");
        Process::start("sleep", command, &log).unwrap()
    })
    .join()
    .unwrap();
    fs::write(&pids, format!("{}\n", child.id())).unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

#[tokio::test]
async fn a_process_that_ends_is_an_error_with_the_end_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let sh = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("a shell", command, &dir.path().join("sh.log")).unwrap()
    };
    let mut ends = sh("echo first; seq 100; echo bind: address already in use >&2; exit 3");
    let error = ends
        .wait_until("never", DEADLINE, || async { false })
        .await
        .unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("exit status: 3") && message.contains("\n100\n") && !message.contains("first"),
        "{message}"
    );
    assert!(error.is_port_taken());

    let mut hangs = sh("echo still here; exec sleep 600");
    let id = hangs.id();
    let error = hangs
        .wait_until(
            "it never says yes",
            Duration::from_millis(1),
            std::future::pending,
        )
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("it never says yes") && !error.is_port_taken(),
        "{error}"
    );
    drop(hangs);
    assert!(!alive(id));

    // Children of children end with them: a Lambda's interpreter is one.
    let pid = dir.path().join("pid");
    let nested = sh(&format!("sleep 600 & echo $! > {}; wait", pid.display()));
    until("there is a grandchild", async || {
        fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    let grandchild: u32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    assert!(alive(grandchild));
    nested.kill();
    until("the grandchild is gone", async || !alive(grandchild)).await;
}

async fn start(dir: PathBuf) -> Kubernetes {
    let start = Instant::now();
    let kubernetes = Kubernetes::start(&dir)
        .await
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    println!("{} is ready after {:?}", dir.display(), start.elapsed());
    kubernetes
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn kubectl(kubernetes: &Kubernetes, arguments: &[&str]) -> String {
    let mut command = Command::new(kubernetes.bin_dir().join("kubectl"));
    let output = command
        .arg("--kubeconfig")
        .arg(&kubernetes.kubeconfig)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "kubectl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Asks the API server, as `kubectl auth can-i` does. `what` is a resource, or `resource/subresource`, or
/// `resource=name`.
async fn can(client: &Client, verb: &str, what: &str, namespace: &str) -> bool {
    let (what, name) = what.split_once('=').unwrap_or((what, ""));
    let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
    let group = match resource {
        "mtlsdomains" | "clientcertificates" | "clientgrants" => "mtls-operator.io",
        "events" => "events.k8s.io",
        "leases" => "coordination.k8s.io",
        "roles" => "rbac.authorization.k8s.io",
        _ => "",
    };
    let review: SelfSubjectAccessReview = serde_json::from_value(json!({"spec": {"resourceAttributes": {
        "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name,
        "namespace": namespace,
    }}}))
    .unwrap();
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone())
        .create(&PostParams::default(), &review)
        .await
        .unwrap();
    answer.status.unwrap().allowed
}

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    Client::try_from(
        kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .unwrap(),
    )
    .unwrap()
}

fn alive(pid: u32) -> bool {
    // A zombie has a /proc entry too: dead, but not reaped by its new parent.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
