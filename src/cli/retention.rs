//! `retention`: what the stores remove, what they should, and the difference; brings them into step.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Context, help, print, runtime};
use crate::config::{Config, Job};
use crate::error::{Error, Exit, Result};
use crate::restore::text::table;
use crate::retention::report::{Report, days_text};
use crate::retention::survey::{Clusters, survey};
use crate::retention::{How, Trouble, keeper, rules};
use crate::storage;

/// Show what the stores remove, and bring it into step with the jobs
///
/// For every topic of every job: after how many days its objects are to expire, after how many they do, and what is to be
/// done about the difference; then does it, as the daemon does every hour. What keeps objects for a shorter time than now
/// is done only with --allow-retention-decrease. Rules of others are never touched.
///
/// Ends with 3 when a difference is left. In a folder the daemon removes what has expired, within the hour.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup retention --dry-run\n  \
       kafka-backup retention --allow-retention-decrease\n  \
       kafka-backup retention --json"
))]
pub struct Args {
    /// Only show
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Also do what removes objects earlier than now
    #[arg(long)]
    pub allow_retention_decrease: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Shows, and brings into step.
///
/// # Errors
/// A store cannot be asked or changed; the others are done all the same.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let config = context.load()?;
    let runtime = runtime()?;
    let how = How { allow_decrease: args.allow_retention_decrease, dry_run: args.dry_run, ..How::default() };
    let (mut reports, mut failed) = (Vec::new(), None);
    for jobs in by_place(&config) {
        match runtime.block_on(one(&jobs, how, runtime.handle().clone())) {
            Ok(report) => reports.push(report),
            Err(error) => {
                tracing::error!(storage = %jobs[0].storage.name, error = %error, "this store was left as it is");
                failed.get_or_insert(error);
            }
        }
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    print(&if args.json { as_json(&reports) } else { as_text(&reports) })?;
    match failed {
        Some(error) => Err(error),
        None if !args.dry_run && reports.iter().any(is_open) => Ok(Exit::Incomplete),
        None => Ok(Exit::Ok),
    }
}

fn is_open(report: &Report) -> bool {
    !report.threats.is_empty() || report.topics.iter().any(|topic| topic.drifts() || topic.is_problem())
}

/// The jobs of each store.
fn by_place(config: &Config) -> Vec<Vec<Arc<Job>>> {
    let mut places: Vec<Vec<Arc<Job>>> = Vec::new();
    for job in &config.jobs {
        match places.iter_mut().find(|jobs| jobs[0].storage.same_place(&job.storage)) {
            Some(jobs) => jobs.push(job.clone()),
            None => places.push(vec![job.clone()]),
        }
    }
    places
}

async fn one(jobs: &[Arc<Job>], how: How, io: tokio::runtime::Handle) -> Result<Report> {
    let store = storage::open(&jobs[0].storage, io)?;
    let topics = survey(jobs, &mut Clusters::default()).await;
    keeper::in_step(&store, &topics, how).await.map_err(|trouble| match trouble {
        Trouble::Store(error) => {
            let hint = rules::remedy(&error);
            Error::from(error).hint(hint)
        }
        Trouble::Document { .. } => Error::new(Exit::ProblemFound, trouble.to_string())
            .hint("look at it with: aws s3api get-bucket-lifecycle-configuration"),
    })
}

fn as_json(reports: &[Report]) -> String {
    format!("{:#}\n", json!({ "schema_version": 1, "stores": reports }))
}

fn as_text(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        let header = ["TOPIC", "JOB", "WANTED", "RULE", "DIFFERENCE"];
        let mut rows = vec![header.map(str::to_owned)];
        for topic in &report.topics {
            let known = topic.step.is_some();
            rows.push([
                topic.topic.clone(),
                topic.job.clone(),
                if topic.hindrance.is_some() && !known { "?".to_owned() } else { days_text(topic.wanted_days) },
                if known { days_text(topic.installed_days) } else { "?".to_owned() },
                topic.difference().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        text.push_str(&format!("{}\n{}", report.store, table(&rows)));
        for rule in &report.threats {
            text.push_str(&format!("{rule} removes the records that the backup rests on\n"));
        }
        report.notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
    }
    text
}
