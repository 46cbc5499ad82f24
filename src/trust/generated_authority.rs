//! Ownership of the Secret of a generated authority, and the record of its key on the MtlsDomain. Pure.
//!
//! Any user who may create Secrets can give one the name of a generated authority, even before the authority
//! is added. So neither name nor labels suffice: the key has to be on record.

use std::collections::BTreeMap;

use kube::{Resource, ResourceExt};

use crate::{
    model::{
        authorities::{DesiredAuthority, DesiredSource},
        desired::Desired,
        front::managed,
        observed::{CanIssue, Observed, Source},
    },
    observation::seen::Unseen,
    pki::{
        authority::{self, AuthorityRequest},
        certificate::Certificate,
        digest::sha256,
        truststore::{Entry, identity},
    },
};

/// Label on the Secret of a generated authority: the MtlsDomain that the Secret belongs to.
pub const DOMAIN_LABEL: &str = "mtls-operator.io/domain";
/// Label on the Secret of a generated authority: the authority's name.
pub const AUTHORITY_LABEL: &str = "mtls-operator.io/authority";

/// Prefix of the annotations that record generated keys.
const RECORD: &str = "mtls-operator.io/generated.";
/// Characters of an annotation's name that are left for the authority's name (of 63).
const ROOM: usize = 53;
/// Characters of a hash that distinguishes long names.
const HASH: usize = 10;

/// Annotation on an MtlsDomain whose value is the SHA-256 (lower-case hexadecimal) of the public key (DER
/// SubjectPublicKeyInfo) that the operator generated for an authority. A name of more than 53 characters is
/// cut to 42 characters, followed by a dot, which no authority name contains, and the first 10 digits of the
/// name's SHA-256.
pub fn annotation(authority: &str) -> String {
    if authority.len() <= ROOM {
        return format!("{RECORD}{authority}");
    }
    format!(
        "{RECORD}{}.{}",
        &authority[..ROOM - HASH - 1],
        &sha256(authority.as_bytes())[..HASH]
    )
}

/// Returns the recorded keys of the generated authorities, by the authority's name.
pub fn recorded(domain: &impl Resource, authorities: &[DesiredAuthority]) -> BTreeMap<String, String> {
    let generated = authorities
        .iter()
        .filter(|wanted| matches!(wanted.source, DesiredSource::Generated { .. }));
    let record = |wanted: &DesiredAuthority| domain.annotations().get(&annotation(&wanted.name)).cloned();
    generated
        .filter_map(|wanted| Some((wanted.name.clone(), record(wanted)?)))
        .collect()
}

/// Returns the labels of the Secret of an authority.
pub fn labels(domain: &str, authority: &str) -> BTreeMap<String, String> {
    [(DOMAIN_LABEL, domain), (AUTHORITY_LABEL, authority)]
        .map(|(label, value)| (label.into(), value.into()))
        .into()
}

/// Succeeds when a Secret has the labels of that authority; `Err` says which labels it lacks.
pub fn is_labelled(found: &BTreeMap<String, String>, domain: &str, authority: &str) -> Result<(), String> {
    let wanted = labels(domain, authority);
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(key, value)| found.get(*key) != Some(value))
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("it lacks the label {}", missing.join(" and ")))
    }
}

/// Ownership of the Secret of a generated authority.
#[derive(Clone, Debug, PartialEq)]
pub enum Ownership<'o> {
    /// The operator owns the Secret, or there is no Secret, or none with usable content.
    Ours,
    /// Another party owns the Secret; the text gives the evidence.
    NotOurs(String),
    /// The truststore, which may prove the ownership, could not be read.
    Unknown(&'o Unseen),
}

/// Returns the ownership of the Secret of this authority. Other kinds of authorities count as
/// [`Ownership::Ours`].
pub fn ownership<'o>(d: &Desired, o: &'o Observed, wanted: &DesiredAuthority) -> Ownership<'o> {
    let DesiredSource::Generated { request, .. } = &wanted.source else {
        return Ownership::Ours;
    };
    let (certificates, beside) = match o.authorities.get(&wanted.name) {
        Some(Source::NotOwned(why)) => return Ownership::NotOurs(why.clone()),
        Some(Source::Read {
            certificates: Ok(own),
            completing,
            can_issue: CanIssue::Yes | CanIssue::No,
        }) => (own, completing),
        _ => return Ownership::Ours,
    };
    // A certificate of the operator's key that another authority signed would add that authority's
    // certificate.
    let certificates = [&certificates[..], beside.as_deref().unwrap_or_default()].concat();
    match is_ours(
        &certificates,
        &wanted.name,
        request,
        o.recorded.get(&wanted.name),
        trusted(d, o),
    ) {
        Ok(()) => Ownership::Ours,
        Err(why) => match o.published.as_ref().err().or(o.pinned.as_ref().err()) {
            Some(unseen) => Ownership::Unknown(unseen),
            None => Ownership::NotOurs(why),
        },
    }
}

/// Returns the entries of the truststores that the operator published or that its domain uses, as far as they
/// can be read.
pub fn trusted<'o>(d: &Desired, o: &'o Observed) -> Vec<&'o Entry> {
    let is_ours = |owner: &Option<String>| owner.as_ref() == Some(&d.placement.owner);
    let published = o
        .published
        .iter()
        .flatten()
        .filter(|p| is_ours(&p.owner))
        .map(|p| &p.bundle);
    let used = managed(&o.front).is_ok();
    let pinned = o
        .pinned
        .iter()
        .flatten()
        .filter(|p| used || is_ours(&p.owner))
        .map(|p| &p.bundle);
    published
        .chain(pinned)
        .flat_map(|bundle| &bundle.entries)
        .collect()
}

/// Succeeds when the certificates of a labelled Secret are the operator's; `Err` says why not. `record`: the
/// recorded key. `trusted`: the entries of the operator's truststores.
pub fn is_ours<'e>(
    certificates: &[Certificate],
    authority: &str,
    request: &AuthorityRequest,
    record: Option<&String>,
    trusted: impl IntoIterator<Item = &'e Entry>,
) -> Result<(), String> {
    let Some(first) = certificates.first() else {
        return Err("it has no certificate".to_owned());
    };
    authority::is_as_asked(first, request)?;
    // The entries `tls.crt` and `ca.crt` are the same.
    if certificates.iter().any(|other| other != first) {
        return Err("it has other certificates beside the authority's".to_owned());
    }
    let stands = |e: &Entry| e.authority == authority && identity(&e.certificate) == identity(first);
    if record == Some(&first.spki_sha256) || trusted.into_iter().any(stands) {
        return Ok(());
    }
    Err(format!(
        "its key differs from the key that the annotation {} records, and it is not in the truststore for \
         this authority",
        annotation(authority)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use crate::pki::{
        authority::{
            AuthorityRequest, generate,
            tests::{at, request},
        },
        certificate::Certificate,
        pem_certificates::parse_pem_bundle,
        truststore::Entry,
    };

    fn made(request: &AuthorityRequest) -> Certificate {
        parse_pem_bundle(
            &generate(request, at("2026-11-24T12:00:00Z"))
                .unwrap()
                .certificate_pem,
        )
        .unwrap()
        .remove(0)
    }

    fn entry(authority: &str, certificate: &Certificate) -> Entry {
        Entry {
            authority: authority.into(),
            certificate: certificate.clone(),
            max_leaf: None,
            keep_until: None,
        }
    }

    #[test]
    fn annotations_are_valid_and_distinguish_all_names() {
        let long = |last: char| format!("{}{last}", "a-".repeat(31));
        assert_eq!(annotation("next"), "mtls-operator.io/generated.next");
        let names = [
            long('a'),
            long('b'),
            "x".repeat(ROOM),
            "x".repeat(ROOM + 1),
            "x".repeat(63),
        ];
        let mut seen: Vec<_> = names.iter().map(|name| annotation(name)).collect();
        for annotation in &seen {
            let (_, name) = annotation.split_once('/').unwrap();
            assert!(
                name.len() <= 63 && name.ends_with(|c: char| c.is_ascii_alphanumeric()),
                "{name}"
            );
        }
        assert_eq!(
            annotation(&"x".repeat(ROOM)),
            format!("{RECORD}{}", "x".repeat(53)),
            "53 characters fit"
        );
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), names.len());
    }

    #[test]
    fn labels_have_to_match_the_authority_and_the_domain() {
        let with =
            |domain: &str, authority: &str| is_labelled(&labels(domain, authority), "partners", "next");
        assert_eq!(with("partners", "next"), Ok(()));
        assert_eq!(
            with("partners", "main"),
            Err("it lacks the label mtls-operator.io/authority=next".into())
        );
        assert_eq!(
            with("others", "next"),
            Err("it lacks the label mtls-operator.io/domain=partners".into())
        );
        assert!(
            is_labelled(&BTreeMap::new(), "partners", "next")
                .unwrap_err()
                .contains(" and ")
        );
    }

    #[test]
    fn a_secret_is_owned_when_it_is_as_requested_and_its_key_is_on_record() {
        let asked = request("Partners 2027");
        let [ours, twin] = [made(&asked), made(&asked)];
        let check = |certificates: &[&Certificate], record: Option<&Certificate>, trusted: &[Entry]| {
            let certificates: Vec<_> = certificates.iter().map(|c| (*c).clone()).collect();
            let record = record.map(|c| c.spki_sha256.clone());
            is_ours(&certificates, "next", &asked, record.as_ref(), trusted)
                .err()
                .unwrap_or_default()
        };
        assert_eq!(check(&[&ours, &ours], Some(&ours), &[]), "");
        assert_eq!(check(&[&ours], None, &[entry("next", &ours)]), "");
        assert_eq!(
            check(&[&ours], Some(&twin), &[entry("next", &ours)]),
            "",
            "the recorded key is of a failed attempt"
        );
        for (certificates, record, trusted, why) in [
            (&[&ours][..], None, vec![], "its key differs"),
            (&[&ours], Some(&twin), vec![], "its key differs"),
            (&[&ours], None, vec![entry("main", &ours)], "its key differs"),
            (&[&ours], None, vec![entry("next", &twin)], "its key differs"),
            (&[&ours, &twin], Some(&ours), vec![], "other certificates"),
            (&[], Some(&ours), vec![], "no certificate"),
        ] {
            let said = check(certificates, record, &trusted);
            assert!(said.contains(why), "{said}");
        }
        let other = made(&request("Mallory"));
        assert!(check(&[&other], Some(&other), &[entry("next", &other)]).contains("its subject"));
        // Certificates with the right name, most of which allow authorities below them.
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Partners 2027");
        for (constraint, why) in [
            (
                rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
                "path length 0",
            ),
            (
                rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(1)),
                "path length 0",
            ),
            (rcgen::IsCa::ExplicitNoCa, "path length 0"),
            (rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0)), ""),
        ] {
            params.is_ca = constraint;
            let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            let certificate = Certificate::from_der(certificate.der()).unwrap();
            let said = check(&[&certificate], Some(&certificate), &[]);
            assert!(
                if why.is_empty() {
                    said.is_empty()
                } else {
                    said.contains(why)
                },
                "{said}"
            );
        }
    }
}
