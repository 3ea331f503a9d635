//! Backup and restore end to end against a real broker and a real S3, beside a floor: the least that any program must do.
//!
//! Not a timed test: it prints figures, as ratios of one run, because machines differ and are shared.
//!
//!     make bench                    everything, with a stack of its own
//!     KAFKA_BACKUP_TEST_KAFKA=... KAFKA_BACKUP_TEST_S3=... cargo bench --bench throughput -- [MiB] [PARTITIONS] [ROUNDS]
//!     ... cargo bench --bench throughput -- start [PARTITIONS]        how long a start takes with many partitions
//!     ... cargo bench --bench throughput -- verify [MiB] [PARTITIONS] [ROUNDS]        verify --mode data beside a restore
//!
//! The last one does so for a quarter of the data, too: with as many partitions, so that its objects are smaller. The peak
//! memory of each command must be the same for both, and the wall time of the verification below that of the restore.
//!
//! The floor of a backup is a bare librdkafka consumer whose values are copied into blocks of 256 KiB, each compressed
//! by zstd at the same level. The floor of a restore decompresses the same bytes and produces the values with a bare
//! librdkafka producer. Both are run as processes of their own, as the program is, and measured from outside.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::bindings::*;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

const BLOCK: usize = 256 * 1024;
const LEVEL: i32 = 3;
const RECORD_BYTES: usize = 900;
/// What both restores compress with: the program's default.
const COMPRESSION: &str = "lz4";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    match args.first().map(String::as_str) {
        Some("floor-backup") => floor_backup(&args[1], &args[2], args.get(3).map(Path::new)),
        Some("floor-restore") => floor_restore(&args[1], &args[2], Path::new(&args[3])),
        _ => everything(&args),
    }
}

fn everything(args: &[String]) {
    let (Ok(kafka), Ok(s3)) = (std::env::var("KAFKA_BACKUP_TEST_KAFKA"), std::env::var("KAFKA_BACKUP_TEST_S3")) else {
        println!(
            "throughput: needs KAFKA_BACKUP_TEST_KAFKA and KAFKA_BACKUP_TEST_S3 (`make bench` sets them); skipped"
        );
        return;
    };
    let number = |at: usize, default: usize| args.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let run = format!("bench-{}", std::process::id());
    create_bucket(&s3, &run);
    let stack = Stack { kafka, s3, bucket: run.clone(), run };
    match args.first().map(String::as_str) {
        Some("start") => start(&stack, number(1, 2000) as i32),
        Some("verify") => verify(&stack, number(1, 2048), number(2, 12) as i32, number(3, 3)),
        _ => throughput(&stack, number(0, 2048), number(1, 12) as i32, number(2, 3)),
    }
}

/// Where the servers are, and the name of this run: topic, prefix of other names.
#[derive(Clone)]
struct Stack {
    kafka: String,
    s3: String,
    bucket: String,
    run: String,
}

fn throughput(stack: &Stack, mib: usize, partitions: i32, rounds: usize) {
    let Stack { kafka, run, .. } = stack;
    println!("{mib} MiB of {RECORD_BYTES}-byte JSON records, {partitions} partitions, zstd batches, {rounds} rounds");
    produce(kafka, run, partitions, mib << 20);
    let dir = tempfile::tempdir().expect("temporary folder");
    let blocks = dir.path().join("blocks");
    let me = std::env::current_exe().expect("own path");
    measure(Command::new(&me).args(["floor-backup", kafka, run]).arg(&blocks));

    let mut rows: [Vec<Usage>; 5] = Default::default();
    for round in 0..rounds {
        // In turns, so that whatever else the machine does meets all alike.
        rows[0].push(measure(Command::new(&me).args(["floor-backup", kafka, run])));
        let jobs =
            ["64MiB", "512MiB"].map(|budget| Job::write(dir.path(), stack, &format!("{round}-{budget}"), budget));
        for (job, row) in jobs.iter().zip(&mut rows[1..]) {
            row.push(measure(&mut job.command(&["run", "bench", "--until-caught-up", "-q"])));
        }
        let target = format!("{run}-floor-{round}");
        create(kafka, &target, partitions);
        rows[3].push(measure(Command::new(&me).args(["floor-restore", kafka, &target]).arg(&blocks)));
        let restored = format!("{run}-restored-{round}");
        rows[4].push(measure(&mut jobs[1].restore(run, &restored)));
        delete(kafka, &[&target, &restored]);
    }
    let [floor, small, large, floor_restore, restore] = rows.map(median);
    println!("floor of backup:        {floor}");
    println!("backup, budget  64 MiB: {small}  {:.2} x floor", small.cpu / floor.cpu);
    println!("backup, budget 512 MiB: {large}  {:.2} x floor", large.cpu / floor.cpu);
    println!("floor of restore:       {floor_restore}   ({COMPRESSION} to the broker, both)");
    println!("restore:                {restore}  {:.2} x floor", restore.cpu / floor_restore.cpu);
    delete(kafka, &[run]);
}

/// What `verify --mode data` takes beside a restore of the same objects, for a small and for a four times larger backup:
/// the memory of each must be the same for both (`tests/integration/limits.rs` holds them to it).
fn verify(stack: &Stack, mib: usize, partitions: i32, rounds: usize) {
    for mib in [mib / 4, mib] {
        println!("{mib} MiB of {RECORD_BYTES}-byte JSON records, {partitions} partitions, {rounds} rounds");
        let stack = Stack { run: format!("{}-{mib}", stack.run), ..stack.clone() };
        let Stack { kafka, run, .. } = &stack;
        produce(kafka, run, partitions, mib << 20);
        let dir = tempfile::tempdir().expect("temporary folder");
        let job = Job::write(dir.path(), &stack, &format!("verify-{mib}"), "512MiB");
        measure(&mut job.command(&["run", "bench", "--until-caught-up", "-q"]));
        let mut rows: [Vec<Usage>; 2] = Default::default();
        for round in 0..rounds {
            let check = ["verify", "--storage", "main", "--topic", run, "--mode", "data", "-q"];
            rows[0].push(measure(&mut job.command(&check)));
            let target = format!("{run}-restored-{round}");
            rows[1].push(measure(&mut job.restore(run, &target)));
            delete(kafka, &[&target]);
        }
        let [check, restore] = rows.map(median);
        println!("restore:                {restore}");
        let (wall, cpu) = (check.wall / restore.wall, check.cpu / restore.cpu);
        println!("verify --mode data:     {check}  {wall:.2} x the wall and {cpu:.2} x the CPU of the restore");
        delete(kafka, &[run]);
    }
}

/// How long a start takes with many partitions that are all backed up: until the last of them is read on.
fn start(stack: &Stack, partitions: i32) {
    let Stack { kafka, run, .. } = stack;
    println!("{partitions} partitions with one record each");
    produce(kafka, run, partitions, partitions as usize * RECORD_BYTES);
    let dir = tempfile::tempdir().expect("temporary folder");
    let job = Job::write(dir.path(), stack, "start", "1GiB");
    println!("first backup:           {}", measure(&mut job.command(&["run", "bench", "--until-caught-up", "-q"])));
    for what in ["with local state", "without local state"] {
        let (seconds, usage) = begin_all(&job, partitions as usize);
        println!("start, {what:<19}: {seconds:.2} s to the last partition that begins; {usage}");
        std::fs::remove_dir_all(dir.path().join("start/state")).expect("removed");
    }
    delete(kafka, &[run]);
}

/// Starts the daemon and counts the partitions that begin; it is ended when all have.
fn begin_all(job: &Job, partitions: usize) -> (f64, Usage) {
    let began = Instant::now();
    let mut daemon = job.command(&["daemon"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = std::io::BufReader::new(daemon.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let begins = lines.by_ref().filter(|line| line.contains("partition begins"));
    let count = begins.take(partitions).count();
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(count, partitions, "all begin");
    let mut usage = Usage { wall: seconds, cpu: 0.0, peak_mib: 0.0 };
    look(&daemon, &mut usage.cpu, &mut usage.peak_mib);
    // It leaves its group: the next start would wait for the session of a dead member.
    Command::new("kill").arg(daemon.id().to_string()).status().expect("signalled");
    lines.for_each(drop);
    daemon.wait().expect("ended");
    (seconds, usage)
}

/// The run with the median of CPU seconds, and the largest memory of all.
fn median(mut runs: Vec<Usage>) -> Usage {
    let peak_mib = runs.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
    runs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let Usage { wall, cpu, .. } = runs.swap_remove(runs.len() / 2);
    Usage { wall, cpu, peak_mib }
}

/// What a process used.
struct Usage {
    wall: f64,
    cpu: f64,
    peak_mib: f64,
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wall, cpu, peak_mib } = self;
        write!(f, "{cpu:6.2} s CPU  {wall:6.2} s wall ({:.2} of CPU)  {peak_mib:5.0} MiB peak", wall / cpu)
    }
}

/// Runs a process to its end and reads from the kernel what it used.
fn measure(command: &mut Command) -> Usage {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().expect("it starts");
    let (mut cpu, mut peak_mib) = (0.0, 0.0);
    loop {
        let ended = look(&child, &mut cpu, &mut peak_mib);
        if ended {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let wall = began.elapsed().as_secs_f64();
    let status = child.wait().expect("it ended");
    assert!(status.success(), "{command:?}: {status}");
    Usage { wall, cpu, peak_mib }
}

/// Takes what the kernel says of the process so far; `true` when it has ended (and is not waited for yet).
fn look(child: &Child, cpu: &mut f64, peak_mib: &mut f64) -> bool {
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let stat = std::fs::read_to_string(proc.join("stat")).unwrap_or_default();
    // Behind the last parenthesis: state, then 10 more fields to utime and stime, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    if let (Some(user), Some(system)) = (fields.get(11), fields.get(12)) {
        let ticks = |text: &str| text.parse::<f64>().unwrap_or(0.0);
        *cpu = (ticks(user) + ticks(system)) / 100.0;
    }
    let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
    if let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        *peak_mib = line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0;
    }
    fields.first() == Some(&"Z")
}

/// A configuration of the program under test.
struct Job(PathBuf);

impl Job {
    fn write(dir: &Path, stack: &Stack, name: &str, budget: &str) -> Self {
        let Stack { kafka, s3, bucket, run: topic } = stack;
        let dir = dir.join(name);
        std::fs::create_dir_all(dir.join("jobs.d")).expect("folder");
        let main = format!(
            "state_dir = {:?}\njobs_dir = \"jobs.d\"\nhttp.listen = \"\"\nmemory.budget = \"{budget}\"\n\
             [kafka.main]\nbootstrap_servers = [\"{kafka}\"]\n\
             [storage.main]\ntype = \"s3\"\nbucket = \"{bucket}\"\nprefix = \"{prefix}\"\nendpoint = \"{s3}\"\n\
             region = \"us-east-1\"\npath_style = true\n",
            dir.join("state"),
            prefix = name.to_lowercase(),
        );
        std::fs::write(dir.join("kafka-backup.toml"), main).expect("written");
        let job = format!(
            "type = \"backup\"\ntopics = [\"{topic}\"]\ngroup_id = \"{topic}-{name}\"\ncodec_level = {LEVEL}\n\
             codec = \"zstandard\"\nflush_size = 100000000\n"
        );
        std::fs::write(dir.join("jobs.d/bench.toml"), job).expect("written");
        Self(dir.join("kafka-backup.toml"))
    }

    /// Restores topic `source` into `target`, which it creates.
    fn restore(&self, source: &str, target: &str) -> Command {
        let topics = format!("{source}:{target}");
        self.command(&["restore", "--storage", "main", "--kafka", "main", "--topics", &topics, "--create-topics", "-q"])
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-backup"));
        command.arg("--config").arg(&self.0).args(args);
        command.env("AWS_ACCESS_KEY_ID", "AKTEST").env("AWS_SECRET_ACCESS_KEY", "SKTESTSKTEST");
        command
    }
}

/// The bucket of this run.
fn create_bucket(s3: &str, name: &str) {
    use rusoto_s3::{CreateBucketRequest, S3, S3Client};
    let credentials = rusoto_credential::StaticProvider::new_minimal("AKTEST".into(), "SKTESTSKTEST".into());
    let region = rusoto_core::Region::Custom { name: "us-east-1".into(), endpoint: s3.to_owned() };
    let http = rusoto_core::HttpClient::new().expect("http client");
    let create = CreateBucketRequest { bucket: name.to_owned(), ..CreateBucketRequest::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(S3Client::new_with(http, credentials, region).create_bucket(create)).expect("bucket");
}

fn client(kafka: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka);
    config
}

fn create(kafka: &str, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("admin client");
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let created = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).expect("created");
    created.into_iter().for_each(|result| drop(result.expect("topic")));
}

fn delete(kafka: &str, topics: &[&str]) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("admin client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(admin.delete_topics(topics, &AdminOptions::new())).expect("deleted");
}

/// Fills `topic` with JSON records that compress about as real ones do.
fn produce(kafka: &str, topic: &str, partitions: i32, bytes: usize) {
    create(kafka, topic, partitions);
    let producer: BaseProducer = client(kafka)
        .set("compression.type", "zstd")
        .set("linger.ms", "50")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.kbytes", "262144")
        .create()
        .expect("producer");
    let mut random = fastrand::Rng::with_seed(7);
    let run_length = (bytes / RECORD_BYTES / partitions as usize).clamp(1, 500);
    for n in 0..bytes / RECORD_BYTES {
        let value = json(n, &mut random);
        let key = format!("customer-{}", random.u32(..100_000));
        let partition = (n / run_length) as i32 % partitions;
        let mut record = BaseRecord::to(topic).partition(partition).key(&key).payload(&value);
        while let Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) = producer.send(record) {
            producer.poll(Duration::from_millis(10));
            record = back;
        }
        if n % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120)).expect("all produced");
}

fn json(n: usize, random: &mut fastrand::Rng) -> String {
    let mut text = format!(
        "{{\"id\":{n},\"customer\":\"customer-{}\",\"session\":\"{:032x}\",\"status\":\"{}\",\"items\":[",
        random.u32(..100_000),
        random.u128(..),
        ["new", "paid", "packed", "shipped", "returned"][random.usize(..5)],
    );
    while text.len() < RECORD_BYTES - 60 {
        let (sku, count) = (random.u32(..50_000), random.u8(1..9));
        let (cents, colour) = (random.u32(99..99_999), ["red", "green", "blue", "black"][random.usize(..4)]);
        text.push_str(&format!(
            "{{\"sku\":\"SKU-{sku:08}\",\"count\":{count},\"cents\":{cents},\"colour\":\"{colour}\"}},"
        ));
    }
    text.push_str("{}],\"currency\":\"EUR\"}");
    text
}

/// Consumes everything there is, copies the values into blocks and compresses them. Where `blocks` is a path, they are
/// also written down, as input for the floor of restore. Messages are taken by the thousand straight from librdkafka.
fn floor_backup(kafka: &str, topic: &str, blocks: Option<&Path>) {
    let consumer: BaseConsumer = client(kafka)
        .set("group.id", "floor")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.queue.backoff.ms", "20")
        .create()
        .expect("consumer");
    let partitions = partitions(kafka, topic);
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions as i32 {
        all.add_partition_offset(topic, partition, Offset::Beginning).expect("partition");
    }
    consumer.assign(&all).expect("assigned");
    let mut out = blocks.map(|path| std::io::BufWriter::new(std::fs::File::create(path).expect("file")));
    let mut context = zstd::bulk::Compressor::new(LEVEL).expect("context");
    let mut compressed = Vec::with_capacity(2 * BLOCK);
    let (mut block, mut ended) = (Vec::with_capacity(BLOCK + RECORD_BYTES), 0);
    let mut compress = |block: &mut Vec<u8>| {
        context.compress_to_buffer(block.as_slice(), &mut compressed).expect("compressed");
        if let Some(out) = &mut out {
            out.write_all(&(compressed.len() as u32).to_le_bytes()).expect("written");
            out.write_all(&compressed).expect("written");
        }
        block.clear();
    };
    // SAFETY: a live consumer and its queue; every message that is returned is read, then destroyed once.
    unsafe {
        let queue = rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        let mut messages = [std::ptr::null_mut(); 1000];
        while ended < partitions {
            let n = rd_kafka_consume_batch_queue(queue, 20, messages.as_mut_ptr(), messages.len());
            for &message in &messages[..usize::try_from(n).expect("no error")] {
                let (error, at, len) = ((*message).err, (*message).payload.cast::<u8>(), (*message).len);
                match error {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                        block.extend_from_slice(std::slice::from_raw_parts(at, len));
                        if block.len() >= BLOCK {
                            compress(&mut block);
                        }
                    }
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => ended += 1,
                    error => panic!("{error:?}"),
                }
                rd_kafka_message_destroy(message);
            }
        }
        rd_kafka_queue_destroy(queue);
    }
    compress(&mut block);
}

/// Decompresses the blocks of the floor of backup and produces them in pieces of one record's size, with the program's
/// own producer settings. Nobody looks at the deliveries one by one.
fn floor_restore(kafka: &str, topic: &str, blocks: &Path) {
    let config = {
        let mut config = client(kafka);
        config
            .set("enable.idempotence", "true")
            .set("compression.type", COMPRESSION)
            .set("linger.ms", "1000")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.kbytes", "65536");
        config.create_native_config().expect("configuration")
    };
    let all = std::fs::read(blocks).expect("blocks");
    let mut context = zstd::bulk::Decompressor::new().expect("context");
    let (mut rest, mut n) = (&all[..], 0usize);
    let mut block = Vec::with_capacity(2 * BLOCK);
    let topic = std::ffi::CString::new(topic).expect("topic");
    // SAFETY: the configuration becomes the producer's; payloads are copied; topic and producer are destroyed last.
    unsafe {
        let mut text = [0; 512];
        let producer = rd_kafka_new(
            rd_kafka_type_t::RD_KAFKA_PRODUCER,
            rd_kafka_conf_dup(config.ptr()),
            text.as_mut_ptr(),
            text.len(),
        );
        assert!(!producer.is_null(), "producer");
        let handle = rd_kafka_topic_new(producer, topic.as_ptr(), std::ptr::null_mut());
        let partitions = partitions(kafka, topic.to_str().expect("text"));
        while let Some((len, tail)) = rest.split_first_chunk::<4>() {
            let (compressed, tail) = tail.split_at(u32::from_le_bytes(*len) as usize);
            rest = tail;
            context.decompress_to_buffer(compressed, &mut block).expect("decompressed");
            for value in block.chunks(RECORD_BYTES) {
                let (at, partition) = (value.as_ptr().cast_mut().cast(), (n % partitions) as i32);
                let null = std::ptr::null_mut();
                while rd_kafka_produce(handle, partition, RD_KAFKA_MSG_F_COPY, at, value.len(), null, 0, null) != 0 {
                    assert!(rd_kafka_last_error() == RDKafkaRespErr::RD_KAFKA_RESP_ERR__QUEUE_FULL);
                    rd_kafka_poll(producer, 10);
                }
            }
            n += 1;
        }
        assert!(rd_kafka_flush(producer, 120_000) == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR, "all produced");
        rd_kafka_topic_destroy(handle);
        rd_kafka_destroy(producer);
    }
}

fn partitions(kafka: &str, topic: &str) -> usize {
    let client: BaseConsumer = client(kafka).create().expect("client");
    let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(10)).expect("metadata");
    metadata.topics()[0].partitions().len()
}
