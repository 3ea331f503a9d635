//! Logs, on stderr: text, JSON, or as the journal wants them.

use std::fmt;
use std::io::IsTerminal;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::config::LogFormat;
use crate::metrics;

/// Libraries that say at `info` and `debug` what only they care about. They are heard from `warn` on, unless
/// `RUST_LOG` or `log.level` name them.
const NOISY: &[&str] = &[
    "actix_server",
    "aws_config",
    "aws_credential_types",
    "aws_runtime",
    "aws_smithy_runtime",
    "aws_smithy_http_client",
    "h2",
    "hyper",
    "librdkafka",
    "mio",
    "rdkafka",
    "rusoto_core",
    "rusoto_credential",
    "rusoto_s3",
    "rusoto_signature",
    "rustls",
    "sled",
    "want",
];

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Sets another filter; there once logging has begun with a level of the configuration.
static SET: OnceLock<SetLevel> = OnceLock::new();

type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

/// Another level of the configuration from now on. `RUST_LOG` goes on winning.
pub fn set_level(level: &str) {
    if let Some(set) = SET.get() {
        set(level);
    }
}

/// Remembers how to change the filter.
fn keep<S: 'static>(handle: tracing_subscriber::reload::Handle<EnvFilter, S>, verbosity: i16, by_variable: bool) {
    if !by_variable {
        let set = move |level: &str| {
            // Fails only where there is no subscriber any more.
            let _ = handle.reload(EnvFilter::new(directives_for(level, verbosity)));
        };
        let _ = SET.set(Box::new(set));
    }
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Starts logging for the whole process; later calls change nothing. `verbosity` moves the level of the configuration
/// up or down; `RUST_LOG` wins over both.
pub fn start(level: &str, format: LogFormat, verbosity: i16, color: Color) {
    let variable = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let by_variable = variable.as_ref().and_then(|directives| match EnvFilter::try_new(directives) {
        Ok(filter) => Some(filter),
        Err(error) => {
            eprintln!("warning: RUST_LOG is not understood ({error}), log.level holds");
            None
        }
    });
    let (fixed, filter) = match by_variable {
        Some(filter) => (true, filter),
        None => (false, EnvFilter::new(directives_for(level, verbosity))),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let format = match format {
        LogFormat::Auto if stderr_is_the_journal() => LogFormat::Journald,
        other => other,
    };
    // Setting the default fails only where logging has begun already, which is as wanted.
    match format {
        LogFormat::Json => {
            let builder = builder.json().with_ansi(false).with_filter_reloading();
            let handle = builder.reload_handle();
            let set = tracing::subscriber::set_global_default(builder.finish().with(Counted));
            set.map_or_else(drop, |()| keep(handle, verbosity, fixed));
        }
        LogFormat::Journald => {
            let inner = Format::default().without_time().with_level(false).with_ansi(false);
            let builder = builder.with_ansi(false).event_format(Journal { inner }).with_filter_reloading();
            let handle = builder.reload_handle();
            let set = tracing::subscriber::set_global_default(builder.finish().with(Counted));
            set.map_or_else(drop, |()| keep(handle, verbosity, fixed));
        }
        LogFormat::Text | LogFormat::Auto => {
            let builder = builder.with_ansi(colored(color)).with_filter_reloading();
            let handle = builder.reload_handle();
            let set = tracing::subscriber::set_global_default(builder.finish().with(Counted));
            set.map_or_else(drop, |()| keep(handle, verbosity, fixed));
        }
    }
}

/// Counts what is logged, for `/metrics`.
struct Counted;

impl<S: Subscriber> tracing_subscriber::Layer<S> for Counted {
    fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let level = *event.metadata().level();
        if level <= Level::INFO {
            metrics::logged(&level.as_str().to_lowercase());
        }
    }
}

/// The filter for a level of the configuration.
fn directives_for(level: &str, verbosity: i16) -> String {
    let Some(index) = LEVELS.iter().position(|name| *name == level) else {
        // Directives of the user's own come last, where they win.
        return NOISY.iter().map(|target| format!("{target}=warn,")).collect::<String>() + level;
    };
    let index = (index as i16 + verbosity).clamp(1.min(index as i16), 5) as usize; // within LEVELS
    let cap = LEVELS[index.min(2)];
    let caps: String = NOISY.iter().map(|target| format!(",{target}={cap}")).collect();
    format!("{}{caps}", LEVELS[index])
}

fn colored(color: Color) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stderr().is_terminal() && !set("NO_COLOR") && !dumb,
    }
}

/// Whether stderr is the very stream that systemd connected to the journal (systemd.exec(5), `$JOURNAL_STREAM`); the
/// variable alone is inherited by children whose stderr goes elsewhere.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// Where the journal takes what has fields of its own (systemd.journal-fields(7)).
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// The field that is one: `journalctl MESSAGE_ID=` finds by it what happened, whatever the words for it are.
const MESSAGE_ID: &str = "MESSAGE_ID";

/// Looks for a [`MESSAGE_ID`].
#[derive(Default)]
struct FindId(Option<String>);

impl Visit for FindId {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE_ID {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// An entry in the native protocol of the journal. The text may have several lines, so that its length is in front.
fn entry(id: &str, priority: u8, text: &str) -> Vec<u8> {
    let mut entry = b"MESSAGE\n".to_vec();
    entry.extend((text.len() as u64).to_le_bytes());
    entry.extend(text.as_bytes());
    entry.extend(format!("\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=kafka-backup\n{MESSAGE_ID}={id}\n").bytes());
    entry
}

fn send_entry(entry: &[u8]) -> std::io::Result<()> {
    UnixDatagram::unbound()?.send_to(entry, JOURNAL_SOCKET).map(drop)
}

/// Lines with the priority in front, as sd-daemon(3) has it. The journal knows the time itself. What has a [`MESSAGE_ID`]
/// is sent with it, as a line has no fields.
struct Journal {
    inner: Format<Full, ()>,
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = String::new();
        self.inner.format_event(context, Writer::new(&mut text), event)?;
        // The journal takes every line for a message of its own: each needs its priority.
        let priority = priority(*event.metadata().level());
        let mut id = FindId::default();
        event.record(&mut id);
        if id.0.is_some_and(|id| send_entry(&entry(&id, priority, text.trim_end())).is_ok()) {
            return Ok(());
        }
        text.trim_end().lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

/// The priority of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("info", 0, "info,", "librdkafka=warn")]
    #[case("info", 1, "debug,", "librdkafka=warn")]
    #[case("info", 9, "trace,", "librdkafka=warn")]
    #[case("info", -1, "warn,", "librdkafka=warn")]
    #[case("info", -2, "error,", "librdkafka=error")]
    #[case("info", -9, "error,", "librdkafka=error")]
    #[case("off", 0, "off,", "librdkafka=off")]
    #[case("info,librdkafka=debug", 0, "actix_server=warn,", ",info,librdkafka=debug")]
    fn levels(#[case] level: &str, #[case] verbosity: i16, #[case] begins: &str, #[case] contains: &str) {
        let directives = directives_for(level, verbosity);
        assert!(directives.starts_with(begins) && directives.contains(contains), "{directives}");
        assert!(EnvFilter::try_new(&directives).is_ok());
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_entry_says_how_long_its_text_is() {
        let expected = b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=3\nSYSLOG_IDENTIFIER=kafka-backup\nMESSAGE_ID=0f\n";
        assert_eq!(entry("0f", 3, "a\nb"), expected);
    }

    #[test]
    fn every_line_for_the_journal_has_its_priority() {
        let sink = Sink::default();
        let writer = sink.clone();
        let inner = Format::default().without_time().with_level(false).with_ansi(false).with_target(false);
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Journal { inner })
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(job = "orders", "begins");
            tracing::error!("first\nsecond");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "<6>begins job=\"orders\"\n<3>first\n<3>second\n");
    }
}
