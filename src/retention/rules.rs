//! The lifecycle rules of a bucket: looks, plans, changes the document, and looks again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::report::{Report, TopicReport};
use super::survey::JobTopic;
use super::{How, Trouble};
use crate::clock::now_ms;
use crate::config::Lifecycle as Mode;
use crate::model::key::{self, OFFSET_DIGITS};
use crate::model::lifecycle::plan::{Bucket, Document, Plan, Step, TopicPlan, Wanted, altered, plan};
use crate::model::lifecycle::record::RetentionRecord;
use crate::model::lifecycle::rule;
use crate::model::object::Metadata;
use crate::pipeline::expiry::{record_of, write_record};
use crate::storage::retry::{PATIENCE, retry};
use crate::storage::{Body, Kind, Lifecycle, Store, StoreError};

/// Keys of one listing request.
const PAGE: usize = 1000;

/// One change of a bucket's document at a time in this process, whatever prefixes its stores have.
static TURNS: LazyLock<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>> = LazyLock::new(Mutex::default);

fn turn_of(url: &str) -> Arc<tokio::sync::Mutex<()>> {
    let bucket = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    TURNS.lock().unwrap_or_else(PoisonError::into_inner).entry(bucket).or_default().clone()
}

/// Brings the rules of the bucket into step with `topics`, and says what it found.
///
/// # Errors
/// A request failed, or the document is not understood.
pub async fn reconcile(
    store: &Arc<dyn Store>,
    lifecycle: &dyn Lifecycle,
    topics: &[JobTopic],
    how: How,
) -> Result<Report, Trouble> {
    let turn = turn_of(store.url());
    let _turn = turn.lock().await;
    let (versioned, records, found) = (versioned(lifecycle).await?, BTreeMap::new(), BTreeMap::new());
    let mut round = Round { store, lifecycle, versioned, how, records, found };
    let before = round.document().await?;
    let known: Vec<&JobTopic> =
        topics.iter().filter(|topic| topic.days.is_ok() && topic.job.lifecycle != Mode::Off).collect();
    let mut wanted: Vec<Wanted> = known.iter().map(|topic| wanted(topic)).collect();
    let mut planned = round.plan(before.as_deref(), &wanted)?;
    round.look_at_records(&planned, &mut wanted).await?;
    planned = round.plan(before.as_deref(), &wanted)?;
    if round.look_for_strangers(&planned, &mut wanted).await? {
        planned = round.plan(before.as_deref(), &wanted)?;
    }
    let mut notes = Vec::new();
    if how.dry_run {
        planned.topics.iter_mut().for_each(|topic| topic.done = false);
    } else {
        round.account(&known, &planned, Moment::Before).await?;
        notes = round.apply(before.as_deref(), &mut planned, &wanted).await?;
        round.account(&known, &planned, Moment::After).await?;
        round.account_for_others(topics).await?;
    }
    let mut plans: BTreeMap<(String, String), TopicPlan> = BTreeMap::new();
    for (topic, plan) in known.iter().zip(planned.topics) {
        plans.insert((topic.job.id.clone(), topic.topic.clone()), plan);
    }
    let report = topics.iter().map(|topic| match plans.remove(&(topic.job.id.clone(), topic.topic.clone())) {
        Some(plan) => TopicReport::planned(topic, plan),
        None => TopicReport::left(topic, topic.days.clone().err()),
    });
    Ok(Report { store: store.url().to_owned(), topics: report.collect(), threats: planned.threats, notes })
}

/// Whether the bucket keeps versions; where that may not be asked, a rule that also removes versions does no harm.
async fn versioned(lifecycle: &dyn Lifecycle) -> Result<bool, StoreError> {
    match retry(PATIENCE, || lifecycle.versioned()).await {
        Err(error) if error.is_transient() => Err(error),
        answer => Ok(answer.unwrap_or(true)),
    }
}

fn wanted(topic: &JobTopic) -> Wanted {
    let checked = || "lifecycle = \"check\" only looks".to_owned();
    Wanted {
        topic: topic.topic.clone(),
        days: topic.days.clone().ok().flatten(),
        last: None,
        hindrance: topic.hindrance.clone().or_else(|| (topic.job.lifecycle == Mode::Check).then(checked)),
    }
}

/// When a retention record is brought up to date: before a change that makes objects expire earlier, after any other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

struct Round<'a> {
    store: &'a Arc<dyn Store>,
    lifecycle: &'a dyn Lifecycle,
    versioned: bool,
    how: How,
    /// The retention records that matter.
    records: BTreeMap<String, RetentionRecord>,
    /// The same as they were found.
    found: BTreeMap<String, RetentionRecord>,
}

impl Round<'_> {
    async fn document(&self) -> Result<Option<String>, StoreError> {
        retry(PATIENCE, || self.lifecycle.document()).await
    }

    fn plan(&self, document: Option<&str>, wanted: &[Wanted]) -> Result<Plan, Trouble> {
        let bucket = Bucket { document, prefix: self.lifecycle.prefix(), versioned: self.versioned };
        plan(bucket, wanted, self.how.allow_decrease).map_err(|error| self.not_understood(&error))
    }

    fn not_understood(&self, error: &dyn std::error::Error) -> Trouble {
        Trouble::Document { url: self.store.url().to_owned(), why: error.to_string() }
    }

    /// What was in force last, for the topics where something is to be done or something expires.
    async fn look_at_records(&mut self, planned: &Plan, wanted: &mut [Wanted]) -> Result<(), StoreError> {
        let all = planned.topics.iter().zip(wanted);
        for (topic, wanted) in all.filter(|(topic, _)| topic.step != Step::Leave || topic.in_force.is_some()) {
            match record_of(self.store, &topic.topic).await? {
                Ok(record) => {
                    wanted.last = record.last();
                    self.found.insert(topic.topic.clone(), record.clone());
                    self.records.insert(topic.topic.clone(), record);
                }
                Err(error) => wanted.hindrance = wanted.hindrance.take().or_else(|| Some(error.to_string())),
            }
        }
        Ok(())
    }

    /// Before a topic gets a rule, everything under its filter must be an object of its records: a rule removes whatever
    /// it finds. `true` when something else was found.
    async fn look_for_strangers(&self, planned: &Plan, wanted: &mut [Wanted]) -> Result<bool, StoreError> {
        let mut found = false;
        for (topic, wanted) in planned.topics.iter().zip(wanted) {
            let new = matches!(topic.step, Step::Install { .. } | Step::Shorten { .. }) && topic.installed.is_none();
            if !new || topic.hindrance.is_some() {
                continue;
            }
            if let Some(key) = self.stranger(&topic.topic).await? {
                let filter = rule::filter(self.lifecycle.prefix(), &topic.topic);
                wanted.hindrance = Some(format!("{key} under {filter} is not ours, and the rule would remove it"));
                found = true;
            }
        }
        Ok(found)
    }

    async fn stranger(&self, topic: &str) -> Result<Option<String>, StoreError> {
        let (prefix, mut after) = (format!("{topic}/"), None::<String>);
        loop {
            let page = retry(PATIENCE, || self.store.list(&prefix, after.as_deref(), PAGE)).await?;
            let ours = |key: &str| {
                key::parse(key).is_some_and(|name| {
                    let normal = key::generation_of(name.path.branch.as_deref()).is_some();
                    // The older layout only ever lies in the first generation, where it was adopted.
                    normal && (name.digits == OFFSET_DIGITS || name.path.branch.is_none())
                })
            };
            if let Some(entry) = page.entries.iter().find(|entry| !ours(&entry.key)) {
                return Ok(Some(entry.key.clone()));
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more || after.is_none() {
                return Ok(None);
            }
        }
    }

    /// Writes down what is in force from now on.
    async fn account(&mut self, topics: &[&JobTopic], planned: &Plan, moment: Moment) -> Result<(), StoreError> {
        for (topic, plan) in topics.iter().zip(&planned.topics) {
            // Without our rule what others have is in force.
            let ours = if plan.done { plan.wanted } else { plan.installed };
            let foreign = plan.in_force.filter(|days| plan.installed.is_none_or(|installed| *days < installed));
            let days = [ours, foreign].into_iter().flatten().min();
            let Some(record) = self.records.get_mut(&plan.topic) else { continue };
            let before = record.last().flatten().unwrap_or(u32::MAX);
            let earlier = days.unwrap_or(u32::MAX) < before;
            // A change that was to be made and did not last says nothing about what is wanted.
            let settled = moment == Moment::After && (plan.done || plan.step == Step::Leave);
            if (earlier || settled) && record.begin(days, now_ms(), &topic.job.id) {
                write_record(self.store, record).await?;
            }
        }
        Ok(())
    }

    /// Topics whose rules somebody else looks after: what the job says of them is what is known.
    async fn account_for_others(&self, topics: &[JobTopic]) -> Result<(), StoreError> {
        for topic in topics.iter().filter(|topic| topic.job.lifecycle == Mode::Off) {
            let Ok(Some(days)) = topic.days else { continue };
            if let Ok(mut record) = record_of(self.store, &topic.topic).await?
                && record.begin(Some(days), now_ms(), &topic.job.id)
            {
                write_record(self.store, &record).await?;
            }
        }
        Ok(())
    }

    /// Changes the document where the plan says so. Topics that are not as planned afterwards are not done.
    async fn apply(&self, before: Option<&str>, planned: &mut Plan, wanted: &[Wanted]) -> Result<Vec<String>, Trouble> {
        let mut notes = Vec::new();
        let sent = match &planned.document {
            Document::Same => return Ok(notes),
            Document::Put(text) => Some(text.as_str()),
            Document::Delete => None,
        };
        if let Some(before) = before {
            notes.push(format!("the document before is kept as {}", self.keep(before).await?));
        }
        let changed = match sent {
            Some(text) => retry(PATIENCE, || self.lifecycle.put_document(text)).await,
            None => retry(PATIENCE, || self.lifecycle.delete_document()).await,
        };
        if let Err(error) = changed {
            if matches!(error.kind, Kind::Auth | Kind::Other) {
                self.take_back().await;
            }
            return Err(error.into());
        }
        let at_once = self.document().await?;
        let ours: Vec<String> =
            wanted.iter().map(|topic| rule::filter(self.lifecycle.prefix(), &topic.topic)).collect();
        if let Some(before) = before {
            let altered = altered(before, at_once.as_deref(), &ours).map_err(|error| self.not_understood(&error))?;
            notes.extend(
                altered.iter().map(|rule| format!("the server did not keep a rule of others as it was: {rule}")),
            );
        }
        tokio::time::sleep(self.how.settle).await;
        // Who replaced the document at the same time shows only now.
        let later = self.document().await?;
        let again = self.plan(later.as_deref(), wanted)?;
        for (topic, again) in planned.topics.iter_mut().zip(again.topics) {
            if topic.done && again.step != Step::Leave {
                topic.done = false;
                notes.push(format!("topic {}: the change did not last; it is made again later", topic.topic));
            }
        }
        Ok(notes)
    }

    /// The server has refused the change: what was written down for it is not in force, and what is missing has not expired
    /// by it. Not being able to say so leaves a record that explains too much, until a change succeeds.
    async fn take_back(&self) {
        for (topic, found) in &self.found {
            if self.records.get(topic).is_some_and(|record| record != found)
                && let Err(error) = write_record(self.store, found).await
            {
                tracing::warn!("the retention record of {topic} says what is not in force: {error}");
            }
        }
    }

    /// Keeps a document as it was.
    async fn keep(&self, document: &str) -> Result<String, StoreError> {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let name = key::lifecycle_document(now_ms(), &nonce[..8]);
        let (body, none) = (Body::from(document.to_owned()), Metadata::new());
        retry(PATIENCE, || self.store.create(&name, &body, &none)).await?;
        Ok(name)
    }
}

/// What to do about a request that failed, where it is not a matter of waiting.
pub fn remedy(error: &StoreError) -> &'static str {
    match error.kind {
        Kind::Auth => {
            "grant s3:GetLifecycleConfiguration, s3:PutLifecycleConfiguration and s3:GetBucketVersioning, or write \
             lifecycle = \"off\""
        }
        Kind::Other => {
            "a server that has no lifecycle rules removes nothing: write retention = \"keep\", or lifecycle = \"off\""
        }
        _ => "it is tried again",
    }
}
