//! A reload looks whether new clusters and stores can be reached: a warning, or with `strict_reload` the end of it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::check::await_caught_up;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::numbered;
use crate::common::{SOON, beside_others, stack, wait_until};

/// A job on a cluster and a store where nobody listens.
const NOWHERE: &str = "topics = [\"t\"]\nkafka = { bootstrap_servers = [\"127.0.0.1:9\"] }\n\
                       storage = { bucket = \"b\", endpoint = \"http://127.0.0.1:9\", path_style = true }\n";

fn make_strict(env: &Env, strict: bool) {
    let main = env.tree().join("kafka-backup.toml");
    let text = std::fs::read_to_string(&main).unwrap().replace("strict_reload = true\n", "");
    std::fs::write(&main, if strict { format!("strict_reload = true\n{text}") } else { text }).unwrap();
}

#[test]
fn an_unreachable_new_target_is_a_warning_and_with_strict_reload_an_error() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("strict", 1, &[]);
    let env = Env::new().job("stays", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    await_caught_up(&kafka, &env.bucket, &topic);

    // Strict: both are named, nothing is changed, what runs goes on.
    make_strict(&env, true);
    std::fs::write(env.job_file("lost"), NOWHERE).unwrap();
    let began = Instant::now();
    let named = ["lost.toml: kafka: 127.0.0.1:9: ", "lost.toml: storage: http://127.0.0.1:9: ", "strict_reload"];
    env.tell(&["reload", "--dry-run"]).fails_with(78, &named);
    env.tell(&["reload"]).fails_with(78, &[&named[..], &["what ran goes on running"]].concat());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(daemon.metric("kafka_backup_config_generation", &[]), 1.0);
    assert_eq!(daemon.metric("kafka_backup_config_last_reload_successful", &[]), 0.0);
    kafka.produce(&topic, 0, &numbered(10..20, 10));
    await_caught_up(&kafka, &env.bucket, &topic);

    // Not strict: the same is applied, and said.
    make_strict(&env, false);
    let report: Value = serde_json::from_str(&env.tell(&["reload", "--json"]).stdout).unwrap();
    assert_eq!((&report["result"], &report["generation"]), (&"applied".into(), &2.into()), "{report:#}");
    let warnings: Vec<&str> = report["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let about = |key: &str| warnings.iter().any(|warning| warning.contains(&format!("lost.toml: {key}: ")));
    assert!(warnings.len() == 2 && about("kafka") && about("storage"), "{report:#}");
    assert!(env.tell(&["reload", "--last"]).stdout.contains("warning: "));
    daemon.await_log("reload: a new target cannot be reached");
    let state = || -> Value {
        let status: Value = serde_json::from_str(&env.tell(&["status", "--json"]).stdout).unwrap();
        status["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|job| job["job"] == "lost")
            .map(|job| job["state"].clone())
            .into()
    };
    wait_until("the new job to be there, and degraded", SOON, || state() == "degraded");

    // What runs already is no new target, however it is: strict reloads are possible during an outage.
    make_strict(&env, true);
    let text = std::fs::read_to_string(env.job_file("lost")).unwrap();
    std::fs::write(env.job_file("lost"), format!("{text}flush_size = 17\n")).unwrap();
    let report = env.tell(&["reload"]);
    assert!(report.stdout.contains("flush_size 100000 -> 17\n"), "{report:?}");
    assert!(report.stdout.contains("applied generation 3") && !report.stdout.contains("warning"), "{report:?}");
    // And a new one that can be reached passes.
    let there = format!("topics = [{topic:?}]\nkafka = {{ bootstrap_servers = [{:?}] }}\n", stack::kafka_bootstrap());
    let elsewhere = env.path("folder");
    std::fs::create_dir(&elsewhere).unwrap();
    let there = format!("{there}storage = {{ type = \"file\", path = {elsewhere:?} }}\ngroup_id = \"{topic}\"\n");
    std::fs::write(env.job_file("reached"), there).unwrap();
    let report = env.tell(&["reload"]);
    assert!(report.stdout.contains("+ reached\n") && !report.stdout.contains("warning"), "{report:?}");
}
