//! Jobs that die, on demand.

use actix::prelude::*;

use super::{Phase, Runner, Supervisor};
use crate::pipeline::job::JobRunner;

/// What runs the job panics.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Kill(pub &'static str);

#[derive(Message)]
#[rtype(result = "()")]
struct Panic;

impl Handler<Panic> for JobRunner {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("asked to");
    }
}

impl Handler<Kill> for Supervisor {
    type Result = ();

    fn handle(&mut self, Kill(job): Kill, _: &mut Self::Context) {
        let phase = self.slots.get(job).map(|slot| &slot.phase);
        let Some(Phase::Running(open, _)) = phase else { panic!("{job} does not run") };
        let Runner::Lanes(runner) = &open.runner else { panic!("{job} has no lanes of its own") };
        runner.do_send(Panic);
    }
}
