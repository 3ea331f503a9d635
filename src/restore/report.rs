//! What a restore tells: the plan, progress while it runs, and what came of it.

use std::fmt::Write as _;

use serde_json::json;

use super::failure::Failure;
use super::groups::GroupReport;
use super::text::{size, table};
use super::write::Outcome;
use crate::clock::rfc3339;
use crate::error::Exit;
use crate::model::restore::{PartitionPlan, Plan, TopicPlan, Totals};

/// How one partition ended.
#[derive(Debug)]
pub struct PartitionReport {
    /// The topic in the backup.
    pub source: String,
    /// The topic on the target.
    pub target: String,
    /// The partition.
    pub partition: i32,
    /// Records to restore: planned, and counted while reading where the plan could not know.
    pub planned: u64,
    /// Records delivered where they belong.
    pub produced: u64,
    /// Of these, records without a timestamp, where only records of some time were asked for.
    pub untimed: u64,
    /// Records read and left out because of their timestamps.
    pub filtered: u64,
    /// Bytes of the objects.
    pub bytes: u64,
    /// One more than the source offset of the last record taken.
    pub next_source_offset: Option<i64>,
    /// Why it ended early; `None` when it did not.
    pub failure: Option<Failure>,
}

impl PartitionReport {
    /// Of a partition's plan and how it went.
    pub fn new(topic: &TopicPlan, plan: &PartitionPlan, outcome: Outcome) -> Self {
        Self {
            source: topic.source.clone(),
            target: topic.target.clone(),
            partition: plan.partition,
            planned: plan.records + outcome.counted,
            produced: outcome.delivered,
            untimed: outcome.untimed,
            filtered: outcome.filtered,
            bytes: plan.bytes,
            next_source_offset: outcome.next_source_offset,
            failure: outcome.failure,
        }
    }

    /// Everything planned was produced.
    pub fn is_complete(&self) -> bool {
        self.failure.is_none() && self.planned == self.produced
    }
}

/// How a restore ended.
#[derive(Debug)]
pub struct Report {
    /// Partition by partition, in the order of the plan.
    pub partitions: Vec<PartitionReport>,
    /// Partitions that were not begun because of a stop.
    pub not_begun: u64,
    /// Records planned for these.
    pub not_begun_records: u64,
    /// What was planned.
    pub totals: Totals,
    /// Keys of objects that somebody deleted from the backup.
    pub missing: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Records that were on the target before.
    pub before: u64,
    /// The signal that ended it.
    pub stopped: Option<Exit>,
    /// What became of consumer groups, where that is asked for.
    pub groups: Option<GroupReport>,
}

impl Report {
    /// Everything planned was produced.
    pub fn is_complete(&self) -> bool {
        self.not_begun == 0 && self.partitions.iter().all(PartitionReport::is_complete)
    }

    /// Everything that the backup holds of what is wanted was produced, and that is something.
    pub fn is_restored(&self) -> bool {
        self.is_complete() && self.produced() > 0
    }

    /// It ended early, and nothing stands against going on with it.
    pub fn can_be_gone_on_with(&self) -> bool {
        !self.is_complete() && self.partitions.iter().filter_map(|p| p.failure.as_ref()).all(Failure::is_passing)
    }

    /// The exit code: that of the signal, 3 when counts differ or the backup itself misses objects, or 10 when reading
    /// showed that nothing matched.
    pub fn exit(&self) -> Exit {
        let groups_left = self.groups.as_ref().is_some_and(|groups| !groups.is_complete());
        match self.stopped {
            _ if self.is_restored() && (groups_left || !self.missing.is_empty()) => Exit::Incomplete,
            _ if self.is_restored() => Exit::Ok,
            _ if self.is_complete() => Exit::NotFound,
            Some(exit) => exit,
            None => Exit::Incomplete,
        }
    }

    /// Records planned, those counted while reading included.
    pub fn planned(&self) -> u64 {
        self.not_begun_records + self.sum(|p| p.planned)
    }

    /// Records delivered.
    pub fn produced(&self) -> u64 {
        self.sum(|p| p.produced)
    }

    fn sum(&self, of: impl Fn(&PartitionReport) -> u64) -> u64 {
        self.partitions.iter().map(of).sum()
    }

    /// The last line of `--json`, and one line before it for each partition that is not complete.
    pub fn json(&self) -> String {
        let mut lines = String::new();
        for partition in self.partitions.iter().filter(|p| !p.is_complete()) {
            let line = json!({
                "message_type": "error",
                "topic": partition.source,
                "target": partition.target,
                "partition": partition.partition,
                "records_planned": partition.planned,
                "records_produced": partition.produced,
                "next_source_offset": partition.next_source_offset,
                "message": partition.failure.as_ref().map(ToString::to_string),
            });
            _ = writeln!(lines, "{line}"); // a String takes everything
        }
        for line in self.groups.iter().flat_map(GroupReport::json) {
            _ = writeln!(lines, "{line}"); // a String takes everything
        }
        let mut summary = json!({
            "message_type": "summary",
            "records_planned": self.planned(),
            "records_produced": self.produced(),
            "records_produced_before": self.before,
            "records_filtered": self.sum(|p| p.filtered),
            "records_without_timestamp": self.sum(|p| p.untimed),
            "partitions": self.totals.partitions,
            "seconds": (self.seconds * 1000.0).round() / 1000.0,
            "bytes": self.totals.bytes,
            "topics": self.totals.topics,
            "objects": self.totals.objects,
            "holes": self.totals.holes,
            "missing_objects": self.missing,
            "complete": self.is_complete(),
        });
        if let Some(groups) = &self.groups {
            summary["consumer_groups"] = groups.summary();
        }
        lines + &summary.to_string()
    }

    /// For a person.
    pub fn text(&self) -> String {
        let mut rows = vec![["SOURCE", "TARGET", "PLANNED", "PRODUCED", "RESULT"].map(str::to_owned)];
        for p in &self.partitions {
            let result = match (&p.failure, p.next_source_offset) {
                (None, _) if p.is_complete() => "ok".to_owned(),
                (None, _) => "counts differ".to_owned(),
                (Some(Failure::Stopped), Some(next)) => format!("stopped in front of source offset {next}"),
                (Some(failure), _) => failure.to_string(),
            };
            let (source, target) = (format!("{}/{}", p.source, p.partition), format!("{}/{}", p.target, p.partition));
            rows.push([source, target, p.planned.to_string(), p.produced.to_string(), result]);
        }
        let mut text = table(&rows);
        if self.not_begun > 0 {
            _ = writeln!(text, "{} partitions were not begun", self.not_begun); // a String takes everything
        }
        for (count, what) in [
            (self.before, "were there from an earlier run"),
            (self.sum(|p| p.filtered), "read and left out: their timestamps are outside"),
            (self.sum(|p| p.untimed), "without a timestamp kept"),
        ] {
            if count > 0 {
                _ = writeln!(text, "{count} records {what}"); // a String takes everything
            }
        }
        for key in &self.missing {
            _ = writeln!(text, "MISSING from the backup, and not restored: {key}"); // a String takes everything
        }
        text.extend(self.groups.iter().map(GroupReport::text));
        let (planned, produced) = (self.planned(), self.produced());
        let verdict = match self.exit() {
            Exit::Ok => "restored",
            Exit::NotFound => "NOTHING MATCHED",
            _ => "INCOMPLETE",
        };
        text + &format!(
            "{verdict}: {produced} of {planned} records, {} partitions, {} in {:.1} s",
            self.totals.partitions,
            size(self.totals.bytes),
            self.seconds
        )
    }
}

/// The plan for a person.
pub fn plan_text(plan: &Plan) -> String {
    let header = ["SOURCE", "TARGET", "OBJECTS", "OFFSETS", "RECORDS", "BYTES", "FROM", "UNTIL", "HOLES", "OVERLAPS"];
    let mut rows = vec![header.map(str::to_owned)];
    let mut notes = String::new();
    for topic in &plan.topics {
        for p in &topic.partitions {
            let time = |ms: Option<i64>| ms.map_or("-".to_owned(), rfc3339);
            rows.push([
                format!("{}/{}", topic.source, p.partition),
                format!("{}/{}", topic.target, p.partition),
                p.objects.len().to_string(),
                offsets(p),
                bounds(p.records, p.records_at_most),
                size(p.bytes),
                time(p.timestamps.map(|t| t.0)),
                time(p.timestamps.map(|t| t.1)),
                p.holes.len().to_string(),
                p.overlaps.to_string(),
            ]);
        }
        if let Some(create) = &topic.create {
            let config: Vec<_> = create.config.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let line = format!("create {} with {} partitions, {}", topic.target, create.partitions, config.join(" "));
            _ = writeln!(notes, "{line}"); // a String takes everything
        }
    }
    for topic in &plan.topics {
        let set = topic.settings.changes.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
        let set = set.collect::<Vec<_>>().join(" ");
        if !set.is_empty() {
            let line =
                format!("settings of {}, for {} at the end with apply_topic_config: {set}", topic.source, topic.target);
            _ = writeln!(notes, "{line}"); // a String takes everything
        }
    }
    for warning in &plan.warnings {
        _ = writeln!(notes, "warning: {warning}"); // a String takes everything
    }
    let totals = plan.totals();
    if totals.skipped_objects > 0 {
        let line = "objects are not read: all they hold is outside of what was asked for";
        _ = writeln!(notes, "{} {line}", totals.skipped_objects); // a String takes everything
    }
    if totals.uncounted_objects > 0 {
        let line =
            "objects are taken in part or do not say how much they hold: their records are counted while reading";
        _ = writeln!(notes, "{} {line}", totals.uncounted_objects); // a String takes everything
    }
    let (partitions, objects) = (totals.partitions, totals.objects);
    let records = bounds(totals.records, totals.records_at_most);
    table(&rows)
        + &notes
        + &format!("{records} records in {partitions} partitions, {objects} objects, {}", size(totals.bytes))
}

/// From the first offset to the last one.
fn offsets(plan: &PartitionPlan) -> String {
    match plan.offsets() {
        Some((first, Some(end))) => format!("{first} to {}", end - 1),
        Some((first, None)) => format!("from {first}"),
        None => "-".to_owned(),
    }
}

/// A number of records that is known exactly, between two limits, or only from below.
fn bounds(least: u64, most: Option<u64>) -> String {
    match most {
        Some(most) if most == least => least.to_string(),
        Some(most) => format!("{least} to {most}"),
        None => format!("at least {least}"),
    }
}
