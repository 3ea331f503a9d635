//! One job while it runs: its group members, its partitions, and a lane for each of them.
//!
//! A partition that is assigned is resolved first (where does it go on?), then placed (the client begins to fetch it),
//! then gets its lane. A lane that ends for whatever reason is closed, and the partition starts over at "resolve", after
//! a while that grows with every death at the same offset.

mod failures;
mod group;
mod groups;
pub mod of_run;
mod repair;
mod retention;
pub mod run;
mod sharing;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::StreamExt;

use self::failures::{Failures, upload_of};
pub use self::groups::SaveGroups;
use self::of_run::OfRun;
use super::clusters::SharedCluster;
use super::committer::{Forget, GroupCommit, Register, Remember};
use super::consumer::Consumer;
use super::groups::GroupKeeper;
use super::lane::{Lane, Progress};
use super::message::{Barrier, Requeue};
use super::resolver::{Resolved, Resolver, Unresolved};
use super::status::JobStatus;
use super::{Beginning, Shared, lane_number, spawn_lane};
use crate::config::Job;
use crate::kafka::consumer::{GroupConsumer, GroupEvent, Position, Protocol};
use crate::kafka::queue::PartitionQueue;
use crate::kafka::{KafkaError, TopicPartition};
use crate::metrics;
use crate::model::sharing::Sharing;

/// Positions resolved at the same time.
const RESOLVING: usize = 64;
/// Resolved partitions are placed in groups: each placing is a round trip through librdkafka.
const PLACED_AT_ONCE: usize = 100;
/// How long a member may take to leave its group.
const LEAVING: Duration = Duration::from_secs(10);
/// A one-shot run gives up on a failure that does not pass by itself after so many attempts.
const ONE_SHOT_ATTEMPTS: u32 = 3;

/// One group member: a Kafka client.
struct Task {
    group: Arc<GroupConsumer>,
    assigned: BTreeSet<TopicPartition>,
}

/// A lane that is running.
struct Running {
    lane: Arc<Lane>,
    near_end: Addr<Consumer>,
    /// The member that the partition belongs to.
    task: usize,
    /// Its uploads fail.
    troubled: bool,
}

/// What a one-shot run waits for.
struct Goal {
    /// Where each partition ended when the run began; what is reached is taken out.
    left: BTreeMap<TopicPartition, i64>,
    all: BTreeMap<TopicPartition, i64>,
    /// How far the run was, and since when it is there.
    moved: ((usize, i64), Instant),
}

/// The actor of one job.
pub struct JobRunner {
    job: Arc<Job>,
    shared: Shared,
    resolver: Arc<Resolver>,
    status: Arc<JobStatus>,
    cluster: Arc<SharedCluster>,
    io: tokio::runtime::Handle,
    tasks: Vec<Task>,
    lanes: HashMap<TopicPartition, Running>,
    failures: Failures,
    topics: BTreeSet<String>,
    goal: Option<Goal>,
    /// Whom to tell how the job ended: dropped with the runner, which tells, too.
    ended: Option<tokio::sync::oneshot::Sender<Result<(), Unresolved>>>,
    events: Option<tokio::sync::mpsc::UnboundedReceiver<FromGroup>>,
    /// Attempts to resolve, per partition that could not be.
    unresolved: HashMap<TopicPartition, u32>,
    /// Partitions that are being resolved or wait for it, and since when.
    under_way: HashMap<TopicPartition, Instant>,
    kafka_troubled: Option<Instant>,
    /// Saves the positions of consumer groups.
    groups: Arc<GroupKeeper>,
    saving_groups: bool,
    /// Another process took our place in the group.
    fenced: bool,
    draining: bool,
    /// The lanes are those of a run of a compacted topic's instance.
    run: Option<OfRun>,
    /// Partitions of that topic that were taken.
    taken: BTreeSet<TopicPartition>,
    /// What other members of the group do.
    sharing: Sharing<TopicPartition>,
    /// Generations of this store, as far as they were looked for.
    generations: sharing::Known,
}

/// An event of group member `task`.
#[derive(Debug)]
pub struct FromGroup {
    /// Which member.
    pub task: usize,
    /// What happened.
    pub event: GroupEvent,
}

/// Partitions that were resolved, or not.
#[derive(Message)]
#[rtype(result = "()")]
struct Resolutions {
    task: usize,
    results: Vec<(TopicPartition, Result<Resolved, Unresolved>)>,
}

/// Make durable what was read; `stop` also stops reading. Answered when all lanes have done so or are gone, with
/// whether all have done so.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct Drain {
    /// Read no more.
    pub stop: bool,
}

/// Leave the groups and end. Nothing more is written afterwards.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Leave;

/// What a [`JobRunner`] is made of.
pub struct Parts {
    /// The job.
    pub job: Arc<Job>,
    /// What its lanes share.
    pub shared: Shared,
    /// Resolves positions.
    pub resolver: Arc<Resolver>,
    /// Where it says how it is.
    pub status: Arc<JobStatus>,
    /// The cluster.
    pub cluster: Arc<SharedCluster>,
    /// Where requests run.
    pub io: tokio::runtime::Handle,
    /// The topics it begins with.
    pub topics: BTreeSet<String>,
    /// Its group members.
    pub groups: Vec<Arc<GroupConsumer>>,
    /// What happens to them, by their number.
    pub events: tokio::sync::mpsc::UnboundedReceiver<FromGroup>,
    /// For a one-shot run: the ends of all partitions.
    pub goal: Option<BTreeMap<TopicPartition, i64>>,
    /// Told when the goal is reached or cannot be; dropped when the runner ends.
    pub ended: tokio::sync::oneshot::Sender<Result<(), Unresolved>>,
    /// The lanes are those of a run of a compacted topic's instance.
    pub run: Option<OfRun>,
}

impl JobRunner {
    /// A runner of these parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { job, shared, resolver, status, cluster, io, topics, groups, events, goal, ended, run } = parts;
        let keeper = GroupKeeper::new(job.clone(), shared.store.clone(), cluster.clone());
        Self {
            job,
            shared,
            resolver,
            status,
            cluster,
            io,
            tasks: groups.into_iter().map(|group| Task { group, assigned: BTreeSet::new() }).collect(),
            lanes: HashMap::new(),
            failures: Failures::default(),
            topics,
            goal: goal.map(Goal::new),
            ended: Some(ended),
            events: Some(events),
            unresolved: HashMap::new(),
            under_way: HashMap::new(),
            kafka_troubled: None,
            groups: keeper,
            saving_groups: false,
            fenced: false,
            draining: false,
            run,
            taken: BTreeSet::new(),
            sharing: Sharing::default(),
            generations: sharing::Known::default(),
        }
    }

    fn owner(&self, partition: &TopicPartition) -> Option<usize> {
        self.tasks.iter().position(|task| task.assigned.contains(partition))
    }

    /// Finds out where these partitions go on; the answers come as [`Resolutions`].
    fn resolve(&mut self, task: usize, partitions: Vec<TopicPartition>, ctx: &Context<Self>) {
        if partitions.is_empty() || self.draining {
            return;
        }
        let now = Instant::now();
        self.under_way.extend(partitions.iter().map(|p| (p.clone(), now)));
        let (resolver, addr) = (self.resolver.clone(), ctx.address());
        let mut truncations: HashMap<_, _> =
            partitions.iter().filter_map(|p| Some((p.clone(), self.failures.truncation(p)?))).collect();
        // Under an eager protocol all partitions are placed at each placing, so there should be few.
        let at_once = match self.tasks.get(task).map(|t| t.group.protocol()) {
            Some(Protocol::Eager) => usize::MAX,
            _ => 1,
        };
        self.io.spawn(async move {
            resolver.topics.add(partitions.iter().map(|p| &*p.topic));
            let mut asked = match resolver.ask(&partitions).await {
                Ok(asked) => asked,
                Err(error) => {
                    let failed = |p| (p, Err(Unresolved::Kafka(error.clone())));
                    return addr.do_send(Resolutions { task, results: partitions.into_iter().map(failed).collect() });
                }
            };
            let each = futures_util::stream::iter(partitions).map(|partition| {
                let (resolver, mut asked) = (resolver.clone(), asked.remove(&partition));
                if let Some(asked) = &mut asked {
                    asked.truncation = truncations.remove(&partition);
                }
                async move {
                    let result = match asked {
                        Some(asked) => resolver.resolve(&partition, asked).await,
                        None => Err(Unresolved::Later { why: "the brokers do not tell its offsets".to_owned() }),
                    };
                    (partition, result)
                }
            });
            let mut chunks = each.buffer_unordered(RESOLVING).ready_chunks(PLACED_AT_ONCE);
            let mut all = Vec::new();
            while let Some(results) = chunks.next().await {
                all.extend(results);
                if all.len() >= at_once {
                    addr.do_send(Resolutions { task, results: std::mem::take(&mut all) });
                }
            }
            if !all.is_empty() {
                addr.do_send(Resolutions { task, results: all });
            }
        });
    }

    /// Places what was resolved and is still ours, and builds the lanes.
    fn begin(&mut self, task: usize, resolved: Vec<(TopicPartition, Resolved)>, ctx: &mut Context<Self>) {
        let Some(owner) = self.tasks.get(task) else { return };
        let group = owner.group.clone();
        let ours: Vec<_> =
            resolved.into_iter().filter(|(p, _)| owner.assigned.contains(p) && !self.lanes.contains_key(p)).collect();
        if ours.is_empty() || self.draining {
            return;
        }
        let position = |r: &Resolved| Position { offset: r.position, leader_epoch: r.leader_epoch };
        let mut positions: Vec<_> = ours.iter().map(|(p, r)| (p.clone(), position(r))).collect();
        if group.protocol() == Protocol::Eager {
            // The list is the whole assignment: lanes that run go on where they stand, with another queue.
            let running = self.lanes.iter().filter(|(_, running)| running.task == task);
            let stands = |r: &Running| Position { offset: r.lane.progress.read_next(), leader_epoch: -1 };
            positions.extend(running.map(|(p, r)| (p.clone(), stands(r))));
        }
        let queues = match group.place(&positions) {
            Ok(queues) => queues,
            Err(error) => {
                self.kafka_trouble(&error, false);
                let mut partitions: Vec<_> = ours.into_iter().map(|(p, _)| p).collect();
                if group.protocol() == Protocol::Eager {
                    // The queues that there were have ended, too.
                    partitions = positions.into_iter().map(|(p, _)| p).collect();
                    partitions.iter().for_each(|p| self.close(p));
                }
                return self.again(task, partitions, 3, ctx);
            }
        };
        let mut by_partition: HashMap<_, _> = ours.into_iter().collect();
        for queue in queues {
            let partition = queue.partition().clone();
            if let Some(resolved) = by_partition.remove(&partition) {
                self.build(task, partition, resolved, queue, ctx);
            } else if let Some(running) = self.lanes.get(&partition) {
                running.near_end.do_send(Requeue(queue));
            }
        }
    }

    fn build(
        &mut self,
        task: usize,
        partition: TopicPartition,
        resolved: Resolved,
        queue: PartitionQueue,
        ctx: &mut Context<Self>,
    ) {
        let progress = Progress::of_list(resolved.position, &resolved.generation.uuid, resolved.tail);
        self.status.lane_began(&partition, &resolved.generation.uuid, progress.clone());
        self.unresolved.remove(&partition);
        self.under_way.remove(&partition);
        if self.failures.began(&partition, &resolved.generation.uuid) {
            self.status.solved(&partition.to_string());
        }
        if resolved.gap > 0 {
            self.status.add_gap();
        }
        let recipient = ctx.address().recipient();
        let job = self.job.clone();
        let lane = Lane::new(lane_number(), partition.clone(), job, resolved.generation, progress, recipient);
        lane.at_every_end.store(self.at_every_end(), Ordering::Relaxed);
        self.shared.committer.do_send(Register {
            lane: lane.number,
            store_url: self.resolver.state_url(),
            group: Arc::new(Commits(self.tasks[task].group.clone())) as Arc<dyn GroupCommit>,
        });
        let begin = Beginning {
            position: resolved.position,
            tail_start: resolved.tail_start,
            stop_at: self.goal.as_ref().and_then(|goal| goal.all.get(&partition).copied()),
        };
        tracing::info!(job = %self.job.id, partition = %partition, position = begin.position,
            generation = lane.generation.generation, "partition begins");
        let near_end = spawn_lane(&self.shared, &lane, queue, &begin);
        self.lanes.insert(partition, Running { lane, near_end, task, troubled: false });
    }

    /// Ends a lane; what it holds and has not sent is read again by whoever comes next.
    fn close(&mut self, partition: &TopicPartition) {
        if let Some(running) = self.lanes.remove(partition) {
            running.lane.close();
            self.shared.committer.do_send(Forget(running.lane.number));
            self.status.solved(&upload_of(partition));
        }
    }

    /// What is protected, for the next process to begin with.
    fn remember(&self) -> Remember {
        Remember { job: self.job.id.clone(), topics: self.status.to_remember() }
    }

    /// A one-shot run: this partition has all that was there at the start.
    fn reached(&mut self, partition: &TopicPartition) {
        let Some(goal) = &mut self.goal else { return };
        goal.left.remove(partition);
        self.tell_if_reached();
    }

    fn tell_if_reached(&mut self) {
        if self.goal.as_ref().is_some_and(|goal| goal.left.is_empty())
            && let Some(ended) = self.ended.take()
        {
            let _ = ended.send(Ok(()));
        }
    }

    /// A one-shot run does not wait for what only an operator can mend.
    fn give_up(&mut self, why: Unresolved) {
        if self.goal.is_some()
            && let Some(ended) = self.ended.take()
        {
            let _ = ended.send(Err(why));
        }
    }
}

impl Drop for JobRunner {
    fn drop(&mut self) {
        self.status.rest();
        // Also after a panic: lanes without anybody who watches them would go on for ever.
        let partitions: Vec<_> = self.lanes.keys().cloned().collect();
        partitions.iter().for_each(|p| self.close(p));
    }
}

/// Group commits go out through the member that owns the partition.
struct Commits(Arc<GroupConsumer>);

impl GroupCommit for Commits {
    fn commit(&self, offsets: &[(TopicPartition, i64, String)]) {
        if let Err(error) = self.0.commit(offsets) {
            metrics::error("kafka", "other");
            tracing::debug!(error = %error, "group offsets not committed");
        }
    }
}

impl Actor for JobRunner {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(4096);
        self.watch(ctx);
        self.keep_groups(ctx);
        self.watch_retention(ctx);
        self.watch_sharing(ctx);
        self.tell_if_reached();
        let seen = self.shared.topics.changes().borrow().clone();
        self.take_partitions(&seen);
    }
}

/// The error kind label of a failed Kafka call.
fn kafka_kind(error: &KafkaError) -> &'static str {
    match error.kind {
        crate::kafka::Kind::Auth => "auth",
        crate::kafka::Kind::Timeout => "timeout",
        _ => "other",
    }
}

impl Handler<Resolutions> for JobRunner {
    type Result = ();

    fn handle(&mut self, Resolutions { task, results }: Resolutions, ctx: &mut Self::Context) {
        let mut resolved = Vec::new();
        let mut failed = Vec::new();
        for (partition, result) in results {
            match result {
                Ok(found) => resolved.push((partition, found)),
                Err(why) if self.owner(&partition) == Some(task) => failed.push((partition, why)),
                Err(_) => {}
            }
        }
        self.begin(task, resolved, ctx);
        for (partition, why) in failed {
            if let Unresolved::Store(error) = &why {
                metrics::error("s3", error.kind.label());
            }
            self.status.problem(&partition.to_string(), why.to_string(), why.needs_operator());
            if matches!(why, Unresolved::Foreign { .. }) && self.wait_for_go_on(&partition) {
                continue;
            }
            let attempts = self.unresolved.entry(partition.clone()).or_default();
            *attempts += 1;
            let attempt = *attempts + 2;
            if why.needs_operator() || !why.is_transient() && attempt > ONE_SHOT_ATTEMPTS + 2 {
                self.give_up(why);
            }
            self.again(task, vec![partition], attempt, ctx);
        }
    }
}

impl Handler<Drain> for JobRunner {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, Drain { stop }: Drain, _: &mut Self::Context) -> Self::Result {
        if stop {
            self.draining = true;
            if self.run.is_none() {
                // The lanes of a run end with every turn; the job goes on.
                self.status.draining();
            }
        }
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<()>();
        let done = Arc::new(AtomicUsize::new(0));
        let lanes = self.lanes.len();
        for running in self.lanes.values() {
            let (sender, done) = (sender.clone(), done.clone());
            // Whether it is run or dropped with its lane: the channel closes when the last one is gone.
            let durable = move || {
                done.fetch_add(1, Ordering::AcqRel);
                drop(sender);
            };
            running.near_end.do_send(Barrier { read_on: !stop, done: Box::new(durable) });
        }
        drop(sender);
        Box::pin(async move {
            while receiver.recv().await.is_some() {}
            done.load(Ordering::Acquire) == lanes
        })
    }
}

impl Handler<Leave> for JobRunner {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) -> Self::Result {
        self.draining = true;
        let partitions: Vec<_> = self.lanes.keys().cloned().collect();
        partitions.iter().for_each(|p| self.close(p));
        let groups: Vec<_> = self.tasks.drain(..).map(|task| task.group).collect();
        self.shared.committer.do_send(self.remember());
        let (tell, remembered) = tokio::sync::oneshot::channel();
        let done = Box::new(move || _ = tell.send(()));
        self.shared.committer.do_send(Barrier { read_on: true, done });
        ctx.stop();
        Box::pin(async move {
            // A committer that is gone remembers nothing; the next process begins with an older answer.
            let _ = remembered.await;
            // All at once: brokers that do not answer are waited for once, not once for each member.
            let close = |group: Arc<GroupConsumer>| tokio::task::spawn_blocking(move || group.close(LEAVING));
            futures_util::future::join_all(groups.into_iter().map(close)).await;
        })
    }
}
