//! Text outside of PEM blocks: damaged blocks and base64 without boundaries, which are errors. Pure.

use super::{
    pem_error::{Kind, ParseError},
    pem_text::{
        BEGIN, END, HYPHENS, MAX_INDENT, MAX_LABEL, MIN_UNFRAMED, decode, find, is_comment, line_breaks,
    },
};

/// Refuses a text between two blocks that holds remains of a block. `at` and `line` are its place in the
/// whole text. In comments, lines that begin with #, only boundaries are refused: a truststore that the
/// operator wrote has the names of certificates there, and partners choose these names.
pub(crate) fn look_between(between: &[u8], at: usize, line: usize) -> Result<(), ParseError> {
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
