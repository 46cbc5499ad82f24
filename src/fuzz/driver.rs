//! Fuzzing without a nightly compiler: runs each check on its corpus and on random changes of it, and keeps
//! an input whose outcome is new, to change it further. `FUZZ_SECONDS` sets the time of each check (2 unless
//! set), `FUZZ_SEED` repeats a run. A failing input is stored where cargo-fuzz stores its own.

use std::{
    collections::HashSet,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use sha2::{Digest, Sha256};

use super::{
    CHECKS, csr,
    mutation::{Requests, mutated},
};

/// Longest time of one input. A check that takes longer is one that holds up the operator.
const MAX_TIME: Duration = Duration::from_secs(10);
/// Most inputs that a run keeps.
const MAX_POOL: usize = 2000;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Returns the stored inputs of a check.
pub(crate) fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz_folder().join("corpus").join(name);
    let mut all: Vec<_> = fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a file"))
        })
        .collect();
    all.sort();
    all
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok().map(|value| {
        let parsed = value.parse().ok();
        parsed.unwrap_or_else(|| panic!("{name}: {value} is no number"))
    })
}

/// Run of one check.
struct Run {
    check: fn(&[u8]) -> String,
    pool: Vec<Vec<u8>>,
    outcomes: HashSet<String>,
    /// Input of the moment, for the thread that waits for this one.
    current: Arc<Mutex<Vec<u8>>>,
    inputs: u64,
}

impl Run {
    /// Runs the check on one input.
    ///
    /// # Errors
    /// Says that the check panicked or took too long.
    fn input(&mut self, text: Vec<u8>) -> Result<(), &'static str> {
        self.inputs += 1;
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&text);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.check)(&text))).map_err(|_| "panicked")?;
        if start.elapsed() > MAX_TIME {
            return Err("took too long");
        }
        if self.outcomes.insert(outcome) && self.pool.len() < MAX_POOL {
            self.pool.push(text);
        }
        Ok(())
    }

    fn until(
        &mut self,
        end: Instant,
        rng: &mut Rng,
        requests: Option<&Requests>,
    ) -> Result<(), &'static str> {
        for text in self.pool.clone() {
            self.input(text)?;
        }
        while Instant::now() < end {
            let text = match requests {
                Some(requests) if rng.bool() => requests.request(rng),
                _ => mutated(rng, &self.pool),
            };
            self.input(text)?;
        }
        Ok(())
    }
}

/// Runs a check for this time. Returns the number of inputs and of outcomes.
///
/// # Errors
/// Names the file in the folder that has the failing input.
fn fuzz(
    check: fn(&[u8]) -> String,
    corpus: Vec<Vec<u8>>,
    time: Duration,
    artifacts: &Path,
) -> Result<(u64, usize), String> {
    let seed = setting("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let current = Arc::default();
    let mut run = Run {
        check,
        pool: corpus,
        outcomes: HashSet::new(),
        current: Arc::clone(&current),
        inputs: 0,
    };
    let (tell, told) = mpsc::channel();
    // A thread of its own: the caller reports an input that never ends.
    thread::spawn(move || {
        let requests = (check as usize == csr as *const () as usize).then(Requests::new);
        let result = run.until(
            Instant::now() + time,
            &mut Rng::with_seed(seed),
            requests.as_ref(),
        );
        let _ = tell.send(result.map(|()| (run.inputs, run.outcomes.len())));
    });
    let ended = told.recv_timeout(time + 3 * MAX_TIME);
    ended.unwrap_or(Err("did not end")).map_err(|problem| {
        let input = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let digest: String = Sha256::digest(&input)[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let file = artifacts.join(format!("crash-{digest}"));
        let stored = fs::create_dir_all(artifacts).and_then(|()| fs::write(&file, input));
        format!(
            "the check {problem}; FUZZ_SEED={seed}; input in {}: {stored:?}",
            file.display()
        )
    })
}

/// Fuzzes one check, and prints what was done.
fn fuzzed(name: &str) {
    let (_, check) = CHECKS
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("a check");
    let corpus = corpus(name).into_iter().map(|(_, text)| text).collect();
    let time = Duration::from_secs(setting("FUZZ_SECONDS").unwrap_or(2));
    match fuzz(check, corpus, time, &fuzz_folder().join("artifacts").join(name)) {
        Ok((inputs, outcomes)) => println!("fuzz target={name} inputs={inputs} outcomes={outcomes}"),
        Err(error) => panic!("{name}: {error}"),
    }
}

#[test]
fn truststores_are_compiled() {
    fuzzed("compile");
}

#[test]
fn signing_requests_are_read() {
    fuzzed("csr");
}

#[test]
fn patterns_of_grants_match() {
    fuzzed("glob");
}

#[test]
fn pem_is_read() {
    fuzzed("pem");
}

#[test]
fn policies_are_read() {
    fuzzed("policy");
}

#[test]
fn truststores_are_read() {
    fuzzed("truststore");
}

/// Without the outcomes the driver would have to guess four bytes at once.
#[test]
fn a_failing_input_is_found_step_by_step_and_stored() {
    const WORD: &[u8] = b"/@\xff#";
    fn check(text: &[u8]) -> String {
        let same = text.iter().zip(WORD).take_while(|(a, b)| a == b).count();
        assert!(same < WORD.len(), "found");
        same.to_string()
    }
    let folder = tempfile::tempdir().expect("a folder");
    let error = fuzz(
        check,
        vec![b"abcdef".to_vec()],
        Duration::from_secs(60),
        folder.path(),
    )
    .unwrap_err();
    assert!(
        error.contains("the check panicked") && error.contains(": Ok(())"),
        "{error}"
    );
    let stored = fs::read_dir(folder.path()).expect("the folder is there").next();
    let stored = fs::read(stored.expect("a file").expect("a file").path()).expect("a file");
    assert!(stored.starts_with(WORD), "{stored:?}");
}

/// A changed request that its key signs gets behind the check of the signature.
#[test]
fn requests_are_signed_again() {
    let (requests, mut rng) = (Requests::new(), Rng::with_seed(1));
    let outcomes: Vec<_> = (0..200).map(|_| csr(&requests.request(&mut rng))).collect();
    let read = outcomes.iter().filter(|outcome| **outcome == "[1, 1, 1]").count();
    assert!(read > 20, "{outcomes:?}");
    let refused = outcomes
        .iter()
        .filter(|outcome| outcome.contains("cannot be certified"));
    assert!(refused.count() > 2, "{outcomes:?}");
}

/// cargo-fuzz has the same targets as the driver, with the same checks and the same corpora.
#[test]
fn every_check_is_a_target_of_cargo_fuzz() {
    let read = |name: &str| fs::read_to_string(fuzz_folder().join(name)).expect("the file can be read");
    let (manifest, script) = (read("Cargo.toml"), read("ten-minutes"));
    for (name, _) in CHECKS {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        let target = read(&format!("fuzz_targets/{name}.rs"));
        assert!(
            target.contains(&format!("mtls_operator::fuzz::{name}(text)")),
            "{name}"
        );
        assert!(!corpus(name).is_empty(), "{name}");
        assert!(script.contains(name), "{name}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), CHECKS.len());
}
