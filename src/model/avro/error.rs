//! What can be wrong with an object.

/// An object that cannot be read: where, and why.
///
/// The caller knows the object's key and puts it in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("avro object, byte {position}{place}: {problem}", place = Place(.record))]
pub struct DecodeError {
    /// Byte of the object: that of the block where the damage is inside one.
    pub position: u64,
    /// The record in the object, counted from 0, where the damage is inside one.
    pub record: Option<u64>,
    /// What is wrong.
    pub problem: Problem,
}

struct Place<'a>(&'a Option<u64>);

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |record| write!(f, ", record {record}"))
    }
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The first four bytes are others.
    #[error("not an Avro object container file")]
    NotAvro,
    /// The header does not end within [`super::MAX_HEADER_BYTES`].
    #[error("the header has no end within {} bytes", super::MAX_HEADER_BYTES)]
    HeaderTooLong,
    /// The header lacks `avro.schema`.
    #[error("the header has no schema")]
    NoSchema,
    /// `avro.schema` is not a schema.
    #[error("the schema in the header cannot be parsed: {0}")]
    Schema(String),
    /// The schema is not one of Kafka records, neither ours nor of the older layout.
    #[error("the schema is not that of Kafka records: {0}; it was not written by a Kafka backup")]
    ForeignSchema(String),
    /// `avro.codec` names one we do not have.
    #[error("unknown codec {0:?}; known are zstandard, snappy, deflate and null")]
    UnknownCodec(String),
    /// A key or value of the header that must be text is not UTF-8.
    #[error("{0} in the header is not UTF-8")]
    HeaderNotText(String),
    /// The object ends where more must follow.
    #[error("the object is cut off: it ends in the middle of {0}")]
    Truncated(&'static str),
    /// A block announces a number of records or a size that cannot be.
    #[error("impossible {what} in a block: {value}")]
    BlockNumber {
        /// Which number.
        what: &'static str,
        /// What it says.
        value: i64,
    },
    /// A block larger than allowed.
    #[error("a block of more than {max} bytes; a damaged size, or an object this program did not write")]
    BlockTooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// The codec refuses a block.
    #[error("{codec} cannot decompress the block: {why}")]
    Decompress {
        /// Which codec.
        codec: &'static str,
        /// What it says.
        why: String,
    },
    /// A block is not what was written.
    #[error("the checksum of the block does not match: it was changed after it was written")]
    Checksum,
    /// The sync marker of the header does not follow a block.
    #[error("no sync marker behind the block: the block is damaged, or its size is")]
    Sync,
    /// Something is left behind the last record of a block.
    #[error("{0} bytes are left behind the last record of the block")]
    Leftover(usize),
    /// The data of a block are damaged at a byte of the decompressed block.
    #[error("at byte {at} of the decompressed block: {problem}")]
    Inside {
        /// Byte of the decompressed block.
        at: usize,
        /// What is wrong there.
        problem: Box<Problem>,
    },
    /// Data end in the middle of a value.
    #[error("the data end in the middle of a value")]
    DataEnd,
    /// A number that takes more than 64 bits.
    #[error("a number of more than 64 bits")]
    NumberTooLong,
    /// A number that is not an `int`.
    #[error("{0} is not a 32-bit number")]
    NotInt(i64),
    /// A negative length.
    #[error("a length of {0} bytes")]
    Length(i64),
    /// An index into a union or an enum that is not there.
    #[error("choice {value} of {choices}")]
    NoSuchChoice {
        /// The index.
        value: i64,
        /// How many there are.
        choices: usize,
    },
    /// The topic is not UTF-8.
    #[error("the topic is not UTF-8")]
    TopicNotText,
    /// Records of more than one partition in one object.
    #[error("a record of {found} in an object of {expected}")]
    MixedPartitions {
        /// Topic and partition of the first record.
        expected: String,
        /// Topic and partition of this one.
        found: String,
    },
}

/// A problem at a byte of what is being decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Byte of the data given to the cursor.
    pub(super) at: usize,
    /// What is wrong there.
    pub(super) problem: Problem,
}
