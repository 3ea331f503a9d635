//! `demo`: backup and restore without a cluster or a bucket, with the very pipeline the daemon uses.

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::demo_output::{objects, say};
use super::{Context, demo_turns, help};
use crate::config::{Config, Isolation, KafkaConfig, RestoreFlags, RestoreRequest};
use crate::error::{Error, Exit, Result};
use crate::kafka::consumer::{GroupConsumer, GroupEvent, Position};
use crate::kafka::mock::MockKafka;
use crate::kafka::producer::{ProducerSettings, RestoreProducer};
use crate::kafka::settings::ConsumerSettings;
use crate::kafka::{KafkaError, TopicPartition};
use crate::model::batch::{Header, RecordBatch, TimestampType};
use crate::model::verify::Expiry;

/// The topic that is backed up, and its partitions.
const SOURCE: &str = "orders";
/// The topic it is restored into.
const TARGET: &str = "orders-restored";
const PARTITIONS: i32 = 3;
/// The topic that a snapshot of the compacted topic is restored into.
const COMPACTED_TARGET: &str = "customers-restored";
/// Records in each partition.
const RECORDS: i64 = 400;
/// How long any step may take before the demonstration has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Back up, restore and compare with an embedded broker, and show what happened
#[derive(Debug, clap::Args)]
#[command(after_long_help = help("  kafka-backup demo\n  kafka-backup demo --dir ./demo --keep"))]
pub struct Args {
    /// Where to work [default: a temporary folder]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Leave the folder there
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demonstration.
///
/// # Errors
/// What went wrong in it; a single byte that differs is [`Exit::Failed`].
pub fn run(args: Args, context: &Context) -> Result<()> {
    let began = Instant::now();
    let temporary = tempfile::Builder::new().prefix("kafka-backup-demo-").tempdir();
    let temporary = temporary.map_err(|e| Error::new(Exit::Failed, "temporary folder").because(e))?;
    let dir = args.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let topics = [
        (SOURCE, PARTITIONS),
        (TARGET, PARTITIONS),
        (demo_turns::TOPIC, demo_turns::PARTITIONS),
        (COMPACTED_TARGET, demo_turns::PARTITIONS),
        (demo_turns::COORDINATION, 1),
    ];
    let kafka = MockKafka::start(&topics)?;
    // It ends with the process: clients that are still closing would complain of a broker that has gone.
    let kafka = ManuallyDrop::new(kafka);
    let main = write_configuration(&dir, &kafka.bootstrap())?;
    let context = Context { config: Some(main), verbosity: context.verbosity - 2, color: context.color };
    let config = context.load()?;
    let cluster = config.kafka.values().next().cloned();
    let (Some(cluster), Some(job)) = (cluster, config.job(SOURCE)) else {
        return Err(Error::new(Exit::Failed, "the demo's own configuration has no cluster or job"));
    };

    let reader = Reader::start(&cluster)?;
    say("1. An embedded Kafka broker has a topic `orders`: three partitions, keys, nulls, tombstones, headers.")?;
    produce(&cluster, SOURCE, PARTITIONS)?;
    say(&format!("   {} records produced.", RECORDS * i64::from(PARTITIONS)))?;

    say("2. `kafka-backup run orders --until-caught-up` copies it to file storage:")?;
    let summary = super::run::foreground(&config, job, true)?;
    for (path, bytes) in objects(&dir.join("bucket"))? {
        say(&format!("   {path}  ({bytes} bytes)"))?;
    }
    say(&format!("   {} records in {} objects, {:.1} s.", summary.records, summary.objects, summary.seconds))?;

    say(&format!("3. `kafka-backup restore --topics {SOURCE}:{TARGET}` puts it into another topic:"))?;
    restore(&config, SOURCE, TARGET)?;

    say("4. Every record of both topics, compared byte for byte:")?;
    let compared = compare(&reader)?;
    say(&format!("   {compared} records are the same: keys, values, nulls, headers, timestamps, partitions."))?;

    say("5. A compacted topic, `customers`, is kept by two instances that take turns:")?;
    produce(&cluster, demo_turns::TOPIC, demo_turns::PARTITIONS)?;
    demo_turns::show(&config, &dir.join("bucket"))?;
    say("   A restore takes the newest complete snapshot, which is b's now:")?;
    restore(&config, demo_turns::TOPIC, COMPACTED_TARGET)?;
    say(&format!("Done in {:.1} s.", began.elapsed().as_secs_f64()))?;
    if args.keep || args.dir.is_some() {
        let dir = if args.dir.is_some() { dir } else { temporary.keep() };
        let (bucket, dir) = (dir.join("bucket"), dir.display());
        say(&format!(
            "Look around in {dir}: kafka-backup info --storage file://{0}; kafka-backup cat FILE",
            bucket.display()
        ))?;
    } else {
        say(
            "To look at the files yourself: kafka-backup demo --keep. Next: write a job file, see kafka-backup-job(5).",
        )?;
    }
    Ok(())
}

/// An ordinary configuration: what the demo runs on is what a user would write.
fn write_configuration(dir: &Path, bootstrap: &str) -> Result<PathBuf> {
    let failed = |e| Error::new(Exit::Failed, format!("demo folder {}", dir.display())).because(e);
    let write = |name: &str, text: String| {
        std::fs::create_dir_all(dir.join("jobs.d")).and_then(|()| std::fs::write(dir.join(name), text)).map_err(failed)
    };
    let dir = std::path::absolute(dir).map_err(failed)?;
    let (state, bucket) = (dir.join("state"), dir.join("bucket"));
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let main = format!(
        "state_dir = {}\nhttp.listen = \"\"\n\n[kafka.demo]\nbootstrap_servers = [\"{bootstrap}\"]\n\n\
         [storage.demo]\ntype = \"file\"\npath = {}\n",
        quoted(&state),
        quoted(&bucket)
    );
    write("kafka-backup.toml", main.replace("\n\n[kafka", "\njobs_dir = \"jobs.d\"\n\n[kafka"))?;
    let job =
        format!("type = \"backup\"\nkafka = \"demo\"\nstorage = \"demo\"\ntopics = [\"{SOURCE}\"]\nflush_size = 150\n");
    write("jobs.d/orders.toml", job)?;
    for (name, text) in demo_turns::jobs() {
        write(name, text)?;
    }
    Ok(dir.join("kafka-backup.toml"))
}

/// A little data set in which everything that can go wrong with a record occurs.
fn records(partition: i32) -> RecordBatch {
    let mut batch = RecordBatch::with_capacity(64 * 1024);
    for n in 0..RECORDS {
        let key = format!("customer-{}", (n * 7 + i64::from(partition)) % 50);
        let value = format!("{{\"order\":{n},\"partition\":{partition},\"item\":\"tea\",\"grams\":{}}}", 50 + n % 500);
        let key = (n % 11 != 0).then_some(key.as_bytes());
        let value = match n % 13 {
            0 => None,
            1 => Some(&b""[..]),
            _ => Some(value.as_bytes()),
        };
        let headers = [
            Header { name: b"source", value: Some(b"demo") },
            Header { name: b"trace", value: (n % 2 == 0).then_some(&b"\x00\xff"[..]) },
            Header { name: b"trace", value: Some(b"") },
            Header { name: b"\xffnot-utf8", value: Some(b"kept all the same") },
        ];
        let timestamp = 1_767_225_600_000 + n * 60_000 - (n % 3) * 3_600_000;
        batch.push(
            n,
            (timestamp, TimestampType::CreateTime),
            key,
            value,
            headers[..(n % 5).min(4) as usize].iter().copied(),
        );
    }
    batch
}

fn produce(cluster: &KafkaConfig, topic: &str, partitions: i32) -> std::result::Result<(), KafkaError> {
    let failure = Arc::new(Mutex::new(None));
    let seen = failure.clone();
    let on_delivery = Box::new(move |_, _, result: std::result::Result<i64, KafkaError>| {
        if let Err(error) = result {
            seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    });
    let producer = RestoreProducer::new(cluster, &ProducerSettings::default(), on_delivery)?;
    let topic = producer.topic(topic)?;
    for partition in 0..partitions {
        for (tag, record) in records(partition).iter().enumerate() {
            producer.send(&topic, partition, &record, tag as u64).map_err(|e| KafkaError {
                operation: "produce the demo's records".to_owned(),
                kind: crate::kafka::Kind::Other,
                message: e.to_string(),
            })?;
        }
    }
    producer.flush(PATIENCE)?;
    let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    failure.map_or(Ok(()), Err)
}

/// The restore command, as typed.
fn restore(config: &Config, source: &str, target: &str) -> Result<()> {
    let mut flags = RestoreFlags::default();
    flags.text("storage", "--storage", Some("demo"));
    flags.text("kafka", "--kafka", Some("demo"));
    flags.list("topics", "--topics", &[format!("{source}:{target}")]);
    let request = RestoreRequest::load(config, None, &flags)?;
    let exit = super::restore::put_back(request, Arc::new(|_| Expiry::Never), false, None)?;
    if exit != Exit::Ok {
        return Err(Error::new(exit, "the restore was not complete"));
    }
    Ok(())
}

/// Reads both topics back and compares them with what was produced; returns how many records were compared.
fn compare(reader: &Reader) -> Result<usize> {
    let read = reader.read()?;
    let mut compared = 0;
    for partition in 0..PARTITIONS {
        let produced = records(partition);
        for topic in [SOURCE, TARGET] {
            let at = TopicPartition::new(topic, partition);
            if let Some(n) = first_difference(&produced, read.get(&at)) {
                return Err(Error::new(Exit::Failed, format!("{at}: record {n} differs")));
            }
        }
        compared += produced.len();
    }
    Ok(compared)
}

/// The first record that is not the same, missing ones and those too many included.
fn first_difference(produced: &RecordBatch, read: Option<&RecordBatch>) -> Option<usize> {
    let longer = produced.len().max(read.map_or(0, RecordBatch::len));
    (0..longer).find(|n| read.and_then(|batch| batch.get(*n)) != produced.get(*n))
}

/// A consumer of both topics. It joins its group while the other steps run, because joining takes seconds.
struct Reader {
    group: Arc<GroupConsumer>,
    events: mpsc::Receiver<GroupEvent>,
}

impl Reader {
    fn start(cluster: &KafkaConfig) -> Result<Self> {
        let settings = ConsumerSettings {
            group_id: "demo-compare".to_owned(),
            group_instance_id: String::new(),
            isolation: Isolation::ReadCommitted,
            prefetch_bytes: 16 << 20,
            partitions: 2 * PARTITIONS as usize,
            patient: false,
        };
        let (sender, events) = mpsc::channel();
        let on_event = Box::new(move |event| sender.send(event).unwrap_or_default());
        let topics = [SOURCE.to_owned(), TARGET.to_owned()];
        let group = GroupConsumer::start("demo", cluster, &settings, &topics, on_event)?;
        Ok(Self { group, events })
    }

    /// All records, by partition.
    fn read(&self) -> Result<BTreeMap<TopicPartition, RecordBatch>> {
        let slow = || Error::new(Exit::Failed, "reading the topics back takes too long");
        let deadline = Instant::now() + PATIENCE;
        let mut assigned = Vec::new();
        while assigned.len() < 2 * PARTITIONS as usize {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|_| slow())? {
                GroupEvent::Assigned(partitions) => assigned.extend(partitions),
                GroupEvent::Revoked { partitions, .. } => assigned.retain(|p| !partitions.contains(p)),
                GroupEvent::Fatal(error) => return Err(Error::from(error)),
                GroupEvent::Error(_) | GroupEvent::CommitFailed(_) => {}
            }
        }
        let start = Position { offset: 0, leader_epoch: -1 };
        let positions: Vec<(TopicPartition, Position)> = assigned.into_iter().map(|p| (p, start)).collect();
        let mut batches = BTreeMap::new();
        for mut queue in self.group.place(&positions)? {
            let mut batch = RecordBatch::with_capacity(1 << 20);
            while queue.drain(&mut batch, usize::MAX, usize::MAX).eof.is_none() {
                if Instant::now() > deadline {
                    return Err(slow());
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            batches.insert(queue.partition().clone(), batch);
        }
        Ok(batches)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.group.clone().close(Duration::from_secs(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_byte_that_differs_is_seen() {
        let produced = records(0);
        assert_eq!(first_difference(&produced, Some(&records(0))), None);
        assert_eq!(first_difference(&produced, None), Some(0));
        let copy = |change: &dyn Fn(usize, Vec<u8>) -> Vec<u8>, until: usize| {
            let mut batch = RecordBatch::default();
            for (n, record) in produced.iter().take(until).enumerate() {
                let value = record.value.map(|value| change(n, value.to_vec()));
                let time = (record.timestamp, record.timestamp_type);
                batch.push(record.offset, time, record.key, value.as_deref(), record.headers.iter());
            }
            batch
        };
        let same = |_, value| value;
        assert_eq!(first_difference(&produced, Some(&copy(&same, produced.len()))), None);
        assert_eq!(first_difference(&produced, Some(&copy(&same, produced.len() - 1))), Some(produced.len() - 1));
        assert_eq!(first_difference(&copy(&same, 7), Some(&produced)), Some(7));
        let changed =
            (0..produced.len()).rfind(|n| produced.get(*n).and_then(|r| r.value).is_some_and(|v| !v.is_empty()));
        let changed = changed.expect("a value with bytes in it");
        let one_bit = |n, mut value: Vec<u8>| {
            if n == changed {
                value[0] ^= 1;
            }
            value
        };
        assert_eq!(first_difference(&produced, Some(&copy(&one_bit, produced.len()))), Some(changed));
    }
}
