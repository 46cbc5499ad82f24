//! The local world that all tests of this binary share, and waiting for a condition with a deadline.
use std::{
    fs::File,
    path::PathBuf,
    sync::LazyLock,
    time::{Duration, Instant},
};

use sandbox::{aws::Options, world::World};
use tokio::runtime::Runtime;

/// Maximum time of any step, on a machine that does much else.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Interval between two checks of a condition. On two cores, more frequent checks slow down the processes
/// under test.
pub const POLL: Duration = Duration::from_millis(200);

/// The world, on a runtime that outlives every test: its edge and DNS server run there.
pub static WORLD: LazyLock<(World, Runtime, File)> = LazyLock::new(|| {
    std::thread::spawn(|| {
        let runtime = Runtime::new().expect("threads can be started");
        let (dir, lock) = folder().expect("a temporary folder");
        let world = runtime.block_on(async {
            let world = World::start(
                &dir,
                &Options {
                    node: true,
                    ..Options::default()
                },
            )
            .await
            .expect("the local world stands");
            let crds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds");
            world
                .kubernetes
                .install_crds(&crds)
                .await
                .expect("the CRDs can be installed");
            world
        });
        (world, runtime, lock)
    })
    .join()
    .expect("the world starts")
});

/// Creates a folder for the world, which stays with its logs until the next run, and removes those of earlier
/// runs. The folder is locked while this process lives.
pub fn folder() -> std::io::Result<(PathBuf, File)> {
    const PREFIX: &str = "mtls-e2e-";
    for other in std::env::temp_dir().read_dir()?.flatten() {
        let lock = File::open(other.path().join("lock"));
        if other.file_name().to_string_lossy().starts_with(PREFIX) && lock.is_ok_and(|l| l.try_lock().is_ok())
        {
            std::fs::remove_dir_all(other.path())?;
        }
    }
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep();
    let lock = File::create(dir.join("lock"))?;
    lock.lock()?;
    Ok((dir, lock))
}

/// Runs a test on the runtime of the world, so that no connection that another test uses ends with this one.
pub fn run(test: impl Future<Output = ()>) {
    WORLD.1.block_on(Box::pin(test));
}

pub fn world() -> &'static World {
    &WORLD.0
}

/// Repeats the check until it succeeds; panics with its last error when it takes too long.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match check().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > DEADLINE => {
                panic!(
                    "{what}: not within {DEADLINE:?}; logs are in {}; last seen: {seen}",
                    world().dir.display()
                )
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
