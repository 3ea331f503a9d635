//! Reload of a running daemon: what is refused changes nothing, what is unchanged is not touched, what changes is handed
//! over, and the service manager hears the truth.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::Value;

use crate::common::check::{assert_backed_up, await_caught_up, covered};
use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::{SOON, beside_others, stack, unique, wait_for, wait_until};

fn status(env: &Env) -> Value {
    let output = env.tell(&["status", "--json"]);
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", output.stdout, output.stderr))
}

fn job(env: &Env, id: &str) -> Value {
    let document = status(env);
    let jobs = document["jobs"].as_array().cloned().unwrap_or_default();
    jobs.into_iter().find(|job| job["job"] == id).unwrap_or_default()
}

/// What would not be the same after any restart of the job: when it began, and its lanes' first log lines.
fn session(env: &Env, daemon: &Daemon, id: &str) -> (Value, usize, usize) {
    let log = daemon.log();
    let count =
        |text: &str| log.lines().filter(|line| line.contains(text) && line.contains(&format!("job={id}"))).count();
    (job(env, id)["began_ms"].clone(), count("job started"), count("partitions assigned"))
}

fn write(env: &Env, id: &str, topic: &str, lines: &str) {
    let text = format!("topics = [{topic:?}]\nrotate_interval = \"1s\"\n{lines}");
    std::fs::write(env.job_file(id), text).unwrap();
}

/// Five jobs on a topic of their own each, running.
fn five(kafka: &Kafka) -> (Env, Vec<(String, String)>) {
    let jobs: Vec<_> = (0..5).map(|n| (unique("five"), kafka.topic(&format!("five{n}"), 1, &[]))).collect();
    let mut env = Env::new();
    for (id, topic) in &jobs {
        env = env.job(id, &[topic], "rotate_interval = \"1s\"\n");
    }
    (env, jobs)
}

fn await_running(env: &Env, jobs: &[(String, String)]) {
    for (id, _) in jobs {
        wait_until("the job to have its partition", SOON, || {
            job(env, id)["partitions"][0]["durable_offset"].is_number()
        });
    }
}

#[test]
fn what_is_wrong_changes_nothing_and_what_is_right_only_what_it_says() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let (env, jobs) = five(&kafka);
    let daemon = env.daemon().ready();
    await_running(&env, &jobs);
    let before: Vec<_> = jobs.iter().map(|(id, _)| session(&env, &daemon, id)).collect();

    // Two files with mistakes: both are named, nothing is touched, everybody hears.
    for (id, topic) in &jobs[..2] {
        write(&env, id, topic, "retenton = \"30d\"\n");
    }
    let rejected = env.tell(&["reload"]);
    let files: Vec<String> = jobs[..2].iter().map(|(id, _)| format!("{id}.toml:3:1: retenton")).collect();
    rejected.fails_with(78, &[&files[0], &files[1], "what ran goes on running"]);
    daemon.hang_up();
    daemon.await_metric("kafka_backup_config_reloads_total", &["result=\"rejected\""], 2.0);
    assert_eq!(daemon.metric("kafka_backup_config_last_reload_successful", &[]), 0.0);
    wait_until("drift to be seen", SOON, || daemon.metric("kafka_backup_config_drift", &[]) == 1.0);
    assert_eq!(daemon.metric("kafka_backup_config_generation", &[]), 1.0);
    let last = env.tell(&["reload", "--last"]);
    assert_eq!((last.code(), last.stdout.contains(&files[1])), (78, true), "{}", last.stdout);
    assert!(env.tell(&["status"]).stdout.contains("last reload rejected"));
    assert!(daemon.log().contains("reload rejected: "));
    let after: Vec<_> = jobs.iter().map(|(id, _)| session(&env, &daemon, id)).collect();
    assert_eq!(before, after, "nobody has noticed");

    // Mended, one of them with another flush size, another with another target.
    write(&env, &jobs[0].0, &jobs[0].1, "flush_size = 17\n");
    write(&env, &jobs[1].0, &jobs[1].1, "rpo_target = \"3h\"\n");
    let planned = env.tell(&["reload", "--dry-run"]);
    assert!(planned.stdout.contains(&format!("~ {} (restart): flush_size 100000 -> 17", jobs[0].0)), "{planned:?}");
    assert_eq!(daemon.metric("kafka_backup_config_generation", &[]), 1.0, "a dry run is dry");
    let report: Value = serde_json::from_str(&env.tell(&["reload", "--json"]).stdout).unwrap();
    assert_eq!((&report["result"], &report["generation"]), (&Value::from("applied"), &Value::from(2)), "{report:#}");
    assert_eq!(report["plan"]["unchanged"].as_array().map(Vec::len), Some(3), "{report:#}");
    wait_until("the changed job to run again", SOON, || {
        let job = job(&env, &jobs[0].0);
        job["state"] == "running"
            && job["began_ms"] != before[0].0
            && job["partitions"][0]["durable_offset"].is_number()
    });
    assert_eq!(job(&env, &jobs[1].0)["rpo_target_seconds"], 10_800.0, "it holds at once");
    for (index, (id, topic)) in jobs.iter().enumerate() {
        kafka.produce(topic, 0, &numbered(0..40, 10));
        await_caught_up(&kafka, &env.bucket, topic);
        assert_eq!(session(&env, &daemon, id) == before[index], index != 0, "{id}");
    }
    let objects = assert_backed_up(&kafka, &env.bucket, &jobs[0].1);
    assert_eq!(objects.len(), 1);
    assert_eq!(daemon.metric("kafka_backup_config_last_reload_successful", &[]), 1.0);
    assert_eq!(daemon.metric("kafka_backup_config_drift", &[]), 0.0);
    let unchanged = env.tell(&["reload"]);
    assert!(unchanged.stdout.contains("no change, generation 2"), "{unchanged:?}");
    assert!(daemon.stop().success());
}

#[test]
fn jobs_are_added_and_removed_but_not_all_of_them_by_accident() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let [stays, goes, comes] = ["stays", "goes", "comes"].map(|name| kafka.topic(name, 1, &[]));
    let env = Env::new().job("stays", &[&stays], "rotate_interval = \"1s\"\n");
    let env = env.job("goes", &[&goes], "rotate_interval = \"1h\"\nrpo_target = \"2h\"\n");
    let daemon = env.daemon().ready();
    [&stays, &goes, &comes].iter().for_each(|topic| kafka.produce(topic, 0, &numbered(0..50, 10)));
    daemon.await_metric("kafka_backup_read_bytes_total", &["backup_job=\"goes\""], 1.0);
    await_caught_up(&kafka, &env.bucket, &stays);
    let before = session(&env, &daemon, "stays");
    let read = |job: &str| daemon.get("/metrics").unwrap().1.contains(&format!("backup_job=\"{job}\""));
    assert!(read("goes"));

    let hidden = env.path("hidden");
    std::fs::rename(env.tree().join("jobs.d"), &hidden).unwrap();
    std::fs::create_dir(env.tree().join("jobs.d")).unwrap();
    env.tell(&["reload"]).fails_with(78, &["2 of 2 jobs would be removed", "--allow-removals"]);
    std::fs::remove_dir(env.tree().join("jobs.d")).unwrap();
    std::fs::rename(&hidden, env.tree().join("jobs.d")).unwrap();

    std::fs::remove_file(env.job_file("goes")).unwrap();
    write(&env, "comes", &comes, "");
    let report = env.tell(&["reload"]);
    assert!(report.stdout.contains("+ comes\n- goes\n= 1 job unchanged\napplied generation 2"), "{report:?}");
    await_caught_up(&kafka, &env.bucket, &comes);
    wait_until("the removed job to be gone", SOON, || job(&env, "goes").is_null());
    assert!(!read("goes"), "its series go with it");
    assert_eq!(covered(&env.bucket, &format!("{goes}/0")), 50, "it has made durable what it had read");
    assert_eq!(session(&env, &daemon, "stays"), before);

    for job in ["stays", "comes"] {
        std::fs::remove_file(env.job_file(job)).unwrap();
    }
    assert_eq!(env.tell(&["reload", "--allow-removals"]).code(), 0);
    wait_until("all jobs to be gone", SOON, || status(&env)["jobs"].as_array().is_some_and(Vec::is_empty));
    assert!(daemon.stop().success());
}

#[test]
fn what_cannot_change_is_named() {
    let _turn = beside_others();
    let env = Env::new().job("fixed", &["nobody-needs-this"], "");
    let daemon = env.daemon().ready();
    let main = env.tree().join("kafka-backup.toml");
    let text = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, format!("memory.budget = \"99MiB\"\n{text}").replace("/state\"", "/other\"")).unwrap();
    let bucket = format!("bucket = \"{}\"", env.bucket.name);
    let changed = std::fs::read_to_string(&main).unwrap().replace(&bucket, &format!("prefix = \"new\"\n{bucket}"));
    std::fs::write(&main, changed).unwrap();
    let said =
        ["state_dir: cannot change while the daemon runs", "memory.budget: cannot change", "job fixed: storage.prefix"];
    env.tell(&["reload"]).fails_with(78, &said);
    assert_eq!(daemon.metric("kafka_backup_config_generation", &[]), 1.0);
    std::fs::write(&main, text).unwrap();
    assert!(env.tell(&["reload"]).stdout.contains("no change"));
}

#[test]
fn a_storm_of_signals_is_two_reloads() {
    let _turn = beside_others();
    let env = Env::new();
    let daemon = env.daemon().ready();
    for _ in 0..100 {
        daemon.hang_up();
        std::thread::sleep(Duration::from_millis(8));
    }
    let reloads = || daemon.metric("kafka_backup_config_reloads_total", &[]);
    wait_until("the last signal to be answered", SOON, || reloads() >= 2.0);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(reloads(), 2.0);
}

#[test]
fn a_daemon_killed_while_it_reloads_comes_back_with_what_stands_there() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("killed", 1, &[]);
    let mut env = Env::new().job("killed", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..500, 10));
    await_caught_up(&kafka, &env.bucket, &topic);
    for round in 0..3 {
        let lines = format!("rotate_interval = \"1s\"\nflush_size = {}\n", 100 + round);
        env.change_job("killed", |_| format!("topics = [{topic:?}]\n{lines}"));
        write(&env, "killed", &topic, &format!("flush_size = {}\n", 100 + round));
        kafka.produce(&topic, 0, &numbered(500 * (round + 1)..500 * (round + 2), 10));
        daemon.hang_up();
        std::thread::sleep(Duration::from_millis(40 * round as u64));
        if round == 2 {
            break;
        }
    }
    daemon.kill();
    let daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    assert_eq!(daemon.metric("kafka_backup_config_generation", &[]), 1.0);
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

#[test]
fn the_content_of_a_secret_file_counts() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("rotated", 1, &[]);
    let env = Env::new().job("rotated", &[&topic], "rotate_interval = \"1s\"\n");
    let secret = env.path("secret");
    std::fs::write(&secret, "first\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // A key password that nothing needs: what counts is that it is another one.
    let servers = stack::kafka_bootstrap();
    let env = env.kafka("main", servers, &[("ssl.key.password_file", secret.to_str().unwrap())]);
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(env.tell(&["reload"]).stdout.contains("no change"));
    std::fs::write(&secret, "second\n").unwrap();
    let report = env.tell(&["reload"]);
    assert!(report.stdout.contains("~ rotated (restart): kafka.ssl.key.password (content of "), "{report:?}");
    assert!(!report.stdout.contains("second") && !daemon.log().contains("second\n"));
    kafka.produce(&topic, 0, &numbered(10..20, 10));
    await_caught_up(&kafka, &env.bucket, &topic);
    assert_backed_up(&kafka, &env.bucket, &topic);
}

#[test]
fn a_job_paused_by_its_file() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("filed", 1, &[]);
    let env = Env::new().job("filed", &[&topic], "rotate_interval = \"1s\"\npaused = true\n");
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    wait_until("the job to be paused", SOON, || job(&env, "filed")["state"] == "paused");
    env.tell(&["resume", "filed"]).fails_with(78, &["paused by its file", "remove that line"]);
    write(&env, "filed", &topic, "");
    assert_eq!(env.tell(&["reload"]).code(), 0);
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(daemon.stop().success());
}

/// What a daemon tells its service manager.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn listen(env: &Env) -> (Self, String) {
        let path = env.path("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        (Self { socket, heard: Vec::new() }, path.display().to_string())
    }

    fn hear(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(bytes) = self.socket.recv(&mut buffer) {
            self.heard.push(String::from_utf8_lossy(&buffer[..bytes]).into_owned());
        }
    }

    /// Waits for a datagram with all of `words`, at `from` or behind; returns its place.
    fn await_heard(&mut self, from: usize, words: &[&str]) -> usize {
        wait_for(&format!("{words:?}"), SOON, || {
            self.hear();
            let heard = self.heard.iter().skip(from).position(|said| words.iter().all(|word| said.contains(word)));
            heard.map(|at| from + at)
        })
    }
}

#[test]
fn the_service_manager_hears_the_truth() {
    let _turn = beside_others();
    let env = Env::new();
    let (mut manager, address) = Manager::listen(&env);
    let daemon = env.daemon_with(&[("NOTIFY_SOCKET", &address)]).ready();
    let idle = format!("STATUS=idle: no jobs in {}", env.tree().join("jobs.d").display());
    assert_eq!(manager.await_heard(0, &["READY=1", &idle]), 0, "and nothing before that");

    std::fs::write(env.job_file("bad"), "topcs = []\n").unwrap();
    env.tell(&["reload"]).fails_with(78, &["bad.toml:1:1: topcs"]);
    let reloading = manager.await_heard(1, &["RELOADING=1", "MONOTONIC_USEC="]);
    manager.await_heard(reloading, &["READY=1", "STATUS=reload REJECTED", "bad.toml:1:1: topcs", "generation 1"]);

    // Kafka and S3 both down: it starts the job all the same, and says what is wrong.
    let nowhere = "kafka = { bootstrap_servers = [\"127.0.0.1:9\"] }\n\
                   storage = { bucket = \"b\", endpoint = \"http://127.0.0.1:9\", path_style = true }\n";
    std::fs::remove_file(env.job_file("bad")).unwrap();
    write(&env, "lost", "t", nowhere);
    assert_eq!(env.tell(&["reload"]).code(), 0);
    let ready = manager.await_heard(reloading + 2, &["READY=1", "STATUS=running 1 job"]);
    manager.await_heard(ready, &["STATUS=", "1 degraded: lost"]);
    assert!(daemon.stop().success());
    manager.await_heard(ready, &["STOPPING=1", "STATUS=draining"]);
}

/// It is answered by a reload, and not before the daemon is ready: until then nobody hears READY.
#[test]
fn a_signal_during_the_start_is_remembered() {
    let _turn = beside_others();
    let env = Env::new();
    let (mut manager, address) = Manager::listen(&env);
    let daemon = env.daemon_with(&[("NOTIFY_SOCKET", &address)]);
    wait_until_at_once("the daemon to listen for SIGHUP", || daemon.catches_hangups());
    daemon.hang_up();
    let daemon = daemon.ready();
    daemon.await_metric("kafka_backup_config_reloads_total", &["result=\"unchanged\""], 1.0);
    let ready = manager.await_heard(0, &["READY=1", "STATUS=idle"]);
    let reloading = manager.await_heard(0, &["RELOADING=1"]);
    assert!(ready == 0 && reloading > ready, "{:?}", manager.heard);
    manager.await_heard(reloading, &["READY=1"]);
    assert!(daemon.stop().success());
}

/// As [`wait_until`], and without a pause between two looks.
fn wait_until_at_once(what: &str, condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "waited in vain for {what}");
    }
}

#[test]
fn a_start_with_kafka_and_s3_down_succeeds_and_recovers() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("down", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    let proxy = Proxy::start(stack::s3_endpoint());
    proxy.set(Fault::CutBefore, Hits::All);
    // A port that nobody listens at yet.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let env = Env::new();
    let env = env.storage_behind(&proxy).kafka("main", &format!("127.0.0.1:{port}"), &[]);
    let env = env.job("down", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    wait_until("the job to be degraded", SOON, || job(&env, "down")["state"] == "degraded");
    proxy.set(Fault::Pass, Hits::All);
    // Kafka comes back at an address that the files name.
    let main = env.tree().join("kafka-backup.toml");
    let text = std::fs::read_to_string(&main).unwrap();
    let mended = text.replace(&format!("127.0.0.1:{port}"), stack::kafka_bootstrap());
    std::fs::write(&main, mended).unwrap();
    daemon.hang_up();
    await_caught_up(&kafka, &env.bucket, &topic);
    assert_eq!(job(&env, "down")["state"], "running");
}

#[test]
fn the_watchdog_is_fed_only_while_everything_moves() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("watchdog", 1, &[]);
    let env = Env::new().job("watchdog", &[&topic], "rotate_interval = \"1s\"\n");
    let (mut manager, address) = Manager::listen(&env);
    let variables =
        [("NOTIFY_SOCKET", address.as_str()), ("WATCHDOG_USEC", "9000000"), ("KAFKA_BACKUP_FAIL_COMMITTER", "hang")];
    let daemon = env.daemon_with(&variables).ready();
    let fed = manager.await_heard(0, &["WATCHDOG=1"]);
    manager.await_heard(fed + 1, &["WATCHDOG=1"]);
    // The first commit hangs, as a disk that does not answer would.
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    daemon.await_log("the committer is stuck; the watchdog is not fed");
    manager.hear();
    let before = manager.heard.iter().filter(|said| said.contains("WATCHDOG=1")).count();
    std::thread::sleep(Duration::from_secs(9));
    manager.hear();
    assert_eq!(manager.heard.iter().filter(|said| said.contains("WATCHDOG=1")).count(), before, "starved");
    assert_eq!(env.tell(&["status"]).code(), 0, "it still answers");
    daemon.kill();
}

/// A reload that waits for a broker which does not answer is no reason to starve the watchdog.
#[test]
fn the_watchdog_is_fed_while_it_reloads() {
    let _turn = beside_others();
    let env = Env::new();
    let (mut manager, address) = Manager::listen(&env);
    let daemon = env.daemon_with(&[("NOTIFY_SOCKET", &address), ("WATCHDOG_USEC", "3000000")]).ready();
    manager.await_heard(0, &["WATCHDOG=1"]);
    let nowhere = "kafka = { bootstrap_servers = [\"127.0.0.1:9\"] }\n";
    write(&env, "lost", "t", nowhere);
    assert_eq!(env.tell(&["reload"]).code(), 0);
    let from = manager.await_heard(0, &["RELOADING=1"]);
    let until = manager.await_heard(from, &["READY=1"]);
    let fed = manager.heard[from..until].iter().filter(|said| said.contains("WATCHDOG=1")).count();
    assert!(fed >= 2, "{:?}", manager.heard);
    assert!(daemon.stop().success());
}

/// A removed job cannot make durable what it has read: the reload does not wait for that, others do not notice, and after
/// drain_timeout it is given up. Nothing is lost by that.
#[test]
fn a_drain_that_takes_too_long_is_given_up() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let [stays, stuck] = ["stays", "stuck"].map(|name| kafka.topic(name, 1, &[]));
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new().set("drain_timeout = \"4s\"").storage_behind(&proxy);
    let env = env.job("stays", &[&stays], "rotate_interval = \"1s\"\n");
    let env = env.job("stuck", &[&stuck], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    await_running(&env, &[("stays".to_owned(), stays.clone()), ("stuck".to_owned(), stuck.clone())]);
    let before = session(&env, &daemon, "stays");
    proxy.set(Fault::Status(503), Hits::DataPuts);
    kafka.produce(&stuck, 0, &numbered(0..50, 10));
    daemon.await_metric("kafka_backup_read_bytes_total", &["backup_job=\"stuck\""], 1.0);

    let file = std::fs::read_to_string(env.job_file("stuck")).unwrap();
    std::fs::remove_file(env.job_file("stuck")).unwrap();
    let began = std::time::Instant::now();
    assert_eq!(env.tell(&["reload"]).code(), 0);
    assert!(began.elapsed() < Duration::from_secs(4), "it ends with the swap: {:?}", began.elapsed());
    assert_eq!(job(&env, "stuck")["state"], "draining");
    wait_until("the drain to be given up", SOON, || job(&env, "stuck").is_null());
    daemon.await_log("job ended before everything it had read was durable");
    assert_eq!(covered(&env.bucket, &format!("{stuck}/0")), 0);

    // There again, and the store, too: from where the bucket says.
    std::fs::write(env.job_file("stuck"), file).unwrap();
    proxy.set(Fault::Pass, Hits::All);
    assert_eq!(env.tell(&["reload"]).code(), 0);
    await_caught_up(&kafka, &env.bucket, &stuck);
    assert_backed_up(&kafka, &env.bucket, &stuck);
    assert_eq!(session(&env, &daemon, "stays"), before);
    assert!(daemon.stop().success());
}

#[test]
fn without_its_committer_the_daemon_ends_and_begins_anew() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("committer", 1, &[]);
    let env = Env::new().job("committer", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon_with(&[("KAFKA_BACKUP_FAIL_COMMITTER", "panic")]).ready();
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    daemon.await_log("the committer died; the daemon ends");
    assert_eq!(daemon.wait().code(), Some(1), "a failure, which the service manager answers with a start");
    let _daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(10..20, 10));
    await_caught_up(&kafka, &env.bucket, &topic);
    assert_backed_up(&kafka, &env.bucket, &topic);
}
