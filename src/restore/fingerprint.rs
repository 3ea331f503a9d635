//! What is known of the records that earlier runs of a restore have produced.

use sha2::{Digest, Sha256};

use crate::model::batch::Record;

/// A hash of all that a record is, but for its offset.
pub type Fingerprint = [u8; 32];

/// What earlier runs have produced in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resumed {
    /// Records.
    pub done: u64,
    /// The last of them, as it stands on the target.
    pub last: Option<Fingerprint>,
}

/// Names the content of a record: timestamp, key, value and headers.
pub fn fingerprint(record: &Record<'_>) -> Fingerprint {
    let mut hash = Sha256::new();
    let mut add = |bytes: Option<&[u8]>| {
        // Null is not empty, and no two different lists of fields give the same bytes.
        hash.update(bytes.map_or(-1, |bytes| bytes.len() as i64).to_le_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    add(Some(&record.timestamp.to_le_bytes()));
    add(record.key);
    add(record.value);
    for header in record.headers.iter() {
        add(Some(header.name));
        add(header.value);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::batch::{Header, RecordBatch, TimestampType};

    type Fields = (i64, Option<&'static [u8]>, Option<&'static [u8]>, &'static [Header<'static>]);

    #[test]
    fn different_records_have_different_fingerprints() {
        const NONE: Option<&[u8]> = None;
        let records: [Fields; 9] = [
            (1, NONE, NONE, &[]),
            (2, NONE, NONE, &[]),
            (1, Some(b""), NONE, &[]),
            (1, NONE, Some(b""), &[]),
            (1, Some(b"ab"), Some(b"c"), &[]),
            (1, Some(b"a"), Some(b"bc"), &[]),
            (1, NONE, NONE, &[Header { name: b"", value: None }]),
            (1, NONE, NONE, &[Header { name: b"a", value: Some(b"") }]),
            (1, NONE, NONE, &[Header { name: b"a", value: None }]),
        ];
        let prints: BTreeSet<Fingerprint> = records
            .iter()
            .map(|(ms, key, value, headers)| {
                let mut batch = RecordBatch::default();
                batch.push(0, (*ms, TimestampType::CreateTime), *key, *value, headers.iter().copied());
                fingerprint(&batch.first().unwrap())
            })
            .collect();
        assert_eq!(prints.len(), records.len());
    }
}
