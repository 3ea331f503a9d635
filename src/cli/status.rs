//! `kafka-backup status`: how a running daemon and its jobs are.

use std::io::IsTerminal;
use std::time::Duration;

use super::{Context, help, print};
use crate::control::client::{self, PATIENCE};
use crate::control::document::{JobDocument, StatusDocument};
use crate::control::protocol::Request;
use crate::error::{Exit, Result};
use crate::pipeline::status::JobState;
use crate::standing::ReloadResult;

/// Show how the daemon and its jobs are
///
/// RPO is how old what is not yet safe in the store may be, beside what it should be at most.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup status\n  kafka-backup status --job orders --watch\n  kafka-backup status --json"))]
pub struct Args {
    /// Only this job
    #[arg(long)]
    pub job: Option<String>,
    /// Show it again and again
    #[arg(long)]
    pub watch: bool,
    /// Print JSON; with --watch, one document a line
    #[arg(long)]
    pub json: bool,
}

/// How often `--watch` asks.
const EVERY: Duration = Duration::from_secs(2);

/// Shows the status; the exit code says whether all is well.
///
/// # Errors
/// [`Exit::Unavailable`] where no daemon runs, [`Exit::NotFound`] where it has no such job.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let socket = context.socket()?;
    let request = Request::Status { job: args.job.clone() };
    loop {
        let document: StatusDocument = client::ask(&socket, &request, PATIENCE, |_| ())?;
        let text = match (args.json, args.watch) {
            (true, true) => format!("{}\n", serde_json::json!(document)),
            (true, false) => format!("{:#}\n", serde_json::json!(document)),
            // A terminal shows one picture that changes.
            (false, true) if std::io::stdout().is_terminal() => format!("\x1b[H\x1b[2J{}", as_text(&document)),
            (false, _) => as_text(&document),
        };
        print(&text)?;
        if !args.watch {
            return Ok(if document.ok { Exit::Ok } else { Exit::ProblemFound });
        }
        std::thread::sleep(EVERY);
    }
}

fn as_text(document: &StatusDocument) -> String {
    let config = &document.config;
    let mut text = format!(
        "kafka-backup {}, up {}, {} generation {}\n",
        document.version,
        age(document.now_ms - (document.started_seconds * 1000.0) as i64),
        config.path.display(),
        config.generation
    );
    if let Some(last) = &config.last_reload {
        let ago = age(document.now_ms - last.at_ms);
        text.push_str(&format!("last reload {} {ago} ago\n", last.result.name()));
        if last.result == ReloadResult::Rejected {
            last.text.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    }
    if let Some(drift) = &config.drift {
        let files: Vec<_> = drift.files.iter().map(|file| file.display().to_string()).collect();
        let ago = age(document.now_ms - drift.since_ms);
        text.push_str(&format!("edited {ago} ago, not loaded: {}\n", files.join(", ")));
    }
    if document.jobs.is_empty() {
        text.push_str("no jobs\n");
        return text;
    }
    let width = document.jobs.iter().map(|job| job.job.len()).max().unwrap_or(0).max(3);
    text.push_str(&format!(
        "\n{:<width$}  {:<9} {:>10} {:>12} {:>17}  {:<12}\n",
        "JOB", "STATE", "PARTITIONS", "LAG", "RPO NOW/TARGET", "LAST COMMIT"
    ));
    document.jobs.iter().for_each(|job| text.push_str(&line(job, width, document.now_ms)));
    text
}

fn line(job: &JobDocument, width: usize, now: i64) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rpo = or_dash(job.rpo_seconds.map(|seconds| age((seconds * 1000.0) as i64)));
    let mark = if job.over_rpo && job.state != JobState::Paused { "!" } else { "" };
    let rpo = format!("{mark}{rpo}/{}", age((job.rpo_target_seconds * 1000.0) as i64));
    let lag = or_dash(job.lag_records.map(|lag| lag.to_string()));
    let commit = or_dash(job.last_commit_ms.map(|at| format!("{} ago", age(now - at))));
    let state = serde_json::json!(job.state);
    let mut text = format!(
        "{:<width$}  {:<9} {:>10} {lag:>12} {rpo:>17}  {commit:<12}",
        job.job,
        state.as_str().unwrap_or_default(),
        job.partitions.len(),
    );
    text.truncate(text.trim_end().len());
    text.push('\n');
    if let Some(paused) = &job.paused {
        let why = paused.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let by = if paused.by_file { " by its file" } else { "" };
        text.push_str(&format!("  paused{by} since {}{why}\n", age(now - paused.since_ms)));
    }
    for (topic, turn) in &job.compacted {
        let done = turn.progress.map(|done| format!(", {:.0} % durable", done * 100.0)).unwrap_or_default();
        let owner = match turn.term {
            0 => "no snapshot yet".to_owned(),
            term => format!("TERM {term} of instance {}{}", turn.owner, if turn.tainted { ", tainted" } else { "" }),
        };
        let since = age(now - turn.since_ms);
        text.push_str(&format!(
            "  {topic}: instance {} {}, {} since {since}{done}; {owner}\n",
            turn.instance, turn.status, turn.phase
        ));
    }
    for (subject, problem) in &job.problems {
        text.push_str(&format!("  {subject}, since {}: {}\n", age(now - problem.since_ms), problem.text));
    }
    if let Some(last) = job.last_error.as_ref().filter(|_| job.problems.is_empty()) {
        text.push_str(&format!("  over, {} ago: {}\n", age(now - last.since_ms), last.text));
    }
    text
}

/// A time span in its two largest units.
fn age(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) if seconds % 60 == 0 => format!("{m}m"),
        (0, 0, m) => format!("{m}m{}s", seconds % 60),
        (0, h, 0) => format!("{h}h"),
        (0, h, m) => format!("{h}h{m}m"),
        (d, 0, _) => format!("{d}d"),
        (d, h, _) => format!("{d}d{h}h"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(-5, "0s")]
    #[case(59_999, "59s")]
    #[case(60_000, "1m")]
    #[case(61_000, "1m1s")]
    #[case(3_600_000, "1h")]
    #[case(3_660_000, "1h1m")]
    #[case(86_400_000, "1d")]
    #[case(90_000_000, "1d1h")]
    fn ages(#[case] ms: i64, #[case] text: &str) {
        assert_eq!(age(ms), text);
    }
}
