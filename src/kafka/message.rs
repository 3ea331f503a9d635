//! A record or an event as librdkafka gives it.

use std::ptr::{self, NonNull};

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::TopicPartition;
use super::ffi::c_text;
use super::headers::{RawHeaders, bytes, iterate};
use crate::model::batch::{RecordBatch, TimestampType};

/// A message of librdkafka's, owned.
pub(super) struct Message(NonNull<rd_kafka_message_t>);

// SAFETY: a popped message belongs to whoever popped it; destroying it on another thread is allowed.
unsafe impl Send for Message {}

impl Message {
    /// Takes over a message; `None` for null.
    pub(super) fn take(raw: *mut rd_kafka_message_t) -> Option<Message> {
        NonNull::new(raw).map(Message)
    }

    fn raw(&self) -> &rd_kafka_message_t {
        // SAFETY: ours until dropped.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn code(&self) -> Code {
        self.raw().err
    }

    pub(super) fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// Which partition it is of, where it is of one.
    pub(super) fn partition(&self) -> Option<TopicPartition> {
        let raw = self.raw();
        // SAFETY: a message's topic is null or valid as long as the message.
        let topic = (!raw.rkt.is_null()).then(|| c_text(unsafe { rd_kafka_topic_name(raw.rkt) }))?;
        Some(TopicPartition::new(topic, raw.partition))
    }

    /// The text of an error message.
    pub(super) fn text(&self) -> String {
        // SAFETY: a valid message.
        c_text(unsafe { rd_kafka_message_errstr(self.0.as_ptr()) })
    }

    pub(super) fn leader_epoch(&self) -> i32 {
        // SAFETY: a valid message.
        unsafe { rd_kafka_message_leader_epoch(self.0.as_ptr()) }
    }

    fn timestamp(&self) -> (i64, TimestampType) {
        let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: a valid message.
        let timestamp = unsafe { rd_kafka_message_timestamp(self.0.as_ptr(), &mut kind) };
        match kind {
            rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => (-1, TimestampType::NotAvailable),
            rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => (timestamp, TimestampType::CreateTime),
            rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => (timestamp, TimestampType::LogAppendTime),
        }
    }

    fn key(&self) -> Option<&[u8]> {
        // SAFETY: key and length belong together; the bytes live as long as the message.
        unsafe { bytes(self.raw().key, self.raw().key_len) }
    }

    fn value(&self) -> Option<&[u8]> {
        // SAFETY: as for the key.
        unsafe { bytes(self.raw().payload, self.raw().len) }
    }

    pub(super) fn headers(&self) -> RawHeaders {
        let mut headers = ptr::null_mut();
        // SAFETY: a valid message; it keeps the headers it returns.
        unsafe { rd_kafka_message_headers(self.0.as_ptr(), &mut headers) };
        NonNull::new(headers)
    }

    pub(super) fn content_bytes(&self, headers: RawHeaders) -> usize {
        let of_headers: usize = iterate(headers).map(|h| h.name.len() + h.value.map_or(0, <[u8]>::len)).sum();
        self.raw().key_len + self.raw().len + of_headers
    }

    pub(super) fn push_into(&self, batch: &mut RecordBatch, headers: RawHeaders) {
        batch.push(self.offset(), self.timestamp(), self.key(), self.value(), iterate(headers));
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}
