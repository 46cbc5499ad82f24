//! Plan: computes the next actions from the desired and the observed state. Pure and total: no I/O, no clock,
//! no failure.

use jiff::Timestamp;

use super::references;

use crate::{
    dataplane::api_gateway::{custom_domain, default_endpoint, identity, mappings},
    model::{
        desired::Desired,
        observed::Observed,
        step::{Plan, Step, StepState},
    },
    trust::truststore::{self},
};

/// Returns the next actions that bring the observed state closer to the desired state.
pub fn plan(d: &Desired, o: &Observed, now: Timestamp) -> Plan {
    let truststore = truststore::compile(d, o, now);
    let (certificate, ownership) = (
        crate::server_certificate::plan::chosen(d, o).cloned(),
        crate::server_certificate::plan::ownership(d, o).cloned(),
    );
    let refs = references::resolved_refs(d, o, truststore.as_ref());
    let mut published = truststore::publish(d, o, &refs, truststore.as_ref());
    let mut issued = crate::server_certificate::plan::certificates(d, o, now);
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
    let named = crate::dns::plan::dns(d, o, &mapped);
    let closed = default_endpoint::bypass(d, o, &named, now);
    let propagated = identity::identity(d, o);
    let of = |step| match step {
        Step::ResolvedRefs => Some(&refs),
        Step::CertificateIssued => Some(&issued),
        Step::TruststorePublished => Some(&published),
        Step::DomainProgrammed => Some(&programmed),
        Step::MappingsProgrammed => Some(&mapped),
        Step::DnsProgrammed => Some(&named),
        Step::BypassClosed => Some(&closed),
        Step::IdentityPropagated => propagated.as_ref(),
    };
    let planned = |step: &Step| Some((*step, of(*step)?.clone()));
    let steps = Step::ALL.iter().filter_map(planned).collect();
    Plan {
        steps,
        certificate,
        ownership,
        truststore,
    }
}
