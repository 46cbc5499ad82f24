//! The structure of the source: the allowed imports between the modules of `src`, no import circle, and no
//! file or folder too large to read at once. Code under `cfg(test)` does not count.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::visit::Visit;

/// Modules of `src`, each with all modules that it may import. Lower modules come first: a module imports
/// only modules above it in this list. A new edge is a decision: add it here, or move the item.
const EDGES: &[(&str, &[&str])] = &[
    ("proxy", &[]),
    ("pki", &[]),
    ("probe", &[]),
    ("api", &[]),
    ("status", &["api"]),
    ("aws", &["proxy"]),
    ("telemetry", &["api", "status", "aws"]),
    ("runtime", &["api", "status", "telemetry"]),
    ("policy", &["api", "status", "telemetry"]),
    ("observation", &["probe", "api", "status", "aws"]),
    (
        "model",
        &["pki", "probe", "api", "status", "aws", "policy", "observation"],
    ),
    ("grants", &["pki", "api", "status", "runtime", "policy", "model"]),
    // Checks for fuzzing, in no released program.
    ("fuzz", &["pki", "policy", "grants"]),
    ("dns", &["pki", "probe", "api", "aws", "observation", "model"]),
    (
        "server_certificate",
        &["pki", "api", "aws", "observation", "model", "dns"],
    ),
    (
        "trust",
        &[
            "pki",
            "api",
            "status",
            "aws",
            "runtime",
            "observation",
            "model",
            "grants",
        ],
    ),
    (
        "dataplane",
        &[
            "pki",
            "probe",
            "api",
            "status",
            "aws",
            "observation",
            "model",
            "dns",
            "server_certificate",
        ],
    ),
    (
        "issuance",
        &["pki", "api", "status", "runtime", "model", "grants", "trust"],
    ),
    ("background", &["api", "aws", "telemetry", "runtime"]),
    (
        "controllers",
        &[
            "pki",
            "probe",
            "api",
            "status",
            "aws",
            "telemetry",
            "runtime",
            "policy",
            "observation",
            "model",
            "grants",
            "dns",
            "server_certificate",
            "trust",
            "dataplane",
            "issuance",
            "background",
        ],
    ),
    (
        "cli",
        &[
            "proxy",
            "pki",
            "probe",
            "api",
            "aws",
            "policy",
            "observation",
            "model",
            "dns",
        ],
    ),
    (
        "operator",
        &[
            "aws",
            "background",
            "controllers",
            "grants",
            "issuance",
            "observation",
            "policy",
            "probe",
            "proxy",
            "runtime",
            "server_certificate",
            "telemetry",
            "trust",
        ],
    ),
];

/// Longest file that a reader takes in at once.
const MAX_LINES: usize = 400;
/// Words in a module's first comment that say why its file is longer.
const REASON: &str = "Long because";
/// Most files and folders in one folder.
const MAX_SIBLINGS: usize = 24;

/// Path of a module from the crate root.
type Module = Vec<String>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn module_of(file: &Path) -> Module {
    let relative = file.strip_prefix(source()).unwrap().with_extension("");
    let mut names: Module = relative
        .iter()
        .map(|name| name.to_str().unwrap().to_owned())
        .collect();
    if ["mod", "lib", "main"].contains(&names.last().unwrap().as_str()) {
        names.pop();
    }
    names
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        is_cfg && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
    })
}

/// Paths that one file names: of its imports, and of its code.
#[derive(Default)]
struct Paths {
    me: Module,
    found: Vec<Module>,
    /// Modules and items that the file imports, by their local names.
    imported: BTreeMap<String, Module>,
    /// Modules of which the file has only a test version.
    test_only: Vec<Module>,
}

impl Paths {
    /// Returns the path from the crate root; `None` for a path into another crate.
    fn absolute(&self, path: &[String]) -> Option<Module> {
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" if path.len() > 1 => Some([&self.me[..], &path[1..]].concat()),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let base = &self.me[..self.me.len().checked_sub(ups)?];
                Some([base, &path[ups..]].concat())
            }
            first => {
                let base = self.imported.get(first)?;
                Some([&base[..], &path[1..]].concat())
            }
        }
    }

    fn import(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.import(&with(&path.ident), &path.tree),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(prefix, tree);
                }
            }
            syn::UseTree::Name(name) if name.ident == "self" => self.take(prefix.last().cloned(), prefix),
            syn::UseTree::Name(name) => self.take(Some(name.ident.to_string()), &with(&name.ident)),
            syn::UseTree::Rename(name) if name.ident == "self" => {
                self.take(Some(name.rename.to_string()), prefix)
            }
            syn::UseTree::Rename(name) => self.take(Some(name.rename.to_string()), &with(&name.ident)),
            syn::UseTree::Glob(_) => self.take(None, prefix),
        }
    }

    fn take(&mut self, name: Option<String>, path: &[String]) {
        let Some(path) = self.absolute(path) else { return };
        if let Some(name) = name {
            self.imported.insert(name, path.clone());
        }
        self.found.push(path);
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => return syn::visit::visit_item(self, item),
        };
        match item {
            _ if is_test(attributes) => {
                if let syn::Item::Mod(item) = item {
                    let module = [&self.me[..], &[item.ident.to_string()]].concat();
                    self.test_only.push(module);
                }
            }
            syn::Item::Use(item) => self.import(&[], &item.tree),
            _ => syn::visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Module = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if names.len() > 1
            && let Some(path) = self.absolute(&names)
        {
            self.found.push(path);
        }
        syn::visit::visit_path(self, path);
    }
}

/// Source without its tests.
struct Source {
    files: BTreeMap<Module, PathBuf>,
    /// Modules that each module imports.
    imports: BTreeMap<Module, BTreeSet<Module>>,
}

/// Reads the source. `main.rs` is no module: it may import everything.
fn read_source() -> Source {
    let files: BTreeMap<Module, PathBuf> = rust_files(&source())
        .into_iter()
        .filter(|file| !file.ends_with("src/main.rs"))
        .map(|file| (module_of(&file), file))
        .collect();
    let mut paths = Vec::new();
    for (me, file) in &files {
        let code = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap();
        let mut visitor = Paths {
            me: me.clone(),
            ..Paths::default()
        };
        // Imports come first, wherever they are in the file.
        for item in &code.items {
            if let syn::Item::Use(item) = item
                && !is_test(&item.attrs)
            {
                visitor.import(&[], &item.tree);
            }
        }
        visitor.visit_file(&code);
        paths.push(visitor);
    }
    let test_only: BTreeSet<_> = paths.iter().flat_map(|paths| paths.test_only.clone()).collect();
    let is_tested = |module: &Module| (1..=module.len()).any(|n| test_only.contains(&module[..n]));
    let module = |path: &Module| {
        (0..=path.len())
            .rev()
            .map(|n| path[..n].to_vec())
            .find(|prefix| files.contains_key(prefix))
    };
    let imports = paths
        .iter()
        .filter(|paths| !is_tested(&paths.me))
        .map(|paths| {
            let found = paths.found.iter().filter_map(module);
            let others = found.filter(|found| *found != paths.me && !found.is_empty());
            (paths.me.clone(), others.collect())
        })
        .collect();
    let mut files = files;
    files.retain(|module, _| !is_tested(module));
    Source { files, imports }
}

/// Returns the groups of nodes that reach each other.
fn circles(edges: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<BTreeSet<String>> {
    let reachable = |from: &Module| {
        let (mut found, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(next) = open.pop() {
            for to in edges.get(&next).into_iter().flatten() {
                if found.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        found
    };
    let all: BTreeMap<_, _> = edges.keys().map(|from| (from, reachable(from))).collect();
    all.iter()
        .filter(|(from, found)| found.contains(**from))
        .map(|(from, found)| {
            let same = found
                .iter()
                .filter(|to| all.get(to).is_some_and(|back| back.contains(*from)));
            same.map(|module| module.join("::")).collect()
        })
        .collect()
}

#[test]
fn modules_import_only_what_is_allowed() {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in read_source().imports {
        let Some(from) = from.first() else { continue };
        let others = to.iter().map(|to| to[0].clone()).filter(|to| to != from);
        edges.entry(from.clone()).or_default().extend(others);
    }
    let allowed: BTreeMap<String, BTreeSet<String>> = EDGES
        .iter()
        .map(|(from, to)| ((*from).to_owned(), to.iter().map(|to| (*to).to_owned()).collect()))
        .collect();
    let listed = |edges: &BTreeMap<String, BTreeSet<String>>| -> BTreeSet<String> {
        let pairs = edges
            .iter()
            .flat_map(|(from, to)| to.iter().map(move |to| format!("{from} -> {to}")));
        pairs.collect()
    };
    let (found, allowed) = (listed(&edges), listed(&allowed));
    let new: Vec<_> = found.difference(&allowed).collect();
    let gone: Vec<_> = allowed.difference(&found).collect();
    assert!(new.is_empty(), "not in EDGES: {new:#?}");
    assert!(gone.is_empty(), "in EDGES, and nowhere in src: {gone:#?}");
    let order: Vec<_> = EDGES.iter().map(|(name, _)| *name).collect();
    for (at, (from, to)) in EDGES.iter().enumerate() {
        let late: Vec<_> = to.iter().filter(|to| !order[..at].contains(to)).collect();
        assert!(
            late.is_empty(),
            "{from} may not import {late:?}, which EDGES lists below it"
        );
    }
}

#[test]
fn no_module_imports_itself_through_others() {
    let found = circles(&read_source().imports);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn files_and_folders_can_be_read_at_once() {
    let mut long = Vec::new();
    let mut siblings: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (module, file) in read_source().files {
        let text = fs::read_to_string(&file).unwrap();
        let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let lines = text.lines().count();
        if lines > MAX_LINES && !head.contains(REASON) {
            long.push(format!("{lines} {}", module.join("::")));
        }
        let mut path = file.as_path();
        while let Some(folder) = path.parent().filter(|folder| folder.starts_with(source())) {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            siblings.entry(folder.to_owned()).or_default().insert(name);
            path = folder;
        }
    }
    siblings.retain(|_, names| names.len() > MAX_SIBLINGS);
    assert!(siblings.is_empty(), "too many in one folder: {siblings:#?}");
    assert!(
        long.is_empty(),
        "over {MAX_LINES} lines, and no \"{REASON}\" in the head: {long:#?}"
    );
}

#[test]
fn circles_are_found() {
    let module = |name: &str| vec![name.to_owned()];
    let edges = |pairs: &[(&str, &str)]| {
        let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (from, to) in pairs {
            edges.entry(module(from)).or_default().insert(module(to));
        }
        edges
    };
    assert!(circles(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = circles(&edges(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]));
    assert_eq!(
        found,
        BTreeSet::from([BTreeSet::from(["b".to_owned(), "c".to_owned()])])
    );
}
