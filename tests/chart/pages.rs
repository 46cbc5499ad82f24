//! Pages of the repository that the chart names, by their address on the web.
use std::fs;

use crate::helm::here;

const PAGES: [&str; 2] = [
    "https://github.com/mtls-operator/mtls-operator/blob/main/",
    "https://raw.githubusercontent.com/mtls-operator/mtls-operator/main/",
];

/// Anchor of a heading. Source: GitHub's own pages, which leave out all but letters, digits, blanks, dashes
/// and underscores.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Every page that a text of the chart names exists, with the heading.
#[test]
fn pages_that_the_chart_names_exist() {
    let mut seen = 0;
    for file in [
        "Chart.yaml",
        "README.md",
        "templates/NOTES.txt",
        "files/alerts.yaml",
        "files/dashboard.json",
        "values.yaml",
    ] {
        let text = fs::read_to_string(here("charts/mtls-operator").join(file)).expect("the file can be read");
        for link in PAGES.iter().flat_map(|page| text.split(page).skip(1)) {
            let end = link
                .find(|c: char| c.is_whitespace() || ")>\"'".contains(c))
                .unwrap_or(link.len());
            let (path, heading) = link[..end].split_once('#').unwrap_or((&link[..end], ""));
            let page = here(path);
            assert!(page.exists(), "{file} names {path}, which does not exist");
            if !heading.is_empty() {
                let page = fs::read_to_string(page).expect("the file can be read");
                let mut headings = page.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
                assert!(found, "{file}: {path} has no heading {heading}");
            }
            seen += 1;
        }
    }
    assert!(seen > 3, "only {seen} links were seen");
}
