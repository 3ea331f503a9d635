//! Sends records whose timestamp is 0 (1970-01-01T00:00:00Z), which librdkafka's interface takes for "now".
//!
//! Inside, a message has a timestamp like any other and 0 is nothing special. So such a record is handed over with a
//! [`STAND_IN`], and an interceptor, which sees each message before it is queued, puts 0 in its place.
//!
//! Where the place is, is librdkafka's own business (`rd_kafka_msg_t`, whose beginning is the public message). It is not
//! assumed but looked for, once, with a message that is never sent: the one place behind the public part that holds the
//! stand-in, and after 0 was written there the public `rd_kafka_message_timestamp` must say 0. With another version of
//! librdkafka than the one this was written for, or where anything is not as expected, such records are refused.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::OnceLock;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::version;

/// What stands for 0 on the way into librdkafka. No clock ever shows it, and a record that has it is refused.
const STAND_IN: i64 = i64::MIN;
/// How far behind the public part its timestamp is looked for: behind the links of a queue (two pointers) and two `int`s.
const BEHIND: [usize; 4] = [0, 8, 16, 24];

const NAME: &std::ffi::CStr = c"epoch";

/// Where a message has its timestamp; `None` when that is not known.
static PLACE: OnceLock<Option<usize>> = OnceLock::new();

/// What to give librdkafka for this timestamp; `None` when it cannot be sent.
pub(super) fn given(timestamp: i64) -> Option<i64> {
    match timestamp {
        0 => PLACE.get_or_init(find).map(|_| STAND_IN),
        STAND_IN => None,
        other => Some(other),
    }
}

/// Has the producer that is made of `conf` send the stand-in as 0.
///
/// # Safety
/// `conf` is a valid configuration that has not been here before.
pub(super) unsafe fn install(conf: *mut rd_kafka_conf_t) {
    // SAFETY: a valid configuration and a static name. Refused is only a name that is there already.
    unsafe { rd_kafka_conf_interceptor_add_on_new(conf, NAME.as_ptr(), Some(on_new), ptr::null_mut()) };
}

unsafe extern "C" fn on_new(
    client: *mut rd_kafka_t,
    _conf: *const rd_kafka_conf_t,
    opaque: *mut c_void,
    _error: *mut c_char,
    _error_size: usize,
) -> Code {
    // SAFETY: the client that is being made, and a static name.
    unsafe { rd_kafka_interceptor_add_on_send(client, NAME.as_ptr(), Some(on_send), opaque) }
}

/// For every record: a call and a comparison.
unsafe extern "C" fn on_send(_client: *mut rd_kafka_t, message: *mut rd_kafka_message_t, _: *mut c_void) -> Code {
    if timestamp(message) == STAND_IN {
        match PLACE.get() {
            // SAFETY: a message of librdkafka's that is not queued yet, so nobody else has it.
            Some(Some(place)) => unsafe { write(message, *place) },
            // The message with which the place is being looked for.
            _ => FOUND.set(look(message)),
        }
    }
    Code::RD_KAFKA_RESP_ERR_NO_ERROR
}

thread_local!(static FOUND: Cell<Option<usize>> = const { Cell::new(None) });

/// Looks for the place, with a producer that knows no broker and a message that is dropped.
fn find() -> Option<usize> {
    if !version::is_known() {
        return None;
    }
    FOUND.set(None);
    let topic = rd_kafka_vu_s__bindgen_ty_1 { cstr: NAME.as_ptr() };
    let stand_in = rd_kafka_vu_s__bindgen_ty_1 { i64_: STAND_IN };
    let fields = [
        rd_kafka_vu_t { vtype: rd_kafka_vtype_t::RD_KAFKA_VTYPE_TOPIC, u: topic },
        rd_kafka_vu_t { vtype: rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP, u: stand_in },
    ];
    // SAFETY: the configuration is the client's when there is one, and freed here when there is none; the fields are good
    // for the call, which calls interceptors on this thread before it returns. An error is ours, null is accepted. What was
    // produced is dropped with the client, which has nobody to wait for.
    unsafe {
        let conf = rd_kafka_conf_new();
        rd_kafka_conf_set_log_cb(conf, None);
        install(conf);
        let client = rd_kafka_new(rd_kafka_type_t::RD_KAFKA_PRODUCER, conf, ptr::null_mut(), 0);
        if client.is_null() {
            rd_kafka_conf_destroy(conf);
            return None;
        }
        rd_kafka_error_destroy(rd_kafka_produceva(client, fields.as_ptr(), fields.len()));
        rd_kafka_purge(client, RD_KAFKA_PURGE_F_QUEUE);
        rd_kafka_destroy(client);
    }
    FOUND.take()
}

/// Finds the place in this message, and confirms it.
fn look(message: *mut rd_kafka_message_t) -> Option<usize> {
    let places = BEHIND.map(|behind| size_of::<rd_kafka_message_t>() + behind);
    // SAFETY: in the version that was asked for, the message goes on at least so far behind its public part, and is not
    // queued yet; what is read is not interpreted.
    let mut holding = places.into_iter().filter(|place| unsafe { read(message, *place) } == STAND_IN);
    let place = holding.next()?;
    if holding.next().is_some() {
        return None;
    }
    // SAFETY: as above, and it is the place of an i64.
    unsafe { write(message, place) };
    (timestamp(message) == 0).then_some(place)
}

fn timestamp(message: *const rd_kafka_message_t) -> i64 {
    // SAFETY: a valid message; the type is not asked for.
    unsafe { rd_kafka_message_timestamp(message, ptr::null_mut()) }
}

/// # Safety
/// The message has 8 bytes there.
unsafe fn read(message: *const rd_kafka_message_t, place: usize) -> i64 {
    // SAFETY: promised by the caller; messages and all places are aligned. Volatile: the bytes may be unwritten.
    unsafe { message.byte_add(place).cast::<i64>().read_volatile() }
}

/// # Safety
/// The message has its timestamp there, and nobody else uses it.
unsafe fn write(message: *mut rd_kafka_message_t, place: usize) {
    // SAFETY: promised by the caller.
    unsafe { message.byte_add(place).cast::<i64>().write(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes red with a librdkafka whose messages are others: then look at them, and at [`version`].
    #[test]
    fn the_place_is_found_in_the_librdkafka_that_is_built_in() {
        assert_eq!(given(0), Some(STAND_IN));
        assert_eq!(PLACE.get(), Some(&Some(size_of::<rd_kafka_message_t>() + 24)));
    }

    #[test]
    fn other_timestamps_are_given_as_they_are_and_the_stand_in_is_refused() {
        assert_eq!([1, -1, i64::MAX].map(given), [Some(1), Some(-1), Some(i64::MAX)]);
        assert_eq!(given(STAND_IN), None);
    }
}
