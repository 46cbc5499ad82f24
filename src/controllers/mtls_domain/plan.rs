//! Plan: computes the next actions from the desired and the observed state. Pure and total: no I/O, no clock,
//! no failure.

use jiff::Timestamp;

use super::references;

use crate::{
    dataplane::api_gateway::{custom_domain, default_endpoint, identity, mappings},
    dns::plan as dns,
    model::{
        desired::Desired,
        observed::Observed,
        step::{Plan, Step, StepState},
    },
    server_certificate::plan as certificates,
    trust::truststore,
};

/// Returns the next actions that bring the observed state closer to the desired state. Once `limit` returns true,
/// the truststore stays as it is, and the plan says why.
pub fn plan(d: &Desired, o: &Observed, now: Timestamp, limit: &dyn Fn() -> bool) -> Plan {
    let (truststore, too_long) = match truststore::compile(d, o, now, limit) {
        Ok(compiled) => (compiled, None),
        Err(too_long) => (None, Some(too_long)),
    };
    let (certificate, ownership) = (
        certificates::chosen(d, o).cloned(),
        certificates::ownership(d, o).cloned(),
    );
    let refs = references::resolved_refs(d, o, truststore.as_ref(), too_long.as_ref());
    let mut published = truststore::publish(d, o, &refs, truststore.as_ref());
    let mut issued = certificates::certificates(d, o, now);
    if custom_domain::is_barred(d, o) {
        // The operator creates nothing for a domain that it does not own.
        for step_plan in [&mut published, &mut issued]
            .into_iter()
            .filter(|p| p.has_actions())
        {
            *step_plan = StepState::WaitingFor(Step::DomainProgrammed).into();
        }
    }
    let wanted = certificate.as_ref().filter(|_| issued.is_done());
    let programmed = custom_domain::domain(d, o, wanted, ownership.as_ref(), &published, now);
    let mapped = mappings::mappings(d, o);
    let named = dns::dns(d, o, &mapped);
    let closed = default_endpoint::bypass(d, o, &named, now);
    let mut propagated = identity::identity(d, o);
    let [refs, issued, published, programmed] = &mut [refs, issued, published, programmed].map(Some);
    let [mapped, named, closed] = &mut [mapped, named, closed].map(Some);
    // An exhaustive match: a step without a plan does not compile.
    let mut planned = |step| match step {
        Step::ResolvedRefs => refs.take(),
        Step::CertificateIssued => issued.take(),
        Step::TruststorePublished => published.take(),
        Step::DomainProgrammed => programmed.take(),
        Step::MappingsProgrammed => mapped.take(),
        Step::DnsProgrammed => named.take(),
        Step::BypassClosed => closed.take(),
        Step::IdentityPropagated => propagated.take(),
    };
    let steps = Step::ALL
        .iter()
        .filter_map(|step| Some((*step, planned(*step)?)))
        .collect();
    Plan {
        steps,
        certificate,
        ownership,
        truststore,
    }
}

/// Returns the plan without a limit.
#[cfg(test)]
pub(crate) fn unlimited(d: &Desired, o: &Observed, now: Timestamp) -> Plan {
    plan(d, o, now, &|| false)
}
