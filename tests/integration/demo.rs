//! The demonstration: no cluster, no bucket, and yet the very pipeline.

use std::process::Command;

use crate::common::beside_others;

#[test]
fn the_demonstration_backs_up_restores_and_compares() {
    let _turn = beside_others();
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("demo");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_kafka-backup"));
    let output = demo.args(["demo", "--keep", "--dir"]).arg(&at).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    // 400 records in each of three partitions.
    assert!(said.contains("1200 records are the same") && said.contains("bytes)"), "{said}");
    let objects = |topic: &str| std::fs::read_dir(at.join("bucket").join(topic)).unwrap().count();
    assert_eq!(objects("orders"), 3, "a folder for each partition");
    let storage = format!("file://{}", at.join("bucket").display());
    let mut info = Command::new(env!("CARGO_BIN_EXE_kafka-backup"));
    let output = info.args(["info", "--json", "--storage", &storage]).output().unwrap();
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).expect("what it shows to try next works");
    assert_eq!(info["topics"].as_array().map(Vec::len), Some(2), "{info}");
}
