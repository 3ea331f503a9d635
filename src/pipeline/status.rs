//! What a job is doing, for `/metrics`, `/-/status` and the log: written by the job, read by everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lane::Progress;
use crate::config::Job;
use crate::kafka::TopicPartition;
use crate::metrics;
use crate::model::watermark::{Kept, Protected};
use crate::pipeline::shown::JobRetention;
use crate::pipeline::shown::TurnStatus;

/// How a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Everything goes as it should.
    Running,
    /// Something does not, and is tried again.
    Degraded,
    /// Nothing goes until the operator has acted.
    Failed,
    /// Somebody has paused it.
    Paused,
    /// Making durable what has been read, then ending.
    Draining,
}

/// Since when and why a job is paused.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Paused {
    /// Since when, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
    /// Why, as far as somebody said.
    pub reason: Option<String>,
    /// By `paused = true` in its file, not by a command.
    pub by_file: bool,
    /// When it ends by itself, in milliseconds since 1970-01-01 UTC; `None`: when somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

impl Paused {
    /// Whether it has ended by itself. One by file ends with the line in the file.
    pub fn is_over(&self, now_ms: i64) -> bool {
        !self.by_file && self.until_ms.is_some_and(|until| until <= now_ms)
    }
}

impl JobState {
    /// All of them, for metrics.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Running, "running"),
        (Self::Degraded, "degraded"),
        (Self::Failed, "failed"),
        (Self::Paused, "paused"),
        (Self::Draining, "draining"),
    ];
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// What, and what to do about it.
    pub text: String,
    /// Since when, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
    /// It will not pass by itself.
    pub needs_operator: bool,
}

/// What is known of one partition.
#[derive(Debug, Clone, Default)]
pub struct PartitionStatus {
    /// How far its lane is; none while it has no lane.
    pub progress: Option<Arc<Progress>>,
    /// Up to which moment it is safe.
    pub protected: Protected,
    /// Where the log ended when it was last asked.
    pub end_offset: Option<i64>,
    /// The generation (its uuid) of its last lane.
    generation: String,
}

impl PartitionStatus {
    /// Records (offsets, strictly) between what is durable and the end of the log.
    pub fn lag(&self) -> Option<i64> {
        Some((self.end_offset? - self.progress.as_ref()?.covered()).max(0))
    }
}

/// A span in milliseconds, as documents show it.
pub fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// The status of one job.
#[derive(Debug)]
pub struct JobStatus {
    /// The job.
    pub job: Arc<Job>,
    /// Gap links written since the start.
    pub gaps: AtomicU64,
    /// When it began, in milliseconds since 1970-01-01 UTC.
    pub began_ms: i64,
    rpo_target_ms: AtomicU64,
    /// When the job was last heard of.
    beat: Mutex<Option<Instant>>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    draining: bool,
    /// Partitions have been assigned, be it none, since the start.
    joined: bool,
    paused: Option<Paused>,
    last_problem: Option<Problem>,
    problems: BTreeMap<String, Problem>,
    partitions: BTreeMap<TopicPartition, PartitionStatus>,
    groups: Option<(i64, usize)>,
    /// What was protected of partitions that are not ours now, or not yet.
    remembered: BTreeMap<TopicPartition, Kept>,
    /// Those of them that were ours when the group was lost, until it assigns again: nobody is known to own them.
    adrift: BTreeSet<TopicPartition>,
    retention_ms: BTreeMap<String, i64>,
    retention: JobRetention,
    turns: BTreeMap<String, TurnStatus>,
}

impl Inner {
    /// What was protected of partitions that nobody is known to own.
    fn nobodys(&self) -> impl Iterator<Item = (&TopicPartition, &Kept)> {
        self.remembered.iter().filter(|(partition, _)| !self.joined || self.adrift.contains(*partition))
    }

    /// Nothing is known of partitions any more but what was protected of those that were ours, or that nobody is known to
    /// own: a job that has had none yet still has what it began with.
    fn put_partitions_aside(&mut self) {
        let before: BTreeMap<_, _> = self.nobodys().map(|(p, kept)| (p.clone(), kept.clone())).collect();
        (self.joined, self.remembered) = (false, before);
        self.adrift.clear();
        let ours = std::mem::take(&mut self.partitions).into_iter();
        self.remembered.extend(ours.filter_map(|(p, s)| Some((p, s.protected.keep(&s.generation)?))));
    }
}

impl JobStatus {
    /// A job that has just begun.
    pub fn new(job: Arc<Job>) -> Arc<Self> {
        metrics::initialise_job(&job.id);
        Arc::new(Self {
            rpo_target_ms: AtomicU64::new(millis(job.rpo_target)),
            job,
            gaps: AtomicU64::new(0),
            began_ms: crate::clock::now_ms(),
            beat: Mutex::default(),
            inner: Mutex::default(),
        })
    }

    /// The job's target, which may change while it runs.
    pub fn rpo_target(&self) -> Duration {
        Duration::from_millis(self.rpo_target_ms.load(Ordering::Relaxed))
    }

    /// The job turns.
    pub fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Nobody has to be heard of any more.
    pub fn rest(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// For how long a running job was not heard of.
    pub fn silence(&self) -> Duration {
        let beat = *self.beat.lock().unwrap_or_else(PoisonError::into_inner);
        beat.map_or(Duration::ZERO, |beat| beat.elapsed())
    }

    /// Another target from now on.
    pub fn set_rpo_target(&self, target: Duration) {
        self.rpo_target_ms.store(millis(target), Ordering::Relaxed);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is wrong with `subject` (a partition, a topic, the bucket); said once for as long as it stays the same.
    pub fn problem(&self, subject: &str, text: impl Into<String>, needs_operator: bool) {
        let text = text.into();
        let mut inner = self.inner();
        let old = inner.problems.get(subject);
        if old.is_some_and(|old| old.text == text) {
            return;
        }
        let since_ms = old.map_or_else(crate::clock::now_ms, |old| old.since_ms);
        let problem = Problem { text: text.clone(), since_ms, needs_operator };
        inner.last_problem = Some(Problem { since_ms: crate::clock::now_ms(), ..problem.clone() });
        inner.problems.insert(subject.to_owned(), problem);
        drop(inner);
        tracing::error!(job = %self.job.id, subject, problem = %text, "job degraded");
    }

    /// How the instance of a compacted topic is.
    pub fn show_turn(&self, topic: &str, turn: TurnStatus) {
        self.inner().turns.insert(topic.to_owned(), turn);
    }

    /// The instances of compacted topics, by topic.
    pub fn turns(&self) -> BTreeMap<String, TurnStatus> {
        self.inner().turns.clone()
    }

    /// What was wrong with `subject` is over.
    pub fn solved(&self, subject: &str) {
        if self.inner().problems.remove(subject).is_some() {
            tracing::info!(job = %self.job.id, subject, "job recovered");
        }
    }

    /// How its retention is, as far as it was looked at; `true` when that is news.
    pub fn set_retention(&self, retention: JobRetention) -> bool {
        let old = std::mem::replace(&mut self.inner().retention, retention.clone());
        (old.differences, old.warnings) != (retention.differences, retention.warnings)
    }

    /// How its retention is.
    pub fn retention(&self) -> JobRetention {
        self.inner().retention.clone()
    }

    /// The job is making durable what it holds and ends then.
    pub fn draining(&self) {
        self.inner().draining = true;
    }

    /// The job does not run, because somebody has paused it.
    pub fn pause(&self, paused: Paused) {
        let mut inner = self.inner();
        inner.draining = false;
        inner.problems.clear();
        inner.paused = Some(paused);
    }

    /// The job is being started: nothing is known of its partitions yet but what was protected of them before.
    pub fn begin(&self) {
        let mut inner = self.inner();
        (inner.draining, inner.paused) = (false, None);
        inner.put_partitions_aside();
    }

    /// Since when and why it is paused.
    pub fn paused(&self) -> Option<Paused> {
        self.inner().paused.clone()
    }

    /// What was wrong last, whether it still is or not; `since_ms` is when that was said.
    pub fn last_problem(&self) -> Option<Problem> {
        self.inner().last_problem.clone()
    }

    /// How it is.
    pub fn state(&self) -> JobState {
        let inner = self.inner();
        if inner.draining {
            JobState::Draining
        } else if inner.paused.is_some() {
            JobState::Paused
        } else if inner.problems.values().any(|p| p.needs_operator)
            && inner.partitions.values().all(|p| p.progress.is_none())
        {
            JobState::Failed
        } else if inner.problems.is_empty() {
            JobState::Running
        } else {
            JobState::Degraded
        }
    }

    /// What is wrong, by subject.
    pub fn problems(&self) -> BTreeMap<String, Problem> {
        self.inner().problems.clone()
    }

    /// What an earlier process knew to be protected.
    pub fn remember(&self, kept: BTreeMap<TopicPartition, Kept>) {
        self.inner().remembered.extend(kept);
    }

    /// What a later process should know: of each topic, what is protected of the partitions that are ours. While none
    /// have been assigned yet, or the group is lost, that is what was known before.
    pub fn to_remember(&self) -> BTreeMap<String, BTreeMap<i32, Kept>> {
        let partitions = self.partitions();
        let inner = self.inner();
        let ours = partitions.iter().filter_map(|(p, s)| Some((p, s.protected.keep(&s.generation)?)));
        let before = inner.nobodys().map(|(p, kept)| (p, kept.clone()));
        let mut all: BTreeMap<String, BTreeMap<i32, Kept>> = BTreeMap::new();
        for (partition, kept) in before.chain(ours) {
            all.entry(partition.topic.to_string()).or_default().insert(partition.partition, kept);
        }
        all
    }

    /// Per topic that has no partition here: up to when it is protected, as far as is known. A topic whose partitions
    /// all belong to other processes is theirs to report. While nobody can be in the group, because Kafka is away, that
    /// stands still instead of being gone: there is an alert for what stands still.
    pub fn topics_without_partitions(&self) -> BTreeMap<String, Option<i64>> {
        let inner = self.inner();
        let has_some = |topic: &str| inner.partitions.keys().any(|p| *p.topic == *topic);
        let mut all = BTreeMap::new();
        for (partition, kept) in inner.nobodys().filter(|(p, _)| !has_some(&p.topic)) {
            let at = all.entry(partition.topic.to_string()).or_insert(Some(kept.at_ms));
            *at = (*at).min(Some(kept.at_ms));
        }
        // An instance of a compacted topic that rests has nothing to protect: its partner reports.
        let rests = |topic: &str| inner.turns.get(topic).is_some_and(|turn| turn.status == "PASSIVATE");
        for topic in self.job.topics.literal.iter().filter(|topic| !has_some(topic) && !rests(topic)) {
            if !inner.joined || inner.problems.contains_key(&missing(topic)) {
                // The series exists from the moment the job does: "never" is a value, not an absence.
                all.entry(topic.clone()).or_insert(None);
            }
        }
        all
    }

    /// A lane for `partition` began, in the generation with this uuid.
    pub fn lane_began(&self, partition: &TopicPartition, generation: &str, progress: Arc<Progress>) {
        let mut inner = self.inner();
        let status = inner.partitions.entry(partition.clone()).or_default();
        let covered = progress.covered();
        status.protected.begin(generation, covered);
        generation.clone_into(&mut status.generation);
        let before = status.progress.replace(progress).map_or(covered, |old| old.durable_next());
        if covered < before {
            // A new generation: the topic was created anew, or its log lost its end.
            status.protected.restart(covered);
        }
    }

    /// Everything that was known is not so any more: the job is started again.
    pub fn reset(&self) {
        let mut inner = self.inner();
        inner.problems.clear();
        inner.turns.clear();
        inner.put_partitions_aside();
    }

    /// Partitions are ours, besides those that are already, without lanes as yet.
    pub fn assigned(&self, partitions: &[TopicPartition]) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        inner.joined = true;
        inner.adrift.clear();
        for partition in partitions {
            inner.partitions.entry(partition.clone()).or_insert_with(|| {
                let kept = inner.remembered.remove(partition);
                let protected = kept.map_or_else(Protected::default, Protected::remembered);
                PartitionStatus { protected, ..PartitionStatus::default() }
            });
        }
    }

    /// A partition is not ours any more. It may come back at once.
    pub fn lost(&self, partition: &TopicPartition) {
        let mut inner = self.inner();
        if let Some(status) = inner.partitions.remove(partition)
            && let Some(kept) = status.protected.keep(&status.generation)
        {
            inner.remembered.insert(partition.clone(), kept);
        }
    }

    /// The group is lost: it has thrown us out, or cannot be reached, with partitions that were ours. Who owns them is not
    /// known before it assigns partitions again.
    pub fn lost_group(&self, partitions: &[TopicPartition]) {
        self.inner().adrift.extend(partitions.iter().cloned());
    }

    /// At `at_ms` the logs ended there.
    pub fn observe_ends(&self, at_ms: i64, ends: &BTreeMap<TopicPartition, i64>) {
        let mut inner = self.inner();
        for (partition, end) in ends {
            if let Some(status) = inner.partitions.get_mut(partition) {
                status.end_offset = Some(*end);
                status.protected.observe(at_ms, *end);
                if let Some(progress) = &status.progress {
                    let covered = progress.covered();
                    status.protected.cover(covered);
                }
            }
        }
    }

    /// So long Kafka keeps the records of the topics, in milliseconds; topics that are kept for ever are not in it.
    pub fn observe_retention(&self, retention_ms: BTreeMap<String, i64>) {
        self.inner().retention_ms = retention_ms;
    }

    /// How long Kafka keeps the records of a topic, in milliseconds; `None`: for ever, or it is not known.
    pub fn retention_ms(&self, topic: &str) -> Option<i64> {
        self.inner().retention_ms.get(topic).copied()
    }

    /// All partitions, with what is protected brought up to now.
    pub fn partitions(&self) -> BTreeMap<TopicPartition, PartitionStatus> {
        let mut inner = self.inner();
        for status in inner.partitions.values_mut() {
            if let Some(progress) = &status.progress {
                let covered = progress.covered();
                status.protected.cover(covered);
            }
        }
        inner.partitions.clone()
    }

    /// The positions of so many consumer groups are saved as they were at that time, in milliseconds since 1970-01-01
    /// UTC; `None`: another daemon sees to them.
    pub fn groups_saved(&self, saved: Option<(i64, usize)>) {
        self.inner().groups = saved;
    }

    /// When the positions of consumer groups were saved last, and of how many.
    pub fn groups(&self) -> Option<(i64, usize)> {
        self.inner().groups
    }

    /// A gap link was written.
    pub fn add_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }
}

/// The subject under which a topic of the job is reported that does not exist.
pub fn missing(topic: &str) -> String {
    format!("topic {topic}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAFE_MS: i64 = 1_000;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    /// A job that knows of partitions 0 and 1 from before, and has been given both.
    fn with_two_partitions() -> Arc<JobStatus> {
        let status = JobStatus::new(Arc::new(crate::pipeline::tests::any_job("j", "t")));
        let kept = |at_ms| Kept { at_ms, covered: 5, generation: "g".to_owned() };
        status.remember([(partition(0), kept(SAFE_MS)), (partition(1), kept(2 * SAFE_MS))].into());
        status.assigned(&[partition(0), partition(1)]);
        status
    }

    fn shown(status: &JobStatus) -> Option<Option<i64>> {
        status.topics_without_partitions().get("t").copied()
    }

    #[test]
    fn what_another_process_has_is_its_to_report() {
        let status = with_two_partitions();
        [0, 1].iter().for_each(|number| status.lost(&partition(*number)));
        assert_eq!(shown(&status), None);
        assert!(status.to_remember().is_empty());
    }

    /// Nobody has it, as far as is known: it stands still, also when the job is started again, until the group assigns.
    #[test]
    fn what_was_ours_when_the_group_was_lost_is_shown_until_it_assigns_again() {
        let status = with_two_partitions();
        [0, 1].iter().for_each(|number| status.lost(&partition(*number)));
        status.lost_group(&[partition(0), partition(1)]);
        assert_eq!(shown(&status), Some(Some(SAFE_MS)));
        assert_eq!(status.to_remember()["t"].len(), 2);
        for _ in 0..2 {
            status.reset();
            assert_eq!(shown(&status), Some(Some(SAFE_MS)));
        }
        status.assigned(&[]);
        assert_eq!(shown(&status), None);
    }

    /// What went to another process before is not ours to show, however old the last we know of it is.
    #[test]
    fn what_was_given_away_before_is_not_shown_with_it() {
        let status = with_two_partitions();
        status.lost(&partition(0));
        status.assigned(&[]);
        status.lost(&partition(1));
        status.lost_group(&[partition(1)]);
        assert_eq!(shown(&status), Some(Some(2 * SAFE_MS)));
    }

    /// A pause is no loss, nor is a job that ends before it has partitions again.
    #[test]
    fn what_was_ours_when_a_job_was_paused_is_shown_until_it_has_partitions_again() {
        let status = with_two_partitions();
        status.pause(Paused { since_ms: 8, reason: None, by_file: false, until_ms: None });
        for _ in 0..2 {
            status.begin();
            assert_eq!(shown(&status), Some(Some(SAFE_MS)));
            assert_eq!(status.to_remember()["t"].len(), 2);
        }
        status.assigned(&[partition(0)]);
        assert_eq!(status.partitions()[&partition(0)].protected.at_ms(), Some(SAFE_MS));
    }
}
