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
    /// Everything below was deleted, whatever it was.
    start: i64,
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

    /// Where the log starts.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// Deletes everything below `to`, as retention by time or size does, or an operator.
    pub fn trim(&mut self, to: i64) {
        self.start = self.start.max(to);
        self.gone[..to as usize].fill(true);
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

    /// The same without the keys whose latest value was deleted with the beginning of the log: a snapshot may have them
    /// or not.
    pub fn certain(&self, end: i64) -> Vec<(u8, u8)> {
        let trimmed = |key: u8| {
            self.all[..end as usize].iter().rposition(|r| r.key == key).map(|at| at as i64) < Some(self.start)
        };
        self.live(end).into_iter().filter(|(key, _)| !trimmed(*key)).collect()
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
