//! What people see of a compacted topic: log events, problems of the job, and the facts behind status and metrics.

use std::sync::Arc;

use crate::clock::now_ms;
use crate::metrics;
use crate::model::compacted::deletion::Refused;
use crate::model::compacted::record;
use crate::model::compacted::{Notice, State, Status, WhyScan};
use crate::pipeline::shown::TurnStatus;
use crate::pipeline::status::JobStatus;

/// What is said of one instance of one topic.
pub(super) struct Report {
    pub status: Arc<JobStatus>,
    pub topic: String,
    pub instance: String,
    pub now: TurnStatus,
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Activate => "ACTIVATE",
        Status::Passivate => "PASSIVATE",
        Status::CatchingUp => "CATCHING_UP",
    }
}

impl Report {
    /// Nothing is known as yet.
    pub fn new(status: Arc<JobStatus>, topic: &str, instance: &str, length_ms: i64) -> Self {
        let now = TurnStatus { instance: instance.to_owned(), since_ms: now_ms(), length_ms, ..TurnStatus::default() };
        Self { status, topic: topic.to_owned(), instance: instance.to_owned(), now }
    }

    /// Takes over what the machine knows, and shows it.
    pub fn show(&mut self, state: &State) {
        let now = &mut self.now;
        let phase = state.phase().name();
        if now.phase != phase {
            tracing::info!(job = %self.status.job.id, topic = %self.topic, instance = %self.instance, from = %now.phase,
                to = phase, "compacted instance");
            (now.phase, now.since_ms) = (phase.to_owned(), now_ms());
        }
        now.status = status_word(state.status()).to_owned();
        now.run = state.followed().map(ToString::to_string).unwrap_or_default();
        now.tainted = state.is_tainted();
        if let Some(owner) = state.view().and_then(|view| view.owner.as_ref()) {
            if owner.number != now.term {
                now.last_swap_ms = Some(owner.created_ms);
            }
            (now.term, now.owner) = (owner.number, owner.instance.to_string());
        }
        if self.now.term > 0 {
            // Who begins matters only as long as nobody has.
            self.over(&["initial_status"]);
        }
        self.status.show_turn(&self.topic, self.now.clone());
    }

    /// The partner was heard of.
    pub fn heard(&mut self) {
        if std::mem::take(&mut self.now.partner_silent) {
            self.trouble("partner", None, false);
        }
    }

    /// What was wrong is over.
    pub fn over(&self, subjects: &[&str]) {
        subjects.iter().for_each(|subject| self.trouble(subject, None, false));
    }

    /// Something fails, or does so no more.
    pub fn trouble(&self, what: &str, why: Option<String>, needs_operator: bool) {
        let subject = format!("{} {what}", self.topic);
        match why {
            Some(why) => self.status.problem(&subject, why, needs_operator),
            None => self.status.solved(&subject),
        }
    }

    /// Tells the operator.
    pub fn say(&mut self, notice: &Notice) {
        let (job, topic, instance) = (&self.status.job.id.clone(), &self.topic.clone(), &self.instance.clone());
        macro_rules! event {
            ($level:ident, $($rest:tt)*) => {
                tracing::$level!(job = %job, topic = %topic, instance = %instance, $($rest)*)
            };
        }
        match notice {
            Notice::ScanBegan { run, why } => {
                self.now.expected_end_ms = None;
                let why = match why {
                    WhyScan::First => "nothing has been backed up yet",
                    WhyScan::Asked => "the active instance asks for it",
                    WhyScan::Silence => "the partner is silent",
                    WhyScan::Swap => "by hand",
                    WhyScan::Resumed => "it had begun before the restart",
                };
                event!(info, run = %run, why, "scan begins");
            }
            Notice::TookOver { term } => {
                self.now.last_swap_ms = Some(now_ms());
                self.heard();
                self.over(&["scan", "successor", "snapshot", "TERM", "deletion", "refusal"]);
                event!(info, term, "owner of the snapshot");
            }
            Notice::HandingOver { term } => {
                self.over(&["successor", "snapshot", "TERM"]);
                event!(info, term, "handing over to the other instance");
            }
            Notice::Cleared => {
                self.over(&["scan", "successor", "snapshot", "TERM", "deletion", "refusal"]);
                event!(info, "the folder is empty");
            }
            Notice::ScanAbandoned { term } => {
                self.over(&["scan", "TERM"]);
                event!(info, term, "scan abandoned: the other instance has a newer snapshot")
            }
            Notice::WantsSuccessor => event!(info, "asks the other instance to take over"),
            Notice::ScanTooSlow { took_ms, limit_ms } => {
                metrics::error("compacted", "scan_too_slow");
                let why = format!(
                    "the scan took {} s, but a key that was deleted is certain to be seen for {} s only \
                     (half of delete.retention.ms): it begins again; raise delete.retention.ms of topic {topic} to at \
                     least {} ms, or make the scan faster (rate_limit, memory.budget)",
                    took_ms / 1000,
                    limit_ms / 1000,
                    took_ms.saturating_mul(4)
                );
                self.trouble("scan", Some(why), false);
            }
            Notice::Tainted { behind_ms, limit_ms } => {
                let why = format!(
                    "the snapshot is tainted: it was {} s behind, and deleted keys are certain to be seen for {} s only \
                     (half of delete.retention.ms), so that some may have survived in it; a successor is asked for",
                    behind_ms / 1000,
                    limit_ms / 1000
                );
                self.trouble("snapshot", Some(why), false);
            }
            Notice::RecordsLost { discarded } => {
                metrics::error("compacted", "records_lost");
                let (subject, then) = if *discarded {
                    ("scan", "the scan begins again")
                } else {
                    ("snapshot", "the snapshot is tainted, and a successor is asked for")
                };
                let why = format!(
                    "Kafka deleted records before they were read: keys that are gone, and old values, may have survived \
                     in what was read before; {then}"
                );
                self.trouble(subject, Some(why), false);
            }
            Notice::SuccessorTooSlow { term } => {
                let why = format!(
                    "TERM {term} of the other instance did not catch up within partner_timeout; this one goes on"
                );
                self.trouble("successor", Some(why), false);
            }
            Notice::PartnerSilent => {
                self.now.partner_silent = true;
                let why = "nothing was heard of an active partner for partner_timeout: does the other instance run?";
                self.trouble("partner", Some(why.to_owned()), false);
            }
            Notice::SameInitialStatus => {
                let why = "the other instance has the same initial_status; write ACTIVATE in one of the two jobs and \
                           PASSIVATE in the other";
                self.trouble("initial_status", Some(why.to_owned()), false);
            }
            Notice::SnapshotDamaged { term } => {
                let why = format!(
                    "objects of TERM {term}, or the record of its run, are gone: somebody deleted them; a successor is \
                     asked for"
                );
                self.trouble("snapshot", Some(why), false);
            }
            Notice::DeletionRefused(why) => {
                self.now.refused_deletions += 1;
                metrics::compacted_refused(job, topic, instance);
                if *why == Refused::NoProof {
                    let text = format!(
                        "objects in {topic}/{instance}/ are in the way and are not deleted: {why}; put back what was deleted \
                         under {}, or move these objects away",
                        record::folder(topic)
                    );
                    self.trouble("refusal", Some(text), true);
                }
                match why {
                    Refused::Pinned { .. } => event!(info, %why, "deletion refused"),
                    _ => event!(warn, %why, "deletion refused"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let job = Arc::new(crate::pipeline::tests::any_job("j", "t"));
        Report::new(JobStatus::new(job), "t", "a", 1000)
    }

    fn wrong(report: &Report) -> Vec<String> {
        report.status.problems().into_keys().collect()
    }

    /// Nothing but a person helps there.
    #[test]
    fn objects_in_the_way_without_a_proof_are_a_problem_until_they_are_gone() {
        let mut report = report();
        report.say(&Notice::DeletionRefused(Refused::OwnIsNewest));
        assert!(wrong(&report).is_empty());
        report.say(&Notice::DeletionRefused(Refused::NoProof));
        let problems = report.status.problems();
        let text = &problems["t refusal"].text;
        assert!(text.contains("t/a/") && text.contains("_kafka_backup/compacted/t/"), "{text}");
        report.say(&Notice::Cleared);
        assert!(wrong(&report).is_empty());
    }

    #[rstest::rstest]
    #[case::owner(&Notice::TookOver { term: 2 }, &[])]
    #[case::folder_empty(&Notice::Cleared, &["t partner"])]
    #[case::successor_came(&Notice::HandingOver { term: 2 }, &["t partner", "t scan"])]
    #[case::scan_given_up(&Notice::ScanAbandoned { term: 2 }, &["t partner", "t snapshot", "t successor"])]
    fn what_is_over_is_no_problem(#[case] then: &Notice, #[case] left: &[&str]) {
        let mut report = report();
        report.say(&Notice::PartnerSilent);
        report.say(&Notice::ScanTooSlow { took_ms: 2, limit_ms: 1 });
        report.say(&Notice::Tainted { behind_ms: 2, limit_ms: 1 });
        report.say(&Notice::SuccessorTooSlow { term: 1 });
        assert_eq!(wrong(&report), ["t partner", "t scan", "t snapshot", "t successor"]);
        report.say(then);
        assert_eq!(wrong(&report), left);
        assert_eq!(report.now.partner_silent, left.contains(&"t partner"), "the metric says the same");
    }
}
