//! Order of environments on a machine of two cores: those of a test that measures time stand alone, all others
//! together.
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::sleep;

use super::world::POLL;

/// Environments that stand, and tests that measure time or wait for their turn.
struct Standing {
    shared: usize,
    alone: usize,
    /// True while no other environment may start.
    quiet: bool,
}

static STANDING: Mutex<Standing> = Mutex::new(Standing {
    shared: 0,
    alone: 0,
    quiet: false,
});

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn standing() -> MutexGuard<'static, Standing> {
    STANDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Place of one environment, until it is dropped.
pub enum Place {
    Shared,
    /// The whole machine.
    Alone {
        _turn: tokio::sync::MutexGuard<'static, ()>,
    },
}

impl Place {
    /// Waits while a test measures time. A test with an environment may start another one: it never waits for
    /// itself, since nothing is measured while its first environment stands.
    pub async fn shared() -> Place {
        loop {
            {
                let mut standing = standing();
                if !standing.quiet {
                    standing.shared += 1;
                    return Place::Shared;
                }
            }
            sleep(POLL).await;
        }
    }

    /// Waits until no other environment stands. The turn passes to the next test that measures time, if one
    /// waits.
    pub async fn alone() -> Place {
        standing().alone += 1;
        let turn = TURN.lock().await;
        loop {
            {
                let mut standing = standing();
                if standing.shared == 0 {
                    standing.quiet = true;
                    return Place::Alone { _turn: turn };
                }
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut standing = standing();
        match self {
            Place::Shared => standing.shared -= 1,
            Place::Alone { .. } => {
                standing.alone -= 1;
                standing.quiet = standing.alone > 0;
            }
        }
    }
}
