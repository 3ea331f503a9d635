//! What a verification says: findings as they are made, progress meanwhile, and a summary at its end.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::Result;
use crate::model::key::generation_of;
use crate::model::verify::subset::Subset;
use crate::model::verify::{Finding, Mode, Reason, Severity};
use crate::restore::stop::Stop;
use crate::restore::text::{print, size};

/// What was seen of each job.
pub type Tallies = BTreeMap<String, Tally>;

/// What was seen of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lists of partitions that have objects.
    pub partitions: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Objects that were read and decoded.
    pub read_objects: u64,
    /// Bytes of these.
    pub read_bytes: u64,
    /// Records in these.
    pub records: u64,
    /// Offsets that were never read from Kafka, as gap links say.
    pub gap_offsets: u64,
    /// Findings that somebody must act upon.
    pub bad: BTreeMap<Reason, u64>,
    /// Findings that are only worth knowing.
    pub notes: u64,
}

/// Collects and prints.
pub struct Report {
    mode: Mode,
    subset: Option<Subset>,
    json: bool,
    began: Instant,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    topics: u64,
    jobs: Tallies,
    /// The first failure to print, which ends the command.
    unprintable: Option<crate::error::Error>,
}

impl Report {
    /// Nothing seen yet.
    pub fn new(mode: Mode, subset: Option<Subset>, json: bool) -> Self {
        Self { mode, subset, json, began: Instant::now(), seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self, job: &str, change: impl FnOnce(&mut Tally)) {
        let mut seen = self.seen();
        if !seen.jobs.contains_key(job) {
            seen.jobs.insert(job.to_owned(), Tally::default());
        }
        seen.jobs.entry(job.to_owned()).and_modify(change);
    }

    /// A topic is done.
    pub fn topic(&self) {
        self.seen().topics += 1;
    }

    /// A partition's list is done.
    pub fn partition(&self, job: &str, gap_offsets: u64) {
        self.tally(job, |tally| {
            tally.partitions += 1;
            tally.gap_offsets += gap_offsets;
        });
    }

    /// An object was seen.
    pub fn object(&self, job: &str, bytes: u64) {
        self.tally(job, |tally| {
            tally.objects += 1;
            tally.bytes += bytes;
        });
    }

    /// An object was read to its end.
    pub fn read(&self, job: &str, bytes: u64, records: u64) {
        self.tally(job, |tally| {
            tally.read_objects += 1;
            tally.read_bytes += bytes;
            tally.records += records;
        });
    }

    /// Something was found: counted and printed.
    pub fn finding(&self, job: &str, finding: &Finding) {
        self.tally(job, |tally| match finding.severity {
            Severity::Damage => *tally.bad.entry(finding.reason).or_default() += 1,
            Severity::Note => tally.notes += 1,
        });
        let text = if self.json { finding_json(finding).to_string() } else { finding_text(finding) };
        let printed = print(&text);
        if let Err(error) = printed {
            self.seen().unprintable.get_or_insert(error);
        }
    }

    /// What was seen of each job.
    pub fn tallies(&self) -> Tallies {
        self.seen().jobs.clone()
    }

    /// Findings that somebody must act upon.
    pub fn damaged(&self) -> u64 {
        self.seen().jobs.values().flat_map(|tally| tally.bad.values()).sum()
    }

    /// All jobs together.
    fn sum(&self) -> (u64, Tally) {
        let seen = self.seen();
        let mut sum = Tally::default();
        for tally in seen.jobs.values() {
            sum.partitions += tally.partitions;
            sum.objects += tally.objects;
            sum.bytes += tally.bytes;
            sum.read_objects += tally.read_objects;
            sum.read_bytes += tally.read_bytes;
            sum.records += tally.records;
            sum.gap_offsets += tally.gap_offsets;
            sum.notes += tally.notes;
            tally.bad.iter().for_each(|(reason, count)| *sum.bad.entry(*reason).or_default() += count);
        }
        (seen.topics, sum)
    }

    /// Shows progress until it is dropped: in place on a terminal, else once a minute, to stderr; with JSON as lines of
    /// the result.
    pub async fn progress(&self, stop: &Stop) {
        let terminal = std::io::stderr().is_terminal() && !self.json;
        loop {
            stop.progress_due(Duration::from_secs(if terminal { 1 } else { 60 })).await;
            let (topics, sum) = self.sum();
            let seconds = self.began.elapsed().as_secs_f64();
            if self.json {
                // A reader that has gone away shows at the end.
                _ = print(&self.counts("status", topics, &sum).to_string());
                continue;
            }
            let rate = size((sum.read_bytes as f64 / seconds.max(0.001)) as u64);
            let bad: u64 = sum.bad.values().sum();
            let line = format!(
                "{} objects seen, {} read ({}, {rate}/s), {bad} bad",
                sum.objects,
                sum.read_objects,
                size(sum.read_bytes)
            );
            // Nobody to read it is no reason to stop.
            _ = if terminal {
                write!(std::io::stderr(), "\r{line}\x1b[K")
            } else {
                writeln!(std::io::stderr(), "{line}")
            };
        }
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn end(&self, complete: bool, stored: bool) -> Result<()> {
        let (topics, sum) = self.sum();
        if let Some(error) = self.seen().unprintable.take() {
            return Err(error);
        }
        if self.json {
            let mut summary = self.counts("summary", topics, &sum);
            summary["complete"] = complete.into();
            summary["result_stored"] = stored.into();
            return print(&summary.to_string());
        }
        print(&self.text(complete, topics, &sum))
    }

    fn counts(&self, message_type: &str, topics: u64, sum: &Tally) -> Value {
        let seconds = self.began.elapsed().as_secs_f64();
        json!({
            "message_type": message_type,
            "schema_version": 1,
            "mode": self.mode,
            "subset": self.subset.map(|subset| subset.to_string()),
            "topics": topics,
            "partitions": sum.partitions,
            "objects": sum.objects,
            "bytes": sum.bytes,
            "objects_read": sum.read_objects,
            "bytes_read": sum.read_bytes,
            "records": sum.records,
            "gap_offsets": sum.gap_offsets,
            "damaged": sum.bad.values().sum::<u64>(),
            "reasons": sum.bad.iter().map(|(reason, n)| (reason.name().to_owned(), json!(n))).collect::<serde_json::Map<_, _>>(),
            "notes": sum.notes,
            "seconds": (seconds * 1000.0).round() / 1000.0,
        })
    }

    fn text(&self, complete: bool, topics: u64, sum: &Tally) -> String {
        let bad: u64 = sum.bad.values().sum();
        let verdict = match (bad, complete) {
            (0, true) => "sound",
            (0, false) => "INCOMPLETE",
            _ => "DAMAGED",
        };
        let mut text = format!(
            "{verdict} ({}): {topics} topics, {} partitions, {} objects, {}",
            self.mode.name(),
            sum.partitions,
            sum.objects,
            size(sum.bytes)
        );
        if self.mode == Mode::Data {
            let subset = self.subset.map_or(String::new(), |subset| format!(" (subset {subset})"));
            text += &format!(
                "; read {} objects, {}, {} records{subset}",
                sum.read_objects,
                size(sum.read_bytes),
                sum.records
            );
        }
        for (count, what) in [
            (bad, "bad"),
            (sum.notes, "notes"),
            (sum.gap_offsets, "offsets were deleted by Kafka before they were read"),
        ] {
            if count > 0 {
                text += &format!("; {count} {what}");
            }
        }
        text + &format!(", {:.1} s", self.began.elapsed().as_secs_f64())
    }
}

fn finding_json(finding: &Finding) -> Value {
    let branch = finding.path.as_ref().map(|path| path.branch.as_deref());
    let generation = branch.and_then(generation_of);
    json!({
        "message_type": "finding",
        "severity": finding.severity,
        "reason": finding.reason,
        "object": finding.key,
        "topic": finding.path.as_ref().map(|path| path.topic.as_str()),
        "generation": generation,
        "instance": branch.flatten().filter(|_| generation.is_none()),
        "partition": finding.path.as_ref().map(|path| path.partition),
        "from_offset": finding.affected.map(|affected| affected.from),
        "until_offset": finding.affected.and_then(|affected| affected.until),
        "message": finding.what,
        "advice": finding.advice(),
    })
}

fn finding_text(finding: &Finding) -> String {
    let word = match finding.severity {
        Severity::Damage => "DAMAGE",
        Severity::Note => "note",
    };
    let place = finding.path.as_ref().map_or(String::new(), |path| format!("{}/{}, ", path.topic, path.partition));
    let affected = finding.affected.map_or(String::new(), |affected| format!("{affected}, "));
    let line = format!("{word} [{}] {place}{affected}{}: {}", finding.reason.name(), finding.key, finding.what);
    match finding.severity {
        Severity::Damage => format!("{line}\n  next: {}", finding.advice()),
        Severity::Note => line,
    }
}
