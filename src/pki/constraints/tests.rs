//! Tests of `constraints`.

use std::{path::Path, process::Command};

use crate::pki::{
    authority::SigningAuthority,
    certificate::Certificate,
    constraints::of_leaf,
    keys::KeyKind,
    leaf::{
        self, IssueError, LeafRequest,
        tests::{request, spki},
    },
    pem_certificates::parse_pem_bundle,
};

fn openssl(dir: &Path, args: &[&str]) -> bool {
    Command::new("openssl")
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
        .status
        .success()
}

/// Creates a certificate `name`.pem with these extensions, signed by `by` or by itself.
fn made(dir: &Path, name: &str, subject: &str, by: Option<&str>, extensions: &str) -> Certificate {
    std::fs::write(dir.join("ext"), extensions).unwrap();
    let (key, csr, out) = (
        format!("{name}.key"),
        format!("{name}.csr"),
        format!("{name}.pem"),
    );
    let curve = "ec_paramgen_curve:P-256";
    let new = [
        "req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", curve, "-keyout", &key, "-out", &csr,
    ];
    assert!(
        openssl(dir, &[&new[..], &["-subj", subject]].concat()),
        "{subject}"
    );
    let (ca, ca_key) = by.map_or_else(Default::default, |by| (format!("{by}.pem"), format!("{by}.key")));
    let signer = match by {
        Some(_) => vec!["-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"],
        None => vec!["-signkey", &key],
    };
    let sign = [
        "x509", "-req", "-in", &csr, "-days", "365", "-extfile", "ext", "-out", &out,
    ];
    assert!(openssl(dir, &[&sign[..], &signer].concat()), "{extensions}");
    parse_pem_bundle(&std::fs::read_to_string(dir.join(out)).unwrap())
        .unwrap()
        .remove(0)
}

const CA: &str =
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n";

const LEAF: &str = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n";

/// Cases: the root's extensions, the issuing authority's extensions, the leaf's names, and the expected
/// message; empty: none.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("", "", "", ""),
    (
        "basicConstraints=critical,CA:TRUE,pathlen:0",
        "",
        "",
        "CN=Root has a path length (pathLen) of 0",
    ),
    (
        "basicConstraints=critical,CA:TRUE,pathlen:1",
        "basicConstraints=critical,CA:TRUE,pathlen:0",
        "",
        "",
    ),
    (
        "",
        "extendedKeyUsage=serverAuth",
        "",
        "CN=Issuing,O=Acme is not for client certificates",
    ),
    (
        "extendedKeyUsage=serverAuth",
        "extendedKeyUsage=clientAuth",
        "",
        "CN=Root is not for client certificates",
    ),
    ("", "extendedKeyUsage=serverAuth,clientAuth", "", ""),
    (
        "",
        "keyUsage=critical,digitalSignature,cRLSign",
        "",
        "may not sign certificates: its keyUsage",
    ),
    (
        "nameConstraints=critical,permitted;DNS:acme.example",
        "",
        "subjectAltName=DNS:a.acme.example",
        "",
    ),
    (
        "nameConstraints=critical,permitted;DNS:acme.example",
        "",
        "subjectAltName=DNS:acme.example.org",
        "the DNS name",
    ),
    (
        "nameConstraints=critical,permitted;DNS:acme.example",
        "",
        "subjectAltName=DNS:xacme.example",
        "the DNS name",
    ),
    (
        "nameConstraints=critical,permitted;DNS:acme.example",
        "",
        "subjectAltName=URI:spiffe://x/y",
        "",
    ),
    (
        "",
        "nameConstraints=critical,excluded;DNS:acme.example",
        "subjectAltName=DNS:b.ACME.example",
        "the DNS name",
    ),
    (
        "nameConstraints=critical,permitted;URI:.acme.example",
        "",
        "subjectAltName=URI:https://x.acme.example:1/p",
        "",
    ),
    (
        "nameConstraints=critical,permitted;URI:acme.example",
        "",
        "subjectAltName=URI:https://x.acme.example/",
        "the URI",
    ),
    (
        "nameConstraints=critical,permitted;email:acme.example",
        "",
        "subjectAltName=email:a@acme.example",
        "",
    ),
    (
        "nameConstraints=critical,permitted;email:acme.example",
        "",
        "subjectAltName=email:a@b.acme.example",
        "the e-mail",
    ),
    (
        "nameConstraints=critical,permitted;email:a@acme.example",
        "",
        "subjectAltName=email:b@acme.example",
        "the e-mail",
    ),
    ("nameConstraints=critical,permitted;dirName:here", "", "", ""),
    (
        "nameConstraints=critical,excluded;dirName:here",
        "",
        "",
        "the subject CN=Issuing,O=Acme",
    ),
    (
        "",
        "nameConstraints=critical,excluded;dirName:here",
        "",
        "the subject CN=caller,O=Acme",
    ),
    (
        "nameConstraints=critical,permitted;IP:10.0.0.0/255.0.0.0",
        "",
        "subjectAltName=DNS:a.example",
        "",
    ),
];

/// Merges extensions: a later line replaces an earlier one of its name.
fn extensions(base: &str, more: &str) -> String {
    let (name, _) = more.split_once('=').unwrap_or((more, ""));
    let kept: Vec<_> = base
        .lines()
        .filter(|line| name.is_empty() || !line.starts_with(name))
        .collect();
    format!("{}\n{more}\n[here]\nO=Acme\n", kept.join("\n"))
}

#[test]
fn openssl_and_the_operator_agree_on_constraints() {
    for (root, issuing, leaf, told) in CASES {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let root = made(at, "root", "/CN=Root", None, &extensions(CA, root));
        let issuing = made(
            at,
            "issuing",
            "/O=Acme/CN=Issuing",
            Some("root"),
            &extensions(CA, issuing),
        );
        let leaf_extensions = extensions(LEAF, leaf);
        let leaf = made(at, "leaf", "/O=Acme/CN=caller", Some("issuing"), &leaf_extensions);
        let found = of_leaf(&leaf, &[issuing.clone(), root.clone()]).map(|violation| violation.to_string());
        let openssl = openssl(
            at,
            &[
                "verify",
                "-purpose",
                "sslclient",
                "-CAfile",
                "root.pem",
                "-untrusted",
                "issuing.pem",
                "leaf.pem",
            ],
        );
        assert_eq!(found.is_none(), openssl, "{leaf_extensions}: {found:?}");
        assert!(found.unwrap_or_default().contains(told), "{told}");
        // The issuing side reports the same constraint before it writes anything.
        let read = |name: &str| std::fs::read_to_string(at.join(name)).unwrap();
        let issuer = SigningAuthority::from_pem(
            &read("issuing.pem"),
            &read("issuing.key"),
            Some(read("root.pem").as_bytes()),
        );
        let Ok(issuer) = issuer else { continue };
        let asked = LeafRequest {
            organizations: vec!["Acme".to_owned()],
            dns_names: leaf.dns_names.clone(),
            uris: leaf.uris.clone(),
            email_addresses: leaf.email_addresses.clone(),
            ..request("caller")
        };
        let now = leaf.not_before + jiff::SignedDuration::from_mins(1);
        match leaf::issue(&asked, &spki(KeyKind::EcdsaP256), &issuer, now) {
            Ok(_) => assert!(told.is_empty(), "{told}"),
            Err(IssueError::Constrained(violation)) => {
                assert!(violation.to_string().contains(told), "{violation}")
            }
            Err(error) => panic!("{error}"),
        }
    }
}
