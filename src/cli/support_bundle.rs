//! `kafka-backup support-bundle`: what somebody needs who is to help from afar, in one file.
//!
//! Secrets are not in it: the configuration has none (a literal one is an error, and a configuration with errors is not
//! shown), and nothing is read that holds records or credentials. Each part is collected by itself: one that cannot be
//! had says why in its place, because a bundle is made when something is wrong.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use time::OffsetDateTime;
use time::macros::format_description;

use super::{Context, check, help, print, show};
use crate::config::{Config, Inspection, Jobs, Layer, Severity, inspect};
use crate::control::client::{self, PATIENCE};
use crate::control::protocol::Request;
use crate::error::{Error, Exit, Result};

/// Lines of the journal that are taken.
const JOURNAL_LINES: &str = "5000";
/// Files of the state folder that are named.
const FILES_MAX: usize = 2000;

/// Collect what somebody needs who is to help: configuration, status, metrics, log
///
/// No secret and no record is in it. Topic names, group names, host names and paths are.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup support-bundle\n  kafka-backup support-bundle --output /tmp/bundle.tar.gz"))]
pub struct Args {
    /// Where to write it [default: kafka-backup-support-TIME.tar.gz in this folder]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Writes the bundle and prints what is in it.
///
/// # Errors
/// The file cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let name = format!("kafka-backup-support-{}", stamp());
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let parts = collect(context);
    write(&path, &name, &parts).map_err(|error| {
        Error::new(Exit::Failed, format!("cannot write {}", path.display()))
            .because(error)
            .hint("choose another place with --output")
    })?;
    let mut text = format!("{}\n", path.display());
    for part in &parts {
        let missing = part.missing.as_ref().map(|why| format!("  ({why})")).unwrap_or_default();
        let _ = writeln!(text, "  {:<16} {:>8} bytes{missing}", part.name, part.text.len());
    }
    text.push_str(
        "No secrets and no records are in it; names of topics, groups, hosts and paths are. Look before you send it.\n",
    );
    print(&text)
}

/// One file of the bundle.
struct Part {
    name: &'static str,
    text: String,
    /// Why it could not be had.
    missing: Option<String>,
}

impl Part {
    fn of(name: &'static str, text: Result<String, String>) -> Self {
        match text {
            Ok(text) => Self { name, text, missing: None },
            Err(why) => Self { name, text: format!("not there: {why}\n"), missing: Some(why) },
        }
    }
}

fn collect(context: &Context) -> Vec<Part> {
    let inspection = inspect(context.config.as_deref(), &Jobs::All);
    let socket = context.socket().map_err(|error| error.what);
    let ask = |request: Request| -> Result<serde_json::Value, String> {
        client::ask(socket.as_ref().map_err(Clone::clone)?, &request, PATIENCE, |_| ()).map_err(|error| error.what)
    };
    let status = ask(Request::Status { job: None }).map(|value| format!("{value:#}\n"));
    let metrics = ask(Request::Metrics).and_then(|value| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| "the daemon's answer is not a text".to_owned())
    });
    vec![
        Part::of("versions.txt", Ok(versions())),
        Part::of("config.json", effective(&inspection)),
        Part::of("check.json", Ok(check::as_json(&inspection, false))),
        Part::of("status.json", status),
        Part::of("metrics.txt", metrics),
        Part::of("machine.txt", Ok(machine(inspection.config.as_ref()))),
        Part::of("state.txt", inspection.config.as_ref().map_or(Err("the configuration is invalid".to_owned()), files)),
        Part::of(
            "journal.txt",
            output("journalctl", &["-u", "kafka-backup", "-n", JOURNAL_LINES, "--no-pager", "-o", "short-iso"]),
        ),
        Part::of("unit.txt", output("systemctl", &["status", "kafka-backup", "--no-pager", "-n", "0"])),
    ]
}

/// The effective configuration; what has errors is not shown, since a secret may stand where none belongs.
fn effective(inspection: &Inspection) -> Result<String, String> {
    let fatal = inspection.findings.iter().any(|f| f.severity == Severity::Error && f.layer != Layer::Environment);
    if fatal { Err("it has errors, see check.json".to_owned()) } else { Ok(show::as_json(&inspection.values)) }
}

fn versions() -> String {
    let revision = option_env!("KAFKA_BACKUP_REVISION").unwrap_or("unknown");
    let mut text = format!("kafka-backup {} ({revision})\nwritten {}\n", env!("CARGO_PKG_VERSION"), stamp());
    text.push_str(&output("uname", &["-a"]).unwrap_or_default());
    text.push_str(&std::fs::read_to_string("/etc/os-release").unwrap_or_default());
    text
}

/// Memory, processors, and the disks of state and spool.
fn machine(config: Option<&Config>) -> String {
    let mut text = String::new();
    for file in ["/proc/meminfo", "/proc/loadavg", "/proc/pressure/io", "/proc/pressure/memory"] {
        if let Ok(found) = std::fs::read_to_string(file) {
            let _ = writeln!(text, "# {file}\n{found}");
        }
    }
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let _ = writeln!(text, "# processors\n{processors}\n\n# disks");
    for folder in config.into_iter().flat_map(|config| [&config.state_dir, &config.spool_dir]) {
        if let Ok(fs) = rustix::fs::statvfs(folder) {
            let [free, all] = [fs.f_bavail, fs.f_blocks].map(|blocks| blocks.saturating_mul(fs.f_frsize));
            let _ = writeln!(text, "{}: {free} of {all} bytes are free", folder.display());
        }
    }
    text
}

/// Names and sizes of what is in the state folder; nothing of it is read.
fn files(config: &Config) -> Result<String, String> {
    let mut text = String::new();
    let mut folders = vec![config.state_dir.clone()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if folder == config.state_dir => return Err(format!("{}: {error}", folder.display())),
            Err(error) => {
                let _ = writeln!(text, "{}: {error}", folder.display());
                continue;
            }
        };
        for entry in entries.flatten() {
            count += 1;
            if count > FILES_MAX {
                text.push_str("and more\n");
                return Ok(text);
            }
            // Not following links: whatever they lead to is not ours.
            let Ok(metadata) = entry.metadata() else { continue };
            let _ = writeln!(text, "{:>14} {}", metadata.len(), entry.path().display());
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(text)
}

/// What a command says, or why it cannot be asked.
fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let ran = Command::new(program).args(args).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    // systemctl status ends with 3 for a unit that does not run, and has said all there is.
    if said.is_empty() && !ran.status.success() {
        let why = String::from_utf8_lossy(&ran.stderr);
        return Err(format!("{program}: {}", why.lines().next().unwrap_or("it failed")));
    }
    Ok(said)
}

fn stamp() -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    OffsetDateTime::now_utc().format(&format).unwrap_or_default()
}

/// Writes the parts as a compressed archive that only its owner can read; an existing file is not replaced.
fn write(path: &Path, folder: &str, parts: &[Part]) -> std::io::Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for part in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(part.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(OffsetDateTime::now_utc().unix_timestamp().max(0) as u64);
        archive.append_data(&mut header, format!("{folder}/{}", part.name), part.text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}
