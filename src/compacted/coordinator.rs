//! The coordinator of one instance of one topic: an actor that feeds the state machine and does what it asks for.
//!
//! Requests run on the I/O runtime and come back as messages, so that the actor always has time for the next event. What
//! has no answer (announce, mark, follow) is kept until it is done and tried again with every tick.

mod announce;
mod conditions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::bucket::Bucket;
use super::deletions::Deletions;
use super::effects::{Hands, Outcome, Trouble, term_text};
use super::lanes::{LaneParts, Lanes};
use super::now::now;
use super::report::Report;
use super::topic;
use crate::clock::now_ms;
use crate::config::CompactedJob;
use crate::kafka::coordination::{Coordination, CoordinationEvent};
use crate::model::compacted::{
    Effect, Event, Message as Said, MessageKey, Name, NextScan, Offsets, Phase, Settings, State, Status, step,
};
use crate::pipeline::job::of_run::HowFar;
use crate::pipeline::job::{Drain, Leave};

/// How often the machine is woken, and the lanes are asked how far they are; more often where turns are short.
const TICK: Duration = Duration::from_secs(1);
const SHORT_TICK: Duration = Duration::from_millis(250);
/// Turns are short when they, or the patience with the partner, are.
const SHORT: Duration = Duration::from_secs(120);

/// What a coordinator is made of.
pub(super) struct Parts {
    pub lanes: LaneParts,
    pub one: CompactedJob,
    pub settings: Arc<Settings>,
    pub key: MessageKey,
    /// Those of the job, of which this one's is one.
    pub topics: Arc<BTreeSet<String>>,
}

/// The coordinator of one instance of one topic.
pub struct Coordinator {
    parts: LaneParts,
    one: CompactedJob,
    settings: Arc<Settings>,
    key: MessageKey,
    topics: Arc<BTreeSet<String>>,
    instance: Name,
    bucket: Arc<Bucket>,
    /// Over when the coordinator is: it stops, leaves, or was fenced.
    deletions: Arc<Deletions>,
    coordination: Option<Arc<Coordination>>,
    /// `None` until the coordination topic was read to its end, and after the instance was fenced.
    state: Option<State>,
    /// What was read of the coordination topic before the machine began, by instance, and when it was written.
    read: BTreeMap<String, (Said, Option<i64>)>,
    lanes: Option<Lanes>,
    /// The run whose lanes are to run: they are made anew when they die.
    follow: Option<Name>,
    /// What is to be announced.
    to_say: Option<Said>,
    saying: bool,
    failed_writes: u32,
    /// A TERM that is to be marked tainted.
    to_mark: Option<u64>,
    marking: bool,
    /// The smallest since the run began.
    delete_retention_ms: Option<i64>,
    /// As it was read last.
    delete_retention_now_ms: Option<i64>,
    began: Instant,
    settings_asked: Option<Instant>,
    scan_began: Option<i64>,
    report: Report,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Happened(Event);

/// A request has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Done {
    what: &'static str,
    outcome: Outcome,
}

/// A request, or something without an answer, failed.
#[derive(Message)]
#[rtype(result = "()")]
struct Failed {
    what: &'static str,
    why: Trouble,
    /// It was a request: the machine waits for its end.
    request: bool,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Opened(Result<Coordination, Trouble>);

#[derive(Message)]
#[rtype(result = "()")]
struct FromTopic(CoordinationEvent);

#[derive(Message)]
#[rtype(result = "()")]
struct Asked(BTreeMap<i32, HowFar>);

/// Start a turn by hand; the answer is who scans next, and the highest valid TERM until then.
#[derive(Message)]
#[rtype(result = "Result<(NextScan, u64), String>")]
pub struct Swap;

impl Coordinator {
    /// A coordinator of these parts.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { lanes, one, settings, key, topics } = parts;
        let instance = settings.instance.clone();
        let bucket = Arc::new(Bucket::new(lanes.store.clone(), &lanes.topic, Some(instance.clone())));
        let report = Report::new(lanes.status.clone(), &lanes.topic, &instance, settings.length_ms);
        Self {
            parts: lanes,
            one,
            settings,
            key,
            topics,
            instance,
            bucket,
            deletions: Arc::default(),
            coordination: None,
            state: None,
            read: BTreeMap::new(),
            lanes: None,
            follow: None,
            to_say: None,
            saying: false,
            failed_writes: 0,
            to_mark: None,
            marking: false,
            delete_retention_ms: None,
            delete_retention_now_ms: None,
            began: Instant::now(),
            settings_asked: None,
            scan_began: None,
            report,
        }
    }

    fn hands(&self) -> Hands {
        Hands {
            parts: self.parts.clone(),
            bucket: self.bucket.clone(),
            coordination: self.coordination.clone(),
            key: self.key.clone(),
            instance: self.instance.clone(),
            deletions: self.deletions.clone(),
            topics: self.topics.clone(),
        }
    }

    /// Does `work` on the I/O runtime and brings its event back.
    fn request(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<impl Into<Outcome>, Trouble>> + Send + 'static,
        ctx: &Context<Self>,
    ) {
        let addr = ctx.address();
        self.parts.process.io().spawn(async move {
            match work.await {
                Ok(outcome) => addr.do_send(Done { what, outcome: outcome.into() }),
                Err(why) => addr.do_send(Failed { what, why, request: true }),
            }
        });
    }

    /// Connects to the coordination topic, which fences an earlier process of this instance.
    fn open(&self, ctx: &Context<Self>) {
        let (addr, kafka) = (ctx.address(), self.one.coordination_kafka.clone());
        let (job, one, key) = (self.parts.job.clone(), self.one.clone(), self.key.clone());
        self.parts.process.io().spawn(async move {
            let listener = addr.clone();
            let on_event = Box::new(move |event| listener.do_send(FromTopic(event)));
            let id = transactional_id(&key);
            let opened = match topic::ensure(&job, &one).await {
                Err(error) => Err(Trouble::Other(error.to_string())),
                Ok(()) => {
                    Coordination::open(&kafka, &one.coordination_topic, &id, on_event).await.map_err(Trouble::Kafka)
                }
            };
            addr.do_send(Opened(opened));
        });
    }

    /// Feeds the machine, and does what it wants done.
    fn happen(&mut self, event: Event, ctx: &mut Context<Self>) {
        let Some(state) = self.state.take() else { return };
        let (state, effects) = step(state, event, now());
        self.state = Some(state);
        for effect in effects {
            self.act(effect, ctx);
        }
        self.attend();
        self.show();
    }

    fn act(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        let hands = self.hands();
        match effect {
            Effect::Look { fresh } => self.request("bucket", async move { hands.look(fresh).await }, ctx),
            Effect::CreateRun { number, after_term } => {
                self.delete_retention_ms = None;
                self.settings_asked = None;
                let state = self.said();
                self.request("run", async move { hands.create_run(number, after_term, &state).await }, ctx);
            }
            Effect::CreateTerm { number, claim } => {
                let state = self.said();
                let stored = self.lanes.as_ref().map_or_else(Offsets::new, Lanes::stored);
                let work = async move { hands.create_term(number, claim, &state, &stored).await };
                self.request("TERM", work, ctx);
            }
            Effect::Delete { keep, good_until_boot_ms } => {
                let state = self.said();
                self.request("deletion", async move { hands.delete(keep, good_until_boot_ms, &state).await }, ctx);
            }
            Effect::Stop => self.stop(ctx),
            Effect::Follow { run } => {
                self.follow = Some(run);
                self.run_lanes(true, ctx);
            }
            Effect::Publish(said) => {
                self.to_say = Some(said);
                self.speak(ctx);
            }
            Effect::MarkTainted { number } => {
                self.to_mark = Some(number);
                self.mark(ctx);
            }
            Effect::Say(notice) => {
                use crate::model::compacted::Notice;
                match notice {
                    Notice::ScanBegan { .. } => self.scan_began = Some(now_ms()),
                    Notice::TookOver { term } => {
                        let took = self.scan_began.take().map(|began| (now_ms() - began) as f64 / 1000.0);
                        let took =
                            took.or(self.report.now.last_scan_seconds).or_else(|| self.bucket.scan_seconds(term));
                        self.report.now.last_scan_seconds = took;
                        self.warn_of_short_retention();
                    }
                    _ => {}
                }
                self.report.say(&notice);
            }
        }
    }

    /// What it says of itself now.
    fn said(&self) -> Said {
        let said = self.state.as_ref().map(State::message);
        said.or_else(|| self.to_say.clone()).unwrap_or_else(|| unreachable!("only a machine that runs makes requests"))
    }

    /// Sees to it that the lanes of the run that is followed run; `go_on`: also those that wait.
    fn run_lanes(&mut self, go_on: bool, ctx: &Context<Self>) {
        let Some(run) = self.follow.clone() else { return };
        if let Some(lanes) = self.lanes.as_ref().filter(|lanes| *lanes.run() == run && lanes.connected()) {
            if go_on {
                lanes.go_on();
            }
            return;
        }
        let Some(record) = self.bucket.run(&run) else {
            return self.report.trouble("lanes", Some(format!("the record of run {run} was not read")), false);
        };
        let addr = ctx.address();
        let blocked = Box::new(move || addr.do_send(Happened(Event::Blocked)));
        match Lanes::start(&self.parts, record, blocked) {
            Ok(lanes) => {
                self.lanes = Some(lanes);
                self.report.trouble("lanes", None, false);
            }
            // The next tick tries again.
            Err(error) => self.report.trouble("lanes", Some(error.to_string()), false),
        }
    }

    fn stop(&mut self, ctx: &Context<Self>) {
        self.follow = None;
        let lanes = self.lanes.take();
        let stop = async move {
            let stored = match lanes {
                Some(lanes) => lanes.stop().await,
                None => Offsets::new(),
            };
            Ok(Event::Stopped { stored })
        };
        self.request("stop", stop, ctx);
    }

    /// How eagerly lanes close objects: somebody waits for the end while this one scans or takes a TERM again, and while
    /// the partner hands over to it.
    fn attend(&mut self) {
        let Some(state) = &self.state else { return };
        let partner = state.heard().map(|(said, _)| said.status);
        let waits = match state.phase() {
            Phase::Owning { created_ms, .. } => {
                let young = now_ms() - created_ms < self.parts.job.rotate_interval.as_millis() as i64;
                young && partner != Some(Status::Passivate)
                    || state.heard().is_some_and(|(said, _)| said.status == Status::Activate)
            }
            _ => true,
        };
        if let Some(lanes) = &mut self.lanes {
            lanes.at_every_end(waits);
        }
    }

    fn show(&mut self) {
        let Some(state) = &self.state else { return };
        let now = &mut self.report.now;
        now.progress = self.lanes.as_ref().and_then(Lanes::share);
        now.reached_offsets = self.lanes.as_ref().map_or(0, |lanes| lanes.stored().values().sum());
        now.partner_heard_ms = state.heard().map(|(_, at)| now_ms() - (super::now::now().boot_ms - at));
        let spent =
            self.scan_began.map(|began| now_ms() - began).filter(|_| matches!(state.phase(), Phase::Scanning { .. }));
        now.expected_end_ms = spent
            .zip(now.progress)
            .filter(|(_, done)| *done > 0.01)
            .map(|(spent, done)| now_ms() + (spent as f64 * (1.0 - done) / done) as i64);
        self.report.show(state);
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if self.state.is_none() {
            return;
        }
        #[cfg(debug_assertions)]
        crate::failpoint::coordinator(&self.parts.topic, &self.instance, &self.report.now.phase);
        self.run_lanes(false, ctx);
        self.speak(ctx);
        self.mark(ctx);
        self.ask_settings(ctx);
        self.warn_of_no_successor();
        if let Some(lanes) = &self.lanes {
            let (addr, asked) = (ctx.address(), lanes.ask());
            ctx.spawn(
                async move {
                    if let Some(far) = asked.await {
                        addr.do_send(Asked(far));
                    }
                }
                .into_actor(self),
            );
        }
        self.happen(Event::Tick, ctx);
    }

    /// Somebody waits for changes.
    fn is_short(&self) -> bool {
        self.one.length.min(self.one.partner_timeout) < SHORT
    }

    /// Nothing begins any more, whatever is still answered.
    fn end(&mut self) {
        self.deletions.end();
        self.state = None;
        self.follow = None;
    }

    /// A newer process is this instance: this one does nothing more, and does not come back by itself, or the two would
    /// throw each other out for ever.
    fn fenced(&mut self) {
        self.end();
        self.to_say = None;
        self.coordination = None;
        let why = format!(
            "another process runs instance {:?} of topic {}: this one has stopped; stop one of the two, then start this \
             one again",
            self.instance.to_string(),
            self.parts.topic
        );
        self.report.trouble("instance", Some(why), true);
        if let Some(lanes) = self.lanes.take() {
            self.parts.process.io().spawn(async move { lanes.leave().await });
        }
    }
}

/// The transactional id of an instance: who has it last is the instance.
fn transactional_id(key: &MessageKey) -> String {
    format!("kafka-backup/{}/{}/{}/{}", key.storage, key.cluster_id, key.topic, key.instance)
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        ctx.run_interval(if self.is_short() { SHORT_TICK } else { TICK }, |act, ctx| act.tick(ctx));
        self.open(ctx);
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // Also after a panic: the next one of this instance may begin soon.
        self.deletions.end();
    }
}

impl Handler<Opened> for Coordinator {
    type Result = ();

    fn handle(&mut self, Opened(opened): Opened, ctx: &mut Self::Context) {
        if self.deletions.over() {
            return;
        }
        match opened {
            Ok(coordination) => {
                self.coordination = Some(Arc::new(coordination));
                self.failed_writes = 0;
                self.report.trouble("coordination", None, false);
                self.speak(ctx);
            }
            Err(why) => {
                crate::metrics::error("compacted", "coordination");
                self.report.trouble("coordination", Some(why.to_string()), false);
                ctx.run_later(Duration::from_secs(2), |act, ctx| act.open(ctx));
            }
        }
    }
}

impl Handler<FromTopic> for Coordinator {
    type Result = ();

    fn handle(&mut self, FromTopic(event): FromTopic, ctx: &mut Self::Context) {
        match event {
            CoordinationEvent::Error(error) => {
                tracing::debug!(topic = %self.parts.topic, %error, "reading the coordination topic");
            }
            CoordinationEvent::End => {
                if self.state.is_some() || self.deletions.over() {
                    return;
                }
                self.report.trouble("instance", None, false);
                let own = self.read.remove(&*self.key.instance).map(|(said, _)| said);
                self.state = Some(State::new(self.settings.clone(), now()));
                self.happen(Event::Started { own }, ctx);
                for (message, written_ms) in std::mem::take(&mut self.read).into_values() {
                    let age_ms = written_ms.map_or(0, |written| now_ms().saturating_sub(written));
                    self.happen(Event::Recalled { message, age_ms }, ctx);
                }
            }
            CoordinationEvent::Message { key, value, written_ms } => {
                // Others share the topic; what is not understood is not meant for this one.
                let Ok(key) = MessageKey::from_bytes(&key) else { return };
                let of_topic = MessageKey { instance: self.key.instance.clone(), ..key.clone() } == self.key;
                let Some((said, topics)) = value.filter(|_| of_topic).and_then(|value| Said::from_bytes(&value).ok())
                else {
                    return;
                };
                if key.instance != self.key.instance {
                    self.compare_topics(&key.instance, &topics);
                }
                if self.state.is_none() {
                    self.read.insert(key.instance, (said, written_ms));
                } else if key.instance != self.key.instance {
                    // One that waits itself waits for an active partner.
                    let waits = self.state.as_ref().is_some_and(|state| state.status() == Status::Passivate);
                    if said.status != Status::Passivate || !waits {
                        self.report.heard();
                    }
                    self.happen(Event::Heard(said), ctx);
                }
            }
        }
    }
}

impl Handler<Happened> for Coordinator {
    type Result = ();

    fn handle(&mut self, Happened(event): Happened, ctx: &mut Self::Context) {
        self.happen(event, ctx);
    }
}

impl Handler<Done> for Coordinator {
    type Result = ();

    fn handle(&mut self, Done { what, outcome: Outcome { event, trouble } }: Done, ctx: &mut Self::Context) {
        if let Some(text) = term_text(&event) {
            tracing::info!(topic = %self.parts.topic, instance = %self.instance, "TERM not created: {text}");
        }
        if trouble.is_some() {
            crate::metrics::error("compacted", "request");
        }
        self.report.trouble(what, trouble.map(|why| why.to_string()), false);
        self.happen(event, ctx);
    }
}

impl Handler<Failed> for Coordinator {
    type Result = ();

    fn handle(&mut self, Failed { what, why, request }: Failed, ctx: &mut Self::Context) {
        if self.deletions.over() {
            return;
        }
        if why.is_fenced() {
            return self.fenced();
        }
        crate::metrics::error("compacted", "request");
        self.report.trouble(what, Some(why.to_string()), false);
        if request {
            self.happen(Event::Failed, ctx);
        }
    }
}

impl Handler<Asked> for Coordinator {
    type Result = ();

    fn handle(&mut self, Asked(far): Asked, ctx: &mut Self::Context) {
        let retention = self.delete_retention_ms;
        let Some(lanes) = &mut self.lanes else { return };
        let progress = lanes.note(&far, retention);
        self.happen(Event::Progress(progress), ctx);
    }
}

impl Handler<Swap> for Coordinator {
    type Result = Result<(NextScan, u64), String>;

    fn handle(&mut self, _: Swap, ctx: &mut Self::Context) -> Self::Result {
        // Asked before the order changes it.
        let next = self.state.as_ref().and_then(|state| state.next_scan(now()));
        let Some(next) = next else {
            return Err("the instance is not at work as yet, or another process has taken its place".to_owned());
        };
        let term = self.report.now.term;
        self.happen(Event::Swap, ctx);
        tracing::info!(job = %self.parts.job.id, topic = %self.parts.topic, instance = %self.instance, "a turn is ordered: {next}");
        Ok((next, term))
    }
}

impl Handler<Drain> for Coordinator {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, Drain { stop }: Drain, _: &mut Self::Context) -> Self::Result {
        if stop {
            // Like a crash, but with what was read made durable: what matters is in the bucket.
            self.end();
            self.report.status.draining();
        }
        let drained = self.lanes.as_ref().map(|lanes| lanes.drain(stop));
        Box::pin(async move {
            match drained {
                Some(drained) => drained.await,
                None => true,
            }
        })
    }
}

impl Handler<Leave> for Coordinator {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) -> Self::Result {
        self.end();
        self.coordination = None;
        let (lanes, deletions) = (self.lanes.take(), self.deletions.clone());
        ctx.stop();
        Box::pin(async move {
            deletions.ended().await;
            if let Some(lanes) = lanes {
                lanes.leave().await;
            }
        })
    }
}
