//! `kafka-backup flush`, `pause`, `resume` and `swap`: orders to one job of a running daemon.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Context, help, print};
use crate::clock::{millis, now_ms, parse_rfc3339, rfc3339};
use crate::compacted::Ordered;
use crate::control::client::{self, PATIENCE};
use crate::control::document::StatusDocument;
use crate::control::protocol::{Flushed, Request};
use crate::error::{Error, Exit, Result};
use crate::pipeline::shown::TurnStatus;

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

/// Pause a job, until it is resumed or for a time; also over restarts of the daemon
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup pause orders --reason \"brokers are being moved\" --until 2h\n  \
       kafka-backup pause orders --until 2026-11-01T06:00:00Z"
))]
pub struct PauseArgs {
    /// The job
    pub job: String,
    /// Why, for whoever finds it paused
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// When it ends by itself: a date and time with its offset from UTC, or how long from now, a
    /// year at most [default: with `resume`]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<i64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Start a turn of a job's compacted topics
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup swap customers-a\n  kafka-backup swap customers-a --wait --timeout 6h"))]
pub struct SwapArgs {
    /// One of the two jobs: a resting instance begins to scan, an active one asks its partner to
    pub job: String,
    /// End when the turn is over: there is a new snapshot, and what this job had to clear is cleared
    #[arg(long)]
    pub wait: bool,
    /// How long to wait; the turn goes on afterwards
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
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
    let request = Request::Pause { job: args.job.clone(), reason: args.reason.clone(), until_ms: args.until };
    let () = client::ask(&context.socket()?, &request, PATIENCE, |_| ())?;
    let until = args.until.map(rfc3339);
    let text = until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
    say(args.json, &json!({ "job": args.job, "paused": true, "until": until }), &format!("{}: paused{text}", args.job))
}

/// What is to be paused for longer is a mistake in the unit, or to be paused until somebody resumes it.
const PAUSE_MAX: Duration = Duration::from_secs(366 * 86_400);

/// A moment to come, in milliseconds since 1970-01-01 UTC, as it is or as the time until then.
fn moment(text: &str) -> Result<i64, String> {
    moment_after(now_ms(), text)
}

fn moment_after(now: i64, text: &str) -> Result<i64, String> {
    const REMEDY: &str = "write for example 2h or 2026-11-01T06:00:00Z";
    let until = match (humantime::parse_duration(text), parse_rfc3339(text)) {
        (Ok(span), _) => now.saturating_add(millis(span)),
        (_, Some(moment)) => moment,
        _ => return Err(format!("neither a time nor a date and time with its offset from UTC; {REMEDY}")),
    };
    if until <= now {
        return Err(format!("not a moment to come; {REMEDY}"));
    }
    if until > now.saturating_add(millis(PAUSE_MAX)) {
        return Err("more than a year from now; leave it out to pause the job until it is resumed".to_owned());
    }
    Ok(until)
}

/// Starts a turn of every topic of a job, says of each what came of it, and only then fails for those that refused.
///
/// # Errors
/// [`Exit::Busy`] where a topic refused, or a turn was not over in time; what the daemon says.
pub fn swap(args: &SwapArgs, context: &Context) -> Result<()> {
    let (socket, request) = (context.socket()?, Request::Swap { job: args.job.clone() });
    let ordered: BTreeMap<String, Ordered> = client::ask(&socket, &request, PATIENCE, |_| ())?;
    let lines = ordered.iter().map(|(topic, ordered)| format!("{}: topic {topic}: {}", args.job, ordered.text));
    let lines: Vec<String> = lines.collect();
    let refused: BTreeMap<&String, &Ordered> = ordered.iter().filter(|(_, one)| one.is_refused()).collect();
    let (turn, text) = if refused.len() == ordered.len() {
        (Ordered::REFUSED, lines.join("\n"))
    } else if args.wait {
        lines.iter().for_each(|line| tracing::info!("{line}"));
        await_turns(args, &socket, &ordered)?;
        ("over", format!("{}: the turn is over", args.job))
    } else {
        ("started", lines.join("\n"))
    };
    say(args.json, &json!({ "job": args.job, "turn": turn, "topics": ordered }), &text)?;
    refusal(&args.job, &refused).map_or(Ok(()), Err)
}

/// What to end with where topics refused: each is named with its reason.
fn refusal(job: &str, refused: &BTreeMap<&String, &Ordered>) -> Option<Error> {
    let why = |(topic, one): (&&String, &&Ordered)| format!("topic {topic}: {}", one.text);
    let all: Vec<String> = refused.iter().map(why).collect();
    let hint = format!("kafka-backup status --job {job} says what they are doing");
    (!all.is_empty()).then(|| Error::new(Exit::Busy, format!("job {job}: {}", all.join(", "))).hint(hint))
}

/// How often a turn is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

fn await_turns(args: &SwapArgs, socket: &Path, ordered: &BTreeMap<String, Ordered>) -> Result<()> {
    let (until, request) = (Instant::now() + args.timeout, Request::Status { job: Some(args.job.clone()) });
    loop {
        let document: StatusDocument = client::ask(socket, &request, PATIENCE, |_| ())?;
        let turns = document.jobs.into_iter().next().map(|job| job.compacted).unwrap_or_default();
        let mut begun = ordered.iter().filter(|(_, ordered)| !ordered.is_refused());
        let open = begun.find(|(topic, ordered)| !turns.get(*topic).is_some_and(|turn| is_over(turn, ordered)));
        let Some((topic, _)) = open else { return Ok(()) };
        if Instant::now() >= until {
            let phase = turns.get(topic).map_or("is not running".to_owned(), |turn| format!("is {}", turn.phase));
            let waited = humantime::format_duration(args.timeout);
            let what =
                format!("job {}, topic {topic}: the turn is not over after {waited}: the instance {phase}", args.job);
            let hint = format!("it goes on; kafka-backup status --job {} shows how far it is", args.job);
            return Err(Error::new(Exit::Busy, what).hint(hint));
        }
        std::thread::sleep(LOOK_EVERY.min(args.timeout));
    }
}

/// There is a newer snapshot, and this instance has done its part: it owns it, or its folder is cleared.
fn is_over(turn: &TurnStatus, ordered: &Ordered) -> bool {
    let done = if turn.owner == turn.instance { "owning" } else { "resting" };
    turn.term > ordered.term && turn.phase == done
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOW: i64 = 1_764_547_200_000; // 2025-12-01T00:00:00Z

    #[rstest]
    #[case("2h", Ok(NOW + 7_200_000))]
    #[case("2025-12-01T06:00:00+02:00", Ok(NOW + 14_400_000))]
    #[case("365d", Ok(NOW + 365 * 86_400_000))]
    #[case("0s", Err("not a moment to come"))]
    #[case("2025-11-01T06:00:00Z", Err("not a moment to come"))]
    #[case("-2h", Err("neither a time nor a date"))]
    #[case("tomorrow", Err("neither a time nor a date"))]
    #[case("2025-12-01T06:00:00", Err("neither a time nor a date"))]
    #[case("9999999d", Err("more than a year from now; leave it out"))]
    #[case("9999-12-31T23:59:59Z", Err("more than a year from now; leave it out"))]
    #[case("500000000000years", Err("more than a year from now; leave it out"))]
    fn a_pause_ends_at_a_moment_somebody_meant(#[case] text: &str, #[case] expected: Result<i64, &str>) {
        match (moment_after(NOW, text), expected) {
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
            (found, expected) => assert_eq!(found.as_ref().ok(), expected.as_ref().ok(), "{found:?}"),
        }
    }

    #[rstest]
    #[case::as_before(1, "a", "owning", false)]
    #[case::partner_took_over(2, "b", "handing over", false)]
    #[case::and_the_folder_goes(2, "b", "clearing", false)]
    #[case::and_it_is_gone(2, "b", "resting", true)]
    #[case::this_one_took_over(2, "a", "owning", true)]
    #[case::nobody_has(1, "b", "resting", false)]
    fn a_turn_is_over(#[case] term: u64, #[case] owner: &str, #[case] phase: &str, #[case] expected: bool) {
        let (instance, owner, phase) = ("a".to_owned(), owner.to_owned(), phase.to_owned());
        let turn = TurnStatus { instance, term, owner, phase, ..TurnStatus::default() };
        let ordered = Ordered { next: "partner".to_owned(), term: 1, text: String::new() };
        assert_eq!(is_over(&turn, &ordered), expected);
    }
}
