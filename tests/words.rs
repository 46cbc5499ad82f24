//! How code and prose are written: lines of at most 110 columns, and the field's terms instead of words of
//! our own.
use std::{collections::BTreeSet, fmt::Write, path::Path, process::Command};

/// Maximum columns of a line.
const WIDTH: usize = 110;

/// Files that no one writes by hand: history, recorded worlds, generated files, and the lists below.
const EXEMPT: &[&str] = &[
    "CHANGELOG.md",
    "LICENSE",
    "charts/mtls-operator/files/crds/",
    "crds/",
    "docs/reference.md",
    "fuzz/corpus/",
    "tests/upgrade/world/",
    "tests/words.rs",
];

/// Rust files whose rows are a table: one case a line, however long.
const TABLES: &[&str] = &["tests/crds/cases.rs"];

/// Identifiers of our own. Checked in Rust code, without its comments and strings.
const IDENTIFIERS: &str = "\
    Allowance, Around, Ask, Behind, Desk, Eyes, Fits, Flight, Glance, Hands, Home, Issuers, Judged, \
    Kept, Later, Life, Line, Memory, Misfit, Misfits, Permits, Places, Pulse, Reach, Readings, Remains, \
    Repairs, Served, Sight, Slot, Standing, Stuck, Surroundings, Thing, Tiers, Truth, Turns, Uses, \
    Verdict, Way, AuthorityWish, AuthorizerWish, CertificateWish, DnsWish, KeyWish, RequestWish, \
    SourceWish, PATIENCE, allot, around, at_home, awsdouble, beat, calm, desk, eyes, glance, hands, \
    home, hostile, in_vain, is_foreign, let_go, lets_in, life, look, look_again, looked, looks, \
    next_look, perhaps, pulse, quiet, quiet_since, reach, readings, reunite, rivals, seldom, \
    served_trust, sight, standing, story, surroundings, tell_served, tiers, truth, turns, verdict, \
    wakes, wanted_life, wish, wishes, worth_a_look";

/// Words that mean something else outside of these folders.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("home", &["src/"]),
    ("life", &["tests/e2e/"]),
    ("Life", &["tests/e2e/"]),
    ("around", &["src/grants/"]),
    (
        "verdict",
        &[
            "src/controllers/",
            "src/trust/",
            "src/dns/",
            "src/server_certificate/",
            "src/dataplane/",
            "src/model/",
            "src/observation/",
            "src/pki/compile",
        ],
    ),
    (
        "reach",
        &[
            "src/controllers/",
            "src/trust/",
            "src/dns/",
            "src/server_certificate/",
            "src/dataplane/",
            "src/model/",
            "src/observation/",
            "src/policy",
        ],
    ),
    ("a life", &["tests/e2e/"]),
    ("each life", &["tests/e2e/"]),
    ("one life", &["tests/e2e/"]),
    ("the life", &["tests/e2e/"]),
    ("this life", &["tests/e2e/"]),
];

/// Words and phrases of prose, in lower case. Checked in comments, strings, Markdown, YAML and templates.
const PHRASES: &str = "\
    a life, ahead of its turn, anew, asks nobody for a certificate, at a glance, aws's word, calm, \
    each life, everything is as the spec says, for ever, foreign, glance, hostile, \
    in a line, in the line, in vain, its turn, kept reading, kept readings, let go, look, looked, \
    looking, looks, my turn, one life, our mark, our marks, owner mark, owner's mark, owner's marks, \
    perhaps, pulse, put back, puts back, quiet, rivals, seldom, story, take on, taken on, takes on, \
    the double, the life, the local aws, the rooms, the spec is understood, their turn, this life, \
    ways around mutual tls, ways round mutual tls, whole life, whole lives, whose turn, wish, wished, \
    wishes, double of aws, aws double";

/// Pronouns without a noun, which say nothing of who does what.
const PRONOUNS: &[&str] = &["nobody", "nobody's", "somebody", "somebody's", "whoever"];

/// Standard terms that begin with a word of the list: `look up` a name, `looks like`, `looks for`.
const STANDARD: &str = "\
    look up, looks up, looked up, looking up, look like, looks like, looked like, look for, looks for, \
    looking for, looked for, takes on one";

/// Where a word stays, and why: at most 20. A path, or the beginning of one; the word as it is listed.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// The parts of a list above.
fn parts(list: &'static str) -> Vec<&'static str> {
    list.split(", ").collect()
}

/// Kinds of text, as a Rust file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Text,
    Raw,
}

struct Line {
    text: Vec<(char, Kind)>,
    in_attribute: bool,
}

/// The lines of a Rust file, each character with its kind. Knows comments, strings, raw strings and character
/// literals.
fn rust(source: &str) -> Vec<Line> {
    let chars: Vec<char> = source.chars().collect();
    let mut kinds = vec![Kind::Code; chars.len()];
    let starts = |at: usize, what: &str| {
        what.chars()
            .enumerate()
            .all(|(n, c)| chars.get(at + n) == Some(&c))
    };
    let mut at = 0;
    while at < chars.len() {
        let before = at.checked_sub(1).map_or(' ', |before| chars[before]);
        let hashes = chars[at..].iter().skip(1).take_while(|c| **c == '#').count();
        let (end, kind) = if starts(at, "//") {
            (
                at + chars[at..].iter().take_while(|c| **c != '\n').count(),
                Kind::Comment,
            )
        } else if chars[at] == 'r' && !before.is_alphanumeric() && chars.get(at + 1 + hashes) == Some(&'"') {
            let close: String = std::iter::once('"')
                .chain(std::iter::repeat_n('#', hashes))
                .collect();
            let end = (at + 2 + hashes..chars.len())
                .find(|end| starts(*end, &close))
                .expect("a raw string ends");
            (end + close.len(), Kind::Raw)
        } else if chars[at] == '"' {
            let mut end = at + 1;
            while chars[end] != '"' {
                end += if chars[end] == '\\' { 2 } else { 1 };
            }
            (end + 1, Kind::Text)
        } else if chars[at] == '\'' && (chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\''))
        {
            let end = (at + 2..chars.len())
                .find(|end| chars[*end] == '\'' && (*end > at + 2 || chars[at + 1] != '\\'));
            (end.expect("a character ends") + 1, Kind::Code)
        } else {
            (at + 1, Kind::Code)
        };
        kinds[at..end].fill(kind);
        at = end;
    }
    let (mut lines, mut depth) = (
        vec![Line {
            text: vec![],
            in_attribute: false,
        }],
        0,
    );
    for (at, (c, kind)) in chars.iter().zip(&kinds).enumerate() {
        let opens =
            *c == '[' && (at > 0 && chars[at - 1] == '#' || at > 1 && chars[at - 2..at] == ['#', '!']);
        if *kind == Kind::Code && (depth > 0 || opens) {
            lines.last_mut().expect("one line at least").in_attribute = true;
            depth += match c {
                '[' => 1,
                ']' => -1,
                _ => 0,
            };
        }
        if *c == '\n' {
            lines.push(Line {
                text: vec![],
                in_attribute: depth > 0,
            });
        } else {
            lines
                .last_mut()
                .expect("one line at least")
                .text
                .push((*c, *kind));
        }
    }
    lines
}

/// The files of the repository with one of these endings, each with its text.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()
        .expect("git runs");
    let listed = String::from_utf8(listed.stdout).expect("paths in UTF-8");
    let ours = listed
        .split('\0')
        .filter(|path| endings.iter().any(|end| path.ends_with(end)));
    let ours = ours.filter(|path| !EXEMPT.iter().any(|exempt| path.starts_with(exempt)));
    let read = |path: &str| Some((path.to_owned(), std::fs::read_to_string(root.join(path)).ok()?));
    ours.filter_map(read).collect()
}

/// True when what is too long is a URL, or a word of that length: there is nothing to break.
fn is_unbreakable(line: &str) -> bool {
    let mut column = 0;
    line.split(' ').any(|word| {
        let start = column;
        column += word.chars().count() + 1;
        column > WIDTH && (word.contains("://") || start < WIDTH / 4)
    })
}

/// Lines that are too long, as `file:line: columns`.
fn long_lines() -> Vec<String> {
    let mut hits = vec![];
    for (path, text) in files(&[".rs", ".md", ".yaml"]) {
        if TABLES.contains(&path.as_str()) {
            continue;
        }
        let exempt: Vec<bool> = if path.ends_with(".rs") {
            let is_raw = |line: &Line| line.text.get(WIDTH).is_some_and(|(_, kind)| *kind == Kind::Raw);
            rust(&text)
                .iter()
                .map(|line| line.in_attribute || is_raw(line))
                .collect()
        } else {
            let mut generated = false;
            let of_markdown = |line: &str| {
                generated =
                    (generated || line.starts_with("<!-- Generated")) && !line.starts_with("<!-- End");
                generated || line.trim_start().starts_with('|')
            };
            text.lines().map(of_markdown).collect()
        };
        for (at, (line, exempt)) in text.lines().zip(exempt).enumerate() {
            let columns = line.chars().count();
            if columns > WIDTH && !exempt && !is_unbreakable(line) {
                hits.push(format!("{path}:{}: {columns} columns", at + 1));
            }
        }
    }
    hits
}

#[test]
fn lines_have_at_most_110_columns() {
    let hits = long_lines();
    assert!(hits.is_empty(), "{}\n{} lines", hits.join("\n"), hits.len());
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of the list that stand in the text, each with its place. The text is in lower case and has one
/// blank between two words.
fn found(text: &str, phrases: &[&'static str]) -> Vec<(usize, &'static str)> {
    let standard = parts(STANDARD);
    let at_word = |at: usize, word: &str| {
        let (before, after) = (
            text[..at].chars().next_back(),
            text[at + word.len()..].chars().next(),
        );
        !before.is_some_and(|c| is_part(c) || "-/.'`".contains(c))
            && !after.is_some_and(|c| is_part(c) || c == '-' || c == '`')
    };
    let mut all = vec![];
    for phrase in phrases {
        let hits = text.match_indices(phrase).filter(|(at, _)| at_word(*at, phrase));
        let hits = hits.filter(|(at, _)| !standard.iter().any(|term| text[*at..].starts_with(term)));
        all.extend(hits.map(|(at, _)| (at, *phrase)));
    }
    all
}

/// True where the word is one of ours, see [`ONLY_IN`].
fn is_meant(word: &str, path: &str) -> bool {
    let only = ONLY_IN.iter().find(|(own, _)| *own == word);
    only.is_none_or(|(_, folders)| folders.iter().any(|folder| path.starts_with(folder)))
}

/// Words of our own, as `file`, line and word.
fn own_words() -> Vec<(String, usize, &'static str)> {
    let (identifiers, phrases) = (parts(IDENTIFIERS), [parts(PHRASES), PRONOUNS.to_vec()].concat());
    let mut hits = vec![];
    for (path, text) in files(&[".rs", ".md", ".yaml", ".tpl", ".txt", ".py", ".toml"]) {
        if path.ends_with("requirements.txt") {
            continue;
        }
        let lines: Vec<(String, String)> = if path.ends_with(".rs") {
            let of = |line: &Line, code: bool| -> String {
                let is_it = |kind: Kind| (kind == Kind::Code) == code;
                line.text
                    .iter()
                    .map(|(c, kind)| if is_it(*kind) { *c } else { ' ' })
                    .collect()
            };
            rust(&text)
                .iter()
                .map(|line| (of(line, true), of(line, false)))
                .collect()
        } else {
            text.lines()
                .map(|line| (String::new(), line.to_owned()))
                .collect()
        };
        for (at, (code, _)) in lines.iter().enumerate() {
            let names = code
                .split(|c: char| !is_part(c))
                .filter_map(|name| identifiers.iter().find(|own| **own == name));
            let names = names.filter(|name| is_meant(name, &path));
            hits.extend(names.map(|name| (path.clone(), at + 1, *name)));
        }
        // As one text, so that a phrase is found across the end of a line.
        let (mut prose, mut starts) = (String::new(), vec![]);
        for (_, line) in &lines {
            starts.push(prose.len());
            let line = line
                .trim()
                .trim_start_matches(['/', '!', '#', '*', '>'])
                .trim_end_matches('\\')
                .to_lowercase();
            prose.extend(line.split_whitespace().flat_map(|word| [word, " "]));
        }
        let line_of = |at: usize| starts.partition_point(|start| *start <= at);
        let mut all = found(&prose, &phrases);
        all.sort_unstable();
        let all = all.into_iter().filter(|(_, word)| is_meant(word, &path));
        hits.extend(all.map(|(at, word)| (path.clone(), line_of(at), word)));
    }
    hits
}

#[test]
fn words_are_the_fields() {
    assert!(EXCEPTIONS.len() <= 20, "at most 20 exceptions");
    let (mut used, mut list, mut count) = (BTreeSet::new(), String::new(), 0);
    for (path, line, word) in own_words() {
        match EXCEPTIONS
            .iter()
            .find(|(begins, own, _)| path.starts_with(begins) && *own == word)
        {
            Some(exception) => drop(used.insert(exception)),
            None => {
                count += 1;
                writeln!(list, "{path}:{line}: {word}").expect("a String takes all");
            }
        }
    }
    assert!(count == 0, "{list}{count} words");
    let unused: Vec<_> = EXCEPTIONS
        .iter()
        .filter(|exception| !used.contains(exception))
        .collect();
    assert!(unused.is_empty(), "take off the list: {unused:?}");
}

#[test]
fn the_check_tells_words_apart() {
    let prose = |text: &str| {
        found(text, &parts(PHRASES))
            .into_iter()
            .map(|(_, word)| word)
            .collect::<Vec<_>>()
    };
    assert_eq!(prose("it looks up the name and looks like one"), [""; 0]);
    assert_eq!(prose("the next look at it"), ["look"]);
    assert_eq!(prose("mtls-operator.io/home, `look` and x-quiet-y"), [""; 0]);
    let lines = rust("let a = \"x // y\"; // é \"z\"\n#[doc = \"b\"]\nfn c<'a>() { r#\"d\"e\"# ; '\"' }\n");
    let shown = |line: &Line, kind| -> String {
        line.text
            .iter()
            .filter(|(_, k)| *k == kind)
            .map(|(c, _)| *c)
            .collect::<String>()
            .trim()
            .to_owned()
    };
    assert_eq!(
        (shown(&lines[0], Kind::Text), shown(&lines[0], Kind::Comment)),
        ("\"x // y\"".into(), "// é \"z\"".into())
    );
    assert_eq!([0, 1, 2].map(|at| lines[at].in_attribute), [false, true, false]);
    let attributes = rust("#[a(\n\"b]\",\n)]\nfn d() {}\n#![e]");
    let attributes: Vec<_> = attributes.iter().map(|line| line.in_attribute).collect();
    assert_eq!(attributes, [true, true, true, false, true]);
    assert_eq!(
        (shown(&lines[2], Kind::Raw), shown(&lines[2], Kind::Code)),
        ("r#\"d\"e\"#".into(), "fn c<'a>() {  ; '\"' }".into())
    );
    assert!(
        is_unbreakable(&format!("see https://{}", "x".repeat(WIDTH))) && !is_unbreakable(&"word ".repeat(30))
    );
}
