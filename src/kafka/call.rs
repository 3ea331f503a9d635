//! What admin calls have in common: their options, and the wait for their answer.

use std::ffi::c_char;
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::KafkaError;
use super::ffi::{self, Client, c_text, millis};

/// An admin call's options; destroyed when dropped.
pub(super) struct Options(NonNull<rd_kafka_AdminOptions_t>);

impl Options {
    pub(super) fn new(client: &Client, operation: rd_kafka_admin_op_t, timeout: Duration) -> Options {
        let mut text = [0 as c_char; ffi::ERROR_TEXT];
        // SAFETY: a live client; never null for a known operation. The timeout is within librdkafka's range.
        unsafe {
            let options = NonNull::new_unchecked(rd_kafka_AdminOptions_new(client.ptr(), operation));
            let timeout = millis(timeout).clamp(1, 3_600_000);
            rd_kafka_AdminOptions_set_request_timeout(options.as_ptr(), timeout, text.as_mut_ptr(), text.len());
            Options(options)
        }
    }

    pub(super) fn ptr(&self) -> *mut rd_kafka_AdminOptions_t {
        self.0.as_ptr()
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { rd_kafka_AdminOptions_destroy(self.ptr()) };
    }
}

/// The answer to an admin call; destroyed when dropped.
pub(super) struct Answer(NonNull<rd_kafka_event_t>);

impl Answer {
    /// Makes a call and waits for its answer: `submit` hands it to librdkafka with a queue for the answer. librdkafka
    /// ends every admin call by its own timeout, so the wait here needs none.
    pub(super) fn wait(
        client: &Client,
        operation: &str,
        submit: impl FnOnce(*mut rd_kafka_queue_t),
    ) -> Result<Answer, KafkaError> {
        // SAFETY: a live client; the queue is ours, and librdkafka keeps a reference while it needs one.
        let event = unsafe {
            let queue = rd_kafka_queue_new(client.ptr());
            submit(queue);
            let event = rd_kafka_queue_poll(queue, -1);
            rd_kafka_queue_destroy(queue);
            event
        };
        let answer = Answer::of(event)
            .ok_or_else(|| ffi::error(operation, Code::RD_KAFKA_RESP_ERR__TIMED_OUT, String::new()))?;
        answer.check(operation).map(|()| answer)
    }

    /// Takes an event over that a queue gave; `None` when it gave none.
    pub(super) fn of(event: *mut rd_kafka_event_t) -> Option<Answer> {
        NonNull::new(event).map(Answer)
    }

    /// Whether the call as a whole succeeded.
    pub(super) fn check(&self, operation: &str) -> Result<(), KafkaError> {
        // SAFETY: a valid event; its text lives as long.
        let (code, text) =
            unsafe { (rd_kafka_event_error(self.ptr()), c_text(rd_kafka_event_error_string(self.ptr()))) };
        ffi::check_said(operation, code, text)
    }

    pub(super) fn ptr(&self) -> *mut rd_kafka_event_t {
        self.0.as_ptr()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { rd_kafka_event_destroy(self.ptr()) };
    }
}

/// An array of `count` pointers that librdkafka filled in.
///
/// # Safety
/// `array` points at `count` values that live for `'a`, or `count` is 0.
pub(super) unsafe fn array<'a, T>(array: *const T, count: usize) -> &'a [T] {
    match count {
        0 => &[],
        // SAFETY: promised by the caller.
        _ => unsafe { std::slice::from_raw_parts(array, count) },
    }
}
