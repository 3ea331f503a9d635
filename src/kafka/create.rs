//! Creates topics, or asks whether they could be created.

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::KafkaError;
use super::admin::Cluster;
use super::call::{Answer, Options, array};
use super::ffi::{self, Client, c_string, c_text};

/// A topic that is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions it is to have, at least 1; -1 is the broker's default.
    pub partitions: i32,
    /// On how many brokers each is to be; `None` is the broker's default.
    pub replication_factor: Option<i32>,
    /// Settings other than the broker's defaults.
    pub configs: BTreeMap<String, String>,
}

impl Cluster {
    /// Creates a topic; [`Kind::Exists`](super::Kind::Exists) when it is there.
    pub async fn create_topic(&self, topic: &NewTopic, timeout: Duration) -> Result<(), KafkaError> {
        let topic = topic.clone();
        self.ask("create_topic", move |client| create_topic(client, &topic, timeout, false)).await
    }

    /// Asks whether a topic could be created: permissions, policies and settings are judged, nothing is done.
    pub async fn could_create_topic(&self, topic: &NewTopic, timeout: Duration) -> Result<(), KafkaError> {
        let topic = topic.clone();
        self.ask("create_topic", move |client| create_topic(client, &topic, timeout, true)).await
    }
}

fn create_topic(client: &Client, new: &NewTopic, timeout: Duration, only_asked: bool) -> Result<(), KafkaError> {
    let operation = format!("create topic {}", new.name);
    let c_name = c_string(&operation, &new.name)?;
    let pair = |(key, value): (&String, &String)| Ok((c_string(&operation, key)?, c_string(&operation, value)?));
    let configs = new.configs.iter().map(pair).collect::<Result<Vec<_>, KafkaError>>()?;
    let mut text = [0 as c_char; ffi::ERROR_TEXT];
    // SAFETY: a valid name and a buffer with its length; -1 is the broker's default.
    let topic = unsafe {
        let replication_factor = new.replication_factor.unwrap_or(-1);
        rd_kafka_NewTopic_new(c_name.as_ptr(), new.partitions, replication_factor, text.as_mut_ptr(), text.len())
    };
    let mut topic = NonNull::new(topic)
        .ok_or_else(|| ffi::error(&operation, Code::RD_KAFKA_RESP_ERR__INVALID_ARG, c_text(text.as_ptr())))?
        .as_ptr();
    for (key, value) in &configs {
        // SAFETY: copied.
        unsafe { rd_kafka_NewTopic_set_config(topic, key.as_ptr(), value.as_ptr()) };
    }
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout);
    // SAFETY: valid options and a buffer with its length; it fails for other operations only.
    unsafe {
        rd_kafka_AdminOptions_set_validate_only(options.ptr(), only_asked.into(), text.as_mut_ptr(), text.len());
    }
    // SAFETY: the topic is copied into the request.
    let answer = Answer::wait(client, &operation, |queue| unsafe {
        rd_kafka_CreateTopics(client.ptr(), &mut topic, 1, options.ptr(), queue);
        rd_kafka_NewTopic_destroy(topic);
    })?;
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    let results = unsafe {
        let result = rd_kafka_event_CreateTopics_result(answer.ptr());
        array(rd_kafka_CreateTopics_result_topics(result, &mut count), count)
    };
    for &result in results {
        // SAFETY: an element of the answer.
        let (code, text) =
            unsafe { (rd_kafka_topic_result_error(result), c_text(rd_kafka_topic_result_error_string(result))) };
        ffi::check_said(&operation, code, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::settings::KafkaConfig;

    #[tokio::test]
    async fn a_setting_that_cannot_be_sent_is_refused() {
        let nowhere = KafkaConfig {
            name: "nowhere".to_owned(),
            bootstrap_servers: vec!["127.0.0.1:1".to_owned()],
            properties: BTreeMap::new(),
        };
        let topic = NewTopic {
            name: "t".to_owned(),
            partitions: 1,
            replication_factor: None,
            configs: BTreeMap::from([("cleanup.policy".to_owned(), "compact\0".to_owned())]),
        };
        let cluster = Cluster::connect(&nowhere).expect("a client");
        let error = cluster.create_topic(&topic, Duration::from_secs(1)).await.expect_err("refused");
        assert!(error.message.contains("NUL"), "{error}");
    }
}
