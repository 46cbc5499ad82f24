//! Checks of what the operator reads from others: each takes any bytes, and panics if the operator's parser
//! breaks a promise about them. Built for tests and for cargo-fuzz only; `driver` runs them without
//! cargo-fuzz.

#[cfg(test)]
pub(crate) mod driver;
#[cfg(test)]
mod mutation;

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};

use crate::{
    grants::glob,
    pki::{
        certificate::Certificate,
        compile::{
            self,
            offer::{CompileInput, Share, Source, State},
        },
        csr as request, keys, leaf, pem,
        pem_certificates::{self, parse_pem_bundle},
        truststore::Bundle,
    },
    policy,
};

/// Check of one input; it returns what was found, and panics when that is wrong.
pub type Check = fn(&[u8]) -> String;

/// Every check, by the name of its corpus and of its target for cargo-fuzz.
pub const CHECKS: [(&str, Check); 6] = [
    ("compile", compile),
    ("csr", csr),
    ("glob", glob),
    ("pem", pem),
    ("policy", policy),
    ("truststore", truststore),
];

const BEGIN: &[u8] = b"-----BEGIN ";

fn begins(text: &[u8]) -> usize {
    let windows = text.windows(BEGIN.len());
    windows.filter(|window| *window == BEGIN).count()
}

/// Outcome of a check, by which the driver recognizes behaviour that it has not seen: an error's message
/// without its numbers.
fn told(error: &impl std::fmt::Display) -> String {
    let mut said = error.to_string();
    said.retain(|c| !c.is_ascii_digit());
    said.truncate(said.floor_char_boundary(40));
    said
}

/// Checks the parser of certificate signing requests: it refuses the bytes, or returns a request that a spec
/// could make.
pub fn csr(text: &[u8]) -> String {
    match request::read(text, SignedDuration::from_hours(24)) {
        Ok(found) => {
            leaf::validate(&found.request).expect("read validates the request");
            assert!(!found.spki.is_empty());
            let names = [
                &found.request.dns_names,
                &found.request.uris,
                &found.request.email_addresses,
            ];
            format!("{:?}", names.map(Vec::len))
        }
        Err(error) => told(&error),
    }
}

/// Checks the PEM scanner: it refuses the bytes, or every BEGIN in them is a block at the reported place. The
/// parsers of certificates and keys read or refuse the bytes.
pub fn pem(text: &[u8]) -> String {
    let _ = (
        keys::parse(text).is_ok(),
        pem_certificates::certificates_beside_keys(text),
        pem::is_plain(text),
    );
    let blocks = match pem::scan(text).collect::<Result<Vec<_>, _>>() {
        Ok(blocks) => blocks,
        Err(error) => {
            let read = parse_pem_bundle(text);
            assert!(read.is_err(), "a text that cannot be read has certificates");
            return told(&error);
        }
    };
    assert!(blocks.len() >= begins(text), "a block was skipped");
    for block in &blocks {
        let part = &text[block.range.clone()];
        assert!(part.starts_with(b"-----BEGIN") && part.ends_with(b"-----"));
    }
    match parse_pem_bundle(text) {
        Ok(certificates) => {
            assert_eq!(certificates.len(), blocks.len(), "a certificate was skipped");
            format!("{} certificates", certificates.len())
        }
        Err(error) => told(&error),
    }
}

fn certificates(bundle: &Bundle) -> Vec<&Certificate> {
    bundle.entries.iter().map(|entry| &entry.certificate).collect()
}

/// Checks the parser of truststore objects: it refuses the bytes, or every certificate in them is in the
/// bundle, and is still there after a round trip through the rendered text.
pub fn truststore(text: &[u8]) -> String {
    let bundle = match Bundle::parse(text) {
        Ok(bundle) => bundle,
        Err(error) => return told(&error),
    };
    let begins = begins(text);
    let listed = if begins == 0 {
        vec![]
    } else {
        parse_pem_bundle(text).expect("the same text parses as a truststore")
    };
    assert!(listed.len() >= begins, "a block was skipped");
    for certificate in &listed {
        assert!(
            certificates(&bundle).contains(&certificate),
            "{certificate:?} is lost"
        );
    }
    let again = Bundle::parse(&bundle.render()).expect("a rendered bundle parses");
    assert_eq!(certificates(&again), certificates(&bundle));
    format!("{} {}", bundle.entries.len(), bundle.distrusted.len())
}

/// Checks the compiler of the next truststore: it adds no certificate of its own, what it renders is what it
/// returns, and its result compiles to itself.
///
/// A line that begins with `=` begins a source, with letters for what it is: `p` the current truststore, `d`
/// distrusted, `w` withdrawn, `i` issues, `c` a client's, `s` in a
/// share, `b` completes the source before it.
pub fn compile(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let (mut sources, mut previous) = (Vec::<Source>::new(), None);
    for part in text.split("\n=").map(|part| part.trim_start_matches('=')) {
        let (letters, listed) = part.split_once('\n').unwrap_or((part, ""));
        let is = |letter| letters.contains(letter);
        if is('p') {
            previous = Bundle::parse(listed.as_bytes()).ok();
            continue;
        }
        let Ok(certificates) = parse_pem_bundle(listed) else {
            continue;
        };
        if let (true, Some(source)) = (is('b'), sources.last_mut()) {
            source.completing = certificates;
            continue;
        }
        sources.push(Source {
            authority: format!("a{}", sources.len()),
            state: match (is('d'), is('w')) {
                (true, _) => State::Distrusted,
                (_, true) => State::Withdrawn,
                _ => State::Active,
            },
            issues: is('i'),
            longest_leaf: is('i').then(|| SignedDuration::from_hours(24)),
            certificates: Ok(certificates),
            completing: vec![],
            client: is('c'),
            share: is('s').then(|| Share {
                grant: "g".to_owned(),
                bytes: 2048,
            }),
        });
    }
    let now = "2027-01-01T00:00:00Z".parse::<Timestamp>().expect("a time");
    let next = |previous: Option<&Bundle>| {
        let overlap = None;
        let sources = &sources;
        let input = CompileInput {
            sources,
            previous,
            overlap,
            now,
        };
        compile::compile(&input, &|| false).expect("there is no limit")
    };
    let compiled = next(previous.as_ref());
    let given: Vec<_> = sources
        .iter()
        .flat_map(|source| source.certificates.iter().flatten().chain(&source.completing))
        .chain(previous.iter().flat_map(certificates))
        .collect();
    for certificate in certificates(&compiled.bundle) {
        assert!(given.contains(&certificate), "{certificate:?} is from nowhere");
    }
    let rendered = Bundle::parse(&compiled.bundle.render()).expect("a rendered bundle parses");
    assert_eq!(certificates(&rendered), certificates(&compiled.bundle));
    let again = next(Some(&compiled.bundle));
    assert_eq!(
        again.bundle.render(),
        compiled.bundle.render(),
        "the truststore changes again"
    );
    let mut outcome = compiled.bundle.entries.len().to_string();
    for finding in &compiled.findings {
        let _ = write!(outcome, " {:?}", finding.reason);
    }
    outcome
}

/// Checks the patterns of grants: a match is a division of the name among the stars, and a pattern without a
/// star matches itself only.
///
/// The first line has the letter of the kind, the second the pattern, the third the name.
pub fn glob(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let kind = match line() {
        "d" => glob::Kind::Dns,
        "m" => glob::Kind::Mail,
        "u" => glob::Kind::Uri,
        _ => glob::Kind::Text,
    };
    let (pattern, name) = (line(), line());
    let matches = glob::matches(kind, pattern, name);
    let parts: Vec<_> = pattern.split('*').collect();
    if let [whole] = parts[..] {
        assert_eq!(matches, whole == name);
    } else if matches {
        let fixed: usize = parts.iter().map(|part| part.len()).sum();
        assert!(name.len() >= fixed + parts.len() - 1, "a star stands for nothing");
        assert!(name.starts_with(parts[0]) && name.ends_with(parts[parts.len() - 1]));
        let mut rest = name;
        for part in parts {
            let (_, behind) = rest.split_once(part).expect("the name has each part, in order");
            rest = behind;
        }
    }
    format!("{kind:?} {matches} {}", pattern.matches('*').count().min(9))
}

/// Checks the parser of the policy: it refuses the text, or returns rules that can be asked.
pub fn policy(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match policy::file::parse(&text) {
        Ok(policy) => {
            let namespace = policy::Namespace {
                name: "payments",
                labels: None,
            };
            let _ = (policy.decide(namespace, &[]), policy.needs_labels());
            let mut names: Vec<_> = policy.rules.iter().map(|rule| &rule.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), policy.rules.len(), "two rules of one name");
            format!("{} rules", policy.rules.len())
        }
        Err(error) => told(&error),
    }
}
