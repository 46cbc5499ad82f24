//! Programs that the sandbox needs on the machine besides Rust, checked before any long build starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt};

/// Missing programs. The message names each program and the one line that installs all of them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Missing(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    name: &'static str,
    why: &'static str,
    packages: &'static str,
}

const PROGRAMS: [Requirement; 5] = [
    Requirement {
        name: "cc",
        why: "compiles aws-lc and OpenSSL",
        packages: "gcc libc6-dev",
    },
    Requirement {
        name: "make",
        why: "compiles OpenSSL",
        packages: "make",
    },
    Requirement {
        name: "perl",
        why: "compiles OpenSSL",
        packages: "perl",
    },
    Requirement {
        name: "curl",
        why: "the calls that the demo shows",
        packages: "curl",
    },
    Requirement {
        name: "openssl",
        why: "the tests compare with it",
        packages: "openssl",
    },
];
const PYTHON: Requirement = Requirement {
    name: "python3 3.10 or newer with venv",
    why: "the AWS emulator runs on it",
    packages: "python3 python3-venv",
};

/// Checks all requirements.
///
/// # Errors
/// [`Missing`] when at least one program is missing.
pub fn check() -> Result<(), Missing> {
    let mut missing: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|program| on_path(program.name).is_none())
        .collect();
    if !python_is_good() {
        missing.push(PYTHON);
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Missing(missing))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "missing on this machine:")?;
        for Requirement { name, why, .. } in &self.0 {
            writeln!(f, "  {name} ({why})")?;
        }
        let packages: Vec<_> = self.0.iter().map(|requirement| requirement.packages).collect();
        write!(
            f,
            "on Debian and Ubuntu:\n  sudo apt-get install -y {}",
            packages.join(" ")
        )
    }
}

/// Returns the first executable of that name on PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| is_executable(path))
}

pub(crate) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn python_is_good() -> bool {
    // Debian's python3 has `venv` but not the required `ensurepip` until python3-venv is installed.
    let script = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
    let run = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_could_build_this_has_everything() {
        assert_eq!(check(), Ok(()));
        assert_eq!(on_path("no-such-program"), None);
    }

    #[test]
    fn the_message_has_one_line_that_installs_everything() {
        let message = Missing(vec![PROGRAMS[0].clone(), PYTHON]).to_string();
        assert_eq!(
            message.lines().last().unwrap(),
            "  sudo apt-get install -y gcc libc6-dev python3 python3-venv"
        );
        assert!(message.contains("cc (compiles aws-lc and OpenSSL)"), "{message}");
    }
}
