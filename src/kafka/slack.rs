//! How late the threads of a client may wake up.
//!
//! A consumer has four threads of librdkafka's that look once or several times a second whether there is something to do,
//! connected or not, fetching or not, and nothing in its configuration changes that. What happens (data, answers, commands)
//! wakes them at once; where they only wait for time to pass, the kernel may let them sleep a little longer
//! (`PR_SET_TIMERSLACK`), so that it wakes many of them together, and those that are due more often than that once.
//!
//! The one short time that a consumer waits for is `fetch.queue.backoff.ms`, after a fetch that found the queue full. So the
//! thread that fetches may sleep long only while fetches find nothing, and is on time while they find much: a small queue is
//! empty long before a tenth of a second is over. It learns that from their sizes, as they come.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::num::NonZeroU64;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

/// What any consumer's threads may oversleep. `fetch.queue.backoff.ms` grows by as much.
pub(super) const LATE: Duration = Duration::from_millis(100);
/// What the thread may oversleep that fetches much.
const ON_TIME: Duration = Duration::from_millis(1);
/// What those of a quiet client may oversleep, with the usual session.
const QUIET: Duration = Duration::from_secs(5);
/// So many times what is overslept fits into a session: a heartbeat is due every fifteenth part of one by default, so there
/// is one in every fifth part, which is still less than the third that Kafka advises.
const OF_A_SESSION: u32 = 9;
/// Kafka's number of a fetch.
const FETCH: i16 = 1;
/// A fetch of one partition that brings nothing has less than 100 bytes. A few small records do not fill a queue.
const NOTHING: usize = 1024;
/// A fetch that brings so much may have filled a queue.
const MUCH: usize = 32 * 1024;

/// What the threads of a client that is quiet most of the time may oversleep, given its session timeout.
pub(super) fn quiet(session: Duration) -> Duration {
    (session / OF_A_SESSION).clamp(LATE, QUIET)
}

/// Lets the threads of the client that is made of `conf` oversleep: by `quiet` while fetches find nothing, by no more than
/// [`LATE`] while they find something, and hardly while they find much.
///
/// # Safety
/// `conf` is a valid configuration that has not been here before.
pub(super) unsafe fn allow(conf: *mut rd_kafka_conf_t, quiet: Duration) {
    // The time travels in the place of a pointer: nothing needs to outlive the client.
    let millis = quiet.max(LATE).as_millis() as usize;
    // SAFETY: a valid configuration and a static name. Refused is only a name that is there already.
    unsafe {
        rd_kafka_conf_interceptor_add_on_new(conf, NAME.as_ptr(), Some(on_new), ptr::without_provenance_mut(millis));
    }
}

const NAME: &std::ffi::CStr = c"slack";

unsafe extern "C" fn on_new(
    client: *mut rd_kafka_t,
    _conf: *const rd_kafka_conf_t,
    quiet: *mut c_void,
    _error: *mut c_char,
    _error_size: usize,
) -> Code {
    // SAFETY: the client that is being made, and a static name.
    unsafe {
        rd_kafka_interceptor_add_on_thread_start(client, NAME.as_ptr(), Some(on_thread_start), quiet);
        rd_kafka_interceptor_add_on_response_received(client, NAME.as_ptr(), Some(on_response), quiet);
    }
    Code::RD_KAFKA_RESP_ERR_NO_ERROR
}

unsafe extern "C" fn on_thread_start(
    _client: *mut rd_kafka_t,
    _kind: rd_kafka_thread_type_t,
    _name: *const c_char,
    quiet: *mut c_void,
) -> Code {
    oversleep(millis(quiet));
    Code::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Called on the thread of the broker that answers.
unsafe extern "C" fn on_response(
    _client: *mut rd_kafka_t,
    _socket: c_int,
    _broker: *const c_char,
    _broker_id: i32,
    api: i16,
    _version: i16,
    _correlation: i32,
    size: usize,
    _rtt: i64,
    _error: Code,
    quiet: *mut c_void,
) -> Code {
    if api == FETCH {
        oversleep(after_fetch(size, millis(quiet)));
    }
    Code::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// What the thread may oversleep that was answered `size` bytes.
fn after_fetch(size: usize, quiet: Duration) -> Duration {
    match size {
        ..NOTHING => quiet,
        NOTHING..MUCH => LATE,
        MUCH.. => ON_TIME,
    }
}

fn millis(opaque: *mut c_void) -> Duration {
    Duration::from_millis(opaque.addr() as u64)
}

/// From now on this thread may be woken so late.
fn oversleep(late: Duration) {
    thread_local!(static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) });
    if NOW.replace(late) != late {
        // A kernel that cannot do it wakes the thread on time.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(late.as_nanos() as u64));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::usual(45_000, 5000)]
    #[case::short(6300, 700)]
    #[case::very_short(900, 100)]
    #[case::shortest(100, 100)]
    #[case::long(600_000, 5000)]
    fn what_is_overslept_fits_into_the_session(#[case] session: u64, #[case] late: u64) {
        assert_eq!(quiet(Duration::from_millis(session)), Duration::from_millis(late));
    }

    #[rstest]
    #[case::nothing(80, QUIET)]
    #[case::data(NOTHING, LATE)]
    #[case::much(MUCH, ON_TIME)]
    fn who_gets_data_is_on_time(#[case] size: usize, #[case] late: Duration) {
        assert_eq!(after_fetch(size, QUIET), late);
        std::thread::spawn(move || {
            oversleep(LATE);
            oversleep(after_fetch(size, QUIET));
            assert_eq!(of_this_thread(), late);
        })
        .join()
        .expect("no panic");
    }

    /// Not asked of `prctl`, whose answer rustix takes for an `int`: two seconds fit into it.
    fn of_this_thread() -> Duration {
        let path = format!("/proc/{}/timerslack_ns", rustix::thread::gettid().as_raw_nonzero());
        let nanos = std::fs::read_to_string(path).expect("a kernel that knows it");
        Duration::from_nanos(nanos.trim().parse().expect("a number"))
    }
}
