//! The restore plan: what is taken from which object and put where, and every reason not to begin.
//!
//! [`plan`] is given what the store holds ([`Catalog`]) and what the target is ([`Target`]) and decides; nothing is
//! produced before it has agreed. It finds all reasons to refuse at once.

pub mod change;
pub mod limits;
pub mod mapping;
mod refusal;
pub mod saved;
pub mod settings;
pub mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use self::mapping::{Mapping, Pattern, Rename, Selection};
pub use self::refusal::{Refusal, refused};
pub use self::settings::Create;
use self::settings::Settings;
use self::window::{Cover, Offsets, Times};
use super::catalog::{Catalog, Facts, Hole, Segment, StoredObject, TopicBackup, Walk};
use super::key::{self, PartitionPath};
use super::verify::Expiry;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which topics, and what they are called on the target.
    pub topics: Vec<Mapping>,
    /// Which generation; `None` is the newest of each topic. What parents hold below their forks always belongs to it.
    pub generation: Option<u32>,
    /// Only these partitions of these source topics; `None` is all.
    pub partitions: Option<BTreeSet<(String, i32)>>,
    /// Only records of this time.
    pub times: Times,
    /// Only these offsets, by source topic and partition; partitions that are not named are taken whole.
    pub offsets: BTreeMap<(String, i32), Offsets>,
    /// Topics that are not there are created.
    pub create_topics: bool,
    /// Replicas of created topics; `None` is the broker's default.
    pub replication_factor: Option<i32>,
    /// A target that holds records is appended to instead of refused.
    pub append: bool,
    /// The source's own topic on the source's own cluster is allowed as a target.
    pub in_place: bool,
    /// At the end the targets get the settings of their sources.
    pub apply_topic_config: bool,
    /// Now, in milliseconds since 1970-01-01 UTC: timestamp limits of the target are relative to it.
    pub now_ms: i64,
}

/// What is known of the target cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// Its cluster id, empty when the broker does not tell.
    pub cluster_id: String,
    /// The target topics that exist.
    pub topics: BTreeMap<String, TargetTopic>,
}

/// What is known of one target topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetTopic {
    /// Kafka's topic id; `None` with brokers that have none.
    pub id: Option<String>,
    /// Low and high watermark by partition.
    pub offsets: Vec<(i64, i64)>,
    /// Its settings, defaults included.
    pub config: BTreeMap<String, String>,
    /// What the user may not do with it.
    pub denied: Denied,
}

/// What the user may not do with a topic. A broker that does not tell denies nothing as yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Denied {
    /// Produce: WRITE.
    pub write: bool,
    /// Consume: READ.
    pub read: bool,
    /// Change its settings: ALTER_CONFIGS.
    pub alter_configs: bool,
}

impl Denied {
    /// Refuses what cannot be done at all without a permission, and warns of what cannot be done later.
    pub fn check(self, topic: &str, apply_topic_config: bool, refusals: &mut Vec<Refusal>, warnings: &mut Vec<String>) {
        let mut refuse = |denied: bool, permission: &'static str| {
            if denied {
                refusals.push(Refusal::NotPermitted { topic: topic.to_owned(), permission });
            }
        };
        refuse(self.write, "WRITE");
        refuse(self.alter_configs && apply_topic_config, "ALTER_CONFIGS");
        if self.read {
            warnings.push(format!(
                "{topic}: this user has no READ permission, so that a restore that is interrupted cannot be gone on with"
            ));
        }
    }
}

/// What a restore will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// By topic, in the order of the request.
    pub topics: Vec<TopicPlan>,
    /// What is worth knowing but no reason not to begin.
    pub warnings: Vec<String>,
}

/// What is done for one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPlan {
    /// Its name in the backup.
    pub source: String,
    /// Its name on the target.
    pub target: String,
    /// Kafka's topic id of the target; `None` before it is created and with brokers that have none.
    pub target_id: Option<String>,
    /// The generations it is read from, newest first.
    pub generations: Vec<u32>,
    /// How the target is created; `None` where it exists.
    pub create: Option<Create>,
    /// What is done per partition, in their order; partitions without objects are among them.
    pub partitions: Vec<PartitionPlan>,
    /// What the target must be able to take.
    pub needs: limits::Needs,
    /// The settings that the target gets at the end, where that is asked for.
    pub settings: Settings,
}

/// What is done for one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPlan {
    /// The partition, the same on both sides.
    pub partition: i32,
    /// The offset that the first restored record gets.
    pub base_offset: i64,
    /// The objects in the order in which they are read.
    pub objects: Vec<Take>,
    /// Offsets that nobody has.
    pub holes: Vec<Hole>,
    /// Keys of objects that somebody deleted: those that began where such a hole begins.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Objects that repeat offsets of those before them; what they repeat is left out.
    #[serde(default)]
    pub overlaps: u64,
    /// Only records of this time.
    pub times: Times,
    /// Records of the objects that say how many they have and are taken whole: so many at least, and exactly so many
    /// without uncounted objects.
    pub records: u64,
    /// So many records at most; `None` with objects of the older layout, which do not say how many they have.
    pub records_at_most: Option<u64>,
    /// Objects whose records are counted only when they are read: of the older layout, or taken in part.
    pub uncounted_objects: u64,
    /// Objects left unread, because all of their records are outside of the time or the offsets asked for.
    pub skipped_objects: u64,
    /// Bytes to read.
    pub bytes: u64,
    /// Smallest and largest record timestamp of what is taken, where objects say so.
    pub timestamps: Option<(i64, i64)>,
}

/// What is taken from one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Entity tag: the object that is read must be the one that was planned.
    pub etag: String,
    /// Hash of the whole object in hex; empty when not known.
    pub sha256: String,
    /// The first offset taken.
    pub from: i64,
    /// Where the taking ends (exclusive).
    pub until: i64,
    /// Records in the whole object, where it says so.
    pub object_records: Option<u64>,
    /// Records taken, where known before reading.
    pub records: Option<u64>,
}

impl Take {
    /// Whether a record is taken. `next` is one more than the largest offset taken from this partition so far: what
    /// overlapping objects repeat is left out.
    pub fn takes(&self, offset: i64, next: i64) -> bool {
        offset >= next && (self.from..self.until).contains(&offset)
    }

    /// Records taken at most, where known.
    fn at_most(&self) -> Option<u64> {
        let offsets = self.until.checked_sub(self.from).unwrap_or(i64::MAX) as u64; // the range is not empty
        self.records.or(self.object_records.map(|records| records.min(offsets)))
    }
}

/// Sums over a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Topics.
    pub topics: u64,
    /// Partitions that have something to restore.
    pub partitions: u64,
    /// Objects to read.
    pub objects: u64,
    /// Bytes to read.
    pub bytes: u64,
    /// Records known before reading.
    pub records: u64,
    /// So many records at most; `None` where nobody knows before reading.
    pub records_at_most: Option<u64>,
    /// Objects whose records are counted while reading.
    pub uncounted_objects: u64,
    /// Objects left unread.
    pub skipped_objects: u64,
    /// Holes.
    pub holes: u64,
    /// Objects that somebody deleted, at least.
    pub missing_objects: u64,
}

impl Plan {
    /// Keys of objects that somebody deleted, as far as they are known, in the order of the plan.
    pub fn missing(&self) -> impl Iterator<Item = &String> {
        self.topics.iter().flat_map(|topic| &topic.partitions).flat_map(|partition| &partition.missing)
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        let topics = self.topics.len() as u64;
        let mut totals = Totals { topics, records_at_most: Some(0), ..Totals::default() };
        for partition in self.topics.iter().flat_map(|topic| &topic.partitions) {
            totals.partitions += u64::from(!partition.objects.is_empty());
            totals.objects += partition.objects.len() as u64;
            totals.bytes += partition.bytes;
            totals.records += partition.records;
            totals.records_at_most = sum(totals.records_at_most, partition.records_at_most);
            totals.uncounted_objects += partition.uncounted_objects;
            totals.skipped_objects += partition.skipped_objects;
            totals.holes += partition.holes.len() as u64;
            totals.missing_objects += partition.missing.len() as u64;
        }
        totals
    }
}

/// The sum of two numbers that are known.
fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    Some(a? + b?)
}

/// Decides what is restored, or says everything that stands against it.
pub fn plan(request: &Request, catalog: &Catalog, target: &Target) -> Result<Plan, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut plan = Plan { topics: Vec::new(), warnings: Vec::new() };
    mapping::check_targets(&request.topics, &mut refusals);
    check_partition_filter(request, catalog, &mut refusals);
    for mapping in &request.topics {
        let Some((backup, generation)) = source(request, catalog, mapping, &mut refusals) else { continue };
        let topic = plan_topic(request, mapping, backup, generation, target, &mut refusals);
        check_target(request, &topic, backup, generation, target, &mut refusals, &mut plan.warnings);
        plan.topics.push(topic);
    }
    let totals = plan.totals();
    if refusals.is_empty() && totals.records == 0 && totals.uncounted_objects == 0 {
        refusals.push(Refusal::NothingMatched);
    }
    if refusals.is_empty() { Ok(plan) } else { Err(refusals) }
}

/// The source of a mapping and the generation to take.
fn source<'a>(
    request: &Request,
    catalog: &'a Catalog,
    mapping: &Mapping,
    refusals: &mut Vec<Refusal>,
) -> Option<(&'a TopicBackup, u32)> {
    let topic = mapping.source.clone();
    let Some(backup) = catalog.topics.get(&topic) else {
        refusals.push(Refusal::NoSuchTopic { topic });
        return None;
    };
    let Some(newest) = backup.newest() else {
        refusals.push(Refusal::OnlyInstances { topic });
        return None;
    };
    let generation = request.generation.unwrap_or(newest);
    if !backup.has(generation) {
        refusals.push(Refusal::NoSuchGeneration { topic, generation, newest });
        return None;
    }
    Some((backup, generation))
}

/// Partitions that are asked for by number must be there.
fn check_partition_filter(request: &Request, catalog: &Catalog, refusals: &mut Vec<Refusal>) {
    let planned = |of: &(String, i32)| request.partitions.as_ref().is_none_or(|partitions| partitions.contains(of));
    for of in request.offsets.keys().filter(|of| !planned(of)) {
        refusals.push(Refusal::PartitionLeftOut { topic: of.0.clone(), partition: of.1 });
    }
    let named = request.partitions.iter().flatten().chain(request.offsets.keys()).collect::<BTreeSet<_>>();
    for (topic, partition) in named {
        let backup = catalog.topics.get(topic).filter(|_| request.topics.iter().any(|m| m.source == *topic));
        let partitions = backup.map_or(0, |b| b.partitions(request.generation.or(b.newest()).unwrap_or(1)));
        if !(0..i64::from(partitions)).contains(&i64::from(*partition)) {
            refusals.push(Refusal::NoSuchPartition { topic: topic.clone(), partition: *partition, partitions });
        }
    }
}

fn plan_topic(
    request: &Request,
    mapping: &Mapping,
    backup: &TopicBackup,
    generation: u32,
    target: &Target,
    refusals: &mut Vec<Refusal>,
) -> TopicPlan {
    let count = backup.partitions(generation);
    let existing = target.topics.get(&mapping.target);
    let wanted = |p: &i32| match &request.partitions {
        None => true,
        Some(filter) => filter.contains(&(mapping.source.clone(), *p)),
    };
    let mut needs = limits::Needs::default();
    let mut partitions = Vec::new();
    for partition in (0..count as i32).filter(wanted) {
        let base = existing.and_then(|t| t.offsets.get(partition as usize)).map_or(0, |(_, high)| *high);
        let offsets = request.offsets.get(&(mapping.source.clone(), partition)).copied().unwrap_or_default();
        let mut plan = PartitionPlan::new(partition, base, request.times);
        plan.fill((&mapping.source, backup), generation, &offsets.range(), &mut needs, refusals);
        partitions.push(plan);
    }
    let create = existing.is_none().then(|| Create {
        partitions: count,
        replication_factor: request.replication_factor,
        config: limits::created_config(&needs, backup.records.get(&generation), request.now_ms),
    });
    let (source, target) = (mapping.source.clone(), mapping.target.clone());
    let target_id = existing.and_then(|topic| topic.id.clone());
    let settings = Settings::decide(&own_settings(backup, generation), create.as_ref());
    TopicPlan {
        source,
        target,
        target_id,
        generations: backup.lineage(generation),
        create,
        partitions,
        needs,
        settings,
    }
}

/// The settings of the source's own when its generation began.
fn own_settings(backup: &TopicBackup, generation: u32) -> BTreeMap<String, String> {
    backup.records.get(&generation).map(|record| record.topic_config.clone()).unwrap_or_default()
}

impl PartitionPlan {
    /// Nothing to take yet.
    fn new(partition: i32, base_offset: i64, times: Times) -> Self {
        Self {
            partition,
            base_offset,
            objects: Vec::new(),
            holes: Vec::new(),
            missing: Vec::new(),
            overlaps: 0,
            times,
            records: 0,
            records_at_most: Some(0),
            uncounted_objects: 0,
            skipped_objects: 0,
            bytes: 0,
            timestamps: None,
        }
    }

    /// Takes what is wanted of a partition's backup.
    fn fill(
        &mut self,
        (topic, backup): (&str, &TopicBackup),
        generation: u32,
        offsets: &Range<i64>,
        needs: &mut limits::Needs,
        refusals: &mut Vec<Refusal>,
    ) {
        let segments = backup.segments(generation, self.partition);
        let head = |segment: &Segment<'_>| backup.head_expiry(segment.generation);
        let (from, oldest) = segments.first().map_or((0, Expiry::Possible), |s| (s.range.start, head(s)));
        let mut walk = Walk::new(from, &backup.aging, oldest);
        for segment in &segments {
            walk.fork(segment.range.start, head(segment));
            // Behind an object of the older layout nobody knows how much of the next ones is a repetition.
            let mut countable = true;
            for object in segment.objects.iter().filter(|object| object.offset < segment.range.end) {
                if let Facts::Bad(why) = &object.facts {
                    refusals.push(Refusal::BadObject { key: object.key.clone(), why: why.clone() });
                }
                let Some(adds) = walk.add(object) else { continue };
                let adds = adds.start..adds.end.min(segment.range.end);
                if adds.is_empty() {
                    continue;
                }
                countable &= object.facts != Facts::Older;
                let range = window::intersect(&adds, offsets);
                let cover = match &object.facts {
                    Facts::Ours(facts) => self.times.cover(facts.timestamps),
                    Facts::Older | Facts::Bad(_) => Cover::Some,
                };
                if range.is_empty() || cover == Cover::Nothing {
                    self.skipped_objects += 1;
                    continue;
                }
                let whole = self.take(object, range, countable && cover == Cover::All);
                needs.add(object, &self.times, whole);
            }
        }
        // What nobody asked for is not missed.
        let walk = walk.finish(segments.last().and_then(|newest| newest.reach));
        self.overlaps = walk.overlaps;
        for hole in walk.holes {
            let range = window::intersect(&(hole.from..hole.until), offsets);
            if range.is_empty() {
                continue;
            }
            if hole.is_damage() {
                self.missing.extend(key_at(topic, self.partition, &segments, hole.from));
            }
            self.holes.push(Hole { from: range.start, until: range.end, ..hole });
        }
    }

    /// The source offsets that the objects are taken for; without an end where the last one does not say its own.
    pub fn offsets(&self) -> Option<(i64, Option<i64>)> {
        let (first, last) = (self.objects.first()?, self.objects.last()?);
        Some((first.from, (last.until < i64::MAX).then_some(last.until)))
    }

    /// Whether all of the object is taken.
    fn take(&mut self, object: &StoredObject, range: Range<i64>, countable: bool) -> bool {
        let mut take = Take {
            key: object.key.clone(),
            size: object.size,
            etag: object.etag.clone(),
            sha256: String::new(),
            from: range.start,
            until: range.end,
            object_records: None,
            records: None,
        };
        if let Facts::Ours(facts) = &object.facts {
            take.sha256.clone_from(&facts.sha256);
            take.object_records = Some(facts.records);
            let whole = countable && range == (object.offset..facts.next_offset);
            take.records = whole.then_some(facts.records);
            let inside = facts.timestamps.and_then(|timestamps| self.times.clip(timestamps));
            self.timestamps = limits::union(self.timestamps, inside);
        }
        match take.records {
            Some(records) => self.records += records,
            None => self.uncounted_objects += 1,
        }
        self.records_at_most = sum(self.records_at_most, take.at_most());
        let whole = take.records.is_some();
        self.bytes += take.size;
        self.objects.push(take);
        whole
    }
}

/// The key of the object that begins, or would begin, at `offset`: beside the others of its list, where there are any.
fn key_at(topic: &str, partition: i32, segments: &[Segment<'_>], offset: i64) -> Option<String> {
    let segment = segments.iter().find(|segment| segment.range.contains(&offset))?;
    let neighbour = segment.objects.first().and_then(|object| key::parse(&object.key));
    let path = neighbour.map_or_else(|| PartitionPath::normal(topic, segment.generation, partition), |key| key.path);
    Some(path.object(offset))
}

/// What speaks against the target of one topic.
fn check_target(
    request: &Request,
    plan: &TopicPlan,
    backup: &TopicBackup,
    generation: u32,
    target: &Target,
    refusals: &mut Vec<Refusal>,
    warnings: &mut Vec<String>,
) {
    let name = plan.target.clone();
    let source_cluster = backup.records.get(&generation).map_or("", |record| record.cluster_id.as_str());
    let same_cluster = !source_cluster.is_empty() && source_cluster == target.cluster_id;
    if same_cluster && plan.source == plan.target && !request.in_place {
        refusals.push(Refusal::SourceItself { topic: name.clone() });
    }
    let unforked = unforked_parents(backup, plan);
    if !unforked.is_empty() {
        warnings.push(format!(
            "{}: an older generation also has partitions {unforked:?}, which are not part of this one",
            plan.source
        ));
    }
    for partition in &plan.partitions {
        for hole in &partition.holes {
            warnings.push(format!("{}/{}: {hole}", plan.source, partition.partition));
        }
        let missing = partition.missing.iter();
        warnings.extend(missing.map(|key| format!("{key} is missing; put a copy back, or go on without its records")));
    }
    if request.apply_topic_config {
        warn_of_settings(request, plan, &own_settings(backup, generation), warnings);
    }
    let Some(existing) = target.topics.get(&name) else {
        if !request.create_topics {
            refusals.push(Refusal::TargetMissing { topic: name });
        }
        return;
    };
    check_offsets(request, plan, existing, refusals, warnings);
    existing.denied.check(&name, request.apply_topic_config, refusals, warnings);
    limits::check(&name, &plan.needs, &existing.config, request.now_ms, refusals, warnings);
}

/// What the source's settings will do to the records, and which of them are left out.
fn warn_of_settings(
    request: &Request,
    plan: &TopicPlan,
    settings: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) {
    // Nothing is produced any more once they hold: what they would refuse does not matter.
    let (mut effects, mut refusals) = (Vec::new(), Vec::new());
    limits::check(
        &plan.target,
        &limits::Needs { unknown: false, ..plan.needs.clone() },
        settings,
        request.now_ms,
        &mut refusals,
        &mut effects,
    );
    for refusal in refusals {
        if let Refusal::NoKeys { records, .. } = refusal {
            effects.push(format!("{records} records without a key will be removed at the next clean-up"));
        }
    }
    warnings.extend(effects.into_iter().map(|effect| format!("after apply_topic_config: {effect}")));
    for (key, value) in &plan.settings.left_out {
        let why = "it names brokers of the source cluster";
        warnings.push(format!("{}: {key} = {value} is not applied: {why}", plan.target));
    }
}

/// Room and emptiness of an existing target.
fn check_offsets(
    request: &Request,
    plan: &TopicPlan,
    existing: &TargetTopic,
    refusals: &mut Vec<Refusal>,
    warnings: &mut Vec<String>,
) {
    let (topic, has) = (plan.target.clone(), existing.offsets.len() as u32);
    let needed = plan.partitions.last().map_or(0, |p| p.partition as u32 + 1);
    if has < needed {
        refusals.push(Refusal::TooFewPartitions { topic: topic.clone(), has, needed });
    }
    let occupied =
        |p: &&PartitionPlan| existing.offsets.get(p.partition as usize).is_some_and(|(low, high)| low < high);
    let partitions: Vec<i32> = plan.partitions.iter().filter(occupied).map(|p| p.partition).collect();
    if !partitions.is_empty() && !request.append {
        refusals.push(Refusal::NotEmpty { topic: topic.clone(), partitions });
    }
    if request.partitions.is_none() && has > needed {
        warnings.push(format!("{topic} has {has} partitions, the source {needed}: the others stay as they are"));
    }
}

/// Partitions that a parent has objects of, though nothing says up to where they are valid.
fn unforked_parents(backup: &TopicBackup, plan: &TopicPlan) -> Vec<i32> {
    let mut found = BTreeSet::new();
    for pair in plan.generations.windows(2) {
        let (Some(record), Some(parent)) =
            (backup.records.get(&pair[0]), backup.branches.get(&super::catalog::Branch::Generation(pair[1])))
        else {
            continue;
        };
        found.extend(parent.keys().filter(|p| record.fork(**p).is_none()));
    }
    found.into_iter().filter(|p| plan.partitions.iter().any(|planned| planned.partition == *p)).collect()
}

#[cfg(test)]
mod tests;
