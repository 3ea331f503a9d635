//! Puts consumer groups back where they were: reads what was saved of them, translates it through the objects of the
//! plan, and commits it once everything is restored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::Restore;
use super::fetch::{Pieces, Throttle};
use super::gather;
use super::object::Open;
use super::target::KafkaTarget;
use super::text::table;
use crate::config::ConsumerGroups;
use crate::error::{Error, Exit, Result};
use crate::model::batch::RecordBatch;
use crate::model::chain::GenerationRecord;
use crate::model::groups::plan::{GroupPlan, Restored, positions};
use crate::model::groups::snapshot::Snapshot;
use crate::model::groups::target::check;
use crate::model::groups::translate::{Translation, Translator, must_be_read};
use crate::model::key;
use crate::model::restore::{PartitionPlan, Plan, Refusal, Take, TopicPlan};

/// What groups there are to put back, and what is worth knowing about that.
pub async fn plan(restore: &Restore, plan: &Plan, throttle: &Throttle) -> Result<(GroupPlan, Vec<String>)> {
    let (mut groups, mut warnings) = (GroupPlan::default(), Vec::new());
    for topic in &plan.topics {
        match saved(restore, topic).await? {
            Some((record, snapshot)) => {
                let of = |record: &GenerationRecord| (record.cluster_id.clone(), record.topic_id.clone());
                let (cluster_id, topic_id) = record.as_ref().map(of).unwrap_or_default();
                let restored = Restored { cluster_id: &cluster_id, topic_id: &topic_id };
                let wanted = positions(topic, restored, &snapshot);
                let translated = translate(restore, topic, wanted, throttle).await?;
                groups.add(topic, restored, &snapshot, &translated);
            }
            None => warnings.push(format!("topic {}: no positions of consumer groups are saved", topic.source)),
        }
    }
    Ok((groups, warnings))
}

/// What is saved of the generation that is restored, without the groups that are not asked for.
async fn saved(restore: &Restore, topic: &TopicPlan) -> Result<Option<(Option<GenerationRecord>, Snapshot)>> {
    let Some(generation) = topic.generations.first() else { return Ok(None) };
    let damaged = |error: String| {
        let hint = "restore with consumer_groups = \"none\", or mend or remove the object";
        Error::new(Exit::ProblemFound, error).hint(hint)
    };
    let name = key::groups_record(&topic.source, *generation);
    let Some(bytes) = gather::small(&restore.store, &name).await? else { return Ok(None) };
    let mut snapshot = Snapshot::parse(&name, &bytes).map_err(|error| damaged(error.to_string()))?;
    snapshot.groups.retain(|group, _| restore.groups.takes(group));
    let name = key::generation_record(&topic.source, *generation);
    let record = gather::small(&restore.store, &name).await?;
    let record = record.map(|bytes| GenerationRecord::from_json(&name, &bytes)).transpose();
    Ok(Some((record.map_err(|error| damaged(error.to_string()))?, snapshot)))
}

/// By partition and source offset.
async fn translate(
    restore: &Restore,
    topic: &TopicPlan,
    mut wanted: BTreeMap<i32, BTreeSet<i64>>,
    throttle: &Throttle,
) -> Result<BTreeMap<i32, BTreeMap<i64, Translation>>> {
    let work = topic.partitions.iter().filter_map(|plan| Some((plan, wanted.remove(&plan.partition)?)));
    let translated = stream::iter(work.collect::<Vec<_>>()).map(|(plan, committed)| async move {
        let translated = translate_partition(restore, plan, committed, throttle).await?;
        Result::<_, Error>::Ok((plan.partition, translated))
    });
    translated.buffer_unordered(restore.tasks_max.max(1)).try_collect().await
}

/// Reads as few objects as say where the offsets lie.
async fn translate_partition(
    restore: &Restore,
    plan: &PartitionPlan,
    committed: BTreeSet<i64>,
    throttle: &Throttle,
) -> Result<BTreeMap<i64, Translation>> {
    let mut translator = Translator::new(plan, &committed);
    for (index, take) in plan.objects.iter().enumerate() {
        if translator.is_done() {
            break;
        }
        if must_be_read(take, &committed) {
            translator = read_through(restore, index, take, translator, throttle).await?;
        } else {
            translator.pass(take);
        }
    }
    Ok(translator.finish())
}

/// Leads a translator through the records of one object, which is checked as it is when it is restored.
async fn read_through(
    restore: &Restore,
    index: usize,
    take: &Take,
    translator: Translator,
    throttle: &Throttle,
) -> Result<Translator> {
    let (mut pieces, mut state) = (Pieces::of(index, take), (translator, Open::new(index), RecordBatch::default()));
    while let Some(piece) = pieces.next(&restore.store, throttle).await {
        let (piece, take) = (piece.map_err(gather::failed)?, take.clone());
        // Hashing and decompressing take long enough to keep a thread of the runtime from everything else.
        let decoded = tokio::task::spawn_blocking(move || {
            let (translator, object, batch) = &mut state;
            object.feed(&take, piece)?;
            while object.next(&take, batch)? {
                for record in batch.iter() {
                    translator.offer(&take, record.offset, record.timestamp, record.timestamp_type);
                }
            }
            Ok::<_, super::failure::Failure>(state)
        });
        let decoded = decoded.await.map_err(|error| Error::new(Exit::Failed, "reading an object").because(error))?;
        state = decoded.map_err(|failure| Error::new(Exit::ProblemFound, failure.to_string()))?;
    }
    let (mut translator, ..) = state;
    translator.end(take);
    Ok(translator)
}

/// Everything on the target that speaks against committing what is planned.
pub async fn refusals(target: &KafkaTarget, groups: &GroupPlan) -> Result<Vec<Refusal>> {
    let names: Vec<String> = groups.commits.keys().cloned().collect();
    Ok(check(groups, &target.groups(&names).await?))
}

/// What became of the groups.
#[derive(Debug)]
pub struct GroupReport {
    mode: ConsumerGroups,
    plan: GroupPlan,
    /// Why a group has not got its offsets, by name.
    failed: BTreeMap<String, String>,
    /// Nothing was committed, for this reason.
    held_back: Option<&'static str>,
}

impl GroupReport {
    /// Of what is only planned.
    pub fn planned(plan: GroupPlan) -> Self {
        Self { mode: ConsumerGroups::Plan, plan, failed: BTreeMap::new(), held_back: None }
    }

    /// Nothing is committed while records are missing: a group that finds some of its offsets only begins anywhere with
    /// the rest.
    pub fn held_back(mode: ConsumerGroups, plan: GroupPlan) -> Self {
        let held_back = (mode == ConsumerGroups::Apply).then_some("not everything is restored");
        Self { mode, held_back, ..Self::planned(plan) }
    }

    /// Whether everything that was to be committed is.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.held_back.is_none()
    }

    /// The groups that have got their offsets.
    pub fn done(&self) -> Vec<String> {
        let nothing = self.mode != ConsumerGroups::Apply || self.held_back.is_some();
        let groups = self.plan.commits.keys().filter(|group| !nothing && !self.failed.contains_key(*group));
        groups.cloned().collect()
    }

    fn offsets(&self) -> usize {
        self.plan.commits.values().map(Vec::len).sum()
    }

    fn left_out(&self) -> usize {
        self.plan.left_out.iter().map(|left_out| left_out.partitions.len()).sum()
    }

    /// Groups, and offsets of theirs, that were committed.
    fn committed(&self) -> (usize, usize) {
        let done = self.done();
        (done.len(), done.iter().filter_map(|group| self.plan.commits.get(group)).map(Vec::len).sum())
    }

    fn result(&self, group: &str) -> &str {
        match self.failed.get(group) {
            Some(why) => why,
            None if self.mode != ConsumerGroups::Apply => "planned",
            None => self.held_back.unwrap_or("committed"),
        }
    }

    /// One line for each offset and for what is left out.
    pub fn json(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        for (group, commits) in &self.plan.commits {
            lines.extend(commits.iter().map(|commit| {
                json!({
                    "message_type": "consumer_group",
                    "group": group,
                    "target": commit.topic,
                    "partition": commit.partition,
                    "source_offset": commit.translation.source_offset,
                    "target_offset": commit.translation.target_offset,
                    "position": commit.translation.position,
                    "reason": commit.translation.position.to_string(),
                    "result": self.result(group),
                })
            }));
        }
        lines.extend(self.plan.left_out.iter().map(|left_out| {
            json!({
                "message_type": "consumer_group_left_out",
                "group": left_out.group,
                "topic": left_out.topic,
                "partitions": left_out.partitions,
                "reason": left_out.why.to_string(),
            })
        }));
        lines
    }

    /// The counts.
    pub fn summary(&self) -> Value {
        let (groups, offsets) = self.committed();
        json!({
            "groups_planned": self.plan.commits.len(),
            "groups_committed": groups,
            "groups_failed": self.failed.len(),
            "offsets_planned": self.offsets(),
            "offsets_committed": offsets,
            "offsets_left_out": self.left_out(),
        })
    }

    /// For a person: a table, what is left out, and the counts.
    pub fn text(&self) -> String {
        let header = ["GROUP", "TARGET", "SOURCE OFFSET", "TARGET OFFSET", "POSITION", "RESULT"];
        let mut rows = vec![header.map(str::to_owned)];
        for (group, commits) in &self.plan.commits {
            rows.extend(commits.iter().map(|commit| {
                let translation = &commit.translation;
                [
                    group.clone(),
                    format!("{}/{}", commit.topic, commit.partition),
                    translation.source_offset.to_string(),
                    translation.target_offset.to_string(),
                    translation.position.to_string(),
                    self.result(group).to_owned(),
                ]
            }));
        }
        let mut text = if rows.len() > 1 { table(&rows) } else { String::new() };
        for left_out in &self.plan.left_out {
            let partitions: Vec<String> = left_out.partitions.iter().map(ToString::to_string).collect();
            let (group, topic, partitions) = (&left_out.group, &left_out.topic, partitions.join(", "));
            // A String takes everything.
            _ = writeln!(text, "group {group}: left out of {topic}, partitions {partitions}: {}", left_out.why);
        }
        let (groups, offsets, planned) = (self.plan.commits.len(), self.offsets(), self.committed());
        let line = match self.mode {
            ConsumerGroups::Apply => format!("{} of {offsets} offsets of {groups} groups committed", planned.1),
            _ => format!("{offsets} offsets of {groups} groups planned"),
        };
        _ = writeln!(text, "{line}"); // a String takes everything
        text
    }
}

/// Commits what is planned and reads it back. What does not work is named, group by group.
pub async fn apply(target: &KafkaTarget, plan: GroupPlan) -> GroupReport {
    let mut failed = BTreeMap::new();
    for (group, commits) in &plan.commits {
        let only = GroupPlan { commits: BTreeMap::from([(group.clone(), commits.clone())]), left_out: Vec::new() };
        match apply_one(target, group, &only).await {
            Ok(()) => tracing::info!(group, offsets = commits.len(), "positions of the group committed"),
            Err(why) => {
                tracing::error!(group, why, "the group has not got its positions");
                failed.insert(group.clone(), why);
            }
        }
    }
    GroupReport { mode: ConsumerGroups::Apply, plan, failed, held_back: None }
}

async fn apply_one(target: &KafkaTarget, group: &str, plan: &GroupPlan) -> Result<(), String> {
    // It may have come to life, or have been moved, while records were restored.
    let against = refusals(target, plan).await.map_err(|error| error.to_string())?;
    if let Some(refusal) = against.first() {
        return Err(refusal.to_string());
    }
    let commits = plan.commits.get(group).map(Vec::as_slice).unwrap_or_default();
    target.commit(group, commits).await.map_err(|error| error.to_string())?;
    let found = target.groups(&[group.to_owned()]).await.map_err(|error| error.to_string())?;
    let found = found.get(group);
    let differs = commits.iter().find(|commit| {
        let at = (commit.topic.clone(), commit.partition);
        found.and_then(|found| found.committed.get(&at)) != Some(&commit.translation.target_offset)
    });
    match differs {
        Some(commit) => Err(format!("{}/{} is not at the committed offset", commit.topic, commit.partition)),
        None => Ok(()),
    }
}

/// Refusals as warnings, where nothing is to be committed.
pub fn warnings(refusals: Vec<Refusal>) -> Vec<String> {
    let warning = |refusal: Refusal| format!("with consumer_groups = \"apply\" this would be refused: {refusal}");
    refusals.into_iter().map(warning).collect()
}
