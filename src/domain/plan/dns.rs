//! The step DNSProgrammed: the name points at the domain, for the first time only once something answers there.

use super::{Action, Judged, Step, Verdict, certificates::zone, custom_domain::ours};
use crate::{
    api::conditions::Reason,
    aws::gateway::DomainStatus,
    domain::{
        desired::Desired,
        observed::Observed,
        records::{self, RecordPlan},
    },
};
pub(super) fn dns(d: &Desired, o: &Observed, mapped: &Verdict) -> Judged {
    let g = match ours(&d.home, &o.domain) {
        Err(verdict) => return verdict.into(),
        Ok(g) => g,
    };
    let zone = match zone(d, o, &d.home.domain_name) {
        Err(verdict) => return verdict.into(),
        Ok(zone) => zone,
    };
    let there = match &o.records {
        Err(why) => return Verdict::unknown(why).into(),
        Ok(there) => there,
    };
    match records::plan(&d.home, zone, g, d.ip_address_type, there) {
        RecordPlan::Right => match &o.records_in_sync {
            Err(why) => Verdict::unknown(why).into(),
            Ok(false) => Verdict::wait(Reason::WaitingForDNS, "Route 53 is spreading the change").into(),
            Ok(true) => {
                Verdict::done(Reason::Programmed, format!("{} points at {}", d.home.domain_name, g.target)).into()
            }
        },
        RecordPlan::Foreign(what) => {
            Verdict::blocked(Reason::ForeignOwner, format!("the hosted zone {} has {what}", zone.name)).into()
        }
        // A first record sends callers here: not before there is something that answers.
        RecordPlan::Change { first: true, .. } if g.status != DomainStatus::Available => {
            Verdict::Behind(Step::DomainProgrammed).into()
        }
        RecordPlan::Change { first: true, .. } if matches!(mapped, Verdict::Act(_)) => {
            Verdict::Behind(Step::MappingsProgrammed).into()
        }
        RecordPlan::Change { changes, .. } => Judged::act(
            format!("pointing {} at {}", d.home.domain_name, g.target),
            vec![Action::ChangeRecords { zone_id: zone.id.clone(), changes }],
        ),
    }
}
