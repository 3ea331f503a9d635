//! Brings every store into step at the start, when jobs come or change, and every hour.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::report::Report;
use super::survey::{Clusters, JobTopic, survey};
use super::{How, Trouble, folder, rules};
use crate::clock::now_ms;
use crate::config::{Job, Lifecycle as Mode, Retention};
use crate::pipeline::expiry::day_ms;
use crate::pipeline::heads::Heads;
use crate::pipeline::shown::JobRetention;
use crate::pipeline::status::JobStatus;
use crate::process::{Process, Statuses};
use crate::storage::Store;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// A round with one store takes so long at most; the next one begins anew.
const ROUND_MAX: Duration = Duration::from_secs(30 * 60);
/// The subject of problems with retention in the status of a job.
const SUBJECT: &str = "retention";

/// The jobs of one place.
struct Place {
    jobs: Vec<Arc<JobStatus>>,
}

impl Place {
    fn key(&self) -> String {
        format!("{:?}", self.jobs[0].job.storage.place)
    }

    /// Changes when a job comes, goes or is another one.
    fn mark(&self) -> Vec<(String, usize)> {
        self.jobs.iter().map(|status| (status.job.id.clone(), Arc::as_ptr(&status.job) as usize)).collect()
    }
}

/// The jobs there are now, by place.
fn places(statuses: &Statuses) -> Vec<Place> {
    let all: Vec<_> = statuses.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    let mut places: Vec<Place> = Vec::new();
    for status in all {
        match places.iter_mut().find(|place| place.jobs[0].job.storage.same_place(&status.job.storage)) {
            Some(place) => place.jobs.push(status),
            None => places.push(Place { jobs: vec![status] }),
        }
    }
    places
}

/// Begins to keep the stores of `process` in step, for as long as its runtime lives.
pub fn start(process: &Process) {
    process.io().spawn(run(process.clone()));
}

async fn run(process: Process) {
    let mut known: HashMap<String, Due> = HashMap::new();
    loop {
        let places = places(&process.statuses);
        let keys: Vec<String> = places.iter().map(Place::key).collect();
        known.retain(|key, _| keys.contains(key));
        for (place, key) in places.into_iter().zip(keys) {
            let due = known.entry(key).or_default();
            due.begin(&process, place);
        }
        tokio::time::sleep(TICK).await;
    }
}

/// When the round of one place is due, and the one that is under way.
#[derive(Default)]
struct Due {
    mark: Vec<(String, usize)>,
    at: Option<Instant>,
    round: Option<tokio::task::JoinHandle<()>>,
    heads: Arc<tokio::sync::Mutex<Heads>>,
}

impl Due {
    fn begin(&mut self, process: &Process, place: Place) {
        let changed = self.mark != place.mark();
        let under_way = self.round.as_ref().is_some_and(|round| !round.is_finished());
        if under_way || !(changed || self.at.is_none_or(|at| at <= Instant::now())) {
            return;
        }
        self.mark = place.mark();
        let hour = Duration::from_millis(day_ms().unsigned_abs() / 24);
        // Daemons that were started together do not meet every hour.
        self.at = Some(Instant::now() + hour.mul_f64(0.9 + fastrand::f64() / 5.0));
        let (io, heads) = (process.io(), self.heads.clone());
        let runtime = io.clone();
        self.round = Some(io.spawn(async move {
            let mut heads = heads.lock().await;
            if tokio::time::timeout(ROUND_MAX, round(&place, runtime, &mut heads)).await.is_err() {
                trouble(&place, "the store took too long; it is tried again");
            }
        }));
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        if let Some(round) = &self.round {
            round.abort();
        }
    }
}

/// One round for the jobs of a process that ends soon.
pub async fn once(process: &Process) {
    for place in places(&process.statuses) {
        round(&place, process.io(), &mut Heads::default()).await;
    }
}

/// Everything there is to do in one place.
async fn round(place: &Place, runtime: tokio::runtime::Handle, heads: &mut Heads) {
    let jobs: Vec<Arc<Job>> = place.jobs.iter().map(|status| status.job.clone()).collect();
    let store = match crate::storage::open(&jobs[0].storage, runtime) {
        Ok(store) => store,
        Err(error) => return trouble(place, &error.to_string()),
    };
    let topics = survey(&jobs, &mut Clusters::default()).await;
    let report = match in_step(&store, &topics, How::default()).await {
        Ok(report) => report,
        Err(error) => {
            let hint = match &error {
                Trouble::Store(error) => format!("; {}", rules::remedy(error)),
                Trouble::Document { .. } => String::new(),
            };
            trouble(place, &format!("{error}{hint}"));
            return write_heads(place, &store, &days_by_topic(&topics, None), heads).await;
        }
    };
    if store.lifecycle().is_none()
        && let Err(error) = folder::sweep(&store, &report).await
    {
        trouble(place, &error.to_string());
    } else {
        place.jobs.iter().for_each(|status| tell(status, &report));
    }
    write_heads(place, &store, &days_by_topic(&topics, Some(&report)), heads).await;
}

/// Brings one store into step, of whatever type it is.
///
/// # Errors
/// See [`Trouble`].
pub async fn in_step(store: &Arc<dyn Store>, topics: &[JobTopic], how: How) -> Result<Report, Trouble> {
    match store.lifecycle() {
        Some(lifecycle) => rules::reconcile(store, lifecycle, topics, how).await,
        None => Ok(folder::reconcile(store, topics, how).await?),
    }
}

/// After how many days objects of each topic may be gone.
fn days_by_topic(topics: &[JobTopic], report: Option<&Report>) -> BTreeMap<String, u32> {
    let wanted = topics.iter().filter_map(|topic| Some((topic.topic.clone(), topic.days.clone().ok()??)));
    let in_force = report.into_iter().flat_map(|report| &report.topics);
    let in_force = in_force.filter_map(|topic| Some((topic.topic.clone(), topic.in_force_days?)));
    let mut days = BTreeMap::new();
    for (topic, n) in wanted.chain(in_force) {
        days.entry(topic).and_modify(|known: &mut u32| *known = n.min(*known)).or_insert(n);
    }
    days
}

async fn write_heads(place: &Place, store: &Arc<dyn Store>, days: &BTreeMap<String, u32>, heads: &mut Heads) {
    for status in &place.jobs {
        for (partition, known) in status.partitions() {
            let (Some(progress), Some(days)) = (known.progress, days.get(&*partition.topic)) else { continue };
            if let Err(error) = heads.write(store, &partition, &progress, *days).await {
                tracing::warn!(job = %status.job.id, partition = %partition, error = %error,
                    "the end of a quiet list cannot be written down; it is tried again");
                return;
            }
        }
    }
}

/// The store cannot be brought into step. Jobs that ask for nothing of it are not the worse for it.
fn trouble(place: &Place, why: &str) {
    for status in &place.jobs {
        let known = JobRetention {
            checked_ms: now_ms(),
            drift: usize::from(asks_for_something(&status.job)),
            warnings: vec![why.to_owned()],
            ..JobRetention::default()
        };
        if asks_for_something(&status.job) {
            status.problem(SUBJECT, why, false);
        } else if status.set_retention(known.clone()) {
            tracing::info!(job = %status.job.id, why, "lifecycle rules cannot be looked at");
            continue;
        }
        status.set_retention(known);
    }
}

fn asks_for_something(job: &Job) -> bool {
    job.retention != Retention::Keep && job.lifecycle != Mode::Off
}

/// Says in the status of a job how things are.
fn tell(status: &JobStatus, report: &Report) {
    let job = &status.job;
    let of_job = || report.topics.iter().filter(|topic| topic.job == job.id);
    let differences = of_job().filter(|topic| topic.drifts() || topic.is_problem());
    let differences: Vec<String> =
        differences.filter_map(|topic| Some(format!("topic {}: {}", topic.topic, topic.difference()?))).collect();
    let records = report.threats.iter().map(|rule| format!("{rule} removes the records that the backup rests on"));
    let records: Vec<String> = records.collect();
    let known = JobRetention {
        checked_ms: now_ms(),
        drift: report.drift_of(&job.id) + usize::from(!records.is_empty()),
        differences: differences.clone(),
        warnings: records.iter().cloned().chain(report.notes.iter().cloned()).collect(),
    };
    let problems = of_job().filter(|topic| topic.is_problem()).filter_map(|topic| topic.difference());
    // A snapshot has one copy of each key, and its oldest records are as alive as its newest.
    let threatened = of_job().filter(|topic| job.compacted.is_some() && !topic.threats.is_empty());
    let threatened = threatened.map(|topic| {
        let (rules, name) = (topic.threats.join(", "), &topic.topic);
        format!(
            "topic {name}: {rules} of {} removes objects of its snapshot, which no later one replaces: remove the rule, or \
             give it a filter that leaves {name}/ out",
            report.store
        )
    });
    let threatened: Vec<String> = threatened.collect();
    let problems: Vec<String> = records.into_iter().chain(problems).chain(threatened).collect();
    if problems.is_empty() {
        status.solved(SUBJECT);
    } else {
        status.problem(SUBJECT, problems.join("; "), false);
    }
    for topic in of_job().filter(|topic| topic.done) {
        let step = topic.difference().unwrap_or_default();
        tracing::info!(job = %job.id, topic = %topic.topic, store = %report.store, "retention: {step}");
    }
    let news = known.clone();
    if status.set_retention(known) {
        for text in news.differences.iter().chain(&news.warnings) {
            tracing::warn!(job = %job.id, store = %report.store, "retention: {text}");
        }
    }
}
