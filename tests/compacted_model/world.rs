//! Everything around the machine: Kafka, the bucket, requests on their way, processes that come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_backup::model::compacted::record::TermRecord;
use kafka_backup::model::compacted::{
    Effect, Event, Initial, Message, Name, Notice, Now, Phase, Rules, Settings, State, TermAnswer, step,
};

use crate::bucket::{Bucket, Object, Place};
use crate::lanes::Lanes;
use crate::log::{Log, Record};

/// One tick of the clock.
pub const TICK_MS: i64 = 1_000;
/// A span that never passes.
pub const NEVER_MS: i64 = i64::MAX / 4;

/// What one model contains.
#[derive(Debug, Clone)]
pub struct Config {
    pub rules: Rules,
    pub partitions: i32,
    /// What is appended, in this order: partition and record.
    pub script: Vec<(i32, Record)>,
    /// `delete.retention.ms` in ticks; `None`: the cleaner does not run.
    pub retention: Option<u8>,
    /// How often the beginning of a log is deleted.
    pub trims: u8,
    /// How far the clock goes.
    pub ticks: u8,
    /// How often the operator asks for a turn.
    pub swaps: u8,
    /// Crashes in all.
    pub crashes: u8,
    /// Processes that are taken for dead and are not.
    pub zombies: u8,
    /// Requests that get no answer although their process lives.
    pub timeouts: u8,
    /// PUTs of objects are on their way for a while; otherwise they arrive at once.
    pub slow_puts: bool,
    /// The same for TERMs and DELETEs.
    pub slow_records: bool,
    /// Messages arrive in any order, more than once, or never; otherwise each at once.
    pub loose_messages: bool,
    /// `partner_timeout` in ticks.
    pub partner_timeout: Option<u8>,
    /// `initial_status` of the second instance; the first one's is ACTIVATE.
    pub second: Initial,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            partitions: 1,
            script: Vec::new(),
            retention: None,
            trims: 0,
            ticks: 0,
            swaps: 1,
            crashes: 0,
            zombies: 0,
            timeouts: 0,
            slow_puts: false,
            slow_records: false,
            loose_messages: false,
            partner_timeout: None,
            second: Initial::Passivate,
        }
    }
}

/// The state of a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub tick: u8,
    pub appended: usize,
    pub logs: Vec<Log>,
    pub bucket: Bucket,
    pub processes: Vec<Process>,
    /// Requests on their way; also those of dead processes. Without lifetimes, but for DELETEs.
    pub flights: Vec<Flight>,
    /// Every message that was ever said, by instance.
    pub said: BTreeMap<Name, Vec<Message>>,
    pub last_said: BTreeMap<Name, Message>,
    pub left: Left,
    pub found: Found,
    /// The furthest that a restore ever went, in each partition.
    pub furthest: Vec<i64>,
    /// The bucket has changed since it was judged.
    pub changed: bool,
}

/// How much may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Left {
    pub trims: u8,
    pub swaps: u8,
    pub crashes: u8,
    pub zombies: u8,
    pub timeouts: u8,
}

/// What was found on the way here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Found {
    /// There was a snapshot, and there is none any more.
    pub nothing_left: bool,
    /// A restore gives other keys than were live.
    pub wrong_keys: bool,
    /// What could be restored before can not be restored any more.
    pub went_back: bool,
    /// A DELETE took effect that C1 does not allow.
    pub against_c1: bool,
    /// A scan was thrown away because it was slow.
    pub discarded: bool,
    pub tainted: bool,
    /// Records were gone before they were read.
    pub lost: bool,
    /// The old owner went on because its successor did not.
    pub reclaimed: bool,
}

/// A process of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    pub instance: Name,
    pub number: u8,
    /// Another process of the instance has taken its transactional id.
    pub fenced: bool,
    /// `None`: it is dead.
    pub state: Option<State>,
    pub lanes: Option<Lanes>,
}

/// A request on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flight {
    /// Which process sent it, and by which effect it waits.
    pub from: u8,
    pub what: Request,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    Put(Place, Arc<Object>),
    Term(Boxed),
    /// Takes effect only before this tick.
    Delete(Place, u8),
}

/// A TERM that is being created.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Boxed(pub Arc<TermRecord>);

impl PartialOrd for Boxed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Boxed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |term: &TermRecord| (term.term, term.instance.clone(), term.run.clone(), term.void, term.created_ms);
        key(&self.0).cmp(&key(&other.0))
    }
}

/// What can happen next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Append,
    Clean,
    /// Everything below an offset is deleted.
    Trim {
        partition: usize,
        to: i64,
    },
    Tick,
    /// The process looks around.
    Poke(usize),
    /// A lane reads one record, or everything, and sends an object.
    Read {
        process: usize,
        partition: usize,
        all: bool,
    },
    /// A request arrives.
    Arrive(usize),
    /// Its sender gets no answer; it stays on its way.
    Timeout(usize),
    Deliver {
        process: usize,
        message: Message,
    },
    Swap(usize),
    Crash(usize),
    /// Another process of the instance starts, though this one only sleeps.
    Suspend(usize),
    Start(usize),
}

impl World {
    pub fn new(config: &Config) -> Self {
        let process = |number: u8, instance: &str| Process {
            instance: instance.into(),
            number,
            fenced: false,
            state: None,
            lanes: None,
        };
        let mut world = Self {
            tick: 0,
            appended: 0,
            logs: vec![Log::default(); config.partitions as usize],
            bucket: Bucket::default(),
            processes: vec![process(0, "a"), process(1, "b")],
            flights: Vec::new(),
            said: BTreeMap::new(),
            last_said: BTreeMap::new(),
            left: Left {
                trims: config.trims,
                swaps: config.swaps,
                crashes: config.crashes,
                zombies: config.zombies,
                timeouts: config.timeouts,
            },
            found: Found::default(),
            furthest: vec![0; config.partitions as usize],
            changed: true,
        };
        world.start(config, 0);
        world.start(config, 1);
        world.judge();
        world.changed = false;
        world
    }

    /// Where nothing depends on a clock it stands still, which keeps the number of states small.
    pub fn now(&self, config: &Config) -> Now {
        let ms = (i64::from(self.tick) + 1) * TICK_MS;
        let wall_ms = if config.retention.is_some() { ms } else { TICK_MS };
        let boot_ms = if config.slow_records || config.partner_timeout.is_some() { ms } else { TICK_MS };
        Now { wall_ms, boot_ms }
    }

    fn settings(config: &Config, instance: &Name) -> Arc<Settings> {
        Arc::new(Settings {
            instance: instance.clone(),
            initial: if &**instance == "a" { Initial::Activate } else { config.second },
            length_ms: NEVER_MS,
            interval_offsets: NEVER_MS,
            partner_timeout_ms: config.partner_timeout.map_or(NEVER_MS, |ticks| i64::from(ticks) * TICK_MS),
            takeover: true,
            delete_lifetime_ms: TICK_MS,
            batch_ms: TICK_MS,
            look_every_ms: 0,
            publish_every_ms: NEVER_MS,
            rules: config.rules,
        })
    }

    pub fn actions(&self, config: &Config) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.appended < config.script.len() {
            actions.push(Action::Append);
        }
        if config.retention.is_some() {
            actions.push(Action::Clean);
        }
        for (partition, log) in self.logs.iter().enumerate().filter(|_| self.left.trims > 0) {
            actions.extend((log.start() + 1..=log.end()).map(|to| Action::Trim { partition, to }));
        }
        if self.tick < config.ticks {
            actions.push(Action::Tick);
        }
        for (i, process) in self.processes.iter().enumerate() {
            self.actions_of(config, i, process, &mut actions);
        }
        for (i, flight) in self.flights.iter().enumerate() {
            actions.push(Action::Arrive(i));
            if self.left.timeouts > 0 && self.waits_for(flight).is_some() && !matches!(flight.what, Request::Put(..)) {
                actions.push(Action::Timeout(i));
            }
        }
        actions
    }

    fn actions_of(&self, config: &Config, i: usize, process: &Process, actions: &mut Vec<Action>) {
        let Some(state) = &process.state else {
            return if !process.fenced {
                actions.push(Action::Start(i))
            };
        };
        actions.push(Action::Poke(i));
        for (partition, lane) in process.lanes.iter().flat_map(|lanes| lanes.lanes.iter().enumerate()) {
            if !lane.waits && !lane.blocked {
                actions.push(Action::Read { process: i, partition, all: true });
                if config.retention.is_some() || config.trims > 0 {
                    actions.push(Action::Read { process: i, partition, all: false });
                }
            }
        }
        if self.left.swaps > 0 && matches!(state.phase(), Phase::Owning { .. }) && !state.wants_successor() {
            actions.push(Action::Swap(i));
        }
        if self.left.crashes > 0 && !process.fenced {
            actions.push(Action::Crash(i));
        }
        if self.left.zombies > 0 && !process.fenced {
            actions.push(Action::Suspend(i));
        }
        if config.loose_messages {
            let partner = self.said.iter().filter(|(of, _)| **of != process.instance);
            let messages = partner.flat_map(|(_, messages)| messages.iter().cloned());
            actions.extend(messages.map(|message| Action::Deliver { process: i, message }));
        }
    }

    pub fn act(&mut self, config: &Config, action: Action) {
        match action {
            Action::Append => {
                let (partition, record) = config.script[self.appended];
                self.logs[partition as usize].append(record, self.tick);
                self.appended += 1;
            }
            Action::Clean => {
                let (tick, retention) = (self.tick, config.retention.unwrap_or(u8::MAX));
                self.logs.iter_mut().for_each(|log| log.clean(tick, retention));
            }
            Action::Trim { partition, to } => {
                self.left.trims -= 1;
                self.logs[partition].trim(to);
            }
            Action::Tick => {
                self.tick += 1;
                let tick = self.tick;
                let dead = |flight: &Flight| matches!(flight.what, Request::Delete(_, until) if until <= tick);
                for flight in self.flights.extract_if(.., |flight| dead(flight)).collect::<Vec<_>>() {
                    // Its sender learns nothing, or that it was too old.
                    self.answer(config, &flight, Event::Deleted { all_answered: false });
                }
            }
            Action::Poke(i) => self.feed(config, i, Event::Tick),
            Action::Read { process, partition, all } => self.read(config, process, partition, all),
            Action::Arrive(i) => self.arrive(config, i),
            Action::Timeout(i) => {
                self.left.timeouts -= 1;
                let flight = self.flights[i].clone();
                let event = match flight.what {
                    Request::Term(_) => Event::Term(TermAnswer::Unknown),
                    _ => Event::Deleted { all_answered: false },
                };
                // It does not wait for this one any more.
                self.flights[i].from = u8::MAX;
                self.flights.sort();
                self.answer(config, &flight, event);
            }
            Action::Deliver { process, message } => self.feed(config, process, Event::Heard(message)),
            Action::Swap(i) => {
                self.left.swaps -= 1;
                self.feed(config, i, Event::Swap);
            }
            Action::Crash(i) => {
                self.left.crashes -= 1;
                self.processes[i].state = None;
                self.processes[i].lanes = None;
            }
            Action::Suspend(i) => {
                self.left.zombies -= 1;
                let instance = self.processes[i].instance.clone();
                self.processes[i].fenced = true;
                let number = self.processes.len() as u8;
                self.processes.push(Process { instance, number, fenced: false, state: None, lanes: None });
                self.start(config, usize::from(number));
            }
            Action::Start(i) => {
                // A new process; what the old one sent is nobody's answer.
                let old = self.processes[i].number;
                self.flights.iter_mut().filter(|flight| flight.from == old).for_each(|flight| flight.from = u8::MAX);
                self.flights.sort();
                self.start(config, i);
            }
        }
        if std::mem::take(&mut self.changed) {
            self.judge();
        }
    }

    fn start(&mut self, config: &Config, i: usize) {
        let instance = self.processes[i].instance.clone();
        self.processes[i].state = Some(State::new(Self::settings(config, &instance), self.now(config)));
        let (own, partner): (Vec<_>, Vec<_>) = self.last_said.clone().into_iter().partition(|(of, _)| *of == instance);
        let own = own.into_iter().map(|(_, message)| message).next();
        self.feed(config, i, Event::Started { own });
        for (_, message) in partner {
            // However old it is: the clock of its timestamp may be any.
            self.feed(config, i, Event::Recalled { message, age_ms: NEVER_MS });
        }
    }

    /// The process and lane that wait for the answer to a request.
    fn waits_for(&self, flight: &Flight) -> Option<usize> {
        self.processes.iter().position(|process| process.number == flight.from && process.state.is_some())
    }

    fn answer(&mut self, config: &Config, flight: &Flight, event: Event) {
        if let Some(i) = self.waits_for(flight) {
            self.feed(config, i, event);
        }
    }

    /// Gives the machine an event, does what it wants, and gives it the answers that come at once.
    pub fn feed(&mut self, config: &Config, i: usize, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        let mut messages = Vec::new();
        let mut steps = 0;
        while let Some(event) = events.pop_front() {
            steps += 1;
            assert!(steps < 50, "it goes round in circles: {event:?} {:?}", self.processes[i].state);
            let state = self.processes[i].state.take().expect("a living process");
            let (state, effects) = step(state, event, self.now(config));
            self.processes[i].state = Some(state);
            for effect in effects {
                match self.effect(config, i, effect) {
                    Done::Answer(event) => events.push_back(event),
                    Done::Message(message) => messages.push(message),
                    Done::Nothing => {}
                }
            }
        }
        let partner = |process: &Process| process.instance != self.processes[i].instance && process.state.is_some();
        let partners: Vec<usize> = (0..self.processes.len()).filter(|j| partner(&self.processes[*j])).collect();
        for message in messages {
            for partner in &partners {
                self.feed(config, *partner, Event::Heard(message.clone()));
            }
        }
    }

    fn effect(&mut self, config: &Config, i: usize, effect: Effect) -> Done {
        let Process { instance, number, fenced, .. } = self.processes[i].clone();
        let now_ms = self.now(config).wall_ms;
        match effect {
            Effect::Look { .. } => Done::Answer(Event::Bucket(self.bucket.view(&instance))),
            // Whoever is fenced may not: the transaction that goes before fails.
            Effect::CreateRun { .. } | Effect::CreateTerm { .. } | Effect::Delete { .. } if fenced => {
                Done::Answer(Event::Failed)
            }
            Effect::CreateRun { number, after_term } => {
                let record = self.bucket.create_run(&instance, number, after_term, config.partitions, now_ms);
                Done::Answer(Event::RunCreated { run: record.run.clone(), started_ms: record.started_ms })
            }
            Effect::CreateTerm { number: term, claim } => {
                let lanes = self.processes[i].lanes.as_ref();
                let stored = lanes.map(Lanes::stored).unwrap_or_default();
                match self.bucket.term(term, &instance, &claim, &stored, now_ms) {
                    Some(record) => self.send(number, Request::Term(Boxed(Arc::new(record))), config.slow_records),
                    None => Done::Answer(Event::Failed),
                }
            }
            Effect::Delete { keep, .. } => {
                let goes = |(place, object): &(&Place, &Arc<Object>)| {
                    place.0 == instance && keep.as_ref().is_none_or(|keep| object.run != *keep)
                };
                let place = self.bucket.objects.iter().find(goes).map(|(place, _)| place.clone());
                match place {
                    // One at a time: a batch may be as small as that.
                    Some(place) => self.send(number, Request::Delete(place, self.tick + 1), config.slow_records),
                    None => Done::Answer(Event::Deleted { all_answered: true }),
                }
            }
            Effect::Follow { run } => {
                self.follow(i, &run);
                Done::Nothing
            }
            Effect::Stop => {
                let lanes = self.processes[i].lanes.take();
                Done::Answer(Event::Stopped { stored: lanes.as_ref().map(Lanes::stored).unwrap_or_default() })
            }
            Effect::Publish(_) if fenced => Done::Nothing,
            Effect::Publish(message) => {
                self.last_said.insert(instance.clone(), message.clone());
                if config.loose_messages {
                    let said = self.said.entry(instance).or_default();
                    if !said.contains(&message) {
                        said.push(message);
                    }
                    return Done::Nothing;
                }
                Done::Message(message)
            }
            Effect::MarkTainted { number } => {
                self.bucket.taints.insert(number);
                Done::Nothing
            }
            Effect::Say(notice) => {
                self.found.discarded |= matches!(notice, Notice::ScanTooSlow { .. });
                self.found.tainted |= matches!(notice, Notice::Tainted { .. });
                self.found.lost |= matches!(notice, Notice::RecordsLost { .. });
                self.found.reclaimed |= matches!(notice, Notice::SuccessorTooSlow { .. });
                Done::Nothing
            }
        }
    }

    fn send(&mut self, from: u8, what: Request, slow: bool) -> Done {
        if slow {
            self.flights.push(Flight { from, what });
            self.flights.sort();
            return Done::Nothing;
        }
        self.take_effect(&what).map_or(Done::Nothing, Done::Answer)
    }

    fn arrive(&mut self, config: &Config, i: usize) {
        let flight = self.flights.remove(i);
        if matches!(flight.what, Request::Put(..)) {
            return self.put_answered(config, flight.from, flight.what);
        }
        if let Some(event) = self.take_effect(&flight.what) {
            self.answer(config, &flight, event);
        }
    }

    /// What the bucket does with a request for a record or a deletion.
    fn take_effect(&mut self, request: &Request) -> Option<Event> {
        self.changed = true;
        match request {
            Request::Term(Boxed(term)) => {
                let there = self.bucket.terms.entry(term.term).or_insert_with(|| term.clone());
                if !Arc::ptr_eq(there, term) {
                    return Some(Event::Term(TermAnswer::Taken));
                }
                let scanned = self.bucket.scanned(term);
                self.found.wrong_keys |= scanned.is_some_and(|owner| !self.bucket.is_right(&owner, &self.logs));
                Some(Event::Term(TermAnswer::Created))
            }
            Request::Delete(place, _) => {
                self.judge_deletion(place);
                self.bucket.objects.remove(place);
                Some(Event::Deleted { all_answered: true })
            }
            Request::Put(..) => None,
        }
    }

    /// C1 at the very moment that a deletion takes effect.
    fn judge_deletion(&mut self, place: &Place) {
        if !self.bucket.objects.contains_key(place) {
            return;
        }
        let owner = self.bucket.valid().into_iter().next();
        let ever = self.bucket.terms.values().any(|term| !term.void);
        self.found.against_c1 |= owner.map_or(ever, |owner| owner.instance == place.0);
    }

    /// The properties, at this instant.
    fn judge(&mut self) {
        let valid = self.bucket.valid();
        let Some(owner) = valid.first() else {
            self.found.nothing_left |= self.bucket.terms.values().any(|term| !term.void);
            return;
        };
        self.found.wrong_keys |= !self.bucket.is_right(owner, &self.logs);
        for (partition, furthest) in self.furthest.iter_mut().enumerate() {
            let reached = valid.iter().filter_map(|owner| owner.reached.get(&(partition as i32))).max();
            let reached = reached.copied().unwrap_or(0);
            self.found.went_back |= reached < *furthest;
            *furthest = owner.reached.get(&(partition as i32)).copied().unwrap_or(0).max(*furthest);
        }
    }

    /// The TERMs by which somebody owned the snapshot.
    pub fn titles(&self) -> usize {
        self.bucket.terms.values().filter(|term| !term.void).count()
    }

    /// The same world, in which from now on go wrong what `config` allows.
    pub fn with_faults_of(mut self, config: &Config) -> Self {
        let Config { trims, swaps, crashes, zombies, timeouts, .. } = *config;
        self.left = Left { trims, swaps: swaps.min(self.left.swaps), crashes, zombies, timeouts };
        self
    }

    /// For every living process what its partner said last.
    pub fn partner_messages(&self) -> Vec<(usize, Message)> {
        let living = self.processes.iter().enumerate().filter(|(_, process)| process.state.is_some());
        let said = living.flat_map(|(i, process)| {
            let partner = self.last_said.iter().filter(|(of, _)| **of != process.instance);
            partner.map(move |(_, message)| (i, message.clone()))
        });
        said.collect()
    }

    /// Whether all is as it must be.
    pub fn is_safe(&self) -> bool {
        let Found { nothing_left, wrong_keys, went_back, against_c1, .. } = self.found;
        !nothing_left && !wrong_keys && !went_back && !against_c1
    }
}

/// What came of an effect at once.
enum Done {
    Nothing,
    Answer(Event),
    Message(Message),
}
