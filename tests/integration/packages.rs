//! The packages and the files that are shipped, read by the tools of those who will install them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::host::{Packages, can_make_packages};
use crate::common::stack;

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    stack::run(command)
}

/// The sandbox: at most 1.2 of 10 by systemd's own count, and the same for the daemon and what runs beside it.
#[test]
fn the_sandbox_is_tight() {
    for unit in ["kafka-backup.service", "kafka-backup-verify@.service", "kafka-backup-restore@.service"] {
        let path = format!("systemd/{unit}");
        run("systemd-analyze", &["security", "--no-pager", "--offline=yes", "--threshold=12", &path]);
    }
    let sandbox = |unit: &str| {
        let text = std::fs::read_to_string(repository(&format!("systemd/{unit}"))).unwrap();
        let lines = text.lines().skip_while(|line| !line.starts_with("CapabilityBoundingSet="));
        lines.take_while(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(sandbox("kafka-backup.service").len() > 30);
    assert_eq!(sandbox("kafka-backup-verify@.service"), sandbox("kafka-backup.service"));
    assert_eq!(sandbox("kafka-backup-restore@.service"), sandbox("kafka-backup.service"));
}

/// What the rpm holds and runs, in the words of rpm.
#[test]
fn the_rpm_is_what_it_should_be() {
    if !can_make_packages("the rpm") {
        return;
    }
    let packages = Packages::stage();
    let rpm = packages.rpm();
    let rpm = rpm.to_str().unwrap();
    let database = tempfile::tempdir().unwrap();
    let database = format!("--dbpath={}", database.path().display());
    let query = |arguments: &[&str]| run("rpm", &[&[&database, "-qp", "--nosignature"], arguments, &[rpm]].concat());

    let files =
        query(&["--qf", "[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags} %{FILENAMES}\\n]"]);
    for line in [
        "-rwxr-xr-x root:root  /usr/bin/kafka-backup",
        "-rw-r--r-- root:root cn /etc/kafka-backup/kafka-backup.toml",
        "-rw-r--r-- root:root cn /etc/sysconfig/kafka-backup",
        "-rw-r--r-- root:root  /usr/lib/systemd/system/kafka-backup.service",
        "-rw-r--r-- root:root  /usr/lib/systemd/system/kafka-backup-verify@.timer",
        "-rw-r--r-- root:root  /usr/lib/sysusers.d/kafka-backup.conf",
        "-rw-r--r-- root:root  /usr/lib/tmpfiles.d/kafka-backup.conf",
        "-rw-r--r-- root:root d /usr/share/man/man8/kafka-backup.8.gz",
        "-rw-r--r-- root:root d /usr/share/man/man5/kafka-backup-job.5.gz",
        "-rw-r--r-- root:root d /usr/share/doc/kafka-backup/examples/prometheus/kafka-backup.rules.yml",
        "-rw-r--r-- root:root d /usr/share/doc/kafka-backup/examples/grafana/kafka-backup.json",
        "-rw-r--r-- root:root  /usr/share/zsh/site-functions/_kafka-backup",
    ] {
        assert!(files.lines().any(|found| found == line), "{line:?} is not in\n{files}");
    }
    assert!(!files.contains("/etc/default"), "{files}");
    assert!(!files.lines().any(|line| line.contains("jobs.d/")), "no job is shipped: {files}");

    let requires = query(&["--requires"]);
    assert!(requires.contains("glibc >= 2.28") && requires.contains("systemd"), "{requires}");

    let scripts = query(&["--scripts"]);
    let script = |name: &str| {
        let rest = scripts.split(&format!("{name} scriptlet (using /bin/sh):\n")).nth(1).unwrap_or_default();
        rest.split("scriptlet (using").next().unwrap_or_default().to_owned()
    };
    let user = std::fs::read_to_string(repository("packaging/sysusers.d/kafka-backup.conf")).unwrap();
    assert!(script("preinstall").contains(user.trim()), "the user of the file: {scripts}");
    assert!(script("postinstall").contains("if [ $1 -eq 1 ]"), "{scripts}");
    assert!(script("postinstall").contains("preset kafka-backup.service"), "{scripts}");
    assert!(script("preuninstall").contains("if [ $1 -eq 0 ]"), "{scripts}");
    assert!(script("postuninstall").contains("try-restart kafka-backup.service"), "{scripts}");
    assert!(!scripts.contains("rm -rf"), "nothing is removed that rpm does not remove by itself: {scripts}");
    run("rpm", &[&database, "-K", "--nosignature", rpm]);
}

/// Installed by rpm into a root of its own: all of it, an update keeps what was edited, and so does removal.
#[test]
fn an_rpm_keeps_what_was_edited() {
    if !can_make_packages("the installation of the rpm") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"\n*** SKIPPED the installation of the rpm: root is needed ***\n",
        );
        return;
    }
    let packages = Packages::stage();
    let rpm = packages.rpm();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    // There is no shell in this root; what the scriptlets do is another test's. Neither is there a glibc.
    let rpm_in_root = |arguments: &[&str]| run("rpm", &[&["--root", root, "--nodeps"], arguments].concat());
    rpm_in_root(&["-i", "--noscripts", "--nosignature", rpm.to_str().unwrap()]);
    rpm_in_root(&["-V", "kafka-backup"]);
    let main = folder.path().join("etc/kafka-backup/kafka-backup.toml");
    let edited = std::fs::read_to_string(&main).unwrap() + "# edited\n";
    std::fs::write(&main, &edited).unwrap();
    rpm_in_root(&["-U", "--force", "--noscripts", "--nosignature", rpm.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&main).unwrap(), edited);
    // A later version ships another main file: it is put beside the edited one.
    let line = "# of a later version";
    let later = packages.rpm_with_another_main_file("9.9.9", line);
    rpm_in_root(&["-U", "--noscripts", "--nosignature", later.to_str().unwrap()]);
    assert_eq!(run("rpm", &["--root", root, "-q", "--qf", "%{VERSION}", "kafka-backup"]), "9.9.9");
    assert_eq!(std::fs::read_to_string(&main).unwrap(), edited);
    assert!(std::fs::read_to_string(main.with_extension("toml.rpmnew")).unwrap().ends_with(&format!("{line}\n")));
    let verified = Command::new("rpm").args(["--root", root, "--nodeps", "-V", "kafka-backup"]).output().unwrap();
    let verified = String::from_utf8_lossy(&verified.stdout).into_owned();
    let changed: Vec<&str> = verified.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(changed, ["/etc/kafka-backup/kafka-backup.toml"], "everything else is of the later version");
    rpm_in_root(&["-e", "--noscripts", "kafka-backup"]);
    assert!(!folder.path().join("usr/bin/kafka-backup").exists());
    assert_eq!(std::fs::read_to_string(main.with_extension("toml.rpmsave")).unwrap(), edited);
}

/// The scriptlets, with a systemd that only writes down what it is asked.
#[test]
fn the_scriptlets_tell_installation_upgrade_and_removal_apart() {
    let asked = |script: &str, argument: &str| {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        for name in ["systemctl", "systemd-sysusers", "systemd-tmpfiles"] {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\necho {name} \"$@\" >> {}\nexit 1\n", log.display())).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        // What asks whether systemd runs is told that it does.
        let text = std::fs::read_to_string(repository(&format!("packaging/rpm/{script}.sh"))).unwrap();
        let text = text.replace("/run/systemd/system", "/");
        let status = Command::new("/bin/sh")
            .args(["-e", "-c", &text, script, argument])
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{script} {argument}: a failure of systemd must not fail the package");
        std::fs::read_to_string(log).unwrap_or_default()
    };
    let (installation, upgrade, removal) = ("1", "2", "0");
    assert!(
        asked("pre", installation).starts_with("systemd-sysusers --replace=/usr/lib/sysusers.d/kafka-backup.conf -")
    );
    assert!(asked("post", installation).contains("preset kafka-backup.service"));
    assert!(!asked("post", upgrade).contains("preset"), "what the operator disabled stays disabled");
    assert!(asked("preun", removal).contains("disable --now kafka-backup.service"));
    assert_eq!(asked("preun", "1"), "", "an upgrade stops nothing");
    assert!(asked("postun", "1").contains("try-restart kafka-backup.service"));
    assert!(!asked("postun", removal).contains("restart"));
}
