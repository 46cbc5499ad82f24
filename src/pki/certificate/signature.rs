//! Signatures of certificates and requests: their class, and their verification with a public key. Pure.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPssSaltLength, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_parser::{
    asn1_rs::BitString, signature_algorithm::RsaSsaPssParams, verify::verify_signature,
    x509::AlgorithmIdentifier, x509::SubjectPublicKeyInfo,
};

use crate::pki::keys::KeyStrength;

/// Class of the signature's hash. API Gateway takes SHA-256 or stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureClass {
    /// SHA-256, SHA-384 or SHA-512 with RSA (also PSS) or ECDSA.
    Sha2,
    Sha1,
    /// Others: Ed25519, SHA-224, MD5, PSS with another hash for its mask, ...
    Other,
}

impl SignatureClass {
    pub(crate) fn of(algorithm: &AlgorithmIdentifier<'_>) -> SignatureClass {
        match algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.11" | "1.2.840.113549.1.1.12" | "1.2.840.113549.1.1.13" => {
                SignatureClass::Sha2
            }
            ECDSA_SHA256 | ECDSA_SHA384 | ECDSA_SHA512 => SignatureClass::Sha2,
            RSASSA_PSS => match pss(algorithm) {
                Pss::Known(_) => SignatureClass::Sha2,
                Pss::Sha1 => SignatureClass::Sha1,
                Pss::Unknown => SignatureClass::Other,
            },
            "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" | "1.2.840.10045.4.1" => SignatureClass::Sha1,
            _ => SignatureClass::Other,
        }
    }
}

/// True when the key of `spki` made this signature over `signed`.
pub(crate) fn verifies(
    algorithm: &AlgorithmIdentifier<'_>,
    signature: &BitString<'_>,
    signed: &[u8],
    spki: &SubjectPublicKeyInfo<'_>,
) -> bool {
    let key = &spki.subject_public_key.data;
    if algorithm.algorithm.to_id_string() == RSASSA_PSS {
        return match pss(algorithm) {
            Pss::Known(known) => known.verify_sig(key, signed, &signature.data).is_ok(),
            Pss::Sha1 | Pss::Unknown => false,
        };
    }
    match ecdsa_beyond_x509_parser(algorithm, KeyStrength::of(spki)) {
        Some(known) => UnparsedPublicKey::new(known, key)
            .verify(signed, &signature.data)
            .is_ok(),
        None => verify_signature(spki, algorithm, signature, signed).is_ok(),
    }
}

/// Returns the algorithm of an ECDSA signature that x509-parser cannot verify: it knows P-256 and P-384 with
/// SHA-256 and SHA-384 only.
fn ecdsa_beyond_x509_parser(
    algorithm: &AlgorithmIdentifier<'_>,
    key: KeyStrength,
) -> Option<&'static dyn VerificationAlgorithm> {
    match (algorithm.algorithm.to_id_string().as_str(), key) {
        (ECDSA_SHA512, KeyStrength::EcdsaP256) => Some(&ECDSA_P256_SHA512_ASN1),
        (ECDSA_SHA512, KeyStrength::EcdsaP384) => Some(&ECDSA_P384_SHA512_ASN1),
        (ECDSA_SHA512, KeyStrength::EcdsaP521) => Some(&ECDSA_P521_SHA512_ASN1),
        (ECDSA_SHA384, KeyStrength::EcdsaP521) => Some(&ECDSA_P521_SHA384_ASN1),
        (ECDSA_SHA256, KeyStrength::EcdsaP521) => Some(&ECDSA_P521_SHA256_ASN1),
        _ => None,
    }
}

const ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_SHA384: &str = "1.2.840.10045.4.3.3";
const ECDSA_SHA512: &str = "1.2.840.10045.4.3.4";
const RSASSA_PSS: &str = "1.2.840.113549.1.1.10";

/// RSASSA-PSS signature, by its parameters.
enum Pss {
    /// SHA-256, SHA-384 or SHA-512, for the mask too, with a salt of the length that the parameters name.
    Known(RsaParameters),
    Sha1,
    /// Another hash, a mask by another hash than the signature's, or parameters that cannot be read.
    Unknown,
}

/// Reads the parameters, whose parts have defaults: SHA-1 and a salt of 20 octets (RFC 8017, appendix A.2.3).
/// Signers choose the salt's length: that of the hash, 20, or the longest that the key takes.
fn pss(algorithm: &AlgorithmIdentifier<'_>) -> Pss {
    let Some(parameters) = &algorithm.parameters else {
        return Pss::Sha1;
    };
    let Ok(parameters) = RsaSsaPssParams::try_from(parameters) else {
        return Pss::Unknown;
    };
    let hash = parameters.hash_algorithm_oid().to_id_string();
    let known = match hash.as_str() {
        "2.16.840.1.101.3.4.2.1" => RSA_PSS_2048_8192_SHA256,
        "2.16.840.1.101.3.4.2.2" => RSA_PSS_2048_8192_SHA384,
        "2.16.840.1.101.3.4.2.3" => RSA_PSS_2048_8192_SHA512,
        "1.3.14.3.2.26" => return Pss::Sha1,
        _ => return Pss::Unknown,
    };
    let is_mask_by_the_same_hash = parameters.mask_gen_algorithm().is_ok_and(|mask| {
        mask.mgf.to_id_string() == "1.2.840.113549.1.1.8" && mask.hash.to_id_string() == hash
    });
    match u16::try_from(parameters.salt_length()) {
        Ok(salt) if is_mask_by_the_same_hash && parameters.trailer_field() == 1 => {
            Pss::Known(known.with_pss_salt_length(RsaPssSaltLength::Custom(salt)))
        }
        _ => Pss::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::process::Command;

    use crate::pki::{certificate::Certificate, pem_certificates::parse_pem_bundle};

    /// Directory with an RSA key, and certificates and requests that openssl signs with it.
    struct Signer(tempfile::TempDir);

    impl Signer {
        fn of(bits: usize) -> Signer {
            let signer = Signer(tempfile::tempdir().unwrap());
            let bits = format!("rsa_keygen_bits:{bits}");
            signer.openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", &bits, "-out", "key"]);
            signer
        }

        fn openssl(&self, args: &[&str]) -> Vec<u8> {
            let out = Command::new("openssl")
                .args(args)
                .current_dir(&self.0)
                .output()
                .unwrap();
            assert!(
                out.status.success(),
                "{args:?}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
            out.stdout
        }

        fn request(&self, kind: &[&str], hash: &str, options: &[&str]) -> Vec<u8> {
            let mut args = [
                &["req"],
                kind,
                &[
                    "-key",
                    "key",
                    hash,
                    "-subj",
                    "/CN=x",
                    "-sigopt",
                    "rsa_padding_mode:pss",
                ],
            ]
            .concat();
            for option in options {
                args.extend(["-sigopt", option]);
            }
            self.openssl(&args)
        }

        fn certificate(&self, hash: &str, options: &[&str]) -> Certificate {
            parse_pem_bundle(&self.request(&["-x509", "-days", "30"], hash, options))
                .unwrap()
                .remove(0)
        }
    }

    #[test]
    fn a_pss_signature_with_any_salt_is_verified() {
        for (bits, longest) in [(2048, 222), (4096, 478)] {
            let signer = Signer::of(bits);
            for hash in ["-sha256", "-sha384", "-sha512"] {
                let longest = (longest - (hash[4..].parse::<usize>().unwrap() - 256) / 8).to_string();
                for salt in ["0", "1", "20", "32", "48", "64", "max", "digest", &longest] {
                    let salt = format!("rsa_pss_saltlen:{salt}");
                    let c = signer.certificate(hash, &[&salt]);
                    assert!(c.self_signed, "{bits} {hash} {salt}");
                    assert_eq!(c.signature, SignatureClass::Sha2, "{bits} {hash} {salt}");
                }
            }
        }
    }

    #[test]
    fn a_pss_request_is_read_whatever_its_salt() {
        let signer = Signer::of(2048);
        for salt in ["rsa_pss_saltlen:0", "rsa_pss_saltlen:20", "rsa_pss_saltlen:max"] {
            let pem = signer.request(&["-new"], "-sha256", &[salt]);
            let csr = crate::pki::csr::read(&pem, jiff::SignedDuration::from_hours(1));
            assert!(csr.is_ok(), "{salt}: {csr:?}");
        }
    }

    #[test]
    fn a_pss_signature_that_api_gateway_may_not_read_has_its_own_class() {
        let signer = Signer::of(2048);
        for (hash, options, class) in [
            ("-sha1", &[][..], SignatureClass::Sha1),
            ("-sha224", &[], SignatureClass::Other),
            ("-sha512-256", &[], SignatureClass::Other),
            ("-sha256", &["rsa_mgf1_md:sha1"], SignatureClass::Other),
            ("-sha1", &["rsa_mgf1_md:sha256"], SignatureClass::Sha1),
            ("-sha512", &["rsa_mgf1_md:sha256"], SignatureClass::Other),
        ] {
            let c = signer.certificate(hash, options);
            assert_eq!((c.signature, c.self_signed), (class, false), "{hash} {options:?}");
        }
    }

    #[test]
    fn a_pss_signature_by_another_salt_or_key_does_not_verify() {
        let (a, b) = (Signer::of(2048), Signer::of(2048));
        let of_a = a.certificate("-sha256", &["rsa_pss_saltlen:21"]);
        let of_b = b.certificate("-sha256", &["rsa_pss_saltlen:20"]);
        assert!(!of_a.is_issued_by(&of_b) && of_a.is_issued_by(&of_a));
        // The outer parameters are not signed: 21 octets named as 22.
        let mut der = of_a.der().to_vec();
        let salt = [0xa2, 3, 2, 1, 21];
        let at = der.windows(5).rposition(|window| window == salt).unwrap();
        der[at + 4] = 22;
        assert!(!Certificate::from_der(&der).unwrap().self_signed);
    }
}
