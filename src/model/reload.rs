//! What a reload comes to: which jobs it adds, changes, removes or leaves alone, and what it may not do.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// As it may be shown.
    pub shown: String,
    /// What may not or need not be shown but counts: the hash of a secret, or of the content of a file.
    pub mark: String,
}

/// Effective values by key, defaults expanded.
pub type Facts = BTreeMap<String, Fact>;

/// A whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// What concerns the process.
    pub main: Facts,
    /// What concerns each job, by its id.
    pub jobs: BTreeMap<String, Facts>,
}

/// What it takes for a changed value to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it holds at once.
    Live,
    /// The job is handed over to a new run of itself.
    Restart,
    /// It cannot change: the process would have to be another one, or the backup would be another one.
    Fixed,
}

/// Keys of the main file that hold at once; the others belong to the process for as long as it lives.
const LIVE_MAIN: &[&str] = &["drain_timeout", "jobs_dir", "log.level", "strict_reload", "watch", "watch_settle"];
/// Keys of a job that hold at once.
const LIVE_JOB: &[&str] = &["rate_limit", "rpo_target"];
/// What makes a job's backup the one it is.
const IDENTITY: &[&str] = &["instance", "storage.bucket", "storage.path", "storage.prefix", "storage.type", "type"];

/// What a changed key of the main file takes.
pub fn effect_on_process(key: &str) -> Effect {
    if LIVE_MAIN.contains(&key) { Effect::Live } else { Effect::Fixed }
}

/// What a changed key of a job takes.
pub fn effect_on_job(key: &str) -> Effect {
    match key {
        key if LIVE_JOB.contains(&key) => Effect::Live,
        key if IDENTITY.contains(&key) => Effect::Fixed,
        _ => Effect::Restart,
    }
}

/// A key that has another value now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Which.
    pub key: String,
    /// What runs; empty where it was not there.
    pub from: String,
    /// What is wanted; empty where it is not there any more. The same where only the content of a file differs.
    pub to: String,
}

/// What changes of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobChange {
    /// It is handed over to a new run of itself.
    pub restart: bool,
    /// Which keys, at least one.
    pub keys: Vec<Changed>,
}

/// What a reload does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Keys of the main file.
    pub main: Vec<Changed>,
    /// Jobs that are new.
    pub added: BTreeSet<String>,
    /// Jobs that are not as they were.
    pub changed: BTreeMap<String, JobChange>,
    /// Jobs that are not there any more.
    pub removed: BTreeSet<String>,
    /// Jobs that are not touched.
    pub unchanged: BTreeSet<String>,
}

/// Why a reload may not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A key that cannot change while the process lives.
    NeedsRestart(Changed),
    /// A job would become another backup.
    OtherBackup {
        /// Which job.
        job: String,
        /// By which key.
        changed: Changed,
    },
    /// So many jobs would go that it is rather a mistake.
    Empties {
        /// Which would go.
        removed: BTreeSet<String>,
        /// Of how many.
        of: usize,
    },
}

/// From this number of jobs on, more than half of them do not go without being asked for.
const MANY: usize = 4;

/// Compares what runs with what is wanted.
///
/// # Errors
/// Everything that forbids it.
pub fn plan(running: &Picture, wanted: &Picture, allow_removals: bool) -> Result<Plan, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let main = differences(&running.main, &wanted.main);
    refusals
        .extend(main.iter().filter(|c| effect_on_process(&c.key) == Effect::Fixed).cloned().map(Refusal::NeedsRestart));
    let mut plan = Plan { main, ..Plan::default() };
    for (job, facts) in &wanted.jobs {
        let Some(before) = running.jobs.get(job) else {
            plan.added.insert(job.clone());
            continue;
        };
        let keys = differences(before, facts);
        if keys.is_empty() {
            plan.unchanged.insert(job.clone());
            continue;
        }
        let fixed = keys.iter().filter(|changed| effect_on_job(&changed.key) == Effect::Fixed);
        refusals.extend(fixed.map(|changed| Refusal::OtherBackup { job: job.clone(), changed: changed.clone() }));
        let restart = keys.iter().any(|changed| effect_on_job(&changed.key) != Effect::Live);
        plan.changed.insert(job.clone(), JobChange { restart, keys });
    }
    plan.removed = running.jobs.keys().filter(|job| !wanted.jobs.contains_key(*job)).cloned().collect();
    let (gone, of) = (plan.removed.len(), running.jobs.len());
    let empties = of > 0 && wanted.jobs.is_empty() || of >= MANY && gone * 2 > of;
    if empties && !allow_removals {
        refusals.push(Refusal::Empties { removed: plan.removed.clone(), of });
    }
    if refusals.is_empty() { Ok(plan) } else { Err(refusals) }
}

fn differences(before: &Facts, after: &Facts) -> Vec<Changed> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown = |fact: Option<&Fact>| fact.map(|fact| fact.shown.clone()).unwrap_or_default();
    let differ = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    differ.map(|key| Changed { key: key.clone(), from: shown(before.get(key)), to: shown(after.get(key)) }).collect()
}

impl Plan {
    /// Nothing changes.
    pub fn is_empty(&self) -> bool {
        self.main.is_empty() && self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// For people, a line for each job that is touched.
    pub fn text(&self) -> String {
        let mut lines: Vec<String> = self.main.iter().map(|changed| format!("~ main file: {changed}")).collect();
        lines.extend(self.added.iter().map(|job| format!("+ {job}")));
        for (job, change) in &self.changed {
            let keys: Vec<_> = change.keys.iter().map(ToString::to_string).collect();
            let how = if change.restart { "restart" } else { "live" };
            lines.push(format!("~ {job} ({how}): {}", keys.join("; ")));
        }
        lines.extend(self.removed.iter().map(|job| format!("- {job}")));
        match self.unchanged.len() {
            0 => {}
            1 => lines.push("= 1 job unchanged".to_owned()),
            n => lines.push(format!("= {n} jobs unchanged")),
        }
        lines.join("\n")
    }
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.from.as_str(), self.to.as_str()) {
            (from, to) if from == to => write!(f, "{} ({to})", self.key),
            ("", to) => write!(f, "{} = {to}", self.key),
            (from, "") => write!(f, "{} is not {from} any more", self.key),
            (from, to) => write!(f, "{} {from} -> {to}", self.key),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NeedsRestart(changed) => write!(
                f,
                "{}: cannot change while the daemon runs ({changed})\n  hint: undo it, or systemctl restart kafka-backup",
                changed.key
            ),
            Self::OtherBackup { job, changed } => write!(
                f,
                "job {job}: {}: would make it another backup ({changed})\n  hint: give the new one a file, and so a name, \
                 of its own; what is backed up stays where it is",
                changed.key
            ),
            Self::Empties { removed, of } => {
                let names = removed.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = if removed.len() > 5 { ", ..." } else { "" };
                write!(
                    f,
                    "{} of {of} jobs would be removed ({names}{more})\n  hint: is a mount missing? if it is meant: \
                     kafka-backup reload --allow-removals",
                    removed.len()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn fact(shown: &str, mark: &str) -> Fact {
        Fact { shown: shown.to_owned(), mark: mark.to_owned() }
    }

    fn facts(of: &[(&str, &str)]) -> Facts {
        of.iter().map(|(key, value)| ((*key).to_owned(), fact(value, ""))).collect()
    }

    fn jobs(ids: &[&str]) -> Picture {
        let jobs = ids.iter().map(|id| ((*id).to_owned(), facts(&[("flush_size", "1")]))).collect();
        Picture { main: Facts::new(), jobs }
    }

    fn one(key: &str, value: &str) -> Picture {
        Picture { main: Facts::new(), jobs: BTreeMap::from([("a".to_owned(), facts(&[(key, value)]))]) }
    }

    #[rstest]
    #[case::live("rpo_target", "~ a (live): rpo_target 1 -> 2")]
    #[case::live_too("rate_limit", "~ a (live): rate_limit 1 -> 2")]
    #[case::restart("flush_size", "~ a (restart): flush_size 1 -> 2")]
    #[case::a_key_nobody_has_classed("anything", "~ a (restart): anything 1 -> 2")]
    fn a_changed_key(#[case] key: &str, #[case] text: &str) {
        assert_eq!(plan(&one(key, "1"), &one(key, "2"), false).unwrap().text(), text);
    }

    #[rstest]
    #[case("storage.prefix", "would make it another backup (storage.prefix 1 -> 2)")]
    #[case("storage.bucket", "would make it another backup")]
    #[case("type", "would make it another backup")]
    fn identity_does_not_change(#[case] key: &str, #[case] text: &str) {
        let refusals = plan(&one(key, "1"), &one(key, "2"), true).unwrap_err();
        assert!(refusals[0].to_string().contains(text), "{refusals:?}");
    }

    #[rstest]
    #[case("state_dir", false)]
    #[case("http.listen", false)]
    #[case("memory.budget", false)]
    #[case("log.level", true)]
    #[case("drain_timeout", true)]
    #[case("strict_reload", true)]
    #[case("watch", true)]
    #[case("watch_settle", true)]
    fn the_main_file(#[case] key: &str, #[case] allowed: bool) {
        let main = |value| Picture { main: facts(&[(key, value)]), ..Picture::default() };
        let planned = plan(&main("1"), &main("2"), false);
        assert_eq!(planned.is_ok(), allowed, "{planned:?}");
    }

    #[test]
    fn a_rotated_secret_is_a_change_that_shows_nothing() {
        let with = |mark: &str| {
            let facts = Facts::from([("sasl.password".to_owned(), fact("content of /s", mark))]);
            Picture { main: Facts::new(), jobs: BTreeMap::from([("a".to_owned(), facts)]) }
        };
        let plan = plan(&with("hash1"), &with("hash2"), false).unwrap();
        assert_eq!(plan.text(), "~ a (restart): sasl.password (content of /s)");
    }

    #[rstest]
    #[case::the_only_one(&["a"], &[], false)]
    #[case::all_of_two(&["a", "b"], &[], false)]
    #[case::one_of_two(&["a", "b"], &["a"], true)]
    #[case::two_of_three(&["a", "b", "c"], &["a"], true)]
    #[case::half_of_four(&["a", "b", "c", "d"], &["a", "b"], true)]
    #[case::three_of_four(&["a", "b", "c", "d"], &["a"], false)]
    #[case::replaced(&["a", "b", "c", "d"], &["e", "f", "g", "h"], false)]
    #[case::none_there_at_all(&[], &[], true)]
    #[case::the_first(&[], &["a"], true)]
    fn emptying(#[case] running: &[&str], #[case] wanted: &[&str], #[case] allowed: bool) {
        let (running, wanted) = (jobs(running), jobs(wanted));
        assert_eq!(plan(&running, &wanted, false).is_ok(), allowed);
        assert!(plan(&running, &wanted, true).is_ok());
    }

    #[test]
    fn everything_is_said_at_once() {
        let mut running = jobs(&["a", "b"]);
        running.main = facts(&[("state_dir", "1"), ("http.listen", "1")]);
        let mut wanted = jobs(&["a", "b"]);
        wanted.main = facts(&[("state_dir", "2"), ("http.listen", "2")]);
        wanted.jobs.get_mut("a").unwrap().insert("storage.prefix".to_owned(), fact("x", ""));
        assert_eq!(plan(&running, &wanted, false).unwrap_err().len(), 3);
    }

    fn picture() -> impl Strategy<Value = Picture> {
        let key = prop::sample::select(vec!["flush_size", "rpo_target", "topics", "rate_limit"]);
        let facts = prop::collection::btree_map(
            key.prop_map(str::to_owned),
            (0..3u8).prop_map(|v| fact("v", &v.to_string())),
            0..4,
        );
        prop::collection::btree_map("[a-f]", facts, 0..6).prop_map(|jobs| Picture { main: Facts::new(), jobs })
    }

    proptest! {
        #[test]
        fn nothing_changes_when_nothing_has(p in picture()) {
            let plan = plan(&p, &p, false).unwrap();
            prop_assert!(plan.is_empty());
            prop_assert_eq!(plan.unchanged.len(), p.jobs.len());
        }

        /// Each job is in exactly one class, and the classes are what they say.
        #[test]
        fn every_job_has_one_fate(running in picture(), wanted in picture()) {
            let plan = plan(&running, &wanted, true).unwrap();
            let all: BTreeSet<_> = running.jobs.keys().chain(wanted.jobs.keys()).cloned().collect();
            for job in &all {
                let fate = (running.jobs.get(job), wanted.jobs.get(job));
                prop_assert_eq!(plan.added.contains(job), fate.0.is_none());
                prop_assert_eq!(plan.removed.contains(job), fate.1.is_none());
                prop_assert_eq!(plan.unchanged.contains(job), fate.0 == fate.1);
                prop_assert_eq!(plan.changed.contains_key(job), fate.0.is_some() && fate.1.is_some() && fate.0 != fate.1);
                let live = |c: &Changed| effect_on_job(&c.key) == Effect::Live;
                prop_assert!(plan.changed.get(job).is_none_or(|c| c.restart != c.keys.iter().all(live)));
            }
        }
    }
}
