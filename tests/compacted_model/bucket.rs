//! The bucket: objects and records that are created once, and what a look at it shows.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use kafka_backup::model::chain::RecordedIsolation;
use kafka_backup::model::compacted::look::{ObjectFacts, Seen, SeenObject, newest};
use kafka_backup::model::compacted::record::{COMPACTED_FORMAT_VERSION, RunRecord, TermRecord};
use kafka_backup::model::compacted::title::{Scan, title, void};
use kafka_backup::model::compacted::view::Owner;
use kafka_backup::model::compacted::{Claim, Name, Offsets, View, look};

use crate::log::{Log, Record, fold};

/// Where an object lies: instance, partition, offset.
pub type Place = (Name, i32, i64);

/// An object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Object {
    pub run: Name,
    pub next: i64,
    pub at_eof: bool,
    /// It stands for what was deleted before it was read.
    pub gap: bool,
    pub written_ms: i64,
    pub records: Vec<Record>,
    pub etag: Name,
}

impl Object {
    pub fn new(run: Name, next: i64, at_eof: bool, written_ms: i64, records: Vec<Record>) -> Self {
        let mut hasher = DefaultHasher::new();
        (&run, next, at_eof, written_ms, &records).hash(&mut hasher);
        let etag = format!("{:x}", hasher.finish()).into();
        Self { run, next, at_eof, gap: false, written_ms, records, etag }
    }

    /// The link over a gap that ends at `next`.
    pub fn over_a_gap(run: Name, next: i64, written_ms: i64) -> Self {
        Self { gap: true, ..Self::new(run, next, false, written_ms, Vec::new()) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bucket {
    pub objects: BTreeMap<Place, Arc<Object>>,
    pub terms: BTreeMap<u64, Arc<TermRecord>>,
    pub taints: BTreeSet<u64>,
    pub runs: BTreeMap<(Name, u64), Arc<RunRecord>>,
}

impl Hash for Bucket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.objects.hash(state);
        self.terms.hash(state);
        self.taints.hash(state);
        for (name, record) in &self.runs {
            (name, &record.run, record.started_ms, record.after_term).hash(state);
        }
    }
}

impl Bucket {
    /// What is listed and read, as far as `instance` looks at it.
    pub fn seen(&self, instance: Option<&Name>) -> Seen {
        let own = self.runs.iter().filter(|((of, _), _)| Some(of) == instance);
        let mut seen = Seen {
            terms: self.terms.iter().map(|(n, term)| (*n, Some((**term).clone()))).collect(),
            taints: self.taints.clone(),
            runs: own.map(|((_, number), record)| (*number, (**record).clone())).collect(),
            ..Seen::default()
        };
        for ((of, partition, offset), object) in &self.objects {
            let facts = ObjectFacts {
                gap: object.gap,
                run: object.run.clone(),
                next_offset: object.next,
                at_eof: object.at_eof,
                written_ms: object.written_ms,
            };
            let (size, etag) = (object.records.len() as u64, object.etag.clone());
            let listed = SeenObject { partition: *partition, offset: *offset, size, etag, facts: Some(facts) };
            seen.objects.entry(of.clone()).or_default().push(listed);
        }
        seen
    }

    pub fn view(&self, instance: &Name) -> View {
        look(&self.seen(Some(instance)), instance)
    }

    /// Every valid TERM, the highest first.
    pub fn valid(&self) -> Vec<Owner> {
        let mut seen = self.seen(None);
        let mut valid = Vec::new();
        while let Some(owner) = newest(&seen) {
            seen.terms.retain(|number, _| *number < owner.number);
            valid.push(owner);
        }
        valid
    }

    /// The record that is sent for a claim, made of the listing that the claim was decided by; `None` when that does not
    /// hold what the lanes have `stored`.
    pub fn term(
        &self,
        number: u64,
        instance: &Name,
        claim: &Claim,
        stored: &Offsets,
        now_ms: i64,
    ) -> Option<TermRecord> {
        let seen = self.seen(Some(instance));
        let (Claim::Void { run } | Claim::Title { run, .. }) = claim;
        let record = seen.runs.values().find(|record| record.run == *run).expect("its run");
        match claim {
            Claim::Void { .. } => Some(void(record, number, now_ms)),
            Claim::Title { started_ms, ended_ms, ends, .. } => {
                let all = seen.objects.get(instance).map(Vec::as_slice).unwrap_or_default();
                title(record, number, Scan { started_ms: *started_ms, ended_ms: *ended_ms }, ends, stored, all)
            }
        }
    }

    /// Creates the record of a run, or reads it when it exists.
    pub fn create_run(
        &mut self,
        instance: &Name,
        number: u64,
        after_term: u64,
        partitions: i32,
        now_ms: i64,
    ) -> Arc<RunRecord> {
        let record = || RunRecord {
            format_version: COMPACTED_FORMAT_VERSION,
            number,
            run: format!("{instance}{number}").into(),
            topic: "t".to_owned(),
            instance: instance.clone(),
            job: "j".to_owned(),
            cluster_id: "c".to_owned(),
            topic_id: String::new(),
            isolation: RecordedIsolation::ReadCommitted,
            started_ms: now_ms,
            after_term,
            partitions: partitions as u32,
            origins: (0..partitions).map(|p| (p, 0)).collect::<Offsets>(),
        };
        self.runs.entry((instance.clone(), number)).or_insert_with(|| Arc::new(record())).clone()
    }

    /// What a restore of this TERM yields for one partition.
    pub fn restored(&self, owner: &Owner, partition: i32) -> Vec<(u8, u8)> {
        let until = owner.reached[&partition];
        let mut next = 0;
        let mut records = Vec::new();
        while let Some(object) = self.objects.get(&(owner.instance.clone(), partition, next)) {
            if object.run != owner.run || object.next > until {
                break;
            }
            records.extend(object.records.iter().copied());
            next = object.next;
        }
        fold(records.into_iter())
    }

    /// Whether the keys that a restore of this TERM yields are those that were live when the log ended where the
    /// snapshot ends. Of a tainted one, deleted keys and old values of keys that are gone may be left over.
    pub fn is_right(&self, owner: &Owner, logs: &[Log]) -> bool {
        owner.reached.iter().all(|(partition, end)| {
            let log = &logs[*partition as usize];
            let restored = self.restored(owner, *partition);
            let all_there = log.certain(*end).iter().all(|pair| restored.contains(pair));
            let live = log.live(*end);
            all_there && (owner.is_tainted() || restored.iter().all(|pair| live.contains(pair)))
        }) && owner.reached.len() == logs.len()
    }

    /// The snapshot that `term` itself lists, when it is the first of its run and valid: it was scanned, and such a one is
    /// clean or does not come to be.
    pub fn scanned(&self, term: &TermRecord) -> Option<Owner> {
        let earlier = self.terms.range(..term.term).any(|(_, other)| !other.void && other.run == term.run);
        let owner = self.valid().into_iter().find(|owner| owner.number == term.term && !earlier)?;
        let reached = term.partitions.iter().map(|(number, partition)| (*number, partition.to)).collect();
        Some(Owner { reached, tainted: false, gap: false, ..owner })
    }
}
