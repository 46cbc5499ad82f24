//! Half an hour in which everything happens at once ends with all of it as the specs say, nothing left over,
//! and no growth of the operator's memory. Not part of a normal run: `cargo test --test e2e -- --ignored soak
//! --nocapture`. `SOAK_MINUTES`, `SOAK_DOMAINS` and `SOAK_CERTIFICATES` change its size, `SOAK_SEED` repeats
//! a run.
use std::time::{Duration, Instant};

use crate::support::{
    partner_ca::Ca,
    soak_world::{PARTNERS, Soak},
    test_env::TestEnv,
    world::run,
};

/// Time between two kills.
const KILL: Duration = Duration::from_secs(60);

/// Maximum memory at the end, in relation to that of the warm process: more is a leak.
const GROWTH: f64 = 1.25;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

#[test]
#[ignore = "takes half an hour, see the module"]
fn everything_at_once_ends_in_the_desired_state() {
    run(async {
        let (minutes, domains) = (setting("SOAK_MINUTES", 30), setting("SOAK_DOMAINS", 200));
        let (certificates, seed) = (
            setting("SOAK_CERTIFICATES", 2_000),
            setting("SOAK_SEED", fastrand::u64(..)),
        );
        println!("SOAK_SEED={seed}");
        let env = TestEnv::start_with("soak", &[("MTLS_OPERATOR_DRIFT_INTERVAL", "20s")]).await;
        // An account's quota of custom domains, which can be raised, is 120.
        env.control()
            .set_knobs(&env.account.id, &[("domain_limit", 2.0 * domains as f64)])
            .await
            .expect("the emulator answers");
        let partners = (0..PARTNERS).map(|i| Ca::new(&format!("partner {i}"))).collect();
        let random = fastrand::Rng::with_seed(seed);
        let mut soak = Soak {
            env,
            random,
            partners,
            domains: [].into(),
            certificates: [].into(),
            created: 0,
        };
        soak.fill(domains as usize, certificates as usize).await;
        soak.settled().await;
        let (started, mut killed, mut sampled) = (Instant::now(), Instant::now(), Instant::now());
        let (mut edits, mut kills, mut memory) = (0, 0, vec![soak.memory()]);
        while started.elapsed() < Duration::from_secs(minutes * 60) {
            soak.something_happens().await;
            edits += 1;
            if killed.elapsed() > KILL {
                soak.env.operator.kill();
                soak.env.operator.restart().expect("the operator starts again");
                (killed, kills) = (Instant::now(), kills + 1);
            }
            // The process is warm again, and the next kill is still to come.
            if sampled.elapsed() > KILL && killed.elapsed() > KILL / 2 {
                memory.push(soak.memory());
                sampled = Instant::now();
                println!(
                    "{:>4} s: {edits} edits, {kills} kills, {:.0} MiB",
                    started.elapsed().as_secs(),
                    memory[memory.len() - 1]
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for fault in soak.env.control().faults().await.expect("the emulator answers") {
            soak.env
                .control()
                .remove_fault(fault.id)
                .await
                .expect("the emulator answers");
        }
        let settled = soak.settled().await;
        soak.becomes_as_desired().await;
        memory.push(soak.memory());
        println!(
            "soak minutes={minutes} domains={} certs={} edits={edits} kills={kills} settled_s={:.0} \
             rss_mib={:.0}..{:.0}",
            soak.domains.len(),
            soak.certificates.len(),
            settled.as_secs_f64(),
            memory[0],
            memory[memory.len() - 1]
        );
        assert!(
            memory[memory.len() - 1] < memory[0] * GROWTH,
            "memory grows: {memory:?} MiB"
        );
    });
}
