//! Order of environments on a machine of two cores: the environment of a test that measures time runs alone,
//! all others run at the same time.
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::sleep;

use super::world::POLL;

/// Environments that run at the same time, and tests that measure time or wait for it.
struct Counts {
    shared: usize,
    alone: usize,
    /// True while no other environment may start.
    exclusive: bool,
}

static COUNTS: Mutex<Counts> = Mutex::new(Counts {
    shared: 0,
    alone: 0,
    exclusive: false,
});

static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn counts() -> MutexGuard<'static, Counts> {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Share of the machine that an environment has until it is dropped.
pub enum Share {
    Shared,
    /// The whole machine.
    Alone {
        _turn: tokio::sync::MutexGuard<'static, ()>,
    },
}

impl Share {
    /// Waits while a test measures time. A test with an environment may start another one: it never waits for
    /// itself, since no test measures while the first environment runs.
    pub async fn shared() -> Share {
        loop {
            {
                let mut counts = counts();
                if !counts.exclusive {
                    counts.shared += 1;
                    return Share::Shared;
                }
            }
            sleep(POLL).await;
        }
    }

    /// Waits until no other environment runs. The turn passes to the next test that measures time, if one
    /// waits.
    pub async fn alone() -> Share {
        counts().alone += 1;
        let turn = TURN.lock().await;
        loop {
            {
                let mut counts = counts();
                if counts.shared == 0 {
                    counts.exclusive = true;
                    return Share::Alone { _turn: turn };
                }
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = counts();
        match self {
            Share::Shared => counts.shared -= 1,
            Share::Alone { .. } => {
                counts.alone -= 1;
                counts.exclusive = counts.alone > 0;
            }
        }
    }
}
