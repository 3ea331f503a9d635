//! Closed objects that the bucket does not take are kept on disk: should the process end before the bucket is back, and
//! Kafka's retention be shorter than the outage, they are the only copy.
//!
//! Only where uploads fail, and in half of the spool: the other half is for open objects. While the bucket takes what it
//! is given, nothing is written here. Who resolves the partition next appends what is kept to its list, as if the upload
//! had succeeded in time, and goes on behind it.
//!
//! Crash consistency: a file has its name only when it is whole and on disk. It is removed when its object is in the
//! bucket, or another one is in its place. What is never asked for again goes after a week.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::spool::{Spool, SpoolError};
use super::stock::{EXTENSION, UNFINISHED};
use crate::kafka::TopicPartition;
use crate::metrics;
use crate::model::avro::{MAX_HEADER_BYTES, read_header};
use crate::model::chain::GenerationRecord;
use crate::model::key::PartitionPath;
use crate::model::object::{Metadata, ObjectMeta};
use crate::storage::retry::{PATIENCE, retry};
use crate::storage::{Body, Create, Piece, Store, StoreError, payload};

/// A closed object on disk. Stays when dropped.
#[derive(Debug)]
pub struct KeptObject {
    spool: Arc<Spool>,
    path: PathBuf,
    len: u64,
}

/// What is in front of the offset: generation and partition.
fn stem(generation: &str, partition: i32) -> String {
    format!("{generation}.{partition}.")
}

/// Writes a closed object to disk. Blocks.
///
/// # Errors
/// The spool or the disk is full, or a spooled part of the object cannot be read.
pub fn keep(spool: &Arc<Spool>, meta: &ObjectMeta, body: &Body) -> Result<KeptObject, SpoolError> {
    let name = format!("{}{:020}.{EXTENSION}", stem(&meta.generation, meta.partition), meta.range_start);
    let path = spool.dir().join(name);
    spool.reserve_in_half(body.len())?;
    let unfinished = path.with_extension(UNFINISHED);
    let before = fs::metadata(&path).map_or(0, |facts| facts.len());
    let written = write(&unfinished, body).and_then(|()| {
        fs::rename(&unfinished, &path)?;
        File::open(spool.dir())?.sync_all()
    });
    match written {
        Ok(()) => {
            spool.release(before);
            Ok(KeptObject { spool: spool.clone(), path, len: body.len() })
        }
        Err(source) => {
            // What cannot be removed now is removed at the next start.
            let _ = fs::remove_file(&unfinished);
            spool.release(body.len());
            Err(SpoolError::Disk { path: unfinished, source })
        }
    }
}

fn write(path: &Path, body: &Body) -> io::Result<()> {
    let mut out = File::create(path)?;
    for chunk in payload::chunks(body) {
        out.write_all(&chunk.read()?)?;
    }
    out.sync_all()
}

/// What is kept of a partition of a generation: range starts and files, in order.
pub fn kept(spool: &Arc<Spool>, generation: &str, partition: i32) -> io::Result<Vec<(i64, KeptObject)>> {
    let stem = stem(generation, partition);
    let mut found = Vec::new();
    for entry in fs::read_dir(spool.dir())? {
        let entry = entry?;
        let name = entry.file_name();
        let offset = name.to_str().and_then(|name| name.strip_prefix(&stem)?.strip_suffix(".closed")?.parse().ok());
        if let Some(offset) = offset {
            let len = entry.metadata()?.len();
            found.push((offset, KeptObject { spool: spool.clone(), path: entry.path(), len }));
        }
    }
    found.sort_by_key(|(offset, _)| *offset);
    Ok(found)
}

impl KeptObject {
    /// The object as it is to be stored: its facts, its bytes, its metadata. Reads all of it. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or is not an object of ours.
    pub fn read(&self) -> io::Result<(ObjectMeta, Body, Metadata)> {
        let mut head = Vec::new();
        File::open(&self.path)?.take(MAX_HEADER_BYTES as u64).read_to_end(&mut head)?;
        let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let header = read_header(&head).map_err(|e| bad(e.to_string()))?;
        let header = header.ok_or_else(|| bad("not a whole Avro header".to_owned()))?;
        let mut meta = ObjectMeta::from_metadata(&header.metadata).map_err(|e| bad(e.to_string()))?;
        let mut body = Body::new();
        body.push(Piece::File { path: Arc::new(self.path.clone()), range: 0..self.len });
        meta.sha256 = payload::sha256(&body)?;
        let metadata = meta.to_metadata();
        Ok((meta, body, metadata))
    }

    /// It is not needed any more.
    pub fn discard(self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), error = %error, "an object that is stored now cannot be removed");
            }
            _ => self.spool.release(self.len),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A kept object, read: its facts, its bytes, its metadata.
type Read = (KeptObject, ObjectMeta, Body, Metadata);

/// The object that has its turn at `end`, ready to be stored. Copies of what is in the bucket already are removed. Blocks.
fn next(spool: &Arc<Spool>, generation: &str, partition: &TopicPartition, end: i64) -> io::Result<Option<Read>> {
    let mut next = None;
    for (start, object) in kept(spool, generation, partition.partition)? {
        match start.cmp(&end) {
            Ordering::Less => object.discard(),
            Ordering::Equal => next = Some(object),
            // Its turn comes behind what is missing in front of it.
            Ordering::Greater => {}
        }
    }
    let Some(object) = next else { return Ok(None) };
    let (meta, body, metadata) = object.read()?;
    if (&*meta.topic, meta.partition, meta.range_start) != (&*partition.topic, partition.partition, end) {
        return Err(io::Error::other(format!("{} holds another object than its name says", object.path().display())));
    }
    Ok(Some((object, meta, body, metadata)))
}

/// Stores the object that waits on disk for its turn at `end`, where the list of a partition ends; `false` when there is
/// none.
///
/// # Errors
/// The bucket still does not take it.
pub async fn store_next(
    spool: &Arc<Spool>,
    store: &dyn Store,
    job: &str,
    partition: &TopicPartition,
    generation: &GenerationRecord,
    end: i64,
) -> Result<bool, StoreError> {
    let (dir, uuid, at) = (spool.clone(), generation.uuid.clone(), partition.clone());
    let next = tokio::task::spawn_blocking(move || next(&dir, &uuid, &at, end)).await;
    let next = next.unwrap_or_else(|ended| Err(io::Error::other(ended)));
    let Some((object, meta, body, metadata)) = next.unwrap_or_else(|error| {
        metrics::error("state", "disk");
        tracing::error!(job, partition = %partition, error = %error,
            "an object that was kept on disk cannot be read; what Kafka still has of it is read again");
        None
    }) else {
        return Ok(false);
    };
    let path = PartitionPath::normal(&partition.topic, generation.generation, partition.partition);
    let key = path.object(end);
    if retry(PATIENCE, || store.create(&key, &body, &metadata)).await? == Create::Created {
        let counters = metrics::TopicCounters::of(job, &partition.topic);
        counters.records.inc_by(meta.records);
        counters.stored_bytes.inc_by(body.len());
        let (records, bytes) = (meta.records, body.len());
        tracing::info!(job, key, records, bytes, "object stored that had been kept on disk");
        object.discard();
    }
    // Where the name was taken, whoever looks at the list next sees by whom, and whether this copy is still needed.
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Codec;
    use crate::model::avro::write_header;

    fn object(start: i64) -> (ObjectMeta, Body) {
        let mut meta = ObjectMeta {
            generation: "0f1e".to_owned(),
            job: "j".to_owned(),
            topic: "t".to_owned(),
            topic_id: "id".to_owned(),
            partition: 3,
            range_start: start,
            next_offset: start + 1,
            offsets: Some((start, start)),
            records: 1,
            timestamps: Some((1, 1)),
            max_record_bytes: 1,
            null_keys: None,
            leader_epoch: 0,
            sha256: String::new(),
            nonce: "n".to_owned(),
            at_eof: false,
            run: String::new(),
            gap: String::new(),
        };
        let body = Body::from(write_header(Codec::Null, &[7; 16], &meta.to_metadata()));
        meta.sha256 = payload::sha256(&body).unwrap();
        (meta, body)
    }

    #[test]
    fn comes_back_as_it_was_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), 1 << 20).unwrap();
        let (meta, body) = object(20);
        for start in [100, 20] {
            let (meta, body) = object(start);
            keep(&spool, &meta, &body).unwrap();
        }
        keep(&spool, &meta, &body).unwrap();
        let (used, found) = (spool.used(), kept(&spool, "0f1e", 3).unwrap());
        assert_eq!(found.iter().map(|(start, _)| *start).collect::<Vec<_>>(), [20, 100]);
        assert_eq!(used, found.iter().map(|(_, object)| object.len).sum::<u64>(), "the one kept twice counts once");
        std::fs::write(dir.path().join("half.part"), b"x").unwrap();
        let spool = Spool::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(spool.used(), used);
        assert!(!dir.path().join("half.part").exists());
        assert!(kept(&spool, "0f1e", 30).unwrap().is_empty() && kept(&spool, "0f1", 3).unwrap().is_empty());
        let mut found = kept(&spool, "0f1e", 3).unwrap();
        let (read, _, metadata) = found[0].1.read().unwrap();
        assert_eq!((&read, &metadata), (&meta, &meta.to_metadata()), "with the hash of the whole object");
        found.remove(0).1.discard();
        found.remove(0).1.discard();
        assert_eq!((spool.used(), std::fs::read_dir(dir.path()).unwrap().count()), (0, 0));
    }

    #[test]
    fn no_room_keeps_nothing_and_rubbish_is_no_object() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), 10).unwrap();
        let (meta, body) = object(20);
        assert!(matches!(keep(&spool, &meta, &body), Err(SpoolError::Full { .. })));
        assert_eq!((spool.used(), std::fs::read_dir(dir.path()).unwrap().count()), (0, 0));
        std::fs::write(dir.path().join("0f1e.3.00000000000000000020.closed"), b"rubbish").unwrap();
        assert!(kept(&spool, "0f1e", 3).unwrap()[0].1.read().is_err());
    }
}
