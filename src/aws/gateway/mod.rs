//! API Gateway: custom domains, their mappings, and the APIs. The v1 API serves for REST APIs and for custom
//! domains that v2 does not show, the v2 API for all else. Both count against the same quotas.

pub mod apis;
pub mod authorizers;
pub mod domains;
pub mod integrations;
pub mod mappings;
pub mod others;
pub mod patch;
pub mod rest;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_config::SdkConfig;
use aws_sdk_apigatewayv2::{Client, primitives::DateTime};
use jiff::Timestamp;

use super::{call_guard::CallContext, errors::Error, partitions::partition};

#[derive(Debug, Clone)]
pub struct Gateway {
    client: Client,
    v1: aws_sdk_apigateway::Client,
    context: CallContext,
    /// Ids that belonged to a REST API at the last read. Saves a v2 call for each of them.
    rest: Arc<Mutex<HashSet<String>>>,
}

impl Gateway {
    pub(crate) fn new(config: &SdkConfig, context: &CallContext) -> Gateway {
        Gateway {
            client: Client::new(config),
            v1: aws_sdk_apigateway::Client::new(config),
            context: context.clone(),
            rest: Arc::default(),
        }
    }

    /// Sets these tags on a domain or an API; other tags stay.
    pub async fn tag(&self, arn: &str, tags: &BTreeMap<String, String>) -> Result<(), Error> {
        if is_rest(arn) {
            return self.tag_rest(arn, tags).await;
        }
        let send = self
            .client
            .tag_resource()
            .resource_arn(arn)
            .set_tags(Some(tags.clone().into_iter().collect()))
            .send();
        self.context.call("apigateway:TagResource", send).await?;
        Ok(())
    }

    pub async fn untag(&self, arn: &str, keys: &[String]) -> Result<(), Error> {
        if is_rest(arn) {
            return self.untag_rest(arn, keys).await;
        }
        let send = self
            .client
            .untag_resource()
            .resource_arn(arn)
            .set_tag_keys(Some(keys.to_vec()))
            .send();
        self.context.call("apigateway:UntagResource", send).await?;
        Ok(())
    }

    /// Returns the ARN of a custom domain, as API Gateway's tag calls require it; it contains no account.
    pub fn domain_arn(&self, name: &str) -> String {
        arn(&self.context.region, &format!("domainnames/{name}"))
    }

    /// Returns the ARN of an HTTP or WebSocket API.
    pub fn api_arn(&self, id: &str) -> String {
        arn(&self.context.region, &format!("apis/{id}"))
    }

    /// Returns the ARN of a REST API.
    pub fn rest_api_arn(&self, id: &str) -> String {
        arn(&self.context.region, &format!("restapis/{id}"))
    }

    fn known_rest(&self) -> MutexGuard<'_, HashSet<String>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner) // every set of ids is valid
    }
}

fn is_rest(arn: &str) -> bool {
    arn.contains("::/restapis/")
}

pub(crate) fn timestamp(at: Option<DateTime>) -> Option<Timestamp> {
    at.and_then(|at| Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).unwrap_or(0)).ok())
}

fn arn(region: &str, path: &str) -> String {
    format!("arn:{}:apigateway:{region}::/{path}", partition(region))
}

#[cfg(test)]
mod tests {
    use super::arn;

    #[test]
    fn an_arn_is_of_its_regions_partition() {
        for (region, expected) in [
            ("eu-west-1", "arn:aws:apigateway:eu-west-1::/domainnames/a.b"),
            (
                "eusc-de-east-1",
                "arn:aws-eusc:apigateway:eusc-de-east-1::/domainnames/a.b",
            ),
            ("cn-north-1", "arn:aws-cn:apigateway:cn-north-1::/domainnames/a.b"),
            (
                "us-gov-west-1",
                "arn:aws-us-gov:apigateway:us-gov-west-1::/domainnames/a.b",
            ),
        ] {
            assert_eq!(arn(region, "domainnames/a.b"), expected);
        }
    }
}
