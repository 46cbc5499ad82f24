//! Every custom domain of the account and Region, including domains that only the v1 API shows
//! (edge-optimized, older or newer TLS policies), and the APIs that each domain maps.

use std::collections::BTreeSet;

use aws_sdk_apigateway::types as sdk;

use crate::aws::{
    errors::{Error, Kind},
    gateway::Gateway,
};

/// Maximum page size of v1.
pub(crate) const PAGE: i32 = 500;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherDomain {
    pub name: String,
    /// True when the domain requires a client certificate.
    pub mutual_tls: bool,
    /// True when the v2 API shows the domain's mappings, with paths of several levels; else the v1 API shows
    /// them.
    in_v2: bool,
}

impl Gateway {
    /// Returns all public custom domains, including the operator's.
    pub async fn domains(&self) -> Result<Vec<OtherDomain>, Error> {
        let mut domains = Vec::new();
        let mut next = None;
        loop {
            let send = self.v1.get_domain_names().limit(PAGE).set_position(next).send();
            let page = self.context.call("apigateway:GetDomainNames", send).await?;
            domains.extend(page.items.unwrap_or_default().into_iter().filter_map(other));
            next = page.position.filter(|position| !position.is_empty());
            if next.is_none() {
                return Ok(domains);
            }
        }
    }

    /// Returns the ids of the APIs that the domain maps; empty when the domain is gone.
    pub async fn apis_behind(&self, domain: &OtherDomain) -> Result<BTreeSet<String>, Error> {
        let mapped = if domain.in_v2 {
            self.mappings(&domain.name)
                .await
                .map(|all| all.into_iter().map(|m| m.api_id).collect())
        } else {
            self.base_paths(&domain.name).await
        };
        match mapped {
            Err(e) if e.kind == Kind::NotFound => Ok(BTreeSet::new()),
            other => other,
        }
    }

    async fn base_paths(&self, domain: &str) -> Result<BTreeSet<String>, Error> {
        let mut apis = BTreeSet::new();
        let mut next = None;
        loop {
            let send = self
                .v1
                .get_base_path_mappings()
                .domain_name(domain)
                .limit(PAGE)
                .set_position(next)
                .send();
            let page = self.context.call("apigateway:GetBasePathMappings", send).await?;
            apis.extend(
                page.items
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|m| m.rest_api_id),
            );
            next = page.position.filter(|position| !position.is_empty());
            if next.is_none() {
                return Ok(apis);
            }
        }
    }
}

/// Returns `None` for a private domain: it serves private APIs only, which no other domain can serve.
fn other(answer: sdk::DomainName) -> Option<OtherDomain> {
    let types = answer
        .endpoint_configuration
        .and_then(|e| e.types)
        .unwrap_or_default();
    if types.contains(&sdk::EndpointType::Private) {
        return None;
    }
    Some(OtherDomain {
        name: answer.domain_name?,
        mutual_tls: answer
            .mutual_tls_authentication
            .and_then(|m| m.truststore_uri)
            .is_some_and(|uri| !uri.is_empty()),
        in_v2: types == [sdk::EndpointType::Regional]
            && answer.security_policy == Some(sdk::SecurityPolicy::Tls12),
    })
}
