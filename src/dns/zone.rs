//! Hosted zone that a record belongs in. Pure.

use crate::{
    api::conditions::Reason,
    aws::route53::Zone,
    model::{
        desired::Desired,
        observed::{Observed, ZoneChoice},
        placement::DesiredDns,
        step::StepState,
    },
};

/// Returns the hosted zone for the records of `name`.
pub(crate) fn zone<'a>(d: &Desired, o: &'a Observed, name: &str) -> Result<&'a Zone, StepState> {
    let zones = o.zones.as_ref().map_err(StepState::unknown)?;
    let DesiredDns::Route53 { zone_id, .. } = &d.placement.dns else {
        return Err(StepState::blocked(
            Reason::HostedZoneNotFound,
            format!("the operator does not manage the records of {name}"),
        ));
    };
    let message = match (zones.get(name), zone_id) {
        (Some(ZoneChoice::Found(zone)), _) => return Ok(zone),
        (Some(ZoneChoice::Ambiguous(ids)), _) => {
            format!(
                "{} are public hosted zones of one name, a parent of {name}; select one with \
                 spec.dns.route53.hostedZoneId",
                ids.join(" and ")
            )
        }
        (_, Some(id)) if name == d.placement.domain_name => {
            format!(
                "spec.dns.route53.hostedZoneId: there is no public hosted zone {id} that {name} belongs into"
            )
        }
        _ => format!(
            "no public hosted zone in account {} is a parent of {name}; create one, or set \
             spec.dns.route53.hostedZoneId",
            d.placement.route53_account()
        ),
    };
    Err(StepState::blocked(Reason::HostedZoneNotFound, message))
}
