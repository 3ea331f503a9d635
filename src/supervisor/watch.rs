//! What the supervisor looks at again and again: whether its jobs are alive, and whether pauses have ended.

use std::time::Duration;

use actix::prelude::*;

use super::{Phase, Supervisor, Wanted};
use crate::clock::now_ms;
use crate::metrics;

/// How often it looks.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// A job that has run for so long has got over what ended it before.
const SOUND: Duration = Duration::from_secs(300);

/// What is wrong with a job that ends by itself.
const RESTARTS: &str = "restarts";

impl Supervisor {
    /// Begins to look.
    pub(super) fn watch(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(ALIVE_EVERY, |act, ctx| {
            act.revive(ctx);
            if act.ending.is_none() {
                act.end_pauses(ctx);
                crate::notify::status(&act.process);
            }
        });
    }

    /// Has jobs go on whose pause was for a time that has come.
    fn end_pauses(&mut self, ctx: &mut Context<Self>) {
        let now = now_ms();
        let over = |wanted: &Wanted| matches!(wanted, Wanted::Pause(paused) if paused.is_over(now));
        let ended = self.slots.iter().filter(|(_, slot)| over(&slot.wanted)).map(|(id, _)| id.clone());
        for id in ended.collect::<Vec<_>>() {
            tracing::info!(job = id, "the pause has ended");
            self.rewant(&id, ctx);
        }
    }

    /// Starts jobs again that ended by themselves: their client was of no more use, or they died. What is left of one (the
    /// other topics of a compacted job) ends before.
    fn revive(&mut self, ctx: &mut Context<Self>) {
        let mut dead = Vec::new();
        for (id, slot) in &mut self.slots {
            let Phase::Running(open, since) = &mut slot.phase else { continue };
            if open.runner.connected() {
                if slot.deaths > 0 && since.elapsed() > SOUND {
                    slot.deaths = 0;
                    open.status.solved(RESTARTS);
                }
                continue;
            }
            let why = match open.reached.as_mut().map(tokio::sync::oneshot::Receiver::try_recv) {
                Some(Ok(Err(why))) => why.to_string(),
                _ => "it died".to_owned(),
            };
            slot.deaths = slot.deaths.saturating_add(1);
            metrics::restarted(id);
            let times = if slot.deaths == 1 { String::new() } else { format!(" ({} times in a row)", slot.deaths) };
            let text = format!("the job ended{times} and is started again: {why}");
            if let Phase::Running(open, _) = std::mem::replace(&mut slot.phase, Phase::Ending) {
                dead.push((id.clone(), open, text));
            }
        }
        for (id, open, text) in dead {
            let (status, drain_timeout) = (open.status.clone(), self.drain_timeout);
            let end = async move {
                status.problem(RESTARTS, text.clone(), false);
                open.end(drain_timeout).await;
                // Whatever else was wrong was so with what has ended.
                status.reset();
                status.problem(RESTARTS, text, false);
            };
            ctx.spawn(end.into_actor(self).map(move |(), act, ctx| act.begin_anew(&id, ctx)));
        }
    }

    fn begin_anew(&mut self, id: &str, ctx: &mut Context<Self>) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.phase = Phase::Nothing;
        }
        self.settle(id, ctx);
    }
}
