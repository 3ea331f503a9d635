//! The list of one partition, judged object by object in the order of the names, so that nothing needs to be held but
//! where the list stands.
//!
//! | the object | the list stands at | judgement |
//! |---|---|---|
//! | is the first, begins at the origin | - | sound |
//! | is the first, begins behind the origin | - | the head is missing: a note where retention may have removed it |
//! | is the first, begins in front of the origin | - | foreign: nobody of this list wrote there |
//! | begins at the cursor | cursor | sound |
//! | begins behind the cursor | cursor | missing: the object that must bear the cursor as its name; a note where the one in front of it has expired and is still there |
//! | begins in front of the cursor | cursor | two objects hold the same offsets |
//! | is bad, of the older layout, or was not asked | any | nothing is known of where it ends; the next one is not judged |
//! | there is no further one | cursor | missing, when something says that the list reached further; a note as above |
//! | there is none at all | - | missing, when something says that there was one: a note where its last one may have expired |
//!
//! The objects of a compacted instance are told apart by their run: each run is a list of its own, which begins with
//! its first object.

use std::collections::BTreeMap;

use super::aging::Aging;
use super::{Affected, Expiry, Finding, Reason, Severity};
use crate::model::catalog::Facts;
use crate::model::key::{ObjectKey, PartitionPath};
use crate::model::object::{Metadata, ObjectMeta};

/// What is known of a list before its first object is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The uuid of its generation; `None` where there is no record of it, or it was adopted.
    pub uuid: Option<String>,
    /// Where it begins, where that is known.
    pub origin: Option<i64>,
    /// Whether its head may be gone: its oldest objects are old enough.
    pub expiry: Expiry,
    /// What is known of the age at which objects go.
    pub aging: Aging,
    /// Runs of a compacted instance that must be whole, by what their objects carry; others may be on their way in or
    /// out. Where each begins, where that is known.
    pub whole_runs: BTreeMap<String, Option<i64>>,
}

impl Root {
    /// Nothing is known.
    pub fn unknown() -> Self {
        let aging = Aging::Unrecorded(Expiry::Possible);
        Self { uuid: None, origin: None, expiry: Expiry::Possible, aging, whole_runs: BTreeMap::new() }
    }
}

/// Something that says how far a list reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Where it ended, at least (exclusive).
    pub until: i64,
    /// Who says so, for people.
    pub witness: String,
    /// When its last object was written, in milliseconds since 1970-01-01 UTC, where the witness says so.
    pub written_ms: Option<i64>,
}

/// What an object says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is ours, and where its name says it is.
    Ours(Box<ObjectMeta>),
    /// The older layout, which says nothing.
    Older,
    /// Something that cannot be.
    Bad(Reason, String),
    /// It was not asked.
    Unasked,
}

impl Told {
    /// Judges what an object carries, in its metadata or its Avro header, against its name and the list it is in.
    pub fn judge(name: &ObjectKey, metadata: &Metadata, root: &Root) -> Self {
        if !metadata.contains_key("format-version") {
            return Self::Older;
        }
        let meta = match ObjectMeta::from_metadata(metadata) {
            Ok(meta) => meta,
            Err(error) => return Self::Bad(Reason::Metadata, error.to_string()),
        };
        let is_instance = crate::model::key::generation_of(name.path.branch.as_deref()).is_none();
        if !is_instance && !meta.run.is_empty() {
            let why = format!("it belongs to run {} of a compacted topic", meta.run);
            return Self::Bad(Reason::Foreign, why);
        }
        let uuid = root.uuid.as_deref();
        match Facts::judge(name, meta.clone(), uuid) {
            Facts::Bad(why) if uuid.is_some_and(|uuid| uuid != meta.generation) => Self::Bad(Reason::Foreign, why),
            Facts::Bad(why) => Self::Bad(Reason::Metadata, why),
            Facts::Ours(_) | Facts::Older => Self::Ours(Box::new(meta)),
        }
    }
}

/// An object as the listing and its own word show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its key.
    pub key: String,
    /// Where its range starts, as its name says.
    pub offset: i64,
    /// Bytes.
    pub size: u64,
    /// When it was written, in milliseconds since 1970-01-01 UTC.
    pub modified_ms: i64,
    /// Its own word.
    pub told: Told,
}

/// Of an object behind one that has expired and is still there.
const EXPIRING: &str = "it has expired, as has the one in front of it, which is still to be removed";

/// Where a list stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    Begin,
    At(i64),
    Unknown,
}

/// Walks the list of one partition.
#[derive(Debug)]
pub struct Chain {
    path: PartitionPath,
    root: Root,
    /// By run; the one of a generation is called "".
    cursors: BTreeMap<String, Cursor>,
    /// The offset of the last name.
    last: Option<i64>,
    /// A finding that waits for the next name, to know which offsets are affected.
    waiting: Option<Finding>,
    /// Where the first object begins.
    first: Option<i64>,
    /// When the last object was written.
    last_modified_ms: Option<i64>,
    /// Offsets of gap links: never read from Kafka.
    gaps: u64,
}

/// What is known of a list at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Where the first object begins.
    pub first: Option<i64>,
    /// Where the last one ends, where that is known.
    pub next: Option<i64>,
    /// When the last one was written.
    pub written_ms: Option<i64>,
    /// Offsets that were never read from Kafka, as gap links say.
    pub gap_offsets: u64,
}

impl Chain {
    /// Nothing seen yet.
    pub fn new(path: PartitionPath, root: Root) -> Self {
        let (cursors, last_modified_ms) = (BTreeMap::new(), None);
        Self { path, root, cursors, last: None, waiting: None, first: None, last_modified_ms, gaps: 0 }
    }

    /// The folder.
    pub fn path(&self) -> &PartitionPath {
        &self.path
    }

    /// What was known of it.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Whether an object that was written at `modified_ms` and vanishes now may have expired.
    pub fn may_expire(&self, modified_ms: i64) -> bool {
        match &self.root.aging {
            // Where nobody knows, only a head is taken for expired.
            Aging::Unrecorded(expiry) => *expiry == Expiry::Possible && self.first.is_none(),
            recorded @ Aging::Recorded { .. } => recorded.expiry(Some(modified_ms)) == Expiry::Possible,
        }
    }

    /// Whether the object in front has expired and is still there, so that those behind it may be gone already.
    fn is_expiring(&self) -> bool {
        self.root.aging.may_be_gone_behind(self.last_modified_ms)
    }

    /// Takes the next object in the order of the names.
    pub fn next(&mut self, seen: &Seen, findings: &mut Vec<Finding>) {
        self.settle(Some(seen.offset), findings);
        if self.last == Some(seen.offset) {
            let what = "two names mean the same offset".to_owned();
            findings.push(self.finding(Severity::Damage, Reason::Gap, &seen.key, (seen.offset, None), what));
        }
        self.last = Some(seen.offset);
        self.first = Some(self.first.map_or(seen.offset, |first| first.min(seen.offset)));
        match &seen.told {
            _ if seen.size == 0 => {
                let what = "it is empty".to_owned();
                self.waiting = Some(self.finding(Severity::Damage, Reason::Size, &seen.key, (seen.offset, None), what));
                self.lose_track(seen, findings);
            }
            Told::Ours(meta) => self.link(seen, meta, findings),
            Told::Older | Told::Unasked => self.lose_track(seen, findings),
            Told::Bad(reason, why) => {
                self.waiting =
                    Some(self.finding(Severity::Damage, *reason, &seen.key, (seen.offset, None), why.clone()));
                self.lose_track(seen, findings);
            }
        }
        self.last_modified_ms = Some(seen.modified_ms);
    }

    /// An object of ours: it begins where its run stands.
    fn link(&mut self, seen: &Seen, meta: &ObjectMeta, findings: &mut Vec<Finding>) {
        self.gaps += if meta.is_gap() { (meta.next_offset - meta.range_start) as u64 } else { 0 };
        let run = meta.run.as_str();
        match self.cursors.get(run).copied().unwrap_or(Cursor::Begin) {
            Cursor::Begin => self.begin(run, seen.offset, &seen.key, findings),
            Cursor::At(cursor) if seen.offset > cursor => self.missing(run, cursor, seen.offset, findings),
            Cursor::At(cursor) if seen.offset < cursor => {
                let until = cursor.min(meta.next_offset);
                let what = format!("the object in front of it reaches up to offset {cursor}");
                findings.push(self.finding(Severity::Damage, Reason::Gap, &seen.key, (seen.offset, Some(until)), what));
            }
            Cursor::At(_) | Cursor::Unknown => {}
        }
        let before = match self.cursors.get(run) {
            Some(Cursor::At(cursor)) => *cursor,
            _ => i64::MIN,
        };
        self.cursors.insert(run.to_owned(), Cursor::At(before.max(meta.next_offset)));
    }

    /// The first object of a list: where does it stand to its origin?
    fn begin(&self, run: &str, offset: i64, key: &str, findings: &mut Vec<Finding>) {
        let origin = if run.is_empty() { self.root.origin } else { self.root.whole_runs.get(run).copied().flatten() };
        match origin {
            Some(origin) if offset > origin => self.head_missing(run, self.root.expiry, (origin, offset), findings),
            Some(origin) if offset < origin => {
                let what = format!("it lies in front of offset {origin}, where the list begins");
                findings.push(self.finding(Severity::Damage, Reason::Foreign, key, (offset, Some(origin)), what));
            }
            _ => {}
        }
    }

    fn head_missing(&self, run: &str, expiry: Expiry, (from, until): (i64, i64), findings: &mut Vec<Finding>) {
        // Nothing expires in a compacted topic.
        let (severity, what) = match (expiry, &self.root.aging) {
            (Expiry::Possible, _) if run.is_empty() => {
                (Severity::Note, "the oldest objects have expired or were deleted")
            }
            (_, Aging::Recorded { .. }) => {
                (Severity::Damage, "the oldest objects are missing, and they are too young to have expired")
            }
            _ => (Severity::Damage, "the oldest objects are missing, and nothing here expires"),
        };
        let key = self.path.object(from);
        findings.push(self.finding(severity, Reason::Missing, &key, (from, Some(until)), what.to_owned()));
    }

    fn missing(&self, run: &str, from: i64, until: i64, findings: &mut Vec<Finding>) {
        let is_whole = run.is_empty() || self.root.whole_runs.contains_key(run);
        let (severity, what) = match is_whole {
            true if run.is_empty() && self.is_expiring() => (Severity::Note, EXPIRING.to_owned()),
            true => (Severity::Damage, "the object that must begin here is missing".to_owned()),
            false => (Severity::Note, format!("not there: run {run} is on its way in or out")),
        };
        let key = self.path.object(from);
        findings.push(self.finding(severity, Reason::Missing, &key, (from, Some(until)), what));
    }

    /// An object whose end nobody knows. Its name still tells whether the list reaches up to it.
    fn lose_track(&mut self, seen: &Seen, findings: &mut Vec<Finding>) {
        let is_generation = self.root.whole_runs.is_empty();
        match self.cursors.get("").copied().unwrap_or(Cursor::Begin) {
            Cursor::Begin if is_generation && seen.told != Told::Older => {
                self.begin("", seen.offset, &seen.key, findings);
            }
            // It lies within an object that is sound: the list goes on behind that one.
            Cursor::At(cursor) if seen.offset < cursor => return,
            Cursor::At(cursor) if seen.offset > cursor => self.missing("", cursor, seen.offset, findings),
            _ => {}
        }
        // Which run it belongs to is not known either.
        self.cursors.entry(String::new()).or_insert(Cursor::Unknown);
        self.cursors.values_mut().for_each(|cursor| *cursor = Cursor::Unknown);
    }

    /// Gives away the finding that waits, now that the next name is known.
    fn settle(&mut self, next: Option<i64>, findings: &mut Vec<Finding>) {
        if let Some(mut finding) = self.waiting.take() {
            if let Some(affected) = &mut finding.affected {
                affected.until = next.filter(|next| *next > affected.from);
            }
            findings.push(finding);
        }
    }

    /// There are no further objects; `reaches` say how far the list must go.
    pub fn end(mut self, reaches: &[Reach], findings: &mut Vec<Finding>) -> Extent {
        self.settle(None, findings);
        let cursor = self.cursors.get("").copied().unwrap_or(Cursor::Begin);
        let furthest = reaches.iter().max_by_key(|reach| reach.until);
        match (cursor, furthest) {
            (Cursor::At(end), Some(reach)) if reach.until > end => {
                let (severity, what) = match self.is_expiring() {
                    true => (Severity::Note, EXPIRING.to_owned()),
                    false => {
                        let what = format!("the end of the list is missing: {} says that it was there", reach.witness);
                        (Severity::Damage, what)
                    }
                };
                let key = self.path.object(end);
                findings.push(self.finding(severity, Reason::Missing, &key, (end, Some(reach.until)), what));
            }
            (Cursor::Begin, Some(reach)) if self.first.is_none() => {
                let from = self.root.origin.unwrap_or(0);
                let may_be_gone = match reach.written_ms {
                    // The last object is the youngest, and it is gone.
                    Some(written_ms) => self.root.aging.expiry(Some(written_ms)),
                    None => self.root.expiry,
                };
                if reach.until > from {
                    self.head_missing("", may_be_gone, (from, reach.until), findings);
                }
            }
            _ => {}
        }
        let next = match cursor {
            Cursor::At(end) => Some(end),
            Cursor::Begin | Cursor::Unknown => None,
        };
        Extent { first: self.first, next, written_ms: self.last_modified_ms, gap_offsets: self.gaps }
    }

    fn finding(
        &self,
        severity: Severity,
        reason: Reason,
        key: &str,
        (from, until): (i64, Option<i64>),
        what: String,
    ) -> Finding {
        let (path, affected) = (Some(self.path.clone()), Some(Affected { from, until }));
        Finding { severity, reason, key: key.to_owned(), path, affected, what }
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
