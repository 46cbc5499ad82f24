//! Reads where the certificates of authorities come from: Secrets, ConfigMaps and the spec itself. Kubernetes reads only, nothing is judged.
use std::{borrow::Cow, collections::BTreeMap};

use futures::future::join_all;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Client, ResourceExt};

use super::{
    desired::{AuthorityWish, SourceWish},
    observed::{Key, Source, Unseen},
};
use crate::{
    api::conditions::Reason,
    cluster::apply,
    pki::{authority::Issuer, certificate},
};

/// The source of every authority, by the authority's name.
pub async fn read(client: &Client, namespace: &str, wishes: &[AuthorityWish]) -> BTreeMap<String, Source> {
    let reads = wishes.iter().map(async |wish| (wish.name.clone(), source(client, namespace, &wish.source).await));
    join_all(reads).await.into_iter().collect()
}

async fn source(client: &Client, namespace: &str, wish: &SourceWish) -> Source {
    match wish {
        SourceWish::Pem(pem) => only_trusted(pem),
        SourceWish::Generated { secret: name, .. } | SourceWish::Secret { name } => {
            match apply::secret(client, namespace, name).await {
                Ok(Some(secret)) => of_secret(name, &secret),
                Ok(None) => Source::Missing(format!("there is no Secret {name} in this namespace")),
                Err(error) => unseen(&error),
            }
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
    Source::Read { certificates: certificate::parse_pem_bundle(pem), completing: Ok(vec![]), key: Key::Absent }
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
    let read = |pem: &Cow<'_, str>| certificate::parse_pem_bundle(pem);
    let (certificates, completing) = match (&tls_crt, &ca_crt) {
        (Some(tls_crt), ca_crt) => (read(tls_crt), ca_crt.as_ref().map_or(Ok(vec![]), read)),
        (None, Some(ca_crt)) => (read(ca_crt), Ok(vec![])),
        (None, None) => return Source::Missing(format!("the Secret {name} has neither tls.crt nor ca.crt")),
    };
    let key = match (&tls_crt, &tls_key) {
        (Some(crt), Some(key)) if Issuer::from_pem(crt, key, ca_crt.as_deref()).is_ok() => Key::Fits,
        (Some(_), Some(_)) => Key::Misfit,
        _ => Key::Absent,
    };
    Source::Read { certificates, completing, key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{
        authority::{self, AuthorityRequest},
        certificate::{Certificate, ParseError, parse_pem_bundle},
        keys::KeyKind,
    };

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
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
        of_secret("own", &Secret { data: Some(data), ..Secret::default() })
    }

    #[test]
    fn beside_tls_crt_what_ca_crt_holds_is_kept_apart() {
        let ((own, key), (other, _)) = (made("Own"), made("Other"));
        let certificate = |pem: &str| parse_pem_bundle(pem).unwrap();
        let source = |certificates: Result<Vec<Certificate>, ParseError>, completing, key| Source::Read {
            certificates,
            completing,
            key,
        };
        let (own_, other_, none) = (certificate(&own), certificate(&other), Ok(vec![]));
        let cases: [(&[(&str, &str)], Source); 6] = [
            (
                &[("tls.crt", &own), ("tls.key", &key), ("ca.crt", &other)],
                source(Ok(own_.clone()), Ok(other_.clone()), Key::Fits),
            ),
            (&[("tls.crt", &own), ("tls.key", "")], source(Ok(own_.clone()), none.clone(), Key::Absent)),
            (&[("ca.crt", &other)], source(Ok(other_.clone()), none.clone(), Key::Absent)),
            (&[("tls.crt", "x"), ("ca.crt", &other)], source(Err(ParseError::NotPem), Ok(other_), Key::Absent)),
            (&[("tls.crt", &own), ("ca.crt", "x")], source(Ok(own_), Err(ParseError::NotPem), Key::Absent)),
            (&[("tls.key", &key)], Source::Missing("the Secret own has neither tls.crt nor ca.crt".into())),
        ];
        for (data, expected) in cases {
            assert_eq!(read(data), expected, "{:?}", data.iter().map(|(key, _)| key).collect::<Vec<_>>());
        }
    }
}
