//! A record as it is in Kafka and must be in the backup.

use std::fmt;

/// A record with everything a restore must bring back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rec {
    /// Offset in its partition.
    pub offset: i64,
    /// Milliseconds.
    pub timestamp: i64,
    /// `CREATE_TIME`, `LOG_APPEND_TIME` or `NOT_AVAILABLE`.
    pub timestamp_type: &'static str,
    /// `None` is null.
    pub key: Option<Vec<u8>>,
    /// `None` is null.
    pub value: Option<Vec<u8>>,
    /// In their order; names are bytes.
    pub headers: Vec<Header>,
}

/// Name and value of a header; a value of `None` is null.
pub type Header = (Vec<u8>, Option<Vec<u8>>);

impl Rec {
    /// A record to produce: key and value as text, a CreateTime, no headers.
    pub fn new(timestamp: i64, key: &str, value: &str) -> Self {
        let (key, value) = (Some(key.into()), Some(value.into()));
        Self { offset: -1, timestamp, timestamp_type: "CREATE_TIME", key, value, headers: Vec::new() }
    }

    /// The same record with one more header.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: Option<&[u8]>) -> Self {
        self.headers.push((name.as_ref().to_vec(), value.map(<[u8]>::to_vec)));
        self
    }

    /// The same record at offset 0: for comparing contents where offsets may differ.
    #[must_use]
    pub fn without_offset(mut self) -> Self {
        self.offset = 0;
        self
    }
}

impl fmt::Debug for Rec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |bytes: &Option<Vec<u8>>| match bytes {
            None => "null".to_owned(),
            Some(bytes) if bytes.len() > 40 => format!("<{} bytes>", bytes.len()),
            Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        };
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), show(value))).collect();
        write!(f, "{{{} {}@{} ", self.offset, self.timestamp_type, self.timestamp)?;
        write!(f, "{} -> {} [{}]}}", show(&self.key), show(&self.value), headers.join(", "))
    }
}

/// Records number `range` of a long series: a second apart since 2026-01-01, with values of `size` bytes that hardly
/// compress, each unlike any other.
pub fn numbered(range: std::ops::Range<i64>, size: usize) -> Vec<Rec> {
    let record = |i: i64| {
        let mut random = fastrand::Rng::with_seed(i as u64);
        let value = std::iter::repeat_with(|| random.alphanumeric()).take(size);
        let value: String = format!("{i} ").chars().chain(value).take(size).collect();
        Rec::new(1_767_225_600_000 + i * 1000, &format!("key-{i}"), &value)
    };
    range.map(record).collect()
}

/// Panics at the first difference, naming it; whole lists would bury it.
pub fn assert_same(what: &str, expected: &[Rec], actual: &[Rec]) {
    for (i, (want, have)) in expected.iter().zip(actual).enumerate() {
        assert!(want == have, "{what}: record {i} differs:\n  expected {want:?}\n  found    {have:?}");
    }
    if let Some(extra) = actual.get(expected.len()) {
        panic!("{what}: {} records too many, the first is {extra:?}", actual.len() - expected.len());
    }
    if let Some(missing) = expected.get(actual.len()) {
        panic!("{what}: {} records missing, the first is {missing:?}", expected.len() - actual.len());
    }
}
