//! How long Kafka keeps what is not backed up yet: the retention of the job's topics, asked again and again, because it
//! can be changed at any time.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;

use super::JobRunner;
use crate::kafka::KafkaError;
use crate::kafka::admin::TIMEOUT;
use crate::kafka::topic_config::Configs;
use crate::model::deadline::effective_retention_ms;

/// How often it is asked for. Retention is counted in hours and days.
const EVERY: Duration = Duration::from_secs(300);

/// The settings of the topics, or why they are not known.
#[derive(Message)]
#[rtype(result = "()")]
struct Settings(Result<Configs, KafkaError>);

impl JobRunner {
    /// Begins to look at retention.
    pub(super) fn watch_retention(&self, ctx: &mut Context<Self>) {
        self.ask_for_retention(ctx);
        ctx.run_interval(EVERY, |act, ctx| act.ask_for_retention(ctx));
    }

    fn ask_for_retention(&self, ctx: &Context<Self>) {
        if self.goal.is_some() {
            return; // a one-shot run is over soon and shows nothing
        }
        let topics: Vec<_> = self.topics.iter().cloned().collect();
        let (cluster, addr) = (self.cluster.cluster.clone(), ctx.address());
        self.io.spawn(async move { addr.do_send(Settings(cluster.topic_configs(&topics, TIMEOUT).await)) });
    }
}

impl Handler<Settings> for JobRunner {
    type Result = ();

    fn handle(&mut self, Settings(settings): Settings, _: &mut Self::Context) {
        let configs = match settings {
            Ok(configs) => configs,
            Err(error) => {
                // What was known stays shown. That brokers do not answer is said by those who need the answer.
                tracing::debug!(job = %self.job.id, %error, "retention of the topics not known");
                return;
            }
        };
        let retention: BTreeMap<_, _> = configs
            .iter()
            .filter_map(|(topic, settings)| {
                let value = |key: &str| settings.get(key).and_then(|entry| entry.value.as_deref());
                Some((topic.clone(), effective_retention_ms(value("cleanup.policy"), value("retention.ms"))?))
            })
            .collect();
        self.status.observe_retention(retention);
    }
}
