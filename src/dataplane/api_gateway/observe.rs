//! Observes the APIs and mappings of a custom domain. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use super::{authorizer, custom_domain, ownership};

use crate::{
    api::MappedApi,
    aws::{
        gateway::{
            apis::{self, Protocol},
            domains::Domain,
            mappings::Mapping,
        },
        tags::{DEPLOYED, PENDING_TAG},
    },
    model::{
        observed::{Api, Authorizers},
        placement::Placement,
    },
    observation::{read_cache::AwsReader, seen::Seen},
    probe::https::{self, EndpointProbe},
};

pub(crate) async fn mappings(
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
pub(crate) async fn first_seen(
    mappings: &BTreeMap<String, MappedApi>,
    reader: &AwsReader<'_>,
) -> BTreeMap<String, Seen<Option<apis::Api>>> {
    let ids: BTreeSet<_> = mappings.values().map(|mapped| mapped.id.as_str()).collect();
    let reads = ids
        .into_iter()
        .map(async |id| (id.to_owned(), reader.api(id).await));
    join_all(reads).await.into_iter().collect()
}

/// Requests of a spec for each API that it maps.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked {
    pub(crate) headers: bool,
    pub(crate) authorizer: bool,
}

/// Reads the APIs of the preflight, with their mapped stages. Without a probe the default endpoints are not
/// probed.
pub(crate) async fn apis(
    placement: &Placement,
    seen: BTreeMap<String, Seen<Option<apis::Api>>>,
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
pub(crate) async fn tagged_apis(
    placement: &Placement,
    mappings: &BTreeMap<String, MappedApi>,
    reader: &AwsReader<'_>,
) -> BTreeMap<String, Seen<Option<Api>>> {
    let mut seen = first_seen(mappings, reader).await;
    seen.retain(|_, api| may_be_marked(placement, api));
    apis(placement, seen, mappings, Asked::default(), reader, None).await
}

/// True unless an API is known to carry no ownership tag of the operator's headers.
pub(crate) fn may_be_marked(placement: &Placement, api: &Seen<Option<apis::Api>>) -> bool {
    match api {
        Ok(api) => api
            .as_ref()
            .is_some_and(|api| ownership::has_ownership_tag(placement, &api.tags)),
        Err(_) => true,
    }
}

/// True when the API's flag disables its default endpoint, and no deployment is pending that makes it
/// effective.
pub(crate) fn is_said_to_be_closed(api: &apis::Api) -> bool {
    api.endpoint_closed && api.tags.get(PENDING_TAG).is_none_or(|tag| tag == DEPLOYED)
}

/// Adds the APIs that only the domain still maps, if they carry the ownership tags of headers.
pub(crate) async fn with_leaving(
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
    first: Seen<Option<apis::Api>>,
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
    let integrations = if asked.headers || ownership::has_ownership_tag(placement, &api.tags) {
        Some(reader.integrations(api.protocol, id).await)
    } else {
        None
    };
    let authorizers = if asked.authorizer || ownership::has_authorizer(placement, &api.tags) {
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
    for ours in all.iter().filter(|a| authorizer::is_ours(placement, a)) {
        let Some(function) = &ours.function else {
            continue;
        };
        if reader
            .statements(function)
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
pub(crate) async fn answers<'a>(
    host: &str,
    stages: impl Iterator<Item = &'a str>,
    probe: &EndpointProbe,
) -> Option<https::ProbeResult> {
    most_open(join_all(stages.map(|stage| Box::pin(probe.probe(host, stage)))).await)
}

pub(crate) fn most_open(answers: Vec<https::ProbeResult>) -> Option<https::ProbeResult> {
    answers.into_iter().min_by_key(|answer| match answer {
        https::ProbeResult::Answered(_) => 0,
        https::ProbeResult::Unreachable(_) => 1,
        https::ProbeResult::Refused(_) => 2,
    })
}
