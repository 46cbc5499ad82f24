//! Links between the files of the repository: every Markdown page, the pages' pictures, addresses of this
//! repository on the web, and the two lists of the documentation. No network is used.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
    process::Command,
};

/// Addresses under which the web shows this repository's files.
const OWN: &[&str] = &[
    "https://github.com/mtls-operator/mtls-operator/blob/main/",
    "https://github.com/mtls-operator/mtls-operator/tree/main/",
    "https://raw.githubusercontent.com/mtls-operator/mtls-operator/main/",
];

/// Files besides Markdown that name pages by their address.
const OTHERS: &[&str] = &[
    "charts/mtls-operator/Chart.yaml",
    "charts/mtls-operator/files/alerts.yaml",
    "charts/mtls-operator/files/dashboard.json",
    "charts/mtls-operator/templates/NOTES.txt",
    "charts/mtls-operator/values.yaml",
    ".github/ISSUE_TEMPLATE/bug.yml",
    ".github/ISSUE_TEMPLATE/config.yml",
    ".ci/install-yaml",
    "Dockerfile",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of the repository, with `/` between folders.
fn files() -> BTreeSet<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    let listed = String::from_utf8(listed.stdout).expect("paths in UTF-8");
    let there = listed
        .split('\0')
        .filter(|path| !path.is_empty() && root().join(path).exists());
    there.map(str::to_owned).collect()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("the file can be read")
}

/// The page without its blocks of code and without code in lines, in which brackets are no links.
fn prose(page: &str) -> String {
    let mut fenced = None;
    let mut kept = String::new();
    for line in page.lines() {
        let start = line.trim_start();
        let fence: String = start.chars().take_while(|c| *c == '`' || *c == '~').collect();
        match &fenced {
            None if fence.len() >= 3 => fenced = Some(fence),
            Some(open) if fence.starts_with(open.as_str()) => fenced = None,
            None => {
                let parts = line.split('`').enumerate();
                kept.extend(parts.map(|(n, part)| if n % 2 == 0 { part } else { "code" }));
                kept.push('\n');
            }
            Some(_) => {}
        }
    }
    kept
}

/// Anchors of the page's headings, as GitHub makes them: lower case, only letters, digits, dashes and
/// underscores; a second heading of the same text gets `-1`.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let mut fenced = false;
    let mut all = BTreeSet::new();
    for line in page.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced || !line.starts_with('#') {
            continue;
        }
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let count = seen.entry(anchor.clone()).or_insert(0);
        all.insert(if *count == 0 {
            anchor
        } else {
            format!("{anchor}-{count}")
        });
        *count += 1;
    }
    all
}

/// Targets of the page's links: `](target)`, `[name]: target`, and `src`, `srcset` and `href` of HTML.
fn targets(page: &str) -> Vec<String> {
    let prose = prose(page);
    let until = |rest: &str, ends: &[char]| rest.split(ends).next().unwrap_or_default().to_owned();
    let mut all: Vec<_> = prose
        .split("](")
        .skip(1)
        .map(|rest| until(rest, &[')', ' ']))
        .collect();
    for line in prose.lines().filter(|line| line.starts_with('[')) {
        all.extend(line.split_once("]: ").map(|(_, target)| target.trim().to_owned()));
    }
    for attribute in ["src=\"", "srcset=\"", "href=\""] {
        all.extend(prose.split(attribute).skip(1).map(|rest| until(rest, &['"'])));
    }
    all
}

/// The path that a link names from this page, without `.` and `..`. None when it leaves the repository.
fn resolve(page: &str, link: &str) -> Option<String> {
    let mut path = PathBuf::new();
    let folder = Path::new(page).parent().expect("a file is in a folder");
    for part in folder.join(link).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path.to_string_lossy().replace('\\', "/"))
}

/// Returns what is wrong with a link, if anything is.
fn fault(files: &BTreeSet<String>, page: &str, link: &str) -> Option<String> {
    let own = OWN.iter().find_map(|address| link.strip_prefix(address));
    if own.is_none() && (link.contains("://") || link.starts_with("mailto:")) {
        return None;
    }
    let (from, link) = own.map_or((page, link), |path| ("README.md", path));
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        page.to_owned()
    } else {
        resolve(from, path.trim_end_matches('/'))?
    };
    let folder = format!("{target}/");
    let is_folder = target.is_empty() || files.iter().any(|file| file.starts_with(&folder));
    if !files.contains(&target) && !is_folder {
        return Some(format!("{page}: {link} does not exist"));
    }
    let is_missing = !heading.is_empty() && (is_folder || !anchors(&text(&target)).contains(heading));
    is_missing.then(|| format!("{page}: {link} names no heading"))
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let files = files();
    let (mut faults, mut count) = (vec![], 0);
    for page in files.iter().filter(|path| path.ends_with(".md")) {
        for link in targets(&text(page)) {
            count += 1;
            faults.extend(fault(&files, page, &link));
        }
    }
    for page in OTHERS {
        let text = text(page);
        for address in OWN {
            for rest in text.split(address).skip(1) {
                let end = rest.find(|c: char| c.is_whitespace() || ")>\"'`".contains(c));
                let path = &rest[..end.unwrap_or(rest.len())];
                count += 1;
                faults.extend(fault(&files, page, &format!("{address}{path}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 200, "only {count} links were seen");
}

/// docs/README.md lists the pages for readers, docs/SUMMARY.md for mdBook, which leaves out every other page.
#[test]
fn both_lists_have_every_page() {
    let pages: BTreeSet<_> = files()
        .into_iter()
        .filter(|path| path.starts_with("docs/") && path.ends_with(".md") && path != "docs/SUMMARY.md")
        .collect();
    let listed = |list: &str| -> BTreeSet<String> {
        let links = targets(&text(list));
        let paths = links
            .iter()
            .map(|link| link.split('#').next().unwrap_or_default());
        paths.filter_map(|path| resolve(list, path)).collect()
    };
    let book = listed("docs/SUMMARY.md");
    assert_eq!(
        pages.difference(&book).collect::<Vec<_>>(),
        [""; 0],
        "docs/SUMMARY.md"
    );
    let mut readers = listed("docs/README.md");
    readers.extend(listed("docs/adr/README.md"));
    readers.insert("docs/README.md".into());
    assert_eq!(
        pages.difference(&readers).collect::<Vec<_>>(),
        [""; 0],
        "docs/README.md"
    );
}

/// The README is read in ten minutes.
#[test]
fn the_readme_is_short() {
    let lines = text("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines");
}

#[test]
fn the_check_tells_links_apart() {
    let page = "[a](b.md#c) ![d](e.svg) `[f](g.md)`\n```\n[h](i.md)\n```\n[j]: k.md\n<img src=\"l.svg\">\n";
    assert_eq!(targets(page), ["b.md#c", "e.svg", "k.md", "l.svg"]);
    assert_eq!(
        anchors("# A b: c\n```\n# no\n```\n## `x` y\n## `x` y\n"),
        ["a-b-c", "x-y", "x-y-1"].map(str::to_owned).into()
    );
    assert_eq!(
        resolve("docs/adr/x.md", "../../README.md").as_deref(),
        Some("README.md")
    );
    assert_eq!(resolve("README.md", "../other/x.md"), None);
    let files: BTreeSet<_> = ["README.md", "docs/README.md"].map(str::to_owned).into();
    let wrong = |link: &str| fault(&files, "docs/README.md", link).is_some();
    assert!(wrong("missing.md") && wrong("../missing.md") && wrong(&format!("{}missing.md", OWN[0])));
    assert!(!wrong("../README.md") && !wrong("https://example.com/missing") && !wrong(".."));
}
