//! What groups have committed for one generation of a topic, as it is saved, and whether a new answer of Kafka's is
//! worth saving.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::key;

/// The version of the document that is written.
pub const GROUPS_FORMAT_VERSION: u32 = 1;

/// How long a group that Kafka does not list any more is kept, in milliseconds: 30 days. Names that are made up for one
/// run (`console-consumer-4711`) would fill the document for ever.
pub const FORGET_AFTER_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// The document `_kafka_backup/groups/TOPIC/N.json`: what groups have committed for generation N of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The layout, [`GROUPS_FORMAT_VERSION`].
    pub format_version: u32,
    /// Which topic on which cluster.
    #[serde(flatten)]
    pub of: Identity,
    /// When the document was written, in milliseconds since 1970-01-01 UTC.
    pub saved_ms: i64,
    /// By name of the group.
    pub groups: BTreeMap<String, GroupOffsets>,
}

/// Which topic offsets belong to. Offsets of one that was created again under the same name mean other records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's id, empty when the broker does not tell.
    pub cluster_id: String,
    /// The topic.
    pub topic: String,
    /// Kafka's topic id, empty when the broker does not tell.
    pub topic_id: String,
    /// The generation of the backup, from 1.
    pub generation: u32,
}

/// What one group has committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupOffsets {
    /// When this was first seen to be so, in milliseconds since 1970-01-01 UTC.
    pub changed_ms: i64,
    /// Since when Kafka does not list the group any more, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since_ms: Option<i64>,
    /// By partition.
    pub offsets: BTreeMap<i32, Committed>,
}

/// What a group has committed for one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The source offset of the record it reads next.
    pub offset: i64,
    /// What the group wrote beside it; Kafka Streams keeps times there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}

/// What Kafka said of the groups of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Which topic, as it was at that time.
    pub of: Identity,
    /// Whether all coordinators named their groups: only then a group that is not among them is gone.
    pub is_complete: bool,
    /// What each wanted group has committed, by partition; `None` where it could not be asked. A group that is listed
    /// without offsets is here with none.
    pub groups: BTreeMap<String, Option<BTreeMap<i32, Committed>>>,
}

/// What to do with an observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// What is saved stays.
    Keep,
    /// This is written in its place.
    Write(Snapshot),
}

/// A saved document that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("consumer groups {key}: {why}")]
pub struct SnapshotError {
    /// Its key in the store.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

impl Snapshot {
    /// Reads the document stored under `key`.
    ///
    /// # Errors
    /// It is not one, of a newer layout, or of another topic or generation than its key says.
    pub fn parse(key: &str, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let failed = |why: String| SnapshotError { key: key.to_owned(), why };
        // The version first: a newer layout may lack fields that this one needs.
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let not_one = |error: serde_json::Error| failed(format!("not a saved state of groups: {error}"));
        let Version { format_version } = serde_json::from_slice(bytes).map_err(not_one)?;
        if format_version > GROUPS_FORMAT_VERSION {
            let why = format!("it has format version {format_version}, which needs a newer kafka-backup");
            return Err(failed(why));
        }
        let snapshot: Self = serde_json::from_slice(bytes).map_err(not_one)?;
        if key::groups_record(&snapshot.of.topic, snapshot.of.generation) != key {
            let Identity { topic, generation, .. } = &snapshot.of;
            return Err(failed(format!("it says it is of generation {generation} of topic {topic}")));
        }
        let offsets = snapshot.groups.values().flat_map(|group| &group.offsets);
        match offsets.clone().find(|(partition, committed)| **partition < 0 || committed.offset < 0) {
            Some((partition, committed)) => {
                Err(failed(format!("partition {partition}, offset {}: neither can be negative", committed.offset)))
            }
            None => Ok(snapshot),
        }
    }

    /// The bytes to store.
    pub fn bytes(&self) -> Vec<u8> {
        // Cannot fail: strings and numbers only, and numbers as keys are written as strings.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

/// Decides whether what Kafka said at `now_ms` is written in the place of what is `saved`.
///
/// | the group | saved before | then |
/// |---|---|---|
/// | could not be asked | yes | stays as saved |
/// | could not be asked | no | not there |
/// | has committed other offsets than saved | yes | they replace those of the same partitions; the others stay |
/// | has committed the same | yes | stays as saved |
/// | has committed something | no | added |
/// | is listed without offsets | yes | stays as saved: an empty answer replaces nothing |
/// | is not listed, by all coordinators | yes | stays, marked gone; forgotten after [`FORGET_AFTER_MS`] |
/// | is not listed, by some of them | yes | stays as saved |
///
/// It is written when this differs from what is saved. What is saved of another topic (created again under the name)
/// or of another generation counts as nothing; where there is nothing to put in its place it stays all the same.
pub fn decide(saved: Option<&Snapshot>, seen: &Observation, now_ms: i64) -> Decision {
    let before = saved.filter(|saved| saved.of == seen.of).map(|saved| &saved.groups);
    let mut groups = before.cloned().unwrap_or_default();
    for (name, answer) in &seen.groups {
        let Some(offsets) = answer.as_ref() else { continue };
        match groups.get_mut(name) {
            Some(group) => group.update(offsets, now_ms),
            None if offsets.is_empty() => {}
            None => {
                let group = GroupOffsets { changed_ms: now_ms, gone_since_ms: None, offsets: offsets.clone() };
                groups.insert(name.clone(), group);
            }
        }
    }
    // No group at all is what a cluster in trouble says, too.
    if seen.is_complete && !seen.groups.is_empty() {
        groups.retain(|name, group| {
            if seen.groups.contains_key(name) {
                return true;
            }
            let since = *group.gone_since_ms.get_or_insert(now_ms);
            now_ms.saturating_sub(since) < FORGET_AFTER_MS
        });
    }
    if groups.is_empty() || before == Some(&groups) {
        return Decision::Keep;
    }
    Decision::Write(Snapshot { format_version: GROUPS_FORMAT_VERSION, of: seen.of.clone(), saved_ms: now_ms, groups })
}

impl GroupOffsets {
    fn update(&mut self, answer: &BTreeMap<i32, Committed>, now_ms: i64) {
        if answer.is_empty() {
            return;
        }
        self.gone_since_ms = None;
        for (partition, committed) in answer {
            let earlier = self.offsets.insert(*partition, committed.clone());
            if earlier.as_ref() != Some(committed) {
                self.changed_ms = now_ms;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const KEY: &str = "_kafka_backup/groups/orders/1.json";

    type Offsets = &'static [(i32, i64)];

    fn identity(topic_id: &str) -> Identity {
        let [cluster_id, topic, topic_id] = ["c", "orders", topic_id].map(str::to_owned);
        Identity { cluster_id, topic, topic_id, generation: 1 }
    }

    fn offsets(of: &[(i32, i64)]) -> BTreeMap<i32, Committed> {
        of.iter().map(|(p, offset)| (*p, Committed { offset: *offset, metadata: String::new() })).collect()
    }

    fn group(changed_ms: i64, gone_since_ms: Option<i64>, of: Offsets) -> GroupOffsets {
        GroupOffsets { changed_ms, gone_since_ms, offsets: offsets(of) }
    }

    fn saved(groups: &[(&str, GroupOffsets)], saved_ms: i64) -> Snapshot {
        let groups = groups.iter().map(|(name, group)| ((*name).to_owned(), group.clone())).collect();
        Snapshot { format_version: GROUPS_FORMAT_VERSION, of: identity("id"), saved_ms, groups }
    }

    fn seen(groups: &[(&str, Option<Offsets>)]) -> Observation {
        let groups = groups.iter().map(|(name, of)| ((*name).to_owned(), of.map(offsets))).collect();
        Observation { of: identity("id"), is_complete: true, groups }
    }

    fn some_listed(groups: &[(&str, Option<Offsets>)]) -> Observation {
        Observation { is_complete: false, ..seen(groups) }
    }

    /// Two groups, saved at 100.
    fn two() -> Snapshot {
        saved(&[("a", group(100, None, &[(0, 5), (1, 7)])), ("b", group(100, None, &[(0, 9)]))], 100)
    }

    #[rstest]
    #[case::the_same(seen(&[("a", Some(&[(0, 5), (1, 7)])), ("b", Some(&[(0, 9)]))]))]
    #[case::a_failure(seen(&[("a", None), ("b", None)]))]
    #[case::no_offsets(seen(&[("a", Some(&[])), ("b", Some(&[]))]))]
    #[case::a_failure_and_no_offsets(seen(&[("a", None), ("b", Some(&[]))]))]
    #[case::no_group_at_all(seen(&[]))]
    #[case::not_listed_by_some(some_listed(&[("b", Some(&[(0, 9)]))]))]
    #[case::fewer_partitions(seen(&[("a", Some(&[(1, 7)])), ("b", Some(&[(0, 9)]))]))]
    #[case::a_new_group_without_offsets(some_listed(&[("c", Some(&[]))]))]
    #[case::a_new_group_that_failed(some_listed(&[("c", None)]))]
    fn what_is_saved_stays(#[case] seen: Observation) {
        assert_eq!(decide(Some(&two()), &seen, 200), Decision::Keep);
    }

    #[rstest]
    #[case::other_offsets(
        seen(&[("a", Some(&[(0, 6)])), ("b", None)]),
        &[("a", group(200, None, &[(0, 6), (1, 7)])), ("b", group(100, None, &[(0, 9)]))]
    )]
    #[case::set_back(
        seen(&[("a", Some(&[(0, 0), (1, 7)])), ("b", None)]),
        &[("a", group(200, None, &[(0, 0), (1, 7)])), ("b", group(100, None, &[(0, 9)]))]
    )]
    #[case::another_partition(
        seen(&[("a", Some(&[(2, 1)])), ("b", Some(&[]))]),
        &[("a", group(200, None, &[(0, 5), (1, 7), (2, 1)])), ("b", group(100, None, &[(0, 9)]))]
    )]
    #[case::another_group(
        some_listed(&[("c", Some(&[(0, 1)]))]),
        &[
            ("a", group(100, None, &[(0, 5), (1, 7)])),
            ("b", group(100, None, &[(0, 9)])),
            ("c", group(200, None, &[(0, 1)])),
        ]
    )]
    #[case::not_listed(
        seen(&[("b", Some(&[(0, 9)]))]),
        &[("a", group(100, Some(200), &[(0, 5), (1, 7)])), ("b", group(100, None, &[(0, 9)]))]
    )]
    fn what_is_new_is_written(#[case] seen: Observation, #[case] expected: &[(&str, GroupOffsets)]) {
        assert_eq!(decide(Some(&two()), &seen, 200), Decision::Write(saved(expected, 200)));
    }

    #[rstest]
    #[case::still_gone(100 + FORGET_AFTER_MS - 1, Some(100), false)]
    #[case::gone_for_long(100 + FORGET_AFTER_MS, Some(100), true)]
    #[case::gone_a_moment_ago(100 + FORGET_AFTER_MS, None, false)]
    fn groups_that_are_gone_are_forgotten(#[case] now_ms: i64, #[case] gone: Option<i64>, #[case] forgotten: bool) {
        let before = saved(&[("a", group(50, gone, &[(0, 5)])), ("b", group(50, None, &[(0, 9)]))], 100);
        let after = match decide(Some(&before), &seen(&[("b", Some(&[(0, 9)]))]), now_ms) {
            Decision::Keep => before,
            Decision::Write(snapshot) => snapshot,
        };
        assert_eq!(!after.groups.contains_key("a"), forgotten);
        assert!(after.groups.contains_key("b"));
    }

    #[test]
    fn a_group_that_comes_back_is_not_gone() {
        let before = saved(&[("a", group(50, Some(60), &[(0, 5)]))], 60);
        let expected = saved(&[("a", group(50, None, &[(0, 5)]))], 200);
        assert_eq!(decide(Some(&before), &seen(&[("a", Some(&[(0, 5)]))]), 200), Decision::Write(expected));
    }

    #[test]
    fn metadata_is_part_of_it() {
        let mut seen = seen(&[("a", Some(&[(0, 5)]))]);
        let mut before = saved(&[("a", group(50, None, &[(0, 5)]))], 50);
        assert_eq!(decide(Some(&before), &seen, 200), Decision::Keep);
        let streams = Committed { offset: 5, metadata: "AgAAAY".to_owned() };
        seen.groups.insert("a".to_owned(), Some(BTreeMap::from([(0, streams.clone())])));
        let Decision::Write(after) = decide(Some(&before), &seen, 200) else { panic!("it changed") };
        before.groups.get_mut("a").unwrap().offsets.insert(0, streams);
        assert_eq!(after.groups["a"].offsets, before.groups["a"].offsets);
    }

    #[test]
    fn another_topic_of_the_name_has_offsets_of_its_own() {
        let mut seen = seen(&[("a", Some(&[(0, 1)]))]);
        seen.of = identity("another");
        let Decision::Write(after) = decide(Some(&two()), &seen, 200) else { panic!("it is another topic") };
        assert_eq!((&after.of, after.groups), (&seen.of, saved(&[("a", group(200, None, &[(0, 1)]))], 0).groups));
        for groups in [Some(None), Some(Some(BTreeMap::new())), None] {
            let groups = groups.map(|answer| ("a".to_owned(), answer)).into_iter().collect();
            let nothing = Observation { groups, ..seen.clone() };
            assert_eq!(decide(Some(&two()), &nothing, 200), Decision::Keep);
        }
    }

    #[test]
    fn the_layout() {
        let text = r#"{
  "format_version": 1,
  "cluster_id": "c",
  "topic": "orders",
  "topic_id": "id",
  "generation": 1,
  "saved_ms": 200,
  "groups": {
    "a": {
      "changed_ms": 100,
      "offsets": {
        "0": {
          "offset": 5
        },
        "10": {
          "offset": 7,
          "metadata": "x"
        }
      }
    },
    "b/c \"d\"": {
      "changed_ms": 100,
      "gone_since_ms": 150,
      "offsets": {}
    }
  }
}"#;
        let snapshot = Snapshot::parse(KEY, text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(snapshot.bytes()).unwrap(), text);
        let with_more = text.replacen('{', "{ \"later\": [1],", 1);
        assert_eq!(Snapshot::parse(KEY, with_more.as_bytes()).unwrap(), snapshot);
    }

    #[rstest]
    #[case::not_json("{", "not a saved state of groups")]
    #[case::empty("", "not a saved state of groups")]
    #[case::something_else("{}", "format_version")]
    #[case::a_field_is_missing(r#"{"format_version": 1, "topic": "t"}"#, "missing field")]
    #[case::newer(r#"{"format_version": 2}"#, "needs a newer kafka-backup")]
    #[case::negative(
        r#"{"format_version":1,"cluster_id":"","topic":"orders","topic_id":"","generation":1,"saved_ms":1,
            "groups":{"a":{"changed_ms":1,"offsets":{"0":{"offset":-1001}}}}}"#,
        "offset -1001"
    )]
    #[case::of_another_topic(
        r#"{"format_version":1,"cluster_id":"","topic":"t","topic_id":"","generation":3,"saved_ms":1,"groups":{}}"#,
        "generation 3 of topic t"
    )]
    fn what_cannot_be_read_is_said(#[case] text: &str, #[case] why: &str) {
        let error = Snapshot::parse(KEY, text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(KEY), "{error}");
    }

    fn answers() -> impl Strategy<Value = Observation> {
        let offsets = prop::collection::btree_map(0..3i32, 0..4i64, 0..3);
        let groups = prop::collection::btree_map("[abc]", prop::option::of(offsets), 0..3);
        (any::<bool>(), groups).prop_map(|(is_complete, groups)| {
            let committed = |(p, offset)| (p, Committed { offset, metadata: String::new() });
            let groups = groups.into_iter();
            let groups = groups.map(|(name, of)| (name, of.map(|of| of.into_iter().map(committed).collect())));
            Observation { of: identity("id"), is_complete, groups: groups.collect() }
        })
    }

    proptest! {
        /// Within the time in which nothing is forgotten no group and no partition is ever lost, every answer is taken
        /// over, the document comes back as it was written, and the same answer again changes nothing.
        #[test]
        fn nothing_good_is_lost(answers in prop::collection::vec(answers(), 1..8)) {
            let mut saved: Option<Snapshot> = None;
            for (seen, now_ms) in answers.iter().zip(1000..) {
                let before = saved.clone();
                if let Decision::Write(snapshot) = decide(saved.as_ref(), seen, now_ms) {
                    prop_assert_eq!(&Snapshot::parse(KEY, &snapshot.bytes()).unwrap(), &snapshot);
                    saved = Some(snapshot);
                }
                prop_assert_eq!(decide(saved.as_ref(), seen, now_ms), Decision::Keep);
                for (name, group) in before.iter().flat_map(|before| &before.groups) {
                    let after = &saved.as_ref().unwrap().groups[name];
                    prop_assert!(group.offsets.keys().all(|partition| after.offsets.contains_key(partition)));
                }
                for (name, offsets) in &seen.groups {
                    for (partition, committed) in offsets.iter().flatten() {
                        prop_assert_eq!(&saved.as_ref().unwrap().groups[name].offsets[partition], committed);
                    }
                }
            }
        }
    }
}
