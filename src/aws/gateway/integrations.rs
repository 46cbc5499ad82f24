//! The integrations of an API, of whichever kind: what each passes on to its back end.

use super::Gateway;
use super::rest::operation;
use crate::aws::errors::Error;
use aws_sdk_apigateway::types as rest;
use aws_sdk_apigatewayv2::types as sdk;
use std::collections::{BTreeMap, BTreeSet};

/// Where an API leads to from one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integration {
    pub at: Place,
    /// Request parameters as API Gateway has them: `overwrite:header.x` or `integration.request.header.x`,
    /// and where the value comes from.
    pub parameters: BTreeMap<String, String>,
    /// Its back end is an HTTP server or, of an HTTP API, a Lambda function, which get the headers that are
    /// mapped.
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
    /// All integrations of an HTTP API; [`Kind::NotFound`](crate::aws::errors::Kind::NotFound) when there is
    /// no such API. Those of a REST API are among its [`Gateway::methods`].
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
                        // Those with a subtype call an AWS service, whose parameters are other ones.
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

    /// Set these request parameters of an integration, and take those away. `others` are those that it has
    /// beside them: whether those stay that an HTTP API is not sent is not documented, so they are sent as
    /// they are. Of a REST API, and where no stage deploys by itself, it is effective with the next
    /// deployment.
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
            Place::Route { .. } => {} // is asked for by nobody: it has no parameters, only the integration that it leads to has
        }
        Ok(())
    }
}
