//! `config show`: what the configuration comes to, and where each value was given.

use serde_json::json;

use super::{Context, help, print};
use crate::config::{ConfigErrors, Finding, Jobs, Layer, Severity, Shown, inspect};
use crate::error::{Result, no_such_job};

/// Show the effective configuration, and where each value was given
///
/// Secrets are not in the configuration; shown is where they are read from.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup config show\n  kafka-backup config show --job orders --json"))]
pub struct Args {
    /// Only this job
    #[arg(long)]
    pub job: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Shows the configuration.
///
/// # Errors
/// [`crate::error::Exit::Config`] where it is not valid, [`crate::error::Exit::NotFound`] where there is no such job.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let inspection = inspect(context.config.as_deref(), &Jobs::All);
    // Without secrets or folders there is still everything to show.
    let is_fatal = |finding: &Finding| finding.severity == Severity::Error && finding.layer != Layer::Environment;
    if inspection.findings.iter().any(is_fatal) {
        return Err(ConfigErrors(inspection.findings).into());
    }
    if let Some(id) = args.job.as_ref().filter(|id| !inspection.jobs.contains(id)) {
        return Err(no_such_job(id, inspection.jobs.iter().map(String::as_str)));
    }
    let section = args.job.as_ref().map(|id| format!("job {id}"));
    let values: Vec<Shown> = inspection
        .values
        .into_iter()
        .filter(|value| section.as_ref().is_none_or(|section| value.section == *section))
        .collect();
    print(&if args.json { as_json(&values) } else { as_text(&values) })
}

pub(super) fn as_json(values: &[Shown]) -> String {
    let value = |shown: &Shown| {
        json!({
            "section": shown.section,
            "key": shown.key,
            "value": shown.value,
            "origin": shown.origin.to_string(),
        })
    };
    let document = json!({ "schema_version": 1, "values": values.iter().map(value).collect::<Vec<_>>() });
    format!("{document:#}\n")
}

fn as_text(values: &[Shown]) -> String {
    let mut text = String::new();
    let mut section = "";
    for shown in values {
        if shown.section != section {
            section = &shown.section;
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}# {section}\n"));
        }
        // JSON and TOML write these values the same way.
        let assignment = format!("{} = {}", toml_key(&shown.key), shown.value);
        text.push_str(&format!("{assignment:<60}  # {}\n", shown.origin));
    }
    text
}

/// The dots in the name of a property are part of its name.
fn toml_key(key: &str) -> String {
    match key.split_once("properties.") {
        Some((table, name)) => format!("{table}properties.\"{name}\""),
        None => key.to_owned(),
    }
}
