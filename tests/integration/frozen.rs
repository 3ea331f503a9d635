//! Kafka answers nothing any more, without an error: nobody polls the ends of the logs, and what is protected stands still.
//! What the daemon shows then is what the alert rule is fed with, from the first scrape to the alert.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::check::await_caught_up;
use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::numbered;
use crate::common::stack::Cluster;
use crate::common::{SOON, beside_others, wait_until};

const TARGET: Duration = Duration::from_secs(30);
/// Between two scrapes.
const EVERY: Duration = Duration::from_secs(5);
/// Before the first scrape: promtool begins at 1970-01-01, where the daemon has begun already.
const BEFORE: u64 = 600;

const PROTECTED: &str = "kafka_backup_topic_protected_timestamp_seconds";

/// Every series of the daemon at one moment after another.
struct Scrapes {
    /// Unix time of the first one.
    began: f64,
    taken: Vec<BTreeMap<String, f64>>,
}

impl Scrapes {
    fn of(daemon: &Daemon, count: usize) -> Self {
        let mut scrapes = Self { began: now(), taken: Vec::new() };
        scrapes.go_on(daemon, count);
        scrapes
    }

    fn go_on(&mut self, daemon: &Daemon, count: usize) {
        for _ in 0..count {
            let due = self.began + (EVERY * self.taken.len() as u32).as_secs_f64();
            std::thread::sleep(Duration::from_secs_f64((due - now()).max(0.0)));
            let (status, text) = daemon.get("/metrics").expect("it answers, whatever Kafka does");
            assert_eq!(status, 200);
            let series = text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{"));
            let sample = |line: &str| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            };
            self.taken.push(series.filter_map(sample).collect());
        }
    }

    /// The values of the one series of this name that there is.
    fn values(&self, name: &str) -> Vec<f64> {
        let of = |scrape: &BTreeMap<String, f64>| {
            let found: Vec<f64> = scrape.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, v)| *v).collect();
            assert_eq!(found.len(), 1, "{name} in {scrape:?}");
            found[0]
        };
        self.taken.iter().map(of).collect()
    }

    /// When a scrape was taken, or a time it says, as promtool counts.
    fn at(&self, unix: f64) -> f64 {
        unix - self.began + BEFORE as f64
    }

    /// All series as promtool takes them, the last values held for so long.
    fn input_series(&self, held: Duration) -> String {
        let names: std::collections::BTreeSet<&String> = self.taken.iter().flat_map(BTreeMap::keys).collect();
        let line = |name: &String| {
            let (family, labels) = name.split_once('{').unwrap_or((name, "}"));
            let is_time = family.ends_with("_timestamp_seconds") || family == "process_start_time_seconds";
            let value = |scrape: &BTreeMap<String, f64>| match scrape.get(name) {
                None => "_".to_owned(),
                Some(value) if is_time && *value > 0.0 => format!("{:.3}", self.at(*value)),
                Some(value) => value.to_string(),
            };
            let values: Vec<String> = self.taken.iter().map(value).collect();
            let (missing, hold) = (BEFORE / EVERY.as_secs() - 1, held.as_secs() / EVERY.as_secs());
            let last = values.last().cloned().unwrap_or_default();
            let comma = if labels == "}" { "" } else { "," };
            format!(
                "      - {{series: '{family}{{instance=\"a\"{comma}{labels}', values: '_x{missing} {} {last}x{hold}'}}\n",
                values.join(" ")
            )
        };
        names.into_iter().map(line).collect()
    }
}

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn a_frozen_kafka_is_an_alert_within_the_target_and_five_minutes() {
    let _turn = beside_others();
    let cluster = Cluster::start(1);
    let kafka = Kafka::at(&cluster.bootstrap);
    let topic = kafka.topic("frozen", 1, &[]);
    let lines = format!("rotate_interval = \"1s\"\nrpo_target = \"{}s\"\n", TARGET.as_secs());
    let session = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "1000")];
    let env = Env::new().kafka("main", &cluster.bootstrap, &session).job("frozen", &[&topic], &lines);
    kafka.produce(&topic, 0, &numbered(0..100, 100));
    let mut daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    wait_until("the topic to be protected", SOON, || daemon.metric(PROTECTED, &[]) > 0.0);

    let mut scrapes = Scrapes::of(&daemon, 5);
    let healthy = scrapes.values(PROTECTED);
    assert!(healthy[4] > healthy[0], "it follows the clock while nothing is produced: {healthy:?}");
    assert_eq!(env.tell(&["status"]).code(), 0);
    cluster.freeze_broker(1);
    let frozen = now();
    // Who is asked in this very moment has the time to give up.
    scrapes.go_on(&daemon, 3);
    // Nobody is a member of the group any more, and no partition anybody's: what is protected stands still all the same.
    daemon.await_log("lost=true");
    let still_from = scrapes.taken.len();
    scrapes.go_on(&daemon, (TARGET.as_secs() / EVERY.as_secs()) as usize + 2);
    let protected = scrapes.values(PROTECTED);
    let stands = protected[still_from];
    assert!(stands <= frozen, "what nobody has looked at is not protected: {stands} > {frozen}");
    assert!(protected[still_from..].iter().all(|at| *at == stands), "{protected:?}");
    assert!(daemon.is_running());
    assert_eq!(env.tell(&["status"]).code(), 4, "over its target");

    let deadline = frozen + (TARGET + Duration::from_secs(300) + 2 * EVERY).as_secs_f64();
    assert_alert(&scrapes, &topic, frozen, deadline, stands);

    cluster.thaw_broker(1);
    let began = Instant::now();
    wait_until("what is protected to go on", SOON, || daemon.metric(PROTECTED, &[]) > frozen);
    wait_until("everything within its target", SOON, || env.tell(&["status"]).code() == 0);
    assert!(began.elapsed() < SOON);
    assert!(daemon.stop().success());
}

/// promtool says what the shipped rule makes of these scrapes: nothing before Kafka froze, the alert at `deadline`.
fn assert_alert(scrapes: &Scrapes, topic: &str, frozen: f64, deadline: f64, stands: f64) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let promtool = repository.join("target/tools/bin/promtool");
    if !promtool.exists() {
        assert!(std::env::var_os("CI").is_none(), "there is no {}", promtool.display());
        eprintln!("*** SKIPPED promtool test rules: there is no {} ***", promtool.display());
        return;
    }
    let step = EVERY.as_secs();
    // promtool evaluates at whole steps.
    let at = |unix: f64| (scrapes.at(unix) as u64).div_ceil(step) * step;
    let (silent, fires) = (at(frozen) - 2 * step, at(deadline));
    let age = fires - scrapes.at(stands).ceil() as u64;
    let text = format!(
        "rule_files: [{rules:?}]\nevaluation_interval: {step}s\ntests:\n  - interval: {step}s\n    input_series:\n{series}    \
         alert_rule_test:\n      - {{eval_time: {silent}s, alertname: KafkaBackupStale}}\n      \
         - eval_time: {fires}s\n        alertname: KafkaBackupStale\n        exp_alerts:\n          \
         - exp_labels: {{severity: critical, instance: a, backup_job: frozen, topic: {topic:?}}}\n            \
         exp_annotations:\n              summary: topic {topic} is not backed up within its target\n              \
         description: 'Job frozen: what was written to {topic} in the last {}m {}s is not safe yet. Next: kafka-backup status --job frozen'\n              \
         runbook_url: file:///usr/share/doc/kafka-backup/alerts.md#kafkabackupstale\n",
        age / 60,
        age % 60,
        rules = repository.join("packaging/prometheus/kafka-backup.rules.yml"),
        series = scrapes.input_series(TARGET + Duration::from_secs(400)),
    );
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    let mut command = Command::new(promtool);
    let output = command.args(["test", "rules"]).arg(file.path()).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
}
