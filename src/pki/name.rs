//! X.509 names: the RFC 4514 string for people, and the normal form by which names are compared.

use std::borrow::Cow;

use x509_parser::{
    asn1_rs::Tag,
    x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name},
};

/// Returns the RFC 4514 string, most specific part first, as API Gateway's `clientCert.subjectDN` shows it:
/// `CN=client1,O=Acme,C=DE`. Always one line: control characters are escaped.
pub(crate) fn text(name: &X509Name<'_>) -> String {
    let mut rdns: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let parts: Vec<String> = rdn
                .iter()
                .map(|part| {
                    let oid = part.attr_type().to_id_string();
                    let value = match value(part) {
                        Some(value) => escape(&value),
                        None => format!("#{}", hex(part.attr_value().data)),
                    };
                    format!("{}={value}", short_name(&oid).unwrap_or(&oid))
                })
                .collect();
            parts.join("+")
        })
        .collect();
    rdns.reverse();
    rdns.join(",")
}

/// Returns the normal form of a name. Two names are equal when their normal forms are: string types, case and
/// repeated spaces do not count (RFC 5280, section 7.1, as OpenSSL and the JDK compare).
pub(crate) fn normal_form(name: &X509Name<'_>) -> String {
    rdns(name).iter().map(|rdn| format!("{rdn},")).collect()
}

/// Returns the relative distinguished names of a name, each in its normal form, from the root down.
pub(crate) fn rdns(name: &X509Name<'_>) -> Vec<String> {
    let normal = |rdn: &RelativeDistinguishedName<'_>| {
        let mut parts: Vec<String> = rdn
            .iter()
            .map(|part| {
                let value = match value(part) {
                    Some(value) => {
                        let words: Vec<String> = value.split_whitespace().map(str::to_lowercase).collect();
                        escape(&words.join(" "))
                    }
                    None => format!("#{}:{}", part.attr_value().tag(), hex(part.attr_value().data)),
                };
                format!("{}={value}", part.attr_type().to_id_string())
            })
            .collect();
        parts.sort();
        parts.join("+")
    };
    name.iter_rdn().map(normal).collect()
}

/// Returns the text of an attribute's value, in any string type of X.520; `None` for another type, and for
/// bytes that are no text in their type. TeletexString, and ASCII types with other octets, read as Latin-1,
/// as OpenSSL and the programs that write them have it.
pub(crate) fn value<'n>(part: &AttributeTypeAndValue<'n>) -> Option<Cow<'n, str>> {
    let value = part.attr_value();
    let data = value.data;
    let latin_1 = || Cow::Owned(data.iter().copied().map(char::from).collect());
    match value.tag() {
        Tag::Utf8String => std::str::from_utf8(data).ok().map(Cow::Borrowed),
        Tag::NumericString | Tag::PrintableString | Tag::Ia5String | Tag::VisibleString => {
            Some(std::str::from_utf8(data).map_or_else(|_| latin_1(), Cow::Borrowed))
        }
        Tag::T61String => Some(latin_1()),
        // UCS-2: a half of a surrogate pair is no character.
        Tag::BmpString => characters(data.chunks_exact(2), |unit| {
            u32::from(u16::from_be_bytes([unit[0], unit[1]]))
        }),
        Tag::UniversalString => characters(data.chunks_exact(4), |unit| {
            u32::from_be_bytes([unit[0], unit[1], unit[2], unit[3]])
        }),
        _ => None,
    }
}

/// Decodes characters of a fixed width.
fn characters<'n>(
    mut units: std::slice::ChunksExact<'_, u8>,
    number: impl Fn(&[u8]) -> u32,
) -> Option<Cow<'n, str>> {
    let text: Option<String> = units.by_ref().map(|unit| char::from_u32(number(unit))).collect();
    text.filter(|_| units.remainder().is_empty()).map(Cow::Owned)
}

/// Name of a string type, or number of another type, for people.
pub(crate) fn type_name(tag: Tag) -> String {
    match tag {
        Tag::Utf8String => "UTF8String".to_owned(),
        Tag::BmpString => "BMPString".to_owned(),
        Tag::UniversalString => "UniversalString".to_owned(),
        tag => format!("type {}", tag.0),
    }
}

/// Encodes bytes as lower-case hex without separators.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the attribute's name by RFC 4514, and the usual names of attributes that RFC 4514 leaves out.
pub(crate) fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => out.extend(['\\', c]),
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            // Line and paragraph separators break lines in some viewers too.
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.push_str(&format!("\\{byte:02X}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
