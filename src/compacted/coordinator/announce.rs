//! What a coordinator tells others: its state on the coordination topic, and marks on TERMs. Both are tried again with every
//! tick until they are done.

use actix::prelude::*;

use super::Coordinator;
use crate::clock::now_ms;
use crate::compacted::effects::Trouble;
use crate::kafka::Kind;
use crate::model::compacted::State;
use crate::model::compacted::record::{COMPACTED_FORMAT_VERSION, TaintMark};

/// After so many failed writes in a row the client of the coordination topic is made anew.
const FAILED_WRITES: u32 = 3;

#[derive(Message)]
#[rtype(result = "()")]
struct Spoken(Result<(), Trouble>);

#[derive(Message)]
#[rtype(result = "()")]
struct Marked(Result<(), Trouble>);

impl Coordinator {
    /// Announces the newest state; one write at a time.
    pub(super) fn speak(&mut self, ctx: &Context<Self>) {
        if self.coordination.as_ref().is_some_and(|coordination| coordination.is_stuck()) {
            self.renew(ctx);
        }
        if self.saying || self.coordination.is_none() {
            return;
        }
        let Some(said) = self.to_say.take() else { return };
        self.saying = true;
        self.report.now.announced_offsets = said.next.values().sum();
        let (addr, hands) = (ctx.address(), self.hands());
        self.parts.process.io().spawn(async move {
            let spoken = hands.publish(&said).await;
            addr.do_send(Spoken(spoken));
        });
    }

    /// Has the client of the coordination topic made anew.
    fn renew(&mut self, ctx: &Context<Self>) {
        if self.coordination.take().is_some() {
            // The topic may be gone: opening creates it again.
            self.open(ctx);
        }
    }

    /// Marks a TERM tainted, until that is done.
    pub(super) fn mark(&mut self, ctx: &Context<Self>) {
        let Some(term) = self.to_mark.filter(|_| !self.marking) else { return };
        self.marking = true;
        let (addr, bucket) = (ctx.address(), self.bucket.clone());
        let topic = self.parts.topic.clone();
        let mark = TaintMark { format_version: COMPACTED_FORMAT_VERSION, term, topic, marked_ms: now_ms() };
        self.parts.process.io().spawn(async move {
            let marked = bucket.mark_tainted(&mark).await;
            addr.do_send(Marked(marked.map_err(Trouble::from)));
        });
    }
}

impl Handler<Spoken> for Coordinator {
    type Result = ();

    fn handle(&mut self, Spoken(spoken): Spoken, ctx: &mut Self::Context) {
        self.saying = false;
        if self.deletions.over() {
            return;
        }
        match spoken {
            Ok(()) => {
                self.failed_writes = 0;
                self.report.trouble("coordination", None, false);
            }
            Err(why) if why.is_fenced() => self.fenced(),
            Err(why) => {
                crate::metrics::error("compacted", "coordination");
                self.report.trouble("coordination", Some(why.to_string()), false);
                self.failed_writes += 1;
                if self.to_say.is_none() {
                    self.to_say = self.state.as_ref().map(State::message);
                }
                let gone = matches!(&why, Trouble::Kafka(error) if error.kind == Kind::UnknownTopic);
                if gone || self.failed_writes >= FAILED_WRITES {
                    self.renew(ctx);
                }
            }
        }
    }
}

impl Handler<Marked> for Coordinator {
    type Result = ();

    fn handle(&mut self, Marked(marked): Marked, _: &mut Self::Context) {
        self.marking = false;
        match marked {
            Ok(()) => {
                self.to_mark = None;
                self.report.trouble("mark", None, false);
            }
            Err(why) => self.report.trouble("mark", Some(why.to_string()), false),
        }
    }
}
