//! The settings of topics, read and changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings::*;

use super::admin::{Cluster, is_mock};
use super::call::{Answer, Options, array};
use super::ffi::{self, Client, c_string, c_text, take_error};
use super::{KafkaError, Kind};

/// One setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its value; `None` for sensitive ones.
    pub value: Option<String>,
    /// Not set for this topic: the broker's or Kafka's default.
    pub is_default: bool,
    /// Cannot be changed.
    pub read_only: bool,
    /// A secret.
    pub sensitive: bool,
}

/// Settings by topic and name.
pub type Configs = BTreeMap<String, BTreeMap<String, ConfigEntry>>;

impl Cluster {
    /// The settings of topics, by topic and name. Empty with the mock cluster, which has none.
    pub async fn topic_configs(&self, topics: &[String], timeout: Duration) -> Result<Configs, KafkaError> {
        let topics = topics.to_vec();
        self.ask("topic_configs", move |client| topic_configs(client, &topics, timeout)).await
    }

    /// Sets settings of a topic, and sets those without a value back to the broker's defaults: all of them, or none
    /// when one is refused ([`Kind::Config`]). Others stay as they are.
    pub async fn alter_topic(
        &self,
        topic: &str,
        changes: &[(String, Option<String>)],
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let (topic, changes) = (topic.to_owned(), changes.to_vec());
        self.ask("alter_topic", move |client| alter_topic(client, &topic, &changes, timeout)).await
    }
}

fn topic_configs(client: &Client, topics: &[String], timeout: Duration) -> Result<Configs, KafkaError> {
    if topics.is_empty() || is_mock(client, timeout)? {
        return Ok(Configs::new());
    }
    let operation = "describe topic configurations";
    let unique: BTreeSet<&String> = topics.iter().collect();
    let names = unique.iter().map(|t| c_string(operation, t)).collect::<Result<Vec<CString>, _>>()?;
    let kind = rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
    // SAFETY: names are copied; the resources are ours until destroyed below.
    let mut resources: Vec<_> =
        names.iter().map(|n| unsafe { rd_kafka_ConfigResource_new(kind, n.as_ptr()) }).collect();
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeout);
    // SAFETY: the resources are copied into the request.
    let answer = Answer::wait(client, operation, |queue| unsafe {
        rd_kafka_DescribeConfigs(client.ptr(), resources.as_mut_ptr(), resources.len(), options.ptr(), queue);
        rd_kafka_ConfigResource_destroy_array(resources.as_mut_ptr(), resources.len());
    })?;
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    let resources = unsafe {
        let result = rd_kafka_event_DescribeConfigs_result(answer.ptr());
        array(rd_kafka_DescribeConfigs_result_resources(result, &mut count), count)
    };
    resources.iter().map(|&resource| resource_configs(resource)).collect()
}

fn resource_configs(
    resource: *const rd_kafka_ConfigResource_t,
) -> Result<(String, BTreeMap<String, ConfigEntry>), KafkaError> {
    let mut count = 0;
    // SAFETY: a resource that the answer keeps alive.
    unsafe {
        let name = c_text(rd_kafka_ConfigResource_name(resource));
        let (code, text) =
            (rd_kafka_ConfigResource_error(resource), c_text(rd_kafka_ConfigResource_error_string(resource)));
        ffi::check_said(&format!("describe the configuration of topic {name}"), code, text)?;
        let entries = array(rd_kafka_ConfigResource_configs(resource, &mut count), count);
        Ok((name, entries.iter().map(|&entry| config_entry(entry)).collect()))
    }
}

fn config_entry(entry: *const rd_kafka_ConfigEntry_t) -> (String, ConfigEntry) {
    // SAFETY: an entry that the answer keeps alive.
    unsafe {
        let value = rd_kafka_ConfigEntry_value(entry);
        let is_default =
            rd_kafka_ConfigEntry_source(entry) != rd_kafka_ConfigSource_t::RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG;
        let entry_out = ConfigEntry {
            value: (!value.is_null()).then(|| c_text(value)),
            is_default,
            read_only: rd_kafka_ConfigEntry_is_read_only(entry) == 1,
            sensitive: rd_kafka_ConfigEntry_is_sensitive(entry) == 1,
        };
        (c_text(rd_kafka_ConfigEntry_name(entry)), entry_out)
    }
}

fn alter_topic(
    client: &Client,
    topic: &str,
    changes: &[(String, Option<String>)],
    timeout: Duration,
) -> Result<(), KafkaError> {
    let operation = format!("change the settings of topic {topic}");
    if is_mock(client, timeout)? {
        let message = "a mock cluster has no settings".to_owned();
        return Err(KafkaError { operation, kind: Kind::Other, message });
    }
    let name = c_string(&operation, topic)?;
    let mut texts = Vec::new();
    for (key, value) in changes {
        let value = value.as_ref().map(|value| c_string(&operation, value)).transpose()?;
        texts.push((c_string(&operation, key)?, value));
    }
    let options = Options::new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS, timeout);
    // SAFETY: the name is copied; the resource is ours until destroyed below.
    let mut resource =
        unsafe { rd_kafka_ConfigResource_new(rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr()) };
    let mut added = Ok(());
    for (key, value) in &texts {
        let (how, value) = match value {
            Some(value) => (rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET, value.as_ptr()),
            None => (rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE, std::ptr::null()),
        };
        // SAFETY: a resource of ours and valid strings, which are copied.
        let error = unsafe { rd_kafka_ConfigResource_add_incremental_config(resource, key.as_ptr(), how, value) };
        added = added.and(take_error(&operation, error));
    }
    let answer = added.and_then(|()| {
        // SAFETY: the resource is copied into the request.
        Answer::wait(client, &operation, |queue| unsafe {
            rd_kafka_IncrementalAlterConfigs(client.ptr(), &mut resource, 1, options.ptr(), queue);
        })
    });
    // SAFETY: ours, and not used any more.
    unsafe { rd_kafka_ConfigResource_destroy(resource) };
    let answer = answer?;
    let mut count = 0;
    // SAFETY: the answer to this call; what it returns lives as long as the answer.
    let results = unsafe {
        let result = rd_kafka_event_IncrementalAlterConfigs_result(answer.ptr());
        array(rd_kafka_IncrementalAlterConfigs_result_resources(result, &mut count), count)
    };
    for &result in results {
        // SAFETY: an element of the answer.
        let (code, text) =
            unsafe { (rd_kafka_ConfigResource_error(result), c_text(rd_kafka_ConfigResource_error_string(result))) };
        ffi::check_said(&operation, code, text)?;
    }
    Ok(())
}
