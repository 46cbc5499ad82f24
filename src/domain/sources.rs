//! Reads where the certificates of authorities come from: Secrets, ConfigMaps and the spec itself. Kubernetes reads only, nothing is judged.
use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Client, ResourceExt};

use super::{
    desired::{AuthorityWish, SourceWish},
    generated,
    observed::{Key, Source, Unseen},
};
use crate::{
    api::conditions::Reason,
    cluster::apply,
    pki::{authority::Issuer, certificate},
};

/// The source of every authority of the MtlsDomain `domain`, by the authority's name.
pub async fn read(
    client: &Client,
    namespace: &str,
    domain: &str,
    wishes: &[AuthorityWish],
) -> BTreeMap<String, Source> {
    let reads = wishes.iter().map(async |wish| {
        let found = match &wish.source {
            SourceWish::Generated { secret: name, .. } => {
                let labelled = |secret: &Secret| generated::is_labelled(secret.labels(), domain, &wish.name);
                secret(client, namespace, name, labelled).await
            }
            wish => source(client, namespace, wish).await,
        };
        (wish.name.clone(), found)
    });
    join_all(reads).await.into_iter().collect()
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

async fn source(client: &Client, namespace: &str, wish: &SourceWish) -> Source {
    match wish {
        SourceWish::Pem(pem) => only_trusted(pem),
        SourceWish::Generated { secret: name, .. } | SourceWish::Secret { name } => {
            secret(client, namespace, name, |_| Ok(())).await
        }
        SourceWish::ConfigMap { name, key } => match apply::config_map(client, namespace, name).await {
            Ok(Some(map)) => of_config_map(&map, key),
            Ok(None) => Source::Missing(format!("there is no ConfigMap {name} in this namespace")),
            Err(error) => unseen(&error),
        },
        SourceWish::ConfigMaps { labels, key } => {
            let selector: Vec<_> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
            match apply::config_maps(client, namespace, &selector.join(",")).await {
                Ok(maps) => Source::Several(maps.iter().map(|map| (map.name_any(), of_config_map(map, key))).collect()),
                Err(error) => unseen(&error),
            }
        }
    }
}

fn of_config_map(map: &ConfigMap, key: &str) -> Source {
    match map.data.as_ref().and_then(|data| data.get(key)) {
        Some(pem) => only_trusted(pem),
        None => Source::Missing(format!("the ConfigMap {} has no key {key}", map.name_any())),
    }
}

fn only_trusted(pem: &str) -> Source {
    Source::Read { certificates: certificate::parse_pem_bundle(pem), key: Key::Absent }
}

fn unseen(error: &crate::cluster::Error) -> Source {
    Source::Unseen(Unseen { reason: Reason::Unreachable, message: error.to_string() })
}

/// `tls.crt` begins with the authority; `ca.crt` completes its chain, or is all there is.
fn of_secret(name: &str, secret: &Secret) -> Source {
    let data = secret.data.as_ref();
    let text = |key: &str| data.and_then(|d| d.get(key)).map(|ByteString(bytes)| String::from_utf8_lossy(bytes));
    let (tls_crt, ca_crt) = (text("tls.crt"), text("ca.crt"));
    // A Secret of type kubernetes.io/tls cannot do without the entry.
    let tls_key = text("tls.key").filter(|key| !key.trim().is_empty());
    let parts: Vec<_> = tls_crt.iter().chain(&ca_crt).map(|pem| certificate::parse_pem_bundle(pem)).collect();
    if parts.is_empty() {
        return Source::Missing(format!("the Secret {name} has neither tls.crt nor ca.crt"));
    }
    let certificates = parts.into_iter().collect::<Result<Vec<_>, _>>().map(|parts| parts.concat());
    let key = match (&tls_crt, &tls_key) {
        (Some(crt), Some(key)) if Issuer::from_pem(crt, key, ca_crt.as_deref()).is_ok() => Key::Fits,
        (Some(_), Some(_)) => Key::Misfit,
        _ => Key::Absent,
    };
    Source::Read { certificates, key }
}
