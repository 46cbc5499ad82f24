//! The integrations of an API, of whichever kind: what each passes on to its back end.

use super::rest::operation;
use super::{Gateway, Protocol};
use crate::aws::errors::Error;
use aws_sdk_apigateway::types as rest;
use aws_sdk_apigatewayv2::types as sdk;
use std::collections::{BTreeMap, BTreeSet};

/// Where an API leads to from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integration {
    pub at: Place,
    /// Request parameters as API Gateway has them: `overwrite:header.x` or `integration.request.header.x`, and where the value comes from.
    pub parameters: BTreeMap<String, String>,
    /// Its back end is an HTTP server or, of an HTTP API, a Lambda function, which get the headers that are mapped.
    pub takes_headers: bool,
}

/// Which integration or route of an API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Of an HTTP API, by its id.
    Integration(String),
    /// Of an HTTP API: what leads to an integration.
    Route { id: String, key: String },
    /// Of a REST API: of a method of a resource.
    Method { resource_id: String, path: String, method: String },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Integration(id) => write!(f, "integration {id}"),
            Place::Route { key, .. } => write!(f, "route {key}"),
            Place::Method { path, method, .. } => write!(f, "{method} {path}"),
        }
    }
}

impl Gateway {
    /// All integrations of the API; [`Kind::NotFound`](crate::aws::errors::Kind::NotFound) when there is no such API.
    pub async fn integrations(&self, protocol: Protocol, api_id: &str) -> Result<Vec<Integration>, Error> {
        match protocol {
            Protocol::Rest => self.rest_integrations(api_id).await,
            Protocol::Http | Protocol::WebSocket => self.v2_integrations(api_id).await,
        }
    }

    /// Set these request parameters of an integration, and take those away. `others` are those that it has beside them: whether those stay that an
    /// HTTP API is not sent is not documented, so they are sent as they are. Of a REST API, and where no stage deploys by itself, it is
    /// effective with the next deployment.
    pub async fn change_parameters(
        &self,
        api_id: &str,
        at: &Place,
        set: &BTreeMap<String, String>,
        remove: &BTreeSet<String>,
        others: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        const UPDATE: &str = "apigateway:UpdateIntegration";
        match at {
            Place::Integration(id) => {
                // An empty value takes a parameter away. Source: UpdateIntegration, requestParameters.
                let gone = remove.iter().map(|key| (key.clone(), String::new()));
                let all = others.clone().into_iter().chain(set.clone()).chain(gone).collect();
                let send = self.client.update_integration().api_id(api_id).integration_id(id);
                self.way.call(UPDATE, send.set_request_parameters(Some(all)).send()).await?;
            }
            Place::Method { resource_id, method, .. } => {
                let path = |key: &str| format!("/requestParameters/{}", key.replace('~', "~0").replace('/', "~1"));
                let set = set.iter().map(|(key, value)| operation(rest::Op::Add, &path(key), Some(value.as_str())));
                let remove = remove.iter().map(|key| operation(rest::Op::Remove, &path(key), None));
                let send =
                    self.v1.update_integration().rest_api_id(api_id).resource_id(resource_id).http_method(method);
                self.way.call(UPDATE, send.set_patch_operations(Some(set.chain(remove).collect())).send()).await?;
            }
            Place::Route { .. } => {} // is asked for by nobody: it has no parameters, only the integration that it leads to has
        }
        Ok(())
    }

    async fn v2_integrations(&self, api_id: &str) -> Result<Vec<Integration>, Error> {
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let send = self.client.get_integrations().api_id(api_id).set_next_token(next).send();
            let page = self.way.call("apigateway:GetIntegrations", send).await?;
            all.extend(page.items.unwrap_or_default().into_iter().map(|item| Integration {
                at: Place::Integration(item.integration_id.unwrap_or_default()),
                parameters: item.request_parameters.unwrap_or_default().into_iter().collect(),
                // Those with a subtype call an AWS service, whose parameters are other ones.
                takes_headers: item.integration_subtype.is_none()
                    && matches!(
                        item.integration_type,
                        Some(sdk::IntegrationType::HttpProxy | sdk::IntegrationType::AwsProxy)
                    ),
            }));
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    async fn rest_integrations(&self, api_id: &str) -> Result<Vec<Integration>, Error> {
        let mut all = Vec::new();
        for resource in self.resources(api_id).await? {
            let (id, path) = (resource.id.unwrap_or_default(), resource.path.unwrap_or_default());
            for (method, what) in resource.resource_methods.unwrap_or_default() {
                // A method that leads nowhere yet has none.
                let Some(integration) = what.method_integration else { continue };
                all.push(Integration {
                    at: Place::Method { resource_id: id.clone(), path: path.clone(), method },
                    parameters: integration.request_parameters.unwrap_or_default().into_iter().collect(),
                    // A Lambda function has the certificate in its event; an AWS service would take such a header amiss.
                    takes_headers: matches!(
                        integration.r#type,
                        Some(rest::IntegrationType::Http | rest::IntegrationType::HttpProxy)
                    ),
                });
            }
        }
        all.sort_by(|a, b| a.at.cmp(&b.at));
        Ok(all)
    }
}
