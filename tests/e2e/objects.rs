//! Helpers of the end-to-end tests of certificates and trust: manifests, waiting for conditions, CAs of
//! partners, and a caller at the edge.
use std::{
    path::Path,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use k8s_openapi::{
    ByteString,
    api::{core::v1::Secret, events::v1::Event},
};
use kube::{
    api::{
        Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, ObjectMeta, Patch,
        PatchParams, PropagationPolicy, WatchEvent, WatchParams,
    },
    core::Resource,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use sandbox::control::{Call, Calls, Control};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{io::AsyncWriteExt, process::Command, task::JoinHandle};

use crate::world::{TestEnv, eventually, world};

pub const DOMAIN: &str = "MtlsDomain";
pub const CERTIFICATE: &str = "ClientCertificate";

pub fn api(env: &TestEnv, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("mtls-operator.io", "v1alpha1", kind));
    Api::namespaced_with(env.client.clone(), &env.namespace, &resource)
}

/// The emulator's control API, with connections of this test's own runtime.
pub fn control() -> Control {
    Control::new(world().aws.endpoint())
}

pub async fn create(env: &TestEnv, kind: &str, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": "mtls-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let object = serde_json::from_value(object).expect("an object");
    api(env, kind)
        .create(&kube::api::PostParams::default(), &object)
        .await
        .expect("the API server takes the object");
}

/// Applies a merge patch to the spec.
pub async fn change(env: &TestEnv, kind: &str, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    api(env, kind)
        .patch(name, &PatchParams::default(), &patch)
        .await
        .expect("the API server takes the change");
}

pub async fn delete(env: &TestEnv, kind: &str, name: &str) {
    api(env, kind)
        .delete(name, &Default::default())
        .await
        .expect("the API server takes the deletion");
}

/// Deletes the object without the operator's cleanup, and leaves what the operator made. The result is the
/// state of a new cluster that receives only the manifests.
pub async fn taken_out(env: &TestEnv, kind: &str, name: &str) -> DynamicObject {
    let api = api(env, kind);
    let mut object = api.get(name).await.expect("the object");
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch(name, &PatchParams::default(), &free)
        .await
        .expect("without finalizers");
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    api.delete(name, &orphan).await.expect("deleted");
    eventually("the object is gone", async || {
        match api.get_opt(name).await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(_) => Err("there".into()),
        }
    })
    .await;
    object.data.as_object_mut().expect("an object").remove("status");
    object.metadata = ObjectMeta {
        name: Some(name.into()),
        ..ObjectMeta::default()
    };
    object
}

/// Spec with the API of this environment behind all paths, and with these authorities.
pub fn domain_spec(env: &TestEnv, trust: Value) -> Value {
    json!({
        "domainName": env.host(),
        "trust": trust,
        "mappings": [{"path": "", "api": {"id": env.prepared.api_id, "stage": "$default"}}],
    })
}

/// Trust with one generated authority, `ca`.
pub fn generated() -> Value {
    json!({"authorities": [{"name": "ca", "generate": {}}]})
}

/// Creates the MtlsDomain `partners` with a generated authority, and waits until it is Ready.
pub async fn ready_domain(env: &TestEnv) {
    create(env, DOMAIN, "partners", domain_spec(env, generated())).await;
    until(env, DOMAIN, "partners", "Ready", "True", "").await;
}

pub fn certificate_spec(common_name: &str) -> Value {
    json!({"domainRef": {"name": "partners"}, "subject": {"commonName": common_name}})
}

pub fn condition(object: &Value, type_: &str) -> Option<Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == type_)
        .cloned()
}

/// Status of a condition, "" when it is absent.
pub fn says(object: &Value, type_: &str) -> String {
    condition(object, type_)
        .and_then(|c| Some(c["status"].as_str()?.to_owned()))
        .unwrap_or_default()
}

/// Statuses of Ready, Reconciling and Stalled.
pub fn summary(object: &Value) -> [String; 3] {
    ["Ready", "Reconciling", "Stalled"].map(|type_| says(object, type_))
}

pub async fn get(env: &TestEnv, kind: &str, name: &str) -> Value {
    serde_json::to_value(api(env, kind).get(name).await.expect("the object is there")).expect("JSON")
}

/// Waits until a condition has this status and reason for the current generation; an empty reason is any.
pub async fn until(env: &TestEnv, kind: &str, name: &str, type_: &str, status: &str, reason: &str) -> Value {
    until_object(env, kind, name, &format!("{type_}={status}/{reason}"), |object| {
        let Some(c) = condition(object, type_) else {
            return false;
        };
        c["status"] == status
            && (reason.is_empty() || c["reason"] == reason)
            && c["observedGeneration"] == object["metadata"]["generation"]
    })
    .await
}

pub async fn until_object(
    env: &TestEnv,
    kind: &str,
    name: &str,
    what: &str,
    held: impl Fn(&Value) -> bool,
) -> Value {
    eventually(&format!("{kind} {name}: {what}"), async || {
        let object = get(env, kind, name).await;
        if held(&object) {
            Ok(object)
        } else {
            Err(object["status"].to_string())
        }
    })
    .await
}

/// Waits until the ClientCertificate is Ready with that revision or a later one. Returns it and its Secret.
pub async fn issued(env: &TestEnv, name: &str, revision: i64) -> (Value, Secret) {
    let object = until_object(
        env,
        CERTIFICATE,
        name,
        &format!("Ready with revision {revision}"),
        |o| {
            says(o, "Ready") == "True"
                && o["status"]["revision"].as_i64() >= Some(revision)
                && o["status"]["observedGeneration"] == o["metadata"]["generation"]
        },
    )
    .await;
    let secret = env
        .secrets()
        .get(object["spec"]["secretName"].as_str().unwrap_or(name))
        .await
        .expect("its Secret");
    (object, secret)
}

pub async fn ask_for_renewal(env: &TestEnv, name: &str, value: &str) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"mtls-operator.io/renew": value}}}));
    api(env, CERTIFICATE)
        .patch(name, &PatchParams::default(), &patch)
        .await
        .expect("an annotation");
}

/// Reasons of all Events about that object.
pub async fn events_about(env: &TestEnv, name: &str) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(env.client.clone(), &env.namespace);
    let all = events
        .list(&Default::default())
        .await
        .expect("a list")
        .items
        .into_iter();
    let about = all.filter(|e| {
        e.regarding
            .as_ref()
            .is_some_and(|r| r.name.as_deref() == Some(name))
    });
    about.map(|e| e.reason.unwrap_or_default()).collect()
}

/// Note of the Event about that object with that reason.
pub async fn event(env: &TestEnv, name: &str, reason: &str) -> String {
    let events: Api<Event> = Api::namespaced(env.client.clone(), &env.namespace);
    eventually(&format!("the Event {reason} about {name}"), async || {
        let all = events
            .list(&Default::default())
            .await
            .map_err(|e| e.to_string())?
            .items;
        let about = |e: &&Event| {
            e.reason.as_deref() == Some(reason)
                && e.regarding
                    .as_ref()
                    .is_some_and(|r| r.name.as_deref() == Some(name))
        };
        all.iter()
            .find(about)
            .and_then(|e| e.note.clone())
            .ok_or(format!("{} others", all.len()))
    })
    .await
}

/// Record of every state of one object (an empty name: of all of its kind), as a watch shows them.
pub struct Recorder {
    seen: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Recorder {
    pub async fn start(env: &TestEnv, kind: &str, name: &str) -> Recorder {
        let api = api(env, kind);
        let only = if name.is_empty() {
            String::new()
        } else {
            format!("metadata.name={name}")
        };
        let now = api
            .list(&ListParams::default().fields(&only))
            .await
            .expect("a list");
        let version = now.metadata.resource_version.expect("lists have one");
        let there: Vec<_> = now
            .items
            .into_iter()
            .map(|object| serde_json::to_value(object).expect("JSON"))
            .collect();
        let params = WatchParams::default().fields(&only);
        let seen = Arc::new(Mutex::new(there));
        let log = seen.clone();
        let task = tokio::spawn(async move {
            let mut events = api.watch(&params, &version).await.expect("a watch").boxed();
            while let Some(event) = events.next().await {
                if let Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) = event {
                    log.lock()
                        .unwrap()
                        .push(serde_json::to_value(object).expect("JSON"));
                }
            }
        });
        Recorder { seen, task }
    }

    /// States seen so far.
    pub fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }

    /// States seen until `last`, an object as it was read, has come by.
    pub async fn until(&self, last: &Value) -> Vec<Value> {
        eventually("the watch shows what was read", async || {
            assert!(!self.task.is_finished(), "the watch has ended");
            let seen = self.seen();
            let version = |o: &Value| {
                o["metadata"]["resourceVersion"]
                    .as_str()
                    .and_then(|v| v.parse::<u64>().ok())
            };
            let reached = seen.last().is_some_and(|newest| version(newest) >= version(last));
            if reached {
                Ok(seen)
            } else {
                Err(format!("{} events", seen.len()))
            }
        })
        .await
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// ---- Secrets

pub fn text(secret: &Secret, key: &str) -> String {
    let ByteString(bytes) = secret
        .data
        .as_ref()
        .and_then(|d| d.get(key))
        .unwrap_or_else(|| panic!("no {key}"))
        .clone();
    String::from_utf8(bytes).expect("PEM is text")
}

/// Replaces values in a Secret.
pub async fn damage(env: &TestEnv, name: &str, values: &[(&str, &str)]) {
    let values: serde_json::Map<_, _> = values.iter().map(|(k, v)| ((*k).to_owned(), json!(*v))).collect();
    let patch = Patch::Merge(json!({"stringData": values}));
    env.secrets()
        .patch(name, &PatchParams::default(), &patch)
        .await
        .expect("the API server takes the change");
}

pub async fn create_secret(env: &TestEnv, name: &str, values: &[(&str, &str)]) {
    let values: serde_json::Map<_, _> = values.iter().map(|(k, v)| ((*k).to_owned(), json!(*v))).collect();
    let secret = json!({"metadata": {"name": name}, "stringData": values});
    let secret: Secret = serde_json::from_value(secret).expect("a Secret");
    env.secrets()
        .create(&Default::default(), &secret)
        .await
        .expect("the API server takes the Secret");
}

pub fn version(object: &impl Resource) -> Option<String> {
    object.meta().resource_version.clone()
}

/// Runs `openssl` with these arguments, this input, in this folder. Returns its standard output.
pub async fn openssl(dir: &Path, args: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new("openssl");
    command
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl is there");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .await
        .expect("openssl reads its input");
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().await.expect("openssl ends");
    let (out, err) = (
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr),
    );
    if status.success() {
        Ok(out)
    } else {
        Err(format!("openssl {}: {out}{err}", args.join(" ")))
    }
}

/// Checks the promises to a program that mounts the Secret: the leaf first, verified by ca.crt, with the key
/// that fits. Returns the leaf's subject.
pub async fn sound(secret: &Secret) -> Result<String, String> {
    let dir = tempfile::tempdir().expect("a folder");
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        std::fs::write(dir.path().join(file), text(secret, file)).expect("a file");
    }
    let verify = [
        "verify",
        "-purpose",
        "sslclient",
        "-CAfile",
        "ca.crt",
        "-untrusted",
        "tls.crt",
        "tls.crt",
    ];
    openssl(dir.path(), &verify, "").await?;
    let of_crt = openssl(dir.path(), &["x509", "-in", "tls.crt", "-noout", "-pubkey"], "").await?;
    let of_key = openssl(dir.path(), &["pkey", "-in", "tls.key", "-pubout"], "").await?;
    if of_crt != of_key {
        return Err("tls.key does not belong to tls.crt".into());
    }
    openssl(
        dir.path(),
        &[
            "x509", "-in", "tls.crt", "-noout", "-subject", "-nameopt", "RFC2253",
        ],
        "",
    )
    .await
}

// ---- callers

/// Certificate (leaf first) and key of a caller, in PEM.
pub struct Caller {
    pub crt: String,
    pub key: String,
}

impl Caller {
    pub fn of(secret: &Secret) -> Caller {
        Caller {
            crt: text(secret, "tls.crt"),
            key: text(secret, "tls.key"),
        }
    }

    /// Returns the HTTP status of an HTTPS request through the edge; "000" when the handshake failed.
    pub async fn calls(&self, env: &TestEnv) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("crt"), &self.crt).expect("a file");
        std::fs::write(dir.path().join("key"), &self.key).expect("a file");
        let host = env.host();
        let out = Command::new("curl")
            .args([
                "--silent",
                "--noproxy",
                "*",
                "--max-time",
                "20",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
            ])
            .args(["--cert", "crt", "--key", "key", "--cacert"])
            .arg(world().ca_file())
            .args([
                "--connect-to",
                &format!("{host}:443:{}", world().edge.address()),
                &format!("https://{host}/"),
            ])
            .current_dir(dir.path())
            .output()
            .await
            .expect("curl is there");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

/// CA of a partner.
pub struct Ca {
    pub pem: String,
    pub key: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn new(common_name: &str) -> Ca {
        Ca::of(
            common_name,
            rcgen::date_time_ymd(2020, 1, 1),
            rcgen::date_time_ymd(2045, 1, 1),
        )
    }

    /// CA that is valid from and until so long after now.
    pub fn valid(common_name: &str, from: Duration, to: Duration) -> Ca {
        let now = SystemTime::now();
        Ca::of(common_name, (now + from).into(), (now + to).into())
    }

    /// CA with URIs, as long as the list makes it.
    pub fn with_uris(common_name: &str, uris: &[String]) -> Ca {
        let uri = |uri: &String| SanType::URI(uri.as_str().try_into().expect("ASCII"));
        let (from, to) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2045, 1, 1));
        Ca::named(common_name, uris.iter().map(uri).collect(), from, to)
    }

    fn of(common_name: &str, not_before: OffsetDateTime, not_after: OffsetDateTime) -> Ca {
        Ca::named(common_name, vec![], not_before, not_after)
    }

    fn named(
        common_name: &str,
        names: Vec<SanType>,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Ca {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.subject_alt_names = names;
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (not_before, not_after);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Ca {
            pem,
            key: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn leaf(&self, common_name: &str) -> Caller {
        self.leaf_until(common_name, rcgen::date_time_ymd(2044, 1, 1))
    }

    pub fn leaf_until(&self, common_name: &str, not_after: OffsetDateTime) -> Caller {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), not_after);
        let crt = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Caller {
            crt,
            key: key.serialize_pem(),
        }
    }
}

// ---- AWS

/// Truststore that the domain of this environment pins: its version, and the object's text of exactly that
/// version.
pub async fn truststore(env: &TestEnv) -> (String, String) {
    truststore_of(env, &env.host()).await
}

/// Truststore of the domain of that name, as [`truststore`] returns it.
pub async fn truststore_of(env: &TestEnv, host: &str) -> (String, String) {
    let sdk = env.account.sdk();
    let domain = aws_sdk_apigatewayv2::Client::new(&sdk)
        .get_domain_name()
        .domain_name(host)
        .send()
        .await
        .expect("the domain");
    let used = domain.mutual_tls_authentication.expect("mutual TLS is on");
    let (uri, version) = (
        used.truststore_uri.expect("a URI"),
        used.truststore_version.expect("a version is pinned"),
    );
    let (bucket, key) = uri
        .strip_prefix("s3://")
        .and_then(|path| path.split_once('/'))
        .expect("an S3 URI");
    let object = aws_sdk_s3::Client::new(&sdk)
        .get_object()
        .bucket(bucket)
        .key(key)
        .version_id(&version)
        .send()
        .await
        .expect("the version");
    let bytes = object
        .body
        .collect()
        .await
        .expect("the object's content")
        .into_bytes();
    (version, String::from_utf8(bytes.to_vec()).expect("PEM is text"))
}

/// True when `pem` stands in a truststore, however its lines are broken.
pub fn holds(truststore: &str, pem: &str) -> bool {
    let flat = |text: &str| text.split_whitespace().collect::<String>();
    flat(truststore).contains(&flat(pem))
}

pub async fn last_call() -> u64 {
    control()
        .calls(&Calls {
            account: "none",
            ..Calls::default()
        })
        .await
        .expect("the journal")
        .last
}

pub async fn writes_since(env: &TestEnv, since: u64) -> Vec<Call> {
    control()
        .calls(&Calls {
            account: &env.account.id,
            since,
            writes: true,
            ..Calls::default()
        })
        .await
        .expect("the journal")
        .calls
}
