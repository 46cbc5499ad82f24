//! Tests that docs/reference.md, docs/metrics.md, docs/events.md and docs/conditions.md are complete.
//! `WRITE_DOCS=1 cargo test --lib docs` writes the lists again.

use std::{collections::BTreeMap, fmt::Write, path::Path, time::Duration};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use prometheus_client::encoding::text::encode;
use serde_json::Value;

use super::{
    cache_metrics,
    metrics::{Controller, Metrics, PREFIX, Stage},
    object_metrics,
};

use crate::{
    api::{
        self,
        conditions::{ConditionType, Reason},
        events::EventReason,
    },
    aws::call_guard::Calls,
    controllers::mtls_domain::report,
    grants::evaluation::DEFAULT_SHARE,
    issuance::{desired::MAX_TEMPLATE_BYTES, pace},
    pki::{
        chain, csr, inspect, leaf, lint,
        pem_error::{MAX_SOURCE_BYTES, MAX_SOURCE_CERTIFICATES},
    },
    status::{ConditionStatus, conditions::set, text},
};

const BEGIN: &str = "<!-- Generated: WRITE_DOCS=1 cargo test --lib docs -->\n";
const END: &str = "<!-- End of what is generated. -->\n";

/// Compares the text between the two markers of a file.
fn assert_lists(file: &str, list: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("the mark at the beginning of the list");
    let (now, after) = rest.split_once(END).expect("the mark at its end");
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{list}{END}{after}")).unwrap();
    } else {
        assert!(
            now == list,
            "docs/{file} is stale: WRITE_DOCS=1 cargo test --lib docs"
        );
    }
}

#[test]
fn every_reason_of_an_event_is_listed() {
    let mut list = String::from("\n| reason | type | when |\n|---|---|---|\n");
    for reason in EventReason::all() {
        let type_ = if reason.is_warning() { "Warning" } else { "Normal" };
        writeln!(list, "| `{}` | {type_} | {} |", reason.as_str(), reason.when()).unwrap();
    }
    list.push('\n');
    assert_lists("events.md", &list);
}

#[test]
fn every_condition_and_reason_is_listed() {
    let mut list = String::from("\n| type | |\n|---|---|\n");
    for type_ in ConditionType::ALL {
        writeln!(list, "| `{type_}` | {} |", type_.meaning()).unwrap();
    }
    list.push_str("\n| reason | |\n|---|---|\n");
    for reason in Reason::ALL {
        writeln!(list, "| `{reason}` | {} |", reason.meaning()).unwrap();
    }
    list.push('\n');
    assert_lists("conditions.md", &list);
}

/// Lists the fields of a schema, each with its type and its doc comment.
fn fields(schema: &Value, path: &str, list: &mut String) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let items = field.get("items");
        let path = format!("{path}.{name}{}", if items.is_some() { "[]" } else { "" });
        let of = items.unwrap_or(field);
        let mut type_ = of["type"].as_str().unwrap_or("object").to_owned();
        if let Some(words) = of["enum"].as_array() {
            type_ = words
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" \\| ");
        }
        if let Some(default) = field.get("default").filter(|default| !default.is_object()) {
            write!(type_, ", default `{}`", default.to_string().trim_matches('"')).unwrap();
        }
        let said = field["description"]
            .as_str()
            .unwrap_or_default()
            .replace('|', "\\|")
            .replace('\n', " ");
        writeln!(list, "| `{}` | {type_} | {said} |", path.trim_start_matches('.')).unwrap();
        // Kubernetes' own fields, the same everywhere.
        if !path.ends_with(".conditions[]") {
            fields(of, &path, list);
        }
    }
}

#[test]
fn every_field_is_listed() {
    let mut list = String::new();
    for crd in api::definitions() {
        let (kind, crd) = (crd.spec.names.kind.clone(), serde_json::to_value(crd).unwrap());
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        writeln!(list, "\n## {kind}\n").unwrap();
        for part in ["spec", "status"] {
            writeln!(list, "| {part} | type | |\n|---|---|---|").unwrap();
            fields(&schema[part], "", &mut list);
            list.push('\n');
        }
    }
    assert_lists("reference.md", &list);
}

/// The table of docs/reference.md that is not generated has each limit of the code, and no other.
#[test]
fn every_limit_is_listed() {
    let least = inspect::least_interval(SignedDuration::ZERO).as_mins();
    let least_minutes = usize::try_from(least).unwrap();
    let limits = [
        ("source of certificates (", MAX_SOURCE_BYTES, " bytes"),
        ("certificates of a source", MAX_SOURCE_CERTIFICATES, ""),
        ("truststore |", lint::MAX_BYTES, " bytes"),
        ("certificates of a truststore", lint::MAX_CERTIFICATES, ""),
        (
            "self-signed certificates of one ClientGrant in a truststore",
            DEFAULT_SHARE,
            " bytes",
        ),
        ("certificates of a chain", chain::MAX_CHAIN, ""),
        ("keys of one name", chain::MAX_CANDIDATES, ""),
        ("`csr`", csr::MAX_REQUEST, " bytes"),
        (
            "`dnsNames`, `uris` and `emailAddresses` together",
            leaf::MAX_NAMES_BYTES,
            " bytes",
        ),
        ("`dnsNames`, `uris` or `emailAddresses`", csr::MAX_NAMES, ""),
        ("values of one kind in a `subject`", csr::MAX_PARTS, ""),
        ("`secretTemplate`", MAX_TEMPLATE_BYTES, " bytes"),
        ("minutes between two renewals", least_minutes, " at least"),
        (
            "certificates of a ClientCertificate that the renew annotation",
            pace::record::MOST_ASKED,
            "",
        ),
        (
            "superseded certificates of a ClientCertificate",
            pace::record::MOST_SUPERSEDED,
            "",
        ),
        ("the same, after the loss", pace::record::MOST_AFTER_LOSS, ""),
        ("message of a condition", text::MAX_MESSAGE, " bytes"),
        ("subject or name in a status", text::MAX_TEXT, " bytes"),
        ("`status.truststore.warnings`", report::MOST_WARNINGS, ""),
    ];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, section) = page.split_once("\n## Limits\n").expect("the section");
    let rows: Vec<_> = section
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .collect();
    assert_eq!(rows.len(), limits.len(), "{rows:#?}");
    for (row, (what, limit, unit)) in rows.iter().zip(limits) {
        let is_it = row.starts_with(&format!("| {what}")) && row.contains(&format!(" | {limit}{unit} | "));
        assert!(is_it, "{row} is not the limit of {what}: {limit}{unit}");
    }
}

/// Returns all metrics that `/metrics` can show, with a series of each.
fn everything() -> String {
    let (metrics, mut registry) = Metrics::new();
    metrics.reconciled(Controller::Domain, Some("TooLong"), Duration::ZERO);
    metrics.stage(Controller::Domain, Stage::Observe, Duration::ZERO);
    let (now, mut conditions) = (jiff::Timestamp::now(), vec![]);
    set(
        &mut conditions,
        1,
        ConditionType::Ready,
        ConditionStatus::Unknown,
        Reason::Progressing,
        "",
        now,
    );
    let old = conditions.clone();
    set(
        &mut conditions,
        1,
        ConditionType::Ready,
        ConditionStatus::True,
        Reason::Ready,
        "",
        now,
    );
    metrics.transitioned(Controller::Domain, &Pod::default(), &old, &conditions, &mut true);
    let own = registry.sub_registry_with_prefix(PREFIX);
    let calls = Calls::new();
    calls.count("acm", "RequestCertificate", &Ok(()), Duration::ZERO);
    calls.register(own);
    own.register_collector(Box::new(object_metrics::tests::one_of_each()));
    own.register_collector(Box::new(cache_metrics::tests::one()));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

#[tokio::test]
async fn every_metric_is_listed() {
    let text = everything();
    let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        let set = rest.split_once('}').map_or("", |(set, _)| set);
        let known = labels.entry(name).or_default();
        for label in set.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0)) {
            if label != "le" && !known.contains(&label) {
                known.push(label);
            }
        }
    }
    let mut list = String::from("\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    let mut types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for help in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, meaning) = help.split_once(' ').unwrap();
        let type_ = types.next().unwrap().rsplit_once(' ').unwrap().1;
        let shown = format!(
            "{name}{}",
            match type_ {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            }
        );
        let sample = if type_ == "histogram" {
            format!("{shown}_count")
        } else {
            shown.clone()
        };
        let labels = labels
            .get(sample.as_str())
            .unwrap_or_else(|| panic!("no series of {sample} in\n{text}"));
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(
            list,
            "| `{shown}` | {type_} | {} | {} |",
            labels.join(", "),
            meaning.trim_end_matches('.')
        )
        .unwrap();
    }
    list.push('\n');
    assert_lists("metrics.md", &list);
}
