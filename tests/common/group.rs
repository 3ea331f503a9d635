//! A consumer group as its coordinator describes it.

use std::collections::BTreeMap;

use rdkafka::groups::GroupInfo;

use super::SOON;
use super::kafka::Kafka;

/// A group at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `Stable`, `Empty`, `PreparingRebalance`, ...
    pub state: String,
    /// The partitions of each member, by the id that the coordinator has given it.
    pub members: BTreeMap<String, Vec<(String, i32)>>,
}

impl Group {
    pub(super) fn of(info: &GroupInfo) -> Self {
        let member = |member: &rdkafka::groups::GroupMemberInfo| {
            (member.id().to_owned(), member.assignment().map(assignment).unwrap_or_default())
        };
        Self { state: info.state().to_owned(), members: info.members().iter().map(member).collect() }
    }

    /// No rebalance is going on.
    pub fn is_stable(&self) -> bool {
        self.state == "Stable"
    }

    /// Which member owns which partition; panics when one has two.
    pub fn owners(&self) -> BTreeMap<(String, i32), String> {
        let mut owners = BTreeMap::new();
        for (id, partitions) in &self.members {
            for partition in partitions {
                if let Some(other) = owners.insert(partition.clone(), id.clone()) {
                    panic!("{partition:?} has two owners, {other} and {id}");
                }
            }
        }
        owners
    }
}

impl Kafka {
    /// A group as it is now; without members where there is none.
    pub fn group(&self, name: &str) -> Group {
        let asked = super::wait_for(&format!("the description of group {name}"), SOON, || {
            self.admin.inner().fetch_group_list(Some(name), SOON).ok()
        });
        let found = asked.groups().iter().find(|info| info.name() == name).map(Group::of);
        found.unwrap_or_else(|| Group { state: "Dead".to_owned(), members: BTreeMap::new() })
    }
}

/// The assignment in the encoding of Kafka's consumer protocol.
fn assignment(mut bytes: &[u8]) -> Vec<(String, i32)> {
    let mut partitions = Vec::new();
    let Some(_version) = number::<2>(&mut bytes) else { return partitions };
    for _ in 0..number::<4>(&mut bytes).unwrap_or_default() {
        let length = number::<2>(&mut bytes).expect("the length of a topic's name");
        let (name, rest) = bytes.split_at(length as usize);
        bytes = rest;
        let name = String::from_utf8(name.to_vec()).expect("a topic's name");
        for _ in 0..number::<4>(&mut bytes).expect("a number of partitions") {
            partitions.push((name.clone(), number::<4>(&mut bytes).expect("a partition") as i32));
        }
    }
    partitions.sort();
    partitions
}

/// A big-endian number of `N` bytes, taken from the front.
fn number<const N: usize>(bytes: &mut &[u8]) -> Option<i64> {
    let (head, rest) = bytes.split_at_checked(N)?;
    *bytes = rest;
    Some(head.iter().fold(0, |number, byte| number << 8 | i64::from(*byte)))
}
