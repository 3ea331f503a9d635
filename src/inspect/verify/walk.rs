//! Walks through what a store holds of a topic, in the order of the listing, and has every list judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::compacted::Compacted;
use super::data::Work;
use super::report::Report;
use super::request::Verify;
use crate::error::{Error, Exit, Result};
use crate::model::chain::GenerationRecord;
use crate::model::key::{self, ObjectKey, PartitionPath};
use crate::model::lifecycle::head::HeadRecord;
use crate::model::object::{Metadata, ObjectMeta};
use crate::model::verify::aging::Aging;
use crate::model::verify::chain::{Chain, Extent, Reach, Root, Seen, Told};
use crate::model::verify::subset::Picker;
use crate::model::verify::tails::Tails;
use crate::model::verify::{Expiry, Finding, Mode, Reason, Severity};
use crate::restore::gather;
use crate::storage::retry::retry;
use crate::storage::{Body, Entry, Head, Store, StoreError};

/// How many objects of a topic are asked at the same time.
const HEADS: usize = 32;

/// How long a store may be out of reach.
const PATIENCE: Duration = Duration::from_secs(60);

/// One verification's walk.
pub struct Walk<'a> {
    /// What is asked for.
    pub verify: &'a Verify,
    /// Which objects are read.
    pub picker: Picker,
    /// Those that are.
    pub work: mpsc::Sender<Work>,
    /// Where findings go.
    pub report: &'a Arc<Report>,
}

/// An entry of the listing, asked what it is.
struct Asked {
    entry: Entry,
    /// What its name says; `None`: it is not a name of ours.
    name: Option<ObjectKey>,
    word: Word,
}

enum Word {
    Unasked,
    Vanished,
    Said(Head, Result<Metadata, String>),
}

/// A topic while it is walked through.
struct Topic<'a> {
    walk: &'a Walk<'a>,
    name: &'a str,
    job: Arc<str>,
    records: BTreeMap<u32, GenerationRecord>,
    /// What is known of the age at which its objects go.
    aging: Aging,
    /// Where quiet lists end.
    heads: BTreeMap<i32, HeadRecord>,
    /// What an earlier verification has seen.
    before: Tails,
    now: Tails,
    /// Lists that have objects.
    seen: BTreeSet<(Option<String>, i32)>,
    /// Branches that have objects of ours and no record.
    unrooted: BTreeSet<Option<String>>,
    /// What the records of a compacted topic say.
    compacted: Option<Compacted>,
}

impl Walk<'_> {
    /// Looks at one topic; `false` when there is nothing of it, or it is another job's.
    pub async fn topic(&self, topic: &str) -> Result<bool> {
        let store = &self.verify.store;
        let (mut records, mut bad) = (BTreeMap::new(), Vec::new());
        for (key, record) in gather::each_record(store, topic).await? {
            match record {
                Ok(record) => _ = records.insert(record.generation, record),
                Err(error) => bad.push(finding(Reason::Metadata, key, error.why)),
            }
        }
        let compacted = Compacted::read(store, topic).await?;
        let newest = records.values().next_back().map(|record| record.job.as_str());
        let job: Arc<str> = newest.or(compacted.as_ref().and_then(Compacted::job)).unwrap_or_default().into();
        if self.verify.job.as_deref().is_some_and(|wanted| *wanted != *job) {
            return Ok(false);
        }
        let is_known = !records.is_empty() || !bad.is_empty() || compacted.is_some();
        if !is_known && gather::outline(store, topic).await?.is_none() {
            return Ok(false);
        }
        let before = gather::tails(store, topic).await?.map_err(|error| {
            Error::new(Exit::Failed, error.to_string())
                .hint("it says how far the lists of the topic reached; remove it to begin anew, or use a newer version")
        })?;
        let heads = gather::heads(store, topic).await?;
        let unrecorded = (self.verify.expiry)(topic);
        let aging = gather::aging(store, topic, unrecorded).await?.unwrap_or_else(|error| {
            bad.push(finding(Reason::Metadata, key::retention_record(topic), error.why));
            Aging::default()
        });
        let (seen, unrooted, now) = (BTreeSet::new(), BTreeSet::new(), Tails::new(topic));
        let mut topic =
            Topic { walk: self, name: topic, job, records, aging, heads, before, now, seen, unrooted, compacted };
        bad.into_iter().for_each(|finding| topic.found(finding));
        topic.check_records();
        topic.walk_through().await?;
        topic.check_absent();
        topic.settle().await?;
        self.report.topic();
        if self.verify.record && self.verify.mode >= Mode::Manifest {
            topic.now.merge(&topic.before);
            keep(&topic.now, store).await;
        }
        Ok(true)
    }

    async fn ask(&self, entry: Entry) -> Result<Asked, StoreError> {
        let name = key::parse(&entry.key);
        let word = match &name {
            Some(_) if self.verify.mode >= Mode::Manifest && entry.size > 0 => {
                match gather::word(&self.verify.store, &entry.key).await? {
                    Some((head, word)) => Word::Said(head, word),
                    None => Word::Vanished,
                }
            }
            _ => Word::Unasked,
        };
        Ok(Asked { entry, name, word })
    }
}

impl<'a> Topic<'a> {
    async fn walk_through(&mut self) -> Result<()> {
        let walk = self.walk;
        let entries = gather::entries(&walk.verify.store, format!("{}/", self.name));
        let mut asked = entries.map_ok(|entry| walk.ask(entry)).try_buffered(HEADS).map_err(gather::failed).boxed();
        let mut chain: Option<Chain> = None;
        while let Some(Asked { entry, name, word }) = asked.try_next().await? {
            let Some(name) = name else {
                self.foreign(entry);
                continue;
            };
            if chain.as_ref().is_some_and(|chain| *chain.path() != name.path)
                && let Some(done) = chain.take()
            {
                self.end(done);
            }
            let chain = chain.get_or_insert_with(|| {
                self.seen.insert((name.path.branch.clone(), name.path.partition));
                Chain::new(name.path.clone(), self.root(&name.path))
            });
            self.object(chain, entry, &name, word).await?;
        }
        if let Some(done) = chain.take() {
            self.end(done);
        }
        Ok(())
    }

    async fn object(&mut self, chain: &mut Chain, entry: Entry, name: &ObjectKey, word: Word) -> Result<()> {
        let mut word = word;
        // Retention takes the oldest, also while we look.
        if matches!(word, Word::Vanished) && chain.may_expire(entry.modified_ms) {
            return Ok(());
        }
        // An instance of a compacted topic that has lost its turn clears its folder; what should not be gone shows in the end.
        let is_instance = key::generation_of(name.path.branch.as_deref()).is_none();
        if matches!(word, Word::Vanished) && is_instance {
            return Ok(());
        }
        let mut told = self::told(&entry, name, &word, chain.root());
        if matches!(told, Told::Bad(..)) {
            // Asked again before it is called so.
            word = self.walk.ask(entry.clone()).await.map_err(gather::failed)?.word;
            told = self::told(&entry, name, &word, chain.root());
        }
        let (size, etag) = match word {
            Word::Said(head, _) => (head.size, head.etag),
            Word::Unasked | Word::Vanished => (entry.size, entry.etag),
        };
        self.walk.report.object(&self.job, size);
        let meta = match &told {
            Told::Ours(meta) => Some(meta.clone()),
            _ => None,
        };
        self.check_root(name, meta.as_deref());
        let is_readable = matches!(told, Told::Ours(_) | Told::Older) && size > 0;
        let mut findings = Vec::new();
        let may_expire = is_instance || chain.root().aging.expiry(Some(entry.modified_ms)) == Expiry::Possible;
        let seen = Seen { key: entry.key.clone(), offset: name.offset, size, modified_ms: entry.modified_ms, told };
        chain.next(&seen, &mut findings);
        findings.into_iter().for_each(|finding| self.of_list(finding));
        if self.walk.verify.mode == Mode::Data && is_readable && self.walk.picker.takes(&entry.key) {
            let (name, key, job) = (name.clone(), entry.key, self.job.clone());
            let work = Work { name, key, size, etag, meta, may_expire, job };
            let ended = |_| Error::new(Exit::Failed, "nobody reads objects any more");
            self.walk.work.send(work).await.map_err(ended)?;
        }
        Ok(())
    }

    /// What lies among the objects and is not one. Folders that a console has made are nothing.
    fn foreign(&self, entry: Entry) {
        if !(entry.size == 0 && entry.key.ends_with('/')) {
            let what = "it is not an object of a backup".to_owned();
            self.found(finding(Reason::Foreign, entry.key, what));
        }
    }

    fn end(&mut self, chain: Chain) {
        let path = chain.path().clone();
        let reaches = self.reaches(&path);
        let uuid = chain.root().uuid.clone();
        let mut findings = Vec::new();
        let extent = chain.end(&reaches, &mut findings);
        self.walk.report.partition(&self.job, extent.gap_offsets);
        self.remember(&path, uuid, extent);
        findings.into_iter().for_each(|finding| self.of_list(finding));
    }

    fn remember(&mut self, path: &PartitionPath, uuid: Option<String>, extent: Extent) {
        if let (Some(uuid), Some(next)) = (uuid, extent.next) {
            self.now.remember(path, uuid, next, extent.written_ms);
        }
    }

    /// What is known of a list.
    fn root(&self, path: &PartitionPath) -> Root {
        let aging = self.aging.clone();
        let record = key::generation_of(path.branch.as_deref()).and_then(|n| self.records.get(&n));
        let record = record.filter(|record| !record.is_adopted());
        // No object of a generation is older than its record.
        let expiry = aging.expiry(record.map(|record| record.created_ms));
        match record {
            Some(record) => Root {
                uuid: Some(record.uuid.clone()),
                origin: Some(record.fork(path.partition).unwrap_or_else(|| record.origin(path.partition))),
                expiry,
                aging,
                whole_runs: BTreeMap::new(),
            },
            None => {
                let whole_runs =
                    self.compacted.as_ref().map(|compacted| compacted.whole_runs(path)).unwrap_or_default();
                Root { expiry, aging, whole_runs, ..Root::unknown() }
            }
        }
    }

    /// What says how far a list must reach: a generation that forked from it, its head record, and what was seen of it
    /// before.
    fn reaches(&self, path: &PartitionPath) -> Vec<Reach> {
        let Some(n) = key::generation_of(path.branch.as_deref()) else { return Vec::new() };
        let Some(record) = self.records.get(&n).filter(|record| !record.is_adopted()) else { return Vec::new() };
        let children = self.records.values().filter(|child| child.parent == Some(n));
        let forks = children.filter_map(|child| {
            let witness = format!("generation {}, which began behind it,", child.generation);
            Some(Reach { until: child.fork(path.partition)?, witness, written_ms: None })
        });
        let head = self.heads.get(&path.partition).filter(|head| head.generation == record.uuid);
        let head = head.map(|head| {
            let witness = "its head record".to_owned();
            Reach { until: head.next_offset, witness, written_ms: None }
        });
        let before = self.before.reach(path, &record.uuid).into_iter();
        forks.chain(head).chain(before).collect()
    }

    /// A record in the middle that is missing, or one that others name.
    fn check_records(&self) {
        let newest = self.records.keys().next_back().copied().unwrap_or(0);
        let parents = self.records.values().filter_map(|record| record.parent);
        let named: BTreeSet<u32> = (1..newest).chain(parents).collect();
        for n in named.into_iter().filter(|n| !self.records.contains_key(n)) {
            let what = format!("the record of generation {n} is missing, and a later one is there");
            self.found(finding(Reason::Missing, key::generation_record(self.name, n), what));
        }
    }

    /// Objects of ours were never written without a record of their generation.
    fn check_root(&mut self, name: &ObjectKey, meta: Option<&ObjectMeta>) {
        let Some(n) = key::generation_of(name.path.branch.as_deref()) else { return };
        let newest = self.records.keys().next_back().copied().unwrap_or(0);
        // Below the newest it has been said already.
        if meta.is_some() && n > newest && self.unrooted.insert(name.path.branch.clone()) {
            let what = format!("the record of generation {n} is missing, and objects of it are there");
            self.found(finding(Reason::Missing, key::generation_record(self.name, n), what));
        }
    }

    /// Lists of which nothing is left, and that were there.
    fn check_absent(&mut self) {
        let mut absent: BTreeSet<PartitionPath> = self.before.paths().collect();
        for record in self.records.values() {
            let Some(parent) = record.parent else { continue };
            let partitions = record.forks.keys().filter_map(|partition| partition.parse().ok());
            absent.extend(partitions.map(|partition| PartitionPath::normal(self.name, parent, partition)));
        }
        for path in absent {
            let is_there = self.seen.contains(&(path.branch.clone(), path.partition));
            if !is_there {
                let root = self.root(&path);
                let mut findings = Vec::new();
                Chain::new(path.clone(), root).end(&self.reaches(&path), &mut findings);
                findings.into_iter().for_each(|finding| self.found(finding));
            }
        }
    }

    /// What was found in a list; of an instance of a compacted topic it is judged in the end.
    fn of_list(&mut self, finding: Finding) {
        let branch = finding.path.as_ref().and_then(|path| path.branch.as_deref());
        match &mut self.compacted {
            Some(compacted) if branch.is_some_and(key::is_instance) => compacted.hold(finding),
            _ => self.found(finding),
        }
    }

    /// Looks at the records of a compacted topic once more, and says what was found.
    async fn settle(&mut self) -> Result<()> {
        let Some(compacted) = self.compacted.take() else { return Ok(()) };
        compacted.settle().await?.into_iter().for_each(|finding| self.found(finding));
        Ok(())
    }

    fn found(&self, finding: Finding) {
        self.walk.report.finding(&self.job, &finding);
    }
}

/// Writes down how far the lists reach; not being able to is said and no failure: credentials that only read are enough
/// to verify.
async fn keep(tails: &Tails, store: &Arc<dyn Store>) {
    let key = key::tails_record(tails.topic());
    let Ok(json) = serde_json::to_vec(tails) else { return };
    let (body, metadata) = (Body::from(json), Metadata::new());
    if let Err(error) = retry(PATIENCE, || store.put(&key, &body, &metadata)).await {
        tracing::info!("how far the lists of {} reach is not kept: {error}", tails.topic());
    }
}

/// What an object says of itself, against its name and its list.
fn told(entry: &Entry, name: &ObjectKey, word: &Word, root: &Root) -> Told {
    match word {
        Word::Unasked => Told::Unasked,
        Word::Vanished => Told::Bad(Reason::Missing, "it was listed, and is not there".to_owned()),
        Word::Said(_, Err(why)) => Told::Bad(Reason::Decode, why.clone()),
        Word::Said(head, Ok(_)) if head.size != entry.size => {
            Told::Bad(Reason::Size, format!("it was listed with {} bytes and has {}", entry.size, head.size))
        }
        Word::Said(_, Ok(metadata)) => Told::judge(name, metadata, root),
    }
}

/// Damage that no offsets belong to.
fn finding(reason: Reason, key: String, what: String) -> Finding {
    Finding { severity: Severity::Damage, reason, key, path: None, affected: None, what }
}
