//! The authorizers of an API, of every protocol, and the routes or methods that use them.

use aws_sdk_apigateway::types as rest;
use aws_sdk_apigatewayv2::types as sdk;

use super::{apis::Protocol, integrations::Place, others::PAGE, patch::replace};

use crate::aws::{arn::Arn, errors::Error, gateway::Gateway};

/// Authorizer of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorizer {
    pub id: String,
    pub name: String,
    /// Lambda function that the authorizer invokes, if any.
    pub function: Option<Arn>,
    /// True when the configuration equals that of [`Gateway::create_authorizer`].
    pub as_made: bool,
}

/// Route of an HTTP API, or method of a REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub at: Place,
    pub authorization: Authorization,
}

/// Authorization type of a route or method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    None,
    /// A Lambda authorizer, by its id.
    Authorizer(String),
    /// IAM, a user pool, a JWT.
    Other,
}

const LAMBDA_PATH: &str = ":lambda:path/2015-03-31/functions/";

impl Gateway {
    pub async fn authorizers(&self, protocol: Protocol, api_id: &str) -> Result<Vec<Authorizer>, Error> {
        const GET: &str = "apigateway:GetAuthorizers";
        let (mut all, mut next) = (Vec::new(), None);
        loop {
            if protocol == Protocol::Rest {
                let send = self
                    .v1
                    .get_authorizers()
                    .rest_api_id(api_id)
                    .limit(PAGE)
                    .set_position(next)
                    .send();
                let page = self.context.call(GET, send).await?;
                all.extend(page.items.unwrap_or_default().into_iter().map(|item| Authorizer {
                    as_made: item.r#type == Some(rest::AuthorizerType::Request)
                        && item.authorizer_result_ttl_in_seconds == Some(0)
                        && item.identity_source.unwrap_or_default().is_empty(),
                    id: item.id.unwrap_or_default(),
                    name: item.name.unwrap_or_default(),
                    function: function(&item.authorizer_uri.unwrap_or_default()),
                }));
                next = page.position;
            } else {
                let send = self
                    .client
                    .get_authorizers()
                    .api_id(api_id)
                    .set_next_token(next)
                    .send();
                let page = self.context.call(GET, send).await?;
                all.extend(page.items.unwrap_or_default().into_iter().map(|item| Authorizer {
                    as_made: item.authorizer_type == Some(sdk::AuthorizerType::Request)
                        // Absent is 0: Terraform's provider reads it so. In v1 absent is 300.
                        && item.authorizer_result_ttl_in_seconds.unwrap_or_default() == 0
                        && item.identity_source.unwrap_or_default().is_empty()
                        && item.authorizer_payload_format_version.as_deref() == Some("2.0")
                        && item.enable_simple_responses == Some(true),
                    id: item.authorizer_id.unwrap_or_default(),
                    name: item.name.unwrap_or_default(),
                    function: function(&item.authorizer_uri.unwrap_or_default()),
                }));
                next = page.next_token;
            }
            next = next.filter(|token| !token.is_empty());
            if next.is_none() {
                all.sort_by(|a, b| a.id.cmp(&b.id));
                return Ok(all);
            }
        }
    }

    /// Creates an authorizer that invokes a Lambda function for every request, without a cache and without a
    /// required identity source. For an HTTP API it uses payload format 2.0 with simple responses. Source:
    /// API Gateway Developer Guide, "Lambda authorizers", for both protocols.
    pub async fn create_authorizer(
        &self,
        protocol: Protocol,
        api_id: &str,
        name: &str,
        function: &Arn,
    ) -> Result<(), Error> {
        const CREATE: &str = "apigateway:CreateAuthorizer";
        let uri = invocation_uri(function);
        if protocol == Protocol::Rest {
            let send = self
                .v1
                .create_authorizer()
                .rest_api_id(api_id)
                .name(name)
                .authorizer_uri(uri);
            let send = send
                .r#type(rest::AuthorizerType::Request)
                .authorizer_result_ttl_in_seconds(0);
            self.context.call(CREATE, send.send()).await?;
        } else {
            let send = self
                .client
                .create_authorizer()
                .api_id(api_id)
                .name(name)
                .authorizer_uri(uri);
            let send = send
                .authorizer_type(sdk::AuthorizerType::Request)
                .authorizer_result_ttl_in_seconds(0);
            let send = send
                .authorizer_payload_format_version("2.0")
                .enable_simple_responses(true);
            self.context
                .call(CREATE, send.set_identity_source(Some(vec![])).send())
                .await?;
        }
        Ok(())
    }

    /// Resets an authorizer to the configuration of [`Gateway::create_authorizer`].
    pub async fn restore_authorizer(
        &self,
        protocol: Protocol,
        api_id: &str,
        id: &str,
        function: &Arn,
    ) -> Result<(), Error> {
        const UPDATE: &str = "apigateway:UpdateAuthorizer";
        let uri = invocation_uri(function);
        if protocol == Protocol::Rest {
            let patches = [
                replace("/type", "REQUEST"),
                replace("/authorizerUri", &uri),
                replace("/authorizerResultTtlInSeconds", "0"),
                replace("/identitySource", ""),
            ];
            let send = self.v1.update_authorizer().rest_api_id(api_id).authorizer_id(id);
            self.context
                .call(UPDATE, send.set_patch_operations(Some(patches.into())).send())
                .await?;
        } else {
            let send = self
                .client
                .update_authorizer()
                .api_id(api_id)
                .authorizer_id(id)
                .authorizer_uri(uri);
            let send = send
                .authorizer_type(sdk::AuthorizerType::Request)
                .authorizer_result_ttl_in_seconds(0);
            let send = send
                .authorizer_payload_format_version("2.0")
                .enable_simple_responses(true);
            self.context
                .call(UPDATE, send.set_identity_source(Some(vec![])).send())
                .await?;
        }
        Ok(())
    }

    pub async fn delete_authorizer(&self, protocol: Protocol, api_id: &str, id: &str) -> Result<(), Error> {
        const DELETE: &str = "apigateway:DeleteAuthorizer";
        if protocol == Protocol::Rest {
            let send = self
                .v1
                .delete_authorizer()
                .rest_api_id(api_id)
                .authorizer_id(id)
                .send();
            self.context.call(DELETE, send).await?;
        } else {
            let send = self
                .client
                .delete_authorizer()
                .api_id(api_id)
                .authorizer_id(id)
                .send();
            self.context.call(DELETE, send).await?;
        }
        Ok(())
    }

    /// Returns the routes of an HTTP API. A REST API has [`Gateway::methods`] instead.
    pub async fn routes(&self, api_id: &str) -> Result<Vec<Route>, Error> {
        let (mut all, mut next) = (Vec::new(), None);
        loop {
            let send = self
                .client
                .get_routes()
                .api_id(api_id)
                .set_next_token(next)
                .send();
            let page = self.context.call("apigateway:GetRoutes", send).await?;
            all.extend(page.items.unwrap_or_default().into_iter().map(|item| Route {
                authorization: match item.authorization_type {
                    None | Some(sdk::AuthorizationType::None) => Authorization::None,
                    Some(sdk::AuthorizationType::Custom) => {
                        Authorization::Authorizer(item.authorizer_id.unwrap_or_default())
                    }
                    Some(_) => Authorization::Other,
                },
                at: Place::Route {
                    id: item.route_id.unwrap_or_default(),
                    key: item.route_key.unwrap_or_default(),
                },
            }));
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                all.sort_by(|a: &Route, b| a.at.cmp(&b.at));
                return Ok(all);
            }
        }
    }

    /// Attaches an authorizer to a route or a method, or detaches it. For a REST API, and where no stage
    /// deploys automatically, the change takes effect with the next deployment.
    pub async fn authorize(&self, api_id: &str, at: &Place, authorizer: Option<&str>) -> Result<(), Error> {
        match at {
            Place::Route { id, .. } => {
                let send = self.client.update_route().api_id(api_id).route_id(id);
                let send = match authorizer {
                    Some(authorizer) => send
                        .authorization_type(sdk::AuthorizationType::Custom)
                        .authorizer_id(authorizer),
                    None => send
                        .authorization_type(sdk::AuthorizationType::None)
                        .authorizer_id(""),
                };
                self.context.call("apigateway:UpdateRoute", send.send()).await?;
            }
            Place::Method {
                resource_id, method, ..
            } => {
                let patches = match authorizer {
                    Some(authorizer) => {
                        vec![
                            replace("/authorizationType", "CUSTOM"),
                            replace("/authorizerId", authorizer),
                        ]
                    }
                    // Without the type the id has no meaning, and API Gateway drops it.
                    None => vec![replace("/authorizationType", "NONE")],
                };
                let send = self
                    .v1
                    .update_method()
                    .rest_api_id(api_id)
                    .resource_id(resource_id)
                    .http_method(method);
                self.context
                    .call(
                        "apigateway:UpdateMethod",
                        send.set_patch_operations(Some(patches)).send(),
                    )
                    .await?;
            }
            Place::Integration(_) => {} // no caller passes an integration: its route has the authorizer
        }
        Ok(())
    }
}

/// Returns the URI by which API Gateway invokes a function, in the function's Region. Source: API Gateway API
/// reference, CreateAuthorizer, authorizerUri.
fn invocation_uri(function: &Arn) -> String {
    let (partition, region) = (function.partition(), function.region());
    format!("arn:{partition}:apigateway:{region}{LAMBDA_PATH}{function}/invocations")
}

fn function(uri: &str) -> Option<Arn> {
    let (_, function) = uri.split_once(LAMBDA_PATH)?;
    function
        .strip_suffix("/invocations")
        .filter(|function| !function.is_empty())
        .map(Arn::from)
}
