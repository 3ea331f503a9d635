//! Changes settings of a topic.

use std::time::Duration;

use rdkafka::bindings::*;
use rdkafka::types::RDKafkaRespErr as Code;

use super::admin::{Answer, Cluster, Options, array, is_mock};
use super::ffi::{self, Client, c_string, c_text, take_error};
use super::{KafkaError, Kind};

impl Cluster {
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
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(ffi::error(&operation, code, text));
        }
    }
    Ok(())
}
