//! What the thread of a cluster asks with.

use std::sync::Arc;

use rdkafka::ClientConfig;

use super::KafkaError;
use super::ffi::{Client, Events, Role};
use super::settings::{self, KafkaConfig};

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
    Client::new(Role::CONSUMER, &kafka.name, settings, Arc::new(Quiet(kafka.name.clone())))
}

struct Quiet(String);
impl Events for Quiet {
    fn error(&self, error: KafkaError, _fatal: bool) {
        // The call under way ends with an error of its own; this one names the broker.
        tracing::warn!(cluster = %self.0, %error, "kafka");
    }
}
