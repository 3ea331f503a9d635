//! `kafka-backup flush`, `pause` and `resume`: orders to one job of a running daemon.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Context, help, print};
use crate::control::client::{self, PATIENCE};
use crate::control::protocol::{Flushed, Request};
use crate::error::{Error, Exit, Result};

/// Make durable what a job has read so far
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup flush orders --wait"))]
pub struct FlushArgs {
    /// The job
    pub job: String,
    /// End when that is so, not when it has been ordered
    #[arg(long)]
    pub wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Pause a job, until it is resumed; also over restarts of the daemon
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup pause orders --reason \"brokers are being moved\""))]
pub struct PauseArgs {
    /// The job
    pub job: String,
    /// Why, for whoever finds it paused
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Start a turn of a job's compacted topics
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup swap customers-a"))]
pub struct SwapArgs {
    /// One of the two jobs: a resting instance begins to scan, an active one asks its partner to
    pub job: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// End the pause of a job
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup resume orders"))]
pub struct ResumeArgs {
    /// The job
    pub job: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Orders a flush.
///
/// # Errors
/// [`Exit::Busy`] where it did not happen in time; what the daemon says.
pub fn flush(args: &FlushArgs, context: &Context) -> Result<()> {
    let request = Request::Flush { job: args.job.clone(), wait: args.wait };
    let patience = if args.wait { args.timeout } else { PATIENCE };
    let flushed: Flushed = client::ask(&context.socket()?, &request, patience, |note| tracing::info!("{note}"))?;
    let text = if flushed.durable { "everything it had read is durable" } else { "ordered" };
    say(args.json, &json!(flushed), &format!("{}: {text}", flushed.job))
}

/// Pauses a job.
///
/// # Errors
/// What the daemon says.
pub fn pause(args: &PauseArgs, context: &Context) -> Result<()> {
    if args.reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        let what = format!("the reason is longer than {REASON_BYTES_MAX} bytes");
        return Err(Error::new(Exit::Usage, what));
    }
    let request = Request::Pause { job: args.job.clone(), reason: args.reason.clone() };
    let () = client::ask(&context.socket()?, &request, PATIENCE, |_| ())?;
    say(args.json, &json!({ "job": args.job, "paused": true }), &format!("{}: paused", args.job))
}

/// Starts a turn.
///
/// # Errors
/// What the daemon says.
pub fn swap(args: &SwapArgs, context: &Context) -> Result<()> {
    let request = Request::Swap { job: args.job.clone() };
    let () = client::ask(&context.socket()?, &request, PATIENCE, |_| ())?;
    say(args.json, &json!({ "job": args.job, "turn": "started" }), &format!("{}: a turn begins", args.job))
}

/// Ends a pause.
///
/// # Errors
/// What the daemon says.
pub fn resume(args: &ResumeArgs, context: &Context) -> Result<()> {
    let request = Request::Resume { job: args.job.clone() };
    let () = client::ask(&context.socket()?, &request, PATIENCE, |_| ())?;
    say(args.json, &json!({ "job": args.job, "paused": false }), &format!("{}: resumed", args.job))
}

/// A reason is a line, not a document.
const REASON_BYTES_MAX: usize = 4096;

fn say(json: bool, value: &Value, text: &str) -> Result<()> {
    print(&if json { format!("{value}\n") } else { format!("{text}\n") })
}
