//! A configuration tree of one test's own: temporary folders, a main file, jobs, and the commands run on them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::s3::Bucket;
use super::stack;

/// The program under test; on a host of its own that is the one that was installed there.
static PROGRAM: LazyLock<String> =
    LazyLock::new(|| std::env::var(INSTALLED).unwrap_or_else(|_| env!("CARGO_BIN_EXE_kafka-backup").to_owned()));

/// Names the program where it is not the one that was built with the tests.
pub const INSTALLED: &str = "KAFKA_BACKUP_TEST_PROGRAM";

fn program() -> &'static OsStr {
    OsStr::new(PROGRAM.as_str())
}

/// What a test sets up before it runs the program. Everything it writes is gone when it is dropped.
pub struct Env {
    dir: tempfile::TempDir,
    main: String,
    jobs: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    /// The bucket of storage `main`.
    pub bucket: Bucket,
    has_main_storage: bool,
    has_main_kafka: bool,
}

impl Env {
    /// Cluster `main` is the shared Kafka, storage `main` a new bucket; both unless defined otherwise.
    pub fn new() -> Self {
        Self {
            dir: tempfile::Builder::new().prefix("kafka-backup-test.").tempdir().unwrap(),
            main: String::new(),
            jobs: Vec::new(),
            variables: Vec::new(),
            bucket: Bucket::create(),
            has_main_storage: false,
            has_main_kafka: false,
        }
    }

    /// Adds lines at the top of the main file, e.g. `memory.budget = "64MiB"`.
    #[must_use]
    pub fn set(mut self, lines: &str) -> Self {
        self.main = format!("{lines}\n{}", self.main);
        self
    }

    /// Sets a variable of the program's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Storage `main` is this bucket, which another test environment has, too.
    #[must_use]
    pub fn sharing(mut self, bucket: &Bucket) -> Self {
        self.bucket = bucket.clone();
        self
    }

    /// Defines a storage; without one called `main` there is one for [`Self::bucket`] on the shared S3.
    #[must_use]
    pub fn storage(mut self, name: &str, endpoint: &str, bucket: &Bucket) -> Self {
        self.has_main_storage |= name == "main";
        write!(
            self.main,
            "[storage.{name}]\ntype = \"s3\"\nbucket = \"{}\"\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\n\
             path_style = true\n",
            bucket.name
        )
        .unwrap();
        self
    }

    /// Storage `main` reached through a proxy.
    #[must_use]
    pub fn storage_behind(self, proxy: &super::proxy::Proxy) -> Self {
        let bucket = self.bucket.clone();
        self.storage("main", &proxy.url(), &bucket)
    }

    /// Defines a cluster with librdkafka properties; without one called `main` that is the shared Kafka.
    #[must_use]
    pub fn kafka(mut self, name: &str, bootstrap: &str, properties: &[(&str, &str)]) -> Self {
        self.has_main_kafka |= name == "main";
        let servers: Vec<_> = bootstrap.split(',').map(|server| format!("{server:?}")).collect();
        write!(self.main, "[kafka.{name}]\nbootstrap_servers = [{}]\n", servers.join(", ")).unwrap();
        if !properties.is_empty() {
            writeln!(self.main, "[kafka.{name}.properties]").unwrap();
        }
        for (key, value) in properties {
            writeln!(self.main, "{key:?} = {value:?}").unwrap();
        }
        self
    }

    /// Defines a backup job on cluster and storage `main` (unless `lines` say otherwise).
    #[must_use]
    pub fn job(mut self, id: &str, topics: &[&str], lines: &str) -> Self {
        let mut text = format!("topics = {topics:?}\n");
        for (key, value) in [("type", "backup"), ("kafka", "main"), ("storage", "main")] {
            if !lines.lines().any(|line| line.trim_start().starts_with(key)) {
                writeln!(text, "{key} = {value:?}").unwrap();
            }
        }
        text.push_str(lines);
        self.jobs.push((id.to_owned(), text));
        self
    }

    /// Replaces the lines of a job, for the next start.
    pub fn change_job(&mut self, id: &str, change: impl Fn(&str) -> String) {
        let job = self.jobs.iter_mut().find(|(name, _)| name == id).expect("the job was defined");
        job.1 = change(&job.1);
    }

    /// The state folder of the program called `instance`.
    pub fn state(&self, instance: &str) -> PathBuf {
        self.dir.path().join(instance).join("state")
    }

    /// A path in the temporary folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the daemon.
    pub fn daemon(&self) -> Daemon {
        self.daemon_named("a")
    }

    /// Starts a daemon with state of its own; several names stand for several machines with the same jobs.
    pub fn daemon_named(&self, instance: &str) -> Daemon {
        self.daemon_after(instance, ":", &[])
    }

    /// Starts a daemon in a mount namespace of its own, in which `prepare` (shell) was run first: mounts made there are
    /// gone with the daemon.
    pub fn daemon_in_namespace(&self, prepare: &str) -> Daemon {
        self.daemon_after("a", prepare, &[])
    }

    /// Starts the daemon with environment variables of its own.
    pub fn daemon_with(&self, variables: &[(&str, &str)]) -> Daemon {
        self.daemon_after("a", ":", variables)
    }

    fn daemon_after(&self, instance: &str, prepare: &str, variables: &[(&str, &str)]) -> Daemon {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = self.write(instance, &format!("127.0.0.1:{port}"));
        let mut command = if prepare == ":" {
            self.command_with(program(), &config)
        } else {
            let mut command = self.command_with("unshare".as_ref(), &config);
            let script = format!("{prepare} && exec \"$0\" \"$@\"");
            command.args(if rustix::process::geteuid().is_root() { ["-m"] } else { ["-rm"] });
            command.args(["sh", "-c", &script, &PROGRAM]);
            command
        };
        command.arg("daemon").envs(variables.iter().copied());
        Daemon::spawn(command, port, self.dir.path().join(instance).join("log"))
    }

    /// Runs `kafka-backup ARGS` with this configuration, without a daemon.
    pub fn kafka_backup<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.kafka_backup_named("a", args)
    }

    /// The same with the state of `instance`.
    pub fn kafka_backup_named<S: AsRef<OsStr>>(&self, instance: &str, args: &[S]) -> Output {
        let config = self.write(instance, "");
        let mut command = self.command_with(program(), &config);
        command.args(args);
        Output::of(command)
    }

    /// Runs `kafka-backup ARGS` on a terminal of its own; what it shows there is in `stdout`.
    pub fn on_a_terminal(&self, args: &[&str]) -> Output {
        let config = self.write("a", "");
        let mut command = self.command_with("script".as_ref(), &config);
        let quoted: Vec<String> = [PROGRAM.as_str()].iter().chain(args).map(|word| format!("'{word}'")).collect();
        command.args(["--quiet", "--return", "--command", &quoted.join(" "), "/dev/null"]);
        Output::of(command)
    }

    /// Runs `kafka-backup ARGS` beside a running daemon: the files are left as they are.
    pub fn tell<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        let mut command = self.command_with(program(), &self.tree().join("kafka-backup.toml"));
        command.args(args);
        Output::of(command)
    }

    /// The same for what goes on until it is ended; what it says is in [`Daemon::said`].
    pub fn begin(&self, args: &[&str]) -> Daemon {
        let mut command = self.command_with(program(), &self.tree().join("kafka-backup.toml"));
        command.args(args);
        Daemon::spawn(command, 0, self.path(&super::unique("begun")))
    }

    /// As [`Self::tell`], through `wrapper`, e.g. `setpriv` with its arguments.
    pub fn tell_through(&self, wrapper: &[&str], args: &[&str]) -> Output {
        // The program may lie where only this user can reach it.
        let program = self.path("program");
        if !program.exists() {
            std::fs::copy(PROGRAM.as_str(), &program).unwrap();
        }
        let mut command = self.command_with(wrapper[0].as_ref(), &self.tree().join("kafka-backup.toml"));
        command.args(&wrapper[1..]).arg(program).args(args);
        Output::of(command)
    }

    /// Where main file, `jobs.d` and control socket of the daemon are.
    pub fn tree(&self) -> PathBuf {
        self.dir.path().join("a")
    }

    /// The file of a job of the daemon.
    pub fn job_file(&self, id: &str) -> PathBuf {
        self.tree().join(format!("jobs.d/{id}.toml"))
    }

    /// Backs a job up to the ends its partitions have now; panics when that fails.
    pub fn back_up(&self, job: &str) -> serde_json::Value {
        self.try_back_up(job).success()
    }

    /// The same; the caller looks at what came of it.
    pub fn try_back_up(&self, job: &str) -> Output {
        self.kafka_backup(&["run", job, "--until-caught-up", "--json"])
    }

    /// Restores `topics` (`source:target`) from storage `main` to cluster `main`, with further arguments.
    pub fn restore(&self, topics: &str, args: &[&str]) -> Output {
        let fixed = ["restore", "--storage", "main", "--kafka", "main", "--topics", topics, "--json"];
        self.kafka_backup(&[&fixed, args].concat())
    }

    /// Starts `kafka-backup ARGS` with the state of `instance` and does not wait for its end.
    pub fn start<S: AsRef<OsStr>>(&self, args: &[S], instance: &str) -> Daemon {
        let config = self.write(instance, "");
        let mut command = self.command_with(program(), &config);
        command.args(args);
        Daemon::spawn(command, 0, self.dir.path().join(instance).join("log"))
    }

    fn command_with(&self, program: &OsStr, config: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.dir.path())
            .env("AWS_ACCESS_KEY_ID", stack::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", stack::SECRET_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("KAFKA_BACKUP_CONFIG", config)
            .env("RUST_BACKTRACE", "1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
        unsafe {
            command.pre_exec(|| {
                // Nothing outlives a test run that is killed.
                Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
            });
        }
        command
    }

    /// Writes the tree for `instance` and returns its main file.
    fn write(&self, instance: &str, listen: &str) -> PathBuf {
        let home = self.dir.path().join(instance);
        let jobs = home.join("jobs.d");
        std::fs::create_dir_all(&jobs).unwrap();
        let mut main = format!(
            "state_dir = {:?}\njobs_dir = {jobs:?}\nhttp.listen = {listen:?}\ncontrol.socket = {:?}\n",
            home.join("state"),
            home.join("control.sock"),
        );
        for (key, value) in [("drain_timeout", "20s"), ("log.level", "info"), ("log.format", "text")] {
            if !self.main.lines().any(|line| line.starts_with(key)) {
                writeln!(main, "{key} = {value:?}").unwrap();
            }
        }
        let mut defaults = String::new();
        if !self.has_main_kafka {
            writeln!(defaults, "[kafka.main]\nbootstrap_servers = [{:?}]", stack::kafka_bootstrap()).unwrap();
        }
        if !self.has_main_storage {
            write!(
                defaults,
                "[storage.main]\ntype = \"s3\"\nbucket = \"{}\"\nregion = \"us-east-1\"\nendpoint = \"{}\"\n\
                 path_style = true\n",
                self.bucket.name,
                stack::s3_endpoint()
            )
            .unwrap();
        }
        let path = home.join("kafka-backup.toml");
        std::fs::write(&path, format!("{main}{}{defaults}", self.main)).unwrap();
        for (id, text) in &self.jobs {
            std::fs::write(jobs.join(format!("{id}.toml")), text).unwrap();
        }
        path
    }
}

/// What a command that has ended said.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its result.
    pub stdout: String,
    /// Its logs.
    pub stderr: String,
}

impl Output {
    /// Longer than any one-shot command of these tests takes.
    const LIMIT: Duration = Duration::from_secs(300);

    fn of(mut command: Command) -> Self {
        let [mut out, mut err] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > Self::LIMIT {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let read = |file: &mut std::fs::File| {
            let mut text = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut text)).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        };
        Self { status, stdout: read(&mut out), stderr: read(&mut err) }
    }

    /// The exit code; a signal counts as 128 + its number.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }

    /// The summary it ended with; panics with everything it said when it did not succeed.
    pub fn success(&self) -> serde_json::Value {
        assert_eq!(self.code(), 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.summary()
    }

    /// The last line of its result, as JSON.
    pub fn summary(&self) -> serde_json::Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e} in {last:?}\nstderr:\n{}", self.stderr))
    }

    /// Panics, with everything it said, unless it ended with `code` and named every one of `words` on stderr.
    pub fn fails_with(&self, code: i32, words: &[&str]) {
        let said = format!("stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert_eq!(self.code(), code, "{said}");
        for word in words {
            assert!(self.stderr.contains(word), "nothing about {word:?}\n{said}");
        }
    }
}
