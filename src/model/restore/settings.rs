//! The settings of a target: those it is created with, and what becomes of them at the end of a restore.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a target topic is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// Number of partitions, the source's.
    pub partitions: u32,
    /// Number of replicas; `None` is the broker's default.
    pub replication_factor: Option<i32>,
    /// Settings that keep what is restored from vanishing at once.
    pub config: BTreeMap<String, String>,
}

/// Settings that name brokers of the source cluster.
const OF_THE_CLUSTER: [&str; 2] = ["follower.replication.throttled.replicas", "leader.replication.throttled.replicas"];

/// What becomes of a target's settings.
///
/// | the setting | at the end |
/// |---|---|
/// | the source's own, names brokers of its cluster | left out, and named |
/// | the source's own | as in the source |
/// | only for the restore (we created the target with it) | back to the broker's default |
/// | anything else | stays as it is |
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// By name the value to set; `None` is the broker's default.
    pub changes: BTreeMap<String, Option<String>>,
    /// Settings of the source that are left out.
    pub left_out: BTreeMap<String, String>,
}

impl Settings {
    /// Decides for a source with these settings of its own, and a target that is created or was there.
    pub fn decide(source: &BTreeMap<String, String>, create: Option<&Create>) -> Self {
        let mut settings = Self::default();
        for key in create.into_iter().flat_map(|create| create.config.keys()) {
            settings.changes.insert(key.clone(), None);
        }
        for (key, value) in source {
            if OF_THE_CLUSTER.contains(&key.as_str()) {
                settings.left_out.insert(key.clone(), value.clone());
            } else {
                settings.changes.insert(key.clone(), Some(value.clone()));
            }
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const CREATED: &[(&str, &str)] = &[("retention.ms", "-1"), ("cleanup.policy", "delete")];

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[rstest]
    #[case::of_the_source(&[("segment.ms", "5")], None, &[("segment.ms", Some("5"))], &[])]
    #[case::instead_of_ours(
        &[("retention.ms", "5")],
        Some(CREATED),
        &[("cleanup.policy", None), ("retention.ms", Some("5"))],
        &[]
    )]
    #[case::of_its_cluster(
        &[("leader.replication.throttled.replicas", "0:1")],
        None,
        &[],
        &["leader.replication.throttled.replicas"]
    )]
    #[case::nothing(&[], None, &[], &[])]
    fn decides(
        #[case] source: &[(&str, &str)],
        #[case] created: Option<&[(&str, &str)]>,
        #[case] changes: &[(&str, Option<&str>)],
        #[case] left_out: &[&str],
    ) {
        let create = created.map(|config| Create { partitions: 1, replication_factor: None, config: map(config) });
        let settings = Settings::decide(&map(source), create.as_ref());
        let found: Vec<_> = settings.changes.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        assert_eq!(found, changes);
        assert_eq!(settings.left_out.keys().collect::<Vec<_>>(), left_out);
    }
}
