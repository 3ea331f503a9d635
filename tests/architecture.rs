//! Which room may name which crate. Each rule is what makes a part replaceable, or testable without a network, a clock
//! or a disk; a compiler does not see it, so this does.

#[path = "architecture/imports.rs"]
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use rstest::rstest;

/// What decides is pure: no actors, no network, no clock, no chance, no disk.
#[rstest]
#[case::actors(&["actix", "actix_rt", "actix_web", "tokio"])]
#[case::network(&["rdkafka", "rdkafka_sys", "rusoto_core", "rusoto_s3", "hyper", "std::net"])]
#[case::clock(&["Instant", "SystemTime", "std::thread"])]
#[case::chance(&["fastrand", "rand", "new_v4"])]
#[case::disk(&["sled", "tempfile", "std::fs", "std::io::stdin"])]
fn the_model_does_not_know(#[case] names: &[&str]) {
    assert_named_only_by(names, |path| !path.starts_with("model"));
}

#[test]
fn only_the_state_knows_sled() {
    assert_named_only_by(&["sled"], |path| path == Path::new("state.rs"));
}

#[test]
fn only_the_kafka_room_knows_librdkafka_and_is_unsafe() {
    assert_named_only_by(&["rdkafka", "rdkafka_sys"], |path| path.starts_with("kafka"));
    let unsafe_code = Regex::new(r"\bunsafe\b").unwrap();
    for (path, code) in sources() {
        let safe = path.starts_with("kafka") || !unsafe_code.is_match(&code);
        assert!(safe, "{}: unsafe outside of kafka/", path.display());
    }
}

#[test]
fn only_the_s3_store_knows_rusoto() {
    let rusoto = ["rusoto_core", "rusoto_s3", "rusoto_credential", "rusoto_signature"];
    assert_named_only_by(&rusoto, |path| path.to_string_lossy().starts_with("storage/s3"));
}

/// The rules of compacted topics can be taken out one by one, by tests that show what is lost without them.
#[test]
fn no_rule_of_compacted_topics_is_left_out() {
    for (path, code) in sources() {
        let defines = path == Path::new("model/compacted/settings.rs");
        assert!(defines || !code.contains("without_for_a_test"), "{}: leaves a rule out", path.display());
    }
}

/// What everything uses needs nothing of what uses it.
#[test]
fn metrics_errors_and_clock_need_no_other_file() {
    let needs = imports::needs(&sources());
    for file in ["backoff", "clock", "error", "metrics"] {
        assert!(needs[file].is_empty(), "{file}: {:?}", needs[file]);
    }
}

/// A file that needs another one can be understood after it; two that need each other only together.
#[test]
fn no_files_need_each_other_in_a_circle() {
    let needs = imports::needs(&sources());
    assert!(needs.len() > 100 && needs.values().flatten().count() > needs.len(), "imports are found");
    let found: Vec<_> = imports::circles(&needs).iter().map(|circle| circle.join(", ")).collect();
    assert!(found.is_empty(), "circles of imports:\n{}", found.join("\n"));
}

/// Panics when a file outside of `allowed` (paths are relative to `src/`) uses one of `names`: as the head or a part of
/// a path (`name::`), or in a `use` declaration.
fn assert_named_only_by(names: &[&str], allowed: impl Fn(&Path) -> bool) {
    let names = names.join("|");
    let used = Regex::new(&format!(r"\b({names})\s*(::|;|\bas\b)|\buse\s[^;]*\b({names})\b")).unwrap();
    for (path, code) in sources() {
        let found = used.find(&code).map(|m| m.as_str());
        assert!(found.is_none() || allowed(&path), "{}: `{}`", path.display(), found.unwrap_or_default());
    }
}

/// All files under `src/`, by their path there, without comments and string literals.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let code = without_comments_and_strings(&fs::read_to_string(&path).unwrap());
                found.push((path.strip_prefix(&root).unwrap().to_owned(), code));
            }
        }
    }
    assert!(found.len() > 10, "the sources are found");
    found
}

/// One pass from left to right, so that a `//` inside of a string is no comment and a quote inside of a comment no
/// string.
fn without_comments_and_strings(code: &str) -> String {
    let skipped = Regex::new(r###"(?s)//[^\n]*|r#+".*?"#+|'(?:"|\\")'|"(?:\\.|[^"\\])*""###).unwrap();
    let blank = |found: &regex::Captures<'_>| if found[0].starts_with("//") { "" } else { "\"\"" };
    skipped.replace_all(code, blank).into_owned()
}

#[rstest]
#[case::comment("let a; // sled::open", "let a; ")]
#[case::string(r#"say("sled::open")"#, r#"say("")"#)]
#[case::url(r#"get("http://x"); sled::open"#, r#"get(""); sled::open"#)]
#[case::quote_in_comment("// say \"\nsled::open", "\nsled::open")]
#[case::raw_string(r##"say(r#"" // "#)"##, r#"say("")"#)]
#[case::quote_character(r#"x == '"' && sled::open"#, r#"x == "" && sled::open"#)]
fn only_code_is_looked_at(#[case] code: &str, #[case] seen: &str) {
    assert_eq!(without_comments_and_strings(code), seen);
}
