//! Whole configurations, and what comes out.

mod arbitrary;
mod refused;
mod restores;

use std::path::Path;
use std::time::Duration;

use rstest::rstest;

use super::load::inspect_with;
use super::*;

/// A folder with a main file and jobs.
struct Tree(tempfile::TempDir);

const MAIN: &str = "jobs_dir = \"jobs.d\"\n\
                    [kafka.main]\nbootstrap_servers = [\"a:9092\"]\n\
                    [storage.main]\nbucket = \"b\"\n";

impl Tree {
    fn new(main: &str, jobs: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("main.toml"), main).unwrap();
        std::fs::create_dir(folder.path().join("jobs.d")).unwrap();
        for (name, text) in jobs {
            std::fs::write(folder.path().join("jobs.d").join(name), text).unwrap();
        }
        Self(folder)
    }

    fn inspect(&self) -> Inspection {
        self.inspect_in(&[])
    }

    fn inspect_in(&self, variables: &[(&str, &str)]) -> Inspection {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        inspect_with(Some(&self.0.path().join("main.toml")), &Jobs::All, variables)
    }

    fn config(&self) -> Config {
        let inspection = self.inspect();
        assert!(inspection.config.is_some(), "{:#?}", inspection.findings);
        inspection.config.unwrap()
    }

    /// All findings, with the folder shortened to `D`.
    fn findings(&self) -> Vec<String> {
        let folder = self.0.path().to_string_lossy().into_owned();
        self.inspect().findings.iter().map(|finding| finding.to_string().replace(&folder, "D")).collect()
    }
}

#[test]
fn an_empty_main_file_is_valid_and_has_every_default() {
    let tree = Tree::new("", &[]);
    let config = tree.config();
    assert_eq!(config.state_dir, Path::new("/var/lib/kafka-backup"));
    assert_eq!(config.jobs_dir, Path::new("/etc/kafka-backup/jobs.d"));
    assert_eq!(config.drain_timeout, Duration::from_secs(60));
    assert!(!config.strict_reload && !config.watch);
    assert_eq!(config.watch_settle, Duration::from_secs(10));
    assert_eq!(config.memory_budget, 512 << 20);
    assert_eq!(config.http_listen, Some("127.0.0.1:9748".parse().unwrap()));
    assert_eq!(config.control_socket, Path::new("/run/kafka-backup/control.sock"));
    assert_eq!((config.log_level.as_str(), config.log_format), ("info", LogFormat::Auto));
    assert_eq!(config.spool_dir, Path::new("/var/lib/kafka-backup/spool"));
    assert_eq!(config.spool_max, 10 << 30);
    assert!(config.warnings.is_empty());
}

#[test]
fn a_job_has_every_default() {
    let config = Tree::new(MAIN, &[("orders.toml", "topics = [\"orders\"]")]).config();
    let job = &config.jobs[0];
    assert_eq!((job.id.as_str(), job.group_id.as_str()), ("orders", "kafka-backup-orders"));
    assert_eq!((job.kafka.name.as_str(), job.storage.name.as_str()), ("main", "main"));
    assert_eq!((job.tasks_max, job.flush_size, job.flush_bytes), (1, 100_000, 64 << 20));
    assert_eq!((job.rotate_interval, job.rpo_target), (Duration::from_secs(600), Duration::from_secs(900)));
    assert_eq!((job.codec, job.isolation), (Codec::Zstandard(3), Isolation::ReadCommitted));
    assert_eq!((job.start, job.on_recreate), (Start::Earliest, OnRecreate::NewGeneration));
    assert_eq!((job.adopt, job.allow_compacted, job.rate_limit), (false, false, None));
    assert_eq!((job.group_instance_id.as_str(), job.topics.literal.as_slice()), ("", ["orders".to_owned()].as_slice()));
}

#[test]
fn defaults_of_the_main_file_hold_where_a_job_says_nothing() {
    let main = format!("{MAIN}[defaults]\ntasks_max = 4\ncodec = \"snappy\"\nrate_limit = \"50MiB/s\"\n");
    let jobs = [("a.toml", "topics = [\"a\"]"), ("b.toml", "topics = [\"b\"]\ntasks_max = 2\ncodec = \"null\"")];
    let config = Tree::new(&main, &jobs).config();
    assert_eq!((config.jobs[0].tasks_max, config.jobs[0].codec), (4, Codec::Snappy));
    assert_eq!((config.jobs[1].tasks_max, config.jobs[1].codec), (2, Codec::Null));
    assert_eq!(config.jobs[1].rate_limit, Some(50 << 20));
}

#[test]
fn a_table_in_a_job_replaces_that_of_the_defaults_as_a_whole() {
    let main = format!("{MAIN}[defaults]\nstorage = {{ bucket = \"x\", prefix = \"p\" }}\n");
    let job =
        "topics = [\"a\"]\nkafka = { bootstrap_servers = [\"c:1\"] }\n[storage]\ntype = \"file\"\npath = \"data\"";
    let tree = Tree::new(&main, &[("a.toml", job), ("b.toml", "topics = [\"b\"]")]);
    let config = tree.config();
    let path = tree.0.path().join("jobs.d/data");
    assert_eq!(config.jobs[0].storage.place, Place::File { path, prefix: String::new() });
    assert_eq!(config.jobs[0].storage.name, "jobs.d/a.toml");
    assert_eq!(config.jobs[0].kafka.bootstrap_servers, ["c:1"]);
    assert!(matches!(&config.jobs[1].storage.place, Place::S3 { bucket, .. } if bucket == "x"));
}

#[test]
fn variables_win_over_the_main_file() {
    let tree = Tree::new("memory.budget = \"1GiB\"", &[]);
    let config = tree.inspect_in(&[("KAFKA_BACKUP__MEMORY__BUDGET", "2GiB"), ("KAFKA_BACKUP_CONFIG", "/x")]).config;
    assert_eq!(config.unwrap().memory_budget, 2 << 30);
    let findings = tree.inspect_in(&[("KAFKA_BACKUP__MEMORY__BUGDET", "2GiB")]).findings;
    let expected = "environment variable KAFKA_BACKUP__MEMORY__BUGDET: memory.bugdet: unknown key of the main file\n  \
                    hint: did you mean memory.budget?";
    assert_eq!(findings.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

/// Each with the variables that are typed, what is found, and the value of the key where nothing is.
#[rstest]
#[case::flag("WATCH", "true", "", "true")]
#[case::number("METRICS__MAX_PARTITION_SERIES", "10", "", "10")]
#[case::text_that_looks_like_a_number("STATE_DIR", "/10", "", "\"/10\"")]
#[case::switched_off("HTTP__LISTEN", "", "", "\"\"")]
#[case::small_letters("watch", "true", "", "true")]
#[case::no_flag("WATCH", "1", "watch: must be true or false, not a text", "")]
#[case::no_number("METRICS__MAX_PARTITION_SERIES", "1e3", "must be a whole number, not a text", "")]
#[case::empty("MEMORY__BUDGET", "", "memory.budget: \"\" is not a size", "")]
#[case::wrong("DRAIN_TIMEOUT", "60", "drain_timeout: 60 has no unit", "")]
#[case::one_underscore("MEMORY_BUDGET", "1GiB", "hint: did you mean memory.budget?", "")]
#[case::cluster(
    "KAFKA__MAIN__BOOTSTRAP_SERVERS",
    "a:1",
    "kafka.main.bootstrap_servers: what is in the tables of the main file cannot be given in a variable\n  hint: write it into the main file",
    ""
)]
#[case::store("STORAGE__MAIN__PATH_STYLE", "true", "storage.main.path_style: what is in the tables", "")]
#[case::default_of_jobs("DEFAULTS__RETENTION", "3d", "defaults.retention: what is in the tables", "")]
#[case::secret("KAFKA__MAIN__PROPERTIES__SASL__PASSWORD", "hunter2", "cannot be given in a variable", "")]
fn variables_are_of_the_kind_of_their_key(
    #[case] name: &str,
    #[case] text: &str,
    #[case] found: &str,
    #[case] value: &str,
) {
    let tree = Tree::new("", &[]);
    let variable = format!("KAFKA_BACKUP__{name}");
    let inspection = tree.inspect_in(&[(&variable, text)]);
    let findings = inspection.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(findings.contains(found) && found.is_empty() == findings.is_empty(), "{findings}");
    assert!(!findings.contains("hunter2"), "{findings}");
    if !value.is_empty() {
        let place = format!("environment variable {variable}");
        let shown = inspection.values.iter().find(|shown| shown.origin.to_string() == place).expect("it is shown");
        assert_eq!(shown.value.to_string(), value);
    }
}

#[test]
fn a_main_file_that_is_asked_for_must_be_there() {
    let inspection = inspect_with(Some(Path::new("/nowhere/x.toml")), &Jobs::All, std::iter::empty());
    assert_eq!(inspection.findings[0].to_string(), "/nowhere/x.toml: there is no such file\n  hint: check the path");
}

#[test]
fn secrets_of_clusters_that_no_job_uses_stop_only_their_users() {
    let main = format!(
        "{MAIN}[kafka.dr]\nbootstrap_servers = [\"d:1\"]\nproperties.\"sasl.password_file\" = \"/nowhere/p\"\n"
    );
    let tree = Tree::new(&main, &[("a.toml", "topics = [\"a\"]")]);
    let config = tree.config();
    assert_eq!(config.warnings.len(), 1);
    assert!(config.cluster("dr", "--kafka").unwrap_err().to_string().contains("cannot read /nowhere/p"));
    assert!(config.cluster("main", "--kafka").is_ok());

    let tree = Tree::new(&main, &[("a.toml", "topics = [\"a\"]\nkafka = \"dr\"")]);
    let expected = "D/main.toml:8:12: sasl.password_file: cannot read /nowhere/p: there is no such file\n  hint: create it, or check the path";
    assert_eq!(tree.findings(), [expected]);
    assert!(tree.inspect().config.is_none());
}

#[test]
fn clusters_and_stores_of_the_command_line() {
    let config = Tree::new(MAIN, &[]).config();
    assert_eq!(config.cluster("x:1,y:2", "--kafka").unwrap().bootstrap_servers, ["x:1", "y:2"]);
    assert_eq!(
        config.cluster("mian", "--kafka").unwrap_err().to_string(),
        "--kafka: kafka: there is no cluster \"mian\"\n  hint: did you mean \"main\"?"
    );
    assert!(config.store("file:///srv", "--storage").is_ok());
    assert!(config.store("nothing", "--storage").is_err());
}

#[test]
fn every_effective_value_says_where_it_came_from() {
    let main =
        format!("{MAIN}[defaults]\ntasks_max = 4\n[kafka.main.properties]\n\"sasl.password_credential\" = \"p\"\n");
    let tree = Tree::new(&main, &[("a.toml", "topics = [\"a\"]\nkafka = { bootstrap_servers = [\"c:1\"] }")]);
    let folder = tree.0.path().to_string_lossy().into_owned();
    let line = |s: &Shown| format!("{} {} {} {}", s.section, s.key, s.value, s.origin).replace(&folder, "D");
    let values: Vec<_> = tree.inspect().values.iter().map(line).collect();
    for expected in [
        "main memory.budget \"512MiB\" default",
        "main spool.dir \"/var/lib/kafka-backup/spool\" default",
        "kafka.main bootstrap_servers [\"a:9092\"] D/main.toml:3:1",
        "kafka.main properties.sasl.password_credential \"p\" D/main.toml:9:1",
        "storage.main bucket \"b\" D/main.toml:5:1",
        "storage.main path_style false default",
        "job a tasks_max 4 D/main.toml:7:1",
        "job a kafka.bootstrap_servers [\"c:1\"] D/jobs.d/a.toml:2:11",
        "job a storage \"main\" default",
        "job a group_id \"kafka-backup-a\" default",
    ] {
        assert!(values.iter().any(|value| value == expected), "{expected} is not in {values:#?}");
    }
}

#[test]
fn files_of_jobs_are_told_from_main_files() {
    let jobs = [
        ("a.toml", "topics = [\"a\"]"),
        ("b.toml", "kafka = \"main\"\ntopcis = 1"),
        ("r.toml", "kafka = \"main\"\ntopics = [\"a\"]\nif_not_empty = \"append\""),
    ];
    let tree = Tree::new(MAIN, &jobs);
    let kind = |name: &str| kind_of_file(&tree.0.path().join(name));
    assert_eq!((kind("main.toml"), kind("absent.toml")), (FileKind::Main, FileKind::Main));
    assert_eq!((kind("jobs.d/a.toml"), kind("jobs.d/b.toml")), (FileKind::Job, FileKind::Job));
    assert_eq!(kind("jobs.d/r.toml"), FileKind::Restore);
}
