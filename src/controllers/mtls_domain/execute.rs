//! Executes the actions of a plan, in their order, one call each. The failure of one step neither stops nor
//! hides another. Writes to AWS pass the quota here: an action whose quota is one call in 30 seconds waits in
//! a queue for its ticket, and is planned again when its ticket is granted.

mod lasting;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Client, api::ObjectMeta};
use tokio::time::Instant;
use tracing::Instrument;

pub use self::lasting::Refusals;

use self::lasting::{Fingerprint, Lasting};
use super::report::step_conditions::{self, Outcome, Outcomes};

use crate::{
    api::MtlsDomain,
    aws::{
        action::{acm::AcmAction, context::ActionContext},
        quota::{Bucket, Class, Grant, Quota, Ticket},
        session::Session,
    },
    model::{
        action::Action,
        authorities::{DesiredAuthority, DesiredSource},
        placement::Placement,
        step::Step,
    },
    pki::authority,
    runtime::{self, apply, finalizer, workers::Workers},
    server_certificate::request_limiter::RequestLimiter,
    telemetry::logging,
    trust::generated_authority,
};

/// Context for the execution of actions.
pub struct ApplyContext<'a> {
    pub client: &'a Client,
    /// For RSA keys.
    pub workers: &'a Workers,
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
    /// Lasting refusals of earlier reconciles of this generation.
    pub refused: &'a Refusals,
    /// Maximum pause after a lasting refusal.
    pub longest_pause: Duration,
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
    /// Lasting refusals, for the next reconcile.
    pub refused: Refusals,
    /// Time of the next attempt of an action that was refused lastingly, now or before.
    pub retry_at: Option<Instant>,
}

/// Executes the actions in order, each step up to its first failure.
pub async fn execute(
    actions: impl Iterator<Item = (Step, &Action)>,
    apply_context: &ApplyContext<'_>,
) -> Done {
    let mut done = Done {
        refused: apply_context.refused.clone(),
        ..Done::default()
    };
    for (step, action) in actions {
        if done.outcomes.contains_key(&step) {
            continue;
        }
        let fingerprint = Fingerprint::of(action);
        let before = done.refused.get(&step).filter(|b| b.is_of(fingerprint)).cloned();
        if let Some(before) = before.as_ref().filter(|b| b.holds(fingerprint, Instant::now())) {
            done.retry_at = done.retry_at.into_iter().chain([before.until]).min();
            done.outcomes.insert(step, Outcome::Failed(before.error.clone()));
            continue;
        }
        // Span of the log line that each write to AWS has.
        let span =
            tracing::info_span!("act", domain = %apply_context.placement.domain_name, action = %action);
        match Box::pin(perform(action, apply_context, &mut done.change))
            .instrument(span)
            .await
        {
            Ok(()) => {
                done.effects += 1;
                if before.is_some() {
                    done.refused.remove(&step);
                }
            }
            Err(outcome) => {
                match &outcome {
                    Outcome::Failed(error) if error.is_lasting() => {
                        let longest = apply_context.longest_pause;
                        let lasting = Lasting::new(
                            fingerprint,
                            error.clone(),
                            before.as_ref(),
                            longest,
                            Instant::now(),
                        );
                        done.retry_at = done.retry_at.into_iter().chain([lasting.until]).min();
                        done.refused.insert(step, lasting);
                    }
                    // Queued: not attempted.
                    Outcome::Queued { .. } => {}
                    _ if before.is_some() => {
                        done.refused.remove(&step);
                    }
                    _ => {}
                }
                if let Outcome::Failed(error) = &outcome {
                    let (domain, error) = (&apply_context.placement.domain_name, logging::chain(error));
                    match step_conditions::stands_in(apply_context.old_conditions, step, &outcome) {
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
    let context = ActionContext {
        owner: &placement.owner,
        domain_name: &placement.domain_name,
        tags: &placement.tags,
    };
    let result = match action {
        Action::GenerateAuthority { authority, recorded } => {
            return generate(authority, recorded.as_deref(), apply_context).await;
        }
        Action::Acm(request @ AcmAction::RequestCertificate(_)) => {
            return request_certificate(request, apply_context).await;
        }
        Action::Acm(action) => action.perform(session).await.map(drop),
        Action::ApiGateway(action) => action.perform(session, &context).await,
        Action::Lambda(action) => action.perform(session).await,
        Action::Route53(action) => action.perform(session).await.map(|id| *change = Some(id)),
        Action::S3(action) => action.perform(session, &context).await,
    };
    result.map_err(Outcome::Failed)
}

/// Requests a certificate. ACM lists it some seconds after the request. Until then the operator requests it
/// again, with the idempotency token that yields the same certificate.
async fn request_certificate(request: &AcmAction, apply_context: &ApplyContext<'_>) -> Result<(), Outcome> {
    let object = apply_context.placement.id();
    if let Some(about) = apply_context.request_limiter.wait(&object, apply_context.now) {
        return Err(Outcome::Limited { about });
    }
    let requested = request
        .perform(apply_context.session)
        .await
        .map_err(Outcome::Failed)?;
    let (limiter, now) = (apply_context.request_limiter, apply_context.now);
    match requested.filter(|arn| !limiter.note(&object, arn, now)) {
        None => Ok(()),
        Some(arn) => Err(Outcome::NotShown(format!(
            "{arn} is requested; ACM does not list it yet"
        ))),
    }
}

async fn wait_for_quota(action: &Action, apply_context: &ApplyContext<'_>) -> Result<(), Outcome> {
    let Some(operation) = action.operation() else {
        return Ok(());
    };
    let bucket = Bucket::new(
        &apply_context.session.account,
        &apply_context.session.region,
        operation,
    );
    let ticket = Ticket {
        object: apply_context.placement.id().to_string(),
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
    let namespace = &apply_context.placement.namespace;
    let with = |certificate: &str, key: &str| {
        let data = [
            ("tls.crt", certificate),
            ("tls.key", key),
            ("ca.crt", certificate),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(secret.clone()),
                namespace: Some(namespace.clone()),
                labels: Some(generated_authority::labels(&apply_context.placement.name, name)),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".into()),
            data: Some(
                data.map(|(key, value)| (key.to_owned(), ByteString(value.into())))
                    .into(),
            ),
            ..Secret::default()
        }
    };
    // No key is made and recorded, again and again, for a Secret that the API server rejects.
    apply::try_create_secret(apply_context.client, &with("", ""))
        .await
        .map_err(|error| failed(&error))?;
    let made = apply_context
        .workers
        .run(namespace, move |_| authority::generate(&request, now))
        .await
        .map_err(|error| Outcome::Kubernetes(format!("cannot generate the authority {name}: {error}")))?
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
    let secret = with(&made.certificate_pem, &made.key_pem);
    match apply::write_secret(apply_context.client, secret, None).await {
        Ok(_) => {
            tracing::info!(authority = name, "generated");
            Ok(())
        }
        Err(error) if error.is_conflict() => Ok(()), // it exists: the next reconcile reads it
        Err(error) => Err(failed(&error)),
    }
}

/// Returns the outcome of a write that the API server refused or did not answer.
fn failed(error: &runtime::Error) -> Outcome {
    match error.rejection() {
        Some(why) => Outcome::Rejected(why),
        None => Outcome::Kubernetes(logging::chain(error).to_string()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
