//! Finds the MtlsDomains in files, folders and standard input.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::api::{GROUP, MtlsDomain};

/// Returns all MtlsDomains in these files, in the YAML and JSON files of these folders and their subfolders,
/// and, for `-`, on standard input.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<MtlsDomain>> {
    let mut found = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            found.extend(parse(&text).context("standard input")?);
            continue;
        }
        for file in files(path).with_context(|| format!("cannot read {}", path.display()))? {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            found.extend(parse(&text).with_context(|| file.display().to_string())?);
        }
    }
    if found.is_empty() {
        bail!("there is no MtlsDomain in the given manifests");
    }
    Ok(found)
}

/// Returns the file itself, or the files of the folder, in the order of their names.
fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = path
        .read_dir()?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    let mut all = Vec::new();
    for entry in entries {
        let is_manifest = entry
            .extension()
            .is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|e| ending == *e));
        if entry.is_dir() || is_manifest {
            all.extend(files(&entry)?);
        }
    }
    Ok(all)
}

/// Returns the MtlsDomains of a text with several documents, including lists of objects.
fn parse(text: &str) -> anyhow::Result<Vec<MtlsDomain>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("this is not YAML")?;
    let mut found = Vec::new();
    for document in documents {
        let items = match document.get("items").and_then(Value::as_array) {
            Some(items) => items.clone(),
            None => vec![document],
        };
        for item in items.into_iter().filter(is_domain) {
            let name = item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            found.push(serde_json::from_value(item).with_context(|| format!("the MtlsDomain {name}"))?);
        }
    }
    Ok(found)
}

fn is_domain(object: &Value) -> bool {
    let group = object["apiVersion"]
        .as_str()
        .and_then(|version| version.split_once('/'))
        .map(|(group, _)| group);
    group == Some(GROUP) && object["kind"] == "MtlsDomain"
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = "apiVersion: mtls-operator.io/v1alpha1\nkind: MtlsDomain\nmetadata: \
                      {name: NAME}\nspec: {domainName: a.example.com}\n";

    #[test]
    fn mtls_domains_are_found_among_other_objects() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let named = |name: &str| DOMAIN.replace("NAME", name);
        write(
            "a.yaml",
            &format!("{}---\nkind: Secret\n---\n{}---\n", named("a"), named("b")),
        );
        std::fs::create_dir(folder.path().join("deeper")).unwrap();
        write(
            "deeper/list.json",
            r#"{"kind": "List", "items": [{"apiVersion": "mtls-operator.io/v1alpha1", "kind": "MtlsDomain",
        "metadata": {"name": "c"}, "spec": {"domainName": "c.example.com"}}, {"kind": "Pod"}]}"#,
        );
        write("README.md", "{{ not YAML");
        let found = read(&[folder.path().to_owned()]).unwrap();
        let names: Vec<_> = found
            .iter()
            .filter_map(|domain| domain.metadata.name.as_deref())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(
            read(&[folder.path().join("README.md")]).is_err(),
            "a named file is read"
        );
        assert!(read(&[folder.path().join("missing.yaml")]).is_err());
        write(
            "wrong.yaml",
            &DOMAIN.replace("domainName: a.example.com", "suspend: 3"),
        );
        let said = format!("{:#}", read(&[folder.path().to_owned()]).unwrap_err());
        assert!(
            said.contains("wrong.yaml") && said.contains("MtlsDomain NAME"),
            "{said}"
        );
    }
}
