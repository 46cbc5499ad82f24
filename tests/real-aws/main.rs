//! The main job on a real AWS account, and the assumptions of the AWS emulator, entry by entry. Without an
//! account named in the environment all of it runs against the AWS emulator, so that it works on the day when
//! there is an account. docs/real-aws.md says how; nothing is left behind.

mod account;
mod assumptions;
mod credentials;
mod leftovers;
mod scenarios;

use std::panic::{AssertUnwindSafe, resume_unwind};

use account::Account;
use assumptions::Findings;
use futures::FutureExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_and_every_assumption() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let account = Account::open(dir.path()).await;
    println!("{}", account.place());
    leftovers::remove(&account).await; // of a run that was killed
    let mut findings = Findings::default();
    let ended = AssertUnwindSafe(scenarios::all(&account, &mut findings))
        .catch_unwind()
        .await;
    leftovers::remove(&account).await;
    let left = leftovers::find(&account).await;
    let summary = findings.print();
    println!("real-aws {summary} leftovers={}", left.len());
    let failures = ended.unwrap_or_else(|panic| resume_unwind(panic));
    assert_eq!(left, Vec::<leftovers::Leftover>::new());
    findings.hold();
    assert_eq!(failures, [""; 0]);
    if let Some(taken) = account.credentials_taken() {
        assert!(taken > 1, "the operator never renewed its credentials");
    }
}
