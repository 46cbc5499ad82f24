//! PEM scanner: finds every block in a text of bytes, in the shapes that editors, templates and programs
//! leave, and names cause and remedy for a text that it cannot read. No other code searches for boundaries.
//! Each `-----BEGIN` of a text is a block or an error.

use base64::{Engine, prelude::BASE64_STANDARD};
use memchr::{memchr_iter, memmem};
use std::ops::Range;

use base64ct::{Base64, Encoding};
use x509_cert::der::pem::{LineEnding, encode_string};
use x509_parser::{
    asn1_rs::{Any, Class, Tag},
    certificate::X509Certificate,
    certification_request::X509CertificationRequest,
    prelude::FromDer,
    revocation_list::CertificateRevocationList,
    x509::SubjectPublicKeyInfo,
};
use zeroize::Zeroizing;

pub(crate) const BEGIN: &[u8] = b"-----BEGIN";
const END: &[u8] = b"-----END";
pub(crate) const HYPHENS: &[u8] = b"-----";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Maximum length of the label between `-----BEGIN ` and the hyphens after it.
const MAX_LABEL: usize = 64;
/// Maximum number of backslashes before the letter of a written-out line break, as in JSON inside JSON.
const MAX_BACKSLASHES: usize = 8;
/// Maximum white space before the # of a comment, where a BEGIN follows in the same line.
const MAX_INDENT: usize = 256;
/// Minimum length of base64 outside of a block that counts as the content of a block with a lost boundary.
const MIN_UNFRAMED: usize = 40;

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

/// Kind of a block or of DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Certificate,
    Request,
    RevocationList,
    Pkcs7,
    Cms,
    Pkcs12,
    JavaKeystore,
    PrivateKey,
    PublicKey,
    Other,
}

/// Maximum length of one source of certificates, in bytes: the Kubernetes API takes no more in one object.
pub const MAX_SOURCE_BYTES: usize = 1024 * 1024;

/// Maximum number of certificates in one source.
pub const MAX_SOURCE_CERTIFICATES: usize = 500;

/// Reason why a text cannot be read. Names the line and the way out, and never quotes the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("it is not PEM: there is no -----BEGIN CERTIFICATE----- line")]
    NotPem,
    #[error("it holds no certificate")]
    Empty,
    #[error(
        "it holds a private key, which does not belong here: take it out, and replace the key if others could read it"
    )]
    PrivateKey,
    #[error("it has more than {MAX_SOURCE_BYTES} bytes: split it into several authorities")]
    TooLong,
    #[error("it holds more than {MAX_SOURCE_CERTIFICATES} certificates: split it into several authorities")]
    TooMany,
    #[error("line {line}: UTF-16, not UTF-8: iconv -f {from} -t UTF-8 FILE converts it")]
    Utf16 { line: usize, from: &'static str },
    #[error("line {line}: a zero byte: this is neither PEM nor DER. Export the certificates as PEM")]
    NotText { line: usize },
    #[error("line {line}: {kind} in binary form, not PEM: {} converts it", kind.conversion("FILE"))]
    Der { line: usize, kind: Kind },
    #[error(
        "line {line}: base64 of PEM, encoded once too often: base64 -d FILE decodes it (data of a Secret is \
         encoded once, stringData not at all)"
    )]
    EncodedPem { line: usize },
    #[error(
        "line {line}: {kind} in base64 without -----BEGIN and -----END lines: base64 -d FILE >DER && {} \
         converts it",
        kind.conversion("DER")
    )]
    EncodedDer { line: usize, kind: Kind },
    #[error("line {line}: base64 outside of a block: the -----BEGIN line before it is missing or damaged")]
    Unframed { line: usize },
    #[error(
        "line {line}: a damaged boundary: write -----BEGIN CERTIFICATE-----, with five hyphens on each side"
    )]
    Begin { line: usize },
    #[error(
        "line {line}: -----BEGIN after other text: begin a new line with it, or delete the block if it is commented out"
    )]
    BeginAmongText { line: usize },
    #[error("line {line}: the block that begins here is cut off: it has no -----END line")]
    NoEnd { line: usize },
    #[error("line {line}: the block that begins here has a damaged -----END line, or one of another kind")]
    End { line: usize },
    #[error(
        "line {line}: an -----END line without a block: the -----BEGIN line before it is missing or damaged"
    )]
    EndAlone { line: usize },
    #[error(
        "line {line}: the block that begins here is damaged: it is empty or not all base64. Copy it again"
    )]
    Base64 { line: usize },
    #[error("line {line}: the block that begins here is called a certificate and holds {kind}: {}", kind.way_out())]
    Mislabelled { line: usize, kind: Kind },
    #[error(
        "line {line}: the block that begins here is damaged: its content is not an X.509 certificate. Copy it again"
    )]
    NotCertificate { line: usize },
    #[error(
        "line {line}: the settings of this TRUSTED CERTIFICATE exclude TLS clients (clientAuth): leave it \
         out, or remove the settings with openssl x509 -in FILE -out NEW"
    )]
    NotTrusted { line: usize },
    #[error("line {line}: {kind} where a certificate belongs: {}", kind.way_out())]
    Misplaced { line: usize, kind: Kind },
}

/// True for a text without content: white space at most, or a byte order mark.
pub fn is_blank(text: &[u8]) -> bool {
    text.strip_prefix(BYTE_ORDER_MARK)
        .unwrap_or(text)
        .trim_ascii()
        .is_empty()
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

impl Kind {
    /// Recognizes DER (or BER) by a parser, or by its first elements.
    pub(crate) fn of_der(der: &[u8]) -> Option<Kind> {
        if der.starts_with(b"\xfe\xed\xfe\xed") || der.starts_with(b"\xce\xce\xce\xce") {
            return Some(Kind::JavaKeystore);
        }
        let content = match der {
            [0x30, 0x81, _, content @ ..]
            | [0x30, 0x82, _, _, content @ ..]
            | [0x30, 0x83, _, _, _, content @ ..] => content,
            [0x30, length, content @ ..] if *length <= 0x80 => content,
            _ => return None,
        };
        const PKCS7: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07";
        const PKCS5: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05";
        const PKCS12_PASSWORD: &[u8] = b"\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01";
        let encrypted = |content: &[u8]| {
            let inner = content.get(2..).unwrap_or_default();
            content.first() == Some(&0x30) && (inner.starts_with(PKCS5) || inner.starts_with(PKCS12_PASSWORD))
        };
        match content {
            [0x02, 0x01, 0x03, ..] => Some(Kind::Pkcs12),
            [0x02, 0x01, 0x00 | 0x01, ..] => Some(Kind::PrivateKey),
            _ if content.starts_with(PKCS7) => Some(Kind::Pkcs7),
            _ if encrypted(content) => Some(Kind::PrivateKey),
            _ if X509Certificate::from_der(der).is_ok() => Some(Kind::Certificate),
            _ if X509CertificationRequest::from_der(der).is_ok() => Some(Kind::Request),
            _ if CertificateRevocationList::from_der(der).is_ok() => Some(Kind::RevocationList),
            _ if SubjectPublicKeyInfo::from_der(der).is_ok() => Some(Kind::PublicKey),
            _ => None,
        }
    }

    /// Returns the command that converts a file from DER to PEM.
    fn conversion(self, file: &str) -> String {
        match self {
            Kind::Certificate | Kind::Other => format!("openssl x509 -inform DER -in {file} -out NEW"),
            Kind::Request => format!("openssl req -inform DER -in {file} -out NEW"),
            Kind::RevocationList => format!("openssl crl -inform DER -in {file} -out NEW"),
            Kind::Pkcs7 | Kind::Cms => format!("openssl pkcs7 -inform DER -in {file} -print_certs -out NEW"),
            Kind::Pkcs12 => format!("openssl pkcs12 -in {file} -nokeys -out NEW"),
            Kind::JavaKeystore => format!("keytool -exportcert -rfc -keystore {file} -alias ALIAS -file NEW"),
            Kind::PrivateKey => format!("openssl pkey -inform DER -in {file} -out NEW"),
            Kind::PublicKey => format!("openssl pkey -pubin -inform DER -in {file} -out NEW"),
        }
    }

    /// Returns the remedy for a PEM block of this kind in place of a certificate.
    fn way_out(self) -> &'static str {
        match self {
            Kind::Pkcs7 => "openssl pkcs7 -in FILE -print_certs -out NEW writes its certificates as PEM",
            Kind::Cms => {
                "openssl cms -cmsout -noout -inform PEM -in FILE -certsout NEW writes its certificates as PEM"
            }
            Kind::Request => "put here the certificate that the authority issued for it",
            Kind::RevocationList => {
                "API Gateway does not read these. Take it out, or keep the certificates with \
                 openssl crl2pkcs7 -nocrl -certfile FILE | openssl pkcs7 -print_certs -out NEW"
            }
            Kind::PublicKey => "a public key alone identifies no caller. Put the certificate here",
            _ => {
                "keep the certificates with openssl crl2pkcs7 -nocrl -certfile FILE | openssl pkcs7 \
                 -print_certs -out NEW"
            }
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Certificate => "a certificate",
            Kind::Request => "a certificate signing request (PKCS #10)",
            Kind::RevocationList => "a revocation list (X509 CRL)",
            Kind::Pkcs7 => "a PKCS #7 bundle",
            Kind::Cms => "a CMS bundle",
            Kind::Pkcs12 => "a PKCS #12 keystore",
            Kind::JavaKeystore => "a Java keystore",
            Kind::PrivateKey => "a private key",
            Kind::PublicKey => "a public key",
            Kind::Other => "a block of another kind",
        })
    }
}

/// Refuses a text between two blocks that holds remains of a block. `at` and `line` are its place in the
/// whole text. In comments, lines that begin with #, only boundaries are refused: a truststore that the
/// operator wrote has the names of certificates there, and partners choose these names.
fn look_between(between: &[u8], at: usize, line: usize) -> Result<(), ParseError> {
    let line_at = |offset: usize| line + line_breaks(&between[..offset]);
    let zero = between.iter().position(|byte| *byte == 0);
    if at == 0 && (between.starts_with(b"\xff\xfe") || between.starts_with(b"\xfe\xff")) {
        return Err(ParseError::Utf16 { line, from: "UTF-16" });
    }
    if let (Some(begin), Some(zero)) = (find(between, b"-\0B\0E\0G\0I\0N\0"), zero) {
        // After other text the byte order is unknown; big-endian files are rare.
        let from = if at == 0 && begin % 2 == 1 {
            "UTF-16BE"
        } else {
            "UTF-16LE"
        };
        return Err(ParseError::Utf16 {
            line: line_at(zero),
            from,
        });
    }
    let whole = (at == 0).then(|| Kind::of_der(between)).flatten();
    if let Some(kind) = whole {
        return Err(ParseError::Der { line: 1, kind });
    }
    let der = between.windows(5).position(|window| {
        matches!(
            window,
            [0x30, 0x82, _, _, 0x30 | 0x02 | 0x06]
                | [0x30, 0x81, _, 0x30 | 0x02, _]
                | [0x30, _, 0x02, 0x01, 0 | 1]
        )
    });
    if let Some((offset, kind)) = der.and_then(|offset| Some((offset, Kind::of_der(&between[offset..])?))) {
        return Err(ParseError::Der {
            line: line_at(offset),
            kind,
        });
    }
    if let Some(zero) = zero {
        return Err(ParseError::NotText { line: line_at(zero) });
    }
    let mut offset = 0;
    for text in between.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if find(text, END).is_some() {
            return Err(ParseError::EndAlone {
                line: line_at(offset),
            });
        }
        if !is_comment(text) {
            look_for_base64(text, &between[offset..], || line_at(offset))?;
        }
        offset += text.len() + 1;
    }
    Ok(())
}

/// Refuses a line outside of all blocks that holds base64 of a block, or of the content of a block. `rest`
/// begins with that line; `number` is its number.
fn look_for_base64(line: &[u8], rest: &[u8], number: impl Fn() -> usize) -> Result<(), ParseError> {
    /// Base64 of `-----BEGIN`.
    const ENCODED_BEGIN: &[u8] = b"LS0tLS1CRUdJTi";
    /// First letters of DER longer than 255 bytes, longer than 127 bytes, and of shorter private keys.
    const ENCODED_DER: [&[u8]; 4] = [b"MII", b"MIG", b"MHcCAQEE", b"MC4CAQAw"];
    if find(line, ENCODED_BEGIN).is_some() {
        return Err(ParseError::EncodedPem { line: number() });
    }
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    let mut start = 0;
    for word in line.split(|byte| !is_base64(byte)) {
        if word.len() >= MIN_UNFRAMED && ENCODED_DER.iter().any(|der| word.starts_with(der)) {
            let all = &rest[start..];
            let length = all
                .iter()
                .take_while(|byte| is_base64(byte) || byte.is_ascii_whitespace())
                .count();
            let framed = all.get(length) == Some(&b'-'); // the rest of an END line follows
            let kind = decode(&all[..length])
                .filter(|_| !framed)
                .and_then(|der| Kind::of_der(&der));
            let line = number();
            return Err(
                kind.map_or(ParseError::Unframed { line }, |kind| ParseError::EncodedDer {
                    line,
                    kind,
                }),
            );
        }
        start += word.len() + 1;
    }
    Ok(())
}

/// Returns the error for a text without any block that is base64 from beginning to end.
pub(crate) fn encoded(text: &[u8]) -> Option<ParseError> {
    let decoded = decode(text)?;
    if find(&decoded, BEGIN).is_some() {
        return Some(ParseError::EncodedPem { line: 1 });
    }
    Kind::of_der(&decoded).map(|kind| ParseError::EncodedDer { line: 1, kind })
}

/// True when any BEGIN, damaged or not, names a private key. In comments only boundaries count, as in
/// [`look_between`].
pub(crate) fn names_private_key(text: &[u8]) -> bool {
    const KEYWORD: &[u8] = b"BEGIN";
    let (mut at, mut line) = (0, 0);
    while let Some(found) = find(&text[at..], KEYWORD) {
        let (before, after) = (&text[..at + found], &text[at + found + KEYWORD.len()..]);
        let line_break = before[at..]
            .iter()
            .rposition(|byte| matches!(byte, b'\n' | b'\r'));
        line = line_break.map_or(line, |line_break| at + line_break + 1);
        at += found + KEYWORD.len();
        let near = &after[..after.len().min(MAX_LABEL)];
        let label = near
            .split(|byte| !byte.is_ascii_alphanumeric() && !byte.is_ascii_whitespace())
            .next();
        let words = label
            .unwrap_or_default()
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        let is_key = words
            .clone()
            .zip(words.skip(1))
            .any(|pair| pair == (b"PRIVATE", b"KEY"));
        if is_key
            && (before.ends_with(HYPHENS) || !is_comment(&before[line..before.len().min(line + MAX_INDENT)]))
        {
            return true;
        }
    }
    false
}

fn is_comment(line: &[u8]) -> bool {
    line.trim_ascii_start().first() == Some(&b'#')
}

/// Splits the text after the keyword of a boundary into the label and the text after the closing hyphens.
/// Line breaks in a label count as spaces.
pub(crate) fn label(text: &[u8]) -> Option<(String, &[u8])> {
    let length = find(&text[..text.len().min(MAX_LABEL + HYPHENS.len())], HYPHENS)?;
    let words = std::str::from_utf8(&text[..length]).ok()?;
    if !words.starts_with(|c: char| c.is_ascii_whitespace()) {
        return None;
    }
    let words: Vec<_> = words.split_ascii_whitespace().collect();
    let known = |word: &&str| {
        word.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"#._/+".contains(&byte))
    };
    (!words.is_empty() && words.iter().all(known)).then(|| (words.join(" "), &text[length + HYPHENS.len()..]))
}

/// Decodes the base64 of a block, without white space and written-out line breaks (\n), in constant time: the
/// block may be a private key. `None`: empty or damaged.
fn decode(content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let base64 = joined(content)?;
    let base64 = std::str::from_utf8(&base64).ok()?;
    Base64::decode_vec(base64).ok().map(Zeroizing::new)
}

/// Decodes as [`decode`] does, several times as fast and not in constant time.
fn decode_public(content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let der = BASE64_STANDARD.decode(&*joined(content)?);
    der.ok().map(Zeroizing::new)
}

/// Returns base64 without white space and written-out line breaks. `None`: empty, or no base64.
fn joined(content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut base64 = Zeroizing::new(Vec::with_capacity(content.len()));
    let mut rest = content;
    while let Some(at) = rest
        .iter()
        .position(|byte| *byte == b'\\' || !byte.is_ascii_graphic())
    {
        base64.extend_from_slice(&rest[..at]);
        let (byte, after) = (rest[at], &rest[at + 1..]);
        rest = match byte {
            b'\\' => after_written_break(after)?,
            byte if is_space(byte) => after,
            _ => return None,
        };
    }
    base64.extend_from_slice(rest);
    (!base64.is_empty()).then_some(base64)
}

/// True for white space, and for the end-of-file mark of DOS programs.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, 0x0b | 0x1a)
}

/// Returns the text after a written-out line break (\n, \r, \\n), given the text after its first backslash.
fn after_written_break(text: &[u8]) -> Option<&[u8]> {
    let letter = text
        .iter()
        .take(MAX_BACKSLASHES)
        .position(|byte| *byte != b'\\')?;
    matches!(text[letter], b'n' | b'r' | b't').then(|| &text[letter + 1..])
}

/// True when only white space, quotes and byte order marks follow the last line break of the text.
fn ends_at_line_start(text: &[u8]) -> bool {
    let mut at_start = true;
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'\n' | b'\r' => at_start = true,
            b'"' | b'\'' | b'`' => {}
            byte if is_space(*byte) => {}
            b'\\' if let Some(after) = after_written_break(tail) => {
                at_start = true;
                rest = after;
            }
            0xef if let Some(after) = tail.strip_prefix(&BYTE_ORDER_MARK[1..]) => rest = after,
            _ => at_start = false,
        }
    }
    at_start
}

/// Counts the line breaks in a text: LF, CR or CRLF.
fn line_breaks(text: &[u8]) -> usize {
    let returns = memchr_iter(b'\r', text).filter(|at| text.get(at + 1) != Some(&b'\n'));
    memchr_iter(b'\n', text).count() + returns.count()
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memmem::find(text, what)
}

#[cfg(test)]
pub(crate) mod tests;
