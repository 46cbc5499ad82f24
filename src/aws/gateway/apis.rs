//! The APIs behind a domain: HTTP and WebSocket APIs, their stages, and the default `execute-api` endpoint. REST APIs belong
//! to the v1 API and are not seen here.

use super::Gateway;
use crate::aws::errors::{Error, Kind};
use aws_sdk_apigatewayv2::types as sdk;
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    pub id: String,
    pub arn: String,
    pub protocol: Protocol,
    /// The flag that closes the default endpoint. It takes effect with the next deployment, or at once where a stage deploys by
    /// itself.
    pub endpoint_closed: bool,
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http,
    WebSocket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub name: String,
    /// Changes of the API are deployed to it by API Gateway itself.
    pub auto_deploy: bool,
}

impl Gateway {
    /// The HTTP or WebSocket API; `None` when there is none of this id, which may still be a REST API's.
    pub async fn api(&self, id: &str) -> Result<Option<Api>, Error> {
        let send = self.client.get_api().api_id(id).send();
        match self.way.call("apigateway:GetApi", send).await {
            Ok(answer) => Ok(Some(Api {
                id: id.to_owned(),
                arn: self.api_arn(id),
                protocol: match answer.protocol_type {
                    Some(sdk::ProtocolType::Websocket) => Protocol::WebSocket,
                    _ => Protocol::Http,
                },
                endpoint_closed: answer.disable_execute_api_endpoint.unwrap_or_default(),
                tags: answer.tags.unwrap_or_default().into_iter().collect(),
            })),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// One stage; `None` when there is none, or no such API.
    pub async fn stage(&self, api_id: &str, name: &str) -> Result<Option<Stage>, Error> {
        let send = self.client.get_stage().api_id(api_id).stage_name(name).send();
        match self.way.call("apigateway:GetStage", send).await {
            Ok(answer) => {
                Ok(Some(Stage { name: name.to_owned(), auto_deploy: answer.auto_deploy.unwrap_or_default() }))
            }
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All stages of the API; [`Kind::NotFound`] when there is no such API.
    pub async fn stages(&self, api_id: &str) -> Result<Vec<Stage>, Error> {
        let mut stages = Vec::new();
        let mut next = None;
        loop {
            let send = self.client.get_stages().api_id(api_id).set_next_token(next).send();
            let page = self.way.call("apigateway:GetStages", send).await?;
            stages.extend(page.items.unwrap_or_default().into_iter().map(|item| Stage {
                name: item.stage_name.unwrap_or_default(),
                auto_deploy: item.auto_deploy.unwrap_or_default(),
            }));
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(stages);
            }
        }
    }

    /// Set the flag that closes the default endpoint, of all stages of the API.
    pub async fn set_endpoint_closed(&self, api_id: &str, closed: bool) -> Result<(), Error> {
        let send = self.client.update_api().api_id(api_id).disable_execute_api_endpoint(closed).send();
        self.way.call("apigateway:UpdateApi", send).await?;
        Ok(())
    }

    /// Deploy the API as it is now to the stage. Own quota: 1 per 5 s.
    pub async fn deploy(&self, api_id: &str, stage: &str) -> Result<(), Error> {
        let send = self.client.create_deployment().api_id(api_id).stage_name(stage).send();
        self.way.call("apigateway:CreateDeployment", send).await?;
        Ok(())
    }
}
