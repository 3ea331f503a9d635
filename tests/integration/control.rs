//! The control socket of a running daemon, from the command line: status, flush, pause and resume.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::Value;

use crate::common::check::{await_caught_up, covered};
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::{SOON, beside_others, stack, wait_until};

/// The status document, or nothing while the daemon does not answer.
fn status(env: &Env) -> Value {
    let output = env.tell(&["status", "--json"]);
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", output.stdout, output.stderr))
}

fn state(env: &Env, job: &str) -> String {
    let output = env.tell(&["status", "--json", "--job", job]);
    let document: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    document["jobs"][0]["state"].as_str().unwrap_or_default().to_owned()
}

#[rstest]
#[case(&["status"])]
#[case(&["status", "--json"])]
#[case(&["flush", "a"])]
#[case(&["pause", "a"])]
#[case(&["resume", "a"])]
fn without_a_daemon_commands_say_so(#[case] args: &[&str]) {
    let env = Env::new();
    env.kafka_backup(&["config", "show"]); // writes the files
    env.tell(args).fails_with(69, &["no daemon listens at", "control.sock"]);
}

#[test]
fn status_tells_how_everything_is() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("status", 2, &[]);
    let env = Env::new().job("status", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    await_caught_up(&kafka, &env.bucket, &topic);
    wait_until("the job to be protected", SOON, || status(&env)["jobs"][0]["protected_ms"].is_number());

    let document = status(&env);
    let job = &document["jobs"][0];
    assert_eq!((job["state"].as_str(), job["job"].as_str()), (Some("running"), Some("status")), "{document:#}");
    assert_eq!(job["partitions"].as_array().map(Vec::len), Some(2), "{document:#}");
    assert_eq!((&document["ok"], &document["config"]["generation"]), (&Value::from(true), &Value::from(1)));
    assert!(job["last_commit_ms"].is_number(), "{document:#}");

    let text = env.tell(&["status"]);
    assert_eq!(text.code(), 0, "{}", text.stdout);
    assert!(text.stdout.contains("generation 1") && text.stdout.contains("running"), "{}", text.stdout);
    env.tell(&["status", "--job", "stats"]).fails_with(10, &["there is no job \"stats\"", "status"]);
    // The document over HTTP is the same one.
    let served: Value = serde_json::from_str(&daemon.get("/-/status").unwrap().1).unwrap();
    assert_eq!(served["jobs"][0]["began_ms"], job["began_ms"]);
    assert!(daemon.stop().success());
    assert!(!env.tree().join("control.sock").exists(), "the socket goes with the daemon");
}

/// Again and again, also over a restart of the daemon.
#[test]
fn status_is_watched() {
    let _turn = beside_others();
    let env = Env::new().job("watched", &["nobody-needs-this"], "paused = true\n");
    let daemon = env.daemon().ready();
    let [json, text] = [env.begin(&["status", "--watch", "--json"]), env.begin(&["status", "--watch"])];
    let documents = || -> Vec<Value> {
        let said = json.said();
        // The last line may be half of one.
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    wait_until("two documents, a line each", SOON, || documents().len() >= 2);
    assert_eq!(documents()[0]["jobs"][0]["state"], "paused", "{}", json.said());
    let started = documents()[0]["started_seconds"].clone();
    assert!(daemon.stop().success());
    for watch in [&json, &text] {
        watch.await_log("the daemon does not answer");
    }
    let daemon = env.daemon().ready();
    wait_until("the new daemon to be shown", SOON, || documents().last().unwrap()["started_seconds"] != started);
    wait_until("tables", SOON, || text.said().matches("RPO NOW/TARGET").count() >= 3);
    assert!(!json.has_ended() && !text.has_ended());
    assert!(daemon.stop().success());
}

#[test]
fn a_job_over_its_target_is_exit_code_4() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("over", 1, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new();
    let env = env.storage_behind(&proxy).job("over", &[&topic], "rotate_interval = \"1s\"\nrpo_target = \"12s\"\n");
    let _daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    await_caught_up(&kafka, &env.bucket, &topic);
    proxy.set(Fault::Status(503), Hits::DataPuts);
    kafka.produce(&topic, 0, &numbered(10..20, 10));
    wait_until("the job to be over its target", SOON, || env.tell(&["status"]).code() == 4);
    wait_until("the job to be degraded", SOON, || state(&env, "over") == "degraded");
    let shown = env.tell(&["status"]).stdout;
    assert!(shown.contains("upload, since") && shown.contains('!'), "{shown}");
    proxy.set(Fault::Pass, Hits::All);
    wait_until("the job to be within its target", SOON, || env.tell(&["status"]).code() == 0);
}

#[test]
fn a_flush_makes_durable_what_was_read() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("flush", 1, &[]);
    let env = Env::new().job("flush", &[&topic], "rotate_interval = \"1h\"\nrpo_target = \"2h\"\n");
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..100, 10));
    daemon.await_metric("kafka_backup_read_bytes_total", &[], 1.0);
    let folder = format!("{topic}/0");
    assert_eq!(covered(&env.bucket, &folder), 0, "nothing closes the object before an hour");
    wait_until("all records to be flushed", SOON, || {
        let flushed = env.tell(&["flush", "flush", "--wait", "--json"]).success();
        assert_eq!(flushed["durable"], Value::from(true));
        covered(&env.bucket, &folder) == 100
    });
    env.tell(&["flush", "flusch", "--wait"]).fails_with(10, &["there is no job"]);
}

#[test]
fn a_pause_survives_the_process() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("pause", 1, &[]);
    let env = Env::new().job("pause", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    await_caught_up(&kafka, &env.bucket, &topic);
    let since = "kafka_backup_job_paused_since_timestamp_seconds";
    assert_eq!(daemon.metric(since, &[]), 0.0);
    assert_eq!(env.tell(&["pause", "pause", "--reason", "brokers move"]).code(), 0);
    wait_until("the job to be paused", SOON, || state(&env, "pause") == "paused");
    assert!(daemon.metric(since, &["backup_job=\"pause\""]) > 0.0);
    env.tell(&["flush", "pause"]).fails_with(75, &["not running"]);
    daemon.kill();

    kafka.produce(&topic, 0, &numbered(10..20, 10));
    let daemon = env.daemon().ready();
    wait_until("the job to be paused again", SOON, || state(&env, "pause") == "paused");
    let shown = env.tell(&["status"]);
    assert_eq!(shown.code(), 0, "a paused job is not judged: {}", shown.stdout);
    assert!(shown.stdout.contains("paused") && shown.stdout.contains("brokers move"), "{}", shown.stdout);
    assert!(daemon.metric("kafka_backup_jobs", &["state=\"paused\""]) > 0.0);
    assert_eq!(covered(&env.bucket, &format!("{topic}/0")), 10, "nothing was read");

    assert_eq!(env.tell(&["resume", "pause"]).code(), 0);
    await_caught_up(&kafka, &env.bucket, &topic);
    assert_eq!(state(&env, "pause"), "running");
    assert_eq!(daemon.metric(since, &[]), 0.0);

    // For a time, part of which nobody was there.
    for wrong in ["yesterday", "2020-01-01T00:00:00Z", "0s"] {
        env.tell(&["pause", "pause", "--until", wrong]).fails_with(2, &["--until", "write for example 2h"]);
    }
    let told = env.tell(&["pause", "pause", "--until", "8s"]);
    assert!(told.code() == 0 && told.stdout.contains("paused until 2"), "{}", told.stdout);
    wait_until("the job to be paused", SOON, || state(&env, "pause") == "paused");
    assert!(env.tell(&["status"]).stdout.contains(" until 2"));
    daemon.kill();
    kafka.produce(&topic, 0, &numbered(20..30, 10));
    let _daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    assert_eq!(state(&env, "pause"), "running");
    env.tell(&["pause", "pasue"]).fails_with(10, &["there is no job"]);
}

#[test]
fn another_user_may_look_but_change_nothing() {
    let _turn = beside_others();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let env = Env::new();
    let _daemon = env.daemon().ready();
    let socket = env.tree().join("control.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    // A member of the group (root's, here) with another user id: the way in is open, the files can be read.
    for dir in [env.tree().parent().unwrap().to_owned(), env.tree()] {
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let member = ["setpriv", "--reuid=65534", "--regid=0", "--clear-groups"];
    let shown = env.tell_through(&member, &["status"]);
    assert_eq!(shown.code(), 0, "{}{}", shown.stdout, shown.stderr);
    env.tell_through(&member, &["pause", "a"]).fails_with(12, &["user 65534 may look, but change nothing"]);
    let stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    env.tell_through(&stranger, &["status"]).fails_with(12, &["may not be opened"]);
}

/// Half a request each and nothing more: who may only look does not keep out who may act.
#[test]
fn those_who_may_only_look_keep_nobody_out() {
    let _turn = beside_others();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let env = Env::new();
    let _daemon = env.daemon().ready();
    for dir in [env.tree().parent().unwrap().to_owned(), env.tree()] {
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let socket = env.tree().join("control.sock");
    let crowd = std::thread::spawn(move || {
        // This thread only, not the process.
        let nobody = rustix::thread::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let half = |_| {
            let mut client = UnixStream::connect(&socket).unwrap();
            // Those that are turned away at once do not take it.
            let _ = client.write_all(b"{\"request\":");
            client
        };
        (0..100).map(half).collect::<Vec<_>>()
    });
    let crowd = crowd.join().unwrap();
    let began = Instant::now();
    assert_eq!(env.tell(&["status"]).code(), 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let member = ["setpriv", "--reuid=65534", "--regid=0", "--clear-groups"];
    env.tell_through(&member, &["status"]).fails_with(75, &["others are looking at this moment"]);
    drop(crowd);
}
