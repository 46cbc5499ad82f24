//! Text of the truststore object: PEM for API Gateway, with the operator's records in the comments between.
//! Decides nothing.

use super::certificate::{Certificate, ParseError};
use super::pem;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Content of one truststore object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    pub entries: Vec<Entry>,
    /// Keys that Distrusted authorities have distrusted so far; empty in a bundle of another writer.
    pub distrusted: DistrustedKeys,
}

/// Distrusted keys by the authority's name in the spec (as in [`Entry::authority`]) and the key
/// ([`Certificate::spki_sha256`]); true when the distrust ever kept a certificate out of the truststore.
pub type DistrustedKeys = BTreeMap<String, BTreeMap<String, bool>>;

/// Certificate of the truststore, and the reason for its presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Authority in the spec that brought the certificate (the first of several), with `/` and the object's
    /// name when it selects several objects; empty in a bundle of another writer.
    pub authority: String,
    pub certificate: Certificate,
    /// Longest lifetime ever given to a leaf under this certificate, in whole seconds. `None`: the operator
    /// never issued under it.
    pub max_leaf: Option<SignedDuration>,
    /// Time at which the certificate leaves the truststore, in whole seconds. Set once no authority issues
    /// under it any more.
    pub keep_until: Option<Timestamp>,
}

impl Entry {
    /// Name and key, by which a leaf finds its issuer. A renewed certificate of the same authority has the
    /// same identity.
    pub fn identity(&self) -> (&str, &str) {
        identity(&self.certificate)
    }
}

impl Entry {
    /// Sort key of entries that no authority of the spec has placed.
    pub(crate) fn order(&self) -> (&str, &str, &str) {
        (
            &self.authority,
            &self.certificate.subject,
            &self.certificate.fingerprint_sha256,
        )
    }

    /// Renders the entry's part of the object.
    pub(crate) fn render(&self) -> String {
        self.comment() + &self.certificate.to_pem()
    }

    /// Returns the length of the entry's part of the object, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.comment().len() + self.certificate.pem_length()
    }

    /// Renders the line before the certificate. Its last field, the subject, is for people.
    fn comment(&self) -> String {
        let mut text = "#".to_owned();
        if !self.authority.is_empty() {
            text.push_str(&format!(" authority: {} ", encode(&self.authority)));
        }
        if let Some(max_leaf) = self.max_leaf {
            text.push_str(&format!(" max-leaf: {} ", duration_text(max_leaf)));
        }
        if let Some(keep_until) = self.keep_until {
            text.push_str(&format!(" keep-until: {keep_until} "));
        }
        text.push_str(&format!(" subject: {}\n", ascii(&self.certificate.subject)));
        text
    }
}

pub(crate) fn identity(certificate: &Certificate) -> (&str, &str) {
    (&certificate.subject_key, &certificate.spki_sha256)
}

impl Bundle {
    /// Returns the entry with this certificate's name and key.
    pub fn find(&self, certificate: &Certificate) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.identity() == identity(certificate))
    }

    /// Renders the object: ASCII only; the same bundle gives the same bytes.
    pub fn render(&self) -> String {
        let mut text = self.render_distrusted();
        for entry in &self.entries {
            text.push_str(&entry.render());
        }
        text
    }

    /// Renders the lines before the first entry. Releases that do not know these lines skip them: of the
    /// comments before a certificate they read the last one only.
    pub(crate) fn render_distrusted(&self) -> String {
        let mut text = String::new();
        for (authority, keys) in &self.distrusted {
            for (key, took_effect) in keys {
                text.push_str(&distrusted_line(authority, key, *took_effect));
            }
        }
        text
    }

    /// Parses an object. An object of another writer has no comments of the operator: its authorities are
    /// empty. A certificate that is there twice counts once.
    pub fn parse(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<Bundle, ParseError> {
        let text = text.as_ref();
        let mut bundle = Bundle::default();
        if pem::is_blank(text) {
            return Ok(bundle);
        }
        bundle.distrusted = distrusted(&String::from_utf8_lossy(text));
        if !bundle.distrusted.is_empty() && pem::scan(text).next().is_none() {
            return Ok(bundle); // all certificates are distrusted
        }
        let mut end = 0;
        for (certificate, block) in pem::certificates(text)? {
            // The comment of a block is the last one between the previous block and this one.
            let between = String::from_utf8_lossy(&text[end..block.range.start]);
            let lines = between
                .trim_start_matches('\u{feff}')
                .lines()
                .skip(usize::from(end > 0));
            end = block.range.end;
            let comment = lines
                .filter_map(|line| line.strip_prefix('#'))
                .last()
                .map(Comment::parse);
            if !bundle
                .entries
                .iter()
                .any(|entry| entry.certificate == certificate)
            {
                let Comment {
                    authority,
                    max_leaf,
                    keep_until,
                } = comment.unwrap_or_default();
                bundle.entries.push(Entry {
                    authority,
                    certificate,
                    max_leaf,
                    keep_until,
                });
            }
        }
        Ok(bundle)
    }
}

/// Renders the line that records a distrusted key.
pub(crate) fn distrusted_line(authority: &str, key: &str, took_effect: bool) -> String {
    let effect = if took_effect { "" } else { "  effect: none" };
    format!("# authority: {}  distrusted: {key}{effect}\n", encode(authority))
}

/// Parses the records of distrusted keys in the comments before the first certificate.
fn distrusted(text: &str) -> DistrustedKeys {
    let mut all = DistrustedKeys::new();
    for line in text.lines().take_while(|line| !line.contains("-----BEGIN ")) {
        let (mut authority, mut key, mut took_effect) = (String::new(), "", true);
        for field in line.strip_prefix('#').unwrap_or_default().trim_end().split("  ") {
            match field.trim_start().split_once(": ") {
                Some(("authority", value)) => authority = decode(value),
                Some(("distrusted", value)) => key = value,
                Some(("effect", value)) => took_effect = value != "none",
                Some(("subject", _)) => break,
                _ => {}
            }
        }
        let is_key = key.len() == 64
            && key
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if is_key && !authority.is_empty() {
            all.entry(authority)
                .or_default()
                .insert(key.to_owned(), took_effect);
        }
    }
    all
}

#[derive(Default)]
struct Comment {
    authority: String,
    max_leaf: Option<SignedDuration>,
    keep_until: Option<Timestamp>,
}

impl Comment {
    /// Parses a comment. Skips other fields: any writer may have added comments.
    fn parse(line: &str) -> Comment {
        let mut comment = Comment::default();
        for field in line.trim_end().split("  ") {
            match field.trim_start().split_once(": ") {
                Some(("authority", value)) => comment.authority = decode(value),
                Some(("max-leaf", value)) => comment.max_leaf = duration(value),
                Some(("keep-until", value)) => comment.keep_until = value.parse().ok(),
                Some(("subject", _)) => break, // the last field: the rest of the line is part of it
                _ => {}
            }
        }
        comment
    }
}

fn duration_text(duration: SignedDuration) -> String {
    match duration.as_secs() {
        seconds if seconds != 0 && seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds => format!("{seconds}s"),
    }
}

fn duration(text: &str) -> Option<SignedDuration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = number
        .parse::<i64>()
        .ok()?
        .checked_mul(if unit == "h" { 3600 } else { 1 })?;
    (unit == "h" || unit == "s").then_some(SignedDuration::from_secs(seconds))
}

/// Percent-encodes all but the characters of Kubernetes names and the slash between two. Five hyphens would
/// look like PEM.
fn encode(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text.replace("-----", "%2D%2D%2D%2D%2D")
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Encodes a subject (already one line) in ASCII, escaped by RFC 4514.
fn ascii(subject: &str) -> String {
    let mut text = String::new();
    for c in subject.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                text.push_str(&format!("\\{byte:02X}"));
            }
        }
    }
    text.replace("-----", "\\2D\\2D\\2D\\2D\\2D")
}

#[cfg(test)]
mod tests {
    use super::super::authority::tests::at;
    use super::*;
    use proptest::prelude::*;

    /// Certificate straight from rcgen: the operator's own authorities refuse strange names, other
    /// authorities have them.
    fn certificate(common_name: &str) -> Certificate {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, common_name);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        Certificate::from_der(made.der()).unwrap()
    }

    fn entry(authority: &str, certificate: Certificate) -> Entry {
        Entry {
            authority: authority.to_owned(),
            certificate,
            max_leaf: None,
            keep_until: None,
        }
    }

    #[test]
    fn the_text_is_as_documented() {
        let certificate = certificate("Größe");
        let pem = certificate.to_pem();
        let full = Entry {
            max_leaf: Some(SignedDuration::from_hours(2160)),
            keep_until: Some(at("2027-02-22T12:00:00Z")),
            ..entry("partners", certificate)
        };
        let line = "# authority: partners  max-leaf: 2160h  keep-until: 2027-02-22T12:00:00Z  subject: \
                    CN=Gr\\C3\\B6\\C3\\9Fe\n";
        let bundle = Bundle {
            entries: vec![full],
            ..Bundle::default()
        };
        assert_eq!(bundle.render(), format!("{line}{pem}"));
        // Distrusted keys come first: the comment directly above a certificate is about that certificate.
        let (one, other) = ("1".repeat(64), "f".repeat(64));
        let keys = [(other.clone(), false), (one.clone(), true)].into();
        let bundle = Bundle {
            distrusted: [
                ("b/x".to_owned(), [(one.clone(), true)].into()),
                ("b".into(), keys),
            ]
            .into(),
            ..bundle
        };
        let lines = format!(
            "# authority: b  distrusted: {one}\n# authority: b  distrusted: {other}  effect: none\n# \
             authority: b/x  distrusted: {one}\n"
        );
        assert_eq!(bundle.render(), format!("{lines}{line}{pem}"));
        assert_eq!(Bundle::parse(&bundle.render()), Ok(bundle.clone()));
        let nothing_left = Bundle {
            entries: vec![],
            ..bundle
        };
        assert_eq!(Bundle::parse(&nothing_left.render()), Ok(nothing_left));
    }

    #[test]
    fn only_lines_of_the_operator_are_read_as_distrust() {
        let (key, pem) = ("a".repeat(64), certificate("a").to_pem());
        let lines = [
            format!("# distrusted: {key}"),
            format!("# authority: x  distrusted: {}", &key[1..]),
            format!("# authority: x  distrusted: {}", key.to_uppercase()),
            format!("# authority: x  subject: CN=y  distrusted: {key}"),
            format!("authority: x  distrusted: {key}"),
        ];
        let text = format!(
            "{}\n{pem}# authority: x  distrusted: {key}\n{pem}",
            lines.join("\n")
        );
        let read = Bundle::parse(&text).unwrap();
        assert!(read.distrusted.is_empty() && read.entries.len() == 1, "{read:?}");
    }

    #[test]
    fn a_third_party_bundle_is_read() {
        let (a, b) = (certificate("a"), certificate("b"));
        let text = format!(
            "Bag Attributes\n# subject: x  max-leaf: 9h\n{}\n{}\n{}",
            a.to_pem(),
            b.to_pem(),
            a.to_pem()
        );
        assert_eq!(
            Bundle::parse(&text).unwrap().entries,
            [entry("", a), entry("", b)]
        );
        assert_eq!(Bundle::parse(" \n").unwrap(), Bundle::default());
        assert_eq!(Bundle::parse("hello"), Err(ParseError::NotPem));
    }

    /// Shapes that a user's editor leaves when the user downloads the object and uploads it again.
    #[test]
    fn a_comment_stays_with_its_certificate_in_every_shape() {
        let full = |name: &str| Entry {
            max_leaf: Some(SignedDuration::from_hours(2160)),
            keep_until: Some(at("2027-02-22T12:00:00Z")),
            ..entry(name, certificate(name))
        };
        let bundle = Bundle {
            entries: vec![full("a"), full("b"), entry("", certificate("c"))],
            ..Bundle::default()
        };
        let text = bundle.render();
        let shapes = [
            text.replace('\n', "\r\n"),
            format!("\u{feff}{text}"),
            format!("\u{feff}{}", text.replace('\n', "\r\n")),
            text.replace("-----BEGIN", "  -----BEGIN"),
            text.replace("-----END CERTIFICATE-----\n", "-----END CERTIFICATE-----\n\n"),
            text.replace(
                "-----END CERTIFICATE-----\n# subject: CN=c\n",
                "-----END CERTIFICATE-----",
            ),
        ];
        for shape in shapes {
            assert_ne!(shape, text);
            assert_eq!(Bundle::parse(&shape).as_ref(), Ok(&bundle), "{shape}");
        }
        // A comment never belongs to another block. A comment right after a boundary does not count.
        let moved = text.replace(
            "-----END CERTIFICATE-----\n# authority: b",
            "-----END CERTIFICATE-----# authority: b",
        );
        assert_eq!(Bundle::parse(&moved).unwrap().entries[1].authority, "");
    }

    #[test]
    fn an_authority_named_like_a_pem_block_stays_a_name() {
        let names = [
            "----BEGIN CERTIFICATE-----",
            "-----BEGIN PRIVATE KEY-----",
            "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0nT",
            "LS0tLS1CRUdJTi",
            "-----END",
        ];
        let entries: Vec<_> = names.map(|name| entry(name, certificate(name))).into();
        let text = Bundle {
            entries: entries.clone(),
            ..Bundle::default()
        }
        .render();
        assert_eq!(Bundle::parse(&text).unwrap().entries, entries, "{text}");
    }

    #[test]
    fn openssl_reads_every_certificate_despite_strange_names() {
        let strange = certificate("-----BEGIN CERTIFICATE-----");
        let entries = vec![
            entry("-----BEGIN CERTIFICATE-----", strange),
            entry("b", certificate("b")),
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            Bundle {
                entries: entries.clone(),
                ..Bundle::default()
            }
            .render(),
        )
        .unwrap();
        let out = std::process::Command::new("openssl")
            .args(["storeutl", "-noout", "-certs"])
            .arg(file.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains("Total found: 2"), "{text}");
        assert_eq!(
            Bundle::parse(
                &Bundle {
                    entries: entries.clone(),
                    ..Bundle::default()
                }
                .render()
            )
            .unwrap()
            .entries,
            entries
        );
    }

    proptest! {
        #![proptest_config(crate::cases(100))]
        #[test]
        fn a_rendered_bundle_parses_to_the_same_bundle(
            list in prop::collection::vec(
                (
                    any::<String>(),
                    "\\PC{1,64}",
                    prop::option::of(0i64..1_000_000_000),
                    prop::option::of(0i64..9_000_000_000),
                ),
                0..4,
            ),
            distrusted in prop::collection::btree_map(
                prop_oneof![
                    "[a-z0-9/-]{1,20}",
                    any::<String>().prop_filter("a name", |name| !name.is_empty()),
                ],
                prop::collection::btree_map("[0-9a-f]{64}", any::<bool>(), 1..3),
                0..3,
            ),
        ) {
            let mut entries: Vec<Entry> = Vec::new();
            for (authority, name, max_leaf, keep_until) in list {
                entries.push(Entry {
                    max_leaf: max_leaf.map(SignedDuration::from_secs),
                    keep_until: keep_until.map(|second| Timestamp::from_second(second).unwrap()),
                    ..entry(&authority, certificate(&name))
                });
            }
            let bundle = Bundle { entries, distrusted };
            let text = bundle.render();
            prop_assert!(text.is_ascii());
            let entries: usize = bundle.entries.iter().map(Entry::length).sum();
            prop_assert_eq!(bundle.render_distrusted().len() + entries, text.len());
            prop_assert_eq!(Bundle::parse(&text).unwrap(), bundle);
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), field in "# \
                                     (authority|max-leaf|keep-until|authority: a  distrusted): [^\n]*") {
            let _ = Bundle::parse(&text);
            let block = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
            let _ = Bundle::parse(&format!("{field}\n{block}"));
        }
    }
}
