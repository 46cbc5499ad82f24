//! An operator's writes, line by line, and the writes that an upgrade may make. Pure functions.
use std::collections::BTreeMap;

use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use sandbox::{api_proxy::Seen, control::Call};
use serde_json::Value;

use crate::stage::{full_name, of_kind};

/// Writes that an upgrade makes: each of `what` to each of `whose`.
#[derive(Debug)]
pub struct Expected {
    /// Kinds of writes, in the form of [`Write::what`].
    pub what: &'static [&'static str],
    /// Objects of the writes, in the form of [`Write::whose`].
    pub whose: &'static [&'static str],
    /// Maximum number of them; none at all is wrong, too.
    pub at_most: usize,
    /// Reason of the write.
    #[allow(dead_code)] // for readers of the table
    pub why: &'static str,
}

/// Write that the test saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Kind of the write: `AWS PutObject`, `Kubernetes PATCH mtlsdomains/status`, `Event WouldBeRefused` or,
    /// of a change without a request that the test saw, `changed MtlsDomain`.
    pub what: String,
    /// Object of the write, `<namespace>/<name>`: of AWS the MtlsDomain that it is for, else the object
    /// itself.
    pub whose: String,
    /// Further details.
    pub shown: String,
}

/// Writes that are not expected, and expected writes that did not come.
pub fn judge(writes: &[Write], expected: &[Expected]) -> Vec<String> {
    let each = expected
        .iter()
        .flat_map(|e| e.what.iter().map(move |what| (e, *what)));
    let each = each.flat_map(|(e, what)| e.whose.iter().map(move |whose| ((what, *whose), e)));
    let expected: BTreeMap<_, _> = each.collect();
    let mut seen: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for Write { what, whose, shown } in writes {
        seen.entry((what.as_str(), whose.as_str()))
            .or_default()
            .push(shown);
    }
    let mut wrong = vec![];
    for ((what, whose), all) in &seen {
        let (times, mut shown) = (all.len(), all.clone());
        shown.retain(|text| !text.is_empty());
        shown.dedup();
        let line = format!("{times} of {what:?} to {whose:?}: {}", shown.join(", "));
        match expected.get(&(*what, *whose)) {
            Some(e) if times <= e.at_most => {}
            Some(e) => wrong.push(format!("more than {} expected: {line}", e.at_most)),
            None => wrong.push(format!("not expected: {line}")),
        }
    }
    let missing = expected.keys().filter(|key| !seen.contains_key(key));
    wrong.extend(
        missing.map(|(what, whose)| format!("did not come, so take it off the list: {what:?} to {whose:?}")),
    );
    wrong
}

/// Write to AWS. `objects` are the recorded ones.
pub fn to_aws(call: &Call, objects: &[Value]) -> Write {
    let Call {
        operation,
        resource,
        detail,
        status,
        code,
        ..
    } = call;
    let said = [&[resource.clone()][..], detail].concat().join(" ");
    let owner =
        of_kind(objects, "MtlsDomain").find(|domain| marks(domain).iter().any(|mark| said.contains(mark)));
    let (what, whose) = (
        format!("AWS {operation}"),
        owner.map(full_name).unwrap_or_default(),
    );
    Write {
        what,
        whose,
        shown: format!("({said}; {} {code})", status.unwrap_or_default()),
    }
}

/// Texts that tell the AWS calls about a domain from those about others.
fn marks(domain: &Value) -> Vec<&str> {
    let text = |pointer: &str| domain.pointer(pointer).and_then(Value::as_str);
    let uri = text("/status/truststore/uri").map(|uri| uri.trim_start_matches("s3://"));
    let mappings = domain
        .pointer("/spec/mappings")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let apis = mappings.filter_map(|mapping| mapping.pointer("/api/id")?.as_str());
    [text("/spec/domainName"), text("/status/certificate/arn"), uri]
        .into_iter()
        .flatten()
        .chain(apis)
        .collect()
}

/// Write to Kubernetes by the operator, but for its Lease and Events.
pub fn to_kubernetes(seen: &Seen) -> Option<Write> {
    let place = seen
        .path
        .split_once("/namespaces/")
        .map_or(seen.path.as_str(), |(_, place)| place);
    let ours = seen.is_write()
        && !["/leases/", "/leases", "/events"]
            .iter()
            .any(|own| seen.path.contains(own));
    let (whose, resource) = match place.split('/').collect::<Vec<_>>()[..] {
        [namespace, plural, name] => (format!("{namespace}/{name}"), plural.to_owned()),
        [namespace, plural, name, sub] => (format!("{namespace}/{name}"), format!("{plural}/{sub}")),
        _ => (String::new(), place.to_owned()),
    };
    ours.then(|| Write {
        what: format!("Kubernetes {} {resource}", seen.method),
        whose,
        shown: String::new(),
    })
}

/// Write of a warning Event.
pub fn of_event(event: &Event) -> Option<Write> {
    let about = event.regarding.clone().unwrap_or_default();
    let whose = format!(
        "{}/{}",
        event.namespace().unwrap_or_default(),
        about.name.unwrap_or_default()
    );
    let what = format!("Event {}", event.reason.clone().unwrap_or_default());
    let shown = format!("({})", event.note.clone().unwrap_or_default());
    (event.type_.as_deref() == Some("Warning")).then_some(Write { what, whose, shown })
}

/// Changes of the objects, each with the request that made it, when the test saw one.
pub fn of_objects(before: &[Value], after: &[Value], mut requests: Vec<Write>) -> Vec<Write> {
    let keyed = |objects: &[Value]| -> BTreeMap<(String, String), Value> {
        objects
            .iter()
            .map(|o| {
                (
                    (o["kind"].as_str().unwrap_or_default().to_owned(), full_name(o)),
                    o.clone(),
                )
            })
            .collect()
    };
    let (before, after) = (keyed(before), keyed(after));
    let mut all: Vec<_> = before.keys().chain(after.keys()).collect();
    all.sort();
    all.dedup();
    for key @ (kind, whose) in all {
        let shown = match (before.get(key), after.get(key)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(old), Some(new)) => differences("", old, new).join("; "),
            (None, _) => "is new".to_owned(),
            (_, None) => "is gone".to_owned(),
        };
        let plural = format!(" {}s", kind.to_lowercase());
        let mut by: Vec<_> = requests
            .iter_mut()
            .filter(|w| w.whose == *whose && w.what.contains(&plural))
            .collect();
        match by.first_mut() {
            Some(request) => request.shown = format!("({shown})"),
            None => requests.push(Write {
                what: format!("changed {kind}"),
                whose: whose.clone(),
                shown: format!("({shown})"),
            }),
        }
    }
    requests
}

/// Places at which two values differ, but for fields that change with every write; without the content of
/// Secrets.
fn differences(at: &str, old: &Value, new: &Value) -> Vec<String> {
    const WITH_EVERY_WRITE: [&str; 2] = ["/metadata/resourceVersion", "/metadata/managedFields"];
    if old == new || WITH_EVERY_WRITE.contains(&at) {
        return vec![];
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<_> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            let each =
                |key: &&String| differences(&format!("{at}/{key}"), &old[key.as_str()], &new[key.as_str()]);
            keys.iter().flat_map(each).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => (0..a.len())
            .flat_map(|n| differences(&format!("{at}/{n}"), &a[n], &b[n]))
            .collect(),
        _ if at.starts_with("/data/") => vec![format!("{at} is another")],
        _ => vec![format!("{at}: {old} is now {new}")],
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;

    fn write(what: &str, whose: &str) -> Write {
        Write {
            what: what.into(),
            whose: whose.into(),
            shown: "(x)".into(),
        }
    }

    #[test]
    fn only_what_is_expected_may_come_as_often_as_it_may_and_it_has_to() {
        let puts = |whose, at_most| Expected {
            what: &["AWS PutObject"],
            whose,
            at_most,
            why: "a test",
        };
        let twice = [write("AWS PutObject", "a/b"), write("AWS PutObject", "a/b")];
        assert_eq!(judge(&[], &[]), [""; 0]);
        assert_eq!(judge(&twice, &[puts(&["a/b"], 2)]), [""; 0]);
        assert_eq!(judge(&twice[..1], &[puts(&["a/b"], 2)]), [""; 0]);
        let line = |times| format!(r#"expected: {times} of "AWS PutObject" to "a/b": (x)"#);
        assert_eq!(
            judge(&twice, &[puts(&["a/b"], 1)]),
            [format!("more than 1 {}", line(2))]
        );
        let missing = r#"did not come, so take it off the list: "AWS PutObject" to "a/c""#;
        assert_eq!(
            judge(&twice[..1], &[puts(&["a/c"], 1)]),
            [format!("not {}", line(1)), missing.to_owned()]
        );
        assert_eq!(judge(&twice[..1], &[puts(&["a/b", "a/c"], 1)]), [missing]);
    }

    #[test]
    fn requests_are_told_by_their_paths() {
        let seen = |method, path: &str| {
            to_kubernetes(&Seen {
                method,
                path: path.into(),
                watch: false,
            })
        };
        let status = "/apis/mtls-operator.io/v1alpha1/namespaces/a/mtlsdomains/b/status";
        let written = seen(Method::PATCH, status).expect("a write");
        assert_eq!(
            (written.what.as_str(), written.whose.as_str()),
            ("Kubernetes PATCH mtlsdomains/status", "a/b")
        );
        let written = seen(Method::DELETE, "/api/v1/namespaces/a/secrets/b").expect("a write");
        assert_eq!(
            (written.what.as_str(), written.whose.as_str()),
            ("Kubernetes DELETE secrets", "a/b")
        );
        let written = seen(Method::POST, "/api/v1/namespaces/a/secrets").expect("a write");
        assert_eq!(
            (written.what.as_str(), written.whose.as_str()),
            ("Kubernetes POST a/secrets", "")
        );
        assert_eq!(seen(Method::GET, status), None);
        for own in [
            "/apis/coordination.k8s.io/v1/namespaces/a/leases/b",
            "/apis/events.k8s.io/v1/namespaces/a/events",
        ] {
            assert_eq!(seen(Method::PATCH, own), None, "{own}");
        }
    }

    #[test]
    fn a_change_is_shown_with_its_request_or_by_itself() {
        let object = |version: &str, ready: &str| {
            json!({
                "kind": "MtlsDomain",
                "metadata": {"namespace": "a", "name": "b", "resourceVersion": version},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            })
        };
        let (before, after) = ([object("1", "True")], [object("2", "False")]);
        assert_eq!(of_objects(&before, &before, vec![]), []);
        let shown = r#"(/status/conditions/0/status: "True" is now "False")"#.to_owned();
        let request = write("Kubernetes PATCH mtlsdomains/status", "a/b");
        let with = of_objects(&before, &after, vec![request.clone()]);
        assert_eq!(
            with,
            [Write {
                shown: shown.clone(),
                ..request
            }]
        );
        let alone = Write {
            shown,
            ..write("changed MtlsDomain", "a/b")
        };
        assert_eq!(of_objects(&before, &after, vec![]), [alone]);
        assert_eq!(of_objects(&before, &[], vec![])[0].shown, "(is gone)");
        let secret = |key: &str| {
            json!({
                "kind": "Secret", "metadata": {"namespace": "a", "name": "s"}, "data": {"tls.key": key},
            })
        };
        assert_eq!(
            of_objects(&[secret("old")], &[secret("new")], vec![])[0].shown,
            "(/data/tls.key is another)"
        );
    }

    #[test]
    fn a_call_is_its_domains() {
        let domain = json!({"kind": "MtlsDomain", "metadata": {"namespace": "a", "name": "b"},
            "spec": {
                "domainName": "a.example.com",
                "mappings": [{"path": "", "api": {"id": "api1", "stage": "$default"}}],
            },
            "status": {"truststore": {"uri": "s3://bucket/c/a/b.pem"}, "certificate": {"arn": "arn:x"}}});
        let call = |resource: &str, detail: &[&str]| {
            let call = json!({
                "n": 1, "time": 0.0, "account": "1", "region": "r", "service": "s", "operation": "Do",
                "resource": resource, "detail": detail, "write": true, "status": 200, "code": "", "fault": "",
                "bucket_owner": "", "external_id": "", "duration_ms": 1.0,
            });
            to_aws(
                &serde_json::from_value(call).unwrap(),
                std::slice::from_ref(&domain),
            )
            .whose
        };
        for resource in ["bucket/c/a/b.pem", "a.example.com/m1", "arn:x", "api1"] {
            assert_eq!(call(resource, &[]), "a/b", "{resource}");
        }
        assert_eq!(call("Z1", &["UPSERT A a.example.com."]), "a/b");
        assert_eq!(call("else", &[]), "");
    }
}
