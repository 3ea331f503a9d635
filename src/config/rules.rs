//! Rules between jobs: nothing may be written by two of them, and no consumer group shared.

use super::draft::Draft;
use super::finding::{Complaint, Findings};
use super::{KafkaConfig, Lifecycle, Place, Retention, StorageConfig, compacted, store};
use crate::model::lifecycle::MAX_RULES;

/// Checks every job against those before it. Messages stand at the later one and name the earlier one with its place.
pub(super) fn check(drafts: &[Draft], findings: &mut Findings) {
    compacted::two_at_most(drafts, findings);
    for (index, later) in drafts.iter().enumerate() {
        for earlier in &drafts[..index] {
            groups(earlier, later, findings);
            nested(earlier, later, later, findings);
            nested(later, earlier, later, findings);
            if store::same_place(&earlier.job.storage, &later.job.storage) {
                if earlier.job.compacted.is_some() && later.job.compacted.is_some() {
                    compacted::pair(earlier, later, findings);
                    continue;
                }
                literals(earlier, later, findings);
                pattern_and_literals(earlier, later, findings);
                pattern_and_literals(later, earlier, findings);
                patterns(earlier, later, findings);
            }
        }
    }
    lifecycle_rules(drafts, findings);
}

/// A bucket takes a limited number of lifecycle rules, and each topic that expires needs one. Topics that patterns match
/// are counted when the brokers are asked.
fn lifecycle_rules(drafts: &[Draft], findings: &mut Findings) {
    let mut needed: Vec<(&StorageConfig, usize)> = Vec::new();
    for draft in drafts {
        let (job, s3) = (&draft.job, matches!(draft.job.storage.place, Place::S3 { .. }));
        if !s3 || job.lifecycle != Lifecycle::Manage || job.retention == Retention::Keep {
            continue;
        }
        let known = needed.iter().position(|(place, _)| store::same_bucket(place, &job.storage));
        let at = known.unwrap_or_else(|| {
            needed.push((&job.storage, 0));
            needed.len() - 1
        });
        needed[at].1 += job.topics.literal.len();
        if needed[at].1 > MAX_RULES {
            let what =
                format!("{} topics of this bucket need a lifecycle rule each, and S3 takes {MAX_RULES}", needed[at].1);
            let remedy = "keep some of them, or spread the jobs over several buckets";
            findings.semantics(&draft.origin("retention"), "retention", Complaint::new(what, remedy));
        }
    }
}

/// One topic in two jobs on one storage and prefix.
fn literals(earlier: &Draft, later: &Draft, findings: &mut Findings) {
    for (topic, at) in &later.topic_origins {
        if let Some(other) = earlier.topic_origins.get(topic) {
            let what = format!("{topic:?} is backed up to the same place by job {:?} ({other})", earlier.job.id);
            let remedy = "remove it from one of the jobs, or give one of them a storage with another prefix";
            findings.semantics(at, "topics", Complaint::new(what, remedy));
        }
    }
}

/// A store within the folder of a topic that another job backs up: what is written there would be taken for damage of the
/// topic, and would expire with it.
fn nested(outer: &Draft, inner: &Draft, at: &Draft, findings: &mut Findings) {
    let Some(rest) = store::within(&inner.job.storage, &outer.job.storage) else { return };
    let folder = rest.split('/').next().unwrap_or_default();
    if outer.job.topics.takes(folder) {
        let what = format!(
            "job {:?} writes into the folder of topic {folder:?}, which job {:?} backs up",
            inner.job.id, outer.job.id
        );
        let remedy = "give the storage of one of them a prefix that is no topic's name";
        findings.semantics(&at.origin("storage"), "storage", Complaint::new(what, remedy));
    }
}

/// A topic of `literal` that the pattern of `pattern` matches.
fn pattern_and_literals(pattern: &Draft, literal: &Draft, findings: &mut Findings) {
    let by_pattern = |topic: &String| pattern.job.topics.takes(topic) && !pattern.topic_origins.contains_key(topic);
    for (topic, at) in literal.topic_origins.iter().filter(|(topic, _)| by_pattern(topic)) {
        let what = format!("matches {topic:?}, which job {:?} backs up to the same place ({at})", literal.job.id);
        let remedy = "leave it out with exclude_regex, or give one of the jobs a storage with another prefix";
        findings.semantics(&pattern.origin("topics_regex"), "topics_regex", Complaint::new(what, remedy));
    }
}

/// Two patterns: whether they ever match the same topic cannot be told from the files.
fn patterns(earlier: &Draft, later: &Draft, findings: &mut Findings) {
    if earlier.job.topics.include.is_some() && later.job.topics.include.is_some() {
        let what = format!("job {:?} has a pattern for the same place, too", earlier.job.id);
        let remedy = "see to it that no topic matches both; the job that comes second to one is degraded";
        findings.warning(&later.origin("topics_regex"), "topics_regex", Complaint::new(what, remedy));
    }
}

/// Two jobs in one consumer group would be given each other's partitions.
fn groups(earlier: &Draft, later: &Draft, findings: &mut Findings) {
    if earlier.job.group_id == later.job.group_id && same_cluster(&earlier.job.kafka, &later.job.kafka) {
        let what = format!("{:?} is the group of job {:?}, too", later.job.group_id, earlier.job.id);
        let remedy = "give each job a group of its own, or remove the key to have the default";
        findings.semantics(&later.origin("group_id"), "group_id", Complaint::new(what, remedy));
    }
}

/// Clusters are the same where they share a broker; the names do not tell.
fn same_cluster(a: &KafkaConfig, b: &KafkaConfig) -> bool {
    a.bootstrap_servers.iter().any(|server| b.bootstrap_servers.contains(server))
}
