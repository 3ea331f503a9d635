//! How late the kernel may wake a thread that only waits for time to pass (`PR_SET_TIMERSLACK`): it then wakes many of them
//! together. What happens (data, an answer, a lock) wakes a thread at once all the same. A thread inherits it from the one
//! that begins it.

use std::num::NonZeroU64;
use std::time::Duration;

/// From now on this thread may be woken so late. A kernel that cannot do it wakes it on time.
pub fn oversleep(late: Duration) {
    set(NonZeroU64::new(late.as_nanos() as u64));
}

/// As late again as this thread began with.
pub fn as_usual() {
    set(None);
}

fn set(slack: Option<NonZeroU64>) {
    let _ = rustix::thread::set_current_timer_slack(slack);
}

/// What [`oversleep`] was told last. Not asked of `prctl`, whose answer rustix takes for an `int`: two seconds fit into it.
#[cfg(test)]
pub fn of_this_thread() -> Duration {
    let thread = rustix::thread::gettid();
    let path = format!("/proc/{}/timerslack_ns", thread.as_raw_nonzero());
    let nanos = std::fs::read_to_string(path).expect("a kernel that knows it");
    Duration::from_nanos(nanos.trim().parse().expect("a number"))
}
