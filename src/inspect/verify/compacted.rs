//! The records of a compacted topic in a verification: read before its lists are walked through, and once more behind that,
//! because instances take turns meanwhile, and delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::compacted::bucket::Bucket;
use crate::error::Result;
use crate::model::compacted::look::Seen;
use crate::model::key::PartitionPath;
use crate::model::verify::Finding;
use crate::model::verify::terms::{self, Runs};
use crate::restore::compacted::failed;
use crate::restore::gather;
use crate::storage::Store;

/// What is known of a compacted topic.
pub struct Compacted {
    bucket: Bucket,
    topic: String,
    seen: Seen,
    runs: Runs,
    /// What was found in the lists of its instances.
    held: Vec<Finding>,
}

impl Compacted {
    /// Reads the records of `topic`; `None` where it has none, and is no compacted topic.
    pub async fn read(store: &Arc<dyn Store>, topic: &str) -> Result<Option<Self>> {
        let bucket = Bucket::new(store.clone(), topic, None);
        let Some(runs) = bucket.all_runs().await.map_err(gather::failed)? else { return Ok(None) };
        let seen = bucket.look_from_outside().await.map_err(failed)?;
        Ok(Some(Self { bucket, topic: topic.to_owned(), seen, runs, held: Vec::new() }))
    }

    /// The job that keeps the newest snapshot; that of the last run where there is none yet.
    pub fn job(&self) -> Option<&str> {
        let titled = terms::newest(&self.seen).and_then(|term| terms::run_of(term, &self.runs));
        let run = titled.or_else(|| self.runs.values().flatten().max_by_key(|run| run.started_ms))?;
        Some(&run.job)
    }

    /// The runs that must be whole under `path`, and where each begins.
    pub fn whole_runs(&self, path: &PartitionPath) -> BTreeMap<String, Option<i64>> {
        terms::whole_runs(&self.seen, &self.runs, path)
    }

    /// Keeps what was found in the list of an instance until it is known whether a turn took place meanwhile.
    pub fn hold(&mut self, finding: Finding) {
        self.held.push(finding);
    }

    /// Everything that was found, judged by the records as they are now.
    pub async fn settle(mut self) -> Result<Vec<Finding>> {
        let before = terms::newest(&self.seen).map(|term| term.term);
        self.seen = self.bucket.look_from_outside().await.map_err(failed)?;
        self.runs = self.bucket.all_runs().await.map_err(gather::failed)?.unwrap_or_default();
        let turned = before != terms::newest(&self.seen).map(|term| term.term);
        let judged = terms::judge(&self.topic, &self.seen, &self.runs);
        Ok(terms::settle(self.held, judged, turned))
    }
}
