//! The partition of an object's records.

use super::encode::prefix;
use super::error::{Fault, Problem};
use super::wire::Cursor;

/// The partition all records of an object belong to: that of the first one.
#[derive(Debug, Default)]
pub(super) struct Source {
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    topic: String,
    partition: i32,
    /// Both as our records begin with them.
    prefix: Vec<u8>,
}

impl Source {
    /// Topic and partition, once a record has been read.
    pub(super) fn get(&self) -> Option<(&str, i32)> {
        self.known.as_ref().map(|known| (known.topic.as_str(), known.partition))
    }

    /// A record of `topic` and `partition`.
    pub(super) fn check(&mut self, topic: &[u8], partition: i32) -> Result<(), Problem> {
        let topic = std::str::from_utf8(topic).map_err(|_| Problem::TopicNotText)?;
        match &self.known {
            Some(known) if known.topic == topic && known.partition == partition => Ok(()),
            Some(known) => Err(Problem::MixedPartitions {
                expected: format!("{}/{}", known.topic, known.partition),
                found: format!("{topic}/{partition}"),
            }),
            None => {
                self.known = Some(Known { topic: topic.to_owned(), partition, prefix: prefix(topic, partition) });
                Ok(())
            }
        }
    }

    /// The beginning of a record of ours: one comparison, but for the first.
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        if self.known.as_ref().is_some_and(|known| cursor.skip(&known.prefix)) {
            return Ok(());
        }
        let at = cursor.position();
        let (topic, partition) = (cursor.bytes()?, cursor.int()?);
        self.check(topic, partition).map_err(|problem| Fault { at, problem })
    }
}
