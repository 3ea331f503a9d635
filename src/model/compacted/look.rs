//! One look at the bucket: what was listed and read goes in, what it means comes out.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Pin, RunRecord, TermObject, TermRecord};
use super::settings::Name;
use super::view::{Offsets, Own, OwnRun, Owner, View};

/// What was listed and read of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Every TERM record; `None` for one that cannot be understood: its number is used up, and it counts for nobody.
    pub terms: BTreeMap<u64, Option<TermRecord>>,
    /// The TERMs that are marked tainted.
    pub taints: BTreeSet<u64>,
    /// The run records of the instance that looks.
    pub runs: BTreeMap<u64, RunRecord>,
    /// The objects of every instance that a TERM names, and of the one that looks, in any order.
    pub objects: BTreeMap<Name, Vec<SeenObject>>,
    /// All pins of the topic.
    pub pins: Vec<Pin>,
}

/// One object, as it was listed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SeenObject {
    /// The partition.
    pub partition: i32,
    /// Where its range starts: its name.
    pub offset: i64,
    /// Bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: Name,
    /// What it says of itself; `None` when it was not asked or cannot be understood: it is of no run then.
    pub facts: Option<ObjectFacts>,
}

/// What an object says of itself, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectFacts {
    /// Its run.
    pub run: Name,
    /// Where its range ends (exclusive).
    pub next_offset: i64,
    /// The end of the partition was seen directly behind it.
    pub at_eof: bool,
    /// It stands for records that Kafka deleted before they were read.
    pub gap: bool,
    /// When it was written, in milliseconds since 1970-01-01 UTC.
    pub written_ms: i64,
}

/// What one look means for `instance`.
pub fn look(seen: &Seen, instance: &Name) -> View {
    let pins = seen.pins.iter().filter(|pin| pin.instance == *instance);
    View {
        last_number: seen.terms.keys().next_back().copied().unwrap_or(0),
        ever_titled: seen.terms.values().any(|term| term.as_ref().is_none_or(|term| !term.void)),
        owner: newest(seen),
        own: own(seen, instance),
        pinned_until_ms: pins.map(|pin| pin.expires_ms).max(),
    }
}

/// The highest valid TERM: not void, and every object it lists exists as it was.
pub fn newest(seen: &Seen) -> Option<Owner> {
    let term = seen.terms.values().rev().flatten().find(|term| is_valid(term, &seen.objects))?;
    let (mut reached, mut gap) = (Offsets::new(), false);
    for (number, partition) in &term.partitions {
        let behind = partition.objects.last().map_or(partition.from, |last| last.next_offset);
        let list = chain(objects(seen, &term.instance), &term.run, *number, behind);
        gap |= list.iter().any(|(object, facts)| facts.gap && object.offset > partition.from);
        let at_eof = list.iter().rev().find(|(_, facts)| facts.at_eof).map(|(_, facts)| facts.next_offset);
        reached.insert(*number, at_eof.unwrap_or(partition.to).max(partition.to));
    }
    Some(Owner {
        number: term.term,
        instance: term.instance.clone(),
        run: term.run.clone(),
        created_ms: term.created_ms,
        tainted: seen.taints.contains(&term.term),
        gap,
        reached,
    })
}

/// Whether the highest TERM that is not void does not count. Records are listed before objects, so that is damage, or what a
/// look shows that a turn ended in: in between its objects were deleted, and then there is a higher TERM by now.
pub fn newest_does_not_count(seen: &Seen) -> bool {
    let newest = seen.terms.values().rev().flatten().find(|term| !term.void);
    newest.is_some_and(|term| !is_valid(term, &seen.objects))
}

/// Whether a TERM counts: it is not void, and every object that it lists exists, unchanged.
pub fn is_valid(term: &TermRecord, objects: &BTreeMap<Name, Vec<SeenObject>>) -> bool {
    let there = objects.get(&term.instance).map(Vec::as_slice).unwrap_or_default();
    let there: BTreeMap<(i32, i64), &SeenObject> =
        there.iter().map(|object| ((object.partition, object.offset), object)).collect();
    let exists = |number: i32, listed: &TermObject| {
        let found = there.get(&(number, listed.offset));
        found.is_some_and(|found| found.size == listed.size && found.etag == listed.etag)
    };
    !term.void && term.partitions.iter().all(|(number, partition)| partition.objects.iter().all(|o| exists(*number, o)))
}

fn objects<'a>(seen: &'a Seen, instance: &Name) -> &'a [SeenObject] {
    seen.objects.get(instance).map(Vec::as_slice).unwrap_or_default()
}

/// The unbroken list of the objects of `run` in one partition, from the one that begins at `from` on.
pub(super) fn chain<'a>(
    all: &'a [SeenObject],
    run: &Name,
    partition: i32,
    from: i64,
) -> Vec<(&'a SeenObject, &'a ObjectFacts)> {
    let of_run = |object: &&'a SeenObject| {
        object.partition == partition && object.facts.as_ref().is_some_and(|facts| facts.run == *run)
    };
    let mut candidates: Vec<&SeenObject> = all.iter().filter(of_run).collect();
    candidates.sort_by_key(|object| object.offset);
    let mut next = from;
    let mut list = Vec::new();
    for object in candidates {
        let Some(facts) = object.facts.as_ref().filter(|_| object.offset == next) else { continue };
        next = facts.next_offset;
        list.push((object, facts));
    }
    list
}

fn own(seen: &Seen, instance: &Name) -> Own {
    let all = objects(seen, instance);
    let Some(record) = seen.runs.values().next_back() else {
        return Own { run: None, strays: !all.is_empty() };
    };
    let is_of_run = |object: &SeenObject| object.facts.as_ref().is_some_and(|facts| facts.run == record.run);
    let strays = all.iter().any(|object| !is_of_run(object));
    Own { run: Some(own_run(seen, record, all, all.iter().any(is_of_run))), strays }
}

fn own_run(seen: &Seen, record: &RunRecord, all: &[SeenObject], has_objects: bool) -> OwnRun {
    let of_run = |term: &&TermRecord| term.instance == record.instance && term.run == record.run;
    let mut terms = seen.terms.values().flatten().filter(of_run);
    let title = terms.clone().rev().find(|term| !term.void);
    let mut stored = record.origins.clone();
    let mut restorable: Offsets =
        title.iter().flat_map(|term| &term.partitions).map(|(number, partition)| (*number, partition.to)).collect();
    let mut seen_end_ms = title.map(|term| term.scan_ended_ms);
    let partitions: BTreeSet<i32> =
        all.iter().map(|object| object.partition).chain(restorable.keys().copied()).collect();
    let (mut oldest, mut gap) = (None, false);
    for number in partitions {
        let list = chain(all, &record.run, number, record.origin(number));
        stored.insert(number, list.last().map_or(record.origin(number), |(_, last)| last.next_offset));
        // Where nothing was read before, nothing that was read can have become wrong.
        gap |= list.iter().any(|(object, facts)| facts.gap && object.offset > record.origin(number));
        let at_eof = list.iter().rev().find(|(_, facts)| facts.at_eof).map(|(_, facts)| *facts);
        if let Some(facts) = at_eof {
            let end = restorable.entry(number).or_insert(facts.next_offset);
            *end = facts.next_offset.max(*end);
        }
        let written = at_eof.map_or(i64::MIN, |facts| facts.written_ms);
        oldest = Some(oldest.unwrap_or(i64::MAX).min(written));
    }
    seen_end_ms = seen_end_ms.map(|ended| ended.max(oldest.unwrap_or(ended)));
    OwnRun {
        number: record.number,
        run: record.run.clone(),
        started_ms: record.started_ms,
        after_term: record.after_term,
        titled: title.map(|term| term.term),
        voided: terms.any(|term| term.void),
        objects: has_objects,
        intact: title.is_some_and(|term| is_valid(term, &seen.objects)),
        stored,
        gap,
        restorable,
        seen_end_ms,
    }
}
