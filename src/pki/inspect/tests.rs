//! Tests of `inspect`.

use crate::pki::{
    authority::{
        self, CLOCK_SLACK, SigningAuthority, earlier, later,
        tests::{at, issuer},
    },
    certificate::Certificate,
    inspect::{Inspection, Reason, RenewBefore, SecretData, least_interval, needs_issue, renewal_time},
    keys::{self, DesiredKey, Encoding, KeyKind},
    leaf::{
        Leaf, LeafRequest, extensions, issue, key_id_of, self_sign, subject_der,
        tests::{request, spki},
        usage,
    },
    pem_certificates::parse_pem_bundle,
    signing::{Draft, sign},
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rcgen::PublicKeyData;

struct World {
    issuer: Option<SigningAuthority>,
    request: LeafRequest,
    secret: Option<SecretData>,
    key: DesiredKey,
    renew_before: RenewBefore,
    renewal_asked: bool,
    now: Timestamp,
}

fn made(kind: KeyKind, encoding: Encoding) -> DesiredKey {
    DesiredKey::Made {
        kind,
        encoding,
        keep: false,
    }
}

impl World {
    fn new(now: Timestamp, issuer: SigningAuthority, request: LeafRequest) -> World {
        let key = keys::generate(KeyKind::EcdsaP256).unwrap();
        let leaf = issue(&request, &key.subject_public_key_info(), &issuer, now).unwrap();
        World::holding(Some(issuer), request, leaf, &key, now)
    }

    fn self_signed(now: Timestamp, request: LeafRequest) -> World {
        let key = keys::generate(KeyKind::EcdsaP256).unwrap();
        let leaf = self_sign(&request, &key, now).unwrap();
        World::holding(None, request, leaf, &key, now)
    }

    fn holding(
        issuer: Option<SigningAuthority>,
        request: LeafRequest,
        leaf: Leaf,
        key: &rcgen::KeyPair,
        now: Timestamp,
    ) -> World {
        let secret = SecretData {
            tls_crt: Some(leaf.chain_pem.into_bytes()),
            tls_key: Some(keys::pem(key, Encoding::Pkcs8).unwrap().as_bytes().to_vec()),
            ca_crt: Some(leaf.ca_pem.into_bytes()),
        };
        World {
            issuer,
            request,
            secret: Some(secret),
            key: made(KeyKind::EcdsaP256, Encoding::Pkcs8),
            renew_before: RenewBefore::Unset,
            renewal_asked: false,
            now,
        }
    }

    fn reason(&self) -> Option<Reason> {
        let inspection = Inspection {
            secret: self.secret.as_ref(),
            request: &self.request,
            key: &self.key,
            issuer: self.issuer.as_ref().map(SigningAuthority::chain),
            renew_before: self.renew_before,
            renewal_asked: self.renewal_asked,
            now: self.now,
        };
        needs_issue(&inspection).map(|violation| violation.reason)
    }

    fn data(&mut self) -> &mut SecretData {
        self.secret.as_mut().unwrap()
    }

    fn leaf(&self) -> Certificate {
        let text = String::from_utf8(self.secret.as_ref().unwrap().tls_crt.clone().unwrap()).unwrap();
        parse_pem_bundle(&text).unwrap().remove(0)
    }
}

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn born() -> Timestamp {
    at("2026-11-24T12:00:00.7Z")
}

fn other_key() -> Option<Vec<u8>> {
    Some(
        keys::pem(&keys::generate(KeyKind::EcdsaP256).unwrap(), Encoding::Pkcs8)
            .unwrap()
            .as_bytes()
            .to_vec(),
    )
}

fn prefix(data: &mut Option<Vec<u8>>, with: &[u8]) {
    *data = Some([with, data.as_ref().unwrap()].concat());
}

fn replace(data: &mut Option<Vec<u8>>, what: &str, with: &str) {
    *data = Some(
        String::from_utf8(data.take().unwrap())
            .unwrap()
            .replace(what, with)
            .into(),
    );
}

#[test]
fn each_rule_in_its_order() {
    type Change = fn(&mut World);
    let cases: Vec<(&str, Change, Option<Reason>)> = vec![
        ("as issued", |_| (), None),
        ("no Secret", |w| w.secret = None, Some(Reason::SecretMissing)),
        (
            "no data",
            |w| *w.data() = SecretData::default(),
            Some(Reason::DataMissing),
        ),
        ("no key", |w| w.data().tls_key = None, Some(Reason::DataMissing)),
        (
            "empty ca.crt",
            |w| w.data().ca_crt = Some(vec![]),
            Some(Reason::DataMissing),
        ),
        (
            "not text",
            |w| w.data().tls_crt = Some(vec![0xff]),
            Some(Reason::Damaged),
        ),
        (
            "not PEM",
            |w| w.data().tls_crt = Some(b"x".to_vec()),
            Some(Reason::Damaged),
        ),
        (
            "a comment in Latin-1",
            |w| prefix(&mut w.data().tls_crt, b"Gr\xf6\xdfe\n"),
            None,
        ),
        ("CRLF", |w| replace(&mut w.data().tls_key, "\n", "\r\n"), None),
        // Other programs mount the Secret, so its PEM has to be in a shape that they read.
        (
            "a byte order mark",
            |w| prefix(&mut w.data().tls_key, b"\xef\xbb\xbf"),
            Some(Reason::Damaged),
        ),
        (
            "indented",
            |w| prefix(&mut w.data().ca_crt, b" "),
            Some(Reason::Damaged),
        ),
        (
            "no line breaks",
            |w| replace(&mut w.data().tls_crt, "\n", ""),
            Some(Reason::Damaged),
        ),
        (
            "key cut",
            |w| w.data().tls_key.as_mut().unwrap().truncate(60),
            Some(Reason::Damaged),
        ),
        (
            "another key",
            |w| w.data().tls_key = other_key(),
            Some(Reason::KeyMismatch),
        ),
        (
            "key kind",
            |w| w.key = made(KeyKind::Rsa2048, Encoding::Pkcs8),
            Some(Reason::KeyDiffers),
        ),
        (
            "encoding",
            |w| w.key = made(KeyKind::EcdsaP256, Encoding::Pkcs1),
            Some(Reason::KeyDiffers),
        ),
        (
            "common name",
            |w| w.request.common_name = "Client1".into(),
            Some(Reason::SubjectDiffers),
        ),
        (
            "organization",
            |w| w.request.organizations = vec!["Acme".into()],
            Some(Reason::SubjectDiffers),
        ),
        (
            "DNS name",
            |w| w.request.dns_names = vec!["c".into()],
            Some(Reason::SubjectDiffers),
        ),
        ("order of names", |w| w.request.dns_names.reverse(), None),
        (
            "one URI less",
            |w| w.request.uris.clear(),
            Some(Reason::SubjectDiffers),
        ),
        (
            "longer",
            |w| w.request.duration += DAY,
            Some(Reason::DurationDiffers),
        ),
        (
            "shorter",
            |w| w.request.duration -= DAY,
            Some(Reason::DurationDiffers),
        ),
        (
            "authority renamed",
            |w| w.issuer = Some(issuer("other", born())),
            Some(Reason::IssuerDiffers),
        ),
        (
            "authority re-keyed",
            |w| w.issuer = Some(issuer("Partners", born())),
            Some(Reason::IssuerDiffers),
        ),
        (
            "another ca.crt",
            |w| w.data().ca_crt = Some(issuer("x", born()).chain().ca_pem().into()),
            Some(Reason::ChainDiffers),
        ),
        (
            "ca.crt with other line ends",
            |w| {
                w.data().ca_crt = Some(
                    w.issuer
                        .as_ref()
                        .unwrap()
                        .chain()
                        .ca_pem()
                        .replace('\n', "\r\n")
                        .into(),
                )
            },
            None,
        ),
        (
            "more in tls.crt",
            |w| {
                let more = w.issuer.as_ref().unwrap().chain().ca_pem();
                w.data().tls_crt.as_mut().unwrap().extend(more.bytes());
            },
            Some(Reason::ChainDiffers),
        ),
        (
            "self-signed now",
            |w| w.issuer = None,
            Some(Reason::IssuerDiffers),
        ),
        (
            "asked for",
            |w| w.renewal_asked = true,
            Some(Reason::RenewalAsked),
        ),
        ("expired", |w| w.now = w.leaf().not_after, Some(Reason::Expired)),
        (
            "last second",
            |w| w.now = w.leaf().not_after - SignedDuration::from_secs(1),
            Some(Reason::RenewalDue),
        ),
        (
            "a third left",
            |w| w.now = w.leaf().not_after - DAY * 30,
            Some(Reason::RenewalDue),
        ),
        ("not yet due", |w| w.now = w.leaf().not_after - DAY * 31, None),
        (
            "renewBefore",
            |w| (w.now, w.renew_before) = (w.now + DAY, RenewBefore::Duration(DAY * 89)),
            Some(Reason::RenewalDue),
        ),
        (
            "renewBefore, sooner than a hundredth of the lifetime",
            |w| {
                let second = SignedDuration::from_secs(1);
                (w.now, w.renew_before) = (
                    w.now + DAY * 90 / 100 - second,
                    RenewBefore::Duration(DAY * 90 - second),
                )
            },
            None,
        ),
        (
            "two broken: the first counts",
            |w| (w.key, w.now) = (made(KeyKind::Rsa2048, Encoding::Pkcs8), w.leaf().not_after),
            Some(Reason::KeyDiffers),
        ),
    ];
    for (name, change, expected) in cases {
        let wanted = LeafRequest {
            dns_names: vec!["a.example".into(), "b.example".into()],
            uris: vec!["spiffe://x/y".into()],
            ..request("client1")
        };
        let mut world = World::new(born(), issuer("Partners", born()), wanted);
        change(&mut world);
        assert_eq!(world.reason(), expected, "{name}");
    }
}

#[test]
fn a_self_signed_leaf_has_rules_of_its_own() {
    type Change = fn(&mut World);
    let cases: Vec<(&str, Change, Option<Reason>)> = vec![
        ("as signed", |_| (), None),
        (
            "of the next revision",
            |w| w.request.serial_number = Some("2".into()),
            Some(Reason::SubjectDiffers),
        ),
        (
            "another ca.crt",
            |w| {
                w.data().ca_crt = World::new(born(), issuer("x", born()), request("client1"))
                    .data()
                    .tls_crt
                    .take()
            },
            Some(Reason::ChainDiffers),
        ),
        (
            "an authority's now",
            |w| w.issuer = Some(issuer("x", born())),
            Some(Reason::IssuerDiffers),
        ),
        (
            "a third left",
            |w| w.now = w.leaf().not_after - DAY * 30,
            Some(Reason::RenewalDue),
        ),
    ];
    for (name, change, expected) in cases {
        let mut world = World::self_signed(born(), request("client1"));
        change(&mut world);
        assert_eq!(world.reason(), expected, "{name}");
    }
}

/// The certificate satisfies all other rules.
#[test]
fn a_leaf_that_no_release_of_the_operator_wrote_is_issued_again() {
    let key = keys::generate(KeyKind::EcdsaP256).unwrap();
    let spki = key.subject_public_key_info();
    for by_itself in [true, false] {
        for strange in [false, true] {
            let mut world = match by_itself {
                true => World::self_signed(born(), request("client1")),
                false => World::new(born(), issuer("Partners", born()), request("client1")),
            };
            let subject = subject_der(&world.request).unwrap();
            let authority = world.issuer.as_ref().map(|issuer| issuer.chain().authority());
            let key_id = authority.map_or_else(
                || key_id_of(&spki).unwrap(),
                |a| a.subject_key_id.clone().unwrap(),
            );
            let mut extensions = extensions(&world.request, &spki, key_id, usage()).unwrap();
            if strange {
                extensions.remove(0); // basicConstraints
            }
            let draft = Draft {
                issuer: authority.map_or_else(|| subject.clone(), |a| a.subject_der.clone()),
                subject,
                not_before: earlier(born(), CLOCK_SLACK),
                not_after: later(born(), world.request.duration),
                extensions,
                spki: spki.clone(),
            };
            let der = sign(draft, world.issuer.as_ref().map_or(&key, SigningAuthority::key)).unwrap();
            let pem = Certificate::from_der(&der).unwrap().to_pem().into_bytes();
            if by_itself {
                world.data().ca_crt = Some(pem.clone());
            }
            world.data().tls_crt = Some(pem);
            world.data().tls_key = Some(keys::pem(&key, Encoding::Pkcs8).unwrap().as_bytes().to_vec());
            assert_eq!(
                world.reason(),
                strange.then_some(Reason::FormDiffers),
                "by itself: {by_itself}"
            );
        }
    }
}

#[test]
fn a_requested_leaf_has_no_key_in_its_secret() {
    let mut world = World::new(born(), issuer("Partners", born()), request("client1"));
    world.key = DesiredKey::Requested {
        spki: world.leaf().spki_der().to_vec(),
    };
    world.data().tls_key = None;
    assert_eq!(world.reason(), None);
    world.data().tls_key = Some(b"the requester's own business".to_vec());
    assert_eq!(world.reason(), None);
    world.key = DesiredKey::Requested {
        spki: spki(KeyKind::EcdsaP256),
    };
    assert_eq!(world.reason(), Some(Reason::KeyMismatch));
}

#[test]
fn near_the_end_of_its_authority_a_leaf_is_not_renewed_without_end() {
    let wanted = authority::AuthorityRequest {
        duration: DAY * 10,
        ..authority::tests::request("short")
    };
    let made = authority::generate(&wanted, born()).unwrap();
    let ca = SigningAuthority::from_pem(&made.certificate_pem, &made.key_pem, None).unwrap();
    let mut world = World::new(born(), ca, request("client1"));
    assert_eq!(
        world.leaf().not_after,
        world.issuer.as_ref().unwrap().chain().not_after()
    );
    assert_eq!(
        world.reason(),
        None,
        "cut by its issuer, which is no change of duration"
    );
    world.now = born() + DAY * 9;
    assert_eq!(world.reason(), None, "due, but a new one would not live longer");
    world.now = born() + DAY * 10;
    assert_eq!(world.reason(), Some(Reason::Expired));
}

#[test]
fn renewal_times() {
    let world = World::new(born(), issuer("Partners", born()), request("client1"));
    let leaf = world.leaf();
    let left = |renew_before| leaf.not_after.duration_since(renewal_time(&leaf, renew_before));
    let cases = [
        (RenewBefore::Unset, DAY * 30),
        (RenewBefore::Duration(DAY * 10), DAY * 10),
        (RenewBefore::Duration(DAY * 90), DAY * 30),
        (RenewBefore::Duration(-DAY), DAY * 30),
        (RenewBefore::Percentage(20), DAY * 18),
        (RenewBefore::Percentage(0), DAY * 30),
        (RenewBefore::Percentage(100), DAY * 30),
    ];
    for (renew_before, expected) in cases {
        let jitter = left(renew_before) - expected;
        assert!(
            jitter >= SignedDuration::ZERO && jitter <= DAY * 90 / 100,
            "{renew_before:?}: {jitter:?}"
        );
    }
    // Twenty certificates of one moment do not share a renewal time.
    let mut times: Vec<Timestamp> = (0..20)
        .map(|_| {
            let issuer = world.issuer.as_ref().unwrap();
            let leaf = issue(&world.request, &spki(KeyKind::EcdsaP256), issuer, born())
                .unwrap()
                .certificate;
            renewal_time(&leaf, RenewBefore::Unset)
        })
        .collect();
    times.sort();
    times.dedup();
    assert!(times.len() > 15, "{times:?}");
}

/// A spec that would have the operator renew at once waits for the least interval.
#[test]
fn a_renewal_keeps_the_least_interval() {
    let (second, minute) = (SignedDuration::from_secs(1), SignedDuration::from_mins(1));
    let hour = minute * 60;
    for (duration, renew_before, expected) in [
        (hour, RenewBefore::Duration(hour - second), minute * 5),
        (hour, RenewBefore::Percentage(99), minute * 5),
        (hour * 8, RenewBefore::Duration(hour * 8 - second), minute * 5),
        (
            DAY * 30,
            RenewBefore::Duration(DAY * 30 - second),
            hour * 7 + minute * 12,
        ),
        (DAY * 30, RenewBefore::Percentage(99), hour * 7 + minute * 12),
        (DAY * 900, RenewBefore::Percentage(99), DAY * 9),
        // An expired certificate does not wait.
        (minute * 3, RenewBefore::Percentage(99), minute * 3),
    ] {
        let wanted = LeafRequest {
            duration,
            ..request("client1")
        };
        let world = World::new(born(), issuer("Partners", born()), wanted);
        let waits = renewal_time(&world.leaf(), renew_before).duration_since(born());
        assert!(
            (expected - second..=expected + second).contains(&waits),
            "{duration:#} {renew_before:?}: {waits:#}, expected {expected:#}"
        );
    }
}

proptest! {
    #![proptest_config(crate::cases(64))]
    /// A certificate that was just issued needs nothing, for any request, and its renewal lies between
    /// issue and end.
    #[test]
    fn just_issued_needs_nothing(
        seconds in 1i64..400_000_000,
        age in 0i64..300_000_000,
        percent in 0u8..=120,
        before in -10i64..400_000_000,
        pick in 0..3,
    ) {
        let now = born() + SignedDuration::from_secs(age);
        let wanted = LeafRequest { duration: SignedDuration::from_secs(seconds), ..request("client1") };
        let mut world = World::new(now, issuer("Partners", born()), wanted);
        world.renew_before = match pick {
            0 => RenewBefore::Unset,
            1 => RenewBefore::Duration(SignedDuration::from_secs(before)),
            _ => RenewBefore::Percentage(percent),
        };
        if seconds > 2 {
            prop_assert_eq!(world.reason(), None);
            let due = renewal_time(&world.leaf(), world.renew_before);
            let begin = earlier(now, SignedDuration::from_secs(1));
            prop_assert!(due > begin && due <= world.leaf().not_after);
            let end = world.leaf().not_after;
            let least = least_interval(end.duration_since(now));
            prop_assert!(due >= later(begin, least).min(end));
        }
    }
}
