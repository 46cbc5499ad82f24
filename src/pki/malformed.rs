//! Malformed input: the stored corpus of bad truststores and requests (fuzz/corpus, where cargo-fuzz stores
//! its findings), and random damage to it. No input causes a panic, and no certificate is lost in silence.
//! `fuzz/` runs the same checks for as long as a developer wants.

use std::{fs, path::Path};

use jiff::SignedDuration;
use proptest::prelude::*;

use super::{
    certificate::Certificate,
    csr, keys, leaf, pem,
    pem_certificates::{self, parse_pem_bundle},
    truststore::Bundle,
};

/// Returns the name and content of each file of a kind.
fn corpus(kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(kind);
    let files = fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|file| file.expect("a file").path());
    let mut all: Vec<_> = files
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a file"))
        })
        .collect();
    all.sort();
    all
}

const BEGIN: &[u8] = b"-----BEGIN ";

/// Panics when a certificate of the text is missing in the bundle parsed from it, or in the bundle after a
/// round trip.
fn truststore_is_whole(text: &[u8]) {
    let Ok(bundle) = Bundle::parse(text) else {
        return; // an error, so nothing is lost in silence
    };
    let begins = text
        .windows(BEGIN.len())
        .filter(|window| *window == BEGIN)
        .count();
    let certificates = if begins == 0 {
        vec![]
    } else {
        parse_pem_bundle(text).expect("the same text parses as a truststore")
    };
    assert!(certificates.len() >= begins, "a block was skipped");
    let entries = |bundle: &Bundle| {
        bundle
            .entries
            .iter()
            .map(|e| e.certificate.clone())
            .collect::<Vec<Certificate>>()
    };
    for certificate in &certificates {
        assert!(entries(&bundle).contains(certificate), "{certificate:?} is lost");
    }
    let again = Bundle::parse(&bundle.render()).expect("a rendered bundle parses");
    assert_eq!(entries(&again), entries(&bundle));
}

/// Panics when a spec could not make the request that is read.
fn request_is_sound(text: &[u8]) {
    if let Ok(found) = csr::read(text, SignedDuration::from_hours(24)) {
        leaf::validate(&found.request).expect("read validates the request");
        assert!(!found.spki.is_empty());
    }
}

/// Panics when a block is skipped, or is not at its reported place.
fn blocks_are_whole(text: &[u8]) {
    let _ = (
        keys::parse(text).is_ok(),
        pem_certificates::certificates_beside_keys(text),
        pem::is_plain(text),
    );
    let Ok(blocks) = pem::scan(text).collect::<Result<Vec<_>, _>>() else {
        assert!(
            parse_pem_bundle(text).is_err(),
            "a text that cannot be read has certificates"
        );
        return;
    };
    assert!(
        blocks.len()
            >= text
                .windows(BEGIN.len())
                .filter(|window| *window == BEGIN)
                .count(),
        "a block was skipped"
    );
    for block in &blocks {
        let part = &text[block.range.clone()];
        assert!(part.starts_with(b"-----BEGIN") && part.ends_with(b"-----"));
    }
    if let Ok(certificates) = parse_pem_bundle(text) {
        assert_eq!(certificates.len(), blocks.len(), "a certificate was skipped");
    }
}

#[test]
fn the_corpus_is_read_or_refused_as_its_names_say() {
    for (name, text) in corpus("truststore") {
        truststore_is_whole(&text);
        let read = Bundle::parse(&text).map(|bundle| bundle.entries.len());
        match name.split_once('-').expect("a name begins with good or bad").0 {
            "bad" => assert!(read.is_err(), "{name}: {read:?}"),
            count => assert_eq!(
                read.map_err(|e| e.to_string()),
                Ok(count.parse().expect("a number")),
                "{name}"
            ),
        }
    }
    for (name, text) in corpus("pem") {
        blocks_are_whole(&text);
        assert_eq!(
            keys::parse(&text).is_ok(),
            matches!(
                &*name,
                "certificate-and-key" | "key-first" | "key" | "key-sec1" | "key-parameters"
            ),
            "{name}"
        );
        assert_eq!(
            pem_certificates::certificates_beside_keys(&text).is_ok(),
            name.contains("certificate") || name == "key-first",
            "{name}"
        );
    }
    for (name, text) in corpus("csr") {
        request_is_sound(&text);
        let good = csr::read(&text, SignedDuration::from_hours(24)).is_ok();
        assert_eq!(good, name.starts_with("good-"), "{name}");
    }
}

/// Damage to a text.
#[derive(Clone, Debug)]
enum Damage {
    /// Removes bytes.
    Cut(prop::sample::Index, usize),
    /// Replaces one byte.
    Change(prop::sample::Index, u8),
    /// Inserts bytes.
    Insert(prop::sample::Index, &'static [u8]),
    /// Puts one line in the place of another.
    Move(prop::sample::Index, prop::sample::Index),
    /// Appends a part of another text.
    Append(prop::sample::Index, prop::sample::Index),
}

const PIECES: [&[u8]; 19] = [
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE-----\n",
    b"-----BEGIN CERTIFICATE REQUEST-----",
    b" -----BEGIN CERTIFICATE-----",
    b"-----BEGIN TRUSTED CERTIFICATE-----",
    b"-----BEGIN X509 CRL-----",
    b"-----BEGIN ",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\\n",
    b"\"",
    b"\xef\xbb\xbf",
    b"\0",
    b"# authority: a  max-leaf: 99999999999999999999h  keep-until: 9999-12-31T23:59:59Z  subject: x\n",
    b"# max-leaf: -1s  keep-until: -009999-01-01T00:00:00Z\n",
    b"# authority: %2D%ZZ%\n",
    b"MIIB",
    b"=",
];

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1..200usize).prop_map(|(at, length)| Damage::Cut(at, length)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Change(at, byte)),
        (at(), prop::sample::select(&PIECES[..])).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        (at(), at()).prop_map(|(from, to)| Damage::Move(from, to)),
        (at(), at()).prop_map(|(which, from)| Damage::Append(which, from)),
    ]
}

fn damaged(text: &[u8], others: &[(String, Vec<u8>)], damages: &[Damage]) -> Vec<u8> {
    let mut text = text.to_vec();
    for damage in damages {
        let place = |at: &prop::sample::Index, length: usize| if length == 0 { 0 } else { at.index(length) };
        match damage {
            Damage::Cut(at, length) => {
                let start = place(at, text.len());
                text.drain(start..(start + length).min(text.len()));
            }
            Damage::Change(at, byte) => {
                let at = place(at, text.len());
                if let Some(there) = text.get_mut(at) {
                    *there = *byte;
                }
            }
            Damage::Insert(at, piece) => {
                let at = place(at, text.len());
                text.splice(at..at, piece.iter().copied());
            }
            Damage::Move(from, to) => {
                let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
                let line = lines[place(from, lines.len())];
                lines.insert(place(to, lines.len()), line);
                text = lines.join(&b'\n');
            }
            Damage::Append(which, from) => {
                let other = &others[which.index(others.len())].1;
                let from = place(from, other.len());
                text.extend(&other[from..]);
            }
        }
    }
    text
}

proptest! {
    #![proptest_config(crate::cases(500))]
    #[test]
    fn damage_loses_no_certificate_in_silence(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let all = corpus("truststore");
        truststore_is_whole(&damaged(&all[which.index(all.len())].1, &all, &damages));
    }

    #[test]
    fn damage_loses_no_block_in_silence(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let all = [corpus("pem"), corpus("truststore")].concat();
        blocks_are_whole(&damaged(&all[which.index(all.len())].1, &all, &damages));
    }

    #[test]
    fn a_damaged_request_is_refused_or_sound(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let all = corpus("csr");
        request_is_sound(&damaged(&all[which.index(all.len())].1, &all, &damages));
    }
}
