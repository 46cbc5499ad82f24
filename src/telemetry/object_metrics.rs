//! Metrics of single objects, read from the caches at each scrape: no state is kept for them, and the series
//! of an object disappear with it. Only the leader shows them, so that each series exists once. Labels hold
//! names in Kubernetes or words of a closed list.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug, Formatter},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{ResourceExt, core::DeserializeGuard, runtime::reflector::Store};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder},
    metrics::MetricType,
    registry::Unit,
};

use super::queue_metrics::{gauge, queue};

use crate::{
    api::{
        ClientCertificate, ClientGrant, MtlsDomain,
        conditions::{ConditionType, Reason},
        object_id::ObjectId,
    },
    aws::quota::Quota,
    status::ConditionStatus,
};

/// Sources of the series.
pub struct Objects {
    pub domains: Store<DeserializeGuard<MtlsDomain>>,
    pub certificates: Store<DeserializeGuard<ClientCertificate>>,
    pub grants: Store<DeserializeGuard<ClientGrant>>,
    pub quota: Quota,
    /// Returns true while this process leads.
    pub leads: Box<dyn Fn() -> bool + Send + Sync>,
    /// True when each ClientCertificate has three series of its own; the series per domain exist in any case.
    pub each_certificate: bool,
}

impl Debug for Objects {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

const STATUSES: [ConditionStatus; 3] = [
    ConditionStatus::True,
    ConditionStatus::False,
    ConditionStatus::Unknown,
];

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if !(self.leads)() {
            return Ok(());
        }
        let all = All {
            domains: self.domains.state(),
            certificates: self.certificates.state(),
            grants: self.grants.state(),
        };
        all.condition_status(&mut encoder, self.each_certificate)?;
        all.condition_reason(&mut encoder)?;
        all.expiration(&mut encoder, self.each_certificate)?;
        if self.each_certificate {
            all.renewal(&mut encoder)?;
        }
        all.by_domain(&mut encoder)?;
        queue(&self.quota, &mut encoder)
    }
}

/// All objects at one moment. Objects that cannot be deserialised have no series.
struct All {
    domains: Vec<Arc<DeserializeGuard<MtlsDomain>>>,
    certificates: Vec<Arc<DeserializeGuard<ClientCertificate>>>,
    grants: Vec<Arc<DeserializeGuard<ClientGrant>>>,
}

/// Conditions of one object.
struct Conditions<'a> {
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
    all: &'a [Condition],
}

impl All {
    fn domains(&self) -> impl Iterator<Item = &MtlsDomain> {
        self.domains.iter().filter_map(|d| d.0.as_ref().ok())
    }

    fn certificates(&self) -> impl Iterator<Item = &ClientCertificate> {
        self.certificates.iter().filter_map(|c| c.0.as_ref().ok())
    }

    /// Returns the conditions of the kinds that do not have thousands of objects.
    fn conditions(&self) -> impl Iterator<Item = Conditions<'_>> {
        let domains = self.domains().map(|d| {
            let all = d.status.as_ref().map_or(&[][..], |s| &s.conditions);
            Conditions {
                kind: "MtlsDomain",
                namespace: namespace(d),
                name: name(d),
                all,
            }
        });
        let grants = self.grants.iter().filter_map(|g| g.0.as_ref().ok()).map(|g| {
            let all = g.status.as_ref().map_or(&[][..], |s| &s.conditions);
            Conditions {
                kind: "ClientGrant",
                namespace: namespace(g),
                name: name(g),
                all,
            }
        });
        domains.chain(grants)
    }

    fn condition_status(&self, encoder: &mut DescriptorEncoder, each_certificate: bool) -> fmt::Result {
        let help = "1 for the current status of the condition, 0 for the two others. For ClientCertificates \
                    only type Ready and status True";
        let mut metric = encoder.encode_descriptor("condition_status", help, None, MetricType::Gauge)?;
        let mut put = |kind, namespace, name, type_: ConditionType, status: ConditionStatus, is: bool| {
            let labels = [
                ("kind", kind),
                ("namespace", namespace),
                ("name", name),
                ("type", type_.as_str()),
                ("status", status.as_str()),
            ];
            gauge(&mut metric, &labels, i64::from(is))
        };
        for Conditions {
            kind,
            namespace,
            name,
            all,
        } in self.conditions()
        {
            for (type_, c) in all
                .iter()
                .filter_map(|c| Some((ConditionType::parse(&c.type_)?, c)))
            {
                for status in STATUSES {
                    put(kind, namespace, name, type_, status, c.status == status.as_str())?;
                }
            }
        }
        for c in self.certificates().filter(|_| each_certificate) {
            put(
                "ClientCertificate",
                namespace(c),
                name(c),
                ConditionType::Ready,
                ConditionStatus::True,
                ready(c) == ConditionStatus::True,
            )?;
        }
        Ok(())
    }

    fn condition_reason(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "1 for the reason of a condition that is not True. Only MtlsDomains and ClientGrants";
        let mut metric = encoder.encode_descriptor("condition_reason", help, None, MetricType::Gauge)?;
        for Conditions {
            kind,
            namespace,
            name,
            all,
        } in self.conditions()
        {
            let open = all.iter().filter(|c| c.status != ConditionStatus::True.as_str());
            for (type_, reason) in
                open.filter_map(|c| Some((ConditionType::parse(&c.type_)?, Reason::parse(&c.reason)?)))
            {
                let labels = [
                    ("kind", kind),
                    ("namespace", namespace),
                    ("name", name),
                    ("type", type_.as_str()),
                    ("reason", reason.as_str()),
                ];
                gauge(&mut metric, &labels, 1)?;
            }
        }
        Ok(())
    }

    fn expiration(&self, encoder: &mut DescriptorEncoder, each_certificate: bool) -> fmt::Result {
        let help = "Expiry of a certificate: for an MtlsDomain the server certificate, and for each \
                    authority the first of its trusted certificates to expire; for a ClientCertificate \
                    the one in its Secret";
        let (name_of_it, unit) = ("certificate_expiration_timestamp", Unit::Seconds);
        let mut metric = encoder.encode_descriptor(name_of_it, help, Some(&unit), MetricType::Gauge)?;
        for d in self.domains() {
            let status = d.status.as_ref();
            if let Some(t) = status.and_then(|s| s.certificate.as_ref()?.not_after.as_ref()) {
                let labels = [
                    ("certificate", "server"),
                    ("namespace", namespace(d)),
                    ("name", name(d)),
                ];
                gauge(&mut metric, &labels, t.0.as_second())?;
            }
            for (authority, end) in authorities(d) {
                let labels = [
                    ("certificate", "authority"),
                    ("namespace", namespace(d)),
                    ("name", name(d)),
                    ("authority", authority),
                ];
                gauge(&mut metric, &labels, end.as_second())?;
            }
        }
        for c in self.certificates().filter(|_| each_certificate) {
            client(
                &mut metric,
                c,
                c.status.as_ref().and_then(|s| s.not_after.as_ref()),
            )?;
        }
        Ok(())
    }

    fn renewal(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Renewal time of the certificate of a ClientCertificate. ACM does not report when it \
                    renews a server certificate, and the operator does not renew authorities";
        let (name, unit) = ("certificate_renewal_timestamp", Unit::Seconds);
        let mut metric = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        for c in self.certificates() {
            client(
                &mut metric,
                c,
                c.status.as_ref().and_then(|s| s.renewal_time.as_ref()),
            )?;
        }
        Ok(())
    }

    /// Encodes the series per domain, which stand for thousands of ClientCertificates.
    fn by_domain(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut domains: BTreeMap<ObjectId, Sum> = BTreeMap::new();
        for c in self.certificates() {
            let sum = domains.entry(c.domain_id()).or_default();
            sum.ready[ready(c) as usize] += 1;
            let due = c
                .status
                .as_ref()
                .filter(|_| is_kept(c))
                .and_then(|s| Some(s.renewal_time.as_ref()?.0));
            sum.due = [sum.due, due].into_iter().flatten().min();
        }
        let help = "Number of ClientCertificates of an MtlsDomain, by the status of Ready";
        let mut metric = encoder.encode_descriptor("client_certificates", help, None, MetricType::Gauge)?;
        for (ObjectId { namespace, name }, sum) in &domains {
            for status in STATUSES {
                let labels = [
                    ("namespace", namespace.as_str()),
                    ("name", name.as_str()),
                    ("ready", status.as_str()),
                ];
                gauge(&mut metric, &labels, sum.ready[status as usize])?;
            }
        }
        let help = "Next renewal time among the ClientCertificates of an MtlsDomain, without suspended and \
                    refused ones; a time long past means that the renewal fails";
        let (name, unit) = ("client_certificates_next_renewal_timestamp", Unit::Seconds);
        let mut metric = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        for (ObjectId { namespace, name }, sum) in &domains {
            if let Some(due) = sum.due {
                gauge(
                    &mut metric,
                    &[("namespace", namespace.as_str()), ("name", name.as_str())],
                    due.as_second(),
                )?;
            }
        }
        Ok(())
    }
}

/// Sum over the ClientCertificates of one domain.
#[derive(Default)]
struct Sum {
    /// Number of certificates, by [`ConditionStatus`].
    ready: [i64; 3],
    due: Option<Timestamp>,
}

fn client(metric: &mut MetricEncoder, c: &ClientCertificate, t: Option<&Time>) -> fmt::Result {
    let labels = [
        ("certificate", "client"),
        ("namespace", namespace(c)),
        ("name", name(c)),
    ];
    t.map_or(Ok(()), |t| gauge(metric, &labels, t.0.as_second()))
}

/// Returns the first expiry among the trusted certificates of each authority of the spec. The operator
/// removes an authority that has left the spec by itself.
fn authorities(d: &MtlsDomain) -> BTreeMap<&str, Timestamp> {
    let trusted = d
        .status
        .as_ref()
        .and_then(|s| s.truststore.as_ref())
        .map_or(&[][..], |t| &t.authorities);
    let mut ends = BTreeMap::new();
    for (name, end) in trusted
        .iter()
        .filter_map(|a| Some((&*a.name, a.not_after.as_ref()?.0)))
    {
        let spec = name.split_once('/').map_or(name, |(authority, _)| authority);
        if d.spec.trust.authorities.iter().any(|a| a.name == spec) {
            ends.entry(name)
                .and_modify(|first: &mut Timestamp| *first = end.min(*first))
                .or_insert(end);
        }
    }
    ends
}

pub(crate) fn ready(c: &ClientCertificate) -> ConditionStatus {
    let conditions = c.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let ready = conditions
        .iter()
        .find(|c| c.type_ == ConditionType::Ready.as_str());
    ready
        .and_then(|c| STATUSES.into_iter().find(|t| t.as_str() == c.status))
        .unwrap_or(ConditionStatus::Unknown)
}

/// True when the operator renews the certificate.
fn is_kept(c: &ClientCertificate) -> bool {
    let conditions = c.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let is_refused = conditions
        .iter()
        .any(|c| c.type_ == ConditionType::Accepted.as_str() && c.status == ConditionStatus::False.as_str());
    !c.spec.suspend && !is_refused
}

pub(crate) fn namespace(object: &impl ResourceExt) -> &str {
    object.meta().namespace.as_deref().unwrap_or_default()
}

pub(crate) fn name(object: &impl ResourceExt) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests;
