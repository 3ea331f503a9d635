//! The support bundle: everything that helps, and nothing that must not leave the machine.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::check::await_caught_up;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::record::Rec;
use crate::common::{beside_others, stack};

/// The files of a bundle, read with tar as whoever gets it would.
fn read(bundle: &Path) -> BTreeMap<String, String> {
    let list = Command::new("tar").arg("-tzf").arg(bundle).output().unwrap();
    let names = String::from_utf8(list.stdout).unwrap();
    let content = |name: &str| {
        let output = Command::new("tar").arg("-xzOf").arg(bundle).arg(name).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    names.lines().map(|name| (name.rsplit('/').next().unwrap().to_owned(), content(name))).collect()
}

#[test]
fn a_bundle_helps_and_betrays_nothing() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("bundle", 1, &[]);
    let env = Env::new();
    let secret = env.path("secret");
    std::fs::write(&secret, "hunter2-kafka\n").unwrap();
    let file = secret.to_string_lossy().into_owned();
    let properties = [("security.protocol", "plaintext"), ("ssl.key.password_file", file.as_str())];
    let env =
        env.kafka("main", stack::kafka_bootstrap(), &properties).job("bundle", &[&topic], "rotate_interval = \"1s\"\n");
    let daemon = env.daemon().ready();
    kafka.produce(&topic, 0, &[Rec::new(1, "key-of-a-customer", "value-of-a-customer")]);
    await_caught_up(&kafka, &env.bucket, &topic);

    let bundle = env.path("bundle.tar.gz");
    let path = bundle.to_string_lossy().into_owned();
    let output = env.tell(&["support-bundle", "--output", &path]);
    assert_eq!(output.code(), 0, "{}", output.stderr);
    assert_eq!(std::fs::metadata(&bundle).unwrap().permissions().mode() & 0o777, 0o600);
    let files = read(&bundle);
    for (name, words) in [
        ("versions.txt", "kafka-backup "),
        ("config.json", &topic),
        ("config.json", &file),
        ("check.json", "\"findings\""),
        ("status.json", "\"bundle\""),
        ("metrics.txt", "kafka_backup_build_info"),
        ("machine.txt", "MemTotal"),
        ("state.txt", "state"),
    ] {
        assert!(files[name].contains(words), "{words} in {name}:\n{}", files[name]);
    }
    for (name, text) in &files {
        for betrayed in ["hunter2-kafka", stack::SECRET_KEY, "key-of-a-customer", "value-of-a-customer"] {
            assert!(!text.contains(betrayed), "{betrayed} in {name}");
        }
    }
    env.tell(&["support-bundle", "--output", &path]).fails_with(1, &["bundle.tar.gz", "exists"]);
    drop(daemon);

    // What is wrong with a daemon that is not there, or a configuration that is not valid, is what a bundle is for.
    std::fs::remove_file(&bundle).unwrap();
    let output = env.tell(&["support-bundle", "--output", &path]);
    assert_eq!(output.code(), 0, "{}", output.stderr);
    assert!(read(&bundle)["status.json"].contains("no daemon listens at"));
}
