//! Tests of `self_signed`.

use super::*;

use std::sync::Arc;

use kube::api::ObjectMeta;

use crate::{
    model::desired::SelfSigned,
    pki::{
        authority::tests::at,
        certificate::Certificate,
        keys::{KeyKind, generate},
        leaf::{self, tests::request},
    },
    runtime::fake,
};

fn certificate(common_name: &str) -> Certificate {
    let key = generate(KeyKind::EcdsaP256).unwrap();
    leaf::self_sign(&request(common_name), &key, at("2026-11-24T12:00:00Z"))
        .unwrap()
        .certificate
}

fn secret(namespace: &str, name: &str, label: &str, tls_crt: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            namespace: Some(namespace.into()),
            name: Some(name.into()),
            labels: Some(
                [
                    (CERTIFICATE_LABEL.into(), label.into()),
                    (TRUSTED_BY.into(), "partners".into()),
                ]
                .into(),
            ),
            ..ObjectMeta::default()
        },
        data: Some([("tls.crt".to_owned(), ByteString(tls_crt.into()))].into()),
        ..Secret::default()
    }
}

#[test]
fn entry_names_distinguish_authorities_from_clientcertificates() {
    for (entry, expected, in_namespace) in [
        ("clientcertificates/ns/client1/uid", true, Some("ns")),
        ("clientcertificates/client1/uid", true, None),
        (REFUSED, true, None),
        ("clientcertificates", false, None),
        ("clientcertificates/acme", false, None),
        ("clientcertificates/acme.example", false, None),
        ("partners/acme", false, None),
        ("partners", false, None),
        ("", false, None),
    ] {
        assert_eq!(is_self_signed(entry), expected, "{entry}");
        if expected {
            assert_eq!(namespace(entry), in_namespace, "{entry}");
        }
    }
}

/// API server with some Secrets, and a watch that may have seen other versions of them.
struct World {
    client: Client,
    watched: Store<PartialObjectMeta<Secret>>,
    known: Leaves,
    requests: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn of(there: Vec<Secret>, watched: Vec<Secret>) -> World {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let told = requests.clone();
        let client = fake::client(move |_, path, _| {
            told.lock().unwrap().push(path.to_owned());
            let is_it = |s: &&Secret| {
                let (namespace, name) = (s.namespace().unwrap(), s.name_any());
                path.ends_with(&format!("/namespaces/{namespace}/secrets/{name}"))
            };
            match there.iter().find(is_it) {
                Some(secret) => (200, serde_json::to_value(secret).unwrap()),
                None => fake::refusal(404, "NotFound"),
            }
        });
        World {
            client,
            watched: World::watch(watched),
            known: Leaves::default(),
            requests,
        }
    }

    fn watch(secrets: Vec<Secret>) -> Store<PartialObjectMeta<Secret>> {
        let metadata = |s: Secret| PartialObjectMeta {
            metadata: s.metadata,
            ..PartialObjectMeta::default()
        };
        fake::store(secrets.into_iter().map(metadata).collect())
    }

    async fn read(&self, wanted: &SelfSigned) -> Seen<Vec<Certificate>> {
        let wanted = [wanted.clone()];
        let read = read(&self.client, &self.watched, &self.known, "partners", &wanted).await;
        Ok(read?.remove(&wanted[0].entry).unwrap())
    }

    fn requests(&self) -> usize {
        std::mem::take(&mut *self.requests.lock().unwrap()).len()
    }
}

fn wanted() -> SelfSigned {
    SelfSigned {
        namespace: "acme".into(),
        name: "client1".into(),
        entry: "clientcertificates/acme/client1/uid".into(),
        secrets: Some(["client1".into(), next_secret("client1")]),
        request: request("client1"),
        share: None,
        grants: None,
    }
}

#[tokio::test]
async fn a_secret_counts_only_when_name_namespace_and_label_match_the_object() {
    let [ours, next, other] = ["client1", "client1", "client2"].map(certificate);
    let (one, both) = (ours.to_pem(), format!("{}{}", ours.to_pem(), other.to_pem()));
    let staged = secret("acme", "client1-next", "client1", &next.to_pem());
    let of = async |secrets: &[Secret]| {
        let world = World::of(secrets.into(), secrets.into());
        world.read(&wanted()).await.unwrap()
    };
    assert_eq!(
        of(&[secret("acme", "client1", "client1", &one), staged.clone()]).await,
        [ours.clone(), next]
    );
    assert_eq!(
        of(&[secret("acme", "client1", "client1", &both)]).await,
        std::slice::from_ref(&ours),
        "the first is the leaf"
    );
    let reversed = format!("{}{one}", other.to_pem());
    assert_eq!(
        of(&[secret("acme", "client1", "client1", &reversed)]).await,
        std::slice::from_ref(&other)
    );
    let mut elsewhere = secret("acme", "client1", "client1", &one);
    elsewhere.labels_mut().insert(TRUSTED_BY.into(), "other".into());
    for (what, secret) in [
        (
            "another object's label",
            secret("acme", "client1", "client2", &one),
        ),
        ("another name", secret("acme", "client2", "client1", &one)),
        ("another namespace", secret("zeta", "client1", "client1", &one)),
        (
            "the next Secret of the next Secret",
            secret("acme", "client1-next-next", "client1", &one),
        ),
        ("no certificate", secret("acme", "client1", "client1", "")),
        ("damaged", secret("acme", "client1", "client1", &one[..100])),
        ("trusted by another domain", elsewhere.clone()),
    ] {
        assert_eq!(of(&[secret]).await, [], "{what}");
    }
    let there = secret("acme", "client1", "client1", &one);
    let unclear = SelfSigned {
        secrets: None,
        ..wanted()
    };
    let world = World::of(vec![there.clone()], vec![there.clone()]);
    assert_eq!(world.read(&unclear).await, Ok(vec![]));
    // The watch has not seen yet that the label changed, or that the Secret is gone.
    for now in [vec![elsewhere], vec![]] {
        let world = World::of(now, vec![there.clone()]);
        assert_eq!(world.read(&wanted()).await, Ok(vec![]));
    }
}

#[tokio::test]
async fn only_changed_secrets_with_the_label_are_read_each_by_its_name() {
    let version = |version: &str, pem: &str| {
        let mut secret = secret("acme", "client1", "client1", pem);
        secret.metadata.uid = Some("u".into());
        secret.metadata.resource_version = Some(version.into());
        secret
    };
    let [first, second] = ["client1", "client1"].map(certificate);
    let (old, new) = (version("1", &first.to_pem()), version("2", &second.to_pem()));
    let mut world = World::of(vec![new.clone()], vec![]);
    assert_eq!(world.read(&wanted()).await, Ok(vec![]));
    assert_eq!(world.requests(), 0, "the watch knows no such Secret");

    world.watched = World::watch(vec![old]);
    for _ in 0..2 {
        assert_eq!(world.read(&wanted()).await, Ok(vec![second.clone()]));
        assert_eq!(world.requests(), 1, "the watch is behind");
    }
    world.watched = World::watch(vec![new.clone()]);
    assert_eq!(world.read(&wanted()).await, Ok(vec![second]));
    assert_eq!(world.requests(), 0, "this version is known");
    let mut again = new;
    again.metadata.uid = Some("another".into());
    world.watched = World::watch(vec![again]);
    assert!(world.read(&wanted()).await.is_ok());
    assert_eq!(world.requests(), 1, "another Secret of the name");
    world.watched = World::watch(vec![]);
    assert_eq!(world.read(&wanted()).await, Ok(vec![]));
    assert!(
        world.known.lock().is_empty(),
        "nothing is kept of Secrets that are gone"
    );
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_makes_all_unseen() {
    let world = World {
        client: fake::client(|_, _, _| fake::refusal(500, "InternalError")),
        ..World::of(vec![], vec![secret("acme", "client1", "client1", "")])
    };
    let error = world.read(&wanted()).await.unwrap_err();
    assert_eq!(error.reason, Reason::Unreachable);
    assert_eq!(error.message, "cannot read Secret acme/client1");
}
