//! The alert rules, the dashboard and the runbook that are shipped: every metric they name is one of the program's, every
//! alert has its section, and promtool agrees with the rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;

const RULES: &str = include_str!("../packaging/prometheus/kafka-backup.rules.yml");
const DASHBOARD: &str = include_str!("../packaging/grafana/kafka-backup.json");
const RUNBOOK: &str = include_str!("../docs/alerts.md");

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// All names in string literals of the program that could be those of metrics.
fn names_in_the_source() -> BTreeSet<String> {
    let literal = Regex::new(r#""((?:kafka_backup|process)_[a-z0-9_]+)""#).unwrap();
    let mut names = BTreeSet::new();
    let mut folders = vec![repository("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                names.extend(literal.captures_iter(&text).map(|found| found[1].to_owned()));
            }
        }
    }
    names
}

/// The metrics an expression names that do not exist. Series of a histogram go by its name.
fn unknown(expression: &str, known: &BTreeSet<String>) -> Vec<String> {
    let name = Regex::new(r"\b(?:kafka_backup|process)_[a-z0-9_]+").unwrap();
    let exists = |found: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| found.strip_suffix(end));
        known.contains(found) || of_histogram.is_some_and(|name| known.contains(name))
    };
    name.find_iter(expression).map(|found| found.as_str().to_owned()).filter(|found| !exists(found)).collect()
}

#[test]
fn rules_name_metrics_that_exist_and_sections_that_explain_them() {
    let known = names_in_the_source();
    assert_eq!(unknown(RULES, &known), Vec::<String>::new());
    let alerts: BTreeSet<_> =
        RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    assert!(alerts.len() >= 15, "{alerts:?}");
    let sections: BTreeSet<_> =
        RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    assert_eq!(alerts, sections);
    for alert in &alerts {
        assert!(RULES.contains(&format!("alerts.md#{}\n", alert.to_lowercase())), "{alert} has a runbook_url");
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let known = names_in_the_source();
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 40, "{} queries", queries.len());
    for query in queries {
        assert_eq!(unknown(&query, &known), Vec::<String>::new(), "{query}");
        assert!(query.contains("kafka_backup_") || query.contains("process_"), "{query}");
    }
}

/// Every expression of the panels and annotations, and every query of the variables.
fn collect(value: &serde_json::Value, queries: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("expr" | "definition", serde_json::Value::String(query)) => queries.push(query.clone()),
                    _ => collect(value, queries),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
        _ => {}
    }
}

/// promtool comes with `make package-tools`; where there is none this is said aloud, and a failure in CI.
#[test]
fn promtool_agrees_with_the_rules() {
    let promtool = repository("target/tools/bin/promtool");
    if !promtool.exists() {
        assert!(std::env::var_os("CI").is_none(), "there is no {}", promtool.display());
        eprintln!("*** SKIPPED promtool: there is no {} ***", promtool.display());
        return;
    }
    for arguments in [
        ["check", "rules", "packaging/prometheus/kafka-backup.rules.yml"],
        ["test", "rules", "packaging/prometheus/kafka-backup.rules.test.yml"],
    ] {
        let mut command = Command::new(&promtool);
        let output = command.current_dir(repository(".")).args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}
