//! The kept corpus of bad truststores and requests (fuzz/corpus, where cargo-fuzz puts what it finds), and random damage to it: nothing panics, and
//! no certificate is lost in silence. `fuzz/` has the same checks for as long as one likes.
use std::{fs, path::Path};

use jiff::SignedDuration;
use proptest::prelude::*;

use super::{
    certificate::{Certificate, parse_pem_bundle},
    csr, leaf,
    truststore::Bundle,
};

/// The name and text of each of a kind.
fn corpus(kind: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(kind);
    let files = fs::read_dir(folder).expect("the corpus is there").map(|file| file.expect("a file").path());
    let mut all: Vec<_> = files
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, String::from_utf8_lossy(&fs::read(&path).expect("a file")).into_owned())
        })
        .collect();
    all.sort();
    all
}

/// Panics when a certificate of the text is not in the bundle that is read from it, or not in what is written from that.
fn truststore_is_whole(text: &str) {
    let Ok(bundle) = Bundle::parse(text) else {
        return; // said, so nothing is lost in silence
    };
    let blocks = text.lines().filter(|line| line.starts_with("-----BEGIN ")).count();
    let certificates = if blocks == 0 { vec![] } else { parse_pem_bundle(text).expect("as a bundle it could be read") };
    assert_eq!(certificates.len(), blocks, "a block was skipped");
    let entries = |bundle: &Bundle| bundle.entries.iter().map(|e| e.certificate.clone()).collect::<Vec<Certificate>>();
    for certificate in &certificates {
        assert!(entries(&bundle).contains(certificate), "{certificate:?} is lost");
    }
    let again = Bundle::parse(&bundle.render()).expect("what we write can be read");
    assert_eq!(entries(&again), entries(&bundle));
}

/// Panics when what is read from a request could not be asked for in a spec.
fn request_is_sound(text: &str) {
    if let Ok(found) = csr::read(text, SignedDuration::from_hours(24)) {
        leaf::validate(&found.request).expect("it was validated");
        assert!(!found.spki.is_empty());
    }
}

#[test]
fn the_corpus_is_read_or_refused_as_its_names_say() {
    for (name, text) in corpus("truststore") {
        truststore_is_whole(&text);
        let read = Bundle::parse(&text).map(|bundle| bundle.entries.len());
        match name.split_once('-').expect("a name begins with what comes of it").0 {
            "bad" => assert!(read.is_err(), "{name}: {read:?}"),
            count => assert_eq!(read.map_err(|e| e.to_string()), Ok(count.parse().expect("a number")), "{name}"),
        }
    }
    for (name, text) in corpus("csr") {
        request_is_sound(&text);
        let good = csr::read(&text, SignedDuration::from_hours(24)).is_ok();
        assert_eq!(good, name.starts_with("good-"), "{name}");
    }
}

/// What is done to a text.
#[derive(Clone, Debug)]
enum Damage {
    /// Bytes are taken out.
    Cut(prop::sample::Index, usize),
    /// Another byte.
    Change(prop::sample::Index, char),
    /// Something is put in.
    Insert(prop::sample::Index, &'static str),
    /// One line in the place of another.
    Move(prop::sample::Index, prop::sample::Index),
    /// A part of another text follows.
    Append(prop::sample::Index, prop::sample::Index),
}

const PIECES: [&str; 14] = [
    "-----BEGIN CERTIFICATE-----\n",
    "-----END CERTIFICATE-----\n",
    "-----BEGIN CERTIFICATE REQUEST-----",
    " -----BEGIN CERTIFICATE-----",
    "-----BEGIN ",
    "\r\n",
    "\n\n",
    "\u{feff}",
    "\0",
    "# authority: a  max-leaf: 99999999999999999999h  keep-until: 9999-12-31T23:59:59Z  subject: x\n",
    "# max-leaf: -1s  keep-until: -009999-01-01T00:00:00Z\n",
    "# authority: %2D%ZZ%\n",
    "MIIB",
    "=",
];

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1..200usize).prop_map(|(at, length)| Damage::Cut(at, length)),
        (at(), prop::char::range('\0', '\u{ff}')).prop_map(|(at, byte)| Damage::Change(at, byte)),
        (at(), prop::sample::select(&PIECES[..])).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        (at(), at()).prop_map(|(from, to)| Damage::Move(from, to)),
        (at(), at()).prop_map(|(which, from)| Damage::Append(which, from)),
    ]
}

fn damaged(text: &str, others: &[(String, String)], damages: &[Damage]) -> String {
    let mut text: Vec<char> = text.chars().collect();
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
                text.splice(at..at, piece.chars());
            }
            Damage::Move(from, to) => {
                let whole: String = text.iter().collect();
                let mut lines: Vec<_> = whole.split('\n').collect();
                let line = lines[place(from, lines.len())];
                lines.insert(place(to, lines.len()), line);
                text = lines.join("\n").chars().collect();
            }
            Damage::Append(which, from) => {
                let other: Vec<char> = others[which.index(others.len())].1.chars().collect();
                let from = place(from, other.len());
                text.extend(&other[from..]);
            }
        }
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn damage_loses_no_certificate_in_silence(which in any::<prop::sample::Index>(), damages in prop::collection::vec(damage(), 1..6)) {
        let all = corpus("truststore");
        truststore_is_whole(&damaged(&all[which.index(all.len())].1, &all, &damages));
    }

    #[test]
    fn a_damaged_request_is_refused_or_sound(which in any::<prop::sample::Index>(), damages in prop::collection::vec(damage(), 1..6)) {
        let all = corpus("csr");
        request_is_sound(&damaged(&all[which.index(all.len())].1, &all, &damages));
    }
}
