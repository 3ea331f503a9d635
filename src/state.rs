//! Committed offsets, kept in sled: a cache of what the bucket says, which saves requests at the next start.
//!
//! Never the truth: the bucket is. Every value carries the uuid of the generation it speaks of and a checksum; a value
//! that does not fit is as good as none. A database that cannot be opened or read is moved aside and begun anew.
//!
//! Crash consistency: a value is inserted and flushed only after the store has acknowledged the object it names, so a
//! value that is lost in a crash costs two requests, and one that survives is true.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::clock::now_ms;
use crate::error::{Error, Exit, Result};
use crate::kafka::TopicPartition;
use crate::metrics;
use crate::model::watermark::Kept;

const VERSION: u8 = 1;
/// version 1, tail start 8, next offset 8, leader epoch 4, generation uuid 16, crc 4.
const VALUE_BYTES: usize = 41;
/// sled's page cache: a few thousand partitions fit many times over.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// What is known locally of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Where the last object's range starts: its name.
    pub tail_start: i64,
    /// Where it ends: the name of the next one.
    pub next_offset: i64,
    /// Leader epoch of its last record, -1 when unknown.
    pub leader_epoch: i32,
    /// The generation it belongs to.
    pub generation: uuid::Uuid,
}

/// Which partition of which store, as a key: store, topic and partition in this order.
pub fn key(store_url: &str, topic: &str, partition: i32) -> Vec<u8> {
    let mut key = Vec::with_capacity(store_url.len() + topic.len() + 6);
    key.extend_from_slice(store_url.as_bytes());
    key.push(0);
    key.extend_from_slice(topic.as_bytes());
    key.push(0);
    key.extend_from_slice(&partition.to_be_bytes());
    key
}

/// What is protected, kept under a job's id and a topic. No store's name begins like that.
fn protected_key(job: &str, topic: &str) -> Vec<u8> {
    let mut key = protected_prefix(job);
    key.extend_from_slice(topic.as_bytes());
    key
}

fn protected_prefix(job: &str) -> Vec<u8> {
    [b"\x01protected\0", job.as_bytes(), b"\0"].concat()
}

/// Of each partition: number 4, time 8, covered 8, generation uuid 16; behind the version and before the checksum.
const KEPT_BYTES: usize = 36;

fn encode_kept(partitions: &BTreeMap<i32, Kept>) -> Vec<u8> {
    let mut value = vec![VERSION];
    for (partition, kept) in partitions {
        value.extend_from_slice(&partition.to_be_bytes());
        value.extend_from_slice(&kept.at_ms.to_be_bytes());
        value.extend_from_slice(&kept.covered.to_be_bytes());
        value.extend_from_slice(uuid::Uuid::parse_str(&kept.generation).unwrap_or_default().as_bytes());
    }
    let crc = crc32fast::hash(&value);
    value.extend_from_slice(&crc.to_be_bytes());
    value
}

fn decode_kept(value: &[u8]) -> Option<BTreeMap<i32, Kept>> {
    let (content, crc) = value.split_last_chunk::<4>()?;
    let (version, entries) = content.split_first()?;
    if *version != VERSION || crc32fast::hash(content).to_be_bytes() != *crc {
        return None;
    }
    let entry = |bytes: &[u8]| {
        let bytes: &[u8; KEPT_BYTES] = bytes.try_into().ok()?;
        let kept = Kept {
            at_ms: i64::from_be_bytes(bytes[4..12].try_into().ok()?),
            covered: i64::from_be_bytes(bytes[12..20].try_into().ok()?),
            generation: uuid::Uuid::from_bytes(bytes[20..].try_into().ok()?).to_string(),
        };
        Some((i32::from_be_bytes(bytes[..4].try_into().ok()?), kept))
    };
    entries.chunks(KEPT_BYTES).map(entry).collect()
}

impl Committed {
    fn encode(&self) -> [u8; VALUE_BYTES] {
        let mut value = [0; VALUE_BYTES];
        value[0] = VERSION;
        value[1..9].copy_from_slice(&self.tail_start.to_be_bytes());
        value[9..17].copy_from_slice(&self.next_offset.to_be_bytes());
        value[17..21].copy_from_slice(&self.leader_epoch.to_be_bytes());
        value[21..37].copy_from_slice(self.generation.as_bytes());
        let crc = crc32fast::hash(&value[..37]);
        value[37..].copy_from_slice(&crc.to_be_bytes());
        value
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let value: &[u8; VALUE_BYTES] = value.try_into().ok()?;
        let crc = u32::from_be_bytes(value[37..].try_into().ok()?);
        if value[0] != VERSION || crc != crc32fast::hash(&value[..37]) {
            return None;
        }
        Some(Self {
            tail_start: i64::from_be_bytes(value[1..9].try_into().ok()?),
            next_offset: i64::from_be_bytes(value[9..17].try_into().ok()?),
            leader_epoch: i32::from_be_bytes(value[17..21].try_into().ok()?),
            generation: uuid::Uuid::from_bytes(value[21..37].try_into().ok()?),
        })
    }
}

/// The database. Opened once per process; cheap to clone.
#[derive(Debug, Clone)]
pub struct State {
    db: sled::Db,
    path: PathBuf,
}

impl State {
    /// Opens `STATE_DIR/state`. One that is damaged is moved to `state.corrupt-SECONDS` and a new one is begun.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let path = state_dir.join("state");
        std::fs::create_dir_all(&path).map_err(|e| {
            Error::new(Exit::Failed, format!("state directory {}", path.display()))
                .because(e)
                .hint("state_dir must be a folder this user may write to")
        })?;
        match Self::try_open(&path) {
            Ok(db) => Ok(Self { db, path }),
            Err(sled::Error::Io(e)) if e.kind() == std::io::ErrorKind::WouldBlock || is_lock(&e) => {
                Err(Error::new(Exit::Locked, format!("state {} is in use by another process", path.display()))
                    .hint("is a daemon running? give this one another state_dir, or stop the other"))
            }
            Err(sled::Error::Io(e)) if remedy(&e).is_some() => {
                let remedy = remedy(&e).unwrap_or_default();
                Err(Error::new(Exit::Failed, format!("state {}", path.display())).because(e).hint(remedy))
            }
            Err(error) => Self::start_over(&path, &error),
        }
    }

    fn try_open(path: &Path) -> Result<sled::Db, sled::Error> {
        // sled panics on some kinds of damage; that is damage like any other here.
        let open = || {
            let db = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
            for entry in db.iter() {
                entry?;
            }
            Ok(db)
        };
        std::panic::catch_unwind(open).unwrap_or_else(|_| Err(sled::Error::Unsupported("damaged: it panicked".into())))
    }

    fn start_over(path: &Path, error: &sled::Error) -> Result<Self> {
        let seconds = now_ms() / 1000;
        let aside = path.with_file_name(format!("state.corrupt-{seconds}"));
        let failed = |what: &str, e: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(Exit::Failed, format!("state {}: {what}", path.display())).because(e)
        };
        std::fs::rename(path, &aside).map_err(|e| failed("damaged and cannot be moved aside", e.into()))?;
        tracing::warn!(path = %path.display(), moved_to = %aside.display(), error = %error,
            "state damaged, moved aside; it is rebuilt from the bucket");
        metrics::state_rebuilt("corrupt");
        std::fs::create_dir_all(path).map_err(|e| failed("cannot be created", e.into()))?;
        let db = Self::try_open(path).map_err(|e| failed("cannot be created", Box::new(e)))?;
        Ok(Self { db, path: path.to_owned() })
    }

    /// What is known of a partition; a damaged value is none.
    pub fn get(&self, key: &[u8]) -> Option<Committed> {
        match self.db.get(key) {
            Ok(value) => value.and_then(|v| Committed::decode(&v)),
            Err(error) => {
                tracing::warn!(error = %error, "state cannot be read, asking the bucket instead");
                metrics::error("state", "corrupt");
                None
            }
        }
    }

    /// Whether nothing at all is known: a first start, or a state that was lost.
    pub fn is_empty(&self) -> bool {
        self.db.is_empty()
    }

    /// Writes and makes durable. Blocks; the committer has a thread of its own for it.
    pub fn commit(&self, entries: &[(Vec<u8>, Committed)]) -> Result<(), String> {
        let began = Instant::now();
        let mut batch = sled::Batch::default();
        for (key, value) in entries {
            batch.insert(key.as_slice(), &value.encode()[..]);
        }
        // The flush of sled's own thread stops for good on an error and only logs it: so always by hand, and checked.
        self.db.apply_batch(batch).map_err(|e| e.to_string())?;
        self.flush()?;
        metrics::state_flushed(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Makes durable what was written. Blocks.
    pub fn flush(&self) -> Result<(), String> {
        self.db.flush().map(|_| ()).map_err(|e| e.to_string())
    }

    /// Remembers what is protected of `topics` of a job; it is durable after the next [`flush`](Self::flush) or
    /// [`commit`](Self::commit). What was remembered of other topics of it is forgotten: they are not this process's any
    /// more.
    pub fn keep_protected(&self, job: &str, topics: &BTreeMap<String, BTreeMap<i32, Kept>>) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        for key in self.db.scan_prefix(protected_prefix(job)).keys() {
            batch.remove(key.map_err(|e| e.to_string())?);
        }
        for (topic, partitions) in topics {
            batch.insert(protected_key(job, topic), encode_kept(partitions));
        }
        self.db.apply_batch(batch).map_err(|e| e.to_string())
    }

    /// What was protected of a job's partitions when that was last remembered; what is damaged is left out.
    pub fn protected(&self, job: &str) -> BTreeMap<TopicPartition, Kept> {
        let prefix = protected_prefix(job);
        let mut all = BTreeMap::new();
        for (key, value) in self.db.scan_prefix(&prefix).filter_map(Result::ok) {
            let topic = String::from_utf8_lossy(&key[prefix.len()..]);
            for (partition, kept) in decode_kept(&value).unwrap_or_default() {
                all.insert(TopicPartition::new(&*topic, partition), kept);
            }
        }
        all
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size on disk in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }
}

/// What helps where the state cannot be opened, but is not damaged either: it must not be begun anew for that.
fn remedy(error: &std::io::Error) -> Option<&'static str> {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error)? {
        Errno::ACCESS | Errno::PERM => {
            Some("everything in state_dir must belong to this user: chown -R kafka-backup: STATE_DIR for the service")
        }
        Errno::ROFS => {
            Some("state_dir is on a file system that is mounted read-only: mount it writable, or choose another")
        }
        Errno::NOSPC | Errno::DQUOT => Some("the file system of state_dir is full: make room"),
        Errno::MFILE | Errno::NFILE => Some("too many open files: raise LimitNOFILE= of the unit"),
        _ => None,
    }
}

/// sled wraps the lock's error in one of its own kind with a text.
fn is_lock(error: &std::io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(n: i64) -> Committed {
        Committed { tail_start: n, next_offset: n + 5, leader_epoch: 3, generation: uuid::Uuid::from_u128(7) }
    }

    #[test]
    fn survives_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        let k = key("s3://b", "t", 0);
        let state = State::open(dir.path()).unwrap();
        assert!(state.is_empty());
        state.commit(&[(k.clone(), value(1))]).unwrap();
        drop(state);
        assert_eq!(State::open(dir.path()).unwrap().get(&k), Some(value(1)));
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let _state = State::open(dir.path()).unwrap();
        assert_eq!(State::open(dir.path()).unwrap_err().exit, Exit::Locked);
    }

    #[test]
    fn what_is_wrong_around_it_is_no_damage() {
        use rustix::io::Errno;
        for (errno, word) in [
            (Errno::ACCESS, "chown"),
            (Errno::ROFS, "read-only"),
            (Errno::NOSPC, "make room"),
            (Errno::MFILE, "LimitNOFILE"),
        ] {
            assert!(remedy(&errno.into()).is_some_and(|text| text.contains(word)), "{errno:?}");
        }
        assert_eq!(remedy(&Errno::IO.into()), None);
        assert_eq!(remedy(&std::io::Error::other("damaged")), None);
    }

    #[test]
    fn damage_starts_over_and_keeps_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        state.commit(&[(key("s", "t", 0), value(1))]).unwrap();
        drop(state);
        for entry in std::fs::read_dir(dir.path().join("state")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::write(&path, b"rubbish rubbish rubbish").unwrap();
            }
        }
        let state = State::open(dir.path()).unwrap();
        assert_eq!(state.get(&key("s", "t", 0)), None);
        let aside = std::fs::read_dir(dir.path())
            .unwrap()
            .any(|e| e.unwrap().file_name().to_string_lossy().starts_with("state.corrupt-"));
        assert!(aside);
    }

    #[test]
    fn what_is_protected_survives_a_reopen_by_job() {
        let dir = tempfile::tempdir().unwrap();
        let kept = |at_ms| Kept { at_ms, covered: 9, generation: uuid::Uuid::from_u128(7).to_string() };
        let state = State::open(dir.path()).unwrap();
        let both = |at| BTreeMap::from([(0, kept(at)), (11, kept(at + 1))]);
        state.keep_protected("job", &BTreeMap::from([("t".to_owned(), both(1)), ("u".to_owned(), both(3))])).unwrap();
        state.keep_protected("job2", &BTreeMap::from([("t".to_owned(), both(5))])).unwrap();
        state.keep_protected("job", &BTreeMap::from([("t".to_owned(), both(8))])).unwrap();
        state.flush().unwrap();
        drop(state);
        let state = State::open(dir.path()).unwrap();
        let of = |p, at| (TopicPartition::new("t", p), kept(at));
        assert_eq!(state.protected("job"), BTreeMap::from([of(0, 8), of(11, 9)]), "u is not remembered any more");
        assert_eq!(state.protected("job2"), BTreeMap::from([of(0, 5), of(11, 6)]));
        assert_eq!(state.protected("jo"), BTreeMap::new());
    }

    #[test]
    fn a_flipped_value_is_none() {
        let mut bytes = value(1).encode();
        bytes[12] ^= 1;
        assert_eq!(Committed::decode(&bytes), None);
        assert_eq!(Committed::decode(b""), None);
        let kept = Kept { at_ms: 1, covered: 9, generation: uuid::Uuid::from_u128(7).to_string() };
        let good = encode_kept(&BTreeMap::from([(3, kept)]));
        assert!(decode_kept(&good).is_some());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(decode_kept(&bad), None, "byte {at}");
            assert_eq!(decode_kept(&good[..at]), None, "cut at {at}");
        }
    }
}
