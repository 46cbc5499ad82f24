//! Reads the sources of authorities' certificates: Secrets, ConfigMaps and the spec itself. Kubernetes reads
//! only; decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Client, ResourceExt, api::PartialObjectMeta, runtime::reflector::Store};

use super::{
    generated_authority,
    reads::{AT_ONCE, one_of_few},
};

use crate::{
    api::conditions::Reason,
    model::{
        authorities::{DesiredAuthority, DesiredSource},
        observed::{CanIssue, Source},
    },
    observation::seen::Unseen,
    pki::{authority::SigningAuthority, pem_certificates::parse_pem_bundle, pem_text},
    runtime::apply,
    status::text::{WITHIN, listed},
};

/// Maximum number of a ConfigMap's keys that a message lists.
const MOST_KEYS: usize = 5;

/// Returns the source of every authority of the MtlsDomain `domain`, by the authority's name. Each object is
/// read by its name; `config_maps` says which ones a selector selects.
pub async fn read(
    client: &Client,
    config_maps: &Store<PartialObjectMeta<ConfigMap>>,
    namespace: &str,
    domain: &str,
    wanted: &[DesiredAuthority],
) -> BTreeMap<String, Source> {
    let mut found = BTreeMap::new();
    let mut unread = Vec::new();
    for wanted in wanted {
        match &wanted.source {
            DesiredSource::Pem(pem) => {
                found.insert(wanted.name.clone(), only_trusted(pem));
            }
            DesiredSource::Generated { secret: name, .. }
            | DesiredSource::Secret { name }
            | DesiredSource::ConfigMap { name, .. } => unread.push((wanted, name.clone())),
            selecting @ DesiredSource::ConfigMaps { .. } => {
                found.insert(wanted.name.clone(), Source::Several(BTreeMap::new()));
                let is_selected = |map: &&Arc<PartialObjectMeta<ConfigMap>>| {
                    map.metadata.namespace.as_deref() == Some(namespace)
                        && selecting.reads_config_map(&map.name_any(), map.labels())
                };
                let state = config_maps.state();
                let selected = state.iter().filter(is_selected);
                unread.extend(selected.map(|map| (wanted, map.name_any())));
            }
        }
    }
    let mut pending = Vec::new();
    for (wanted, name) in unread {
        let read = async move {
            let source = object(client, namespace, domain, wanted, &name).await;
            (wanted, name, source)
        };
        // Boxed: a closure over references is not general enough for a spawned future.
        pending.push(one_of_few(read).boxed());
    }
    let read: Vec<_> = stream::iter(pending).buffered(AT_ONCE).collect().await;
    for (wanted, name, source) in read {
        let Some(source) = source else { continue };
        match (found.get_mut(&wanted.name), &source) {
            // A part that cannot be read: nor can the whole.
            (Some(Source::Several(_)), Source::Unseen(_)) | (None, _) => {
                found.insert(wanted.name.clone(), source);
            }
            (Some(Source::Several(all)), _) => {
                all.insert(name, source);
            }
            (Some(_), _) => {}
        }
    }
    found
}

/// Reads one object of a source; `None` when a selector does not select it.
async fn object(
    client: &Client,
    namespace: &str,
    domain: &str,
    wanted: &DesiredAuthority,
    name: &str,
) -> Option<Source> {
    match &wanted.source {
        DesiredSource::Generated { .. } => {
            let labelled =
                |secret: &Secret| generated_authority::is_labelled(secret.labels(), domain, &wanted.name);
            Some(secret(client, namespace, name, labelled).await)
        }
        DesiredSource::Secret { .. } => Some(secret(client, namespace, name, |_| Ok(())).await),
        DesiredSource::ConfigMap { key, .. } => {
            Some(match apply::config_map(client, namespace, name).await {
                Ok(Some(map)) => of_config_map(&map, key),
                Ok(None) => Source::Missing(format!("there is no ConfigMap {name} in this namespace")),
                Err(error) => unseen(&error),
            })
        }
        DesiredSource::ConfigMaps { key, .. } => match apply::config_map(client, namespace, name).await {
            Ok(map) => map
                .filter(|map| wanted.source.reads_config_map(name, map.labels()))
                .map(|map| of_config_map(&map, key)),
            Err(error) => Some(unseen(&error)),
        },
        DesiredSource::Pem(pem) => Some(only_trusted(pem)),
    }
}

async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
    is_usable: impl Fn(&Secret) -> Result<(), String>,
) -> Source {
    match apply::secret(client, namespace, name).await {
        Ok(Some(secret)) => is_usable(&secret).map_or_else(Source::NotOwned, |()| of_secret(name, &secret)),
        Ok(None) => Source::Missing(format!("there is no Secret {name} in this namespace")),
        Err(error) => unseen(&error),
    }
}

/// Reads a key of `data` or `binaryData`: kubectl puts a file that is not valid UTF-8, such as one with a
/// comment in Latin-1, into `binaryData`.
fn of_config_map(map: &ConfigMap, key: &str) -> Source {
    let data = map
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .map(String::as_bytes);
    let binary = map
        .binary_data
        .as_ref()
        .and_then(|data| data.get(key))
        .map(|ByteString(bytes)| bytes.as_slice());
    match data.or(binary) {
        Some(pem) => only_trusted(pem),
        None => Source::Missing(format!(
            "the ConfigMap {} has no key {key}{}",
            map.name_any(),
            others(map)
        )),
    }
}

/// Lists the keys of a ConfigMap that lacks the key of the spec.
fn others(map: &ConfigMap) -> String {
    let keys: BTreeSet<_> = map
        .data
        .iter()
        .flat_map(BTreeMap::keys)
        .chain(map.binary_data.iter().flat_map(BTreeMap::keys))
        .collect();
    if keys.is_empty() {
        return String::new();
    }
    format!(
        "; its keys are {}",
        listed(keys.iter().map(|key| key.as_str()), MOST_KEYS, WITHIN)
    )
}

fn only_trusted(pem: &(impl AsRef<[u8]> + ?Sized)) -> Source {
    Source::Read {
        certificates: parse_pem_bundle(pem),
        completing: Ok(vec![]),
        can_issue: CanIssue::No,
    }
}

fn unseen(error: &crate::runtime::Error) -> Source {
    Source::Unseen(Unseen {
        reason: Reason::Unreachable,
        message: error.to_string(),
    })
}

/// Reads the entries `tls.crt`, which begins with the authority, and `ca.crt`, which completes its chain or
/// stands alone.
fn of_secret(name: &str, secret: &Secret) -> Source {
    let data = secret.data.as_ref();
    let bytes = |key: &str| {
        data.and_then(|d| d.get(key))
            .map(|ByteString(bytes)| bytes.as_slice())
    };
    let (tls_crt, ca_crt) = (bytes("tls.crt"), bytes("ca.crt"));
    // A Secret of type kubernetes.io/tls must have this entry, so it may be blank.
    let tls_key = bytes("tls.key").filter(|key| !pem_text::is_blank(key));
    let (certificates, completing) = match (tls_crt, ca_crt) {
        (Some(tls_crt), ca_crt) => (
            parse_pem_bundle(tls_crt),
            ca_crt.map_or(Ok(vec![]), parse_pem_bundle),
        ),
        (None, Some(ca_crt)) => (parse_pem_bundle(ca_crt), Ok(vec![])),
        (None, None) => return Source::Missing(format!("the Secret {name} has neither tls.crt nor ca.crt")),
    };
    let can_issue = match (tls_crt, tls_key) {
        (Some(crt), Some(key)) if SigningAuthority::from_pem(crt, key, ca_crt).is_ok() => CanIssue::Yes,
        (Some(_), Some(_)) => CanIssue::Broken,
        _ => CanIssue::No,
    };
    Source::Read {
        certificates,
        completing,
        can_issue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use k8s_openapi::{
        ByteString,
        api::core::v1::{ConfigMap, Secret},
    };

    use crate::{
        api::AuthorityState,
        model::observed::{CanIssue, Source},
        pki::{
            authority::{self, AuthorityRequest, tests::at},
            certificate::Certificate,
            keys::{self, Encoding, KeyKind},
            pem_certificates::parse_pem_bundle,
            pem_error::ParseError,
        },
        runtime::fake,
    };

    fn bytes(data: &[(&str, &[u8])]) -> BTreeMap<String, ByteString> {
        data.iter()
            .map(|(key, bytes)| ((*key).to_owned(), ByteString(bytes.to_vec())))
            .collect()
    }

    #[test]
    fn data_and_binary_data_of_a_config_map_are_read() {
        let made = authority::generate(&authority::tests::request("a"), at("2026-11-24T12:00:00Z")).unwrap();
        let pem = made.certificate_pem;
        let latin = [b"Autoridade Certifica\xe7\xe3o\n", pem.as_bytes()].concat();
        let map = |data: &[(&str, &str)], binary: &[(&str, &[u8])]| {
            let text = data
                .iter()
                .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
                .collect();
            let mut map = ConfigMap {
                data: Some(text),
                binary_data: Some(bytes(binary)),
                ..ConfigMap::default()
            };
            map.metadata.name = Some("acme".into());
            of_config_map(&map, "ca.crt")
        };
        let read = only_trusted(&pem);
        assert!(matches!(&read, Source::Read { certificates: Ok(found), .. } if found.len() == 1));
        assert_eq!(map(&[("ca.crt", &pem)], &[]), read);
        assert_eq!(map(&[], &[("ca.crt", &latin)]), read);
        let missing = |told: &str| Source::Missing(format!("the ConfigMap acme has no key ca.crt{told}"));
        assert_eq!(map(&[], &[]), missing(""));
        assert_eq!(
            map(&[("ca.pem", &pem)], &[("root.crt", &latin)]),
            missing("; its keys are ca.pem; root.crt")
        );
        let many = ["1", "2", "3", "4", "5", "6", "7"].map(|key| (key, ""));
        assert_eq!(
            map(&many, &[]),
            missing("; its keys are 1; 2; 3; 4; 5; and 2 more")
        );
        assert_eq!(
            of_config_map(&ConfigMap::default(), "k"),
            Source::Missing("the ConfigMap  has no key k".into())
        );
    }

    #[test]
    fn the_key_of_a_secret_matches_in_every_encoding() {
        let now = at("2026-11-24T12:00:00Z");
        let [made, other] =
            ["a", "b"].map(|name| authority::generate(&authority::tests::request(name), now).unwrap());
        let key = made.key_pem.as_str();
        let sec1 = keys::pem(&keys::parse(key).unwrap(), Encoding::Pkcs1).unwrap();
        let of = |key: &[u8]| {
            let data = bytes(&[("tls.crt", made.certificate_pem.as_bytes()), ("tls.key", key)]);
            match of_secret(
                "acme",
                &Secret {
                    data: Some(data),
                    ..Secret::default()
                },
            ) {
                Source::Read {
                    certificates: Ok(_),
                    can_issue,
                    ..
                } => can_issue,
                other => panic!("{other:?}"),
            }
        };
        let indented: String = key.lines().map(|line| format!("  {line}\n")).collect();
        let crlf = key.replace('\n', "\r\n");
        let shapes: [&[u8]; 9] = [
            key.as_bytes(),
            sec1.as_bytes(),
            crlf.as_bytes(),
            indented.as_bytes(),
            &key.replace('\n', "\\n").into_bytes(),
            &[b"\xef\xbb\xbf", key.as_bytes()].concat(),
            &[b"\xef\xbb\xbf", crlf.as_bytes()].concat(),
            &[b"Schl\xfcssel\n", key.as_bytes()].concat(),
            &[made.certificate_pem.trim_end().as_bytes(), key.as_bytes()].concat(),
        ];
        for shape in shapes {
            assert_eq!(of(shape), CanIssue::Yes, "{}", String::from_utf8_lossy(shape));
        }
        assert_eq!(
            [of(other.key_pem.as_bytes()), of(b"garbage"), of(b" \n"), of(b"")],
            [CanIssue::Broken, CanIssue::Broken, CanIssue::No, CanIssue::No]
        );
    }

    fn made(common_name: &str) -> (String, String) {
        let duration = jiff::SignedDuration::from_hours(24);
        let request = AuthorityRequest {
            common_name: common_name.into(),
            organizations: vec![],
            duration,
            key: KeyKind::EcdsaP256,
        };
        let made = authority::generate(&request, jiff::Timestamp::now()).unwrap();
        (made.certificate_pem, made.key_pem.to_string())
    }

    fn read(data: &[(&str, &str)]) -> Source {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
            .collect();
        of_secret(
            "own",
            &Secret {
                data: Some(data),
                ..Secret::default()
            },
        )
    }

    #[test]
    fn certificates_of_ca_crt_are_kept_apart_from_those_of_tls_crt() {
        let ((own, key), (other, _)) = (made("Own"), made("Other"));
        let certificate = |pem: &str| parse_pem_bundle(pem).unwrap();
        let source =
            |certificates: Result<Vec<Certificate>, ParseError>, completing, can_issue| Source::Read {
                certificates,
                completing,
                can_issue,
            };
        let (own_, other_, none) = (certificate(&own), certificate(&other), Ok(vec![]));
        let cases: [(&[(&str, &str)], Source); 6] = [
            (
                &[("tls.crt", &own), ("tls.key", &key), ("ca.crt", &other)],
                source(Ok(own_.clone()), Ok(other_.clone()), CanIssue::Yes),
            ),
            (
                &[("tls.crt", &own), ("tls.key", "")],
                source(Ok(own_.clone()), none.clone(), CanIssue::No),
            ),
            (
                &[("ca.crt", &other)],
                source(Ok(other_.clone()), none.clone(), CanIssue::No),
            ),
            (
                &[("tls.crt", "x"), ("ca.crt", &other)],
                source(Err(ParseError::NotPem), Ok(other_), CanIssue::No),
            ),
            (
                &[("tls.crt", &own), ("ca.crt", "x")],
                source(Ok(own_), Err(ParseError::NotPem), CanIssue::No),
            ),
            (
                &[("tls.key", &key)],
                Source::Missing("the Secret own has neither tls.crt nor ca.crt".into()),
            ),
        ];
        for (data, expected) in cases {
            assert_eq!(
                read(data),
                expected,
                "{:?}",
                data.iter().map(|(key, _)| key).collect::<Vec<_>>()
            );
        }
    }

    fn labelled(name: &str, label: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.into());
        map.metadata.namespace = Some("shop".into());
        map.metadata.labels = Some([("partner".into(), label.into())].into());
        map
    }

    fn selecting() -> [DesiredAuthority; 1] {
        [DesiredAuthority {
            name: "partners".into(),
            state: AuthorityState::Active,
            source: DesiredSource::ConfigMaps {
                labels: [("partner".into(), "yes".into())].into(),
                key: "ca.crt".into(),
            },
        }]
    }

    fn watched(maps: &[ConfigMap]) -> Store<PartialObjectMeta<ConfigMap>> {
        let metadata = |map: &ConfigMap| PartialObjectMeta {
            metadata: map.metadata.clone(),
            ..PartialObjectMeta::default()
        };
        fake::store(maps.iter().map(metadata).collect())
    }

    #[tokio::test]
    async fn a_selector_reads_each_selected_configmap_by_its_name() {
        let mut elsewhere = labelled("elsewhere", "yes");
        elsewhere.metadata.namespace = Some("other".into());
        let names = ["one", "two", "relabelled", "gone"];
        let seen: Vec<_> = names.iter().map(|name| labelled(name, "yes")).collect();
        let seen = [seen, vec![labelled("stranger", "no"), elsewhere]].concat();
        let client = fake::client(|_, path, _| match path.rsplit('/').next().unwrap() {
            name @ ("one" | "two") => (200, serde_json::to_value(labelled(name, "yes")).unwrap()),
            "relabelled" => (200, serde_json::to_value(labelled("relabelled", "no")).unwrap()),
            "gone" => fake::refusal(404, "NotFound"),
            _ => panic!("{path}"),
        });
        let found = super::read(&client, &watched(&seen), "shop", "d", &selecting()).await;
        let Some(Source::Several(all)) = found.get("partners") else {
            panic!("{found:?}")
        };
        assert_eq!(all.keys().collect::<Vec<_>>(), ["one", "two"]);

        let none = super::read(&client, &watched(&[]), "shop", "d", &selecting()).await;
        assert_eq!(none["partners"], Source::Several([].into()));
        let broken = fake::client(|_, path, _| match path.ends_with("two") {
            true => fake::refusal(500, "InternalError"),
            false => (200, serde_json::to_value(labelled("one", "yes")).unwrap()),
        });
        let found = super::read(&broken, &watched(&seen[..2]), "shop", "d", &selecting()).await;
        assert!(matches!(found["partners"], Source::Unseen(_)), "{found:?}");
    }

    #[tokio::test]
    async fn at_most_four_objects_are_read_at_a_time() {
        let running = Arc::new(std::sync::Mutex::new((0, 0)));
        let counted = running.clone();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let counted = counted.clone();
            async move {
                {
                    let mut now = counted.lock().unwrap();
                    now.0 += 1;
                    now.1 = now.0.max(now.1);
                }
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                counted.lock().unwrap().0 -= 1;
                let map = serde_json::to_vec(&labelled("x", "yes")).unwrap();
                Ok::<_, kube::Error>(http::Response::new(kube::client::Body::from(map)))
            }
        });
        let client = Client::new(service, "default");
        let maps: Vec<_> = (0..30).map(|i| labelled(&format!("m{i}"), "yes")).collect();
        let found = super::read(&client, &watched(&maps), "shop", "d", &selecting()).await;
        assert!(matches!(&found["partners"], Source::Several(all) if all.len() == 30));
        assert_eq!(*running.lock().unwrap(), (0, AT_ONCE));
    }
}
