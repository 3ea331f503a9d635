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
//!
//! While uploads fail, what is closed is copied to disk ([`super::kept`]): it may be what Kafka does not have any more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use actix::prelude::*;

use super::committer::Committer;
use super::generations::{Forks, Standing};
use super::kept::{self, KeptObject};
use super::lane::{Lane, LaneGuard, LaneNews};
use super::message::{Barrier, Copy, Durable, Sealed};
use super::shared::{MAILBOX, Shared, stop_when_closed};
use super::spool::Spool;
use super::topics::{Sight, TopicWatch};
use crate::backoff::Backoff;
use crate::clock::{boot_time, now_ms};
use crate::config::Retention;
use crate::metrics;
use crate::model::chain::{Claim, Taken, taken};
use crate::model::lifecycle::head::sleeper_ms;
use crate::model::object::ObjectMeta;
use crate::pipeline::expiry::day_ms;
use crate::storage::{Create, Kind, Store, StoreError};

/// An object that has waited for so long while uploads fail is copied to disk.
const KEPT_AFTER: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };
/// "Taken", but nothing there: so often in a row, then it is trouble of its own.
const GHOSTS: u32 = 3;

/// What the uploads of one lane need; shared with the future that does them.
struct Upload {
    lane: Arc<Lane>,
    store: Arc<dyn Store>,
    topics: Arc<TopicWatch>,
    forks: Arc<Forks>,
    spool: Arc<Spool>,
    /// Uploads of this lane fail.
    troubled: AtomicBool,
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
    Sealed(Arc<Sealed>),
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
    pub fn new(lane: &Arc<Lane>, tail_start: Option<i64>, shared: &Shared) -> Self {
        let upload = Arc::new(Upload {
            lane: lane.clone(),
            store: shared.store.clone(),
            topics: shared.topics.clone(),
            forks: shared.forks.clone(),
            spool: shared.spool.clone(),
            troubled: AtomicBool::new(false),
        });
        let _guard = lane.guard("uploader");
        let committer = shared.committer.clone();
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
                        act.done(&sealed, outcome);
                        act.pump(ctx);
                    }));
                }
            }
        }
    }

    fn done(&mut self, sealed: &Sealed, outcome: Outcome) {
        let lane = &self.upload.lane;
        match outcome {
            Outcome::Abandoned => self.ended = true,
            Outcome::Ended(news) => {
                self.ended = true;
                lane.report(news);
            }
            Outcome::Durable => {
                let meta = &sealed.meta;
                sealed.stored();
                self.tail_start = Some(meta.range_start);
                if lane.run.is_empty() {
                    lane.progress.stored(now_ms(), meta.leader_epoch);
                }
                if meta.at_eof {
                    lane.progress.closed_at_end(meta.next_offset);
                }
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
        let (mut backoff, mut ghosts) = (Backoff::default(), 0);
        loop {
            let why = match self.attempt(sealed, tail_start).await {
                Ok(Attempt::Ended(news)) => return self.finish(Outcome::Ended(news)),
                Ok(Attempt::Made(Create::Created)) => None,
                Ok(Attempt::Made(Create::Exists)) => match self.look(sealed).await {
                    Ok(Some(outcome)) => return self.finish(outcome),
                    Ok(None) => {
                        ghosts += 1;
                        let text = || format!("{} is taken, but nothing is there", sealed.key);
                        Some(if ghosts >= GHOSTS { text() } else { String::new() })
                    }
                    Err(error) => Some(self.failed(&error)),
                },
                Err(_) if sealed.spool.as_ref().is_some_and(|spool| !spool.path().exists()) => {
                    let why = "the spool file of an object is gone".to_owned();
                    return self.finish(Outcome::Ended(LaneNews::Failed { why }));
                }
                Err(error) => Some(self.failed(&error)),
            };
            let Some(why) = why else { return self.finish(Outcome::Durable) };
            if !why.is_empty() {
                self.troubled.store(true, Ordering::Relaxed);
                self.lane.report(LaneNews::Trouble { why });
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    fn finish(&self, outcome: Outcome) -> Outcome {
        if self.troubled.swap(false, Ordering::Relaxed) {
            self.lane.report(LaneNews::Relieved);
        }
        outcome
    }

    /// Copies the object to disk when uploads fail for long, unless it is stored before. Holds nothing of it meanwhile.
    async fn keep(self: Arc<Self>, sealed: Weak<Sealed>) {
        // A run of a compacted topic is read again: Kafka keeps what is live.
        while self.lane.run.is_empty() {
            tokio::time::sleep(KEPT_AFTER).await;
            let Some(fetched) = sealed.upgrade().map(|sealed| sealed.fetched) else { return };
            if !self.troubled.load(Ordering::Relaxed) {
                continue;
            }
            // It must be this topic's, whatever becomes of the topic until the copy is asked for.
            if self.is_another(&self.topics.sight_after(&self.lane.partition.topic, fetched).await) {
                return;
            }
            let Some(object) = sealed.upgrade() else { return };
            let (spool, copied) = (self.spool.clone(), object.clone());
            let copy = move || kept::keep(&spool, &copied.meta, &copied.body);
            match tokio::task::spawn_blocking(copy).await {
                Ok(Ok(copy)) => {
                    tracing::info!(job = %self.lane.job.id, path = %copy.path().display(), key = %object.key,
                        "the bucket does not take this object; it is kept on disk");
                    return object.kept(copy);
                }
                Ok(Err(error)) if self.spool.is_news() => {
                    metrics::error("state", "disk");
                    tracing::warn!(job = %self.lane.job.id, key = %object.key, error = %error,
                        "an object that the bucket does not take cannot be kept on disk");
                }
                Ok(Err(_)) => {}
                Err(_) => return, // the process ends
            }
        }
    }

    fn is_another(&self, sight: &Sight) -> bool {
        let expected = &self.lane.generation.topic_id;
        matches!(sight, Sight::There { id: Some(id), .. } if !expected.is_empty() && id != expected)
    }

    fn failed(&self, error: &StoreError) -> String {
        metrics::error("s3", error.kind.label());
        // A store that was away may have come back as another one.
        self.forks.forget(&self.lane.partition.topic);
        if error.kind == Kind::Conflict {
            return String::new();
        }
        tracing::warn!(job = %self.lane.job.id, partition = %self.lane.partition, error = %error, "upload failed, trying again");
        error.to_string()
    }

    /// Looks whether the object may be sent, and sends it.
    async fn attempt(&self, sealed: &Sealed, tail_start: Option<i64>) -> Result<Attempt, StoreError> {
        let (lane, topic) = (&self.lane, &self.lane.partition.topic);
        if self.is_another(&self.topics.sight_after(topic, sealed.fetched).await) {
            return Ok(Attempt::Ended(LaneNews::Recreated));
        }
        if lane.run.is_empty() {
            match self.forks.look(&*self.store, &lane.generation).await? {
                Standing::Newest => {}
                Standing::Superseded => return Ok(Attempt::Ended(LaneNews::Superseded)),
                Standing::Gone => return Ok(Attempt::Ended(LaneNews::GenerationGone)),
            }
        }
        // An object that waited for long looks at the tail again: the names before it may have expired while the machine
        // slept.
        let days = match lane.job.retention {
            Retention::Days(days) => Some(days),
            Retention::Keep | Retention::Topic => None,
        };
        let sleeper = Duration::from_millis(sleeper_ms(days, day_ms()).unsigned_abs());
        if let Some(before) = tail_start.filter(|_| boot_time().saturating_sub(sealed.born) > sleeper)
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
            run: &self.lane.run,
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

impl Sealed {
    /// There is a copy on disk now.
    fn kept(&self, kept: KeptObject) {
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        match *copy {
            Copy::Needless => kept.discard(),
            Copy::None | Copy::Kept(_) => *copy = Copy::Kept(kept),
        }
    }

    /// The bucket has it.
    fn stored(&self) {
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Copy::Kept(kept) = std::mem::replace(&mut *copy, Copy::Needless) {
            kept.discard();
        }
    }
}

impl Actor for Uploader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        let lane = self.upload.lane.clone();
        stop_when_closed(&lane, self, ctx);
    }
}

impl Handler<Sealed> for Uploader {
    type Result = ();

    fn handle(&mut self, sealed: Sealed, ctx: &mut Self::Context) {
        let sealed = Arc::new(sealed);
        ctx.spawn(self.upload.clone().keep(Arc::downgrade(&sealed)).into_actor(self));
        self.queue.push_back(Work::Sealed(sealed));
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
