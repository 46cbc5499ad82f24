//! Tests of `name`.

use super::*;

use std::{fs, path::Path, process::Command};

use proptest::prelude::*;
use x509_parser::prelude::FromDer;

use crate::pki::{certificate::Certificate, pem_certificates::parse_pem_bundle};

#[test]
fn special_characters_are_escaped() {
    assert_eq!(escape("a,b+c"), "a\\,b\\+c");
    assert_eq!(escape(" #x "), "\\ #x\\ ");
    assert_eq!(escape("#x"), "\\#x");
    assert_eq!(escape("a\nb"), "a\\0Ab");
    assert_eq!(escape(" "), "\\ ");
    assert_eq!(escape("Zürich"), "Zürich");
}

/// DER of a name with one attribute, O, in this type.
fn organization(tag: u8, value: &[u8]) -> Vec<u8> {
    let tlv = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
    let part = [&b"\x06\x03\x55\x04\x0a"[..], &tlv(tag, value)].concat();
    tlv(0x30, &tlv(0x31, &tlv(0x30, &part)))
}

fn read(der: &[u8]) -> X509Name<'_> {
    X509Name::from_der(der).unwrap().1
}

const UTF8: u8 = 12;
const PRINTABLE: u8 = 19;
const TELETEX: u8 = 20;
const IA5: u8 = 22;
const VISIBLE: u8 = 26;
const UNIVERSAL: u8 = 28;
const BMP: u8 = 30;

fn utf_16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn utf_32(text: &str) -> Vec<u8> {
    text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect()
}

#[test]
fn a_name_is_the_same_in_every_string_type() {
    let names = [
        organization(UTF8, "Müller  GmbH".as_bytes()),
        organization(BMP, &utf_16("Müller GmbH")),
        organization(BMP, &utf_16(" MÜLLER gmbh ")),
        organization(UNIVERSAL, &utf_32("müller GmbH")),
        organization(TELETEX, b"M\xfcller GmbH"),
        // Outside of their character sets, as OpenSSL reads them too.
        organization(PRINTABLE, b"M\xfcller GmbH"),
        organization(IA5, b"M\xfcller GmbH"),
        organization(VISIBLE, b"M\xfcller GmbH"),
    ];
    for der in &names {
        assert_eq!(normal_form(&read(der)), "2.5.4.10=müller gmbh,", "{der:02x?}");
    }
    assert_eq!(text(&read(&names[1])), "O=Müller GmbH");
    assert_eq!(text(&read(&names[4])), "O=Müller GmbH");
    let another = organization(BMP, &utf_16("Muller GmbH"));
    assert_ne!(normal_form(&read(&another)), normal_form(&read(&names[0])));
}

#[test]
fn a_value_that_is_no_text_in_its_type_stays_as_it_is() {
    for (tag, bytes) in [
        (BMP, &b"\0A\0"[..]),
        (BMP, b"\xd8\x3d\xdd\x11"),
        (UNIVERSAL, b"\0\0\0A\0"),
        (UNIVERSAL, b"\0\x11\0\0"),
        (UTF8, b"\xfc"),
        (4, b"A"),
    ] {
        let der = organization(tag, bytes);
        assert_eq!(text(&read(&der)), format!("O=#{}", hex(bytes)));
        assert_eq!(
            normal_form(&read(&der)),
            format!("2.5.4.10=#{}:{},", Tag(u32::from(tag)), hex(bytes))
        );
    }
}

/// Runs openssl in a folder; `Err` with its messages.
fn openssl(folder: &Path, args: &str) -> Result<String, String> {
    let out = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    if out.status.success() { Ok(text) } else { Err(text) }
}

/// Authorities of one key, each with its name in another string type, and a certificate by each: every
/// authority is the issuer of every certificate, for OpenSSL too.
#[test]
fn a_chain_may_change_the_string_type() {
    const MASKS: [(&str, &str); 4] = [
        ("printable", "0x2"),
        ("teletex", "0x4"),
        ("bmp", "0x800"),
        ("utf8", "0x2000"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &str| openssl(dir.path(), args).unwrap_or_else(|error| panic!("{args}: {error}"));
    let certificate = |name: &str| -> Certificate {
        parse_pem_bundle(&fs::read(dir.path().join(name)).unwrap())
            .unwrap()
            .remove(0)
    };
    run("ecparam -name prime256v1 -genkey -noout -out ca.key");
    run(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj \
         /CN=x",
    );
    for (kind, mask) in MASKS {
        let config = format!(
            "[req]\nprompt=no\nutf8=yes\nstring_mask=MASK:{mask}\ndistinguished_name=d\nx509_extensions=x\n\
             [d]\nO=Acme Trust\nCN=Root CA\n[x]\n\
             basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\n"
        );
        fs::write(dir.path().join("config"), config).unwrap();
        run(&format!(
            "req -x509 -config config -key ca.key -days 9 -out {kind}.crt"
        ));
        run(&format!(
            "x509 -req -in leaf.csr -CA {kind}.crt -CAkey ca.key -set_serial 7 -days 9 -out of-{kind}.crt"
        ));
    }
    let [one, other] = ["printable.crt", "bmp.crt"].map(certificate);
    assert_ne!(one.subject_der, other.subject_der);
    for (above, _) in MASKS {
        for (below, _) in MASKS {
            run(&format!("verify -CAfile {above}.crt of-{below}.crt"));
            let (issuer, leaf) = (
                certificate(&format!("{above}.crt")),
                certificate(&format!("of-{below}.crt")),
            );
            assert!(leaf.is_issued_by(&issuer), "{above} {below}");
            assert_eq!(issuer.subject, "CN=Root CA,O=Acme Trust");
        }
    }
}

proptest! {
    #[test]
    fn always_one_line(value in any::<String>()) {
        prop_assert!(escape(&value).lines().count() <= 1);
        prop_assert!(!escape(&value).chars().any(char::is_control));
    }

    #[test]
    fn the_normal_form_has_no_string_type(value in "[\u{20}-\u{d7ff}]{0,20}") {
        let utf8 = organization(UTF8, value.as_bytes());
        for other in [organization(BMP, &utf_16(&value)), organization(UNIVERSAL, &utf_32(&value))] {
            prop_assert_eq!(normal_form(&read(&utf8)), normal_form(&read(&other)));
            prop_assert_eq!(text(&read(&utf8)), text(&read(&other)));
        }
    }
}
