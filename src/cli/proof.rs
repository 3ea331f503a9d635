//! `check`: is what Kafka holds now in the bucket?

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::{Context, help, print, runtime};
use crate::clock::now_ms;
use crate::config::{Config, Job};
use crate::control::client;
use crate::control::protocol::{Flushed, Request};
use crate::error::{Error, Exit, Result, no_such_job};
use crate::inspect::info::{self, TopicInfo};
use crate::inspect::proof::{Goal, Proof};
use crate::model::verify::proof::Judgement;
use crate::model::verify::{Expiry, ExpiryOf};
use crate::restore::gather;
use crate::storage;

/// Prove from the bucket that what Kafka holds now is durable
///
/// Reads where every partition ends, has the daemon make durable what it has read, and looks at the bucket until every
/// list reaches that far. What the daemon says of itself counts for nothing.
///
/// Ends with 0 when everything is durable, with 4 when something never will be (Kafka deleted it unread, or the bucket
/// holds more than Kafka), with 75 when it is not durable yet, and with 69 when it is not and nobody was there to make
/// it so.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup check orders\n  \
       kafka-backup check --timeout 5m --json\n  \
       kafka-backup check --repo-only --max-age 1h          from another host, with credentials that only read"
))]
pub struct Args {
    /// The id of a job [default: all jobs]
    pub job: Option<String>,
    /// How long to wait until everything is in the bucket
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Ask neither Kafka nor the daemon: only whether the lists in the bucket are unbroken
    #[arg(long)]
    pub repo_only: bool,
    /// And whether the newest record of each topic is younger than this; a topic that nobody writes to grows old
    #[arg(long, value_name = "DURATION", requires = "repo_only", value_parser = humantime::parse_duration)]
    pub max_age: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How long the bucket is looked at before the daemon is asked to flush again.
const BETWEEN_FLUSHES: Duration = Duration::from_secs(2);

/// What came of one job.
#[derive(Debug, Serialize)]
struct Checked {
    job: String,
    /// `durable`, `pending`, `lost`, `ahead`; `sound` or `problem` with --repo-only; `failed`.
    result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Proof>,
    /// What is wrong, or why it could not be done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<String>,
    #[serde(skip)]
    exit: Exit,
}

/// Checks jobs.
///
/// # Errors
/// There is no such job, or the configuration is not valid.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let config = context.load()?;
    let jobs: Vec<Arc<Job>> = match &args.job {
        Some(id) => {
            let job = config.job(id).map(Arc::clone);
            vec![job.ok_or_else(|| no_such_job(id, config.jobs.iter().map(|job| job.id.as_str())))?]
        }
        None => config.jobs.clone(),
    };
    if jobs.is_empty() {
        return Err(Error::new(Exit::NotFound, format!("there are no jobs in {}", config.jobs_dir.display())));
    }
    let runtime = runtime()?;
    let io = runtime.handle().clone();
    let checked: Vec<Checked> = runtime.block_on(async {
        let all = jobs.iter().map(|job| async {
            let result = match args.repo_only {
                true => repo_only(args, job, io.clone()).await,
                false => prove(args, &config, job, io.clone()).await,
            };
            result.unwrap_or_else(|error| {
                let (result, messages) = ("failed".to_owned(), vec![error.to_string()]);
                Checked { job: job.id.clone(), result, proof: None, messages, exit: error.exit }
            })
        });
        futures_util::future::join_all(all).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    print(&if args.json { as_json(&checked) } else { as_text(&checked) })?;
    Ok(worst(&checked))
}

/// Damage comes first, then what could not be asked, then what takes longer.
fn worst(checked: &[Checked]) -> Exit {
    let has = |exit: Exit| checked.iter().any(|checked| checked.exit == exit);
    let order = [Exit::ProblemFound, Exit::Auth, Exit::Unavailable, Exit::Busy];
    let other = || checked.iter().map(|checked| checked.exit).find(|exit| *exit != Exit::Ok);
    order.into_iter().find(|exit| has(*exit)).or_else(other).unwrap_or(Exit::Ok)
}

/// Ends, flush, bucket.
async fn prove(args: &Args, config: &Config, job: &Arc<Job>, io: tokio::runtime::Handle) -> Result<Checked> {
    let store = storage::open_existing(&job.storage, io).map_err(gather::failed)?;
    let goal = Goal::read(job.clone()).await?;
    let until = Instant::now() + args.timeout;
    let (flushed, proof) = loop {
        let left = until.saturating_duration_since(Instant::now());
        let flushed = flush(config, job, left).await?;
        // The daemon may not have read what Kafka held by then: it is asked again. Where nobody makes anything durable
        // there is nothing to wait for.
        let patience = if flushed.is_err() { Duration::ZERO } else { left.min(BETWEEN_FLUSHES) };
        let proof = goal.prove(&store, patience).await?;
        let is_busy = flushed.as_ref().map_or_else(|error| error.exit == Exit::Busy, |_| true);
        if proof.result != Judgement::Pending || !is_busy || Instant::now() >= until {
            break (flushed, proof);
        }
        if flushed.is_err() {
            tokio::time::sleep(BETWEEN_FLUSHES.min(left)).await;
        }
    };
    let exit = match (proof.result, &flushed) {
        (Judgement::Durable, _) => Exit::Ok,
        (Judgement::Lost | Judgement::Ahead, _) => Exit::ProblemFound,
        (Judgement::Pending, Ok(_)) => Exit::Busy,
        (Judgement::Pending, Err(error)) => error.exit,
    };
    let mut messages: Vec<String> = proof.open.iter().map(message).collect();
    if let Err(error) = flushed.as_ref()
        && exit != Exit::Ok
    {
        messages.push(format!("not made durable on demand: {error}"));
    }
    let result = serde_json::to_value(proof.result).ok().and_then(|value| value.as_str().map(str::to_owned));
    Ok(Checked { job: job.id.clone(), result: result.unwrap_or_default(), proof: Some(proof), messages, exit })
}

/// Has the daemon make durable what it has read of a job; the inner error is why that did not happen.
async fn flush(config: &Config, job: &Job, patience: Duration) -> Result<Result<Flushed>> {
    let (socket, id) = (config.control_socket.clone(), job.id.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let request = Request::Flush { job: id, wait: true };
        client::ask::<Flushed>(&socket, &request, patience, |note| tracing::info!("{note}"))
    });
    asked.await.map_err(|error| Error::new(Exit::Failed, "the thread that asks ended").because(error))
}

/// One open partition for a person.
fn message(open: &crate::inspect::proof::Open) -> String {
    let place = format!("{}/{}", open.topic, open.partition);
    let stored = open.durable_offset.map_or("nothing".to_owned(), |offset| format!("everything below {offset}"));
    let end = open.end_offset;
    match open.result {
        Judgement::Lost => format!(
            "{place}: offsets {} to {} are lost: Kafka deleted them before they were read; look at the topic's retention \
             and at the job's lag",
            open.durable_offset.unwrap_or(0),
            open.log_start_offset - 1
        ),
        Judgement::Ahead => format!(
            "{place}: the bucket holds {stored}, Kafka ends in front of that: the log was cut or the topic created \
             again; kafka-backup status says what the job makes of it"
        ),
        _ => format!("{place}: ended at {end}, the bucket holds {stored}"),
    }
}

/// Whether the lists of a job's topics are unbroken, and young enough.
async fn repo_only(args: &Args, job: &Arc<Job>, io: tokio::runtime::Handle) -> Result<Checked> {
    let store = storage::open_existing(&job.storage, io).map_err(gather::failed)?;
    let topics = gather::topics(&store).await?;
    let mut messages = Vec::new();
    let missing = job.topics.literal.iter().filter(|name| !topics.contains(name));
    messages.extend(missing.map(|name| format!("{name}: nothing of it is in the bucket")));
    let now = now_ms();
    let unrecorded = if super::verify::looks_after(job) { Expiry::Never } else { Expiry::Possible };
    let expiry: ExpiryOf = Arc::new(move |_| unrecorded);
    for topic in topics.iter().filter(|topic| job.topics.takes(topic)) {
        for found in info::collect(&store, Some(topic), &expiry).await?.topics {
            judge_topic(&found, args.max_age, now, &mut messages);
        }
    }
    let (result, exit) = if messages.is_empty() { ("sound", Exit::Ok) } else { ("problem", Exit::ProblemFound) };
    Ok(Checked { job: job.id.clone(), result: result.to_owned(), proof: None, messages, exit })
}

fn judge_topic(topic: &TopicInfo, max_age: Option<Duration>, now_ms: i64, messages: &mut Vec<String>) {
    let partitions = topic.branches.iter().flat_map(|branch| &branch.partitions);
    for partition in partitions.clone() {
        let place = format!("{}/{}", topic.topic, partition.partition);
        let broken = partition.holes.iter().filter(|hole| hole.is_damage());
        messages.extend(broken.map(|hole| format!("{place}: {hole}")));
        messages.extend(partition.bad.iter().map(|bad| format!("{place}: {bad}")));
    }
    let newest = partitions.filter_map(|partition| partition.timestamps).map(|(_, newest)| newest).max();
    match (max_age, newest) {
        (None, _) => {}
        (Some(_), None) => messages.push(format!("{}: no record is in the bucket", topic.topic)),
        (Some(max), Some(newest)) => {
            let age = Duration::from_millis(now_ms.saturating_sub(newest).max(0) as u64);
            if age > max {
                let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
                messages.push(format!("{}: its newest record is {age} old", topic.topic));
            }
        }
    }
}

fn as_json(checked: &[Checked]) -> String {
    format!("{}\n", json!({ "schema_version": 1, "exit": worst(checked) as u8, "jobs": checked }))
}

fn as_text(checked: &[Checked]) -> String {
    let mut text = String::new();
    for checked in checked {
        let proof = checked.proof.as_ref().map_or(String::new(), |proof| {
            format!(": {} of {} partitions durable, {:.1} s", proof.durable, proof.partitions, proof.seconds)
        });
        text += &format!("{}: {}{proof}\n", checked.job, checked.result);
        checked.messages.iter().for_each(|message| text += &format!("  {message}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[Exit::Ok, Exit::Ok], Exit::Ok)]
    #[case(&[Exit::Ok, Exit::Busy, Exit::Unavailable], Exit::Unavailable)]
    #[case(&[Exit::Unavailable, Exit::ProblemFound], Exit::ProblemFound)]
    #[case(&[Exit::Ok, Exit::NotFound], Exit::NotFound)]
    fn the_worst_decides(#[case] exits: &[Exit], #[case] expected: Exit) {
        let checked = |exit: &Exit| Checked {
            job: "j".to_owned(),
            result: String::new(),
            proof: None,
            messages: Vec::new(),
            exit: *exit,
        };
        assert_eq!(worst(&exits.iter().map(checked).collect::<Vec<_>>()), expected);
    }
}
