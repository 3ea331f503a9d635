//! `man`: the manual pages, from the command line and from the table of keys.

use std::io;
use std::path::{Path, PathBuf};

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{command, help};
use crate::config::Kind;
use crate::config::keys;
use crate::config::{Fallback, Key};
use crate::error::{Error, Exit, Result};

/// Write the manual pages into a folder
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup man ./man\n  man ./man/kafka-backup-job.5"))]
pub struct Args {
    /// The folder; it is created if it is not there
    pub dir: PathBuf,
}

/// Writes the pages.
///
/// # Errors
/// The folder cannot be written.
pub fn run(args: &Args) -> Result<()> {
    write(&args.dir).map_err(|error| {
        Error::new(Exit::Failed, format!("cannot write manual pages to {}", args.dir.display())).because(error)
    })
}

fn write(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut root = command();
    root.build();
    commands(&root, "8", dir)?;
    for page in [MAIN, JOB, RESTORE] {
        std::fs::write(dir.join(format!("{}.5", page.name)), page.render())?;
    }
    Ok(())
}

/// The page of a command (section 8 for the tool itself) and of those inside it (section 1).
fn commands(command: &clap::Command, section: &str, dir: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let man = Man::new(command.clone()).title(name.to_uppercase()).section(section).source(SOURCE).manual(MANUAL);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.section("1").render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    tables(&mut roff, &command.get_after_long_help().map(ToString::to_string).unwrap_or_default());
    if section == "8" {
        tables(&mut roff, SURROUNDINGS);
    }
    see_also(&mut roff, &name);
    roff.to_writer(&mut page)?;
    std::fs::write(dir.join(format!("{name}.{section}")), page)?;
    command.get_subcommands().try_for_each(|inner| commands(inner, "1", dir))
}

/// What stands at the end of a help text, as sections whose lines are kept as they are.
fn tables(roff: &mut Roff, text: &str) {
    for block in text.split("\n\n") {
        let (title, lines) = block.split_once(":\n").unwrap_or((block, ""));
        roff.control("SH", [title.to_uppercase().as_str()]).control("nf", []);
        for line in lines.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
}

/// What is around the program, for its own page.
const SURROUNDINGS: &str = "\
Signals:
  SIGHUP           daemon: load the configuration again, as kafka-backup reload does
  SIGTERM, SIGINT  end when what has been read is durable; a second one ends it at once
  SIGUSR1          daemon, run: log a line that says how everything is; restore, verify: how far it is

Environment:
  KAFKA_BACKUP_CONFIG   the main file
  KAFKA_BACKUP__*       keys of the main file, see kafka-backup.toml(5)
  RUST_LOG              what is logged, for example info,kafka_backup=debug; wins over log.level
  NO_COLOR              no colours
  AWS_*                 credentials of stores, as for every program that uses the AWS default chain

Files:
  /etc/kafka-backup/kafka-backup.toml     the main file; may be absent
  /etc/kafka-backup/jobs.d/*.toml         the jobs, one a file
  /etc/kafka-backup/restore.d/NAME.toml   what kafka-backup-restore@NAME.service restores
  /etc/kafka-backup/secrets/              for passwords and keys, which no other file may hold
  /etc/default/kafka-backup               options and variables of the service (Debian)
  /etc/sysconfig/kafka-backup             the same (Red Hat)
  /var/lib/kafka-backup/                  local state, which may be lost: the bucket says where to go on
  /run/kafka-backup/control.sock          where status, reload, pause and the like reach the daemon
  /usr/share/doc/kafka-backup/examples/   jobs, alert rules, dashboard, drop-ins for systemd";

fn see_also(roff: &mut Roff, this: &str) {
    let pages =
        [("kafka-backup", "8"), ("kafka-backup.toml", "5"), ("kafka-backup-job", "5"), ("kafka-backup-restore", "5")];
    let others = pages.iter().filter(|(name, _)| *name != this).map(|(name, section)| format!("{name}({section})"));
    roff.control("SH", ["SEE ALSO"]).text([roman(others.collect::<Vec<_>>().join(", "))]);
}

const SOURCE: &str = concat!("kafka-backup ", env!("CARGO_PKG_VERSION"));
const MANUAL: &str = "Kafka Backup";

/// A page about a file.
struct FilePage {
    name: &'static str,
    about: &'static str,
    intro: &'static str,
    keys: &'static [Key],
    example: &'static str,
}

const MAIN: FilePage = FilePage {
    name: "kafka-backup.toml",
    about: "main configuration file of kafka-backup",
    intro: "The main file of kafka-backup(8), in TOML: /etc/kafka-backup/kafka-backup.toml, or what --config or \
            KAFKA_BACKUP_CONFIG names. Everything has a default, so it may be empty or absent. Every \
            key but those in the tables defaults, kafka and storage can be given as an environment variable, too, \
            which wins: KAFKA_BACKUP__ and the key in capitals, with two underscores for each dot, so that \
            KAFKA_BACKUP__MEMORY__BUDGET is memory.budget.",
    keys: keys::MAIN,
    example: include_str!("../../etc/kafka-backup.toml"),
};

const JOB: FilePage = FilePage {
    name: "kafka-backup-job",
    about: "job file of kafka-backup",
    intro: "A job of kafka-backup(8), in TOML: a file *.toml in jobs_dir, by default /etc/kafka-backup/jobs.d. Its \
            name without .toml is the id of the job. Hidden files and what editors and package managers leave behind \
            are passed over. What a job does not say is taken from [defaults] of kafka-backup.toml(5).",
    keys: keys::JOB,
    example: include_str!("../../etc/examples/orders.toml"),
};

const RESTORE: FilePage = FilePage {
    name: "kafka-backup-restore",
    about: "restore file of kafka-backup",
    intro: "What kafka-backup-restore(1) is asked to do, in TOML. Every key is an option of the command, too, which \
            then wins.",
    keys: keys::RESTORE,
    example: include_str!("../../etc/examples/restore-orders.toml"),
};

impl FilePage {
    fn render(&self) -> String {
        let mut roff = Roff::new();
        roff.control("TH", [self.name.to_uppercase().as_str(), "5", "", SOURCE, MANUAL]);
        roff.control("SH", ["NAME"]).text([roman(format!("{} - {}", self.name, self.about))]);
        roff.control("SH", ["DESCRIPTION"]).text([roman(self.intro)]);
        roff.control("PP", []).text([roman(UNITS)]);
        roff.control("SH", ["KEYS"]);
        self.keys.iter().for_each(|key| entry(&mut roff, key));
        for key in self.keys {
            if let Kind::Tables(inner) | Kind::Reference(inner) = key.kind {
                roff.control("SH", [format!("KEYS OF {}", key.name.to_uppercase()).as_str()]);
                inner.iter().for_each(|key| entry(&mut roff, key));
            }
        }
        roff.control("SH", ["EXAMPLE"]).control("nf", []);
        for line in self.example.lines() {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
        see_also(&mut roff, self.name);
        roff.to_roff()
    }
}

const UNITS: &str = "Sizes are written with a unit (64KiB, 64MiB, 1GiB, 64MB), durations, too (500ms, 30s, 10m, 1h, \
                     7d). Relative paths are relative to the file they stand in. Keys that are not known are errors.";

fn entry(roff: &mut Roff, key: &Key) {
    let default = match key.default {
        Fallback::Is(text) if matches!(key.kind, Kind::Flag | Kind::Count(..) | Kind::Hours(_)) => {
            format!("Default: {text}.")
        }
        Fallback::Is(text) => format!("Default: \"{text}\"."),
        Fallback::Said(text) => format!("Default: {text}."),
        Fallback::Required => "Must be given.".to_owned(),
    };
    roff.control("TP", []);
    roff.text([bold(key.name), roman(format!(" ({})", key.kind.words()))]);
    roff.text([roman(format!("{} {default}", key.doc))]);
}
