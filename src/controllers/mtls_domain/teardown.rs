//! Decides what to remove next once an `MtlsDomain` is deleted, in the reverse order of building. Removes
//! nothing that the operator does not own, and nothing that is still in use. Pure and total, like `plan`.

use crate::{
    api::{DeletionPolicy, RestDeployment, conditions::Reason},
    aws::{
        gateway::domains::{Domain, DomainStatus},
        route53::RecordSet,
    },
    dataplane::api_gateway::{
        custom_domain::{DomainOwnership, domain_ownership, is_ours, keeps_unlisted},
        identity,
    },
    dns::records,
    model::{
        action::Action,
        observed::Leftovers,
        placement::{Placement, TruststoreObject},
        step::{StepPlan, StepState},
    },
    server_certificate::plan,
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
        match step_plan.state {
            StepState::Unknown(_) => return step_plan,
            StepState::Blocked(..) => blocked = Some(step_plan.state),
            _ => {}
        }
        actions.extend(step_plan.actions);
    }
    match blocked {
        _ if !actions.is_empty() => {
            return StepPlan {
                state: StepState::InProgress("removing identity headers from the mapped APIs".into()),
                actions,
            };
        }
        Some(state) => return state.into(),
        None => {}
    }
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
        actions.extend(mappings.iter().map(|m| Action::DeleteMapping {
            id: m.id.clone(),
            path: m.path.clone(),
        }));
        if g.status == DomainStatus::Updating {
            let state = StepState::Wait(
                Reason::WaitingForDomain,
                format!("API Gateway is updating {}", g.name),
            );
            return StepPlan { state, actions };
        }
        actions.push(Action::DeleteDomain { name: g.name.clone() });
        return StepPlan {
            state: StepState::InProgress(format!("deleting the custom domain {}", g.name)),
            actions,
        };
    }
    actions.extend(record_removal(placement, r, records));
    let (certificates, versions) = match (&r.certificates, &r.versions) {
        (Err(why), _) | (_, Err(why)) => {
            return StepPlan {
                state: StepState::Unknown(why.clone()),
                actions,
            };
        }
        (Ok(certificates), Ok(versions)) => (certificates, versions),
    };
    if let Some(TruststoreObject { bucket, key }) = &placement.truststore {
        actions.extend(versions.iter().map(|version| Action::DeleteTruststoreVersion {
            bucket: bucket.clone(),
            key: key.clone(),
            version: version.clone(),
        }));
    }
    let (used, free): (Vec<_>, Vec<_>) = certificates
        .iter()
        .filter(|c| plan::is_ours(placement, c))
        .partition(|c| c.in_use);
    actions.extend(
        free.iter()
            .map(|c| Action::DeleteCertificate { arn: c.arn.clone() }),
    );
    let state = match used.first() {
        Some(certificate) => StepState::Wait(
            Reason::WaitingForCertificate,
            format!(
                "ACM still reports {} as in use; this can last up to an hour after its domain is deleted",
                certificate.arn
            ),
        ),
        None if actions.is_empty() => {
            StepState::Done(Reason::Deleting, "no owned resource is left in AWS".into())
        }
        None => StepState::InProgress("deleting the certificate and the truststore".into()),
    };
    StepPlan { state, actions }
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
        (Some(DeletionPolicy::Retain), _) | (None, Some((DomainOwnership::Adopted, _))) => true,
        (_, Some((DomainOwnership::Unowned | DomainOwnership::NotOwned(_), g))) => uses_ours(g),
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
        actions.push(Action::ChangeRecords { zone_id, changes });
    }
    for c in certificates.iter().filter(|c| plan::is_ours(placement, c)) {
        let arn = c.arn.clone();
        let stays = c.in_use || policy == Some(DeletionPolicy::Retain);
        actions.push(if stays {
            Action::ReleaseCertificate { arn }
        } else {
            Action::DeleteCertificate { arn }
        });
    }
    actions.extend(
        r.apis
            .values()
            .flatten()
            .flatten()
            .filter_map(|api| identity::untagging(placement, api)),
    );
    let tagged = domain.filter(|g| is_ours(placement, g));
    actions.extend(tagged.map(|g| Action::ReleaseDomain { arn: g.arn.clone() }));
    let state = if actions.is_empty() {
        StepState::Done(
            Reason::Deleting,
            "nothing in AWS carries the ownership tag any longer".into(),
        )
    } else {
        StepState::InProgress(format!(
            "removing the ownership tags from {} and its resources, which stay in AWS",
            placement.domain_name
        ))
    };
    StepPlan { state, actions }
}

fn record_removal(placement: &Placement, r: &Leftovers, records: &[RecordSet]) -> Option<Action> {
    let changes = records::removal(placement, records);
    let zone_id = r.zone_id.clone()?;
    (!changes.is_empty()).then_some(Action::ChangeRecords { zone_id, changes })
}

#[cfg(test)]
mod tests;
