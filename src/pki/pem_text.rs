//! Lines, labels and base64 of PEM texts. Pure.

use base64::{Engine, prelude::BASE64_STANDARD};
use base64ct::{Base64, Encoding};
use memchr::{memchr_iter, memmem};
use zeroize::Zeroizing;

pub(crate) const BEGIN: &[u8] = b"-----BEGIN";
pub(crate) const END: &[u8] = b"-----END";
pub(crate) const HYPHENS: &[u8] = b"-----";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Maximum length of the label between `-----BEGIN ` and the hyphens after it.
pub(crate) const MAX_LABEL: usize = 64;
/// Maximum number of backslashes before the letter of a written-out line break, as in JSON inside JSON.
const MAX_BACKSLASHES: usize = 8;
/// Maximum white space before the # of a comment, where a BEGIN follows in the same line.
pub(crate) const MAX_INDENT: usize = 256;
/// Minimum length of base64 outside of a block that counts as the content of a block with a lost boundary.
pub(crate) const MIN_UNFRAMED: usize = 40;

/// True for a text without content: white space at most, or a byte order mark.
pub fn is_blank(text: &[u8]) -> bool {
    text.strip_prefix(BYTE_ORDER_MARK)
        .unwrap_or(text)
        .trim_ascii()
        .is_empty()
}

pub(crate) fn is_comment(line: &[u8]) -> bool {
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
pub(crate) fn decode(content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let base64 = joined(content)?;
    let base64 = std::str::from_utf8(&base64).ok()?;
    Base64::decode_vec(base64).ok().map(Zeroizing::new)
}

/// Decodes as [`decode`] does, several times as fast and not in constant time.
pub(crate) fn decode_public(content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
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
pub(crate) fn ends_at_line_start(text: &[u8]) -> bool {
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
pub(crate) fn line_breaks(text: &[u8]) -> usize {
    let returns = memchr_iter(b'\r', text).filter(|at| text.get(at + 1) != Some(&b'\n'));
    memchr_iter(b'\n', text).count() + returns.count()
}

pub(crate) fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memmem::find(text, what)
}
