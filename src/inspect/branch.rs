//! What `info` says of a generation or an instance.

use serde::Serialize;

use crate::model::catalog::Hole;

/// One generation or instance.
#[derive(Debug, Default, Serialize)]
pub struct BranchInfo {
    /// The number of the generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// The name of the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The source cluster, where a generation record says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The generation that is read below the forks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// Partitions that have objects.
    pub partitions: Vec<PartitionInfo>,
}

/// One partition.
#[derive(Debug, Serialize)]
pub struct PartitionInfo {
    /// Its number.
    pub partition: i32,
    /// Where the first object begins.
    pub from_offset: i64,
    /// Where the last object ends; `None` where nobody knows without reading it.
    pub next_offset: Option<i64>,
    /// Records, of the objects that say so.
    pub records: u64,
    /// Objects.
    pub objects: u64,
    /// Objects that do not say how many records they have (older layout).
    pub uncounted_objects: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// The smallest record timestamp, where objects say so.
    pub oldest: Option<String>,
    /// The largest record timestamp, where objects say so.
    pub newest: Option<String>,
    /// The two as numbers, in milliseconds.
    #[serde(skip)]
    pub timestamps: Option<(i64, i64)>,
    /// The smallest record timestamp behind all that has expired, where something has.
    #[serde(skip)]
    pub complete_from_ms: Option<i64>,
    /// Objects that begin in front of their predecessor's end.
    pub overlaps: u64,
    /// Offsets that no object has.
    pub holes: Vec<Hole>,
    /// Objects that are not what they must be.
    pub bad: Vec<String>,
}
