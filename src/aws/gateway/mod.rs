//! API Gateway, through its v2 API: custom domains, what they map to, and the APIs.

mod apis;
mod domains;
mod mappings;

pub use apis::{Api, Protocol, Stage};
pub use domains::{Domain, DomainRequest, DomainStatus, IpAddressType, Truststore};
pub use mappings::Mapping;

use super::errors::Error;
use super::gate::Way;
use aws_config::SdkConfig;
use aws_sdk_apigatewayv2::Client;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
pub struct Gateway {
    client: Client,
    way: Way,
}

impl Gateway {
    pub(super) fn new(config: &SdkConfig, way: &Way) -> Gateway {
        Gateway { client: Client::new(config), way: way.clone() }
    }

    /// Set these tags on a domain or an API; others stay.
    pub async fn tag(&self, arn: &str, tags: &BTreeMap<String, String>) -> Result<(), Error> {
        let send =
            self.client.tag_resource().resource_arn(arn).set_tags(Some(tags.clone().into_iter().collect())).send();
        self.way.call("apigateway:TagResource", send).await?;
        Ok(())
    }

    pub async fn untag(&self, arn: &str, keys: &[String]) -> Result<(), Error> {
        let send = self.client.untag_resource().resource_arn(arn).set_tag_keys(Some(keys.to_vec())).send();
        self.way.call("apigateway:UntagResource", send).await?;
        Ok(())
    }

    /// The ARN of a custom domain, which API Gateway's tag calls want; it has no account in it.
    pub fn domain_arn(&self, name: &str) -> String {
        arn(&self.way.region, &format!("domainnames/{name}"))
    }

    /// The ARN of an HTTP or WebSocket API.
    pub fn api_arn(&self, id: &str) -> String {
        arn(&self.way.region, &format!("apis/{id}"))
    }
}

fn arn(region: &str, path: &str) -> String {
    let partition = match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    format!("arn:{partition}:apigateway:{region}::/{path}")
}

#[cfg(test)]
mod tests {
    use super::arn;

    #[test]
    fn an_arn_is_of_its_regions_partition() {
        for (region, expected) in [
            ("eu-west-1", "arn:aws:apigateway:eu-west-1::/domainnames/a.b"),
            ("cn-north-1", "arn:aws-cn:apigateway:cn-north-1::/domainnames/a.b"),
            ("us-gov-west-1", "arn:aws-us-gov:apigateway:us-gov-west-1::/domainnames/a.b"),
        ] {
            assert_eq!(arn(region, "domainnames/a.b"), expected);
        }
    }
}
