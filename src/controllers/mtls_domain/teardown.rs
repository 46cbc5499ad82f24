//! Decides what to remove next once an `MtlsDomain` is deleted, in the reverse order of building. Removes
//! nothing that the operator does not own, and nothing that is still in use. Pure and total, like `plan`.

use crate::{
    api::{DeletionPolicy, RestDeployment, conditions::Reason},
    aws::{
        action::{AcmAction, ApiGatewayAction, Route53Action, S3Action},
        gateway::{
            domains::{Domain, DomainStatus},
            mappings::Mapping,
        },
        route53::RecordSet,
        tags::{OWNER_TAG, REQUEST_TAG},
    },
    dataplane::api_gateway::{
        custom_domain::{domain_ownership, in_progress, is_ours, keeps_unlisted},
        identity,
    },
    dns::records,
    model::{
        action::Action,
        front::Ownership,
        observed::Leftovers,
        placement::{Placement, TruststoreObject},
        step::{Actions, StepPlan, StepState},
    },
    server_certificate::owned,
};

/// Returns the next removals. `Done` once nothing that the operator owns is left but what stays on purpose:
/// the validation record, buckets, closed endpoints, and the resources that a retained domain needs. `listed`
/// are the mapping paths of the spec.
pub fn teardown(
    placement: &Placement,
    policy: Option<DeletionPolicy>,
    rest_deployment: RestDeployment,
    listed: &[String],
    r: &Leftovers,
) -> StepPlan {
    let mut actions = Vec::new();
    let records = match &r.records {
        Err(why) => return StepState::Unknown(why.clone()).into(),
        Ok(records) => records,
    };
    let domain = match &r.domain {
        Err(why) => return StepState::Unknown(why.clone()).into(),
        Ok(domain) => domain.as_ref(),
    };
    if stays(placement, policy, domain) {
        return release(placement, policy, domain, r, records);
    }
    let mut blocked = None;
    for step_plan in r
        .apis
        .values()
        .filter_map(|api| identity::removal(placement, api, rest_deployment))
    {
        match step_plan {
            StepPlan::Pending(StepState::Unknown(_), _) => return step_plan,
            StepPlan::Pending(state @ StepState::Blocked(..), others) => {
                blocked = Some(state);
                actions.extend(others);
            }
            _ => actions.extend(step_plan.into_actions()),
        }
    }
    if let Some(actions) = Actions::of(actions) {
        return StepPlan::in_progress("removing identity headers from the mapped APIs", actions);
    }
    if let Some(state) = blocked {
        return state.into();
    }
    let mut actions = Vec::new();
    if let Some(g) = domain.filter(|g| is_ours(placement, g)) {
        let mappings = match &r.mappings {
            Err(why) => return StepState::Unknown(why.clone()).into(),
            Ok(mappings) => mappings,
        };
        let others: Vec<_> = mappings
            .iter()
            .filter(|m| !listed.contains(&m.path))
            .map(|m| format!("{:?}", m.path))
            .collect();
        if keeps_unlisted(placement, g) && !others.is_empty() {
            return StepState::Blocked(
                Reason::ForeignOwner,
                format!(
                    "{} still has API mappings that the spec does not list: {}. Remove them, or set \
                     spec.unlistedMappings to Delete",
                    g.name,
                    others.join(", ")
                ),
            )
            .into();
        }
        actions.extend(record_removal(placement, r, records));
        let delete = |m: &Mapping| ApiGatewayAction::DeleteMapping {
            id: m.id.clone(),
            path: m.path.clone(),
        };
        actions.extend(mappings.iter().map(delete).map(Action::from));
        // Without a status the deletion is tried: it must not wait for a status that never comes.
        if g.status.is_in_progress() && g.status != DomainStatus::Unstated {
            return StepState::wait(Reason::WaitingForDomain, in_progress(g)).with(actions);
        }
        let delete = Actions::from(ApiGatewayAction::DeleteDomain { name: g.name.clone() });
        return StepPlan::in_progress(
            format!("deleting the custom domain {}", g.name),
            delete.after(actions),
        );
    }
    actions.extend(record_removal(placement, r, records));
    let (certificates, versions) = match (&r.certificates, &r.versions) {
        (Err(why), _) | (_, Err(why)) => {
            return StepState::unknown(why).with(actions);
        }
        (Ok(certificates), Ok(versions)) => (certificates, versions),
    };
    if let Some(TruststoreObject { bucket, key }) = &placement.truststore {
        let delete = |version: &String| S3Action::DeleteTruststoreVersion {
            bucket: bucket.clone(),
            key: key.clone(),
            version: version.clone(),
        };
        actions.extend(versions.iter().map(delete).map(Action::from));
    }
    let (used, free): (Vec<_>, Vec<_>) = certificates
        .iter()
        .filter(|c| owned::is_ours(placement, c))
        .partition(|c| c.in_use);
    actions.extend(
        free.iter()
            .map(|c| AcmAction::DeleteCertificate { arn: c.arn.clone() }.into()),
    );
    if let Some(certificate) = used.first() {
        let in_use = format!(
            "ACM still reports {} as in use; this can last up to an hour after its domain is deleted. If it \
             lasts longer, set spec.deletionPolicy to Retain, which leaves the certificate in AWS, and have \
             AWS Support remove the association",
            certificate.arn
        );
        return StepState::wait(Reason::WaitingForCertificate, in_use).with(actions);
    }
    match Actions::of(actions) {
        None => StepPlan::done(Reason::Deleting, "no owned resource is left in AWS"),
        Some(actions) => StepPlan::in_progress("deleting the certificate and the truststore", actions),
    }
}

/// True when the domain stays, with all resources that it needs: because the spec says so, because the domain
/// existed before the operator took it over, or because it has no ownership tag (any longer) or another
/// owner, and uses this domain's truststore.
pub fn stays(placement: &Placement, policy: Option<DeletionPolicy>, domain: Option<&Domain>) -> bool {
    let ours = placement.truststore.as_ref().map(TruststoreObject::uri);
    let uses_ours = |g: &Domain| {
        g.truststore
            .as_ref()
            .is_some_and(|t| Some(&t.uri) == ours.as_ref())
    };
    match (policy, domain.map(|g| (domain_ownership(placement, g), g))) {
        (Some(DeletionPolicy::Retain), _) | (None, Some((Ownership::Adopted, _))) => true,
        (_, Some((Ownership::Unowned | Ownership::NotOwned(_), g))) => uses_ours(g),
        _ => false,
    }
}

/// Removes the ownership tags and leaves everything else. The domain's tag is the last, so that the next
/// reconcile knows how to continue. The ownership tag on versions of the truststore object cannot be removed;
/// it blocks no other owner.
fn release(
    placement: &Placement,
    policy: Option<DeletionPolicy>,
    domain: Option<&Domain>,
    r: &Leftovers,
    records: &[RecordSet],
) -> StepPlan {
    let certificates = match &r.certificates {
        Err(why) => return StepState::Unknown(why.clone()).into(),
        Ok(certificates) => certificates,
    };
    let changes = records::ownership_removal(placement, records);
    let mut actions = Vec::new();
    if let (Some(zone_id), false) = (r.zone_id.clone(), changes.is_empty()) {
        actions.push(Action::from(Route53Action::ChangeRecords { zone_id, changes }));
    }
    for c in certificates.iter().filter(|c| owned::is_ours(placement, c)) {
        let arn = c.arn.clone();
        let stays = c.in_use || policy == Some(DeletionPolicy::Retain);
        let action = if stays {
            let keys = [OWNER_TAG, REQUEST_TAG].into_iter();
            let keys = keys.filter(|key| c.tags.contains_key(*key)).map(str::to_owned);
            AcmAction::ReleaseCertificate {
                arn,
                keys: keys.collect(),
            }
        } else {
            AcmAction::DeleteCertificate { arn }
        };
        actions.push(action.into());
    }
    actions.extend(
        r.apis
            .values()
            .flatten()
            .flatten()
            .filter_map(|api| identity::untagging(placement, api))
            .map(Action::from),
    );
    let tagged = domain.filter(|g| is_ours(placement, g));
    actions.extend(tagged.map(|g| ApiGatewayAction::ReleaseDomain { arn: g.arn.clone() }.into()));
    match Actions::of(actions) {
        None => StepPlan::done(
            Reason::Deleting,
            "nothing in AWS carries the ownership tag any longer",
        ),
        Some(actions) => StepPlan::in_progress(
            format!(
                "removing the ownership tags from {} and its resources, which stay in AWS",
                placement.domain_name
            ),
            actions,
        ),
    }
}

fn record_removal(placement: &Placement, r: &Leftovers, records: &[RecordSet]) -> Option<Action> {
    let changes = records::removal(placement, records);
    let zone_id = r.zone_id.clone()?;
    (!changes.is_empty()).then(|| Route53Action::ChangeRecords { zone_id, changes }.into())
}

#[cfg(test)]
pub(crate) mod tests;
