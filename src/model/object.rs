//! What is known of one object, in its metadata (`x-amz-meta-*`) and in its Avro header alike.

use std::collections::BTreeMap;

/// The version of the object layout that is written.
pub const FORMAT_VERSION: u32 = 1;

/// Free metadata of a stored object: lower-case names without the `x-amz-meta-` prefix.
pub type Metadata = BTreeMap<String, String>;

/// The prefix of our keys in an Avro header, which shares its name space with `avro.*`.
pub const AVRO_PREFIX: &str = "kafka-backup.";

/// What is known of one object.
///
/// `range_start <= first_offset <= last_offset < next_offset`; a gap link has zero records and neither first nor last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The generation's uuid: one root for all writers of a topic.
    pub generation: String,
    /// The job that wrote it.
    pub job: String,
    /// The topic.
    pub topic: String,
    /// Kafka's topic id (base64 as Kafka prints it), empty when the broker does not tell.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// Where the range starts: the object's name.
    pub range_start: i64,
    /// Where the range ends (exclusive): the next object's name.
    pub next_offset: i64,
    /// The records' first and last offset; `None` for a gap link.
    pub offsets: Option<(i64, i64)>,
    /// Number of records.
    pub records: u64,
    /// Smallest and largest record timestamp in milliseconds, -1 for a record that has none; `None` without records.
    pub timestamps: Option<(i64, i64)>,
    /// Key, value and headers of the largest record, in bytes.
    pub max_record_bytes: u64,
    /// Records without a key, which a compacted topic does not take; `None` where the object does not say.
    pub null_keys: Option<u64>,
    /// Leader epoch of the last record, -1 when unknown.
    pub leader_epoch: i32,
    /// Hash of the whole object in hex; not in the Avro header, which it covers. Empty when not known.
    pub sha256: String,
    /// Names this very attempt to write: a lost acknowledgement is told from another writer by it.
    pub nonce: String,
    /// The end of the partition was seen directly behind the last record.
    pub at_eof: bool,
    /// The run of a compacted instance; empty for normal topics.
    pub run: String,
    /// Why the records of a gap link are missing; empty for an object with records.
    pub gap: String,
}

/// Metadata that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("object metadata: {key}: {why}")]
pub struct MetaError {
    /// The metadata key.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl ObjectMeta {
    /// Whether this is a gap link.
    pub fn is_gap(&self) -> bool {
        self.records == 0
    }

    /// As stored: metadata keys without prefix.
    pub fn to_metadata(&self) -> Metadata {
        let mut map = Metadata::new();
        let mut put = |key: &str, value: String| {
            if !value.is_empty() {
                map.insert(key.to_owned(), value);
            }
        };
        put("format-version", FORMAT_VERSION.to_string());
        put("generation", self.generation.clone());
        put("job", self.job.clone());
        put("topic", self.topic.clone());
        put("topic-id", self.topic_id.clone());
        put("partition", self.partition.to_string());
        put("range-start", self.range_start.to_string());
        put("next-offset", self.next_offset.to_string());
        if let Some((first, last)) = self.offsets {
            put("first-offset", first.to_string());
            put("last-offset", last.to_string());
        }
        put("records", self.records.to_string());
        if let Some((min, max)) = self.timestamps {
            put("min-timestamp", min.to_string());
            put("max-timestamp", max.to_string());
        }
        put("max-record-bytes", self.max_record_bytes.to_string());
        put("null-keys", self.null_keys.map(|count| count.to_string()).unwrap_or_default());
        put("leader-epoch", self.leader_epoch.to_string());
        put("sha256", self.sha256.clone());
        put("nonce", self.nonce.clone());
        put("at-eof", self.at_eof.to_string());
        put("run", self.run.clone());
        put("gap", self.gap.clone());
        map
    }

    /// The same from stored metadata.
    pub fn from_metadata(map: &Metadata) -> Result<Self, MetaError> {
        let text = |key: &'static str| map.get(key).cloned().unwrap_or_default();
        let need = |key: &'static str| {
            map.get(key).map(String::as_str).ok_or_else(|| MetaError { key, why: "missing".to_owned() })
        };
        fn number<T: std::str::FromStr>(key: &'static str, text: &str) -> Result<T, MetaError> {
            text.parse().map_err(|_| MetaError { key, why: format!("not a number in range: {text:?}") })
        }
        let pair = |a: &'static str, b: &'static str| match (map.get(a), map.get(b)) {
            (Some(x), Some(y)) => Ok(Some((number(a, x)?, number(b, y)?))),
            (None, None) => Ok(None),
            (None, _) => Err(MetaError { key: a, why: "missing".to_owned() }),
            (_, None) => Err(MetaError { key: b, why: "missing".to_owned() }),
        };
        let version: u32 = number("format-version", need("format-version")?)?;
        if version == 0 {
            return Err(MetaError { key: "format-version", why: "there is no version 0".to_owned() });
        }
        if version > FORMAT_VERSION {
            let why = format!("version {version} is newer than this program understands ({FORMAT_VERSION})");
            return Err(MetaError { key: "format-version", why });
        }
        let meta = Self {
            generation: need("generation")?.to_owned(),
            job: text("job"),
            topic: need("topic")?.to_owned(),
            topic_id: text("topic-id"),
            partition: number("partition", need("partition")?)?,
            range_start: number("range-start", need("range-start")?)?,
            next_offset: number("next-offset", need("next-offset")?)?,
            offsets: pair("first-offset", "last-offset")?,
            records: number("records", need("records")?)?,
            timestamps: pair("min-timestamp", "max-timestamp")?,
            max_record_bytes: map.get("max-record-bytes").map_or(Ok(0), |t| number("max-record-bytes", t))?,
            null_keys: map.get("null-keys").map(|t| number("null-keys", t)).transpose()?,
            leader_epoch: map.get("leader-epoch").map_or(Ok(-1), |t| number("leader-epoch", t))?,
            sha256: text("sha256"),
            nonce: text("nonce"),
            at_eof: map.get("at-eof").map_or(Ok(false), |t| {
                t.parse().map_err(|_| MetaError { key: "at-eof", why: format!("neither true nor false: {t:?}") })
            })?,
            run: text("run"),
            gap: text("gap"),
        };
        meta.check()
    }

    /// Whether the facts can be true of one object. Whatever decides by them relies on it.
    fn check(self) -> Result<Self, MetaError> {
        let wrong = |key, why: &str| Err(MetaError { key, why: why.to_owned() });
        if self.partition < 0 {
            return wrong("partition", "negative");
        }
        if self.range_start < 0 || self.next_offset <= self.range_start {
            return wrong("next-offset", "does not lie behind range-start");
        }
        match self.offsets {
            None if self.records > 0 => return wrong("first-offset", "missing in an object with records"),
            Some(_) if self.records == 0 => return wrong("first-offset", "present in an object without records"),
            Some((first, last)) if !(self.range_start <= first && first <= last && last < self.next_offset) => {
                return wrong("first-offset", "does not lie in the object's range");
            }
            // The range lies in 0..=i64::MAX, so the difference does not overflow.
            Some((first, last)) if self.records - 1 > (last - first) as u64 => {
                return wrong("records", "more than there are offsets from first to last");
            }
            _ => {}
        }
        if self.null_keys.is_some_and(|count| count > self.records) {
            return wrong("null-keys", "more than there are records");
        }
        match self.timestamps {
            Some((min, max)) if min > max => wrong("min-timestamp", "larger than max-timestamp"),
            _ if self.records > 0 && !self.gap.is_empty() => wrong("gap", "present in an object with records"),
            _ => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn object() -> ObjectMeta {
        ObjectMeta {
            generation: "0f8f".to_owned(),
            job: "orders".to_owned(),
            topic: "orders".to_owned(),
            topic_id: "AAAA".to_owned(),
            partition: 3,
            range_start: 40,
            next_offset: 60,
            offsets: Some((41, 50)),
            records: 10,
            timestamps: Some((-1, 1_700_000_000_000)),
            max_record_bytes: 900,
            null_keys: Some(2),
            leader_epoch: 5,
            sha256: "ab".to_owned(),
            nonce: "n".to_owned(),
            at_eof: true,
            run: "r".to_owned(),
            gap: String::new(),
        }
    }

    fn gap() -> ObjectMeta {
        let (offsets, timestamps, null_keys, gap) = (None, None, None, "retention".to_owned());
        ObjectMeta { offsets, timestamps, records: 0, null_keys, gap, run: String::new(), at_eof: false, ..object() }
    }

    #[test]
    fn stored_names_and_values() {
        let stored: Vec<String> = object().to_metadata().iter().map(|(key, value)| format!("{key}={value}")).collect();
        let expected = "at-eof=true first-offset=41 format-version=1 generation=0f8f job=orders last-offset=50 \
                        leader-epoch=5 max-record-bytes=900 max-timestamp=1700000000000 min-timestamp=-1 \
                        next-offset=60 nonce=n null-keys=2 partition=3 range-start=40 records=10 run=r sha256=ab topic=orders \
                        topic-id=AAAA";
        assert_eq!(stored.join(" "), expected);
    }

    #[test]
    fn a_gap_link() {
        let stored = gap().to_metadata();
        assert!(!stored.contains_key("first-offset") && stored["gap"] == "retention");
        let read = ObjectMeta::from_metadata(&stored).expect("metadata");
        assert!(read.is_gap());
        assert_eq!(read, gap());
    }

    #[test]
    fn what_may_be_missing() {
        let mut stored = object().to_metadata();
        for key in
            ["job", "topic-id", "max-record-bytes", "null-keys", "leader-epoch", "sha256", "nonce", "at-eof", "run"]
        {
            stored.remove(key);
        }
        let read = ObjectMeta::from_metadata(&stored).expect("metadata");
        assert_eq!((read.leader_epoch, read.max_record_bytes, read.null_keys, read.at_eof), (-1, 0, None, false));
    }

    #[rstest]
    #[case::no_version("format-version", None)]
    #[case::newer_version("format-version", Some("2"))]
    #[case::no_version_ever("format-version", Some("0"))]
    #[case::no_generation("generation", None)]
    #[case::no_topic("topic", None)]
    #[case::no_partition("partition", None)]
    #[case::negative_partition("partition", Some("-1"))]
    #[case::partition_is_no_number("partition", Some("x"))]
    #[case::no_range_start("range-start", None)]
    #[case::negative_range_start("range-start", Some("-1"))]
    #[case::first_before_the_range("range-start", Some("42"))]
    #[case::empty_range("next-offset", Some("40"))]
    #[case::last_behind_the_range("next-offset", Some("50"))]
    #[case::offset_too_large("next-offset", Some("9223372036854775808"))]
    #[case::no_first("first-offset", None)]
    #[case::no_last("last-offset", None)]
    #[case::last_before_first("last-offset", Some("40"))]
    #[case::no_records_but_offsets("records", Some("0"))]
    #[case::more_records_than_offsets("records", Some("11"))]
    #[case::more_null_keys_than_records("null-keys", Some("11"))]
    #[case::null_keys_are_no_number("null-keys", Some("some"))]
    #[case::negative_records("records", Some("-1"))]
    #[case::no_max_timestamp("max-timestamp", None)]
    #[case::timestamps_the_wrong_way("max-timestamp", Some("-2"))]
    #[case::eof_neither_way("at-eof", Some("yes"))]
    #[case::gap_with_records("gap", Some("retention"))]
    fn refused(#[case] key: &str, #[case] value: Option<&str>) {
        let mut stored = object().to_metadata();
        match value {
            Some(value) => stored.insert(key.to_owned(), value.to_owned()),
            None => stored.remove(key),
        };
        let error = ObjectMeta::from_metadata(&stored).expect_err("refused");
        assert!(error.to_string().starts_with("object metadata: "), "{error}");
    }

    proptest! {
        #[test]
        fn comes_back(
            (range_start, first, last, next_offset) in prop::collection::btree_set(0..i64::MAX, 4).prop_map(|offsets| {
                let offsets: Vec<i64> = offsets.into_iter().collect();
                (offsets[0], offsets[1], offsets[2], offsets[3])
            }),
            min: i64,
            max: i64,
            job: String,
            leader_epoch: i32,
            at_eof: bool,
        ) {
            let timestamps = Some((min.min(max), min.max(max)));
            let offsets = Some((first, last));
            let meta = ObjectMeta {
                range_start, next_offset, offsets, records: 2, timestamps, job, leader_epoch, at_eof, ..object()
            };
            prop_assert_eq!(ObjectMeta::from_metadata(&meta.to_metadata()), Ok(meta));
        }
    }
}
