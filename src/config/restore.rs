//! What a restore is asked to do: a file, options of the command line, or both; options win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Map, Value, ValueKind};

use super::finding::{Complaint, ConfigErrors, Finding, Findings, Origin, Severity};
use super::layers::{Layer, View, What};
use super::source::{self, named, origin};
use super::{Config, GroupSelection, KafkaConfig, StorageConfig, cluster, kind, store};
use crate::model::restore::mapping::{Pattern, Rename, RenameError};
use crate::model::restore::window::{Offsets, Times};

/// A restore, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    /// The target cluster.
    pub kafka: Arc<KafkaConfig>,
    /// Where the backup is.
    pub storage: Arc<StorageConfig>,
    /// Source and target topic, in the order given; each source and each target once.
    pub topics: Vec<(String, String)>,
    /// Besides these all topics of the backup that match.
    pub topics_regex: Option<Pattern>,
    /// Target names of topics that are not given one; applied to `topics` already.
    pub rename: Option<Rename>,
    /// Partitions restored at the same time.
    pub tasks_max: u32,
    /// Only these partitions of the sources; empty is all.
    pub partitions: Vec<(String, i32)>,
    /// Only records of this time.
    pub times: Times,
    /// Only these offsets of partitions of the sources.
    pub offsets: BTreeMap<(String, i32), Offsets>,
    /// Which instance of compacted topics; `None` is the newest complete snapshot.
    pub instance: Option<String>,
    /// Which generation; `None` is the newest, with what its parents hold below it.
    pub generation: Option<u32>,
    /// Create the targets with the partition counts of the sources.
    pub create_topics: bool,
    /// Of topics that are created; `None` is the broker's default.
    pub replication_factor: Option<u16>,
    /// What to do when a target holds records.
    pub if_not_empty: IfNotEmpty,
    /// Allow the source's own topic on the source's own cluster.
    pub in_place: bool,
    /// Give the targets the settings of their sources at the end.
    pub apply_topic_config: bool,
    /// Where the plan is written; `None` is `ID.json` in `plans`.
    pub plan: Option<PathBuf>,
    /// Where plans are written: `STATE_DIR/restores`.
    pub plans: PathBuf,
    /// Only go on with an unfinished plan, never begin.
    pub resume: bool,
    /// What is done about consumer groups.
    pub consumer_groups: ConsumerGroups,
    /// With which of them.
    pub groups: GroupSelection,
    /// Bytes per second; `None` is no limit.
    pub rate_limit: Option<u64>,
    /// Show what would be done, and do nothing.
    pub dry_run: bool,
}

/// What to do when a target holds records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfNotEmpty {
    /// Refuse.
    Refuse,
    /// Produce behind them.
    Append,
}

/// What is done about the positions of consumer groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerGroups {
    /// Nothing.
    None,
    /// They are translated and shown.
    Plan,
    /// They are committed on the target.
    Apply,
}

impl ConsumerGroups {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Plan => "plan",
            Self::Apply => "apply",
        }
    }
}

/// Options of the command line: keys of a restore with the option that gave each.
#[derive(Debug, Clone, Default)]
pub struct RestoreFlags(Map<String, Value>);

impl RestoreFlags {
    /// Adds keys as a plan holds them. What a restore file cannot say is refused like there.
    pub fn words(&mut self, words: &serde_json::Map<String, serde_json::Value>, option: &str) {
        use serde_json::Value as Json;
        fn kind(value: &Json, option: &str) -> ValueKind {
            match value {
                Json::Null => ValueKind::Nil,
                Json::Bool(flag) => (*flag).into(),
                Json::Number(number) => number.as_i64().map_or_else(|| number.to_string().into(), ValueKind::I64),
                Json::String(text) => text.as_str().into(),
                Json::Array(values) => {
                    ValueKind::Array(values.iter().map(|v| named(option, kind(v, option))).collect())
                }
                Json::Object(values) => {
                    let entry = |(key, v): (&String, &Json)| (key.clone(), named(option, kind(v, option)));
                    ValueKind::Table(values.iter().map(entry).collect())
                }
            }
        }
        self.0.extend(words.iter().map(|(key, value)| (key.clone(), named(option, kind(value, option)))));
    }

    /// Takes a key out again.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, option: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), named(option, value));
        }
    }

    /// Adds a list.
    pub fn list(&mut self, key: &str, option: &str, values: &[String]) {
        if !values.is_empty() {
            let values: Vec<Value> = values.iter().map(|value| named(option, value.as_str())).collect();
            self.0.insert(key.to_owned(), named(option, values));
        }
    }

    /// Adds offsets, each as `TOPIC/PARTITION=OFFSET`. What is not one is refused when they are read.
    pub fn offsets(&mut self, key: &str, option: &str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        let entry = |text: &String| {
            let (partition, offset) = text.rsplit_once('=').unwrap_or((text, ""));
            let offset = offset.parse::<i64>().map_or_else(|_| ValueKind::from(offset), ValueKind::I64);
            (partition.to_owned(), named(option, offset))
        };
        let table: Map<String, Value> = values.iter().map(entry).collect();
        self.0.insert(key.to_owned(), named(option, table));
    }

    /// Adds a number.
    pub fn count(&mut self, key: &str, option: &str, value: Option<u32>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), named(option, i64::from(value)));
        }
    }

    /// Adds what was said about a flag that may also be switched off.
    pub fn choice(&mut self, key: &str, option: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), named(option, value));
        }
    }

    /// Adds a flag, if it was given.
    pub fn flag(&mut self, key: &str, option: &str, given: bool) {
        if given {
            self.0.insert(key.to_owned(), named(option, true));
        }
    }
}

impl RestoreRequest {
    /// The restore that `file` and `flags` ask for together.
    ///
    /// # Errors
    /// Everything that is wrong with either.
    pub fn load(config: &Config, file: Option<&Path>, flags: &RestoreFlags) -> Result<Self, ConfigErrors> {
        Self::inspect(config, file, flags).map_err(ConfigErrors)
    }

    /// As [`Self::load`], with the findings as they are.
    ///
    /// # Errors
    /// Everything that is wrong with either.
    pub fn inspect(config: &Config, file: Option<&Path>, flags: &RestoreFlags) -> Result<Self, Vec<Finding>> {
        let mut findings = Findings::default();
        let file = file.map(|file| std::path::absolute(file).unwrap_or_else(|_| file.to_owned()));
        let read = file.as_deref().map(|file| source::read(file, &mut findings).ok_or(()));
        // Of a file that could not be read nobody knows what is missing in it.
        let Ok(from_file) = read.unwrap_or(Ok(Map::new())) else { return Err(findings.sorted()) };
        let mut own = Layer::sift(&from_file, What::Restore, &mut findings);
        let mut given = Layer::sift(&flags.0, What::Restore, &mut findings);
        // Tables are taken as wholes: merging would tear them into their keys.
        let [kafka, storage, from_offset, until_offset] =
            ["kafka", "storage", "from_offset", "until_offset"].map(|key| {
                let [own, given] = [own.take(key), given.take(key)];
                given.or(own)
            });
        let view = View::new(What::Restore, Layer::merge([Layer::defaults(What::Restore), own, given]));
        let at = file.map_or_else(|| Origin::Named("command line".to_owned()), |file| Origin::start(&file));
        let builder = Builder { config, view: &view, at };
        let kafka = builder.kafka(kafka, &mut findings);
        let storage = builder.storage(storage, &mut findings);
        let rename = builder.rename(&mut findings);
        let topics = builder.topics(rename.as_ref(), &mut findings);
        let partitions = builder.partitions(&topics, &mut findings);
        let times = builder.times(&mut findings);
        let mut offsets = BTreeMap::new();
        builder.offsets("from_offset", from_offset, &topics, &mut offsets, &mut findings);
        builder.offsets("until_offset", until_offset, &topics, &mut offsets, &mut findings);
        builder.groups_are_used(&mut findings);
        let findings = findings.sorted();
        match (kafka, storage) {
            (Some(kafka), Some(storage)) if findings.iter().all(|finding| finding.severity != Severity::Error) => {
                let request = builder.request(kafka, storage, topics, partitions);
                Ok(RestoreRequest { rename, times, offsets, ..request })
            }
            _ => Err(findings),
        }
    }
}

struct Builder<'a> {
    config: &'a Config,
    view: &'a View,
    /// Where what is missing is missing.
    at: Origin,
}

impl Builder<'_> {
    fn request(
        &self,
        kafka: Arc<KafkaConfig>,
        storage: Arc<StorageConfig>,
        topics: Vec<(String, String)>,
        partitions: Vec<(String, i32)>,
    ) -> RestoreRequest {
        let view = self.view;
        RestoreRequest {
            kafka,
            storage,
            topics,
            topics_regex: view.maybe("topics_regex", kind::pattern).map(Pattern),
            rename: None,
            partitions,
            times: Times::default(),
            offsets: BTreeMap::new(),
            tasks_max: view.value("tasks_max", kind::count) as u32, // at most 128
            instance: view.maybe_text("instance").filter(|name| !name.is_empty()).map(str::to_owned),
            generation: view.maybe("generation", kind::count).map(|number| number as u32), // within u32
            create_topics: view.value("create_topics", kind::flag),
            replication_factor: view.maybe("replication_factor", kind::count).map(|number| number as u16), // within i16
            if_not_empty: match view.text("if_not_empty").as_str() {
                "append" => IfNotEmpty::Append,
                _ => IfNotEmpty::Refuse,
            },
            in_place: view.value("in_place", kind::flag),
            apply_topic_config: view.value("apply_topic_config", kind::flag),
            plan: view.maybe_text("plan").filter(|plan| !plan.is_empty()).map(PathBuf::from),
            plans: self.config.state_dir.join("restores"),
            resume: false,
            consumer_groups: self.consumer_groups(),
            groups: GroupSelection {
                include: Pattern(view.value("groups_regex", kind::pattern)),
                exclude: view.maybe("groups_exclude_regex", kind::pattern).map(Pattern),
            },
            rate_limit: view.value("rate_limit", kind::rate),
            dry_run: view.value("dry_run", kind::flag),
        }
    }

    fn consumer_groups(&self) -> ConsumerGroups {
        match self.view.text("consumer_groups").as_str() {
            "plan" => ConsumerGroups::Plan,
            "apply" => ConsumerGroups::Apply,
            _ => ConsumerGroups::None,
        }
    }

    /// A choice among groups with which nothing is done is a mistake.
    fn groups_are_used(&self, findings: &mut Findings) {
        if self.consumer_groups() != ConsumerGroups::None || self.view.is_refused("consumer_groups") {
            return;
        }
        for key in ["groups_regex", "groups_exclude_regex"] {
            let at = self.view.origin(key);
            if self.view.given(key) && at != Origin::Named("default".to_owned()) {
                let remedy = "write consumer_groups = \"plan\" or \"apply\", or remove the key";
                findings.semantics(&at, key, Complaint::new("has no effect with consumer_groups = \"none\"", remedy));
            }
        }
    }

    fn missing(&self, key: &str, findings: &mut Findings) {
        let option = key.replace('_', "-");
        let complaint = Complaint::new("is missing", format!("give --{option}, or write {key} into the file"));
        findings.semantics(&self.at, key, complaint);
    }

    fn kafka(&self, value: Option<Value>, findings: &mut Findings) -> Option<Arc<KafkaConfig>> {
        let Some(value) = value else {
            self.missing("kafka", findings);
            return None;
        };
        let at = origin(&value);
        match &value.kind {
            ValueKind::Table(table) => {
                let cluster = cluster::build(&at.to_string(), &at, table, findings)?;
                findings.0.extend(cluster.unreadable);
                Some(cluster.config)
            }
            ValueKind::String(name) => self.config.find_cluster(name, &at, findings),
            _ => None,
        }
    }

    fn storage(&self, value: Option<Value>, findings: &mut Findings) -> Option<Arc<StorageConfig>> {
        let Some(value) = value else {
            self.missing("storage", findings);
            return None;
        };
        let at = origin(&value);
        match &value.kind {
            ValueKind::Table(table) => store::build(&at.to_string(), &at, table, findings),
            ValueKind::String(name) => self.config.find_store(name, &at, findings),
            _ => None,
        }
    }

    fn rename(&self, findings: &mut Findings) -> Option<Rename> {
        let text = self.view.maybe_text("rename").filter(|text| !text.is_empty())?;
        let parsed = text.parse::<Rename>();
        let refused = |error: RenameError| {
            let complaint = Complaint::new(
                format!("{text:?}: {}", error.why),
                "write s/PATTERN/REPLACEMENT/, for example \"s/^/dr-/\"",
            );
            findings.syntax(&self.view.origin("rename"), "rename", complaint);
        };
        parsed.map_err(refused).ok()
    }

    fn topics(&self, rename: Option<&Rename>, findings: &mut Findings) -> Vec<(String, String)> {
        let given = self.view.maybe("topics", kind::texts).unwrap_or_default();
        if given.is_empty() && !self.view.is_refused("topics") && !self.view.given("topics_regex") {
            self.missing("topics", findings);
        }
        let mut topics: Vec<(String, String)> = Vec::new();
        for (text, value) in given {
            let renamed = rename.map_or_else(|| text.clone(), |rename| rename.apply(&text));
            let (source, target) = text.split_once(':').unwrap_or((&text, &renamed));
            let judged = kind::topic_name(source).and_then(|()| kind::topic_name(target)).and_then(|()| {
                let twice = |what: &str| Err(Complaint::new(format!("{what} is given twice"), "remove one"));
                match topics.iter().find(|(s, t)| s == source || t == target) {
                    Some((s, _)) if s == source => twice(&format!("source {source:?}")),
                    Some(_) => twice(&format!("target {target:?}")),
                    None => Ok(()),
                }
            });
            match judged {
                Ok(()) => topics.push((source.to_owned(), target.to_owned())),
                Err(complaint) => findings.syntax(&origin(value), "topics", complaint),
            }
        }
        topics
    }

    fn times(&self, findings: &mut Findings) -> Times {
        let [from_ms, until_ms] = ["from", "until"].map(|key| self.view.maybe(key, kind::time_ms));
        let times = Times { from_ms, until_ms };
        if times.is_empty() {
            let complaint = Complaint::new("is not before until: no record would be restored", "make it earlier");
            findings.semantics(&self.view.origin("from"), "from", complaint);
        }
        times
    }

    /// Adds what `key` says to `offsets`.
    fn offsets(
        &self,
        key: &str,
        value: Option<Value>,
        topics: &[(String, String)],
        offsets: &mut BTreeMap<(String, i32), Offsets>,
        findings: &mut Findings,
    ) {
        // What is not a table of offsets was refused when it was read.
        let Some((value, given)) = value.as_ref().and_then(|value| Some((value, kind::offsets(value).ok()?))) else {
            return;
        };
        for (partition, offset) in given {
            if let Err(complaint) = self.is_restored(&partition, topics) {
                findings.semantics(&origin(value), key, complaint);
            }
            let of = offsets.entry(partition).or_default();
            *(if key == "from_offset" { &mut of.from } else { &mut of.until }) = Some(offset);
            if of.range().is_empty() {
                let complaint = Complaint::new("leaves nothing of a partition", "make from_offset the smaller one");
                findings.semantics(&origin(value), key, complaint);
            }
        }
    }

    /// Whether the topic of a partition is one of those that are restored. What a pattern matches is known only when
    /// the backup has been looked at.
    fn is_restored(&self, (topic, number): &(String, i32), topics: &[(String, String)]) -> Result<(), Complaint> {
        if topics.iter().any(|(source, _)| source == topic) || self.view.given("topics_regex") {
            return Ok(());
        }
        let what = format!("\"{topic}/{number}\" is of a topic that is not restored");
        Err(Complaint::new(what, "name the source topic in topics, or remove the partition"))
    }

    fn partitions(&self, topics: &[(String, String)], findings: &mut Findings) -> Vec<(String, i32)> {
        let mut partitions = Vec::new();
        for (text, value) in self.view.maybe("partitions", kind::texts).unwrap_or_default() {
            let judged =
                kind::partition(&text).and_then(|partition| self.is_restored(&partition, topics).map(|()| partition));
            match judged {
                Ok(partition) => partitions.push(partition),
                Err(complaint) => findings.syntax(&origin(value), "partitions", complaint),
            }
        }
        partitions.sort();
        partitions.dedup();
        partitions
    }
}
