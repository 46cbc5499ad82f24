//! Certificates and Secrets that the operator did not make, and the check that none was ever trusted.
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};

use crate::support::{
    aws::truststores::holds,
    edge_calls::Caller,
    kubernetes::{
        objects::{DOMAIN, create, get},
        secrets::openssl,
        teams::{GRANT, Team, granting},
    },
    test_env::TestEnv,
};

/// Creates a self-signed certificate, as `openssl` makes it: from a request, with these extensions or (none)
/// as X.509 version 1.
pub async fn forged(common_name: &str, extensions: Option<&str>, key: &[&str]) -> Caller {
    let dir = tempfile::tempdir().expect("a folder");
    let openssl = async |args: &[&str]| openssl(dir.path(), args, "").await.expect("openssl makes it");
    openssl(&[&["genpkey", "-out", "key"], key].concat()).await;
    let subject = format!("/CN={common_name}");
    openssl(&[
        "req", "-new", "-utf8", "-key", "key", "-subj", &subject, "-out", "csr",
    ])
    .await;
    let sign = [
        "x509", "-req", "-in", "csr", "-signkey", "key", "-days", "30", "-out", "crt",
    ];
    match extensions {
        None => openssl(&sign).await,
        Some(text) => {
            std::fs::write(dir.path().join("ext"), text).expect("a file");
            openssl(&[&sign[..], &["-extfile", "ext"]].concat()).await
        }
    };
    let read =
        |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("openssl has written the file");
    Caller {
        crt: read("crt"),
        key: read("key"),
    }
}

pub const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

/// Creates a certificate for another name with `anchor`'s key, followed by `anchor`, which vouches for it.
pub async fn child(anchor: &Caller, common_name: &str) -> Caller {
    let dir = tempfile::tempdir().expect("a folder");
    let openssl = async |args: &[&str]| openssl(dir.path(), args, "").await.expect("openssl makes it");
    std::fs::write(dir.path().join("ca.crt"), &anchor.crt).expect("a file");
    std::fs::write(dir.path().join("ca.key"), &anchor.key).expect("a file");
    std::fs::write(
        dir.path().join("ext"),
        "extendedKeyUsage=clientAuth\nkeyUsage=critical,digitalSignature",
    )
    .expect("a file");
    openssl(&[&["genpkey", "-out", "key"], &P256[..]].concat()).await;
    let subject = format!("/CN={common_name}");
    openssl(&[
        "req", "-new", "-utf8", "-key", "key", "-subj", &subject, "-out", "csr",
    ])
    .await;
    let sign = "x509 -req -in csr -CA ca.crt -CAkey ca.key -set_serial 7 -days 10 -extfile ext -out crt";
    openssl(&sign.split(' ').collect::<Vec<_>>()).await;
    let read =
        |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("openssl has written the file");
    Caller {
        crt: read("crt") + &anchor.crt,
        key: read("key"),
    }
}

/// Secret of the ClientCertificate `object` as a user who may create Secrets makes it, with all labels that
/// the operator goes by.
pub fn secret(name: &str, object: &str, tls_crt: &str, key: &str) -> Secret {
    let labels = [
        ("mtls-operator.io/client-certificate", object),
        ("mtls-operator.io/trusted-by", "partners"),
    ];
    let data = [("tls.crt", tls_crt), ("ca.crt", tls_crt), ("tls.key", key)];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(labels.map(|(key, value)| (key.into(), value.into())).into()),
            annotations: Some([("mtls-operator.io/revision".into(), "1".into())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(
            data.map(|(key, text)| (key.into(), ByteString(text.into())))
                .into(),
        ),
        ..Secret::default()
    }
}

pub async fn plant(team: &Team, secret: Secret) {
    team.secrets()
        .create(&PostParams::default(), &secret)
        .await
        .expect("the API server takes it");
}

/// Panics when any version of the truststore ever held one of these anchors.
pub async fn was_never_trusted(env: &TestEnv, anchors: &[&Caller]) {
    let all = env
        .s3()
        .list_object_versions()
        .bucket(&env.prepared.bucket)
        .send()
        .await
        .expect("a list");
    for version in all.versions() {
        let (key, id) = (
            version.key().expect("a key"),
            version.version_id().expect("an id"),
        );
        let object = env
            .s3()
            .get_object()
            .bucket(&env.prepared.bucket)
            .key(key)
            .version_id(id)
            .send()
            .await;
        let bytes = object
            .expect("the version")
            .body
            .collect()
            .await
            .expect("its bytes")
            .into_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for anchor in anchors {
            assert!(
                !holds(&text, &anchor.crt),
                "version {id} of {key} holds a planted anchor: {text}"
            );
        }
    }
}

pub async fn uploads(env: &TestEnv, mark: u64) -> usize {
    env.writes(mark)
        .await
        .iter()
        .filter(|write| *write == "PutObject")
        .count()
}

pub fn self_signed(grant: &mut Value) {
    grant["issuance"] = json!("SelfSigned");
}

/// Creates a tenant's namespace with a grant for self-signed certificates named `acme-*`.
pub async fn tenant(env: &TestEnv) -> Team {
    let team = Team::admin(env, &env.beside("acme"));
    let mut grant = granting(&team.namespace, json!({}));
    self_signed(&mut grant);
    create(env, GRANT, "acme", grant).await;
    team
}

pub fn next(common_name: &str) -> Value {
    json!({"issuingAuthority": "ca", "authorities": [
        {"name": "ca", "generate": {}},
        {"name": "next", "generate": {"commonName": common_name}},
    ]})
}

pub async fn recorded(env: &TestEnv, authority: &str) -> String {
    let object = get(env, DOMAIN, "partners").await;
    let annotation = format!("mtls-operator.io/generated.{authority}");
    object["metadata"]["annotations"][&annotation]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

pub async fn key_hash(pem: &str) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let key = openssl(dir.path(), &["x509", "-noout", "-pubkey"], pem)
        .await
        .unwrap();
    let hash = ["pkey", "-pubin", "-outform", "DER", "-out", "key.der"];
    openssl(dir.path(), &hash, &key).await.unwrap();
    let line = openssl(dir.path(), &["dgst", "-sha256", "key.der"], "")
        .await
        .unwrap();
    line.trim().rsplit(' ').next().unwrap().to_owned()
}
