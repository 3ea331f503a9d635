//! These very tests inside the sandbox of the unit that is shipped: on a host that was booted, with the installed program,
//! as its user. What the daemon does under a test it does there with nothing but what the unit leaves it.

use crate::common::env::INSTALLED;
use crate::common::host::{Host, Packages, can_boot};
use crate::common::{beside_others, stack};

/// What is backed up and restored, going on after a kill, reload, control. All of the suite would take too long;
/// `KAFKA_BACKUP_TEST_SANDBOX` names other parts of it, and empty it is everything.
const RUN: &[&str] = &[
    "control::",
    "crash::a_job_that_is_running",
    "crash::a_run_waits",
    "crash::a_stop",
    "live::a_start",
    "reload::",
    "restore::a_restore",
    "restore::every_partition",
    "resume::hints_may_disappear",
    "roundtrip::odd_records",
    "roundtrip::only_committed",
    "support_bundle::",
    "verify::a_sound_backup",
];

/// They become another user or mount something, which the sandbox takes away; they start servers of their own, look at the
/// repository or use programs that are not on the host; or they measure. Besides these, every test passes there.
const CANNOT: &[&str] = &[
    "another_user_may_look_but_change_nothing",
    "those_who_may_only_look_keep_nobody_out",
    "case_2_a_full_disk",
    "compacted_broker::",
    "a_target_that_may_not_be_written",
    "a_broker_is_killed",
    "a_request_that_cannot_be_met",
    "source_batches_of_every_codec",
    "only_users_of_the_file_may_ask",
    "tls_with_client_certificates",
    "a_timestamp_of_0",
    "avro_tools_reads",
    "an_unclean_leader_election",
    "the_brokers_restart",
    "the_broker_restarts",
    "two_thousand_idle_partitions",
    "packages::",
    "systemd::",
    "sandbox::",
    "frozen::",
    "demo::",
    "footprint::",
];

/// The unit as it is shipped, but for what is run and how often.
const DROP_IN: &str = "[Service]\nType=oneshot\nExecStart=\nExecReload=\nRestart=no\nWatchdogSec=0\nTimeoutStartSec=infinity\n\
                       StandardOutput=file:/root/suite.log\nStandardError=file:/root/suite.log\n";

#[test]
fn the_suite_passes_inside_the_sandbox_of_the_unit() {
    if !can_boot("the integration suite inside the sandbox of the unit") {
        return;
    }
    let _turn = beside_others();
    let deb = Packages::stage();
    let host = Host::boot();
    std::fs::copy(deb.deb("0.1.0-1"), host.path("/root/this.deb")).unwrap();
    std::fs::create_dir(host.path("/opt/suite")).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), host.path("/opt/suite/integration")).unwrap();
    host.sh("dpkg -i /root/this.deb && systemctl disable --now kafka-backup");
    let unit = "/etc/systemd/system/kafka-backup-suite.service";
    host.sh(&format!("cp /usr/lib/systemd/system/kafka-backup.service {unit}"));
    let skipped: String = CANNOT.iter().map(|name| format!(" --skip {name}")).collect();
    let run = std::env::var("KAFKA_BACKUP_TEST_SANDBOX").unwrap_or_else(|_| RUN.join(" "));
    let suite = format!("ExecStart=/opt/suite/integration --test-threads 8{skipped} {run}\n");
    let servers = [
        ("KAFKA_BACKUP_TEST_KAFKA", stack::kafka_bootstrap()),
        ("KAFKA_BACKUP_TEST_S3", stack::s3_endpoint()),
        (INSTALLED, "/usr/bin/kafka-backup"),
    ];
    let variables: String = servers.iter().map(|(name, value)| format!("Environment={name}={value}\n")).collect();
    host.write(&format!("{unit}.d/suite.conf"), &format!("{DROP_IN}{suite}{variables}"));
    host.sh("systemctl daemon-reload");
    let (code, _) = host.try_sh("systemctl start kafka-backup-suite");
    let said = host.sh("cat /root/suite.log");
    println!("{said}");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("test result: ok."), "{said}");
}
