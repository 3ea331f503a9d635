//! What a coordinator watches besides its turns: whether the settings of the topic leave time for a scan, and whether there
//! is a successor where one is wanted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::{Coordinator, TICK};
use crate::clock::millis;
use crate::compacted::now::now;
use crate::kafka::admin::TIMEOUT;
use crate::model::compacted::partner::differ;

/// How often the topic's settings are read; more often where turns are short.
const SETTINGS_EVERY: Duration = Duration::from_secs(30);
const SHORT_SETTINGS_EVERY: Duration = Duration::from_secs(2);
/// The mock cluster has no settings: Kafka's default of `delete.retention.ms`.
const DELETE_RETENTION_MS: i64 = 24 * 3600 * 1000;

#[derive(Message)]
#[rtype(result = "()")]
struct TopicSettings(Option<i64>);

impl Coordinator {
    /// Reads the topic's `delete.retention.ms` now and then: the smallest since the run began counts.
    pub(super) fn ask_settings(&mut self, ctx: &Context<Self>) {
        if self.settings_asked.is_some_and(|at| at.elapsed() < self.settings_every()) {
            return;
        }
        self.settings_asked = Some(Instant::now());
        let (addr, cluster, topic) = (ctx.address(), self.parts.cluster.cluster.clone(), self.parts.topic.clone());
        self.parts.process.io().spawn(async move {
            let found = cluster.topic_configs(std::slice::from_ref(&topic), TIMEOUT).await.ok();
            let value = found.and_then(|all| match all.get(&topic) {
                Some(config) if !config.is_empty() => config.get("delete.retention.ms")?.value.as_ref()?.parse().ok(),
                _ => Some(DELETE_RETENTION_MS),
            });
            addr.do_send(TopicSettings(value));
        });
    }

    fn settings_every(&self) -> Duration {
        if self.is_short() { SHORT_SETTINGS_EVERY } else { SETTINGS_EVERY }
    }

    /// An owner that has asked for a successor, and hears of none: the partner does not run, or looks elsewhere.
    pub(super) fn warn_of_no_successor(&self) {
        let Some(state) = &self.state else { return };
        let silent_ms = match state.heard() {
            Some((_, at)) => now().boot_ms - at,
            None => millis(self.began.elapsed()),
        };
        let alone = state.wants_successor() && silent_ms >= self.settings.partner_timeout_ms;
        let why = alone.then(|| {
            format!(
                "a successor of instance {:?} is wanted, and no other instance of topic {} was heard of for partner_timeout: \
                 does its job run, and has it the same topics, storage, cluster and coordination_topic ({})? This \
                 instance goes on; its folder grows until then",
                self.instance.to_string(),
                self.parts.topic,
                self.one.coordination_topic
            )
        });
        self.report.trouble("no successor", why, false);
    }

    /// The partner's job has other topics, as it says itself. Said once for the two jobs, for the first topic they share.
    pub(super) fn compare_topics(&self, partner: &str, topics: &BTreeSet<String>) {
        let why = differ(&self.topics, topics).map(|differ| {
            format!(
                "the jobs of instances {:?} and {partner:?} have different topics: {differ}; write the \
                 same `topics` in both",
                self.instance.to_string()
            )
        });
        let is_first = self.topics.intersection(topics).next().is_none_or(|first| *first == self.parts.topic);
        self.report.trouble("topics", why.filter(|_| is_first), false);
    }

    /// `delete.retention.ms` shorter than twice the last scan: the next one may be too slow.
    pub(super) fn warn_of_short_retention(&self) {
        let (Some(took), Some(retention)) = (self.report.now.last_scan_seconds, self.delete_retention_now_ms) else {
            return;
        };
        let short = took * 2000.0 > retention as f64;
        let why = short.then(|| {
            format!(
                "the last scan took {took:.1} s, and delete.retention.ms of topic {} is {retention} ms, less than twice as \
                 long: such a scan is discarded; raise delete.retention.ms to at least {:.0} ms",
                self.parts.topic,
                took * 4000.0
            )
        });
        self.report.trouble("delete.retention.ms", why, false);
    }
}

impl Handler<TopicSettings> for Coordinator {
    type Result = ();

    fn handle(&mut self, TopicSettings(retention): TopicSettings, _: &mut Self::Context) {
        let Some(retention) = retention else {
            // Soon again: without it no TERM is made.
            self.settings_asked = self.settings_asked.and_then(|at| at.checked_sub(self.settings_every() - TICK));
            return;
        };
        self.delete_retention_ms = Some(self.delete_retention_ms.map_or(retention, |known| known.min(retention)));
        self.delete_retention_now_ms = Some(retention);
        self.warn_of_short_retention();
    }
}
