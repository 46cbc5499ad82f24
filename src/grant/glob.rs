//! Names against the patterns of a grant: `*` is one or more characters that no name is divided by. Pure.

/// What a name is, which says where it is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of the subject.
    Text,
    Dns,
    Mail,
    Uri,
}

impl Kind {
    /// Whether `*` may stand for the character behind `before`.
    fn is_inner(self, before: &str, c: char) -> bool {
        c != '*'
            && match self {
                Kind::Text => !['.', '/', ':', '@'].contains(&c),
                Kind::Dns => c != '.',
                Kind::Mail => c != '@' && (c != '.' || !before.contains('@')),
                // A percent sign may hide any of them from us and not from who reads the certificate.
                Kind::Uri => {
                    !['/', ':', '@', '?', '#', '%'].contains(&c) && (c != '.' || before.matches('/').nth(2).is_some())
                }
            }
    }
}

pub fn fits(kind: Kind, pattern: &str, value: &str) -> bool {
    let Some((before, _)) = pattern.split_once('*') else { return pattern == value };
    // Also before anything is done for long values that somebody else chose.
    if !value.starts_with(before) || (kind == Kind::Uri && value.split('/').any(|part| part == "." || part == "..")) {
        return false;
    }
    // reached[i]: the pattern so far stands for the first i characters.
    let characters: Vec<(char, bool)> =
        value.char_indices().map(|(at, c)| (c, kind.is_inner(&value[..at], c))).collect();
    let mut reached = vec![false; characters.len() + 1];
    reached[0] = true;
    for p in pattern.chars() {
        let mut next = vec![false; characters.len() + 1];
        for (i, (c, inner)) in characters.iter().enumerate() {
            next[i + 1] = if p == '*' { *inner && (reached[i] || next[i]) } else { p == *c && reached[i] };
        }
        reached = next;
    }
    reached.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns() {
        use Kind::*;
        for (kind, pattern, value, expected) in [
            (Text, "client1", "client1", true),
            (Text, "client1", "client10", false),
            (Text, "client1", "Client1", false),
            (Text, "acme-*", "acme-1", true),
            (Text, "acme-*", "acme-", false),
            (Text, "acme-*", "other-acme-1", false),
            (Text, "acme-*", "acme-1.other", false),
            (Text, "acme-*", "acme-1/other", false),
            (Text, "acme-*", "acme-1@other", false),
            (Text, "*", "anybody at all", true),
            (Text, "*", "*", false),
            (Text, "a*b*c", "axbxbxc", true),
            (Text, "a*b*c", "abc", false),
            (Dns, "*.acme.example", "a.acme.example", true),
            (Dns, "*.acme.example", "a.b.acme.example", false),
            (Dns, "*.acme.example", "acme.example", false),
            (Dns, "*.acme.example", "*.acme.example", false),
            (Dns, "a.*.example", "a.b.example.evil", false),
            (Mail, "*@acme.example", "a.b@acme.example", true),
            (Mail, "*@acme.example", "a@b@acme.example", false),
            (Mail, "*@*.example", "a@b.c.example", false),
            (Uri, "spiffe://acme/ns/*/sa", "spiffe://acme/ns/v1.2/sa", true),
            (Uri, "spiffe://acme/ns/*", "spiffe://acme/ns/a/b", false),
            (Uri, "spiffe://acme/ns/*", "spiffe://acme/ns/..", false),
            (Uri, "spiffe://acme/*/sa", "spiffe://acme/../sa", false),
            (Uri, "spiffe://acme/ns/*", "spiffe://acme/ns/..%2Fother", false),
            (Uri, "spiffe://acme/ns/*", "spiffe://acme/ns/a?b", false),
            (Uri, "spiffe://*.acme/a", "spiffe://x.acme/a", true),
            (Uri, "spiffe://*.acme/a", "spiffe://x.y.acme/a", false),
            (Uri, "spiffe://*.acme/a", "spiffe://evil/x.acme/a", false),
            (Uri, "https://*.acme/a", "https://evil@x.acme/a", false),
        ] {
            assert_eq!(fits(kind, pattern, value), expected, "{kind:?} {pattern} {value}");
        }
    }

    proptest! {
        /// Whatever it stands for, a name that fits is divided as the pattern is.
        #[test]
        fn a_star_never_stands_for_what_divides(pattern in "[ab./:@*]{0,8}", value in "[ab./:@*]{0,10}") {
            if fits(Kind::Text, &pattern, &value) {
                let dividers = |text: &str| text.chars().filter(|c| "./:@".contains(*c)).collect::<String>();
                prop_assert_eq!(dividers(&pattern), dividers(&value));
            }
            if fits(Kind::Dns, &pattern, &value) {
                prop_assert_eq!(pattern.matches('.').count(), value.matches('.').count());
            }
        }

        #[test]
        fn what_is_put_for_a_star_fits(parts in proptest::collection::vec("[a-c]{1,4}", 1..5), filled in "[a-c]{1,4}") {
            let [pattern, value] = ["*", &filled].map(|between| parts.join(between));
            prop_assert!(fits(Kind::Text, &pattern, &value));
        }
    }
}
