//! Names in the bucket: which key holds what, and what a key says. Keys are relative to the store's own prefix.
//!
//! ```text
//! normal topic          TOPIC/PARTITION/TOPIC-PARTITION-OFFSET.avro
//! compacted topic       TOPIC/INSTANCE/PARTITION/TOPIC-PARTITION-OFFSET.avro
//! a later generation    TOPIC/gen-N/PARTITION/TOPIC-PARTITION-OFFSET.avro        (N >= 2)
//! everything else       _kafka_backup/...
//! ```
//!
//! OFFSET is where the object's range starts, zero-padded to 20 digits as in Kafka's own segment names, so that a
//! listing in lexical order is a listing in numeric order. Kafka's topic names (`[a-zA-Z0-9._-]{1,249}`) contain no
//! slash and need no escaping.

/// Everything that is not records lies under this folder.
pub const SYSTEM: &str = "_kafka_backup";

/// Digits of an offset in a name: enough for any `i64`.
pub const OFFSET_DIGITS: usize = 20;

/// The folder in which the objects of one partition lie, and from which their names are made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionPath {
    /// The topic.
    pub topic: String,
    /// The folder between topic and partition: `gen-N`, or a compacted instance; `None` for generation 1.
    pub branch: Option<String>,
    /// The partition.
    pub partition: i32,
}

impl PartitionPath {
    /// The path of a partition in generation `generation` (from 1) of a normal topic.
    pub fn normal(topic: &str, generation: u32, partition: i32) -> Self {
        let branch = (generation > 1).then(|| format!("gen-{generation}"));
        Self { topic: topic.to_owned(), branch, partition }
    }

    /// The path of a partition in the folder of a compacted topic's instance.
    pub fn of_instance(topic: &str, instance: &str, partition: i32) -> Self {
        Self { topic: topic.to_owned(), branch: Some(instance.to_owned()), partition }
    }

    /// The folder, with its final slash.
    pub fn folder(&self) -> String {
        match &self.branch {
            Some(branch) => format!("{}/{branch}/{}/", self.topic, self.partition),
            None => format!("{}/{}/", self.topic, self.partition),
        }
    }

    /// The key of the object whose range starts at `offset`.
    pub fn object(&self, offset: i64) -> String {
        format!("{}{}-{}-{offset:020}.avro", self.folder(), self.topic, self.partition)
    }

    /// Where a listing must start (exclusive) to see the object at `offset` first.
    pub fn just_before(&self, offset: i64) -> String {
        // A name without its suffix sorts directly before the name: no other name of this folder begins with it.
        format!("{}{}-{}-{offset:020}", self.folder(), self.topic, self.partition)
    }
}

/// What the key of an object of records says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectKey {
    /// The partition's folder.
    pub path: PartitionPath,
    /// Where the range starts.
    pub offset: i64,
    /// How many digits the offset has in the name: 20 in ours, 10 in the older layout.
    pub digits: usize,
}

/// Digits of an offset in the older layout; more where the offset has more.
pub const OLDER_OFFSET_DIGITS: usize = 10;

/// Reads the key of an object of records, ours or of the older layout; `None` for anything else.
///
/// There is one spelling for each: a key that is read is the key that would be written, so that two keys never mean the
/// same object.
pub fn parse(key: &str) -> Option<ObjectKey> {
    let mut parts = key.split('/');
    let topic = parts.next().filter(|topic| is_topic(topic) && *topic != SYSTEM)?;
    let (a, b, c) = (parts.next()?, parts.next()?, parts.next());
    let (branch, partition_text, file) = match c {
        Some(file) if is_branch(a) => (Some(a), b, file),
        Some(_) => return None,
        None => (None, a, b),
    };
    if parts.next().is_some() {
        return None;
    }
    let partition = number(partition_text).and_then(|n| i32::try_from(n).ok())?;
    let offset = file.strip_suffix(".avro")?.strip_prefix(topic)?.strip_prefix('-')?.strip_prefix(partition_text)?;
    let (offset, digits) = padded(offset.strip_prefix('-')?)?;
    let path = PartitionPath { topic: topic.to_owned(), branch: branch.map(str::to_owned), partition };
    Some(ObjectKey { path, offset, digits })
}

/// Whether Kafka takes this as the name of a topic.
fn is_topic(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether a folder between topic and partition is `gen-N` or an instance, which may be neither `gen-*` nor a number.
fn is_branch(branch: &str) -> bool {
    let number = branch.bytes().all(|b| b.is_ascii_digit());
    !number && (!branch.starts_with("gen-") || generation_of(Some(branch)).is_some())
}

/// Whether the folder of an instance may have this name: it can be told from a generation's and from a partition's.
pub fn is_instance(name: &str) -> bool {
    !name.is_empty() && is_branch(name) && generation_of(Some(name)).is_none() && !name.contains('/')
}

/// A number without sign and without zeros in front.
fn number(text: &str) -> Option<i64> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// An offset as it is padded in a name, and to how many digits.
fn padded(text: &str) -> Option<(i64, usize)> {
    let digits = text.len();
    let ours = digits == OFFSET_DIGITS;
    let older = digits == OLDER_OFFSET_DIGITS || digits > OLDER_OFFSET_DIGITS && !text.starts_with('0');
    ((ours || older) && text.bytes().all(|b| b.is_ascii_digit())).then(|| Some((text.parse().ok()?, digits)))?
}

/// The generation number of a branch folder: `None` is 1, `gen-N` is N, an instance is none.
pub fn generation_of(branch: Option<&str>) -> Option<u32> {
    match branch {
        None => Some(1),
        Some(branch) => number(branch.strip_prefix("gen-")?).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 1),
    }
}

/// The record of generation `n` of `topic`.
pub fn generation_record(topic: &str, n: u32) -> String {
    format!("{SYSTEM}/topics/{topic}/{n}.json")
}

/// The folder of the generation records of `topic`, with its final slash.
pub fn generation_folder(topic: &str) -> String {
    format!("{SYSTEM}/topics/{topic}/")
}

/// What consumer groups have committed for generation `n` of `topic`.
pub fn groups_record(topic: &str, n: u32) -> String {
    format!("{SYSTEM}/groups/{topic}/{n}.json")
}

/// A lifecycle document of the bucket as it was until `at_ms` (milliseconds since 1970-01-01 UTC), when it was changed.
pub fn lifecycle_document(at_ms: i64, nonce: &str) -> String {
    format!("{SYSTEM}/lifecycle/{at_ms:014}-{nonce}.xml")
}

/// The folder of the head records of `topic`, with its final slash.
pub fn head_folder(topic: &str) -> String {
    format!("{SYSTEM}/heads/{topic}/")
}

/// The head record of a quiet partition.
pub fn head_record(topic: &str, partition: i32) -> String {
    format!("{}{partition}", head_folder(topic))
}

/// What retention was in force for `topic`.
pub fn retention_record(topic: &str) -> String {
    format!("{SYSTEM}/retention/{topic}.json")
}

/// What the verifications of a job have shown, by mode.
pub fn verify_record(job: &str, mode: &str) -> String {
    format!("{SYSTEM}/status/verify-{mode}-{job}.json")
}

/// How far the lists of a topic reached when they were last verified.
pub fn tails_record(topic: &str) -> String {
    format!("{SYSTEM}/status/tails/{topic}.json")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn path(topic: &str, branch: Option<&str>, partition: i32) -> PartitionPath {
        PartitionPath { topic: topic.to_owned(), branch: branch.map(str::to_owned), partition }
    }

    #[rstest]
    #[case(PartitionPath::normal("orders", 1, 0), 0, "orders/0/orders-0-00000000000000000000.avro")]
    #[case(PartitionPath::normal("a-1", 2, 12), i64::MAX, "a-1/gen-2/12/a-1-12-09223372036854775807.avro")]
    #[case(path("orders", Some("a"), 3), 41, "orders/a/3/orders-3-00000000000000000041.avro")]
    fn names(#[case] path: PartitionPath, #[case] offset: i64, #[case] key: &str) {
        assert_eq!(path.object(offset), key);
        assert_eq!(parse(key), Some(ObjectKey { path, offset, digits: 20 }));
    }

    #[rstest]
    #[case("orders/7/orders-7-0000000041.avro", 41, 10)]
    #[case("orders/7/orders-7-12345678901.avro", 12_345_678_901, 11)]
    fn older_names(#[case] key: &str, #[case] offset: i64, #[case] digits: usize) {
        assert_eq!(parse(key), Some(ObjectKey { path: path("orders", None, 7), offset, digits }));
    }

    #[rstest]
    #[case::bookkeeping("_kafka_backup/topics/orders/1.json")]
    #[case::bookkeeping_that_looks_like_records("_kafka_backup/0/_kafka_backup-0-00000000000000000000.avro")]
    #[case::empty("")]
    #[case::folder("orders/0/")]
    #[case::no_partition("orders/orders-0-00000000000000000000.avro")]
    #[case::too_deep("orders/a/b/0/orders-0-00000000000000000000.avro")]
    #[case::empty_branch("orders//0/orders-0-00000000000000000000.avro")]
    #[case::number_as_branch("orders/1/0/orders-0-00000000000000000000.avro")]
    #[case::first_generation_has_no_branch("orders/gen-1/0/orders-0-00000000000000000000.avro")]
    #[case::generation_with_zeros("orders/gen-02/0/orders-0-00000000000000000000.avro")]
    #[case::generation_with_sign("orders/gen-+2/0/orders-0-00000000000000000000.avro")]
    #[case::not_a_generation("orders/gen-x/0/orders-0-00000000000000000000.avro")]
    #[case::other_topic("orders/0/order-0-00000000000000000000.avro")]
    #[case::other_partition("orders/0/orders-1-00000000000000000000.avro")]
    #[case::partition_with_zeros("orders/00/orders-00-00000000000000000000.avro")]
    #[case::partition_too_large("orders/2147483648/orders-2147483648-00000000000000000000.avro")]
    #[case::negative_partition("orders/-1/orders--1-00000000000000000000.avro")]
    #[case::offset_too_large("orders/0/orders-0-09223372036854775808.avro")]
    #[case::offset_with_sign("orders/0/orders-0-+0000000000000000001.avro")]
    #[case::offset_too_short("orders/0/orders-0-5.avro")]
    #[case::offset_padded_otherwise("orders/0/orders-0-000000000005.avro")]
    #[case::other_suffix("orders/0/orders-0-00000000000000000000.avro.tmp")]
    #[case::not_a_topic("or ders/0/or ders-0-00000000000000000000.avro")]
    #[case::dots("../0/..-0-00000000000000000000.avro")]
    fn not_an_object(#[case] key: &str) {
        assert_eq!(parse(key), None);
    }

    #[rstest]
    #[case(None, Some(1))]
    #[case(Some("gen-2"), Some(2))]
    #[case(Some("gen-4294967295"), Some(u32::MAX))]
    #[case(Some("gen-4294967296"), None)]
    #[case(Some("gen-"), None)]
    #[case(Some("gen-1"), None)]
    #[case(Some("gen-+2"), None)]
    #[case(Some("a"), None)]
    fn generations(#[case] branch: Option<&str>, #[case] generation: Option<u32>) {
        assert_eq!(generation_of(branch), generation);
    }

    fn topic() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9._-]{1,20}".prop_filter("a topic", |name| is_topic(name) && name != SYSTEM)
    }

    proptest! {
        #[test]
        fn keys_come_back(topic in topic(), generation in 1..=u32::MAX, partition in 0..=i32::MAX, offset in 0..=i64::MAX) {
            let path = PartitionPath::normal(&topic, generation, partition);
            let key = path.object(offset);
            prop_assert!(key.starts_with(&path.folder()));
            prop_assert_eq!(generation_of(path.branch.as_deref()), Some(generation));
            prop_assert_eq!(parse(&key), Some(ObjectKey { path, offset, digits: OFFSET_DIGITS }));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(key in "[a-c0-2/.-]{0,12}|t/(gen-[0-3]+/|a/|/)?0{1,2}/t-0{1,2}-[0-9]{9,20}\\.avro") {
            if let Some(ObjectKey { path, offset, digits }) = parse(&key) {
                let written = path.object(offset);
                match digits {
                    OFFSET_DIGITS => prop_assert_eq!(written, key),
                    _ => prop_assert_eq!(written.replace(&format!("{offset:020}"), &format!("{offset:010}")), key),
                }
            }
        }

        #[test]
        fn order_of_names_is_order_of_offsets(topic in topic(), a in 0..=i64::MAX, b in 0..=i64::MAX) {
            let path = PartitionPath::normal(&topic, 1, 0);
            prop_assert_eq!(path.object(a).cmp(&path.object(b)), a.cmp(&b));
            prop_assert!(path.just_before(a) < path.object(a));
            prop_assert_eq!(path.just_before(a) < path.object(b), a <= b);
        }
    }
}
