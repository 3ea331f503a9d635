//! What is committed on the target for which group: the saved offsets, translated and under the names of the target.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::restore::TopicPlan;
use super::snapshot::Snapshot;
use super::translate::Translation;

/// What will be committed, and what will not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlan {
    /// By group, in the order of topics and partitions.
    pub commits: BTreeMap<String, Vec<Commit>>,
    /// Saved offsets that are not committed.
    pub left_out: Vec<LeftOut>,
}

/// One offset to commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The target topic.
    pub topic: String,
    /// The partition, the same on both sides.
    pub partition: i32,
    /// The offset, on both sides.
    #[serde(flatten)]
    pub translation: Translation,
    /// What the group had written beside it, as it was. It may speak of source offsets: that is the group's own affair.
    pub metadata: String,
}

/// Saved offsets of one topic that are not committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The group.
    pub group: String,
    /// The topic in the backup.
    pub topic: String,
    /// Of these partitions.
    pub partitions: Vec<i32>,
    /// Why.
    pub why: Why,
}

/// Why saved offsets are not committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// They belong to a topic of the same name that was deleted: they say nothing of the restored records.
    #[error("they were committed for another topic of this name ({committed_for}); restored is {restored}")]
    OtherTopic {
        /// The topic and cluster they were committed for.
        committed_for: String,
        /// The topic and cluster that is restored.
        restored: String,
    },
    /// Their partitions are not restored.
    #[error("the partitions are not restored")]
    NotRestored,
}

/// Which topic is restored, as the record of its generation names it; empty where that does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored<'a> {
    /// The cluster's id.
    pub cluster_id: &'a str,
    /// Kafka's topic id.
    pub topic_id: &'a str,
}

/// The committed offsets that must be translated, by partition; none where the snapshot is of another topic.
pub fn positions(topic: &TopicPlan, restored: Restored<'_>, snapshot: &Snapshot) -> BTreeMap<i32, BTreeSet<i64>> {
    let mut positions: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    if other_topic(restored, snapshot).is_some() {
        return positions;
    }
    for (partition, committed) in snapshot.groups.values().flat_map(|group| &group.offsets) {
        if is_restored(topic, *partition) {
            positions.entry(*partition).or_default().insert(committed.offset);
        }
    }
    positions
}

impl GroupPlan {
    /// Adds the groups of one topic. `translated` has what [`positions`] asked for, by partition and source offset.
    ///
    /// | a saved offset | |
    /// |---|---|
    /// | of another cluster or topic id than the restored topic | left out: other topic |
    /// | of a partition that is not restored | left out |
    /// | any other | committed for the target topic, same partition, translated |
    pub fn add(
        &mut self,
        topic: &TopicPlan,
        restored: Restored<'_>,
        snapshot: &Snapshot,
        translated: &BTreeMap<i32, BTreeMap<i64, Translation>>,
    ) {
        let other = other_topic(restored, snapshot);
        for (group, saved) in &snapshot.groups {
            let mut left_out = Vec::new();
            for (partition, committed) in &saved.offsets {
                let translation = translated.get(partition).and_then(|offsets| offsets.get(&committed.offset));
                let Some(translation) = translation.filter(|_| other.is_none()) else {
                    left_out.push(*partition);
                    continue;
                };
                self.commits.entry(group.clone()).or_default().push(Commit {
                    topic: topic.target.clone(),
                    partition: *partition,
                    translation: *translation,
                    metadata: committed.metadata.clone(),
                });
            }
            if !left_out.is_empty() {
                let why = other.clone().unwrap_or(Why::NotRestored);
                let (group, topic) = (group.clone(), topic.source.clone());
                self.left_out.push(LeftOut { group, topic, partitions: left_out, why });
            }
        }
    }
}

fn is_restored(topic: &TopicPlan, partition: i32) -> bool {
    topic.partitions.iter().any(|planned| planned.partition == partition)
}

/// Why the offsets do not belong to the restored topic. What one side does not say is no contradiction: brokers before
/// 2.8 have no topic ids, and backups of the older layout name no cluster.
fn other_topic(restored: Restored<'_>, snapshot: &Snapshot) -> Option<Why> {
    let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    let of = &snapshot.of;
    let other = differ(restored.cluster_id, &of.cluster_id) || differ(restored.topic_id, &of.topic_id);
    let name = |cluster: &str, topic: &str| format!("topic id {topic:?} on cluster {cluster:?}");
    other.then(|| Why::OtherTopic {
        committed_for: name(&of.cluster_id, &of.topic_id),
        restored: name(restored.cluster_id, restored.topic_id),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::super::restore::settings::Settings;
    use super::super::super::restore::window::Times;
    use super::super::super::restore::{PartitionPlan, limits};
    use super::super::snapshot::{Committed, GROUPS_FORMAT_VERSION, GroupOffsets, Identity};
    use super::super::translate::Position;
    use super::*;

    const RESTORED: Restored<'_> = Restored { cluster_id: "c", topic_id: "id" };

    /// `orders`, restored as `dr-orders`, of which partitions 0 and 2 are restored.
    fn topic() -> TopicPlan {
        let partition = |partition| PartitionPlan {
            partition,
            base_offset: 100,
            objects: Vec::new(),
            holes: Vec::new(),
            missing: Vec::new(),
            overlaps: 0,
            times: Times::default(),
            records: 0,
            records_at_most: Some(0),
            uncounted_objects: 0,
            skipped_objects: 0,
            bytes: 0,
            timestamps: None,
        };
        TopicPlan {
            source: "orders".to_owned(),
            target: "dr-orders".to_owned(),
            target_id: None,
            generations: vec![1],
            create: None,
            partitions: vec![partition(0), partition(2)],
            needs: limits::Needs::default(),
            settings: Settings::default(),
        }
    }

    fn snapshot(cluster_id: &str, topic_id: &str) -> Snapshot {
        let group = |offsets: &[(i32, i64)]| {
            let committed = |(p, offset): &(i32, i64)| (*p, Committed { offset: *offset, metadata: format!("m{p}") });
            GroupOffsets { changed_ms: 1, gone_since_ms: None, offsets: offsets.iter().map(committed).collect() }
        };
        let [cluster_id, topic, topic_id] = [cluster_id, "orders", topic_id].map(str::to_owned);
        Snapshot {
            format_version: GROUPS_FORMAT_VERSION,
            of: Identity { cluster_id, topic, topic_id, generation: 1 },
            saved_ms: 1,
            groups: BTreeMap::from([
                ("billing".to_owned(), group(&[(0, 5), (1, 7), (2, 9)])),
                ("search".to_owned(), group(&[(0, 6)])),
            ]),
        }
    }

    fn translation(source_offset: i64, target_offset: i64) -> Translation {
        Translation { source_offset, target_offset, position: Position::At }
    }

    fn planned(snapshot: &Snapshot) -> GroupPlan {
        let all = [(0, vec![(5, 103), (6, 104)]), (2, vec![(9, 100)])];
        let of = |offsets: Vec<(i64, i64)>| offsets.into_iter().map(|(s, t)| (s, translation(s, t))).collect();
        let mut plan = GroupPlan::default();
        plan.add(&topic(), RESTORED, snapshot, &all.map(|(p, offsets)| (p, of(offsets))).into());
        plan
    }

    #[test]
    fn groups_get_their_offsets_under_the_name_of_the_target() {
        let commit = |partition, translation| {
            let (topic, metadata) = ("dr-orders".to_owned(), format!("m{partition}"));
            Commit { topic, partition, translation, metadata }
        };
        let (group, orders) = ("billing".to_owned(), "orders".to_owned());
        let expected = GroupPlan {
            commits: BTreeMap::from([
                (group.clone(), vec![commit(0, translation(5, 103)), commit(2, translation(9, 100))]),
                ("search".to_owned(), vec![commit(0, translation(6, 104))]),
            ]),
            left_out: vec![LeftOut { group, topic: orders, partitions: vec![1], why: Why::NotRestored }],
        };
        let plan = planned(&snapshot("c", "id"));
        assert_eq!(plan, expected);
        assert_eq!(serde_json::from_str::<GroupPlan>(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
    }

    #[rstest]
    #[case::the_same("c", "id", true)]
    #[case::no_ids_then("c", "", true)]
    #[case::nothing_said("", "", true)]
    #[case::another_topic("c", "other", false)]
    #[case::another_cluster("d", "id", false)]
    fn offsets_of_another_topic_are_left_out(#[case] cluster: &str, #[case] topic_id: &str, #[case] taken: bool) {
        let snapshot = snapshot(cluster, topic_id);
        let plan = planned(&snapshot);
        assert_eq!(!plan.commits.is_empty(), taken);
        assert_eq!(!positions(&topic(), RESTORED, &snapshot).is_empty(), taken);
        let refused = plan.left_out.iter().filter(|left_out| matches!(left_out.why, Why::OtherTopic { .. }));
        let refused: Vec<&[i32]> = refused.map(|left_out| left_out.partitions.as_slice()).collect();
        let all: [&[i32]; 2] = [&[0, 1, 2], &[0]];
        assert_eq!(refused, if taken { &[][..] } else { &all[..] });
    }

    #[test]
    fn a_backup_that_does_not_name_its_topic_takes_all() {
        let unknown = Restored { cluster_id: "", topic_id: "" };
        assert_eq!(positions(&topic(), unknown, &snapshot("c", "id")).len(), 2);
    }

    #[test]
    fn only_offsets_of_restored_partitions_are_translated() {
        let expected = BTreeMap::from([(0, BTreeSet::from([5, 6])), (2, BTreeSet::from([9]))]);
        assert_eq!(positions(&topic(), RESTORED, &snapshot("c", "id")), expected);
    }
}
