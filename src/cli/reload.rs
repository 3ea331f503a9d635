//! `kafka-backup reload`: has the running daemon load its configuration again, and waits for what comes of it.

use std::time::Duration;

use serde_json::json;

use super::{Context, help, print};
use crate::control::client::{self, PATIENCE};
use crate::control::protocol::Request;
use crate::error::{Error, Exit, Result};
use crate::reload::Report;
use crate::standing::{LastReload, ReloadResult};

/// Have the daemon load its configuration again
///
/// Everything is checked before anything changes; where something is wrong, all errors are printed and what ran goes on
/// running. Jobs that have not changed are not touched. SIGHUP and `systemctl reload` do the same.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup reload --dry-run              what would change?\n  \
       kafka-backup reload\n  \
       kafka-backup reload --allow-removals       also when most jobs are gone\n  \
       kafka-backup reload --last                 what did the last one say?"
))]
pub struct Args {
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Also when all jobs, or more than half of four or more, are gone
    #[arg(long)]
    pub allow_removals: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Print what the last reload said, and do nothing
    #[arg(long, conflicts_with_all = ["dry_run", "allow_removals"])]
    pub last: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Reloads.
///
/// # Errors
/// [`Exit::Config`] with everything that is wrong; [`Exit::Unavailable`] where no daemon runs; [`Exit::Busy`] where it
/// takes longer.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let socket = context.daemon_socket();
    if args.last {
        let last: Option<LastReload> = client::ask(&socket, &Request::LastReload, PATIENCE, |_| ())?;
        let text = match (&last, args.json) {
            (last, true) => format!("{:#}\n", json!(last)),
            (None, false) => "nothing was reloaded since the daemon started\n".to_owned(),
            (Some(last), false) => format!("{}:\n{}\n", last.result.name(), last.text),
        };
        print(&text)?;
        let rejected = last.is_some_and(|last| last.result == ReloadResult::Rejected);
        return Ok(if rejected { Exit::Config } else { Exit::Ok });
    }
    let request = Request::Reload { dry_run: args.dry_run, allow_removals: args.allow_removals };
    let report: Report = client::ask(&socket, &request, args.timeout, |_| ()).map_err(|error| match error.exit {
        Exit::Config => {
            Error { what: format!("the reload was rejected; what ran goes on running\n{}", error.what), ..error }
        }
        _ => error,
    })?;
    print(&if args.json { format!("{:#}\n", json!(report)) } else { format!("{}\n", report.text()) })?;
    Ok(Exit::Ok)
}
