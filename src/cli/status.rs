//! `kafka-backup status`: how a running daemon and its jobs are.

use std::io::IsTerminal;
use std::time::Duration;

use super::{Context, help, print};
use crate::clock::rfc3339;
use crate::control::client::{self, PATIENCE};
use crate::control::document::{JobDocument, StatusDocument};
use crate::control::protocol::Request;
use crate::error::{Exit, Result};
use crate::pipeline::shown::TurnStatus;
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
    /// Show it again and again, also when the daemon is started anew meanwhile
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
    let mut seen = false;
    loop {
        let document: StatusDocument = match client::ask(&socket, &request, PATIENCE, |_| ()) {
            Err(error) if seen && error.exit == Exit::Unavailable => {
                eprintln!("the daemon does not answer; waiting for it");
                std::thread::sleep(EVERY);
                continue;
            }
            answer => answer?,
        };
        seen = true;
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
        let until = paused.until_ms.map(|until| format!(" until {}", rfc3339(until))).unwrap_or_default();
        text.push_str(&format!("  paused{by} since {}{until}{why}\n", age(now - paused.since_ms)));
    }
    for (topic, turn) in &job.compacted {
        text.push_str(&turn_text(topic, turn, now));
    }
    for (subject, problem) in &job.problems {
        text.push_str(&format!("  {subject}, since {}: {}\n", age(now - problem.since_ms), problem.text));
    }
    if let Some(last) = job.last_error.as_ref().filter(|_| job.problems.is_empty()) {
        text.push_str(&format!("  over, {} ago: {}\n", age(now - last.since_ms), last.text));
    }
    text
}

/// One instance of a compacted topic: what it does and how far it is, and what stands around it.
fn turn_text(topic: &str, turn: &TurnStatus, now: i64) -> String {
    let done = turn.progress.map(|done| format!(", {:.0} % durable", done * 100.0)).unwrap_or_default();
    let end = match turn.expected_end_ms {
        Some(end) if turn.phase == "scanning" => format!(", complete in about {}", age(end - now)),
        _ => String::new(),
    };
    let snapshot = match turn.term {
        0 => "no snapshot yet".to_owned(),
        term => format!("TERM {term} of instance {}{}", turn.owner, if turn.tainted { ", tainted" } else { "" }),
    };
    let mut text = format!(
        "  {topic}: instance {} {}, {} since {}{done}{end}; {snapshot}\n",
        turn.instance,
        turn.status,
        turn.phase,
        age(now - turn.since_ms)
    );
    let mut more = Vec::new();
    if !turn.run.is_empty() {
        more.push(format!("offsets reached {}, announced {}", turn.reached_offsets, turn.announced_offsets));
    }
    more.extend(turn.last_swap_ms.map(|at| format!("last swap {} ago", age(now - at))));
    more.extend(turn.last_scan_seconds.map(|took| format!("last scan took {}", age((took * 1000.0) as i64))));
    let silent = if turn.partner_silent { "PARTNER SILENT, " } else { "" };
    more.push(match turn.partner_heard_ms {
        Some(at) => format!("{silent}partner heard of {} ago", age(now - at)),
        None => format!("{silent}partner not heard of yet"),
    });
    if turn.refused_deletions > 0 {
        more.push(format!("{} deletions refused", turn.refused_deletions));
    }
    text.push_str(&format!("    {}\n", more.join("; ")));
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
    fn turn(phase: &str) -> TurnStatus {
        let (instance, phase) = ("a".to_owned(), phase.to_owned());
        TurnStatus { instance, status: "CATCHING_UP".to_owned(), phase, since_ms: 700_000, ..TurnStatus::default() }
    }

    #[rstest]
    #[case::first_scan(
        TurnStatus {
            run: "r".to_owned(), progress: Some(0.42), expected_end_ms: Some(1_060_000), reached_offsets: 12,
            announced_offsets: 10, ..turn("scanning")
        },
        "  t: instance a CATCHING_UP, scanning since 5m, 42 % durable, complete in about 1m; no snapshot yet\n    \
         offsets reached 12, announced 10; partner not heard of yet\n"
    )]
    #[case::owner(
        TurnStatus {
            status: "ACTIVATE".to_owned(), run: "r".to_owned(), progress: Some(1.0), expected_end_ms: Some(1_060_000),
            term: 3, owner: "a".to_owned(), tainted: true, last_swap_ms: Some(400_000), last_scan_seconds: Some(61.0),
            partner_heard_ms: Some(990_000), ..turn("owning")
        },
        "  t: instance a ACTIVATE, owning since 5m, 100 % durable; TERM 3 of instance a, tainted\n    \
         offsets reached 0, announced 0; last swap 10m ago; last scan took 1m1s; partner heard of 10s ago\n"
    )]
    #[case::alone(
        TurnStatus {
            status: "PASSIVATE".to_owned(), term: 4, owner: "b".to_owned(), partner_silent: true,
            partner_heard_ms: Some(100_000), refused_deletions: 2, ..turn("resting")
        },
        "  t: instance a PASSIVATE, resting since 5m; TERM 4 of instance b\n    \
         PARTNER SILENT, partner heard of 15m ago; 2 deletions refused\n"
    )]
    fn turns_in_words(#[case] turn: TurnStatus, #[case] text: &str) {
        assert_eq!(turn_text("t", &turn, 1_000_000), text);
    }
}
