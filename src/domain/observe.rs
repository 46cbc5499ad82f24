//! Observes the current state: AWS through a session, Kubernetes through `sources`. Reads only; `plan`
//! interprets the results.
use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use kube::Client;

use super::{
    cache::AwsReader,
    clients,
    desired::{Desired, DesiredAuthority, DesiredCertificate, DesiredDns, Placement, sha256},
    generated::{self, Ownership},
    observed::{
        Api, Authorizers, Bucket, Leaf, Leftovers, Made, Observed, Pinned, Preflight, Published, Seen,
        Source, Unseen, ZoneChoice,
    },
    plan::{
        DEPLOYED, KMS_KEY_METADATA, OWNER_METADATA, OWNER_TAG, PENDING_TAG, authorizer, certificates,
        custom_domain::{self, is_taken_over},
        identity,
    },
    records, sources,
};
use crate::{
    api::{DnsVerification, MappedApi, MtlsDomain, conditions::Reason},
    aws::{
        acm,
        errors::{self, Error, Kind},
        gateway::{self, Domain, Mapping, Protocol},
        route53::{RecordSet, Zone},
        s3::Content,
        session::Session,
    },
    k8s::finalizer,
    pki::truststore::Bundle,
    probe::{
        https::{self, EndpointProbe},
        public_dns::{PublicDns, PublicName},
    },
};

/// Context of an observation, besides the session.
pub struct ObserveContext<'a> {
    pub client: &'a Client,
    pub domain: &'a MtlsDomain,
    pub probe: &'a EndpointProbe,
    /// Leaves of the domain, according to the statuses of its ClientCertificates.
    pub leaves: Vec<Leaf>,
    pub public_dns: &'a PublicDns,
    /// Versions of truststore objects that were read before: a version never changes.
    pub versions: &'a Versions,
    /// ID of the operator's last change of records, if it was not in sync at the last reconcile.
    pub pending_change: Option<String>,
}

/// Cached versions of the truststore object of one domain, by URI and version.
#[derive(Debug, Default)]
pub struct Versions(std::sync::Mutex<BTreeMap<(String, String), Content>>);

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
            &placement.namespace,
            &placement.name,
            &d.authorities
        )),
        Box::pin(clients::read(
            observe_context.client,
            &placement.name,
            &d.self_signed
        )),
        reader.certificates(&placement.domain_name),
        bucket(d, reader),
        published(placement, reader, observe_context.versions),
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
    let (named, validation, records, mappings, pinned, public) = tokio::join!(
        named(d, reader, &certificates, &domain),
        validation(placement, reader, &zones, &certificates),
        records_of(placement, reader, &zones),
        mappings(placement, reader, &domain),
        pinned(reader, &domain, observe_context.versions),
        public(placement, &domain, observe_context.public_dns),
    );
    let apis = with_leaving(placement, apis, &mappings, reader).await;
    observe_context.versions.keep(&published, &domain);
    let mut observed = Observed {
        authorities,
        recorded: generated::recorded(observe_context.domain, &d.authorities),
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
        matches!(generated::ownership(d, observed, wanted), Ownership::NotOurs(_))
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
        Ok(Some(metadata)) => observed.recorded = generated::recorded(&metadata, &d.authorities),
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

/// Returns the hosted zone of the records of a domain that is being deleted.
pub async fn zone_of_leftovers(
    placement: &Placement,
    reader: &AwsReader<'_>,
) -> Seen<BTreeMap<String, ZoneChoice>> {
    zones(placement, &[], reader).await
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

/// Returns the zones of a domain that is being deleted. Fails when two zones may have the records: that is
/// not the same as no records.
fn unambiguous(
    placement: &Placement,
    zones: BTreeMap<String, ZoneChoice>,
) -> Seen<BTreeMap<String, ZoneChoice>> {
    match zones.get(&placement.domain_name) {
        Some(ZoneChoice::Ambiguous(ids)) => Err(Unseen {
            reason: Reason::HostedZoneNotFound,
            message: format!(
                "{} are public hosted zones of the same name; set spec.dns.route53.hostedZoneId to the one \
                 that has the records",
                ids.join(" and ")
            ),
        }),
        _ => Ok(zones),
    }
}

/// Returns the reason and message for a call that failed.
pub fn unseen(error: &Error) -> Unseen {
    let (_, reason, message) = super::report::refusal(error);
    let message = match error.kind {
        Kind::NotFound | Kind::Conflict | Kind::Invalid => error.to_string(),
        _ => message,
    };
    Unseen {
        reason: if reason == Reason::Progressing {
            Reason::Unreachable
        } else {
            reason
        },
        message,
    }
}

async fn seen<T>(call: impl Future<Output = Result<T, errors::Error>>) -> Seen<T> {
    // Boxed: a dozen of the SDK's futures side by side are larger than a thread's stack.
    Box::pin(call).await.map_err(|error| unseen(&error))
}

fn certificate_names(d: &Desired) -> &[String] {
    match &d.certificate {
        DesiredCertificate::Request { request, .. } => &request.names,
        DesiredCertificate::Existing { .. } => &[],
    }
}

/// Returns the zone of the domain name and of each of `names`: the zone of the spec, or the public zone with
/// the longest name that contains them.
async fn zones(
    placement: &Placement,
    names: &[String],
    reader: &AwsReader<'_>,
) -> Seen<BTreeMap<String, ZoneChoice>> {
    let DesiredDns::Route53 { zone_id, .. } = &placement.dns else {
        return Ok(BTreeMap::new());
    };
    let given = match zone_id {
        Some(id) => reader.zone(id).await?,
        None => None,
    };
    let names: BTreeSet<_> = names.iter().chain([&placement.domain_name]).collect();
    let fits = |name: &str| given.as_ref().is_some_and(|zone| is_in_zone(name, zone));
    let all = match zone_id {
        Some(_)
            if names
                .iter()
                .all(|name| fits(name) || **name == placement.domain_name) =>
        {
            vec![]
        }
        _ => reader.zones().await?,
    };
    let choice = |name: &String| match zone_id {
        Some(_) => given_zone(placement, name, given.as_ref(), &all),
        None => best_zone(name, &all),
    };
    Ok(names
        .into_iter()
        .map(|name| (name.clone(), choice(name)))
        .collect())
}

/// True for a public zone that contains `name`.
fn is_in_zone(name: &str, zone: &Zone) -> bool {
    !zone.private && records::is_inside(name, &zone.name)
}

/// Returns the zone of a name where the spec names a zone (`given`, when it exists). The domain's own name is
/// in that zone or in none, any other name in its best match.
fn given_zone(placement: &Placement, name: &str, given: Option<&Zone>, all: &[Zone]) -> ZoneChoice {
    match given {
        Some(zone) if is_in_zone(name, zone) => ZoneChoice::Found(zone.clone()),
        _ if name == placement.domain_name => ZoneChoice::Missing,
        _ => best_zone(name, all),
    }
}

fn best_zone(name: &str, zones: &[Zone]) -> ZoneChoice {
    let fitting: Vec<_> = zones.iter().filter(|zone| is_in_zone(name, zone)).collect();
    let Some(longest) = fitting.iter().map(|z| z.name.len()).max() else {
        return ZoneChoice::Missing;
    };
    let mut best: Vec<_> = fitting.into_iter().filter(|z| z.name.len() == longest).collect();
    best.sort_by(|a, b| a.id.cmp(&b.id));
    match best.as_slice() {
        [zone] => ZoneChoice::Found((*zone).clone()),
        several => ZoneChoice::Ambiguous(several.iter().map(|z| z.id.clone()).collect()),
    }
}

async fn named(
    d: &Desired,
    reader: &AwsReader<'_>,
    certificates: &Seen<Vec<acm::Certificate>>,
    domain: &Seen<Option<Domain>>,
) -> BTreeMap<String, Seen<Option<acm::Certificate>>> {
    let arns = named_arns(d, domain);
    let reads = arns.into_iter().map(async |arn| {
        let listed = certificates.iter().flatten().find(|c| c.arn == *arn);
        let read = match listed {
            Some(certificate) => Ok(Some(certificate.clone())),
            None => reader.certificate(arn).await,
        };
        (arn.clone(), read)
    });
    join_all(reads).await.into_iter().collect()
}

/// Returns the certificates that the spec names, and those of an owned domain or a domain to be taken over.
fn named_arns<'a>(d: &'a Desired, domain: &'a Seen<Option<Domain>>) -> BTreeSet<&'a String> {
    let mut arns = BTreeSet::new();
    if let DesiredCertificate::Existing { arn, ownership_arn } = &d.certificate {
        arns.extend(ownership_arn.iter().chain([arn]));
    }
    let is_ours = |g: &Domain| custom_domain::is_ours(&d.placement, g) || is_taken_over(d, g);
    if let Some(g) = domain.iter().flatten().find(|g| is_ours(g)) {
        arns.extend(
            g.ownership_certificate_arn
                .iter()
                .chain([&g.certificate_arn])
                .filter(|arn| !arn.is_empty()),
        );
    }
    arns
}

/// Reads the record sets at the validation records of the owned certificates, in their zones.
async fn validation(
    placement: &Placement,
    reader: &AwsReader<'_>,
    zones: &Seen<BTreeMap<String, ZoneChoice>>,
    certificates: &Seen<Vec<acm::Certificate>>,
) -> Seen<BTreeMap<String, Vec<RecordSet>>> {
    let (zones, certificates) = (
        zones.as_ref().map_err(Clone::clone)?,
        certificates.as_ref().map_err(Clone::clone)?,
    );
    let reads = validation_names(placement, zones, certificates)
        .into_iter()
        .map(async |(zone, name)| {
            let records = reader.records(zone, name).await?;
            Ok((name.clone(), records))
        });
    join_all(reads).await.into_iter().collect()
}

/// Returns the names of the validation records of the owned certificates, each with the id of its zone.
fn validation_names<'a>(
    placement: &Placement,
    zones: &'a BTreeMap<String, ZoneChoice>,
    certificates: &'a [acm::Certificate],
) -> BTreeSet<(&'a String, &'a String)> {
    let ours = certificates
        .iter()
        .filter(|c| certificates::is_ours(placement, c));
    ours.flat_map(|c| &c.validation)
        .filter_map(|v| Some((&zones.get(&v.domain)?.found()?.id, &v.record.as_ref()?.0)))
        .collect()
}

async fn records_of(
    placement: &Placement,
    reader: &AwsReader<'_>,
    zones: &Seen<BTreeMap<String, ZoneChoice>>,
) -> Seen<Vec<RecordSet>> {
    let zones = zones.as_ref().map_err(Clone::clone)?;
    let Some(zone) = zones.get(&placement.domain_name).and_then(ZoneChoice::found) else {
        return Ok(vec![]);
    };
    let at = async |name: &str| reader.records(&zone.id, name).await;
    let ownership_record = records::ownership_record_name(&placement.domain_name);
    let (at_name, at_ownership_record) = tokio::join!(at(&placement.domain_name), at(&ownership_record));
    let mut all = [at_name?, at_ownership_record?].concat();
    if records::lacks_ownership_record(placement, &all) {
        for name in records::registry_names(&placement.domain_name) {
            all.extend(at(&name).await?);
        }
    }
    Ok(all)
}

async fn public(
    placement: &Placement,
    domain: &Seen<Option<Domain>>,
    dns: &PublicDns,
) -> Seen<Option<PublicName>> {
    let domain = domain.as_ref().map_err(Clone::clone)?;
    match (&placement.dns, domain) {
        (
            DesiredDns::External {
                verify: DnsVerification::PublicDNS,
            },
            Some(g),
        ) => {
            let found = Box::pin(dns.resolve(&placement.domain_name, &g.target.to_lowercase())).await;
            found.map(Some).map_err(|why| Unseen {
                reason: Reason::Unreachable,
                message: why.to_string(),
            })
        }
        _ => Ok(None),
    }
}

async fn in_sync(session: &Session, change: Option<&str>) -> Seen<bool> {
    match change {
        None => Ok(true),
        Some(id) => match Box::pin(session.route53.change_in_sync(id)).await {
            Err(error) if error.kind == Kind::NotFound => Ok(true),
            other => other.map_err(|error| unseen(&error)),
        },
    }
}

async fn mappings(
    placement: &Placement,
    reader: &AwsReader<'_>,
    domain: &Seen<Option<Domain>>,
) -> Seen<Vec<Mapping>> {
    match domain.as_ref().map_err(Clone::clone)? {
        // The mappings of a domain that is not owned are irrelevant, and some kinds of domain have no
        // readable mappings.
        Some(g) if custom_domain::is_ours(placement, g) => reader.mappings(&placement.domain_name).await,
        _ => Ok(vec![]),
    }
}

/// Reads each of the APIs, without its stages.
async fn first_seen(
    mappings: &BTreeMap<String, MappedApi>,
    reader: &AwsReader<'_>,
) -> BTreeMap<String, Seen<Option<gateway::Api>>> {
    let ids: BTreeSet<_> = mappings.values().map(|mapped| mapped.id.as_str()).collect();
    let reads = ids
        .into_iter()
        .map(async |id| (id.to_owned(), reader.api(id).await));
    join_all(reads).await.into_iter().collect()
}

/// Requests of a spec for each API that it maps.
#[derive(Clone, Copy, Default)]
struct Asked {
    headers: bool,
    authorizer: bool,
}

/// Reads the APIs of the preflight, with their mapped stages. Without a probe the default endpoints are not
/// probed.
async fn apis(
    placement: &Placement,
    seen: BTreeMap<String, Seen<Option<gateway::Api>>>,
    mappings: &BTreeMap<String, MappedApi>,
    asked: Asked,
    reader: &AwsReader<'_>,
    probe: Option<&EndpointProbe>,
) -> BTreeMap<String, Seen<Option<Api>>> {
    let reads = seen.into_iter().map(async |(id, seen)| {
        let stages = mappings
            .values()
            .filter(|mapped| mapped.id == id)
            .map(|mapped| mapped.stage.as_str())
            .collect();
        let read = api(placement, seen, stages, asked, reader, probe).await;
        (id, read)
    });
    join_all(reads).await.into_iter().collect()
}

/// Reads the APIs that carry the ownership tags of headers, in full. Of other APIs the operator reads only
/// the tags: the policy has not decided that they are for this domain.
async fn tagged_apis(
    placement: &Placement,
    mappings: &BTreeMap<String, MappedApi>,
    reader: &AwsReader<'_>,
) -> BTreeMap<String, Seen<Option<Api>>> {
    let mut seen = first_seen(mappings, reader).await;
    seen.retain(|_, api| may_be_marked(placement, api));
    apis(placement, seen, mappings, Asked::default(), reader, None).await
}

/// True unless an API is known to carry no ownership tag of the operator's headers.
fn may_be_marked(placement: &Placement, api: &Seen<Option<gateway::Api>>) -> bool {
    match api {
        Ok(api) => api
            .as_ref()
            .is_some_and(|api| identity::has_ownership_tag(placement, &api.tags)),
        Err(_) => true,
    }
}

/// True when the API's flag disables its default endpoint, and no deployment is pending that makes it
/// effective.
fn is_said_to_be_closed(api: &gateway::Api) -> bool {
    api.endpoint_closed && api.tags.get(PENDING_TAG).is_none_or(|tag| tag == DEPLOYED)
}

/// Adds the APIs that only the domain still maps, if they carry the ownership tags of headers.
async fn with_leaving(
    placement: &Placement,
    mut known: BTreeMap<String, Seen<Option<Api>>>,
    mappings: &Seen<Vec<Mapping>>,
    reader: &AwsReader<'_>,
) -> BTreeMap<String, Seen<Option<Api>>> {
    let left = mappings
        .iter()
        .flatten()
        .filter(|m| !known.contains_key(&m.api_id));
    let left = left
        .map(|m| {
            (
                m.path.clone(),
                MappedApi {
                    id: m.api_id.clone(),
                    stage: m.stage.clone(),
                },
            )
        })
        .collect();
    known.append(&mut Box::pin(tagged_apis(placement, &left, reader)).await);
    known
}

async fn api(
    placement: &Placement,
    first: Seen<Option<gateway::Api>>,
    stages: BTreeSet<&str>,
    asked: Asked,
    reader: &AwsReader<'_>,
    probe: Option<&EndpointProbe>,
) -> Seen<Option<Api>> {
    let Some(api) = first? else { return Ok(None) };
    let id = api.id.as_str();
    // A single read of all stages, however many are mapped.
    let Some(all) = reader.stages(api.protocol, id).await? else {
        return Ok(None);
    }; // gone since
    let named = |name: &str| all.iter().find(|stage| stage.name == name).cloned();
    let stages: BTreeMap<_, _> = stages
        .into_iter()
        .map(|name| (name.to_owned(), named(name)))
        .collect();
    let probe = match probe {
        Some(probe) if is_said_to_be_closed(&api) => {
            let there = stages.values().flatten().map(|stage| stage.name.as_str());
            let at = stages
                .keys()
                .fold(id.to_owned(), |at, stage| format!("{at} {stage}"));
            reader
                .probe(at, answers(&reader.session.execute_api_host(id), there, probe))
                .await
        }
        _ => None,
    };
    let integrations = if asked.headers || identity::has_ownership_tag(placement, &api.tags) {
        Some(reader.integrations(api.protocol, id).await)
    } else {
        None
    };
    let authorizers = if asked.authorizer || identity::has_authorizer(placement, &api.tags) {
        Some(authorizers(placement, api.protocol, id, reader).await)
    } else {
        None
    };
    Ok(Some(Api {
        api,
        stages,
        probe,
        integrations,
        authorizers,
    }))
}

/// Reads the authorizers of an API, the routes that use them, and the permissions of the owned authorizers.
async fn authorizers(
    placement: &Placement,
    protocol: Protocol,
    api_id: &str,
    reader: &AwsReader<'_>,
) -> Seen<Authorizers> {
    let all = reader.authorizers(protocol, api_id).await?;
    let routes = reader.routes(protocol, api_id).await?;
    let mut permitted = BTreeSet::new();
    for ours in all
        .iter()
        .filter(|a| authorizer::is_ours(placement, a) && !a.function.is_empty())
    {
        if reader
            .statements(&ours.function)
            .await?
            .contains(&authorizer::statement(placement, &ours.id))
        {
            permitted.insert(ours.id.clone());
        }
    }
    Ok(Authorizers {
        all,
        routes,
        permitted,
    })
}

/// Returns the answer of the default endpoint at these stages, the most open one.
async fn answers<'a>(
    host: &str,
    stages: impl Iterator<Item = &'a str>,
    probe: &EndpointProbe,
) -> Option<https::ProbeResult> {
    most_open(join_all(stages.map(|stage| Box::pin(probe.probe(host, stage)))).await)
}

fn most_open(answers: Vec<https::ProbeResult>) -> Option<https::ProbeResult> {
    answers.into_iter().min_by_key(|answer| match answer {
        https::ProbeResult::Answered(_) => 0,
        https::ProbeResult::Unreachable(_) => 1,
        https::ProbeResult::Refused(_) => 2,
    })
}

// ---- the truststore

async fn bucket(d: &Desired, reader: &AwsReader<'_>) -> Seen<Option<Bucket>> {
    let name = &d.placement.bucket;
    let Some(found) = reader.bucket(name).await? else {
        return Ok(None);
    };
    let mut bucket = Bucket {
        region: found.region,
        versioned: found.versioned,
        made: None,
    };
    if d.create_bucket && bucket.region == d.placement.region {
        bucket.made = made(d, reader).await?;
    }
    Ok(Some(bucket))
}

/// Reads the settings of a bucket that the operator created; `None` for other buckets.
async fn made(d: &Desired, reader: &AwsReader<'_>) -> Seen<Option<Made>> {
    let name = &d.placement.bucket;
    let owner = reader.bucket_tags(name).await?.remove(OWNER_TAG);
    let Some(owner) = owner.filter(|owner| d.placement.is_of_this_cluster(owner)) else {
        return Ok(None);
    };
    let private = reader.public_access_is_blocked(name).await?;
    let kms_key = reader.default_kms_key(name).await?;
    Ok(Some(Made {
        owner,
        private,
        kms_key,
    }))
}

async fn published(
    placement: &Placement,
    reader: &AwsReader<'_>,
    versions: &Versions,
) -> Seen<Option<Published>> {
    let Some(object) = reader.head(&placement.bucket, &placement.key).await? else {
        return Ok(None);
    };
    let Some(content) = versions
        .read(&placement.bucket, &placement.key, reader.session, &object.version)
        .await?
    else {
        return Ok(None);
    };
    Ok(Some(Published {
        version: object.version,
        owner: content.metadata.get(OWNER_METADATA).cloned(),
        kms_key: object.kms_key,
        desired_kms_key: content.metadata.get(KMS_KEY_METADATA).cloned(),
        sha256: sha256(&content.bytes),
        // An unreadable object has no entries; a readable version replaces it.
        bundle: Bundle::parse(&content.bytes).unwrap_or_default(),
    }))
}

/// Reads the object and version that the domain uses: also for a domain that is not owned yet, and for a
/// truststore that has moved.
async fn pinned(
    reader: &AwsReader<'_>,
    domain: &Seen<Option<Domain>>,
    versions: &Versions,
) -> Seen<Option<Pinned>> {
    let domain = domain.as_ref().map_err(Clone::clone)?;
    let Some(used) = domain.as_ref().and_then(|g| g.truststore.as_ref()) else {
        return Ok(None);
    };
    let Some((bucket, key)) = used.place() else {
        return Ok(None);
    };
    let version = match &used.version {
        Some(version) => version.clone(),
        // Not pinned: the domain uses the version that was newest at its last update, presumably the latest.
        None => match reader.head(bucket, key).await? {
            Some(object) => object.version,
            None => return Ok(None),
        },
    };
    let content = versions.read(bucket, key, reader.session, &version).await?;
    Ok(content.and_then(|c| {
        let bundle = Bundle::parse(&c.bytes).ok()?;
        Some(Pinned {
            owner: c.metadata.get(OWNER_METADATA).cloned(),
            bundle,
        })
    }))
}

impl Versions {
    async fn read(&self, bucket: &str, key: &str, session: &Session, version: &str) -> Seen<Option<Content>> {
        let name = (format!("s3://{bucket}/{key}"), version.to_owned());
        if let Some(known) = self.lock().get(&name) {
            return Ok(Some(known.clone()));
        }
        let content = seen(session.s3.get(bucket, key, version)).await?;
        // An object without a version can have other content tomorrow.
        if let Some(content) = content.as_ref().filter(|_| !version.is_empty()) {
            self.lock().insert(name, content.clone());
        }
        Ok(content)
    }

    /// Removes all versions that are neither the latest nor in use.
    fn keep(&self, published: &Seen<Option<Published>>, domain: &Seen<Option<Domain>>) {
        let (Ok(published), Ok(domain)) = (published, domain) else {
            return;
        };
        let used = domain
            .as_ref()
            .and_then(|g| g.truststore.as_ref())
            .and_then(|t| t.version.as_ref());
        let latest = published.as_ref().map(|p| &p.version);
        self.lock()
            .retain(|(_, version), _| Some(version) == used || Some(version) == latest);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), Content>> {
        self.0.lock().expect("no holder of the lock panics")
    }
}

/// Returns the versions that carry the ownership tag; versions of other owners at the same key stay.
async fn versions(placement: &Placement, reader: &AwsReader<'_>) -> Seen<Vec<String>> {
    if placement.bucket.is_empty() {
        return Ok(vec![]);
    }
    // The operator never stores anything in a bucket of another Region.
    match reader.bucket(&placement.bucket).await? {
        Some(bucket) if bucket.region == placement.region => {}
        _ => return Ok(vec![]),
    }
    let all = seen(reader.session.s3.versions(&placement.bucket, &placement.key)).await?;
    let reads = all.into_iter().filter(|v| !v.delete_marker).map(async |version| {
        let content = seen(
            reader
                .session
                .s3
                .get(&placement.bucket, &placement.key, &version.id),
        )
        .await?;
        let ours = content.is_some_and(|c| c.metadata.get(OWNER_METADATA) == Some(&placement.owner));
        Ok(ours.then_some(version.id))
    });
    let read: Seen<Vec<_>> = join_all(reads).await.into_iter().collect();
    Ok(read?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aws::fake,
        domain::{cache::SessionCache, simulation},
    };

    fn zone(id: &str, name: &str, private: bool) -> Zone {
        Zone {
            id: id.into(),
            name: name.into(),
            private,
        }
    }

    #[test]
    fn the_longest_public_zone_on_label_boundaries_is_chosen() {
        let zones = [
            zone("Z1", "example.com", false),
            zone("Z2", "api.example.com", false),
            zone("Z3", "mtls.api.example.com", true),
            zone("Z4", "ample.com", false),
        ];
        let found = |n: usize| ZoneChoice::Found(zones[n].clone());
        assert_eq!(best_zone("mtls.api.example.com", &zones), found(1));
        assert_eq!(best_zone("myapi.example.com", &zones), found(0));
        assert_eq!(best_zone("example.com", &zones), found(0));
        assert_eq!(best_zone("example.org", &zones), ZoneChoice::Missing);
        let twins = [zone("Z2", "example.com", false), zone("Z1", "example.com", false)];
        assert_eq!(
            best_zone("a.example.com", &twins),
            ZoneChoice::Ambiguous(vec!["Z1".into(), "Z2".into()])
        );
    }

    #[test]
    fn the_zone_of_the_spec_is_the_only_one_for_the_domain_name() {
        let placement = placement();
        let all = [zone("Z1", "example.com", false), zone("Z2", "example.org", false)];
        let of = |name: &str, given: Option<&Zone>| given_zone(&placement, name, given, &all);
        let (api, private, other) = (
            zone("Z3", "api.example.com", false),
            zone("Z4", "api.example.com", true),
            zone("Z5", "example.net", false),
        );
        assert_eq!(of("api.example.com", Some(&api)), ZoneChoice::Found(api.clone()));
        for (what, given) in [
            ("gone", None),
            ("private", Some(&private)),
            ("a zone of another name", Some(&other)),
        ] {
            assert_eq!(of("api.example.com", given), ZoneChoice::Missing, "{what}");
            assert_eq!(
                of("www.example.org", given),
                ZoneChoice::Found(all[1].clone()),
                "{what}"
            );
        }
        assert_eq!(
            of("www.example.org", Some(&api)),
            ZoneChoice::Found(all[1].clone())
        );
    }

    #[test]
    fn the_deletion_of_a_domain_with_two_possible_zones_waits_for_the_spec() {
        let placement = placement();
        let with = |name: &str, choice| BTreeMap::from([(name.to_owned(), choice)]);
        let two = || ZoneChoice::Ambiguous(vec!["Z1".into(), "Z2".into()]);
        assert_eq!(
            unambiguous(&placement, with("api.example.com", two()))
                .unwrap_err()
                .reason,
            Reason::HostedZoneNotFound
        );
        for zones in [
            with("www.example.org", two()),
            with("api.example.com", ZoneChoice::Missing),
            with(
                "api.example.com",
                ZoneChoice::Found(zone("Z1", "example.com", false)),
            ),
        ] {
            assert_eq!(unambiguous(&placement, zones.clone()), Ok(zones));
        }
    }

    fn placement() -> Placement {
        simulation::desired().placement
    }

    fn error(kind: Kind, operation: &'static str) -> Error {
        Error {
            kind,
            operation,
            code: None,
            message: "m".into(),
            source: None,
        }
    }

    #[test]
    fn a_failed_read_has_its_reason_and_message() {
        for (kind, operation, reason, message) in [
            (
                Kind::Denied,
                "acm:ListCertificates",
                Reason::PermissionDenied,
                "allow it in its IAM policy",
            ),
            (
                Kind::Throttled,
                "acm:ListCertificates",
                Reason::Throttled,
                "throttled",
            ),
            (
                Kind::Transient,
                "acm:ListCertificates",
                Reason::Unreachable,
                "acm:ListCertificates: m",
            ),
            (
                Kind::NotFound,
                "route53:ListResourceRecordSets",
                Reason::Unreachable,
                "route53:ListResourceRecordSets: m",
            ),
            (
                Kind::Conflict,
                "route53:ListResourceRecordSets",
                Reason::Unreachable,
                ": m",
            ),
            (
                Kind::Invalid,
                "s3:HeadBucket",
                Reason::AwsRejected,
                "s3:HeadBucket: m",
            ),
        ] {
            let found = unseen(&error(kind, operation));
            assert_eq!(found.reason, reason, "{kind:?}");
            assert!(
                found.message.contains(message)
                    && (reason == Reason::Throttled || !found.message.contains("trying again")),
                "{}",
                found.message
            );
        }
    }

    #[test]
    fn the_certificates_of_an_owned_or_adoptable_domain_are_read() {
        let (d, o) = simulation::settled();
        let mut adopting = d.clone();
        adopting.adoption = crate::api::AdoptionPolicy::Unowned;
        let mut existing = d.clone();
        existing.certificate = DesiredCertificate::Existing {
            arn: "a".into(),
            ownership_arn: Some("b".into()),
        };
        let domain = o.domain.clone();
        let arn = domain.as_ref().unwrap().as_ref().unwrap().certificate_arn.clone();
        let with = |tags: &[(&str, &str)]| {
            let mut domain = domain.clone().unwrap().unwrap();
            domain.tags = tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect();
            domain.ownership_certificate_arn = Some("o".into());
            Ok(Some(domain))
        };
        let not_owned = [(OWNER_TAG, "other/ns/partners")];
        for (what, d, domain, expected) in [
            ("owned", &d, domain.clone(), vec![arn.as_str()]),
            ("without an owner", &d, with(&[]), vec![]),
            (
                "without an owner, to be taken over",
                &adopting,
                with(&[]),
                vec![arn.as_str(), "o"],
            ),
            ("another owner's", &adopting, with(&not_owned), vec![]),
            ("not there", &d, Ok(None), vec![]),
            ("named by the spec", &existing, Ok(None), vec!["a", "b"]),
            (
                "named by the spec, beside those in use",
                &existing,
                domain.clone(),
                vec!["a", arn.as_str(), "b"],
            ),
        ] {
            let expected: BTreeSet<_> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(
                named_arns(d, &domain)
                    .into_iter()
                    .cloned()
                    .collect::<BTreeSet<_>>(),
                expected,
                "{what}"
            );
        }
    }

    #[test]
    fn only_validation_records_of_owned_certificates_are_read() {
        let (d, o) = simulation::settled();
        let (zones, mut certificates) = (o.zones.unwrap(), o.certificates.unwrap());
        let ids =
            |certificates: &[acm::Certificate]| validation_names(&d.placement, &zones, certificates).len();
        assert_eq!(ids(&certificates), 1);
        assert!(
            validation_names(&d.placement, &BTreeMap::new(), &certificates).is_empty(),
            "no zone"
        );
        certificates[0].tags.clear();
        assert_eq!(ids(&certificates), 0);
    }

    fn api(change: impl FnOnce(&mut gateway::Api)) -> gateway::Api {
        let mut api = gateway::Api {
            id: "a1".into(),
            arn: "arn".into(),
            protocol: Protocol::Http,
            private: false,
            endpoint_closed: true,
            tags: BTreeMap::new(),
        };
        change(&mut api);
        api
    }

    #[test]
    fn a_default_endpoint_is_probed_once_its_closing_is_deployed() {
        let tag = |value: &'static str| {
            move |api: &mut gateway::Api| drop(api.tags.insert(PENDING_TAG.into(), value.into()))
        };
        for (what, api, expected) in [
            ("closed", api(|_| {}), true),
            ("open", api(|api| api.endpoint_closed = false), false),
            (
                "closed, not yet in effect",
                api(tag("cluster/ns/partners")),
                false,
            ),
            ("closed and deployed", api(tag(DEPLOYED)), true),
        ] {
            assert_eq!(is_said_to_be_closed(&api), expected, "{what}");
        }
    }

    #[test]
    fn the_most_open_answer_of_all_stages_counts() {
        use https::ProbeResult::{Answered, Refused, Unreachable};
        let unreachable = || Unreachable("m".into());
        assert_eq!(most_open(vec![]), None);
        assert_eq!(
            most_open(vec![Refused(404), unreachable(), Answered(200)]),
            Some(Answered(200))
        );
        assert_eq!(most_open(vec![Refused(404), unreachable()]), Some(unreachable()));
        assert_eq!(most_open(vec![Refused(404)]), Some(Refused(404)));
    }

    #[test]
    fn an_unmapped_api_is_read_in_full_only_with_the_ownership_tags() {
        let placement = placement();
        assert!(!may_be_marked(&placement, &Ok(Some(api(|_| {})))) && !may_be_marked(&placement, &Ok(None)));
        assert!(may_be_marked(
            &placement,
            &Err(Unseen {
                reason: Reason::Unreachable,
                message: "m".into()
            })
        ));
    }

    fn xml(text: &str) -> fake::Answer {
        (200, vec![], text.to_owned())
    }

    #[tokio::test]
    async fn a_change_unknown_to_route_53_is_in_sync() {
        let status = |word: &str| {
            format!(
                "<GetChangeResponse><ChangeInfo><Id>C1</Id><Status>{word}</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></GetChangeResponse>"
            )
        };
        let of = async |answer: fake::Answer, change| {
            in_sync(&fake::answering(vec![("/change/", answer)]), change).await
        };
        assert_eq!(of(xml(&status("INSYNC")), Some("C1")).await, Ok(true));
        assert_eq!(of(xml(&status("PENDING")), Some("C1")).await, Ok(false));
        assert_eq!(of((404, vec![], String::new()), Some("C1")).await, Ok(true));
        assert!(of((500, vec![], String::new()), Some("C1")).await.is_err());
        assert_eq!(
            of((500, vec![], String::new()), None).await,
            Ok(true),
            "no change is pending"
        );
    }

    #[tokio::test]
    async fn mappings_are_read_only_for_an_owned_domain() {
        let (d, o) = simulation::settled();
        let items = r#"{"items": [{"apiId": "a1", "apiMappingId": "m1", "stage": "s"}]}"#;
        let (session, kept) = (
            fake::answering(vec![("/apimappings", xml(items))]),
            SessionCache::default(),
        );
        let reader = AwsReader::live(&session, &kept);
        let ours = o.domain.unwrap().unwrap();
        let mut not_owned = ours.clone();
        not_owned.tags.clear();
        let read = async |domain| {
            mappings(&d.placement, &reader, &domain)
                .await
                .map(|all| all.len())
        };
        assert_eq!(read(Ok(Some(ours))).await, Ok(1));
        assert_eq!(read(Ok(Some(not_owned))).await, Ok(0));
        assert_eq!(read(Ok(None)).await, Ok(0));
        let why = Unseen {
            reason: Reason::Unreachable,
            message: "m".into(),
        };
        assert_eq!(read(Err(why.clone())).await, Err(why));
    }

    #[tokio::test]
    async fn only_versions_with_the_ownership_tag_are_owned() {
        let listed = "<ListVersionsResult><Version><Key>partners.pem</Key><VersionId>ours</VersionId></Version>\
            <Version><Key>partners.pem</Key><VersionId>theirs</VersionId></Version>\
            <Version><Key>partners.pem</Key><VersionId>nobodys</VersionId></Version>\
            <DeleteMarker><Key>partners.pem</Key><VersionId>marker</VersionId></DeleteMarker></ListVersionsResult>";
        let body = |owner: Option<&'static str>| {
            (
                200,
                owner
                    .map(|owner| ("x-amz-meta-owner", owner))
                    .into_iter()
                    .collect(),
                String::new(),
            )
        };
        let answers = |region: &'static str| {
            let ours = body(Some("cluster/ns/partners"));
            vec![
                (
                    "?versioning",
                    xml("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
                ),
                (
                    "HEAD",
                    (200, vec![("x-amz-bucket-region", region)], String::new()),
                ),
                ("versions", xml(listed)),
                ("versionId=ours", ours.clone()),
                ("versionId=theirs", body(Some("other/ns/partners"))),
                ("versionId=nobodys", body(None)),
                ("versionId=marker", ours),
            ]
        };
        let read = async |placement: &Placement, region| {
            let (session, kept) = (fake::answering(answers(region)), SessionCache::default());
            versions(placement, &AwsReader::live(&session, &kept)).await
        };
        let placement = placement();
        assert_eq!(read(&placement, "eu-west-1").await, Ok(vec!["ours".to_owned()]));
        assert_eq!(
            read(&placement, "us-east-1").await,
            Ok(vec![]),
            "the operator never stores anything there"
        );
        assert_eq!(
            read(
                &Placement {
                    bucket: String::new(),
                    ..placement
                },
                "eu-west-1"
            )
            .await,
            Ok(vec![])
        );
    }

    #[tokio::test]
    async fn the_settings_of_a_bucket_are_read_only_when_the_operator_created_it() {
        let answers = |owner: &str, region: &'static str| {
            vec![
                (
                    "?versioning",
                    xml("<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"),
                ),
                (
                    "?tagging",
                    xml(&format!(
                        "<Tagging><TagSet><Tag><Key>{OWNER_TAG}</Key><Value>{owner}</Value></Tag></TagSet></Tagging>"
                    )),
                ),
                (
                    "HEAD",
                    (200, vec![("x-amz-bucket-region", region)], String::new()),
                ),
            ]
        };
        let read = async |creates, owner: &str, region| {
            let (session, kept) = (fake::answering(answers(owner, region)), SessionCache::default());
            let d = Desired {
                create_bucket: creates,
                ..simulation::desired()
            };
            let found = bucket(&d, &AwsReader::live(&session, &kept))
                .await
                .unwrap()
                .unwrap();
            assert!(!found.versioned);
            found.made.map(|made| made.owner)
        };
        let ours = "cluster/ns/another";
        assert_eq!(
            read(true, ours, "eu-west-1").await.as_deref(),
            Some(ours),
            "also created for another MtlsDomain of the cluster"
        );
        assert_eq!(
            read(false, ours, "eu-west-1").await,
            None,
            "the spec does not allow the operator to create a bucket"
        );
        assert_eq!(read(true, ours, "us-east-1").await, None);
        assert_eq!(
            read(true, "other/ns/partners", "eu-west-1").await,
            None,
            "another cluster's"
        );
    }

    #[tokio::test]
    async fn a_version_is_read_once_and_an_object_without_a_version_each_time() {
        let content = (200, vec![("x-amz-meta-owner", "o")], "x".to_owned());
        let there = fake::answering(vec![("GET", content)]);
        let gone = fake::answering(vec![]);
        let versions = Versions::default();
        assert!(versions.read("b", "k", &there, "v1").await.unwrap().is_some());
        assert!(
            versions.read("b", "k", &gone, "v1").await.unwrap().is_some(),
            "a version never changes"
        );
        assert!(versions.read("b", "k", &gone, "v2").await.unwrap().is_none());
        assert!(versions.read("b", "k", &there, "").await.unwrap().is_some());
        assert!(versions.read("b", "k", &gone, "").await.unwrap().is_none());
        let domain = |version: &str| {
            let mut domain = simulation::settled().1.domain.unwrap().unwrap();
            domain.truststore.as_mut().unwrap().version = Some(version.into());
            Ok(Some(domain))
        };
        versions.keep(&Ok(None), &domain("v1"));
        assert!(
            versions.read("b", "k", &gone, "v1").await.unwrap().is_some(),
            "the version is in use"
        );
        versions.keep(
            &Ok(None),
            &Err(Unseen {
                reason: Reason::Unreachable,
                message: "m".into(),
            }),
        );
        assert!(
            versions.read("b", "k", &gone, "v1").await.unwrap().is_some(),
            "an unknown state keeps the versions"
        );
        versions.keep(&Ok(None), &domain("v2"));
        assert!(
            versions.read("b", "k", &gone, "v1").await.unwrap().is_none(),
            "removed"
        );
    }
}
