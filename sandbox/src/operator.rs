//! The operator as a process: under its own service account, with exactly the permissions of the chart.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::kubernetes::{self, FIELD_MANAGER, Kubernetes};
use crate::process::{self, Process};

/// Name of the service account, and of every role and binding.
pub const SERVICE_ACCOUNT: &str = "mtls-operator";

/// Rules of the chart: lists of rbac.authorization.k8s.io/v1 PolicyRule.
const NAMESPACED: &str = include_str!("../../charts/mtls-operator/rbac/namespaced.yaml");
const CLUSTER: &str = include_str!("../../charts/mtls-operator/rbac/cluster.yaml");
const LEASE: &str = include_str!("../../charts/mtls-operator/rbac/lease.yaml");
const NAMESPACES: &str = include_str!("../../charts/mtls-operator/rbac/namespaces.yaml");

/// Time limit of a stopping operator; a Pod would have 30 s.
const GRACE: Duration = Duration::from_secs(30);

/// Time limit until the API server applies new rules.
const GRANT_DEADLINE: Duration = Duration::from_secs(30);

/// Failure to run the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::Error),
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error("cannot use {path}", path = path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the operator's rights in {place} are not in force after {GRANT_DEADLINE:?}")]
    NotInForce { place: String },
    #[error("cannot grant the operator its rights ({kind} {name})")]
    Grant {
        kind: &'static str,
        name: String,
        #[source]
        source: kube::Error,
    },
}

/// Options of an operator process.
#[derive(Debug, Clone)]
pub struct OperatorOptions {
    /// Path of the program.
    pub binary: PathBuf,
    /// Folder for its kubeconfig and its log. Created when missing; two operators need two.
    pub dir: PathBuf,
    /// Namespace of its service account and its lease.
    pub namespace: String,
    /// Namespaces in which the operator gets permissions and that it watches
    /// (`MTLS_OPERATOR_WATCH_NAMESPACE`, separated by commas). Empty for the whole cluster.
    pub watch: Vec<String>,
    pub env: Vec<(String, String)>,
    pub args: Vec<String>,
}

/// Operator that runs, or that was killed or stopped and can be started again. Ends when dropped.
#[derive(Debug)]
pub struct Operator {
    options: OperatorOptions,
    process: Option<Process>,
}

impl Operator {
    /// Creates namespaces, service account and permissions, then starts the program. Does not wait for
    /// readiness.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn start(kubernetes: &Kubernetes, options: OperatorOptions) -> Result<Self, Error> {
        grant(kubernetes, &options.namespace, &options.watch).await?;
        Self::start_as(kubernetes, SERVICE_ACCOUNT, options).await
    }

    /// Starts the program as this service account of its namespace, with the account's existing permissions.
    ///
    /// # Errors
    /// All of [`Error`].
    pub async fn start_as(
        kubernetes: &Kubernetes,
        service_account: &str,
        options: OperatorOptions,
    ) -> Result<Self, Error> {
        let mut operator = Self::prepare(kubernetes, service_account, options).await?;
        operator.restart()?;
        Ok(operator)
    }

    /// Prepares the service account without starting the program: [`Operator::restart`] starts it.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Kubernetes`].
    pub async fn prepare(
        kubernetes: &Kubernetes,
        service_account: &str,
        options: OperatorOptions,
    ) -> Result<Self, Error> {
        let dir = &options.dir;
        std::fs::create_dir_all(dir).map_err(|source| Error::Io {
            path: dir.clone(),
            source,
        })?;
        let kubeconfig = dir.join("operator.kubeconfig");
        kubernetes
            .service_account_kubeconfig(&options.namespace, service_account, &kubeconfig)
            .await?;
        Ok(Self {
            options,
            process: None,
        })
    }

    /// Kills the program if it runs, and starts it with its options.
    ///
    /// # Errors
    /// [`Error::Process`].
    pub fn restart(&mut self) -> Result<(), Error> {
        self.kill();
        let OperatorOptions {
            binary,
            dir,
            watch,
            env,
            args,
            ..
        } = &self.options;
        let mut command = Command::new(binary);
        // The user's own AWS, cluster and proxy settings must not reach the operator: a sandbox must never
        // touch a real account or cluster.
        for (name, _) in env::vars_os().filter(|(name, _)| belongs_to_the_user(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        command
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("KUBECONFIG", dir.join("operator.kubeconfig"));
        if !watch.is_empty() {
            command.env("MTLS_OPERATOR_WATCH_NAMESPACE", watch.join(","));
        }
        command
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start("mtls-operator", command, &self.log())?);
        Ok(())
    }

    /// Sets another URL of the API server, from the next start on: the URL of a proxy in front of it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn go_through(&mut self, server: &str) -> Result<(), Error> {
        let path = self.options.dir.join("operator.kubeconfig");
        let failed = |source| Error::Io {
            path: path.clone(),
            source,
        };
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        let mut kubeconfig: Value =
            serde_saphyr::from_str(&text).map_err(|e| failed(std::io::Error::other(e)))?;
        kubeconfig["clusters"][0]["cluster"]["server"] = json!(server);
        let text = serde_saphyr::to_string(&kubeconfig).expect("JSON can be written as YAML");
        std::fs::write(&path, text).map_err(failed)
    }

    /// Sets another value of a variable, from the next start on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.options.env.retain(|(known, _)| known != name);
        self.options.env.push((name.to_owned(), value.to_owned()));
    }

    /// Sends SIGKILL. Does nothing when the program does not run.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Sends SIGTERM and waits for the end; kills the program when that takes longer than a Pod would get.
    /// `None` when it does not run.
    ///
    /// # Errors
    /// [`Error::Process`] when the program had to be killed.
    pub async fn stop(&mut self) -> Result<Option<ExitStatus>, Error> {
        let Some(process) = self.process.take() else {
            return Ok(None);
        };
        Ok(Some(process.stop(GRACE).await?))
    }

    /// Returns the running process; `None` after [`Operator::kill`] and [`Operator::stop`].
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Returns the path of the log, which is kept over restarts.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.options.dir.join("operator.log")
    }
}

/// True when a variable could lead the operator out of the sandbox.
fn belongs_to_the_user(variable: &str) -> bool {
    let variable = variable.to_ascii_uppercase();
    ["AWS_", "KUBE", "MTLS_OPERATOR_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
        || variable.ends_with("_PROXY")
}

/// Gives the service account in `namespace` the rules of the chart: in the namespaces of `watch`, in the
/// whole cluster when that is empty; and the lease in its own namespace. Returns when the rules are in force.
///
/// # Errors
/// [`Error::Kubernetes`], [`Error::Grant`] and [`Error::NotInForce`].
pub async fn grant(kubernetes: &Kubernetes, namespace: &str, watch: &[String]) -> Result<(), Error> {
    kubernetes.namespace(namespace).await?;
    let subjects = json!([{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": namespace}]);
    // The name contains the operator's namespace too, so that two operators in one cluster do not take each
    // other's permissions.
    let name = format!("{SERVICE_ACCOUNT}-{namespace}");
    let lease = format!("{name}-lease");
    let role_ref = |kind: &str, role: &str| {
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role});
        json!({"roleRef": role, "subjects": subjects})
    };

    apply(
        kubernetes,
        "Role",
        Some(namespace),
        &lease,
        json!({"rules": rules(LEASE)}),
    )
    .await?;
    apply(
        kubernetes,
        "RoleBinding",
        Some(namespace),
        &lease,
        role_ref("Role", &lease),
    )
    .await?;
    if watch.is_empty() {
        let all = [rules(NAMESPACED), rules(CLUSTER)].concat();
        apply(kubernetes, "ClusterRole", None, &name, json!({"rules": all})).await?;
        apply(
            kubernetes,
            "ClusterRoleBinding",
            None,
            &name,
            role_ref("ClusterRole", &name),
        )
        .await?;
    }
    for watched in watch {
        kubernetes.namespace(watched).await?;
        apply(
            kubernetes,
            "Role",
            Some(watched),
            &name,
            json!({"rules": rules(NAMESPACED)}),
        )
        .await?;
        apply(
            kubernetes,
            "RoleBinding",
            Some(watched),
            &name,
            role_ref("Role", &name),
        )
        .await?;
    }
    // The API server learns of new rules by a watch, so the first requests after a grant could still be
    // refused.
    in_force(
        kubernetes,
        namespace,
        namespace,
        ("create", "coordination.k8s.io", "leases"),
    )
    .await?;
    for place in watch
        .iter()
        .map(String::as_str)
        .chain(watch.is_empty().then_some(""))
    {
        in_force(
            kubernetes,
            namespace,
            place,
            ("list", "mtls-operator.io", "mtlsdomains"),
        )
        .await?;
    }
    Ok(())
}

/// Lets the service account in `namespace` read the labels of all namespaces. Returns when that is in force.
///
/// # Errors
/// [`Error::Grant`] and [`Error::NotInForce`].
pub async fn grant_namespaces(kubernetes: &Kubernetes, namespace: &str) -> Result<(), Error> {
    let name = format!("{SERVICE_ACCOUNT}-{namespace}-namespaces");
    let subjects = json!([{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": namespace}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    apply(
        kubernetes,
        "ClusterRole",
        None,
        &name,
        json!({"rules": rules(NAMESPACES)}),
    )
    .await?;
    let binding = json!({"roleRef": role, "subjects": subjects});
    apply(kubernetes, "ClusterRoleBinding", None, &name, binding).await?;
    in_force(kubernetes, namespace, "", ("list", "", "namespaces")).await
}

/// Applies an object of rbac.authorization.k8s.io/v1.
async fn apply(
    kubernetes: &Kubernetes,
    kind: &'static str,
    namespace: Option<&str>,
    name: &str,
    mut object: Value,
) -> Result<(), Error> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind));
    object["apiVersion"] = json!(resource.api_version);
    object["kind"] = json!(kind);
    object["metadata"] = json!({"name": name});
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(kubernetes.admin(), namespace, &resource),
        None => Api::all_with(kubernetes.admin(), &resource),
    };
    let applied = api
        .patch(
            name,
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(&object),
        )
        .await;
    applied.map(|_| ()).map_err(|source| Error::Grant {
        kind,
        name: name.into(),
        source,
    })
}

/// Waits until the service account in `namespace` may do `action` (verb, group, resource) in `place`; "" is
/// the whole cluster.
async fn in_force(
    kubernetes: &Kubernetes,
    namespace: &str,
    place: &str,
    (verb, group, resource): (&str, &str, &str),
) -> Result<(), Error> {
    let user = format!("system:serviceaccount:{namespace}:{SERVICE_ACCOUNT}");
    let action = json!({"verb": verb, "group": group, "resource": resource, "namespace": place});
    let review: SubjectAccessReview = serde_json::from_value(json!({
        "spec": {"user": user, "resourceAttributes": action},
    }))
    .expect("the object above is a SubjectAccessReview");
    let reviews = Api::<SubjectAccessReview>::all(kubernetes.admin());
    let start = Instant::now();
    while start.elapsed() < GRANT_DEADLINE {
        let answer = reviews.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|source| Error::Grant {
            kind: "SubjectAccessReview",
            name: user.clone(),
            source,
        })?;
        if answer.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let place = if place.is_empty() { "all namespaces" } else { place };
    Err(Error::NotInForce { place: place.into() })
}

fn rules(yaml: &str) -> Vec<PolicyRule> {
    serde_saphyr::from_str(yaml).expect("the chart's rules are PolicyRules, a test checks it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_lead_out_of_the_sandbox_are_removed() {
        for name in [
            "AWS_PROFILE",
            "AWS_ACCESS_KEY_ID",
            "KUBECONFIG",
            "KUBERNETES_SERVICE_HOST",
            "https_proxy",
            "MTLS_OPERATOR_POLICY",
        ] {
            assert!(belongs_to_the_user(name), "{name}");
        }
        for name in ["PATH", "HOME", "RUST_LOG", "SSL_CERT_FILE"] {
            assert!(!belongs_to_the_user(name), "{name}");
        }
    }

    #[test]
    fn the_charts_rules_are_policy_rules() {
        let all = [
            ("namespaced", NAMESPACED),
            ("cluster", CLUSTER),
            ("lease", LEASE),
            ("namespaces", NAMESPACES),
        ];
        for (name, yaml) in all {
            let rules = rules(yaml);
            assert!(!rules.is_empty(), "{name}.yaml is empty");
            for rule in rules {
                let wildcard = [rule.api_groups, rule.resources, Some(rule.verbs)]
                    .into_iter()
                    .flatten()
                    .flatten()
                    .any(|each| each == "*");
                assert!(!wildcard, "{name}.yaml grants more than it names");
            }
        }
    }
}
