//! The step DNSProgrammed: the name points at the domain, for the first time only once the domain answers.

use super::{
    records::{self, RecordPlan},
    zone::zone,
};

use crate::{
    api::{DnsVerification, conditions::Reason},
    aws::action::Route53Action,
    model::{
        desired::Desired,
        front::{Front, Progress, managed},
        observed::Observed,
        placement::DesiredDns,
        step::{Step, StepPlan, StepState},
    },
    probe::public_dns::PublicName,
};

pub(crate) fn dns(d: &Desired, o: &Observed, mapped: &StepPlan) -> StepPlan {
    let front = match managed(&o.front) {
        Err(state) => return state.into(),
        Ok(front) => front,
    };
    let target = &front.dns_target;
    if let DesiredDns::External { verify } = d.placement.dns {
        return external(verify, o, front);
    }
    let zone = match zone(d, o, &d.placement.domain_name) {
        Err(state) => return state.into(),
        Ok(zone) => zone,
    };
    let there = match &o.records {
        Err(why) => return StepState::unknown(why).into(),
        Ok(there) => there,
    };
    match records::plan(&d.placement, zone, target, d.ip_address_type, there) {
        RecordPlan::Right { owned } => match &o.records_in_sync {
            Err(why) => StepState::unknown(why).into(),
            Ok(false) => StepState::wait(Reason::WaitingForDNS, "Route 53 is propagating the change").into(),
            Ok(true) => {
                let how = if owned {
                    ""
                } else {
                    ", by records without the operator's ownership record, which stay after the deletion of \
                     this object"
                };
                StepPlan::done(
                    Reason::Programmed,
                    format!("{} points at {}{how}", d.placement.domain_name, target.name),
                )
            }
        },
        RecordPlan::NotOwned(what) => StepState::blocked(
            Reason::ForeignOwner,
            format!("the hosted zone {} has {what}", zone.name),
        )
        .into(),
        // A first record directs callers to the domain: the operator creates it only when the domain answers.
        RecordPlan::Change { first: true, .. } if front.progress != Progress::Settled => {
            StepState::WaitingFor(Step::DomainProgrammed).into()
        }
        RecordPlan::Change { first: true, .. } if matches!(mapped, StepPlan::InProgress(..)) => {
            StepState::WaitingFor(Step::MappingsProgrammed).into()
        }
        RecordPlan::Change { changes, .. } => StepPlan::in_progress(
            format!("pointing {} at {}", d.placement.domain_name, target.name),
            Route53Action::ChangeRecords {
                zone_id: zone.id.clone(),
                changes,
            },
        ),
    }
}

/// Returns the state of records that a user creates: their check, and the record to create.
fn external(verify: DnsVerification, o: &Observed, front: &Front) -> StepPlan {
    let (name, target) = (&front.name, front.dns_target.name.to_lowercase());
    if verify == DnsVerification::None {
        return StepPlan::done(
            Reason::NotVerified,
            format!("the operator does not check that {name} points at {target}"),
        );
    }
    let found = match &o.public {
        Err(why) => return StepState::unknown(why).into(),
        Ok(found) => found.clone().unwrap_or_default(),
    };
    if leads_to(&found, &target) {
        return StepPlan::done(
            Reason::Verified,
            format!("{name} leads to {target} in public DNS"),
        );
    }
    let now = match (found.cnames.first(), found.addresses.is_empty()) {
        (Some(cname), _) => format!("; now it is a CNAME of {cname}"),
        (None, false) => {
            let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
            format!("; now it has other addresses, {}", addresses.join(", "))
        }
        (None, true) => String::new(),
    };
    let message = if found.apex {
        format!(
            "{name} is the first name of its zone, where no CNAME can be: create an ALIAS or ANAME record, \
             or what your DNS provider flattens, to {target}; or move the zone to Route 53 and set \
             spec.dns.route53{now}"
        )
    } else {
        format!("create in public DNS: {name}. CNAME {target}.{now}")
    };
    StepState::wait(Reason::WaitingForDNS, message).into()
}

/// True when the name leads to the target by a CNAME, also through other CNAMEs, or by addresses that all
/// belong to the target (ALIAS, ANAME, flattened CNAME).
pub fn leads_to(found: &PublicName, target: &str) -> bool {
    let by_address = !found.addresses.is_empty() && found.addresses.is_subset(&found.target);
    by_address || found.cnames.iter().any(|cname| cname == target)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::probe::public_dns::PublicName;

    #[test]
    fn a_name_leads_to_its_target_by_cname_or_with_all_its_addresses() {
        let addresses = |all: &[&str]| all.iter().map(|a| a.parse().unwrap()).collect();
        for (cnames, at_name, at_target, leads) in [
            (&["t.example"][..], &[][..], &[][..], true),
            (&["x.example", "t.example"], &[], &[], true),
            (&["x.example"], &["192.0.2.1"], &["192.0.2.2"], false),
            // CNAME of a name with a flattened CNAME
            (&["x.example"], &["192.0.2.1"], &["192.0.2.1"], true),
            (
                &[],
                &["192.0.2.1"],
                &["192.0.2.1", "192.0.2.2", "2001:db8::1"],
                true,
            ),
            (
                &[],
                &["192.0.2.1", "192.0.2.9"],
                &["192.0.2.1", "192.0.2.2"],
                false,
            ),
            // AAAA record from before, which callers with IPv6 use
            (&[], &["192.0.2.1", "2001:db8::9"], &["192.0.2.1"], false),
            (&[], &[], &["192.0.2.1"], false),
            (&[], &[], &[], false),
        ] {
            let cnames = cnames.iter().map(|name| (*name).to_owned()).collect();
            let (addresses, target) = (addresses(at_name), addresses(at_target));
            let found = PublicName {
                cnames,
                addresses,
                target,
                apex: false,
            };
            assert_eq!(leads_to(&found, "t.example"), leads, "{found:?}");
        }
    }
}
