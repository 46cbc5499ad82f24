//! Request parameters of integrations that pass on the identity headers. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::ownership::{HEADER_TAG, ownership_tags};

use crate::{
    aws::{
        action::api_gateway::ApiGatewayAction,
        gateway::{
            apis::Protocol,
            integrations::{Integration, Place},
        },
    },
    model::{observed::Api, placement::Placement},
};

/// Changes of one API's integrations.
#[derive(Default)]
pub(crate) struct Parameters {
    /// Tags to set before all other changes.
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) actions: Vec<ApiGatewayAction>,
    pub(crate) missing: Vec<String>,
    /// Headers that another writer sets.
    pub(crate) not_owned: Vec<String>,
    /// Headers in the desired state without the ownership tag.
    pub(crate) untagged: Vec<String>,
}

pub(crate) fn parameters(
    placement: &Placement,
    api: &Api,
    headers: &BTreeMap<String, String>,
    leaving: &[String],
) -> Parameters {
    let id = &api.api.id;
    let mut p = Parameters::default();
    let mut changes: BTreeMap<&Place, (BTreeMap<String, String>, BTreeSet<String>)> = BTreeMap::new();
    for (name, source) in headers {
        let expression = expression(api.api.protocol, source);
        let tag = ownership_tags(api)
            .find(|(tagged, _)| tagged == name)
            .map(|(_, owner)| owner);
        let wrong: Vec<_> = covered(api)
            .filter(|i| value(api, i, name) != Some(&expression))
            .collect();
        let is_ours = tag == Some(&placement.owner);
        let theirs = wrong
            .iter()
            .find(|i| !is_ours && (tag.is_some() || sets(i, name)));
        if let Some(there) = theirs {
            p.not_owned.push(format!("{name} at {} of {id}", there.at));
            continue;
        }
        if wrong.is_empty() {
            // The operator cannot know which writer set the headers.
            if !is_ours && covered(api).next().is_some() {
                p.untagged.push(format!("{name} of {id}"));
            }
            continue;
        }
        if !is_ours {
            p.tags
                .insert(format!("{HEADER_TAG}{name}"), placement.owner.clone());
        }
        for integration in wrong {
            p.missing.push(format!("{name} at {} of {id}", integration.at));
            let (set, remove) = changes.entry(&integration.at).or_default();
            // Under other keys, API Gateway would also pass on the caller's own header.
            remove.extend(
                keys(integration, name)
                    .filter(|key| **key != parameter(api, name))
                    .cloned(),
            );
            set.insert(parameter(api, name), expression.clone());
        }
    }
    for name in leaving {
        for integration in api
            .integrations
            .iter()
            .flatten()
            .flatten()
            .filter(|i| value(api, i, name).is_some_and(|v| is_context(v)))
        {
            changes
                .entry(&integration.at)
                .or_default()
                .1
                .insert(parameter(api, name));
        }
    }
    for integration in api.integrations.iter().flatten().flatten() {
        let Some((set, remove)) = changes.remove(&integration.at) else {
            continue;
        };
        let others = integration
            .parameters
            .iter()
            .filter(|(key, _)| !set.contains_key(*key) && !remove.contains(*key));
        let others = others.map(|(key, value)| (key.clone(), value.clone())).collect();
        let (api_id, at) = (id.clone(), integration.at.clone());
        p.actions.push(ApiGatewayAction::ChangeParameters {
            api_id,
            at,
            set,
            remove,
            others,
        });
    }
    p
}

/// Returns the integrations that support header mappings.
pub(crate) fn covered(api: &Api) -> impl Iterator<Item = &Integration> {
    api.integrations
        .iter()
        .flatten()
        .flatten()
        .filter(|integration| integration.takes_headers)
}

/// Returns the request parameter that sets a header and replaces the caller's value. `append:` would keep the
/// caller's value first.
fn parameter(api: &Api, name: &str) -> String {
    match api.api.protocol {
        Protocol::Rest => format!("integration.request.header.{name}"),
        Protocol::Http | Protocol::WebSocket => format!("overwrite:header.{name}"),
    }
}

/// Returns the request parameters for a header, in any spelling of its name.
pub(crate) fn keys<'a>(integration: &'a Integration, name: &'a str) -> impl Iterator<Item = &'a String> {
    let about = move |key: &str| {
        key.rsplit_once("header.")
            .is_some_and(|(_, header)| header.eq_ignore_ascii_case(name))
    };
    integration.parameters.keys().filter(move |key| about(key))
}

/// True when any writer has set the header on the integration.
fn sets(integration: &Integration, name: &str) -> bool {
    keys(integration, name).next().is_some()
}

/// Returns the value of a header that is set under the operator's key and no other key.
pub(crate) fn value<'a>(api: &Api, integration: &'a Integration, name: &str) -> Option<&'a String> {
    let mut about = keys(integration, name);
    match (about.next(), about.next()) {
        (Some(key), None) if *key == parameter(api, name) => integration.parameters.get(key),
        _ => None,
    }
}

/// Returns the source of the value in the syntax of the API's protocol.
pub(crate) fn expression(protocol: Protocol, source: &str) -> String {
    match protocol {
        Protocol::Rest => format!("context.{source}"),
        Protocol::Http | Protocol::WebSocket => format!("$context.{source}"),
    }
}

pub(crate) fn is_context(value: &str) -> bool {
    let value = value.trim_start_matches('$');
    ["context.identity.clientCert.", "context.authorizer."]
        .iter()
        .any(|source| value.starts_with(source))
}
