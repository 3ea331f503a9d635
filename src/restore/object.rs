//! One object while its bytes come: what it must be before a record of it is produced.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::failure::Failure;
use crate::model::avro::{DecodeError, ObjectReader};
use crate::model::batch::RecordBatch;
use crate::model::catalog::Facts;
use crate::model::hex::hex;
use crate::model::key::{self, ObjectKey};
use crate::model::restore::Take;

/// Some bytes of one object.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Which of the plan's objects.
    pub index: usize,
    /// The bytes that follow those of the piece before.
    pub bytes: Bytes,
    /// The object ends with them.
    pub last: bool,
}

/// The object that is being read.
pub(super) struct Open {
    pub(super) index: usize,
    reader: ObjectReader,
    hasher: Sha256,
    /// Whether the hash of the whole is still wanted.
    hashed: bool,
    /// It was looked through before.
    proved: bool,
    named: bool,
    pub(super) last_offset: i64,
    pub(super) taken: u64,
}

impl Open {
    /// Nothing of it read yet; `index` is its number in the plan.
    pub(super) fn new(index: usize) -> Self {
        Self {
            index,
            reader: ObjectReader::new(),
            hasher: Sha256::new(),
            hashed: true,
            proved: false,
            named: false,
            last_offset: i64::MIN,
            taken: 0,
        }
    }

    /// The same of an object that was looked through before under the entity tag that it is read with again. Hashing it
    /// once more is left out where its blocks have checksums that tell whether they came over as they are.
    pub(super) fn proved(index: usize) -> Self {
        Self { proved: true, ..Self::new(index) }
    }

    /// Takes the next bytes. The hash is compared before the last ones are decoded.
    pub(super) fn feed(&mut self, take: &Take, piece: Piece) -> Result<(), Failure> {
        self.hash(take, &piece)?;
        self.reader.push(piece.bytes);
        Ok(())
    }

    /// Hashes the next bytes, where something is known to compare the hash with.
    fn hash(&mut self, take: &Take, piece: &Piece) -> Result<(), Failure> {
        if take.sha256.is_empty() || !self.hashed {
            return Ok(());
        }
        self.hasher.update(&piece.bytes);
        if piece.last {
            let found = hex(&self.hasher.finalize_reset());
            if found != take.sha256 {
                return Err(self.damaged(take, format!("its sha256 is {found} instead of {}", take.sha256)));
            }
        }
        Ok(())
    }

    /// Decodes the next block into `batch`; `false` when more bytes are needed.
    pub(super) fn next(&mut self, take: &Take, batch: &mut RecordBatch) -> Result<bool, Failure> {
        if !self.named {
            let header = self.reader.header().map(|header| header.map(|h| (h.metadata.clone(), h.codec)));
            let Some((metadata, codec)) = header.map_err(|error| self.undecodable(take, &error))? else {
                return Ok(false);
            };
            let name = key::parse(&take.key);
            if let Some(Facts::Bad(why)) = name.and_then(|name| Facts::from_metadata(&name, &metadata, None)) {
                return Err(self.damaged(take, why));
            }
            self.hashed = !(self.proved && codec.has_checksum());
            self.named = true;
        }
        let more = self.reader.next_batch(batch).map_err(|error| self.undecodable(take, &error))?;
        let name = key::parse(&take.key);
        if let (Some((topic, partition)), Some(ObjectKey { path, .. })) = (self.reader.source(), name)
            && (topic != path.topic || partition != path.partition)
        {
            let why = format!("its records are of {topic}/{partition}");
            return Err(self.damaged(take, why));
        }
        Ok(more)
    }

    /// The whole object has been fed and decoded.
    pub(super) fn end(&mut self, take: &Take) -> Result<(), Failure> {
        self.end_whole(take)?;
        match take.records.filter(|said| *said != self.taken) {
            Some(said) => Err(self.damaged(take, format!("it says it has {said} records, it has {}", self.taken))),
            None => Ok(()),
        }
    }

    /// It ends where a block does, and has as many records as it says.
    fn end_whole(&mut self, take: &Take) -> Result<(), Failure> {
        let found = self.reader.finish().map_err(|error| self.undecodable(take, &error))?.records;
        match take.object_records.filter(|said| *said != found) {
            Some(said) => Err(self.damaged(take, format!("it says it has {said} records, it has {found}"))),
            None => Ok(()),
        }
    }

    fn undecodable(&self, take: &Take, error: &DecodeError) -> Failure {
        self.damaged(take, error.to_string())
    }

    pub(super) fn damaged(&self, take: &Take, why: String) -> Failure {
        Failure::Damaged { key: take.key.clone(), why, produced: self.taken }
    }
}

/// Looks an object through to its end before any record of it is produced, and keeps nothing of it: by its hash where
/// that is known, which costs least; else block by block.
pub struct Proof {
    object: Open,
    batch: RecordBatch,
}

impl Proof {
    /// Nothing of it read yet.
    pub fn new(index: usize) -> Self {
        Self { object: Open::new(index), batch: RecordBatch::default() }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// The object is damaged.
    pub fn feed(&mut self, take: &Take, piece: Piece) -> Result<(), Failure> {
        let last = piece.last;
        if !take.sha256.is_empty() {
            return self.object.hash(take, &piece);
        }
        self.object.feed(take, piece)?;
        while self.object.next(take, &mut self.batch)? {}
        // Which records are taken shows when they are.
        if last { self.object.end_whole(take) } else { Ok(()) }
    }
}
