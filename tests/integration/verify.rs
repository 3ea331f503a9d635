//! Damage of every kind is found, named with the offsets it affects, and told from what is as it may be; what is sound
//! is called sound. From the bucket alone.

use std::collections::BTreeSet;

use rstest::rstest;
use serde_json::Value;

use crate::common::beside_others;
use crate::common::env::{Env, Output};
use crate::common::kafka::Kafka;
use crate::common::record::numbered;
use crate::common::s3::Bucket;
use crate::common::unique;

/// A topic with 120 records in objects of 30, backed up.
struct Backup {
    kafka: Kafka,
    topic: String,
    env: Env,
}

impl Backup {
    fn new() -> Self {
        let kafka = Kafka::shared();
        let topic = kafka.topic("verified", 1, &[]);
        kafka.produce(&topic, 0, &numbered(0..120, 300));
        let env = Env::new().job("verified", &[&topic], "flush_size = 30\n");
        env.back_up("verified");
        Self { kafka, topic, env }
    }

    fn key(&self, offset: i64) -> String {
        format!("{0}/0/{0}-0-{offset:020}.avro", self.topic)
    }

    fn bucket(&self) -> &Bucket {
        &self.env.bucket
    }

    /// Changes the bytes of an object and nothing else.
    fn change(&self, offset: i64, change: impl Fn(&mut Vec<u8>)) {
        let (mut content, metadata) = self.bucket().get(&self.key(offset));
        change(&mut content);
        self.bucket().put_with(&self.key(offset), &content, &metadata);
    }

    fn verify(&self, args: &[&str]) -> Output {
        self.env.kafka_backup(&[&["verify", "--json"], args].concat())
    }
}

/// The findings that somebody must act upon: reason, key, first and end of the affected offsets.
fn damage(output: &Output) -> Vec<(String, String, Option<i64>, Option<i64>)> {
    let lines = output.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON and nothing else"));
    let findings = lines.filter(|line| line["message_type"] == "finding" && line["severity"] == "damage");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut found: Vec<_> = findings
        .map(|line| {
            assert!(line["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{line}");
            let (from, until) = (line["from_offset"].as_i64(), line["until_offset"].as_i64());
            (text(&line["reason"]), text(&line["object"]), from, until)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn a_sound_backup_is_sound_in_every_mode() {
    let _turn = beside_others();
    let backup = Backup::new();
    for (mode, read, records) in [("list", 0, 0), ("manifest", 0, 0), ("data", 4, 120)] {
        let summary = backup.verify(&["--mode", mode]).success();
        assert_eq!((&summary["message_type"], &summary["mode"]), (&"summary".into(), &mode.into()));
        assert_eq!((&summary["objects"], &summary["objects_read"]), (&4.into(), &read.into()), "{summary}");
        assert_eq!((&summary["records"], &summary["damaged"]), (&records.into(), &0.into()), "{summary}");
        assert_eq!((&summary["complete"], &summary["result_stored"]), (&true.into(), &true.into()), "{summary}");
        let kept = backup.bucket().get(&format!("_kafka_backup/status/verify-{mode}-verified.json")).0;
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        assert_eq!((&kept["objects"], &kept["last_success_ms"]), (&4.into(), &kept["last_run_ms"]), "{kept}");
    }
    let text = backup.env.kafka_backup(&["verify"]);
    assert!(text.code() == 0 && text.stdout.starts_with("sound (manifest): 1 topics"), "{text:?}");
}

/// What is done to the third of four objects (or to others), and what must be said of it in which mode.
#[rstest]
#[case::missing_in_the_middle(
    "manifest",
    |b: &Backup| b.bucket().delete(&b.key(60)),
    &[("missing", 60, Some(60), Some(90))]
)]
#[case::missing_head("list", |b: &Backup| b.bucket().delete(&b.key(0)), &[("missing", 0, Some(0), Some(30))])]
#[case::empty("list", |b: &Backup| b.bucket().put(&b.key(60), b""), &[("size", 60, Some(60), Some(90))])]
#[case::cut_off(
    "data",
    |b: &Backup| b.change(60, |content| content.truncate(content.len() / 2)),
    &[("size", 60, Some(60), Some(90))]
)]
#[case::a_flipped_bit(
    "data",
    |b: &Backup| b.change(60, |content| { let at = content.len() - 100; content[at] ^= 1; }),
    &[("checksum", 60, Some(60), Some(90))]
)]
#[case::a_flipped_bit_without_metadata(
    "data",
    |b: &Backup| {
        let mut content = b.bucket().get(&b.key(60)).0;
        let at = content.len() - 100;
        content[at] ^= 1;
        b.bucket().put(&b.key(60), &content);
    },
    &[("decode", 60, Some(60), Some(90))]
)]
#[case::swapped(
    "manifest",
    |b: &Backup| {
        let (thirty, sixty) = (b.bucket().get(&b.key(30)), b.bucket().get(&b.key(60)));
        b.bucket().put_with(&b.key(60), &thirty.0, &thirty.1);
        b.bucket().put_with(&b.key(30), &sixty.0, &sixty.1);
    },
    &[("metadata", 30, Some(30), Some(60)), ("metadata", 60, Some(60), Some(90))]
)]
#[case::content_of_another_object(
    "data",
    |b: &Backup| {
        let content = b.bucket().get(&b.key(30)).0;
        b.bucket().put_with(&b.key(60), &content, &b.bucket().metadata(&b.key(60)));
    },
    &[("checksum", 60, Some(60), Some(90))]
)]
#[case::wrong_metadata(
    "data",
    |b: &Backup| {
        let (content, mut metadata) = b.bucket().get(&b.key(60));
        metadata.insert("max-timestamp".to_owned(), "9000000000000".to_owned());
        b.bucket().put_with(&b.key(60), &content, &metadata);
    },
    &[("decode", 60, Some(60), Some(90))]
)]
#[case::of_another_generation(
    "manifest",
    |b: &Backup| {
        let (content, mut metadata) = b.bucket().get(&b.key(60));
        metadata.insert("generation".to_owned(), "somebody-elses".to_owned());
        b.bucket().put_with(&b.key(60), &content, &metadata);
    },
    &[("foreign", 60, Some(60), Some(90))]
)]
fn damage_is_named(
    #[case] mode: &str,
    #[case] harm: fn(&Backup),
    #[case] expected: &[(&str, i64, Option<i64>, Option<i64>)],
) {
    let _turn = beside_others();
    let backup = Backup::new();
    harm(&backup);
    let output = backup.verify(&["--mode", mode]);
    assert_eq!(output.code(), 4, "{output:?}");
    let expected: Vec<_> = expected
        .iter()
        .map(|(reason, key, from, until)| ((*reason).to_owned(), backup.key(*key), *from, *until))
        .collect();
    assert_eq!(damage(&output), expected, "{output:?}");
    let summary = output.summary();
    assert_eq!(summary["damaged"], expected.len(), "{summary}");
    let text = backup.env.kafka_backup(&["verify", "--mode", mode]);
    assert!(text.code() == 4 && text.stdout.contains("\n  next: ") && text.stdout.contains("DAMAGED"), "{text:?}");
}

#[test]
fn what_lies_among_the_objects_and_is_none_is_named() {
    let _turn = beside_others();
    let backup = Backup::new();
    let foreign = format!("{}/0/notes.txt", backup.topic);
    backup.bucket().put(&foreign, b"x");
    backup.bucket().put(&format!("{}/0/", backup.topic), b"");
    let output = backup.verify(&["--mode", "list"]);
    assert_eq!(output.code(), 4);
    assert_eq!(damage(&output), [("foreign".to_owned(), foreign, None, None)]);
}

/// A list does not say where it ends; the verification before does.
#[test]
fn the_last_object_is_missed_once_it_was_seen() {
    let _turn = beside_others();
    let backup = Backup::new();
    backup.verify(&[]).success();
    backup.kafka.produce(&backup.topic, 0, &numbered(120..150, 300));
    backup.env.back_up("verified");
    backup.verify(&[]).success();
    backup.bucket().delete(&backup.key(120));
    for _ in 0..2 {
        let output = backup.verify(&[]);
        assert_eq!(output.code(), 4);
        assert_eq!(damage(&output), [("missing".to_owned(), backup.key(120), Some(120), Some(150))]);
    }
    // Before the first record, because this produces none.
    let args = ["restore", "--storage", "main", "--kafka", "main", "--topics"];
    let restore =
        backup.env.kafka_backup(&[&args[..], &[&format!("{0}:{0}-copy", backup.topic), "--dry-run"]].concat());
    let said = |text: &str| restore.stdout.contains(text);
    let named = said("gap: offsets 120 to 149 are in no object") && said(&format!("{} is missing", backup.key(120)));
    assert!(restore.code() == 0 && named, "{restore:?}");
    let check = backup.env.kafka_backup(&["check", "--repo-only"]);
    assert!(check.code() == 4 && check.stdout.contains("gap: offsets 120 to 149 are in no object"), "{check:?}");
}

/// Without a job that says that nothing expires, a missing head is what retention leaves.
#[test]
fn a_head_that_may_have_expired_is_a_note() {
    let _turn = beside_others();
    let backup = Backup::new();
    backup.bucket().delete(&backup.key(0));
    let config = backup.env.path("storage-only.toml");
    let text = format!(
        "jobs_dir = \"none\"\n[storage.main]\ntype = \"s3\"\nbucket = \"{}\"\nregion = \"us-east-1\"\nendpoint = \"{}\"\n\
         path_style = true\n",
        backup.bucket().name,
        crate::common::stack::s3_endpoint()
    );
    std::fs::write(&config, text).unwrap();
    std::fs::create_dir_all(backup.env.path("none")).unwrap();
    let output = backup.env.kafka_backup(&["verify", "--json", "--config", config.to_str().unwrap()]);
    let summary = output.success();
    assert_eq!((&summary["damaged"], &summary["notes"]), (&0.into(), &1.into()), "{summary}");
    assert!(output.stdout.contains("have expired or were deleted"), "{output:?}");
    // What a restore calls missing is what a verification does.
    let restore = |more: &[&str], code: i32| {
        let mapping = format!("{0}:{1}", backup.topic, unique("headless"));
        let args = ["restore", "--storage", "main", "--json", "--topics", &mapping];
        let restored = backup.env.kafka_backup(&[&args[..], more].concat());
        let summary = restored.summary();
        let missing = if code == 3 { vec![backup.key(0)] } else { vec![] };
        assert_eq!((restored.code(), &summary["missing_objects"]), (code, &missing.into()), "{restored:?}");
        assert_eq!(summary["records_produced"], 90, "{summary}");
    };
    let servers = crate::common::stack::kafka_bootstrap();
    restore(&["--config", config.to_str().unwrap(), "--kafka", servers], 0);
    assert_eq!(backup.verify(&[]).code(), 4, "the job keeps everything");
    restore(&["--kafka", "main"], 3);
    let info = backup.env.kafka_backup(&["info", "--storage", "main"]);
    assert!(info.stdout.contains("gap: offsets 0 to 29 are in no object"), "{info:?}");
    assert_eq!(backup.env.kafka_backup(&["check", "--repo-only"]).code(), 4);
    for (days, code) in [(30, 4), (0, 0)] {
        let topic = &backup.topic;
        let terms = format!(r#"[{{"days":{days},"from_ms":0,"job":"verified"}}]"#);
        let record = format!(r#"{{"format_version":1,"topic":"{topic}","terms":{terms}}}"#);
        backup.bucket().put(&format!("_kafka_backup/retention/{topic}.json"), record.as_bytes());
        restore(&["--kafka", "main"], if code == 4 { 3 } else { 0 });
        assert_eq!(backup.verify(&[]).code(), code, "the head is gone after seconds: may it be after {days} days?");
    }
}

/// Stores remove what has expired in any order. A hole behind an object that is old enough is no damage, to `verify` as to
/// `restore`; one behind a young object is.
#[rstest]
#[case::old_enough(0, (0, 0), "have expired")]
#[case::too_young(30, (4, 3), "are in no object")]
fn a_hole_is_judged_by_the_age_of_what_is_in_front_of_it(
    #[case] days: u32,
    #[case] (verified, restored): (i32, i32),
    #[case] words: &str,
) {
    let _turn = beside_others();
    let backup = Backup::new();
    let topic = &backup.topic;
    let terms = format!(r#"[{{"days":{days},"from_ms":0,"job":"verified"}}]"#);
    let record = format!(r#"{{"format_version":1,"topic":"{topic}","terms":{terms}}}"#);
    backup.bucket().put(&format!("_kafka_backup/retention/{topic}.json"), record.as_bytes());
    backup.bucket().delete(&backup.key(60));
    assert_eq!(backup.verify(&[]).code(), verified);
    let target = unique("aged");
    let output = backup.env.restore(&format!("{topic}:{target}"), &[]);
    assert_eq!(output.code(), restored, "{output:?}");
    let warning = format!("gap: offsets 60 to 89 {words}");
    assert!(output.stdout.contains(&warning), "it is named all the same: {output:?}");
    let summary = output.summary();
    assert_eq!((&summary["records_planned"], &summary["records_produced"]), (&90.into(), &90.into()), "{summary}");
    assert_eq!(backup.kafka.end(&target, 0), 90);
}

/// The shares of a rotation are disjoint and together everything: each of them finds what is damaged in it alone.
#[test]
fn all_shares_together_read_every_object() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("shares", 3, &[]);
    for partition in 0..3 {
        kafka.produce(&topic, partition, &numbered(0..100, 100));
    }
    let env = Env::new().job("shares", &[&topic], "flush_size = 10\n");
    env.back_up("shares");
    let verify = |subset: &str| env.kafka_backup(&["verify", "--json", "--subset", subset]);
    let (mut read, mut records) = (0, 0);
    for n in 1..=4 {
        let summary = verify(&format!("{n}/4")).success();
        assert_eq!((&summary["mode"], &summary["objects"]), (&"data".into(), &30.into()), "{summary}");
        read += summary["objects_read"].as_i64().unwrap();
        records += summary["records"].as_i64().unwrap();
    }
    assert_eq!((read, records), (30, 300));
    let all: Vec<_> = env.bucket.list(&format!("{topic}/"));
    for object in &all {
        let (mut content, metadata) = env.bucket.get(&object.key);
        let at = content.len() - 30;
        content[at] ^= 1;
        env.bucket.put_with(&object.key, &content, &metadata);
    }
    let mut found = BTreeSet::new();
    for n in 1..=4 {
        let output = verify(&format!("{n}/4"));
        for (_, key, _, _) in damage(&output) {
            assert!(found.insert(key), "no object is in two shares");
        }
    }
    assert_eq!(found, all.into_iter().map(|object| object.key).collect());
    assert_eq!(verify("100%").summary()["objects_read"], 30);
    assert_eq!(verify("1GiB").summary()["objects_read"], 30);
}

#[rstest]
#[case::no_such_topic(&["--topic", "never-heard-of"], 10, "never-heard-of")]
#[case::no_such_job(&["--job", "nobody"], 10, "nobody")]
#[case::no_bucket(&["--storage", "s3://no-such-bucket-at-all?region=us-east-1&path_style=true&endpoint={s3}"], 10, "no-such-bucket")]
#[case::nothing_to_take_a_part_of(&["--mode", "list", "--subset", "1/2"], 2, "--subset")]
#[case::not_a_subset(&["--subset", "9/7"], 2, "1/7")]
fn what_cannot_be_verified_is_no_damage(#[case] args: &[&str], #[case] code: i32, #[case] word: &str) {
    let _turn = beside_others();
    let backup = Backup::new();
    let args: Vec<String> = args.iter().map(|arg| arg.replace("{s3}", crate::common::stack::s3_endpoint())).collect();
    let output = backup.verify(&args.iter().map(String::as_str).collect::<Vec<_>>());
    output.fails_with(code, &[word]);
}

/// What a restore does of the same damage: named before anything is produced, and of a cut or flipped object before a
/// record of it.
#[rstest]
#[case::foreign(|b: &Backup| {
    let (content, mut metadata) = b.bucket().get(&b.key(60));
    metadata.insert("generation".to_owned(), "somebody-elses".to_owned());
    b.bucket().put_with(&b.key(60), &content, &metadata);
}, 60, None)]
#[case::misnamed(|b: &Backup| {
    let thirty = b.bucket().get(&b.key(30));
    b.bucket().put_with(&b.key(60), &thirty.0, &thirty.1);
}, 60, None)]
#[case::cut_off(|b: &Backup| b.change(60, |content| content.truncate(content.len() / 2)), 60, Some(60))]
#[case::flipped(|b: &Backup| b.change(60, |content| { let at = content.len() - 100; content[at] ^= 1; }), 60, Some(60))]
fn a_restore_names_damage_before_it_does_harm(
    #[case] harm: fn(&Backup),
    #[case] key: i64,
    #[case] produced: Option<i64>,
) {
    let _turn = beside_others();
    let backup = Backup::new();
    harm(&backup);
    let target = unique("damaged");
    let output = backup.env.restore(&format!("{}:{target}", backup.topic), &[]);
    assert_ne!(output.code(), 0);
    assert!((output.stdout.clone() + &output.stderr).contains(&backup.key(key)), "{output:?}");
    match produced {
        None => assert_eq!(backup.kafka.partitions(&target), 0, "nothing was even created"),
        Some(records) => assert_eq!(backup.kafka.end(&target, 0), records, "not one record of it"),
    }
}

/// What is missing cannot be brought: it is named before anything is produced and again at the end, and the exit code says
/// that the topic is not whole.
#[test]
fn a_restore_without_a_missing_object_says_so_and_brings_the_rest() {
    let _turn = beside_others();
    let backup = Backup::new();
    backup.bucket().delete(&backup.key(60));
    let target = unique("incomplete");
    let mapping = format!("{}:{target}", backup.topic);
    let plan = backup.env.restore(&mapping, &["--dry-run"]);
    let line: Value = serde_json::from_str(plan.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(line["topics"][0]["partitions"][0]["missing"], serde_json::json!([backup.key(60)]), "{plan:?}");
    assert_eq!(line["totals"]["missing_objects"], 1, "{line}");
    let output = backup.env.restore(&mapping, &[]);
    assert_eq!(output.code(), 3, "{output:?}");
    let lines: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let warns =
        |line: &Value| line["message_type"] == "warning" && line["message"].to_string().contains(&backup.key(60));
    assert!(lines.iter().any(warns), "{output:?}");
    let summary = output.summary();
    assert_eq!((&summary["records_planned"], &summary["records_produced"]), (&90.into(), &90.into()), "{summary}");
    assert_eq!(summary["missing_objects"], serde_json::json!([backup.key(60)]), "{summary}");
    assert_eq!(backup.kafka.end(&target, 0), 90);
    // Only what is asked for can be missed.
    let until = format!("{}/0=60", backup.topic);
    backup.env.restore(&format!("{}:{target}-around", backup.topic), &["--until-offset", &until]).success();
}
