//! A plan that was written down, and where a restore that was interrupted goes on with it.
//!
//! Where a restore stands is not written down: the target says it. Every record of a partition got the offset base + n
//! (anything else stops the restore), so that its end less its base is the number of records that are there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::super::groups::plan::GroupPlan;
use super::change::Change;
use super::{PartitionPlan, Plan, Refusal, Target, TargetTopic, TopicPlan};
use crate::model::hex::hex;

/// The version of the plan that is written.
pub const PLAN_FORMAT_VERSION: u32 = 1;

/// A plan as it is written down before the first record is produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPlan {
    /// The layout, [`PLAN_FORMAT_VERSION`].
    pub format_version: u32,
    /// Which restore it is of, [`plan_id`].
    pub id: String,
    /// When it was written, RFC 3339.
    pub written: String,
    /// When everything in it was done, RFC 3339; such a plan is kept as a record and not gone on with.
    pub finished: Option<String>,
    /// The store.
    pub store: String,
    /// The target cluster.
    pub cluster_id: String,
    /// What was asked for, in the words of a restore file.
    pub request: Map<String, Value>,
    /// What is done.
    pub plan: Plan,
    /// What is committed for consumer groups at the end, where that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupPlan>,
    /// Groups that have got their offsets. What they commit themselves from then on is theirs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups_done: BTreeSet<String>,
}

impl SavedPlan {
    /// What is left to commit.
    pub fn groups_left(&self) -> Option<GroupPlan> {
        let mut groups = self.groups.clone()?;
        groups.commits.retain(|group, _| !self.groups_done.contains(group));
        Some(groups)
    }
}

/// The words of a request that say what is restored. The others (how fast, how topics are created) may be different
/// when a restore goes on.
const WHAT: [&str; 9] =
    ["topics", "topics_regex", "rename", "generation", "partitions", "from", "until", "from_offset", "until_offset"];

/// Names a restore: the same for the same request from the same store to the same cluster. 16 hexadecimal digits.
pub fn plan_id(store: &str, cluster_id: &str, request: &Map<String, Value>) -> String {
    let what: Vec<_> = WHAT.iter().map(|word| request.get(*word)).collect();
    let text = serde_json::json!([store, cluster_id, what]).to_string();
    hex(&Sha256::digest(text.as_bytes())[..8])
}

/// How far one partition of a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The target topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Records that are there.
    pub done: u64,
    /// The offset of the last of them.
    pub last: Option<i64>,
}

/// Where every partition of `plan` stands, in its order, or all that forbids to go on.
///
/// | the target partition | |
/// |---|---|
/// | topic gone, or with another id | refused |
/// | ends in front of base | refused: truncated |
/// | ends at base | nothing done |
/// | ends behind base + what was planned at most | refused: foreign records |
/// | begins at its end | refused: the last record cannot be compared |
/// | anything else | end - base records done, the last of them at end - 1 |
pub fn standings(plan: &Plan, target: &Target) -> Result<Vec<Standing>, Vec<Refusal>> {
    let (mut standings, mut refusals) = (Vec::new(), Vec::new());
    for topic in &plan.topics {
        let mut refuse = |change: Change| refusals.push(Refusal::TargetChanged { topic: topic.target.clone(), change });
        let found = match same_topic(topic, target) {
            Ok(found) => found,
            Err(change) => {
                refuse(change);
                continue;
            }
        };
        for partition in &topic.partitions {
            let number = partition.partition;
            let judged = match found.offsets.get(number as usize) {
                Some((low, high)) => stands(partition, *low, *high),
                None => Err(Change::NoPartition { partition: number }),
            };
            match judged {
                Ok(done) => {
                    let last = (done > 0).then(|| partition.base_offset + done as i64 - 1);
                    standings.push(Standing { topic: topic.target.clone(), partition: number, done, last });
                }
                Err(change) => refuse(change),
            }
        }
    }
    if refusals.is_empty() { Ok(standings) } else { Err(refusals) }
}

/// The target of a topic, which must be the one that was planned for.
///
/// # Errors
/// It is gone, or another one.
pub fn same_topic<'t>(topic: &TopicPlan, target: &'t Target) -> Result<&'t TargetTopic, Change> {
    let found = target.topics.get(&topic.target).ok_or(Change::Gone)?;
    match (&topic.target_id, &found.id) {
        (Some(planned), Some(id)) if planned != id => {
            Err(Change::Recreated { planned: planned.clone(), found: id.clone() })
        }
        _ => Ok(found),
    }
}

fn stands(plan: &PartitionPlan, low: i64, high: i64) -> Result<u64, Change> {
    let (partition, base) = (plan.partition, plan.base_offset);
    if high < base {
        return Err(Change::Truncated { partition, end: high, base });
    }
    let done = (high - base) as u64;
    if let Some(most) = plan.records_at_most.filter(|most| done > *most) {
        return Err(Change::Foreign { partition, end: high, planned_end: base + most as i64 });
    }
    if done > 0 && low >= high {
        return Err(Change::Emptied { partition, offset: high - 1 });
    }
    Ok(done)
}

/// Where reading a partition's objects begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The first object that is read.
    pub object: usize,
    /// Records of those in front of it.
    pub records: u64,
    /// One more than the largest offset those in front of it can hold.
    pub next: i64,
}

impl PartitionPlan {
    /// Where reading begins when `done` records are on the target. Objects in front are left unread as far as they say
    /// how many records are taken from them; the one that the last of the `done` records is in is always read.
    pub fn start(&self, done: u64) -> Start {
        let mut start = Start { object: 0, records: 0, next: i64::MIN };
        for take in &self.objects {
            match take.records {
                Some(records) if start.records + records < done => {
                    start = Start { object: start.object + 1, records: start.records + records, next: take.until };
                }
                _ => break,
            }
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;
    use serde_json::json;

    use super::super::settings::Settings;
    use super::super::window::Times;
    use super::super::{Take, TargetTopic, TopicPlan, limits};
    use super::*;

    fn take(records: Option<u64>, until: i64) -> Take {
        Take {
            key: String::new(),
            size: 1,
            etag: String::new(),
            sha256: String::new(),
            from: 0,
            until,
            object_records: records,
            records,
        }
    }

    fn partition(objects: Vec<Take>) -> PartitionPlan {
        let mut plan = PartitionPlan::new(0, 100, Times::default());
        plan.records_at_most = objects.iter().map(|take| take.records).sum();
        plan.objects = objects;
        plan
    }

    fn plan() -> Plan {
        let topic = TopicPlan {
            source: "t".to_owned(),
            target: "copy".to_owned(),
            target_id: Some("id".to_owned()),
            generations: vec![1],
            create: None,
            partitions: vec![partition(vec![take(Some(10), 10), take(Some(5), 20)])],
            needs: limits::Needs::default(),
            settings: Settings::default(),
        };
        Plan { topics: vec![topic], warnings: Vec::new() }
    }

    fn target(id: Option<&str>, offsets: &[(i64, i64)]) -> Target {
        let id = id.map(str::to_owned);
        let topic = TargetTopic { id, offsets: offsets.to_vec(), ..TargetTopic::default() };
        Target { cluster_id: "c".to_owned(), topics: BTreeMap::from([("copy".to_owned(), topic)]) }
    }

    #[rstest]
    #[case::gone(Target::default(), Change::Gone)]
    #[case::recreated(
        target(Some("other"), &[(0, 0)]),
        Change::Recreated { planned: "id".to_owned(), found: "other".to_owned() }
    )]
    #[case::no_partition(target(Some("id"), &[]), Change::NoPartition { partition: 0 })]
    #[case::truncated(target(Some("id"), &[(0, 99)]), Change::Truncated { partition: 0, end: 99, base: 100 })]
    #[case::foreign(target(Some("id"), &[(0, 116)]), Change::Foreign { partition: 0, end: 116, planned_end: 115 })]
    #[case::emptied(target(Some("id"), &[(103, 103)]), Change::Emptied { partition: 0, offset: 102 })]
    fn a_changed_target_is_refused(#[case] target: Target, #[case] expected: Change) {
        let refusals = standings(&plan(), &target).unwrap_err();
        assert_eq!(refusals, [Refusal::TargetChanged { topic: "copy".to_owned(), change: expected }]);
    }

    #[rstest]
    #[case::nothing(target(Some("id"), &[(100, 100)]), 0, None)]
    #[case::some(target(Some("id"), &[(100, 107)]), 7, Some(106))]
    #[case::all(target(Some("id"), &[(100, 115)]), 15, Some(114))]
    #[case::the_first_are_gone(target(Some("id"), &[(106, 107)]), 7, Some(106))]
    #[case::no_ids(target(None, &[(100, 107)]), 7, Some(106))]
    fn the_end_says_where_it_stands(#[case] target: Target, #[case] done: u64, #[case] last: Option<i64>) {
        let standing = Standing { topic: "copy".to_owned(), partition: 0, done, last };
        assert_eq!(standings(&plan(), &target), Ok(vec![standing]));
    }

    #[rstest]
    #[case::nothing(0, Start { object: 0, records: 0, next: i64::MIN })]
    #[case::in_the_first(3, Start { object: 0, records: 0, next: i64::MIN })]
    #[case::the_last_of_the_first_is_compared(10, Start { object: 0, records: 0, next: i64::MIN })]
    #[case::in_the_second(11, Start { object: 1, records: 10, next: 10 })]
    #[case::behind_what_is_not_counted(99, Start { object: 2, records: 15, next: 20 })]
    fn what_is_done_is_not_read(#[case] done: u64, #[case] expected: Start) {
        let plan = partition(vec![take(Some(10), 10), take(Some(5), 20), take(None, 30), take(Some(7), 40)]);
        assert_eq!(plan.start(done), expected);
    }

    #[test]
    fn the_id_names_what_is_restored() {
        let request = |text: Value| text.as_object().cloned().unwrap();
        let a = request(json!({"topics": ["a:b"], "tasks_max": 4}));
        let id = plan_id("s3://x", "c", &a);
        assert_eq!(id.len(), 16);
        assert_eq!(plan_id("s3://x", "c", &request(json!({"topics": ["a:b"], "tasks_max": 9}))), id);
        for (store, cluster, other) in [
            ("s3://y", "c", json!({"topics": ["a:b"]})),
            ("s3://x", "d", json!({"topics": ["a:b"]})),
            ("s3://x", "c", json!({"topics": ["a:c"]})),
            ("s3://x", "c", json!({"topics": ["a:b"], "from": "2026-01-01T00:00:00Z"})),
            ("s3://x", "c", json!({"topics": ["a:b"], "until": "2026-01-01T00:00:00Z"})),
        ] {
            assert_ne!(plan_id(store, cluster, &request(other)), id);
        }
    }

    #[test]
    fn a_plan_comes_back_as_it_was_written() {
        let saved = SavedPlan {
            format_version: PLAN_FORMAT_VERSION,
            id: "0".to_owned(),
            written: "2026-01-01T00:00:00Z".to_owned(),
            finished: None,
            store: "file:///x".to_owned(),
            cluster_id: "c".to_owned(),
            request: Map::new(),
            plan: plan(),
            groups: Some(GroupPlan::default()),
            groups_done: BTreeSet::from(["g".to_owned()]),
        };
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<SavedPlan>(&text).unwrap(), saved);
    }
}
