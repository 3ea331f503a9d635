//! Kafka Backup: copies Apache Kafka topics to S3 continuously, exactly once, and puts them back on demand.

pub mod backoff;
pub mod cli;
pub mod clock;
pub mod compacted;
pub mod config;
pub mod control;
pub mod error;
#[cfg(debug_assertions)]
pub mod failpoint;
pub mod heartbeat;
pub mod http;
pub mod inspect;
pub mod kafka;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod pipeline;
pub mod process;
pub mod reload;
pub mod restore;
pub mod retention;
pub mod scrape;
pub mod signal;
pub mod standing;
pub mod state;
pub mod storage;
pub mod supervisor;
pub mod watchdog;
