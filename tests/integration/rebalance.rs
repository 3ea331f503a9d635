//! Partitions change hands, appear, and lose their leaders while records keep coming.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rstest::rstest;

use crate::common::check::{assert_backed_up, assert_untouched, await_caught_up, await_covered, stored};
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::numbered;
use crate::common::stack::{self, Cluster};
use crate::common::{beside_others, wait_until};

/// Runs `work` while 50 records a tenth of a second go to every partition.
fn under_load(kafka: &Kafka, topic: &str, work: impl FnOnce()) {
    let (stop, next) = (AtomicBool::new(false), AtomicI64::new(0));
    let partitions = kafka.partitions(topic);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = kafka.producer(&[]);
            while !stop.load(Ordering::Relaxed) {
                let first = next.fetch_add(50, Ordering::Relaxed);
                for (i, record) in numbered(first..first + 50, 500).iter().enumerate() {
                    producer.send(topic, i as i32 % partitions, record);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            producer.flush();
        });
        // The load ends even when the work panics, or the scope would wait for it for ever.
        let _stop = StopOnDrop(&stop);
        work();
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Members come, go in good order and die: with either protocol each record is backed up once.
#[rstest]
#[case::cooperative("cooperative-sticky")]
#[case::eager("range")]
fn members_come_and_go_under_load(#[case] strategy: &str) {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("members", 6, &[]);
    let properties =
        [("partition.assignment.strategy", strategy), ("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")];
    let env = Env::new().kafka("main", stack::kafka_bootstrap(), &properties).job(
        "members",
        &[&topic],
        "rotate_interval = \"1s\"\nflush_size = 100\n",
    );
    under_load(&kafka, &topic, || {
        let first = env.daemon_named("a").ready();
        await_caught_up(&kafka, &env.bucket, &topic);
        let second = env.daemon_named("b").ready();
        await_caught_up(&kafka, &env.bucket, &topic);
        let third = env.daemon_named("c").ready();
        std::thread::sleep(Duration::from_secs(2)); // in the middle of the hand-over, or after it
        let before = stored(&env.bucket);
        first.kill();
        await_caught_up(&kafka, &env.bucket, &topic);
        assert!(second.stop().success());
        await_caught_up(&kafka, &env.bucket, &topic);
        assert_untouched(&before, &env.bucket);
        assert!(third.stop().success());
    });
    let last = env.daemon_named("a").ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(last.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

#[test]
fn several_tasks_share_the_partitions_of_one_daemon() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("tasks", 6, &[]);
    let env = Env::new().job("tasks", &[&topic], "tasks_max = 3\nrotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    under_load(&kafka, &topic, || await_caught_up(&kafka, &env.bucket, &topic));
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

#[test]
fn a_partition_added_while_running_is_backed_up_from_its_first_record() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("grows", 1, &[]);
    let env = Env::new()
        .kafka("main", stack::kafka_bootstrap(), &[("topic.metadata.refresh.interval.ms", "1000")])
        .job("grows", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &numbered(0..100, 100));
    await_caught_up(&kafka, &env.bucket, &topic);
    kafka.add_partitions(&topic, 3);
    (0..3).for_each(|partition| kafka.produce(&topic, partition, &numbered(0..100, 100)));
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

#[test]
fn a_topic_created_while_running_is_picked_up_by_a_pattern() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let first = kafka.topic("pattern", 1, &[]);
    let prefix = format!("{first}-");
    let lines = format!("topics_regex = \"^{prefix}.*$\"\nrotate_interval = \"1s\"\n");
    let env = Env::new()
        .kafka("main", stack::kafka_bootstrap(), &[("topic.metadata.refresh.interval.ms", "1000")])
        .job("pattern", &[&first], &lines);
    let daemon = env.daemon().ready();
    kafka.produce(&first, 0, &numbered(0..10, 100));
    await_caught_up(&kafka, &env.bucket, &first);
    let second = format!("{prefix}new");
    kafka.create_topic(&second, 1, 1, &[]);
    kafka.produce(&second, 0, &numbered(0..10, 100));
    await_caught_up(&kafka, &env.bucket, &second);
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &second);
}

#[rstest]
#[case::in_good_order("TERM")]
#[case::killed("KILL")]
fn the_broker_restarts(#[case] signal: &str) {
    let _turn = beside_others();
    let cluster = Cluster::start(1);
    let kafka = Kafka::at(&cluster.bootstrap);
    let topic = kafka.topic("restarted", 2, &[]);
    let env = Env::new().kafka("main", &cluster.bootstrap, &[]).job(
        "restarted",
        &[&topic],
        "rotate_interval = \"1s\"\nflush_size = 100\n",
    );
    let mut daemon = env.daemon().ready();
    let produce = |range: std::ops::Range<i64>| {
        (0..2).for_each(|partition| kafka.produce(&topic, partition, &numbered(range.clone(), 1000)));
    };
    produce(0..1000);
    await_covered(&env.bucket, &format!("{topic}/0/"), 100);
    cluster.stop_broker(1, signal);
    std::thread::sleep(Duration::from_secs(3)); // long enough to be noticed
    cluster.start_broker(1);
    produce(1000..1500);
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(daemon.is_running());
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// Three brokers restart one after another, as in an upgrade.
#[test]
fn the_brokers_restart_one_after_another_under_load() {
    let _turn = beside_others();
    let cluster = Cluster::start(3);
    let kafka = Kafka::at(&cluster.bootstrap);
    let topic = crate::common::unique("rolling");
    kafka.create_topic(&topic, 3, 3, &[("min.insync.replicas", "2")]);
    let env = Env::new().kafka("main", &cluster.bootstrap, &[]).job("rolling", &[&topic], "rotate_interval = \"1s\"\n");
    let mut daemon = env.daemon().ready();
    under_load(&kafka, &topic, || {
        for broker in 1..=3 {
            await_caught_up(&kafka, &env.bucket, &topic);
            cluster.stop_broker(broker, if broker == 2 { "KILL" } else { "TERM" });
            std::thread::sleep(Duration::from_secs(1));
            cluster.start_broker(broker);
        }
    });
    await_caught_up(&kafka, &env.bucket, &topic);
    assert!(daemon.is_running());
    assert!(daemon.stop().success());
    assert_backed_up(&kafka, &env.bucket, &topic);
}

/// Two machines, one cluster, the same job, a bucket each: the group would give each of them a part of the topic, and
/// neither would miss the rest.
#[test]
fn a_group_that_two_stores_share_is_named_by_both() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("shared-group", 2, &[]);
    let job = |env: Env| env.job("orders", &[&topic], &format!("group_id = \"{topic}\"\nrotate_interval = \"1s\"\n"));
    let (one, other) = (job(Env::new()), job(Env::new()));
    let daemons = [one.daemon().ready(), other.daemon().ready()];
    let complains = |env: &Env| {
        let problems = env.tell(&["status", "--json"]).stdout;
        problems
            .contains(&format!("group {topic} is shared with a job that backs up to another place: it has {topic}/"))
    };
    under_load(&kafka, &topic, || {
        wait_until("both to say so", Duration::from_secs(180), || complains(&one) && complains(&other));
    });
    let [first, second] = daemons;
    assert!(second.stop().success());
    first.await_log("job recovered job=orders subject=\"consumer group\"");
    await_caught_up(&kafka, &one.bucket, &topic);
    assert!(first.stop().success());
    assert_backed_up(&kafka, &one.bucket, &topic);
}
