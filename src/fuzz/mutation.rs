//! Random changes of an input: of its bytes and lines, of the DER inside its PEM blocks, and of what a
//! signing request asks for, signed again.

use base64::{Engine, engine::general_purpose::STANDARD};
use fastrand::Rng;
use rcgen::{CertificateParams, DnType, KeyPair, SanType, SigningKey};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

/// Longest input, in bytes: a long one costs time and shows nothing new.
const MAX_BYTES: usize = 32 * 1024;

/// Bytes that parsers treat in a way of their own.
const BYTES: &[u8] = b"\0\n\r \"#%*-./:=@\\{}[]\x7f\x80\xc3\xff";

/// Pieces of the texts that the checks read.
const PIECES: &[&[u8]] = &[
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE-----\n",
    b"-----BEGIN CERTIFICATE REQUEST-----",
    b"-----BEGIN TRUSTED CERTIFICATE-----",
    b"-----BEGIN EC PRIVATE KEY-----",
    b"-----BEGIN X509 CRL-----",
    b"-----BEGIN ",
    b"\r\n",
    b"\n\n",
    b"\\n",
    b"\xef\xbb\xbf",
    b"# authority: a  max-leaf: 99999999999999999999h  keep-until: 9999-12-31T23:59:59Z  subject: x\n",
    b"# authority: %2D%ZZ%\n",
    b"# distrusted: a ",
    b"\n=d\n",
    b"\n=p\n",
    b"\n=b\n",
    b"\n=i\n",
    b"MIIB",
    b"..",
    b"://",
    b"rules:\n- name: a\n  namespaces: {}\n",
    b"  namespaces: {names: [a], matchLabels: {a: b}}\n",
    b"{namespace}",
    b"&a [*a, *a]",
    b"!!binary ",
    b"99999999999999999999",
];

/// Returns a place in a slice of this length; 0 in an empty one.
fn place(rng: &mut Rng, length: usize) -> usize {
    if length == 0 { 0 } else { rng.usize(..length) }
}

fn range(rng: &mut Rng, length: usize, longest: usize) -> std::ops::Range<usize> {
    let start = place(rng, length);
    start..(start + rng.usize(1..=longest)).min(length)
}

/// Changes one byte, or removes or repeats some.
fn bytes(rng: &mut Rng, text: &mut Vec<u8>, longest: usize) {
    if text.is_empty() {
        text.push(*rng.choice(BYTES).expect("there are some"));
        return;
    }
    let at = place(rng, text.len());
    match rng.u8(..6) {
        0 => text[at] ^= 1 << rng.u8(..8),
        1 => text[at] = *rng.choice(BYTES).expect("there are some"),
        2 => text[at] = rng.u8(..),
        3 => text[at] = text[at].wrapping_add(if rng.bool() { 1 } else { 255 }),
        4 => drop(text.drain(range(rng, text.len(), longest))),
        _ => {
            let piece = text[range(rng, text.len(), longest)].to_vec();
            text.splice(at..at, piece);
        }
    }
}

/// Changes the DER inside a PEM block.
fn der(rng: &mut Rng, text: &mut Vec<u8>) -> Option<()> {
    let find = |from: usize, what: &[u8]| {
        let found = text[from..].windows(what.len()).position(|window| window == what);
        found.map(|at| from + at)
    };
    let begin = find(place(rng, text.len()), b"-----BEGIN")?;
    let start = find(begin, b"\n")?;
    let end = find(start, b"-----END")?;
    let base64: Vec<u8> = text[start..end]
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let mut der = STANDARD.decode(base64).ok()?;
    for _ in 0..rng.usize(1..4) {
        bytes(rng, &mut der, 16);
    }
    let mut lines = vec![b'\n'];
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        lines.extend(line);
        lines.push(b'\n');
    }
    text.splice(start..end, lines);
    Some(())
}

/// Returns a changed input: one of these, with changes, or with a part of another.
pub(super) fn mutated(rng: &mut Rng, pool: &[Vec<u8>]) -> Vec<u8> {
    let mut text = rng.choice(pool).expect("the corpus is not empty").clone();
    for _ in 0..rng.usize(1..5) {
        match rng.u8(..10) {
            0..4 => bytes(rng, &mut text, 200),
            4..7 => drop(der(rng, &mut text)),
            7 => {
                let at = place(rng, text.len());
                let piece = rng.choice(PIECES).expect("there are some");
                text.splice(at..at, piece.iter().copied());
            }
            8 => {
                let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
                let line = lines[place(rng, lines.len())];
                lines.insert(place(rng, lines.len()), line);
                text = lines.join(&b'\n');
            }
            _ => {
                let other = rng.choice(pool).expect("the corpus is not empty");
                text.truncate(place(rng, text.len()));
                text.extend(&other[place(rng, other.len())..]);
            }
        }
    }
    text.truncate(MAX_BYTES);
    text
}

/// Writer of signing requests whose signature is good, whatever they ask for: without it, no changed request
/// gets behind the check of the signature.
pub(super) struct Requests {
    key: KeyPair,
    /// Info, signature algorithm, and the whole request, as DER.
    info: Vec<u8>,
    algorithm: Vec<u8>,
}

impl Requests {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        for (kind, value) in [
            (DnType::CommonName, "client1"),
            (DnType::OrganizationName, "Acme"),
            (DnType::CountryName, "DE"),
        ] {
            params.distinguished_name.push(kind, value);
        }
        params.subject_alt_names = vec![
            SanType::DnsName("a.acme.example".try_into().expect("a name")),
            SanType::URI("spiffe://acme/ns/a".try_into().expect("a name")),
            SanType::Rfc822Name("a@acme.example".try_into().expect("a name")),
        ];
        let request = params.serialize_request(&key).expect("a request");
        let (_, parsed) = X509CertificationRequest::from_der(request.der()).expect("it can be read");
        let info = parsed.certification_request_info.raw.to_vec();
        let at = request
            .der()
            .windows(info.len())
            .position(|window| window == info);
        // The signature algorithm is the sequence behind the info, with its length in one byte.
        let behind = &request.der()[at.expect("the info is in the request") + info.len()..];
        let algorithm = behind[..2 + usize::from(behind[1])].to_vec();
        Self { key, info, algorithm }
    }

    /// Returns a request with changes in place, so that lengths inside still fit.
    pub(super) fn request(&self, rng: &mut Rng) -> Vec<u8> {
        let mut info = self.info.clone();
        for _ in 0..rng.usize(..4) {
            let at = place(rng, info.len());
            info[at] = match rng.bool() {
                true => rng.u8(..),
                false => *rng.choice(BYTES).expect("there are some"),
            };
        }
        let mut signature = vec![0];
        signature.extend(self.key.sign(&info).expect("the key signs"));
        let signature = tagged(0x03, &signature);
        let der = tagged(0x30, &[info, self.algorithm.clone(), signature].concat());
        let body = STANDARD.encode(der);
        let (begin, end) = (
            "-----BEGIN CERTIFICATE REQUEST-----",
            "-----END CERTIFICATE REQUEST-----",
        );
        let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("{begin}\n{}\n{end}\n", lines.join("\n")).into_bytes()
    }
}

/// Returns DER of this tag and content.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
    if content.len() > 127 {
        der.push(0x80 | u8::try_from(length.len()).expect("at most 8"));
    }
    der.extend(length);
    der.extend(content);
    der
}
