//! The operator restores what another writer changed by exactly the writes that this takes, or reports it,
//! and touches nothing else. A lost CA key is no drift: the operator puts no other key in its place.
use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    pin::Pin,
};

use futures::{FutureExt, future::join_all};

use super::{apis, cluster, domain, records, storage, table::Figures};
use crate::support::world::run;

#[test]
fn a_change_is_corrected_or_reported_and_nothing_else_is_touched() {
    run(async {
        let tables: [Pin<Box<dyn Future<Output = Figures>>>; 5] = [
            Box::pin(domain::rows()),
            Box::pin(records::rows()),
            Box::pin(apis::rows()),
            Box::pin(storage::rows()),
            Box::pin(cluster::rows()),
        ];
        // All of them run to their end, so that one run reports every fault.
        let ends = join_all(tables.map(|env| AssertUnwindSafe(env).catch_unwind())).await;
        let all: Vec<_> = ends
            .into_iter()
            .map(|end| end.unwrap_or_else(|why| resume_unwind(why)))
            .collect();
        let sum = |of: fn(&Figures) -> usize| all.iter().map(of).sum::<usize>();
        println!(
            "drift rows={} repaired={} reported={} foreign_touched={}",
            sum(|f| f.rows),
            sum(|f| f.corrected),
            sum(|f| f.reported),
            sum(|f| f.not_owned_touched)
        );
    });
}
