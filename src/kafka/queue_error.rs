//! Why the queue of a partition ends.

use rdkafka::types::RDKafkaRespErr as Code;

use super::{KafkaError, Kind, TopicPartition, ffi};

/// Why a partition's queue delivers nothing more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// The log was truncated below the position: an unclean leader election, or a topic created anew.
    #[error("log truncated: {text}")]
    Truncated {
        /// Where the log of the position's leader epoch ends now; `None` when the broker knows no such epoch.
        end_offset: Option<i64>,
        /// What librdkafka said.
        text: String,
    },
    /// The position is not in the log: below its start or behind its end.
    #[error("position out of range: {text}")]
    OutOfRange {
        /// What librdkafka said.
        text: String,
    },
    /// The topic or partition is not there any more.
    #[error("unknown topic or partition: {text}")]
    UnknownTopic {
        /// What librdkafka said.
        text: String,
    },
    /// Anything else that librdkafka does not get over by itself: permissions, a damaged or unreadable batch.
    #[error(transparent)]
    Other(KafkaError),
}

/// What an error on a partition's queue means.
///
/// Both a truncated log and a position out of range come as `_AUTO_OFFSET_RESET` (with `auto.offset.reset=error`,
/// `rd_kafka_offset_reset`); which of them, and where the log ends, stands only in the text.
pub(super) fn classify(at: &TopicPartition, code: Code, text: String) -> QueueError {
    let truncated = ffi::code_text(Code::RD_KAFKA_RESP_ERR__LOG_TRUNCATION);
    match code {
        Code::RD_KAFKA_RESP_ERR__LOG_TRUNCATION => QueueError::Truncated { end_offset: end_offset(&text), text },
        Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET if text.contains(&truncated) || text.contains(END_OFFSET) => {
            QueueError::Truncated { end_offset: end_offset(&text), text }
        }
        Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET | Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE => {
            QueueError::OutOfRange { text }
        }
        code if ffi::kind(code) == Kind::UnknownTopic => QueueError::UnknownTopic { text },
        code => QueueError::Other(ffi::error(&format!("fetch {at}"), code, text)),
    }
}

/// In front of the end offset in librdkafka's text (`rd_kafka_toppar_handle_OffsetForLeaderEpoch`).
const END_OFFSET: &str = "broker end offset is ";

/// The end offset in librdkafka's text; `None` when the broker knows none (-1).
fn end_offset(text: &str) -> Option<i64> {
    let (_, rest) = text.split_once(END_OFFSET)?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
    rest[..end].parse().ok().filter(|&offset| offset >= 0)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Texts as `rdkafka_offset.c` of librdkafka 2.12.1 prints them.
    #[rstest]
    #[case(
        "Partition log truncation detected at offset 15 (leader epoch 0): broker end offset is 10 (offset leader epoch \
         0). Reset to INVALID.: Local: Partition log truncation detected (broker 1)",
        Some(10)
    )]
    #[case(
        "No epoch found less or equal to offset 15 (leader epoch 7): broker end offset is -1 (offset leader epoch -1). \
         Reset using configured policy.: Local: Partition log truncation detected (broker 1)",
        None
    )]
    fn truncation_carries_the_end_offset(#[case] text: &str, #[case] expected: Option<i64>) {
        let at = TopicPartition::new("t", 0);
        match classify(&at, Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, text.to_owned()) {
            QueueError::Truncated { end_offset, .. } => assert_eq!(end_offset, expected),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn out_of_range_is_not_truncation() {
        let text = "fetch failed due to requested offset not available on the broker: Broker: Offset out of range \
                    (broker 1)";
        let at = TopicPartition::new("t", 0);
        let error = classify(&at, Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, text.to_owned());
        assert!(matches!(error, QueueError::OutOfRange { .. }), "{error:?}");
    }

    #[rstest]
    #[case(Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Kind::Auth)]
    #[case(Code::RD_KAFKA_RESP_ERR__BAD_MSG, Kind::Other)]
    fn the_rest_is_named(#[case] code: Code, #[case] expected: Kind) {
        match classify(&TopicPartition::new("t", 0), code, "text".to_owned()) {
            QueueError::Other(error) => assert_eq!((error.kind, error.operation.as_str()), (expected, "fetch t/0")),
            other => panic!("{other:?}"),
        }
    }
}
