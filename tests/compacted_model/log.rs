//! Kafka's log of one partition, and its cleaner.

/// A record: key and value; a tombstone has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    pub key: u8,
    pub value: Option<u8>,
}

/// Everything that was ever appended to one partition, and what the cleaner has left of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Log {
    all: Vec<Record>,
    /// When each tombstone was appended (tick); 0 for other records, whose age does not matter.
    ages: Vec<u8>,
    gone: Vec<bool>,
}

impl Log {
    pub fn append(&mut self, record: Record, tick: u8) {
        self.all.push(record);
        self.ages.push(if record.value.is_none() { tick } else { 0 });
        self.gone.push(false);
    }

    pub fn end(&self) -> i64 {
        self.all.len() as i64
    }

    /// What can be read from `from` on.
    pub fn readable(&self, from: i64) -> impl Iterator<Item = (i64, Record)> {
        let all = self.all.iter().zip(&self.gone).enumerate();
        all.filter(move |(offset, (_, gone))| *offset as i64 >= from && !**gone)
            .map(|(o, (record, _))| (o as i64, *record))
    }

    /// Removes what a later record supersedes, and tombstones that are `retention` old.
    pub fn clean(&mut self, tick: u8, retention: u8) {
        for offset in 0..self.all.len() {
            let record = self.all[offset];
            let superseded = self.all[offset + 1..].iter().any(|later| later.key == record.key);
            let collected = record.value.is_none() && tick >= self.ages[offset] + retention;
            self.gone[offset] |= superseded || collected;
        }
    }

    /// What was live when the log ended at `end`: by key the latest value.
    pub fn live(&self, end: i64) -> Vec<(u8, u8)> {
        fold(self.all.iter().copied().take(end as usize))
    }
}

/// By key the latest value of these records.
pub fn fold(records: impl Iterator<Item = Record>) -> Vec<(u8, u8)> {
    let mut live = std::collections::BTreeMap::new();
    for record in records {
        match record.value {
            Some(value) => live.insert(record.key, value),
            None => live.remove(&record.key),
        };
    }
    live.into_iter().collect()
}
