//! Text of the truststore object: PEM for API Gateway, with the operator's records in the comments between.
//! Decides nothing.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{certificate::Certificate, pem, pem_certificates, pem_error::ParseError, pem_text};

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
        if pem_text::is_blank(text) {
            return Ok(bundle);
        }
        bundle.distrusted = distrusted(&String::from_utf8_lossy(text));
        if !bundle.distrusted.is_empty() && pem::scan(text).next().is_none() {
            return Ok(bundle); // all certificates are distrusted
        }
        let mut end = 0;
        for (certificate, block) in pem_certificates::certificates(text)? {
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

/// Characters of a name that are escaped: all but those of Kubernetes names and the slash between two.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'-')
    .remove(b'_')
    .remove(b'/');

/// Percent-encodes a name. Five hyphens would look like PEM.
fn encode(name: &str) -> String {
    utf8_percent_encode(name, &ESCAPED)
        .to_string()
        .replace("-----", "%2D%2D%2D%2D%2D")
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
pub(crate) mod tests;
