//! The actor that starts the jobs of a daemon, starts them again, and ends them.
//!
//! Whatever is asked for (a reload, a pause, the end) only changes what is *wanted* of a job; [`model::slot`] says the
//! next step towards it. So a job is never started while its predecessor still holds anything.
//!
//! [`model::slot`]: crate::model::slot

mod admission;
mod commands;
mod open;
mod pauses;
#[cfg(test)]
pub(crate) mod tests;
mod turn;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

pub use self::commands::{EndAll, Flush, Pause, Ping, Resume, Swap};
pub use self::open::{OpenJob, Runner};
use self::pauses::Pauses;
pub use self::turn::Turn;
use crate::backoff::Backoff;
use crate::clock::now_ms;
use crate::config::{Config, Job};
use crate::error::{Exit, Result};
use crate::model::slot::{self, Doing, Step, restart_wait};
use crate::pipeline::status::Paused;
use crate::process::Process;

/// What is wanted of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Run,
    Pause(Paused),
    Gone,
}

/// What a job is doing.
enum Phase {
    Nothing,
    Starting(Arc<Job>, SpawnHandle),
    Running(Box<OpenJob>, Instant),
    Ending,
}

/// One job.
struct Slot {
    /// Its newest definition.
    job: Arc<Job>,
    wanted: Wanted,
    phase: Phase,
    /// How often in a row it has ended by itself.
    deaths: u32,
}

impl Slot {
    fn step(&self) -> Step {
        let (doing, with) = match &self.phase {
            Phase::Nothing => (Doing::Nothing, None),
            Phase::Starting(job, _) => (Doing::Starting, Some(job)),
            Phase::Running(open, _) => (Doing::Running, Some(&open.job)),
            Phase::Ending => (Doing::Ending, None),
        };
        let wanted = match self.wanted {
            Wanted::Run => slot::Wanted::Run { same: with.is_some_and(|with| Arc::ptr_eq(with, &self.job)) },
            Wanted::Pause(_) => slot::Wanted::Pause,
            Wanted::Gone => slot::Wanted::Gone,
        };
        slot::next(doing, wanted)
    }
}

/// Starts the jobs of a daemon, again and again where that fails or where one ends, and ends them.
pub struct Supervisor {
    process: Process,
    slots: BTreeMap<String, Slot>,
    pauses: Pauses,
    drain_timeout: Duration,
    /// Told when the last job has ended, with whether everything that was read is durable.
    ending: Option<Ending>,
}

struct Ending {
    done: oneshot::Sender<bool>,
    drained: bool,
}

impl Supervisor {
    /// A supervisor without jobs as yet.
    ///
    /// # Errors
    /// It is not known which jobs are paused.
    pub fn new(process: Process, config: &Config) -> Result<Self> {
        let pauses = Pauses::open(&config.state_dir)?;
        Ok(Self { process, slots: BTreeMap::new(), pauses, drain_timeout: config.drain_timeout, ending: None })
    }

    /// Takes the next steps towards what is wanted of `id`, as far as they can be taken now.
    fn settle(&mut self, id: &str, ctx: &mut Context<Self>) {
        while let Some(slot) = self.slots.get_mut(id) {
            match slot.step() {
                Step::Wait => return,
                Step::Start => return self.start(id, ctx),
                Step::GiveUp => {
                    if let Phase::Starting(_, task) = std::mem::replace(&mut slot.phase, Phase::Nothing) {
                        ctx.cancel_future(task);
                    }
                }
                Step::End => return self.end(id, ctx),
                Step::Rest => {
                    if let Wanted::Pause(paused) = &slot.wanted {
                        self.process.status(&slot.job).pause(paused.clone());
                    }
                    return;
                }
                Step::Forget => {
                    self.slots.remove(id);
                    self.process.forget(id);
                    tracing::info!(job = id, "job removed; what it has backed up stays");
                }
            }
        }
        self.tell_if_ended();
    }

    fn start(&mut self, id: &str, ctx: &mut Context<Self>) {
        let Some((job, deaths)) = self.slots.get(id).map(|slot| (slot.job.clone(), slot.deaths)) else { return };
        let (process, with) = (self.process.clone(), job.clone());
        let status = process.status(&job);
        status.begin();
        let wait = restart_wait(deaths);
        let open = async move {
            tokio::time::sleep(wait).await;
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            loop {
                match process.open(&job, false).await {
                    Ok(open) => return open,
                    Err(error) => {
                        let needs_operator = matches!(error.exit, Exit::Config | Exit::Auth);
                        status.problem("start", error.to_string(), needs_operator);
                    }
                }
                tokio::time::sleep(backoff.wait()).await;
            }
        };
        let task = ctx.spawn(open.into_actor(self).map(|open, act, ctx| act.opened(open, ctx)));
        if let Some(slot) = self.slots.get_mut(id) {
            slot.phase = Phase::Starting(with, task);
        }
    }

    fn opened(&mut self, open: OpenJob, ctx: &mut Context<Self>) {
        let id = open.job.id.clone();
        // What is not wanted any more was cancelled, so there is a slot that waits for this.
        if let Some(slot) = self.slots.get_mut(&id) {
            tracing::info!(job = %id, "job started");
            slot.phase = Phase::Running(Box::new(open), Instant::now());
        }
        self.settle(&id, ctx);
    }

    /// Has a running job drained and ended.
    fn end(&mut self, id: &str, ctx: &mut Context<Self>) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Phase::Running(open, _) = std::mem::replace(&mut slot.phase, Phase::Ending) else { return };
        open.status.draining();
        let (id, timeout) = (id.to_owned(), self.drain_timeout);
        let end = open.end(timeout).into_actor(self);
        ctx.spawn(end.map(move |drained, act, ctx| act.ended(&id, drained, ctx)));
    }

    fn ended(&mut self, id: &str, drained: bool, ctx: &mut Context<Self>) {
        if drained {
            tracing::info!(job = id, "job ended, everything it had read is durable");
        } else {
            tracing::warn!(job = id, "job ended before everything it had read was durable; that is read again");
        }
        if let Some(ending) = &mut self.ending {
            ending.drained &= drained;
        }
        if let Some(slot) = self.slots.get_mut(id) {
            slot.phase = Phase::Nothing;
        }
        self.settle(id, ctx);
    }

    fn tell_if_ended(&mut self) {
        if self.slots.is_empty()
            && let Some(ending) = self.ending.take()
        {
            let _ = ending.done.send(ending.drained);
        }
    }

    /// What is wanted of `job` besides that it is there. Since when a file pauses it is kept, too.
    fn intent(&mut self, job: &Job) -> Wanted {
        let now = now_ms();
        let by_file = Paused { since_ms: now, reason: None, by_file: true, until_ms: None };
        let kept = self.pauses.get(&job.id).cloned();
        let paused = match (&kept, job.paused) {
            (Some(paused), true) => Some(Paused { by_file: true, until_ms: None, ..paused.clone() }),
            (Some(paused), false) if !paused.by_file && !paused.is_over(now) => Some(paused.clone()),
            (None, true) => Some(by_file),
            _ => None,
        };
        if paused != kept
            && let Err(error) = self.pauses.set(&job.id, paused.clone())
        {
            tracing::warn!(job = %job.id, error = %error, "since when the job is paused will be forgotten");
        }
        paused.map_or(Wanted::Run, Wanted::Pause)
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.watch(ctx);
    }
}
