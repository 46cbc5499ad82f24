//! Checks of the facts: each is a function from the facts to findings with cause and remedy. Pure.

use serde::Serialize;

use super::facts::{Answer, Client, Endpoint, Facts};

use crate::{
    aws::{
        acm::CertificateStatus,
        gateway::{domains::DomainStatus, mappings::Mapping},
    },
    dns::plan::leads_to,
    pki::{
        certificate::Certificate,
        chain::{MAX_CHAIN, chain},
        lint,
    },
};

/// Problem that keeps callers out, or lets them bypass mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Code of the finding, as docs/troubleshooting.md lists it.
    pub what: &'static str,
    pub cause: String,
    pub remedy: String,
}

/// Returns all findings, the root cause first.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<_> = CHECKS.iter().flat_map(|check| check(facts)).collect();
    if found.is_empty() {
        found.extend(refused_otherwise(facts));
    }
    found
}

type Check = fn(&Facts) -> Vec<Finding>;

const CHECKS: &[Check] = &[
    object,
    holder,
    custom_domain,
    server_certificate,
    truststore,
    validity,
    trust,
    dns,
    mapping,
    bypass,
];

fn finding(what: &'static str, cause: impl Into<String>, remedy: impl Into<String>) -> Vec<Finding> {
    vec![Finding {
        what,
        cause: cause.into(),
        remedy: remedy.into(),
    }]
}

fn object(f: &Facts) -> Vec<Finding> {
    let name = &f.object.name;
    if f.object.suspended {
        return finding(
            "suspended",
            format!("the MtlsDomain {name} is suspended: later changes of the spec have no effect"),
            "set spec.suspend to false",
        );
    }
    match &f.object.refused {
        Some((reason, message)) => finding(
            "not-accepted",
            format!("the operator does not serve {name}: {reason}: {message}"),
            "fix the cause in the message; until then the spec has no effect",
        ),
        None => vec![],
    }
}

/// Checks the ClientCertificate that the certificate comes from.
fn holder(f: &Facts) -> Vec<Finding> {
    let Some(holder) = f.client.as_ref().and_then(|client| client.holder.as_ref()) else {
        return vec![];
    };
    let name = &holder.name;
    if holder.domain != f.object.name {
        return finding(
            "certificate-of-another-domain",
            format!(
                "the ClientCertificate {name} is for the MtlsDomain {}",
                holder.domain
            ),
            format!(
                "call with a ClientCertificate whose domainRef is {}",
                f.object.name
            ),
        );
    }
    match &holder.unready {
        Some((reason, message)) => finding(
            "client-certificate-not-ready",
            format!("the ClientCertificate {name} is not Ready: {reason}: {message}"),
            "wait until it is Ready, or fix the cause in the message",
        ),
        None => vec![],
    }
}

fn custom_domain(f: &Facts) -> Vec<Finding> {
    let name = &f.object.domain_name;
    let domain = match &f.domain {
        Err(_) => return vec![],
        Ok(None) => {
            return finding(
                "no-custom-domain",
                format!("API Gateway has no custom domain {name} in this account and Region"),
                format!(
                    "see in the conditions of {} what the operator is waiting for: \
                     kubectl describe mtlsdomain",
                    f.object.name
                ),
            );
        }
        Ok(Some(domain)) => domain,
    };
    let message = domain
        .status_message
        .as_ref()
        .map_or(String::new(), |message| format!(": {message}"));
    let mut found = match &domain.status {
        DomainStatus::Available => vec![],
        DomainStatus::Updating => finding(
            "domain-updating",
            format!(
                "API Gateway is changing {name}: callers get what was in force before, and now and then an \
                 error{message}"
            ),
            "wait; a change takes minutes as a rule",
        ),
        locked => finding(
            "domain-locked",
            format!("{name} is {} and takes no change{message}", locked.as_str()),
            "give it a certificate that fits: spec.serverCertificate.existing, or re-import into ACM; its \
             condition DomainProgrammed says which",
        ),
    };
    if domain.truststore.is_none() {
        found.extend(finding(
            "no-mutual-tls",
            format!("{name} does not require a client certificate: it has no truststore"),
            "see the condition DomainProgrammed for the reason",
        ));
    }
    found
}

fn server_certificate(f: &Facts) -> Vec<Finding> {
    let Ok(certificates) = &f.certificates else {
        return vec![];
    };
    let bad = certificates
        .iter()
        .filter(|c| c.status != CertificateStatus::Issued);
    let expired = certificates
        .iter()
        .filter(|c| c.status == CertificateStatus::Issued && c.not_after.is_some_and(|end| end <= f.now));
    let bad = bad.map(|c| {
        let why = c
            .failure
            .as_ref()
            .map_or(String::new(), |why| format!(" ({why})"));
        let missing: Vec<_> = c
            .validation
            .iter()
            .filter_map(|v| v.record.as_ref())
            .map(|(n, v)| format!("{n} CNAME {v}"))
            .collect();
        let remedy = match (&c.status, missing.is_empty()) {
            (CertificateStatus::PendingValidation, false) => {
                format!(
                    "make sure that public DNS has the records that ACM checks: {}",
                    missing.join(", ")
                )
            }
            _ => "see the condition CertificateIssued for what to do".to_owned(),
        };
        (
            c,
            format!("the server certificate {} is {}{why}", c.arn, c.status.as_str()),
            remedy,
        )
    });
    let expired = expired.map(|c| {
        let end = c.not_after.map(|end| end.to_string()).unwrap_or_default();
        let remedy = "have ACM renew it (its validation records must be in public DNS), or import its \
                      successor under the same ARN";
        (
            c,
            format!("the server certificate {} expired at {end}", c.arn),
            remedy.to_owned(),
        )
    });
    let all = bad.chain(expired);
    all.map(|(_, cause, remedy)| Finding {
        what: "server-certificate-not-issued",
        cause,
        remedy,
    })
    .collect()
}

fn truststore(f: &Facts) -> Vec<Finding> {
    let Some(used) = f
        .domain
        .iter()
        .flatten()
        .find_map(|domain| domain.truststore.as_ref())
    else {
        return vec![];
    };
    let mut found = vec![];
    if let (Ok(newest), Some(version)) = (&f.newest, &used.version)
        && newest.as_ref() != Some(version)
    {
        let newest = newest
            .as_ref()
            .map_or("the newest has been deleted".to_owned(), |newest| {
                format!("the newest is {newest}")
            });
        found.extend(finding(
            "truststore-stale",
            format!(
                "{} uses version {version} of {}, but {newest}: API Gateway reads a truststore only when \
                     the domain is changed",
                f.object.domain_name, used.uri
            ),
            "see the condition DomainProgrammed; a truststore written by hand has to match the spec, which \
             the operator restores",
        ));
    }
    if let Ok(None) = f.trusted {
        found.extend(finding(
            "truststore-gone",
            format!(
                "the version of {} that {} uses no longer exists",
                used.uri, f.object.domain_name
            ),
            "change the spec's trust, which makes the operator store a new version, and find out what \
             deletes versions (a lifecycle rule of the bucket)",
        ));
    }
    for warning in &used.warnings {
        found.extend(finding(
            "truststore-warning",
            format!("API Gateway reports for {}: {warning}", used.uri),
            "replace the reported certificate in spec.trust.authorities",
        ));
    }
    found
}

/// Checks the client's certificate, independent of the truststore.
fn validity(f: &Facts) -> Vec<Finding> {
    let Some(Client { certificate: c, .. }) = &f.client else {
        return vec![];
    };
    let mut found = vec![];
    if f.now >= c.not_after {
        found.extend(finding(
            "client-certificate-expired",
            format!("the client certificate {} expired at {}", c.subject, c.not_after),
            "give the caller a new one; a ClientCertificate renews itself, but the caller has to read its \
             Secret again",
        ));
    }
    if f.now < c.not_before {
        found.extend(finding(
            "client-certificate-not-yet-valid",
            format!(
                "the client certificate {} is valid from {} on",
                c.subject, c.not_before
            ),
            "wait, or correct the clock of the issuer",
        ));
    }
    if let Some((_, message)) = lint::weakness(c) {
        found.extend(finding(
            "client-certificate-weak",
            format!("the client certificate {} {message}", c.subject),
            "issue the caller another one",
        ));
    }
    found
}

/// Checks that the truststore in use trusts the client.
fn trust(f: &Facts) -> Vec<Finding> {
    let (Some(client), Ok(Some(trusted))) = (&f.client, &f.trusted) else {
        return vec![];
    };
    let c = &client.certificate;
    if c.self_signed && trusted.contains(c) {
        return vec![];
    }
    let issuers: Vec<_> = trusted.iter().filter(|issuer| c.is_issued_by(issuer)).collect();
    let Some(issuer) = issuers.iter().max_by_key(|issuer| issuer.not_after) else {
        return untrusted(f, client, trusted);
    };
    match chain(issuer, trusted) {
        Err(chain) => {
            let last = &chain[chain.len() - 1];
            finding(
                "chain-incomplete",
                format!(
                    "{} is trusted, but its chain stops at {}: {} is not in the truststore",
                    issuer.subject, last.subject, last.issuer
                ),
                format!(
                    "add {} to the authority in spec.trust.authorities, up to its root",
                    last.issuer
                ),
            )
        }
        Ok(chain) if chain.len() > MAX_CHAIN => finding(
            "chain-too-deep",
            format!(
                "from {} up to its root there are {} certificates, and API Gateway takes {MAX_CHAIN}",
                issuer.subject,
                chain.len()
            ),
            "have client certificates issued nearer to the root",
        ),
        Ok(chain) => chain
            .iter()
            .find(|link| f.now >= link.not_after)
            .map_or(vec![], |link| {
                finding(
                    "authority-expired",
                    format!(
                        "{} in the truststore, which the client certificate depends on, expired at {}",
                        link.subject, link.not_after
                    ),
                    "add its successor to spec.trust.authorities, and issue client certificates under that",
                )
            }),
    }
}

fn untrusted(f: &Facts, client: &Client, trusted: &[Certificate]) -> Vec<Finding> {
    let c = &client.certificate;
    let sent = client.others.iter().find(|other| c.is_issued_by(other));
    let leads_there = |issuer: &&Certificate| {
        let all: Vec<_> = trusted.iter().chain(&client.others).cloned().collect();
        let links = chain(issuer, &all).unwrap_or_else(|links| links);
        links.iter().any(|link| trusted.contains(link))
    };
    if let Some(issuer) = sent.filter(leads_there) {
        return finding(
            "issuer-not-in-truststore",
            format!(
                "the truststore has the root that {} leads to, but not {0} itself, which issued {}: what a \
                 client sends along does not count",
                issuer.subject, c.subject
            ),
            format!(
                "add the certificate of {} to spec.trust.authorities",
                issuer.subject
            ),
        );
    }
    if c.self_signed {
        return finding(
            "certificate-not-trusted",
            format!(
                "{} is self-signed and not in the truststore of {}",
                c.subject, f.object.domain_name
            ),
            "trust it: a ClientCertificate with issuance SelfSigned, or its PEM in spec.trust.authorities",
        );
    }
    let namesake = trusted.iter().find(|issuer| issuer.subject_key == c.issuer_key);
    if let Some(namesake) = namesake {
        return finding(
            "certificate-not-trusted",
            format!(
                "{} was issued by another key of {} than the one that is trusted",
                c.subject, namesake.subject
            ),
            "issue the caller another certificate; if the authority was created again under its old name, \
             give the new one another name and trust both",
        );
    }
    let names: Vec<_> = trusted.iter().map(|issuer| issuer.subject.as_str()).collect();
    finding(
        "certificate-not-trusted",
        format!(
            "{} was issued by {}, which is not in the truststore of {} ({})",
            c.subject,
            c.issuer,
            f.object.domain_name,
            names.join("; ")
        ),
        format!(
            "call with a certificate of this domain, or add {} to spec.trust.authorities: also when it is an \
             intermediate of one that is there",
            c.issuer
        ),
    )
}

fn dns(f: &Facts) -> Vec<Finding> {
    let (Some(domain), Ok(Some(found))) = (f.domain.iter().flatten().next(), &f.dns) else {
        return vec![];
    };
    let (name, target) = (&domain.name, domain.target.to_lowercase());
    if leads_to(found, &target) {
        return vec![];
    }
    let remedy = format!("point {name} at {target}; the condition DNSProgrammed says who has to do it");
    let elsewhere = found.cnames.first().cloned().or_else(|| {
        let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
        (!addresses.is_empty()).then(|| addresses.join(", "))
    });
    match elsewhere {
        None => finding("dns-missing", format!("DNS has no address for {name}"), remedy),
        Some(elsewhere) => finding(
            "dns-wrong",
            format!("DNS sends callers of {name} to {elsewhere} instead of {target}"),
            remedy,
        ),
    }
}

fn mapping(f: &Facts) -> Vec<Finding> {
    let Ok(mappings) = &f.mappings else { return vec![] };
    if !matches!(f.domain, Ok(Some(_))) {
        return vec![];
    }
    let Some(mapping) = mapped(mappings, &f.path) else {
        let paths: Vec<_> = mappings.iter().map(|m| format!("{:?}", m.path)).collect();
        let there = if paths.is_empty() {
            "none".to_owned()
        } else {
            paths.join(", ")
        };
        return finding(
            "mapping-missing",
            format!(
                "no API mapping of {} takes the path {} (there are: {there})",
                f.object.domain_name, f.path
            ),
            "add one to spec.mappings (path \"\" takes everything), or call another path",
        );
    };
    let Mapping {
        path, api_id, stage, ..
    } = mapping;
    let missing = match f.stages.get(api_id) {
        Some(Ok(None)) => format!("the API {api_id}"),
        Some(Ok(Some(stages))) if !stages.contains(stage) => format!("the stage {stage} of {api_id}"),
        _ => return vec![],
    };
    finding(
        "mapped-api-missing",
        format!("the mapping {path:?} leads to {missing}, which does not exist"),
        "create it, or map another in spec.mappings",
    )
}

/// Returns the mapping that matches the path: the longest whose segments begin the path.
fn mapped<'a>(mappings: &'a [Mapping], path: &str) -> Option<&'a Mapping> {
    let path = path.split('?').next().unwrap_or_default().trim_matches('/');
    let takes = |m: &&Mapping| {
        m.path.is_empty()
            || path
                .strip_prefix(&m.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    mappings.iter().filter(takes).max_by_key(|m| m.path.len())
}

fn bypass(f: &Facts) -> Vec<Finding> {
    let mut found = vec![];
    for (id, endpoint) in &f.endpoints {
        let (cause, remedy) = match endpoint {
            Err(_) | Ok(Endpoint::Closed) => continue,
            Ok(Endpoint::Open) if f.object.endpoint_kept => (
                "is open: spec.defaultEndpoint is Keep".to_owned(),
                "set spec.defaultEndpoint to Disable if no caller needs the endpoint",
            ),
            Ok(Endpoint::Open) => (
                "is open".to_owned(),
                "see the condition BypassClosed: the operator disables the endpoint once the domain's own \
                 name works",
            ),
            Ok(Endpoint::Answers(status)) => (
                format!("is set to disabled, but still answers with status {status}"),
                "deploy the API's stages, or set spec.restDeployment to Allow",
            ),
        };
        found.extend(finding(
            "bypass-open",
            format!("the execute-api endpoint of {id}, which does not require a client certificate, {cause}"),
            remedy,
        ));
    }
    if let Some(message) = &f.object.bypass {
        found.extend(finding(
            "bypass-open",
            message.clone(),
            "give that custom domain mutual TLS, or remove its mapping to this API",
        ));
    }
    found
}

/// Reports a refusal that no other check explains.
fn refused_otherwise(f: &Facts) -> Vec<Finding> {
    match (&f.answer, &f.client) {
        (Answer::Status(403), Some(_)) => finding(
            "refused-behind-mutual-tls",
            "no problem is visible in the certificate and the truststore, and yet the answer is 403",
            "check what is behind mutual TLS: a resource policy, an authorizer, an API key, AWS WAF or the \
             back end refuses; REST APIs also answer 403 for a path or method that they do not have",
        ),
        (Answer::Status(404), Some(_)) => finding(
            "no-route",
            format!("mutual TLS accepts the caller, but nothing answers at {}", f.path),
            "check the routes of the mapped API, or call another path with --path",
        ),
        (Answer::Status(status), None) => finding(
            "no-mutual-tls",
            format!(
                "{} answers a caller without a certificate, with status {status}",
                f.object.domain_name
            ),
            "make sure that DNS and --probe-connect-to lead to API Gateway itself",
        ),
        (Answer::None(why), Some(_)) => finding(
            "no-answer",
            format!("{} does not answer: {why}", f.object.domain_name),
            "check the path from here to API Gateway: DNS, proxies, firewalls; a new domain takes some \
             minutes",
        ),
        _ => vec![],
    }
}
