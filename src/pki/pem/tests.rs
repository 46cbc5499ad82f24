//! Tests of `pem`.

use std::{
    process::{Command, Stdio},
    sync::LazyLock,
};

use proptest::prelude::*;
use x509_cert::der::pem::{LineEnding, encode_string};

use crate::pki::{
    certificate::Certificate,
    csr, keys,
    pem::{TRUSTED_CERTIFICATE, is_plain, scan, trusted},
    pem_certificates::{certificates, certificates_beside_keys, source},
    pem_error::{Kind, MAX_SOURCE_BYTES, MAX_SOURCE_CERTIFICATES, ParseError},
    pem_text::{BEGIN, HYPHENS, decode, decode_public},
};

/// Certificate, its private key and a request of that key.
struct Sample {
    certificate: Certificate,
    key: String,
    request: String,
}

impl Sample {
    fn new(name: &str) -> Sample {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        Sample {
            certificate,
            key: key.serialize_pem(),
            request,
        }
    }
}

static SAMPLES: LazyLock<[Sample; 4]> = LazyLock::new(|| ["a", "b", "c", "d"].map(Sample::new));

fn a() -> String {
    SAMPLES[0].certificate.to_pem()
}

fn b() -> String {
    SAMPLES[1].certificate.to_pem()
}

fn both() -> [Certificate; 2] {
    [&SAMPLES[0], &SAMPLES[1]].map(|sample| sample.certificate.clone())
}

fn read_all(text: impl AsRef<[u8]>) -> Result<Vec<Certificate>, ParseError> {
    Ok(certificates(text.as_ref())?
        .into_iter()
        .map(|(certificate, _)| certificate)
        .collect())
}

fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn body(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

/// Runs a shell command on a file with these bytes, called FILE. Returns the content of NEW, else the
/// standard output.
fn run(command: &str, file: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("FILE"), file).unwrap();
    let out = Command::new("sh")
        .args(["-c", command])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    std::fs::read(dir.path().join("NEW")).unwrap_or(out.stdout)
}

type Shape = fn(&str) -> Vec<u8>;

/// Shapes of a PEM text after editors, templates and programs, with the same content.
const SHAPES: &[(&str, Shape)] = &[
    ("as openssl writes it", |pem| pem.into()),
    ("no newline at the end", |pem| pem.trim_end().into()),
    ("byte order mark", |pem| bytes(&[b"\xef\xbb\xbf", pem.as_bytes()])),
    ("byte order mark and text", |pem| {
        bytes(&[b"\xef\xbb\xbfsubject=CN = a\n", pem.as_bytes()])
    }),
    ("CRLF", |pem| pem.replace('\n', "\r\n").into()),
    ("CR", |pem| pem.replace('\n', "\r").into()),
    ("byte order mark and CRLF", |pem| {
        bytes(&[b"\xef\xbb\xbf", pem.replace('\n', "\r\n").as_bytes()])
    }),
    ("indented", |pem| {
        pem.lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
            .into()
    }),
    ("indented by tabs", |pem| {
        pem.lines()
            .map(|line| format!("\t\t{line}\n"))
            .collect::<String>()
            .into()
    }),
    ("first line indented", |pem| format!("  {pem}").into()),
    ("spaces at the ends of lines", |pem| {
        pem.replace('\n', "  \n").into()
    }),
    ("empty lines", |pem| pem.replace('\n', "\n\n").into()),
    ("spaces instead of line breaks", |pem| {
        pem.replace('\n', " ").into()
    }),
    ("line breaks instead of spaces", |pem| {
        pem.replace(' ', "\n").into()
    }),
    ("no line breaks", |pem| pem.replace('\n', "").into()),
    ("written-out line breaks", |pem| pem.replace('\n', "\\n").into()),
    ("written-out CRLF", |pem| pem.replace('\n', "\\r\\n").into()),
    ("line breaks written out twice", |pem| {
        pem.replace('\n', "\\\\n").into()
    }),
    ("in quotes", |pem| format!("\"{pem}\"").into()),
    ("in single quotes", |pem| format!("'{}'", pem.trim_end()).into()),
    ("a string of JSON", |pem| {
        format!("\"{}\"", pem.replace('\n', "\\n")).into()
    }),
    ("text of openssl before it", |pem| {
        format!("Certificate:\n    Data:\n        Version: 3 (0x2)\n{pem}").into()
    }),
    ("attributes of a keystore", |pem| {
        format!("Bag Attributes\n    localKeyID: 5A 0F\nKey: <None>\n{pem}").into()
    }),
    ("p11-kit", |pem| {
        format!("[p11-kit-object-v1]\nvalue: \"%30%82\"\ntrusted: true\n{pem}nss: true\n").into()
    }),
    ("a comment", |pem| {
        format!("# Acme's -----\n{pem}# the end").into()
    }),
    ("text in Latin-1", |pem| {
        bytes(&[b"Autoridade Certifica\xe7\xe3o\n", pem.as_bytes(), b"\xe9\n"])
    }),
    ("text right after it", |pem| {
        format!("{}done", pem.trim_end()).into()
    }),
    ("the end of a DOS file", |pem| bytes(&[pem.as_bytes(), b"\x1a"])),
];

#[test]
fn every_shape_is_read() {
    let sample = &SAMPLES[0];
    let key = keys::parse(&sample.key).unwrap().serialized_der().to_vec();
    let day = jiff::SignedDuration::from_hours(24);
    let request = csr::read(&sample.request, day).unwrap();
    for (name, shape) in SHAPES {
        let shaped = shape(&sample.certificate.to_pem());
        assert_eq!(read_all(&shaped).as_deref(), Ok(&both()[..1]), "{name}");
        let read = keys::parse(&shape(&sample.key)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.serialized_der(), key, "{name}");
        assert_eq!(
            keys::encoding_of(&shape(&sample.key)),
            Some(keys::Encoding::Pkcs8),
            "{name}"
        );
        assert_eq!(
            *keys::alone(&shape(&sample.key)).unwrap(),
            sample.key.replace("\r\n", "\n"),
            "{name}"
        );
        assert_eq!(
            csr::read(&shape(&sample.request), day).as_ref(),
            Ok(&request),
            "{name}"
        );
        // Two certificates one after the other in one file, possibly without a newline between them.
        let pair = read_all(bytes(&[&shaped, &shape(&b())]));
        match *name {
            "text right after it" => {
                assert!(
                    matches!(pair, Err(ParseError::BeginAmongText { .. })),
                    "{name}: {pair:?}"
                )
            }
            _ => assert_eq!(pair.as_deref(), Ok(&both()[..]), "{name}, twice"),
        }
    }
}

/// Both certificates of a file are read, or the error names its line.
#[test]
fn text_between_two_certificates_is_skipped_or_refused() {
    let last = a().lines().count();
    let among_text = |line| Err(ParseError::BeginAmongText { line });
    let cases: &[(&[u8], Result<usize, ParseError>)] = &[
        (b"\n", Ok(2)),
        (b"", Ok(2)),
        (b" ", Ok(2)),
        (b"\xef\xbb\xbf", Ok(2)),
        (b"\n\xef\xbb\xbf", Ok(2)),
        (b"\"\n\"", Ok(2)),
        (b"\\n", Ok(2)),
        (b"\x1a", Ok(2)),
        (b"\n\t", Ok(2)),
        (b"\nMIIX is no base64 of a certificate\n", Ok(2)),
        (b"\n# ----BEGIN CERTIFICATE-----\n", Ok(2)),
        (b"\n# -----END\n", Err(ParseError::EndAlone { line: last + 1 })),
        (b"-", among_text(last)),
        (b"\n-", among_text(last + 1)),
        (b"\nsubject=CN = b", among_text(last + 1)),
        (b"\n# ", among_text(last + 1)),
        (b"\n// ", among_text(last + 1)),
        (b"\n-----BEGIN \n", Err(ParseError::Begin { line: last + 1 })),
        (
            b"\n-----BEGIN CERTIFICATE-----\n",
            Err(ParseError::NoEnd { line: last + 1 }),
        ),
        (
            b"\n-----END CERTIFICATE-----\n",
            Err(ParseError::EndAlone { line: last + 1 }),
        ),
        (
            b"\r\n\r\r\n-----END CERTIFICATE-----\n",
            Err(ParseError::EndAlone { line: last + 3 }),
        ),
        (b"\n\0\n", Err(ParseError::NotText { line: last + 1 })),
        (
            b"\n-----BEGINCERTIFICATE-----\n",
            Err(ParseError::Begin { line: last + 1 }),
        ),
        (
            b"\n-----BEGIN CERTIFICATE----\n",
            Err(ParseError::Begin { line: last + 1 }),
        ),
    ];
    for (between, expected) in cases {
        let text = bytes(&[a().trim_end().as_bytes(), between, b().as_bytes()]);
        let got = read_all(&text);
        assert_eq!(
            got.as_ref().map(Vec::len),
            expected.as_ref().copied(),
            "{}",
            String::from_utf8_lossy(between)
        );
        if let Ok(got) = got {
            assert_eq!(got, both());
        }
    }
}

/// Joined boundaries have less than their ten hyphens.
#[test]
fn joined_boundaries_with_too_few_hyphens() {
    for hyphens in 0..10 {
        let joined = format!(
            "{}{}{}",
            a().trim_end_matches(['-', '\n']),
            "-".repeat(hyphens),
            b().trim_start_matches('-')
        );
        let line = a().lines().count();
        let expected = match hyphens {
            0..5 => ParseError::End { line: 1 },
            _ => ParseError::Begin { line },
        };
        assert_eq!(read_all(&joined), Err(expected), "{joined}");
    }
    let encrypted =
        "-----BEGIN RSA PRIVATE KEY-------BEGIN X\nProc-Type: 4,ENCRYPTED\n-----END RSA PRIVATE KEY-----\n";
    assert_eq!(
        scan(encrypted.as_bytes()).next().unwrap().err(),
        Some(ParseError::Begin { line: 1 })
    );
}

/// A certificate that lost its boundaries, or more, behind a whole certificate: the scanner reports every
/// such rest.
#[test]
fn no_rest_of_a_certificate_is_taken_for_text() {
    let (b, b64) = (b(), body(&b()));
    let der = SAMPLES[1].certificate.der();
    let line = a().lines().count() + 1;
    let unframed = || ParseError::Unframed { line: line + 1 };
    let encoded = |line| ParseError::EncodedDer {
        line,
        kind: Kind::Certificate,
    };
    let cases: Vec<(&str, Vec<u8>, ParseError)> = vec![
        (
            "four hyphens",
            b.replace("-----BEGIN", "----BEGIN").into(),
            unframed(),
        ),
        (
            "dashes of a word processor",
            b.replace("-----BEGIN", "\u{2014}\u{2014}-BEGIN").into(),
            unframed(),
        ),
        (
            "lower case",
            b.replace("BEGIN CERT", "begin cert")
                .replace("END CERT", "end cert")
                .into(),
            unframed(),
        ),
        (
            "no BEGIN line",
            b.split_once('\n').unwrap().1.into(),
            ParseError::Unframed { line },
        ),
        (
            "no more than the END line",
            b.lines().last().unwrap().into(),
            ParseError::EndAlone { line },
        ),
        ("no boundaries", format!("{b64}\n").into(), encoded(line)),
        ("in a field", format!("cert: {b64}\n").into(), encoded(line)),
        (
            "in JSON",
            format!("{{\"x5c\":[\"{b64}\"]}}").into(),
            encoded(line),
        ),
        (
            "encoded twice",
            run("base64 FILE", b.as_bytes()),
            ParseError::EncodedPem { line },
        ),
        (
            "encoded twice, in a manifest",
            bytes(&[b"  tls.crt: ", &run("base64 -w 0 FILE", b.as_bytes())]),
            ParseError::EncodedPem { line },
        ),
        (
            "DER",
            der.to_vec(),
            ParseError::Der {
                line,
                kind: Kind::Certificate,
            },
        ),
        (
            "UTF-16",
            run("iconv -t UTF-16LE FILE", b.as_bytes()),
            ParseError::Utf16 {
                line,
                from: "UTF-16LE",
            },
        ),
        (
            "UTF-16, of big ends",
            run("iconv -t UTF-16BE FILE", b.as_bytes()),
            ParseError::Utf16 {
                line,
                from: "UTF-16LE",
            },
        ),
        (
            "UTF-32",
            run("iconv -t UTF-32LE FILE", b.as_bytes()),
            ParseError::NotText { line },
        ),
        (
            "a damaged END",
            b.replace("END CERTIFICATE-----", "END CERTIFICATE----").into(),
            ParseError::End { line },
        ),
        ("cut off", b[..200].into(), ParseError::NoEnd { line }),
        (
            "cut off, and another",
            format!("{}\n{b}", &b[..200]).into(),
            ParseError::NoEnd { line },
        ),
        (
            "another END",
            b.replace("END CERTIFICATE", "END X509 CERTIFICATE").into(),
            ParseError::End { line },
        ),
        (
            "six hyphens",
            b.replace("CERTIFICATE-----", "CERTIFICATE------").into(),
            ParseError::Base64 { line },
        ),
        (
            "commented out",
            b.lines()
                .map(|line| format!("# {line}\n"))
                .collect::<String>()
                .into(),
            ParseError::BeginAmongText { line },
        ),
        (
            "a reply to a mail",
            b.lines()
                .map(|line| format!("> {line}\n"))
                .collect::<String>()
                .into(),
            ParseError::BeginAmongText { line },
        ),
        (
            "strings of a program",
            b.lines()
                .map(|line| format!("\"{line}\\n\" +\n"))
                .collect::<String>()
                .into(),
            ParseError::Base64 { line },
        ),
        (
            "a letter less",
            b.replace("MII", "MI").into(),
            ParseError::Base64 { line },
        ),
        (
            "another letter",
            b.replacen("\nMII", "\nNII", 1).into(),
            ParseError::NotCertificate { line },
        ),
        (
            "an umlaut",
            b.replace("MII", "MI\u{e4}").into(),
            ParseError::Base64 { line },
        ),
        (
            "nothing in it",
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into(),
            ParseError::Base64 { line },
        ),
        (
            "two in one",
            format!("-----BEGIN CERTIFICATE-----\n{b64}={b64}\n-----END CERTIFICATE-----\n").into(),
            ParseError::Base64 { line },
        ),
    ];
    for (name, rest, expected) in cases {
        assert_eq!(read_all(bytes(&[a().as_bytes(), &rest])), Err(expected), "{name}");
    }
}

/// A file of another kind gets an error that names the kind and a command that converts the file.
#[test]
fn a_file_that_is_not_pem_is_named_with_the_command_that_converts_it() {
    let pem = a();
    let made = |command: &str| run(command, pem.as_bytes());
    let pkcs7 = made("openssl crl2pkcs7 -nocrl -certfile FILE");
    let pkcs7_der = made("openssl crl2pkcs7 -nocrl -certfile FILE -outform DER");
    let pkcs12 = run(
        "openssl pkcs12 -export -in FILE -passout pass: -out NEW",
        &bytes(&[pem.as_bytes(), SAMPLES[0].key.as_bytes()]),
    );
    let config =
        "[ca]\\ndefault_ca=d\\n[d]\\ndatabase=i\\ncrlnumber=n\\ndefault_md=sha256\\ndefault_crl_days=9\\n";
    let crl = format!(
        "touch i; echo 01 >n; printf '{config}' >c; openssl ca -gencrl -config c -keyfile FILE -cert FILE \
         -out NEW"
    );
    let crl = run(&crl, &bytes(&[pem.as_bytes(), SAMPLES[0].key.as_bytes()]));
    let relabelled = |label: &str| String::from_utf8(pkcs7.clone()).unwrap().replace("PKCS7", label);
    let misplaced = |kind| ParseError::Misplaced { line: 1, kind };
    let der = |kind| ParseError::Der { line: 1, kind };
    let encoded = |kind| ParseError::EncodedDer { line: 1, kind };
    let cases: Vec<(&str, Vec<u8>, ParseError)> = vec![
        (
            "DER",
            made("openssl x509 -in FILE -outform DER"),
            der(Kind::Certificate),
        ),
        ("DER of PKCS #7", pkcs7_der.clone(), der(Kind::Pkcs7)),
        ("PKCS #12", pkcs12, der(Kind::Pkcs12)),
        ("PKCS #7", pkcs7.clone(), misplaced(Kind::Pkcs7)),
        (
            "PKCS #7 by its long name",
            relabelled("PKCS #7 SIGNED DATA").into(),
            misplaced(Kind::Pkcs7),
        ),
        ("CMS", relabelled("CMS").into(), misplaced(Kind::Cms)),
        (
            "PKCS #7 as a certificate",
            relabelled("CERTIFICATE").into(),
            ParseError::Mislabelled {
                line: 1,
                kind: Kind::Pkcs7,
            },
        ),
        (
            "a CRL behind it",
            bytes(&[pem.as_bytes(), &crl]),
            ParseError::Misplaced {
                line: pem.lines().count() + 1,
                kind: Kind::RevocationList,
            },
        ),
        (
            "UTF-16 as PowerShell writes it",
            made("{ printf '\\377\\376'; iconv -t UTF-16LE FILE; }"),
            ParseError::Utf16 {
                line: 1,
                from: "UTF-16",
            },
        ),
        (
            "UTF-16 of big ends with its mark",
            made("{ printf '\\376\\377'; iconv -t UTF-16BE FILE; }"),
            ParseError::Utf16 {
                line: 1,
                from: "UTF-16",
            },
        ),
        (
            "UTF-16 without a mark",
            made("iconv -t UTF-16LE FILE"),
            ParseError::Utf16 {
                line: 1,
                from: "UTF-16LE",
            },
        ),
        (
            "UTF-16 of big ends",
            made("iconv -t UTF-16BE FILE"),
            ParseError::Utf16 {
                line: 1,
                from: "UTF-16BE",
            },
        ),
        (
            "encoded twice",
            made("base64 FILE"),
            ParseError::EncodedPem { line: 1 },
        ),
        (
            "encoded twice in one line",
            made("base64 -w 0 FILE"),
            ParseError::EncodedPem { line: 1 },
        ),
        (
            "encoded twice, with text before it",
            made("{ echo Acme; cat FILE; } | base64"),
            ParseError::EncodedPem { line: 1 },
        ),
        (
            "base64 of DER",
            made("openssl x509 -in FILE -outform DER | base64"),
            encoded(Kind::Certificate),
        ),
        (
            "base64 of DER in one line",
            made("openssl x509 -in FILE -outform DER | base64 -w 0"),
            encoded(Kind::Certificate),
        ),
        (
            "base64 of PKCS #7",
            run("base64 FILE", &pkcs7_der),
            encoded(Kind::Pkcs7),
        ),
    ];
    for (name, file, expected) in cases {
        let error = read_all(&file).unwrap_err();
        assert_eq!(error, expected, "{name}");
        // The test runs the command of the message as it stands there.
        let told = error.to_string();
        let start = ["openssl ", "iconv ", "base64 -d"]
            .iter()
            .filter_map(|program| told.find(program))
            .min();
        let end = [" converts", " decodes", " writes"]
            .iter()
            .filter_map(|verb| told.find(verb))
            .min();
        let command =
            told[start.unwrap()..end.unwrap_or(told.len())].replace("pkcs12", "pkcs12 -passin pass:");
        assert_eq!(
            read_all(run(&command, &file)).as_deref(),
            Ok(&both()[..1]),
            "{name}: {told}"
        );
    }
}

/// A file that no single command converts to certificates gets an error that names its kind.
#[test]
fn a_file_without_certificates_is_named() {
    let sample = &SAMPLES[0];
    let key = |command: &str| run(command, sample.key.as_bytes());
    let misplaced = |kind| Err(ParseError::Misplaced { line: 1, kind });
    let public = key("openssl pkey -in FILE -pubout");
    let cases: Vec<(&str, Vec<u8>, Result<usize, ParseError>)> = vec![
        ("nothing", vec![], Err(ParseError::Empty)),
        ("white space", b"\n \n".into(), Err(ParseError::Empty)),
        (
            "a byte order mark",
            b"\xef\xbb\xbf\r\n".into(),
            Err(ParseError::Empty),
        ),
        ("text", b"hello".into(), Err(ParseError::NotPem)),
        (
            "text that could be base64",
            b"hell".into(),
            Err(ParseError::NotPem),
        ),
        ("numbers", b"0123456789".into(), Err(ParseError::NotPem)),
        (
            "some bytes",
            b"\0\x30\x82".into(),
            Err(ParseError::NotText { line: 1 }),
        ),
        (
            "a Java keystore",
            b"\xfe\xed\xfe\xed\0\0\0\x02".into(),
            Err(ParseError::Der {
                line: 1,
                kind: Kind::JavaKeystore,
            }),
        ),
        (
            "a request",
            sample.request.clone().into(),
            misplaced(Kind::Request),
        ),
        (
            "a request of old",
            sample.request.replace("CERTIFICATE", "NEW CERTIFICATE").into(),
            misplaced(Kind::Request),
        ),
        (
            "a request as a certificate",
            sample.request.replace(" REQUEST", "").into(),
            Err(ParseError::Mislabelled {
                line: 1,
                kind: Kind::Request,
            }),
        ),
        (
            "DER of a request",
            run("openssl req -in FILE -outform DER", sample.request.as_bytes()),
            Err(ParseError::Der {
                line: 1,
                kind: Kind::Request,
            }),
        ),
        ("a public key", public.clone(), misplaced(Kind::PublicKey)),
        (
            "DER of a public key",
            run("openssl pkey -pubin -in FILE -outform DER", &public),
            Err(ParseError::Der {
                line: 1,
                kind: Kind::PublicKey,
            }),
        ),
        (
            "parameters",
            key("openssl ecparam -name prime256v1"),
            misplaced(Kind::Other),
        ),
        (
            "an older label",
            a().replace("CERTIFICATE", "X509 CERTIFICATE").into(),
            Ok(1),
        ),
    ];
    for (name, file, expected) in cases {
        assert_eq!(read_all(&file).map(|found| found.len()), expected, "{name}");
    }
    // A private key is found in any surroundings, and before all other problems.
    let (certificate, der) = (a(), key("openssl pkey -in FILE -outform DER"));
    let keys: Vec<(&str, Vec<u8>)> = vec![
        ("behind it", format!("{certificate}{}", sample.key).into()),
        ("before it", format!("{}{certificate}", sample.key).into()),
        (
            "joined",
            format!("{}{}", certificate.trim_end(), sample.key).into(),
        ),
        ("indented", format!("{certificate}  {}", sample.key).into()),
        (
            "with a byte order mark",
            bytes(&[b"\xef\xbb\xbf", sample.key.as_bytes()]),
        ),
        (
            "behind a damaged block",
            format!("{}\n{}", &certificate[..200], sample.key).into(),
        ),
        (
            "four hyphens",
            format!("{certificate}-{}", &sample.key[2..]).into(),
        ),
        ("commented out", format!("{certificate}# {}", sample.key).into()),
        (
            "line breaks instead of spaces",
            sample.key.replace(' ', "\n").into(),
        ),
        ("cut off", format!("{certificate}{}", &sample.key[..60]).into()),
        ("of SEC 1", key("openssl ec -in FILE")),
        (
            "under a password",
            key("openssl pkcs8 -topk8 -in FILE -passout pass:secret"),
        ),
        (
            "under a password, in the older form",
            key("openssl ec -in FILE -aes256 -passout pass:secret"),
        ),
        ("DER", der.clone()),
        ("DER behind it", bytes(&[certificate.as_bytes(), &der])),
        ("base64 of DER", run("base64 FILE", &der)),
        (
            "base64 of DER behind it",
            bytes(&[certificate.as_bytes(), &run("base64 FILE", &der)]),
        ),
        (
            "DER under a password",
            key("openssl pkcs8 -topk8 -in FILE -passout pass:secret -outform DER"),
        ),
    ];
    for (name, file) in keys {
        assert_eq!(read_all(&file), Err(ParseError::PrivateKey), "{name}");
    }
}

#[test]
fn an_unusable_private_key_is_refused_with_a_reason() {
    let sample = &SAMPLES[0];
    let key = |command: &str| run(command, sample.key.as_bytes());
    let openssh = sample.key.replace("PRIVATE", "OPENSSH PRIVATE");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "DER",
            key("openssl pkey -in FILE -outform DER"),
            "openssl pkey -inform DER -in FILE -out NEW",
        ),
        ("UTF-16", key("iconv -t UTF-16LE FILE"), "iconv -f UTF-16LE"),
        ("base64 of PEM", key("base64 FILE"), "base64 -d FILE"),
        (
            "under a password",
            key("openssl pkcs8 -topk8 -in FILE -passout pass:secret"),
            "encrypted",
        ),
        (
            "in the older form",
            key("openssl ec -in FILE -aes256 -passout pass:secret"),
            "encrypted",
        ),
        ("OpenSSH's", openssh.into(), "ssh-keygen -p -m PEM"),
        ("a public key", key("openssl pkey -in FILE -pubout"), "public key"),
        ("a certificate", a().into(), "no PEM block with a private key"),
        (
            "cut off",
            sample.key[..100].into(),
            "line 1: the block that begins here is cut off",
        ),
    ];
    for (name, file, expected) in cases {
        let told = keys::parse(&file).unwrap_err().to_string();
        assert!(told.contains(expected), "{name}: {told}");
        assert!(
            keys::encoding_of(&file).is_none() && keys::alone(&file).is_err(),
            "{name}"
        );
    }
    // Text after the key does not matter.
    assert!(keys::parse(&format!("{}-----BEGIN", sample.key)).is_ok());
}

/// OpenSSL decides the same: with these settings a certificate does or does not vouch for a client.
#[test]
fn settings_of_a_trusted_certificate() {
    let cases = [
        ("", true),
        ("-addtrust clientAuth", true),
        ("-addtrust serverAuth -addtrust clientAuth", true),
        ("-addtrust anyExtendedKeyUsage", true),
        ("-setalias acme", true),
        ("-addreject serverAuth", true),
        ("-addtrust serverAuth", false),
        ("-addreject clientAuth", false),
        ("-addreject anyExtendedKeyUsage", false),
        ("-addtrust clientAuth -addreject clientAuth", false),
        (
            "-addtrust anyExtendedKeyUsage -addreject clientAuth -setalias acme",
            false,
        ),
    ];
    for (settings, allowed) in cases {
        let made = run(
            &format!("openssl x509 -in FILE -trustout {settings}"),
            a().as_bytes(),
        );
        assert!(made.starts_with(b"-----BEGIN TRUSTED CERTIFICATE-----"));
        let verify = "openssl verify -no_check_time -purpose sslclient -CAfile FILE FILE >/dev/null 2>&1 && \
                      echo yes || echo no";
        assert_eq!(
            run(verify, &made),
            if allowed { &b"yes\n"[..] } else { b"no\n" },
            "{settings}: as OpenSSL has it"
        );
        let read = read_all(bytes(&[b().as_bytes(), &made]));
        let line = b().lines().count() + 1;
        match allowed {
            true => assert_eq!(
                read.as_deref(),
                Ok(&[both()[1].clone(), both()[0].clone()][..]),
                "{settings}"
            ),
            false => assert_eq!(read, Err(ParseError::NotTrusted { line }), "{settings}"),
        }
        let cut = &String::from_utf8(made.clone()).unwrap();
        let der = run("openssl x509 -in FILE -outform DER", a().as_bytes());
        let settings_der = &scan(&made).next().unwrap().unwrap().der[der.len()..].to_vec();
        if let Some(short) = settings_der.len().checked_sub(1) {
            let short = bytes(&[&der, &settings_der[..short]]);
            let damaged = encode_string(TRUSTED_CERTIFICATE, LineEnding::LF, &short).unwrap();
            assert_eq!(
                read_all(&damaged),
                Err(ParseError::NotCertificate { line: 1 }),
                "{settings} {cut}"
            );
        }
    }
}

#[test]
fn a_callers_file_may_hold_the_key_too() {
    let sample = &SAMPLES[0];
    let bag = run(
        "openssl pkcs12 -export -in FILE -passout pass:x | openssl pkcs12 -nodes -passin pass:x",
        &bytes(&[a().as_bytes(), sample.key.as_bytes()]),
    );
    let parameters = run("openssl ecparam -name prime256v1", b"");
    for file in [
        bag,
        bytes(&[&parameters, sample.key.as_bytes(), a().as_bytes()]),
        a().into(),
    ] {
        assert_eq!(certificates_beside_keys(&file).as_deref(), Ok(&both()[..1]));
    }
    assert_eq!(
        certificates_beside_keys(sample.key.as_bytes()),
        Err(ParseError::Empty)
    );
    assert!(matches!(
        certificates_beside_keys(sample.request.as_bytes()),
        Err(ParseError::Misplaced { .. })
    ));
}

#[test]
fn a_block_has_its_line_and_range() {
    let text = format!("# one\r\n{}# two\n# three\n   {}", a().replace('\n', "\r\n"), b());
    let found: Vec<_> = certificates(text.as_bytes())
        .unwrap()
        .into_iter()
        .map(|(_, block)| block)
        .collect();
    assert_eq!((found[0].line, found[1].line), (2, 4 + a().lines().count()));
    assert_eq!(
        &text[found[0].range.end..found[1].range.start],
        "\r\n# two\n# three\n   "
    );
    assert_eq!((found[0].plain, found[1].plain), (true, false));
    assert_eq!(*found[1].to_pem(), b());
}

#[test]
fn shapes_that_only_some_programs_read() {
    let plain = [
        "as openssl writes it",
        "no newline at the end",
        "CRLF",
        "CR",
        "text of openssl before it",
        "attributes of a keystore",
        "p11-kit",
        "a comment",
        "text in Latin-1",
        "spaces at the ends of lines",
        "empty lines",
        "byte order mark and text",
        "the end of a DOS file",
    ];
    for (name, shape) in SHAPES {
        assert_eq!(is_plain(&shape(&a())), plain.contains(name), "{name}");
    }
}

/// Bytes between two certificates; true for a shape in which both certificates are read.
const SEPARATORS: &[(&[u8], bool)] = &[
    (b"", true),
    (b" ", true),
    (b"\n", true),
    (b"\r", true),
    (b"\r\n\r\n", true),
    (b"\xef\xbb\xbf", true),
    (b"\"\n\"", true),
    (b"\\n", true),
    (b"\nsubject=CN = x\n", true),
    (b"\n# Certifica\xe7\xe3o\n", true),
    (b"\n# MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0\n", true),
    (b" text", false),
    (b"\n# ", false),
    (b"\n-----BEGIN \n", false),
    (b"-----END CERTIFICATE-----\n", false),
    (b"\0", false),
];

/// The text is as long as a ConfigMap can hold: the time must not grow with the square of the length.
#[test]
fn a_megabyte_is_read_in_linear_time() {
    let end = "\n-----END CERTIFICATE-----\n";
    let pieces = [
        "\\",
        "BEGIN",
        "# BEGIN PRIVATE KEY ",
        "-----BEGIN ",
        "-----",
        "\r",
        "0\u{2}",
        "MIG+",
        "\n#",
        "\u{feff}",
        end,
        &a(),
        "LS0tLS1C",
    ];
    for piece in pieces {
        for before in ["", "# ", "-----BEGIN CERTIFICATE-----\n"] {
            let text = [
                before.as_bytes(),
                &piece.as_bytes().repeat((1 << 20) / piece.len()),
            ]
            .concat();
            let begun = std::time::Instant::now();
            let _ = (read_all(&text), keys::parse(&text).is_ok());
            assert!(begun.elapsed().as_secs() < 60, "{before}{piece}");
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(300))]

    /// A list of certificates, each in a shape of its own, reads back as exactly these certificates. With
    /// other bytes between them it reads back as these or as an error, never as fewer.
    #[test]
    fn no_certificate_of_a_list_is_lost(
        list in prop::collection::vec(
            (0..SAMPLES.len(), 0..SHAPES.len(), prop::sample::select(SEPARATORS)),
            1..6,
        ),
    ) {
        let mut text = Vec::new();
        let mut clean = true;
        for (at, (sample, shape, (between, is_shape))) in list.iter().enumerate() {
            let (name, shape) = SHAPES[*shape];
            text.extend(shape(&SAMPLES[*sample].certificate.to_pem()));
            if at + 1 < list.len() {
                text.extend(*between);
                let breaks = between.contains(&b'\n') || between.contains(&b'\r');
                let glued = name == "text right after it" && !breaks && *between != b"\\n";
                clean &= is_shape & !glued & (name != "a comment" || breaks);
            }
        }
        let expected: Vec<_> = list.iter().map(|(sample, ..)| SAMPLES[*sample].certificate.clone()).collect();
        match read_all(&text) {
            Ok(found) => prop_assert_eq!(found, expected),
            Err(error) => prop_assert!(!clean, "{}: {}", error, String::from_utf8_lossy(&text)),
        }
    }

    /// The scanner returns as many blocks as there are BEGINs, or an error; no bytes cause a panic.
    #[test]
    fn a_begin_is_a_block_or_an_error(pieces in prop::collection::vec(piece(), 0..12)) {
        let text = pieces.concat();
        let begins = text.windows(b"-----BEGIN ".len()).filter(|window| window == b"-----BEGIN ").count();
        if let Ok(blocks) = scan(&text).collect::<Result<Vec<_>, _>>() {
            prop_assert!(blocks.len() >= begins, "{}", String::from_utf8_lossy(&text));
            for block in blocks {
                let block = &text[block.range];
                prop_assert!(block.starts_with(BEGIN) && block.ends_with(HYPHENS));
            }
        }
        let _ = (read_all(&text), keys::parse(&text).is_ok());
        let _ = csr::read(&text, jiff::SignedDuration::ZERO).is_ok();
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        let _ = (read_all(&bytes), certificates_beside_keys(&bytes), keys::parse(&bytes).is_ok());
        let block = encode_string("TRUSTED CERTIFICATE", LineEnding::LF, &bytes).unwrap();
        let _ = (read_all(&block), Kind::of_der(&bytes));
        let _ = trusted(&[SAMPLES[0].certificate.der(), &bytes].concat());
    }
}

const PIECES: &[&[u8]] = &[
    b"-----BEGIN ",
    b"-----BEGIN",
    b"-----END ",
    b"-----",
    b"CERTIFICATE",
    b"-----BEGIN CERTIFICATE-----",
    b"-----END CERTIFICATE-----",
    b"PRIVATE KEY-----",
    b"\n",
    b"\r",
    b" ",
    b"\\n",
    b"\xef\xbb\xbf",
    b"\0",
    b"#",
    b"\"",
    b"AAAA",
    b"MII",
    b"LS0tLS1CRUdJTi",
    b"\x30\x82\x01\x01\x30",
    b"Proc-Type: 4,ENCRYPTED",
];

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::sample::select(PIECES).prop_map(<[u8]>::to_vec),
        (0..SAMPLES.len(), 0..SHAPES.len())
            .prop_map(|(sample, shape)| SHAPES[shape].1(&SAMPLES[sample].certificate.to_pem())),
    ]
}

#[test]
fn a_source_beyond_its_limits_is_not_parsed() {
    let pem = SAMPLES[0].certificate.to_pem();
    let count = |n: usize| pem.repeat(n);
    assert_eq!(
        source(count(MAX_SOURCE_CERTIFICATES).as_bytes()).unwrap().len(),
        MAX_SOURCE_CERTIFICATES
    );
    assert_eq!(
        source(count(MAX_SOURCE_CERTIFICATES + 1).as_bytes()),
        Err(ParseError::TooMany)
    );
    let padded = |bytes: usize| format!("{}{pem}", " ".repeat(bytes - pem.len() - 1) + "\n");
    assert_eq!(source(padded(MAX_SOURCE_BYTES).as_bytes()).unwrap().len(), 1);
    assert_eq!(
        source(padded(MAX_SOURCE_BYTES + 1).as_bytes()),
        Err(ParseError::TooLong)
    );
    assert!(
        ParseError::TooMany
            .to_string()
            .contains("more than 500 certificates")
    );
    assert!(
        certificates(count(1000).as_bytes()).is_ok(),
        "a truststore holds more"
    );
}

/// Change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    Cut(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Set(prop::sample::Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1..80usize).prop_map(|(at, length)| Change::Cut(at, length)),
        (at(), piece()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
    ]
}

proptest! {
    #![proptest_config(crate::cases(60))]

    /// The scanner reads every certificate that OpenSSL still reads of a changed text, or returns an error.
    #[test]
    fn openssl_reads_no_certificate_that_we_miss(
        list in prop::collection::vec((0..SAMPLES.len(), 0..SHAPES.len()), 1..4),
        changes in prop::collection::vec(change(), 0..4),
    ) {
        let shaped = list.iter().flat_map(|(sample, shape)| {
            SHAPES[*shape].1(&SAMPLES[*sample].certificate.to_pem())
        });
        let mut text: Vec<u8> = shaped.collect();
        for change in changes {
            match change {
                Change::Cut(at, length) if !text.is_empty() => {
                    let start = at.index(text.len());
                    text.drain(start..(start + length).min(text.len()));
                }
                Change::Insert(at, piece) => {
                    let at = at.index(text.len() + 1);
                    text.splice(at..at, piece);
                }
                Change::Set(at, byte) if !text.is_empty() => {
                    let at = at.index(text.len());
                    text[at] = byte;
                }
                _ => {}
            }
        }
        let listed = run("openssl storeutl -certs -passin pass: FILE 2>/dev/null || true", &text);
        let theirs = read_all(&listed).unwrap_or_default();
        if let Ok(ours) = read_all(&text) {
            for certificate in &theirs {
                prop_assert!(ours.contains(certificate), "{}", String::from_utf8_lossy(&text));
            }
            prop_assert!(ours.len() >= theirs.len());
        }
    }
}

/// Every text of up to six of these characters: good, cut off, not canonical, wrongly padded or no base64.
#[test]
fn a_certificate_is_decoded_as_strictly_as_a_key() {
    let mut texts = vec![Vec::new()];
    let mut all = texts.clone();
    for _ in 0..6 {
        let longer = |text: &Vec<u8>| b"AQg/=- ".map(|byte| [text.as_slice(), &[byte]].concat());
        texts = texts.iter().flat_map(longer).collect();
        all.extend(texts.iter().cloned());
    }
    let taken = all.iter().filter(|text| {
        let key = decode(text);
        assert_eq!(decode_public(text), key, "{:?}", String::from_utf8_lossy(text));
        key.is_some()
    });
    assert!(taken.count() > 100);
}
