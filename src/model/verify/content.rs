//! What is in an object, compared with what the object says is in it.

use super::Reason;
use crate::model::batch::Record;
use crate::model::key::ObjectKey;
use crate::model::object::{Metadata, ObjectMeta};

/// What makes an object unfit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// In which way.
    pub reason: Reason,
    /// What exactly.
    pub why: String,
}

impl Damage {
    /// Damage of this kind.
    pub fn new(reason: Reason, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }
}

/// Counts the records of an object as they come out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counter {
    records: u64,
    offsets: Option<(i64, i64)>,
    timestamps: Option<(i64, i64)>,
    max_record_bytes: u64,
    null_keys: u64,
}

impl Counter {
    /// Records so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// Its offset does not lie behind the one before.
    pub fn count(&mut self, record: &Record<'_>) -> Result<(), Damage> {
        let first = match self.offsets {
            Some((_, last)) if record.offset <= last => {
                return Err(Damage::new(Reason::Decode, format!("offset {} follows {last}", record.offset)));
            }
            Some((first, _)) => first,
            None => record.offset,
        };
        self.offsets = Some((first, record.offset));
        let time = record.timestamp;
        self.timestamps = Some(self.timestamps.map_or((time, time), |(min, max)| (min.min(time), max.max(time))));
        let headers: usize = record.headers.iter().map(|h| h.name.len() + h.value.map_or(0, <[u8]>::len)).sum();
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers;
        self.max_record_bytes = self.max_record_bytes.max(bytes as u64);
        self.null_keys += u64::from(record.key.is_none());
        self.records += 1;
        Ok(())
    }

    /// All records have come: are they those that the object says it has? `header` is what its Avro header carries.
    ///
    /// # Errors
    /// They are not.
    pub fn judge(&self, name: &ObjectKey, meta: Option<&ObjectMeta>, header: &Metadata) -> Result<(), Damage> {
        if let Some((first, _)) = self.offsets.filter(|(first, _)| *first < name.offset) {
            let why = format!("it holds offset {first}, in front of its name");
            return Err(Damage::new(Reason::Decode, why));
        }
        let Some(meta) = meta else { return Ok(()) };
        same("records", meta.records, self.records)?;
        same("offsets from and to", meta.offsets, self.offsets)?;
        same("timestamps from and to", meta.timestamps, self.timestamps)?;
        if meta.max_record_bytes > 0 {
            same("bytes in its largest record", meta.max_record_bytes, self.max_record_bytes)?;
        }
        if let Some(null_keys) = meta.null_keys {
            same("records without a key", null_keys, self.null_keys)?;
        }
        let wrong = |why: String| Damage::new(Reason::Metadata, why);
        let inside = ObjectMeta::from_metadata(header).map_err(|error| wrong(format!("its Avro header: {error}")))?;
        let said = ObjectMeta { sha256: String::new(), ..meta.clone() };
        if inside != said {
            return Err(wrong("its metadata and its Avro header say different things".to_owned()));
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, said: T, found: T) -> Result<(), Damage> {
    if said == found {
        return Ok(());
    }
    Err(Damage::new(Reason::Decode, format!("{what}: it says {said:?}, and holds {found:?}")))
}

/// The bytes of an object hash to what its metadata say; nothing to compare where they say nothing.
///
/// # Errors
/// They do not.
pub fn hash(meta: Option<&ObjectMeta>, found: &str) -> Result<(), Damage> {
    match meta.map(|meta| meta.sha256.as_str()).filter(|said| !said.is_empty() && *said != found) {
        Some(said) => Err(Damage::new(Reason::Checksum, format!("its sha256 is {found} instead of {said}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model::batch::{Header, RecordBatch, TimestampType};
    use crate::model::key::PartitionPath;

    fn name(offset: i64) -> ObjectKey {
        ObjectKey { path: PartitionPath::normal("t", 1, 0), offset, digits: 20 }
    }

    fn meta() -> ObjectMeta {
        ObjectMeta {
            generation: "g".to_owned(),
            job: "j".to_owned(),
            topic: "t".to_owned(),
            topic_id: String::new(),
            partition: 0,
            range_start: 5,
            next_offset: 10,
            offsets: Some((6, 8)),
            records: 2,
            timestamps: Some((-1, 70)),
            max_record_bytes: 6,
            null_keys: Some(1),
            leader_epoch: 0,
            sha256: "ab".to_owned(),
            nonce: "n".to_owned(),
            at_eof: false,
            run: String::new(),
            gap: String::new(),
        }
    }

    fn counter() -> Counter {
        let mut batch = RecordBatch::default();
        batch.push(6, (70, TimestampType::CreateTime), Some(b"key"), None, [Header { name: b"ab", value: Some(b"c") }]);
        batch.push(8, (-1, TimestampType::NotAvailable), None, Some(b"v"), []);
        let mut counter = Counter::default();
        batch.iter().for_each(|record| counter.count(&record).unwrap());
        counter
    }

    #[test]
    fn what_an_object_says_is_what_it_holds() {
        let header = ObjectMeta { sha256: String::new(), ..meta() }.to_metadata();
        assert_eq!(counter().judge(&name(5), Some(&meta()), &header), Ok(()));
        assert_eq!(counter().judge(&name(5), None, &Metadata::new()), Ok(()), "the older layout says nothing");
        assert_eq!(hash(Some(&meta()), "ab"), Ok(()));
        assert_eq!(hash(None, "cd"), Ok(()));
        assert_eq!(hash(Some(&meta()), "cd").unwrap_err().reason, Reason::Checksum);
    }

    #[rstest]
    #[case::records(|m: &mut ObjectMeta| m.records = 3, Reason::Decode)]
    #[case::first_offset(|m: &mut ObjectMeta| m.offsets = Some((5, 8)), Reason::Decode)]
    #[case::last_offset(|m: &mut ObjectMeta| m.offsets = Some((6, 9)), Reason::Decode)]
    #[case::oldest(|m: &mut ObjectMeta| m.timestamps = Some((0, 70)), Reason::Decode)]
    #[case::newest(|m: &mut ObjectMeta| m.timestamps = Some((-1, 71)), Reason::Decode)]
    #[case::null_keys(|m: &mut ObjectMeta| m.null_keys = Some(2), Reason::Decode)]
    #[case::largest(|m: &mut ObjectMeta| m.max_record_bytes = 7, Reason::Decode)]
    #[case::next(|m: &mut ObjectMeta| m.next_offset = 11, Reason::Metadata)]
    #[case::nonce(|m: &mut ObjectMeta| m.nonce = "other".to_owned(), Reason::Metadata)]
    fn another_word_than_its_content(#[case] change: fn(&mut ObjectMeta), #[case] reason: Reason) {
        let header = ObjectMeta { sha256: String::new(), ..meta() }.to_metadata();
        let mut said = meta();
        change(&mut said);
        assert_eq!(counter().judge(&name(5), Some(&said), &header).unwrap_err().reason, reason);
    }

    #[test]
    fn offsets_that_do_not_grow_or_lie_in_front_of_the_name() {
        let mut counter = counter();
        let mut batch = RecordBatch::default();
        batch.push(8, (0, TimestampType::CreateTime), None, None, []);
        let again = batch.iter().next().map(|record| counter.count(&record)).unwrap();
        assert_eq!(again.unwrap_err().why, "offset 8 follows 8");
        assert_eq!(counter.judge(&name(7), None, &Metadata::new()).unwrap_err().reason, Reason::Decode);
    }
}
