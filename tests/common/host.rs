//! A host with a systemd that was booted, and the packages that are installed on it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{SOON, stack};

/// Where the tools that make packages are; `make package-tools` puts them there.
fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(name)
}

/// Why packages cannot be made here. `make test` installs the tools.
fn without_tools() -> Option<String> {
    let tools = ["cargo-deb", "cargo-generate-rpm"].into_iter().find(|name| !tool(name).exists());
    tools.map(|name| format!("there is no {name}; make package-tools installs it"))
}

/// Why no host can be booted here: only root may, and not even root in a container that takes its capabilities.
fn without_root() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root is needed".to_owned());
    }
    let mut unshare = Command::new("unshare");
    let may = unshare.args(["--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        return Some("this root may not mount; is it that of an unprivileged container?".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).exists());
    let missing = ["debootstrap", "systemd-nspawn", "nsenter"].into_iter().find(|name| !found(name));
    missing.map(|name| format!("{name} is not installed"))
}

/// Whether a test of packages can run. One that is left out is said aloud; where everything is installed, as in CI,
/// missing tools are a failure.
pub fn can_make_packages(test: &str) -> bool {
    let missing = without_tools();
    let expected = std::env::var_os("CI").is_some();
    assert!(!expected || missing.is_none(), "{test}: {}", missing.unwrap_or_default());
    goes_on(test, missing)
}

/// Whether a test on a host of its own can run. One that is left out is said aloud.
pub fn can_boot(test: &str) -> bool {
    can_make_packages(test) && goes_on(test, without_root())
}

fn goes_on(test: &str, missing: Option<String>) -> bool {
    let Some(why) = missing else { return true };
    // Not captured, as println! would be.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("\n*** SKIPPED {test}: {why} ***\n").as_bytes());
    false
}

/// A port of this machine nobody listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Makes the packages from the binary under test, which is what `make packages` makes from the optimised one.
pub struct Packages {
    dir: tempfile::TempDir,
}

impl Packages {
    /// Writes what they hold besides the binary, once for all tests.
    pub fn stage() -> Self {
        static STAGED: LazyLock<()> = LazyLock::new(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            let mut stage = Command::new(root.join("packaging/stage.sh"));
            stage.arg(env!("CARGO_BIN_EXE_kafka-backup")).arg(root.join("target/package"));
            stack::run(stage);
        });
        LazyLock::force(&STAGED);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { dir: tempfile::tempdir_in(root.join("target")).unwrap() }
    }

    /// The Debian package with this version.
    pub fn deb(&self, version: &str) -> PathBuf {
        let path = self.dir.path().join(format!("kafka-backup_{version}.deb"));
        let mut make = Command::new(tool("cargo-deb"));
        make.current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["deb", "--quiet", "--no-build", "--locked", "--offline", "--profile", "dev", "--fast", "--strip"])
            .args(["--deb-version", version, "--output"])
            .arg(&path);
        stack::run(make);
        path
    }

    /// `deb` as a later version of it, which ships another main file: with this line at its end.
    pub fn deb_with_another_main_file(&self, deb: &Path, version: &str, line: &str) -> PathBuf {
        let path = self.dir.path().join(format!("kafka-backup_{version}.deb"));
        let tree = self.dir.path().join(format!("tree-{version}"));
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--raw-extract").arg(deb).arg(&tree);
        stack::run(unpack);
        append(&tree.join(MAIN_FILE), line);
        let control = tree.join("DEBIAN/control");
        let text = std::fs::read_to_string(&control).unwrap();
        let with = |line: &str| {
            if line.starts_with("Version: ") { format!("Version: {version}\n") } else { format!("{line}\n") }
        };
        std::fs::write(&control, text.lines().map(with).collect::<String>()).unwrap();
        // The sums are of the file as it was; dpkg needs none.
        let _ = std::fs::remove_file(tree.join("DEBIAN/md5sums"));
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--root-owner-group", "-Znone", "--build"]).arg(&tree).arg(&path);
        stack::run(pack);
        path
    }

    /// The rpm.
    pub fn rpm(&self) -> PathBuf {
        self.rpm_of(Path::new(env!("CARGO_MANIFEST_DIR")), None)
    }

    /// A later version of the rpm, which ships another main file: with this line at its end.
    pub fn rpm_with_another_main_file(&self, version: &str, line: &str) -> PathBuf {
        let tree = self.dir.path().join(format!("tree-{version}"));
        std::fs::create_dir_all(&tree).unwrap();
        for entry in std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap().flatten() {
            if entry.file_name() != "etc" {
                std::os::unix::fs::symlink(entry.path(), tree.join(entry.file_name())).unwrap();
            }
        }
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc")).arg(&tree);
        stack::run(copy);
        append(&tree.join("etc/kafka-backup.toml"), line);
        self.rpm_of(&tree, Some(version))
    }

    /// The rpm of the repository in `root`.
    fn rpm_of(&self, root: &Path, version: Option<&str>) -> PathBuf {
        let path = self.dir.path().join(format!("kafka-backup-{}.rpm", version.unwrap_or("this")));
        // Unlike the other one, this tool does not strip.
        let stripped = self.dir.path().join("debug/kafka-backup");
        std::fs::create_dir_all(stripped.parent().unwrap()).unwrap();
        let mut strip = Command::new("strip");
        strip.arg(env!("CARGO_BIN_EXE_kafka-backup")).arg("-o").arg(stripped);
        stack::run(strip);
        let mut make = Command::new(tool("cargo-generate-rpm"));
        make.current_dir(root)
            .args(["generate-rpm", "--profile", "dev", "--payload-compress", "none"])
            .args(version.map(|version| format!("--set-metadata=version = {version:?}")))
            .arg("--target-dir")
            .arg(self.dir.path())
            .arg("--output")
            .arg(&path);
        stack::run(make);
        path
    }
}

/// Where the main file is in a package.
const MAIN_FILE: &str = "etc/kafka-backup/kafka-backup.toml";

fn append(path: &Path, line: &str) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    std::fs::write(path, format!("{text}{line}\n")).unwrap();
}

/// The booted host; gone when dropped.
pub struct Host {
    dir: tempfile::TempDir,
    served: Child,
}

impl Host {
    /// Boots one.
    pub fn boot() -> Self {
        let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/stack");
        std::fs::create_dir_all(&parent).unwrap();
        let dir = tempfile::Builder::new().prefix("host.").tempdir_in(parent).unwrap();
        // The host's users look at it, too.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        stack::run(script("new", dir.path()));
        let mut serve = script("serve", dir.path());
        let console = dir.path().with_extension("console");
        serve.stdin(Stdio::null()).stdout(File::create(&console).unwrap()).stderr(File::create(&console).unwrap());
        // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
        unsafe {
            serve.pre_exec(|| {
                // Nothing outlives a test run that is killed.
                Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
            });
        }
        let host = Self { served: serve.spawn().unwrap(), dir };
        stack::run(script("await", host.dir.path()));
        host
    }

    /// A path of the host as it is seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside.trim_start_matches('/'))
    }

    /// Writes a file of root's, mode 0644.
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Exit status of a shell command on the host and what it said.
    pub fn try_sh(&self, command: &str) -> (i32, String) {
        let mut run = script("run", self.dir.path());
        run.args(["/bin/sh", "-c", &format!("{command} 2>&1")]).env_clear();
        run.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        let output = run.stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a shell command says that must succeed.
    pub fn sh(&self, command: &str) -> String {
        let (code, said) = self.try_sh(command);
        assert_eq!(code, 0, "{command}: {}\n{said}", self.journal());
        said
    }

    /// A property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.sh(&format!("systemctl show -P {property} '{unit}'")).trim().to_owned()
    }

    /// Waits until a property of the daemon's unit is as it should.
    pub fn await_show(&self, property: &str, holds: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let value = self.show("kafka-backup", property);
            if holds(&value) {
                return value;
            }
            assert!(began.elapsed() < SOON, "{property} of the unit is still {value:?}\n{}", self.journal());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the daemon's unit has logged.
    pub fn journal(&self) -> String {
        self.try_sh("journalctl -u kafka-backup -o cat --no-pager").1
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.served.kill();
        let _ = self.served.wait();
        let _ = std::fs::remove_file(self.dir.path().with_extension("console"));
    }
}

fn script(what: &str, dir: &Path) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack/systemd-host.sh"));
    command.arg(what).arg(dir);
    command
}
