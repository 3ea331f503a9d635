//! `watch = true`: the daemon loads by itself what was edited and has held still.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::common::check::{assert_backed_up, await_caught_up};
use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::numbered;
use crate::common::{SOON, beside_others, wait_until};

fn generation(daemon: &Daemon) -> f64 {
    daemon.metric("kafka_backup_config_generation", &[])
}

fn reloads(daemon: &Daemon, result: &str) -> f64 {
    daemon.metric("kafka_backup_config_reloads_total", &[&format!("result=\"{result}\"")])
}

fn standing(env: &Env) -> Value {
    let status: Value = serde_json::from_str(&env.tell(&["status", "--json"]).stdout).unwrap();
    status["config"].clone()
}

#[test]
fn what_was_edited_is_loaded_when_it_has_held_still() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let [stays, comes] = ["watched", "dropped-in"].map(|name| kafka.topic(name, 1, &[]));
    let env = Env::new().set("watch = true\nwatch_settle = \"2s\"");
    let env = env.job("stays", &[&stays], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();

    // Written in pieces, each of which would be a valid configuration of its own, with less than 2 s between them.
    let mut file = std::fs::File::create(env.job_file("comes")).unwrap();
    write!(file, "topics = [{comes:?}]\nrotate_interval = \"1s\"\nflush_size = 1").unwrap();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(generation(&daemon), 1.0, "half-written");
        write!(file, "0").unwrap();
    }
    drop(file);
    daemon.await_metric("kafka_backup_config_generation", &[], 2.0);
    let shown = |job: &str| env.tell(&["config", "show", "--job", job]).stdout;
    assert!(shown("comes").contains("flush_size = 10000000000 "), "{}", shown("comes"));
    assert_eq!((reloads(&daemon, "applied"), reloads(&daemon, "rejected")), (1.0, 0.0), "it was loaded once, whole");
    kafka.produce(&comes, 0, &numbered(0..10, 10));
    await_caught_up(&kafka, &env.bucket, &comes);
    assert_backed_up(&kafka, &env.bucket, &comes);
    assert_eq!(standing(&env)["last_reload"]["result"], "applied");

    // What is refused is said once, everywhere, and not tried again.
    std::fs::write(env.job_file("bad"), "topcs = []\n").unwrap();
    daemon.await_metric("kafka_backup_config_reloads_total", &["result=\"rejected\""], 1.0);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!((reloads(&daemon, "rejected"), generation(&daemon)), (1.0, 2.0));
    assert_eq!(daemon.metric("kafka_backup_config_last_reload_successful", &[]), 0.0);
    assert_eq!(daemon.metric("kafka_backup_config_drift", &[]), 1.0);
    assert!(standing(&env)["last_reload"]["text"].as_str().unwrap().contains("bad.toml:1:1: topcs"));
    let said = |line: &&str| line.contains("reload rejected: ") && line.contains("topcs: unknown key");
    assert_eq!(daemon.log().lines().filter(said).count(), 1, "{}", daemon.log());

    // Edited again, it is tried again; mended, it runs.
    std::fs::write(env.job_file("bad"), "topcs = []\ntopics = 1\n").unwrap();
    daemon.await_metric("kafka_backup_config_reloads_total", &["result=\"rejected\""], 2.0);
    std::fs::remove_file(env.job_file("bad")).unwrap();
    wait_until("what runs to be what stands there", SOON, || {
        daemon.metric("kafka_backup_config_drift", &[]) == 0.0 && standing(&env)["drift"].is_null()
    });
    // A guard is a guard here, too.
    std::fs::remove_file(env.job_file("comes")).unwrap();
    std::fs::remove_file(env.job_file("stays")).unwrap();
    daemon.await_metric("kafka_backup_config_reloads_total", &["result=\"rejected\""], 3.0);
    assert!(standing(&env)["last_reload"]["text"].as_str().unwrap().contains("2 of 2 jobs would be removed"));
    kafka.produce(&stays, 0, &numbered(0..10, 10));
    await_caught_up(&kafka, &env.bucket, &stays);
    assert!(daemon.stop().success());
}

#[test]
fn watching_is_switched_on_and_off_by_a_reload() {
    let _turn = beside_others();
    let env = Env::new().set("watch_settle = \"1s\"");
    let daemon = env.daemon().ready();
    let main = env.tree().join("kafka-backup.toml");
    let text = std::fs::read_to_string(&main).unwrap();
    let edit = |lines: &str| std::fs::write(&main, format!("{lines}\n{text}")).unwrap();

    // Off, as it is by default: nothing is loaded that nobody asked for.
    edit("rejected = 1");
    std::thread::sleep(Duration::from_secs(5));
    assert!(daemon.metric("kafka_backup_config_reloads_total", &[]) == 0.0);
    edit("watch = true");
    let on = env.tell(&["reload"]);
    assert!(on.stdout.contains("~ main file: watch false -> true\n"), "{on:?}");
    edit("watch = true\nstrict_reload = true");
    daemon.await_metric("kafka_backup_config_generation", &[], 3.0);
    daemon.await_log("the files have changed and held still");
    edit("watch = false");
    daemon.await_metric("kafka_backup_config_generation", &[], 4.0);
    edit("strict_reload = true");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(generation(&daemon), 4.0, "it is off again");
}

/// Whoever deploys rewrites two files that belong together, again and again, first one and then the other, while reloads
/// are asked for. What is loaded stood there at one moment, or nothing is: both of one version, or the first one ahead by
/// one. Read one after another they could be of any two versions.
#[test]
fn what_is_rewritten_all_the_time_is_loaded_whole_or_refused() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let [first, second] = ["rewritten-1", "rewritten-2"].map(|name| kafka.topic(name, 1, &[]));
    let text = |topic: &str, version: u64| format!("topics = [{topic:?}]\nrpo_target = \"{}s\"\n", 1_000 + version);
    let env = Env::new().job("first", &[&first], "rpo_target = \"1000s\"\n");
    let env = env.job("second", &[&second], "rpo_target = \"1000s\"\n");
    let daemon = env.daemon().ready();
    let target = |job: &str| daemon.metric("kafka_backup_job_rpo_target_seconds", &[&format!("backup_job={job:?}")]);
    let (pause_ms, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut applied, mut refused) = (0, 0);
    let mut ask = || {
        let said = env.tell(&["reload"]);
        match said.code() {
            0 => applied += 1,
            _ => {
                said.fails_with(75, &["the files of the configuration change while they are read"]);
                refused += 1;
            }
        }
        let (first, second) = (target("first"), target("second"));
        assert!(first == second || first == second + 1.0, "{first} and {second} never stood there together");
    };
    let last = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for version in 1_u64.. {
                for (job, topic) in [("first", &first), ("second", &second)] {
                    let aside = env.path("aside");
                    std::fs::write(&aside, text(topic, version)).unwrap();
                    std::fs::rename(&aside, env.job_file(job)).unwrap();
                    std::thread::sleep(Duration::from_millis(pause_ms.load(Ordering::Relaxed)));
                }
                if done.load(Ordering::Relaxed) {
                    return version;
                }
            }
            0
        });
        // Also when an assertion fails, or the scope would never end.
        let _end = Ends(&done);
        (0..5).for_each(|_| ask());
        pause_ms.store(40, Ordering::Relaxed);
        (0..15).for_each(|_| ask());
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(refused > 0, "nothing moved while it was read: {applied} reloads were applied");
    env.tell(&["reload"]).fails_with(0, &[]);
    assert_eq!((target("first"), target("second")), ((1_000 + last) as f64, (1_000 + last) as f64));
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
