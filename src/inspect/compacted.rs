//! What `info` says of a compacted topic: both instances, their TERMs, which one is complete, and taint. An instance
//! that no TERM names shows by its folder alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::branch::BranchInfo;
use crate::clock::rfc3339;
use crate::compacted::bucket::Bucket;
use crate::error::Result;
use crate::model::compacted::look::{Seen, newest};
use crate::model::compacted::view::Owner;
use crate::restore::compacted::failed;
use crate::storage::Store;

/// A compacted topic.
#[derive(Debug, Serialize)]
pub struct CompactedInfo {
    /// The highest valid TERM: what is restored; none when there is no complete snapshot.
    pub term: Option<u64>,
    /// Whose it is.
    pub owner: Option<String>,
    /// Deleted keys may have survived in it.
    pub tainted: bool,
    /// Below which offset it can be restored now, by partition.
    pub restorable: BTreeMap<i32, i64>,
    /// What its instances have, by name.
    pub instances: BTreeMap<String, InstanceInfo>,
    /// Restores that read now.
    pub pins: usize,
    /// There ever was a TERM.
    #[serde(skip)]
    pub titled: bool,
}

/// One instance.
#[derive(Debug, Default, Serialize)]
pub struct InstanceInfo {
    /// Its TERMs, void ones left out.
    pub terms: Vec<u64>,
    /// The highest valid TERM is its own.
    pub complete: bool,
    /// When its last scan began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan_began: Option<String>,
    /// When that was found complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan_ended: Option<String>,
    /// Objects in its folder.
    pub objects: usize,
    /// Their size.
    pub bytes: u64,
}

/// Looks at a topic, in which these folders of instances lie; `None` when it has neither those nor a TERM.
///
/// # Errors
/// The store does not answer.
pub async fn look(store: &Arc<dyn Store>, topic: &str, folders: &[BranchInfo]) -> Result<Option<CompactedInfo>> {
    let seen = Bucket::new(store.clone(), topic, None).look_from_outside().await.map_err(failed)?;
    let mut info = info(&seen);
    for folder in folders {
        let Some(name) = &folder.instance else { continue };
        // Those that a TERM names have been listed. In the others somebody scans, or a scan was left lying.
        info.instances.entry(name.clone()).or_insert_with(|| InstanceInfo {
            objects: folder.partitions.iter().map(|partition| partition.objects as usize).sum(),
            bytes: folder.partitions.iter().map(|partition| partition.bytes).sum(),
            ..InstanceInfo::default()
        });
    }
    Ok((info.titled || !info.instances.is_empty()).then_some(info))
}

fn info(seen: &Seen) -> CompactedInfo {
    let mut instances: BTreeMap<String, InstanceInfo> = BTreeMap::new();
    for term in seen.terms.values().flatten().filter(|term| !term.void) {
        let instance = instances.entry(term.instance.to_string()).or_default();
        instance.terms.push(term.term);
        instance.scan_began = Some(rfc3339(term.scan_started_ms));
        instance.scan_ended = Some(rfc3339(term.scan_ended_ms));
    }
    for (name, objects) in &seen.objects {
        let instance = instances.entry(name.to_string()).or_default();
        instance.objects = objects.len();
        instance.bytes = objects.iter().map(|object| object.size).sum();
    }
    let owner = newest(seen);
    if let Some(instance) = owner.as_ref().and_then(|owner| instances.get_mut(&*owner.instance)) {
        instance.complete = true;
    }
    CompactedInfo {
        term: owner.as_ref().map(|owner| owner.number),
        owner: owner.as_ref().map(|owner| owner.instance.to_string()),
        tainted: owner.as_ref().is_some_and(Owner::is_tainted),
        restorable: owner.map(|owner| owner.reached).unwrap_or_default(),
        instances,
        pins: seen.pins.len(),
        titled: !seen.terms.is_empty(),
    }
}

impl CompactedInfo {
    /// In words, a line for each instance.
    pub fn text(&self, topic: &str) -> String {
        let mut text = match (&self.owner, self.term) {
            (Some(owner), Some(term)) => {
                let taint = if self.tainted { ", tainted: deleted keys may have survived in it" } else { "" };
                format!("{topic}: TERM {term} of instance {owner} is the newest complete snapshot{taint}\n")
            }
            _ if self.titled => format!("{topic}: there is no complete snapshot: objects of every TERM are missing\n"),
            _ => format!("{topic}: there is no complete snapshot yet: no scan has come to its end\n"),
        };
        for (name, instance) in &self.instances {
            let state = if instance.complete { "complete" } else { "not complete" };
            let terms = match instance.terms.as_slice() {
                [] => "no TERM yet".to_owned(),
                terms => format!("TERMs {terms:?}"),
            };
            text += &format!(
                "{topic}: instance {name} is {state}; {terms}, {} objects, {} bytes\n",
                instance.objects, instance.bytes
            );
        }
        if self.pins > 0 {
            text += &format!("{topic}: {} restores hold pins\n", self.pins);
        }
        text
    }
}
