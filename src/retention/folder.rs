//! Retention in a folder, which has no rules: the retention record of a topic is the rule, and the daemon removes what
//! is older.

use std::sync::Arc;

use super::How;
use super::report::{Report, TopicReport};
use super::survey::JobTopic;
use crate::clock::now_ms;
use crate::config::Lifecycle as Mode;
use crate::metrics;
use crate::model::lifecycle::plan::{Installed, Step, TopicPlan, decide};
use crate::model::lifecycle::sweep::Sweep;
use crate::pipeline::expiry::{day_ms, record_of, write_record};
use crate::storage::retry::{PATIENCE, retry};
use crate::storage::{Store, StoreError};

/// Keys of one listing request.
const PAGE: usize = 1000;

/// Brings the retention records into step with `topics`.
///
/// # Errors
/// The folder cannot be read or written.
pub async fn reconcile(store: &Arc<dyn Store>, topics: &[JobTopic], how: How) -> Result<Report, StoreError> {
    let mut report = Report { store: store.url().to_owned(), ..Report::default() };
    for topic in topics {
        report.topics.push(one(store, topic, how).await?);
    }
    Ok(report)
}

async fn one(store: &Arc<dyn Store>, topic: &JobTopic, how: How) -> Result<TopicReport, StoreError> {
    let wanted = match &topic.days {
        Ok(days) => *days,
        Err(why) => return Ok(TopicReport::left(topic, Some(why.clone()))),
    };
    let mut record = match record_of(store, &topic.topic).await? {
        Ok(record) => record,
        Err(error) => return Ok(TopicReport::left(topic, Some(error.to_string()))),
    };
    let last = record.last();
    let days = last.flatten();
    let installed = Installed { there: days.is_some(), days, whole: true };
    let step = decide(wanted, installed, last);
    let hindrance = match topic.job.lifecycle {
        _ if topic.hindrance.is_some() => topic.hindrance.clone(),
        Mode::Check => Some("lifecycle = \"check\" only looks".to_owned()),
        Mode::Off | Mode::Manage => None,
    };
    let may = hindrance.is_none() && (step.is_safe() || how.allow_decrease || topic.job.lifecycle == Mode::Off);
    let done = step != Step::Leave && may && !how.dry_run;
    if done && record.begin(wanted, now_ms(), &topic.job.id) {
        write_record(store, &record).await?;
    }
    let plan = TopicPlan {
        topic: topic.topic.clone(),
        wanted,
        installed: days,
        in_force: record.last().flatten(),
        step,
        hindrance: hindrance.filter(|_| step != Step::Leave),
        threats: Vec::new(),
        done,
    };
    Ok(TopicReport::planned(topic, plan))
}

/// Removes what has expired of the topics in `report` that this process looks after; returns how many objects.
///
/// # Errors
/// The folder cannot be read or written.
pub async fn sweep(store: &Arc<dyn Store>, report: &Report) -> Result<u64, StoreError> {
    let mut removed = 0;
    for topic in report.topics.iter().filter(|topic| !topic.only_checked) {
        let Some(days) = topic.in_force_days else { continue };
        let mut sweep = Sweep::new(&topic.topic, days, now_ms(), day_ms());
        let (prefix, mut after) = (format!("{}/", topic.topic), None::<String>);
        loop {
            let page = retry(PATIENCE, || store.list(&prefix, after.as_deref(), PAGE)).await?;
            for entry in &page.entries {
                if sweep.expires(&entry.key, entry.modified_ms) {
                    retry(PATIENCE, || store.delete(&entry.key)).await?;
                    metrics::expired(&topic.job);
                    tracing::info!(job = %topic.job, key = %entry.key, days, "expired object removed");
                    removed += 1;
                }
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more || after.is_none() {
                break;
            }
        }
    }
    Ok(removed)
}
