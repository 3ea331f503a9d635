//! Control of a running daemon over a unix socket: status for whoever may open it, and everything that changes something
//! for root and the daemon's own user. There is no such thing over TCP.
//!
//! A request is one line of JSON, its answer one line or several: notes while it takes its time, then what came of it.
//!
//! ```text
//! protocol   what can be asked (one enum), and the answers
//! server     accepts, reads, judges who asks, answers; on a thread and a runtime of its own
//! requests   what each request does
//! client     asks; what the commands of the command line use
//! document   the answer to `status`, also at /-/status
//! ```
//!
//! **To add a request:** a variant in [`protocol::Request`] and whether it changes something, an arm in
//! [`requests::answer`], and a command in `cli/` that calls [`client::ask`].

pub mod client;
pub mod document;
pub mod protocol;
pub mod requests;
pub mod server;
