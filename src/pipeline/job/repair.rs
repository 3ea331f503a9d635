//! Lanes that fail or end, and how their partitions start over.

use std::time::Instant;

use actix::prelude::*;

use super::JobRunner;
use super::failures::{patience, upload_of};
use crate::kafka::TopicPartition;
use crate::metrics;
use crate::pipeline::lane::{LaneEvent, LaneNews};

/// Try this partition again.
#[derive(Message)]
#[rtype(result = "()")]
struct Again(usize, Vec<TopicPartition>);

/// The lane was closed and everything that must be forgotten is: build it anew.
#[derive(Message)]
#[rtype(result = "()")]
struct Rebuild(TopicPartition);

impl JobRunner {
    /// Builds the lane of `partition` anew, after a while.
    pub(super) fn rebuild(&mut self, partition: &TopicPartition, ctx: &mut Context<Self>) {
        self.close(partition);
        let Some(task) = self.owner(partition) else { return };
        if let Err(error) = self.tasks[task].group.unplace(std::slice::from_ref(partition)) {
            tracing::warn!(job = %self.job.id, partition = %partition, error = %error, "cannot be taken out of the client");
        }
        let attempts = self.unresolved.get(partition).copied().unwrap_or(0);
        let attempt = self.failures.count(partition).max(attempts).max(1);
        self.again(task, vec![partition.clone()], attempt, ctx);
    }

    /// Resolves these partitions after a while that grows with `attempt`.
    pub(super) fn again(
        &mut self,
        task: usize,
        partitions: Vec<TopicPartition>,
        attempt: u32,
        ctx: &mut Context<Self>,
    ) {
        let now = Instant::now();
        self.under_way.extend(partitions.iter().map(|p| (p.clone(), now)));
        ctx.notify_later(Again(task, partitions), patience(attempt));
    }

    /// Counts a failure at an offset; says so when the partition cannot get past it.
    fn failed(&mut self, partition: &TopicPartition, at: i64, why: &str) {
        let Some(running) = self.lanes.get(partition) else { return };
        metrics::restarted(&self.job.id);
        let text = self.failures.note(partition, &running.lane.generation.uuid, at, why);
        self.status.problem(&partition.to_string(), text, false);
    }

    /// A lane has something to tell: most of it ends the lane, and the partition starts over.
    pub(super) fn on_lane(&mut self, partition: &TopicPartition, news: LaneNews, ctx: &mut Context<Self>) {
        let position = self.lanes.get(partition).map_or(-1, |running| running.lane.progress.durable_next());
        match news {
            LaneNews::CaughtUp => return self.reached(partition),
            LaneNews::Trouble { why } => return self.trouble(partition, Some(why)),
            LaneNews::Relieved => return self.trouble(partition, None),
            LaneNews::Adopted { next_offset } => {
                tracing::info!(job = %self.job.id, partition = %partition, next_offset,
                    "another writer appended first; going on behind it");
                self.failures.forget(partition);
            }
            LaneNews::Superseded => {
                tracing::info!(job = %self.job.id, partition = %partition, "a newer generation has begun; going on there");
            }
            LaneNews::Recreated => {
                self.failed(partition, position, "the topic was deleted and created again");
            }
            LaneNews::Truncated { at } => {
                self.failed(partition, position, "the log was truncated below what is backed up");
                self.failures.truncated(partition, at);
            }
            LaneNews::OutOfRange => {
                self.failed(partition, position, "the position is not in the log any more");
            }
            LaneNews::GenerationGone => {
                self.failed(partition, position, "the record of its generation is gone from the store");
            }
            LaneNews::TailGone => self.failed(partition, position, "the last object is gone from the bucket"),
            LaneNews::Foreign { key, why } => {
                self.failed(partition, position, &format!("{key} is not ours: {why}"));
                self.wait_for_go_on(partition);
            }
            LaneNews::Failed { why } => self.failed(partition, position, &why),
            LaneNews::Died { stage, at } => self.failed(partition, at, &format!("the {stage} died")),
        }
        if self.waits(partition) {
            return self.close(partition);
        }
        let (generations, topic, addr) = (self.resolver.clone(), partition.topic.clone(), ctx.address());
        let partition = partition.clone();
        self.close(&partition);
        // The generation may have changed under us: look it up again.
        self.io.spawn(async move {
            generations.forget_generation(&topic).await;
            addr.do_send(Rebuild(partition));
        });
    }

    /// Uploads of the lane fail, or do no more.
    fn trouble(&mut self, partition: &TopicPartition, why: Option<String>) {
        if let Some(running) = self.lanes.get_mut(partition) {
            running.troubled = why.is_some();
        }
        match why {
            Some(why) => self.status.problem(&upload_of(partition), why, false),
            None => self.status.solved(&upload_of(partition)),
        }
    }
}

impl Handler<Again> for JobRunner {
    type Result = ();

    fn handle(&mut self, Again(task, mut partitions): Again, ctx: &mut Self::Context) {
        partitions.retain(|p| !self.waits(p) && !self.lanes.contains_key(p) && self.owner(p) == Some(task));
        self.resolve(task, partitions, ctx);
    }
}

impl Handler<Rebuild> for JobRunner {
    type Result = ();

    fn handle(&mut self, Rebuild(partition): Rebuild, ctx: &mut Self::Context) {
        if !self.lanes.contains_key(&partition) {
            self.rebuild(&partition, ctx);
        }
    }
}

impl Handler<LaneEvent> for JobRunner {
    type Result = ();

    fn handle(&mut self, event: LaneEvent, ctx: &mut Self::Context) {
        // News of a lane that is gone is no news.
        if self.lanes.get(&event.partition).is_some_and(|running| running.lane.number == event.number) {
            self.on_lane(&event.partition, event.what, ctx);
        }
    }
}
