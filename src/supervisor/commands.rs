//! What can be asked of the supervisor.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::{Ending, Phase, Slot, Supervisor, Wanted};
use crate::clock::now_ms;
use crate::config::Job;
use crate::error::{Error, Exit, Result};
use crate::pipeline::status::Paused;

/// These are the jobs from now on. Those that are the very same (not only equal) as before are not touched.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Swap {
    /// All of them.
    pub jobs: Vec<Arc<Job>>,
    /// Those whose changes hold without a restart.
    pub live: Vec<Arc<Job>>,
    /// How long a job that ends may take to make durable what it has read.
    pub drain_timeout: Duration,
}

impl Handler<Swap> for Supervisor {
    type Result = ();

    fn handle(&mut self, Swap { jobs, live, drain_timeout }: Swap, ctx: &mut Self::Context) {
        if self.ending.is_some() {
            return;
        }
        self.drain_timeout = drain_timeout;
        self.process.share_among(&jobs);
        self.slots.values_mut().for_each(|slot| slot.wanted = Wanted::Gone);
        for job in live {
            if let Some(Slot { phase: Phase::Running(open, _), .. }) = self.slots.get_mut(&job.id) {
                open.retune(job);
            }
        }
        for job in jobs {
            let wanted = self.intent(&job);
            match self.slots.get_mut(&job.id) {
                Some(slot) => {
                    if !Arc::ptr_eq(&slot.job, &job) {
                        slot.deaths = 0;
                    }
                    (slot.job, slot.wanted) = (job, wanted);
                }
                None => {
                    let slot = Slot { job: job.clone(), wanted, phase: Phase::Nothing, deaths: 0 };
                    self.slots.insert(job.id.clone(), slot);
                }
            }
        }
        self.settle_all(ctx);
    }
}

/// Make durable what a job has read so far. It is ordered when this is answered; the receiver tells when it is so, and
/// whether all partitions have done it.
#[derive(Message)]
#[rtype(result = "Result<oneshot::Receiver<bool>>")]
pub struct Flush {
    /// The job.
    pub job: String,
}

impl Handler<Flush> for Supervisor {
    type Result = Result<oneshot::Receiver<bool>>;

    fn handle(&mut self, Flush { job }: Flush, ctx: &mut Self::Context) -> Self::Result {
        match self.slots.get(&job).map(|slot| &slot.phase) {
            None => Err(self.no_such_job(&job)),
            Some(Phase::Running(open, _)) => {
                let (tell, told) = oneshot::channel();
                let runner = open.runner.clone();
                let tell = async move { tell.send(runner.drain(false).await) };
                ctx.spawn(tell.into_actor(self).map(|_, _, _| ()));
                Ok(told)
            }
            Some(_) => {
                let hint = format!("kafka-backup status --job {job} says why");
                Err(Error::new(Exit::Busy, format!("job {job} is not running")).hint(hint))
            }
        }
    }
}

/// Pause a job, over restarts.
#[derive(Message)]
#[rtype(result = "Result<()>")]
pub struct Pause {
    /// The job.
    pub job: String,
    /// Why, for whoever finds it paused.
    pub reason: Option<String>,
    /// When it ends by itself, in milliseconds since 1970-01-01 UTC.
    pub until_ms: Option<i64>,
}

impl Handler<Pause> for Supervisor {
    type Result = Result<()>;

    fn handle(&mut self, Pause { job, reason, until_ms }: Pause, ctx: &mut Self::Context) -> Self::Result {
        self.check_there(&job)?;
        // Paused again: since then, for another reason and another time perhaps.
        let before = self.pauses.get(&job).cloned();
        let since_ms = before.as_ref().map_or_else(now_ms, |before| before.since_ms);
        let reason = reason.or(before.and_then(|before| before.reason));
        self.pauses.set(&job, Some(Paused { since_ms, reason, by_file: false, until_ms }))?;
        self.rewant(&job, ctx);
        Ok(())
    }
}

/// End a pause.
#[derive(Message)]
#[rtype(result = "Result<()>")]
pub struct Resume {
    /// The job.
    pub job: String,
}

impl Handler<Resume> for Supervisor {
    type Result = Result<()>;

    fn handle(&mut self, Resume { job }: Resume, ctx: &mut Self::Context) -> Self::Result {
        self.check_there(&job)?;
        if let Some(slot) = self.slots.get(&job).filter(|slot| slot.job.paused) {
            let what = format!("job {job} is paused by its file: paused = true in {}", slot.job.path.display());
            return Err(Error::new(Exit::Config, what).hint("remove that line, then kafka-backup reload"));
        }
        self.pauses.set(&job, None)?;
        self.rewant(&job, ctx);
        Ok(())
    }
}

/// End all jobs within `timeout`; answers whether everything that was read is durable.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct EndAll {
    /// How long making durable may take.
    pub timeout: Duration,
}

impl Handler<EndAll> for Supervisor {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, EndAll { timeout }: EndAll, ctx: &mut Self::Context) -> Self::Result {
        let (done, ended) = oneshot::channel();
        self.ending = Some(Ending { done, drained: true });
        self.drain_timeout = timeout;
        self.slots.values_mut().for_each(|slot| slot.wanted = Wanted::Gone);
        self.settle_all(ctx);
        self.tell_if_ended();
        Box::pin(async move { ended.await.unwrap_or(false) })
    }
}

/// Answered while the supervisor turns.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ping;

impl Handler<Ping> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Self::Context) {}
}

impl Supervisor {
    fn settle_all(&mut self, ctx: &mut Context<Self>) {
        let ids: Vec<_> = self.slots.keys().cloned().collect();
        ids.iter().for_each(|id| self.settle(id, ctx));
    }

    /// Whether it is paused may have changed.
    pub(super) fn rewant(&mut self, id: &str, ctx: &mut Context<Self>) {
        let wanted = self.slots.get(id).map(|slot| slot.job.clone()).map(|job| self.intent(&job));
        if let (Some(slot), Some(wanted)) = (self.slots.get_mut(id), wanted) {
            slot.wanted = wanted;
        }
        self.settle(id, ctx);
    }

    fn check_there(&self, job: &str) -> Result<()> {
        match self.slots.get(job) {
            Some(slot) if slot.wanted != Wanted::Gone => Ok(()),
            _ => Err(self.no_such_job(job)),
        }
    }

    pub(super) fn no_such_job(&self, job: &str) -> Error {
        crate::error::no_such_job(job, self.slots.keys().map(String::as_str))
    }
}
