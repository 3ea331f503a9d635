//! Who is in the consumer groups while a daemon reloads, in the words of Kafka: a job that does not change keeps its very
//! members, and one that does is handed over without any partition ever having two owners.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::check::{assert_backed_up, await_caught_up};
use crate::common::daemon::Daemon;
use crate::common::env::Env;
use crate::common::group::Group;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::{SOON, beside_others, stack, unique, wait_until};

const PARTITIONS: i32 = 6;

/// Five jobs; the first one has two members and six partitions, the others one each.
struct Five {
    kafka: Kafka,
    env: Env,
    proxy: Proxy,
    jobs: Vec<(String, String)>,
}

impl Five {
    fn new() -> Self {
        let kafka = Kafka::shared();
        let partitions = |n| if n == 0 { PARTITIONS } else { 1 };
        let topic = |n| (unique("member"), kafka.topic(&format!("member{n}"), partitions(n), &[]));
        let jobs: Vec<(String, String)> = (0..5).map(topic).collect();
        let proxy = Proxy::start(stack::s3_endpoint());
        let mut env = Env::new().storage_behind(&proxy);
        for (id, topic) in &jobs {
            env = env.job(id, &[topic], "tasks_max = 2\nrotate_interval = \"1s\"\n");
        }
        Self { kafka, env, proxy, jobs }
    }

    fn group(&self, job: usize) -> Group {
        self.kafka.group(&format!("kafka-backup-{}", self.jobs[job].0))
    }

    /// All groups, when every partition has an owner.
    fn settled(&self) -> Vec<Group> {
        let all = || (0..5).map(|job| self.group(job)).collect::<Vec<_>>();
        let partitions = |job| if job == 0 { PARTITIONS as usize } else { 1 };
        let is_settled = |(job, group): (usize, &Group)| group.is_stable() && group.owners().len() == partitions(job);
        wait_until("all partitions to have an owner", SOON, || all().iter().enumerate().all(is_settled));
        all()
    }

    fn touch_the_first(&self, flush_size: u64) {
        let (id, topic) = &self.jobs[0];
        let text =
            format!("topics = [{topic:?}]\ntasks_max = 2\nrotate_interval = \"1s\"\nflush_size = {flush_size}\n");
        std::fs::write(self.env.job_file(id), text).unwrap();
    }

    fn produce(&self, from: i64, until: i64) {
        for partition in 0..PARTITIONS {
            self.kafka.produce(&self.jobs[0].1, partition, &numbered(from..until, 100));
        }
    }
}

/// What Kafka says of the first group, and whether the others are as they were, looked at again and again during `act`.
/// The owners of every partition of the first, one after the other, are returned.
fn watched(five: &Five, before: &[Group], act: impl FnOnce()) -> Vec<BTreeMap<(String, i32), String>> {
    let done = AtomicBool::new(false);
    let look = || {
        let mut seen: Vec<BTreeMap<_, _>> = Vec::new();
        // Once more when it is done.
        for last in std::iter::from_fn(|| Some(done.load(Ordering::Acquire))) {
            let first = five.group(0);
            // Panics where a partition has two owners.
            let owners = first.owners();
            let (old, new): (BTreeSet<&String>, BTreeSet<&String>) =
                first.members.keys().partition(|id| before[0].members.contains_key(*id));
            assert!(old.is_empty() || new.is_empty(), "predecessors {old:?} beside successors {new:?}");
            if seen.last() != Some(&owners) {
                seen.push(owners);
            }
            for (job, group) in before.iter().enumerate().skip(1) {
                assert_eq!(&five.group(job), group, "a job that was not touched");
            }
            if last {
                break;
            }
        }
        seen
    };
    /// However `act` ends.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    std::thread::scope(|scope| {
        let looking = scope.spawn(look);
        let ends = Done(&done);
        act();
        drop(ends);
        looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn applied(daemon: &Daemon, generation: f64) {
    daemon.await_metric("kafka_backup_config_generation", &[], generation);
}

#[test]
fn members_of_the_groups_over_a_reload() {
    let _turn = beside_others();
    let five = Five::new();
    let daemon = five.env.daemon().ready();
    five.produce(0, 200);
    let before = five.settled();
    assert_eq!(before[0].members.len(), 2, "{before:?}");

    // One of five is touched.
    let taken_over = |before: &Group| {
        wait_until("the successors to own all partitions", SOON, || {
            let now = five.group(0);
            now.owners().len() == PARTITIONS as usize && now.members.keys().all(|id| !before.members.contains_key(id))
        });
    };
    let seen = watched(&five, &before, || {
        // Its predecessor takes a while to make durable what it has read: time enough for a successor that does not wait.
        five.proxy.set(Fault::Delay(Duration::from_secs(4)), Hits::DataPuts);
        five.produce(200, 400);
        five.touch_the_first(17);
        daemon.hang_up();
        applied(&daemon, 2.0);
        taken_over(&before[0]);
        five.proxy.set(Fault::Pass, Hits::All);
        await_caught_up(&five.kafka, &five.env.bucket, &five.jobs[0].1);
    });
    assert!(seen.len() >= 2, "the hand-over was seen: {seen:?}");

    // A hundred signals in a second, with one change at their beginning: one hand-over, of that one.
    let before = five.settled();
    watched(&five, &before, || {
        five.touch_the_first(18);
        for _ in 0..100 {
            daemon.hang_up();
            std::thread::sleep(Duration::from_millis(8));
        }
        applied(&daemon, 3.0);
        taken_over(&before[0]);
        five.produce(400, 500);
        await_caught_up(&five.kafka, &five.env.bucket, &five.jobs[0].1);
    });
    // And with none: everybody stays.
    let before = five.settled();
    let reloads = || daemon.metric("kafka_backup_config_reloads_total", &["result=\"unchanged\""]);
    let counted = reloads();
    for _ in 0..100 {
        daemon.hang_up();
        std::thread::sleep(Duration::from_millis(8));
    }
    wait_until("the last signal to be answered", SOON, || reloads() >= counted + 2.0);
    assert_eq!(five.settled(), before);
    assert_eq!(daemon.metric("kafka_backup_config_generation", &[]), 3.0);
    assert!(daemon.stop().success());
    assert_backed_up(&five.kafka, &five.env.bucket, &five.jobs[0].1);
}
