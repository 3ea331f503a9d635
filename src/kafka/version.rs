//! The version of librdkafka whose private structures are known here.

/// 2.12.1, the one that is built in.
const KNOWN: i32 = 0x020c_01ff;

/// Whether it is the version in use.
pub(super) fn is_known() -> bool {
    // SAFETY: no arguments, no state.
    unsafe { rdkafka::bindings::rd_kafka_version() == KNOWN }
}
