//! Verification of client certificates as API Gateway does it, and the fields that API Gateway passes on.
//! Pure: bytes and a time in, a result out.

use std::cmp::Ordering;

use openssl::asn1::{Asn1IntegerRef, Asn1Time};
use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509NameRef, X509Ref, X509StoreContext, X509VerifyResult};

/// Maximum number of CA certificates in a chain, including the root. API Gateway Developer Guide,
/// "Configuring your truststore".
const LONGEST_CHAIN: usize = 4;
/// OpenSSL's security level that requires at least RSA-2048 and SHA-256, as the same page does.
const SECURITY_LEVEL: i32 = 2;

/// Returns the readable certificates of a truststore: API Gateway warns about the others and goes on.
#[must_use]
pub fn certificates(pem: &str) -> Vec<X509> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .filter_map(|block| {
            X509::from_pem(&block.as_bytes()[block.find("-----BEGIN CERTIFICATE-----")?..]).ok()
        })
        .collect()
}

/// Verifies a client certificate at a time (seconds since 1970) as `openssl verify -partial_chain -auth_level
/// 2` does. Trusts only certificates of the truststore with a complete chain in it that is not too long.
/// Further certificates that the client sends do not count.
///
/// # Errors
/// OpenSSL itself fails; a bad certificate is a result, not an error.
pub fn judge(truststore: &[X509], leaf: &X509Ref, at: i64) -> Result<X509VerifyResult, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    for anchor in truststore
        .iter()
        .filter(|cert| chain_is_whole(cert, truststore, LONGEST_CHAIN))
    {
        store.add_cert(anchor.clone())?;
    }
    let mut param = X509VerifyParam::new()?;
    param.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    param.set_auth_level(SECURITY_LEVEL);
    param.set_time(at);
    store.set_param(&param)?;
    let (store, no_others, mut context) = (store.build(), Stack::new()?, X509StoreContext::new()?);
    let verdict = context.init(&store, leaf, &no_others, |context| {
        context.verify_cert()?;
        Ok(context.error())
    });
    // A wrong signature leaves errors in the thread's queue, and the next read of any connection would take
    // them for its own: the caller would get no answer instead of a 403.
    drop(ErrorStack::get());
    verdict
}

/// True when a certificate that is valid at that time was issued under a truststore certificate with
/// CA:FALSE, which [`judge`] refuses.
#[must_use]
pub fn is_under_a_leaf(truststore: &[X509], leaf: &X509Ref, at: i64) -> bool {
    let Ok(now) = Asn1Time::from_unix(at) else {
        return false;
    };
    let signed = |anchor: &X509| {
        let is_named = same_name(leaf.issuer_name(), anchor.subject_name());
        is_named
            && anchor
                .public_key()
                .is_ok_and(|key| leaf.verify(&key).unwrap_or(false))
    };
    let is_under = truststore.iter().any(signed);
    drop(ErrorStack::get());
    is_under && leaf.not_before() <= now && now <= leaf.not_after()
}

/// True when at most `longest` certificates of the truststore, including this one, lead to a self-signed
/// certificate.
fn chain_is_whole(cert: &X509Ref, truststore: &[X509], longest: usize) -> bool {
    let signed_by = |issuer: &X509Ref| {
        issuer
            .public_key()
            .is_ok_and(|key| cert.verify(&key).unwrap_or(false))
    };
    if same_name(cert.subject_name(), cert.issuer_name()) && signed_by(cert) {
        return true;
    }
    longest > 1
        && truststore.iter().any(|issuer| {
            issuer.issued(cert) == X509VerifyResult::OK
                && signed_by(issuer)
                && chain_is_whole(issuer, truststore, longest - 1)
        })
}

fn same_name(one: &X509NameRef, other: &X509NameRef) -> bool {
    one.try_cmp(other).is_ok_and(|order| order == Ordering::Equal)
}

/// Returns a field of `clientCert` in API Gateway's events, by its path there; empty for an unknown field.
#[must_use]
pub fn client_cert_field(leaf: &X509Ref, path: &str) -> String {
    match path {
        "clientCertPem" => leaf
            .to_pem()
            .map(|pem| String::from_utf8_lossy(&pem).into_owned())
            .unwrap_or_default(),
        "subjectDN" => distinguished_name(leaf.subject_name()),
        "issuerDN" => distinguished_name(leaf.issuer_name()),
        "serialNumber" => serial_number(leaf.serial_number()),
        "validity.notBefore" => leaf.not_before().to_string(),
        "validity.notAfter" => leaf.not_after().to_string(),
        _ => String::new(),
    }
}

/// Returns a name as in `C=US,O=Acme,CN=client1`: in the certificate's own order, as users report it, and
/// escaped as in RFC 4514.
fn distinguished_name(name: &X509NameRef) -> String {
    let attribute = |entry: &openssl::x509::X509NameEntryRef| {
        let key = entry
            .object()
            .nid()
            .short_name()
            .map_or_else(|_| entry.object().to_string(), str::to_owned);
        let value = entry.data().to_string().unwrap_or_default();
        format!("{key}={}", escaped(&value))
    };
    name.entries().map(attribute).collect::<Vec<_>>().join(",")
}

fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (i, c) in value.chars().enumerate() {
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\');
        if special || (c == '#' && i == 0) || (c == ' ' && (i == 0 || i == last)) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Returns a serial number in the form `a1:b2`.
fn serial_number(serial: &Asn1IntegerRef) -> String {
    let digits = serial
        .to_bn()
        .and_then(|number| Ok(number.to_hex_str()?.to_lowercase()))
        .unwrap_or_default();
    let pairs: Vec<_> = digits.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use openssl::nid::Nid;
    use openssl::x509::X509Name;

    use super::*;

    #[test]
    fn names_are_written_in_the_certificate_s_order() {
        let mut name = X509Name::builder().unwrap();
        for (nid, value) in [
            (Nid::COUNTRYNAME, "SE"),
            (Nid::STATEORPROVINCENAME, "Skåne"),
            (Nid::ORGANIZATIONNAME, " #Acme, Inc. "),
            (Nid::ORGANIZATIONALUNITNAME, "#1"),
            (Nid::SERIALNUMBER, "2"),
            (Nid::COMMONNAME, "client1"),
            (Nid::PKCS9_EMAILADDRESS, "a@b.example"),
        ] {
            name.append_entry_by_nid(nid, value).unwrap();
        }
        assert_eq!(
            distinguished_name(&name.build()),
            r"C=SE,ST=Skåne,O=\ #Acme\, Inc.\ ,OU=\#1,serialNumber=2,CN=client1,emailAddress=a@b.example"
        );
    }

    #[test]
    fn serial_numbers_are_pairs_of_digits() {
        for (number, want) in [
            ("1", "01"),
            ("a1b2", "a1:b2"),
            ("0abc", "0a:bc"),
            ("ff00ff", "ff:00:ff"),
        ] {
            let number = openssl::bn::BigNum::from_hex_str(number)
                .unwrap()
                .to_asn1_integer()
                .unwrap();
            assert_eq!(serial_number(&number), want);
        }
    }
}
