//! Gives the restored topics the settings of their sources, once all records are there.

use serde_json::json;

use super::target::{KafkaTarget, failed};
use super::text::print;
use crate::error::Result;
use crate::kafka::{KafkaError, Kind};
use crate::model::restore::{Plan, TopicPlan};

/// Applies what the plan says of every topic. Settings that the target does not take are named and counted; anything
/// else that fails is an error.
pub async fn apply(target: &KafkaTarget, plan: &Plan, json: bool) -> Result<usize> {
    let mut refused = 0;
    for topic in &plan.topics {
        refused += apply_to(target, topic, json).await?;
    }
    Ok(refused)
}

async fn apply_to(target: &KafkaTarget, topic: &TopicPlan, json: bool) -> Result<usize> {
    let changes: Vec<(String, Option<String>)> =
        topic.settings.changes.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    if changes.is_empty() {
        return Ok(0);
    }
    let mut refused: Vec<(String, String)> = Vec::new();
    match target.alter(&topic.target, &changes).await {
        Ok(()) => {}
        Err(error) if is_refusal(&error) => {
            // Refused as a whole: one by one it shows which.
            for change in &changes {
                match target.alter(&topic.target, std::slice::from_ref(change)).await {
                    Ok(()) => {}
                    Err(error) if is_refusal(&error) => refused.push((change.0.clone(), error.message)),
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        Err(error) => return Err(failed(error)),
    }
    for (key, why) in &refused {
        tracing::warn!(topic = topic.target, setting = key, why, "the target does not take this setting of the source");
    }
    for (key, value) in &topic.settings.left_out {
        tracing::warn!(topic = topic.target, setting = key, value, "left out: it names brokers of the source cluster");
    }
    let applied = changes.iter().filter(|(key, _)| refused.iter().all(|(other, _)| other != key));
    let applied: serde_json::Map<_, _> = applied.map(|(key, value)| (key.clone(), json!(value))).collect();
    tracing::info!(topic = topic.target, settings = %json!(applied), "settings of the source applied");
    if json {
        let refused: serde_json::Map<_, _> = refused.iter().map(|(key, why)| (key.clone(), json!(why))).collect();
        let (topic, left_out) = (&topic.target, &topic.settings.left_out);
        let line = json!({
            "message_type": "topic_config", "topic": topic, "applied": applied, "refused": refused, "left_out": left_out,
        });
        print(&line.to_string())?;
    }
    Ok(refused.len())
}

fn is_refusal(error: &KafkaError) -> bool {
    error.kind == Kind::Config
}
