//! X.509 names: the RFC 4514 string for people, and the normal form by which names are compared.

use x509_parser::x509::{RelativeDistinguishedName, X509Name};

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
                    let value = match part.as_str() {
                        Ok(value) => escape(value),
                        Err(_) => format!("#{}", hex(part.attr_value().data)),
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
                let value = match part.as_str() {
                    Ok(value) => {
                        let words: Vec<String> = value.split_whitespace().map(str::to_lowercase).collect();
                        escape(&words.join(" "))
                    }
                    Err(_) => format!("#{}:{}", part.attr_value().tag(), hex(part.attr_value().data)),
                };
                format!("{}={value}", part.attr_type().to_id_string())
            })
            .collect();
        parts.sort();
        parts.join("+")
    };
    name.iter_rdn().map(normal).collect()
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(escape("a,b+c"), "a\\,b\\+c");
        assert_eq!(escape(" #x "), "\\ #x\\ ");
        assert_eq!(escape("#x"), "\\#x");
        assert_eq!(escape("a\nb"), "a\\0Ab");
        assert_eq!(escape(" "), "\\ ");
        assert_eq!(escape("Zürich"), "Zürich");
    }

    proptest! {
        #[test]
        fn always_one_line(value in any::<String>()) {
            prop_assert!(escape(&value).lines().count() <= 1);
            prop_assert!(!escape(&value).chars().any(char::is_control));
        }
    }
}
