//! The headers of a message, with their names as bytes.
//!
//! librdkafka's interface gives a name as a C string: one with a NUL in it would be cut there. So its length is taken from
//! where librdkafka keeps it, in front of the name (`rd_kafka_header_t`). That this is so is made sure of once, with headers
//! that are made through the public interface; with any other librdkafka no consumer is made, because names that are cut
//! could not be told from others.

use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::version;
use crate::model::batch::{Header, Headers};

/// The headers of a message, in librdkafka's memory.
pub(super) type RawHeaders = Option<NonNull<rd_kafka_headers_t>>;

/// So far in front of a name stands its length: in between is the pointer to the value.
const LENGTH_BEFORE_NAME: usize = size_of::<usize>() + size_of::<*mut c_char>();

/// Whether the names of headers can be read in the librdkafka in use.
pub(super) fn are_known() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| version::is_known() && try_out())
}

/// The headers in order.
pub(super) fn iterate<'a>(headers: RawHeaders) -> impl Iterator<Item = Header<'a>> {
    (0usize..).map_while(move |i| {
        let headers = headers?;
        let (mut name, mut value, mut size) = (ptr::null::<c_char>(), ptr::null::<c_void>(), 0);
        // SAFETY: the headers live as long as the message, which the callers hold while they iterate. They were filled by
        // a consumer, and there is none unless `are_known`, or by `try_out`.
        unsafe {
            match rd_kafka_header_get_all(headers.as_ptr(), i, &mut name, &mut value, &mut size) {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => Some(Header { name: name_of(name), value: bytes(value, size) }),
                _ => None,
            }
        }
    })
}

/// A copy of the headers in librdkafka's form; null when there are none.
pub(super) fn raw(headers: Headers<'_>) -> *mut rd_kafka_headers_t {
    if headers.is_empty() {
        return ptr::null_mut();
    }
    // SAFETY: names and values are copied with their lengths; a null value stays null.
    unsafe {
        let raw = rd_kafka_headers_new(headers.len());
        for header in headers.iter() {
            let (value, size) = header.value.map_or((ptr::null(), 0), |v| (v.as_ptr().cast::<c_void>(), v.len()));
            let name = header.name;
            rd_kafka_header_add(raw, name.as_ptr().cast::<c_char>(), name.len() as isize, value, size as isize);
        }
        raw
    }
}

/// Bytes that are null, empty or not.
///
/// # Safety
/// `data` is null or points at `len` bytes that live for `'a`.
pub(super) unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: promised by the caller.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
}

/// # Safety
/// `name` is that of a header of librdkafka's, which lives for `'a`.
unsafe fn name_of<'a>(name: *const c_char) -> &'a [u8] {
    // SAFETY: promised by the caller; the length is as `are_known` says, and aligned as the header is.
    unsafe {
        let length = name.byte_sub(LENGTH_BEFORE_NAME).cast::<usize>().read();
        std::slice::from_raw_parts(name.cast::<u8>(), length)
    }
}

/// Whether the length of a name stands where it is thought to: only read, inside of what was allocated for the header (in
/// the known version, four words are in front of the name).
fn try_out() -> bool {
    let values: [Option<&[u8]>; 3] = [None, Some(b""), Some(b"v\0v")];
    let names: [&[u8]; 5] = [b"", b"plain", b"a\0b", b"\0", &[7; 300]];
    names.into_iter().all(|name| {
        values.into_iter().all(|value| {
            let (at, size) = value.map_or((ptr::null(), 0), |v| (v.as_ptr().cast::<c_void>(), v.len() as isize));
            // SAFETY: headers of our own; name and value are copied with their lengths; what points into them is only
            // compared, as numbers first, before they are freed.
            unsafe {
                let headers = rd_kafka_headers_new(1);
                rd_kafka_header_add(headers, name.as_ptr().cast::<c_char>(), name.len() as isize, at, size);
                let (mut found, mut found_value, mut found_size) = (ptr::null::<c_char>(), ptr::null::<c_void>(), 0);
                rd_kafka_header_get_all(headers, 0, &mut found, &mut found_value, &mut found_size);
                let length = found.byte_sub(LENGTH_BEFORE_NAME).cast::<usize>().read();
                let same = length == name.len() && name_of(found) == name && bytes(found_value, found_size) == value;
                rd_kafka_headers_destroy(headers);
                same
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::{RecordBatch, TimestampType};

    /// Goes red with a librdkafka that keeps lengths elsewhere: then no consumer can be made.
    #[test]
    fn names_are_known_in_the_librdkafka_that_is_built_in() {
        assert!(are_known());
    }

    #[test]
    fn headers_pass_through_librdkafka_as_they_are() {
        let header = |name, value| Header { name, value };
        let given = [
            header(b"a\0b", None),
            header(b"a\0b", Some(b"")),
            header(b"a", None),
            header(b"a\0b", Some(b"1")),
            header(b"\0", None),
            header(b"", Some(b"\0")),
            header(b"\xff\0\xfe", None),
        ];
        let mut batch = RecordBatch::default();
        batch.push(0, (1, TimestampType::CreateTime), None, None, given);
        let raw = NonNull::new(raw(batch.first().expect("one").headers));
        let found: Vec<_> = iterate(raw).collect();
        assert_eq!(found, given);
        // SAFETY: ours, and nothing of it is used any more.
        unsafe { rd_kafka_headers_destroy(raw.expect("headers").as_ptr()) };
    }
}
