//! Child processes: each with its own log file, none outliving the sandbox. The only file of the workspace
//! with unsafe code.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Number of log lines in an error.
const TAIL: usize = 20;

/// Time limit of one readiness check.
const POLL: Duration = Duration::from_secs(5);

/// Failure to start a process, or to become ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be executed at all.
    #[error("cannot start {name} ({program})")]
    Start {
        name: String,
        program: String,
        #[source]
        source: io::Error,
    },
    /// The log file could not be created.
    #[error("cannot open the log {path}")]
    Log {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The process ended during the wait.
    #[error("{name} ended ({status}); the end of {log}:\n{tail}", log = log.display())]
    Ended {
        name: String,
        status: ExitStatus,
        log: PathBuf,
        tail: String,
    },
    /// The process runs, but did not become ready in time.
    #[error("{name} is not ready after {waited:?}: {what}; the end of {log}:\n{tail}", log = log.display())]
    Deadline {
        name: String,
        what: String,
        waited: Duration,
        log: PathBuf,
        tail: String,
    },
    /// The operating system refused to return the state of the process, or to signal it.
    #[error("cannot control {name}")]
    Control {
        name: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// True when the process ended because another process took its port between [`free_port`] and its own
    /// bind.
    #[must_use]
    pub fn is_port_taken(&self) -> bool {
        let in_use = "address already in use";
        matches!(self, Self::Ended { tail, .. } if tail.to_ascii_lowercase().contains(in_use))
    }
}

/// Running child. Dropping it kills it and its process group; so does every end of this process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` without input and with both outputs appended to `log`. `name` is its name in errors.
    ///
    /// The child leads its own process group, so Ctrl-C in the terminal reaches only the sandbox, which then
    /// stops the world in order.
    ///
    /// # Errors
    /// [`Error::Log`] and [`Error::Start`].
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self, Error> {
        let output = append_to(log)?;
        let errors = output.try_clone().map_err(|source| Error::Log {
            path: log.into(),
            source,
        })?;
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = spawn(command).map_err(|source| Error::Start {
            name: name.into(),
            program,
            source,
        })?;
        Ok(Self {
            name: name.into(),
            child,
            log: log.into(),
        })
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the path of the log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns the exit status, or `None` while the process runs.
    ///
    /// # Errors
    /// [`Error::Control`].
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(|source| Error::Control {
            name: self.name.clone(),
            source,
        })
    }

    /// Waits until `ready` returns true. `what` completes "not ready after 30s: ...".
    ///
    /// # Errors
    /// [`Error::Ended`] as soon as the child has ended, [`Error::Deadline`] after `deadline`.
    pub async fn wait_until<F, Fut>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut ready: F,
    ) -> Result<(), Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = bool>,
    {
        let start = Instant::now();
        loop {
            // In this order, so that the readiness of another process does not count for a dead child.
            if let Some(status) = self.ended()? {
                return Err(self.ended_error(status));
            }
            // One check may hang (another process has the port and sends nothing): the child is then checked
            // again.
            let left = deadline.saturating_sub(start.elapsed()).min(POLL);
            if tokio::time::timeout(left, ready()).await.unwrap_or(false) {
                return Ok(());
            }
            if start.elapsed() >= deadline {
                let (name, log) = (self.name.clone(), self.log.clone());
                return Err(Error::Deadline {
                    name,
                    what: what.into(),
                    waited: deadline,
                    tail: tail(&log),
                    log,
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for the end of the child; calls `tick` about every 200 ms until then.
    ///
    /// # Errors
    /// [`Error::Ended`] unless the child ended with 0, [`Error::Control`].
    pub fn finish(mut self, mut tick: impl FnMut()) -> Result<(), Error> {
        loop {
            match self.ended()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.ended_error(status)),
                None => std::thread::sleep(Duration::from_millis(200)),
            }
            tick();
        }
    }

    /// Sends SIGTERM, and waits for the end, for at most `grace`; sends SIGKILL after that.
    ///
    /// # Errors
    /// [`Error::Deadline`] when the process had to be killed, [`Error::Control`].
    pub async fn stop(mut self, grace: Duration) -> Result<ExitStatus, Error> {
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if start.elapsed() > grace {
                let what = "it did not end on SIGTERM and was killed".to_owned();
                let (name, log) = (self.name.clone(), self.log.clone());
                return Err(Error::Deadline {
                    name,
                    what,
                    waited: grace,
                    tail: tail(&log),
                    log,
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills the whole process group with SIGKILL, as `drop` does; returns once the child is gone.
    pub fn kill(self) {}

    fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        // Only while the child has not been reaped: after that the id may belong to another process.
        if self.ended()?.is_some() {
            return Ok(());
        }
        rustix::process::kill_process(Pid::from_child(&self.child), signal).map_err(|errno| Error::Control {
            name: self.name.clone(),
            source: errno.into(),
        })
    }

    fn ended_error(&self, status: ExitStatus) -> Error {
        Error::Ended {
            name: self.name.clone(),
            status,
            log: self.log.clone(),
            tail: tail(&self.log),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Kills the group, because children of the child (a Lambda's interpreter) would stay otherwise. A
            // failure means that the group is gone.
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Returns a TCP port of 127.0.0.1 that is free now. Another process may take it before its use: the caller
/// tries again with another port when [`Error::is_port_taken`].
///
/// # Errors
/// No socket can be bound to the loopback address.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Returns the last lines of a log, for an error message.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

fn append_to(log: &Path) -> Result<File, Error> {
    let opened = OpenOptions::new().create(true).append(true).open(log);
    opened.map_err(|source| Error::Log {
        path: log.into(),
        source,
    })
}

/// Spawns a child on a thread that lives as long as this process: the kernel sends the death signal when the
/// *thread* that spawned ends (prctl(2), PR_SET_PDEATHSIG), and threads of a test or of a runtime come and
/// go.
fn spawn(mut command: Command) -> io::Result<Child> {
    type Request = (Command, mpsc::SyncSender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Request>> = OnceLock::new();

    die_with_parent(&mut command);
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for (mut command, reply) in inbox {
                    // The caller has gone: the Child is dropped and dies with this process like the others.
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        requests
    });
    let (reply, answer) = mpsc::sync_channel(1);
    spawner
        .send((command, reply))
        .expect("the spawner's inbox lives in a static, so it never ends");
    answer.recv().expect("the spawner answers every request")
}

/// Asks the kernel to SIGKILL the child when its parent dies, `kill -9` included.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let parent = Pid::from_raw(std::process::id().cast_signed());
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe calls are allowed. It
    // makes two system calls without allocating or locking, and touches nothing but the captured integer.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above; then the kernel would never send the signal.
            if rustix::process::getppid() == parent {
                Ok(())
            } else {
                Err(io::ErrorKind::NotConnected.into())
            }
        });
    }
}

/// Does nothing: only Linux has a parent death signal; elsewhere children end when the [`Process`] is
/// dropped.
#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}
