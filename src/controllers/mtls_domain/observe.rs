//! Observes the current state: AWS through a session, Kubernetes through `sources`. Reads only; `plan`
//! interprets the results.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Client, api::PartialObjectMeta, runtime::reflector::Store};

use crate::{
    api::{MappedApi, MtlsDomain, conditions::Reason},
    dataplane::api_gateway::{
        front::front,
        observe::{Asked, apis, first_seen, mappings, tagged_apis, with_leaving},
    },
    dns::observe::{in_sync, public, records_of, unambiguous, zones},
    model::{
        authorities::DesiredAuthority,
        desired::Desired,
        observed::{Leaf, Leftovers, Observed, Preflight, Source, ZoneChoice},
        placement::Placement,
    },
    observation::{
        read_cache::AwsReader,
        seen::{Seen, Unseen},
    },
    probe::{https::EndpointProbe, public_dns::PublicDns},
    runtime::{finalizer, workers::Workers},
    server_certificate::observe::{certificate_names, named, validation},
    trust::{
        generated_authority::{self, Ownership},
        observe::{Parsing, Versions, bucket, pinned, published, versions},
        self_signed, sources,
    },
};

/// Context of an observation, besides the session.
pub struct ObserveContext<'a> {
    pub client: &'a Client,
    pub workers: &'a Workers,
    pub secrets: &'a Store<PartialObjectMeta<Secret>>,
    pub config_maps: &'a Store<PartialObjectMeta<ConfigMap>>,
    pub domain: &'a MtlsDomain,
    pub probe: &'a EndpointProbe,
    /// Leaves of the domain, according to the statuses of its ClientCertificates.
    pub leaves: Vec<Leaf>,
    pub public_dns: &'a PublicDns,
    /// Versions of truststore objects that were read before: a version never changes.
    pub versions: &'a Versions,
    pub known_leaves: &'a self_signed::Leaves,
    /// ID of the operator's last change of records, if it was not in sync at the last reconcile.
    pub pending_change: Option<String>,
}

/// Reads the resources that the policy's decision on the spec depends on.
pub async fn preflight(d: &Desired, reader: &AwsReader<'_>) -> Preflight {
    let (zones, apis) = tokio::join!(
        zones(&d.placement, certificate_names(d), reader),
        first_seen(&d.mappings, reader)
    );
    Preflight { zones, apis }
}

/// Reads all other resources, for a spec that is allowed.
pub async fn observe(
    d: &Desired,
    reader: &AwsReader<'_>,
    observe_context: &ObserveContext<'_>,
    preflight: Preflight,
) -> Observed {
    let placement = &d.placement;
    let zones = preflight.zones;
    let parsing = Parsing {
        workers: observe_context.workers,
        namespace: &placement.namespace,
        versions: observe_context.versions,
    };
    let (
        // From Kubernetes.
        authorities,
        self_signed,
        // From AWS.
        certificates,
        bucket,
        published,
        domain,
        apis,
        records_in_sync,
    ) = tokio::join!(
        Box::pin(sources::read(
            observe_context.client,
            observe_context.workers,
            observe_context.config_maps,
            &placement.namespace,
            &placement.name,
            &d.authorities
        )),
        Box::pin(self_signed::read(
            observe_context.client,
            observe_context.secrets,
            observe_context.known_leaves,
            &placement.name,
            &d.self_signed
        )),
        reader.certificates(&placement.domain_name),
        bucket(d, reader),
        published(&d.truststore, reader, parsing),
        reader.domain(&placement.domain_name),
        apis(
            placement,
            preflight.apis,
            &d.mappings,
            Asked {
                headers: !d.identity.is_empty(),
                authorizer: d.authorizer.is_some()
            },
            reader,
            Some(observe_context.probe)
        ),
        in_sync(reader.session, observe_context.pending_change.as_deref()),
    );
    let front = front(placement, &domain);
    let (named, validation, records, mappings, pinned, public) = tokio::join!(
        named(d, reader, &certificates, &front),
        validation(placement, reader, &zones, &certificates),
        records_of(placement, reader, &zones),
        mappings(placement, reader, &domain),
        pinned(&d.truststore, reader, &domain, parsing),
        public(placement, &front, observe_context.public_dns),
    );
    let apis = with_leaving(placement, apis, &mappings, reader).await;
    parsing.versions.keep(&d.truststore, &published, &domain);
    let mut observed = Observed {
        authorities,
        recorded: generated_authority::recorded(observe_context.domain, &d.authorities),
        leaves: observe_context.leaves.clone(),
        self_signed,
        zones,
        certificates,
        named,
        validation,
        bucket,
        published,
        pinned,
        domain,
        front,
        mappings,
        apis,
        records,
        records_in_sync,
        public,
        corrections: BTreeMap::new(),
    };
    ask_for_records(d, &mut observed, observe_context).await;
    observed
}

/// Reads the recorded keys from the API server before a Secret counts as not owned: the watch cache may not
/// show a recent record yet.
async fn ask_for_records(d: &Desired, observed: &mut Observed, observe_context: &ObserveContext<'_>) {
    let is_strange = |wanted: &&DesiredAuthority| {
        matches!(
            generated_authority::ownership(d, observed, wanted),
            Ownership::NotOurs(_)
        )
    };
    let strange: Vec<_> = d
        .authorities
        .iter()
        .filter(is_strange)
        .map(|wanted| wanted.name.clone())
        .collect();
    if strange.is_empty() {
        return;
    }
    match finalizer::metadata(observe_context.client, observe_context.domain).await {
        Ok(Some(metadata)) => observed.recorded = generated_authority::recorded(&metadata, &d.authorities),
        Ok(None) => {}
        Err(error) => {
            let unseen = Unseen {
                reason: Reason::Unreachable,
                message: error.to_string(),
            };
            let all = strange
                .into_iter()
                .map(|name| (name, Source::Unseen(unseen.clone())));
            observed.authorities.extend(all);
        }
    }
}

/// Reads the leftovers of a domain that is being deleted.
pub async fn leftovers(
    placement: &Placement,
    mapped: &BTreeMap<String, MappedApi>,
    reader: &AwsReader<'_>,
    zones: Seen<BTreeMap<String, ZoneChoice>>,
) -> Leftovers {
    let (certificates, domain, versions, apis) = tokio::join!(
        reader.certificates(&placement.domain_name),
        reader.domain(&placement.domain_name),
        versions(placement, reader),
        tagged_apis(placement, mapped, reader),
    );
    let zones = zones.and_then(|zones| unambiguous(placement, zones));
    let (records, mappings) = tokio::join!(
        records_of(placement, reader, &zones),
        mappings(placement, reader, &domain)
    );
    let apis = with_leaving(placement, apis, &mappings, reader).await;
    let zone_id = zones
        .ok()
        .and_then(|z| z.get(&placement.domain_name)?.found().map(|z| z.id.clone()));
    Leftovers {
        zone_id,
        records,
        domain,
        mappings,
        apis,
        certificates,
        versions,
    }
}

#[cfg(test)]
mod tests;
