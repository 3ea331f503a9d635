//! The servers: taken from the environment where `make test` or `make stack` has started them, else started by the
//! first test of this process that asks, and stopped by a guard when this process ends in whatever way.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

/// Where the scripts are.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack").join(name)
}

/// The folder in which this process starts servers, and the guard that removes it.
struct Owned {
    dir: tempfile::TempDir,
    /// Its input ends with this process, in whatever way it ends: that is the sign to clean up.
    _guard: Child,
}

static OWNED: LazyLock<Owned> = LazyLock::new(|| {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/stack");
    std::fs::create_dir_all(&parent).unwrap();
    let dir = tempfile::Builder::new().prefix("own.").tempdir_in(parent).unwrap();
    let guard = Command::new("setsid")
        .arg(script("stack.sh"))
        .arg("guard")
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("setsid (util-linux) starts");
    Owned { dir, _guard: guard }
});

/// Bootstrap servers of the Kafka that all tests share: one broker.
pub fn kafka_bootstrap() -> &'static str {
    static KAFKA: LazyLock<String> = LazyLock::new(|| {
        std::env::var("KAFKA_BACKUP_TEST_KAFKA").unwrap_or_else(|_| up("kafka.sh", "up", "kafka", &[]))
    });
    &KAFKA
}

/// URL of the S3 that all tests share; keys [`ACCESS_KEY`] and [`SECRET_KEY`], region `us-east-1`, path style.
pub fn s3_endpoint() -> &'static str {
    static S3: LazyLock<String> =
        LazyLock::new(|| std::env::var("KAFKA_BACKUP_TEST_S3").unwrap_or_else(|_| up("stack.sh", "s3", "s3", &[])));
    &S3
}

/// The access key the test S3 knows.
pub const ACCESS_KEY: &str = "AKTEST";
/// Its secret.
pub const SECRET_KEY: &str = "SKTESTSKTEST";
/// The access key of another user, who may only do what the policy of a bucket allows, and its secret.
pub const PARTNER: (&str, &str) = ("AKPARTNER", "SKPARTNERSK");

/// Starts servers in a folder of ours and returns the last line of what the script says: their address.
fn up(name: &str, what: &str, folder: &str, args: &[&str]) -> String {
    up_with(name, what, folder, args, "")
}

/// The same with further settings of the brokers, as `key=value;key=value`.
fn up_with(name: &str, what: &str, folder: &str, args: &[&str], settings: &str) -> String {
    let mut command = Command::new(script(name));
    command.arg(what).arg(OWNED.dir.path().join(folder)).args(args).env("KAFKA_EXTRA", settings);
    run(command).lines().last().expect("the script prints the address").to_owned()
}

/// Runs a command to its end and returns its output; panics with everything it said when it fails.
pub fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Runs one of Kafka's own command line tools, e.g. `org.apache.kafka.tools.TopicCommand`.
pub fn kafka_tool(class: &str, args: &[&str]) -> String {
    let mut command = Command::new(script("kafka.sh"));
    command.args(["tool", class]).args(args);
    run(command)
}

/// Runs Apache Avro's own command line tools.
pub fn avro_tools(args: &[&str]) -> String {
    let mut command = Command::new(script("kafka.sh"));
    command.arg("avro-tools").args(args);
    run(command)
}

/// A Kafka of one test's own, whose brokers it may stop, start and kill. Gone when dropped.
pub struct Cluster {
    dir: PathBuf,
    /// Bootstrap servers.
    pub bootstrap: String,
}

impl Cluster {
    /// Starts `brokers` brokers.
    pub fn start(brokers: u32) -> Self {
        Self::start_with(brokers, "")
    }

    /// Starts `brokers` brokers with further settings, as `key=value;key=value`.
    pub fn start_with(brokers: u32, settings: &str) -> Self {
        let folder = super::unique("kafka");
        let bootstrap = up_with("kafka.sh", "up", &folder, &[&brokers.to_string()], settings);
        Self { dir: OWNED.dir.path().join(folder), bootstrap }
    }

    /// Stops broker `n` (from 1) with `signal` (`TERM`, `KILL`) and waits until it is gone.
    pub fn stop_broker(&self, n: u32, signal: &str) {
        let mut command = Command::new(script("kafka.sh"));
        command.arg("stop").arg(&self.dir).args([&n.to_string(), signal]);
        run(command);
    }

    /// Broker `n` does nothing any more, and closes no connection.
    pub fn freeze_broker(&self, n: u32) {
        self.signal_broker(n, "STOP");
    }

    /// It goes on.
    pub fn thaw_broker(&self, n: u32) {
        self.signal_broker(n, "CONT");
    }

    fn signal_broker(&self, n: u32, signal: &str) {
        let pid = std::fs::read_to_string(self.dir.join(format!("{n}/pid"))).unwrap();
        let mut kill = Command::new("kill");
        kill.args(["-s", signal, pid.trim()]);
        run(kill);
    }

    /// Starts broker `n` again on its old port and data.
    pub fn start_broker(&self, n: u32) {
        let mut command = Command::new(script("kafka.sh"));
        command.arg("start").arg(&self.dir).arg(n.to_string());
        run(command);
    }

    /// Suspends broker `n` for a while, as a machine is that is moved or saved.
    pub fn suspend_broker(&self, n: u32, for_how_long: Duration) {
        self.freeze_broker(n);
        std::thread::sleep(for_how_long);
        self.thaw_broker(n);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new(script("kafka.sh")).arg("down").arg(&self.dir).status();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
