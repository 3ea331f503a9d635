//! Compacted topics: twenty swaps under load, while either daemon is killed at any moment and restores are made at others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::common::env::Env;
use crate::common::kafka::Producer;
use crate::common::record::Rec;
use crate::common::s3::Bucket;
use crate::common::{SOON, beside_others, wait_until};
use crate::compacted::{PARTITIONS, Two, partition_of, restored, value};

const SWAPS: usize = 20;
/// Far more than twenty swaps take, also on a machine with other things to do.
const LIMIT: Duration = Duration::from_secs(480);
const KEYS: u32 = 400;
/// Bytes of a value.
const SIZE: usize = 3_000;
/// For so long there may be more: between a kill and the next process that clears the folder, and while a restore is
/// reading it.
const LASTING: Duration = Duration::from_secs(60);
/// How old a restored snapshot may be: the time from a kill to the next process that backs up, and a hand-over.
const BEHIND: Duration = Duration::from_secs(60);

/// What was written, when, in the order of a partition: the offset of each is its place.
type Log = Vec<(Instant, String, Option<String>)>;

/// Writes all the time, and knows what was written.
struct Load {
    logs: Mutex<Vec<Log>>,
    live_bytes: AtomicUsize,
}

impl Load {
    fn new() -> Self {
        Self { logs: Mutex::new(vec![Log::new(); PARTITIONS as usize]), live_bytes: AtomicUsize::new(0) }
    }

    fn logs(&self) -> std::sync::MutexGuard<'_, Vec<Log>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes to these keys; every seventh record deletes one.
    fn write(&self, producer: &Producer, topic: &str, keys: impl Iterator<Item = u32>) {
        for key in keys {
            let key = format!("key-{key}");
            let partition = partition_of(&key);
            let mut logs = self.logs();
            let number = 1 + logs.iter().map(Vec::len).sum::<usize>() as u64;
            let value = (!number.is_multiple_of(7)).then(|| value(number, SIZE));
            let record = Rec { value: value.clone().map(String::into_bytes), ..Rec::new(number as i64, &key, "") };
            // Noted first: a restore may be faster than the acknowledgement.
            logs[partition].push((Instant::now(), key, value));
            producer.send(topic, partition as i32, &record);
        }
        producer.flush();
        let live = self.live();
        self.live_bytes.store(live.iter().map(|(key, value)| key.len() + value.len()).sum(), Ordering::Relaxed);
    }

    /// The latest value of each key.
    fn live(&self) -> BTreeMap<String, String> {
        let mut live = BTreeMap::new();
        for (_, key, value) in self.logs().iter().flatten() {
            apply(&mut live, key, value.as_ref());
        }
        live
    }

    /// Whether a restore that began at `began` gives in each partition what was live at one moment, with every key that
    /// then had a value, and none that was deleted. Returns how far that moment lies before `began`.
    fn check(&self, restored: &BTreeMap<String, String>, began: Instant) -> Result<Duration, String> {
        let mut behind = Duration::ZERO;
        for (partition, log) in self.logs().iter().enumerate() {
            let found: BTreeMap<_, _> = restored
                .iter()
                .filter(|(key, _)| partition_of(key) == partition)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            // Nothing is a snapshot only where nothing was ever written.
            let (mut live, mut end) = (BTreeMap::new(), log.is_empty().then_some(0).filter(|_| found.is_empty()));
            for (offset, (_, key, value)) in log.iter().enumerate() {
                apply(&mut live, key, value.as_ref());
                if live == found {
                    end = Some(offset + 1);
                }
            }
            let keys: Vec<_> = found.keys().collect();
            let end = end.ok_or_else(|| format!("partition {partition} was never like that: {keys:?}"))?;
            let missing = log.get(end).map_or(Duration::ZERO, |(at, ..)| began.saturating_duration_since(*at));
            behind = behind.max(missing);
        }
        Ok(behind)
    }
}

fn apply(live: &mut BTreeMap<String, String>, key: &str, value: Option<&String>) {
    match value {
        Some(value) => _ = live.insert(key.to_owned(), value.clone()),
        None => _ = live.remove(key),
    }
}

/// Whose each TERM is, in their order, but for those that are used up; each record is read once.
struct Terms {
    bucket: Bucket,
    prefix: String,
    seen: BTreeMap<String, Option<String>>,
}

impl Terms {
    fn of(two: &Two) -> Self {
        let prefix = format!("_kafka_backup/compacted/{}/TERM-", two.topic);
        Self { bucket: two.a.bucket.clone(), prefix, seen: BTreeMap::new() }
    }

    /// How often the snapshot has gone over to the other instance.
    fn swaps(&mut self) -> usize {
        for object in self.bucket.list(&self.prefix) {
            if object.key.ends_with("tainted.json") || self.seen.contains_key(&object.key) {
                continue;
            }
            let record: serde_json::Value = serde_json::from_slice(&self.bucket.get(&object.key).0).expect("a TERM");
            let owner = (record["void"] == false).then(|| record["instance"].as_str().expect("its owner").to_owned());
            self.seen.insert(object.key, owner);
        }
        let mut owners: Vec<(u64, &String)> =
            self.seen.iter().filter_map(|(key, owner)| Some((self.number(key), owner.as_ref()?))).collect();
        owners.sort();
        owners.windows(2).filter(|pair| pair[0].1 != pair[1].1).count()
    }

    fn number(&self, key: &str) -> u64 {
        let number = key.rsplit("TERM-").next().and_then(|rest| rest.strip_suffix(".json"));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{key} is no TERM"))
    }
}

/// Looks at the topic's part of the bucket all the time. Returns the most bytes that were seen, the longest time for
/// which it was more than three times what was live, and how often was looked.
fn watch_size(two: &Two, load: &Load, over: &AtomicBool) -> (usize, Duration, usize) {
    let prefix = format!("{}/", two.topic);
    let (mut most, mut longest, mut looks, mut since) = (0, Duration::ZERO, 0, None);
    while !over.load(Ordering::Relaxed) {
        let now: usize = two.a.bucket.list(&prefix).iter().map(|object| object.size as usize).sum();
        since = (now > 3 * load.live_bytes.load(Ordering::Relaxed)).then(|| since.unwrap_or_else(Instant::now));
        (most, looks) = (most.max(now), looks + 1);
        longest = longest.max(since.map_or(Duration::ZERO, |since| since.elapsed()));
        std::thread::sleep(Duration::from_millis(200));
    }
    (most, longest, looks)
}

/// Restores at random moments. Returns how often, and how far the oldest of these snapshots was behind.
fn restore_again_and_again(two: &Two, load: &Load, over: &AtomicBool, random: &mut Rng) -> (usize, Duration) {
    // The daemons write their own files.
    let reader = Env::new().sharing(&two.a.bucket);
    let (mut restores, mut behind) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(random.u64(0..6_000)));
        let began = Instant::now();
        let found = restored(&reader, &two.kafka, &two.topic);
        let moment = load.check(&found, began).unwrap_or_else(|why| panic!("restore {restores}: {why}"));
        (restores, behind) = (restores + 1, behind.max(moment));
    }
    (restores, behind)
}

/// Kills either daemon at random moments until there were enough swaps. Returns how often each was killed.
fn kill_until_swapped(two: &Two, random: &mut Rng) -> [u32; 2] {
    let (began, mut terms, mut kills) = (Instant::now(), Terms::of(two), [0, 0]);
    let start = |which: usize| [&two.a, &two.b][which].daemon();
    let mut daemons = [0, 1].map(|which| Some(start(which).ready()));
    loop {
        let swaps = terms.swaps();
        if swaps >= SWAPS {
            println!("{swaps} swaps in {:?}, kills of a and b: {kills:?}", began.elapsed());
            break;
        }
        assert!(
            began.elapsed() < LIMIT,
            "only {swaps} of {SWAPS} swaps in {LIMIT:?}, kills of a and b: {kills:?}, owners: {:?}",
            terms.seen
        );
        std::thread::sleep(Duration::from_millis(random.u64(200..8_000)));
        let which = random.usize(0..2);
        daemons[which].take().expect("both run between kills").kill();
        kills[which] += 1;
        std::thread::sleep(Duration::from_millis(random.u64(0..1_000)));
        daemons[which] = Some(start(which));
    }
    for daemon in daemons.into_iter().flatten() {
        assert!(daemon.ready().stop().success());
    }
    kills
}

/// Whatever is going on is to end, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn twenty_swaps_under_load_with_kills_leave_the_latest_values_and_a_small_bucket() {
    let _turn = beside_others();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let [mut load_random, mut restore_random] = [random.fork(), random.fork()];

    let two = Two::new("kills", "0.0005", "");
    let (load, producer) = (Load::new(), two.kafka.producer(&[]));
    load.write(&producer, &two.topic, 0..KEYS);
    let first = two.a.daemon().ready();
    wait_until("the first TERM", SOON, || crate::compacted::term(&first) >= 1.0);
    first.kill();

    let over = AtomicBool::new(false);
    let (kills, (restores, behind), (most, longest, looks)) = std::thread::scope(|scope| {
        let ends = Over(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                load.write(&producer, &two.topic, (0..3).map(|_| load_random.u32(0..KEYS)));
                std::thread::sleep(Duration::from_millis(250));
            }
        });
        let restores = scope.spawn(|| restore_again_and_again(&two, &load, &over, &mut restore_random));
        let size = scope.spawn(|| watch_size(&two, &load, &over));
        let kills = kill_until_swapped(&two, &mut random);
        drop(ends);
        let fails = "it fails by itself";
        (kills, restores.join().expect(fails), size.join().expect(fails))
    });
    let (written, live) = (load.logs().iter().map(Vec::len).sum::<usize>(), load.live_bytes.load(Ordering::Relaxed));
    println!(
        "{written} records; {restores} restores, at most {behind:?} behind; {live} bytes live, at most {most} in the \
         bucket, above three times the live ones for at most {longest:?} ({looks} looks)"
    );
    assert!(written > 1_000 && restores >= 10 && looks > 100 && kills.iter().all(|kills| *kills > 0));
    assert!(behind < BEHIND, "a restore gave a snapshot that was {behind:?} old");
    assert!(longest < LASTING, "for {longest:?} more than three times the live bytes were in the bucket");

    // With nothing in the way, all that was written is in the snapshot.
    let (a, b) = (two.a.daemon().ready(), two.b.daemon().ready());
    let reader = Env::new().sharing(&two.a.bucket);
    wait_until("the last records to be restored", SOON, || restored(&reader, &two.kafka, &two.topic) == load.live());
    assert!(a.stop().success() && b.stop().success());
}

/// The judge, judged: an old value, a deleted key and a key that is missing are seen.
#[test]
fn a_restore_that_was_never_live_is_seen() {
    let load = Load::new();
    let (now, key) = (Instant::now(), "key-0".to_owned());
    let other = (1..).map(|n| format!("key-{n}")).find(|other| partition_of(other) == partition_of(&key)).unwrap();
    let put = |key: &str, value: &str| (now, key.to_owned(), Some(value.to_owned()));
    load.logs()[partition_of(&key)] = vec![put(&key, "1"), put(&other, "1"), put(&key, "2"), (now, key.clone(), None)];
    let is_right = |found: &[(&str, &str)]| {
        let found = found.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        load.check(&found, now).is_ok()
    };
    assert!(is_right(&[(&key, "1")]) && is_right(&[(&key, "2"), (&other, "1")]) && is_right(&[(&other, "1")]));
    assert!(!is_right(&[(&key, "2")]), "a key is missing");
    assert!(!is_right(&[(&key, "3"), (&other, "1")]), "there never was such a value");
    assert!(!is_right(&[]), "a restore that gives nothing");
}
