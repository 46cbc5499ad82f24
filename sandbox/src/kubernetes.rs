//! Kubernetes API without nodes, and the administrator's operations in it for a test or a demo.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ApiResource, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::config::Config;
use kube::runtime::{conditions, wait};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::control_plane::{self, ControlPlane};
use crate::etcd;
use crate::kubeconfig::Access;

/// Time limit until the API server serves a CustomResourceDefinition.
const CRD_DEADLINE: Duration = Duration::from_secs(60);
/// Lifetime of service account tokens, longer than any sandbox.
const TOKEN_SECONDS: i64 = 30 * 24 * 3600;
pub(crate) const FIELD_MANAGER: &str = "sandbox";

/// Failure to start Kubernetes, or to apply an object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    ControlPlane(#[from] control_plane::Error),
    #[error("cannot use {path}", path = path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {doing}")]
    Request {
        doing: String,
        #[source]
        source: kube::Error,
    },
    #[error("{path} is not YAML", path = path.display())]
    Yaml {
        path: PathBuf,
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    #[error("{path} has something in it that is no CustomResourceDefinition", path = path.display())]
    NotACrd { path: PathBuf },
    #[error("{what} is no object that can be restored")]
    NotAnObject { what: String },
    #[error("cannot put {what} into etcd")]
    Etcd {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("the API server does not serve {crd} within {CRD_DEADLINE:?}")]
    NotServed { crd: String },
}

/// Running Kubernetes API. Dropping it ends all of its processes; its folder stays, with the logs in it.
#[derive(Debug)]
pub struct Kubernetes {
    /// Kubeconfig of an administrator (group system:masters).
    pub kubeconfig: PathBuf,
    dir: PathBuf,
    access: Access,
    config: Config,
    control_plane: Mutex<ControlPlane>,
}

impl Kubernetes {
    /// Starts an empty Kubernetes in `dir`: everything from an earlier one is removed, except the logs. On a
    /// machine that has the programs already this takes seconds; see [`crate::tools::link_into`].
    ///
    /// # Errors
    /// [`Error::ControlPlane`]; for a failed process it quotes the end of the log.
    pub async fn start(dir: &Path) -> Result<Self, Error> {
        let dir = std::path::absolute(dir).map_err(io_error(dir))?;
        let (control_plane, access) = ControlPlane::start(&dir).await?;
        let config = access.config().await.map_err(control_plane::Error::from)?;
        let (kubeconfig, control_plane) = (dir.join("kubeconfig"), Mutex::new(control_plane));
        Ok(Self {
            kubeconfig,
            dir,
            access,
            config,
            control_plane,
        })
    }

    /// Returns a new client with the administrator's permissions. It belongs to the async runtime of the
    /// caller.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn admin(&self) -> Client {
        let client = Client::try_from(self.config.clone());
        client.expect("a client of this configuration has been made at the start")
    }

    /// Returns the administrator's client configuration.
    #[must_use]
    pub fn admin_config(&self) -> Config {
        self.config.clone()
    }

    /// Returns a folder for PATH: kubectl, and the other programs of the sandbox.
    #[must_use]
    pub fn bin_dir(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Creates the namespace if it does not exist.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub async fn namespace(&self, name: &str) -> Result<(), Error> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let namespaces = Api::<Namespace>::all(self.admin());
        let applied = namespaces
            .patch(name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(object))
            .await;
        applied
            .map(|_| ())
            .map_err(request(|| format!("create the namespace {name}")))
    }

    /// Applies every CustomResourceDefinition in a YAML file, or in the *.yaml files of a folder, and waits
    /// until kubectl and the garbage collector know them.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Yaml`], [`Error::NotACrd`], [`Error::Request`] when the API server refuses
    /// one, [`Error::NotServed`], and [`Error::ControlPlane`] when the garbage collector does not come back.
    pub async fn install_crds(&self, path: &Path) -> Result<(), Error> {
        let crds = Api::<CustomResourceDefinition>::all(self.admin());
        let apply = PatchParams::apply(FIELD_MANAGER).force();
        let mut new = false;
        for crd in read_crds(path)? {
            let name = crd["metadata"]["name"].as_str().unwrap_or_default();
            let doing = || format!("install the CustomResourceDefinition {name}");
            new |= crds.get_opt(name).await.map_err(request(doing))?.is_none();
            crds.patch(name, &apply, &Patch::Apply(&crd))
                .await
                .map_err(request(doing))?;
            let served = tokio::time::timeout(CRD_DEADLINE, self.wait_until_served(&crds, name)).await;
            if served != Ok(true) {
                return Err(Error::NotServed { crd: name.into() });
            }
        }
        if new {
            self.control_plane.lock().await.restart_controllers().await?;
        }
        Ok(())
    }

    /// Restores objects of an earlier API server unchanged, even against the current schemas: with UID,
    /// dates, managed fields and status; only the `resourceVersion` differs. Objects must be of the core
    /// group and of installed CustomResourceDefinitions, owners before the objects that they own, or the
    /// garbage collector deletes the latter.
    ///
    /// # Errors
    /// [`Error::NotAnObject`], [`Error::Etcd`].
    pub async fn restore(&self, objects: &[Value]) -> Result<(), Error> {
        for object in objects {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
            let what = format!(
                "{} {}/{}",
                object["kind"],
                namespace.unwrap_or_default(),
                name.unwrap_or_default()
            );
            let (Some(version), Some(kind), Some(name)) = (text("/apiVersion"), text("/kind"), name) else {
                return Err(Error::NotAnObject { what });
            };
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let mut stored = object.clone();
            if let Some(metadata) = stored["metadata"].as_object_mut() {
                metadata.remove("resourceVersion");
            }
            let key = etcd::key(&resource.group, &resource.plural, namespace, name);
            etcd::put(&self.dir, &key, &stored)
                .await
                .map_err(|source| Error::Etcd { what, source })?;
        }
        Ok(())
    }

    /// Creates the service account if it does not exist, and writes a kubeconfig with a token of it;
    /// `namespace` is also the default namespace.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::Io`].
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
        path: &Path,
    ) -> Result<(), Error> {
        let doing = || format!("get a token of the service account {namespace}/{name}");
        let accounts = Api::<ServiceAccount>::namespaced(self.admin(), namespace);
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        let apply = PatchParams::apply(FIELD_MANAGER);
        accounts
            .patch(name, &apply, &Patch::Apply(object))
            .await
            .map_err(request(doing))?;
        let spec = TokenRequestSpec {
            expiration_seconds: Some(TOKEN_SECONDS),
            ..Default::default()
        };
        let asked = TokenRequest {
            spec,
            ..Default::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &asked)
            .await
            .map_err(request(doing))?;
        let token = answer.status.map(|status| status.token).unwrap_or_default();
        let access = Access {
            token,
            namespace: namespace.into(),
            ..self.access.clone()
        };
        access.write(path).map_err(io_error(path))
    }

    /// Waits until discovery has the kind, because Established is not enough: discovery, which kubectl and
    /// the garbage collector use, follows a moment later. False when the definition is deleted meanwhile.
    async fn wait_until_served(&self, crds: &Api<CustomResourceDefinition>, name: &str) -> bool {
        let established = wait::await_condition(crds.clone(), name, conditions::is_crd_established()).await;
        let Ok(Some(crd)) = established else {
            return false;
        };
        let (client, plural) = (self.admin(), &crd.spec.names.plural);
        for version in crd.spec.versions.iter().filter(|version| version.served) {
            let group_version = format!("{}/{}", crd.spec.group, version.name);
            let discovered = async || {
                let list = client.list_api_group_resources(&group_version).await;
                list.is_ok_and(|list| list.resources.iter().any(|resource| &resource.name == plural))
            };
            while !discovered().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        true
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}

fn request(doing: impl FnOnce() -> String) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Request {
        doing: doing(),
        source,
    }
}

fn read_crds(path: &Path) -> Result<Vec<Value>, Error> {
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(io_error(path))?;
        files = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<_>>()
            .map_err(io_error(path))?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
    }
    let mut crds = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).map_err(io_error(&path))?;
        let documents: Vec<Value> = match serde_saphyr::from_multiple(&text) {
            Ok(documents) => documents,
            Err(source) => {
                let source = Box::new(source);
                return Err(Error::Yaml { path, source });
            }
        };
        if documents
            .iter()
            .any(|document| document["kind"] != "CustomResourceDefinition")
        {
            return Err(Error::NotACrd { path });
        }
        crds.extend(documents);
    }
    Ok(crds)
}
