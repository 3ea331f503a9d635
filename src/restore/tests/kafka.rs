//! The same onto Kafka: onto librdkafka's mock cluster always, and the whole command onto a real broker where
//! `KAFKA_BACKUP_TEST_KAFKA=host:port` names one.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Instant;

use super::*;
use crate::config::{Isolation, KafkaConfig};
use crate::kafka::TopicPartition;
use crate::kafka::consumer::{GroupConsumer, GroupEvent, Position};
use crate::kafka::create::NewTopic;
use crate::kafka::mock::MockKafka;
use crate::kafka::producer::{ProducerSettings, RestoreProducer};
use crate::kafka::reader::read_at;
use crate::kafka::settings::ConsumerSettings;
use crate::model::restore::saved::SavedPlan;
use crate::model::restore::{Selection, TargetTopic};
use crate::restore::fingerprint::fingerprint;
use crate::restore::plan_file::{self, PlanFile};
use crate::restore::target::{KafkaSinks, KafkaTarget};
use crate::restore::{Restore, run};

const SOON: Duration = Duration::from_secs(30);

fn config(bootstrap: String) -> Arc<KafkaConfig> {
    Arc::new(KafkaConfig { name: "test".to_owned(), bootstrap_servers: vec![bootstrap], properties: BTreeMap::new() })
}

fn real() -> Option<Arc<KafkaConfig>> {
    let bootstrap = std::env::var("KAFKA_BACKUP_TEST_KAFKA");
    if bootstrap.is_err() {
        eprintln!("KAFKA_BACKUP_TEST_KAFKA is not set: skipped");
    }
    bootstrap.ok().map(config)
}

/// All records of a partition, from its beginning to its end.
fn read(kafka: &KafkaConfig, topic: &str, partition: i32) -> Vec<Owned> {
    let settings = ConsumerSettings {
        group_id: format!("read-{topic}-{partition}"),
        group_instance_id: String::new(),
        isolation: Isolation::ReadUncommitted,
        prefetch_bytes: 1 << 20,
        partitions: 3,
        patient: false,
    };
    let (events, assigned) = mpsc::channel();
    let on_event = Box::new(move |event| _ = events.send(event));
    let consumer = GroupConsumer::start("read", kafka, &settings, &[topic.to_owned()], on_event).unwrap();
    let at = TopicPartition::new(topic, partition);
    loop {
        match assigned.recv_timeout(SOON).unwrap() {
            GroupEvent::Assigned(partitions) if partitions.contains(&at) => break,
            _ => {}
        }
    }
    let mut queue = consumer.place(&[(at, Position { offset: 0, leader_epoch: -1 })]).unwrap().remove(0);
    let (mut batch, began) = (RecordBatch::default(), Instant::now());
    while queue.drain(&mut batch, 64 << 20, usize::MAX).eof.is_none() {
        assert!(began.elapsed() < SOON, "no end of {topic}/{partition}");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(queue);
    consumer.close(SOON);
    batch.iter().map(|record| Owned::from(&record)).collect()
}

fn append_one(kafka: &KafkaConfig, topic: &str, partition: i32) {
    let producer = RestoreProducer::new(kafka, &ProducerSettings::default(), Box::new(|_, _, _| ())).unwrap();
    let mut batch = RecordBatch::default();
    put(&mut batch, 2);
    producer.send(&producer.topic(topic).unwrap(), partition, &batch.first().unwrap(), 0).unwrap();
    producer.flush(SOON).unwrap();
}

async fn filled() -> (Bed, Vec<i64>) {
    let bed = Bed::new().await;
    let sparse: Vec<i64> = (0..2000).filter(|offset| offset % 3 != 1).collect();
    bed.add(0, 0, 2000, &sparse).await;
    bed.add(0, 2000, 2010, &[2004, 2008]).await;
    bed.add(2, 0, 10, &[5, 6]).await;
    (bed, sparse.into_iter().chain([2004, 2008]).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn onto_the_mock_cluster_and_back() {
    let mock = MockKafka::start(&[("copy", 3)]).unwrap();
    let kafka = config(mock.bootstrap());
    let (bed, offsets) = filled().await;
    let empty = TargetTopic { offsets: vec![(0, 0); 3], ..TargetTopic::default() };
    let target = Target { cluster_id: String::new(), topics: BTreeMap::from([("copy".to_owned(), empty)]) };
    let plan = bed.plan_for(&target).await.unwrap();
    let act = Act {
        store: bed.store.clone(),
        sinks: Arc::new(KafkaSinks::new(kafka.clone(), &plan, &target)),
        tasks_max: 2,
        throttle: Arc::new(Throttle::new(None)),
        resumed: BTreeMap::new(),
        stop: Stop::default(),
    };
    let report = act.run(&plan, &Arc::default()).await.unwrap();
    assert_eq!((report.exit(), report.produced()), (Exit::Ok, offsets.len() as u64 + 2), "{}", report.text());
    assert_eq!(read(&kafka, "copy", 0), expected(offsets));
    assert_eq!(read(&kafka, "copy", 2), expected([5, 6]));
    // The same plan again: the first report carries the wrong offset.
    let again = act.run(&plan, &Arc::default()).await.unwrap();
    assert_eq!((again.exit(), again.produced()), (Exit::Incomplete, 0));
    assert!(matches!(again.partitions[0].failure, Some(Failure::Offset { expected: 0, .. })));
}

/// What a restore that goes on compares is the record as it stands on the target: also where librdkafka's interface would
/// have put another timestamp or another name in its place.
#[test]
fn what_was_produced_is_known_again() {
    let mock = MockKafka::start(&[("copy", 1)]).unwrap();
    let kafka = config(mock.bootstrap());
    let (sender, delivered) = mpsc::channel();
    let on_delivery = Box::new(move |tag, _, offset: Result<i64, KafkaError>| _ = sender.send((tag, offset.unwrap())));
    let producer = RestoreProducer::new(&kafka, &ProducerSettings::default(), on_delivery).unwrap();
    let mut produced = RecordBatch::default();
    for (offset, ms) in (0..).zip([0, 1, -1, 0]) {
        let names: [&[u8]; 3] = [b"a\0b", b"\0", b"a"];
        let headers = names.map(|name| Header { name, value: (offset % 2 == 0).then_some(&b"\0"[..]) });
        produced.push(offset, (ms, TimestampType::CreateTime), None, Some(b"v"), headers);
    }
    let topic = producer.topic("copy").unwrap();
    produced.iter().for_each(|record| producer.send(&topic, 0, &record, record.offset as u64).unwrap());
    producer.flush(SOON).unwrap();
    assert_eq!(delivered.try_iter().collect::<Vec<_>>(), [(0, 0), (1, 1), (2, 2), (3, 3)]);

    let mut known = BTreeMap::new();
    for offset in 0..4 {
        let position = [(TopicPartition::new("copy", 0), offset)];
        read_at(&kafka, &position, |_, record| _ = known.insert(offset, fingerprint(record))).unwrap();
    }
    let expected = produced.iter().map(|record| (record.offset, fingerprint(&record))).collect();
    assert_eq!(known, expected);
}

fn restore(bed: &Bed, kafka: &Arc<KafkaConfig>, target: &str) -> Restore {
    Restore {
        store: bed.store.clone(),
        storage: "backup".to_owned(),
        kafka: kafka.clone(),
        selection: Selection { topics: vec![format!("t:{target}")], ..Selection::default() },
        instance: None,
        generation: None,
        partitions: BTreeSet::new(),
        times: Times::default(),
        offsets: BTreeMap::new(),
        tasks_max: 2,
        create_topics: true,
        replication_factor: None,
        append: false,
        in_place: false,
        apply_topic_config: false,
        consumer_groups: crate::config::ConsumerGroups::None,
        progress_interval: None,
        expiry: Arc::new(|_| crate::model::verify::Expiry::Possible),
        groups: crate::config::GroupSelection {
            include: crate::model::restore::Pattern(regex::Regex::new(".*").unwrap()),
            exclude: None,
        },
        rate_limit: None,
        plan: None,
        plans: bed.plans.path().to_owned(),
        resume: false,
        dry_run: false,
        json: false,
    }
}

/// As many objects as there can be stops in, so that reading them at a limited rate takes a while.
async fn many_objects() -> (Bed, Vec<i64>) {
    let bed = Bed::new().await;
    for start in (0..600).step_by(20) {
        bed.add(0, start, start + 20, &(start..start + 20).collect::<Vec<_>>()).await;
        bed.add(1, start, start + 20, &[start + 3]).await;
    }
    (bed, (0..600).collect())
}

/// Runs a restore that is stopped when its first records have arrived, then at random moments, again and again until one
/// is finished; returns how many runs that took.
async fn stop_and_go(restore: &Restore, name: &str) -> usize {
    let kafka = restore.kafka.clone();
    for runs in 1.. {
        // The first one is not over before it can be stopped.
        let rate_limit = Some(if runs == 1 { 5 << 10 } else { 100 << 10 });
        let (restore, stop) = (Restore { rate_limit, ..restore.clone() }, Stop::default());
        let stopped = async {
            if runs == 1 {
                arrive(&kafka, name).await;
            } else {
                // Looking whether the target stands still takes two seconds.
                tokio::time::sleep(Duration::from_millis(2000 + fastrand::u64(100..400))).await;
            }
            stop.now(Exit::Interrupted);
            std::future::pending::<()>().await;
        };
        let exit = tokio::select! {
            exit = run(restore, stop.clone()) => exit.unwrap(),
            () = stopped => unreachable!(),
        };
        match exit {
            Exit::Ok => return runs,
            Exit::Interrupted => {}
            exit => panic!("{exit:?}"),
        }
    }
    unreachable!()
}

/// Waits until some records are in partition 0 of topic `name`.
async fn arrive(kafka: &KafkaConfig, name: &str) {
    let (target, names) = (KafkaTarget::open(kafka).unwrap(), BTreeSet::from([name.to_owned()]));
    let began = Instant::now();
    while target.facts(&names).await.unwrap().topics.get(name).is_none_or(|topic| topic.offsets[0].1 < 2) {
        assert!(began.elapsed() < SOON, "nothing arrives");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_restore_goes_on_onto_the_mock_cluster() {
    let mock = MockKafka::start(&[("copy", 3)]).unwrap();
    let kafka = config(mock.bootstrap());
    let (bed, offsets) = many_objects().await;
    assert!(stop_and_go(&restore(&bed, &kafka, "copy"), "copy").await > 1);
    assert!(read(&kafka, "copy", 0) == expected(offsets));
    assert!(read(&kafka, "copy", 1) == expected((0..600).step_by(20).map(|start| start + 3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_restore_goes_on_onto_a_real_broker() {
    let Some(kafka) = real() else { return };
    let (bed, offsets) = many_objects().await;
    let name = unique("stopped");
    let restore = restore(&bed, &kafka, &name);
    assert!(stop_and_go(&restore, &name).await > 1);
    assert!(read(&kafka, &name, 0) == expected(offsets));
    assert!(read(&kafka, &name, 1) == expected((0..600).step_by(20).map(|start| start + 3)));
    // The plan is finished: the same restore is a new one, for which the target is not empty.
    let refused = run(restore.clone(), Stop::default()).await.unwrap_err();
    assert!(refused.to_string().contains("is not empty"), "{refused}");
    let none = run(Restore { resume: true, ..restore }, Stop::default()).await.unwrap_err();
    assert_eq!(none.exit, Exit::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_source_come_at_the_end() {
    let Some(kafka) = real() else { return };
    let (bed, _) = filled().await;
    let name = unique("settings");
    let path = key::generation_record("t", 1);
    let record = bed.store.get(&path).await.unwrap().unwrap();
    let mut record = GenerationRecord::from_json(&path, &record).unwrap();
    for (key, value) in [("segment.ms", "123456789"), ("no.such.setting", "1"), ("max.message.bytes", "999999")] {
        record.topic_config.insert(key.to_owned(), value.to_owned());
    }
    bed.store.put(&path, &Body::from(serde_json::to_vec(&record).unwrap()), &BTreeMap::new()).await.unwrap();
    let restore = Restore { apply_topic_config: true, ..restore(&bed, &kafka, &name) };
    assert_eq!(run(restore, Stop::default()).await.unwrap(), Exit::Incomplete, "one setting is refused");
    let target = KafkaTarget::open(&kafka).unwrap();
    let facts = target.facts(&BTreeSet::from([name.clone()])).await.unwrap();
    let config = &facts.topics[&name].config;
    assert_eq!((config["segment.ms"].as_str(), config["max.message.bytes"].as_str()), ("123456789", "999999"));
    assert_ne!(config["retention.ms"], "-1", "back to the broker's default");
}

/// The plan of a restore onto topic `name` that was stopped when some records were there, and its file.
async fn interrupted(restore: &Restore, name: &str) -> (SavedPlan, std::path::PathBuf) {
    let stop = Stop::default();
    let slow = Restore { rate_limit: Some(5 << 10), ..restore.clone() };
    let exit = tokio::join!(run(slow, stop.clone()), async {
        arrive(&restore.kafka, name).await;
        stop.now(Exit::Interrupted);
    });
    assert_eq!(exit.0.unwrap(), Exit::Interrupted);
    let files = std::fs::read_dir(&restore.plans).unwrap().map(|entry| entry.unwrap().path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "json")).unwrap();
    (plan_file::read(&file).unwrap().unwrap(), file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_record_at_the_end_is_refused_with_its_offset() {
    let Some(kafka) = real() else { return };
    let (bed, _) = many_objects().await;
    let name = unique("foreign");
    let restore = restore(&bed, &kafka, &name);
    interrupted(&restore, &name).await;
    append_one(&kafka, &name, 0);
    let ends = async || {
        let target = KafkaTarget::open(&kafka).unwrap();
        target.facts(&BTreeSet::from([name.clone()])).await.unwrap().topics.remove(&name).unwrap().offsets
    };
    let before = ends().await;
    assert_eq!(run(restore, Stop::default()).await.unwrap(), Exit::Incomplete);
    let after = ends().await;
    assert_eq!(before[0], after[0], "nothing was added behind the foreign record");
    assert_eq!(after[1].1, 30, "the other partition is not concerned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_held_to_its_target_and_to_its_request() {
    let Some(kafka) = real() else { return };
    let (bed, _) = many_objects().await;
    let name = unique("held");
    let restore = restore(&bed, &kafka, &name);
    let (saved, path) = interrupted(&restore, &name).await;
    let write = |change: &dyn Fn(&mut SavedPlan)| {
        let mut changed = saved.clone();
        change(&mut changed);
        PlanFile::lock(&path).unwrap().write(&changed).unwrap();
    };
    let refused = async |change: &dyn Fn(&mut SavedPlan)| {
        write(change);
        run(restore.clone(), Stop::default()).await.unwrap_err()
    };
    let error = refused(&|saved| saved.plan.topics[0].target_id = Some("another".to_owned())).await;
    assert!(error.to_string().contains("deleted and created again"), "{error}");
    assert!(error.to_string().contains("delete the target topics and the plan"), "{error}");
    let error = refused(&|saved| saved.plan.topics[0].target = unique("gone")).await;
    assert!(error.to_string().contains("it was deleted"), "{error}");
    let error = refused(&|saved| saved.plan.topics[0].partitions[0].base_offset = 5_000).await;
    assert!(error.to_string().contains("truncated"), "{error}");
    let error = refused(&|saved| saved.plan.topics[0].partitions[0].records_at_most = Some(1)).await;
    assert!(error.to_string().contains("somebody else's"), "{error}");
    write(&|_| ());
    let other =
        Restore { plan: Some(path.clone()), partitions: BTreeSet::from([("t".to_owned(), 1)]), ..restore.clone() };
    let error = run(other, Stop::default()).await.unwrap_err();
    assert!(error.to_string().contains("is of another restore"), "{error}");
    let lock = PlanFile::lock(&path).unwrap();
    assert_eq!(run(restore.clone(), Stop::default()).await.unwrap_err().exit, Exit::Locked);
    drop(lock);
    let dry = Restore { dry_run: true, ..restore.clone() };
    assert_eq!(run(dry, Stop::default()).await.unwrap(), Exit::Ok);
    assert_eq!(plan_file::read(&path).unwrap().unwrap(), saved, "a dry run changes nothing");
    assert_eq!(run(restore, Stop::default()).await.unwrap(), Exit::Ok);
    assert!(plan_file::read(&path).unwrap().unwrap().finished.is_some());
}

fn unique(what: &str) -> String {
    format!("restore-{what}-{}-{}", std::process::id(), std::time::UNIX_EPOCH.elapsed().unwrap().as_micros())
}

#[tokio::test(flavor = "multi_thread")]
async fn onto_a_real_broker_into_a_created_topic() {
    let Some(kafka) = real() else { return };
    let (bed, offsets) = filled().await;
    let name = unique("created");
    let restore = restore(&bed, &kafka, &name);
    let dry = Restore { dry_run: true, ..restore.clone() };
    assert_eq!(run(dry, Stop::default()).await.unwrap(), Exit::Ok);
    let target = KafkaTarget::open(&kafka).unwrap();
    let names = BTreeSet::from([name.clone()]);
    assert!(target.facts(&names).await.unwrap().topics.is_empty(), "a dry run creates nothing");

    assert_eq!(run(restore.clone(), Stop::default()).await.unwrap(), Exit::Ok);
    assert_eq!(read(&kafka, &name, 0), expected(offsets.iter().copied()));
    assert_eq!(read(&kafka, &name, 2), expected([5, 6]));
    let facts = target.facts(&names).await.unwrap();
    let topic = &facts.topics[&name];
    assert_eq!(topic.offsets, [(0, offsets.len() as i64), (0, 0), (0, 2)]);
    assert_eq!(topic.config["retention.ms"], "-1");
    assert_eq!(topic.config["message.timestamp.type"], "CreateTime");

    let refused = run(restore.clone(), Stop::default()).await.unwrap_err();
    assert!(refused.to_string().contains("is not empty (partitions [0, 2])"), "{refused}");
    let behind = Restore { append: true, ..restore };
    assert_eq!(run(behind, Stop::default()).await.unwrap(), Exit::Ok);
    assert_eq!(target.facts(&names).await.unwrap().topics[&name].offsets[0], (0, 2 * offsets.len() as i64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_little_gets_small_batches() {
    let Some(kafka) = real() else { return };
    let (bed, offsets) = filled().await;
    let name = unique("small");
    let small = NewTopic {
        name: name.clone(),
        partitions: 3,
        replication_factor: None,
        configs: [("max.message.bytes", "2000"), ("retention.ms", "-1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    let cluster = crate::kafka::admin::Cluster::connect(&kafka).unwrap();
    cluster.create_topic(&small, SOON).await.unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(run(restore(&bed, &kafka, &name), Stop::default()).await.unwrap(), Exit::Ok);
    assert_eq!(read(&kafka, &name, 0), expected(offsets));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_second_producer_is_found() {
    let Some(kafka) = real() else { return };
    let (bed, _) = filled().await;
    let name = unique("contested");
    let target = KafkaTarget::open(&kafka).unwrap();
    let create = crate::model::restore::Create { partitions: 3, replication_factor: None, config: BTreeMap::new() };
    target.create(&name, &create).await.unwrap();
    let facts = target.facts(&BTreeSet::from([name.clone()])).await.unwrap();
    let mut plan = bed.plan().await.unwrap();
    plan.topics[0].target.clone_from(&name);
    append_one(&kafka, &name, 0);
    let act = Act {
        store: bed.store.clone(),
        sinks: Arc::new(KafkaSinks::new(kafka.clone(), &plan, &facts)),
        tasks_max: 1,
        throttle: Arc::new(Throttle::new(Some(100 << 20))),
        resumed: BTreeMap::new(),
        stop: Stop::default(),
    };
    let report = act.run(&plan, &Arc::default()).await.unwrap();
    assert_eq!((report.exit(), report.produced()), (Exit::Incomplete, 2), "{}", report.text());
    assert!(matches!(report.partitions[0].failure, Some(Failure::Offset { expected: 0, offset: 1 })));
}
