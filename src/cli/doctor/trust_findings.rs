//! Checks of the truststore and of the client's certificate against it. Pure.

use super::{
    facts::{Client, Facts},
    finding::{Finding, finding},
};

use crate::pki::{
    certificate::Certificate,
    chain::{MAX_CHAIN, chain},
    lint,
};

pub(crate) fn truststore(f: &Facts) -> Vec<Finding> {
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
pub(crate) fn validity(f: &Facts) -> Vec<Finding> {
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
pub(crate) fn trust(f: &Facts) -> Vec<Finding> {
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
