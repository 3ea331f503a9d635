//! A restore and its target: what the target is not allowed to be, and what may happen to it while records are on their
//! way.

use std::time::Duration;

use crate::common::beside_others;
use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::{Rec, assert_same, numbered};
use crate::common::stack::{Cluster, kafka_tool};
use crate::common::{SOON, unique, wait_until};

/// A topic of `partitions` partitions with `records` records of 500 bytes in each, and its backup in small objects.
fn backed_up(partitions: i32, records: i64) -> (Kafka, String, Env) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("source", partitions, &[]);
    for partition in 0..partitions {
        kafka.produce(&topic, partition, &numbered(0..records, 500));
    }
    // Tests run beside each other, and each backup wants its group for itself.
    let lines = format!("group_id = \"backup-of-{topic}\"\nflush_size = 100\n");
    let env = Env::new().job("source", &[&topic], &lines);
    env.back_up("source");
    (kafka, topic, env)
}

/// Kafka gives restored records new offsets; all else is the same.
fn contents(records: Vec<Rec>) -> Vec<Rec> {
    records.into_iter().map(Rec::without_offset).collect()
}

/// Starts a restore that takes long enough for something to happen in the middle, as `instance`.
fn slowly(env: &Env, mapping: &str, instance: &str, args: &[&str]) -> Daemon {
    let fixed = ["restore", "--storage", "main", "--topics", mapping, "--rate-limit", "60KiB/s", "--json"];
    env.start(&[&fixed, args].concat(), instance)
}

const MAIN: [&str; 2] = ["--kafka", "main"];

fn await_middle(kafka: &Kafka, target: &str) {
    wait_until("records in the target", SOON, || kafka.end(target, 0) > 0);
}

/// Why it is refused, with how many partitions, which settings of the target, which arguments.
type Case<'a> = (&'static str, i32, &'static [(&'static str, &'static str)], &'a [&'a str]);

#[test]
fn every_refusal_names_its_reason_and_leaves_the_target_as_it_is() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(2, 100);
    let elsewhere = format!("{topic}/7");
    let cases: [Case<'_>; 6] = [
        ("has 1 partitions, 2 are needed", 1, &[], &[]),
        ("max.message.bytes", 2, &[("max.message.bytes", "400")], &[]),
        ("message.timestamp.before.max.ms", 2, &[("message.timestamp.before.max.ms", "86400000")], &[]),
        ("LogAppendTime", 2, &[("message.timestamp.type", "LogAppendTime")], &[]),
        ("has 2 partitions", 2, &[], &["--partitions", &elsewhere]),
        ("nothing matched", 2, &[], &["--from", "2100-01-01T00:00:00Z"]),
    ];
    for (why, partitions, settings, args) in cases {
        let target = kafka.topic("refusing", partitions, settings);
        let refused = env.restore(&format!("{topic}:{target}"), args);
        assert!([1, 10].contains(&refused.code()) && refused.stderr.contains(why), "{why}: {refused:?}");
        // For programs on stdout, too.
        assert!(refused.stdout.contains("\"message_type\":\"refusal\""), "{}", refused.stdout);
        assert!((0..partitions).all(|p| kafka.watermarks(&target, p) == (0, 0)), "{why}");
    }
    let target = unique("absent");
    env.restore(&format!("{topic}:{target}"), &["--create-topics=false"]).fails_with(1, &[&target]);
    // More replicas than there are brokers: the brokers say so before anything is created.
    let other = unique("absent");
    let two = format!("{topic}:{target},{topic}-none:{other}");
    env.restore(&two, &[]).fails_with(10, &[&format!("{topic}-none")]);
    env.restore(&format!("{topic}:{target}"), &["--replication-factor", "7"])
        .fails_with(1, &[&target, "cannot be created"]);
    assert_eq!((kafka.partitions(&target), kafka.partitions(&other)), (0, 0));
}

/// A compacted topic refuses a record without a key only when it gets one, which would be in the middle of a restore.
#[test]
fn records_without_a_key_are_refused_where_the_target_is_compacted() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("keyless", 1, &[]);
    let keyless = |record: Rec| Rec { key: None, ..record };
    kafka.produce(&topic, 0, &numbered(0..100, 100));
    kafka.produce(&topic, 0, &numbered(100..103, 100).into_iter().map(keyless).collect::<Vec<_>>());
    let env = Env::new().job("keyless", &[&topic], "flush_size = 100\n");
    env.back_up("keyless");
    let target = kafka.topic("compacted-target", 1, &[("cleanup.policy", "compact")]);
    let to = format!("{topic}:{target}");
    env.restore(&to, &[]).fails_with(1, &[&target, "records without a key, of which there are 3", "cleanup.policy"]);
    assert_eq!(kafka.watermarks(&target, 0), (0, 0));
    let until = format!("--until-offset={topic}/0=100");
    let restored = env.restore(&to, &[&until]);
    assert_eq!(restored.success()["records_produced"], 100, "{restored:?}");
    assert!(!restored.stderr.contains("without a key"), "{restored:?}");
    let verified = env.kafka_backup(&["verify", "--storage", "main", "--topic", &topic, "--no-record"]);
    assert_eq!(verified.code(), 0, "{verified:?}");
}

/// What the request or the records themselves forbid is said before anything is created, and a target that is there is not
/// touched.
#[test]
fn a_request_that_cannot_be_met_is_refused_before_anything_is_created() {
    let _turn = beside_others();
    let (kafka, plain, env) = backed_up(2, 100);
    let ahead = kafka.topic("ahead", 1, &[("message.timestamp.after.max.ms", "9223372036854775807")]);
    kafka.produce(&ahead, 0, &[Rec::new(4_000_000_000_000, "k", "of the year 2096")]);
    let env = env.job("ahead", &[&ahead], &format!("group_id = \"backup-of-{ahead}\"\n"));
    env.back_up("ahead");
    let (target, existing) = (unique("absent"), kafka.topic("existing", 1, &[]));
    let to = |source: &str, target: &str| format!("{source}:{target}");
    let cases: [(&str, i32, Vec<String>); 7] = [
        ("has no generation 9", 10, vec!["--topics".into(), to(&plain, &target), "--generation=9".into()]),
        ("no topic of this backup matches", 10, vec!["--topics-regex=^nothing-.*".into()]),
        ("is not in this backup", 10, vec!["--topics".into(), to(&unique("unknown"), &target)]),
        ("is given twice", 78, vec!["--topics".into(), format!("{},{}", to(&plain, &target), to(&ahead, &target))]),
        ("is not a topic name", 78, vec!["--topics".into(), to(&plain, "not a name")]),
        (
            "which partitions leaves out",
            1,
            vec![
                "--topics".into(),
                to(&plain, &target),
                format!("--partitions={plain}/0"),
                format!("--until-offset={plain}/1=5"),
            ],
        ),
        ("message.timestamp.after.max.ms", 1, vec!["--topics".into(), to(&ahead, &existing)]),
    ];
    for (why, code, args) in cases {
        let fixed = ["restore", "--storage", "main", "--kafka", "main", "--json"].map(str::to_owned);
        env.kafka_backup(&[&fixed[..], &args].concat()).fails_with(code, &[why]);
        assert_eq!((kafka.partitions(&target), kafka.watermarks(&existing, 0)), (0, (0, 0)), "{why}");
    }
}

/// Permissions are part of what is checked before anything is produced.
#[test]
fn a_target_that_may_not_be_written_or_created_is_refused() {
    let _turn = beside_others();
    let (source, topic, mut env) = backed_up(1, 100);
    let group = unique("billing");
    source.commit(&group, &topic, &[(0, 40)], "");
    env.change_job("source", |lines| format!("{lines}groups_regex = \"^{group}$\"\n"));
    env.back_up("source");
    let authorizer = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    let cluster = Cluster::start_with(1, &format!("{authorizer};allow.everyone.if.no.acl.found=true"));
    let kafka = Kafka::at(&cluster.bootstrap);
    let env = env.kafka("dr", &cluster.bootstrap, &[]);
    let acl = |what: &[&str]| {
        let fixed = ["--bootstrap-server", cluster.bootstrap.as_str(), "--force"];
        kafka_tool("org.apache.kafka.tools.AclCommand", &[&fixed[..], what].concat());
    };
    let deny = ["--add", "--deny-principal", "User:ANONYMOUS"];
    let target = kafka.topic("target", 1, &[]);
    acl(&[&deny[..], &["--operation", "Write", "--topic", &target]].concat());
    // What is not denied is allowed: an ACL on the topic says nothing else about it.
    acl(&["--add", "--allow-principal", "User:ANONYMOUS", "--operation", "All", "--topic", &target]);
    let restore = |target: &str| {
        let mapping = format!("{topic}:{target}");
        env.kafka_backup(&["restore", "--storage", "main", "--kafka", "dr", "--topics", &mapping, "--json"])
    };
    restore(&target).fails_with(12, &[&target, "WRITE"]);
    assert_eq!(kafka.end(&target, 0), 0);

    let absent = unique("absent");
    acl(&[&deny[..], &["--operation", "Create", "--topic", &absent]].concat());
    // The brokers need the rest of what can be done with the cluster.
    acl(&["--add", "--allow-principal", "User:ANONYMOUS", "--operation", "All", "--cluster"]);
    acl(&[&deny[..], &["--operation", "Create", "--cluster"]].concat());
    restore(&absent).fails_with(12, &[&absent, "cannot be created"]);
    assert_eq!(kafka.partitions(&absent), 0);

    acl(&["--remove", "--topic", &target]);
    // Whoever may not commit for a group hears of it before the records are there.
    acl(&[&deny[..], &["--operation", "Read", "--group", &group]].concat());
    acl(&["--add", "--allow-principal", "User:ANONYMOUS", "--operation", "All", "--group", &group]);
    let mapping = format!("{topic}:{target}");
    let fixed = ["restore", "--storage", "main", "--kafka", "dr", "--topics", &mapping, "--consumer-groups", "apply"];
    env.kafka_backup(&fixed).fails_with(12, &[&group, "READ"]);
    assert_eq!(kafka.end(&target, 0), 0);

    restore(&target).success();
    assert_eq!(kafka.end(&target, 0), 100);
}

/// One of three brokers is killed while records are on their way to it: every record is there once.
#[test]
fn a_broker_is_killed_in_the_middle() {
    let _turn = beside_others();
    let (source, topic, env) = backed_up(3, 600);
    let cluster = Cluster::start(3);
    let kafka = Kafka::at(&cluster.bootstrap);
    let env = env.kafka("dr", &cluster.bootstrap, &[]);
    let target = unique("killed");
    kafka.create_topic(&target, 3, 3, &[("min.insync.replicas", "2")]);
    let restore = slowly(&env, &format!("{topic}:{target}"), "a", &["--kafka", "dr"]);
    await_middle(&kafka, &target);
    cluster.stop_broker(2, "KILL");
    assert!((0..3).map(|partition| kafka.end(&target, partition)).sum::<i64>() < 1800, "killed in the middle");
    assert_eq!(restore.wait().code(), Some(0));
    for partition in 0..3 {
        let (expected, actual) = (source.read(&topic, partition), kafka.read(&target, partition));
        assert_same(&format!("partition {partition}"), &contents(expected), &contents(actual));
    }
}

#[test]
fn of_two_restores_at_once_the_second_is_refused() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(1, 600);
    let target = unique("both");
    let mapping = format!("{topic}:{target}");
    let first = slowly(&env, &mapping, "a", &MAIN);
    await_middle(&kafka, &target);
    // The same restore on the same machine has the plan; one from elsewhere finds a topic that is not empty.
    env.restore(&mapping, &[]).fails_with(11, &["another restore runs the plan"]);
    let elsewhere = ["restore", "--storage", "main", "--kafka", "main", "--topics", &mapping];
    env.kafka_backup_named("b", &elsewhere).fails_with(1, &[&target, "is not empty"]);
    assert_eq!(first.wait().code(), Some(0), "the first one takes no harm");
    assert_same("the target", &contents(kafka.read(&topic, 0)), &contents(kafka.read(&target, 0)));
}

/// Two machines begin at the same moment: both have seen an empty topic.
#[test]
fn two_restores_that_begin_at_once_do_not_both_succeed() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(1, 600);
    let target = kafka.topic("raced", 1, &[]);
    let mapping = format!("{topic}:{target}");
    let both = ["a", "b"].map(|instance| slowly(&env, &mapping, instance, &MAIN));
    let codes = both.map(|restore| {
        wait_until("it to end", SOON, || restore.log().contains("got offset") || restore.has_ended());
        restore.wait().code()
    });
    assert!(codes.contains(&Some(3)) || codes.contains(&Some(1)), "{codes:?}");
    assert!(codes.iter().filter(|code| **code == Some(0)).count() < 2, "{codes:?}");
}

#[test]
fn a_foreign_record_in_the_middle_stops_the_restore_and_it_does_not_go_on() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(1, 600);
    let target = unique("foreign");
    let mapping = format!("{topic}:{target}");
    let restore = slowly(&env, &mapping, "a", &MAIN);
    await_middle(&kafka, &target);
    kafka.produce(&target, 0, &[Rec::new(1, "foreign", "record")]);
    restore.await_log("got offset");
    assert_eq!(restore.wait().code(), Some(3));
    let end = kafka.end(&target, 0);
    let again = env.restore(&mapping, &[]);
    // 1: there is more on it than there was to restore; 3: its last record is not the planned one.
    assert!([1, 3].contains(&again.code()), "{again:?}");
    assert!(again.stderr.contains(&format!("offset {}", end - 1)), "the offset is named: {}", again.stderr);
    assert_eq!(kafka.end(&target, 0), end, "and nothing more is produced");
}

#[test]
fn a_target_that_is_created_again_in_the_middle_is_not_taken_for_the_old_one() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(1, 600);
    let target = unique("again");
    let mapping = format!("{topic}:{target}");
    let restore = slowly(&env, &mapping, "a", &MAIN);
    await_middle(&kafka, &target);
    restore.kill();
    kafka.delete_topic(&target);
    env.restore(&mapping, &[]).fails_with(1, &[&target, "it was deleted"]);
    kafka.create_topic(&target, 1, 1, &[]);
    env.restore(&mapping, &[]).fails_with(1, &[&target, "deleted and created again"]);
    assert_eq!(kafka.watermarks(&target, 0), (0, 0));
}

/// Timestamps go up and down, within objects and across them: each record is judged by its own.
#[test]
fn a_point_in_time_with_timestamps_out_of_order() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("shuffled", 1, &[]);
    let mut records = numbered(0..200, 50);
    fastrand::Rng::with_seed(7).shuffle(&mut records);
    kafka.produce(&topic, 0, &records);
    let env = Env::new().job("shuffled", &[&topic], "flush_size = 15\n");
    env.back_up("shuffled");
    let target = unique("window");
    // Records are a second apart: 40 to 89.
    let window = ["--from", "2026-01-01T00:00:40Z", "--until", "2026-01-01T00:01:30Z"];
    let summary = env.restore(&format!("{topic}:{target}"), &window).success();
    assert_eq!((&summary["records_produced"], &summary["records_filtered"]), (&50.into(), &150.into()), "{summary}");
    let first = 1_767_225_600_000;
    let inside = |record: &Rec| (first + 40_000..first + 90_000).contains(&record.timestamp);
    let expected: Vec<Rec> = kafka.read(&topic, 0).into_iter().filter(inside).collect();
    assert_same("the window", &contents(expected), &contents(kafka.read(&target, 0)));
}

/// What a file can say, with a pattern and new names; elsewhere than on a terminal progress is a line each time.
#[test]
fn a_restore_file_with_a_pattern_and_a_rename() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up(2, 300);
    let (file, plan) = (env.path("restore.toml"), env.path("plan.json"));
    let text = format!(
        "kafka = \"main\"\nstorage = \"main\"\ntopics_regex = \"^{topic}$\"\nrename = \"s/^/dr-/\"\n\
         partitions = [\"{topic}/1\"]\nfrom_offset = {{ \"{topic}/1\" = 50 }}\nuntil_offset = {{ \"{topic}/1\" = 250 }}\n\
         replication_factor = 1\ntasks_max = 2\napply_topic_config = true\nplan = {plan:?}\nrate_limit = \"25KiB/s\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let output = env.kafka_backup(&["restore", file.to_str().unwrap(), "--json", "--progress-interval", "500ms"]);
    assert_eq!(output.success()["records_produced"], 200);
    let target = format!("dr-{topic}");
    let lines: Vec<&str> = output.stderr.lines().filter(|line| line.contains(" %, ")).collect();
    assert!(lines.len() > 1 && lines.iter().all(|line| line.contains(" KiB of ")), "{}", output.stderr);
    assert!(lines.iter().any(|line| line.ends_with(&format!(": {target}/1"))), "{lines:?}");
    assert_eq!((kafka.partitions(&target), kafka.end(&target, 0)), (2, 0));
    let expected = kafka.read(&topic, 1)[50..250].to_vec();
    assert_same("what the file asks for", &contents(expected), &contents(kafka.read(&target, 1)));
    assert!(plan.exists(), "the plan is where it was asked for");
}

/// A person sees it move in place; the result is where it always is. And a rate limit is a limit.
#[test]
fn progress_is_shown_on_a_terminal() {
    let _turn = beside_others();
    let (_, topic, env) = backed_up(1, 600);
    let mapping = format!("{topic}:{}", unique("shown"));
    let began = std::time::Instant::now();
    let shown = env.on_a_terminal(&[
        "restore",
        "--storage",
        "main",
        "--kafka",
        "main",
        "--topics",
        &mapping,
        "--rate-limit",
        "25KiB/s",
    ]);
    assert_eq!(shown.code(), 0, "{shown:?}");
    for part in ["\r", " %, ", " KiB of ", " records, ", " s left", &format!(": {}", &mapping[topic.len() + 1..])] {
        assert!(shown.stdout.contains(part), "{part:?} in {:?}", shown.stdout);
    }
    assert!(shown.stdout.contains("restored: 600 of 600 records"), "{:?}", shown.stdout);
    // 236 KiB, less the first object, which is free.
    assert!(began.elapsed() > Duration::from_secs(6), "{:?}", began.elapsed());
}
