//! Private key of the next certificate, when the operator has that key already: staged for a request, or kept
//! from the previous certificate. Pure.

use rcgen::PublicKeyData;

use super::{desired::Desired, observed::Observed};

use crate::pki::{
    form,
    keys::{self, DesiredKey, KeyKind},
};

/// Returns the private key of the next certificate when the operator has that key already.
pub(crate) fn known_key(d: &Desired, o: &Observed) -> Option<Vec<u8>> {
    staged_key(d, o).or_else(|| own_key(d, o))
}

/// Returns the private key of the request that the issuer may have; `None` when the issuer has none for the
/// next certificate.
pub(crate) fn staged_key(d: &Desired, o: &Observed) -> Option<Vec<u8>> {
    let DesiredKey::Made { kind, .. } = &d.key else {
        return None;
    };
    let next = o.next.as_ref().filter(|next| next.ours && !d.self_signed)?;
    let pem = next.data.tls_key.as_ref()?;
    let fits = keys::parse(pem).is_ok_and(|key| KeyKind::of(&key) == Some(*kind));
    (fits && next.revision == o.revision() + 1).then(|| pem.clone())
}

/// Returns the private key in the Secret, for `rotationPolicy: Never`, when an issued certificate is for this
/// key. Without that check, a writer of the Secret could replace the key with a key of its own and have that
/// key certified.
fn own_key(d: &Desired, o: &Observed) -> Option<Vec<u8>> {
    if !matches!(d.key, DesiredKey::Made { keep: true, .. }) {
        return None;
    }
    let held = o.secret.as_ref().filter(|s| s.ours)?;
    let (leaf, pem) = (held.leaf()?, held.data.tls_key.as_ref()?);
    let is_vouched_for = match &o.issuer {
        Ok(Some(issuer)) => {
            leaf.is_issued_by(issuer.chain().authority())
                || o.trust.as_ref().is_some_and(|trust| trust.has_issued(&leaf))
        }
        Ok(None) => form::signed_itself(&leaf).is_ok(),
        Err(_) => false,
    };
    let key = keys::parse(std::str::from_utf8(pem).ok().filter(|_| is_vouched_for)?).ok()?;
    (key.subject_public_key_info() == leaf.spki_der()).then(|| pem.clone())
}
