//! Files that are built once per machine and kept in the user's cache directory, and the progress shown
//! during a build.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io, io::Write as _};

use crate::process::{self, Process};

/// Interval between two lines of progress.
const REPORT_EVERY: Duration = Duration::from_secs(15);

/// Failure to use or fill the cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cache directory is configured.
    #[error("no cache directory: set SANDBOX_CACHE, XDG_CACHE_HOME or HOME")]
    NoDirectory,
    /// The cache directory cannot be used.
    #[error("cannot use the cache at {path}", path = path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The builder failed; its partial result is at `left`.
    #[error("cannot build {name} (what there is of it is in {left})", left = left.display())]
    Build {
        name: String,
        left: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Returns `$SANDBOX_CACHE`, else `mtls-operator-sandbox` in `$XDG_CACHE_HOME` or `~/.cache`. The directory
/// may not exist yet.
///
/// # Errors
/// [`Error::NoDirectory`].
pub fn directory() -> Result<PathBuf, Error> {
    // The XDG base directory specification ignores relative paths; `$SANDBOX_CACHE` may be relative.
    let path = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(own) = path("SANDBOX_CACHE") {
        return std::path::absolute(&own).map_err(|source| Error::Io { path: own, source });
    }
    let user = path("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| Some(path("HOME")?.join(".cache")));
    Ok(user.ok_or(Error::NoDirectory)?.join("mtls-operator-sandbox"))
}

/// Returns the folder `name` of the cache. `build` fills the folder when it does not exist yet. `name`
/// contains everything that the content depends on (a version, a hash): other content needs another name.
///
/// `build` gets an empty folder, which is renamed once `build` returns. So no file in it may contain its own
/// path: in a Python venv, `bin/python -m pip` keeps working and `bin/pip` does not. Processes and threads
/// that request the same folder at the same time wait for its builder. An interrupted build, even by a kill,
/// starts again from an empty folder.
///
/// # Errors
/// [`Error::NoDirectory`], [`Error::Io`], and [`Error::Build`] with what `build` returned.
pub fn build_once<B>(name: &str, build: B) -> Result<PathBuf, Error>
where
    B: FnOnce(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
{
    build_once_in(&directory()?, name, build)
}

/// Like [`build_once`], in a cache directory other than the user's.
///
/// # Errors
/// The same as of [`build_once`].
pub fn build_once_in<B>(cache: &Path, name: &str, build: B) -> Result<PathBuf, Error>
where
    B: FnOnce(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    };
    let built = cache.join(name);
    if built.exists() {
        return Ok(built);
    }
    fs::create_dir_all(cache).map_err(failed(cache))?;
    let lock_path = cache.join(format!("{name}.lock"));
    // Held until the end of this function. The kernel releases the lock when the process dies, and children
    // do not inherit it.
    let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say(&format!("{name}: another process is building it; waiting for it"));
            lock.lock().map_err(failed(&lock_path))?;
        }
        Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
    }
    if built.exists() {
        return Ok(built);
    }
    let partial = cache.join(format!("{name}.partial"));
    if partial.exists() {
        say(&format!(
            "{name}: an earlier build did not finish, starting again"
        ));
        fs::remove_dir_all(&partial).map_err(failed(&partial))?;
    }
    fs::create_dir(&partial).map_err(failed(&partial))?;
    build(&partial).map_err(|source| Error::Build {
        name: name.into(),
        left: partial.clone(),
        source,
    })?;
    fs::rename(&partial, &built).map_err(failed(&built))?;
    Ok(built)
}

/// Runs a long command for a builder: its output goes to `log`, and stderr gets one line at the start, one
/// every 15 s (the time so far and what `state` makes of the log) and one at the end.
///
/// # Errors
/// The command cannot be started or fails; the message has the end of its log.
pub fn run_reporting(
    what: &str,
    command: Command,
    log: &Path,
    state: impl Fn(&str) -> String,
) -> Result<(), process::Error> {
    let start = Instant::now();
    let mut reported = start;
    say(&format!("{what}: started"));
    Process::start(what, command, log)?.finish(|| {
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            let text = fs::read(log).unwrap_or_default();
            say(&format!(
                "{what}: {}, {}",
                minutes(start.elapsed()),
                state(&String::from_utf8_lossy(&text))
            ));
        }
    })?;
    say(&format!("{what}: done in {}", minutes(start.elapsed())));
    Ok(())
}

/// Prints a line for the user. Bypasses `eprintln!`, because tests capture its output until they end.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}"); // there is no other output for a failure
}

/// Returns the last non-empty line of a log, cut to a screen's width: a `state` for [`run_reporting`].
#[must_use]
pub fn last_line(log: &str) -> String {
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("nothing yet")
        .chars()
        .take(100)
        .collect()
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_finished_build_is_kept() {
        let cache = tempfile::tempdir().unwrap();
        let first = build_once_in(cache.path(), "tool-1", |dir| {
            Ok(fs::write(dir.join("tool"), "1")?)
        })
        .unwrap();
        let again = build_once_in(cache.path(), "tool-1", |_| Err("built twice".into())).unwrap();
        assert_eq!(
            (
                first.clone(),
                fs::read_to_string(first.join("tool")).unwrap().as_str()
            ),
            (again, "1")
        );
        let other = build_once_in(cache.path(), "tool-2", |dir| {
            Ok(fs::write(dir.join("tool"), "2")?)
        })
        .unwrap();
        assert_eq!(fs::read_to_string(other.join("tool")).unwrap(), "2");
    }

    #[test]
    fn a_partial_build_is_never_used() {
        let cache = tempfile::tempdir().unwrap();
        let failed = build_once_in(cache.path(), "tool-1", |dir| {
            fs::write(dir.join("half"), "")?;
            Err("cut off".into())
        });
        assert!(matches!(failed, Err(Error::Build { .. })), "{failed:?}");
        let built = build_once_in(cache.path(), "tool-1", |dir| {
            assert_eq!(
                fs::read_dir(dir)?.count(),
                0,
                "the rest of the earlier build is still there"
            );
            Ok(fs::write(dir.join("whole"), "")?)
        })
        .unwrap();
        assert!(built.join("whole").exists());
    }

    #[test]
    fn parallel_builds_are_one() {
        let cache = tempfile::tempdir().unwrap();
        let (builds, together) = (AtomicUsize::new(0), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    together.wait();
                    let built = build_once_in(cache.path(), "tool-1", |dir| {
                        builds.fetch_add(1, Ordering::SeqCst);
                        Ok(fs::write(dir.join("tool"), "")?)
                    });
                    assert!(built.unwrap().join("tool").exists());
                });
            }
        });
        assert_eq!(builds.load(Ordering::SeqCst), 1);
    }
}
