//! What a job has besides when its lanes are those of a run of a compacted topic's instance.

use std::collections::BTreeSet;

use crate::kafka::TopicPartition;

/// The lanes of a run.
pub struct OfRun {
    /// The topic.
    pub topic: std::sync::Arc<str>,
    /// Told when a lane waits because an object of another run lies where its own belongs.
    pub blocked: Box<dyn Fn() + Send>,
    pub(super) waiting: BTreeSet<TopicPartition>,
    pub(super) at_every_end: bool,
}

impl OfRun {
    /// Lanes of `topic`; `blocked` is told when one of them waits.
    pub fn new(topic: &str, blocked: Box<dyn Fn() + Send>) -> Self {
        Self { topic: topic.into(), blocked, waiting: BTreeSet::new(), at_every_end: true }
    }
}

/// How far one partition of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HowFar {
    /// Where its acknowledged objects end; `None` while it has no lane.
    pub stored: Option<i64>,
    /// See [`crate::pipeline::lane::Progress::restorable`].
    pub restorable: Option<i64>,
    /// See [`crate::pipeline::lane::Progress::seen_end_ms`].
    pub seen_end_ms: Option<i64>,
    /// Where the log ended when it was last asked.
    pub end: Option<i64>,
}
