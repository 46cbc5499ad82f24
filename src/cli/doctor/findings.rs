//! Checks of the facts: each is a function from the facts to findings with cause and remedy. Pure.

use super::{
    facts::{Answer, Endpoint, Facts},
    finding::{Finding, finding},
    trust_findings::{trust, truststore, validity},
};

use crate::{
    aws::{
        acm::CertificateStatus,
        gateway::{domains::DomainStatus, mappings::Mapping},
    },
    dns::plan::leads_to,
};

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
