//! Formats of `/metrics`: OpenMetrics, or the classic text format of Prometheus, as the request prefers; and
//! gzip.

use std::{
    fmt,
    io::{self, Write as _},
};

use axum::http::{HeaderMap, HeaderName, header};
use flate2::{Compression, write::GzEncoder};
use prometheus_client::{encoding::text::encode, registry::Registry};

/// Exposition format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    Text,
}

impl Format {
    /// Returns the format that the header Accept prefers, the classic one without a preference.
    pub fn accepted(headers: &HeaderMap) -> Format {
        let mut best = (0.0, Format::Text);
        for (kind, parameters, quality) in offers(headers, header::ACCEPT) {
            let version = parameters
                .iter()
                .find_map(|p| p.strip_prefix("version="))
                .map(|v| v.trim_matches('"'));
            let format = match (kind.as_str(), version) {
                ("application/openmetrics-text", None | Some("0.0.1" | "1.0.0")) => Format::OpenMetrics,
                ("text/plain" | "text/*" | "*/*", None | Some("0.0.4" | "1.0.0")) => Format::Text,
                _ => continue,
            };
            // Of equal preferences the first wins.
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    pub fn write(self, registry: &Registry) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, registry)?;
        Ok(match self {
            Format::OpenMetrics => text,
            Format::Text => classic(&text),
        })
    }
}

/// True when the header Accept-Encoding accepts gzip.
pub fn gzip_accepted(headers: &HeaderMap) -> bool {
    let offers: Vec<_> = offers(headers, header::ACCEPT_ENCODING).collect();
    let quality = |name: &str| {
        offers
            .iter()
            .find(|(coding, ..)| coding == name)
            .map(|(.., quality)| *quality)
    };
    quality("gzip")
        .or_else(|| quality("*"))
        .is_some_and(|quality| quality > 0.0)
}

pub fn gzip(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

/// Returns the values of a header with accepted formats, in their order: each with its parameters and its
/// quality.
fn offers(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = (String, Vec<String>, f32)> {
    let lines = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let each: Vec<_> = lines
        .flat_map(|line| line.split(','))
        .map(str::to_ascii_lowercase)
        .collect();
    each.into_iter().map(|offer| {
        let mut parts = offer.split(';').map(|part| part.trim().to_owned());
        let value = parts.next().unwrap_or_default();
        let (quality, parameters): (Vec<_>, Vec<_>) = parts.partition(|part| part.starts_with("q="));
        let quality = quality
            .first()
            .map_or(1.0, |q| q["q=".len()..].trim().parse().unwrap_or(0.0));
        (value, parameters, quality)
    })
}

/// Converts OpenMetrics to the classic format: there the family of a counter has the name of its series,
/// including `_total`, an info is a gauge, and there are neither units nor an end marker.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ');
        } else if let Some((name, type_)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, type_) = match type_ {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, said)) = help.take() {
                // Only the classic format leaves a quotation mark unescaped.
                let said = said.replace("\\\"", "\"");
                text.extend(["# HELP ", name, suffix, " ", &said, "\n"]);
            }
            text.extend(["# TYPE ", name, suffix, " ", type_, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::{collections::BTreeSet, io::Read, time::Duration};

    use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
    use flate2::read::GzDecoder;

    use crate::telemetry::metrics::{Controller, Metrics};

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_format_is_the_one_that_is_preferred() {
        // Header that Prometheus 3 sends.
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                      application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                      text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.9, text/plain",
                Format::Text,
            ),
            (
                "text/plain;version=0.0.4;q=0.5, application/openmetrics-text;version=0.0.1;q=0.75",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;q=0, */*;q=0.1", Format::Text),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.7, \
             text/plain;q=0.3",
                Format::Text,
            ),
            ("*/*", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("application/json", Format::Text),
        ] {
            assert_eq!(
                Format::accepted(&headers(header::ACCEPT, accept)),
                format,
                "{accept}"
            );
        }
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn gzip_is_used_only_when_accepted() {
        for (accept, taken) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("br, *", true),
            ("gzip;q=0, *", false),
            ("identity", false),
            ("br", false),
        ] {
            assert_eq!(
                gzip_accepted(&headers(header::ACCEPT_ENCODING, accept)),
                taken,
                "{accept}"
            );
        }
        assert!(!gzip_accepted(&HeaderMap::new()));
        let (text, mut read) = ("a 1\n".repeat(1000), String::new());
        let packed = gzip(&text).unwrap();
        GzDecoder::new(&packed[..]).read_to_string(&mut read).unwrap();
        assert!(read == text && packed.len() < 200);
    }

    #[test]
    fn the_classic_format_names_families_as_their_series() {
        let open_metrics = "# HELP calls Calls of \\\"a\\\".\n# TYPE calls counter\ncalls_total{a=\"b\"} 1\n\
                        # HELP build The version.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
                        # HELP took_seconds Time.\n# TYPE took_seconds histogram\n# UNIT took_seconds \
                        seconds\n\
                        took_seconds_count 0\n# HELP x X.\n# TYPE x unknown\nx 0\n# EOF\n";
        let expected = "# HELP calls_total Calls of \"a\".\n# TYPE calls_total counter\ncalls_total{a=\"b\"} \
                    1\n\
                    # HELP build_info The version.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} \
                    1\n\
                    # HELP took_seconds Time.\n# TYPE took_seconds histogram\ntook_seconds_count 0\n\
                    # HELP x X.\n# TYPE x untyped\nx 0\n";
        assert_eq!(classic(open_metrics), expected);
    }

    /// Checks the rules of `promtool check metrics`, on all metrics that are always present.
    #[test]
    fn the_classic_format_keeps_its_rules() {
        let (metrics, registry) = Metrics::new();
        metrics.reconciled(Controller::Domain, None, Duration::from_millis(30));
        let text = Format::Text.write(&registry).unwrap();
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
        let (mut family, mut helped) = (("", ""), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, said) = rest.split_once(' ').expect("a help text");
                assert!(!said.is_empty() && helped.insert(name), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split_once(' ').expect("a type");
                let (name, type_) = family;
                assert!(helped.contains(name), "{line}: no help");
                assert_eq!(name.ends_with("_total"), type_ == "counter", "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&type_), "{line}");
                assert!(
                    name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                    "{line}: snake_case"
                );
                let units = ["milliseconds", "ms", "minutes", "kilobytes", "percent"];
                assert!(
                    !name.split('_').any(|part| units.contains(&part)),
                    "{line}: not a base unit"
                );
            } else {
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                let of_family = match family {
                    (own, "histogram") => name
                        .strip_prefix(own)
                        .is_some_and(|s| ["_bucket", "_sum", "_count"].contains(&s)),
                    (own, _) => name == own,
                };
                assert!(of_family, "{line} belongs to no {family:?}");
            }
        }
        assert!(
            helped.contains("controller_runtime_reconcile_total")
                && helped.contains("process_cpu_seconds_total")
        );
    }
}
