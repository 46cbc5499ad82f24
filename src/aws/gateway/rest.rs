//! REST APIs, through the v1 API, which changes and deploys them differently from HTTP APIs.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_apigateway::types as sdk;

use super::{
    apis::{Api, Protocol, Stage},
    authorizers::{Authorization, Route},
    integrations::{Integration, Place},
    others::PAGE,
    patch::replace,
};

use crate::aws::{
    errors::{Error, Kind},
    gateway::{Gateway, timestamp},
};

/// The methods of a REST API, from one read of its resources: the counterpart of an HTTP API's integrations
/// and routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Methods {
    pub integrations: Vec<Integration>,
    pub routes: Vec<Route>,
}

impl Methods {
    fn add(&mut self, resource: sdk::Resource) {
        let (id, path) = (resource.id.unwrap_or_default(), resource.path.unwrap_or_default());
        for (method, what) in resource.resource_methods.unwrap_or_default() {
            let at = Place::Method {
                resource_id: id.clone(),
                path: path.clone(),
                method,
            };
            let authorization = match what.authorization_type.as_deref() {
                None | Some("NONE") => Authorization::None,
                Some("CUSTOM") => Authorization::Authorizer(what.authorizer_id.unwrap_or_default()),
                Some(_) => Authorization::Other,
            };
            // A method without an integration has none.
            self.integrations
                .extend(what.method_integration.map(|integration| {
                    Integration {
                        at: at.clone(),
                        parameters: integration
                            .request_parameters
                            .unwrap_or_default()
                            .into_iter()
                            .collect(),
                        // A Lambda function has the certificate in its event; an AWS service would reject or
                        // misread such a header.
                        takes_headers: matches!(
                            integration.r#type,
                            Some(sdk::IntegrationType::Http | sdk::IntegrationType::HttpProxy)
                        ),
                    }
                }));
            self.routes.push(Route { at, authorization });
        }
    }
}

impl Gateway {
    pub(crate) async fn rest_api(&self, id: &str) -> Result<Option<Api>, Error> {
        let send = self.v1.get_rest_api().rest_api_id(id).send();
        match self.context.call("apigateway:GetRestApi", send).await {
            Ok(answer) => Ok(Some(self.of_v1(
                id,
                answer.endpoint_configuration,
                answer.disable_execute_api_endpoint,
                answer.tags,
            ))),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns all REST APIs, by id.
    pub(crate) async fn all_rest_apis(&self) -> Result<BTreeMap<String, Api>, Error> {
        let mut apis = BTreeMap::new();
        let mut next = None;
        loop {
            let send = self.v1.get_rest_apis().limit(PAGE).set_position(next).send();
            let page = self.context.call("apigateway:GetRestApis", send).await?;
            for item in page.items.unwrap_or_default() {
                let Some(id) = item.id else { continue };
                let closed = item.disable_execute_api_endpoint;
                let found = self.of_v1(&id, item.endpoint_configuration, closed, item.tags);
                apis.insert(id, found);
            }
            next = page.position.filter(|position| !position.is_empty());
            if next.is_none() {
                return Ok(apis);
            }
        }
    }

    fn of_v1(
        &self,
        id: &str,
        endpoint: Option<sdk::EndpointConfiguration>,
        closed: bool,
        tags: Option<HashMap<String, String>>,
    ) -> Api {
        Api {
            id: id.to_owned(),
            arn: self.rest_api_arn(id),
            protocol: Protocol::Rest,
            private: endpoint
                .and_then(|e| e.types)
                .unwrap_or_default()
                .contains(&sdk::EndpointType::Private),
            endpoint_closed: closed,
            tags: tags.unwrap_or_default().into_iter().collect(),
        }
    }

    pub(crate) async fn rest_stages(&self, api_id: &str) -> Result<Vec<Stage>, Error> {
        let answer = self
            .context
            .call(
                "apigateway:GetStages",
                self.v1.get_stages().rest_api_id(api_id).send(),
            )
            .await?;
        let stages = answer.item.unwrap_or_default().into_iter().map(|item| Stage {
            name: item.stage_name.unwrap_or_default(),
            auto_deploy: false,
            tracing: item.tracing_enabled,
            deployment_id: item.deployment_id.unwrap_or_default(),
            updated_at: timestamp(item.last_updated_date),
        });
        Ok(stages.collect())
    }

    /// Returns the methods of a REST API and their integrations; [`Kind::NotFound`] when there is no such
    /// API.
    pub async fn methods(&self, api_id: &str) -> Result<Methods, Error> {
        let mut all = Methods::default();
        let mut next = None;
        loop {
            let send = self
                .v1
                .get_resources()
                .rest_api_id(api_id)
                .embed("methods")
                .limit(PAGE)
                .set_position(next)
                .send();
            let page = self.context.call("apigateway:GetResources", send).await?;
            page.items
                .unwrap_or_default()
                .into_iter()
                .for_each(|resource| all.add(resource));
            next = page.position.filter(|position| !position.is_empty());
            if next.is_none() {
                all.integrations.sort_by(|a, b| a.at.cmp(&b.at));
                all.routes.sort_by(|a, b| a.at.cmp(&b.at));
                return Ok(all);
            }
        }
    }

    pub(crate) async fn set_rest_endpoint_closed(&self, api_id: &str, closed: bool) -> Result<(), Error> {
        let patch = replace("/disableExecuteApiEndpoint", &closed.to_string());
        let send = self
            .v1
            .update_rest_api()
            .rest_api_id(api_id)
            .patch_operations(patch)
            .send();
        self.context.call("apigateway:UpdateRestApi", send).await?;
        Ok(())
    }

    /// Rewrites a stage of a REST API with its current setting of X-Ray tracing, which AWS takes whatever it
    /// is (an empty description it might not): any change of any stage makes the flag of the default endpoint
    /// effective, and publishes nothing else. Source: API Gateway Developer Guide, "Disable the default
    /// endpoint for REST APIs".
    pub async fn touch_stage(&self, api_id: &str, stage: &str, tracing: bool) -> Result<(), Error> {
        let patch = replace("/tracingEnabled", &tracing.to_string());
        self.update_rest_stage(api_id, stage, patch).await
    }

    pub(crate) async fn deploy_rest(&self, api_id: &str, first: &str, rest: &[String]) -> Result<(), Error> {
        const DEPLOY: &str = "apigateway:CreateDeployment";
        let made = self
            .context
            .call(
                DEPLOY,
                self.v1
                    .create_deployment()
                    .rest_api_id(api_id)
                    .stage_name(first)
                    .send(),
            )
            .await?;
        let id = made.id.unwrap_or_default();
        for stage in rest {
            self.update_rest_stage(api_id, stage, replace("/deploymentId", &id))
                .await?;
        }
        Ok(())
    }

    async fn update_rest_stage(
        &self,
        api_id: &str,
        stage: &str,
        patch: sdk::PatchOperation,
    ) -> Result<(), Error> {
        let send = self
            .v1
            .update_stage()
            .rest_api_id(api_id)
            .stage_name(stage)
            .patch_operations(patch)
            .send();
        self.context.call("apigateway:UpdateStage", send).await?;
        Ok(())
    }

    pub(crate) async fn tag_rest(&self, arn: &str, tags: &BTreeMap<String, String>) -> Result<(), Error> {
        let send = self
            .v1
            .tag_resource()
            .resource_arn(arn)
            .set_tags(Some(tags.clone().into_iter().collect()))
            .send();
        self.context.call("apigateway:TagResource", send).await?;
        Ok(())
    }

    pub(crate) async fn untag_rest(&self, arn: &str, keys: &[String]) -> Result<(), Error> {
        let send = self
            .v1
            .untag_resource()
            .resource_arn(arn)
            .set_tag_keys(Some(keys.to_vec()))
            .send();
        self.context.call("apigateway:UntagResource", send).await?;
        Ok(())
    }
}
