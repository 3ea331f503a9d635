//! Whether the members of the job's consumer group that are not ours back up to the same store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::JobRunner;
use crate::clock::{millis, now_ms, with_others};
use crate::config::Isolation;
use crate::kafka::admin::{Cluster, End, TIMEOUT};
use crate::kafka::groups::OffsetsOfGroup;
use crate::kafka::{KafkaError, TopicPartition};
use crate::model::sharing::Foreign;
use crate::pipeline::resolver::{Resolver, Unresolved};
use crate::pipeline::topics::Sight;

/// How often the group's offsets are looked at.
const EVERY: Duration = Duration::from_secs(20);
/// An object that is due is stored and committed within so much more time.
const MARGIN: Duration = Duration::from_secs(120);
/// The subject of this trouble.
const SUBJECT: &str = "consumer group";

/// Generations that this store has a record of, by topic. They stay, so they are read again only for one that is not among
/// them: others at work on the same store cost no request.
pub(super) type Known = BTreeMap<Arc<str>, BTreeSet<String>>;

/// What others have committed that is of no generation of this store.
#[derive(Message)]
#[rtype(result = "()")]
struct Looked(Result<(Vec<Foreign<TopicPartition>>, Known), Unresolved>);

impl JobRunner {
    /// Begins to look.
    pub(super) fn watch_sharing(&self, ctx: &mut Context<Self>) {
        if self.goal.is_some() || self.run.is_some() {
            return; // alone in its group, or without one
        }
        ctx.run_interval_at(with_others(EVERY), EVERY, |act, ctx| {
            if act.owns_everything() {
                act.looked(Vec::new());
            } else if !act.draining {
                act.look_for_others(ctx);
            }
        });
    }

    /// All partitions of all topics are ours, as far as is known: nobody need be asked.
    fn owns_everything(&self) -> bool {
        let changes = self.shared.topics.changes();
        let sights = changes.borrow();
        self.topics.iter().all(|topic| match sights.get(topic) {
            Some(Sight::There { partitions, .. }) => {
                (0..*partitions).all(|p| self.owner(&TopicPartition::new(topic.as_str(), p)).is_some())
            }
            _ => false,
        })
    }

    fn look_for_others(&self, ctx: &Context<Self>) {
        let (cluster, resolver, addr) = (self.cluster.cluster.clone(), self.resolver.clone(), ctx.address());
        let (group, topics, known) = (self.job.group_id.clone(), self.topics.clone(), self.generations.clone());
        let ours: BTreeSet<_> = self.tasks.iter().flat_map(|task| task.assigned.iter().cloned()).collect();
        self.io.spawn(async move {
            addr.do_send(Looked(foreign(&cluster, &resolver, &group, &topics, &ours, known).await));
        });
    }

    fn looked(&mut self, mut foreign: Vec<Foreign<TopicPartition>>) {
        // It may have become ours meanwhile.
        foreign.retain(|f| self.owner(&f.partition).is_none());
        let patience = self.job.rotate_interval * 2 + MARGIN;
        let sure = self.sharing.observe(now_ms(), millis(patience), &foreign);
        let Some(first) = sure.first() else { return self.status.solved(SUBJECT) };
        let text = format!(
            "group {} is shared with a job that backs up to another place: it has {first}{}, and what it reads is missing \
             in {}; give one of the two jobs another group_id",
            self.job.group_id,
            if sure.len() > 1 { format!(" and {} more partitions", sure.len() - 1) } else { String::new() },
            self.shared.store.url(),
        );
        self.status.problem(SUBJECT, text, true);
    }
}

/// Committed offsets of partitions that are not ours, of generations that the store does not know.
async fn foreign(
    cluster: &Cluster,
    resolver: &Resolver,
    group: &str,
    topics: &BTreeSet<String>,
    ours: &BTreeSet<TopicPartition>,
    mut known: Known,
) -> Result<(Vec<Foreign<TopicPartition>>, Known), Unresolved> {
    let committed = of_others(cluster.group_offsets(&[group.to_owned()], TIMEOUT).await?.remove(group), topics, ours)?;
    let is_known = |known: &Known, at: &TopicPartition, generation: &str| {
        known.get(&at.topic).is_some_and(|uuids| uuids.contains(generation))
    };
    let mut found = BTreeMap::new();
    let mut read = BTreeSet::new();
    for (at, (offset, generation)) in committed {
        if !is_known(&known, &at, &generation) && read.insert(at.topic.clone()) {
            known.insert(at.topic.clone(), resolver.generation_uuids(&at.topic).await?);
        }
        if !is_known(&known, &at, &generation) {
            found.insert(at, offset);
        }
    }
    if found.is_empty() {
        return Ok((Vec::new(), known));
    }
    let partitions: Vec<_> = found.keys().cloned().collect();
    let mut starts = cluster.offsets(&partitions, End::Earliest, Isolation::ReadUncommitted, TIMEOUT).await?;
    let foreign = found.into_iter().filter_map(|(partition, offset)| {
        let log_start = starts.remove(&partition)?.ok()?;
        Some(Foreign { partition, offset, log_start })
    });
    Ok((foreign.collect(), known))
}

/// Of what the group has committed, what is of these topics and not of partitions that are ours. Offsets that stand alone
/// are of somebody who set them by hand.
fn of_others(
    committed: Option<Result<OffsetsOfGroup, KafkaError>>,
    topics: &BTreeSet<String>,
    ours: &BTreeSet<TopicPartition>,
) -> Result<OffsetsOfGroup, KafkaError> {
    let mut committed = committed.transpose()?.unwrap_or_default();
    committed.retain(|at, (_, generation)| {
        topics.contains(&*at.topic) && !ours.contains(at) && uuid::Uuid::parse_str(generation).is_ok()
    });
    Ok(committed)
}

impl Handler<Looked> for JobRunner {
    type Result = ();

    fn handle(&mut self, Looked(looked): Looked, _: &mut Self::Context) {
        // That brokers or store do not answer is said by those who need the answer.
        let Ok((foreign, known)) = looked else { return };
        self.generations = known;
        self.looked(foreign);
    }
}
