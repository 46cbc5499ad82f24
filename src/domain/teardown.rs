//! Decides what to take away next once an `MtlsDomain` is deleted: the reverse order of building, nothing of anybody else's, nothing
//! that is still in use. Pure and total, like `plan`.
use super::{
    desired::Home,
    observed::Remains,
    plan::{
        Action, Judged, Verdict, certificates,
        custom_domain::{Standing, is_ours, keeps_unlisted, standing},
        identity,
    },
    records,
};
use crate::{
    api::{DeletionPolicy, RestDeployment, conditions::Reason},
    aws::{
        gateway::{Domain, DomainStatus},
        route53::RecordSet,
    },
};

/// The next things to take away; `Done` once nothing of ours is left but what stays on purpose (validation record, buckets, closed
/// endpoints, and what a domain that stays needs). `listed` are the paths of the spec.
pub fn teardown(
    home: &Home,
    policy: Option<DeletionPolicy>,
    rest_deployment: RestDeployment,
    listed: &[String],
    r: &Remains,
) -> Judged {
    let mut actions = Vec::new();
    let records = match &r.records {
        Err(why) => return Verdict::Unknown(why.clone()).into(),
        Ok(records) => records,
    };
    let domain = match &r.domain {
        Err(why) => return Verdict::Unknown(why.clone()).into(),
        Ok(domain) => domain.as_ref(),
    };
    if stays(home, policy, domain) {
        return release(home, policy, domain, r, records);
    }
    let mut blocked = None;
    for judged in r.apis.values().filter_map(|api| identity::removal(home, api, rest_deployment)) {
        match judged.verdict {
            Verdict::Unknown(_) => return judged,
            Verdict::Blocked(..) => blocked = Some(judged.verdict),
            _ => {}
        }
        actions.extend(judged.actions);
    }
    match blocked {
        _ if !actions.is_empty() => {
            return Judged { verdict: Verdict::Act("taking identity headers out of the mapped APIs".into()), actions };
        }
        Some(verdict) => return verdict.into(),
        None => {}
    }
    if let Some(g) = domain.filter(|g| is_ours(home, g)) {
        let mappings = match &r.mappings {
            Err(why) => return Verdict::Unknown(why.clone()).into(),
            Ok(mappings) => mappings,
        };
        let others: Vec<_> =
            mappings.iter().filter(|m| !listed.contains(&m.path)).map(|m| format!("{:?}", m.path)).collect();
        if keeps_unlisted(home, g) && !others.is_empty() {
            return Verdict::Blocked(
                Reason::ForeignOwner,
                format!(
                    "{} still has API mappings that the spec does not list: {}. Remove them, or set spec.unlistedMappings to Delete",
                    g.name,
                    others.join(", ")
                ),
            )
            .into();
        }
        actions.extend(record_removal(home, r, records));
        actions.extend(mappings.iter().map(|m| Action::DeleteMapping { id: m.id.clone(), path: m.path.clone() }));
        if g.status == DomainStatus::Updating {
            let verdict = Verdict::Wait(Reason::WaitingForDomain, format!("API Gateway is updating {}", g.name));
            return Judged { verdict, actions };
        }
        actions.push(Action::DeleteDomain { name: g.name.clone() });
        return Judged { verdict: Verdict::Act(format!("deleting the custom domain {}", g.name)), actions };
    }
    actions.extend(record_removal(home, r, records));
    let (certificates, versions) = match (&r.certificates, &r.versions) {
        (Err(why), _) | (_, Err(why)) => return Judged { verdict: Verdict::Unknown(why.clone()), actions },
        (Ok(certificates), Ok(versions)) => (certificates, versions),
    };
    actions.extend(versions.iter().map(|version| Action::DeleteTruststoreVersion {
        bucket: home.bucket.clone(),
        key: home.key.clone(),
        version: version.clone(),
    }));
    let (used, free): (Vec<_>, Vec<_>) =
        certificates.iter().filter(|c| certificates::is_ours(home, c)).partition(|c| c.in_use);
    actions.extend(free.iter().map(|c| Action::DeleteCertificate { arn: c.arn.clone() }));
    let verdict = match used.first() {
        Some(certificate) => Verdict::Wait(
            Reason::WaitingForCertificate,
            format!(
                "ACM still says that {} is in use; that takes up to an hour after its domain has gone",
                certificate.arn
            ),
        ),
        None if actions.is_empty() => Verdict::Done(Reason::Deleting, "nothing of ours is left in AWS".into()),
        None => Verdict::Act("deleting the certificate and the truststore".into()),
    };
    Judged { verdict, actions }
}

/// Whether the domain stays, with all that it needs: because the spec says so, because it was there before us, or because it is nobody's
/// (any longer) and uses our truststore.
pub fn stays(home: &Home, policy: Option<DeletionPolicy>, domain: Option<&Domain>) -> bool {
    let uses_ours = |g: &Domain| g.truststore.as_ref().is_some_and(|t| t.uri == home.truststore_uri());
    match (policy, domain.map(|g| (standing(home, g), g))) {
        (Some(DeletionPolicy::Retain), _) | (None, Some((Standing::Adopted, _))) => true,
        (_, Some((Standing::Unowned | Standing::Foreign(_), g))) => uses_ours(g),
        _ => false,
    }
}

/// Takes our marks off and leaves everything else as it is, the domain last: until then the next look knows what to go on with. The mark on
/// versions of the truststore object cannot be taken off; it holds nobody up.
fn release(
    home: &Home,
    policy: Option<DeletionPolicy>,
    domain: Option<&Domain>,
    r: &Remains,
    records: &[RecordSet],
) -> Judged {
    let certificates = match &r.certificates {
        Err(why) => return Verdict::Unknown(why.clone()).into(),
        Ok(certificates) => certificates,
    };
    let changes = records::unmarking(home, records);
    let mut actions = Vec::new();
    if let (Some(zone_id), false) = (r.zone_id.clone(), changes.is_empty()) {
        actions.push(Action::ChangeRecords { zone_id, changes });
    }
    for c in certificates.iter().filter(|c| certificates::is_ours(home, c)) {
        let arn = c.arn.clone();
        let stays = c.in_use || policy == Some(DeletionPolicy::Retain);
        actions.push(if stays { Action::ReleaseCertificate { arn } } else { Action::DeleteCertificate { arn } });
    }
    actions.extend(r.apis.values().flatten().flatten().filter_map(|api| identity::unmarking(home, api)));
    let marked = domain.filter(|g| is_ours(home, g));
    actions.extend(marked.map(|g| Action::ReleaseDomain { arn: g.arn.clone() }));
    let verdict = if actions.is_empty() {
        Verdict::Done(Reason::Deleting, "nothing in AWS carries our mark any longer".into())
    } else {
        Verdict::Act(format!("taking our marks off {} and what it needs; it stays", home.domain_name))
    };
    Judged { verdict, actions }
}

fn record_removal(home: &Home, r: &Remains, records: &[RecordSet]) -> Option<Action> {
    let changes = records::removal(home, records);
    let zone_id = r.zone_id.clone()?;
    (!changes.is_empty()).then_some(Action::ChangeRecords { zone_id, changes })
}
