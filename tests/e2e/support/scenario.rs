//! A whole scenario that every kind of trouble is tried on (`faults/`): a domain and a certificate are
//! created, changed seven times, and deleted. The state before the deletion, and the leftovers after it, must
//! be the same whatever happens on the way.
use std::{collections::BTreeSet, sync::LazyLock};

use kube::{ResourceExt, api::ListParams};
use sandbox::{
    api_proxy::ApiProxy,
    control::{Call, Calls},
    prepare::authorizer_function,
};
use serde_json::{Value, json};

use super::{
    aws::truststores::truststore,
    kubernetes::objects::{DOMAIN, create, domain_spec},
    partner_ca::Ca,
    test_env::TestEnv,
    world::eventually,
};

pub const FUNCTION: &str = "who";

/// CA of a partner, the same in every run.
pub static PARTNER: LazyLock<Ca> = LazyLock::new(|| Ca::new("partner"));

/// Validation records of the names of both server certificates.
pub const VALIDATION: [&str; 2] = ["record Cname alt.ZONE.", "record Cname mtls.ZONE."];

/// Result of a run: the world before the deletion and after it, in words that are the same in every account.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub served: BTreeSet<String>,
    pub left: BTreeSet<String>,
}

/// Call that is held, in the middle of which the operator is killed.
#[derive(Clone, Copy)]
pub enum Held<'a> {
    /// Fault rule of the emulator that holds the call.
    Aws(u64),
    /// Rule of the proxy in front of the API server that holds the call.
    Cluster(&'a ApiProxy, u64),
}

/// Changes of the spec, one after the other.
pub fn changes(env: &TestEnv) -> [(&'static str, Value); 7] {
    let api = json!({"id": env.prepared.api_id, "stage": "$default"});
    [
        (
            "another authority",
            json!({
                "trust": {
                    "authorities": [
                        {"name": "partners", "generate": {}}, {"name": "partner", "pem": PARTNER.pem},
                    ],
                },
            }),
        ),
        (
            "another name in the certificate",
            json!({
                "serverCertificate": {
                    "request": {"subjectAlternativeNames": [format!("alt.{}", env.prepared.zone)]},
                },
            }),
        ),
        ("another path", json!({"mappings": [{"path": "v1", "api": api}]})),
        (
            "headers",
            json!({"identity": {
                "headers": [
                    {"name": "x-client-cert-sub", "from": {"clientCert": "SubjectDN"}},
                    {"name": "x-client-cn", "from": {"authorizerKey": "commonName"}},
                ],
                "authorizer": {"functionArn": function(env)},
            }}),
        ),
        ("no headers", json!({"identity": null})),
        ("IPv6", json!({"ipAddressType": "DualStack"})),
        (
            "no other authority any more",
            json!({"trust": {"authorities": [{"name": "partners", "generate": {}}]}}),
        ),
    ]
}

/// Specs of the MtlsDomain, at first and after each change.
pub fn specs(env: &TestEnv) -> Vec<Value> {
    let mut spec = domain_spec(env, first_trust());
    let mut all = vec![spec.clone()];
    for (_, change) in changes(env) {
        for (field, value) in change.as_object().expect("a change is an object") {
            match value {
                Value::Null => spec.as_object_mut().expect("a spec is an object").remove(field),
                value => spec
                    .as_object_mut()
                    .expect("a spec is an object")
                    .insert(field.clone(), value.clone()),
            };
        }
        all.push(spec.clone());
    }
    all
}

pub fn first_trust() -> Value {
    json!({"authorities": [{"name": "partners", "generate": {}}]})
}

/// Creates what the scenario needs beside the resources of every environment: a function to authorize
/// callers.
pub async fn prepare(env: &TestEnv) {
    let made = authorizer_function(&env.account, FUNCTION)
        .await
        .expect("a function");
    assert_eq!(made, function(env));
}

pub fn function(env: &TestEnv) -> String {
    format!(
        "arn:aws:lambda:{}:{}:function:{FUNCTION}",
        env.account.region, env.account.id
    )
}

/// Runs the scenario. `killed_at`: the operator is killed in the middle of that call, and started again.
pub async fn tell(env: &mut TestEnv, mut killed_at: Option<Held<'_>>) -> Told {
    create(env, DOMAIN, "d", domain_spec(env, first_trust())).await;
    env.create_certificate("client1", "d").await;
    served(env, &mut killed_at, "made").await;
    for (what, change) in changes(env) {
        env.change("d", change).await;
        served(env, &mut killed_at, what).await;
    }
    // The operator deletes the replaced certificate a moment later.
    eventually("one server certificate", async || {
        kill(env, &mut killed_at).await;
        match env.server_certificates().await.len() {
            1 => Ok(()),
            count => Err(format!("{count} certificates")),
        }
    })
    .await;
    let all = there(env).await;
    env.domains()
        .delete("d", &Default::default())
        .await
        .expect("the object can be deleted");
    env.certificates()
        .delete("client1", &Default::default())
        .await
        .expect("the object can be deleted");
    eventually("everything is deleted", async || {
        kill(env, &mut killed_at).await;
        let left = env.domains().get_opt("d").await.map_err(|e| e.to_string())?;
        let status = left.map(|d| serde_json::to_string(&d.status).expect("JSON"));
        let secrets = env
            .secrets()
            .list(&ListParams::default())
            .await
            .map_err(|e| e.to_string())?;
        match status {
            None if secrets.items.is_empty() => Ok(()),
            left => Err(format!("{left:?}, {} Secrets", secrets.items.len())),
        }
    })
    .await;
    let left = there(env).await;
    // ACM shares the validation record between all certificates for a name; the operator never opens a closed
    // endpoint again.
    let alone = [
        "0 server certificates",
        "0 versions of truststores",
        "endpoint closed: true",
    ];
    let expected: BTreeSet<_> = alone.into_iter().chain(VALIDATION).map(str::to_owned).collect();
    assert_eq!(left, expected);
    Told { served: all, left }
}

/// Waits until both objects are Ready with their current specs.
pub async fn served(env: &mut TestEnv, killed_at: &mut Option<Held<'_>>, what: &str) {
    eventually(&format!("{what}: Ready"), async || {
        kill(env, killed_at).await;
        let domain = env.domains().get("d").await.map_err(|e| e.to_string())?;
        let certificate = env
            .certificates()
            .get("client1")
            .await
            .map_err(|e| e.to_string())?;
        let ready = |object: Value| {
            let conditions = object["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let current = |c: &Value| c["observedGeneration"] == object["metadata"]["generation"];
            conditions
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True" && current(c))
        };
        let both =
            [serde_json::to_value(domain), serde_json::to_value(certificate)].map(|o| o.expect("JSON"));
        if both.iter().cloned().all(ready) {
            return Ok(());
        }
        Err(both
            .iter()
            .map(|object| format!("\n{}", object["status"]["conditions"]))
            .collect())
    })
    .await;
}

/// Kills the operator once the rule holds a call.
pub async fn kill(env: &mut TestEnv, held: &mut Option<Held<'_>>) {
    match *held {
        Some(Held::Aws(id)) => {
            let faults = env.control().faults().await.expect("the emulator answers");
            if !faults.iter().any(|fault| fault.id == id && fault.held > 0) {
                return;
            }
            env.kill_at(id, "held").await;
        }
        Some(Held::Cluster(proxy, id)) => {
            if proxy.fared(id).is_none_or(|fared| fared.held == 0) {
                return;
            }
            env.operator.kill();
            proxy.remove(id);
            env.operator.restart().expect("the operator starts");
        }
        None => return,
    }
    // No process renews the Lease any more: the next operator need not wait until it runs out.
    env.end_lease().await;
    *held = None;
}

/// True when the call that was to be held has come: the kill of the operator removes its rule.
pub async fn was_killed(env: &TestEnv, held: Held<'_>) -> bool {
    match held {
        Held::Aws(rule) => env
            .control()
            .faults()
            .await
            .expect("the emulator answers")
            .iter()
            .all(|f| f.id != rule),
        Held::Cluster(proxy, rule) => proxy.fared(rule).is_none(),
    }
}

/// Everything in AWS and in the namespace.
pub async fn there(env: &TestEnv) -> BTreeSet<String> {
    let (zone, api) = (env.prepared.zone.as_str(), env.prepared.api_id.as_str());
    let mut all = BTreeSet::new();
    for name in env.gateway_domains().await {
        let domain = env.gateway_domain().await;
        let config = &domain.domain_name_configurations()[0];
        let tags: BTreeSet<_> = domain.tags().into_iter().flatten().map(|(key, _)| key).collect();
        all.insert(format!(
            "domain {name} {:?} {:?} {tags:?}",
            config.ip_address_type(),
            config.domain_name_status()
        ));
        all.extend(
            env.mapped()
                .await
                .iter()
                .map(|mapping| format!("mapping {mapping:?}")),
        );
        let text = truststore(env).await.1;
        all.insert(format!(
            "trusts {} certificates",
            text.matches("BEGIN CERTIFICATE").count()
        ));
        all.insert(format!(
            "the partner is trusted: {}",
            text.contains(PARTNER.pem.trim())
        ));
    }
    let certificates = env.server_certificates().await;
    all.insert(format!("{} server certificates", certificates.len()));
    for arn in certificates {
        let certificate = env
            .acm()
            .describe_certificate()
            .certificate_arn(arn)
            .send()
            .await
            .expect("the certificate is there");
        let certificate = certificate.certificate.expect("a certificate");
        all.insert(format!(
            "certificate {:?} {:?}",
            certificate.status(),
            certificate.subject_alternative_names()
        ));
    }
    let names = |record: &aws_sdk_route53::types::ResourceRecordSet| {
        // AWS names a validation record after a secret of its own.
        let name = record
            .name
            .strip_prefix("_mtls-operator.")
            .unwrap_or(&record.name);
        let name = name
            .split_once('.')
            .filter(|_| name.starts_with('_'))
            .map_or(name, |(_, rest)| rest);
        format!("record {:?} {name}", record.r#type)
    };
    all.extend(env.records().await.iter().map(names));
    all.insert(format!(
        "{} versions of truststores",
        env.object_versions().await.len()
    ));
    all.insert(format!("endpoint closed: {}", env.endpoint_closed().await));
    let integrations = env
        .gateway()
        .get_integrations()
        .api_id(&env.prepared.api_id)
        .send()
        .await;
    let parameters = integrations
        .expect("GetIntegrations")
        .items
        .unwrap_or_default()
        .into_iter();
    let parameters = parameters.flat_map(|i| i.request_parameters.unwrap_or_default());
    all.extend(parameters.map(|(key, _)| format!("parameter {key}")));
    let routes = env
        .gateway()
        .get_routes()
        .api_id(&env.prepared.api_id)
        .send()
        .await
        .expect("GetRoutes");
    let asking = routes
        .items
        .unwrap_or_default()
        .into_iter()
        .filter(|route| route.authorizer_id.is_some());
    all.extend(asking.map(|route| format!("route {} is authorized", route.route_key.unwrap_or_default())));
    let authorizers = env
        .gateway()
        .get_authorizers()
        .api_id(&env.prepared.api_id)
        .send()
        .await;
    let authorizers = authorizers
        .expect("GetAuthorizers")
        .items
        .unwrap_or_default()
        .into_iter();
    all.extend(authorizers.map(|authorizer| format!("authorizer {}", authorizer.name.unwrap_or_default())));
    let lambda = aws_sdk_lambda::Client::new(&env.account.sdk());
    if let Ok(policy) = lambda.get_policy().function_name(FUNCTION).send().await {
        let policy: Value = serde_json::from_str(policy.policy().unwrap_or_default()).expect("a policy");
        all.extend(
            policy["Statement"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|statement| format!("{}", statement["Sid"])),
        );
    }
    let seen = env
        .gateway()
        .get_api()
        .api_id(&env.prepared.api_id)
        .send()
        .await
        .expect("GetApi");
    all.extend(
        seen.tags
            .unwrap_or_default()
            .keys()
            .map(|key| format!("tag {key}")),
    );
    let secrets = env.secrets().list(&ListParams::default()).await.expect("a list");
    all.extend(
        secrets
            .items
            .iter()
            .map(|secret| format!("Secret {}", secret.name_any())),
    );
    all.iter()
        .map(|line| line.replace(zone, "ZONE").replace(api, "API"))
        .collect()
}

/// Calls of this account from `mark` on.
pub async fn calls(env: &TestEnv, mark: u64) -> Vec<Call> {
    let which = Calls {
        account: &env.account.id,
        since: mark,
        ..Calls::default()
    };
    env.control().calls(&which).await.expect("the journal").calls
}
