//! `kafka-backup run`: one job in the foreground, for ever or until it has what was there at its start.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::prelude::*;
use serde::Serialize;

use super::{Context, help, print};
use crate::config::{Config, Job};
use crate::error::{Error, Exit, Result};
use crate::http::{self, Ready};
use crate::pipeline::resolver::Unresolved;
use crate::process::Process;
use crate::retention::keeper;
use crate::signal::{Requests, Stop};
use crate::supervisor::OpenJob;
use crate::{metrics, notify};

/// How long a one-shot run may take to look after the retention.
const RETENTION_MAX: Duration = Duration::from_secs(120);

/// Run one job in the foreground
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup run orders\n  \
       kafka-backup run orders --until-caught-up          one-shot backup, for cron\n  \
       kafka-backup run ./orders.toml --until-caught-up --json"
))]
pub struct Args {
    /// The id of a job, or the file of one (with a slash or .toml in it)
    #[arg(value_name = "JOB|FILE")]
    pub job: String,
    /// Make durable everything up to the end offsets read at the start, then end
    #[arg(long)]
    pub until_caught_up: bool,
    /// Print JSON, one object a line, the last one a summary
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// Loads the configuration and picks the job; logging has begun then.
    ///
    /// # Errors
    /// [`Exit::Config`], or [`Exit::NotFound`] where no job has that id.
    pub fn select(&self, context: &Context) -> Result<(Config, Arc<Job>)> {
        let (config, found) = if self.job.contains('/') || self.job.ends_with(".toml") {
            let config = context.load_job_file(Path::new(&self.job))?;
            let job = config.jobs.first().map(Arc::clone);
            (config, job)
        } else {
            let config = context.load()?;
            let job = config.job(&self.job).map(Arc::clone);
            (config, job)
        };
        match found {
            Some(job) => Ok((config, job)),
            None => Err(crate::error::no_such_job(&self.job, config.jobs.iter().map(|job| job.id.as_str()))),
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Always `summary`.
    pub message_type: &'static str,
    /// The job.
    pub job: String,
    /// Records made durable.
    pub records: u64,
    /// Objects created.
    pub objects: u64,
    /// Keys, values and headers read.
    pub bytes_read: u64,
    /// Bytes of objects created.
    pub bytes_stored: u64,
    /// Wall time.
    pub seconds: f64,
    /// Gap links written: ranges that Kafka had deleted before they were read.
    pub gaps: u64,
    /// Offsets in them.
    pub gap_offsets: u64,
    /// Consumer groups that have committed something for the topics.
    pub groups: usize,
    /// Whether their positions are saved as they were at the end.
    pub groups_saved: bool,
    /// Whether everything that was there at the start is durable.
    pub complete: bool,
}

/// Runs one job.
///
/// # Errors
/// What stopped it; [`Exit::Incomplete`] where not everything that was read is durable.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let (config, job) = args.select(context)?;
    let summary = foreground(&config, &job, args.until_caught_up)?;
    let text = if args.json { serde_json::json!(summary).to_string() } else { summary.text() };
    print(&format!("{text}\n"))?;
    if !summary.complete {
        let what = format!("job {}: not everything that was read is durable", job.id);
        return Err(Error::new(Exit::Incomplete, what).hint("run it again: it goes on where it stopped"));
    }
    Ok(())
}

impl Summary {
    fn text(&self) -> String {
        let gaps = if self.gaps > 0 {
            format!("; {} gaps: {} offsets were deleted by Kafka before", self.gaps, self.gap_offsets)
        } else {
            String::new()
        };
        format!(
            "{}: {} records ({} bytes) in {} objects ({} bytes), {:.1} s{gaps}",
            self.job, self.records, self.bytes_read, self.objects, self.bytes_stored, self.seconds
        )
    }
}

/// Runs `job` of `config` in the foreground and says what it did.
pub fn foreground(config: &Config, job: &Arc<Job>, until_caught_up: bool) -> Result<Summary> {
    let (stop, questions) = (Stop::listen()?, Requests::for_status()?);
    let io = super::runtime()?;
    let ended = System::new().block_on(in_system(config, job, until_caught_up, questions, &stop, &io));
    io.shutdown_timeout(Duration::from_secs(2));
    ended
}

async fn in_system(
    config: &Config,
    job: &Arc<Job>,
    until_caught_up: bool,
    questions: Requests,
    stop: &Stop,
    io: &tokio::runtime::Runtime,
) -> Result<Summary> {
    let began = Instant::now();
    let process = Process::start(config, std::slice::from_ref(job), io.handle().clone())?;
    io.spawn(notify::answer(process.clone(), questions));
    let ready = Ready::default();
    if let Some(listen) = config.http_listen.filter(|_| !until_caught_up) {
        http::serve(listen, &config.http, process.clone(), &ready)?;
    }
    let mut open = tokio::select! {
        open = process.open(job, until_caught_up) => open?,
        () = stop.asked() => return Err(Error::new(stop.exit(), "asked to stop before the job had started")),
    };
    ready.set(true);
    let reached = open.reached.take();
    if !until_caught_up {
        keeper::start(&process);
    }
    let goal = async {
        match reached {
            Some(reached) => reached.await.unwrap_or_else(|_| Err(Unresolved::Later { why: "the job ended".into() })),
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        outcome = goal => Some(outcome),
        () = stop.asked() => None,
    };
    // What is durable now is what groups are put back on; a run that was stopped leaves what is saved as it is.
    let groups = match (&outcome, until_caught_up) {
        (Some(Ok(())), true) => tokio::select! {
            round = open.save_groups() => Some(round),
            () = stop.asked() => None,
        },
        _ => None,
    };
    for problem in groups.iter().flat_map(|round| &round.problems) {
        tracing::warn!(job = %job.id, problem, "the positions of consumer groups are not saved as they are now");
    }
    ready.set(false);
    if until_caught_up && matches!(outcome, Some(Ok(()))) {
        tokio::select! {
            kept = tokio::time::timeout(RETENTION_MAX, keeper::once(&process)) => {
                if kept.is_err() {
                    tracing::warn!(job = %job.id, "the retention could not be looked after in time");
                }
            }
            () = stop.asked() => {}
        }
    }
    let gaps = open.status.gaps.load(Ordering::Relaxed);
    let drained = OpenJob::end(open, config.drain_timeout).await;
    process.stop();
    match outcome {
        Some(Err(why)) => return Err(unresolved(job, why)),
        None if until_caught_up => {
            let what = format!("job {}: asked to stop before it had caught up", job.id);
            return Err(Error::new(stop.exit(), what).hint("run it again: it goes on where it stopped"));
        }
        _ => {}
    }
    Ok(Summary {
        groups: groups.as_ref().map_or(0, |round| round.groups),
        groups_saved: groups.is_none_or(|round| round.problems.is_empty()),
        ..summary(job, began.elapsed(), gaps, drained)
    })
}

fn unresolved(job: &Job, why: Unresolved) -> Error {
    let exit = match &why {
        Unresolved::Refused { .. } | Unresolved::Foreign { .. } => Exit::Config,
        Unresolved::Kafka(error) => return Error::from(error.clone()),
        Unresolved::Store(error) => return Error::from(error.clone()),
        Unresolved::Later { .. } => Exit::Failed,
    };
    Error::new(exit, format!("job {}: {why}", job.id))
}

fn summary(job: &Job, took: Duration, gaps: u64, complete: bool) -> Summary {
    let sums: BTreeMap<String, f64> = metrics::sums(&job.id);
    let sum = |name: &str| sums.get(name).copied().unwrap_or(0.0) as u64;
    Summary {
        message_type: "summary",
        job: job.id.clone(),
        records: sum("kafka_backup_records_total"),
        objects: sum("kafka_backup_segments_committed_total"),
        bytes_read: sum("kafka_backup_read_bytes_total"),
        bytes_stored: sum("kafka_backup_stored_bytes_total"),
        seconds: took.as_secs_f64(),
        gaps,
        gap_offsets: sum("kafka_backup_offset_gap_records_total"),
        groups: 0,
        groups_saved: true,
        complete,
    }
}
