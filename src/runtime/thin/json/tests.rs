//! Tests of `json`.

use super::*;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

const PREFIX: &str = "mtls-operator.io/";

/// Thins `text` in the given pieces.
fn thin(annotations: Option<&'static str>, text: &[u8], ends: &[usize]) -> Result<Vec<u8>, NotJson> {
    let mut thinner = Thinner::new(annotations);
    let (mut out, mut begin) = (Vec::new(), 0);
    let mut ends: Vec<_> = ends.iter().map(|end| end % (text.len() + 1)).collect();
    ends.push(text.len());
    ends.sort_unstable();
    for end in ends {
        thinner.thin(&text[begin..end], &mut out)?;
        begin = end;
    }
    Ok(out)
}

/// The same on a parsed answer: what the module promises.
fn without(annotations: Option<&str>, mut answer: Value) -> Value {
    for (name, member) in answer.as_object_mut().into_iter().flatten() {
        match (name.as_str(), member) {
            ("object", object) => drop_members(annotations, object),
            ("items", Value::Array(items)) => items
                .iter_mut()
                .for_each(|object| drop_members(annotations, object)),
            _ => {}
        }
    }
    answer
}

fn drop_members(annotations: Option<&str>, object: &mut Value) {
    let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    for name in ["managedFields", "ownerReferences", "generateName", "selfLink"] {
        meta.remove(name);
    }
    let Some(prefix) = annotations else {
        meta.remove("annotations");
        meta.remove("finalizers");
        return;
    };
    meta.remove("labels");
    if let Some(all) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
        all.retain(|name, _| name.starts_with(prefix));
    }
}

fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z]{0,4}",
        Just("\"}]\\".to_owned()),
        Just("\\\\\"".to_owned()),
        Just("é\u{7}\n{[".to_owned()),
        any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(-1.5e300)),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            members(inner).prop_map(Value::Object),
        ]
    })
}

fn members(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    let name = prop_oneof![
        8 => proptest::sample::select(vec![
            "items", "object", "metadata", "annotations", "labels", "finalizers", "managedFields",
            "ownerReferences", "generateName", "selfLink", "mtls-operator.io/renew", "mtls-operator.io",
            "mtls-operator.io/\"q\\", "spec", "",
        ]).prop_map(String::from),
        1 => any::<String>(),
    ];
    proptest::collection::vec((name, value), 0..6).prop_map(|all| all.into_iter().collect())
}

/// Objects of the expected form, with anything in their members.
fn object() -> impl Strategy<Value = Value> {
    (members(value()), members(value()), members(value())).prop_map(|(mut object, mut meta, annotations)| {
        meta.insert("annotations".into(), Value::Object(annotations));
        object.insert("metadata".into(), Value::Object(meta));
        Value::Object(object)
    })
}

fn answer() -> impl Strategy<Value = Value> {
    prop_oneof![
        proptest::collection::vec(object(), 0..4)
            .prop_map(|items| json!({"kind": "List", "metadata": {"continue": "c"}, "items": items})),
        object().prop_map(|object| json!({"type": "ADDED", "object": object})),
        value(),
    ]
}

proptest! {
    /// Checks that any answer parses to the same as before, without the dropped members, however it is
    /// written and split.
    #[test]
    fn equals_the_parsed_answer_without_the_dropped_members(
        answers in proptest::collection::vec((answer(), any::<bool>()), 1..4),
        ends in proptest::collection::vec(any::<usize>(), 0..40),
        own_kind in any::<bool>(),
    ) {
        let annotations = own_kind.then_some(PREFIX);
        let text: String = answers
            .iter()
            .map(|(answer, pretty)| {
                if *pretty { format!("{answer:#}\n") } else { format!("{answer}\n") }
            })
            .collect();
        let thinned = thin(annotations, text.as_bytes(), &ends).unwrap();
        let parsed: Vec<Value> = serde_json::Deserializer::from_slice(&thinned)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        let expected = answers.iter().map(|(answer, _)| without(annotations, answer.clone()));
        let expected: Vec<_> = expected.collect();
        prop_assert_eq!(parsed, expected);
        prop_assert!(thinned.ends_with(b"\n"));
    }

    #[test]
    fn any_bytes_end_in_some_answer(
        bytes in proptest::collection::vec(proptest::sample::select(b"{}[]\",:\\ n1e\xff".to_vec()), 0..60),
    ) {
        let _ = thin(Some(PREFIX), &bytes, &[]);
        let _ = thin(None, &[br#"{"items":["#, &bytes[..]].concat(), &[3, 20]);
    }
}

#[test]
fn each_byte_by_itself_gives_the_same() {
    let text = br#" {"kind" : "List", "metadata":{"managedFields":1, "continue":"c"}, "items": [
        {"metadata":{"annotations":{"a":"\"}","mtls-operator.io/renew":"n\\","z":{"q":[1]}},"labels":{"l":""},
         "name":"x","managed\u0046ields":[{"f":"}"}],"finalizers":["f/g"]},"spec":{"metadata":{"labels":{}}}},
        {"metadata":{"managedFields":[]}}, 7 , null
    ]}
{"type":"ADDED","object":{"metadata":{"annotations":null,"ownerReferences":[{}],"uid":"u"}}}
"#;
    let own = concat!(
        r#" {"kind":"List","metadata":{"managedFields":1, "continue":"c"},"items":["#,
        r#"{"metadata":{"annotations":{"mtls-operator.io/renew":"n\\"},"name":"x","finalizers":["f/g"]},"#,
        r#""spec":{"metadata":{"labels":{}}}},{"metadata":{}},7,null]}"#,
        "\n",
        r#"{"type":"ADDED","object":{"metadata":{"annotations":null,"uid":"u"}}}"#,
        "\n"
    );
    let other = concat!(
        r#" {"kind":"List","metadata":{"managedFields":1, "continue":"c"},"items":["#,
        r#"{"metadata":{"labels":{"l":""},"name":"x"},"#,
        r#""spec":{"metadata":{"labels":{}}}},{"metadata":{}},7,null]}"#,
        "\n",
        r#"{"type":"ADDED","object":{"metadata":{"uid":"u"}}}"#,
        "\n"
    );
    let single: Vec<_> = (0..text.len()).collect();
    for (annotations, expected) in [(Some(PREFIX), own), (None, other)] {
        for ends in [&[][..], &single] {
            let thinned = thin(annotations, text, ends).unwrap();
            assert_eq!(String::from_utf8(thinned).unwrap(), expected);
        }
    }
}

#[test]
fn an_answer_that_ends_early_stays_incomplete() {
    let text = br#"{"type":"ADDED","object":{"metadata":{"managedFields":[{"a":"b"}]}}}"#;
    for end in 1..text.len() {
        let thinned = thin(None, &text[..end], &[]).unwrap();
        let error = serde_json::from_slice::<Value>(&thinned).unwrap_err();
        assert!(error.is_eof(), "{end}: {error}");
    }
}

#[test]
fn other_answers_than_json_are_errors() {
    for text in [
        "404 page not found\n<",
        "<html>",
        "{]",
        "{\"a\" 1}",
        "{\"items\":[}",
    ] {
        assert!(thin(None, text.as_bytes(), &[]).is_err(), "{text}");
    }
}
