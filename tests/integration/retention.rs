//! Retention: rules that appear, change and stay out of the way, objects that really expire, and a backup that goes on
//! where they were.
//!
//! A day of the test server's lifecycle is ten seconds, and so is one of the program's (`KAFKA_BACKUP_DAY_MS`).

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::check::{await_caught_up, stored};
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::{SOON, beside_others, stack, wait_for, wait_until};

/// What the servers take for a day.
const DAY: (&str, &str) = ("KAFKA_BACKUP_DAY_MS", "10000");

/// A job that cuts small objects quickly.
fn expiring(retention: &str) -> String {
    format!("retention = \"{retention}\"\nrotate_interval = \"1s\"\n")
}

/// The topic's rule as `retention --json` shows it.
fn rule_of<'j>(report: &'j Value, topic: &str) -> &'j Value {
    let topics = report["stores"].as_array().unwrap().iter().flat_map(|store| store["topics"].as_array().unwrap());
    topics.into_iter().find(|rule| rule["topic"] == topic).expect("the topic is shown")
}

/// Runs `kafka-backup retention --json` and returns its exit code and what it shows.
fn retention(env: &Env, args: &[&str]) -> (i32, Value) {
    let output = env.kafka_backup(&[&["retention", "--json"], args].concat());
    let shown = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (output.code(), shown)
}

/// All objects of a quiet topic expire; then the machine is lost, and with it the local state and the group. The next
/// start goes on exactly behind what had been backed up.
#[test]
fn a_backup_goes_on_behind_what_has_expired() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("expiring", 1, &[]);
    let env = Env::new().variable(DAY.0, DAY.1).job("expiring", &[&topic], &expiring("1d"));
    env.bucket.expire("somebody else's", "their-logs/", 1000);
    kafka.produce(&topic, 0, &numbered(0..500, 100));
    let daemon = env.daemon().ready();
    let folder = format!("{topic}/0/");
    let head = format!("_kafka_backup/heads/{topic}/0");
    wait_until("the end of the list to be written down", SOON, || !env.bucket.list(&head).is_empty());
    wait_until("everything to expire", SOON, || env.bucket.list(&folder).is_empty());
    let theirs = ("somebody else's".to_owned(), "their-logs/".to_owned(), 1000);
    let ours = (format!("kafka-backup:{topic}/"), format!("{topic}/"), 1);
    assert_eq!(env.bucket.rules(), [ours, theirs]);
    assert_eq!(daemon.metric("kafka_backup_lifecycle_drift", &["backup_job=\"expiring\""]), 0.0);
    assert!(daemon.stop().success());
    std::fs::remove_dir_all(env.state("a")).unwrap();
    kafka.delete_group("kafka-backup-expiring");

    kafka.produce(&topic, 0, &numbered(500..600, 100));
    let daemon = env.daemon().ready();
    let first = wait_for("an object", SOON, || env.bucket.list(&folder).into_iter().next());
    assert!(first.key.ends_with("-00000000000000000500.avro"), "no hole and no repeat: {}", first.key);
    assert_eq!(daemon.metric("kafka_backup_offset_gap_records_total", &[&topic]), 0.0);
    daemon.await_metric("kafka_backup_partition_durable_offset", &[&topic], 600.0);
    assert!(!daemon.log().contains("deleted by somebody"));
    let verified = env.kafka_backup_named("b", &["verify", "--storage", "main", "--topic", &topic, "--no-record"]);
    assert_eq!(verified.code(), 0, "expired is not missing: {verified:?}");
}

/// Somebody deletes what has not expired: that is said, and what Kafka still holds is backed up again.
#[test]
fn what_was_deleted_is_not_taken_for_expired() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("deleted", 1, &[]);
    let env = Env::new().job("deleted", &[&topic], "rotate_interval = \"1s\"\n");
    kafka.produce(&topic, 0, &numbered(0..300, 100));
    env.back_up("deleted");
    env.bucket.wipe(&format!("{topic}/"));
    let output = env.try_back_up("deleted");
    output.success();
    assert!(output.stderr.contains("deleted by somebody"), "{}", output.stderr);
    crate::common::check::assert_backed_up(&kafka, &env.bucket, &topic);
}

/// `retention.ms = 1000` for a minute is how people purge a topic: the backup is not purged with it.
#[test]
fn a_retention_is_shortened_only_on_request() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let days = |n: i64| (n * 86_400_000).to_string();
    let topic = kafka.topic("shorter", 1, &[("retention.ms", &days(7))]);
    let env = Env::new().job("shorter", &[&topic], "retention = \"topic\"\n");
    let (code, shown) = retention(&env, &["--dry-run"]);
    assert_eq!((code, &rule_of(&shown, &topic)["step"]), (0, &Value::from("install")));
    assert_eq!(env.bucket.rules(), []);
    let (code, shown) = retention(&env, &[]);
    assert_eq!((code, &rule_of(&shown, &topic)["done"]), (0, &Value::from(true)), "{shown}");
    let rule = |days| [(format!("kafka-backup:{topic}/"), format!("{topic}/"), days)];
    assert_eq!(env.bucket.rules(), rule(7));

    kafka.configure(&topic, &[("retention.ms", "1000")]);
    wait_until("the difference to show", SOON, || {
        let (code, shown) = retention(&env, &[]);
        (code, &rule_of(&shown, &topic)["step"]) == (3, &Value::from("shorten"))
    });
    assert_eq!(env.bucket.rules(), rule(7));
    let daemon = env.daemon().ready();
    daemon.await_metric("kafka_backup_lifecycle_drift", &["backup_job=\"shorter\""], 1.0);
    wait_until("the status to say so", SOON, || {
        daemon.get("/-/status").is_some_and(|(_, body)| body.contains("--allow-retention-decrease"))
    });
    assert_eq!(env.bucket.rules(), rule(7));
    daemon.kill();
    assert_eq!(retention(&env, &["--allow-retention-decrease"]).0, 0);
    assert_eq!(env.bucket.rules(), rule(1));

    kafka.configure(&topic, &[("retention.ms", &(14 * 86_400_000_i64 + 1).to_string())]);
    wait_until("the longer retention", SOON, || retention(&env, &[]).0 == 0 && env.bucket.rules() == rule(15));
}

/// What a typed model of rules would lose or turn into a rule over the whole bucket.
const FOREIGN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- ours! -->\n\
    <LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n\
    <Rule><ID>big ones</ID><Filter><ObjectSizeGreaterThan>5000000000</ObjectSizeGreaterThan></Filter>\
    <Status>Disabled</Status><Expiration><Days>1</Days></Expiration></Rule>\n\
    \t<Rule><Status>Enabled</Status><Filter><And><Prefix>logs/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And>\
    </Filter><ID>&lt;tagged&gt;</ID><NoncurrentVersionExpiration><NoncurrentDays>3</NoncurrentDays>\
    <NewerNoncurrentVersions>5</NewerNoncurrentVersions></NoncurrentVersionExpiration><FromTheFuture/></Rule>\n\
    </LifecycleConfiguration>\n";

/// The real server rewrites what it is sent, so a proxy keeps the document here.
#[test]
fn rules_of_others_survive_byte_for_byte() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("foreign", 1, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    proxy.keep_lifecycle(Some(FOREIGN));
    let env = Env::new();
    let mut env = env.storage_behind(&proxy).job("foreign", &[&topic], "retention = \"30d\"\n");
    assert_eq!(retention(&env, &[]).0, 0);
    let rule = format!(
        "<Rule><ID>kafka-backup:{topic}/</ID><Filter><Prefix>{topic}/</Prefix></Filter><Status>Enabled</Status>\
         <Expiration><Days>30</Days></Expiration></Rule>"
    );
    let with_rule = FOREIGN.replace("</LifecycleConfiguration>", &format!("{rule}</LifecycleConfiguration>"));
    assert_eq!(proxy.lifecycle().as_deref(), Some(with_rule.as_str()));
    let kept = env.bucket.list("_kafka_backup/lifecycle/");
    assert_eq!(env.bucket.get(&kept[0].key).0, FOREIGN.as_bytes());
    let puts = proxy.seen("PUT");
    assert_eq!((retention(&env, &[]).0, proxy.seen("PUT")), (0, puts), "nothing is written where nothing changes");
    env.change_job("foreign", |lines| lines.replace("30d", "keep"));
    assert_eq!(retention(&env, &[]).0, 0);
    assert_eq!(proxy.lifecycle().as_deref(), Some(FOREIGN));
}

/// The document cannot be read: everybody sees it, and the backup goes on.
#[test]
fn a_denied_permission_degrades_the_job_and_does_not_stop_it() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("denied", 1, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    proxy.set(Fault::Status(403), Hits::Lifecycle);
    let env = Env::new().variable(DAY.0, DAY.1);
    let env = env.storage_behind(&proxy).job("denied", &[&topic], &expiring("30d"));
    kafka.produce(&topic, 0, &numbered(0..100, 100));
    let daemon = env.daemon().ready();
    daemon.await_metric("kafka_backup_jobs", &["state=\"degraded\""], 1.0);
    assert!(daemon.get("/-/status").unwrap().1.contains("s3:PutLifecycleConfiguration"));
    await_caught_up(&kafka, &env.bucket, &topic);
    env.kafka_backup_named("b", &["retention"]).fails_with(12, &["s3:GetLifecycleConfiguration"]);
    proxy.set(Fault::Pass, Hits::All);
    daemon.await_metric("kafka_backup_jobs", &["state=\"running\""], 1.0);
    wait_until("the rule", SOON, || env.bucket.rules().len() == 1);
}

/// A key that is not ours would be removed by the rule, so there is none.
#[test]
fn a_strange_key_under_the_topic_refuses_the_rule() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("strange", 1, &[]);
    let env = Env::new().job("strange", &[&topic], "retention = \"1d\"\n");
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    env.back_up("strange");
    assert_eq!(env.bucket.rules().len(), 1, "a one-shot run looks after the retention, too");
    env.bucket.expire("something else", "else/", 9);
    env.bucket.put(&format!("{topic}/README"), b"do not delete");
    let output = env.kafka_backup(&["retention"]);
    assert_eq!(output.code(), 3, "{output:?}");
    assert!(output.stdout.contains("README") && output.stdout.contains("not ours"), "{output:?}");
    assert_eq!(env.bucket.rules().len(), 1);
}

fn objects(path: &Path) -> Vec<String> {
    let listing = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = listing.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A folder has no rules: the daemon removes what is older, and the list goes on.
#[test]
fn a_folder_expires_too() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("folder", 1, &[]);
    let env = Env::new().variable(DAY.0, "4000");
    let path = env.path("backup");
    std::fs::create_dir(&path).unwrap();
    let storage = format!("storage = {{ type = \"file\", path = {path:?} }}\n");
    let env = env.job("folder", &[&topic], &format!("{storage}{}", expiring("1d")));
    kafka.produce(&topic, 0, &numbered(0..200, 100));
    let daemon = env.daemon().ready();
    let folder = path.join(&topic).join("0");
    daemon.await_metric("kafka_backup_expired_objects_total", &["backup_job=\"folder\""], 1.0);
    wait_until("everything to expire", SOON, || objects(&folder).is_empty());
    assert!(path.join("_kafka_backup/heads").join(&topic).join("0").exists());
    assert!(daemon.stop().success());
    std::fs::remove_dir_all(env.state("a")).unwrap();
    kafka.delete_group("kafka-backup-folder");
    kafka.produce(&topic, 0, &numbered(200..210, 100));
    let daemon = env.daemon().ready();
    let first = wait_for("an object", SOON, || objects(&folder).into_iter().find(|name| name.ends_with(".avro")));
    assert!(first.ends_with("-00000000000000000200.avro"), "{first}");
    assert!(daemon.stop().success());
    std::thread::sleep(Duration::from_millis(100));
    assert!(stored(&env.bucket).is_empty());
}
