//! The object that is being filled: its blocks, in memory and in the spool, and the facts that go into its metadata.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::lane::Lane;
use super::spool::{Spool, SpoolError, SpoolFile};
use crate::clock::boot_time;
use crate::model::avro::write_header;
use crate::model::batch::Record;
use crate::model::object::{Metadata, ObjectMeta};
use crate::storage::payload::sha256;
use crate::storage::{Body, Piece};

/// Bytes of a sync marker.
type Sync = [u8; 16];

/// An object without an end yet.
#[derive(Debug)]
pub struct OpenObject {
    /// Stands between the blocks and names this attempt: random.
    nonce: uuid::Uuid,
    range_start: i64,
    first: Option<i64>,
    last: i64,
    records: u64,
    timestamps: Option<(i64, i64)>,
    max_record_bytes: u64,
    null_keys: u64,
    leader_epoch: i32,
    blocks: Vec<Bytes>,
    blocks_bytes: u64,
    spooled: Option<Arc<SpoolFile>>,
    /// By a clock that goes on while the machine sleeps.
    born: Duration,
    fetched: Instant,
}

/// A closed object, ready for the uploader.
#[derive(Debug)]
pub struct ClosedObject {
    /// Its bytes.
    pub body: Body,
    /// Its facts.
    pub meta: ObjectMeta,
    /// The same, as stored.
    pub metadata: Metadata,
    /// When its newest record had been fetched.
    pub fetched: Instant,
    /// When its first record was read.
    pub born: Duration,
    /// The spool file that `body` reads from.
    pub spool: Option<Arc<SpoolFile>>,
}

impl OpenObject {
    /// An empty object whose range starts at `range_start`.
    pub fn new(range_start: i64) -> Self {
        Self {
            nonce: uuid::Uuid::new_v4(),
            range_start,
            first: None,
            last: -1,
            records: 0,
            timestamps: None,
            max_record_bytes: 0,
            null_keys: 0,
            leader_epoch: -1,
            blocks: Vec::new(),
            blocks_bytes: 0,
            spooled: None,
            born: boot_time(),
            fetched: Instant::now(),
        }
    }

    /// The marker that ends each of its blocks.
    pub fn sync(&self) -> &Sync {
        self.nonce.as_bytes()
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Encoded bytes of its finished blocks.
    pub fn encoded_bytes(&self) -> u64 {
        self.blocks_bytes + self.spooled.as_ref().map_or(0, |s| s.len())
    }

    /// Bytes of finished blocks that are in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.blocks_bytes
    }

    /// Takes note of a record that goes into it.
    pub fn count(&mut self, record: &Record<'_>) {
        debug_assert!(record.offset > self.last && record.offset >= self.range_start);
        self.first.get_or_insert(record.offset);
        self.last = record.offset;
        self.records += 1;
        // A record without a timestamp counts as -1: a minimum of -1 tells readers that each record must be asked.
        let t = record.timestamp;
        self.timestamps = Some(self.timestamps.map_or((t, t), |(min, max)| (min.min(t), max.max(t))));
        let headers: usize = record.headers.iter().map(|h| h.name.len() + h.value.map_or(0, <[u8]>::len)).sum();
        let bytes = (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers) as u64;
        self.max_record_bytes = self.max_record_bytes.max(bytes);
        self.null_keys += u64::from(record.key.is_none());
    }

    /// Takes note of the batch a record came in.
    pub fn note_fetch(&mut self, fetched: Instant, leader_epoch: i32) {
        self.fetched = self.fetched.max(fetched);
        self.leader_epoch = self.leader_epoch.max(leader_epoch);
    }

    /// Appends a finished block.
    pub fn push(&mut self, block: Bytes) {
        self.blocks_bytes += block.len() as u64;
        self.blocks.push(block);
    }

    /// Moves the blocks in memory to the spool.
    pub fn spill(&mut self, spool: &Arc<Spool>, lane: u64) -> Result<(), SpoolError> {
        let start = self.range_start;
        let file = self.spooled.get_or_insert_with(|| Arc::new(SpoolFile::create(spool, lane, start)));
        file.append(&self.blocks)?;
        self.blocks.clear();
        self.blocks_bytes = 0;
        Ok(())
    }

    /// Closes it: its range ends at `next_offset`.
    pub fn close(self, lane: &Lane, next_offset: i64, at_eof: bool) -> std::io::Result<ClosedObject> {
        let mut meta = ObjectMeta {
            generation: lane.generation.uuid.clone(),
            job: lane.job.id.clone(),
            topic: lane.partition.topic.to_string(),
            topic_id: lane.generation.topic_id.clone(),
            partition: lane.partition.partition,
            range_start: self.range_start,
            next_offset,
            offsets: self.first.map(|first| (first, self.last)),
            records: self.records,
            timestamps: self.timestamps,
            max_record_bytes: self.max_record_bytes,
            null_keys: Some(self.null_keys),
            leader_epoch: self.leader_epoch,
            sha256: String::new(),
            nonce: self.nonce.to_string(),
            at_eof,
            run: lane.run.clone(),
            gap: String::new(),
        };
        let mut body = Body::new();
        let head = write_header(lane.job.codec, self.sync(), &meta.to_metadata());
        body.push(Piece::Memory(Bytes::from(head)));
        if let Some(file) = &self.spooled {
            body.push(Piece::File { path: file.path().clone(), range: 0..file.len() });
        }
        self.blocks.into_iter().for_each(|block| body.push(Piece::Memory(block)));
        meta.sha256 = sha256(&body)?;
        let metadata = meta.to_metadata();
        Ok(ClosedObject { body, meta, metadata, fetched: self.fetched, born: self.born, spool: self.spooled })
    }
}

/// A gap link: an object without records that says which offsets are missing, and why.
pub fn gap_link(lane_meta: ObjectMeta) -> (Body, Metadata) {
    let nonce = uuid::Uuid::new_v4();
    let mut meta = ObjectMeta { nonce: nonce.to_string(), ..lane_meta };
    let body = Body::from(write_header(crate::config::Codec::Null, nonce.as_bytes(), &meta.to_metadata()));
    meta.sha256 = sha256(&body).unwrap_or_default(); // all in memory: cannot fail
    let metadata = meta.to_metadata();
    (body, metadata)
}
