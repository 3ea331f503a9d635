//! The command line: what is typed, one file per command, and the exit code it ends with.
//!
//! stdout is the result, stderr is logs, progress and errors. With `--json` stdout is JSON and nothing else.

mod cat;
mod check;
mod completions;
mod daemon;
mod demo;
mod demo_output;
mod demo_turns;
mod info;
mod man;
mod orders;
mod probe;
mod proof;
mod reload;
mod restore;
mod retention;
mod run;
mod show;
mod status;
mod support_bundle;
mod verify;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};

pub use check::environment_checks;

use crate::config::{self, Config, ConfigErrors, StorageConfig};
use crate::error::{Error, Exit, Result};
use crate::logging::{self, Color};

/// Everything that can be typed.
#[derive(Debug, Parser)]
#[command(
    name = "kafka-backup",
    version,
    about = "Copies Kafka topics to S3 continuously, exactly once, and puts them back on demand",
    after_long_help = help(
        "  kafka-backup config check                          is the configuration sound?\n  \
           kafka-backup daemon                                run all jobs, as the service does\n  \
           kafka-backup run orders --until-caught-up          back up one job to the end of its topics, once\n  \
           kafka-backup info --storage main                   what is backed up?\n  \
           kafka-backup restore --storage main --kafka dr --topics orders"
    ),
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 120
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
struct Global {
    /// The main file [default: /etc/kafka-backup/kafka-backup.toml, which may be absent]
    #[arg(long, global = true, env = "KAFKA_BACKUP_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log more; twice, even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Log less; twice, errors only
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose")]
    quiet: u8,
    /// Colours in logs on stderr; NO_COLOR is honoured
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = Color::Auto,
        value_name = "auto|always|never",
        hide_possible_values = true
    )]
    color: Color,
}

#[derive(Debug, Subcommand)]
enum Command {
    Daemon(daemon::Args),
    /// Check the configuration, or show what it comes to
    #[command(
        subcommand_required = true,
        arg_required_else_help = true,
        after_long_help = help("  kafka-backup config check\n  kafka-backup config show --job orders")
    )]
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    Run(run::Args),
    Restore(Box<restore::Args>),
    Info(info::Args),
    Verify(verify::Args),
    Check(proof::Args),
    Cat(cat::Args),
    Status(status::Args),
    Reload(reload::Args),
    Flush(orders::FlushArgs),
    Pause(orders::PauseArgs),
    Resume(orders::ResumeArgs),
    SupportBundle(support_bundle::Args),
    Retention(retention::Args),
    Swap(orders::SwapArgs),
    Demo(demo::Args),
    Completions(completions::Args),
    Man(man::Args),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Check(check::Args),
    Show(show::Args),
}

impl Command {
    fn run(self, context: &Context) -> Result<Exit> {
        let done = |()| Exit::Ok;
        match self {
            Self::Daemon(args) => daemon::run(args, context).map(done),
            Self::Config { command: ConfigCommand::Check(args) } => check::run(&args, context),
            Self::Config { command: ConfigCommand::Show(args) } => show::run(&args, context).map(done),
            Self::Run(args) => run::run(args, context).map(done),
            Self::Restore(args) => restore::run(&args, context),
            Self::Info(args) => info::run(args, context),
            Self::Verify(args) => verify::run(args, context),
            Self::Check(args) => proof::run(&args, context),
            Self::Cat(args) => cat::run(args, context),
            Self::Status(args) => status::run(&args, context),
            Self::Reload(args) => reload::run(&args, context),
            Self::Flush(args) => orders::flush(&args, context).map(done),
            Self::Pause(args) => orders::pause(&args, context).map(done),
            Self::Resume(args) => orders::resume(&args, context).map(done),
            Self::SupportBundle(args) => support_bundle::run(&args, context).map(done),
            Self::Retention(args) => retention::run(&args, context),
            Self::Swap(args) => orders::swap(&args, context).map(done),
            Self::Demo(args) => demo::run(args, context).map(done),
            Self::Completions(args) => completions::run(&args).map(done),
            Self::Man(args) => man::run(&args).map(done),
        }
    }

    /// Whether errors are for a program to read.
    fn json(&self) -> bool {
        match self {
            Self::Config { command: ConfigCommand::Check(args) } => args.json,
            Self::Config { command: ConfigCommand::Show(args) } => args.json,
            Self::Run(args) => args.json,
            Self::Restore(args) => args.json,
            Self::Info(args) => args.json,
            Self::Verify(args) => args.json,
            Self::Check(args) => args.json,
            Self::Cat(args) => args.json,
            Self::Status(args) => args.json,
            Self::Reload(args) => args.json,
            Self::Flush(args) => args.json,
            Self::Pause(args) => args.json,
            Self::Resume(args) => args.json,
            Self::Retention(args) => args.json,
            Self::Swap(args) => args.json,
            Self::Daemon(_) | Self::SupportBundle(_) | Self::Demo(_) | Self::Completions(_) | Self::Man(_) => false,
        }
    }
}

/// Parses the arguments, runs the command, prints its error, and says how it ended. clap itself ends the process on
/// `--help`, `--version` (0) and wrong use (2).
pub fn main() -> ExitCode {
    crate::scrape::process_started();
    let Cli { global, command } = Cli::parse();
    let context = Context {
        config: global.config.filter(|path| !path.as_os_str().is_empty()),
        verbosity: i16::from(global.verbose) - i16::from(global.quiet),
        color: global.color,
    };
    let json = command.json();
    let exit = command.run(&context).unwrap_or_else(|error| {
        report(&error, json);
        error.exit
    });
    ExitCode::from(exit as u8)
}

/// Prints the error a command ends with on stderr; a stderr that nobody reads any more is no second error.
fn report(error: &Error, json: bool) {
    let text = if json {
        let code = error.exit as u8;
        serde_json::json!({ "message_type": "exit_error", "code": code, "message": error.to_string() }).to_string()
    } else {
        format!("error: {error}")
    };
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The command line as clap sees it, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// What every command is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// The main file, where one was named.
    pub config: Option<PathBuf>,
    /// Above 0: log more; below: less.
    pub verbosity: i16,
    /// Colours on stderr.
    pub color: Color,
}

impl Context {
    /// Loads the main file with all its jobs and starts logging as it says.
    ///
    /// # Errors
    /// [`Exit::Config`] with everything that is wrong.
    pub fn load(&self) -> Result<Config> {
        self.start(config::load(self.config.as_deref()))
    }

    /// As [`Self::load`], without jobs.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_main(&self) -> Result<Config> {
        self.start(config::load_main(self.config.as_deref()))
    }

    /// As [`Self::load`], with the job in `file` alone.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_job_file(&self, file: &Path) -> Result<Config> {
        self.start(config::load_job_file(self.config.as_deref(), file))
    }

    /// The control socket of the daemon with this configuration.
    ///
    /// # Errors
    /// [`Exit::Config`] where it is not valid and no daemon listens at what it says.
    pub fn socket(&self) -> Result<PathBuf> {
        let (socket, inspection) = self.look_for_socket();
        match inspection.into_result() {
            Err(errors) if std::os::unix::net::UnixStream::connect(&socket).is_err() => Err(errors.into()),
            _ => Ok(socket),
        }
    }

    /// As [`Self::load`]; without jobs where something is wrong with one of them. For commands that look at storage, and
    /// to which jobs say only what to expect there.
    ///
    /// # Errors
    /// As [`Self::load`], for the main file.
    pub fn load_leniently(&self) -> Result<Config> {
        match config::load(self.config.as_deref()) {
            Ok(config) => self.start(Ok(config)),
            Err(errors) => {
                let config = self.load_main()?;
                tracing::warn!("the jobs are left out of account: {errors}");
                Ok(config)
            }
        }
    }

    /// The same whether the files are valid or not: the daemon runs on what it has loaded, and says what is wrong.
    pub fn daemon_socket(&self) -> PathBuf {
        self.look_for_socket().0
    }

    fn look_for_socket(&self) -> (PathBuf, config::Inspection) {
        let inspection = config::inspect(self.config.as_deref(), &config::Jobs::None);
        let level = if self.verbosity > 0 { "info" } else { "warn" };
        logging::start(level, config::LogFormat::Text, 0, self.color);
        let given = inspection.values.iter().find(|shown| shown.section == "main" && shown.key == "control.socket");
        let socket = given.and_then(|shown| shown.value.as_str()).unwrap_or_default();
        (PathBuf::from(socket), inspection)
    }

    fn start(&self, loaded: Result<Config, ConfigErrors>) -> Result<Config> {
        let config = loaded?;
        self.begin(&config);
        Ok(config)
    }

    /// Starts logging as `config` says.
    fn begin(&self, config: &Config) {
        logging::start(&config.log_level, config.log_format, self.verbosity, self.color);
        for warning in &config.warnings {
            tracing::warn!(key = warning.key, "{}: {} ({})", warning.origin, warning.what, warning.remedy);
        }
    }
}

/// The store that `--storage` names, or the one there is: `main`, or the only one.
fn storage_or_only(config: &Config, given: Option<&str>) -> Result<Arc<StorageConfig>> {
    if let Some(given) = given {
        return config.store(given, "--storage");
    }
    let only = config.storage.values().next().filter(|_| config.storage.len() == 1);
    if let Some(store) = config.storage.get("main").or(only) {
        return Ok(Arc::clone(store));
    }
    let names = config.storage.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let hint = match names.as_str() {
        "" => "give --storage URL, or write [storage.main] into the main file".to_owned(),
        names => format!("give --storage with one of {names}, or a URL"),
    };
    Err(Error::new(Exit::Usage, "it is not clear which store is meant").hint(hint))
}

/// The threads on which the commands that talk to a store do so.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Error::new(Exit::Failed, "cannot start threads").because(error))
}

/// Writes a result to stdout. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::new(Exit::Failed, "cannot write to stdout").because(error))
        }
        _ => Ok(()),
    }
}

/// Examples and the table of exit codes, for the end of every `--help`.
fn help(examples: &str) -> String {
    format!("Examples:\n{}\n\nExit status:\n{EXIT_STATUS}", examples.trim_end())
}

const EXIT_STATUS: &str = "    0  success, healthy
    1  failed, not otherwise classified
    2  wrong use of the command line
    3  completed, but incomplete or with warnings
    4  a check found a problem: damage, a gap, over the recovery point objective
   10  job, backup, topic or restore point not found
   11  another instance or restore owns it
   12  refused by Kafka or the store: authentication or authorisation
   69  a broker, the store or the daemon cannot be reached: trying again may help
   75  timed out or busy: try again
   78  the configuration is invalid
  130  interrupted by SIGINT
  143  ended by SIGTERM
  Any other code means failure.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    /// Every command, with those inside others.
    fn all(command: &clap::Command) -> Vec<clap::Command> {
        let inner = command.get_subcommands().flat_map(all);
        std::iter::once(command.clone()).chain(inner).collect()
    }

    #[test]
    fn every_help_has_examples_and_exit_codes() {
        for mut command in all(&command()) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:\n  kafka-backup"), "{help}");
            assert!(help.contains("78  the configuration is invalid"), "{help}");
            assert!(command.get_about().is_some(), "{help}");
        }
    }
}
