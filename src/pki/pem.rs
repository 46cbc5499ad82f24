//! PEM scanner: finds every block in a text of bytes, in the shapes that editors, templates and programs
//! leave, and names cause and remedy for a text that it cannot read. No other code searches for boundaries.
//! Each `-----BEGIN` of a text is a block or an error.

use std::ops::Range;

use x509_cert::der::pem::{LineEnding, encode_string};
use x509_parser::{
    asn1_rs::{Any, Class, Tag},
    prelude::FromDer,
};
use zeroize::Zeroizing;

use super::{
    pem_error::{Kind, ParseError},
    pem_outside::{encoded, look_between},
    pem_text::{BEGIN, END, HYPHENS, decode, decode_public, ends_at_line_start, find, label, line_breaks},
};

/// Block, from its BEGIN to its END. Has no Debug: it may hold a private key.
pub struct Block {
    /// Words of the BEGIN, separated by single spaces.
    pub label: String,
    /// Decoded content. Empty for a private key with encryption headers (Proc-Type, DEK-Info).
    pub der: Zeroizing<Vec<u8>>,
    /// True for a private key that is protected by a password.
    pub encrypted: bool,
    /// Line of the BEGIN, counted from 1.
    pub line: usize,
    /// Bytes of the block in the text, both boundaries included.
    pub range: Range<usize>,
    /// True when every program reads this shape: each boundary has a line of its own.
    pub plain: bool,
}

/// True when every block has the shape that every program reads, not only this one. Ignores blocks that
/// cannot be read.
pub fn is_plain(text: &[u8]) -> bool {
    scan(text).filter_map(Result::ok).all(|block| block.plain)
}

/// Iterates over the blocks of a text, up to the first error.
pub fn scan(text: &[u8]) -> Scan<'_> {
    Scan {
        text,
        at: 0,
        line: 1,
        ended: false,
    }
}

pub struct Scan<'a> {
    text: &'a [u8],
    /// End of the previous block, and the line of that end.
    at: usize,
    line: usize,
    ended: bool,
}

impl Iterator for Scan<'_> {
    type Item = Result<Block, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.block().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Scan<'_> {
    fn block(&mut self) -> Result<Option<Block>, ParseError> {
        let rest = &self.text[self.at..];
        let begin = find(rest, BEGIN);
        let between = &rest[..begin.unwrap_or(rest.len())];
        look_between(between, self.at, self.line)?;
        let Some(begin) = begin else {
            return if self.at == 0 {
                encoded(between).map_or(Ok(None), Err)
            } else {
                Ok(None)
            };
        };
        let line = self.line + line_breaks(between);
        if !ends_at_line_start(between) {
            return Err(ParseError::BeginAmongText { line });
        }
        let after = &rest[begin + BEGIN.len()..];
        let (label, content) = label(after).ok_or(ParseError::Begin { line })?;
        let end = find(content, HYPHENS).ok_or(ParseError::NoEnd { line })?;
        let (content, boundary) = content.split_at(end);
        if boundary.starts_with(BEGIN) {
            return Err(ParseError::NoEnd { line });
        }
        let (end_label, after_end) = boundary
            .strip_prefix(END)
            .and_then(self::label)
            .ok_or(ParseError::End { line })?;
        if end_label != label {
            return Err(ParseError::End { line });
        }
        let headers_say_so = label.ends_with("PRIVATE KEY") && find(content, b"ENCRYPTED").is_some();
        let der = if headers_say_so {
            Some(Zeroizing::default())
        } else if label.ends_with("CERTIFICATE") {
            decode_public(content)
        } else {
            decode(content)
        };
        let der = der.ok_or(ParseError::Base64 { line })?;
        let range = self.at + begin..self.text.len() - after_end.len();
        // Another BEGIN may share hyphens with a boundary of this block.
        let reach = (range.end + BEGIN.len() - 1).min(self.text.len());
        if let Some(another) = find(&self.text[range.start + 1..reach], BEGIN) {
            return Err(ParseError::Begin {
                line: line + line_breaks(&self.text[range.start..range.start + another]),
            });
        }
        let is_break = |byte: Option<&u8>| matches!(byte, None | Some(b'\n' | b'\r'));
        let ends_line = |text: &[u8]| is_break(text.iter().find(|byte| !matches!(byte, b' ' | b'\t')));
        let plain = is_break(between.last())
            && (begin > 0 || self.at == 0)
            && line_breaks(&self.text[range.clone()]) == line_breaks(content)
            && (ends_line(content) && is_break(content.last()) && !content.contains(&b'\\'))
            && ends_line(after_end);
        self.line = line + line_breaks(&self.text[range.clone()]);
        self.at = range.end;
        let encrypted = headers_say_so || label == "ENCRYPTED PRIVATE KEY";
        Ok(Some(Block {
            label,
            der,
            encrypted,
            line,
            range,
            plain,
        }))
    }
}

impl Block {
    pub fn kind(&self) -> Kind {
        match self.label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" | TRUSTED_CERTIFICATE => Kind::Certificate,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Kind::Request,
            "X509 CRL" => Kind::RevocationList,
            "PKCS7" | "PKCS #7 SIGNED DATA" => Kind::Pkcs7,
            "CMS" => Kind::Cms,
            label if label.ends_with("PRIVATE KEY") => Kind::PrivateKey,
            label if label.ends_with("PUBLIC KEY") => Kind::PublicKey,
            _ => Kind::Other,
        }
    }

    /// Encodes the block in the shape that every program reads.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(
            encode_string(&self.label, LineEnding::LF, &self.der).expect("a block is far below 4 GB"),
        )
    }
}

pub(crate) const TRUSTED_CERTIFICATE: &str = "TRUSTED CERTIFICATE";

/// Splits OpenSSL's trusted form into the certificate and its settings (X509_CERT_AUX): the usages for which
/// OpenSSL trusts or rejects the certificate. The second part is true when OpenSSL trusts the certificate for
/// TLS clients.
pub(crate) fn trusted(der: &[u8]) -> Option<(&[u8], bool)> {
    const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
    const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
    let (settings, _) = Any::from_der(der).ok()?;
    let certificate = &der[..der.len() - settings.len()];
    if settings.is_empty() {
        return Some((certificate, true));
    }
    let (rest, settings) = Any::from_der(settings).ok()?;
    if !rest.is_empty() || settings.tag() != Tag::Sequence {
        return None;
    }
    let mut allowed = true;
    let mut fields = settings.data;
    while !fields.is_empty() {
        let (rest, field) = Any::from_der(fields).ok()?;
        fields = rest;
        let is_trust = match (field.class(), field.tag()) {
            (Class::Universal, Tag::Sequence) => true,
            (Class::ContextSpecific, Tag(0)) => false,
            _ => continue, // an alias, the key's id
        };
        let mut usages = field.data;
        let mut names_clients = false;
        while !usages.is_empty() {
            let (rest, usage) = Any::from_der(usages).ok()?;
            usages = rest;
            names_clients |=
                usage.tag() == Tag::Oid && (usage.data == CLIENT_AUTH || usage.data == ANY_USAGE);
        }
        allowed &= names_clients == is_trust;
    }
    Some((certificate, allowed))
}

#[cfg(test)]
pub(crate) mod tests;
