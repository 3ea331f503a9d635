//! Where a backup goes on when the world has changed since it stopped: topic, bucket and local state in every
//! disagreement there can be.

use std::fs;

use rstest::rstest;

use crate::common::avro_reader;
use crate::common::check::{assert_backed_up, assert_untouched, await_caught_up, await_covered, covered, stored};
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::Proxy;
use crate::common::record::{assert_same, numbered};
use crate::common::s3::Bucket;
use crate::common::stack::{self, Cluster, kafka_tool};
use crate::common::{beside_others, unique, wait_until};

/// A topic of one partition with 100 records, backed up in objects of 30.
fn backed_up(lines: &str) -> (Kafka, String, Env) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("resume", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..100, 100));
    let env = Env::new().job("resume", &[&topic], &format!("flush_size = 30\n{lines}"));
    env.back_up("resume");
    (kafka, topic, env)
}

#[test]
fn a_backup_with_nothing_new_stores_nothing() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up("");
    let before = stored(&env.bucket);
    let summary = env.back_up("resume");
    assert_eq!((&summary["records"], &summary["objects"]), (&0.into(), &0.into()), "{summary}");
    assert_eq!(stored(&env.bucket), before);
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// S3 is the truth: local state and group may go at any time.
#[rstest]
#[case::state_gone(true, false)]
#[case::group_gone(false, true)]
#[case::both_gone(true, true)]
fn hints_may_disappear(#[case] state: bool, #[case] group: bool) {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up("group_id = \"hints-GROUP\"\n".replace("GROUP", &unique("g")).as_str());
    let before = stored(&env.bucket);
    if state {
        fs::remove_dir_all(env.state("a")).unwrap();
    }
    if group {
        let job = fs::read_to_string(env.path("a/jobs.d/resume.toml")).unwrap();
        let id = job.lines().find_map(|l| l.strip_prefix("group_id = ")).unwrap().trim_matches('"').to_owned();
        kafka.delete_group(&id);
    }
    kafka.produce(&topic, 0, &numbered(100..150, 100));
    assert_eq!(env.back_up("resume")["records"], 50);
    assert_untouched(&before, &env.bucket);
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// The same name, another topic: what was backed up stays, the new one gets a place of its own.
#[rstest]
#[case::shorter(10)]
#[case::as_long(100)]
#[case::longer(150)]
fn a_topic_created_again_while_nobody_looked_begins_a_new_generation(#[case] records: i64) {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up("");
    let before = stored(&env.bucket);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1, 1, &[]);
    kafka.produce(&topic, 0, &numbered(1000..1000 + records, 100));
    env.back_up("resume");
    assert_untouched(&before, &env.bucket);
    let second = avro_reader::read_generation(&env.bucket, &topic, 2, 0);
    assert_same("the second generation", &kafka.read(&topic, 0), &second.records());
    assert_eq!(avro_reader::read(&env.bucket, &topic, 0).end(), 100, "the first generation is closed");

    kafka.produce(&topic, 0, &numbered(0..5, 100));
    env.back_up("resume");
    let second = avro_reader::read_generation(&env.bucket, &topic, 2, 0);
    assert_same("the second generation", &kafka.read(&topic, 0), &second.records());
}

#[rstest]
#[case::shorter(10)]
#[case::longer(150)]
fn a_topic_created_again_under_a_running_daemon_begins_a_new_generation(#[case] records: i64) {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up("rotate_interval = \"1s\"\n");
    let before = stored(&env.bucket);
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(100..110, 100));
    await_caught_up(&kafka, &env.bucket, &topic);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1, 1, &[]);
    kafka.produce(&topic, 0, &numbered(1000..1000 + records, 100));
    await_covered(&env.bucket, &format!("{topic}/gen-2/0/"), records);
    assert!(daemon.stop().success());
    assert_untouched(&before, &env.bucket);
    let second = avro_reader::read_generation(&env.bucket, &topic, 2, 0);
    assert_same("the second generation", &kafka.read(&topic, 0), &second.records());
    assert_eq!(avro_reader::read(&env.bucket, &topic, 0).end(), 110);
}

#[test]
fn a_topic_created_again_stops_the_job_that_asks_for_that() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up("on_recreate = \"stop\"\n");
    let before = stored(&env.bucket);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1, 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..150, 100));
    let output = env.try_back_up("resume");
    assert_ne!(output.code(), 0);
    assert!(output.stderr.contains(&topic), "{}", output.stderr);
    assert_eq!(stored(&env.bucket), before);
}

/// A leader that was behind is elected: the end of the log is cut off and written anew. What was backed up of it stays,
/// in a generation that ends where the logs part; nothing of the new log is missing.
#[test]
fn an_unclean_leader_election_forks_the_backup() {
    let _turn = beside_others();
    let cluster = Cluster::start(3);
    let kafka = Kafka::at(&cluster.bootstrap);
    let topic = unique("unclean");
    // Leader 1, follower 2; broker 3 keeps the quorum.
    let create =
        ["--bootstrap-server", &cluster.bootstrap, "--create", "--topic", &topic, "--replica-assignment", "1:2"];
    let settings = ["--config", "retention.ms=-1", "--config", "unclean.leader.election.enable=true"];
    kafka_tool("org.apache.kafka.tools.TopicCommand", &[&create[..], &settings].concat());
    let env = Env::new().kafka("main", &cluster.bootstrap, &[]).job("unclean", &[&topic], "flush_size = 30\n");

    kafka.produce(&topic, 0, &numbered(0..100, 100));
    wait_until("the follower to have it all", crate::common::SOON, || kafka.end(&topic, 0) == 100);
    cluster.stop_broker(2, "KILL");
    kafka.produce(&topic, 0, &numbered(100..200, 100));
    env.back_up("unclean");
    let before = stored(&env.bucket);

    cluster.stop_broker(1, "KILL");
    cluster.start_broker(2);
    kafka.await_leader(&topic, 0, 2);
    kafka.produce(&topic, 0, &numbered(1000..1300, 100));
    cluster.start_broker(1);
    assert_eq!(kafka.watermarks(&topic, 0).1, 400, "records 100 to 199 are other ones now");
    env.back_up("unclean");

    assert_untouched(&before, &env.bucket);
    let log = kafka.read(&topic, 0);
    let second = avro_reader::read_generation(&env.bucket, &topic, 2, 0);
    assert_eq!(second.start(), 100, "the logs part here");
    assert_same("behind the fork", &log[100..], &second.records());
    let first = avro_reader::read(&env.bucket, &topic, 0);
    assert_same("before the fork", &log[..100], &first.records()[..100]);

    // A restore reads the first generation up to the fork, and the second from there.
    let target = unique("rejoined");
    env.restore(&format!("{topic}:{target}"), &[]).success();
    assert_same("the restored topic", &log, &kafka.read(&target, 0));
}

#[test]
fn an_empty_bucket_is_filled_from_the_beginning_whatever_the_local_state_says() {
    let _turn = beside_others();
    let (kafka, topic, mut env) = backed_up("");
    env.bucket = Bucket::create();
    kafka.produce(&topic, 0, &numbered(100..150, 100));
    env.back_up("resume");
    assert_backed_up(&kafka, &env.bucket, &topic);
}

#[test]
fn a_wiped_bucket_is_filled_from_the_beginning_whatever_state_and_group_say() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up("");
    env.bucket.wipe("");
    kafka.produce(&topic, 0, &numbered(100..150, 100));
    env.back_up("resume");
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// Lifecycle rules delete from the front; the list goes on at its end.
#[test]
fn objects_that_expired_at_the_front_are_not_written_again() {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up("");
    let first = env.bucket.list(&format!("{topic}/0/")).remove(0);
    env.bucket.delete(&first.key);
    kafka.produce(&topic, 0, &numbered(100..150, 100));
    assert_eq!(env.back_up("resume")["records"], 50);
    let chain = avro_reader::read(&env.bucket, &topic, 0);
    assert_eq!((chain.start(), chain.end()), (30, 150));
    assert_same("what is left", &kafka.read(&topic, 0)[30..], &chain.records());
}

#[rstest]
#[case::with_state(true)]
#[case::without_state(false)]
fn a_partition_all_of_whose_objects_are_gone_goes_on_without_a_hole(#[case] state: bool) {
    let _turn = beside_others();
    let (kafka, topic, env) = backed_up("");
    env.bucket.wipe(&format!("{topic}/0/"));
    if !state {
        fs::remove_dir_all(env.state("a")).unwrap();
    }
    kafka.produce(&topic, 0, &numbered(100..150, 100));
    env.back_up("resume");
    // Whether it begins again at the origin or where it stood, from there on nothing is missing.
    let chain = avro_reader::read(&env.bucket, &topic, 0);
    assert!([0, 100].contains(&chain.start()), "begins at {}", chain.start());
    assert_same("what is left", &kafka.read(&topic, 0)[chain.start() as usize..], &chain.records());
    assert!(chain.gaps().is_empty());
}

#[test]
fn a_prefix_that_holds_other_peoples_objects_is_refused() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("foreign", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..10, 100));
    let env = Env::new().job("foreign", &[&topic], "");
    env.bucket.put(&format!("{topic}/0/{topic}-0-0000000000.avro"), b"not ours");
    let before = stored(&env.bucket);
    let refused = env.try_back_up("foreign");
    assert_ne!(refused.code(), 0);
    assert!(refused.stderr.contains("adopt"), "the ways out are named: {}", refused.stderr);
    assert_eq!(stored(&env.bucket), before);
}

#[test]
fn latest_begins_behind_what_is_there_and_loses_nothing_after_that() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("latest", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..100, 100));
    let env = Env::new().job("latest", &[&topic], "start = \"latest\"\n");
    env.back_up("latest");
    kafka.produce(&topic, 0, &numbered(100..150, 100));
    env.back_up("latest");
    let chain = avro_reader::read(&env.bucket, &topic, 0);
    assert_same("from the end on", &kafka.read(&topic, 0)[100..], &chain.records());
}

/// A topic that is not there is an error, not an empty backup.
#[test]
fn a_topic_that_does_not_exist_is_an_error() {
    let _turn = beside_others();
    let name = unique("nowhere");
    let env = Env::new().job("nowhere", &[&name], "");
    let output = env.try_back_up("nowhere");
    assert_ne!(output.code(), 0);
    assert!(output.stderr.contains(&name), "{}", output.stderr);
}

/// The end of a long list is found without the local state in few requests, which hardly depend on its length.
/// `OBJECTS=100000` makes it that long.
#[test]
fn the_end_of_a_long_list_is_found_in_few_requests() {
    let _turn = beside_others();
    let objects = std::env::var("OBJECTS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000);
    let kafka = Kafka::shared();
    let topic = kafka.topic("long", 1, &[]);
    let proxy = Proxy::start(stack::s3_endpoint());
    let env = Env::new().storage_behind(&proxy).job("long", &[&topic], "");
    kafka.produce(&topic, 0, &numbered(0..1, 10));
    env.back_up("long");
    // One record an object, all but the last one without content: nobody looks at those.
    kafka.produce(&topic, 0, &numbered(1..objects + 10, 10));
    let first = env.bucket.list(&format!("{topic}/0/")).remove(0).key;
    let name = |offset: i64| first.replace(&format!("{:020}", 0), &format!("{offset:020}"));
    env.bucket.put_many((1..objects - 1).map(name), b"");
    let mut metadata = env.bucket.metadata(&first);
    for (key, value) in &mut metadata {
        match key.as_str() {
            "range-start" | "first-offset" | "last-offset" => *value = (objects - 1).to_string(),
            "next-offset" => *value = objects.to_string(),
            _ => {}
        }
    }
    env.bucket.put_with(&name(objects - 1), b"", &metadata);

    let before = proxy.listed().len();
    let summary = env.kafka_backup_named("b", &["run", "long", "--until-caught-up", "--json"]).success();
    let folder = format!("{topic}%2F0%2F");
    let pages = proxy.listed()[before..].iter().filter(|target| target.contains(&folder)).count();
    println!("{objects} objects: {pages} pages of names, the run took {} s", summary["seconds"]);
    assert_eq!(summary["records"], 10, "it goes on behind the last one");
    assert_eq!(covered(&env.bucket, &format!("{topic}/0/")), objects + 10);
    assert!((1..=20).contains(&pages), "{pages} pages");
}
