//! What a running daemon gets over by itself, and which keys of its main file hold at once.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::common::check::{assert_backed_up, await_caught_up};
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::{SOON, beside_others, stack, wait_until};

fn job(env: &Env, id: &str) -> Value {
    let output = env.tell(&["status", "--json"]);
    let document: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let jobs = document["jobs"].as_array().cloned().unwrap_or_default();
    jobs.into_iter().find(|job| job["job"] == id).unwrap_or_default()
}

/// Passes connections on to `upstream` while it is switched on, and cuts them while it is not. Brokers name their own
/// addresses to who has got through, so it is only the way in that is shut.
struct Gate {
    address: String,
    open: Arc<AtomicBool>,
}

impl Gate {
    fn shut(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Self { address: listener.local_addr().unwrap().to_string(), open: Arc::new(AtomicBool::new(false)) };
        let (open, upstream) = (gate.open.clone(), upstream.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if open.load(Ordering::Relaxed) {
                    pass_on(&client, &TcpStream::connect(&upstream).unwrap());
                }
            }
        });
        gate
    }
}

fn pass_on(client: &TcpStream, broker: &TcpStream) {
    for (from, to) in [(client, broker), (broker, client)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to); // either side may end it
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
    }
}

#[test]
fn a_start_without_kafka_and_s3_succeeds_and_recovers_by_itself() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("neither", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    let proxy = Proxy::start(stack::s3_endpoint());
    proxy.set(Fault::CutBefore, Hits::All);
    let gate = Gate::shut(stack::kafka_bootstrap());
    let env = Env::new();
    let env = env.storage_behind(&proxy).kafka("main", &gate.address, &[]);
    let env = env.job("neither", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    assert_eq!(daemon.get("/-/healthy").unwrap().0, 200, "a restart would not help");
    wait_until("the job to be degraded", SOON, || job(&env, "neither")["state"] == "degraded");
    let shown = env.tell(&["status"]).stdout;
    assert!(shown.contains("start, since") && shown.contains("s3://"), "S3 is named: {shown}");

    // S3 comes back, Kafka does not yet: what is said changes.
    proxy.set(Fault::Pass, Hits::All);
    wait_until("Kafka to be named", SOON, || env.tell(&["status"]).stdout.contains("cluster id"));
    assert_eq!(daemon.get("/-/ready").unwrap().0, 200);
    gate.open.store(true, Ordering::Relaxed);
    await_caught_up(&kafka, &env.bucket, &topic);
    wait_until("the job to be well", SOON, || job(&env, "neither")["state"] == "running");
    assert_backed_up(&kafka, &env.bucket, &topic);
    assert_eq!(daemon.metric("kafka_backup_config_generation", &[]), 1.0, "nobody had to load anything");
    assert!(daemon.stop().success());
}

#[test]
fn a_new_log_level_holds_at_once_and_a_new_listener_is_refused() {
    let _turn = beside_others();
    let env = Env::new().set("log.level = \"info\"");
    let daemon = env.daemon().ready();
    let main = env.tree().join("kafka-backup.toml");
    let text = std::fs::read_to_string(&main).unwrap();
    let change = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        std::fs::write(&main, text.replace(from, to)).unwrap();
        env.tell(&["reload"])
    };
    let quieter = change("log.level = \"info\"", "log.level = \"error\"");
    assert!(quieter.stdout.contains("~ main file: log.level \"info\" -> \"error\""), "{quieter:?}");
    // What is said of a reload is said at "info"; the one that made it quieter is the last that is logged.
    let before = daemon.log().len();
    let longer = change("log.level = \"info\"", "log.level = \"error\"\n");
    assert_eq!(longer.code(), 0, "{longer:?}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(daemon.log()[before..], *"", "nothing below an error");
    let louder = change("log.level = \"info\"", "log.level = \"debug\"");
    assert!(louder.stdout.contains("log.level \"error\" -> \"debug\""), "{louder:?}");
    daemon.await_log("applied generation 3");

    let port = format!("127.0.0.1:{}", daemon.port());
    let refused = change(&port, "127.0.0.1:1");
    refused.fails_with(78, &["http.listen: cannot change while the daemon runs", "systemctl restart kafka-backup"]);
    assert!(env.tell(&["status"]).stdout.contains("last reload rejected"), "and status says so");
    assert_eq!(daemon.get("/-/ready").unwrap().0, 200, "it is served where it was");
    std::fs::write(&main, &text).unwrap();
    let back = env.tell(&["reload"]);
    assert!(back.stdout.contains("log.level \"debug\" -> \"info\""), "{back:?}");
    assert!(daemon.stop().success());
}

/// Monitoring must not be silently absent.
#[test]
fn a_port_that_is_taken_stops_the_start() {
    let _turn = beside_others();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let env = Env::new().variable("KAFKA_BACKUP__HTTP__LISTEN", &address);
    refused(&env, &["http.listen", &address, "another process has this port"]);
    let env = Env::new().variable("KAFKA_BACKUP__HTTP__LISTEN", "203.0.113.1:9748");
    refused(&env, &["http.listen 203.0.113.1:9748", "this machine has no such address"]);
}

/// A start that fails says why, and nothing else.
fn refused(env: &Env, words: &[&str]) {
    let said = env.kafka_backup(&["daemon"]);
    said.fails_with(1, words);
    assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
}

/// A path that was mistaken for that of a socket: no file is lost, and no daemon runs that nobody can talk to.
#[test]
fn a_socket_where_something_else_is_stops_the_start() {
    let _turn = beside_others();
    let env = Env::new();
    for (name, make) in [("a-file", false), ("a-folder", true)] {
        let path = env.path(name);
        if make {
            std::fs::create_dir(&path).unwrap()
        } else {
            std::fs::write(&path, "precious").unwrap()
        }
        let env = Env::new().variable("KAFKA_BACKUP__CONTROL__SOCKET", path.to_str().unwrap());
        refused(&env, &["control.socket", name, "something else is there, which is no socket", "choose another"]);
        assert!(path.exists());
    }
    assert_eq!(std::fs::read_to_string(env.path("a-file")).unwrap(), "precious");
}

/// Who asks how it is must not end it: SIGUSR1 does that to programs that do not listen to it.
#[test]
fn a_signal_that_asks_how_it_is_is_answered() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("asked", 1, &[]);
    let env = Env::new().job("asked", &[&topic], "rotate_interval = \"1s\"\n");
    let mut daemon = env.daemon().ready();
    daemon.ask_for_progress();
    wait_until("the second line about it", SOON, || daemon.log().matches("running 1 job, generation 1").count() >= 2);
    assert!(daemon.is_running());
    assert!(daemon.stop().success());

    let mut run = env.start(&["run", "asked"], "b");
    run.await_log("partitions assigned");
    run.ask_for_progress();
    run.await_log("running 1 job");
    assert!(run.is_running());
    assert!(run.stop().success());
}

/// The first signal waits for what was read; the second does not.
#[test]
fn a_second_signal_ends_the_process_at_once() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("impatient", 1, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new().set("drain_timeout = \"10m\"");
    let env = env.storage_behind(&proxy).job("impatient", &[&topic], "rotate_interval = \"1h\"\n");
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..100, 1000));
    daemon.await_metric("kafka_backup_buffer_bytes", &[], 50_000.0);
    proxy.set(Fault::Hang, Hits::All);
    daemon.ask_to_stop();
    daemon.await_log("asked to stop: draining, at most 600 s");
    assert!(!daemon.has_ended());
    daemon.ask_to_stop();
    daemon.await_log("asked to stop again: ending at once");
    assert_eq!(daemon.wait().code(), Some(143));
    // Nothing is lost: the next process reads it again.
    proxy.set(Fault::Pass, Hits::All);
    env.back_up("impatient");
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// One line for each event, each a document of its own.
#[test]
fn logs_are_json_where_that_is_asked_for() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("logged", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    let env = Env::new().set("log.format = \"json\"").job("logged", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    daemon.ask_to_stop();
    daemon.await_log("asked to stop");
    let log = daemon.log();
    assert!(daemon.wait().success());
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let stop =
        lines.iter().find(|line| line["fields"]["message"].as_str().is_some_and(|m| m.starts_with("asked to stop")));
    let stop = stop.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(stop["level"], "INFO");
    assert!(stop["timestamp"].is_string() && stop["target"].is_string(), "{stop}");
    assert!(lines.iter().any(|line| line["fields"]["job"] == "logged"), "{log}");
}
