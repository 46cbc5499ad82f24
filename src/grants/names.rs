//! Text of the names that a grant compares: a name reads the same to people, to the grant and to back ends,
//! or no grant admits it. Pure.

use std::fmt;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory},
};

/// Reason why no grant admits a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A character that does not show, changes the direction of others, or has no meaning.
    Hidden(char),
    /// The normalization NFKC changes the name: another name looks the same.
    NotNormal,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Hidden(c) => write!(
                f,
                "contains U+{:04X}: no grant admits control, format, private and unassigned characters",
                u32::from(*c)
            ),
            Flaw::NotNormal => write!(f, "is not in the Unicode form NFKC: no grant admits other forms"),
        }
    }
}

pub fn flaw(name: &str) -> Option<Flaw> {
    if name.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return None;
    }
    if let Some(hidden) = name.chars().find(|c| is_hidden(*c)) {
        return Some(Flaw::Hidden(hidden));
    }
    let is_normal = ComposingNormalizerBorrowed::new_nfkc().is_normalized(name);
    (!is_normal).then_some(Flaw::NotNormal)
}

fn is_hidden(c: char) -> bool {
    use GeneralCategory::*;
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let is_separator = matches!(category, SpaceSeparator | LineSeparator | ParagraphSeparator);
    matches!(category, Control | Format | PrivateUse | Unassigned | Surrogate)
        || (is_separator && c != ' ')
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn names() {
        use Flaw::*;
        for (name, expected) in [
            ("acme-1", None),
            ("", None),
            ("Acme GmbH & Co. KG", None),
            ("Zürich", None),
            ("株式会社", None),
            ("Αθήνα", None),
            ("Москва", None),
            ("शक्ति", None),
            ("acme-\t", Some(Hidden('\t'))),
            ("acme-\u{7f}", Some(Hidden('\u{7f}'))),
            ("acme-\u{85}", Some(Hidden('\u{85}'))),
            ("acme-\u{ad}1", Some(Hidden('\u{ad}'))),
            ("acme-\u{200b}1", Some(Hidden('\u{200b}'))),
            ("acme-\u{200d}1", Some(Hidden('\u{200d}'))),
            ("acme-\u{200f}1", Some(Hidden('\u{200f}'))),
            ("acme-\u{2028}", Some(Hidden('\u{2028}'))),
            ("acme-\u{202e}1", Some(Hidden('\u{202e}'))),
            ("acme-\u{2066}1", Some(Hidden('\u{2066}'))),
            ("\u{feff}acme-1", Some(Hidden('\u{feff}'))),
            ("acme-\u{34f}1", Some(Hidden('\u{34f}'))),
            ("acme-\u{3164}1", Some(Hidden('\u{3164}'))),
            ("acme-\u{fe0f}1", Some(Hidden('\u{fe0f}'))),
            ("acme-\u{e0041}", Some(Hidden('\u{e0041}'))),
            ("acme\u{a0}1", Some(Hidden('\u{a0}'))),
            ("acme\u{1680}1", Some(Hidden('\u{1680}'))),
            ("acme\u{3000}1", Some(Hidden('\u{3000}'))),
            ("acme-\u{e000}", Some(Hidden('\u{e000}'))),
            ("acme-\u{378}", Some(Hidden('\u{378}'))),
            ("o\u{fb01}ce", Some(NotNormal)),
            ("acme-\u{ff11}", Some(NotNormal)),
            ("acme-\u{b9}", Some(NotNormal)),
            ("cafe\u{301}", Some(NotNormal)),
            ("café", None),
            ("acme\u{ff0e}example", Some(NotNormal)),
            ("acme-\u{1d7d9}", Some(NotNormal)),
            ("\u{212b}", Some(NotNormal)),
        ] {
            assert_eq!(flaw(name), expected, "{name:?}");
        }
    }

    proptest! {
        /// What is admitted is its own normal form, without a character of the refused kinds.
        #[test]
        fn an_admitted_name_reads_as_it_is_written(name in "\\PC{0,12}|[\\x00-\\u{ffff}]{0,8}") {
            if flaw(&name).is_none() {
                prop_assert_eq!(&ComposingNormalizerBorrowed::new_nfkc().normalize(&name), &name);
                prop_assert!(!name.chars().any(char::is_control));
            }
        }
    }
}
