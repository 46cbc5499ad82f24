//! Tests of `keys`.

use super::*;

use std::process::Command;

use rcgen::PublicKeyData;

fn openssl(args: &str) -> String {
    let out = Command::new("openssl").args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn every_kind_and_encoding_reads_back_as_the_same_key() {
    for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048] {
        let key = generate(kind).unwrap();
        assert_eq!(KeyKind::of(&key), Some(kind));
        for (encoding, other) in [
            (Encoding::Pkcs8, Encoding::Pkcs1),
            (Encoding::Pkcs1, Encoding::Pkcs8),
        ] {
            let text = pem(&key, encoding).unwrap();
            assert_eq!(encoding_of(&text), Some(encoding), "{kind}");
            let read = parse(&text).unwrap();
            assert_eq!(KeyKind::of(&read), Some(kind));
            assert_eq!(read.subject_public_key_info(), key.subject_public_key_info());
            // and from one encoding into the other
            assert_eq!(
                *pem(&read, other).unwrap(),
                *pem(&key, other).unwrap(),
                "{kind} {encoding:?}"
            );
        }
    }
}

#[test]
fn openssl_reads_our_keys() {
    for (kind, encoding) in [
        (KeyKind::EcdsaP256, Encoding::Pkcs1),
        (KeyKind::EcdsaP384, Encoding::Pkcs8),
        (KeyKind::Rsa2048, Encoding::Pkcs1),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem(&generate(kind).unwrap(), encoding).unwrap()).unwrap();
        openssl(&format!("pkey -noout -check -in {}", file.path().display()));
    }
}

#[test]
fn keys_made_by_openssl_are_read() {
    let cases = [
        // EC PARAMETERS first, then SEC1.
        ("ecparam -name prime256v1 -genkey", Ok(Some(KeyKind::EcdsaP256))),
        (
            "ecparam -name secp384r1 -genkey -noout",
            Ok(Some(KeyKind::EcdsaP384)),
        ),
        (
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            Ok(Some(KeyKind::EcdsaP256)),
        ),
        ("genrsa -traditional 2048", Ok(Some(KeyKind::Rsa2048))),
        ("genrsa 2048", Ok(Some(KeyKind::Rsa2048))),
        ("genpkey -algorithm ed25519", Ok(None)),
        (
            "genrsa -traditional -aes128 -passout pass:secret 2048",
            Err("encrypted"),
        ),
        ("genrsa -aes128 -passout pass:secret 2048", Err("encrypted")),
    ];
    for (args, expected) in cases {
        match (parse(&openssl(args)), expected) {
            (Ok(key), Ok(kind)) => assert_eq!(KeyKind::of(&key), kind, "{args}"),
            (Err(error), Err(text)) => {
                assert!(error.to_string().contains(text), "{args}: {error}")
            }
            (got, _) => panic!("{args}: {got:?}"),
        }
    }
}

#[test]
fn a_key_that_cannot_sign_is_refused_by_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let made = |args: &str| {
        let parameters = dir.path().join("parameters");
        openssl(&args.replace("PARAMETERS", parameters.to_str().unwrap()))
    };
    made("dsaparam -out PARAMETERS 2048");
    let cases = [
        ("gendsa PARAMETERS", "a DSA key"),
        ("genrsa 1024", "an RSA key of 1024 bits"),
        ("genrsa -traditional 1024", "an RSA key of 1024 bits"),
        ("ecparam -name secp256k1 -genkey -noout", "on another curve"),
        (
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
            "on another curve",
        ),
        (
            "ecparam -name secp256k1 -param_enc explicit -genkey -noout",
            "explicit curve parameters",
        ),
        ("genpkey -algorithm ed448", "an Ed448 key"),
        ("genpkey -algorithm x25519", "X25519"),
        (
            "genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048",
            "RSASSA-PSS",
        ),
    ];
    for (args, expected) in cases {
        let error = parse(&made(args)).map(drop).expect_err(args).to_string();
        assert!(
            error.contains(expected) && error.contains("use RSA from 2048 bits, P-256 or P-384"),
            "{args}: {error}"
        );
    }
    let traditional = openssl(&format!("dsa -in {} -out -", {
        let file = dir.path().join("dsa");
        std::fs::write(&file, made("gendsa PARAMETERS")).unwrap();
        file.display().to_string()
    }));
    assert!(parse(&traditional).unwrap_err().to_string().contains("a DSA key"));
    let label = |pem: String| pem.replace(" ENCRYPTED PRIVATE", " PRIVATE");
    let encrypted = label(openssl("genrsa -aes128 -passout pass:secret 2048"));
    assert!(matches!(parse(&encrypted), Err(KeyError::Encrypted)));
}

#[test]
fn a_text_without_a_key_is_refused_with_a_reason() {
    assert!(matches!(parse(""), Err(KeyError::NoKey)));
    assert!(matches!(parse("hello"), Err(KeyError::NoKey)));
    let empty = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(parse(empty), Err(KeyError::Unreadable)));
}

#[test]
fn close_primes_are_found_and_others_are_not() {
    let number = |digits: &str| digits.parse::<BigUint>().unwrap();
    let power = |exponent: u32| BigUint::from(2_u32).pow(exponent);
    // 2^521 - 1 and 2^607 - 1 are primes; the factors of the others need not be.
    let (p, q) = (power(521) - 1_u32, power(607) - 1_u32);
    for (modulus, expected) in [
        (&p * &q, false),
        (&p * &p, true),
        (&p * (&p + 2_u32), true),
        (&p * (&p + (power(250) << 1)), true),
        (&p * (&p + (power(300) << 1)), false),
        (number("15"), true),
        (number("3"), true),
        (number("0"), true),
    ] {
        assert_eq!(has_close_primes(&modulus), expected, "{modulus}");
    }
}
