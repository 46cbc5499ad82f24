//! Names of entries: the name of an authority may begin like the entries of self-signed ClientCertificates.

use crate::{
    api::{AuthorityState, conditions::Reason},
    controllers::mtls_domain::simulation::world::{now, settled},
    model::{
        authorities::{DesiredAuthority, DesiredSource},
        desired::Desired,
        observed::{CanIssue, Observed, Pinned, Source},
    },
    observation::seen::Unseen,
    pki::{
        authority::tests::request,
        certificate::Certificate,
        truststore::{Bundle, Entry},
    },
    trust::truststore::compile,
};

fn made(common_name: &str) -> Certificate {
    crate::pki::authority::generate(&request(common_name), now())
        .unwrap()
        .certificate
}

fn publish(d: &Desired, o: &mut Observed, bundle: &Bundle) {
    let owner = Some(d.placement.owner.clone());
    o.published.as_mut().unwrap().as_mut().unwrap().bundle = bundle.clone().into();
    o.pinned = Ok(Some(Pinned {
        owner,
        bundle: bundle.clone().into(),
    }));
}

/// The entries of self-signed ClientCertificates begin with the same word.
#[test]
fn an_authority_with_the_name_clientcertificates_is_an_ordinary_authority() {
    let certificate = made("clientcertificates");
    let found = || Source::Read {
        certificates: Ok(vec![certificate.clone()]),
        completing: Ok(vec![]),
        can_issue: CanIssue::No,
    };
    let keyed = || Source::Read {
        certificates: Ok(vec![certificate.clone()]),
        completing: Ok(vec![]),
        can_issue: CanIssue::Yes,
    };
    let several = || Source::Several([("third.party".to_owned(), found())].into());
    let secret = "partners.clientcertificates-ca".to_owned();
    let kinds = [
        ("pem", DesiredSource::Pem(String::new()), found()),
        ("secretRef", DesiredSource::Secret { name: "x".into() }, keyed()),
        (
            "configMapRef",
            DesiredSource::ConfigMap {
                name: "x".into(),
                key: "ca.crt".into(),
            },
            found(),
        ),
        (
            "configMapSelector",
            DesiredSource::ConfigMaps {
                labels: [].into(),
                key: "ca.crt".into(),
            },
            several(),
        ),
        (
            "generate",
            DesiredSource::Generated {
                secret,
                request: request("clientcertificates"),
            },
            keyed(),
        ),
    ];
    for (kind, wanted, source) in kinds {
        let (mut d, mut o) = settled();
        let name = "clientcertificates".to_owned();
        d.authorities.push(DesiredAuthority {
            name: name.clone(),
            state: AuthorityState::Active,
            source: wanted,
        });
        o.recorded.insert(name.clone(), certificate.spki_sha256.clone());
        o.authorities.insert(name.clone(), source);
        let first = compile(&d, &o, now(), &|| false).unwrap().unwrap();
        assert!(
            first.bundle.find(&certificate).is_some(),
            "{kind}: {:?}",
            first.bundle
        );
        assert!(
            !first.distrusts && first.findings.is_empty(),
            "{kind}: {:?}",
            first.findings
        );
        for attempt in 1..4 {
            publish(&d, &mut o, &first.bundle);
            let again = compile(&d, &o, now(), &|| false).unwrap().unwrap();
            assert_eq!(
                again.bundle.render(),
                first.bundle.render(),
                "{kind}: reconcile {attempt} uploads another bundle"
            );
        }
        // Its problems are reported like the problems of any authority.
        let broken = Source::Read {
            certificates: parse("nothing"),
            completing: Ok(vec![]),
            can_issue: CanIssue::No,
        };
        let several = matches!(o.authorities[&name], Source::Several(_));
        let broken = if several {
            Source::Several([("third.party".to_owned(), broken)].into())
        } else {
            broken
        };
        o.authorities.insert(name.clone(), broken);
        let kept = compile(&d, &o, now(), &|| false).unwrap().unwrap();
        assert!(
            kept.bundle.find(&certificate).is_some(),
            "{kind}: the last readable certificate stays"
        );
        assert!(!kept.findings.is_empty(), "{kind}");
        // It leaves when it is distrusted, and no other authority leaves with it.
        d.authorities[1].state = AuthorityState::Distrusted;
        let gone = compile(&d, &o, now(), &|| false).unwrap().unwrap();
        assert!(
            gone.distrusts && gone.bundle.find(&certificate).is_none(),
            "{kind}"
        );
        assert_eq!(gone.bundle.entries.len(), 1, "{kind}");
    }
}

fn parse(text: &str) -> Result<Vec<Certificate>, crate::pki::pem_error::ParseError> {
    crate::pki::pem_certificates::parse_pem_bundle(text)
}

#[test]
fn selected_and_self_signed_certificates_of_that_name_differ() {
    let (certificate, key) = (
        made("Third"),
        crate::pki::keys::generate(crate::pki::keys::KeyKind::EcdsaP256).unwrap(),
    );
    let leaf = crate::pki::leaf::self_sign(&crate::pki::leaf::tests::request("client1"), &key, now())
        .unwrap()
        .certificate;
    let entry = |authority: &str, certificate: &Certificate| Entry {
        authority: authority.into(),
        certificate: certificate.clone(),
        max_leaf: None,
        keep_until: None,
    };
    let (mut d, mut o) = settled();
    let source = DesiredSource::ConfigMaps {
        labels: [].into(),
        key: "ca.crt".into(),
    };
    d.authorities.push(DesiredAuthority {
        name: "clientcertificates".into(),
        state: AuthorityState::Active,
        source,
    });
    let mut bundle = (*o.pinned.clone().unwrap().unwrap().bundle).clone();
    bundle
        .entries
        .push(entry("clientcertificates/third", &certificate));
    bundle
        .entries
        .push(entry("clientcertificates/ns/client1/uid", &leaf));
    publish(&d, &mut o, &bundle);
    // Its ConfigMaps are unknown: the selected certificate stays, and the certificate of a deleted
    // ClientCertificate leaves.
    let unseen = Unseen {
        reason: Reason::Unreachable,
        message: "no answer".into(),
    };
    o.authorities
        .insert("clientcertificates".into(), Source::Unseen(unseen));
    let compiled = compile(&d, &o, now(), &|| false).unwrap().unwrap().bundle;
    assert!(
        compiled.find(&certificate).is_some() && compiled.find(&leaf).is_none(),
        "{compiled:?}"
    );
    // A ConfigMap less: its certificate does not count as the certificate of an unwatched ClientCertificate.
    d.watched = Some([].into());
    o.authorities
        .insert("clientcertificates".into(), Source::Several([].into()));
    let compiled = compile(&d, &o, now(), &|| false).unwrap().unwrap().bundle;
    assert!(
        compiled.find(&certificate).is_none() && compiled.find(&leaf).is_some(),
        "{compiled:?}"
    );
}
