//! The lanes of a process: they read partitions and send objects.

use std::sync::Arc;

use kafka_backup::model::compacted::{Event, Name, Offsets, Progress, Reached};

use crate::bucket::Object;
use crate::world::{Config, Flight, NEVER_MS, Request, TICK_MS, World};

/// The lanes of one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lanes {
    pub run: Name,
    pub lanes: Vec<Lane>,
}

impl Lanes {
    /// Where the acknowledged objects of each partition end.
    pub fn stored(&self) -> Offsets {
        self.lanes.iter().enumerate().map(|(partition, lane)| (partition as i32, lane.stored)).collect()
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Lane {
    pub stored: i64,
    pub restorable: Option<i64>,
    pub seen_end_ms: Option<i64>,
    pub waits: bool,
    /// Records were gone before it could read them, behind others.
    pub lost: bool,
    pub blocked: bool,
}

impl World {
    /// Runs the lanes, from where the objects of the run end; those that wait go on.
    pub fn follow(&mut self, i: usize, run: &Name) {
        if let Some(lanes) = &mut self.processes[i].lanes
            && lanes.run == *run
        {
            lanes.lanes.iter_mut().for_each(|lane| lane.blocked = false);
            return;
        }
        let view = self.bucket.view(&self.processes[i].instance);
        let own = view.own.run.filter(|own| own.run == *run);
        let lane = |partition: usize| {
            let partition = partition as i32;
            let stored = own.as_ref().and_then(|own| own.stored.get(&partition)).copied().unwrap_or(0);
            let restorable = own.as_ref().and_then(|own| own.restorable.get(&partition)).copied();
            Lane { stored, restorable, ..Lane::default() }
        };
        let lanes = (0..self.logs.len()).map(lane).collect();
        self.processes[i].lanes = Some(Lanes { run: run.clone(), lanes });
    }

    /// A lane reads on, and sends an object when there was something.
    pub fn read(&mut self, config: &Config, i: usize, partition: usize, all: bool) {
        let now_ms = self.now(config).wall_ms;
        let instance = self.processes[i].instance.clone();
        let number = self.processes[i].number;
        let Some(Lanes { run, lanes }) = &mut self.processes[i].lanes else {
            return;
        };
        let (lane, log) = (&mut lanes[partition], &self.logs[partition]);
        if lane.stored < log.start() {
            let gap = Object::over_a_gap(run.clone(), log.start(), if config.crashes > 0 { now_ms } else { 0 });
            let place = (instance, partition as i32, lane.stored);
            lane.waits = true;
            return self.put(config, number, Request::Put(place, Arc::new(gap)));
        }
        let records: Vec<_> = log.readable(lane.stored).take(if all { usize::MAX } else { 1 }).collect();
        let Some((last, _)) = records.last() else {
            lane.restorable = Some(log.end());
            lane.seen_end_ms = Some(now_ms);
            return self.report(config, i);
        };
        let at_eof = log.readable(last + 1).next().is_none();
        let next = if at_eof { log.end() } else { last + 1 };
        let records = records.iter().map(|(_, record)| *record).collect();
        let written_ms = if config.crashes > 0 { now_ms } else { 0 };
        let object = Object::new(run.clone(), next, at_eof, written_ms, records);
        let place = (instance, partition as i32, lane.stored);
        if at_eof {
            // The end was seen now, also when the object arrives later.
            lane.seen_end_ms = Some(now_ms);
        }
        lane.waits = true;
        self.put(config, number, Request::Put(place, Arc::new(object)));
    }

    fn put(&mut self, config: &Config, number: u8, request: Request) {
        if config.slow_puts {
            self.flights.push(Flight { from: number, what: request });
            self.flights.sort();
        } else {
            self.put_answered(config, number, request);
        }
    }

    /// An object arrives, or finds its name taken; the lane goes on by what is there.
    pub fn put_answered(&mut self, config: &Config, from: u8, request: Request) {
        let Request::Put(place, object) = request else {
            return;
        };
        self.changed = true;
        let there = self.bucket.objects.entry(place.clone()).or_insert_with(|| object.clone()).clone();
        let Some(i) = self.processes.iter().position(|process| process.number == from && process.state.is_some())
        else {
            return;
        };
        let Some(Lanes { run, lanes }) = &mut self.processes[i].lanes else {
            return;
        };
        let lane = &mut lanes[place.1 as usize];
        if *run != object.run || lane.stored != place.2 {
            return;
        }
        lane.waits = false;
        if there.run != *run {
            lane.blocked = true;
            return self.feed(config, i, Event::Blocked);
        }
        lane.stored = there.next;
        // Where nothing was read before, nothing that was read can have become wrong.
        lane.lost |= there.gap && place.2 > 0;
        if there.at_eof {
            lane.restorable = Some(there.next);
        }
        self.report(config, i);
    }

    fn report(&mut self, config: &Config, i: usize) {
        let Some(Lanes { run, lanes }) = &self.processes[i].lanes else {
            return;
        };
        let reached =
            |lane: &Lane| Reached { stored: lane.stored, restorable: lane.restorable, seen_end_ms: lane.seen_end_ms };
        let retention = config.retention.map_or(NEVER_MS, |ticks| i64::from(ticks) * TICK_MS);
        let progress = Progress {
            lost: lanes.iter().any(|lane| lane.lost),
            run: run.clone(),
            partitions: lanes.iter().enumerate().map(|(p, lane)| (p as i32, reached(lane))).collect(),
            delete_retention_ms: Some(retention),
        };
        self.feed(config, i, Event::Progress(progress));
    }
}
