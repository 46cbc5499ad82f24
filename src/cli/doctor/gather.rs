//! Reads the facts for the doctor: the MtlsDomain and the client's certificate in Kubernetes or in files, the
//! domain and its dependencies in AWS, its name in DNS, and its answer to a call. Only reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Api, ResourceExt, api::ListParams};
use zeroize::Zeroizing;

use super::facts::{Answer, Client, Endpoint, Facts, Holder, Object, Seen};

use crate::{
    api::{ClientCertificate, DefaultEndpoint, MtlsDomain, conditions::ConditionType, object_id::ObjectId},
    aws::{
        acm,
        call_guard::Gate,
        errors::Error,
        gateway::{apis, domains::Domain, mappings::Mapping},
        quota::Quota,
        rates::Rates,
        session::{Session, Sessions},
    },
    model::placement::access,
    observation::read_cache::{AwsReader, SessionCache},
    pki::{certificate::Certificate, keys, pem_certificates, truststore::Bundle},
    policy::{Policy, file},
    probe::{
        https::{self, ClientIdentity, EndpointProbe, ProbeOptions, ProbeResult},
        public_dns::{PublicDns, PublicName},
    },
    proxy::Proxies,
};

/// Source of the client certificate for the call.
pub enum Caller {
    Nobody,
    Files {
        cert: PathBuf,
        key: PathBuf,
    },
    /// ClientCertificate, as NAMESPACE/NAME.
    Object(String),
}

/// Gathers the facts.
///
/// # Errors
/// There is no such MtlsDomain or client, or the cluster does not answer.
pub async fn gather(
    name: &str,
    caller: Caller,
    path: &str,
    policy: Option<&Path>,
    outside: &ProbeOptions,
) -> anyhow::Result<Facts> {
    let config = Proxies::from_env()?.kubernetes_config().await?;
    let own_namespace = config.default_namespace.clone();
    let kubernetes = kube::Client::try_from(config).context("cannot use the Kubernetes configuration")?;
    let domain = find(&kubernetes, &own_namespace, name).await?;
    let object = object(&domain);
    let (client, identity) = client(&kubernetes, caller).await?;
    let policy = policy.map(read_policy).transpose()?;
    // This gate lets no write pass.
    let gate = Gate::new(Quota::new(Rates::with(&[])), || false);
    let (probe, public_dns) = (EndpointProbe::new(outside)?, PublicDns::new(outside.resolver)?);
    let host = object.domain_name.clone();
    let answer = Box::pin(call(outside, identity, &host, path)).await?;
    let aws = match Sessions::new(&gate).get(&access(&domain, policy.as_ref())).await {
        Ok(session) => in_aws(&session, &domain, &probe).await,
        Err(error) => InAws::unseen(&error.to_string()),
    };
    let dns = match aws.domain.as_ref() {
        Ok(Some(there)) => dns(&public_dns, &host, there).await.map(Some),
        Ok(None) => Ok(None),
        Err(why) => Err(why.clone()),
    };
    let InAws {
        domain,
        certificates,
        trusted,
        newest,
        mappings,
        stages,
        endpoints,
    } = aws;
    let path = path.to_owned();
    let now = Timestamp::now();
    Ok(Facts {
        now,
        object,
        domain,
        certificates,
        trusted,
        newest,
        dns,
        mappings,
        stages,
        endpoints,
        path,
        client,
        answer,
    })
}

async fn find(kubernetes: &kube::Client, own_namespace: &str, name: &str) -> anyhow::Result<MtlsDomain> {
    if let Some(id) = ObjectId::parse(name) {
        let api = Api::<MtlsDomain>::namespaced(kubernetes.clone(), &id.namespace);
        let found = api
            .get_opt(&id.name)
            .await
            .with_context(|| format!("the MtlsDomain {id}"))?;
        return found.with_context(|| format!("there is no MtlsDomain {id}"));
    }
    let by_name = ListParams::default().fields(&format!("spec.domainName={}", name.to_ascii_lowercase()));
    let everywhere = Api::<MtlsDomain>::all(kubernetes.clone()).list(&by_name).await;
    let all = match everywhere {
        Err(kube::Error::Api(refused)) if refused.code == 403 => {
            Api::<MtlsDomain>::namespaced(kubernetes.clone(), own_namespace)
                .list(&by_name)
                .await
        }
        other => other,
    };
    let mut all = all.context("the MtlsDomains")?.items;
    // Of several MtlsDomains the oldest has the name, as in the operator.
    all.sort_by_key(|d| (d.creation_timestamp().map(|at| at.0), d.namespace(), d.name_any()));
    let Some(found) = all.into_iter().next() else {
        bail!("there is no MtlsDomain for {name} that you may see; name it as NAMESPACE/NAME");
    };
    Ok(found)
}

fn object(domain: &MtlsDomain) -> Object {
    let conditions = domain
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .collect::<Vec<_>>();
    let says = |type_: ConditionType, status: &str| {
        let is = |c: &&&Condition| c.type_ == type_.as_str() && c.status == status;
        conditions
            .iter()
            .find(is)
            .map(|c| (c.reason.clone(), c.message.clone()))
    };
    Object {
        name: ObjectId::of(domain).to_string(),
        domain_name: domain.spec.domain_name.clone(),
        suspended: domain.spec.suspend,
        refused: says(ConditionType::Accepted, "False"),
        endpoint_kept: domain.spec.default_endpoint == DefaultEndpoint::Keep,
        bypass: says(ConditionType::BypassDetected, "True").map(|(_, message)| message),
    }
}

/// Returns the caller, and its identity for the call; neither as long as a ClientCertificate has no Secret.
async fn client(
    kubernetes: &kube::Client,
    caller: Caller,
) -> anyhow::Result<(Option<Client>, Option<ClientIdentity>)> {
    let (text, key, holder) = match caller {
        Caller::Nobody => return Ok((None, None)),
        Caller::Files { cert, key } => {
            let read =
                |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
            (Zeroizing::new(read(&cert)?), Zeroizing::new(read(&key)?), None)
        }
        Caller::Object(name) => {
            let id = ObjectId::parse(&name).context("write --certificate as NAMESPACE/NAME")?;
            let ObjectId { namespace, name } = &id;
            let what = format!("the ClientCertificate {id}");
            let api = Api::<ClientCertificate>::namespaced(kubernetes.clone(), namespace);
            let object = api.get_opt(name).await.with_context(|| what.clone())?;
            let object = object.with_context(|| format!("there is no ClientCertificate {id}"))?;
            let secret = object.spec.secret_name.as_deref().unwrap_or(name);
            let secrets = Api::<Secret>::namespaced(kubernetes.clone(), namespace);
            let found = secrets.get_opt(secret).await;
            let found = found.with_context(|| format!("the Secret {namespace}/{secret} of {what}"))?;
            let found = found.with_context(|| {
                format!(
                    "there is no Secret {namespace}/{secret} of {what} yet; kubectl describe \
                         clientcertificate says what the operator is waiting for"
                )
            })?;
            let data = found.data.unwrap_or_default();
            let bytes = |file: &str| {
                let bytes = data
                    .get(file)
                    .with_context(|| format!("the Secret {namespace}/{secret} has no {file}"))?;
                anyhow::Ok(Zeroizing::new(bytes.0.clone()))
            };
            let key = bytes("tls.key")
                .context("with spec.csr the key is not in the Secret: give both by --cert and --key")?;
            (bytes("tls.crt")?, key, Some(holder(&object)))
        }
    };
    let mut others = pem_certificates::certificates_beside_keys(&text).context("the client certificate")?;
    // PEM in the form that the TLS library reads.
    let (chain, key) = (
        others.iter().map(Certificate::to_pem).collect::<String>(),
        keys::alone(&key).context("the key")?,
    );
    let certificate = others.remove(0);
    let identity =
        ClientIdentity::new(&chain, &key).context("the client certificate and its key cannot be used")?;
    Ok((
        Some(Client {
            certificate,
            others,
            holder,
        }),
        Some(identity),
    ))
}

fn holder(certificate: &ClientCertificate) -> Holder {
    let ready = certificate
        .status
        .iter()
        .flat_map(|s| &s.conditions)
        .find(|c| c.type_ == ConditionType::Ready.as_str());
    Holder {
        name: ObjectId::of(certificate).to_string(),
        domain: certificate.domain_id().to_string(),
        unready: ready
            .filter(|c| c.status != "True")
            .map(|c| (c.reason.clone(), c.message.clone())),
    }
}

fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    file::parse(&text).with_context(|| path.display().to_string())
}

/// Facts from AWS, as in [`Facts`].
struct InAws {
    domain: Seen<Option<Domain>>,
    certificates: Seen<Vec<acm::Certificate>>,
    trusted: Seen<Option<Vec<Certificate>>>,
    newest: Seen<Option<String>>,
    mappings: Seen<Vec<Mapping>>,
    stages: BTreeMap<String, Seen<Option<Vec<String>>>>,
    endpoints: BTreeMap<String, Seen<Endpoint>>,
}

impl InAws {
    fn unseen(why: &str) -> InAws {
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

async fn in_aws(session: &Session, object: &MtlsDomain, probe: &EndpointProbe) -> InAws {
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

async fn certificates(session: &Session, host: &str, domain: Option<&Domain>) -> Seen<Vec<acm::Certificate>> {
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

async fn stages(session: &Session, api: &Seen<Option<apis::Api>>) -> Seen<Option<Vec<String>>> {
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

async fn dns(resolver: &PublicDns, host: &str, domain: &Domain) -> Seen<PublicName> {
    resolver
        .resolve(host, &domain.target.to_lowercase())
        .await
        .map_err(|error| error.to_string())
}

async fn call(
    outside: &ProbeOptions,
    identity: Option<ClientIdentity>,
    host: &str,
    path: &str,
) -> anyhow::Result<Answer> {
    Ok(match https::call(outside, identity, host, path).await? {
        Ok(status) => Answer::Status(status),
        Err(why) => Answer::None(why.to_owned()),
    })
}
