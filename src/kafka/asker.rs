//! What the thread of a cluster asks with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;

use super::ffi::{Client, Events, Role};
use super::settings::{self, KafkaConfig};
use super::{KafkaError, Kind};

/// A client, made anew once when it is first asked about a group.
pub(super) struct Asker {
    client: Client,
    kafka: KafkaConfig,
    /// The client has a group's name.
    named: bool,
}

impl Asker {
    pub(super) fn new(kafka: KafkaConfig) -> Result<Self, KafkaError> {
        Ok(Self { client: connect(&kafka, &settings::admin(&kafka))?, kafka, named: false })
    }

    /// The client for everything but the offsets of groups.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// A client that may ask for the offsets of groups. When a coordinator answers that it is none any more, librdkafka
    /// (2.12.1, `rd_kafka_handle_OffsetFetch`) has the client's own group look for a new one, and dies of a null pointer
    /// where there is none. So the client takes the name of the first group that is asked about, which the user may see in
    /// any case. It never joins.
    pub(super) fn of_group(&mut self, group: &str) -> Result<&Client, KafkaError> {
        if !self.named {
            self.client = connect(&self.kafka, &settings::group_admin(&self.kafka, group))?;
            // There is nothing to leave.
            self.client.abandon();
            self.named = true;
        }
        Ok(&self.client)
    }
}

fn connect(kafka: &KafkaConfig, settings: &ClientConfig) -> Result<Client, KafkaError> {
    Client::new(Role::CONSUMER, &kafka.name, settings, Arc::new(Quiet::new(&kafka.name)))
}

/// How often the same kind of error is logged.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The call under way ends with an error of its own; these name the broker. While brokers are away they come with every
/// attempt to reach one.
struct Quiet {
    cluster: String,
    said: Mutex<HashMap<Kind, Instant>>,
}

impl Quiet {
    fn new(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), said: Mutex::default() }
    }

    /// Whether an error of this kind is news.
    fn is_news(&self, kind: Kind, now: Instant) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = said.get(&kind).is_none_or(|before| now.duration_since(*before) >= SAY_AGAIN);
        if is_news {
            said.insert(kind, now);
        }
        is_news
    }
}

impl Events for Quiet {
    fn error(&self, error: KafkaError, _fatal: bool) {
        if self.is_news(error.kind, Instant::now()) {
            tracing::warn!(cluster = %self.cluster, %error, "kafka");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_and_again_is_said_once_a_minute() {
        let (quiet, begin) = (Quiet::new("main"), Instant::now());
        let said = [(Kind::Unavailable, 0), (Kind::Unavailable, 59), (Kind::Auth, 59), (Kind::Unavailable, 60)]
            .map(|(kind, seconds)| quiet.is_news(kind, begin + Duration::from_secs(seconds)));
        assert_eq!(said, [true, false, true, true]);
    }
}
