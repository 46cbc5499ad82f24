//! Actions of a plan: each is one AWS call, or one object in Kubernetes, with its text for the log and
//! `status.plan`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::aws::{
    acm,
    gateway::{apis::Protocol, domains::DomainRequest, integrations::Place},
    route53::Change,
};

/// AWS call, or object in Kubernetes. The operator can repeat each action without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Generates the key and certificate of a generated authority, and stores both in its Secret.
    GenerateAuthority {
        authority: String,
        /// Recorded key of the authority that is in no Secret.
        recorded: Option<String>,
    },
    RequestCertificate(acm::CertificateRequest),
    DeleteCertificate {
        arn: String,
    },
    /// Changes records in one atomic batch.
    ChangeRecords {
        zone_id: String,
        changes: Vec<Change>,
    },
    /// Creates the bucket with the ownership tag.
    CreateBucket {
        bucket: String,
    },
    BlockPublicAccess {
        bucket: String,
    },
    EncryptBucket {
        bucket: String,
        kms_key: Option<String>,
    },
    /// Enables versioning, the last step of an owned bucket's setup: an owned bucket with versioning is
    /// complete.
    EnableVersioning {
        bucket: String,
    },
    PutTruststore {
        bucket: String,
        key: String,
        body: String,
        kms_key: Option<String>,
    },
    CreateDomain(DomainRequest),
    /// Updates the domain in place, always with its full configuration.
    UpdateDomain(DomainRequest),
    /// Restores the TLS policy that mutual TLS requires. An update of other fields cannot change the policy.
    RestoreSecurityPolicy {
        name: String,
    },
    /// Adds the ownership tag to a domain without a tag.
    AdoptDomain {
        arn: String,
    },
    /// Restores the ownership tag on a domain that the operator created.
    TagDomain {
        arn: String,
    },
    /// Removes the ownership tag from a domain that stays.
    ReleaseDomain {
        arn: String,
    },
    /// Removes the ownership tag from a certificate that stays.
    ReleaseCertificate {
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
    /// Writes the unchanged description of a REST API's stage. AWS then publishes the flag of the default
    /// endpoint and nothing else.
    TouchStage {
        api_id: String,
        stage: String,
        description: String,
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
        function: String,
    },
    /// Restores the settings that the authorizer was created with.
    RestoreAuthorizer {
        protocol: Protocol,
        api_id: String,
        id: String,
        function: String,
    },
    DeleteAuthorizer {
        protocol: Protocol,
        api_id: String,
        id: String,
    },
    /// Permits API Gateway to call a function for one authorizer.
    PermitFunction {
        function: String,
        statement: String,
        source: String,
    },
    ForbidFunction {
        function: String,
        statement: String,
    },
    /// Attaches an authorizer to a route or method, or detaches it.
    Authorize {
        api_id: String,
        at: Place,
        authorizer: Option<String>,
    },
    DeleteTruststoreVersion {
        bucket: String,
        key: String,
        version: String,
    },
}

/// Text of an action for the log and for `status.plan`, never with a body.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::GenerateAuthority { authority, .. } => write!(f, "generate authority {authority}"),
            Action::RequestCertificate(r) => write!(f, "request certificate for {}", r.names.join(", ")),
            Action::DeleteCertificate { arn } => write!(f, "delete certificate {arn}"),
            Action::ChangeRecords { zone_id, changes } => {
                let names: Vec<_> = changes
                    .iter()
                    .map(|c| format!("{:?} {} {}", c.action, c.record.kind, c.record.name))
                    .collect();
                write!(f, "change records in {zone_id}: {}", names.join(", "))
            }
            Action::CreateBucket { bucket } => write!(f, "create bucket {bucket}"),
            Action::BlockPublicAccess { bucket } => write!(f, "block public access to bucket {bucket}"),
            Action::EncryptBucket { bucket, .. } => write!(f, "encrypt bucket {bucket}"),
            Action::EnableVersioning { bucket } => write!(f, "enable versioning of bucket {bucket}"),
            Action::PutTruststore { bucket, key, .. } => write!(f, "upload s3://{bucket}/{key}"),
            Action::CreateDomain(r) => {
                write!(
                    f,
                    "create domain {} with truststore version {}",
                    r.name, r.truststore_version
                )
            }
            Action::UpdateDomain(r) => {
                write!(
                    f,
                    "update domain {} to truststore version {}",
                    r.name, r.truststore_version
                )
            }
            Action::RestoreSecurityPolicy { name } => write!(f, "restore the TLS policy of domain {name}"),
            Action::AdoptDomain { arn } => write!(f, "take over {arn}"),
            Action::TagDomain { arn } => write!(f, "restore the ownership tag on {arn}"),
            Action::ReleaseDomain { arn } | Action::ReleaseCertificate { arn } => {
                write!(f, "remove the ownership tag from {arn}")
            }
            Action::DeleteDomain { name } => write!(f, "delete domain {name}"),
            Action::CreateMapping { path, api_id, stage } => {
                write!(f, "create mapping {path:?} to {api_id}/{stage}")
            }
            Action::UpdateMapping {
                path, api_id, stage, ..
            } => {
                write!(f, "change mapping {path:?} to {api_id}/{stage}")
            }
            Action::DeleteMapping { path, .. } => write!(f, "delete mapping {path:?}"),
            Action::TagPending { api_arn } => write!(f, "tag {api_arn} as not deployed"),
            Action::CloseEndpoint { api_id, .. } => write!(f, "close the execute-api endpoint of {api_id}"),
            Action::Deploy { api_id, stages, .. } => write!(f, "deploy {api_id} to {}", stages.join(", ")),
            Action::TouchStage { api_id, stage, .. } => write!(f, "touch {api_id}/{stage}"),
            Action::TagDeployed { api_arn } => write!(f, "tag {api_arn} as deployed"),
            Action::UntagPending { api_arn } => write!(f, "untag {api_arn}"),
            Action::TagApi { arn, tags } => {
                write!(
                    f,
                    "tag {arn} with {}",
                    tags.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
                )
            }
            Action::UntagApi { arn, keys } => write!(f, "remove the tags {} from {arn}", keys.join(", ")),
            Action::ChangeParameters {
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
            Action::CreateAuthorizer { api_id, function, .. } => {
                write!(f, "create an authorizer of {api_id}: {function}")
            }
            Action::RestoreAuthorizer {
                api_id, id, function, ..
            } => {
                write!(f, "change authorizer {id} of {api_id}: {function}")
            }
            Action::DeleteAuthorizer { api_id, id, .. } => write!(f, "delete authorizer {id} of {api_id}"),
            Action::PermitFunction { function, source, .. } => {
                write!(f, "permit {source} to call {function}")
            }
            Action::ForbidFunction { function, statement } => {
                write!(f, "remove {statement} from the policy of {function}")
            }
            Action::Authorize {
                api_id,
                at,
                authorizer: Some(id),
            } => {
                write!(f, "attach authorizer {id} to {at} of {api_id}")
            }
            Action::Authorize {
                api_id,
                at,
                authorizer: None,
            } => write!(f, "detach the authorizer from {at} of {api_id}"),
            Action::DeleteTruststoreVersion { key, version, .. } => {
                write!(f, "delete truststore {key} version {version}")
            }
        }
    }
}
