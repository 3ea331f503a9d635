//! What a key is, and which kinds of values there are.

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Its name; a dot separates it from the table it is in.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// What holds where it is not given.
    pub default: Fallback,
    /// What it is for, in sentences.
    pub doc: &'static str,
}

/// What holds where a key is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This value.
    Is(&'static str),
    /// What these words say.
    Said(&'static str),
    /// It must be given.
    Required,
}

/// Kinds of values.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number in a range.
    Count(u64, u64),
    /// Hours, fractions allowed, from a second to this many.
    Hours(u32),
    /// Bytes, with a unit, in a range.
    Size(u64, u64),
    /// A duration, with a unit, in a range of milliseconds.
    Span(u64, u64),
    /// Bytes per second, with a unit; `"0"` is no limit.
    Rate,
    /// A list of texts.
    Texts,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A file or a folder; relative ones are relative to the file they stand in.
    Path,
    /// `address:port`, or an empty text.
    Address,
    /// A regular expression.
    Pattern,
    /// A log level, or directives of `tracing`'s `EnvFilter`.
    LogLevel,
    /// How long objects are kept: `keep`, `topic`, or a duration of at least a day.
    Retention,
    /// A moment, RFC 3339.
    Time,
    /// `TOPIC/PARTITION = OFFSET`, any number.
    Offsets,
    /// librdkafka properties.
    Properties,
    /// A name from the main file, or a table with these keys.
    Reference(&'static [Key]),
    /// Tables with these keys, by name.
    Tables(&'static [Key]),
    /// A table with these keys.
    Keys(&'static [Key]),
}
