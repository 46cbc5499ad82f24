//! Findings for given facts.

use std::{path::Path, sync::LazyLock};

use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::{
    aws::{
        acm,
        gateway::{
            domains::{Domain, DomainStatus, IpAddressType, Truststore},
            mappings::Mapping,
        },
    },
    cli::doctor::{
        facts::{Answer, Client, Endpoint, Facts, Holder, Object},
        findings::findings,
        report, text,
    },
    pki::certificate::Certificate,
    probe::public_dns::PublicName,
};

const TARGET: &str = "d-1.execute-api.eu-west-1.amazonaws.com";
const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0); // in January 2027

/// Certificate of an authority, or with `ca: false` of a client, and its issuer for other certificates.
struct Party {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn party(name: &str, by: Option<&Party>, ca: bool, years: (i32, i32)) -> Party {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = if ca {
        IsCa::Ca(BasicConstraints::Unconstrained)
    } else {
        IsCa::NoCa
    };
    (params.not_before, params.not_after) = (
        rcgen::date_time_ymd(years.0, 1, 1),
        rcgen::date_time_ymd(years.1, 1, 1),
    );
    let made = match by {
        Some(by) => params.signed_by(&key, &by.issuer),
        None => params.self_signed(&key),
    };
    Party {
        certificate: Certificate::from_der(made.unwrap().der()).unwrap(),
        issuer: Issuer::new(params, key),
    }
}

/// Chain of the root and four authorities, each below the previous one; a client under the root, and one
/// under the first authority below it.
static WORLD: LazyLock<(Vec<Party>, [Party; 2])> = LazyLock::new(|| {
    let mut chain = vec![party("root", None, true, (2020, 2040))];
    for depth in 1..=4 {
        let next = party(&format!("ca{depth}"), chain.last(), true, (2020, 2040));
        chain.push(next);
    }
    let client = |by: &Party| party("client", Some(by), false, (2026, 2028));
    let clients = [client(&chain[0]), client(&chain[1])];
    (chain, clients)
});

fn authority(depth: usize) -> Certificate {
    WORLD.0[depth].certificate.clone()
}

fn client(certificate: Certificate) -> Option<Client> {
    Some(Client {
        certificate,
        others: vec![],
        holder: None,
    })
}

fn domain() -> Domain {
    Domain {
        name: "mtls.example.com".into(),
        arn: "arn:domain".into(),
        certificate_arn: "arn:certificate".into(),
        ownership_certificate_arn: None,
        truststore: Some(Truststore {
            uri: "s3://b/k".into(),
            version: Some("v2".into()),
            warnings: vec![],
        }),
        status: DomainStatus::Available,
        status_message: None,
        target: TARGET.into(),
        hosted_zone_id: "ZAPI".into(),
        ip_address_type: IpAddressType::Ipv4,
        endpoint_type: "REGIONAL".into(),
        security_policy: "TLS_1_2".into(),
        routing_mode: "API_MAPPING_ONLY".into(),
        tags: [].into(),
    }
}

fn certificate(status: acm::CertificateStatus) -> acm::Certificate {
    let record = Some((
        "_x.mtls.example.com".to_owned(),
        "_y.acm-validations.aws.".to_owned(),
    ));
    acm::Certificate {
        arn: "arn:certificate".into(),
        domain_name: "mtls.example.com".into(),
        names: vec!["mtls.example.com".into()],
        status,
        key_algorithm: acm::KeyAlgorithm::EcPrime256v1,
        kind: acm::CertificateKind::Requested,
        not_after: Some(NOW + SignedDuration::from_hours(1000)),
        created_at: None,
        in_use: true,
        failure: None,
        renewal: None,
        validation: vec![acm::Validation {
            domain: "mtls.example.com".into(),
            record,
            status: acm::ValidationStatus::Pending,
        }],
        tags: [].into(),
    }
}

/// Returns facts with a caller under the root, and without problems.
fn well() -> Facts {
    let mapping = |id: &str, path: &str, api: &str| Mapping {
        id: id.into(),
        path: path.into(),
        api_id: api.into(),
        stage: "prod".into(),
    };
    Facts {
        now: NOW,
        object: Object {
            name: "ns/partners".into(),
            domain_name: "mtls.example.com".into(),
            ..Object::default()
        },
        domain: Ok(Some(domain())),
        certificates: Ok(vec![certificate(acm::CertificateStatus::Issued)]),
        trusted: Ok(Some(vec![authority(0)])),
        newest: Ok(Some("v2".into())),
        dns: Ok(Some(PublicName {
            cnames: vec![TARGET.into()],
            ..PublicName::default()
        })),
        mappings: Ok(vec![
            mapping("m1", "orders", "a1"),
            mapping("m2", "orders/v2", "a2"),
        ]),
        stages: [
            ("a1".to_owned(), Ok(Some(vec!["prod".to_owned()]))),
            ("a2".to_owned(), Ok(Some(vec!["prod".to_owned()]))),
        ]
        .into(),
        endpoints: [("a1".to_owned(), Ok(Endpoint::Closed))].into(),
        path: "/orders/1".into(),
        client: client(WORLD.1[0].certificate.clone()),
        answer: Answer::Status(200),
    }
}

fn changed(facts: &mut Facts, change: impl FnOnce(&mut Domain)) {
    change(facts.domain.as_mut().unwrap().as_mut().unwrap());
}

fn trusts(facts: &mut Facts, depths: std::ops::RangeInclusive<usize>) {
    facts.trusted = Ok(Some(depths.map(authority).collect()));
}

type Case = (fn(&mut Facts), &'static [(&'static str, &'static str)]);

/// Lists changed facts and their findings: the code and a part of the cause or the remedy.
#[test]
fn each_cause_has_its_finding() {
    let cases: Vec<Case> = vec![
        (|_| {}, &[]),
        // the object
        (|f| f.object.suspended = true, &[("suspended", "ns/partners")]),
        (
            |f| f.object.refused = Some(("NotPermitted".into(), "no rule fits".into())),
            &[("not-accepted", "NotPermitted: no rule fits")],
        ),
        // the custom domain
        (
            |f| f.domain = Ok(None),
            &[("no-custom-domain", "mtls.example.com")],
        ),
        (
            |f| changed(f, |d| d.status = DomainStatus::Updating),
            &[("domain-updating", "what was in force before")],
        ),
        (
            |f| changed(f, |d| d.status = DomainStatus::PendingOwnershipVerification),
            &[("domain-locked", "PENDING_OWNERSHIP_VERIFICATION")],
        ),
        (
            |f| changed(f, |d| d.truststore = None),
            &[("no-mutual-tls", "no truststore")],
        ),
        // its certificate
        (
            |f| f.certificates = Ok(vec![certificate(acm::CertificateStatus::PendingValidation)]),
            &[(
                "server-certificate-not-issued",
                "_x.mtls.example.com CNAME _y.acm-validations.aws.",
            )],
        ),
        (
            |f| f.certificates.as_mut().unwrap()[0].not_after = Some(NOW),
            &[("server-certificate-not-issued", "expired at 2027-01-15")],
        ),
        // the truststore
        (
            |f| f.newest = Ok(Some("v3".into())),
            &[("truststore-stale", "version v2 of s3://b/k, but the newest is v3")],
        ),
        (
            |f| f.newest = Ok(None),
            &[("truststore-stale", "has been deleted")],
        ),
        (|f| f.trusted = Ok(None), &[("truststore-gone", "s3://b/k")]),
        (
            |f| {
                changed(f, |d| {
                    d.truststore.as_mut().unwrap().warnings = vec!["it is old".into()]
                })
            },
            &[("truststore-warning", "it is old")],
        ),
        // the client's certificate
        (
            |f| f.now = NOW + SignedDuration::from_hours(24 * 400),
            &[
                ("server-certificate-not-issued", "expired"),
                ("client-certificate-expired", "2028-01-01"),
            ],
        ),
        (
            |f| f.now = NOW - SignedDuration::from_hours(24 * 400),
            &[("client-certificate-not-yet-valid", "2026-01-01")],
        ),
        (
            |f| f.client = client(party("stranger", None, false, (2026, 2028)).certificate),
            &[("certificate-not-trusted", "self-signed and not in the truststore")],
        ),
        (
            |f| {
                let own = party("own", None, false, (2026, 2028)).certificate;
                f.trusted = Ok(Some(vec![authority(0), own.clone()]));
                f.client = client(own);
            },
            &[],
        ),
        (
            |f| f.trusted = Ok(Some(vec![party("other", None, true, (2020, 2040)).certificate])),
            &[(
                "certificate-not-trusted",
                "issued by CN=root, which is not in the truststore of mtls.example.com (CN=other)",
            )],
        ),
        (
            |f| f.trusted = Ok(Some(vec![party("root", None, true, (2020, 2040)).certificate])),
            &[("certificate-not-trusted", "another key of CN=root")],
        ),
        // an intermediate of which only the root is trusted; the caller sends it along or not
        (
            |f| {
                f.client = client(WORLD.1[1].certificate.clone());
                f.client.as_mut().unwrap().others = vec![authority(1)];
            },
            &[(
                "issuer-not-in-truststore",
                "add the certificate of CN=ca1 to spec.trust.authorities",
            )],
        ),
        (
            |f| f.client = client(WORLD.1[1].certificate.clone()),
            &[(
                "certificate-not-trusted",
                "also when it is an intermediate of one that is there",
            )],
        ),
        (
            |f| {
                f.client = client(WORLD.1[1].certificate.clone());
                trusts(f, 0..=1);
            },
            &[],
        ),
        (
            |f| {
                f.client = client(WORLD.1[1].certificate.clone());
                trusts(f, 1..=1);
            },
            &[("chain-incomplete", "CN=root is not in the truststore")],
        ),
        (
            |f| {
                f.client = client(party("deep", Some(&WORLD.0[3]), false, (2026, 2028)).certificate);
                trusts(f, 0..=3);
            },
            &[],
        ),
        (
            |f| {
                f.client = client(party("deeper", Some(&WORLD.0[4]), false, (2026, 2028)).certificate);
                trusts(f, 0..=4);
            },
            &[(
                "chain-too-deep",
                "from CN=ca4 up to its root there are 5 certificates",
            )],
        ),
        (
            |f| {
                let root = party("old", None, true, (2020, 2027));
                f.client = client(party("late", Some(&root), false, (2026, 2028)).certificate);
                f.trusted = Ok(Some(vec![root.certificate]));
            },
            &[("authority-expired", "CN=old in the truststore")],
        ),
        // a ClientCertificate
        (
            |f| {
                f.client.as_mut().unwrap().holder = Some(Holder {
                    name: "ns/c".into(),
                    domain: "ns/other".into(),
                    unready: None,
                })
            },
            &[("certificate-of-another-domain", "for the MtlsDomain ns/other")],
        ),
        (
            |f| {
                let unready = Some(("Queued".into(), "next".into()));
                f.client.as_mut().unwrap().holder = Some(Holder {
                    name: "ns/c".into(),
                    domain: "ns/partners".into(),
                    unready,
                });
            },
            &[("client-certificate-not-ready", "Queued: next")],
        ),
        // DNS
        (
            |f| f.dns = Ok(Some(PublicName::default())),
            &[("dns-missing", "no address")],
        ),
        (
            |f| {
                f.dns = Ok(Some(PublicName {
                    cnames: vec!["d-2.example".into()],
                    ..PublicName::default()
                }))
            },
            &[("dns-wrong", "to d-2.example instead of d-1.")],
        ),
        (
            |f| {
                let found = PublicName {
                    addresses: ["192.0.2.1".parse().unwrap()].into(),
                    ..PublicName::default()
                };
                f.dns = Ok(Some(found));
            },
            &[("dns-wrong", "192.0.2.1")],
        ),
        // mappings
        (
            |f| f.path = "/ordersx".into(),
            &[(
                "mapping-missing",
                "path /ordersx (there are: \"orders\", \"orders/v2\")",
            )],
        ),
        (
            |f| f.path = "/".into(),
            &[("mapping-missing", "takes the path /")],
        ),
        (
            |f| f.mappings = Ok(vec![]),
            &[("mapping-missing", "there are: none")],
        ),
        (|f| f.path = "/orders?a=/b".into(), &[]),
        (
            |f| {
                f.stages.insert("a2".into(), Ok(None));
            },
            &[],
        ),
        (
            |f| {
                f.path = "/orders/v2/1".into();
                f.stages.insert("a2".into(), Ok(None));
            },
            &[("mapped-api-missing", "the API a2")],
        ),
        (
            |f| {
                f.stages.insert("a1".into(), Ok(Some(vec!["test".into()])));
            },
            &[("mapped-api-missing", "the stage prod of a1")],
        ),
        // bypasses
        (
            |f| {
                f.endpoints.insert("a1".into(), Ok(Endpoint::Open));
            },
            &[("bypass-open", "execute-api endpoint of a1")],
        ),
        (
            |f| {
                f.object.endpoint_kept = true;
                f.endpoints.insert("a1".into(), Ok(Endpoint::Open));
            },
            &[("bypass-open", "spec.defaultEndpoint is Keep")],
        ),
        (
            |f| {
                f.endpoints.insert("a1".into(), Ok(Endpoint::Answers(200)));
            },
            &[("bypass-open", "still answers with status 200")],
        ),
        (
            |f| f.object.bypass = Some("plain.example.com leads to a1".into()),
            &[("bypass-open", "plain.example.com")],
        ),
        // only the answer
        (
            |f| f.answer = Answer::Status(403),
            &[("refused-behind-mutual-tls", "403")],
        ),
        (|f| f.answer = Answer::Status(404), &[("no-route", "/orders/1")]),
        (
            |f| f.answer = Answer::None("connection refused".into()),
            &[("no-answer", "connection refused")],
        ),
        (
            |f| f.client = None,
            &[("no-mutual-tls", "without a certificate, with status 200")],
        ),
        (
            |f| {
                f.client = None;
                f.answer = Answer::None("the TLS handshake failed".into());
            },
            &[],
        ),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let mut facts = well();
        change(&mut facts);
        let found = findings(&facts);
        let words: Vec<_> = found.iter().map(|finding| finding.what).collect();
        let wanted: Vec<_> = expected.iter().map(|(what, _)| *what).collect();
        assert_eq!(words, wanted, "case {number}: {found:#?}");
        for (finding, (_, part)) in found.iter().zip(expected) {
            let text = format!("{} {}", finding.cause, finding.remedy);
            assert!(text.contains(part), "case {number}: {part:?} is not in {text:?}");
        }
    }
}

#[test]
fn unreadable_facts_are_no_findings_but_reported() {
    let mut facts = well();
    let why = || "apigateway:GetDomainName: no answer in time".to_owned();
    (facts.domain, facts.certificates, facts.trusted) = (Err(why()), Err(why()), Err(why()));
    (facts.newest, facts.dns, facts.mappings) = (Err(why()), Err("SERVFAIL".into()), Err(why()));
    facts.stages.insert("a1".into(), Err(why()));
    facts.endpoints.insert("a1".into(), Err(why()));
    let report = report(&facts);
    assert_eq!(report.findings, []);
    let of_aws = "the custom domain, the server certificate, the truststore, the newest version of the \
        truststore, the API mappings, the API a1, \
        the execute-api endpoint of a1";
    assert_eq!(
        report.unseen,
        ["DNS: SERVFAIL".to_owned(), format!("{of_aws}: {}", why())]
    );
}

#[test]
fn the_text_output_is_readable() {
    let mut facts = well();
    facts.now = NOW + SignedDuration::from_hours(24 * 400);
    facts.certificates = Err("acm:DescribeCertificate: no answer in time".into());
    facts.answer = Answer::Status(403);
    assert_eq!(
        text(&report(&facts)),
        "\
mtls.example.com (MtlsDomain ns/partners)
answered with status 403

client-certificate-expired
  cause:  the client certificate CN=client expired at 2028-01-01T00:00:00Z
  remedy: give the caller a new one; a ClientCertificate renews itself, but the caller has to read its \
         Secret again

not checked: the server certificate: acm:DescribeCertificate: no answer in time
"
    );
    assert!(text(&report(&well())).ends_with("answered with status 200\n\nNothing found.\n"));
}

#[test]
fn the_page_has_every_finding() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(here.join("docs/troubleshooting.md")).unwrap();
    let source = ["findings.rs", "trust_findings.rs"]
        .map(|file| std::fs::read_to_string(here.join("src/cli/doctor").join(file)).unwrap())
        .concat();
    // First argument of each call: all words have dashes but for one.
    let quoted = source.split('"').skip(1).step_by(2);
    let words = quoted.filter(|w| {
        w.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && (w.contains('-') || *w == "suspended")
    });
    let words: std::collections::BTreeSet<_> = words.collect();
    assert!(words.len() > 20, "{words:?}");
    let missing: Vec<_> = words
        .iter()
        .filter(|word| !page.contains(&format!("`{word}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "explain {missing:?} in docs/troubleshooting.md"
    );
}
