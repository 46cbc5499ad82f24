//! The integrations of an API, of every protocol, and the request parameters that each passes to its back
//! end.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_apigateway::types as rest;
use aws_sdk_apigatewayv2::types as sdk;

use super::patch::operation;

use crate::aws::{errors::Error, gateway::Gateway};

/// Integration of an API, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integration {
    pub at: Place,
    /// Request parameters in API Gateway's form: `overwrite:header.x` or `integration.request.header.x`, and
    /// the source of the value.
    pub parameters: BTreeMap<String, String>,
    /// True when the back end receives mapped headers: an HTTP server or, for an HTTP API, a Lambda function.
    pub takes_headers: bool,
}

/// Identifies an integration or route of an API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Integration of an HTTP API, by its id.
    Integration(String),
    /// Route of an HTTP API, which leads to an integration.
    Route { id: String, key: String },
    /// Method of a resource of a REST API.
    Method {
        resource_id: String,
        path: String,
        method: String,
    },
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
    /// Returns all integrations of an HTTP API; [`Kind::NotFound`](crate::aws::errors::Kind::NotFound) when
    /// there is no such API. [`Gateway::methods`] has the integrations of a REST API.
    pub async fn integrations(&self, api_id: &str) -> Result<Vec<Integration>, Error> {
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let send = self
                .client
                .get_integrations()
                .api_id(api_id)
                .set_next_token(next)
                .send();
            let page = self.context.call("apigateway:GetIntegrations", send).await?;
            all.extend(
                page.items
                    .unwrap_or_default()
                    .into_iter()
                    .map(|item| Integration {
                        at: Place::Integration(item.integration_id.unwrap_or_default()),
                        parameters: item.request_parameters.unwrap_or_default().into_iter().collect(),
                        // Integrations with a subtype call an AWS service, whose parameters differ.
                        takes_headers: item.integration_subtype.is_none()
                            && matches!(
                                item.integration_type,
                                Some(sdk::IntegrationType::HttpProxy | sdk::IntegrationType::AwsProxy)
                            ),
                    }),
            );
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    /// Sets these request parameters of an integration and removes the listed ones. `others` are the
    /// remaining parameters of the integration: AWS does not document whether an HTTP API keeps parameters
    /// that the call omits, so the call sends them unchanged. For a REST API, and where no stage deploys
    /// automatically, the change takes effect with the next deployment.
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
                // An empty value removes a parameter. Source: UpdateIntegration, requestParameters.
                let gone = remove.iter().map(|key| (key.clone(), String::new()));
                let all = others
                    .clone()
                    .into_iter()
                    .chain(set.clone())
                    .chain(gone)
                    .collect();
                let send = self.client.update_integration().api_id(api_id).integration_id(id);
                self.context
                    .call(UPDATE, send.set_request_parameters(Some(all)).send())
                    .await?;
            }
            Place::Method {
                resource_id, method, ..
            } => {
                let path =
                    |key: &str| format!("/requestParameters/{}", key.replace('~', "~0").replace('/', "~1"));
                let set = set
                    .iter()
                    .map(|(key, value)| operation(rest::Op::Add, &path(key), Some(value.as_str())));
                let remove = remove
                    .iter()
                    .map(|key| operation(rest::Op::Remove, &path(key), None));
                let send = self
                    .v1
                    .update_integration()
                    .rest_api_id(api_id)
                    .resource_id(resource_id)
                    .http_method(method);
                self.context
                    .call(
                        UPDATE,
                        send.set_patch_operations(Some(set.chain(remove).collect()))
                            .send(),
                    )
                    .await?;
            }
            Place::Route { .. } => {} // no caller passes a route: only its integration has parameters
        }
        Ok(())
    }
}
