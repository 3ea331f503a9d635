//! What runs a job dies; the supervisor begins it anew.

use actix::prelude::*;

use super::*;
use crate::pipeline::status::{JobState, JobStatus};
use crate::supervisor::tests::Kill;
use crate::supervisor::{EndAll, Supervisor, Swap};

/// Up to where a topic's only partition is in the bucket; nothing without a lane.
fn durable(status: &JobStatus, topic: &str) -> Option<i64> {
    let at = TopicPartition::new(topic, 0);
    Some(status.partitions().get(&at)?.progress.as_ref()?.durable_next())
}

#[actix::test]
async fn a_job_that_panics_is_begun_anew_after_longer_and_longer_and_the_others_do_not_notice() {
    let bed = Bed::new(&[("t", 1), ("u", 1)]);
    // The mock cluster forgets a member only when its session is over.
    let mut kafka = KafkaConfig::clone(&bed.kafka);
    let session = Property { value: "6000".to_owned(), secret_from: None };
    kafka.properties.insert("session.timeout.ms".to_owned(), session);
    let jobs = [
        bed.job("dies", |job| (job.flush_size, job.kafka) = (10, Arc::new(kafka))),
        bed.job("stays", |job| {
            job.topics.literal = vec!["u".to_owned()];
            job.flush_size = 10;
        }),
    ];
    let config = bed.config(BUDGET, 1 << 20);
    let process = Process::start(&config, &jobs, bed.io()).unwrap();
    let supervisor = Supervisor::new(process.clone(), &config).unwrap().start();
    let swap = Swap { jobs: jobs.to_vec(), live: Vec::new(), drain_timeout: SOON };
    supervisor.send(swap).await.unwrap();
    let [dies, stays] = [process.status(&jobs[0]), process.status(&jobs[1])];
    bed.produce("t", 0, 10, 10);
    bed.produce("u", 0, 10, 10);
    until("the first objects", || durable(&dies, "t") == Some(10) && durable(&stays, "u") == Some(10)).await;
    let lane = |status: &JobStatus| status.partitions().values().find_map(|p| p.progress.as_ref().map(Arc::as_ptr));
    let untouched = lane(&stays);

    for (deaths, text) in [(1, "the job ended and is started again: it died"), (2, "ended (2 times in a row) and is")] {
        let killed = Instant::now();
        supervisor.send(Kill("dies")).await.unwrap();
        let said = || dies.problems().get("restarts").is_some_and(|problem| problem.text.contains(text));
        until("the death to be seen", said).await;
        assert_ne!(dies.state(), JobState::Running, "a restart shows");
        until("its lane", || durable(&dies, "t").is_some()).await;
        let waited = killed.elapsed();
        assert!(waited >= Duration::from_secs(deaths), "death {deaths}: begun anew after {waited:?}");
        assert_eq!(dies.state(), JobState::Degraded, "still said when it runs: {:?}", dies.problems());
    }
    bed.produce("t", 0, 10, 10);
    bed.produce("u", 0, 10, 10);
    until("everything", || durable(&dies, "t") == Some(20) && durable(&stays, "u") == Some(20)).await;
    assert_eq!((stays.state(), lane(&stays)), (JobState::Running, untouched), "{:?}", stays.problems());
    assert!(supervisor.send(EndAll { timeout: SOON }).await.unwrap());
    process.stop();
    for topic in ["t", "u"] {
        assert_eq!(bed.chain(topic, 1, 0, 0).1, (0..20).collect::<Vec<_>>());
    }
}
