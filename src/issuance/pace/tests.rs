//! Tests of `pace`.

use super::{record::*, *};

use serde_json::json;

use crate::{
    issuance::{
        action::Action,
        simulation::world::{Crash, DAY, World, signing_itself, spec},
    },
    pki::leaf::tests::spki,
    pki::{authority::tests::at, keys::KeyKind},
    status::StepStatus,
};

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const LIFE: SignedDuration = SignedDuration::from_hours(30);

fn now() -> Timestamp {
    at("2026-11-24T12:00:00Z")
}

/// Record of certificates for these causes, so long ago.
fn pace(issued: &[(Cause, SignedDuration)]) -> Pace {
    let mut pace = Pace::default();
    for (cause, ago) in issued {
        pace.issued(*cause, now() - *ago);
    }
    pace
}

#[test]
fn each_cause_has_a_limit_of_its_own() {
    use Cause::*;
    let asked = |ago: &[i64]| {
        pace(
            &ago.iter()
                .map(|ago| (Asked, MINUTE * (*ago as i32)))
                .collect::<Vec<_>>(),
        )
    };
    for (what, pace, cause, expected) in [
        ("the first one", Pace::default(), Needed, None),
        ("a renewal", Pace::default(), Due, None),
        ("a request", Pace::default(), Asked, None),
        ("a correction", Pace::default(), Correction, None),
        (
            "a renewal soon after",
            pace(&[(Asked, MINUTE)]),
            Due,
            Some(MINUTE * 17),
        ),
        ("a renewal later", pace(&[(Asked, MINUTE * 18)]), Due, None),
        ("a request soon after", pace(&[(Due, SECOND)]), Asked, None),
        ("the fifth request", asked(&[40, 30, 20, 0]), Asked, None),
        (
            "the sixth request",
            asked(&[50, 40, 30, 20, 10]),
            Asked,
            Some(MINUTE * 10),
        ),
        ("after an hour", asked(&[60, 40, 30, 20, 10]), Asked, None),
        (
            "a lost Secret after five requests",
            asked(&[4, 3, 2, 1, 0]),
            Correction,
            None,
        ),
        (
            "no usable one after five requests",
            asked(&[4, 3, 2, 1, 0]),
            Needed,
            None,
        ),
        (
            "the second correction",
            pace(&[(Correction, SignedDuration::ZERO)]),
            Correction,
            Some(SECOND),
        ),
        (
            "the second correction, later",
            pace(&[(Correction, SECOND)]),
            Correction,
            None,
        ),
        (
            "a request after a correction",
            pace(&[(Correction, SignedDuration::ZERO)]),
            Asked,
            None,
        ),
    ] {
        let waits = pace
            .not_before(cause, LIFE, now())
            .map(|at| at.duration_since(now()));
        assert_eq!(waits, expected, "{what}");
    }
}

#[test]
fn corrections_slow_down_to_one_in_ten_minutes() {
    let (mut pace, mut now) = (Pace::default(), now());
    let mut delays = Vec::new();
    for _ in 0..14 {
        pace.saw(Some(&"theirs".to_owned()), None, now);
        let due = pace.next_correction(now).unwrap_or(now);
        delays.push(due.duration_since(now).as_secs());
        // The other writer never rests.
        now = due;
        while let Some(later) = pace.next_correction(now) {
            let version = Some(now.to_string());
            pace.saw(version.as_ref(), None, now);
            now = later.min(now + SECOND * 30);
        }
        pace.corrected(now);
    }
    assert_eq!(delays[..8], [0, 1, 2, 4, 8, 16, 32, 60], "a minute at first");
    let contest = pace.contest.clone().unwrap();
    assert_eq!((contest.corrections, contest.delay()), (14, MINUTE * 10));
    // The writer rests.
    let written = contest.written;
    assert_eq!(pace.next_correction(written + SECOND), Some(written + MINUTE));
    assert_eq!(pace.next_correction(written + MINUTE), None);
    // And begins again later.
    assert_eq!(pace.contested_until(written + CALM), None);
    pace.corrected(written + CALM);
    assert_eq!(
        pace.next_correction(written + CALM),
        Some(written + CALM + SECOND),
        "from the beginning"
    );
}

#[test]
fn the_third_correction_reports_the_other_writer() {
    let mut pace = Pace::default();
    for expected in [None, None, Some(now() + SECOND * 4)] {
        pace.corrected(now());
        assert_eq!(pace.contested_until(now()), expected);
    }
}

#[test]
fn a_second_completion_of_one_generation_is_a_correction() {
    let mut pace = Pace::default();
    for (what, generation, after, corrections) in [
        ("the first", 1, SECOND, 0),
        ("of another generation", 2, SECOND * 2, 0),
        ("again", 2, SECOND * 3, 1),
        ("much later", 2, SECOND * 3 + CALM, 1),
    ] {
        pace.completed(generation, now() + after);
        let found = pace.contest.as_ref().map_or(0, |contest| contest.corrections);
        assert_eq!(found, corrections, "{what}");
    }
}

#[test]
fn an_own_write_is_not_a_write_of_another() {
    let [seven, eight, nine] = ["7", "8", "9"].map(str::to_owned);
    let mut pace = Pace::default();
    pace.saw(Some(&seven), None, now());
    assert_eq!(pace, Pace::default(), "without a correction nothing is recorded");
    pace.corrected(now());
    let written = |pace: &Pace| pace.contest.as_ref().unwrap().written.duration_since(now());
    for (what, version, after, expected) in [
        ("the own version", Some(&eight), 1, 0),
        ("the same again", Some(&eight), 2, 0),
        ("another version", Some(&nine), 3, 3),
        ("the same again", Some(&nine), 4, 3),
        ("no Secret", None, 5, 5),
        ("still no Secret", None, 6, 5),
    ] {
        pace.saw(version, Some(&eight), now() + SECOND * after);
        assert_eq!(written(&pace), SECOND * expected, "{what}");
    }
}

#[test]
fn a_record_is_kept_while_it_can_delay_a_certificate() {
    let hour = MINUTE * 60;
    for (what, pace, expected) in [
        ("nothing", Pace::default(), false),
        ("a renewal", pace(&[(Cause::Due, MINUTE * 59)]), true),
        ("an old renewal", pace(&[(Cause::Due, hour)]), false),
        ("an old request", pace(&[(Cause::Asked, hour)]), false),
        ("a correction", pace(&[(Cause::Correction, MINUTE)]), true),
        ("an old correction", pace(&[(Cause::Correction, hour)]), false),
    ] {
        assert_eq!(pace.is_worth_keeping(now()), expected, "{what}");
    }
}

#[test]
fn the_cause_follows_from_the_secret_and_not_from_what_it_says() {
    use inspect::Reason::*;
    let mut world = World::new(spec(|_| ()));
    world.settles();
    world.pace = Pace::default();
    let leaf = world.leaf().unwrap();
    let found = |world: &World, reason| {
        let violation = Violation {
            reason,
            message: "m".into(),
        };
        cause(&world.d, &world.observed(), &violation, Some(&leaf), world.now)
    };
    for (reason, expected, overwritten) in [
        (SecretMissing, Cause::Correction, Cause::Correction),
        (DataMissing, Cause::Correction, Cause::Correction),
        (Damaged, Cause::Correction, Cause::Correction),
        (KeyMismatch, Cause::Correction, Cause::Correction),
        (FormDiffers, Cause::Correction, Cause::Correction),
        (KeyDiffers, Cause::Asked, Cause::Correction),
        (SubjectDiffers, Cause::Asked, Cause::Correction),
        (DurationDiffers, Cause::Asked, Cause::Correction),
        (IssuerDiffers, Cause::Asked, Cause::Correction),
        (ChainDiffers, Cause::Asked, Cause::Correction),
        (RenewalAsked, Cause::Asked, Cause::Correction),
        (RenewalDue, Cause::Due, Cause::Correction),
        (Expired, Cause::Needed, Cause::Correction),
    ] {
        world.secret.as_mut().unwrap().overwritten = false;
        assert_eq!(found(&world, reason), expected, "{reason:?}");
        world.secret.as_mut().unwrap().overwritten = true;
        assert_eq!(found(&world, reason), overwritten, "{reason:?}, overwritten");
    }
    world.secret.as_mut().unwrap().overwritten = false;
    // A changed request of a requester who keeps its key is a changed spec.
    let mut by_csr = spec(|_| ());
    by_csr.key = DesiredKey::Requested {
        spki: spki(KeyKind::EcdsaP256),
    };
    let made = std::mem::replace(&mut world.d, by_csr);
    assert_eq!(found(&world, KeyMismatch), Cause::Asked);
    world.d = made;
    // The domain does not accept the certificate any more.
    world.bundle.entries.clear();
    let bundle = world.bundle.clone();
    world.trust = Some(crate::trust::active_trust::Trust::of(&bundle, None, world.now));
    assert_eq!(found(&world, IssuerDiffers), Cause::Needed);
    // Whatever the Secret says: a certificate of a minute ago is not expired.
    world.pace.issued(Cause::Due, world.now);
    for reason in [Expired, IssuerDiffers] {
        assert_eq!(found(&world, reason), Cause::Correction, "{reason:?}");
    }
    world.revision = 0;
    assert_eq!(found(&world, SecretMissing), Cause::Correction);
    world.pace = Pace::default();
    assert_eq!(found(&world, SecretMissing), Cause::Needed);
}

#[test]
fn a_living_certificate_is_never_dropped_from_the_status() {
    let ends = |count: i32| (0..count).map(|n| now() + MINUTE * (n + 1)).collect::<Vec<_>>();
    for (count, cause, expected) in [
        (0, Cause::Due, None),
        // The last one is in the Secret, and is superseded by the next.
        (20, Cause::Due, None),
        (21, Cause::Due, Some(1)),
        (21, Cause::Asked, Some(1)),
        (25, Cause::Asked, Some(5)),
        (21, Cause::Needed, None),
        (40, Cause::Correction, None),
        (41, Cause::Correction, Some(1)),
        (41, Cause::Needed, Some(1)),
    ] {
        let waits = too_many(&ends(count), cause, now()).map(|wait| wait.until);
        assert_eq!(
            waits,
            expected.map(|after| now() + MINUTE * after),
            "{count} {cause:?}"
        );
    }
    let mut with_expired = ends(20);
    with_expired.extend([now(), now() - DAY]);
    assert_eq!(
        too_many(&with_expired, Cause::Due, now()),
        None,
        "expired ones do not count"
    );
}

/// Issued condition of the plan.
fn issued(world: &World) -> crate::status::StepCondition {
    world.plan().step_conditions[0].clone()
}

#[test]
fn an_object_with_twenty_living_certificates_keeps_the_one_it_has() {
    let mut world = World::new(spec(|_| ()));
    world.settles();
    let ends: Vec<_> = (1..=21).map(|n| world.now + DAY * n).collect();
    world.superseded = ends.clone();
    assert_eq!(
        world.plan().action,
        Some(Action::Complete),
        "no certificate is due"
    );
    world.d = spec(|o| o["metadata"]["annotations"] = json!({"mtls-operator.io/renew": "a"}));
    let plan = world.plan();
    assert_eq!((plan.action, plan.requeue_at), (None, Some(ends[0])));
    let told = issued(&world);
    assert_eq!(told.status, StepStatus::Done);
    assert!(
        told.message
            .contains("; the next one: 20 certificates of this object that were superseded"),
        "{}",
        told.message
    );
    world.d = spec(|o| o["spec"]["dnsNames"] = json!(["a.example"]));
    let told = issued(&world);
    assert_eq!(
        (told.status, told.reason),
        (StepStatus::Blocked, Reason::TooManyCertificates)
    );
    world.now = ends[0];
    world.settles();
    assert_eq!(world.leaf().unwrap().dns_names, ["a.example"]);
    // A lost Secret is replaced.
    world.superseded = (1..=25).map(|n| world.now + DAY * n).collect();
    world.secret = None;
    world.settles();
}

/// Another writer overwrites or deletes the Secret five times a second, and then rests.
#[test]
fn a_contested_secret_is_corrected_ever_more_slowly_and_recovers() {
    for (what, deletes, minutes, most) in [
        ("overwritten for 20 s", false, 0, 5),
        ("deleted for 20 s", true, 0, 5),
        ("overwritten for two hours", false, 120, 22),
    ] {
        let mut world = World::new(spec(|_| ()));
        world.settles();
        let other = {
            let mut other = World::new(spec(|_| ()));
            other.settles();
            other.secret.unwrap()
        };
        let (before, begin) = (world.issued, world.now);
        let end = begin
            + if minutes == 0 {
                SECOND * 20
            } else {
                MINUTE * minutes
            };
        let (mut version, mut reasons) = (0, Vec::new());
        while world.now < end {
            world.secret = (!deletes).then(|| {
                let mut other = other.clone();
                (other.overwritten, other.revision) = (true, world.revision);
                other
            });
            version += 1;
            let seen = version.to_string();
            world.pace.saw(Some(&seen).filter(|_| !deletes), None, world.now);
            reasons.push(issued(&world).reason);
            world.reconcile(Crash::No);
            world.now += SignedDuration::from_millis(if minutes == 0 { 200 } else { 2000 });
        }
        assert!(world.issued - before <= most, "{what}: {}", world.issued - before);
        assert_eq!(reasons.last(), Some(&Reason::ContestedByOther), "{what}");
        let told = issued(&world);
        assert_eq!(told.status, StepStatus::Blocked);
        assert!(told.message.contains("another writer"), "{}", told.message);
        if !deletes {
            assert!(
                told.message.contains("(managedFields: other)"),
                "{}",
                told.message
            );
        }
        let rests = world.now;
        world.settles();
        let recovered = world.now.duration_since(rests);
        assert!(recovered <= MINUTE, "{what}: {recovered:#}");
    }
}

/// A user or a loop changes the spec or the annotation every second.
#[test]
fn requests_are_answered_five_times_an_hour() {
    for by_itself in [false, true] {
        let base = |n: i64, annotation: bool| {
            spec(|o| {
                if by_itself {
                    o["spec"]["issuance"] = json!("SelfSigned");
                }
                if annotation {
                    o["metadata"]["annotations"] = json!({"mtls-operator.io/renew": n.to_string()});
                } else {
                    o["spec"]["dnsNames"] = json!([format!("n{n}.example")]);
                }
            })
        };
        for annotation in [true, false] {
            let mut world = World::new(base(0, annotation));
            world.settles();
            // The record of the first one ages.
            world.now += MINUTE * 6;
            let (before, begin) = (world.staged, world.now);
            for n in 1..400 {
                world.d = base(n, annotation);
                world.domain_reconciles();
                world.reconcile(Crash::No);
                world.now += SECOND * 5;
            }
            let made = world.staged - before;
            assert_eq!(made, MOST_ASKED, "by itself {by_itself}, annotation {annotation}");
            let told = issued(&world);
            let (status, kept) = (told.status, told.message.contains("; the next one: "));
            assert_eq!(kept, annotation && status == StepStatus::Done);
            assert!(
                told.message.contains("5 certificates within an hour"),
                "{}",
                told.message
            );
            // The last request is answered.
            world.settles();
            assert!(world.now <= begin + MINUTE * 61 + crate::issuance::simulation::world::PROPAGATION);
        }
    }
}

/// A deleted staged Secret does not make certificates without end.
#[test]
fn a_lost_staged_certificate_is_replaced_at_the_least_interval() {
    let mut world = World::new(signing_itself());
    world.settles();
    world.now = world.plan().renewal.unwrap();
    let before = world.staged;
    for _ in 0..60 {
        world.reconcile(Crash::No);
        world.next = None;
        world.now += MINUTE;
    }
    assert_eq!(world.staged - before, 1);
    world.settles();
}
