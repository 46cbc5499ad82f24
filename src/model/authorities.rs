//! Authorities of a spec, and the sources of their certificates, as validated values. Pure.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use kube::ResourceExt;

use crate::{
    api::{
        Authority, AuthorityKey, AuthorityState, ConfigMapSelector, KeyAlgorithm as ApiKeyAlgorithm,
        MtlsDomain, durations::length,
    },
    pki::{authority::AuthorityRequest, keys::KeyKind},
    status::{Refused, invalid},
};

/// Lifetime of a generated authority whose spec specifies none.
const DEFAULT_AUTHORITY: SignedDuration = SignedDuration::from_hours(87_600);

/// Returns the name of the Secret of the generated authority `authority` of the MtlsDomain `domain`.
pub fn authority_secret(domain: &str, authority: &str) -> String {
    format!("{domain}.{authority}-ca")
}

#[derive(Clone, Debug, PartialEq)]
pub struct DesiredAuthority {
    pub name: String,
    pub state: AuthorityState,
    pub source: DesiredSource,
}

impl DesiredAuthority {
    /// True when the spec permits leaves under the authority, once the operator can issue them.
    pub fn may_issue(&self) -> bool {
        self.state == AuthorityState::Active
            && matches!(
                self.source,
                DesiredSource::Generated { .. } | DesiredSource::Secret { .. }
            )
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum DesiredSource {
    Generated {
        secret: String,
        request: AuthorityRequest,
    },
    Secret {
        name: String,
    },
    ConfigMap {
        name: String,
        key: String,
    },
    /// Every ConfigMap with these labels.
    ConfigMaps {
        labels: BTreeMap<String, String>,
        key: String,
    },
    Pem(String),
}

impl DesiredSource {
    /// Returns the name of the Secret that the source is read from.
    pub fn secret(&self) -> Option<&String> {
        match self {
            DesiredSource::Generated { secret: name, .. } | DesiredSource::Secret { name } => Some(name),
            _ => None,
        }
    }

    /// True when the source is read from the ConfigMap with this name and these labels.
    pub fn reads_config_map(&self, called: &str, labels: &BTreeMap<String, String>) -> bool {
        match self {
            DesiredSource::ConfigMap { name, .. } => name == called,
            DesiredSource::ConfigMaps { labels: wanted, .. } => {
                wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
            }
            _ => false,
        }
    }
}

/// Returns the authorities of a spec, in its order.
pub fn authorities(domain: &MtlsDomain) -> Result<Vec<DesiredAuthority>, Refused> {
    let name = domain.name_any();
    domain
        .spec
        .trust
        .authorities
        .iter()
        .map(|a| authority(a, &name))
        .collect()
}

pub(crate) fn authority(a: &Authority, domain: &str) -> Result<DesiredAuthority, Refused> {
    let source = if let Some(generate) = &a.generate {
        DesiredSource::Generated {
            secret: authority_secret(domain, &a.name),
            request: AuthorityRequest {
                common_name: generate.common_name.clone().unwrap_or_else(|| a.name.clone()),
                organizations: generate.organizations.clone(),
                duration: generate.duration.as_ref().map_or(DEFAULT_AUTHORITY, length),
                key: authority_key(generate.private_key.as_ref()).ok_or_else(|| {
                    invalid(&format!(
                        "authority {}: privateKey: write size 256 or 384 for ECDSA; 2048, 3072 or 4096 for \
                         RSA",
                        a.name
                    ))
                })?,
            },
        }
    } else if let Some(secret) = &a.secret_ref {
        DesiredSource::Secret {
            name: secret.name.clone(),
        }
    } else if let Some(map) = &a.config_map_ref {
        DesiredSource::ConfigMap {
            name: map.name.clone(),
            key: map.key.clone(),
        }
    } else if let Some(ConfigMapSelector { match_labels, key }) = &a.config_map_selector {
        if let Some(label) = match_labels
            .iter()
            .find(|(key, value)| !is_label(key, value))
            .map(|(key, _)| key)
        {
            return Err(invalid(&format!(
                "authority {}: configMapSelector.matchLabels[{label:?}] is not a label: write letters, \
                 digits, -, _ and . (at most 63), \
                 before the value of a name with a domain also one /",
                a.name
            )));
        }
        DesiredSource::ConfigMaps {
            labels: match_labels.clone(),
            key: key.clone(),
        }
    } else if let Some(pem) = &a.pem {
        DesiredSource::Pem(pem.clone())
    } else {
        return Err(invalid(&format!(
            "authority {}: set exactly one of generate, secretRef, configMapRef, configMapSelector, pem",
            a.name
        )));
    };
    Ok(DesiredAuthority {
        name: a.name.clone(),
        state: a.state,
        source,
    })
}

/// True when the API server accepts the label in a selector, as a single label.
fn is_label(key: &str, value: &str) -> bool {
    let is_word = |word: &str| {
        let ends = [word.bytes().next(), word.bytes().last()];
        word.len() <= 63
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
    };
    let (prefix, name) = key.split_once('/').unwrap_or(("x", key));
    let is_prefix = !prefix.is_empty()
        && prefix.len() <= 253
        && prefix.split('.').all(|part| !part.is_empty() && is_word(part));
    is_prefix && !name.is_empty() && is_word(name) && is_word(value)
}

fn authority_key(key: Option<&AuthorityKey>) -> Option<KeyKind> {
    key_kind(
        key.and_then(|k| k.algorithm).unwrap_or_default(),
        key.and_then(|k| k.size),
    )
}

/// Returns the kind of key that an algorithm and size of a spec mean; `None` when they do not fit together.
pub fn key_kind(algorithm: ApiKeyAlgorithm, size: Option<i32>) -> Option<KeyKind> {
    match (algorithm, size) {
        (ApiKeyAlgorithm::ECDSA, None | Some(256)) => Some(KeyKind::EcdsaP256),
        (ApiKeyAlgorithm::ECDSA, Some(384)) => Some(KeyKind::EcdsaP384),
        (ApiKeyAlgorithm::RSA, None | Some(2048)) => Some(KeyKind::Rsa2048),
        (ApiKeyAlgorithm::RSA, Some(3072)) => Some(KeyKind::Rsa3072),
        (ApiKeyAlgorithm::RSA, Some(4096)) => Some(KeyKind::Rsa4096),
        _ => None,
    }
}
