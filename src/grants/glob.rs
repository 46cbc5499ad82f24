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
    /// Returns, for each byte of a name, true when `*` may stand for its character.
    fn inner(self, name: &str) -> Vec<bool> {
        let (mut in_path, mut slashes, mut behind_at) = (false, 0, false);
        let mut inner = Vec::with_capacity(name.len());
        for c in name.chars() {
            let is_inner = c != '*'
                && match self {
                    Kind::Text => !matches!(c, '.' | '/' | ':' | '@'),
                    Kind::Dns => c != '.',
                    Kind::Mail => c != '@' && (c != '.' || !behind_at),
                    // A percent sign may hide a dividing character from this match that the certificate's
                    // reader decodes.
                    Kind::Uri => !matches!(c, '/' | ':' | '@' | '?' | '#' | '%') && (c != '.' || in_path),
                };
            slashes += usize::from(c == '/');
            in_path = slashes > 2;
            behind_at |= c == '@';
            inner.resize(inner.len() + c.len_utf8(), is_inner);
        }
        inner
    }
}

/// True when the pattern matches the name. Takes time in proportion to the sum of both lengths.
pub fn matches(kind: Kind, pattern: &str, value: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == value;
    };
    let (middle, last) = match rest.rsplit_once('*') {
        Some((middle, last)) => (Some(middle), last),
        None => (None, rest),
    };
    // This check stands first, so that a long value, which a tenant chooses, costs no further work.
    if value.len() < first.len() + last.len()
        || !value.starts_with(first)
        || !value.ends_with(last)
        || (kind == Kind::Uri && value.split('/').any(|part| part == "." || part == ".."))
    {
        return false;
    }
    let inner = kind.inner(value);
    let end = value.len() - last.len();
    // The star at `at` may reach up to `reach`, which only grows: no byte is read twice.
    let (mut at, mut reach) = (first.len(), first.len());
    let extend = |reach: usize, at: usize| {
        let from = reach.max(at);
        from + inner[from..end].iter().take_while(|inner| **inner).count()
    };
    // Each part between two stars is taken at its first place: where a later place would match, the first one
    // does as well, since no star stands for a dividing character. A search that fails is the last one.
    for part in middle.iter().flat_map(|middle| middle.split('*')) {
        reach = extend(reach, at);
        // A star stands for one character at least.
        let Some(c) = value[at..reach].chars().next() else {
            return false;
        };
        let from = at + c.len_utf8();
        match value[from..end].find(part) {
            Some(found) if from + found <= reach => at = from + found + part.len(),
            _ => return false,
        }
    }
    at < end && extend(reach, at) == end
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

    /// A search that starts again behind each character, or for each star, would take minutes.
    #[test]
    fn a_long_name_takes_linear_time() {
        let started = std::time::Instant::now();
        let name = "spiffe://acme/".to_owned() + &"a".repeat(1_000_000);
        let stars = "spiffe://acme/*".to_owned() + &"a*".repeat(1_000);
        assert!(!matches(Kind::Uri, &(stars.clone() + "b"), &name));
        assert!(matches(Kind::Uri, &(stars + "b"), &(name.clone() + "b")));
        let part = |rest: &str| format!("spiffe://acme/*{}b{rest}", "a".repeat(10_000));
        assert!(!matches(Kind::Uri, &part("*"), &name));
        assert!(!matches(Kind::Uri, &part("*a"), &name));
        assert!(matches(Kind::Uri, &part("*c"), &(name + "bac")));
        assert!(
            started.elapsed() < std::time::Duration::from_secs(5),
            "{:?}",
            started.elapsed()
        );
    }

    proptest! {
        #[test]
        fn a_name_fits_if_there_is_any_way(
            pattern in "[ab./:@*é]{0,9}", name in "[abê./:@*%é]{0,12}",
            uri in any::<bool>(), kind in 0..4usize,
        ) {
            let kind = [Kind::Text, Kind::Dns, Kind::Mail, Kind::Uri][kind];
            let [pattern, name] = [pattern, name].map(|text| if uri { format!("s://{text}") } else { text });
            let [p, n]: [Vec<char>; 2] = [&pattern, &name].map(|text| text.chars().collect());
            let has_star = pattern.contains('*');
            let has_dots = name.split('/').any(|part| [".", ".."].contains(&part));
            let dots = kind == Kind::Uri && has_star && has_dots;
            let by_byte = kind.inner(&name);
            let inner: Vec<bool> = name.char_indices().map(|(at, _)| by_byte[at]).collect();
            let expected = if has_star { by_every_way(&p, &n, &inner) } else { p == n };
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
