//! Reads the facts for the doctor: the MtlsDomain and the client's certificate in Kubernetes or in files, the
//! domain and its dependencies in AWS, its name in DNS, and its answer to a call. Only reads.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Api, ResourceExt, api::ListParams};
use rcgen::PublicKeyData;
use zeroize::Zeroizing;

use super::{
    facts::{Answer, Client, Facts, Holder, Object},
    gather_aws::{InAws, dns, in_aws},
};

use crate::{
    api::{ClientCertificate, DefaultEndpoint, MtlsDomain, conditions::ConditionType, object_id::ObjectId},
    aws::{call_guard::Gate, quota::Quota, rates::Rates, session::Sessions},
    model::placement::access,
    pki::{certificate::Certificate, keys, pem_certificates},
    policy::{Policy, file},
    probe::{
        https::{self, ClientIdentity, EndpointProbe, ProbeOptions},
        public_dns::PublicDns,
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

pub(crate) fn object(domain: &MtlsDomain) -> Object {
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
    // A file may have the issuers first, as bundles of some authorities have them.
    let own = keys::parse(&key).ok().map(|key| key.subject_public_key_info());
    if let Some(at) = own.and_then(|own| others.iter().position(|c| c.has_key(&own))) {
        others[..=at].rotate_right(1);
    }
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

pub(crate) async fn call(
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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{
        pki::authority::{generate, tests::request},
        runtime::fake,
    };

    #[tokio::test]
    async fn the_caller_is_the_certificate_of_the_key_wherever_it_stands() {
        let now = Timestamp::now();
        let [own, other] = ["own", "other"].map(|name| generate(&request(name), now).unwrap());
        let kubernetes = fake::client(|_, _, _| fake::refusal(404, "NotFound"));
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("crt"), dir.path().join("key"));
        std::fs::write(&key, &*own.key_pem).unwrap();
        let (own, other) = (own.certificate_pem, other.certificate_pem);
        for text in [
            format!("{own}{other}"),
            format!("{other}{own}"),
            format!("{other}{own}{other}"),
        ] {
            std::fs::write(&cert, text).unwrap();
            let files = Caller::Files {
                cert: cert.clone(),
                key: key.clone(),
            };
            let (client, identity) = client(&kubernetes, files).await.unwrap();
            let client = client.unwrap();
            assert_eq!(client.certificate.subject, "CN=own");
            assert!(client.others.iter().all(|other| other.subject == "CN=other"));
            assert!(identity.is_some());
        }
    }
}
