//! The APIs behind a domain, of every protocol: their stages, and the default `execute-api` endpoint. This
//! module reads HTTP and WebSocket APIs through the v2 API; `rest` reads REST APIs through the v1 API.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_apigatewayv2::types as sdk;
use jiff::Timestamp;

use crate::aws::{
    errors::{Error, Kind},
    gateway::{Gateway, timestamp},
};

#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    pub id: String,
    pub arn: String,
    pub protocol: Protocol,
    /// True for an API that only callers from within a VPC reach; REST APIs only. No public custom domain can
    /// serve it.
    pub private: bool,
    /// Flag that disables the default endpoint. It takes effect with the next deployment, or at once where a
    /// stage deploys automatically.
    pub endpoint_closed: bool,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http,
    WebSocket,
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub name: String,
    /// True when API Gateway deploys changes of the API itself; never true for a REST API.
    pub auto_deploy: bool,
    /// True when X-Ray traces requests; never true for an HTTP API.
    pub tracing: bool,
    /// Deployment that the stage serves; empty before the first deployment.
    pub deployment_id: String,
    /// Time of the last deployment to the stage or the last change of its settings.
    pub updated_at: Option<Timestamp>,
}

impl Gateway {
    /// Returns the API with this id, of any protocol; `None` when there is none.
    pub async fn api(&self, id: &str) -> Result<Option<Api>, Error> {
        // An id that belonged to a REST API is read as a REST API first: an id never changes its protocol.
        if self.known_rest().contains(id) {
            if let Some(api) = self.rest_api(id).await? {
                return Ok(Some(api));
            }
            self.known_rest().remove(id);
        }
        if let Some(api) = self.v2_api(id).await? {
            return Ok(Some(api));
        }
        let api = self.rest_api(id).await?;
        if api.is_some() {
            self.known_rest().insert(id.to_owned());
        }
        Ok(api)
    }

    /// Returns all APIs of every protocol, by id.
    pub async fn all_apis(&self) -> Result<BTreeMap<String, Api>, Error> {
        let mut apis = self.all_rest_apis().await?;
        let mut next = None;
        loop {
            let send = self.client.get_apis().set_next_token(next).send();
            let page = self.context.call("apigateway:GetApis", send).await?;
            let found = page.items.unwrap_or_default().into_iter().filter_map(|item| {
                Some(self.of_v2(
                    &item.api_id?,
                    item.protocol_type,
                    item.disable_execute_api_endpoint,
                    item.tags,
                ))
            });
            apis.extend(found.map(|api| (api.id.clone(), api)));
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(apis);
            }
        }
    }

    /// Returns all stages of the API; [`Kind::NotFound`] when there is no such API.
    pub async fn stages(&self, protocol: Protocol, api_id: &str) -> Result<Vec<Stage>, Error> {
        match protocol {
            Protocol::Rest => self.rest_stages(api_id).await,
            Protocol::Http | Protocol::WebSocket => self.v2_stages(api_id).await,
        }
    }

    /// Sets the flag that disables the default endpoint, for all stages of the API.
    pub async fn set_endpoint_closed(
        &self,
        protocol: Protocol,
        api_id: &str,
        closed: bool,
    ) -> Result<(), Error> {
        match protocol {
            Protocol::Rest => self.set_rest_endpoint_closed(api_id, closed).await,
            Protocol::Http | Protocol::WebSocket => {
                let send = self
                    .client
                    .update_api()
                    .api_id(api_id)
                    .disable_execute_api_endpoint(closed)
                    .send();
                self.context.call("apigateway:UpdateApi", send).await?;
                Ok(())
            }
        }
    }

    /// Deploys the current API to these stages: one deployment, which has its own quota of 1 per 5 s, and for
    /// each stage but the first an update of the stage's deployment.
    pub async fn deploy(&self, protocol: Protocol, api_id: &str, stages: &[String]) -> Result<(), Error> {
        let Some((first, rest)) = stages.split_first() else {
            return Ok(());
        };
        if protocol == Protocol::Rest {
            return self.deploy_rest(api_id, first, rest).await;
        }
        const DEPLOY: &str = "apigateway:CreateDeployment";
        let made = self
            .context
            .call(
                DEPLOY,
                self.client
                    .create_deployment()
                    .api_id(api_id)
                    .stage_name(first)
                    .send(),
            )
            .await?;
        for stage in rest {
            let send = self.client.update_stage().api_id(api_id).stage_name(stage);
            let send = send.set_deployment_id(made.deployment_id.clone()).send();
            self.context.call("apigateway:UpdateStage", send).await?;
        }
        Ok(())
    }

    async fn v2_api(&self, id: &str) -> Result<Option<Api>, Error> {
        let send = self.client.get_api().api_id(id).send();
        match self.context.call("apigateway:GetApi", send).await {
            Ok(answer) => Ok(Some(self.of_v2(
                id,
                answer.protocol_type,
                answer.disable_execute_api_endpoint,
                answer.tags,
            ))),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn of_v2(
        &self,
        id: &str,
        protocol: Option<sdk::ProtocolType>,
        closed: Option<bool>,
        tags: Option<HashMap<String, String>>,
    ) -> Api {
        Api {
            id: id.to_owned(),
            arn: self.api_arn(id),
            protocol: match protocol {
                Some(sdk::ProtocolType::Websocket) => Protocol::WebSocket,
                _ => Protocol::Http,
            },
            private: false,
            endpoint_closed: closed.unwrap_or_default(),
            tags: tags.unwrap_or_default().into_iter().collect(),
        }
    }

    async fn v2_stages(&self, api_id: &str) -> Result<Vec<Stage>, Error> {
        let mut stages = Vec::new();
        let mut next = None;
        loop {
            let send = self
                .client
                .get_stages()
                .api_id(api_id)
                .set_next_token(next)
                .send();
            let page = self.context.call("apigateway:GetStages", send).await?;
            stages.extend(page.items.unwrap_or_default().into_iter().map(|item| Stage {
                name: item.stage_name.unwrap_or_default(),
                auto_deploy: item.auto_deploy.unwrap_or_default(),
                tracing: false,
                deployment_id: item.deployment_id.unwrap_or_default(),
                updated_at: timestamp(item.last_updated_date),
            }));
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(stages);
            }
        }
    }
}
