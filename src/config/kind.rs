//! What a value may be: types, units and ranges, each with the text of its refusal.

use std::net::SocketAddr;
use std::time::Duration;

use config::{Value, ValueKind};
use regex::Regex;

use super::Retention;
use super::finding::Complaint;
use super::key::Kind;
use crate::clock::{millis, parse_rfc3339};
use crate::model::lifecycle;

const KIB: u64 = 1 << 10;

impl Kind {
    /// How a manual names the kind.
    pub fn words(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Count(min, u64::MAX) => format!("whole number from {min}"),
            Self::Count(min, max) => format!("whole number from {min} to {max}"),
            Self::Hours(max) => format!("hours, with or without a fraction, up to {max}"),
            Self::Size(min, u64::MAX) => format!("size from {}", size_text(*min)),
            Self::Size(min, max) => format!("size from {} to {}", size_text(*min), size_text(*max)),
            Self::Span(min, max) => format!("duration from {} to {}", span_text(*min), span_text(*max)),
            Self::Rate => "size per second, or \"0\"".to_owned(),
            Self::Texts => "list of texts".to_owned(),
            Self::OneOf(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" or "),
            Self::Path => "path".to_owned(),
            Self::Address => "address:port".to_owned(),
            Self::Pattern => "regular expression".to_owned(),
            Self::LogLevel => "log level".to_owned(),
            Self::Retention => "\"keep\", \"topic\", or a duration from 1d".to_owned(),
            Self::Time => "time (RFC 3339)".to_owned(),
            Self::Offsets => "table TOPIC/PARTITION = offset".to_owned(),
            Self::Properties => "table of librdkafka properties".to_owned(),
            Self::Reference(_) => "name, or a table".to_owned(),
            Self::Tables(_) => "tables by name".to_owned(),
            Self::Keys(_) => "table".to_owned(),
        }
    }

    /// Whether `value` is of this kind. Tables are checked key by key elsewhere.
    pub(super) fn check(&self, value: &Value) -> Result<(), Complaint> {
        match self {
            Self::Text | Self::Path => text(value, "\"...\"").map(drop),
            Self::Flag => match value.kind {
                ValueKind::Boolean(_) => Ok(()),
                _ => Err(wrong_type(value, "true or false", "write true or false, without quotes")),
            },
            Self::Count(min, max) => count(value).and_then(|number| within(number, *min, *max, |n| n.to_string())),
            Self::Hours(max) => hours(value, *max).map(drop),
            Self::Size(min, max) => size(value).and_then(|bytes| within(bytes, *min, *max, size_text)),
            Self::Span(min, max) => {
                let span = span(value)?;
                let range = Duration::from_millis(*min)..=Duration::from_millis(*max);
                if range.contains(&span) { Ok(()) } else { Err(outside(value, span_text(*min), span_text(*max))) }
            }
            Self::Rate => rate(value).map(drop),
            Self::Texts => texts(value).map(drop),
            Self::OneOf(words) => one_of(value, words),
            Self::Address => address(value).map(drop),
            Self::Pattern => pattern(value).map(drop),
            Self::LogLevel => log_level(value),
            Self::Retention => retention(value).map(drop),
            Self::Time => time_ms(value).map(drop),
            Self::Offsets => offsets(value).map(drop),
            Self::Properties | Self::Tables(_) | Self::Keys(_) => match value.kind {
                ValueKind::Table(_) => Ok(()),
                _ => Err(wrong_type(value, "a table", "write it as a [table]")),
            },
            Self::Reference(_) => match value.kind {
                ValueKind::Table(_) | ValueKind::String(_) => Ok(()),
                _ => Err(wrong_type(value, "a name or a table", "name a table of the main file")),
            },
        }
    }

    /// A default, written in [`super::keys`] as plain text, or what an environment variable holds, as a value of this
    /// kind; text that is none stays what it is, to be refused.
    pub(super) fn typed(&self, text: &str) -> ValueKind {
        match self {
            Self::Flag => text.parse().map_or_else(|_| text.into(), ValueKind::Boolean),
            Self::Count(..) | Self::Hours(_) => text.parse::<i64>().map_or_else(|_| text.into(), ValueKind::I64),
            _ => text.into(),
        }
    }
}

fn wrong_type(value: &Value, wanted: &str, remedy: &str) -> Complaint {
    let found = match &value.kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a whole number",
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "a text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    };
    Complaint::new(format!("must be {wanted}, not {found}"), remedy)
}

fn outside(value: &Value, min: String, max: String) -> Complaint {
    let what = format!("{} is not within {min} and {max}", value.kind);
    Complaint::new(what, format!("choose a value from {min} to {max}"))
}

fn within(number: u64, min: u64, max: u64, text: fn(u64) -> String) -> Result<(), Complaint> {
    if number < min {
        let what = format!("{} is less than {}", text(number), text(min));
        return Err(Complaint::new(what, format!("choose at least {}", text(min))));
    }
    if number > max {
        let what = format!("{} is more than {}", text(number), text(max));
        return Err(Complaint::new(what, format!("choose at most {}", text(max))));
    }
    Ok(())
}

/// A text. `example` is shown to those who wrote something else.
pub(super) fn text<'v>(value: &'v Value, example: &str) -> Result<&'v str, Complaint> {
    match &value.kind {
        ValueKind::String(text) => Ok(text),
        _ => Err(wrong_type(value, "a text", &format!("write it in quotes: {example}"))),
    }
}

/// A number with its unit, not yet read; bare numbers are refused.
fn with_unit<'v>(value: &'v Value, example: &str) -> Result<&'v str, Complaint> {
    match &value.kind {
        ValueKind::I64(number) => Err(no_unit(number, example)),
        ValueKind::Float(number) => Err(no_unit(number, example)),
        _ => match text(value, example)?.trim() {
            digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Err(no_unit(digits, example))
            }
            text => Ok(text),
        },
    }
}

fn no_unit(number: impl std::fmt::Display, example: &str) -> Complaint {
    Complaint::new(format!("{number} has no unit"), format!("write the number with its unit, for example {example}"))
}

/// `true` or `false`.
pub(super) fn flag(value: &Value) -> Result<bool, Complaint> {
    match value.kind {
        ValueKind::Boolean(flag) => Ok(flag),
        _ => Err(wrong_type(value, "true or false", "write true or false, without quotes")),
    }
}

/// A whole number that is not negative.
pub(super) fn count(value: &Value) -> Result<u64, Complaint> {
    match value.kind {
        ValueKind::I64(number) => u64::try_from(number)
            .map_err(|_| Complaint::new(format!("{number} is negative"), "choose a positive number")),
        _ => Err(wrong_type(value, "a whole number", "write digits, without quotes")),
    }
}

/// Hours as a plain number, because the name of the key says the unit: from a second to `max` hours.
pub(super) fn hours(value: &Value, max: u32) -> Result<Duration, Complaint> {
    let hours = match value.kind {
        ValueKind::I64(number) => number as f64,
        ValueKind::Float(number) => number,
        _ => return Err(wrong_type(value, "a number of hours", "write for example 24 or 0.5, without quotes")),
    };
    let seconds = hours * 3600.0;
    if (1.0..=f64::from(max) * 3600.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    let what = format!("{} is not within a second and {max} hours", value.kind);
    Err(Complaint::new(what, "choose a number of hours in between; 0.001 is 3.6 seconds"))
}

/// Bytes: `64KiB 64MiB 1GiB 64MB`.
pub(super) fn size(value: &Value) -> Result<u64, Complaint> {
    const EXAMPLE: &str = "\"64MiB\"";
    size_of(with_unit(value, EXAMPLE)?).ok_or_else(|| {
        let remedy = format!("write a number with one of {SIZE_UNITS}, for example {EXAMPLE}");
        Complaint::new(format!("{:?} is not a size", value.kind.to_string()), remedy)
    })
}

const SIZE_UNITS: &str = "B, KB, MB, GB, TB, KiB, MiB, GiB, TiB";

fn size_of(text: &str) -> Option<u64> {
    text.parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64())
}

/// A duration: `500ms 30s 10m 1h 7d`.
pub(super) fn span(value: &Value) -> Result<Duration, Complaint> {
    const EXAMPLE: &str = "\"10m\"";
    let text = with_unit(value, EXAMPLE)?;
    humantime::parse_duration(text).map_err(|_| {
        let remedy = format!("write a number with one of ms, s, m, h, d, for example {EXAMPLE}");
        Complaint::new(format!("{text:?} is not a duration"), remedy)
    })
}

/// Bytes per second; `None` is no limit.
pub(super) fn rate(value: &Value) -> Result<Option<u64>, Complaint> {
    const EXAMPLE: &str = "\"50MiB/s\", or \"0\" for no limit";
    if matches!(&value.kind, ValueKind::String(text) if text.trim() == "0") {
        return Ok(None);
    }
    let text = with_unit(value, EXAMPLE)?;
    match size_of(text.strip_suffix("/s").unwrap_or(text).trim_end()) {
        Some(0) => Err(Complaint::new(format!("{text:?} would stop everything"), "write \"0\" for no limit")),
        Some(bytes) => Ok(Some(bytes)),
        None => Err(Complaint::new(format!("{text:?} is not a rate"), format!("write for example {EXAMPLE}"))),
    }
}

/// A list of texts.
pub(super) fn texts(value: &Value) -> Result<Vec<(String, &Value)>, Complaint> {
    const REMEDY: &str = "write a list of texts: [\"...\", \"...\"]";
    let ValueKind::Array(array) = &value.kind else { return Err(wrong_type(value, "a list", REMEDY)) };
    let element = |element| match text(element, "\"...\"") {
        Ok(text) => Ok((text.to_owned(), element)),
        Err(_) => Err(wrong_type(element, "a list of texts", REMEDY)),
    };
    array.iter().map(element).collect()
}

fn one_of(value: &Value, words: &[&str]) -> Result<(), Complaint> {
    let text = text(value, &format!("{:?}", words[0]))?;
    if words.contains(&text) {
        return Ok(());
    }
    let list = words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    Err(Complaint::new(format!("{text:?} is not a choice"), format!("choose one of {list}")))
}

/// Where to listen; `None` is nowhere.
pub(super) fn address(value: &Value) -> Result<Option<SocketAddr>, Complaint> {
    match text(value, "\"127.0.0.1:9748\"")? {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            let what = format!("{text:?} is not an address and a port");
            Complaint::new(what, "write for example \"127.0.0.1:9748\" or \"[::]:9748\"; \"\" switches it off")
        }),
    }
}

/// A regular expression.
pub(super) fn pattern(value: &Value) -> Result<Regex, Complaint> {
    let text = text(value, "\"^...$\"")?;
    if text.is_empty() {
        return Err(Complaint::new("is empty, which would match every topic", "remove the key, or write \".*\""));
    }
    Regex::new(text).map_err(|error| {
        // The last line of the parser's message is the reason, those before it draw the place.
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Complaint::new(format!("not a regular expression: {reason}"), "see https://docs.rs/regex/latest/regex/#syntax")
    })
}

fn log_level(value: &Value) -> Result<(), Complaint> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const REMEDY: &str = "choose one of off, error, warn, info, debug, trace";
    let text = text(value, "\"info\"")?;
    // EnvFilter takes a lone unknown word for the name of a module, which would silence everything else.
    let refused = if text.contains(['=', ',']) {
        tracing_subscriber::EnvFilter::try_new(text).is_err()
    } else {
        !LEVELS.contains(&text)
    };
    if refused { Err(Complaint::new(format!("{text:?} is not a log level"), REMEDY)) } else { Ok(()) }
}

/// How long objects are kept; durations in whole days, rounded up.
pub(super) fn retention(value: &Value) -> Result<Retention, Complaint> {
    const EXAMPLE: &str = "\"keep\", \"topic\" or \"30d\"";
    let remedy = || format!("write for example {EXAMPLE}");
    match with_unit(value, EXAMPLE)? {
        "keep" => return Ok(Retention::Keep),
        "topic" => return Ok(Retention::Topic),
        _ => {}
    }
    let span = span(value)
        .map_err(|_| Complaint::new(format!("{:?} is not a retention", value.kind.to_string()), remedy()))?;
    let days = lifecycle::whole_days(millis(span));
    if span < Duration::from_secs(86_400) {
        let what = format!("{} is less than a day, the shortest time a store knows", value.kind);
        return Err(Complaint::new(what, "choose at least \"1d\""));
    }
    if days > lifecycle::MAX_DAYS {
        let what = format!("{} is longer than a store can say", value.kind);
        return Err(Complaint::new(what, "write \"keep\" to keep everything"));
    }
    Ok(Retention::Days(days))
}

/// A moment, in milliseconds since 1970-01-01 UTC.
pub(super) fn time_ms(value: &Value) -> Result<i64, Complaint> {
    const EXAMPLE: &str = "\"2026-11-01T00:00:00Z\"";
    let text = text(value, EXAMPLE)?;
    parse_rfc3339(text).ok_or_else(|| {
        let what = format!("{text:?} is not a date and time with its offset from UTC");
        Complaint::new(what, format!("write for example {EXAMPLE}"))
    })
}

/// An offset of a partition of a topic.
pub(super) type PartitionOffset = ((String, i32), i64);

/// Offsets by topic and partition.
pub(super) fn offsets(value: &Value) -> Result<Vec<PartitionOffset>, Complaint> {
    const REMEDY: &str = "write for example {\"orders/0\" = 100}";
    let ValueKind::Table(table) = &value.kind else { return Err(wrong_type(value, "a table", REMEDY)) };
    let entry = |(key, value): (&String, &Value)| Ok((partition(key)?, count(value)?.min(i64::MAX as u64) as i64));
    table.iter().map(entry).collect()
}

/// `TOPIC/PARTITION`.
pub(super) fn partition(text: &str) -> Result<(String, i32), Complaint> {
    let parsed = text.rsplit_once('/').and_then(|(topic, number)| Some((topic, number.parse::<i32>().ok()?)));
    match parsed {
        Some((topic, number)) if number >= 0 && topic_name(topic).is_ok() => Ok((topic.to_owned(), number)),
        _ => Err(Complaint::new(
            format!("{text:?} is not a partition"),
            "write TOPIC/PARTITION, for example \"orders/0\"",
        )),
    }
}

/// Whether Kafka takes `name` as that of a topic.
pub(super) fn topic_name(name: &str) -> Result<(), Complaint> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(allowed) {
        let what = format!("{name:?} is not a topic name");
        let remedy = "topic names are 1 to 249 of a-z A-Z 0-9 . _ - (use topics_regex for patterns)";
        return Err(Complaint::new(what, remedy));
    }
    if name == crate::model::key::SYSTEM {
        let what = format!("{name:?} is where the backup keeps its own records");
        return Err(Complaint::new(what, "this topic cannot be backed up under its own name: leave it out"));
    }
    Ok(())
}

/// A number of bytes with the largest unit that leaves no rest.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [("TiB", KIB.pow(4)), ("GiB", KIB.pow(3)), ("MiB", KIB.pow(2)), ("KiB", KIB)];
    match units.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

fn span_text(ms: u64) -> String {
    match ms / 1_000 {
        0 => format!("{ms}ms"),
        s if s > 0 && s.is_multiple_of(86_400) => format!("{}d", s / 86_400),
        s if s > 0 && s.is_multiple_of(3_600) => format!("{}h", s / 3_600),
        s if s > 0 && s.is_multiple_of(60) => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn refusal(kind: Kind, value: impl Into<ValueKind>) -> String {
        match kind.check(&Value::new(None, value)) {
            Ok(()) => "ok".to_owned(),
            Err(complaint) => format!("{} | {}", complaint.what, complaint.remedy),
        }
    }

    const SIZE: Kind = Kind::Size(64 << 10, 1 << 30);
    const SPAN: Kind = Kind::Span(1_000, 86_400_000);

    #[rstest]
    #[case(SIZE, "64KiB", "ok")]
    #[case(SIZE, "1GiB", "ok")]
    #[case(SIZE, "1.5MiB", "ok")]
    #[case(SIZE, "64MB", "ok")]
    #[case(SIZE, "64", "64 has no unit | write the number with its unit, for example \"64MiB\"")]
    #[case(SIZE, "63KiB", "63KiB is less than 64KiB | choose at least 64KiB")]
    #[case(SIZE, "1025MiB", "1025MiB is more than 1GiB | choose at most 1GiB")]
    #[case(SIZE, "99999999999999999999EiB", "18446744073709551615B is more than 1GiB | choose at most 1GiB")]
    #[case(
        SIZE,
        "many",
        "\"many\" is not a size | write a number with one of B, KB, MB, GB, TB, KiB, MiB, GiB, TiB, for example \"64MiB\""
    )]
    #[case(
        SIZE,
        "-1MiB",
        "\"-1MiB\" is not a size | write a number with one of B, KB, MB, GB, TB, KiB, MiB, GiB, TiB, for example \"64MiB\""
    )]
    #[case(SPAN, "500ms", "500ms is not within 1s and 1d | choose a value from 1s to 1d")]
    #[case(SPAN, "10m", "ok")]
    #[case(SPAN, "1h 30m", "ok")]
    #[case(SPAN, "600", "600 has no unit | write the number with its unit, for example \"10m\"")]
    #[case(SPAN, "soon", "\"soon\" is not a duration | write a number with one of ms, s, m, h, d, for example \"10m\"")]
    #[case(Kind::Rate, "0", "ok")]
    #[case(Kind::Rate, "50MiB", "ok")]
    #[case(Kind::Rate, "50MiB/s", "ok")]
    #[case(
        Kind::Rate,
        "50",
        "50 has no unit | write the number with its unit, for example \"50MiB/s\", or \"0\" for no limit"
    )]
    #[case(Kind::Rate, "0B/s", "\"0B/s\" would stop everything | write \"0\" for no limit")]
    #[case(Kind::Rate, "fast", "\"fast\" is not a rate | write for example \"50MiB/s\", or \"0\" for no limit")]
    #[case(Kind::OneOf(&["a", "b"]), "c", "\"c\" is not a choice | choose one of \"a\", \"b\"")]
    #[case(Kind::Address, "", "ok")]
    #[case(Kind::Address, "[::1]:9748", "ok")]
    #[case(
        Kind::Address,
        "localhost:9748",
        "\"localhost:9748\" is not an address and a port | write for example \"127.0.0.1:9748\" or \"[::]:9748\"; \"\" switches it off"
    )]
    #[case(
        Kind::Pattern,
        "^a(b$",
        "not a regular expression: unclosed group | see https://docs.rs/regex/latest/regex/#syntax"
    )]
    #[case(Kind::Pattern, "", "is empty, which would match every topic | remove the key, or write \".*\"")]
    #[case(Kind::LogLevel, "info", "ok")]
    #[case(Kind::LogLevel, "info,kafka_backup::storage=trace", "ok")]
    #[case(Kind::LogLevel, "inof", "\"inof\" is not a log level | choose one of off, error, warn, info, debug, trace")]
    #[case(Kind::Time, "2026-11-01T00:00:00Z", "ok")]
    #[case(
        Kind::Time,
        "2026-11-01T00:00:00",
        "\"2026-11-01T00:00:00\" is not a date and time with its offset from UTC | write for example \"2026-11-01T00:00:00Z\""
    )]
    #[case(Kind::Flag, "true", "must be true or false, not a text | write true or false, without quotes")]
    #[case(Kind::Count(1, 128), "4", "must be a whole number, not a text | write digits, without quotes")]
    #[case(Kind::Texts, "orders", "must be a list, not a text | write a list of texts: [\"...\", \"...\"]")]
    fn texts_are_judged(#[case] kind: Kind, #[case] value: &str, #[case] expected: &str) {
        assert_eq!(refusal(kind, value), expected);
    }

    #[rstest]
    #[case(SIZE, 64, "64 has no unit | write the number with its unit, for example \"64MiB\"")]
    #[case(SPAN, 600, "600 has no unit | write the number with its unit, for example \"10m\"")]
    #[case(
        Kind::Rate,
        0,
        "0 has no unit | write the number with its unit, for example \"50MiB/s\", or \"0\" for no limit"
    )]
    #[case(
        Kind::Rate,
        5,
        "5 has no unit | write the number with its unit, for example \"50MiB/s\", or \"0\" for no limit"
    )]
    #[case(Kind::Count(1, 128), 0, "0 is less than 1 | choose at least 1")]
    #[case(Kind::Count(1, 128), 129, "129 is more than 128 | choose at most 128")]
    #[case(Kind::Count(1, 128), -1, "-1 is negative | choose a positive number")]
    #[case(Kind::Text, 5, "must be a text, not a whole number | write it in quotes: \"...\"")]
    fn numbers_are_judged(#[case] kind: Kind, #[case] value: i64, #[case] expected: &str) {
        assert_eq!(refusal(kind, value), expected);
    }

    #[rstest]
    #[case("orders", true)]
    #[case("a.b_c-D9", true)]
    #[case("", false)]
    #[case(".", false)]
    #[case("..", false)]
    #[case("a/b", false)]
    #[case("a b", false)]
    #[case("ä", false)]
    #[case("_kafka_backup", false)]
    fn topic_names(#[case] name: &str, #[case] valid: bool) {
        assert_eq!(topic_name(name).is_ok(), valid);
        assert!(topic_name(&"x".repeat(249)).is_ok());
        assert!(topic_name(&"x".repeat(250)).is_err());
    }

    #[test]
    fn sizes_and_rates_are_bytes() {
        assert_eq!(size_of("64KiB"), Some(65_536));
        assert_eq!(size_of("64 MB"), Some(64_000_000));
        assert_eq!(rate(&Value::new(None, "50MiB/s")), Ok(Some(50 << 20)));
        assert_eq!(rate(&Value::new(None, "0")), Ok(None));
        assert_eq!(size_text(64 << 20), "64MiB");
        assert_eq!(size_text(64_000_001), "64000001B");
    }
}
