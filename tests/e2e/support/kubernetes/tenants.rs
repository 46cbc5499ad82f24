//! Tenants: users of one namespace, each with its own token.
use k8s_openapi::api::rbac::v1;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use mtls_operator::api::MtlsDomain;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::support::{
    kubernetes::{
        objects::CERTIFICATE,
        teams::{Team, asking},
    },
    test_env::TestEnv,
    world::{eventually, world},
};

/// User with the rights that a team has in its own namespace.
pub struct Tenant {
    pub client: Client,
    pub namespace: String,
}

impl Tenant {
    pub async fn of(env: &TestEnv, namespace: &str) -> Tenant {
        let rules = json!([
            {
                "apiGroups": ["mtls-operator.io"], "resources": ["mtlsdomains", "clientcertificates"],
                "verbs": ["*"],
            },
            {"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["*"]},
        ]);
        let tenant = Tenant {
            client: user(env, namespace, rules).await,
            namespace: namespace.into(),
        };
        eventually("the tenant's rights", async || {
            tenant
                .domains()
                .list(&Default::default())
                .await
                .map(drop)
                .map_err(|e| e.to_string())
        })
        .await;
        tenant
    }

    pub fn domains(&self) -> Api<MtlsDomain> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn create(&self, metadata: Value, spec: Value) -> MtlsDomain {
        let object = json!({
            "apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain", "metadata": metadata,
            "spec": spec,
        });
        let object = serde_json::from_value(object).unwrap();
        self.domains()
            .create(&PostParams::default(), &object)
            .await
            .unwrap()
    }

    pub async fn patch(&self, name: &str, patch: Value) {
        self.domains()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// Message of the condition Accepted, once it is False for this reason.
    pub async fn refused(&self, name: &str, reason: &str) -> String {
        eventually(&format!("{reason} of {name}"), async || {
            let conditions = self
                .domains()
                .get(name)
                .await
                .unwrap()
                .status
                .unwrap_or_default()
                .conditions;
            let refused = conditions
                .iter()
                .find(|c| c.type_ == "Accepted" && c.status == "False");
            refused
                .filter(|c| c.reason == reason)
                .map(|c| c.message.clone())
                .ok_or(format!("{conditions:?}"))
        })
        .await
    }

    pub async fn gone(&self, name: &str) {
        eventually(&format!("the end of {name}"), async || {
            match self.domains().get_opt(name).await.unwrap() {
                None => Ok(()),
                Some(left) => Err(format!("{:?}", left.status)),
            }
        })
        .await;
    }
}

/// User with its own token and with these rights in one namespace, and no others.
pub async fn user(env: &TestEnv, namespace: &str, rules: Value) -> Client {
    let role = json!({"metadata": {"name": "tenant"}, "rules": rules});
    let binding = json!({
        "metadata": {"name": "tenant"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant"},
        "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": namespace}],
    });
    let (roles, bindings) = (
        Api::<v1::Role>::namespaced(env.client.clone(), namespace),
        Api::<v1::RoleBinding>::namespaced(env.client.clone(), namespace),
    );
    roles
        .create(&PostParams::default(), &serde_json::from_value(role).unwrap())
        .await
        .unwrap();
    bindings
        .create(&PostParams::default(), &serde_json::from_value(binding).unwrap())
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    world()
        .kubernetes
        .service_account_kubeconfig(namespace, "tenant", &path)
        .await
        .unwrap();
    let kubeconfig = Kubeconfig::read_from(&path).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.proxy_url = None;
    Client::try_from(config).unwrap()
}

/// True for the API server's answer to a request that a tenant may not make.
pub fn is_forbidden<T>(answer: Result<T, kube::Error>) -> bool {
    matches!(answer, Err(kube::Error::Api(status)) if status.is_forbidden())
}

/// Tenant who may request, and owns the Secrets of its namespace.
pub async fn requester(env: &TestEnv, name: &str) -> Team {
    let roles: Vec<Value> =
        serde_saphyr::from_multiple(include_str!("../../../../examples/rbac.yaml")).unwrap();
    let role = roles
        .iter()
        .find(|r| r["metadata"]["name"] == "mtls-operator-may-request")
        .unwrap();
    let mut rules = role["rules"].as_array().unwrap().clone();
    rules.push(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}));
    let namespace = env.beside(name);
    let team = Team {
        client: user(env, &namespace, rules.into()).await,
        namespace,
    };
    eventually("the tenant's rights", async || {
        team.api(CERTIFICATE)
            .list(&Default::default())
            .await
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .await;
    team
}

/// Signing request with this common name, and URI when there is one.
pub fn csr(common_name: &str, uri: Option<&str>) -> String {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
        .subject_alt_names
        .extend(uri.map(|uri| rcgen::SanType::URI(uri.try_into().unwrap())));
    params
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap()
        .pem()
        .unwrap()
}

pub fn by_csr(env: &TestEnv, csr: &str) -> Value {
    let mut spec = asking(env, "", json!({"csr": csr}));
    spec.as_object_mut().unwrap().remove("subject");
    spec
}
