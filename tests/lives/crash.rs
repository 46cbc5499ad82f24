//! The operator is killed (SIGKILL) at every AWS call of a whole life that changes something, once before AWS has done it and once after: the next
//! one finds its way from what is there, and the life ends as it does undisturbed. Nothing is there twice, and nothing is left over.
use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use sandbox::control::{Fault, When};

use crate::{
    story::{self, Told},
    world::{Life, run},
};

/// Lives at a time: each mostly waits.
const AT_ONCE: usize = 6;

#[test]
fn killed_at_any_call_that_changes_something_the_next_operator_goes_on() {
    run(async {
        let mut life = Life::start("unkilled").await;
        story::prepare(&life).await;
        let mark = life.mark().await;
        let told = story::tell(&mut life, None).await;
        let calls = story::calls(&life, mark).await;
        // The how manieth call of its operation each is.
        let mut counts = BTreeMap::<String, u64>::new();
        let writes = calls.into_iter().filter(|call| call.write).map(|call| {
            let count = counts.entry(call.operation.clone()).or_default();
            *count += 1;
            (call.operation, *count - 1)
        });
        let writes: Vec<_> = writes.collect();
        let points: Vec<_> = writes.iter().flat_map(|write| [(write, When::Before), (write, When::After)]).collect();
        let lives = points.iter().map(|((operation, skip), when)| killed_at(operation, *skip, *when, &told));
        stream::iter(lives).buffer_unordered(AT_ONCE).collect::<()>().await;
        println!("crashes points={0} converged={0} leaked=0", points.len());
    });
}

async fn killed_at(operation: &str, skip: u64, when: When, expected: &Told) {
    let mut life = Life::start("killed").await;
    story::prepare(&life).await;
    let point = format!("killed {when:?} {operation} number {}", skip + 1);
    let account = life.account.id.clone();
    let hold = Fault { operation, account: &account, skip, when, hold: true, ..Fault::default() };
    let rule = life.control().add_faults(&[hold]).await.expect("the double takes it").remove(0).id;
    let told = story::tell(&mut life, Some(rule)).await;
    assert!(story::was_killed(&life, rule).await, "{point}: there was no such call");
    assert_eq!(told.served, expected.served, "{point}");
    assert_eq!(told.left, expected.left, "{point}");
    life.operator.kill();
}
