//! Clients that know no broker any more are led back to those that they began with.
//!
//! librdkafka (2.12.1) forgets every broker that an answer does not name. A node that was suspended for longer than its
//! session with the controller names none for a moment after it has woken up. A client that asks just then goes back to
//! `bootstrap.servers` only when it counts all its brokers as down, and one that it is forgetting while something still
//! refers to it is not counted: such a client waits, a quarter of an hour was seen, without a word. So every client is looked
//! at now and then, and one whose last answer named nobody is given its `bootstrap.servers` again.

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

/// How often clients are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The longest wait between two attempts, in looks: librdkafka keeps what it is given, however often that is the same.
const SELDOM: u32 = 64;

/// A client that is looked at, until this is dropped, which must be before the client is destroyed.
pub(super) struct Watched(Arc<Watch>);

struct Watch {
    /// `None` when the client is about to be destroyed.
    client: Mutex<Option<Handle>>,
    servers: CString,
}

struct Handle(NonNull<rd_kafka_t>);
// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Handle {}

/// Looks at a client from now on, which was made of `config`.
///
/// # Safety
/// `client` is alive until what is returned is dropped.
pub(super) unsafe fn watch(client: NonNull<rd_kafka_t>, config: &ClientConfig) -> Watched {
    let servers = CString::new(config.get("bootstrap.servers").unwrap_or_default()).unwrap_or_default();
    let watch = Arc::new(Watch { client: Mutex::new(Some(Handle(client))), servers });
    all().lock().unwrap_or_else(PoisonError::into_inner).push((Arc::downgrade(&watch), 0));
    Watched(watch)
}

impl Drop for Watched {
    fn drop(&mut self) {
        *self.0.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// All clients, each with how many looks in a row found that it knows no broker.
type All = Mutex<Vec<(Weak<Watch>, u32)>>;

fn all() -> &'static All {
    static ALL: OnceLock<All> = OnceLock::new();
    ALL.get_or_init(|| {
        let started = std::thread::Builder::new().name("kafka-brokers".to_owned()).spawn(|| {
            loop {
                std::thread::sleep(LOOK_EVERY);
                look(all());
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "no thread that looks after kafka clients");
        }
        All::default()
    })
}

fn look(all: &All) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain_mut(|(watch, lost)| {
        let Some(watch) = watch.upgrade() else { return false };
        let client = watch.client.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Handle(client)) = &*client else { return false };
        // SAFETY: the client is not destroyed while the lock is held. Without a wait this reads what is known.
        let knows_none = unsafe { rd_kafka_controllerid(client.as_ptr(), 0) } == -1;
        *lost = if knows_none { lost.saturating_add(1) } else { 0 };
        if is_due(*lost) {
            // SAFETY: as above; the text is copied.
            unsafe { lead_back(client.as_ptr(), &watch.servers) };
        }
        true
    });
}

/// Whether a client that was found `lost` times in a row without brokers is led back now. The first time it may just have
/// begun.
fn is_due(lost: u32) -> bool {
    lost >= 2 && (lost.is_power_of_two() || lost.is_multiple_of(SELDOM))
}

/// # Safety
/// `client` is alive.
unsafe fn lead_back(client: *mut rd_kafka_t, servers: &CString) {
    let mut metadata = ptr::null();
    // SAFETY: promised by the caller. A question, so that somebody wants a connection; its answer may come when nobody
    // waits any more. On success the metadata is ours.
    unsafe {
        rd_kafka_brokers_add(client, servers.as_ptr());
        let code = rd_kafka_metadata(client, 0, ptr::null_mut(), &mut metadata, 1);
        if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            rd_kafka_metadata_destroy(metadata);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_brokers_is_led_back_soon_then_seldom() {
        let due: Vec<u32> = (0..=256).filter(|lost| is_due(*lost)).collect();
        assert_eq!(due, [2, 4, 8, 16, 32, 64, 128, 192, 256]);
    }
}
