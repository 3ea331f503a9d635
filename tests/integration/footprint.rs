//! What a daemon costs that has many jobs and nothing to do.

use std::time::Duration;

use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::{SOON, beside_others, unique, wait_until};

const JOBS: usize = 200;
/// What is allowed is 150 MB of resident memory. Of these the program itself, which is mapped from its file, takes 20 when
/// it is optimised and 40 as it is here; so this is what is left for everything else.
const ANONYMOUS: u64 = 130_000_000;
/// How often a thread of the daemon wakes up, for each job and second: 2.9 were measured.
const WAKEUPS: f64 = 5.0;
/// Of one core. Optimised it is 2 %; not optimised, on a machine that is busy with other things, 4 % were measured.
const CPU: f64 = 0.10;

/// Wake-ups per job and second and share of a core, over a while.
fn cost(daemon: &Daemon) -> (f64, f64) {
    let before = daemon.usage();
    std::thread::sleep(Duration::from_secs(8));
    let after = daemon.usage();
    let seconds = (after.at - before.at).as_secs_f64();
    let wakeups = after.wakeups.saturating_sub(before.wakeups) as f64 / seconds / JOBS as f64;
    (wakeups, (after.cpu - before.cpu).as_secs_f64() / seconds)
}

#[test]
fn two_hundred_quiet_jobs_cost_little() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let names: Vec<String> = (0..JOBS).map(|_| unique("quiet")).collect();
    kafka.create_topics(&names);
    let env = names.iter().fold(Env::new(), |env, name| env.job(name, &[name], ""));
    let daemon = env.daemon().ready();
    let protected = || {
        let (_, text) = daemon.get("/metrics").unwrap_or_default();
        let series = text.lines().filter(|line| line.starts_with("kafka_backup_topic_protected_timestamp_seconds{"));
        series.filter(|line| !line.ends_with(" 0")).count()
    };
    wait_until("all jobs to have their partition and to know that all is safe", SOON, || protected() == JOBS);
    // What belongs to the start may still be going on, and what else the machine does makes everything slower: one quiet
    // moment is enough. A loop that polls has none.
    let mut costs = Vec::new();
    let is_quiet = |(wakeups, cpu): &(f64, f64)| *wakeups < WAKEUPS && *cpu < CPU;
    while costs.len() < 4 && !costs.iter().any(is_quiet) {
        costs.push(cost(&daemon));
    }
    let (anonymous, resident) = (daemon.anonymous_memory(), daemon.memory());
    eprintln!("{anonymous} of {resident} bytes anonymous; wake-ups per job and second, share of a core: {costs:.3?}");
    assert_eq!(daemon.metric("kafka_backup_jobs", &["state=\"running\""]), JOBS as f64);
    assert!(costs.iter().any(is_quiet), "{costs:?}");
    assert!(anonymous < ANONYMOUS, "{anonymous} bytes");
    assert!(daemon.stop().success());
    kafka.delete_topics(&names);
}
