//! The Debian package on a host with a real systemd: a job against the real Kafka and the real S3, inside the sandbox of
//! the unit that is shipped, from installation to purge.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::check::{assert_backed_up, assert_untouched, await_caught_up, covered, stored};
use crate::common::host::{Host, Packages, can_boot, free_port};
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::s3::Bucket;
use crate::common::{SOON, alone, stack, wait_until};

/// The host, what is backed up on it, and where to.
struct Daemon {
    host: Host,
    kafka: Kafka,
    bucket: Bucket,
    topic: String,
}

impl Daemon {
    fn pid(&self) -> String {
        self.host.show("kafka-backup", "MainPID")
    }

    fn status(&self) -> String {
        self.host.show("kafka-backup", "StatusText")
    }

    fn produce(&self, from: i64, until: i64) {
        self.kafka.produce(&self.topic, 0, &numbered(from..until, 100));
    }

    fn caught_up(&self) {
        await_caught_up(&self.kafka, &self.bucket, &self.topic);
    }

    fn job(&self, id: &str, lines: &str) {
        self.host.write(&format!("/etc/kafka-backup/jobs.d/{id}.toml"), lines);
    }

    /// The job that all of this is about, with these lines besides its topic.
    fn orders(&self, lines: &str) {
        self.job("orders", &format!("topics = [{:?}]\n{lines}", self.topic));
    }

    /// An operator starts it less often than ten times in five minutes, which is what the unit allows.
    fn forget_starts(&self) {
        self.host.sh("systemctl reset-failed kafka-backup");
    }

    /// What `status --json` says of a job.
    fn status_of(&self, id: &str) -> Value {
        let (_, document) = self.host.try_sh("kafka-backup status --json");
        let document: Value = serde_json::from_str(&document).unwrap_or_else(|e| panic!("{e}: {document}"));
        let jobs = document["jobs"].as_array().cloned().unwrap_or_default();
        jobs.into_iter().find(|job| job["job"] == id).unwrap_or_default()
    }

    /// The sum of all series of a metric with this label.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let scraped = scrape(&self.host);
        let series = scraped.lines().filter(|line| line.starts_with(name) && line.contains(label));
        series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// What would not be the same after any restart of a job: when it began, how often it was given partitions, and what
    /// it has counted.
    fn session(&self, id: &str) -> (Value, usize, f64) {
        let journal = self.host.journal();
        let given = |line: &&str| line.contains("partitions assigned") && line.contains(&format!("job={id}"));
        let read = self.metric("kafka_backup_read_bytes_total", &format!("backup_job=\"{id}\""));
        (self.status_of(id)["began_ms"].clone(), journal.lines().filter(given).count(), read)
    }
}

/// One test, in the order in which an operator does these things: booting a host for each would take longer than all.
#[test]
fn the_life_of_an_installation() {
    if !can_boot("the Debian package on a booted systemd") {
        return;
    }
    let _turn = alone();
    let packages = Packages::stage();
    let (old, new) = (packages.deb("0.0.9-1"), packages.deb("0.1.0-1"));
    let later = packages.deb_with_another_main_file(&new, "9.9.9-1", OF_A_LATER_VERSION);
    let host = Host::boot();
    std::fs::copy(old, host.path("/root/old.deb")).unwrap();
    std::fs::copy(new, host.path("/root/new.deb")).unwrap();
    std::fs::copy(later, host.path("/root/later.deb")).unwrap();
    // The network is that of this machine, where the usual port may be taken.
    let port = free_port();
    host.write(
        "/etc/systemd/system/kafka-backup.service.d/port.conf",
        &format!("[Service]\nEnvironment=KAFKA_BACKUP__HTTP__LISTEN=127.0.0.1:{port}\nRestartSec=1s\n"),
    );
    let kafka = Kafka::shared();
    let topic = kafka.topic("systemd", 1, &[]);
    let daemon = Daemon { host, kafka, bucket: Bucket::create(), topic };

    starts_without_a_job(&daemon);
    takes_a_job_and_reads_its_secrets_inside_the_sandbox(&daemon);
    let others = four_more_jobs(&daemon);
    a_rejected_reload_changes_nothing(&daemon, &others);
    touching_one_of_five_leaves_four_alone(&daemon, &others);
    a_storm_of_signals_is_few_reloads(&daemon, &others);
    killed_while_it_reloads_it_comes_back(&daemon);
    jobs_taken_out_are_drained_and_not_by_accident(&daemon, &others);
    a_restart_goes_on_where_it_was(&daemon);
    a_stop_makes_durable_what_was_read(&daemon);
    a_long_stop_is_given_more_time(&daemon);
    a_full_disk_is_survived(&daemon);
    a_stopped_process_is_killed_and_started_again(&daemon);
    restores_by_its_own_unit(&daemon);
    verifies_by_its_own_unit(&daemon, &others[0]);
    an_upgrade_restarts_and_keeps_what_was_edited(&daemon);
    an_upgrade_with_another_main_file_keeps_the_edited_one(&daemon);
    nothing_secret_was_logged(&daemon);
    removal_and_purge_leave_the_backup_alone(&daemon);
}

/// Installed and started; nothing to do, and it says so.
fn starts_without_a_job(daemon: &Daemon) {
    let host = &daemon.host;
    host.sh("dpkg -i /root/old.deb");
    assert_eq!(host.show("kafka-backup", "ActiveState"), "active");
    assert_eq!(host.show("kafka-backup", "UnitFileState"), "enabled");
    assert!(daemon.status().starts_with("idle: no jobs in /etc/kafka-backup/jobs.d"), "{}", daemon.status());
    let modes =
        host.sh("stat -c '%A %U:%G %n' /etc/kafka-backup /etc/kafka-backup/* /var/lib/kafka-backup /run/kafka-backup");
    for line in [
        "drwxr-xr-x root:root /etc/kafka-backup",
        "drwxr-xr-x root:root /etc/kafka-backup/jobs.d",
        "drwxr-xr-x root:root /etc/kafka-backup/restore.d",
        "drwxr-x--- root:kafka-backup /etc/kafka-backup/secrets",
        "-rw-r--r-- root:root /etc/kafka-backup/kafka-backup.toml",
        "drwx------ kafka-backup:kafka-backup /var/lib/kafka-backup",
        "drwxr-x--- kafka-backup:kafka-backup /run/kafka-backup",
    ] {
        assert!(modes.contains(line), "{line} is not in\n{modes}");
    }
    host.sh("systemctl cat kafka-backup-verify@main.service kafka-backup-restore@x.service");
    assert_eq!(host.show("kafka-backup-verify@main.timer", "ActiveState"), "inactive");
    assert_eq!(host.try_sh("systemctl is-enabled kafka-backup-verify@main.timer").1.trim(), "disabled");
    assert_eq!(host.sh("systemctl list-units --failed --no-legend 'kafka*'"), "");
    let verify = "systemd-analyze verify --man=no kafka-backup.service kafka-backup-verify@main.service \
                  kafka-backup-verify@main.timer kafka-backup-restore@x.service";
    assert_eq!(host.sh(verify), "", "programs and keys of the units are all there");
    host.sh("systemd-analyze security --no-pager --threshold=12 kafka-backup.service");
}

const SECRET_KEY: &str = stack::SECRET_KEY;

/// The main file is edited, a job is dropped in; the keys of the store are in a file that only the daemon reads. They are
/// those of yesterday: the job says so, and goes on by itself when they have been changed.
fn takes_a_job_and_reads_its_secrets_inside_the_sandbox(daemon: &Daemon) {
    let host = &daemon.host;
    let keys = |secret: &str| {
        let keys = format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {secret}\n", stack::ACCESS_KEY);
        host.write("/etc/kafka-backup/secrets/aws", &keys);
    };
    keys("YesterdaysSecretKey");
    host.sh("chown root:kafka-backup /etc/kafka-backup/secrets/aws && chmod 0640 /etc/kafka-backup/secrets/aws");
    let environment = "KAFKA_BACKUP_OPTS=\"\"\nAWS_SHARED_CREDENTIALS_FILE=/etc/kafka-backup/secrets/aws\n\
                       AWS_EC2_METADATA_DISABLED=true\nRUST_LOG=info,kafka_backup=trace\n";
    host.write("/etc/default/kafka-backup", environment);
    let main = format!(
        "# edited\n[kafka.main]\nbootstrap_servers = [{:?}]\n[kafka.main.properties]\n\
         \"session.timeout.ms\" = \"6000\"\n[storage.main]\ntype = \"s3\"\nbucket = {:?}\n\
         region = \"us-east-1\"\nendpoint = {:?}\npath_style = true\n",
        stack::kafka_bootstrap(),
        daemon.bucket.name,
        stack::s3_endpoint(),
    );
    host.write("/etc/kafka-backup/kafka-backup.toml", &main);
    daemon.orders("rotate_interval = \"1s\"\n");
    daemon.produce(0, 1_000);
    host.sh("systemctl restart kafka-backup");
    host.await_show("StatusText", |status| status.contains("1 failed: orders"));
    wait_until("the refusal to be counted", SOON, || {
        daemon.metric("kafka_backup_errors_total", "kind=\"auth\"") >= 1.0
    });
    let pid = daemon.pid();
    keys(SECRET_KEY);
    host.sh("systemctl kill --kill-who=main -s HUP kafka-backup");
    daemon.caught_up();
    assert_backed_up(&daemon.kafka, &daemon.bucket, &daemon.topic);
    assert_eq!(daemon.pid(), pid, "nothing had to be started again");
    host.await_show("StatusText", |status| status.starts_with("running 1 job, generation"));
    let scrape = scrape(host);
    assert!(scrape.contains("kafka_backup_records_total{backup_job=\"orders\""), "{scrape}");
}

/// What `/metrics` says on the host.
fn scrape(host: &Host) -> String {
    let listen = host.sh("systemctl show -P Environment kafka-backup");
    let address = listen.trim().rsplit('=').next().unwrap().to_owned();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    std::io::read_to_string(stream).unwrap()
}

/// Another job, with what it backs up.
struct Other {
    id: String,
    topic: String,
}

impl Other {
    fn folder(&self) -> String {
        format!("{}/0/", self.topic)
    }
}

/// Records that each of the four others has read before anything else happens to it.
const READ: i64 = 50;

/// Four jobs with an open object each, which only a restart of the job would finish.
fn four_more_jobs(daemon: &Daemon) -> Vec<Other> {
    let add = |n: i32| {
        let other = Other { id: format!("other{n}"), topic: daemon.kafka.topic(&format!("systemd-{n}"), 1, &[]) };
        daemon.kafka.produce(&other.topic, 0, &numbered(0..READ, 100));
        let lines = "rotate_interval = \"1h\"\nrpo_target = \"2h\"\n";
        daemon.job(&other.id, &format!("topics = [{:?}]\n{lines}", other.topic));
        other
    };
    let others: Vec<_> = (1..=4).map(add).collect();
    daemon.host.sh("systemctl reload kafka-backup");
    daemon.host.await_show("StatusText", |status| status.starts_with("running 5 jobs"));
    let all_read = |other: &Other| daemon.session(&other.id).2 >= (READ * 100) as f64;
    wait_until("the others to have read their records", SOON, || others.iter().all(all_read));
    others
}

fn sessions(daemon: &Daemon, others: &[Other]) -> Vec<(Value, usize, f64)> {
    let sessions: Vec<_> = others.iter().map(|other| daemon.session(&other.id)).collect();
    assert!(sessions.iter().all(|(began, given, _)| began.is_number() && *given > 0), "{sessions:?}");
    for other in others {
        assert_eq!(covered(&daemon.bucket, &other.folder()), 0, "the object of {} is still open", other.id);
    }
    sessions
}

/// `systemctl reload` fails, the process and its work go on, and the status line names file and line.
fn a_rejected_reload_changes_nothing(daemon: &Daemon, others: &[Other]) {
    let host = &daemon.host;
    let (pid, before, orders) = (daemon.pid(), sessions(daemon, others), daemon.session("orders"));
    daemon.job("bad", "topics = [\"x\"]\nretenton = 1\n");
    let (code, said) = host.try_sh("systemctl reload kafka-backup");
    assert_ne!(code, 0, "{said}");
    assert_eq!((host.show("kafka-backup", "ActiveState").as_str(), daemon.pid()), ("active", pid));
    host.await_show("StatusText", |status| status.contains("REJECTED") && status.contains("bad.toml:2"));
    assert!(host.sh("systemctl status kafka-backup").contains("bad.toml:2"));
    assert!(host.journal().contains("retenton"), "{}", host.journal());
    let found = host.sh("journalctl --no-pager -o cat -u kafka-backup MESSAGE_ID=3f3c7a1d0e2b4c53a8f0c1d99d0b7e21");
    assert!(found.contains("retenton") && !found.contains("generation 1 version"), "rejections and no more: {found}");
    let (code, said) = host.try_sh("kafka-backup reload --last");
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("bad.toml:2"), "{said}");
    assert_eq!((sessions(daemon, others), daemon.session("orders")), (before, orders), "nobody has noticed");
    host.sh("rm /etc/kafka-backup/jobs.d/bad.toml");
    host.sh("systemctl reload kafka-backup");
    host.await_show("StatusText", |status| status.starts_with("running 5 jobs"));
}

fn touching_one_of_five_leaves_four_alone(daemon: &Daemon, others: &[Other]) {
    let (pid, before, orders) = (daemon.pid(), sessions(daemon, others), daemon.session("orders"));
    daemon.orders("rotate_interval = \"1s\"\nflush_size = 500\n");
    daemon.host.sh("systemctl reload kafka-backup");
    wait_until("the one to run again", SOON, || {
        let status = daemon.status_of("orders");
        status["began_ms"] != orders.0 && status["partitions"][0]["durable_offset"].is_number()
    });
    daemon.produce(900_000, 900_100);
    daemon.caught_up();
    assert_eq!((sessions(daemon, others), daemon.pid()), (before, pid), "the others have not noticed");
}

/// A hundred SIGHUPs, as fast as a shell sends them.
fn a_storm_of_signals_is_few_reloads(daemon: &Daemon, others: &[Other]) {
    let host = &daemon.host;
    let (pid, before) = (daemon.pid(), sessions(daemon, others));
    let reloads = || daemon.metric("kafka_backup_config_reloads_total", "");
    let (counted, began) = (reloads(), Instant::now());
    host.sh(&format!("for n in $(seq 100); do kill -HUP {pid}; sleep 0.008; done"));
    // One at once, and one for all that come within the next two seconds.
    let most = 2.0 + (began.elapsed().as_secs() / 2) as f64;
    wait_until("the first signal to be answered", SOON, || reloads() > counted);
    std::thread::sleep(Duration::from_secs(3));
    let counted = reloads() - counted;
    assert!((1.0..=most).contains(&counted), "{counted} reloads");
    host.await_show("ActiveState", |state| state == "active");
    assert_eq!((host.show("kafka-backup", "SubState").as_str(), daemon.pid()), ("running", pid));
    assert_eq!(sessions(daemon, others), before);
    host.sh("systemctl reload kafka-backup");
    daemon.produce(900_100, 900_200);
    daemon.caught_up();
}

/// SIGKILL in the middle of a reload that changes a job which is reading.
fn killed_while_it_reloads_it_comes_back(daemon: &Daemon) {
    let host = &daemon.host;
    daemon.forget_starts();
    for round in 1..=2 {
        daemon.orders(&format!("rotate_interval = \"1s\"\nflush_size = {}\n", 500 + round));
        daemon.produce(910_000 + 1000 * round, 911_000 + 1000 * round);
        host.sh(&format!("kill -HUP {pid} && sleep 0.0{round} && kill -KILL {pid}", pid = daemon.pid()));
        host.await_show("NRestarts", |restarts| restarts == round.to_string());
        host.await_show("ActiveState", |state| state == "active");
    }
    host.await_show("StatusText", |status| status.starts_with("running 5 jobs, generation 1"));
    daemon.caught_up();
    assert_backed_up(&daemon.kafka, &daemon.bucket, &daemon.topic);
}

/// Four of five: that could be a mount that is missing. Said on purpose, they make durable what they have read, and go.
fn jobs_taken_out_are_drained_and_not_by_accident(daemon: &Daemon, others: &[Other]) {
    let host = &daemon.host;
    let pid = daemon.pid();
    let all_read = |other: &Other| daemon.session(&other.id).2 >= (READ * 100) as f64;
    wait_until("the others to have read their records", SOON, || others.iter().all(all_read));
    host.sh("rm /etc/kafka-backup/jobs.d/other*.toml");
    assert_ne!(host.try_sh("systemctl reload kafka-backup").0, 0);
    host.await_show("StatusText", |status| status.contains("4 of 5 jobs would be removed"));
    host.sh("kafka-backup reload --allow-removals");
    host.await_show("StatusText", |status| status.starts_with("running 1 job, generation 2"));
    for other in others {
        assert_eq!(covered(&daemon.bucket, &other.folder()), READ, "what was read is durable");
        assert_backed_up(&daemon.kafka, &daemon.bucket, &other.topic);
    }
    wait_until("their series to be gone", SOON, || !scrape(host).contains("backup_job=\"other"));
    assert_eq!(daemon.pid(), pid);
}

fn a_restart_goes_on_where_it_was(daemon: &Daemon) {
    let before = daemon.pid();
    let protected = || daemon.metric("kafka_backup_topic_protected_timestamp_seconds", "backup_job=\"orders\"");
    let safe_until = protected();
    assert!(safe_until > 0.0);
    daemon.host.sh("systemctl restart kafka-backup");
    assert_ne!(daemon.pid(), before);
    wait_until("it to be known again up to when all is safe", SOON, || protected() > 0.0);
    assert!(protected() >= safe_until, "not further back than before");
    daemon.produce(1_000, 1_100);
    daemon.caught_up();
    assert_backed_up(&daemon.kafka, &daemon.bucket, &daemon.topic);
}

/// SIGTERM: an object that would have been open for ten minutes is finished before TimeoutStopSec is over.
fn a_stop_makes_durable_what_was_read(daemon: &Daemon) {
    let host = &daemon.host;
    daemon.orders("rotate_interval = \"10m\"\n");
    daemon.forget_starts();
    host.sh("systemctl restart kafka-backup");
    daemon.produce(1_100, 2_100);
    let folder = format!("{}/0/", daemon.topic);
    let read = || scrape(host).lines().any(|l| l.starts_with("kafka_backup_buffer_bytes ") && !l.ends_with(" 0"));
    wait_until("the records to be held in memory", SOON, read);
    let before = covered(&daemon.bucket, &folder);
    assert!(before < daemon.kafka.end(&daemon.topic, 0), "the object is still open");
    let began = Instant::now();
    host.sh("systemctl stop kafka-backup");
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
    assert_eq!(host.show("kafka-backup", "Result"), "success");
    assert_eq!(host.show("kafka-backup", "ExecMainStatus"), "0");
    assert!(host.journal().contains("stopped, everything that was read is durable"), "{}", host.journal());
    assert!(covered(&daemon.bucket, &folder) > before, "what was read is durable");
    daemon.orders("rotate_interval = \"1s\"\n");
    host.sh("systemctl start kafka-backup");
    daemon.caught_up();
    assert_backed_up(&daemon.kafka, &daemon.bucket, &daemon.topic);
}

/// A store that takes three seconds for each object, and a unit with less time for its end than all of them need: more is
/// asked for, and given, as long as it goes on.
fn a_long_stop_is_given_more_time(daemon: &Daemon) {
    let host = &daemon.host;
    let (objects, each, limit) = (6, Duration::from_secs(3), Duration::from_secs(10));
    let drop_in = "/etc/systemd/system/kafka-backup.service.d/stop.conf";
    host.write(drop_in, &format!("[Service]\nTimeoutStopSec={}s\n", limit.as_secs()));
    let proxy = Proxy::start(stack::s3_endpoint());
    let slow = daemon.kafka.topic("systemd-slow", 1, &[]);
    daemon.kafka.produce(&slow, 0, &numbered(0..10 * objects, 100));
    let store = format!(
        "storage = {{ bucket = {:?}, endpoint = {:?}, region = \"us-east-1\", path_style = true }}\n",
        daemon.bucket.name,
        proxy.url()
    );
    daemon.job("slow", &format!("topics = [{slow:?}]\nrotate_interval = \"10m\"\nflush_size = 10\n{store}"));
    proxy.set(Fault::Delay(each), Hits::DataPuts);
    host.sh("systemctl daemon-reload && systemctl reload kafka-backup");
    let read = (objects * 10 * 100) as f64;
    wait_until("all to have been read", SOON, || daemon.session("slow").2 >= read);
    let began = Instant::now();
    host.sh("systemctl stop kafka-backup");
    assert!(began.elapsed() > limit, "nothing had to be asked for: {:?}", began.elapsed());
    assert_eq!(host.show("kafka-backup", "Result"), "success", "{}", host.journal());
    assert_eq!(covered(&daemon.bucket, &format!("{slow}/0/")), 10 * objects);
    host.sh(&format!("rm {drop_in} /etc/kafka-backup/jobs.d/slow.toml && systemctl daemon-reload"));
    host.sh("systemctl start kafka-backup");
}

/// The disk of the state is full: the daemon says so, lives on, and is well again when there is room.
fn a_full_disk_is_survived(daemon: &Daemon) {
    let host = &daemon.host;
    let user = host.sh("id -u kafka-backup").trim().to_owned();
    host.write(
        "/etc/systemd/system/var-lib-kafka\\x2dbackup.mount",
        &format!(
            "[Mount]\nWhat=tmpfs\nWhere=/var/lib/kafka-backup\nType=tmpfs\nOptions=size=4m,mode=0700,uid={user},gid={user}\n"
        ),
    );
    daemon.forget_starts();
    host.sh("systemctl stop kafka-backup && systemctl daemon-reload");
    host.sh("systemctl start 'var-lib-kafka\\x2dbackup.mount' && systemctl start kafka-backup");
    daemon.produce(2_100, 2_200);
    daemon.caught_up();
    let pid = daemon.pid();
    let (_, said) = host.try_sh("dd if=/dev/zero of=/var/lib/kafka-backup/filler bs=64k");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(daemon.metric("kafka_backup_state_free_bytes", "") < 65_536.0, "there is an alert for it");
    daemon.produce(2_200, 2_300);
    std::thread::sleep(Duration::from_secs(5)); // time to trip over it
    assert_eq!((host.show("kafka-backup", "ActiveState").as_str(), daemon.pid()), ("active", pid.clone()));
    host.sh("rm /var/lib/kafka-backup/filler");
    daemon.produce(2_300, 2_400);
    daemon.caught_up();
    assert_eq!(daemon.pid(), pid, "nothing had to be started again");
    // As long as there is such a unit, starting the daemon mounts it again.
    host.sh("systemctl stop kafka-backup 'var-lib-kafka\\x2dbackup.mount'");
    host.sh("rm '/etc/systemd/system/var-lib-kafka\\x2dbackup.mount' && systemctl daemon-reload");
    host.sh("systemctl start kafka-backup");
    daemon.produce(2_400, 2_500);
    daemon.caught_up();
    assert_backed_up(&daemon.kafka, &daemon.bucket, &daemon.topic);
}

/// Nothing turns any more: systemd kills the process and starts another.
fn a_stopped_process_is_killed_and_started_again(daemon: &Daemon) {
    let host = &daemon.host;
    assert_eq!(host.show("kafka-backup", "WatchdogUSec"), "1min", "what is shipped");
    host.write(
        "/etc/systemd/system/kafka-backup.service.d/watchdog.conf",
        "[Service]\nWatchdogSec=3s\nRestartSec=1s\n",
    );
    host.sh("systemctl daemon-reload && systemctl restart kafka-backup");
    daemon.produce(2_500, 2_600);
    daemon.caught_up();
    std::thread::sleep(Duration::from_secs(5)); // it is fed while all is well
    assert_eq!(host.show("kafka-backup", "NRestarts"), "0");
    let stopped = daemon.pid();
    host.sh(&format!("kill -STOP {stopped}"));
    host.await_show("NRestarts", |restarts| restarts == "1");
    host.await_show("ActiveState", |state| state == "active");
    assert_ne!(daemon.pid(), stopped);
    daemon.produce(2_600, 2_700);
    daemon.caught_up();
    assert_backed_up(&daemon.kafka, &daemon.bucket, &daemon.topic);
    host.sh("rm /etc/systemd/system/kafka-backup.service.d/watchdog.conf && systemctl daemon-reload");
}

/// A restore file, run by the unit that is shipped for it, while the daemon runs.
fn restores_by_its_own_unit(daemon: &Daemon) {
    let copy = format!("{}-copy", daemon.topic);
    let file = format!(
        "kafka = \"main\"\nstorage = \"main\"\ntopics = [\"{}:{copy}\"]\nreplication_factor = 1\n",
        daemon.topic
    );
    daemon.host.write("/etc/kafka-backup/restore.d/orders.toml", &file);
    daemon.host.sh("systemctl start kafka-backup-restore@orders || (journalctl --no-pager -o cat -u kafka-backup-restore@orders; false)");
    let values = |topic: &str| daemon.kafka.read(topic, 0).into_iter().map(|r| r.without_offset()).collect::<Vec<_>>();
    assert_eq!(values(&copy), values(&daemon.topic));
    daemon.kafka.delete_topic(&copy);
}

/// The unit of verifications, by hand and by its timer; what is damaged is a failed unit.
fn verifies_by_its_own_unit(daemon: &Daemon, other: &Other) {
    let host = &daemon.host;
    let (unit, timer) = ("kafka-backup-verify@main.service", "kafka-backup-verify@main.timer");
    let journal = || host.try_sh(&format!("journalctl --no-pager -o cat -u {unit}")).1;
    assert_eq!(host.try_sh(&format!("systemctl start {unit}")).0, 0, "{}", journal());
    host.sh(&format!("systemctl enable --now {timer}"));
    assert_ne!(host.show(timer, "NextElapseUSecRealtime"), "", "it has a next time");
    host.sh(&format!("systemctl disable --now {timer}"));

    let key = daemon.bucket.list(&other.folder()).pop().unwrap().key;
    let (content, metadata) = daemon.bucket.get(&key);
    daemon.bucket.put(&key, b"no Avro file");
    assert_ne!(host.try_sh(&format!("systemctl start {unit}")).0, 0, "{}", journal());
    assert_eq!((host.show(unit, "Result").as_str(), host.show(unit, "ExecMainStatus").as_str()), ("exit-code", "4"));
    assert!(journal().contains(&key), "{}", journal());
    daemon.bucket.put_with(&key, &content, &metadata);
    assert_eq!(host.try_sh(&format!("systemctl start {unit}")).0, 0, "{}", journal());
}

fn an_upgrade_restarts_and_keeps_what_was_edited(daemon: &Daemon) {
    let host = &daemon.host;
    daemon.forget_starts();
    let files = "sha256sum /etc/kafka-backup/kafka-backup.toml /etc/kafka-backup/jobs.d/* /etc/default/kafka-backup \
                 /etc/kafka-backup/secrets/* && ls /var/lib/kafka-backup";
    let (before, pid) = (host.sh(files), daemon.pid());
    host.sh("dpkg -i /root/new.deb");
    assert_eq!(host.sh("dpkg-query -W -f '${Version}' kafka-backup"), "0.1.0-1");
    assert_eq!(host.show("kafka-backup", "ActiveState"), "active");
    assert_ne!(daemon.pid(), pid, "the new program runs");
    assert_eq!(host.sh(files), before);
    daemon.produce(2_700, 2_800);
    daemon.caught_up();
    assert_backed_up(&daemon.kafka, &daemon.bucket, &daemon.topic);
}

/// What the main file of the later version has at its end.
const OF_A_LATER_VERSION: &str = "# of a later version";

/// The package ships another main file than the one that was edited: that one stays, the new one lies beside it for whoever
/// wants to compare them, and the daemon goes on with what was edited and with what it knew.
fn an_upgrade_with_another_main_file_keeps_the_edited_one(daemon: &Daemon) {
    let host = &daemon.host;
    daemon.forget_starts();
    let main = "/etc/kafka-backup/kafka-backup.toml";
    let files = "sha256sum /etc/kafka-backup/kafka-backup.toml /etc/kafka-backup/jobs.d/* /etc/default/kafka-backup \
                 /etc/kafka-backup/secrets/* && ls /var/lib/kafka-backup";
    daemon.job("paused", "topics = [\"paused\"]\n");
    host.sh("systemctl reload kafka-backup && kafka-backup pause paused --reason upgrade");
    let (before, pid, objects) = (host.sh(files), daemon.pid(), stored(&daemon.bucket));
    // What unattended upgrades do; without it dpkg asks, and nobody answers.
    host.sh("dpkg --force-confdef --force-confold -i /root/later.deb");
    assert_eq!(host.sh("dpkg-query -W -f '${Version} ${Status}' kafka-backup"), "9.9.9-1 install ok installed");
    assert_eq!(host.sh(files), before, "files that were edited, and state");
    assert!(host.sh(&format!("head -1 {main}")).starts_with("# edited"));
    assert_eq!(host.sh(&format!("tail -1 {main}.dpkg-dist")).trim(), OF_A_LATER_VERSION);
    assert_eq!(host.show("kafka-backup", "ActiveState"), "active");
    assert_ne!(daemon.pid(), pid, "the new program runs");
    host.await_show("StatusText", |status| status.starts_with("running 2 jobs (1 paused), generation 1"));
    assert_eq!(daemon.status_of("paused")["state"], "paused", "state is kept");
    assert_eq!(daemon.metric("kafka_backup_state_rebuilds_total", ""), 0.0);
    daemon.produce(2_800, 2_900);
    daemon.caught_up();
    assert_untouched(&objects, &daemon.bucket);
    assert_backed_up(&daemon.kafka, &daemon.bucket, &daemon.topic);
    host.sh("rm /etc/kafka-backup/jobs.d/paused.toml && systemctl reload kafka-backup");
}

/// The whole journal, at trace level.
fn nothing_secret_was_logged(daemon: &Daemon) {
    let journal = daemon.host.sh("journalctl --no-pager");
    assert!(journal.contains("kafka-backup"), "it was looked at the right place");
    assert!(!journal.contains(SECRET_KEY), "the secret is in the journal");
    assert!(!journal.to_lowercase().contains("authorization: aws4"), "a signature is in the journal");
}

fn removal_and_purge_leave_the_backup_alone(daemon: &Daemon) {
    let host = &daemon.host;
    let before = stored(&daemon.bucket);
    host.sh("dpkg -r kafka-backup");
    assert_eq!(host.try_sh("systemctl is-active kafka-backup").1.trim(), "inactive");
    host.sh("test ! -e /usr/bin/kafka-backup && test -e /etc/kafka-backup/kafka-backup.toml && test -e /var/lib/kafka-backup/state");
    host.sh("dpkg -P kafka-backup");
    host.sh("test ! -e /etc/kafka-backup && test ! -e /var/lib/kafka-backup && test ! -e /etc/default/kafka-backup");
    host.sh("id kafka-backup");
    assert_untouched(&before, &daemon.bucket);
}
