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
    runtime::{apply, workers::Workers},
    status::text::{WITHIN, listed},
};

/// Maximum number of a ConfigMap's keys that a message lists.
const MOST_KEYS: usize = 5;

/// Returns the source of every authority of the MtlsDomain `domain`, by the authority's name. Each object is
/// read by its name, and parsed by `workers`; `config_maps` says which ones a selector selects.
pub async fn read(
    client: &Client,
    workers: &Workers,
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
                let pem = pem.clone();
                let source = parsed(workers, namespace, move || only_trusted(&pem)).await;
                found.insert(wanted.name.clone(), source);
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
            let source = object(client, workers, namespace, domain, wanted, &name).await;
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
    workers: &Workers,
    namespace: &str,
    domain: &str,
    wanted: &DesiredAuthority,
    name: &str,
) -> Option<Source> {
    let key = match &wanted.source {
        DesiredSource::ConfigMap { key, .. } | DesiredSource::ConfigMaps { key, .. } => key.clone(),
        DesiredSource::Generated { .. } | DesiredSource::Secret { .. } | DesiredSource::Pem(_) => {
            let secret = match apply::secret(client, namespace, name).await {
                Ok(Some(secret)) => secret,
                Ok(None) => {
                    return Some(Source::Missing(format!(
                        "there is no Secret {name} in this namespace"
                    )));
                }
                Err(error) => return Some(unseen(&error)),
            };
            if matches!(wanted.source, DesiredSource::Generated { .. })
                && let Err(lacks) = generated_authority::is_labelled(secret.labels(), domain, &wanted.name)
            {
                return Some(Source::NotOwned(lacks));
            }
            let name = name.to_owned();
            return Some(parsed(workers, namespace, move || of_secret(&name, &secret)).await);
        }
    };
    let map = match apply::config_map(client, namespace, name).await {
        Ok(map) => map,
        Err(error) => return Some(unseen(&error)),
    };
    let selects = matches!(wanted.source, DesiredSource::ConfigMaps { .. });
    match map {
        Some(map) if selects && !wanted.source.reads_config_map(name, map.labels()) => None,
        Some(map) => Some(parsed(workers, namespace, move || of_config_map(&map, &key)).await),
        None if selects => None,
        None => Some(Source::Missing(format!(
            "there is no ConfigMap {name} in this namespace"
        ))),
    }
}

/// Parses a source in a worker: it may have a megabyte.
async fn parsed(
    workers: &Workers,
    namespace: &str,
    parse: impl FnOnce() -> Source + Send + 'static,
) -> Source {
    let parsed = workers.run(namespace, |_| parse()).await;
    parsed.unwrap_or_else(|error| unseen(&error))
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

fn unseen(error: &impl std::error::Error) -> Source {
    Source::Unseen(Unseen {
        reason: Reason::Unreachable,
        message: error.to_string(),
    })
}

/// Reads the entries `tls.crt`, which holds the authority, and `ca.crt`, which completes its chain or stands
/// alone. The certificate of the key comes first, wherever it stands in `tls.crt`.
fn of_secret(name: &str, secret: &Secret) -> Source {
    let data = secret.data.as_ref();
    let bytes = |key: &str| {
        data.and_then(|d| d.get(key))
            .map(|ByteString(bytes)| bytes.as_slice())
    };
    let (tls_crt, ca_crt) = (bytes("tls.crt"), bytes("ca.crt"));
    // A Secret of type kubernetes.io/tls must have this entry, so it may be blank.
    let tls_key = bytes("tls.key").filter(|key| !pem_text::is_blank(key));
    let (mut certificates, completing) = match (tls_crt, ca_crt) {
        (Some(tls_crt), ca_crt) => (
            parse_pem_bundle(tls_crt),
            ca_crt.map_or(Ok(vec![]), parse_pem_bundle),
        ),
        (None, Some(ca_crt)) => (parse_pem_bundle(ca_crt), Ok(vec![])),
        (None, None) => return Source::Missing(format!("the Secret {name} has neither tls.crt nor ca.crt")),
    };
    let can_issue = match (tls_crt, tls_key) {
        (Some(crt), Some(key)) => match SigningAuthority::from_pem(crt, key, ca_crt) {
            Ok(issuer) => {
                let at = certificates
                    .iter_mut()
                    .find_map(|all| Some((all.iter().position(|c| c == issuer.chain().authority())?, all)));
                if let Some((at, all)) = at {
                    all[..=at].rotate_right(1);
                }
                CanIssue::Yes
            }
            Err(error) => CanIssue::Broken {
                why: error.to_string(),
                of_key: error.is_of_key(),
            },
        },
        _ => CanIssue::No,
    };
    Source::Read {
        certificates,
        completing,
        can_issue,
    }
}

#[cfg(test)]
mod tests;
