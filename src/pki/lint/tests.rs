//! Tests of `lint`.

use std::{path::Path, process::Command};

use jiff::{SignedDuration, Timestamp};

use crate::pki::{
    certificate::Certificate,
    chain::{Pool, Prefer, Signatures},
    lint::{Finding, Pools, Reason, Severity, lint},
    pem_certificates::parse_pem_bundle,
};

fn judge(own: &[Certificate], max_leaf: Option<SignedDuration>, now: Timestamp) -> Vec<Finding> {
    let signatures = Signatures::default();
    let pool = |from| {
        let own = own.iter().filter(move |certificate| from < certificate.not_after);
        Pool::new(own, Prefer::Shortest, &signatures)
    };
    let (all, valid) = (pool(Timestamp::MIN), pool(now));
    lint(
        "a",
        own,
        Pools {
            valid: &valid,
            all: &all,
        },
        max_leaf,
        now,
    )
    .findings
}

fn openssl(dir: &Path, line: &str) {
    let line = line.replace("@/", &format!("{}/", dir.display()));
    let out = Command::new("openssl").args(line.split(' ')).output().unwrap();
    assert!(
        out.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn read(dir: &Path, name: &str) -> Certificate {
    let text = std::fs::read_to_string(dir.join(format!("{name}.pem"))).unwrap();
    parse_pem_bundle(&text).unwrap().remove(0)
}

fn self_signed(args: &str) -> Certificate {
    let dir = tempfile::tempdir().unwrap();
    openssl(
        dir.path(),
        &format!("req -x509 -nodes -keyout @/key -out @/c.pem -subj /CN=x {args}"),
    );
    read(dir.path(), "c")
}

const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

#[test]
fn single_certificates() {
    let year = "-days 365";
    let cases = [
        (format!("{EC} {year}"), vec![]),
        (format!("{EC} {year} -sha512"), vec![]),
        // Self-signed client certificates.
        (format!("{EC} {year} -addext basicConstraints=CA:FALSE"), vec![]),
        (format!("-newkey rsa:2048 {year}"), vec![]),
        (
            format!("-newkey rsa:1024 {year}"),
            vec![(Severity::Refused, Reason::WeakKey)],
        ),
        (
            format!("-newkey rsa:2048 {year} -sha1"),
            vec![(Severity::Refused, Reason::WeakSignature)],
        ),
        (
            format!("-newkey ed25519 {year}"),
            vec![(Severity::Refused, Reason::UnsupportedAlgorithm)],
        ),
        (
            format!("-newkey ec -pkeyopt ec_paramgen_curve:P-521 {year}"),
            vec![(Severity::Warning, Reason::UnprovenAlgorithm)],
        ),
        (
            format!("-newkey ec -pkeyopt ec_paramgen_curve:secp224r1 {year}"),
            vec![(Severity::Refused, Reason::UnsupportedAlgorithm)],
        ),
        (
            format!("{EC} -days 29"),
            vec![(Severity::Warning, Reason::ExpiresSoon)],
        ),
    ];
    for (args, expected) in cases {
        let c = self_signed(&args);
        let now = c.not_before;
        let found = judge(std::slice::from_ref(&c), None, now);
        let found: Vec<_> = found
            .into_iter()
            .map(|finding| (finding.severity, finding.reason))
            .collect();
        assert_eq!(found, expected, "{args}");
    }
    let c = self_signed(&format!("{EC} {year}"));
    let reasons = |max_leaf, now| -> Vec<Reason> {
        judge(std::slice::from_ref(&c), max_leaf, now)
            .into_iter()
            .map(|finding| finding.reason)
            .collect()
    };
    let (early, day) = (
        c.not_before - SignedDuration::from_secs(1),
        SignedDuration::from_hours(24),
    );
    assert_eq!(reasons(None, early), [Reason::NotYetValid]);
    assert_eq!(reasons(None, c.not_after), [Reason::Expired]);
    assert_eq!(
        reasons(Some(day * 90), c.not_after - day * 89),
        [Reason::ExpiresSoon]
    );
    assert_eq!(reasons(Some(day * 90), c.not_after - day * 90), []);
}

#[test]
fn version_1_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    openssl(
        dir.path(),
        &format!("req -nodes {EC} -keyout @/key -out @/csr -subj /CN=x"),
    );
    openssl(
        dir.path(),
        "x509 -req -days 365 -in @/csr -signkey @/key -out @/c.pem",
    );
    let c = [read(dir.path(), "c")];
    let found = judge(&c, None, c[0].not_before);
    assert_eq!(
        found.iter().map(|finding| finding.reason).collect::<Vec<_>>(),
        [Reason::Version1]
    );
}

#[test]
fn chains() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca"), "basicConstraints=CA:TRUE\n").unwrap();
    std::fs::write(dir.path().join("leaf"), "basicConstraints=CA:FALSE\n").unwrap();
    openssl(
        dir.path(),
        &format!("req -x509 -nodes {EC} -days 365 -keyout @/0.key -out @/0.pem -subj /CN=0"),
    );
    for n in 1..=4 {
        let by = n - 1;
        openssl(
            dir.path(),
            &format!("req -nodes {EC} -keyout @/{n}.key -out @/csr -subj /CN={n}"),
        );
        let sign = format!("x509 -req -in @/csr -CA @/{by}.pem -CAkey @/{by}.key -CAcreateserial -days 365");
        openssl(dir.path(), &format!("{sign} -extfile @/ca -out @/{n}.pem"));
        openssl(dir.path(), &format!("{sign} -extfile @/leaf -out @/leaf{n}.pem"));
    }
    openssl(
        dir.path(),
        &format!("req -x509 -nodes {EC} -days 365 -keyout @/x.key -out @/00.pem -subj /CN=0"),
    );
    type Case = (&'static [&'static str], &'static [(&'static str, Reason)]);
    let cases: [Case; 6] = [
        (&["3", "2", "1", "0"], &[]),
        (&["0", "1", "3", "2"], &[]),
        (
            &["3", "2", "1"],
            &[
                ("CN=3", Reason::ChainIncomplete),
                ("CN=2", Reason::ChainIncomplete),
                ("CN=1", Reason::ChainIncomplete),
            ],
        ),
        (&["4", "3", "2", "1", "0"], &[("CN=4", Reason::ChainTooDeep)]),
        (&["leaf1", "0"], &[("CN=1", Reason::NotAnAuthority)]),
        (&["0", "00"], &[("CN=0", Reason::DuplicateSubject)]),
    ];
    for (names, expected) in cases {
        let own: Vec<Certificate> = names.iter().map(|name| read(dir.path(), name)).collect();
        let now = own
            .iter()
            .map(|certificate| certificate.not_before)
            .max()
            .unwrap();
        let found = judge(&own, None, now);
        let found: Vec<_> = found
            .iter()
            .map(|finding| (finding.subject.as_str(), finding.reason))
            .collect();
        assert_eq!(found, expected, "{names:?}");
    }
}
