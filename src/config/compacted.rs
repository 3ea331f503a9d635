//! Jobs of type "compacted": one of two instances that take turns, and what must be true of both.

use std::sync::Arc;
use std::time::Duration;

use super::draft::Draft;
use super::finding::{Complaint, Findings};
use super::kind;
use super::layers::View;
use super::{KafkaConfig, store};
use crate::model::key;

/// The keys that only jobs of this type have.
pub(super) const KEYS: [&str; 8] = [
    "instance",
    "initial_status",
    "length_hours",
    "interval_offsets",
    "coordination_topic",
    "coordination_kafka",
    "partner_timeout",
    "takeover",
];

/// Keys of other jobs that mean nothing for this type, and why.
pub(super) const WITHOUT_EFFECT: [(&str, &str); 5] = [
    ("start", "a snapshot is read from the beginning of the log"),
    ("adopt", "objects that are not of a run are never used"),
    ("allow_compacted", "its topics are compacted"),
    ("on_recreate", "a topic that was deleted and created again stops the instance"),
    ("group_instance_id", "the partitions of an instance are not shared out by a group"),
];

/// What a job of type "compacted" has besides.
#[derive(Debug, Clone)]
pub struct CompactedJob {
    /// Which of the two this is: the folder under TOPIC/.
    pub instance: String,
    /// Whether it scans first where nothing says who does.
    pub begins: bool,
    /// How long it stays active before it asks for a successor.
    pub length: Duration,
    /// After how many new durable offsets it announces them.
    pub interval_offsets: u64,
    /// Where the two tell each other what they do.
    pub coordination_topic: String,
    /// The cluster of that topic.
    pub coordination_kafka: Arc<KafkaConfig>,
    /// After how long a partner that is not heard of is silent.
    pub partner_timeout: Duration,
    /// Whether a silent partner makes it start a scan.
    pub takeover: bool,
}

impl CompactedJob {
    /// Reads the values; `None`: the findings say why.
    pub(super) fn build(
        view: &View,
        coordination_kafka: Arc<KafkaConfig>,
        at: impl Fn(&str) -> super::Origin,
        findings: &mut Findings,
    ) -> Option<Self> {
        let missing = |key: &str, remedy: &str, findings: &mut Findings| {
            findings.semantics(&at(key), key, Complaint::new("is missing", remedy));
        };
        let instance = view.maybe_text("instance").map(str::to_owned);
        if let Some(Err(complaint)) = instance.as_deref().map(instance_name) {
            findings.syntax(&at("instance"), "instance", complaint);
        } else if instance.is_none() && !view.is_refused("instance") {
            missing(
                "instance",
                "name it, for example instance = \"a\", and instance = \"b\" in the other job",
                findings,
            );
        }
        let initial = view.maybe_text("initial_status");
        if initial.is_none() && !view.is_refused("initial_status") {
            missing(
                "initial_status",
                "write \"ACTIVATE\" in one of the two jobs and \"PASSIVATE\" in the other",
                findings,
            );
        }
        let coordination_topic = view.text("coordination_topic");
        if let Err(complaint) = kind::topic_name(&coordination_topic) {
            findings.syntax(&at("coordination_topic"), "coordination_topic", complaint);
        }
        Some(Self {
            instance: instance?,
            begins: initial? == "ACTIVATE",
            length: view.value("length_hours", |value| kind::hours(value, u32::MAX)),
            interval_offsets: view.value("interval_offsets", kind::count),
            coordination_topic,
            coordination_kafka,
            partner_timeout: view.value("partner_timeout", kind::span),
            takeover: view.value("takeover", kind::flag),
        })
    }
}

/// Whether a folder between topic and partition can be an instance.
fn instance_name(name: &str) -> Result<(), Complaint> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let sound = (1..=64).contains(&name.len()) && name.bytes().all(allowed) && !matches!(name, "." | "..");
    if !sound {
        let what = format!("{name:?} cannot be the name of an instance");
        return Err(Complaint::new(what, "use a-z A-Z 0-9 . _ -, at most 64 of them"));
    }
    if name.starts_with("gen-") || !key::is_instance(name) {
        let what = format!("{name:?} would be taken for the folder of a generation or a partition");
        return Err(Complaint::new(what, "choose a name that is neither gen-* nor a number, for example \"a\""));
    }
    Ok(())
}

/// What must be true of two jobs of this type that write to the same place.
pub(super) fn pair(earlier: &Draft, later: &Draft, findings: &mut Findings) {
    let (Some(a), Some(b)) = (&earlier.job.compacted, &later.job.compacted) else { return };
    let shared: Vec<_> =
        later.topic_origins.iter().filter(|(topic, _)| earlier.topic_origins.contains_key(*topic)).collect();
    let Some((topic, at)) = shared.first() else { return };
    let other = format!("job {:?}", earlier.job.id);
    let mut say = |key: &str, what: String, remedy: &str| {
        findings.semantics(&later.origin(key), key, Complaint::new(what, remedy));
    };
    if a.instance == b.instance {
        let what = format!("{:?} is the instance of {other} for topic {topic:?}, too ({at})", b.instance);
        return say("instance", what, "give the two jobs of a pair different instances");
    }
    if a.begins == b.begins {
        let status = if b.begins { "ACTIVATE" } else { "PASSIVATE" };
        let what = format!("{status} is the initial_status of its partner, {other}, too");
        say("initial_status", what, "write ACTIVATE in one of the two and PASSIVATE in the other");
    }
    if a.coordination_topic != b.coordination_topic {
        let what = format!("its partner, {other}, has {:?}: they would never hear of each other", a.coordination_topic);
        say("coordination_topic", what, "name the same topic in both");
    }
    if shared.len() != later.topic_origins.len() || shared.len() != earlier.topic_origins.len() {
        let what = format!("its partner, {other}, has other topics");
        say("topics", what, "name the same topics in both jobs of a pair");
    }
}

/// A topic has two instances: a third one would never have its turn.
pub(super) fn two_at_most(drafts: &[Draft], findings: &mut Findings) {
    let takes =
        |draft: &Draft, topic: &String| draft.job.compacted.is_some() && draft.topic_origins.contains_key(topic);
    for (index, third) in drafts.iter().enumerate() {
        for (topic, at) in third.topic_origins.iter().filter(|(topic, _)| takes(third, topic)) {
            let same =
                |draft: &&Draft| takes(draft, topic) && store::same_place(&draft.job.storage, &third.job.storage);
            let before: Vec<_> = drafts[..index].iter().filter(same).map(|draft| draft.job.id.as_str()).collect();
            if before.len() >= 2 {
                let what = format!("{topic:?} has its two instances already, in the jobs {}", before.join(" and "));
                findings.semantics(at, "topics", Complaint::new(what, "remove it here"));
            }
        }
    }
}
