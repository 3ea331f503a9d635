//! Jobs: one file each, over `[defaults]` of the main file, over the program's own defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use config::{Value, ValueKind};

use super::cluster::{self, Cluster};
use super::compacted::{self, CompactedJob};
use super::draft::Draft;
use super::finding::{Complaint, Findings, Origin};
use super::layers::{Layer, View, What};
use super::source::{named, origin};
use super::{
    Codec, GroupSelection, Isolation, Job, KafkaConfig, Lifecycle, OnRecreate, Retention, Start, StorageConfig,
    TopicSelection, keys, kind, store,
};
use crate::model::restore::Pattern;

/// What jobs are built from besides their own files.
pub(super) struct Shared<'a> {
    /// The main file, or where it would be.
    pub main: &'a Path,
    /// `[defaults]`.
    pub defaults: &'a Layer,
    /// By name; `None`: it is there, but of no use.
    pub clusters: &'a BTreeMap<String, Option<Cluster>>,
    /// By name; `None`: it is there, but of no use.
    pub stores: &'a BTreeMap<String, Option<Arc<StorageConfig>>>,
}

/// The id of the job in `path`.
pub(super) fn id(path: &Path, findings: &mut Findings) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if !stem.is_empty() && stem.chars().all(allowed) {
        return Some(stem);
    }
    let what = format!("{stem:?} cannot be the id of a job");
    let remedy = "name the file with a-z A-Z 0-9 . _ - and .toml";
    findings.syntax(&Origin::file(path), "", Complaint::new(what, remedy));
    None
}

/// Builds the job `id` from the values of its file. `None`: the findings say why.
pub(super) fn build(
    id: &str,
    path: &Path,
    mut own: Layer,
    shared: &Shared<'_>,
    findings: &mut Findings,
) -> Option<Draft> {
    let mut defaults = shared.defaults.clone();
    let mut built_in = Layer::defaults(What::Job);
    let own_coordination = own.get("coordination_kafka").is_some();
    let mut reference = |key: &'static str| {
        let [own, defaults, built_in] = [own.take(key), defaults.take(key), built_in.take(key)];
        (key, own.or(defaults).or(built_in).unwrap_or_default())
    };
    let mut references = vec![reference("kafka"), reference("storage")];
    let coordination = reference("coordination_kafka");
    let coordination_given = coordination.1.kind != ValueKind::Nil;
    let own_keys: Vec<&str> = compacted::KEYS
        .into_iter()
        .chain(compacted::WITHOUT_EFFECT.map(|(key, _)| key))
        .filter(|key| own.get(key).is_some() || *key == "coordination_kafka" && own_coordination)
        .collect();
    let computed = Layer::one("group_id", named("default", format!("kafka-backup-{id}")));
    let level_belongs = own.get("codec").is_some() == own.get("codec_level").is_some();
    let view = View::new(What::Job, Layer::merge([built_in, computed, defaults, own]));

    let file = Origin::start(path);
    let builder = Builder { id, path, file, view: &view, shared };
    let kafka = builder.kafka(&references[0].1, findings);
    let storage = builder.storage(&references[1].1, findings);
    let (mut topics, topic_origins) = builder.topics(findings);
    let codec = builder.codec(level_belongs, findings);
    builder.retention(findings);
    builder.group_and_target(findings);
    builder.keys_of_the_type(&own_keys, findings);
    let compacted = match builder.is_compacted() {
        true => {
            let coordination_kafka = match coordination_given {
                true => builder.kafka(&coordination.1, findings),
                false => kafka.clone(),
            };
            let at = |key: &str| builder.at(key);
            let built = coordination_kafka.and_then(|kafka| CompactedJob::build(builder.view, kafka, at, findings));
            topics.coordination = built.as_ref().map(|built| built.coordination_topic.clone());
            builder.not_the_coordination_topic(&topics, &topic_origins, findings);
            Some(built?)
        }
        false => None,
    };
    if coordination_given {
        references.push(coordination);
    }
    let job = Job { compacted, ..builder.job(kafka?, storage?, topics, codec) };
    Some(Draft { job: Arc::new(job), view, references, topic_origins })
}

struct Builder<'a> {
    id: &'a str,
    path: &'a Path,
    /// The beginning of the job's file.
    file: Origin,
    view: &'a View,
    shared: &'a Shared<'a>,
}

impl Builder<'_> {
    fn job(&self, kafka: Arc<KafkaConfig>, storage: Arc<StorageConfig>, topics: TopicSelection, codec: Codec) -> Job {
        let view = self.view;
        Job {
            id: self.id.to_owned(),
            path: self.path.to_owned(),
            kafka,
            storage,
            topics,
            tasks_max: view.value("tasks_max", kind::count) as u32, // at most 128
            group_id: view.maybe_text("group_id").unwrap_or_default().to_owned(),
            group_instance_id: view.text("group_instance_id"),
            flush_size: view.value("flush_size", kind::count),
            flush_bytes: view.value("flush_bytes", kind::size),
            rotate_interval: view.value("rotate_interval", kind::span),
            codec,
            isolation: match view.text("isolation").as_str() {
                "read_uncommitted" => Isolation::ReadUncommitted,
                _ => Isolation::ReadCommitted,
            },
            start: if view.text("start") == "latest" { Start::Latest } else { Start::Earliest },
            on_recreate: match view.text("on_recreate").as_str() {
                "stop" => OnRecreate::Stop,
                _ => OnRecreate::NewGeneration,
            },
            adopt: view.value("adopt", kind::flag),
            allow_compacted: view.value("allow_compacted", kind::flag),
            rate_limit: view.value("rate_limit", kind::rate),
            rpo_target: view.value("rpo_target", kind::span),
            paused: view.value("paused", kind::flag),
            groups: GroupSelection {
                include: Pattern(view.value("groups_regex", kind::pattern)),
                exclude: view.maybe("groups_exclude_regex", kind::pattern).map(Pattern),
            },
            groups_interval: view.value("groups_interval", kind::span),
            retention: view.value("retention", kind::retention),
            lifecycle: match view.text("lifecycle").as_str() {
                "check" => Lifecycle::Check,
                "off" => Lifecycle::Off,
                _ => Lifecycle::Manage,
            },
            compacted: None,
        }
    }

    fn at(&self, key: &str) -> Origin {
        match self.view.origin(key) {
            Origin::Named(_) => self.file.clone(),
            file => file,
        }
    }

    /// The place of a reference, which is the job's file where the reference is the built-in default.
    fn at_value(&self, value: &Value) -> Origin {
        match origin(value) {
            Origin::Named(_) => self.file.clone(),
            file => file,
        }
    }

    fn kafka(&self, value: &Value, findings: &mut Findings) -> Option<Arc<KafkaConfig>> {
        match &value.kind {
            ValueKind::Table(table) => {
                let cluster = cluster::build(&self.inline_name(), &origin(value), table, findings)?;
                findings.0.extend(cluster.unreadable);
                Some(cluster.config)
            }
            ValueKind::String(name) => {
                let found = self.named("kafka", name, value, self.shared.clusters, findings)?.as_ref()?;
                findings.0.extend(found.unreadable.iter().cloned());
                Some(Arc::clone(&found.config))
            }
            _ => None,
        }
    }

    fn storage(&self, value: &Value, findings: &mut Findings) -> Option<Arc<StorageConfig>> {
        match &value.kind {
            ValueKind::Table(table) => store::build(&self.inline_name(), &origin(value), table, findings),
            ValueKind::String(name) => self.named("storage", name, value, self.shared.stores, findings)?.clone(),
            _ => None,
        }
    }

    fn inline_name(&self) -> String {
        format!("jobs.d/{}.toml", self.id)
    }

    fn named<'t, T>(
        &self,
        key: &str,
        name: &str,
        value: &Value,
        all: &'t BTreeMap<String, T>,
        findings: &mut Findings,
    ) -> Option<&'t T> {
        let found = all.get(name);
        if found.is_none() {
            let complaint = no_such(key, name, all.keys().map(String::as_str), self.shared.main);
            findings.semantics(&self.at_value(value), key, complaint);
        }
        found
    }

    fn topics(&self, findings: &mut Findings) -> (TopicSelection, BTreeMap<String, Origin>) {
        let view = self.view;
        let mut origins = BTreeMap::new();
        let mut literal = Vec::new();
        for (topic, value) in view.maybe("topics", kind::texts).unwrap_or_default() {
            let at = origin(value);
            if let Err(complaint) = kind::topic_name(&topic) {
                findings.syntax(&at, "topics", complaint);
            } else if origins.insert(topic.clone(), at.clone()).is_some() {
                findings.semantics(&at, "topics", Complaint::new(format!("{topic:?} is listed twice"), "remove one"));
            } else {
                literal.push(topic);
            }
        }
        let include = view.maybe("topics_regex", kind::pattern);
        let exclude = view.maybe("exclude_regex", kind::pattern);
        let empty = view.maybe("topics", kind::texts).is_none_or(|topics| topics.is_empty());
        if empty && !view.is_refused("topics") && !view.given("topics_regex") {
            let complaint = Complaint::new("no topic is named", "write topics = [\"...\"] or topics_regex = \"^...$\"");
            findings.semantics(&self.at("topics"), "topics", complaint);
        }
        if exclude.is_some() && !view.given("topics_regex") {
            let complaint = Complaint::new("has no effect without topics_regex", "remove it");
            findings.semantics(&self.at("exclude_regex"), "exclude_regex", complaint);
        }
        (TopicSelection { literal, include, exclude, coordination: None }, origins)
    }

    fn group_and_target(&self, findings: &mut Findings) {
        let view = self.view;
        if view.maybe_text("group_id") == Some("") {
            let complaint = Complaint::new("is empty", "remove the key to have the default, kafka-backup-JOB");
            findings.syntax(&self.at("group_id"), "group_id", complaint);
        }
        let [target, rotate] = ["rpo_target", "rotate_interval"].map(|key| view.value(key, kind::span));
        if target < rotate {
            let [target, rotate] = [target, rotate].map(humantime::format_duration);
            let what = format!("{target} is less than rotate_interval ({rotate}): it is missed when little is written");
            let complaint = Complaint::new(what, "lower rotate_interval, or raise rpo_target");
            // Where either was given, rather than at the job as a whole.
            let key = if view.origin("rpo_target").path().is_some() { "rpo_target" } else { "rotate_interval" };
            findings.warning(&self.at(key), "rpo_target", complaint);
        }
    }

    /// `level_belongs`: codec and level come from the same place, so that one cannot be a default meant for another
    /// codec.
    fn codec(&self, level_belongs: bool, findings: &mut Findings) -> Codec {
        let level = self.view.maybe("codec_level", kind::count).map(|level| level as u32); // at most 22
        let codec = self.view.text("codec");
        let level_max = match codec.as_str() {
            "zstandard" => 22,
            "deflate" => 9,
            _ => 0,
        };
        if let Some(level) = level.filter(|level| *level > level_max && level_belongs) {
            let complaint = if level_max == 0 {
                Complaint::new(format!("has no effect with codec = \"{codec}\""), "remove it")
            } else {
                Complaint::new(format!("{level} is more than {level_max}, the most of {codec}"), "choose a lower level")
            };
            findings.semantics(&self.at("codec_level"), "codec_level", complaint);
        }
        let level = level.filter(|level| *level <= level_max);
        match codec.as_str() {
            "snappy" => Codec::Snappy,
            "null" => Codec::Null,
            "deflate" => Codec::Deflate(level.unwrap_or(6)),
            _ => Codec::Zstandard(level.unwrap_or(3) as i32),
        }
    }

    fn is_compacted(&self) -> bool {
        self.view.text("type") == "compacted"
    }

    /// Keys in the job's own file that mean nothing for its type. Those of `[defaults]` are for whom they concern.
    fn keys_of_the_type(&self, own: &[&str], findings: &mut Findings) {
        for key in own {
            let why = compacted::WITHOUT_EFFECT.iter().find(|(name, _)| name == key).map(|(_, why)| *why);
            let complaint = match (why, self.is_compacted()) {
                (Some(why), true) => {
                    Complaint::new(format!("has no effect with type = \"compacted\": {why}"), "remove it")
                }
                (None, false) => {
                    Complaint::new("belongs to type = \"compacted\"", "remove it, or write type = \"compacted\"")
                }
                _ => continue,
            };
            findings.semantics(&self.at(key), key, complaint);
        }
        if self.is_compacted() && self.view.given("topics_regex") {
            let what = "is not supported by this version for type = \"compacted\"";
            findings.semantics(&self.at("topics_regex"), "topics_regex", Complaint::new(what, "name the topics"));
        }
    }

    fn not_the_coordination_topic(
        &self,
        topics: &TopicSelection,
        origins: &BTreeMap<String, Origin>,
        findings: &mut Findings,
    ) {
        let coordination = topics.coordination.as_ref();
        if let Some(at) = coordination.and_then(|topic| origins.get(topic)) {
            let complaint =
                Complaint::new("names the coordination topic, which changes with every turn", "leave it out");
            findings.semantics(at, "topics", complaint);
        }
    }

    /// The live keys of a compacted topic may be of any age: removed by age, they would be gone.
    fn retention(&self, findings: &mut Findings) {
        let retention = self.view.value("retention", kind::retention);
        if self.view.text("type") == "compacted" && retention != Retention::Keep {
            let what = "a snapshot of a compacted topic must not expire: its oldest records are as alive as its newest";
            let complaint = Complaint::new(what, "write retention = \"keep\" into the job");
            findings.semantics(&self.at("retention"), "retention", complaint);
        }
    }
}

/// A reference to a cluster or a store that is not there.
pub(super) fn no_such<'n>(
    key: &str,
    name: &str,
    known: impl Iterator<Item = &'n str> + Clone,
    main: &Path,
) -> Complaint {
    let noun = if key == "kafka" { "cluster" } else { "store" };
    if name.contains("://") {
        // It may hold a password, and is not repeated.
        let what = format!("a URL is not the name of a {noun}");
        return Complaint::new(what, format!("write [{key}.NAME] into {}, and NAME here", main.display()));
    }
    let what = format!("there is no {noun} {name:?}");
    let names: BTreeSet<&str> = known.clone().collect();
    let remedy = match keys::meant(name, known) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None if names.is_empty() => format!("write [{key}.{name}] into {}", main.display()),
        None => {
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            format!("write [{key}.{name}] into {}, or name one of {names}", main.display())
        }
    };
    Complaint::new(what, remedy)
}
