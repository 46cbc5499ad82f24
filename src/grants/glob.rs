//! Matching of names against the patterns of a grant: `*` stands for one or more characters, none of which
//! divides a name. Pure.

/// Kind of a name, which decides the characters that divide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Part of the subject.
    Text,
    Dns,
    Mail,
    Uri,
}

impl Kind {
    /// Returns, for each character of a name, true when `*` may stand for it.
    fn inner(self, name: &[char]) -> Vec<bool> {
        let (mut in_path, mut slashes, mut behind_at) = (false, 0, false);
        let inner = name.iter().map(|c| {
            let inner = *c != '*'
                && match self {
                    Kind::Text => !matches!(c, '.' | '/' | ':' | '@'),
                    Kind::Dns => *c != '.',
                    Kind::Mail => *c != '@' && (*c != '.' || !behind_at),
                    // A percent sign may hide a dividing character from this match that the certificate's
                    // reader decodes.
                    Kind::Uri => !matches!(c, '/' | ':' | '@' | '?' | '#' | '%') && (*c != '.' || in_path),
                };
            slashes += usize::from(*c == '/');
            in_path = slashes > 2;
            behind_at |= *c == '@';
            inner
        });
        inner.collect()
    }
}

/// True when the pattern matches the name. Takes time in proportion to the length of the name.
pub fn matches(kind: Kind, pattern: &str, value: &str) -> bool {
    let Some((before, _)) = pattern.split_once('*') else {
        return pattern == value;
    };
    // This check stands first, so that a long value, which a tenant chooses, costs no further work.
    if !value.starts_with(before)
        || (kind == Kind::Uri && value.split('/').any(|part| part == "." || part == ".."))
    {
        return false;
    }
    let name: Vec<char> = value.chars().collect();
    let inner = kind.inner(&name);
    let parts: Vec<Vec<char>> = pattern.split('*').map(|part| part.chars().collect()).collect();
    let (first, last) = (&parts[0], &parts[parts.len() - 1]);
    if name.len() < first.len() + last.len() || !name.ends_with(last) {
        return false;
    }
    let end = name.len() - last.len();
    let mut at = first.len();
    // Each part between two stars is taken at its first place: where a later place would match, the first one
    // does as well, since no star stands for a dividing character.
    for part in &parts[1..parts.len() - 1] {
        let Some(found) = next(&name[..end], &inner, at, part) else {
            return false;
        };
        at = found + part.len();
    }
    at < end && inner[at..end].iter().all(|inner| *inner)
}

/// Returns the first place of the part that follows a star. The star begins at `from` and takes one character
/// at least.
fn next(name: &[char], inner: &[bool], from: usize, part: &[char]) -> Option<usize> {
    let reach = inner[from..name.len()].iter().take_while(|inner| **inner).count();
    (from + 1..=from + reach).find(|at| name[*at..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            (Text, "*", "any name at all", true),
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
            assert_eq!(
                matches(kind, pattern, value),
                expected,
                "{kind:?} {pattern} {value}"
            );
        }
    }

    /// Tries every way to share the name out among the stars.
    fn by_every_way(pattern: &[char], name: &[char], inner: &[bool]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*', rest @ ..] => {
                let reach = inner.iter().take_while(|inner| **inner).count();
                (1..=reach).any(|taken| by_every_way(rest, &name[taken..], &inner[taken..]))
            }
            [c, rest @ ..] => name.first() == Some(c) && by_every_way(rest, &name[1..], &inner[1..]),
        }
    }

    #[test]
    fn a_long_name_takes_linear_time() {
        let pattern = "spiffe://acme/*".to_owned() + &"a*".repeat(500) + "b";
        let name = "spiffe://acme/".to_owned() + &"a".repeat(100_000);
        assert!(!matches(Kind::Uri, &pattern, &name));
        assert!(matches(Kind::Uri, &pattern, &(name + "b")));
    }

    proptest! {
        #[test]
        fn a_name_fits_if_there_is_any_way(
            pattern in "[ab./:@*é]{0,9}", name in "[ab./:@*%é]{0,12}",
            uri in any::<bool>(), kind in 0..4usize,
        ) {
            let kind = [Kind::Text, Kind::Dns, Kind::Mail, Kind::Uri][kind];
            let [pattern, name] = [pattern, name].map(|text| if uri { format!("s://{text}") } else { text });
            let [p, n]: [Vec<char>; 2] = [&pattern, &name].map(|text| text.chars().collect());
            let has_star = pattern.contains('*');
            let has_dots = name.split('/').any(|part| [".", ".."].contains(&part));
            let dots = kind == Kind::Uri && has_star && has_dots;
            let expected = if has_star { by_every_way(&p, &n, &kind.inner(&n)) } else { p == n };
            let found = matches(kind, &pattern, &name);
            prop_assert_eq!(found, expected && !dots, "{:?} {} {}", kind, pattern, name);
        }

        /// A matching name is divided as its pattern is, for any characters that the stars stand for.
        #[test]
        fn a_star_never_stands_for_a_dividing_character(
            pattern in "[ab./:@*]{0,8}", value in "[ab./:@*]{0,10}",
        ) {
            if matches(Kind::Text, &pattern, &value) {
                let dividers = |text: &str| text.chars().filter(|c| "./:@".contains(*c)).collect::<String>();
                prop_assert_eq!(dividers(&pattern), dividers(&value));
            }
            if matches(Kind::Dns, &pattern, &value) {
                prop_assert_eq!(pattern.matches('.').count(), value.matches('.').count());
            }
        }

        #[test]
        fn any_text_in_place_of_a_star_matches(
            parts in proptest::collection::vec("[a-c]{1,4}", 1..5), filled in "[a-c]{1,4}",
        ) {
            let [pattern, value] = ["*", &filled].map(|between| parts.join(between));
            prop_assert!(matches(Kind::Text, &pattern, &value));
        }
    }
}
