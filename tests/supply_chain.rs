//! The rules of deny.toml, held over `cargo metadata`: licences, sources and banned crates of everything that
//! the workspace builds. cargo-deny checks the same file where it is installed.
use std::{collections::HashMap, path::Path, process::Command};

use serde_json::{Value, json};
use toml_edit::DocumentMut;

fn toml(name: &str) -> DocumentMut {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = std::fs::read_to_string(path).expect("the file can be read");
    text.parse().expect("TOML")
}

/// Strings of an array.
fn strings(item: Option<&toml_edit::Item>) -> Vec<&str> {
    let array = item.and_then(toml_edit::Item::as_array).into_iter();
    array
        .flatten()
        .map(|value| value.as_str().expect("a string"))
        .collect()
}

/// Crates of an array of `{ crate = "NAME", MEMBER = [...] }`, each with its list.
fn crates<'a>(item: &'a toml_edit::Item, member: &str) -> Vec<(&'a str, Vec<&'a str>)> {
    let entries = item.as_array().expect("an array").iter();
    entries
        .map(|entry| {
            let entry = entry.as_inline_table().expect("an inline table");
            let name = entry.get("crate").and_then(|name| name.as_str());
            let list = entry.get(member).and_then(|list| list.as_array());
            let list = list.into_iter().flatten().filter_map(|value| value.as_str());
            (name.expect("a name"), list.collect())
        })
        .collect()
}

/// True if the licences that are allowed satisfy an SPDX expression. A `/` is an old form of OR.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    fn any(tokens: &mut std::iter::Peekable<std::slice::Iter<'_, &str>>, allowed: &[&str]) -> bool {
        let mut holds = false;
        loop {
            let mut all = true;
            loop {
                all &= match *tokens.next().expect("a licence") {
                    "(" => {
                        let inner = any(tokens, allowed);
                        assert_eq!(tokens.next(), Some(&")"));
                        inner
                    }
                    licence if tokens.next_if_eq(&&"WITH").is_some() => {
                        let exception = tokens.next().expect("an exception");
                        allowed.contains(&format!("{licence} WITH {exception}").as_str())
                    }
                    licence => allowed.contains(&licence),
                };
                if tokens.next_if_eq(&&"AND").is_none() {
                    break;
                }
            }
            holds |= all;
            if tokens.next_if_eq(&&"OR").is_none() {
                return holds;
            }
        }
    }
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let tokens: Vec<_> = spaced.split_whitespace().collect();
    let mut tokens = tokens.iter().peekable();
    any(&mut tokens, allowed) && tokens.next().is_none()
}

/// Metadata of the workspace and every crate in its lock file, for all targets.
fn metadata() -> Value {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

fn list<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    value[member].as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// True if a crate with these active features depends on this crate: a dependency that is optional needs a
/// feature that turns it on. cargo's lock file and metadata also have those that a feature only mentions
/// (`ring?/std`).
fn depends(package: &Value, active: &[&str], on: &str) -> bool {
    list(package, "dependencies")
        .filter(|dependency| dependency["name"] == on)
        .any(|dependency| {
            let name = dependency["rename"].as_str().unwrap_or(on);
            let turns_on = |part: &Value| {
                let part = text(part);
                part == name
                    || part.strip_prefix("dep:") == Some(name)
                    || part.starts_with(&format!("{name}/"))
            };
            dependency["optional"] == false
                || active
                    .iter()
                    .any(|feature| *feature == name || list(&package["features"], feature).any(turns_on))
        })
}

/// Returns every breach of the rules.
fn breaches(rules: &DocumentMut, metadata: &Value) -> Vec<String> {
    let mut found = vec![];
    let packages: HashMap<_, _> = list(metadata, "packages")
        .map(|package| (text(&package["id"]), package))
        .collect();
    let allowed = strings(rules["licenses"].get("allow"));
    let exceptions: HashMap<_, _> = crates(&rules["licenses"]["exceptions"], "allow")
        .into_iter()
        .collect();
    let registries = strings(rules["sources"].get("allow-registry"));
    for package in packages.values() {
        let name = text(&package["name"]);
        let also = exceptions.get(name).into_iter().flatten();
        let allowed: Vec<_> = allowed.iter().chain(also).copied().collect();
        let licence = text(&package["license"]);
        if licence.is_empty() || !satisfied(licence, &allowed) {
            found.push(format!("{name}: licence {licence:?}"));
        }
        let source = package["source"].as_str();
        let ours = list(metadata, "workspace_members").any(|member| *member == package["id"]);
        let registry = source.and_then(|source| source.strip_prefix("registry+"));
        if !ours && registry.is_none_or(|registry| !registries.contains(&registry)) {
            found.push(format!("{name}: source {source:?}"));
        }
    }
    for (banned, wrappers) in crates(&rules["bans"]["deny"], "wrappers") {
        for node in list(&metadata["resolve"], "nodes") {
            let package = packages[text(&node["id"])];
            let features: Vec<_> = list(node, "features").map(text).collect();
            let edge = list(node, "deps").any(|dep| packages[text(&dep["pkg"])]["name"] == banned);
            let name = text(&package["name"]);
            if edge && depends(package, &features, banned) && !wrappers.contains(&name) {
                found.push(format!("{name} depends on {banned}"));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_crate_keeps_the_rules_of_deny_toml() {
    assert_eq!(breaches(&toml("deny.toml"), &metadata()), Vec::<String>::new());
}

/// No rule is left over from a crate that is gone.
#[test]
fn every_rule_of_deny_toml_is_needed() {
    let (rules, metadata) = (toml("deny.toml"), metadata());
    let named = |name: &str| list(&metadata, "packages").any(|package| package["name"] == name);
    for licence in strings(rules["licenses"].get("allow")) {
        let mut fewer = rules.clone();
        let allow = fewer["licenses"]["allow"].as_array_mut().expect("an array");
        allow.retain(|value| value.as_str() != Some(licence));
        assert_ne!(breaches(&fewer, &metadata), Vec::<String>::new(), "{licence}");
    }
    for (name, _) in crates(&rules["licenses"]["exceptions"], "allow") {
        assert!(named(name), "{name} is not in the lock file");
    }
    for (name, wrappers) in crates(&rules["bans"]["deny"], "wrappers") {
        assert!(
            wrappers.is_empty() || named(name),
            "{name} is not in the lock file"
        );
    }
}

#[test]
fn a_crate_against_the_rules_is_found() {
    let rules = toml("deny.toml");
    let real = metadata();
    assert!(list(&real, "packages").count() > 100);
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    let with = |name: &str, licence: Value, source: Value| {
        let package = json!({
            "id": "new", "name": name, "license": licence, "source": source,
            "features": {}, "dependencies": [],
        });
        let mut changed = real.clone();
        changed["packages"]
            .as_array_mut()
            .expect("an array")
            .push(package);
        changed
    };
    for (licence, source, expected) in [
        (json!("MIT"), json!(registry), None),
        (
            json!("GPL-3.0"),
            json!(registry),
            Some("new: licence \"GPL-3.0\""),
        ),
        (
            json!("MIT AND GPL-3.0"),
            json!(registry),
            Some("new: licence \"MIT AND GPL-3.0\""),
        ),
        (
            json!("CDLA-Permissive-2.0"),
            json!(registry),
            Some("new: licence \"CDLA-Permissive-2.0\""),
        ),
        (Value::Null, json!(registry), Some("new: licence \"\"")),
        (
            json!("MIT"),
            json!("git+https://example.com/new#abc"),
            Some("new: source Some(\"git+https://example.com/new#abc\")"),
        ),
        (
            json!("MIT"),
            json!("registry+https://example.com/index"),
            Some("new: source Some(\"registry+https://example.com/index\")"),
        ),
        (json!("MIT"), Value::Null, Some("new: source None")),
    ] {
        let found = breaches(&rules, &with("new", licence, source));
        assert_eq!(found, Vec::from_iter(expected.map(str::to_owned)));
    }

    // A crate that the operator must not use, as a plain dependency and as an optional one.
    let id = list(&real, "workspace_members")
        .map(text)
        .find(|id| !id.contains("sandbox"))
        .expect("the operator");
    let at = |list: &Value| {
        let all = list.as_array().expect("an array");
        all.iter()
            .position(|entry| entry["id"] == id)
            .expect("the operator")
    };
    for (banned, optional, feature, expected) in [
        ("openssl", false, None, true),
        ("ring", false, None, true),
        ("ring", true, None, false),
        ("ring", true, Some("ring?/std"), false),
        ("ring", true, Some("dep:ring"), true),
        ("ring", true, Some("ring/std"), true),
    ] {
        let mut changed = with("rsa", json!("MIT"), json!(registry));
        let there = list(&real, "packages").find(|package| package["name"] == banned);
        let there = there.expect("it is in the lock file")["id"].clone();
        let operator = at(&changed["packages"]);
        let dependencies = changed["packages"][operator]["dependencies"].as_array_mut();
        dependencies
            .expect("an array")
            .push(json!({"name": banned, "optional": optional, "rename": null}));
        changed["packages"][operator]["features"]["default"] = Vec::from_iter(feature).into();
        let node = at(&changed["resolve"]["nodes"]);
        let node = &mut changed["resolve"]["nodes"][node];
        node["features"] = json!(["default"]);
        node["deps"]
            .as_array_mut()
            .expect("an array")
            .push(json!({"pkg": there}));
        let breach = format!("mtls-operator depends on {banned}");
        let expected = Vec::from_iter(expected.then_some(breach));
        assert_eq!(
            breaches(&rules, &changed),
            expected,
            "{banned} {optional} {feature:?}"
        );
    }
}

#[test]
fn an_expression_of_licences_is_read_as_spdx_says() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("MIT OR GPL-3.0 AND GPL-2.0", true),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("(MIT OR GPL-3.0) AND (GPL-2.0 OR GPL-3.0)", false),
        ("Apache-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MIT WITH LLVM-exception", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }
}

/// A wrapped length or index is a panic of one reconcile, not a wrong number.
#[test]
fn arithmetic_is_checked_in_the_released_program() {
    let manifest = toml("Cargo.toml");
    let checks = manifest["profile"]["release"].get("overflow-checks");
    assert_eq!(checks.and_then(toml_edit::Item::as_bool), Some(true));
}
