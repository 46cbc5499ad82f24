//! What is built once per machine and kept in the user's cache directory, and the progress shown meanwhile.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io, io::Write as _};

use crate::process::{self, Process};

/// Between two lines of progress.
const REPORT_EVERY: Duration = Duration::from_secs(15);

/// Why something is not in the cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no place for a cache.
    #[error("no cache directory: set SANDBOX_CACHE, XDG_CACHE_HOME or HOME")]
    NoDirectory,
    /// The cache directory cannot be used.
    #[error("cannot use the cache at {path}", path = path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The builder failed; what it left behind is at `left`.
    #[error("cannot build {name} (what there is of it is in {left})", left = left.display())]
    Build {
        name: String,
        left: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// `$SANDBOX_CACHE`, else `mtls-operator-sandbox` in `$XDG_CACHE_HOME` or `~/.cache`. May not exist yet.
///
/// # Errors
/// [`Error::NoDirectory`].
pub fn directory() -> Result<PathBuf, Error> {
    // The XDG base directory specification has relative paths ignored; for our own variable they are as good
    // as any.
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

/// The folder `name` of the cache, built by `build` when it is not there yet. `name` says everything that the
/// content depends on (a version, a hash): another content is another name.
///
/// `build` gets an empty folder, which is renamed once it returns. So nothing in it may hold its own path: in
/// a Python venv, `bin/python -m pip` goes on working and `bin/pip` does not. Processes and threads that want
/// the same folder at the same time wait for the one that builds it. A build that was cut off, even by a
/// kill, is started again from nothing.
///
/// # Errors
/// [`Error::NoDirectory`], [`Error::Io`], and [`Error::Build`] with what `build` returned.
pub fn build_once<B>(name: &str, build: B) -> Result<PathBuf, Error>
where
    B: FnOnce(&Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
{
    build_once_in(&directory()?, name, build)
}

/// [`build_once`] in a cache directory other than the user's.
///
/// # Errors
/// As [`build_once`].
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
    // Held until the end of this function. The kernel frees it when the process dies, and children do not
    // inherit it.
    let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say(&format!("{name}: somebody else is building it, waiting for them"));
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
/// When it cannot be started or fails; the message has the end of its log.
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

/// A line for the person who waits. Past `eprintln!`, because tests catch what that prints until they end.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}"); // nobody is there to be told otherwise
}

/// The last line of a log that says something, cut to a screen's width: a `state` for [`run_reporting`].
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
    fn a_half_built_one_is_never_used() {
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
