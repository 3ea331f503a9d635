//! What the records of a compacted topic say must be there: the TERMs, the run of the newest one, and its objects.
//!
//! | a record | is |
//! |---|---|
//! | the highest TERM that is readable and not void | the newest: every object that it lists must exist, unchanged |
//! | a lower TERM | history: its objects were deleted by right, when the newest was proved complete |
//! | a TERM that cannot be read, above the newest | damage: nobody knows whose snapshot it is, or whether it is void |
//! | the same, below | a note: it counts for nobody any longer |
//! | a number without a record, below the highest | as one that cannot be read: TERMs are never deleted |
//! | the record of the newest TERM's run | must be there: it is the root of the lists, and a restore reads it |
//! | a record of a run that cannot be read | damage: neither a restore nor the instance goes on without it |
//!
//! Where a TERM above the newest cannot be read, missing objects of the newest are a note: they may have been deleted
//! by right. What is damaged then is that TERM.

use std::collections::{BTreeMap, BTreeSet};

use super::{Affected, Finding, Reason, Severity};
use crate::model::compacted::look::{Seen, SeenObject};
use crate::model::compacted::record::{self, RecordError, RunRecord, TermObject, TermRecord};
use crate::model::key::PartitionPath;

/// The records of runs, by their keys, each with what is wrong with it.
pub type Runs = BTreeMap<String, Result<RunRecord, RecordError>>;

/// The highest TERM that can be read and is not void.
pub fn newest(seen: &Seen) -> Option<&TermRecord> {
    seen.terms.values().rev().flatten().find(|term| !term.void)
}

/// The record of the run of a TERM.
pub fn run_of<'a>(term: &TermRecord, runs: &'a Runs) -> Option<&'a RunRecord> {
    runs.values().flatten().find(|run| run.instance == term.instance && run.run == term.run)
}

/// The runs that must be whole in one partition of an instance, and where each list begins: that of the newest TERM.
pub fn whole_runs(seen: &Seen, runs: &Runs, path: &PartitionPath) -> BTreeMap<String, Option<i64>> {
    let term = newest(seen).filter(|term| path.branch.as_deref() == Some(&*term.instance));
    let origin = |term: &TermRecord| match run_of(term, runs) {
        Some(run) => Some(run.origin(path.partition)),
        None => term.partitions.get(&path.partition).map(|partition| partition.from),
    };
    term.map(|term| (term.run.to_string(), origin(term))).into_iter().collect()
}

/// What is wrong with the records of `topic`, and with the objects that its newest TERM relies on.
pub fn judge(topic: &str, seen: &Seen, runs: &Runs) -> Vec<Finding> {
    let mut findings = records(topic, seen, runs);
    if let Some(term) = newest(seen) {
        let is_superseded = unknown(seen).any(|number| number > term.term);
        let severity = if is_superseded { Severity::Note } else { Severity::Damage };
        let there = seen.objects.get(&term.instance).map(Vec::as_slice).unwrap_or_default();
        let there: BTreeMap<(i32, i64), &SeenObject> = there.iter().map(|o| ((o.partition, o.offset), o)).collect();
        for (number, partition) in &term.partitions {
            for listed in &partition.objects {
                let found = there.get(&(*number, listed.offset)).copied();
                findings.extend(object(term, *number, listed, found, severity));
            }
        }
    }
    findings
}

/// Numbers of TERMs up to the highest of which nobody knows what they say.
fn unknown(seen: &Seen) -> impl Iterator<Item = u64> {
    let last = seen.terms.keys().next_back().copied().unwrap_or(0);
    (1..=last).filter(|number| seen.terms.get(number).is_none_or(Option::is_none))
}

fn records(topic: &str, seen: &Seen, runs: &Runs) -> Vec<Finding> {
    let newest = newest(seen);
    let mut findings = Vec::new();
    for number in unknown(seen) {
        let is_history = newest.is_some_and(|newest| number < newest.term);
        let severity = if is_history { Severity::Note } else { Severity::Damage };
        let (reason, what) = match seen.terms.contains_key(&number) {
            true => (Reason::Decode, format!("TERM {number} cannot be read: it counts for nobody")),
            false => (Reason::Missing, format!("TERM {number} is missing, and TERMs are never deleted")),
        };
        findings.push(of_record(severity, reason, record::term_key(topic, number), what));
    }
    for (key, run) in runs {
        if let Err(error) = run {
            findings.push(of_record(Severity::Damage, Reason::Decode, key.clone(), error.why.clone()));
        }
    }
    // One that cannot be read may be the one that is looked for.
    if let Some(term) = newest.filter(|term| run_of(term, runs).is_none() && runs.values().all(Result::is_ok)) {
        let key = format!("{}RUN-{}-", record::folder(topic), term.instance);
        let what = format!("no record of run {} is there, which TERM {} is about", term.run, term.term);
        findings.push(of_record(Severity::Damage, Reason::Missing, key, what));
    }
    findings
}

fn of_record(severity: Severity, reason: Reason, key: String, what: String) -> Finding {
    Finding { severity, reason, key, path: None, affected: None, what }
}

/// What has become of an object that a TERM lists.
fn object(
    term: &TermRecord,
    partition: i32,
    listed: &TermObject,
    found: Option<&SeenObject>,
    severity: Severity,
) -> Option<Finding> {
    let (number, instance) = (term.term, &term.instance);
    let until = "until it is back, or kafka-backup swap has made another one, that snapshot cannot be restored";
    let (reason, what) = match found {
        None => (Reason::Missing, format!("TERM {number} of instance {instance} relies on it; {until}")),
        Some(found) if found.size != listed.size => {
            let what = format!(
                "TERM {number} of instance {instance} lists it with {} bytes, it has {}",
                listed.size, found.size
            );
            (Reason::Size, format!("{what}; {until}"))
        }
        Some(found) if found.etag != listed.etag => {
            let what = format!("it is not the object that TERM {number} of instance {instance} lists");
            (Reason::Checksum, format!("{what}: its entity tag is another one; {until}"))
        }
        Some(_) => return None,
    };
    let path = PartitionPath::of_instance(&term.topic, instance, partition);
    let affected = Some(Affected { from: listed.offset, until: Some(listed.next_offset) });
    Some(Finding { severity, reason, key: path.object(listed.offset), path: Some(path), affected, what })
}

/// What is said in the end of a compacted topic: `held` is what was seen in the lists of its instances, `judged` what
/// [`judge`] says of a look behind that, and `turned` whether the newest TERM is another one than before. Then what was
/// missing had been deleted by right, and `judged` alone knows what is missed.
pub fn settle(held: Vec<Finding>, judged: Vec<Finding>, turned: bool) -> Vec<Finding> {
    let is_missing = |finding: &Finding| finding.reason == Reason::Missing && finding.severity == Severity::Damage;
    let (missing, mut findings): (Vec<_>, Vec<_>) = held.into_iter().partition(is_missing);
    if !turned {
        // Who knows the TERM says it better than the list around the hole; what it does not know of comes from there.
        let named: BTreeSet<&String> = judged.iter().map(|finding| &finding.key).collect();
        findings.extend(missing.into_iter().filter(|finding| !named.contains(&finding.key)));
    }
    let said: BTreeSet<(String, Reason)> =
        findings.iter().map(|finding| (finding.key.clone(), finding.reason)).collect();
    findings.extend(judged.into_iter().filter(|finding| !said.contains(&(finding.key.clone(), finding.reason))));
    findings
}

#[cfg(test)]
#[path = "terms_tests.rs"]
mod tests;
