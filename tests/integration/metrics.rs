//! What a scrape of a running daemon shows.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::beside_others;
use crate::common::check::await_caught_up;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::numbered;

/// Series that are there from the beginning, and those a job has once it has done something.
#[test]
fn a_scrape_is_complete_and_well_formed() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("scrape", 2, &[]);
    kafka.produce(&topic, 0, &numbered(0..100, 100));
    let env = Env::new().job("scrape", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    await_caught_up(&kafka, &env.bucket, &topic);
    daemon.await_metric("kafka_backup_segments_committed_total", &["backup_job=\"scrape\""], 1.0);
    daemon.await_metric("kafka_backup_topic_protected_timestamp_seconds", &["backup_job=\"scrape\""], 1.0);
    let (status, text) = daemon.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect::<Vec<_>>().join("\n");
    for expected in [
        "kafka_backup_build_info gauge",
        "process_start_time_seconds gauge",
        "process_cpu_seconds_total counter",
        "process_resident_memory_bytes gauge",
        "process_open_fds gauge",
        "process_max_fds gauge",
        "process_threads gauge",
        "kafka_backup_jobs gauge",
        "kafka_backup_job_rpo_target_seconds gauge",
        "kafka_backup_job_restarts_total counter",
        "kafka_backup_topic_protected_timestamp_seconds gauge",
        "kafka_backup_topic_lag_records gauge",
        "kafka_backup_partition_protected_timestamp_seconds gauge",
        "kafka_backup_partition_newest_record_timestamp_seconds gauge",
        "kafka_backup_partition_durable_offset gauge",
        "kafka_backup_partition_end_offset gauge",
        "kafka_backup_partition_lag_records gauge",
        "kafka_backup_offset_gap_records_total counter",
        "kafka_backup_records_total counter",
        "kafka_backup_read_bytes_total counter",
        "kafka_backup_stored_bytes_total counter",
        "kafka_backup_segments_committed_total counter",
        "kafka_backup_segment_commit_duration_seconds histogram",
        "kafka_backup_s3_requests_total counter",
        "kafka_backup_s3_request_duration_seconds histogram",
        "kafka_backup_kafka_requests_total counter",
        "kafka_backup_errors_total counter",
        "kafka_backup_buffer_bytes gauge",
        "kafka_backup_buffer_limit_bytes gauge",
        "kafka_backup_state_size_bytes gauge",
        "kafka_backup_state_free_bytes gauge",
        "kafka_backup_state_flush_duration_seconds histogram",
        "kafka_backup_state_rebuilds_total counter",
        "kafka_backup_topics_discovered_total counter",
        "kafka_backup_log_messages_total counter",
        "kafka_backup_metrics_partition_series_suppressed gauge",
    ] {
        assert!(names.lines().any(|name| name == expected), "{expected} is not in\n{names}");
    }
    for zero in [
        "kafka_backup_errors_total{component=\"s3\",kind=\"auth\"} 0",
        &format!(
            "kafka_backup_offset_gap_records_total{{backup_job=\"scrape\",reason=\"retention\",topic=\"{topic}\"}} 0"
        ),
        "kafka_backup_state_rebuilds_total{reason=\"corrupt\"} 0",
        "kafka_backup_jobs{state=\"failed\"} 0",
    ] {
        assert!(text.lines().any(|line| line == zero), "{zero} is not in\n{text}");
    }
    assert!(daemon.metric("kafka_backup_kafka_requests_total", &["api=\"offsets\"", "result=\"ok\""]) >= 1.0);
    assert!(daemon.metric("process_resident_memory_bytes", &[]) > 1e6);
    promtool_agrees(&text);
    drop(daemon);
    more_partitions_than_may_be_shown(&kafka, &topic);
}

/// `promtool check metrics`; promtool comes with `make package-tools`.
fn promtool_agrees(scrape: &str) {
    let promtool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/promtool");
    if !promtool.exists() {
        assert!(std::env::var_os("CI").is_none(), "there is no {}", promtool.display());
        eprintln!("*** SKIPPED promtool check metrics: there is no {} ***", promtool.display());
        return;
    }
    let mut command = Command::new(promtool);
    let pipes = command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// The topics are shown all the same, and that something is left out.
fn more_partitions_than_may_be_shown(kafka: &Kafka, topic: &str) {
    let env = Env::new().set("metrics.max_partition_series = 1").job("many", &[topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    await_caught_up(kafka, &env.bucket, topic);
    daemon.await_metric("kafka_backup_metrics_partition_series_suppressed", &[], 1.0);
    let (_, text) = daemon.get("/metrics").unwrap();
    assert!(!text.contains("kafka_backup_partition_lag_records{"), "{text}");
    daemon.await_metric("kafka_backup_topic_protected_timestamp_seconds", &["backup_job=\"many\""], 1.0);
}
