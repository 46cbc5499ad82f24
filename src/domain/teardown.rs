//! Decides what to take away next once an `MtlsDomain` is deleted: the reverse order of building, nothing of anybody else's, nothing
//! that is still in use. Pure and total, like `plan`.
use super::{
    desired::Home,
    observed::Remains,
    plan::{Action, Judged, OWNER_TAG, Verdict, keeps_unlisted},
    records,
};
use crate::{api::conditions::Reason, aws::gateway::DomainStatus};

/// The next things to take away; `Done` once nothing of ours is left but what stays on purpose (validation record, buckets, closed endpoints).
/// `listed` are the paths of the spec.
pub fn teardown(home: &Home, listed: &[String], r: &Remains) -> Judged {
    let mut actions = Vec::new();
    let records = match &r.records {
        Err(why) => return Verdict::Unknown(why.clone()).into(),
        Ok(records) => records,
    };
    let domain = match &r.domain {
        Err(why) => return Verdict::Unknown(why.clone()).into(),
        Ok(domain) => domain.as_ref().filter(|g| g.tags.get(OWNER_TAG) == Some(&home.owner)),
    };
    if let Some(g) = domain {
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
        certificates.iter().filter(|c| c.tags.get(OWNER_TAG) == Some(&home.owner)).partition(|c| c.in_use);
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

fn record_removal(home: &Home, r: &Remains, records: &[crate::aws::route53::RecordSet]) -> Option<Action> {
    let changes = records::removal(home, records);
    let zone_id = r.zone_id.clone()?;
    (!changes.is_empty()).then_some(Action::ChangeRecords { zone_id, changes })
}
