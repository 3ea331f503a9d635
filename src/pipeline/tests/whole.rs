//! A job from the group to the bucket.

use super::*;
use crate::pipeline::status::JobState;
use crate::storage::Kind;
use crate::storage::fault::Fault;

#[actix::test]
async fn objects_are_cut_at_flush_size_exactly() {
    let bed = Bed::new(&[("t", 2)]);
    bed.produce("t", 0, 1050, 10);
    bed.produce("t", 1, 99, 10);
    let job = bed.job("cut", |job| job.flush_size = 100);
    assert!(bed.catch_up(&job).await);
    let (ends, offsets) = bed.chain("t", 1, 0, 0);
    assert_eq!(ends, [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1050]);
    assert_eq!(offsets, (0..1050).collect::<Vec<_>>());
    assert_eq!(bed.chain("t", 1, 1, 0).0, [99]);
}

#[actix::test]
async fn one_shot_of_nothing_and_of_nothing_new() {
    let bed = Bed::new(&[("t", 3)]);
    let job = bed.job("empty", |_| ());
    assert!(bed.catch_up(&job).await);
    assert!(bed.objects("t", 1, 0).is_empty());
    bed.produce("t", 1, 7, 10);
    assert!(bed.catch_up(&job).await);
    assert!(bed.catch_up(&job).await, "caught up already");
    assert_eq!(bed.chain("t", 1, 1, 0).0, [7]);
}

#[actix::test]
async fn one_shot_of_no_topic_at_all() {
    let bed = Bed::new(&[("other", 1)]);
    let job = bed.job("none", |job| {
        job.topics = TopicSelection { include: Some(regex::Regex::new("^x.*").unwrap()), ..TopicSelection::default() };
    });
    assert!(bed.catch_up(&job).await);
}

#[actix::test]
async fn a_lost_acknowledgement_counts_once() {
    let bed = Bed::new(&[("t", 1)]);
    bed.produce("t", 0, 250, 10);
    let job = bed.job("lost-ack", |job| job.flush_size = 100);
    bed.store.add(Fault::after("create", Kind::Timeout).under("t/"));
    bed.store.add(Fault::after("create", Kind::Unavailable).under("t/").skip(1));
    assert!(bed.catch_up(&job).await);
    assert_eq!(bed.chain("t", 1, 0, 0).0, [100, 200, 250]);
    assert_eq!(crate::metrics::sums("lost-ack")["kafka_backup_records_total"], 250.0);
}

#[actix::test]
async fn a_dead_bucket_loses_nothing_and_memory_stays_bounded() {
    let bed = Bed::new(&[("t", 2)]);
    let job = bed.job("dead", |job| {
        job.flush_bytes = 1 << 20;
        job.flush_size = 1_000_000;
    });
    let process = bed.process(16 << 20, 1 << 20, std::slice::from_ref(&job));
    let open = bed.open(&process, &job, false).await;
    until("lanes", || open.status.partitions().values().filter(|p| p.progress.is_some()).count() == 2).await;
    bed.store.add(Fault::before("create", Kind::Unavailable).under("t/").always());
    for _ in 0..4 {
        bed.produce("t", 0, 1000, 1000);
        bed.produce("t", 1, 1000, 1000);
    }
    until("trouble", || open.status.state() == JobState::Degraded).await;
    let mut most = 0;
    never("more than the budget", Duration::from_secs(2), || {
        let (used, limit) = process.buffer();
        most = most.max(used);
        used > limit
    })
    .await;
    assert!(most > 0);
    bed.store.heal();
    assert!(open.end(SOON).await);
    process.stop();
    assert!(bed.catch_up(&job).await, "what was not read before the end");
    for partition in 0..2 {
        assert_eq!(bed.chain("t", 1, partition, 0).1, (0..4000).collect::<Vec<_>>());
    }
}

#[actix::test]
async fn trouble_ends_with_the_outage() {
    let bed = Bed::new(&[("t", 1)]);
    let job = bed.job("outage", |job| job.flush_size = 10);
    let process = bed.process(BUDGET, 1 << 20, std::slice::from_ref(&job));
    let open = bed.open(&process, &job, false).await;
    bed.store.add(Fault::before("create", Kind::Unavailable).under("t/").times(3));
    bed.produce("t", 0, 20, 10);
    until("trouble", || open.status.state() == JobState::Degraded).await;
    until("durable", || bed.objects("t", 1, 0).len() == 2).await;
    until("relief", || open.status.state() == JobState::Running).await;
    assert!(open.end(SOON).await);
    process.stop();
}

#[actix::test]
async fn a_drain_that_cannot_succeed_ends_in_time_and_says_so() {
    let bed = Bed::new(&[("t", 1)]);
    bed.produce("t", 0, 50, 10);
    let job = bed.job("no-drain", |_| ());
    let process = bed.process(BUDGET, 1 << 20, std::slice::from_ref(&job));
    let open = bed.open(&process, &job, false).await;
    let read = || open.status.partitions().get(&at(0)).and_then(|p| Some(p.progress.as_ref()?.read_next())) == Some(50);
    until("records", read).await;
    bed.store.add(Fault::before("create", Kind::Unavailable).always());
    let began = Instant::now();
    assert!(!open.end(Duration::from_millis(500)).await);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    process.stop();
    bed.store.heal();
    assert!(bed.catch_up(&job).await);
    assert_eq!(bed.chain("t", 1, 0, 0).1, (0..50).collect::<Vec<_>>());
}

#[actix::test]
async fn a_lane_that_dies_while_draining_is_not_called_durable() {
    let bed = Bed::new(&[("t", 1)]);
    bed.produce("t", 0, 50, 10);
    let job = bed.job("dying-drain", |_| ());
    let process = bed.process(BUDGET, 1 << 20, std::slice::from_ref(&job));
    let open = bed.open(&process, &job, false).await;
    let read = || open.status.partitions().get(&at(0)).and_then(|p| Some(p.progress.as_ref()?.read_next())) == Some(50);
    until("records", read).await;
    // Somebody else's object: the lane cannot go on.
    let path = bed.dir.path().join("bucket/t/0");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("t-0-00000000000000000000.avro"), b"foreign").unwrap();
    assert!(!open.end(Duration::from_secs(10)).await);
    process.stop();
    assert_eq!(std::fs::read(path.join("t-0-00000000000000000000.avro")).unwrap(), b"foreign");
}

#[actix::test]
async fn a_tiny_budget_and_a_big_backlog() {
    let bed = Bed::new(&[("t", 8)]);
    for partition in 0..8 {
        bed.produce("t", partition, 400, 10_000);
    }
    // Nothing is ever full by itself: memory comes back by spilling, then by closing early.
    let job = bed.job("tiny", |job| job.flush_size = 1_000_000);
    let process = bed.process(4 << 20, 2 << 20, std::slice::from_ref(&job));
    let mut open = bed.open(&process, &job, true).await;
    tokio::time::timeout(SOON, open.reached.take().unwrap()).await.expect("no deadlock").unwrap().unwrap();
    assert!(open.end(SOON).await);
    process.stop();
    for partition in 0..8 {
        assert_eq!(bed.chain("t", 1, partition, 0).1, (0..400).collect::<Vec<_>>());
    }
    assert_eq!(process.spool_bytes(), 0);
}

#[actix::test]
async fn a_small_budget_without_any_spool() {
    let bed = Bed::new(&[("t", 30)]);
    for partition in 0..30 {
        bed.produce("t", partition, 200, 1000);
    }
    // 30 open objects of less than 64 KiB each are more than the budget: small ones have to be closed, too.
    let job = bed.job("no-spool", |job| job.flush_size = 1_000_000);
    let process = bed.process(4 << 20, 0, std::slice::from_ref(&job));
    let mut open = bed.open(&process, &job, true).await;
    tokio::time::timeout(SOON, open.reached.take().unwrap()).await.expect("no deadlock").unwrap().unwrap();
    assert!(open.end(SOON).await);
    process.stop();
    for partition in 0..30 {
        assert_eq!(bed.chain("t", 1, partition, 0).1, (0..200).collect::<Vec<_>>());
    }
}

#[actix::test]
async fn one_jobs_dead_bucket_does_not_stop_another() {
    let bed = Bed::new(&[("t", 1), ("u", 1)]);
    for _ in 0..4 {
        bed.produce("t", 0, 1000, 1000);
        bed.produce("u", 0, 1000, 1000);
    }
    let dead = bed.job("two-dead", |job| job.flush_size = 100);
    let alive = bed.job("two-alive", |job| {
        job.flush_size = 100;
        job.topics.literal = vec!["u".to_owned()];
    });
    bed.store.add(Fault::before("create", Kind::Unavailable).under("t/").always());
    let process = bed.process(8 << 20, 1 << 20, &[dead.clone(), alive.clone()]);
    let stuck = bed.open(&process, &dead, false).await;
    until("trouble", || stuck.status.state() == JobState::Degraded).await;
    let open = bed.open(&process, &alive, false).await;
    until("the other job's objects", || bed.objects("u", 1, 0).len() == 40).await;
    assert!(open.end(SOON).await);
    assert!(!stuck.end(Duration::from_millis(100)).await);
    process.stop();
}

/// In a folder the name of a topic is part of a file's name, which has a limit of its own.
#[actix::test]
async fn a_topic_whose_name_is_too_long_for_a_folder_is_refused_at_once() {
    let (fits, too_long) = ("t".repeat(218), "t".repeat(230));
    let bed = Bed::new(&[(&fits, 1), (&too_long, 1)]);
    bed.produce(&fits, 0, 10, 10);
    let job = |name: &str| bed.job(&name.len().to_string(), |job| job.topics.literal = vec![name.to_owned()]);
    assert!(bed.catch_up(&job(&fits)).await);
    assert_eq!(bed.chain(&fits, 1, 0, 0).0, [10]);
    let job = job(&too_long);
    let process = bed.process(BUDGET, 64 << 20, std::slice::from_ref(&job));
    let refused = process.open_on(&job, bed.store.clone(), true).await.err().expect("it is refused");
    assert_eq!(refused.exit, crate::error::Exit::Config, "{refused}");
    process.stop();
}
