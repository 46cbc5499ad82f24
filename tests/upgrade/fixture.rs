//! Record on disk: the state of a world when it was recorded, in files that a diff can show.
use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::stage::{ACCOUNT, Caller, KINDS, REGISTRAR, of_kind};

/// Recorded state.
pub struct Recorded {
    pub objects: Vec<Value>,
    /// State of both accounts.
    pub aws: Vec<Value>,
    pub callers: Vec<Caller>,
}

impl Recorded {
    pub fn read() -> Recorded {
        let mut files: Vec<_> = fs::read_dir(folder("kubernetes"))
            .expect("a record")
            .flatten()
            .map(|f| f.path())
            .collect();
        files.sort();
        let mut objects: Vec<_> = files.iter().flat_map(|file| list(file)).collect();
        // Owners before the objects that they own.
        objects.sort_by_key(|object| KINDS.iter().position(|(_, _, kind)| object["kind"] == *kind));
        let aws = [ACCOUNT, REGISTRAR].map(|id| json(&folder("aws").join(format!("{id}.json"))));
        let callers = list(&folder("callers.json")).into_iter();
        let callers = callers
            .map(|caller| serde_json::from_value(caller).expect("a caller"))
            .collect();
        Recorded {
            objects,
            aws: aws.to_vec(),
            callers,
        }
    }

    /// Replaces the record on disk.
    pub fn write(&self) {
        for name in ["kubernetes", "aws"] {
            let _ = fs::remove_dir_all(folder(name)); // none the first time
            fs::create_dir_all(folder(name)).expect("a folder");
        }
        for namespace in self.namespaces() {
            let is_in = |o: &&Value| {
                let field = if o["kind"] == "Namespace" {
                    "name"
                } else {
                    "namespace"
                };
                o["metadata"][field] == *namespace
            };
            let all: Vec<_> = self.objects.iter().filter(is_in).cloned().collect();
            write(
                &folder("kubernetes").join(format!("{namespace}.json")),
                &all.into(),
                1,
            );
        }
        for dump in &self.aws {
            let id = dump["account"].as_str().expect("an account");
            write(&folder("aws").join(format!("{id}.json")), dump, 3);
        }
        write(
            &folder("callers.json"),
            &serde_json::to_value(&self.callers).expect("JSON"),
            1,
        );
    }

    pub fn namespaces(&self) -> Vec<String> {
        let names = of_kind(&self.objects, "Namespace")
            .map(|n| n["metadata"]["name"].as_str().expect("a name").to_owned());
        names.collect()
    }
}

/// File or folder of the record.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/upgrade/world")
        .join(name)
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn list(path: &Path) -> Vec<Value> {
    match json(path) {
        Value::Array(all) => all,
        _ => panic!("{} is no list", path.display()),
    }
}

fn write(path: &Path, value: &Value, depth: usize) {
    fs::write(path, laid_out(value, depth) + "\n").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// JSON with a line for each member down to a depth, and whole lines below.
fn laid_out(value: &Value, depth: usize) -> String {
    let lines: Vec<_> = match value {
        Value::Array(all) if depth > 0 => all.iter().map(|value| laid_out(value, depth - 1)).collect(),
        Value::Object(all) if depth > 0 => all
            .iter()
            .map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), laid_out(value, depth - 1)))
            .collect(),
        _ => return value.to_string(),
    };
    let (open, close) = if value.is_array() { ("[", "]") } else { ("{", "}") };
    if lines.is_empty() {
        format!("{open}{close}")
    } else {
        format!("{open}\n{}\n{close}", lines.join(",\n"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::laid_out;

    #[test]
    fn lines_end_at_the_depth() {
        let value = json!({"a": [[1, 2], {"b": []}], "c": {}});
        let text = "{\n\"a\": [\n[1,2],\n{\"b\":[]}\n],\n\"c\": {}\n}";
        assert_eq!(laid_out(&value, 2), text);
        assert_eq!(serde_json::from_str::<serde_json::Value>(text).unwrap(), value);
    }
}
