//! Inspection of a client certificate's Secret: a list of rules, each pure. The first broken rule is the
//! reason to issue again.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::{SignedDuration, Timestamp};
use rcgen::PublicKeyData;

use super::{
    authority::{AuthorityChain, CLOCK_SLACK, earlier, later},
    certificate::Certificate,
    form,
    keys::{self, DesiredKey, Encoding, KeyKind},
    leaf::{LeafRequest, subject_der},
    pem,
    pem_certificates::parse_pem_bundle,
};

/// Least time between two certificates of one object, whatever their lifetime.
const LEAST_INTERVAL: SignedDuration = SignedDuration::from_mins(5);

/// Data of a leaf's Secret, as far as it is there. Has no Debug: it holds a private key.
#[derive(Clone, Default)]
pub struct SecretData {
    pub tls_crt: Option<Vec<u8>>,
    pub tls_key: Option<Vec<u8>>,
    pub ca_crt: Option<Vec<u8>>,
}

/// Input of [`needs_issue`].
pub struct Inspection<'a> {
    /// Data of the Secret; `None`: there is no Secret.
    pub secret: Option<&'a SecretData>,
    pub request: &'a LeafRequest,
    pub key: &'a DesiredKey,
    /// Issuer of the leaf; `None`: the leaf signs itself.
    pub issuer: Option<&'a AuthorityChain>,
    pub renew_before: RenewBefore,
    /// True when a user asked for a renewal that has not happened yet.
    pub renewal_asked: bool,
    pub now: Timestamp,
}

/// Time of renewal, from `spec.renewBefore` and `spec.renewBeforePercentage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewBefore {
    /// Renews when a third of the lifetime is left.
    Unset,
    /// Renews this long before the end. A duration as long as the certificate's lifetime or longer counts as
    /// `Unset`, else the renewal would never stop.
    Duration(SignedDuration),
    /// Renews when this percentage of the lifetime is left (1 to 99; any other value counts as `Unset`).
    Percentage(u8),
}

/// Broken rule: the certificate has to be issued again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: Reason,
    /// Message for people; holds neither time nor counter.
    pub message: String,
}

/// Reasons in the order of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    SecretMissing,
    DataMissing,
    Damaged,
    KeyMismatch,
    /// The key is of another kind, or in another encoding, than the spec says.
    KeyDiffers,
    SubjectDiffers,
    DurationDiffers,
    /// The current authority did not issue the leaf, or issued it with its previous key.
    IssuerDiffers,
    /// `ca.crt` or the intermediates in `tls.crt` are not the issuer's current chain.
    ChainDiffers,
    /// No release of the operator would have issued the certificate: it is forged, or another holder of the
    /// issuer's key made it.
    FormDiffers,
    Expired,
    RenewalAsked,
    RenewalDue,
}

impl Reason {
    /// True when the leaf matches the spec and is still good: it stays usable while the operator cannot get
    /// the next one.
    pub fn is_renewal(self) -> bool {
        matches!(self, Reason::RenewalAsked | Reason::RenewalDue)
    }
}

/// Returns the reason why the Secret needs a new certificate; `None` when it holds the right one.
pub fn needs_issue(inspection: &Inspection<'_>) -> Option<Violation> {
    let found = match Found::read(inspection.secret, inspection.key) {
        Ok(found) => found,
        Err(violation) => return Some(violation),
    };
    RULES.iter().find_map(|rule| rule(inspection, &found))
}

type Rule = fn(&Inspection<'_>, &Found) -> Option<Violation>;

const RULES: &[Rule] = &[
    key_does_not_match,
    key_is_of_another_kind,
    subject_differs,
    duration_differs,
    issuer_differs,
    chain_differs,
    form_differs,
    expired,
    renewal_is_asked_for,
    renewal_is_due,
];

fn broken(reason: Reason, message: impl Into<String>) -> Option<Violation> {
    Some(Violation {
        reason,
        message: message.into(),
    })
}

/// Content of a Secret, parsed. Parsing covers the first three reasons.
struct Found {
    leaf: Certificate,
    intermediates: Vec<Certificate>,
    ca: Vec<Certificate>,
    /// DER SubjectPublicKeyInfo of the private key, or of the CSR.
    spki: Vec<u8>,
    /// Kind and encoding of a private key that the operator generates; the kind is `None` for other kinds of
    /// keys.
    private: Option<(Option<KeyKind>, Option<Encoding>)>,
}

impl Found {
    fn read(secret: Option<&SecretData>, key: &DesiredKey) -> Result<Found, Violation> {
        let fail = |reason, message: String| Violation { reason, message };
        let secret =
            secret.ok_or_else(|| fail(Reason::SecretMissing, "there is no Secret yet".to_owned()))?;
        fn data<'a>(name: &str, data: &'a Option<Vec<u8>>) -> Result<&'a [u8], Violation> {
            let broken = |reason, message| Err(Violation { reason, message });
            match data {
                // Programs that mount the Secret may read fewer shapes of PEM.
                Some(data) if !pem::is_plain(data) => broken(
                    Reason::Damaged,
                    format!("{name} is PEM in a shape that not every program reads"),
                ),
                Some(data) if !data.is_empty() => Ok(data),
                _ => broken(Reason::DataMissing, format!("the Secret has no {name}")),
            }
        }
        let (tls_crt, ca_crt) = (data("tls.crt", &secret.tls_crt)?, data("ca.crt", &secret.ca_crt)?);
        let (spki, private) = match key {
            DesiredKey::Requested { spki } => (spki.clone(), None),
            DesiredKey::Made { .. } => {
                let pem = data("tls.key", &secret.tls_key)?;
                let key =
                    keys::parse(pem).map_err(|error| fail(Reason::Damaged, format!("tls.key: {error}")))?;
                (
                    key.subject_public_key_info(),
                    Some((KeyKind::of(&key), keys::encoding_of(pem))),
                )
            }
        };
        let certificates = |name: &str, text: &[u8]| {
            parse_pem_bundle(text).map_err(|error| fail(Reason::Damaged, format!("{name}: {error}")))
        };
        let mut intermediates = certificates("tls.crt", tls_crt)?;
        Ok(Found {
            leaf: intermediates.remove(0),
            intermediates,
            ca: certificates("ca.crt", ca_crt)?,
            spki,
            private,
        })
    }
}

fn key_does_not_match(_: &Inspection<'_>, found: &Found) -> Option<Violation> {
    if found.spki == found.leaf.spki_der() {
        return None;
    }
    let whose = if found.private.is_some() {
        "tls.key"
    } else {
        "the key of spec.csr"
    };
    broken(
        Reason::KeyMismatch,
        format!("{whose} is not the key of the certificate in tls.crt"),
    )
}

fn key_is_of_another_kind(inspection: &Inspection<'_>, found: &Found) -> Option<Violation> {
    let (DesiredKey::Made { kind, encoding, .. }, Some(private)) = (inspection.key, found.private) else {
        return None;
    };
    if private.0 != Some(*kind) {
        return broken(
            Reason::KeyDiffers,
            format!("the spec asks for a key of kind {kind}"),
        );
    }
    if private.1 != Some(*encoding) {
        return broken(
            Reason::KeyDiffers,
            "the spec asks for another encoding of the key",
        );
    }
    None
}

fn subject_differs(inspection: &Inspection<'_>, found: &Found) -> Option<Violation> {
    let (request, leaf) = (inspection.request, &found.leaf);
    if subject_der(request).ok().as_ref() != Some(&leaf.subject_der) {
        return broken(
            Reason::SubjectDiffers,
            format!("the spec asks for another subject than {}", leaf.subject),
        );
    }
    let pairs = [
        (&request.dns_names, &leaf.dns_names),
        (&request.uris, &leaf.uris),
        (&request.email_addresses, &leaf.email_addresses),
    ];
    if leaf.other_names || pairs.iter().any(|(asked, there)| sorted(asked) != sorted(there)) {
        return broken(
            Reason::SubjectDiffers,
            "the spec asks for other subject alternative names",
        );
    }
    None
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    sorted
}

/// Compares the end of validity with the end of a certificate issued at the same moment. The operator knows
/// that moment only to within the clock slack (a young issuer's own beginning cuts it), so smaller changes go
/// unnoticed.
fn duration_differs(inspection: &Inspection<'_>, found: &Found) -> Option<Violation> {
    let asked = |from: Timestamp| inspection.request.end(from, inspection.issuer);
    let second = SignedDuration::from_secs(1);
    let earliest = earlier(asked(found.leaf.not_before), second);
    let latest = later(asked(later(found.leaf.not_before, CLOCK_SLACK)), second);
    if (earliest..=latest).contains(&found.leaf.not_after) {
        return None;
    }
    broken(Reason::DurationDiffers, "the spec asks for another duration")
}

fn issuer_differs(inspection: &Inspection<'_>, found: &Found) -> Option<Violation> {
    match inspection.issuer.map(AuthorityChain::authority) {
        Some(authority) if !found.leaf.is_issued_by(authority) => broken(
            Reason::IssuerDiffers,
            format!(
                "the issuing authority is {} with another key or name",
                authority.subject
            ),
        ),
        None if !found.leaf.self_signed => {
            broken(Reason::IssuerDiffers, "the certificate is not self-signed")
        }
        _ => None,
    }
}

fn chain_differs(inspection: &Inspection<'_>, found: &Found) -> Option<Violation> {
    let (chain, intermediates) = match inspection.issuer {
        Some(issuer) => (issuer.certificates(), issuer.intermediates()),
        None => (std::slice::from_ref(&found.leaf), &[][..]),
    };
    if found.ca != chain {
        return broken(
            Reason::ChainDiffers,
            "ca.crt is not the issuing authority's current chain",
        );
    }
    if found.intermediates != intermediates {
        return broken(
            Reason::ChainDiffers,
            "the intermediates in tls.crt are not the issuing authority's",
        );
    }
    None
}

fn form_differs(inspection: &Inspection<'_>, found: &Found) -> Option<Violation> {
    let Inspection {
        request, issuer, now, ..
    } = inspection;
    let compared = match issuer {
        Some(issuer) => form::issued_for(&found.leaf, request, issuer, *now),
        None => form::signed_itself_for(&found.leaf, request, *now),
    };
    let mismatch = compared.err()?;
    broken(
        Reason::FormDiffers,
        format!("the certificate in tls.crt is not one that the operator issued: {mismatch}"),
    )
}

fn expired(inspection: &Inspection<'_>, found: &Found) -> Option<Violation> {
    if inspection.now < found.leaf.not_after {
        return None;
    }
    broken(Reason::Expired, "the certificate has expired")
}

fn renewal_is_asked_for(inspection: &Inspection<'_>, _: &Found) -> Option<Violation> {
    inspection.renewal_asked.then(|| Violation {
        reason: Reason::RenewalAsked,
        message: "an annotation asks for a renewal".to_owned(),
    })
}

fn renewal_is_due(inspection: &Inspection<'_>, found: &Found) -> Option<Violation> {
    if inspection.now < renewal_time(&found.leaf, inspection.renew_before) {
        return None;
    }
    // Near the end of an authority, or of a grant, a new leaf would not live longer: its renewal would never
    // stop.
    let renewed = inspection.request.end(inspection.now, inspection.issuer);
    if renewed.as_second() <= found.leaf.not_after.as_second() {
        return None;
    }
    broken(Reason::RenewalDue, "the certificate is due for renewal")
}

/// Returns the least time between two certificates of one object, for certificates with this lifetime: 5
/// minutes, or a hundredth of the lifetime when that is longer. Otherwise a spec could have the operator
/// renew without end, and the domain would accept thousands of certificates of one caller.
pub fn least_interval(life: SignedDuration) -> SignedDuration {
    LEAST_INTERVAL.max(life / 100)
}

/// Returns the time to renew a certificate: `renew_before` its end, and up to 1% of its lifetime earlier, but
/// not before [`least_interval`] has passed since its issue. The serial decides how much earlier, so that
/// certificates of one day do not all renew in one minute, and the result is always the same.
pub fn renewal_time(certificate: &Certificate, renew_before: RenewBefore) -> Timestamp {
    let end = certificate.not_after;
    let life = end.duration_since(certificate.not_before);
    // The certificate was issued this long after its beginning, unless a young issuer cut that.
    let life = if life > CLOCK_SLACK {
        life - CLOCK_SLACK
    } else {
        life
    };
    let third = life / 3;
    let before = match renew_before {
        RenewBefore::Duration(before) if before.is_positive() && before < life => before,
        RenewBefore::Percentage(percent) if (1..=99).contains(&percent) => life / 100 * i32::from(percent),
        _ => third,
    };
    let digest = digest(&SHA256, certificate.serial.as_bytes());
    let share = u32::from(digest.as_ref()[0]) << 8 | u32::from(digest.as_ref()[1]); // of 65,536
    let jitter = SignedDuration::from_secs(life.as_secs() / 100 * i64::from(share) / 65_536);
    let start = earlier(end, life);
    let least = later(start, least_interval(life)).min(end);
    earlier(end, before + jitter)
        .max(later(start, (life - before) / 2))
        .max(least)
}

#[cfg(test)]
pub(crate) mod tests;
