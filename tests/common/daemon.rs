//! A running `kafka-backup`, watched from outside.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{SOON, wait_for, wait_until};

/// A running daemon (or one-shot command); killed when dropped.
pub struct Daemon {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command`; its stderr is added to `log`, its stdout to `log.out`.
    pub(super) fn spawn(mut command: Command, port: u16, log: PathBuf) -> Self {
        let append = |path: PathBuf| File::options().create(true).append(true).open(path).unwrap();
        command.stderr(append(log.clone())).stdout(append(log.with_extension("out")));
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, port, log }
    }

    /// Waits until it has applied its configuration and serves.
    #[must_use]
    pub fn ready(mut self) -> Self {
        wait_for("the daemon to be ready", SOON, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}");
            }
            (self.get("/-/ready")?.0 == 200).then_some(())
        });
        self
    }

    /// The port its HTTP listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Status and body of a GET; `None` when nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The sum of all series of a metric whose labels contain all of `labels` (`name="value"`); 0 when there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").map(|(_, body)| body).unwrap_or_default();
        let series = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labeled, value) = rest.rsplit_once(' ')?;
            let ours = labeled.is_empty() || labeled.starts_with('{');
            (ours && labels.iter().all(|label| labeled.contains(label))).then(|| value.parse::<f64>().ok())?
        });
        series.sum()
    }

    /// Waits until a metric is at least `least`.
    pub fn await_metric(&self, name: &str, labels: &[&str], least: f64) {
        wait_until(&format!("{name}{labels:?} >= {least}"), SOON, || self.metric(name, labels) >= least);
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        self.bytes_of("VmRSS:")
    }

    /// Resident memory that is not mapped from a file, in bytes.
    pub fn anonymous_memory(&self) -> u64 {
        self.bytes_of("RssAnon:")
    }

    fn bytes_of(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
    }

    /// The most memory that was ever resident, in bytes, up to its end, which is waited for and must be a good one.
    pub fn peak_memory(mut self) -> u64 {
        let mut peak = 0;
        wait_until("the process to end", SOON, || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
            peak = peak.max(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024);
            self.has_ended()
        });
        let status = self.end();
        assert!(status.success(), "{status}: {}", self.log());
        peak
    }

    /// What it has used since its start.
    pub fn usage(&self) -> Usage {
        let process = format!("/proc/{}", self.child.id());
        let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
        // utime and stime of proc(5), in ticks of 10 ms; the name in front of them may hold spaces.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let cpu = Duration::from_millis(ticks * 10);
        let tasks = std::fs::read_dir(format!("{process}/task")).into_iter().flatten().flatten();
        let of_task = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        };
        Usage { cpu, wakeups: tasks.filter_map(of_task).sum(), at: Instant::now() }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its result so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log.with_extension("out")).unwrap_or_default()).into_owned()
    }

    /// Waits until it has logged `text`.
    pub fn await_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), SOON, || self.log().contains(text));
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether it has ended; does not wait for it.
    pub fn has_ended(&self) -> bool {
        let pid = Pid::from_child(&self.child);
        let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        // What has ended and was not waited for is a zombie.
        status.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// SIGTERM; returns how it ended.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.end()
    }

    /// SIGTERM, and no waiting.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> ExitStatus {
        self.end()
    }

    fn end(&mut self) -> ExitStatus {
        wait_for("the process to end", SOON, || self.child.try_wait().unwrap())
    }

    /// SIGUSR1: it is to say how far it is.
    pub fn ask_for_progress(&self) {
        self.signal(Signal::USR1);
    }

    /// SIGHUP: it is to load its configuration again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Whether a SIGHUP would not end it.
    pub fn catches_hangups(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        // One bit per signal, that of SIGHUP is the first.
        caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
    }

    /// SIGSTOP: it sleeps like a virtual machine that is paused.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it wakes up and knows of nothing.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a child that was not waited for has its pid");
    }
}

/// What a process has used up to a moment. Neither depends on what else the machine does.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Of all its threads, in user mode and in the kernel.
    pub cpu: Duration,
    /// How often one of its threads that live now had waited for something, and went on.
    pub wakeups: u64,
    /// When.
    pub at: Instant,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the last lines of {}:", self.log.display());
            lines.iter().skip(lines.len().saturating_sub(60)).for_each(|line| eprintln!("{line}"));
        }
    }
}
