//! What is asked of a restore.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::rfc3339;
use crate::config::{ConsumerGroups, GroupSelection, IfNotEmpty, KafkaConfig, RestoreRequest};
use crate::model::restore::Selection;
use crate::model::restore::window::{Offsets, Times};
use crate::model::verify::{Expiry, ExpiryOf};
use crate::storage::Store;

/// What the command line or a restore file asks for.
#[derive(Clone)]
pub struct Restore {
    /// Where the backup is.
    pub store: Arc<dyn Store>,
    /// What the store is called in the main file, or its URL.
    pub storage: String,
    /// The target cluster.
    pub kafka: Arc<KafkaConfig>,
    /// Which topics, and their names on the target.
    pub selection: Selection,
    /// Which instance of compacted topics; `None` is the newest complete snapshot.
    pub instance: Option<String>,
    /// Which generation; `None` is the newest of each topic.
    pub generation: Option<u32>,
    /// Only these partitions of source topics; empty is all.
    pub partitions: BTreeSet<(String, i32)>,
    /// Only records of this time.
    pub times: Times,
    /// Only these offsets of partitions of source topics.
    pub offsets: BTreeMap<(String, i32), Offsets>,
    /// Partitions restored at the same time, from 1.
    pub tasks_max: usize,
    /// Topics that are not there are created.
    pub create_topics: bool,
    /// Replicas of created topics; `None` is the broker's default.
    pub replication_factor: Option<i32>,
    /// A target that holds records is appended to.
    pub append: bool,
    /// The source's own topic on the source's own cluster is allowed.
    pub in_place: bool,
    /// At the end the targets get the settings of their sources.
    pub apply_topic_config: bool,
    /// What is done about consumer groups.
    pub consumer_groups: ConsumerGroups,
    /// With which of them.
    pub groups: GroupSelection,
    /// Bytes per second read from the store; `None` is no limit.
    pub rate_limit: Option<u64>,
    /// Of which topics the oldest objects may be gone, where no record of anything that expired says more.
    pub expiry: ExpiryOf,
    /// Where the plan is written; `None` is `ID.json` in `plans`.
    pub plan: Option<PathBuf>,
    /// Where plans are written.
    pub plans: PathBuf,
    /// Only go on with a plan that there is.
    pub resume: bool,
    /// Only show the plan.
    pub dry_run: bool,
    /// JSON lines instead of text.
    pub json: bool,
    /// How often progress is shown, zero is never; `None`: as it suits the place.
    pub progress_interval: Option<Duration>,
}

impl Restore {
    /// What a validated restore request asks for, with the store it names opened.
    pub fn from_request(request: RestoreRequest, store: Arc<dyn Store>, json: bool) -> Self {
        let topics = request.topics.into_iter().map(|(source, target)| format!("{source}:{target}")).collect();
        Self {
            store,
            storage: request.storage.name.clone(),
            kafka: request.kafka,
            selection: Selection { topics, pattern: request.topics_regex, rename: request.rename },
            instance: request.instance,
            generation: request.generation,
            partitions: request.partitions.into_iter().collect(),
            times: request.times,
            offsets: request.offsets,
            tasks_max: request.tasks_max as usize,
            create_topics: request.create_topics,
            replication_factor: request.replication_factor.map(i32::from),
            append: request.if_not_empty == IfNotEmpty::Append,
            in_place: request.in_place,
            apply_topic_config: request.apply_topic_config,
            consumer_groups: request.consumer_groups,
            groups: request.groups,
            rate_limit: request.rate_limit,
            expiry: Arc::new(|_| Expiry::Possible),
            plan: request.plan,
            plans: request.plans,
            resume: request.resume,
            dry_run: request.dry_run,
            json,
            progress_interval: None,
        }
    }

    /// What is asked for, in the words of a restore file: enough to ask for it again.
    pub(super) fn words(&self) -> Map<String, Value> {
        let partition = |(topic, number): &(String, i32)| format!("{topic}/{number}");
        let offsets = |of: fn(&Offsets) -> Option<i64>| -> Map<String, Value> {
            let given = self.offsets.iter();
            given.filter_map(|(at, offsets)| Some((partition(at), of(offsets)?.into()))).collect()
        };
        let with_groups = self.consumer_groups != ConsumerGroups::None;
        let exclude = self.groups.exclude.as_ref().map(|pattern| pattern.0.as_str());
        let words = [
            ("kafka", json!(self.kafka.name)),
            ("storage", json!(self.storage)),
            ("topics", json!(self.selection.topics)),
            ("topics_regex", json!(self.selection.pattern.as_ref().map(|pattern| pattern.0.as_str()))),
            ("rename", json!(self.selection.rename.as_ref().map(ToString::to_string))),
            ("generation", json!(self.generation)),
            ("instance", json!(self.instance)),
            ("partitions", json!(self.partitions.iter().map(partition).collect::<Vec<_>>())),
            ("from", json!(self.times.from_ms.map(rfc3339))),
            ("until", json!(self.times.until_ms.map(rfc3339))),
            ("from_offset", offsets(|offsets| offsets.from).into()),
            ("until_offset", offsets(|offsets| offsets.until).into()),
            ("create_topics", json!(self.create_topics)),
            ("replication_factor", json!(self.replication_factor)),
            ("in_place", json!(self.in_place)),
            ("apply_topic_config", json!(self.apply_topic_config)),
            ("tasks_max", json!(self.tasks_max)),
            ("consumer_groups", json!(self.consumer_groups.word())),
            ("groups_regex", json!(with_groups.then(|| self.groups.include.0.as_str()))),
            ("groups_exclude_regex", json!(exclude.filter(|_| with_groups))),
        ];
        let is_said = |value: &Value| match value {
            Value::Null => false,
            Value::Array(values) => !values.is_empty(),
            Value::Object(values) => !values.is_empty(),
            _ => true,
        };
        words.into_iter().filter(|(_, value)| is_said(value)).map(|(key, value)| (key.to_owned(), value)).collect()
    }
}
