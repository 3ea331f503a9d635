//! What happens to the job's members of the consumer group.

use actix::prelude::*;

use super::{FromGroup, JobRunner, kafka_kind};
use crate::kafka::consumer::{GroupEvent, Protocol};
use crate::kafka::{KafkaError, TopicPartition};
use crate::metrics;
use crate::pipeline::resolver::Unresolved;

impl JobRunner {
    fn assigned(&mut self, task: usize, partitions: Vec<TopicPartition>, ctx: &mut Context<Self>) {
        tracing::info!(job = %self.job.id, task, partitions = partitions.len(), "partitions assigned");
        let Some(owner) = self.tasks.get_mut(task) else { return };
        if owner.group.protocol() == Protocol::Eager {
            // These and nothing else.
            let before = std::mem::take(&mut owner.assigned);
            before.iter().for_each(|p| self.revoked(task, p));
        }
        self.tasks[task].assigned.extend(partitions.iter().cloned());
        self.status.assigned(&partitions);
        self.resolve(task, partitions, ctx);
        self.ask_for_ends(ctx);
    }

    fn revoked(&mut self, task: usize, partition: &TopicPartition) {
        if let Some(owner) = self.tasks.get_mut(task) {
            owner.assigned.remove(partition);
        }
        // Members report on threads of their own: another one of ours may have it already.
        if self.owner(partition).is_some() {
            if self.lanes.get(partition).is_some_and(|running| running.task == task) {
                self.close(partition);
            }
            return;
        }
        self.close(partition);
        self.failures.forget(partition);
        self.unresolved.remove(partition);
        self.under_way.remove(partition);
        self.status.lost(partition);
        self.status.solved(&partition.to_string());
    }

    /// The client of a task is of no more use.
    fn fatal(&mut self, task: usize, error: KafkaError, ctx: &mut Context<Self>) {
        self.fenced = error.kind == crate::kafka::Kind::Fenced;
        self.kafka_trouble(&error, self.fenced);
        let ours = self.lanes.iter().filter(|(_, running)| running.task == task).map(|(p, _)| p.clone());
        ours.collect::<Vec<_>>().iter().for_each(|p| self.close(p));
        if let Some(task) = self.tasks.get_mut(task) {
            task.assigned.clear();
        }
        if self.fenced {
            // Another process has our identity: to come back would only throw it out in turn.
            return self.give_up(Unresolved::Kafka(error));
        }
        // Whoever watches the job starts it again.
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(Err(Unresolved::Kafka(error)));
        }
        ctx.stop();
    }
}

impl StreamHandler<FromGroup> for JobRunner {
    fn finished(&mut self, _: &mut Self::Context) {}

    fn handle(&mut self, FromGroup { task, event }: FromGroup, ctx: &mut Self::Context) {
        match event {
            GroupEvent::Assigned(partitions) => self.assigned(task, partitions, ctx),
            GroupEvent::Revoked { partitions, lost } => {
                tracing::info!(job = %self.job.id, task, partitions = partitions.len(), lost, "partitions revoked");
                partitions.iter().for_each(|p| self.revoked(task, p));
                if lost {
                    self.status.lost_group(&partitions);
                }
            }
            GroupEvent::Error(error) => self.kafka_trouble(&error, false),
            GroupEvent::Fatal(error) => self.fatal(task, error, ctx),
            GroupEvent::CommitFailed(error) => {
                metrics::error("kafka", kafka_kind(&error));
                tracing::debug!(job = %self.job.id, error = %error, "group offsets not committed");
            }
        }
    }
}
