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
        placement::Placement,
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
    actions.extend(versions.iter().map(|version| Action::DeleteTruststoreVersion {
        bucket: placement.bucket.clone(),
        key: placement.key.clone(),
        version: version.clone(),
    }));
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
    let uses_ours = |g: &Domain| {
        g.truststore
            .as_ref()
            .is_some_and(|t| t.uri == placement.truststore_uri())
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
mod tests {
    use super::*;

    use crate::{
        api::{DeletionPolicy, RestDeployment, UnlistedMappings, conditions::Reason},
        aws::gateway::domains::{Domain, DomainStatus},
        controllers::mtls_domain::simulation::world::{desired, empty},
        model::{
            action::Action,
            observed::Leftovers,
            placement::Placement,
            step::{StepPlan, StepState},
            tags::{ADOPTED_TAG, OWNER_TAG},
        },
        observation::seen::Unseen,
    };

    /// A domain in sync: its placement, the mapping paths of its spec, and its leftovers.
    fn whole() -> (Placement, Vec<String>, Leftovers) {
        let (d, mut world) = (desired(), empty());
        world.converge(&d);
        (
            d.placement.clone(),
            d.mappings.keys().cloned().collect(),
            world.leftovers(),
        )
    }

    fn unseen() -> Unseen {
        Unseen {
            reason: Reason::Unreachable,
            message: "no answer".into(),
        }
    }

    fn domain_of(r: &mut Leftovers) -> &mut Domain {
        r.domain.as_mut().unwrap().as_mut().unwrap()
    }

    fn shown(step_plan: &StepPlan) -> (&'static str, Vec<String>) {
        let state = match &step_plan.state {
            StepState::Done(..) => "done",
            StepState::InProgress(_) => "acts",
            StepState::Wait(..) => "waits",
            StepState::WaitingFor(_) => "behind",
            StepState::Blocked(..) => "blocked",
            StepState::Unknown(_) => "unknown",
        };
        let first = |action: &Action| {
            format!("{action:?}")
                .split([' ', '('])
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        (state, step_plan.actions.iter().map(first).collect())
    }

    #[test]
    fn teardown_removes_owned_resources_in_order() {
        let unlisted = |fate| {
            move |placement: &mut Placement, _: &mut Leftovers| placement.unlisted_mappings = Some(fate)
        };
        let drop_orders: fn(&mut Vec<String>) = |listed| listed.retain(|path| path != "orders");
        let all: fn(&mut Vec<String>) = |_| {};
        let whole_domain = [
            "ChangeRecords",
            "DeleteMapping",
            "DeleteMapping",
            "DeleteMapping",
            "DeleteDomain",
        ]
        .as_slice();
        let not_domain = &whole_domain[..4];
        type Change = Box<dyn Fn(&mut Placement, &mut Leftovers)>;
        let not_owned = |_: &mut Placement, r: &mut Leftovers| {
            domain_of(r)
                .tags
                .insert(OWNER_TAG.into(), "other/ns/partners".into());
        };
        let adopted = |_: &mut Placement, r: &mut Leftovers| {
            domain_of(r).tags.insert(ADOPTED_TAG.into(), "true".into());
        };
        let elsewhere = |r: &mut Leftovers| domain_of(r).truststore = None;
        let rest = ["ChangeRecords", "DeleteTruststoreVersion", "DeleteCertificate"].as_slice();
        let released = ["ChangeRecords", "ReleaseCertificate", "ReleaseDomain"].as_slice();
        type Listed = fn(&mut Vec<String>);
        type Case<'a> = (
            &'a str,
            Change,
            Listed,
            Option<DeletionPolicy>,
            (&'a str, &'a [&'a str]),
        );
        let cases: Vec<Case> = vec![
            (
                "all of it",
                Box::new(|_, _| {}),
                all,
                None,
                ("acts", whole_domain),
            ),
            (
                "a domain that the operator created is deleted with its unlisted mappings",
                Box::new(|_, _| {}),
                drop_orders,
                None,
                ("acts", whole_domain),
            ),
            (
                "kept unlisted mappings keep the domain",
                Box::new(unlisted(UnlistedMappings::Keep)),
                drop_orders,
                None,
                ("blocked", &[]),
            ),
            (
                "nothing is unlisted",
                Box::new(unlisted(UnlistedMappings::Keep)),
                all,
                None,
                ("acts", whole_domain),
            ),
            (
                "unlisted mappings are deleted",
                Box::new(unlisted(UnlistedMappings::Delete)),
                drop_orders,
                None,
                ("acts", whole_domain),
            ),
            (
                "taken over, with deletionPolicy Delete, and an unlisted mapping",
                Box::new(adopted),
                drop_orders,
                Some(DeletionPolicy::Delete),
                ("blocked", &[]),
            ),
            (
                "taken over, with deletionPolicy Delete",
                Box::new(adopted),
                all,
                Some(DeletionPolicy::Delete),
                ("acts", whole_domain),
            ),
            (
                "while API Gateway updates the domain, only records and mappings",
                Box::new(|_, r| domain_of(r).status = DomainStatus::Updating),
                all,
                None,
                ("waits", not_domain),
            ),
            (
                "taken over: it stays",
                Box::new(adopted),
                all,
                None,
                ("acts", released),
            ),
            (
                "retained",
                Box::new(|_, _| {}),
                all,
                Some(DeletionPolicy::Retain),
                ("acts", released),
            ),
            (
                "another owner's, with this domain's truststore",
                Box::new(not_owned),
                all,
                None,
                ("acts", &released[..2]),
            ),
            (
                "another owner's, without this domain's truststore",
                Box::new(move |placement, r| (not_owned(placement, r), elsewhere(r)).1),
                all,
                None,
                ("waits", &rest[..2]),
            ),
            (
                "without an owner, with this domain's truststore",
                Box::new(|_, r| domain_of(r).tags.clear()),
                all,
                Some(DeletionPolicy::Delete),
                ("acts", &released[..2]),
            ),
            (
                "the domain is gone",
                Box::new(|_, r| gone(r)),
                all,
                None,
                ("acts", rest),
            ),
            (
                "the certificate is in use for a while",
                Box::new(|_, r| r.domain = Ok(None)),
                all,
                None,
                ("waits", &rest[..2]),
            ),
            (
                "the zone is gone, and the records with it",
                Box::new(|_, r| (gone(r), r.zone_id = None).1),
                all,
                None,
                ("acts", &rest[1..]),
            ),
            (
                "no owned resource is left",
                Box::new(|_, r| {
                    gone(r);
                    (r.records, r.certificates, r.versions) = (Ok(vec![]), Ok(vec![]), Ok(vec![]));
                }),
                all,
                None,
                ("done", &[]),
            ),
            (
                "a certificate that is not owned stays",
                Box::new(|_, r| {
                    gone(r);
                    (r.records, r.versions) = (Ok(vec![]), Ok(vec![]));
                    r.certificates.as_mut().unwrap()[0].tags.clear();
                }),
                all,
                None,
                ("done", &[]),
            ),
            (
                "the records cannot be read",
                Box::new(|_, r| r.records = Err(unseen())),
                all,
                None,
                ("unknown", &[]),
            ),
            (
                "the domain cannot be read",
                Box::new(|_, r| r.domain = Err(unseen())),
                all,
                None,
                ("unknown", &[]),
            ),
            (
                "the mappings cannot be read",
                Box::new(|_, r| r.mappings = Err(unseen())),
                all,
                None,
                ("unknown", &[]),
            ),
            (
                "the certificates cannot be read",
                Box::new(|_, r| (gone(r), r.certificates = Err(unseen())).1),
                all,
                None,
                ("unknown", &rest[..1]),
            ),
            (
                "the versions cannot be read",
                Box::new(|_, r| (gone(r), r.versions = Err(unseen())).1),
                all,
                None,
                ("unknown", &rest[..1]),
            ),
            (
                "retained, and the certificates cannot be read",
                Box::new(|_, r| r.certificates = Err(unseen())),
                all,
                Some(DeletionPolicy::Retain),
                ("unknown", &[]),
            ),
        ];
        for (what, change, list, policy, (state, actions)) in cases {
            let (mut placement, mut listed, mut leftovers) = whole();
            change(&mut placement, &mut leftovers);
            list(&mut listed);
            let step_plan = teardown(&placement, policy, RestDeployment::Never, &listed, &leftovers);
            let expected = (state, actions.iter().map(|a| (*a).to_owned()).collect());
            assert_eq!(shown(&step_plan), expected, "{what}: {step_plan:?}");
        }
    }

    fn gone(r: &mut Leftovers) {
        r.domain = Ok(None);
        r.certificates.iter_mut().flatten().for_each(|c| c.in_use = false);
    }
}
