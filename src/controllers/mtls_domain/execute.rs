//! Executes the actions of a plan, in their order, one call each. The failure of one step neither stops nor
//! hides another. Writes to AWS pass the quota here: an action whose quota is one call in 30 seconds waits in
//! a queue for its ticket, and is planned again when its ticket is granted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Client, api::ObjectMeta};
use tracing::Instrument;

use super::report::{self, Outcome, Outcomes};

use crate::{
    api::MtlsDomain,
    aws::{
        acm::CertificateRequest,
        errors::Kind,
        gateway::mappings::Mapping,
        quota::{Bucket, Class, Grant, Quota, Ticket},
        rates::Operation,
        session::Session,
    },
    model::{
        action::Action,
        authorities::{DesiredAuthority, DesiredSource},
        placement::Placement,
        step::Step,
        tags::{ADOPTED_TAG, DEPLOYED, KMS_KEY_METADATA, OWNER_METADATA, OWNER_TAG, PENDING_TAG},
    },
    pki::authority,
    runtime::{apply, finalizer},
    server_certificate::request_limiter::RequestLimiter,
    telemetry::logging,
    trust::generated_authority,
};

/// Context for the execution of actions.
pub struct ApplyContext<'a> {
    pub client: &'a Client,
    pub session: &'a Session,
    pub quota: &'a Quota,
    pub request_limiter: &'a RequestLimiter,
    pub placement: &'a Placement,
    pub domain: &'a MtlsDomain,
    pub authorities: &'a [DesiredAuthority],
    /// Conditions of the old status: a failure that they already report has been logged.
    pub old_conditions: &'a [Condition],
    /// Class for the position in the queue.
    pub class: Class,
    pub since: Timestamp,
    pub now: Timestamp,
}

/// Result of an execution.
#[derive(Debug, Default)]
pub struct Done {
    pub outcomes: Outcomes,
    /// Number of actions that took effect.
    pub effects: usize,
    /// ID of the last change of the domain's records.
    pub change: Option<String>,
}

/// Executes the actions in order, each step up to its first failure.
pub async fn execute(
    actions: impl Iterator<Item = (Step, &Action)>,
    apply_context: &ApplyContext<'_>,
) -> Done {
    let mut done = Done::default();
    for (step, action) in actions {
        if done.outcomes.contains_key(&step) {
            continue;
        }
        // Span of the log line that each write to AWS has.
        let span =
            tracing::info_span!("act", domain = %apply_context.placement.domain_name, action = %action);
        match Box::pin(perform(action, apply_context, &mut done.change))
            .instrument(span)
            .await
        {
            Ok(()) => done.effects += 1,
            Err(outcome) => {
                if let Outcome::Failed(error) = &outcome {
                    let (domain, error) = (&apply_context.placement.domain_name, logging::chain(error));
                    match report::stands_in(apply_context.old_conditions, step, &outcome) {
                        true => tracing::debug!(%domain, %action, %error, "refused again"),
                        false => tracing::warn!(%domain, %action, %error, "refused"),
                    }
                }
                done.outcomes.insert(step, outcome);
            }
        }
    }
    done
}

async fn perform(
    action: &Action,
    apply_context: &ApplyContext<'_>,
    change: &mut Option<String>,
) -> Result<(), Outcome> {
    let ApplyContext {
        session, placement, ..
    } = apply_context;
    wait_for_quota(action, apply_context).await?;
    let (gateway, domain) = (&session.gateway, &placement.domain_name);
    let result = match action {
        Action::GenerateAuthority { authority, recorded } => {
            return generate(authority, recorded.as_deref(), apply_context).await;
        }
        Action::RequestCertificate(request) => return request_certificate(request, apply_context).await,
        Action::DeleteCertificate { arn } => gone(session.acm.delete(arn).await),
        Action::ChangeRecords { zone_id, changes } => {
            let sent = session.route53.change(zone_id, changes).await;
            sent.map(|id| *change = Some(id))
        }
        Action::CreateBucket { bucket } => {
            session
                .s3
                .create_bucket(
                    bucket,
                    &BTreeMap::from([(OWNER_TAG.to_owned(), placement.owner.clone())]),
                )
                .await
        }
        Action::BlockPublicAccess { bucket } => session.s3.block_public_access(bucket).await,
        Action::EncryptBucket { bucket, kms_key } => {
            session.s3.encrypt_bucket(bucket, kms_key.as_deref()).await
        }
        Action::EnableVersioning { bucket } => session.s3.enable_versioning(bucket).await,
        Action::PutTruststore {
            bucket,
            key,
            body,
            kms_key,
        } => {
            let mut metadata = BTreeMap::from([(OWNER_METADATA.to_owned(), placement.owner.clone())]);
            metadata.extend(kms_key.clone().map(|key| (KMS_KEY_METADATA.to_owned(), key)));
            session
                .s3
                .put(
                    bucket,
                    key,
                    body.clone().into_bytes(),
                    &metadata,
                    kms_key.as_deref(),
                )
                .await
                .map(drop)
        }
        Action::CreateDomain(request) => {
            let tags = BTreeMap::from([(OWNER_TAG.to_owned(), placement.owner.clone())]);
            gateway.create_domain(request, &tags).await
        }
        Action::UpdateDomain(request) => gateway.update_domain(request).await,
        Action::RestoreSecurityPolicy { name } => gateway.restore_security_policy(name).await,
        Action::AdoptDomain { arn } => {
            let tags = [
                (OWNER_TAG, placement.owner.clone()),
                (ADOPTED_TAG, "true".to_owned()),
            ];
            gateway
                .tag(arn, &tags.map(|(key, value)| (key.to_owned(), value)).into())
                .await
        }
        Action::TagDomain { arn } => {
            gateway
                .tag(
                    arn,
                    &BTreeMap::from([(OWNER_TAG.to_owned(), placement.owner.clone())]),
                )
                .await
        }
        Action::ReleaseDomain { arn } => gone(
            gateway
                .untag(arn, &[OWNER_TAG, ADOPTED_TAG].map(str::to_owned))
                .await,
        ),
        Action::ReleaseCertificate { arn } => gone(session.acm.untag(arn, OWNER_TAG).await),
        Action::DeleteDomain { name } => gone(gateway.delete_domain(name).await),
        Action::CreateMapping { path, api_id, stage } => gateway
            .create_mapping(domain, path, api_id, stage)
            .await
            .map(drop),
        Action::UpdateMapping {
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
        Action::DeleteMapping { id, .. } => gone(gateway.delete_mapping(domain, id).await),
        Action::TagPending { api_arn } => {
            gateway
                .tag(
                    api_arn,
                    &BTreeMap::from([(PENDING_TAG.to_owned(), placement.owner.clone())]),
                )
                .await
        }
        Action::CloseEndpoint { protocol, api_id } => {
            gateway.set_endpoint_closed(*protocol, api_id, true).await
        }
        Action::Deploy {
            protocol,
            api_id,
            stages,
        } => gateway.deploy(*protocol, api_id, stages).await,
        Action::TouchStage {
            api_id,
            stage,
            description,
        } => gateway.touch_stage(api_id, stage, description).await,
        Action::TagDeployed { api_arn } => {
            gateway
                .tag(
                    api_arn,
                    &BTreeMap::from([(PENDING_TAG.to_owned(), DEPLOYED.to_owned())]),
                )
                .await
        }
        Action::UntagPending { api_arn } => gateway.untag(api_arn, &[PENDING_TAG.to_owned()]).await,
        Action::TagApi { arn, tags } => gateway.tag(arn, tags).await,
        Action::UntagApi { arn, keys } => gone(gateway.untag(arn, keys).await),
        Action::ChangeParameters {
            api_id,
            at,
            set,
            remove,
            others,
        } => gateway.change_parameters(api_id, at, set, remove, others).await,
        Action::CreateAuthorizer {
            protocol,
            api_id,
            name,
            function,
        } => gateway.create_authorizer(*protocol, api_id, name, function).await,
        Action::RestoreAuthorizer {
            protocol,
            api_id,
            id,
            function,
        } => gateway.restore_authorizer(*protocol, api_id, id, function).await,
        Action::DeleteAuthorizer { protocol, api_id, id } => {
            gone(gateway.delete_authorizer(*protocol, api_id, id).await)
        }
        Action::PermitFunction {
            function,
            statement,
            source,
        } => session.lambda(function).permit(function, statement, source).await,
        Action::ForbidFunction { function, statement } => {
            gone(session.lambda(function).forbid(function, statement).await)
        }
        Action::Authorize {
            api_id,
            at,
            authorizer,
        } => gateway.authorize(api_id, at, authorizer.as_deref()).await,
        Action::DeleteTruststoreVersion { bucket, key, version } => {
            gone(session.s3.delete_version(bucket, key, version).await)
        }
    };
    result.map_err(Outcome::Failed)
}

/// Requests a certificate. ACM lists it some seconds after the request. Until then the operator requests it
/// again, with the idempotency token that yields the same certificate.
async fn request_certificate(
    request: &CertificateRequest,
    apply_context: &ApplyContext<'_>,
) -> Result<(), Outcome> {
    let object = format!(
        "{}/{}",
        apply_context.placement.namespace, apply_context.placement.name
    );
    if let Some(about) = apply_context.request_limiter.wait(&object, apply_context.now) {
        return Err(Outcome::Queued { ahead: 1, about });
    }
    let arn = apply_context
        .session
        .acm
        .request(request)
        .await
        .map_err(Outcome::Failed)?;
    match apply_context
        .request_limiter
        .note(&object, &arn, apply_context.now)
    {
        true => Ok(()),
        false => Err(Outcome::NotShown(format!(
            "{arn} is requested; ACM does not list it yet"
        ))),
    }
}

/// Treats a resource that is to be deleted and does not exist as deleted.
fn gone(result: Result<(), crate::aws::errors::Error>) -> Result<(), crate::aws::errors::Error> {
    match result {
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        other => other,
    }
}

/// Returns the scarce call that an action makes; `None`: all of its calls are plentiful.
fn scarce(action: &Action) -> Option<Operation> {
    match action {
        Action::CreateDomain(_) => Some(Operation::CreateDomainName),
        Action::UpdateDomain(_) | Action::RestoreSecurityPolicy { .. } => Some(Operation::UpdateDomainName),
        Action::DeleteDomain { .. } => Some(Operation::DeleteDomainName),
        Action::Deploy { .. } => Some(Operation::CreateDeployment),
        _ => None,
    }
}

async fn wait_for_quota(action: &Action, apply_context: &ApplyContext<'_>) -> Result<(), Outcome> {
    let Some(operation) = scarce(action) else {
        return Ok(());
    };
    let bucket = Bucket::new(
        &apply_context.session.account,
        &apply_context.session.region,
        operation,
    );
    let ticket = Ticket {
        object: format!(
            "{}/{}",
            apply_context.placement.namespace, apply_context.placement.name
        ),
        class: apply_context.class,
        since: apply_context.since,
    };
    match apply_context
        .quota
        .request(&bucket, ticket, format!("{action:?}"))
    {
        Grant::Go { after } => {
            tokio::time::sleep(after).await;
            Ok(())
        }
        Grant::Wait { ahead, about } => Err(Outcome::Queued { ahead, about }),
    }
}

/// Generates the authority's key and certificate. The operator creates the Secret and never replaces it:
/// clients may trust the key in it. The operator records the key before it writes the Secret, so that its own
/// Secret never counts as not owned. `recorded` is the key of an attempt that got no further.
async fn generate(
    name: &str,
    recorded: Option<&str>,
    apply_context: &ApplyContext<'_>,
) -> Result<(), Outcome> {
    let wanted = apply_context
        .authorities
        .iter()
        .find(|a| a.name == name)
        .map(|a| &a.source);
    let Some(DesiredSource::Generated { secret, request }) = wanted else {
        return Ok(()); // the plan names authorities of the spec only
    };
    let (request, now) = (request.clone(), apply_context.now);
    let made = tokio::task::spawn_blocking(move || authority::generate(&request, now))
        .await
        .map_err(|_| Outcome::Kubernetes("the generation of the authority's key did not finish".into()))?
        .map_err(|error| Outcome::Kubernetes(format!("cannot generate the authority {name}: {error}")))?;
    let key = made.certificate.spki_sha256.as_str();
    let annotation = generated_authority::annotation(name);
    match finalizer::annotate(
        apply_context.client,
        apply_context.domain,
        &annotation,
        recorded,
        key,
    )
    .await
    {
        Ok(true) => {}
        Ok(false) => {
            return Err(Outcome::NotShown(format!(
                "the key of the authority {name} could not be recorded yet"
            )));
        }
        Err(error) => return Err(Outcome::Kubernetes(error.to_string())),
    }
    let data = [
        ("tls.crt", made.certificate_pem.as_bytes()),
        ("tls.key", made.key_pem.as_bytes()),
        ("ca.crt", made.certificate_pem.as_bytes()),
    ];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(secret.clone()),
            namespace: Some(apply_context.placement.namespace.clone()),
            labels: Some(generated_authority::labels(&apply_context.placement.name, name)),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), ByteString(value.to_vec())))
                .collect(),
        ),
        ..Secret::default()
    };
    match apply::write_secret(apply_context.client, secret, None).await {
        Ok(_) => {
            tracing::info!(authority = name, "generated");
            Ok(())
        }
        Err(error) if error.is_conflict() => Ok(()), // it exists: the next reconcile reads it
        Err(error) => Err(Outcome::Kubernetes(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
