//! A turn of a compacted topic, started by hand.

use actix::prelude::*;

use super::open::Runner;
use super::{Phase, Supervisor};
use crate::compacted::Pair;
use crate::error::{Error, Exit, Result};

/// The instances that this job runs, to start a turn of.
#[derive(Message)]
#[rtype(result = "Result<Pair>")]
pub struct Turn {
    /// The job.
    pub job: String,
}

impl Handler<Turn> for Supervisor {
    type Result = Result<Pair>;

    fn handle(&mut self, Turn { job }: Turn, _: &mut Self::Context) -> Self::Result {
        let Some(slot) = self.slots.get(&job) else { return Err(self.no_such_job(&job)) };
        if slot.job.compacted.is_none() {
            let what = format!("job {job} is not of type \"compacted\": there are no turns to take");
            return Err(Error::new(Exit::Config, what).hint("name one of the two jobs of a compacted topic"));
        }
        match &slot.phase {
            Phase::Running(open, _) => match &open.runner {
                Runner::Pair(pair) => Ok(pair.clone()),
                Runner::Lanes(_) => Err(Error::new(Exit::Busy, format!("job {job} is just changing its type"))),
            },
            _ => {
                let hint = format!("kafka-backup status --job {job} says why");
                Err(Error::new(Exit::Busy, format!("job {job} is not running")).hint(hint))
            }
        }
    }
}
