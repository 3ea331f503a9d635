//! What is different when the lanes are those of one run of a compacted topic's instance: partitions are taken, not
//! assigned by a group; a lane that meets an object of another run waits until it is told to go on; and the coordinator
//! asks how far they are.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use actix::prelude::*;

use super::JobRunner;
use super::of_run::HowFar;
use crate::kafka::TopicPartition;
use crate::pipeline::topics::{Sight, Sights};

/// How far are the lanes? Answered with every partition that the topic has.
#[derive(Message)]
#[rtype(result = "BTreeMap<i32, HowFar>")]
pub struct AskHowFar;

/// Lanes that wait because of an object of another run go on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct GoOn;

/// Whether objects are closed whenever the end of a partition is seen.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AtEveryEnd(pub bool);

impl JobRunner {
    /// The topic has these partitions: all of them are ours.
    pub(super) fn take_partitions(&mut self, seen: &Sights) {
        let Some(topic) = self.run.as_ref().map(|run| run.topic.clone()) else { return };
        let Some(Sight::There { partitions, .. }) = seen.get(&*topic) else { return };
        let all = (0..*partitions).map(|p| TopicPartition::new(topic.clone(), p));
        let new: Vec<_> = all.filter(|p| self.taken.insert(p.clone())).collect();
        let clients = self.tasks.len();
        for (task, client) in self.tasks.iter().enumerate() {
            let share: Vec<_> = new.iter().filter(|p| p.partition as usize % clients == task).cloned().collect();
            if !share.is_empty() {
                client.group.take(&share);
            }
        }
    }

    /// A lane of a run met an object of another one: it waits.
    pub(super) fn wait_for_go_on(&mut self, partition: &TopicPartition) -> bool {
        let Some(run) = &mut self.run else { return false };
        run.waiting.insert(partition.clone());
        (run.blocked)();
        true
    }

    pub(super) fn waits(&self, partition: &TopicPartition) -> bool {
        self.run.as_ref().is_some_and(|run| run.waiting.contains(partition))
    }

    pub(super) fn at_every_end(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.at_every_end)
    }
}

impl Handler<AskHowFar> for JobRunner {
    type Result = MessageResult<AskHowFar>;

    fn handle(&mut self, _: AskHowFar, _: &mut Self::Context) -> Self::Result {
        let ends = self.status.partitions();
        let far = |at: &TopicPartition| {
            let progress = self.lanes.get(at).map(|running| &running.lane.progress);
            HowFar {
                stored: progress.map(|p| p.durable_next()),
                restorable: progress.and_then(|p| p.restorable()),
                seen_end_ms: progress.and_then(|p| p.seen_end_ms()),
                end: ends.get(at).and_then(|status| status.end_offset),
            }
        };
        MessageResult(self.taken.iter().map(|at| (at.partition, far(at))).collect())
    }
}

impl Handler<GoOn> for JobRunner {
    type Result = ();

    fn handle(&mut self, _: GoOn, ctx: &mut Self::Context) {
        let Some(run) = &mut self.run else { return };
        for partition in std::mem::take(&mut run.waiting) {
            if let Some(task) = self.owner(&partition) {
                self.failures.forget(&partition);
                self.status.solved(&partition.to_string());
                self.resolve(task, vec![partition], ctx);
            }
        }
    }
}

impl Handler<AtEveryEnd> for JobRunner {
    type Result = ();

    fn handle(&mut self, AtEveryEnd(yes): AtEveryEnd, _: &mut Self::Context) {
        if let Some(run) = &mut self.run {
            run.at_every_end = yes;
        }
        for running in self.lanes.values() {
            let before = running.lane.at_every_end.swap(yes, Ordering::Relaxed);
            if yes && !before {
                // What is open may end at the end of the partition already, and nothing more may come.
                running.near_end.do_send(super::Barrier { read_on: true, done: Box::new(|| ()) });
            }
        }
    }
}
