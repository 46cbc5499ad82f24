//! Actions on custom domains, their mappings, and the mapped APIs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::context::{ActionContext, gone, keys};

use crate::aws::{
    arn::Arn,
    errors::Error,
    gateway::{apis::Protocol, domains::DomainRequest, integrations::Place, mappings::Mapping},
    rates::Operation,
    session::Session,
    tags::{ADOPTED_TAG, DEPLOYED, OWNER_TAG, PENDING_TAG, Tags},
};

/// Action on a custom domain, a mapping or an API. The operator can repeat it without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiGatewayAction {
    CreateDomain(DomainRequest),
    /// Updates the domain in place, always with its full configuration.
    UpdateDomain(DomainRequest),
    /// Restores the TLS policy that mutual TLS requires. An update of other fields cannot change the policy.
    RestoreSecurityPolicy {
        name: String,
        /// The present policy.
        from: String,
    },
    /// Adds the ownership tag to a domain without a tag.
    AdoptDomain {
        arn: String,
    },
    /// Restores the ownership tag on a domain that the operator created.
    TagDomain {
        arn: String,
    },
    /// Adds the tags that the spec and the operator's configuration demand.
    AddDomainTags {
        arn: String,
        tags: Tags,
    },
    /// Removes the ownership tag from a domain that stays.
    ReleaseDomain {
        arn: String,
    },
    DeleteDomain {
        name: String,
    },
    CreateMapping {
        path: String,
        api_id: String,
        stage: String,
    },
    UpdateMapping {
        id: String,
        path: String,
        api_id: String,
        stage: String,
    },
    DeleteMapping {
        id: String,
        path: String,
    },
    TagPending {
        api_arn: String,
    },
    CloseEndpoint {
        protocol: Protocol,
        api_id: String,
    },
    /// Deploys the API once, to all of these stages.
    Deploy {
        protocol: Protocol,
        api_id: String,
        stages: Vec<String>,
    },
    /// Writes the unchanged tracing setting of a REST API's stage. AWS then publishes the flag of the default
    /// endpoint and nothing else.
    TouchStage {
        api_id: String,
        stage: String,
        tracing: bool,
    },
    TagDeployed {
        api_arn: String,
    },
    UntagPending {
        api_arn: String,
    },
    TagApi {
        arn: String,
        tags: BTreeMap<String, String>,
    },
    UntagApi {
        arn: String,
        keys: Vec<String>,
    },
    /// Changes the parameters of one integration.
    ChangeParameters {
        api_id: String,
        at: Place,
        set: BTreeMap<String, String>,
        remove: BTreeSet<String>,
        /// Parameters that stay as they are.
        others: BTreeMap<String, String>,
    },
    /// Creates a Lambda authorizer for this function.
    CreateAuthorizer {
        protocol: Protocol,
        api_id: String,
        name: String,
        function: Arn,
    },
    /// Restores the settings that the authorizer was created with.
    RestoreAuthorizer {
        protocol: Protocol,
        api_id: String,
        id: String,
        function: Arn,
    },
    DeleteAuthorizer {
        protocol: Protocol,
        api_id: String,
        id: String,
    },
    /// Attaches an authorizer to a route or method, or detaches it.
    Authorize {
        api_id: String,
        at: Place,
        authorizer: Option<String>,
    },
}

impl fmt::Display for ApiGatewayAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiGatewayAction::CreateDomain(r) => {
                write!(
                    f,
                    "create domain {} with truststore version {}",
                    r.name, r.truststore_version
                )
            }
            ApiGatewayAction::UpdateDomain(r) => {
                write!(
                    f,
                    "update domain {} to truststore version {}",
                    r.name, r.truststore_version
                )
            }
            ApiGatewayAction::RestoreSecurityPolicy { name, .. } => {
                write!(f, "restore the TLS policy of domain {name}")
            }
            ApiGatewayAction::AdoptDomain { arn } => write!(f, "take over {arn}"),
            ApiGatewayAction::TagDomain { arn } => write!(f, "restore the ownership tag on {arn}"),
            ApiGatewayAction::AddDomainTags { arn, tags } => write!(f, "tag {arn} with {}", keys(tags)),
            ApiGatewayAction::ReleaseDomain { arn } => {
                write!(f, "remove the ownership tag from {arn}")
            }
            ApiGatewayAction::DeleteDomain { name } => write!(f, "delete domain {name}"),
            ApiGatewayAction::CreateMapping { path, api_id, stage } => {
                write!(f, "create mapping {path:?} to {api_id}/{stage}")
            }
            ApiGatewayAction::UpdateMapping {
                path, api_id, stage, ..
            } => {
                write!(f, "change mapping {path:?} to {api_id}/{stage}")
            }
            ApiGatewayAction::DeleteMapping { path, .. } => write!(f, "delete mapping {path:?}"),
            ApiGatewayAction::TagPending { api_arn } => write!(f, "tag {api_arn} as not deployed"),
            ApiGatewayAction::CloseEndpoint { api_id, .. } => {
                write!(f, "close the execute-api endpoint of {api_id}")
            }
            ApiGatewayAction::Deploy { api_id, stages, .. } => {
                write!(f, "deploy {api_id} to {}", stages.join(", "))
            }
            ApiGatewayAction::TouchStage { api_id, stage, .. } => write!(f, "touch {api_id}/{stage}"),
            ApiGatewayAction::TagDeployed { api_arn } => write!(f, "tag {api_arn} as deployed"),
            ApiGatewayAction::UntagPending { api_arn } => write!(f, "untag {api_arn}"),
            ApiGatewayAction::TagApi { arn, tags } => {
                write!(
                    f,
                    "tag {arn} with {}",
                    tags.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
                )
            }
            ApiGatewayAction::UntagApi { arn, keys } => {
                write!(f, "remove the tags {} from {arn}", keys.join(", "))
            }
            ApiGatewayAction::ChangeParameters {
                api_id,
                at,
                set,
                remove,
                ..
            } => {
                write!(f, "change {at} of {api_id}:")?;
                set.iter()
                    .try_for_each(|(key, value)| write!(f, " {key}={value}"))?;
                remove.iter().try_for_each(|key| write!(f, " no {key}"))
            }
            ApiGatewayAction::CreateAuthorizer { api_id, function, .. } => {
                write!(f, "create an authorizer of {api_id}: {function}")
            }
            ApiGatewayAction::RestoreAuthorizer {
                api_id, id, function, ..
            } => {
                write!(f, "change authorizer {id} of {api_id}: {function}")
            }
            ApiGatewayAction::DeleteAuthorizer { api_id, id, .. } => {
                write!(f, "delete authorizer {id} of {api_id}")
            }
            ApiGatewayAction::Authorize {
                api_id,
                at,
                authorizer: Some(id),
            } => {
                write!(f, "attach authorizer {id} to {at} of {api_id}")
            }
            ApiGatewayAction::Authorize {
                api_id,
                at,
                authorizer: None,
            } => write!(f, "detach the authorizer from {at} of {api_id}"),
        }
    }
}

impl ApiGatewayAction {
    /// Makes the call.
    pub async fn perform(&self, session: &Session, context: &ActionContext<'_>) -> Result<(), Error> {
        let (gateway, domain) = (&session.gateway, context.domain_name);
        let owner = || context.owner.to_owned();
        match self {
            ApiGatewayAction::CreateDomain(request) => {
                gateway.create_domain(request, &context.all_tags()).await
            }
            ApiGatewayAction::UpdateDomain(request) => gateway.update_domain(request).await,
            ApiGatewayAction::RestoreSecurityPolicy { name, from } => {
                gateway.restore_security_policy(name, from).await
            }
            ApiGatewayAction::AdoptDomain { arn } => {
                let mut tags = context.all_tags();
                tags.insert(ADOPTED_TAG.to_owned(), "true".to_owned());
                gateway.tag(arn, &tags).await
            }
            ApiGatewayAction::TagDomain { arn } => gateway.tag(arn, &context.all_tags()).await,
            ApiGatewayAction::AddDomainTags { arn, tags } => gateway.tag(arn, tags).await,
            ApiGatewayAction::ReleaseDomain { arn } => gone(
                gateway
                    .untag(arn, &[OWNER_TAG, ADOPTED_TAG].map(str::to_owned))
                    .await,
            ),
            ApiGatewayAction::DeleteDomain { name } => gone(gateway.delete_domain(name).await),
            ApiGatewayAction::CreateMapping { path, api_id, stage } => gateway
                .create_mapping(domain, path, api_id, stage)
                .await
                .map(drop),
            ApiGatewayAction::UpdateMapping {
                id,
                path,
                api_id,
                stage,
            } => {
                let mapping = Mapping {
                    id: id.clone(),
                    path: path.clone(),
                    api_id: api_id.clone(),
                    stage: stage.clone(),
                };
                gateway.update_mapping(domain, &mapping).await
            }
            ApiGatewayAction::DeleteMapping { id, .. } => gone(gateway.delete_mapping(domain, id).await),
            ApiGatewayAction::TagPending { api_arn } => {
                gateway
                    .tag(api_arn, &BTreeMap::from([(PENDING_TAG.to_owned(), owner())]))
                    .await
            }
            ApiGatewayAction::CloseEndpoint { protocol, api_id } => {
                gateway.set_endpoint_closed(*protocol, api_id, true).await
            }
            ApiGatewayAction::Deploy {
                protocol,
                api_id,
                stages,
            } => gateway.deploy(*protocol, api_id, stages).await,
            ApiGatewayAction::TouchStage {
                api_id,
                stage,
                tracing,
            } => gateway.touch_stage(api_id, stage, *tracing).await,
            ApiGatewayAction::TagDeployed { api_arn } => {
                gateway
                    .tag(
                        api_arn,
                        &BTreeMap::from([(PENDING_TAG.to_owned(), DEPLOYED.to_owned())]),
                    )
                    .await
            }
            ApiGatewayAction::UntagPending { api_arn } => {
                gateway.untag(api_arn, &[PENDING_TAG.to_owned()]).await
            }
            ApiGatewayAction::TagApi { arn, tags } => gateway.tag(arn, tags).await,
            ApiGatewayAction::UntagApi { arn, keys } => gone(gateway.untag(arn, keys).await),
            ApiGatewayAction::ChangeParameters {
                api_id,
                at,
                set,
                remove,
                others,
            } => gateway.change_parameters(api_id, at, set, remove, others).await,
            ApiGatewayAction::CreateAuthorizer {
                protocol,
                api_id,
                name,
                function,
            } => gateway.create_authorizer(*protocol, api_id, name, function).await,
            ApiGatewayAction::RestoreAuthorizer {
                protocol,
                api_id,
                id,
                function,
            } => gateway.restore_authorizer(*protocol, api_id, id, function).await,
            ApiGatewayAction::DeleteAuthorizer { protocol, api_id, id } => {
                gone(gateway.delete_authorizer(*protocol, api_id, id).await)
            }
            ApiGatewayAction::Authorize {
                api_id,
                at,
                authorizer,
            } => gateway.authorize(api_id, at, authorizer.as_deref()).await,
        }
    }

    /// Returns the scarce call that the action makes; `None`: all of its calls are plentiful.
    pub fn operation(&self) -> Option<Operation> {
        match self {
            ApiGatewayAction::CreateDomain(_) => Some(Operation::CreateDomainName),
            ApiGatewayAction::UpdateDomain(_) | ApiGatewayAction::RestoreSecurityPolicy { .. } => {
                Some(Operation::UpdateDomainName)
            }
            ApiGatewayAction::DeleteDomain { .. } => Some(Operation::DeleteDomainName),
            ApiGatewayAction::Deploy { .. } => Some(Operation::CreateDeployment),
            _ => None,
        }
    }
}
