//! What brokers are asked.

use super::*;

#[test]
fn topic_ids_change_with_the_topic() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("recreated");
    let cluster = create(&kafka, &topic, 3, &[]);
    let missing = unique("missing");
    let describe = || {
        let mut answer = wait_for(cluster.describe(&[topic.clone(), missing.clone()], TIMEOUT)).expect("described");
        assert_eq!(answer[&missing].as_ref().expect_err("not there").kind, Kind::UnknownTopic);
        answer.remove(&topic).expect("answered")
    };
    let first = describe().expect("there");
    assert_eq!(first.partitions, 3);
    assert!(first.id.is_some());
    delete(&kafka, &topic);
    let begin = Instant::now();
    while describe().is_ok() {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(50));
    }
    create(&kafka, &topic, 2, &[]);
    let second = describe().expect("there again");
    assert_eq!(second.partitions, 2);
    assert_ne!(first.id, second.id);
    let listed = wait_for(cluster.topics(TIMEOUT)).expect("listed");
    assert!(listed.iter().any(|t| t.name == topic && t.partitions == 2));
    assert!(!wait_for(cluster.cluster_id(TIMEOUT)).expect("id").is_empty());
    let again = NewTopic { name: topic, partitions: 2, replication_factor: Some(1), configs: BTreeMap::new() };
    let again = wait_for(cluster.create_topic(&again, TIMEOUT)).expect_err("exists");
    assert_eq!(again.kind, Kind::Exists);
}

#[test]
fn offsets_know_both_ends_and_the_last_stable_one() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("offsets");
    let cluster = create(&kafka, &topic, 1, &[]);
    let at = TopicPartition::new(topic.as_str(), 0);
    produce(&kafka, &at, &numbered("a", 3));
    let open = open_transaction(&kafka, &topic, 2);
    let missing = TopicPartition::new(unique("missing"), 0);
    let ask = |end, isolation| {
        let partitions = [at.clone(), missing.clone()];
        let answer = wait_for(cluster.offsets(&partitions, end, isolation, Duration::from_secs(5))).expect("answered");
        assert_eq!(answer[&missing].as_ref().expect_err("not there").kind, Kind::UnknownTopic);
        *answer[&at].as_ref().expect("known")
    };
    assert_eq!(ask(End::Earliest, Isolation::ReadCommitted), 0);
    assert_eq!(ask(End::Latest, Isolation::ReadUncommitted), 5);
    assert_eq!(ask(End::Latest, Isolation::ReadCommitted), 3);
    open.abort_transaction(SOON).expect("aborted");
    // The marker is written some time after the abort was acknowledged.
    let begin = Instant::now();
    while ask(End::Latest, Isolation::ReadCommitted) != 6 {
        assert!(begin.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn offsets_of_two_thousand_partitions_are_one_call() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("wide");
    let cluster = create(&kafka, &topic, 2000, &[]);
    let all: Vec<_> = (0..2000).map(|p| TopicPartition::new(topic.as_str(), p)).collect();
    let begin = Instant::now();
    loop {
        let asked = Instant::now();
        let answer =
            wait_for(cluster.offsets(&all, End::Latest, Isolation::ReadUncommitted, TIMEOUT)).expect("answered");
        assert_eq!(answer.len(), 2000);
        if answer.values().all(|o| matches!(o, Ok(0))) {
            eprintln!("2,000 offsets in {:?}", asked.elapsed());
            break;
        }
        // Leaders are elected some time after the creation was acknowledged.
        assert!(begin.elapsed() < SOON, "{:?}", answer.values().find(|o| o.is_err()));
        std::thread::sleep(Duration::from_millis(200));
    }
    delete(&kafka, &topic);
}

#[test]
fn topic_configurations_say_what_is_set() {
    let Some(kafka) = kafka(&[]) else { return };
    let topic = unique("configs");
    let cluster = create(&kafka, &topic, 1, &[("retention.ms", "86400000")]);
    let configs = wait_for(cluster.topic_configs(std::slice::from_ref(&topic), TIMEOUT)).expect("described");
    let retention = &configs[&topic]["retention.ms"];
    assert_eq!((retention.value.as_deref(), retention.is_default), (Some("86400000"), false));
    assert!(configs[&topic]["cleanup.policy"].is_default);
}

#[test]
fn a_broker_that_is_not_there_is_an_error_in_time() {
    let kafka = KafkaConfig {
        name: "nowhere".into(),
        bootstrap_servers: vec!["127.0.0.1:1".into()],
        properties: BTreeMap::new(),
    };
    let cluster = Cluster::connect(&kafka).expect("no network yet");
    let begin = Instant::now();
    let timeout = Duration::from_millis(500);
    wait_for(cluster.topics(timeout)).expect_err("nobody there");
    wait_for(cluster.describe(&["t".to_owned()], timeout)).expect_err("nobody there");
    wait_for(cluster.cluster_id(timeout)).expect_err("nobody there");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let member = Member::join(&kafka, &settings("g"), "t");
    let begin = Instant::now();
    member.consumer.close(Duration::from_secs(2));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}
