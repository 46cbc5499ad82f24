//! envtest's archive: etcd, kube-apiserver and kubectl as kubernetes-sigs/controller-tools publishes them for
//! tests of controllers. The sandbox uses the archive only when its digest matches the pinned digest.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest, Sha512};

use crate::cache;
use crate::requirements::is_executable;

const RELEASES: &str = "https://github.com/kubernetes-sigs/controller-tools/releases/download";
/// Release of the archive, of the minor version that kubernetes/go.mod pins.
const VERSION: &str = "v1.35.0";
/// Programs in the archive. kube-controller-manager is not among them.
pub(crate) const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];
/// SHA-512 of the archive, by Rust's and Go's names of the architecture. Source: envtest-releases.yaml of
/// kubernetes-sigs/controller-tools.
const ARCHIVES: [(&str, &str, &str); 2] = [
    (
        "x86_64",
        "amd64",
        "130369c16f076e724d089189afaede960316f5f5dea6cf57be7a4fc6f09c77342893192509790e4056e116e232dff832ed863f5bd55dcb55d38f3ab834828a11",
    ),
    (
        "aarch64",
        "arm64",
        "e53e2b88398f5b9503e3f074d82a2dcb090c708b34940848607ce658138a5d4a25962e042ab683ccc026a8a6c90c0be7f658e42dde0887369d73c3b68e2fc86c",
    ),
];
/// Time limit for the first answer, in seconds, including all redirects.
const REACHED_WITHIN: &str = "3";

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// Returns the folder with the programs of the archive: from the cache, or downloaded. None when the archive
/// is not available; the function has then printed the reason.
pub(crate) fn programs() -> Option<PathBuf> {
    let (_, arch, sha512) = ARCHIVES
        .into_iter()
        .find(|(arch, ..)| *arch == env::consts::ARCH)?;
    programs_from(RELEASES, &cache::directory().ok()?, arch, sha512)
}

/// True when the archive has been downloaded before.
pub(crate) fn is_cached() -> bool {
    let of_here = ARCHIVES.into_iter().find(|(arch, ..)| *arch == env::consts::ARCH);
    of_here
        .zip(cache::directory().ok())
        .is_some_and(|((_, arch, sha512), cache)| cache.join(cache_name(arch, sha512)).exists())
}

fn cache_name(arch: &str, sha512: &str) -> String {
    format!("envtest-{VERSION}-linux-{arch}-{}", &sha512[..8])
}

fn programs_from(releases: &str, cache: &Path, arch: &str, sha512: &str) -> Option<PathBuf> {
    let url = format!("{releases}/envtest-{VERSION}/envtest-{VERSION}-linux-{arch}.tar.gz");
    let name = cache_name(arch, sha512);
    let gone_without = |why: &str| {
        cache::say(&format!("Kubernetes: going without envtest's archive, for {why}"));
        None
    };
    if !cache.join(&name).exists()
        && let Err(why) = reach(&url)
    {
        return gone_without(&why);
    }
    match cache::build_once_in(cache, &name, |dir| download(&url, sha512, dir)) {
        Ok(built) => Some(built.join("bin")),
        Err(cache::Error::Build { source, .. }) => gone_without(&source.to_string()),
        Err(error) => gone_without(&error.to_string()),
    }
}

/// Checks that the archive is reachable. Uses curl, which knows the proxies of the user.
fn reach(url: &str) -> Result<(), String> {
    let mut curl = Command::new("curl");
    curl.args([
        "--head",
        "--location",
        "--fail",
        "--silent",
        "--show-error",
        "--max-time",
        REACHED_WITHIN,
    ]);
    let output = curl
        .args(["--output", "/dev/null", url])
        .output()
        .map_err(|_| "there is no curl".to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{url} cannot be reached: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

fn download(url: &str, sha512: &str, dir: &Path) -> Result<(), BoxedError> {
    let (archive, log) = (dir.join("archive.tar.gz"), dir.join("download.log"));
    let mut curl = Command::new("curl");
    // A download without progress for 20 s has failed.
    curl.args([
        "--location",
        "--fail",
        "--silent",
        "--show-error",
        "--connect-timeout",
        REACHED_WITHIN,
    ]);
    curl.args(["--speed-limit", "1000", "--speed-time", "20", "--output"])
        .arg(&archive)
        .arg(url);
    cache::run_reporting("Kubernetes: envtest's archive, about 50 MB", curl, &log, |_| {
        format!(
            "{} MB",
            fs::metadata(&archive).map_or(0, |file| file.len() / 1_000_000)
        )
    })?;
    let mut found = String::new();
    for byte in Sha512::digest(fs::read(&archive)?) {
        write!(found, "{byte:02x}")?;
    }
    if found != sha512 {
        return Err(format!("{url} is not what is pinned here: its SHA-512 is {found}").into());
    }
    let bin = dir.join("bin");
    fs::create_dir(&bin)?;
    let mut tar = Command::new("tar");
    tar.args([
        "--extract",
        "--gzip",
        "--no-same-owner",
        "--strip-components=2",
        "--file",
    ])
    .arg(&archive);
    tar.arg("--directory")
        .arg(&bin)
        .args(PROGRAMS.map(|program| format!("controller-tools/envtest/{program}")));
    let output = tar.output()?;
    if !output.status.success() || !PROGRAMS.iter().all(|program| is_executable(&bin.join(program))) {
        return Err(format!(
            "it cannot be unpacked: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )
        .into());
    }
    Ok(fs::remove_file(&archive)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    /// Returns an archive in the published form with other programs, and its digest.
    fn archive() -> (Vec<u8>, String) {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("controller-tools/envtest");
        fs::create_dir_all(&folder).unwrap();
        for program in PROGRAMS {
            fs::write(folder.join(program), format!("#!/bin/sh\necho {program}\n")).unwrap();
            fs::set_permissions(folder.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut tar = Command::new("tar");
        let output = tar
            .args(["-cz", "-C"])
            .arg(dir.path())
            .arg("controller-tools")
            .output()
            .unwrap();
        assert!(output.status.success());
        let digest = Sha512::digest(&output.stdout)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        (output.stdout, digest)
    }

    /// Starts a server of releases with this one file; returns its URL and its request counter.
    fn releases(content: Vec<u8>) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let asked = count.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = vec![];
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = format!("/envtest-{VERSION}/envtest-{VERSION}-linux-amd64.tar.gz ");
                let (status, length) = if head.contains(&path) {
                    ("200 OK", content.len())
                } else {
                    ("404 Not Found", 0)
                };
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                );
                if head.starts_with("GET ") {
                    let _ = stream.write_all(&content[..length]);
                }
            }
        });
        (address, count)
    }

    #[test]
    fn the_archive_is_fetched_once() {
        let (content, digest) = archive();
        let (at, asked) = releases(content);
        let cache = tempfile::tempdir().unwrap();
        let bin = programs_from(&at, cache.path(), "amd64", &digest).expect("it is there");
        for program in PROGRAMS {
            let output = Command::new(bin.join(program)).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), program);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert_eq!(programs_from(&at, cache.path(), "amd64", &digest), Some(bin));
        assert_eq!(
            asked.load(Ordering::SeqCst),
            2,
            "the second time it is in the cache"
        );
    }

    #[test]
    fn another_content_than_the_pinned_one_is_not_used() {
        let (content, _) = archive();
        let (at, _) = releases(content);
        let cache = tempfile::tempdir().unwrap();
        for (_, arch, digest) in ARCHIVES {
            // amd64 has another digest, arm64 gets 404.
            assert_eq!(programs_from(&at, cache.path(), arch, digest), None, "{arch}");
            let kept = fs::read_dir(cache.path()).unwrap().flatten().any(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                !name.ends_with(".lock") && !name.ends_with(".partial")
            });
            assert!(!kept);
        }
    }

    #[test]
    fn without_a_network_the_wait_is_three_seconds_at_most() {
        let cache = tempfile::tempdir().unwrap();
        // Accepts connections and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = format!("http://{}", silent.local_addr().unwrap());
        for at in [
            silent.as_str(),
            "http://127.0.0.1:1",
            "http://no-such-host.invalid",
        ] {
            let start = Instant::now();
            assert_eq!(
                programs_from(at, cache.path(), "amd64", ARCHIVES[0].2),
                None,
                "{at}"
            );
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{at}: {:?}",
                start.elapsed()
            );
        }
    }

    #[test]
    fn digests_are_digests() {
        for (arch, _, digest) in ARCHIVES {
            assert!(
                digest.len() == 128 && digest.bytes().all(|b| b.is_ascii_hexdigit()),
                "{arch}"
            );
        }
    }
}
