//! Reads objects as a restore does, and has what is in them compared with what they say.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, mpsc};

use super::report::Report;
use crate::error::{Error, Exit, Result};
use crate::model::avro::{DecodeError, ObjectReader, Problem};
use crate::model::batch::RecordBatch;
use crate::model::hex::hex;
use crate::model::key::ObjectKey;
use crate::model::object::{Metadata, ObjectMeta};
use crate::model::restore::Take;
use crate::model::verify::content::{Counter, Damage, hash};
use crate::model::verify::{Affected, Finding, Reason, Severity};
use crate::restore::fetch::{Pieces, Throttle};
use crate::restore::gather::failed;
use crate::restore::object::Piece;
use crate::storage::{Kind, Store, StoreError};

/// An object that is to be read.
#[derive(Debug, Clone)]
pub struct Work {
    /// What its name says.
    pub name: ObjectKey,
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: String,
    /// What it says of itself; `None` for the older layout.
    pub meta: Option<Box<ObjectMeta>>,
    /// Retention may take it while it waits.
    pub may_expire: bool,
    /// The job it belongs to.
    pub job: Arc<str>,
}

/// Reads objects until there are no more.
///
/// # Errors
/// The store cannot be read, which says nothing about the objects.
pub async fn read_all(
    store: Arc<dyn Store>,
    todo: Arc<Mutex<mpsc::Receiver<Work>>>,
    report: Arc<Report>,
) -> Result<()> {
    loop {
        let next = todo.lock().await.recv().await;
        let Some(work) = next else { return Ok(()) };
        match read_twice(&store, &work).await? {
            Ok(records) => report.read(&work.job, work.size, records),
            Err(damage) => {
                report.read(&work.job, work.size, 0);
                report.finding(&work.job, &finding(&work, damage));
            }
        }
    }
}

/// Reads an object; once more when it looks damaged: the damage may have been on the way.
async fn read_twice(store: &Arc<dyn Store>, work: &Work) -> Result<Result<u64, Damage>> {
    let first = read(store, work).await?;
    if let Err(damage) = &first {
        tracing::info!(object = work.key, "{}; it is read once more", damage.why);
        return read(store, work).await;
    }
    Ok(first)
}

/// Reads an object: how many records it has, or what is wrong with it.
async fn read(store: &Arc<dyn Store>, work: &Work) -> Result<Result<u64, Damage>> {
    let take = Take {
        key: work.key.clone(),
        size: work.size,
        etag: work.etag.clone(),
        sha256: String::new(),
        from: 0,
        until: i64::MAX,
        object_records: None,
        records: None,
    };
    let (pieces, received) = mpsc::channel(1);
    let work = work.clone();
    let decoded = tokio::task::spawn_blocking(move || Decoder::new(&work).decode(received));
    let (mut object, throttle) = (Pieces::of(0, &take), Throttle::new(None));
    // A piece is asked for when there is room for it, so that no more than two are held.
    while let Ok(room) = pieces.reserve().await
        && let Some(piece) = object.next(store, &throttle).await
    {
        let failed = piece.is_err();
        room.send(piece);
        if failed {
            break;
        }
    }
    drop(pieces);
    let ended = |error| Error::new(Exit::Failed, format!("the thread that reads {} ended", take.key)).because(error);
    match decoded.await.map_err(ended)? {
        Ok(result) => Ok(result),
        Err(error) => match error.kind {
            Kind::NotFound => Ok(Err(Damage::new(Reason::Missing, "it was listed, and is not there"))),
            Kind::Changed => Ok(Err(Damage::new(Reason::Size, error.message))),
            _ => Err(failed(error)),
        },
    }
}

fn finding(work: &Work, damage: Damage) -> Finding {
    let (from, until) = (work.name.offset, work.meta.as_ref().map(|meta| meta.next_offset));
    let expired = damage.reason == Reason::Missing && work.may_expire;
    Finding {
        severity: if expired { Severity::Note } else { Severity::Damage },
        reason: damage.reason,
        key: work.key.clone(),
        path: Some(work.name.path.clone()),
        affected: Some(Affected { from, until }),
        what: damage.why,
    }
}

/// Takes one object apart, on a thread of its own.
struct Decoder<'a> {
    work: &'a Work,
    reader: ObjectReader,
    hasher: Sha256,
    counter: Counter,
    header: Option<Metadata>,
    batch: RecordBatch,
}

impl<'a> Decoder<'a> {
    fn new(work: &'a Work) -> Self {
        let (reader, batch) = (ObjectReader::new(), RecordBatch::default());
        Self { work, reader, hasher: Sha256::new(), counter: Counter::default(), header: None, batch }
    }

    fn decode(
        mut self,
        mut pieces: mpsc::Receiver<Result<Piece, StoreError>>,
    ) -> Result<Result<u64, Damage>, StoreError> {
        let mut damage = None;
        // Also what is damaged is hashed to its end: that the bytes are others is worth more than where it shows.
        while let Some(piece) = pieces.blocking_recv() {
            let piece = piece?;
            self.hasher.update(&piece.bytes);
            if damage.is_none() {
                damage = self.feed(piece.bytes).err();
            }
        }
        let found = hex(&self.hasher.finalize_reset());
        let whole = hash(self.work.meta.as_deref(), &found);
        let inside = damage.map_or_else(|| self.end(), Err);
        Ok(match (whole, inside) {
            (Ok(()), inside) => inside,
            (Err(whole), Ok(_)) => Err(whole),
            (Err(_), Err(inside)) if inside.reason == Reason::Size => Err(inside),
            (Err(whole), Err(inside)) => Err(Damage::new(whole.reason, format!("{}; {}", whole.why, inside.why))),
        })
    }

    fn feed(&mut self, bytes: Bytes) -> Result<(), Damage> {
        self.reader.push(bytes);
        if self.header.is_none() {
            self.header = self.reader.header().map_err(undecodable)?.map(|header| header.metadata.clone());
        }
        while self.reader.next_batch(&mut self.batch).map_err(undecodable)? {
            for record in self.batch.iter() {
                self.counter.count(&record)?;
            }
            let path = &self.work.name.path;
            if let Some((topic, partition)) = self.reader.source()
                && (topic != path.topic || partition != path.partition)
            {
                return Err(Damage::new(Reason::Decode, format!("its records are of {topic}/{partition}")));
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<u64, Damage> {
        self.reader.finish().map_err(undecodable)?;
        let header = self.header.take().unwrap_or_default();
        self.counter.judge(&self.work.name, self.work.meta.as_deref(), &header)?;
        Ok(self.counter.records())
    }
}

fn undecodable(error: DecodeError) -> Damage {
    let reason = match error.problem {
        Problem::Truncated(_) => Reason::Size,
        Problem::Checksum => Reason::Checksum,
        _ => Reason::Decode,
    };
    Damage::new(reason, error.to_string())
}
