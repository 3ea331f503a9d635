//! What is asked of a restore: from its file and the options.

use rstest::rstest;

use super::*;

fn request(text: &str, flags: &RestoreFlags) -> Result<RestoreRequest, String> {
    let tree = Tree::new(MAIN, &[]);
    let file = tree.0.path().join("r.toml");
    std::fs::write(&file, text).unwrap();
    let folder = tree.0.path().to_string_lossy().into_owned();
    RestoreRequest::load(&tree.config(), Some(&file), flags).map_err(|error| error.to_string().replace(&folder, "D"))
}

const REQUEST: &str = "kafka = \"x:1\"\nstorage = \"main\"\n";

#[test]
fn options_win_over_the_file() {
    let mut flags = RestoreFlags::default();
    flags.count("tasks_max", "--tasks-max", Some(9));
    flags.text("storage", "--storage", Some("file:///srv"));
    flags.flag("in_place", "--in-place", true);
    let text = format!("{REQUEST}topics = [\"a\", \"b:c\"]\ntasks_max = 2\npartitions = [\"b/1\", \"b/0\"]");
    let request = request(&text, &flags).unwrap();
    assert_eq!((request.tasks_max, request.in_place, request.dry_run), (9, true, false));
    assert!(matches!(request.storage.place, Place::File { .. }));
    assert_eq!(request.topics, [("a".into(), "a".into()), ("b".into(), "c".into())]);
    assert_eq!(request.partitions, [("b".into(), 0), ("b".into(), 1)]);
    assert_eq!((request.if_not_empty, request.replication_factor), (IfNotEmpty::Refuse, None));
}

#[test]
fn times_and_offsets_limit_what_is_restored() {
    let mut flags = RestoreFlags::default();
    flags.offsets("until_offset", "--until-offset", &["shop.a/1=9".to_owned()]);
    flags.text("until", "--until", Some("1970-01-01T00:00:02Z"));
    let text = format!(
        "{REQUEST}topics = [\"shop.a\"]\nfrom = 1970-01-01T00:00:01Z\nuntil = 1970-01-01T00:00:03Z\n\
         from_offset = {{\"shop.a/0\" = 3, \"shop.a/1\" = 4}}\nuntil_offset = {{\"shop.a/0\" = 100}}"
    );
    let request = request(&text, &flags).unwrap();
    assert_eq!((request.times.from_ms, request.times.until_ms), (Some(1_000), Some(2_000)));
    let offsets: Vec<_> = request.offsets.iter().map(|((t, p), o)| (t.as_str(), *p, o.from, o.until)).collect();
    assert_eq!(offsets, [("shop.a", 0, Some(3), None), ("shop.a", 1, Some(4), Some(9))]);
    flags.offsets("until_offset", "--until-offset", &["shop.a/1".to_owned()]);
    let refused = super::restores::request(&text, &flags).unwrap_err();
    assert!(refused.starts_with("--until-offset: until_offset: must be a whole number"), "{refused}");
}

#[test]
fn targets_are_renamed_unless_they_are_given() {
    let text = format!("{REQUEST}topics = [\"a\", \"b:c\"]\ntopics_regex = \"^x\"\nrename = \"s/^/dr-/\"");
    let request = request(&text, &RestoreFlags::default()).unwrap();
    assert_eq!(request.topics, [("a".into(), "dr-a".into()), ("b".into(), "c".into())]);
    assert!(request.topics_regex.is_some_and(|pattern| pattern.0.is_match("xy")));
    assert_eq!(request.rename.map(|rename| rename.apply("x")), Some("dr-x".to_owned()));
}

#[rstest]
#[case("topics = []", "D/r.toml:1:1: topics: is missing\n  hint: give --topics, or write topics into the file")]
#[case("topics = [\"a\", \"a:b\"]", "D/r.toml:3:16: topics: source \"a\" is given twice\n  hint: remove one")]
#[case("topics = [\"a:c\", \"b:c\"]", "D/r.toml:3:18: topics: target \"c\" is given twice\n  hint: remove one")]
#[case(
    "topics = [\"a\"]\npartitions = [\"b/0\"]",
    "D/r.toml:4:15: partitions: \"b/0\" is of a topic that is not restored\n  hint: name the source topic in topics, or remove the partition"
)]
#[case(
    "topics = [\"a\"]\npartitions = [\"a\"]",
    "D/r.toml:4:15: partitions: \"a\" is not a partition\n  hint: write TOPIC/PARTITION, for example \"orders/0\""
)]
#[case(
    "topics = [\"a\"]\nfrom = 2026-11-02T00:00:00Z\nuntil = 2026-11-02T00:00:00Z",
    "D/r.toml:4:1: from: is not before until: no record would be restored\n  hint: make it earlier"
)]
#[case(
    "topics = [\"a\"]\nuntil_offset = {\"b/0\" = 5}",
    "D/r.toml:4:1: until_offset: \"b/0\" is of a topic that is not restored\n  hint: name the source topic in topics, or remove the partition"
)]
#[case(
    "topics = [\"a\"]\nfrom_offset = {\"a/0\" = 5}\nuntil_offset = {\"a/0\" = 5}",
    "D/r.toml:5:1: until_offset: leaves nothing of a partition\n  hint: make from_offset the smaller one"
)]
#[case(
    "topics = [\"a\"]\nfrom_offset = {\"a\" = 5}",
    "D/r.toml:4:1: from_offset: \"a\" is not a partition\n  hint: write TOPIC/PARTITION, for example \"orders/0\""
)]
#[case(
    "topics = [\"a\"]\nrename = \"x\"",
    "D/r.toml:4:1: rename: \"x\": it does not begin with s/\n  hint: write s/PATTERN/REPLACEMENT/, for example \"s/^/dr-/\""
)]
#[case(
    "topics = [\"a\"]\ninplace = true",
    "D/r.toml:4:1: inplace: unknown key of a restore\n  hint: did you mean in_place?"
)]
fn broken_requests(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(request(&format!("{REQUEST}{text}"), &RestoreFlags::default()), Err(expected.to_owned()));
}

/// What is wrong with the file as a whole is all that is said of it: what else is missing nobody can know.
#[rstest]
#[case(
    "topics = [\"a\"",
    "D/r.toml:1:14: not TOML: unclosed array, expected `]`\n  hint: see https://toml.io/en/v1.0.0"
)]
#[case(
    "topics = [\"a\"]\ntopics = [\"b\"]",
    "D/r.toml:2:1: not TOML: duplicate key\n  hint: see https://toml.io/en/v1.0.0"
)]
fn unreadable_requests(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(request(text, &RestoreFlags::default()), Err(expected.to_owned()));
}
