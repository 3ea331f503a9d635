//! `config check`: is the configuration sound, and does this machine play along?
//!
//! Never binds a port and never opens the local state, so it can run beside the daemon.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::probe::probe;
use super::{Context, help, print};
use crate::config::{
    Config, FileKind, Finding, Inspection, Jobs, Layer, Origin, RestoreFlags, RestoreRequest, Severity, inspect,
    kind_of_file,
};
use crate::error::{Exit, Result};

/// Check the configuration
///
/// Three questions, answered separately. Syntax: is every file TOML with known keys, and does every value have the
/// right type, unit and range? Semantics: does it make sense together? Environment: does this machine have the secrets
/// and folders, and does it reach the brokers and stores?
///
/// Ends with 78 when there are errors. It never binds a port or opens the local state, and can run beside the daemon.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup config check\n  \
       kafka-backup config check --offline --deny-warnings ./kafka-backup.toml       in CI\n  \
       kafka-backup config check ./jobs.d/orders.toml                                one job alone"
))]
pub struct Args {
    /// A main file, the file of one job, or that of a restore [default: the main file with all its jobs]
    pub path: Option<PathBuf>,
    /// Syntax and semantics only
    #[arg(long)]
    pub offline: bool,
    /// Everything but asking brokers and stores
    #[arg(long)]
    pub skip_remote: bool,
    /// End with 3 when there are warnings
    #[arg(long)]
    pub deny_warnings: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Checks and prints the report.
///
/// # Errors
/// stdout cannot be written; what is wrong with the configuration is the result, not an error.
pub fn run(args: &Args, context: &Context) -> Result<Exit> {
    let main = context.config.as_deref();
    let mut inspection = match args.path.as_deref().map(|path| (path, kind_of_file(path))) {
        None => inspect(main, &Jobs::All),
        Some((path, FileKind::Main)) => inspect(Some(path), &Jobs::All),
        Some((path, FileKind::Job)) => inspect(main, &Jobs::One(path.to_owned())),
        Some((path, FileKind::Restore)) => inspect_restore(main, path),
    };
    if args.offline {
        inspection.findings.retain(|finding| finding.layer != Layer::Environment);
    } else if let Some(config) = &inspection.config {
        inspection.findings.extend(environment_checks(config));
        let sound = inspection.findings.iter().all(|finding| finding.severity != Severity::Error);
        if sound && !args.skip_remote {
            let found = probe(config)?;
            inspection.findings.extend(found);
        }
    }
    print(&if args.json { as_json(&inspection, args.offline) } else { as_text(&inspection, args.offline) })?;
    let has = |severity| inspection.findings.iter().any(|finding| finding.severity == severity);
    Ok(match (has(Severity::Error), has(Severity::Warning) && args.deny_warnings) {
        (true, _) => Exit::Config,
        (false, true) => Exit::Incomplete,
        (false, false) => Exit::Ok,
    })
}

/// A restore file, and the main file its names are from.
fn inspect_restore(main: Option<&Path>, path: &Path) -> Inspection {
    let mut inspection = inspect(main, &Jobs::None);
    inspection.files.push(path.to_owned());
    let Some(config) = &inspection.config else { return inspection };
    if let Err(findings) = RestoreRequest::inspect(config, Some(path), &RestoreFlags::default()) {
        // A secret that the restore needs is an error, and no longer only a warning.
        inspection
            .findings
            .retain(|known| !findings.iter().any(|new| (&new.origin, &new.what) == (&known.origin, &known.what)));
        inspection.findings.extend(findings);
    }
    inspection
}

/// What this machine does not have or cannot reach of what a valid configuration asks for.
pub fn environment_checks(config: &Config) -> Vec<Finding> {
    let mut folders = vec![("state_dir", config.state_dir.as_path())];
    if !config.spool_dir.starts_with(&config.state_dir) {
        folders.push(("spool.dir", config.spool_dir.as_path()));
    }
    let folders = folders.into_iter().filter_map(|(key, folder)| writable(config, key, folder));
    let http = crate::http::check(&config.http).into_iter().map(|(key, error)| Finding {
        severity: Severity::Error,
        layer: Layer::Environment,
        origin: Origin::start(&config.path),
        key: key.to_owned(),
        what: error.what,
        remedy: error.hint.unwrap_or_default(),
    });
    let heartbeat = config.heartbeat.as_ref().and_then(|heartbeat| heartbeat.url().err()).map(|what| Finding {
        severity: Severity::Error,
        layer: Layer::Environment,
        origin: Origin::start(&config.path),
        key: "heartbeat.url_file".to_owned(),
        what,
        remedy: "write the URL into that file, or remove the key".to_owned(),
    });
    folders.chain(http).chain(heartbeat).collect()
}

/// Whether files can be created in `folder`, or where it will be created.
fn writable(config: &Config, key: &str, folder: &Path) -> Option<Finding> {
    let existing = folder.ancestors().find(|folder| folder.exists())?;
    // Asking by doing: permissions, a read-only file system and a full disk all show.
    let error = tempfile::Builder::new().prefix(".kafka-backup-check-").tempfile_in(existing).err()?;
    Some(Finding {
        severity: Severity::Error,
        layer: Layer::Environment,
        origin: Origin::start(&config.path),
        key: key.to_owned(),
        what: format!("cannot write to {}: {error}", existing.display()),
        remedy: "run as the user of the daemon, or check the folder's owner, mode and file system".to_owned(),
    })
}

fn count(findings: &[Finding], layer: Layer, severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.layer == layer && finding.severity == severity).count()
}

/// Why a layer was not checked.
fn skipped(inspection: &Inspection, layer: Layer, offline: bool) -> Option<&'static str> {
    match layer {
        Layer::Environment if offline => Some("not checked (--offline)"),
        Layer::Environment
            if inspection.config.is_none() && count(&inspection.findings, layer, Severity::Error) == 0 =>
        {
            Some("not checked, because of the errors")
        }
        _ => None,
    }
}

fn as_text(inspection: &Inspection, offline: bool) -> String {
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let mut text = String::new();
    for finding in &inspection.findings {
        let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
        text.push_str(&format!("{severity}: {finding}\n"));
    }
    for layer in Layer::ALL {
        let [errors, warnings] =
            [Severity::Error, Severity::Warning].map(|severity| count(&inspection.findings, layer, severity));
        let verdict = match skipped(inspection, layer, offline) {
            Some(why) => why.to_owned(),
            None if errors + warnings == 0 => "ok".to_owned(),
            None => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
        };
        text.push_str(&format!("{:<12} {verdict}\n", layer.name()));
    }
    let [files, jobs] =
        [(inspection.files.len(), "file"), (inspection.jobs.len(), "job")].map(|(n, noun)| plural(n, noun));
    text.push_str(&format!(
        "{files}, {jobs}
"
    ));
    text
}

pub(super) fn as_json(inspection: &Inspection, offline: bool) -> String {
    let layer = |layer: Layer| {
        let facts = json!({
            "checked": skipped(inspection, layer, offline).is_none(),
            "errors": count(&inspection.findings, layer, Severity::Error),
            "warnings": count(&inspection.findings, layer, Severity::Warning),
        });
        (layer.name().to_owned(), facts)
    };
    let layers: serde_json::Map<_, _> = Layer::ALL.into_iter().map(layer).collect();
    let ok = !inspection.findings.iter().any(|finding| finding.severity == Severity::Error);
    let document = json!({
        "schema_version": 1,
        "ok": ok,
        "files": inspection.files,
        "jobs": inspection.jobs,
        "layers": layers,
        "findings": inspection.findings.iter().map(finding_json).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    let (file, line, column) = match &finding.origin {
        // 0 is the file as a whole.
        Origin::File { path, line, column } => {
            (Some(path.as_path()), Some(*line).filter(|line| *line > 0), Some(*column).filter(|column| *column > 0))
        }
        Origin::Named(_) => (None, None, None),
    };
    json!({
        "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
        "layer": finding.layer.name(),
        "origin": finding.origin.to_string(),
        "file": file,
        "line": line,
        "column": column,
        "key": finding.key,
        "message": finding.what,
        "hint": finding.remedy,
    })
}
