//! Walks through what a store holds of a topic, in the order of the listing, and has every list judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::Verify;
use super::data::Work;
use super::report::Report;
use super::tails::Tails;
use crate::error::{Error, Exit, Result};
use crate::model::chain::GenerationRecord;
use crate::model::key::{self, ObjectKey, PartitionPath};
use crate::model::object::{Metadata, ObjectMeta};
use crate::model::verify::chain::{Chain, Extent, Reach, Root, Seen, Told};
use crate::model::verify::subset::Picker;
use crate::model::verify::{Expiry, Finding, Mode, Reason, Severity};
use crate::restore::gather;
use crate::storage::retry::retry;
use crate::storage::{Entry, Head, StoreError};

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
    /// Whether heads may be gone: so where the bucket says that its objects expire, or did once.
    expiry: Expiry,
    /// What an earlier verification has seen.
    before: Tails,
    now: Tails,
    /// Lists that have objects.
    seen: BTreeSet<(Option<String>, i32)>,
    /// Branches that have objects of ours and no record.
    unrooted: BTreeSet<Option<String>>,
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
        let newest = records.values().next_back();
        let job: Arc<str> = newest.map_or("", |record| record.job.as_str()).into();
        if self.verify.job.as_deref().is_some_and(|wanted| *wanted != *job) {
            return Ok(false);
        }
        if records.is_empty() && bad.is_empty() && gather::outline(store, topic).await?.is_none() {
            return Ok(false);
        }
        let before = Tails::load(store, topic).await?;
        let record = key::retention_record(topic);
        let expired = retry(PATIENCE, || store.head(&record)).await.map_err(gather::failed)?;
        let expiry = if expired.is_some() { Expiry::Possible } else { (self.verify.expiry)(topic) };
        let (seen, unrooted, now) = (BTreeSet::new(), BTreeSet::new(), Tails::new(topic));
        let mut topic = Topic { walk: self, name: topic, job, records, expiry, before, now, seen, unrooted };
        bad.into_iter().for_each(|finding| topic.found(finding));
        topic.check_records();
        topic.walk_through().await?;
        topic.check_absent();
        self.report.topic();
        if self.verify.record && self.verify.mode >= Mode::Manifest {
            topic.now.merge(&topic.before);
            topic.now.store(store).await;
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
        if matches!(word, Word::Vanished) && chain.may_expire() {
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
        chain.next(&Seen { key: entry.key.clone(), offset: name.offset, size, told }, &mut findings);
        findings.into_iter().for_each(|finding| self.found(finding));
        if self.walk.verify.mode == Mode::Data && is_readable && self.walk.picker.takes(&entry.key) {
            let may_expire = chain.root().expiry == Expiry::Possible;
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
        findings.into_iter().for_each(|finding| self.found(finding));
    }

    fn remember(&mut self, path: &PartitionPath, uuid: Option<String>, extent: Extent) {
        if let (Some(uuid), Some(next)) = (uuid, extent.next) {
            self.now.remember(path, uuid, next);
        }
    }

    /// What is known of a list.
    fn root(&self, path: &PartitionPath) -> Root {
        let expiry = self.expiry;
        let record = key::generation_of(path.branch.as_deref()).and_then(|n| self.records.get(&n));
        match record.filter(|record| !record.is_adopted()) {
            Some(record) => Root {
                uuid: Some(record.uuid.clone()),
                origin: Some(record.fork(path.partition).unwrap_or_else(|| record.origin(path.partition))),
                expiry,
                whole_runs: BTreeMap::new(),
            },
            None => Root { expiry, ..Root::unknown() },
        }
    }

    /// What says how far a list must reach: a generation that forked from it, and what was seen of it before.
    fn reaches(&self, path: &PartitionPath) -> Vec<Reach> {
        let Some(n) = key::generation_of(path.branch.as_deref()) else { return Vec::new() };
        let Some(record) = self.records.get(&n).filter(|record| !record.is_adopted()) else { return Vec::new() };
        let children = self.records.values().filter(|child| child.parent == Some(n));
        let forks = children.filter_map(|child| {
            let witness = format!("generation {}, which began behind it,", child.generation);
            Some(Reach { until: child.fork(path.partition)?, witness })
        });
        let before = self.before.reach(path, &record.uuid).into_iter();
        forks.chain(before).collect()
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

    fn found(&self, finding: Finding) {
        self.walk.report.finding(&self.job, &finding);
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
