//! What the groups of the target are before their offsets are committed, and what speaks against that.

use std::collections::{BTreeMap, BTreeSet};

use super::super::restore::Refusal;
use super::plan::{Commit, GroupPlan, LeftOut, Why};

/// A group on the target; one that is not there is not in the list of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetGroup {
    /// Its live members, as people know them. Kafka takes offsets from outside only while there are none.
    pub members: Vec<String>,
    /// What it has committed, by topic and partition.
    pub committed: BTreeMap<(String, i32), i64>,
    /// The user may not commit for it.
    pub denied: bool,
}

/// Everything that forbids to commit what is planned.
///
/// | the group on the target | |
/// |---|---|
/// | may not be read by this user | refused: Kafka would not take the offsets |
/// | has members | refused: they would go on from where they are, and Kafka does not take the offsets |
/// | has committed another offset for a restored partition | refused: somebody has read there, or will |
/// | has committed the planned offset | fine: an earlier run of this restore did that |
/// | has committed nothing for the restored partitions, or is not there | fine |
///
/// and offsets that were saved of another topic of the same name are refused, too.
pub fn check(plan: &GroupPlan, target: &BTreeMap<String, TargetGroup>) -> Vec<Refusal> {
    let mut refusals: Vec<Refusal> = plan.left_out.iter().filter_map(of_other_topic).collect();
    for (group, commits) in &plan.commits {
        let Some(found) = target.get(group) else { continue };
        if found.denied {
            refusals.push(Refusal::GroupNotPermitted { group: group.clone() });
            continue;
        }
        if !found.members.is_empty() {
            refusals.push(Refusal::GroupActive { group: group.clone(), members: found.members.clone() });
            continue;
        }
        let topics: BTreeSet<&String> = commits.iter().map(|commit| &commit.topic).collect();
        for topic in topics {
            refusals.extend(elsewhere(group, commits.iter().filter(|commit| commit.topic == *topic), found));
        }
    }
    refusals
}

fn of_other_topic(left_out: &LeftOut) -> Option<Refusal> {
    let LeftOut { group, topic, why, .. } = left_out;
    match why {
        Why::OtherTopic { .. } => {
            Some(Refusal::GroupOfOtherTopic { group: group.clone(), topic: topic.clone(), why: why.to_string() })
        }
        Why::NotRestored => None,
    }
}

/// Whether a group stands elsewhere already, in the partitions of one topic.
fn elsewhere<'c>(group: &str, commits: impl Iterator<Item = &'c Commit>, found: &TargetGroup) -> Option<Refusal> {
    let others = commits.filter_map(|commit| {
        let offset = *found.committed.get(&(commit.topic.clone(), commit.partition))?;
        (offset != commit.translation.target_offset).then_some((commit, offset))
    });
    let others: Vec<(&Commit, i64)> = others.collect();
    let (first, offset) = others.first()?;
    Some(Refusal::GroupElsewhere {
        group: group.to_owned(),
        topic: first.topic.clone(),
        partition: first.partition,
        found: *offset,
        planned: first.translation.target_offset,
        partitions: others.len(),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::translate::{Position, Translation};
    use super::*;

    fn plan() -> GroupPlan {
        let commit = |topic: &str, partition, target_offset| Commit {
            topic: topic.to_owned(),
            partition,
            translation: Translation { source_offset: 1, target_offset, position: Position::At },
            metadata: String::new(),
        };
        let commits = vec![commit("a", 0, 10), commit("a", 1, 20), commit("b", 0, 30)];
        GroupPlan { commits: BTreeMap::from([("g".to_owned(), commits)]), left_out: Vec::new() }
    }

    fn target(members: &[&str], committed: &[(&str, i32, i64)]) -> BTreeMap<String, TargetGroup> {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        let committed = committed.iter().map(|(topic, p, offset)| (((*topic).to_owned(), *p), *offset)).collect();
        BTreeMap::from([("g".to_owned(), TargetGroup { members, committed, denied: false })])
    }

    fn elsewhere(topic: &str, partition: i32, found: i64, planned: i64, partitions: usize) -> Refusal {
        let (group, topic) = ("g".to_owned(), topic.to_owned());
        Refusal::GroupElsewhere { group, topic, partition, found, planned, partitions }
    }

    #[rstest]
    #[case::not_there(BTreeMap::new())]
    #[case::nothing_committed(target(&[], &[]))]
    #[case::other_topics(target(&[], &[("c", 0, 5)]))]
    #[case::other_partitions(target(&[], &[("a", 2, 5)]))]
    #[case::an_earlier_run(target(&[], &[("a", 0, 10), ("b", 0, 30)]))]
    fn fine(#[case] target: BTreeMap<String, TargetGroup>) {
        assert_eq!(check(&plan(), &target), []);
    }

    #[rstest]
    #[case::active(
        target(&["m"], &[("a", 0, 10)]),
        vec![Refusal::GroupActive { group: "g".to_owned(), members: vec!["m".to_owned()] }]
    )]
    #[case::denied(
        BTreeMap::from([("g".to_owned(), TargetGroup { denied: true, ..TargetGroup::default() })]),
        vec![Refusal::GroupNotPermitted { group: "g".to_owned() }]
    )]
    #[case::elsewhere(target(&[], &[("a", 0, 10), ("a", 1, 0)]), vec![elsewhere("a", 1, 0, 20, 1)])]
    #[case::elsewhere_in_all(
        target(&[], &[("a", 0, 11), ("a", 1, 0), ("b", 0, 0)]),
        vec![elsewhere("a", 0, 11, 10, 2), elsewhere("b", 0, 0, 30, 1)]
    )]
    fn refused(#[case] target: BTreeMap<String, TargetGroup>, #[case] expected: Vec<Refusal>) {
        assert_eq!(check(&plan(), &target), expected);
    }

    #[test]
    fn offsets_of_another_topic_are_refused_and_partitions_that_are_not_restored_are_not() {
        let why = Why::OtherTopic { committed_for: "x".to_owned(), restored: "y".to_owned() };
        let left_out = |why| LeftOut { group: "g".to_owned(), topic: "a".to_owned(), partitions: vec![0], why };
        let plan = GroupPlan { left_out: vec![left_out(why.clone()), left_out(Why::NotRestored)], ..plan() };
        let (group, topic) = ("g".to_owned(), "a".to_owned());
        assert_eq!(check(&plan, &BTreeMap::new()), [Refusal::GroupOfOtherTopic { group, topic, why: why.to_string() }]);
    }
}
