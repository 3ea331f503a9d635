//! What a job looks at again and again: the ends of the logs, the topics there are, lanes that do not move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::{FromGroup, Goal, JobRunner, Running, kafka_kind};
use crate::clock::{now_ms, with_others};
use crate::kafka::{KafkaError, TopicPartition};
use crate::metrics;
use crate::model::stall::{STALLED_MS, Seen, stalled};
use crate::pipeline::lane::{Lane, LaneNews};
use crate::pipeline::resolver::Unresolved;
use crate::pipeline::status::missing;
use crate::pipeline::topics::{Sight, Sights};

/// How often the ends of the logs are asked for, and the job shows that it turns.
const ENDS_EVERY: Duration = Duration::from_secs(5);
/// How often what is protected is written down for the next process.
const REMEMBER_EVERY: Duration = Duration::from_secs(30);
/// How often topics are matched against the selection.
const TOPICS_EVERY: Duration = Duration::from_secs(10);
/// A partition that is ours, has no lane and is not being resolved for so long fell through somewhere.
const LEFT_OUT: Duration = Duration::from_secs(180);
/// A one-shot run in which nothing at all moves for so long ends with an error.
const ONE_SHOT_PATIENCE: Duration = Duration::from_secs(600);
/// Trouble with the brokers is over when there was none for so long.
const KAFKA_QUIET: Duration = Duration::from_secs(15);

/// The ends of the logs, or why they are not known.
#[derive(Message)]
#[rtype(result = "()")]
struct Ends(i64, Result<BTreeMap<TopicPartition, i64>, KafkaError>);

/// The topics of the cluster.
#[derive(Message)]
#[rtype(result = "()")]
struct Topics(Result<Arc<Vec<String>>, KafkaError>);

impl JobRunner {
    /// Begins to look.
    pub(super) fn watch(&mut self, ctx: &mut Context<Self>) {
        self.status.beat();
        ctx.run_interval_at(with_others(ENDS_EVERY), ENDS_EVERY, |act, ctx| {
            act.status.beat();
            act.ask_for_ends(ctx);
            act.rebuild_stalled(ctx);
            act.pick_up_left_out(ctx);
            act.end_hopeless_run();
        });
        ctx.run_interval_at(with_others(TOPICS_EVERY), TOPICS_EVERY, |act, ctx| act.ask_for_topics(ctx));
        ctx.run_interval_at(with_others(REMEMBER_EVERY), REMEMBER_EVERY, |act, _| {
            act.shared.committer.do_send(act.remember());
        });
        if let Some(events) = self.events.take() {
            ctx.add_stream(futures_util::stream::unfold(events, |mut events| async move {
                let event: FromGroup = events.recv().await?;
                Some((event, events))
            }));
        }
        let seen = self.shared.topics.changes();
        ctx.add_stream(futures_util::stream::unfold(seen, |mut seen| async move {
            seen.changed().await.ok()?;
            let sights = Changed(seen.borrow_and_update().clone());
            Some((sights, seen))
        }));
    }

    pub(super) fn ask_for_ends(&self, ctx: &Context<Self>) {
        let partitions: Vec<_> = self.tasks.iter().flat_map(|task| task.assigned.iter().cloned()).collect();
        if partitions.is_empty() {
            return;
        }
        let (cluster, addr, isolation) = (self.cluster.clone(), ctx.address(), self.job.isolation);
        self.io.spawn(async move {
            let at = now_ms();
            let ends = cluster.ends.ask(partitions, isolation).await;
            addr.do_send(Ends(at, ends));
        });
    }

    fn ask_for_topics(&self, ctx: &Context<Self>) {
        if self.goal.is_some() || self.run.is_some() {
            return;
        }
        let (cluster, addr) = (self.cluster.clone(), ctx.address());
        self.io.spawn(async move {
            addr.do_send(Topics(cluster.topic_names().await));
        });
    }

    /// Something is wrong with the brokers or the group.
    pub(super) fn kafka_trouble(&mut self, error: &KafkaError, needs_operator: bool) {
        metrics::error("kafka", kafka_kind(error));
        self.kafka_troubled = Some(Instant::now());
        self.status.problem("kafka", error.to_string(), needs_operator);
    }

    /// The brokers answered. One broker of many that is away makes for errors and answers in turn.
    pub(super) fn kafka_answered(&mut self) {
        if self.kafka_troubled.is_some_and(|at| at.elapsed() > KAFKA_QUIET) && !self.fenced {
            self.kafka_troubled = None;
            self.status.solved("kafka");
        }
    }

    /// A lane that has lag and does not move while others do has lost a wake-up somewhere.
    fn rebuild_stalled(&mut self, ctx: &mut Context<Self>) {
        let statuses = self.status.partitions();
        let look = |(p, running): (&TopicPartition, &Running)| Seen {
            moved_ms: running.lane.progress.moved_ms(),
            read_next: running.lane.progress.read_next(),
            end: statuses.get(p).and_then(|status| status.end_offset),
            troubled: running.troubled,
            wanted: self.goal.as_ref().is_none_or(|goal| goal.left.contains_key(p)),
        };
        let (partitions, seen): (Vec<_>, Vec<_>) = self.lanes.iter().map(|lane| (lane.0.clone(), look(lane))).unzip();
        for at in stalled(&seen, now_ms()) {
            let why = format!("no progress for {} minutes", STALLED_MS / 60_000);
            self.on_lane(&partitions[at], LaneNews::Failed { why }, ctx);
        }
    }

    /// Whatever becomes of a resolution (a bug, a call that never ends), its partitions do not stay without a lane.
    fn pick_up_left_out(&mut self, ctx: &mut Context<Self>) {
        if self.draining {
            return;
        }
        for task in 0..self.tasks.len() {
            let assigned = self.tasks[task].assigned.iter();
            let left_out = |p: &&TopicPartition| {
                let resting = self.under_way.get(*p).is_none_or(|since| since.elapsed() > LEFT_OUT);
                resting && !self.lanes.contains_key(*p) && !self.waits(p)
            };
            let left_out: Vec<_> = assigned.filter(left_out).cloned().collect();
            if !left_out.is_empty() {
                tracing::warn!(job = %self.job.id, partitions = left_out.len(), "partitions without a lane: resolved again");
                self.resolve(task, left_out, ctx);
            }
        }
    }

    /// A one-shot run is not for ever: when nothing moves for long, it ends and says what it waited for.
    fn end_hopeless_run(&mut self) {
        let Some(goal) = &mut self.goal else { return };
        let progress = self.lanes.values().map(|r| r.lane.progress.read_next() + r.lane.progress.durable_next());
        let moved = (goal.left.len(), progress.sum());
        if goal.moved.0 != moved {
            goal.moved = (moved, Instant::now());
        } else if goal.moved.1.elapsed() > ONE_SHOT_PATIENCE {
            let problems = self.status.problems();
            let text = |(_, problem): (&String, &crate::pipeline::status::Problem)| problem.text.clone();
            let why = problems.iter().next().map_or_else(|| "nothing moves".to_owned(), text);
            self.give_up(Unresolved::Later { why: format!("no progress for 10 minutes: {why}") });
        }
    }

    /// A topic with another id than the one its lanes write for: they begin anew, before they send anything more.
    fn check_ids(&mut self, seen: &Sights, ctx: &mut Context<Self>) {
        let changed = |lane: &Lane| {
            let sight = seen.get(&*lane.partition.topic);
            let expected = &lane.generation.topic_id;
            match sight {
                Some(Sight::There { id: Some(id), .. }) => !expected.is_empty() && id != expected,
                _ => false,
            }
        };
        let changed: Vec<_> =
            self.lanes.iter().filter(|(_, running)| changed(&running.lane)).map(|(p, _)| p.clone()).collect();
        for partition in changed {
            self.on_lane(&partition, LaneNews::Recreated, ctx);
        }
    }
}

impl Goal {
    /// What a run waits for that begins now.
    pub(super) fn new(all: BTreeMap<TopicPartition, i64>) -> Self {
        Self { left: all.clone(), all, moved: ((0, 0), Instant::now()) }
    }
}

/// Something about topics has changed.
struct Changed(Sights);

impl StreamHandler<Changed> for JobRunner {
    fn handle(&mut self, Changed(seen): Changed, ctx: &mut Self::Context) {
        self.take_partitions(&seen);
        self.check_ids(&seen, ctx);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl Handler<Ends> for JobRunner {
    type Result = ();

    fn handle(&mut self, Ends(at, ends): Ends, _: &mut Self::Context) {
        let ends = match ends {
            Ok(ends) => ends,
            Err(error) => return self.kafka_trouble(&error, false),
        };
        self.status.observe_ends(at, &ends);
        for (partition, end) in &ends {
            if let Some(running) = self.lanes.get(partition) {
                running.lane.progress.observe_end(*end, at);
            }
        }
        self.kafka_answered();
        let lanes = &self.lanes;
        let state = |p: &TopicPartition| {
            let progress = &lanes.get(p)?.lane.progress;
            let idle = ends.get(p).is_some_and(|end| progress.covered() >= *end);
            Some((progress.durable_next(), idle))
        };
        for partition in self.failures.take_over(state) {
            self.status.solved(&partition.to_string());
        }
    }
}

impl Handler<Topics> for JobRunner {
    type Result = ();

    fn handle(&mut self, Topics(all): Topics, _: &mut Self::Context) {
        let Ok(all) = all else { return };
        let selection = &self.job.topics;
        for literal in &selection.literal {
            let subject = missing(literal);
            if all.contains(literal) {
                self.status.solved(&subject);
            } else {
                self.status.problem(&subject, format!("topic {literal} does not exist"), false);
            }
        }
        let mut wanted: BTreeSet<String> = selection.literal.iter().cloned().collect();
        wanted.extend(all.iter().filter(|topic| selection.takes(topic)).cloned());
        if wanted == self.topics || wanted.is_empty() {
            return; // there is no subscription to nothing
        }
        for topic in wanted.difference(&self.topics) {
            tracing::info!(job = %self.job.id, topic, "topic discovered");
            metrics::topic_discovered(&self.job.id);
        }
        let list: Vec<_> = wanted.iter().cloned().collect();
        let failed: Vec<_> = self.tasks.iter().filter_map(|task| task.group.subscribe(&list).err()).collect();
        for error in &failed {
            self.kafka_trouble(error, false);
        }
        if failed.is_empty() {
            self.topics = wanted;
        }
    }
}
