//! Runs a plan: some partitions at a time, each with its own fetcher, thread and producer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use super::fetch::{Source, Throttle, fetch};
use super::fingerprint::Resumed;
use super::progress::Progress;
use super::report::{PartitionReport, Report};
use super::stop::Stop;
use super::write::{Ledger, Outcome, Sinks, Writer};
use crate::error::{Error, Exit, Result};
use crate::model::restore::{PartitionPlan, Plan, TopicPlan};
use crate::storage::Store;

/// What running a plan needs.
pub struct Act {
    /// Where the objects are.
    pub store: Arc<dyn Store>,
    /// Where the records go.
    pub sinks: Arc<dyn Sinks>,
    /// Partitions at the same time, from 1.
    pub tasks_max: usize,
    /// Bytes per second.
    pub throttle: Arc<Throttle>,
    /// What earlier runs have produced, by target topic and partition.
    pub resumed: BTreeMap<(String, i32), Resumed>,
    /// The wish to stop.
    pub stop: Stop,
}

impl Act {
    /// Restores every partition that has objects. `progress` is told while it runs.
    pub async fn run(&self, plan: &Plan, progress: &Arc<Progress>) -> Result<Report> {
        let began = Instant::now();
        let mut work: Vec<(&TopicPlan, &PartitionPlan)> = plan
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)))
            .filter(|(_, partition)| !partition.objects.is_empty())
            .collect();
        // The largest first, so that the last task is not the longest.
        work.sort_by_key(|(_, partition)| std::cmp::Reverse(partition.bytes));
        let mut partitions: Vec<PartitionReport> = Vec::with_capacity(work.len());
        let (mut not_begun, mut not_begun_records) = (0, 0);
        let mut running = stream::iter(work)
            .map(|(topic, partition)| self.partition(topic, partition, progress))
            .buffer_unordered(self.tasks_max.max(1));
        while let Some(done) = running.next().await {
            match done? {
                Done::Report(report) => partitions.push(report),
                Done::NotBegun { records } => {
                    not_begun += 1;
                    not_begun_records += records;
                }
            }
        }
        partitions.sort_by(|a, b| (&a.source, &a.target, a.partition).cmp(&(&b.source, &b.target, b.partition)));
        Ok(Report {
            partitions,
            not_begun,
            not_begun_records,
            totals: plan.totals(),
            missing: plan.missing().cloned().collect(),
            before: self.resumed.values().map(|resumed| resumed.done).sum(),
            seconds: began.elapsed().as_secs_f64(),
            stopped: self.stop.asked(),
            groups: None,
        })
    }

    async fn partition(&self, topic: &TopicPlan, plan: &PartitionPlan, progress: &Arc<Progress>) -> Result<Done> {
        let resumed = self.resumed.get(&(topic.target.clone(), plan.partition)).copied().unwrap_or_default();
        if self.stop.asked().is_some() {
            return Ok(match resumed.done {
                0 => Done::NotBegun { records: plan.records },
                done => Done::Report(PartitionReport::new(topic, plan, Outcome::failed(done, Failure::Stopped))),
            });
        }
        let start = plan.start(resumed.done);
        let ledger = Arc::new(Ledger::new(plan.base_offset + resumed.done as i64, progress.records.clone()));
        let name = format!("{}/{}", topic.target, plan.partition);
        let sink = match self.sinks.open(&topic.target, plan.partition, ledger.clone()) {
            Ok(sink) => sink,
            Err(error) => {
                let outcome = Outcome::failed(resumed.done, error.into());
                return Ok(Done::Report(PartitionReport::new(topic, plan, outcome)));
            }
        };
        let shared = Arc::new(plan.clone());
        let (pieces, received) = mpsc::channel(1);
        let (ended, end) = oneshot::channel();
        let writer = Writer::new(shared.clone(), (resumed, start), sink, ledger, self.stop.clone());
        std::thread::Builder::new()
            .name(format!("restore {name}"))
            // The receiver is gone only when the restore itself is.
            .spawn(move || _ = ended.send(writer.run(received)))
            .map_err(|error| Error::new(Exit::Failed, "cannot start a thread").because(error))?;
        progress.begins(&name, plan, start.object);
        let source = Source { store: self.store.clone(), throttle: self.throttle.clone(), progress: progress.clone() };
        let fetched = fetch(source, shared, start.object, pieces, self.stop.clone());
        let ((), outcome) = tokio::join!(fetched, end);
        progress.ends(&name);
        let outcome = outcome.unwrap_or_else(|_| Outcome::failed(resumed.done, Failure::Died(name.clone())));
        match &outcome.failure {
            None => tracing::info!(partition = name, records = outcome.delivered, "partition restored"),
            Some(Failure::Stopped) => {
                tracing::info!(partition = name, records = outcome.delivered, "partition stopped")
            }
            Some(failure) => tracing::error!(partition = name, records = outcome.delivered, "{failure}"),
        }
        Ok(Done::Report(PartitionReport::new(topic, plan, outcome)))
    }
}

enum Done {
    Report(PartitionReport),
    NotBegun { records: u64 },
}
