//! Creates objects, one at a time: the next one is sent when the one before is acknowledged, which is what makes the
//! largest name the tail of the list.
//!
//! Every outcome has a name. Acknowledged, or "taken" by this very attempt: durable. Taken by another writer of the
//! list: the lane begins anew behind it. Taken by something foreign: the lane stops and says so. Anything else: visible
//! trouble, and again after a while, for as long as the lane owns the partition.
//!
//! An object is sent only after an observation of its topic's id that is newer than its last fetch: otherwise records
//! of a topic that was deleted and created again under the same name would go into the old topic's list. A topic that is
//! gone by then is no obstacle: what was read of it may be the last copy.
//!
//! And it is sent only into the newest generation: another process may have begun one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::committer::Committer;
use super::generation::Forks;
use super::lane::{Lane, LaneGuard, LaneNews};
use super::message::{Barrier, Durable, Sealed};
use super::open_object::boot_time;
use super::topics::{Sight, TopicWatch};
use crate::metrics;
use crate::model::chain::{Claim, Taken, taken};
use crate::model::object::ObjectMeta;
use crate::storage::retry::Backoff;
use crate::storage::{Create, Kind, Store, StoreError};

/// An object that waited longer than this looks at the tail again before it is sent: the names before it may have
/// expired while the machine slept.
const SLEEPER: Duration = Duration::from_secs(3600);
/// "Taken", but nothing there: so often in a row, then it is trouble of its own.
const GHOSTS: u32 = 3;

/// What the uploads of one lane need; shared with the future that does them.
struct Upload {
    lane: Arc<Lane>,
    store: Arc<dyn Store>,
    topics: Arc<TopicWatch>,
    forks: Arc<Forks>,
}

/// How an upload ended.
enum Outcome {
    Durable,
    Ended(LaneNews),
    /// The lane was closed meanwhile; nobody wants to know.
    Abandoned,
}

/// How one attempt ended that did not fail.
enum Attempt {
    /// The request was made.
    Made(Create),
    /// It must not be made.
    Ended(LaneNews),
}

enum Work {
    Sealed(Box<Sealed>),
    Barrier(Barrier),
}

/// The uploader of one lane.
pub struct Uploader {
    upload: Arc<Upload>,
    committer: Addr<Committer>,
    /// Where the range of the last durable object starts: its name.
    tail_start: Option<i64>,
    queue: VecDeque<Work>,
    busy: bool,
    ended: bool,
    _guard: LaneGuard,
}

impl Uploader {
    /// An uploader behind the object that starts at `tail_start`.
    pub fn new(
        lane: &Arc<Lane>,
        tail_start: Option<i64>,
        store: Arc<dyn Store>,
        topics: Arc<TopicWatch>,
        forks: Arc<Forks>,
        committer: Addr<Committer>,
    ) -> Self {
        let upload = Arc::new(Upload { lane: lane.clone(), store, topics, forks });
        let _guard = lane.guard("uploader");
        Self { upload, committer, tail_start, queue: VecDeque::new(), busy: false, ended: false, _guard }
    }

    fn pump(&mut self, ctx: &mut Context<Self>) {
        while !self.busy && !self.ended {
            match self.queue.pop_front() {
                None => return,
                Some(Work::Barrier(barrier)) => self.committer.do_send(barrier),
                Some(Work::Sealed(sealed)) => {
                    self.busy = true;
                    let (upload, tail_start) = (self.upload.clone(), self.tail_start);
                    let work = async move {
                        let outcome = upload.run(&sealed, tail_start).await;
                        (sealed, outcome)
                    };
                    ctx.spawn(work.into_actor(self).map(|(sealed, outcome), act, ctx| {
                        act.busy = false;
                        act.done(*sealed, outcome);
                        act.pump(ctx);
                    }));
                }
            }
        }
    }

    fn done(&mut self, sealed: Sealed, outcome: Outcome) {
        let lane = &self.upload.lane;
        match outcome {
            Outcome::Abandoned => self.ended = true,
            Outcome::Ended(news) => {
                self.ended = true;
                lane.report(news);
            }
            Outcome::Durable => {
                let meta = &sealed.meta;
                self.tail_start = Some(meta.range_start);
                lane.progress.durable(meta.next_offset, meta.records, meta.timestamps.map(|(_, max)| max));
                lane.counters.records.inc_by(meta.records);
                lane.counters.stored_bytes.inc_by(sealed.body.len());
                tracing::info!(job = %lane.job.id, key = %sealed.key, records = meta.records, bytes = sealed.body.len(), "object stored");
                self.committer.do_send(Durable {
                    lane: lane.clone(),
                    tail_start: meta.range_start,
                    next_offset: meta.next_offset,
                    leader_epoch: meta.leader_epoch,
                    closed: sealed.closed,
                });
            }
        }
    }
}

impl Upload {
    /// Creates the object, whatever it takes, while the lane is open.
    async fn run(&self, sealed: &Sealed, tail_start: Option<i64>) -> Outcome {
        tokio::select! {
            outcome = self.attempts(sealed, tail_start) => outcome,
            () = self.lane.until_closed() => Outcome::Abandoned,
        }
    }

    async fn attempts(&self, sealed: &Sealed, tail_start: Option<i64>) -> Outcome {
        let (mut backoff, mut ghosts, mut troubled) = (Backoff::default(), 0, false);
        loop {
            let why = match self.attempt(sealed, tail_start).await {
                Ok(Attempt::Ended(news)) => return self.finish(Outcome::Ended(news), troubled),
                Ok(Attempt::Made(Create::Created)) => None,
                Ok(Attempt::Made(Create::Exists)) => match self.look(sealed).await {
                    Ok(Some(outcome)) => return self.finish(outcome, troubled),
                    Ok(None) => {
                        ghosts += 1;
                        let text = || format!("{} is taken, but nothing is there", sealed.key);
                        Some(if ghosts >= GHOSTS { text() } else { String::new() })
                    }
                    Err(error) => Some(self.failed(&error)),
                },
                Err(_) if sealed.spool.as_ref().is_some_and(|spool| !spool.path().exists()) => {
                    let why = "the spool file of an object is gone".to_owned();
                    return self.finish(Outcome::Ended(LaneNews::Failed { why }), troubled);
                }
                Err(error) => Some(self.failed(&error)),
            };
            let Some(why) = why else { return self.finish(Outcome::Durable, troubled) };
            if !why.is_empty() {
                troubled = true;
                self.lane.report(LaneNews::Trouble { why });
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    fn finish(&self, outcome: Outcome, troubled: bool) -> Outcome {
        if troubled {
            self.lane.report(LaneNews::Relieved);
        }
        outcome
    }

    fn failed(&self, error: &StoreError) -> String {
        metrics::error("s3", metrics::store_kind(error.kind));
        if error.kind == Kind::Conflict {
            return String::new();
        }
        tracing::warn!(job = %self.lane.job.id, partition = %self.lane.partition, error = %error, "upload failed, trying again");
        error.to_string()
    }

    /// Looks whether the object may be sent, and sends it.
    async fn attempt(&self, sealed: &Sealed, tail_start: Option<i64>) -> Result<Attempt, StoreError> {
        let (lane, topic) = (&self.lane, &self.lane.partition.topic);
        let expected = &lane.generation.topic_id;
        match self.topics.sight_after(topic, sealed.fetched).await {
            Sight::There { id: Some(id), .. } if !expected.is_empty() && id != *expected => {
                return Ok(Attempt::Ended(LaneNews::Recreated));
            }
            Sight::There { .. } | Sight::Gone => {}
        }
        if self.forks.superseded(&*self.store, topic, lane.generation.generation).await? {
            return Ok(Attempt::Ended(LaneNews::Superseded));
        }
        if let Some(before) = tail_start.filter(|_| boot_time().saturating_sub(sealed.born) > SLEEPER)
            && self.store.head(&lane.path.object(before)).await?.is_none()
        {
            return Ok(Attempt::Ended(LaneNews::TailGone));
        }
        Ok(Attempt::Made(self.store.create(&sealed.key, &sealed.body, &sealed.metadata).await?))
    }

    /// The name is taken: by whom?
    async fn look(&self, sealed: &Sealed) -> Result<Option<Outcome>, StoreError> {
        let Some(head) = self.store.head(&sealed.key).await? else { return Ok(None) };
        let claim = Claim {
            generation: &self.lane.generation.uuid,
            run: "",
            nonce: &sealed.meta.nonce,
            range_start: sealed.meta.range_start,
        };
        Ok(Some(match taken(&claim, &ObjectMeta::from_metadata(&head.metadata)) {
            Taken::Mine => Outcome::Durable,
            Taken::Adopt { next_offset } => Outcome::Ended(LaneNews::Adopted { next_offset }),
            Taken::Foreign { why } => Outcome::Ended(LaneNews::Foreign { key: sealed.key.clone(), why }),
        }))
    }
}

impl Actor for Uploader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        let lane = self.upload.lane.clone();
        super::stop_when_closed(&lane, self, ctx);
    }
}

impl Handler<Sealed> for Uploader {
    type Result = ();

    fn handle(&mut self, sealed: Sealed, ctx: &mut Self::Context) {
        self.queue.push_back(Work::Sealed(Box::new(sealed)));
        self.pump(ctx);
    }
}

impl Handler<Barrier> for Uploader {
    type Result = ();

    fn handle(&mut self, barrier: Barrier, ctx: &mut Self::Context) {
        self.queue.push_back(Work::Barrier(barrier));
        self.pump(ctx);
    }
}
