//! What was found and done in one store, for people, programs and the status of jobs.

use serde::Serialize;

use super::survey::JobTopic;
use crate::config::Lifecycle;
use crate::model::lifecycle::plan::{Step, TopicPlan};

/// One store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where it is.
    pub store: String,
    /// Topic by topic.
    pub topics: Vec<TopicReport>,
    /// Rules that remove what is not records: generation records and the like, without which nothing goes on.
    pub threats: Vec<String>,
    /// What else should be known.
    pub notes: Vec<String>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    /// The job.
    pub job: String,
    /// The topic.
    pub topic: String,
    /// After how many days its objects are to expire; nothing: never.
    pub wanted_days: Option<u32>,
    /// After how many days our rule removes them now; nothing: there is none.
    pub installed_days: Option<u32>,
    /// After how many days they expire now, by whosever rule; nothing: never, as far as known.
    pub in_force_days: Option<u32>,
    /// What is between the two.
    #[serde(flatten)]
    pub step: Option<Step>,
    /// It was done.
    pub done: bool,
    /// Why it is not done, or not known.
    pub hindrance: Option<String>,
    /// Only looked at: `lifecycle` is not `manage`.
    pub only_checked: bool,
    /// Rules of others that remove objects of the topic earlier than wanted.
    pub threats: Vec<String>,
}

impl TopicReport {
    /// A topic of which it is not known what is wanted, or which is left to others.
    pub fn left(topic: &JobTopic, why: Option<String>) -> Self {
        Self {
            job: topic.job.id.clone(),
            topic: topic.topic.clone(),
            wanted_days: topic.days.clone().ok().flatten(),
            installed_days: None,
            in_force_days: None,
            step: None,
            done: false,
            hindrance: why,
            only_checked: topic.job.lifecycle != Lifecycle::Manage,
            threats: Vec::new(),
        }
    }

    /// A topic that was planned for.
    pub fn planned(topic: &JobTopic, plan: TopicPlan) -> Self {
        Self {
            job: topic.job.id.clone(),
            topic: plan.topic,
            wanted_days: plan.wanted,
            installed_days: plan.installed,
            in_force_days: plan.in_force,
            step: Some(plan.step),
            done: plan.done,
            hindrance: plan.hindrance,
            only_checked: topic.job.lifecycle != Lifecycle::Manage,
            threats: plan.threats,
        }
    }

    /// Whether the store is not as it should be.
    pub fn drifts(&self) -> bool {
        let open = self.step.is_some_and(|step| step != Step::Leave && !self.done);
        open || !self.threats.is_empty()
    }

    /// Whether it needs the operator: the job does not do what it was told to.
    pub fn is_problem(&self) -> bool {
        self.hindrance.is_some() && !self.only_checked
    }

    /// The difference in words; `None` where there is none.
    pub fn difference(&self) -> Option<String> {
        let mut parts = Vec::new();
        match (self.step.filter(|step| *step != Step::Leave), &self.hindrance) {
            (Some(step), Some(why)) => parts.push(format!("would {step}, but {why}")),
            (Some(step), None) if self.done => parts.push(format!("done: {step}")),
            (Some(step), None) if step.is_safe() => parts.push(step.to_string()),
            (Some(step), None) => parts.push(format!("{step}: waits for --allow-retention-decrease")),
            (None, Some(why)) => parts.push(format!("left as it is: {why}")),
            (None, None) => {}
        }
        parts.extend(self.threats.iter().map(|rule| format!("{rule} removes objects that are to be kept")));
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl Report {
    /// How many topics of `job` are not as they should be.
    pub fn drift_of(&self, job: &str) -> usize {
        self.topics.iter().filter(|topic| topic.job == job && topic.drifts()).count()
    }
}

/// Days for people.
pub fn days_text(days: Option<u32>) -> String {
    days.map_or_else(|| "keep".to_owned(), |days| format!("{days}d"))
}
