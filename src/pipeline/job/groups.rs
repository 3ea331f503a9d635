//! The job has the positions of consumer groups saved, again and again, beside everything else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::JobRunner;
use crate::clock::with_others;
use crate::metrics;
use crate::model::chain::GenerationRecord;
use crate::pipeline::groups::Round;

/// What another job was told is good enough for so long.
const SHARED: Duration = Duration::from_secs(30);

/// The subject of trouble with groups.
const SUBJECT: &str = "consumer groups";

/// Save the positions of consumer groups now. Answers with what came of it once that is done.
#[derive(Message)]
#[rtype(result = "Round")]
pub struct SaveGroups;

/// A round has ended; `topics` is of how many.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct GroupsSaved {
    round: Round,
    topics: usize,
}

impl JobRunner {
    /// Begins to save. A round that takes longer than the interval is not joined by another one.
    pub(super) fn keep_groups(&mut self, ctx: &mut Context<Self>) {
        let every = self.job.groups_interval;
        ctx.run_interval_at(with_others(every), every, |act, ctx| {
            if act.saving_groups || act.draining || act.goal.is_some() {
                return;
            }
            act.saving_groups = true;
            let (keeper, topics, addr) = (act.groups.clone(), act.own_topics(), ctx.address());
            let age = (act.job.groups_interval / 2).min(SHARED);
            act.io.spawn(async move {
                let count = topics.len();
                let round = keeper.save(topics, age).await;
                addr.do_send(GroupsSaved { round, topics: count });
            });
        });
    }

    /// The topics whose groups are saved here: those of which partition 0 has its lane here.
    fn own_topics(&self) -> Vec<Arc<GenerationRecord>> {
        let first = self.lanes.iter().filter(|(partition, _)| partition.partition == 0);
        let topics: BTreeMap<_, _> =
            first.map(|(partition, running)| (partition.topic.clone(), running.lane.generation.clone())).collect();
        topics.into_values().collect()
    }

    fn groups_saved(&mut self, round: &Round, topics: usize) {
        self.saving_groups = false;
        if round.problems.is_empty() {
            self.status.solved(SUBJECT);
            self.status.groups_saved((topics > 0).then_some((round.at_ms, round.groups)));
            return;
        }
        metrics::groups_not_saved(&self.job.id);
        let text = format!("positions are not saved as they are now: {}", round.problems.join("; "));
        self.status.problem(SUBJECT, text, false);
    }
}

impl Handler<GroupsSaved> for JobRunner {
    type Result = ();

    fn handle(&mut self, GroupsSaved { round, topics }: GroupsSaved, _: &mut Self::Context) {
        self.groups_saved(&round, topics);
    }
}

impl Handler<SaveGroups> for JobRunner {
    type Result = ResponseActFuture<Self, Round>;

    fn handle(&mut self, SaveGroups: SaveGroups, _: &mut Self::Context) -> Self::Result {
        let (keeper, topics) = (self.groups.clone(), self.own_topics());
        let count = topics.len();
        // On the runtime that the requests run on, whatever this actor runs on.
        let saved = self.io.spawn(async move { keeper.save(topics, Duration::ZERO).await });
        Box::pin(async move { saved.await.unwrap_or_default() }.into_actor(self).map(move |round, act, _| {
            act.groups_saved(&round, count);
            round
        }))
    }
}
