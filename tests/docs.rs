//! Every example in the README works: the files are a valid configuration, the commands are commands, the links lead
//! somewhere.

use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");

/// The contents of the fenced blocks of a language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README.split(&fence).skip(1).map(|rest| rest.split("```").next().expect("a block has an end")).collect()
}

#[test]
fn the_files_are_a_valid_configuration() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("jobs.d")).unwrap();
    let [main, job] = blocks("toml")[..] else { panic!("a main file and a job") };
    let main = format!("jobs_dir = \"jobs.d\"\n{main}");
    std::fs::write(dir.path().join("kafka-backup.toml"), main).unwrap();
    std::fs::write(dir.path().join("jobs.d/shop.toml"), job).unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_kafka-backup"))
        .arg("--config")
        .arg(dir.path().join("kafka-backup.toml"))
        .args(["config", "check", "--offline", "--deny-warnings"])
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

#[test]
fn the_commands_are_commands() {
    let lines = blocks("sh").into_iter().flat_map(str::lines).filter(|line| line.starts_with("kafka-backup "));
    let commands: Vec<_> = lines.map(|line| line.split('#').next().unwrap_or_default().trim()).collect();
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let parsed = kafka_backup::cli::command().try_get_matches_from(command.split_whitespace());
        assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
    }
}

#[test]
fn the_targets_of_make_are_there() {
    let makefile = include_str!("../Makefile");
    let targets: Vec<_> =
        README.split("`make ").skip(1).map(|rest| rest.split('`').next().unwrap_or_default()).collect();
    let lines = blocks("sh").into_iter().flat_map(str::lines).filter_map(|line| line.strip_prefix("make "));
    for line in targets.into_iter().chain(lines) {
        for word in line.split_whitespace().take_while(|word| !word.starts_with('#')) {
            // Behind the target are variables that it looks at.
            let definition = match word.split_once('=') {
                Some((variable, _)) => format!("{variable} ?="),
                None => format!("{word}:"),
            };
            assert!(makefile.lines().any(|line| line.starts_with(&definition)), "make {line}");
        }
    }
}

#[test]
fn the_links_lead_somewhere() {
    let links = README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or_default());
    for link in links.filter(|link| !link.starts_with("http")) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists(), "{link}");
    }
}
