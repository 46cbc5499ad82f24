//! PKCS #12 keystores: a key with its certificates under a password. Writes only: no keystore of another
//! writer is opened. In memory: no files, no network.

use p12_keystore::{KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};

use super::{
    certificate::Certificate,
    keys::{self, KeyError},
};

/// Name of the single entry, as cert-manager names it.
const ALIAS: &str = "certificate";

/// Reason why a keystore could not be written.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the keystore could not be written")]
    Write(#[source] p12_keystore::error::Error),
}

/// Writes a keystore with one entry: the private key (PEM, any encoding) and its certificates, the leaf
/// first. Encrypts with AES-256 and HMAC-SHA-256, as OpenSSL 3 and Java do: programs older than OpenSSL 1.1.0
/// and Java 8u301 cannot read the keystore. Two calls never give the same bytes.
pub fn write(
    tls_key: &(impl AsRef<[u8]> + ?Sized),
    chain: &[Certificate],
    password: &str,
) -> Result<Vec<u8>, KeystoreError> {
    let pkcs8 = keys::pkcs8(&keys::parse(tls_key)?)?;
    let built = || {
        let certificates = chain
            .iter()
            .map(|c| p12_keystore::Certificate::from_der(c.der()))
            .collect::<Result<Vec<_>, _>>()?;
        let entry = PrivateKeyChain::new(ALIAS, PrivateKey::from_der(&pkcs8)?, certificates);
        let mut store = KeyStore::new();
        store.add_entry(ALIAS, KeyStoreEntry::PrivateKeyChain(entry));
        store.writer(password).write()
    };
    built().map_err(KeystoreError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::process::Command;

    use p12_keystore::Pkcs12ImportPolicy;
    use rcgen::PublicKeyData;
    use zeroize::Zeroizing;

    use crate::pki::{
        authority::{
            SigningAuthority,
            tests::{at, issuer},
        },
        certificate::Certificate,
        keys::{self, Encoding, KeyKind, generate, pem},
        leaf::{issue, tests::request},
        pem_certificates::parse_pem_bundle,
    };

    /// True when the keystore equals the output of [`fn@write`], apart from its random parts.
    fn holds(
        keystore: &[u8],
        tls_key: &(impl AsRef<[u8]> + ?Sized),
        chain: &[Certificate],
        password: &str,
    ) -> bool {
        let (Ok(store), Ok(key)) = (
            KeyStore::from_pkcs12(keystore, password, Pkcs12ImportPolicy::Strict),
            keys::parse(tls_key),
        ) else {
            return false;
        };
        let (Some((_, entry)), Ok(pkcs8)) = (store.private_key_chain(), keys::pkcs8(&key)) else {
            return false;
        };
        let there = entry.certs().iter().map(p12_keystore::Certificate::as_der);
        Zeroizing::new(entry.key().as_der().to_vec()) == pkcs8 && there.eq(chain.iter().map(Certificate::der))
    }

    fn made(issuer: &SigningAuthority, kind: KeyKind, encoding: Encoding) -> (String, Vec<Certificate>) {
        let key = generate(kind).unwrap();
        let leaf = issue(
            &request("client1"),
            &key.subject_public_key_info(),
            issuer,
            at("2026-11-24T12:00:00Z"),
        )
        .unwrap();
        (
            pem(&key, encoding).unwrap().to_string(),
            parse_pem_bundle(&(leaf.chain_pem + &leaf.ca_pem)).unwrap(),
        )
    }

    #[test]
    fn openssl_and_java_read_our_keystores() {
        let issuer = issuer("Partners", at("2026-11-01T00:00:00Z"));
        for (kind, encoding) in [
            (KeyKind::EcdsaP256, Encoding::Pkcs8),
            (KeyKind::Rsa2048, Encoding::Pkcs1),
        ] {
            let (tls_key, chain) = made(&issuer, kind, encoding);
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), write(&tls_key, &chain, "password 1").unwrap()).unwrap();
            let read = |program: &str, args: &[&str]| {
                let out = Command::new(program)
                    .args(args)
                    .arg(file.path())
                    .output()
                    .unwrap();
                assert!(
                    out.status.success(),
                    "{program}: {}",
                    String::from_utf8_lossy(&out.stderr)
                );
                String::from_utf8(out.stdout).unwrap()
            };
            let text = read(
                "openssl",
                &["pkcs12", "-nodes", "-passin", "pass:password 1", "-in"],
            );
            let (key, certificates) = (
                &text[text.find("-----BEGIN PRIVATE").unwrap()..],
                &text[..text.rfind("Bag").unwrap()],
            );
            assert_eq!(
                keys::parse(key).unwrap().subject_public_key_info(),
                chain[0].spki_der()
            );
            assert_eq!(parse_pem_bundle(certificates).unwrap(), chain);
            if Command::new("keytool").arg("-help").output().is_err() {
                println!("skipped: keytool is not installed");
                continue;
            }
            let listed = read(
                "keytool",
                &["-list", "-v", "-storepass", "password 1", "-keystore"],
            );
            assert!(listed.contains("Certificate chain length: 2"), "{listed}");
        }
    }

    #[test]
    fn openssl_reads_passwords_outside_ascii() {
        let issuer = issuer("Partners", at("2026-11-01T00:00:00Z"));
        let (tls_key, chain) = made(&issuer, KeyKind::EcdsaP256, Encoding::Pkcs8);
        for password in ["żółw-Grüße", "пароль", "パスワード", "a$b\"c d\\e", "\u{fffd}"] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), write(&tls_key, &chain, password).unwrap()).unwrap();
            let out = Command::new("openssl")
                .args(["pkcs12", "-nodes", "-passin", &format!("pass:{password}"), "-in"])
                .arg(file.path())
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(
                text.contains("BEGIN PRIVATE KEY"),
                "{password}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
        }
        // The observation refuses these passwords by their field.
        assert!(write(&tls_key, &chain, "pass\u{1f511}word").is_err());
    }

    #[test]
    fn keystores_are_compared_without_their_random_parts() {
        let issuer = issuer("Partners", at("2026-11-01T00:00:00Z"));
        let (tls_key, chain) = made(&issuer, KeyKind::EcdsaP256, Encoding::Pkcs1);
        let (other_key, other_chain) = made(&issuer, KeyKind::EcdsaP256, Encoding::Pkcs8);
        let (one, again) = (
            write(&tls_key, &chain, "p").unwrap(),
            write(&tls_key, &chain, "p").unwrap(),
        );
        assert_ne!(one, again);
        for keystore in [&one, &again] {
            assert!(holds(keystore, &tls_key, &chain, "p"));
        }
        assert!(!holds(&one, &tls_key, &chain, "q"), "another password");
        assert!(!holds(&one, &other_key, &chain, "p"), "another key");
        assert!(!holds(&one, &tls_key, &other_chain, "p"), "another leaf");
        assert!(!holds(&one, &tls_key, &chain[..1], "p"), "a shorter chain");
        assert!(!holds(&one[..40], &tls_key, &chain, "p") && !holds(b"", &tls_key, &chain, "p"));
    }
}
