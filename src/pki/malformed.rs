//! Malformed input: the stored corpus of bad truststores and requests (fuzz/corpus), and random damage to it.
//! No input causes a panic, and no certificate is lost in silence. `crate::fuzz` runs the same checks for as
//! long as a developer wants.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::{csr, keys, pem_certificates, truststore::Bundle};
use crate::fuzz::{self, driver::corpus};

#[test]
fn the_corpus_is_read_or_refused_as_its_names_say() {
    for (name, text) in corpus("truststore") {
        fuzz::truststore(&text);
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
        fuzz::pem(&text);
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
        fuzz::csr(&text);
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
        fuzz::truststore(&damaged(&all[which.index(all.len())].1, &all, &damages));
    }

    #[test]
    fn damage_loses_no_block_in_silence(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let all = [corpus("pem"), corpus("truststore")].concat();
        fuzz::pem(&damaged(&all[which.index(all.len())].1, &all, &damages));
    }

    #[test]
    fn a_damaged_request_is_refused_or_sound(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let all = corpus("csr");
        fuzz::csr(&damaged(&all[which.index(all.len())].1, &all, &damages));
    }
}
