//! Reads of the doctor in AWS, through the same reader as the controller. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use super::facts::{Endpoint, Seen};

use crate::{
    api::MtlsDomain,
    aws::{
        acm,
        errors::Error,
        gateway::{apis, domains::Domain, mappings::Mapping},
        session::Session,
    },
    observation::read_cache::{AwsReader, SessionCache},
    pki::{certificate::Certificate, truststore::Bundle},
    probe::{
        https::{EndpointProbe, ProbeResult},
        public_dns::{PublicDns, PublicName},
    },
};

/// Facts from AWS, as in `facts::Facts`.
pub(crate) struct InAws {
    pub(crate) domain: Seen<Option<Domain>>,
    pub(crate) certificates: Seen<Vec<acm::Certificate>>,
    pub(crate) trusted: Seen<Option<Vec<Certificate>>>,
    pub(crate) newest: Seen<Option<String>>,
    pub(crate) mappings: Seen<Vec<Mapping>>,
    pub(crate) stages: BTreeMap<String, Seen<Option<Vec<String>>>>,
    pub(crate) endpoints: BTreeMap<String, Seen<Endpoint>>,
}

impl InAws {
    pub(crate) fn unseen(why: &str) -> InAws {
        fn no<T>(why: &str) -> Seen<T> {
            Err(why.to_owned())
        }
        InAws {
            domain: no(why),
            certificates: no(why),
            trusted: no(why),
            newest: no(why),
            mappings: no(why),
            stages: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        }
    }
}

pub(crate) async fn in_aws(session: &Session, object: &MtlsDomain, probe: &EndpointProbe) -> InAws {
    let host = &object.spec.domain_name;
    let domain = match seen(session.gateway.domain(host)).await {
        Ok(domain) => domain,
        Err(why) => return InAws::unseen(&why),
    };
    let there = domain.as_ref();
    let mappings = async {
        match there {
            Some(_) => seen(session.gateway.mappings(host)).await,
            None => Ok(vec![]),
        }
    };
    let (certificates, (trusted, newest), mappings) = tokio::join!(
        Box::pin(certificates(session, host, there)),
        Box::pin(truststore(session, there)),
        Box::pin(mappings),
    );
    let behind: BTreeSet<_> = mappings
        .iter()
        .flatten()
        .map(|mapping| mapping.api_id.as_str())
        .collect();
    let named: BTreeSet<_> = object
        .spec
        .mappings
        .iter()
        .map(|m| (m.api.id.as_str(), m.api.stage.as_str()))
        .collect();
    let ids: BTreeSet<_> = behind
        .iter()
        .copied()
        .chain(named.iter().map(|(id, _)| *id))
        .collect();
    let apis = join_all(
        ids.into_iter()
            .map(async |id| (id, seen(session.gateway.api(id)).await)),
    )
    .await;
    let apis: BTreeMap<_, _> = apis.into_iter().collect();
    let stages = behind
        .into_iter()
        .map(async |id| (id.to_owned(), stages(session, &apis[id]).await));
    let endpoints = named.into_iter().map(async |(id, stage)| {
        (
            id.to_owned(),
            endpoint(&apis[id], &session.execute_api_host(id), stage, probe).await,
        )
    });
    let (stages, endpoints) = tokio::join!(join_all(stages), join_all(endpoints));
    let (stages, endpoints) = (stages.into_iter().collect(), endpoints.into_iter().collect());
    InAws {
        domain: Ok(domain),
        certificates,
        trusted,
        newest,
        mappings,
        stages,
        endpoints,
    }
}

async fn seen<T>(call: impl Future<Output = Result<T, Error>>) -> Seen<T> {
    Box::pin(call).await.map_err(|error| error.to_string())
}

pub(crate) async fn certificates(
    session: &Session,
    host: &str,
    domain: Option<&Domain>,
) -> Seen<Vec<acm::Certificate>> {
    match domain.filter(|domain| !domain.certificate_arn.is_empty()) {
        Some(domain) => {
            let found = seen(session.acm.certificate(&domain.certificate_arn)).await;
            found.map(|found| found.into_iter().collect())
        }
        None => AwsReader::live(session, &SessionCache::default())
            .certificates(host)
            .await
            .map_err(|why| why.message),
    }
}

/// Returns the certificates that the domain trusts, and the version of the newest truststore object.
async fn truststore(
    session: &Session,
    domain: Option<&Domain>,
) -> (Seen<Option<Vec<Certificate>>>, Seen<Option<String>>) {
    let used = domain.and_then(|domain| domain.truststore.as_ref());
    let Some((used, (bucket, key))) = used.and_then(|used| Some((used, used.place()?))) else {
        return (Ok(None), Ok(None));
    };
    let newest = seen(session.s3.head(bucket, key))
        .await
        .map(|object| object.map(|object| object.version));
    let version = match (&used.version, &newest) {
        (Some(version), _) => version.clone(),
        // Not pinned: probably the version that was newest at the last update of the domain.
        (None, Ok(newest)) => newest.clone().unwrap_or_default(),
        (None, Err(why)) => return (Err(why.clone()), newest),
    };
    let content = seen(session.s3.get(bucket, key, &version)).await;
    let trusted = content.and_then(|content| {
        let Some(content) = content else { return Ok(None) };
        let bundle = Bundle::parse(&content.bytes)
            .map_err(|error| format!("version {version} of {}: {error}", used.uri))?;
        Ok(Some(
            bundle
                .entries
                .into_iter()
                .map(|entry| entry.certificate)
                .collect(),
        ))
    });
    (trusted, newest)
}

pub(crate) async fn stages(session: &Session, api: &Seen<Option<apis::Api>>) -> Seen<Option<Vec<String>>> {
    let Some(api) = api.as_ref().map_err(Clone::clone)? else {
        return Ok(None);
    };
    let stages = seen(session.gateway.stages(api.protocol, &api.id)).await?;
    Ok(Some(stages.into_iter().map(|stage| stage.name).collect()))
}

/// Returns the state of an API's default endpoint, probed at one stage. An API that does not exist has none.
async fn endpoint(
    api: &Seen<Option<apis::Api>>,
    host: &str,
    stage: &str,
    probe: &EndpointProbe,
) -> Seen<Endpoint> {
    match api.as_ref().map_err(Clone::clone)? {
        Some(api) if !api.endpoint_closed => Ok(Endpoint::Open),
        None => Ok(Endpoint::Closed),
        Some(_) => match probe.probe(host, stage).await {
            ProbeResult::Answered(status) => Ok(Endpoint::Answers(status)),
            ProbeResult::Refused(_) => Ok(Endpoint::Closed),
            ProbeResult::Unreachable(why) => Err(why),
        },
    }
}

pub(crate) async fn dns(resolver: &PublicDns, host: &str, domain: &Domain) -> Seen<PublicName> {
    resolver
        .resolve(host, &domain.target.to_lowercase())
        .await
        .map_err(|error| error.to_string())
}
