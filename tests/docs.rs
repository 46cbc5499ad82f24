//! Checks of the pages: their links lead somewhere, the manifests that they quote are those of examples/, and
//! the conditions, reasons, field values and flags that they name exist.
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use kube::Resource;
use mtls_operator::api::{
    self, ClientCertificate, ClientGrant, MtlsDomain,
    conditions::{ConditionType, Reason},
    events::EventReason,
};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(root().join(folder))
        .expect("the folder is there")
        .flatten()
    {
        let name = Path::new(folder).join(entry.file_name());
        if entry.path().is_dir() {
            found.extend(files(name.to_str().expect("UTF-8"), ending));
        } else if name.to_string_lossy().ends_with(ending) {
            found.push(name);
        }
    }
    found
}

/// Text of a file of the repository.
fn text(file: &Path) -> String {
    std::fs::read_to_string(root().join(file)).expect("the file can be read")
}

fn pages() -> Vec<PathBuf> {
    let mut all = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"]
        .map(PathBuf::from)
        .to_vec();
    all.extend(
        ["docs", "examples", "sandbox/aws"]
            .iter()
            .flat_map(|folder| files(folder, ".md")),
    );
    all
}

/// Returns the content of the page's blocks of this language, and the rest of the page.
fn blocks(page: &str, language: &str) -> (Vec<String>, String) {
    let (mut found, mut rest) = (vec![], String::new());
    let mut parts = page.split("```");
    rest.push_str(parts.next().unwrap_or_default());
    while let Some(block) = parts.next() {
        if let Some(code) = block.strip_prefix(language) {
            found.push(code.trim_start_matches('\n').to_owned());
        }
        rest.push_str(parts.next().unwrap_or_default());
    }
    (found, rest)
}

/// Returns the texts between single backticks.
fn spans(page: &str) -> Vec<String> {
    let (_, prose) = blocks(page, "");
    let lines = prose.lines().filter(|line| !line.starts_with("    "));
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned))
        .collect()
}

/// Anchor of a heading. Source: GitHub's own pages, which leave out all but letters, digits, blanks, dashes
/// and underscores.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_to_existing_pages_and_headings() {
    let mut links = 0;
    for page in pages() {
        let (_, prose) = blocks(&text(&page), "");
        for link in prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(link, _)| link)
        {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let there = if file.is_empty() {
                page.clone()
            } else {
                page.parent().expect("a folder").join(file)
            };
            assert!(
                root().join(&there).exists(),
                "{} links to {link}, which does not exist",
                page.display()
            );
            if !heading.is_empty() {
                let headings: Vec<_> = text(&there)
                    .lines()
                    .filter(|l| l.starts_with('#'))
                    .map(|l| anchor(l.trim_start_matches('#')))
                    .collect();
                assert!(
                    headings.iter().any(|h| h == heading),
                    "{}: no heading for {link}: {headings:?}",
                    page.display()
                );
            }
            links += 1;
        }
    }
    assert!(links > 50, "only {links} links were seen");
}

/// A folder with a README.md lists its pages there, any other folder in docs/README.md.
#[test]
fn every_page_is_in_the_list() {
    for page in files("docs", ".md") {
        let own = page.with_file_name("README.md");
        let index = if page != own && root().join(&own).exists() {
            own
        } else {
            PathBuf::from("docs/README.md")
        };
        let folder = index.parent().expect("a folder");
        let name = page.strip_prefix(folder).expect("the page is in the folder");
        assert!(
            page == index || text(&index).contains(&format!("({})", name.display())),
            "{} does not list {}",
            index.display(),
            name.display()
        );
    }
}

#[test]
fn walkthroughs_quote_the_examples() {
    let examples: Vec<_> = files("examples", ".yaml").iter().map(|file| text(file)).collect();
    for page in files("docs/walkthroughs", ".md") {
        let (quoted, _) = blocks(&text(&page), "yaml");
        assert!(!quoted.is_empty(), "{} shows no manifest", page.display());
        for block in quoted {
            assert!(
                examples.iter().any(|example| example.contains(&block)),
                "{}: no file of examples/ has this:\n{block}",
                page.display()
            );
        }
    }
}

/// Ids of APIs may have digits only: YAML reads such an id without quotes as a number, and the API server
/// refuses it.
#[test]
fn examples_quote_the_ids_of_apis() {
    for file in files("examples", ".yaml") {
        let example = text(&file);
        let fields = example
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains("a1b2c3d4e5"));
        let bare: Vec<_> = fields.filter(|line| !line.contains("\"a1b2c3d4e5\"")).collect();
        assert_eq!(bare, Vec::<&str>::new(), "{}", file.display());
    }
}

/// Checks that `all` contains `part`. The error names the difference.
fn contains(all: &Value, part: &Value) -> Result<(), String> {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => part.iter().try_for_each(|(key, value)| {
            let there = all.get(key).ok_or_else(|| format!("there is no field {key}"))?;
            contains(there, value).map_err(|error| format!("{key}: {error}"))
        }),
        (Value::Array(all), Value::Array(part)) => all.iter().zip(part).try_for_each(|(a, p)| contains(a, p)),
        _ => Ok(()),
    }
}

/// Reads the object as the operator does. The error names a field that the type does not have.
fn read<K: Resource<DynamicType = ()> + serde::Serialize + serde::de::DeserializeOwned>(
    object: &Value,
) -> Result<(), String> {
    let read: K = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    contains(
        &serde_json::to_value(read).expect("plain data")["spec"],
        &object["spec"],
    )
}

#[test]
fn manifests_on_every_page_are_understood() {
    let mut seen = 0;
    for page in pages() {
        for block in blocks(&text(&page), "yaml").0 {
            // Extracts are not whole objects.
            let Ok(objects) = serde_saphyr::from_multiple::<Value>(&block) else {
                continue;
            };
            for object in objects {
                let result = match object["kind"].as_str() {
                    Some("MtlsDomain") => read::<MtlsDomain>(&object),
                    Some("ClientCertificate") => read::<ClientCertificate>(&object),
                    Some("ClientGrant") => read::<ClientGrant>(&object),
                    _ => continue,
                };
                seen += 1;
                assert_eq!(result, Ok(()), "{}: {block}", page.display());
            }
        }
    }
    assert!(seen >= 5, "only {seen} objects were seen");
}

/// Collects the values that fields with a closed list accept.
fn choices(schema: &Value, into: &mut BTreeSet<String>) {
    into.extend(
        schema["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned),
    );
    schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .for_each(|(_, field)| choices(field, into));
    if schema["items"].is_object() {
        choices(&schema["items"], into);
    }
}

/// Verbs that begin the names of AWS's operations. The tests have no list of the operations.
const VERBS: [&str; 8] = [
    "Create", "Delete", "Describe", "Get", "List", "Put", "Request", "Update",
];

#[test]
fn conditions_and_reasons_that_are_named_exist() {
    let mut known: BTreeSet<String> = ["True", "False", "Unknown"].map(str::to_owned).into();
    known.extend(ConditionType::ALL.iter().map(|c| c.as_str().to_owned()));
    known.extend(Reason::ALL.iter().map(|r| r.as_str().to_owned()));
    known.extend(EventReason::all().map(|r| r.as_str().to_owned()));
    for crd in api::definitions() {
        known.insert(crd.spec.names.kind.clone());
        let crd = serde_json::to_value(crd).expect("plain data");
        choices(
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
            &mut known,
        );
    }
    let (mut named, mut unknown) = (0, BTreeSet::new());
    // Decisions name types of the code.
    let pages = files("docs", ".md").into_iter();
    for page in pages.filter(|page| !page.starts_with("docs/adr")) {
        for word in spans(&text(&page)) {
            let is_word = word.starts_with(|c: char| c.is_ascii_uppercase())
                && word.chars().skip(1).any(|c| c.is_ascii_lowercase())
                && word.chars().all(|c| c.is_ascii_alphabetic());
            if is_word && !VERBS.iter().any(|verb| word.starts_with(verb)) {
                unknown.extend((!known.contains(&word)).then(|| format!("{}: {word}", page.display())));
                named += 1;
            }
        }
    }
    assert_eq!(unknown, BTreeSet::new());
    assert!(named > 40, "only {named} words were seen");
}

#[test]
fn flags_that_are_named_exist() {
    let mut help = String::new();
    for arguments in [
        &["--help"][..],
        &["doctor", "--help"],
        &["iam-policy", "--help"],
        &["crds", "--help"],
    ] {
        let program = Command::new(env!("CARGO_BIN_EXE_mtls-operator"))
            .args(arguments)
            .output()
            .expect("the program runs");
        help.push_str(&String::from_utf8_lossy(&program.stdout));
    }
    let known: BTreeSet<_> = help
        .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
        .filter(|w| w.starts_with("--"))
        .collect();
    let mut named = 0;
    for page in pages() {
        for span in spans(&text(&page)) {
            // A page quotes whole commands of other programs.
            let Some(flag) = span
                .split([' ', '='])
                .next()
                .filter(|flag| flag.starts_with("--"))
            else {
                continue;
            };
            assert!(
                known.contains(flag),
                "{}: mtls-operator has no {flag}",
                page.display()
            );
            named += 1;
        }
    }
    assert!(named > 10, "only {named} flags were seen");
}

/// A name of four words or more between backticks is the name of a test, in Rust or in the emulator's Python.
#[test]
fn tests_that_are_named_exist() {
    let mut sources = String::new();
    for folder in ["src", "tests", "sandbox"] {
        for ending in [".rs", ".py"] {
            let all = files(folder, ending);
            all.iter().for_each(|file| sources.push_str(&text(file)));
        }
    }
    let mut named = 0;
    for page in ["CONTRIBUTING.md", "docs/security.md"] {
        for name in spans(&text(Path::new(page))) {
            let is_name = name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_name && name.matches('_').count() >= 3 {
                let exists = ["fn", "def"]
                    .iter()
                    .any(|f| sources.contains(&format!("{f} {name}(")));
                assert!(exists, "{page} names {name}, which is no test");
                named += 1;
            }
        }
    }
    assert!(named > 20, "only {named} tests were named");
}
