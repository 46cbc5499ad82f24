//! API mappings: each leads from a path of a custom domain to a stage of an API.

use crate::aws::{
    errors::{Error, Kind},
    gateway::Gateway,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// AWS's id; stays when the mapping changes.
    pub id: String,
    /// Path without a leading slash; empty for all requests that match no longer path.
    pub path: String,
    pub api_id: String,
    pub stage: String,
}

impl Gateway {
    /// Returns all mappings of the domain; [`Kind::NotFound`] when there is no such domain. A new mapping may
    /// be missing for some seconds.
    pub async fn mappings(&self, domain: &str) -> Result<Vec<Mapping>, Error> {
        let mut mappings = Vec::new();
        let mut next = None;
        loop {
            let send = self
                .client
                .get_api_mappings()
                .domain_name(domain)
                .set_next_token(next)
                .send();
            let page = self.context.call("apigateway:GetApiMappings", send).await?;
            mappings.extend(page.items.unwrap_or_default().into_iter().map(|item| {
                Mapping {
                    id: item.api_mapping_id.unwrap_or_default(),
                    // The v1 API's name for the empty path comes through for mappings created there.
                    path: item
                        .api_mapping_key
                        .filter(|key| key != "(none)")
                        .unwrap_or_default(),
                    api_id: item.api_id.unwrap_or_default(),
                    stage: item.stage.unwrap_or_default(),
                }
            }));
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(mappings);
            }
        }
    }

    /// Adds a mapping and returns its id; [`Kind::Conflict`] when the path is taken.
    pub async fn create_mapping(
        &self,
        domain: &str,
        path: &str,
        api_id: &str,
        stage: &str,
    ) -> Result<String, Error> {
        const CREATE: &str = "apigateway:CreateApiMapping";
        let send = self
            .client
            .create_api_mapping()
            .domain_name(domain)
            .api_mapping_key(path)
            .api_id(api_id)
            .stage(stage)
            .send();
        let answer = self.context.call(CREATE, send).await?;
        answer
            .api_mapping_id
            .ok_or_else(|| Error::ours(Kind::Transient, CREATE, "the answer names no mapping"))
    }

    /// Points the mapping with this id to the given API and stage, in place.
    pub async fn update_mapping(&self, domain: &str, mapping: &Mapping) -> Result<(), Error> {
        let send = self
            .client
            .update_api_mapping()
            .domain_name(domain)
            .api_mapping_id(&mapping.id)
            .api_mapping_key(&mapping.path)
            .api_id(&mapping.api_id)
            .stage(&mapping.stage)
            .send();
        self.context.call("apigateway:UpdateApiMapping", send).await?;
        Ok(())
    }

    pub async fn delete_mapping(&self, domain: &str, id: &str) -> Result<(), Error> {
        let send = self
            .client
            .delete_api_mapping()
            .domain_name(domain)
            .api_mapping_id(id)
            .send();
        self.context.call("apigateway:DeleteApiMapping", send).await?;
        Ok(())
    }
}
