//! Kafka: the only room that names rdkafka, and the only one with `unsafe`.
//!
//! The crate leaves out what exactly-once needs: the offset of the partition-EOF event, leader epochs, topic ids,
//! header names that are not UTF-8, messages without an allocation each. They come through librdkafka's C interface
//! here, wrapped so that nothing outside can misuse it.

pub mod admin;
mod asker;
mod bootstrap;
mod call;
pub mod consumer;
pub mod coordination;
pub mod create;
mod epoch;
mod ffi;
pub mod groups;
mod headers;
mod member;
mod message;
pub mod mock;
pub mod patience;
pub mod permissions;
pub mod producer;
pub mod queue;
pub mod queue_error;
pub mod reader;
pub mod settings;
mod slack;
pub mod topic_config;
mod version;

use std::sync::Arc;

use crate::error::{Error, Exit};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition of a topic.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What kind of failure a Kafka call ended with, as far as what to do next depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Credentials or permissions.
    Auth,
    /// No answer in time.
    Timeout,
    /// No broker reachable, leader elections, connections lost.
    Unavailable,
    /// The topic or partition is not there.
    UnknownTopic,
    /// The position asked for is not in the log (with `auto.offset.reset=error`).
    OutOfRange,
    /// Another client with the same static or transactional identity took over.
    Fenced,
    /// A property librdkafka does not know or refuses.
    Config,
    /// It exists already.
    Exists,
    /// The record is larger than the topic takes.
    TooLarge,
    /// Anything else.
    Other,
}

impl Kind {
    /// Its name, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::UnknownTopic => "unknown_topic",
            Self::OutOfRange => "out_of_range",
            Self::Fenced => "fenced",
            Self::Config => "config",
            Self::Exists => "exists",
            Self::TooLarge => "too_large",
            Self::Other => "other",
        }
    }
}

/// A failed Kafka call.
#[derive(Debug, Clone, thiserror::Error)]
#[error("kafka {operation}: {message}")]
pub struct KafkaError {
    /// Which call, and on what.
    pub operation: String,
    /// What kind of failure.
    pub kind: Kind,
    /// What librdkafka or the broker said; never a secret.
    pub message: String,
}

/// How a call ended, for metrics.
fn result_name<T>(result: &Result<T, KafkaError>) -> &'static str {
    result.as_ref().err().map_or("ok", |error| error.kind.name())
}

/// A failed call as what a command ends with.
impl From<KafkaError> for Error {
    fn from(error: KafkaError) -> Self {
        let (exit, hint) = match error.kind {
            Kind::Auth => (Exit::Auth, "check the credentials and the ACLs of this user"),
            Kind::Config => (Exit::Config, "check the cluster's [properties]"),
            Kind::UnknownTopic => (Exit::NotFound, "check the topic's name"),
            Kind::Timeout | Kind::Unavailable => (Exit::Unavailable, "check bootstrap_servers and the network"),
            _ => return Error::new(Exit::Failed, error.to_string()),
        };
        Error::new(exit, error.to_string()).hint(hint)
    }
}
