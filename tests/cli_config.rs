//! The binary as a person meets it: `config check` and `config show` on good and bad trees, exit codes, help texts,
//! manual pages, completions, and the examples that are shipped.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rstest::rstest;

/// A folder with a main file and jobs, and the binary run against it.
struct Tree(tempfile::TempDir);

const MAIN: &str = "state_dir = \"state\"\njobs_dir = \"jobs.d\"\n\
                    [kafka.main]\nbootstrap_servers = [\"a:9092\"]\n\
                    [storage.main]\ntype = \"file\"\npath = \"store\"\n";

/// What a main file with a secret adds to [`MAIN`].
const SECRET: &str = "[kafka.main.properties]\n\"sasl.password_file\" = \"secret\"\n";

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

    fn good() -> Self {
        Self::new(MAIN, &[("orders.toml", "topics = [\"orders\"]")])
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    /// Runs with this main file; exit code, stdout and stderr, with the folder shortened to `D`.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = binary(&[&["--config", &self.path("main.toml")], arguments].concat());
        let folder = self.0.path().to_string_lossy().into_owned();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&folder, "D");
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kafka-backup"));
    command.env_remove("RUST_LOG").env_remove("KAFKA_BACKUP_CONFIG").env_remove("CREDENTIALS_DIRECTORY");
    command
}

fn binary(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = binary(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn a_good_tree_passes() {
    let expected = "syntax       ok\nsemantics    ok\nenvironment  not checked (--offline)\n2 files, 1 job\n";
    let tree = Tree::good();
    assert_eq!(tree.run(&["config", "check", "--offline"]), (0, expected.to_owned(), String::new()));
    assert_eq!(tree.run(&["config", "check", "--offline", "--deny-warnings"]).0, 0);
}

#[test]
fn a_bad_tree_is_refused_with_every_error_at_once() {
    let a = "topics = [\"x\"]\nflush_byets = 1\n";
    let b = "topics = [\"x\"]\nrotate_interval = 5\n";
    let expected = "\
error: D/jobs.d/a.toml:2:1: flush_byets: unknown key of a job
  hint: did you mean flush_bytes?
error: D/jobs.d/b.toml:1:11: topics: \"x\" is backed up to the same place by job \"a\" (D/jobs.d/a.toml:1:11)
  hint: remove it from one of the jobs, or give one of them a storage with another prefix
error: D/jobs.d/b.toml:2:1: rotate_interval: 5 has no unit
  hint: write the number with its unit, for example \"10m\"
syntax       2 errors, 0 warnings
semantics    1 error, 0 warnings
environment  not checked (--offline)
3 files, 2 jobs
";
    let tree = Tree::new(MAIN, &[("a.toml", a), ("b.toml", b)]);
    assert_eq!(tree.run(&["config", "check", "--offline"]), (78, expected.to_owned(), String::new()));
}

#[test]
fn warnings_fail_only_when_asked_to() {
    let tree = Tree::new(MAIN, &[("a.toml", "topics = [\"a\"]\nrpo_target = \"1m\"")]);
    let (code, out, _) = tree.run(&["config", "check", "--offline"]);
    assert_eq!(code, 0);
    assert!(out.contains("warning: D/jobs.d/a.toml:2:1: rpo_target: 1m is less than rotate_interval"), "{out}");
    assert_eq!(tree.run(&["config", "check", "--offline", "--deny-warnings"]).0, 3);
}

#[test]
fn json_is_one_document_and_nothing_else() {
    let tree = Tree::new(MAIN, &[("a.toml", "topics = [\"a\"]\ncodec = 1")]);
    let (code, out, err) = tree.run(&["config", "check", "--offline", "--json"]);
    assert_eq!((code, err.as_str()), (78, ""));
    let document = json(&out);
    assert_eq!(document["ok"], false);
    assert_eq!(document["layers"]["syntax"]["errors"], 1);
    assert_eq!(document["layers"]["environment"]["checked"], false);
    let finding = &document["findings"][0];
    let expected = serde_json::json!({
        "file": "D/jobs.d/a.toml", "line": 2, "column": 1, "origin": "D/jobs.d/a.toml:2:1", "key": "codec",
        "severity": "error", "layer": "syntax", "message": "must be a text, not a whole number",
        "hint": "write it in quotes: \"zstandard\"",
    });
    assert_eq!(*finding, expected);
}

#[test]
fn secrets_are_a_matter_of_the_environment() {
    let tree = Tree::new(&format!("{MAIN}{SECRET}"), &[("orders.toml", "topics = [\"orders\"]")]);
    assert_eq!(tree.run(&["config", "check", "--offline"]).0, 0);
    let (code, out, _) = tree.run(&["config", "check"]);
    assert_eq!(code, 78);
    assert!(out.contains("main.toml:9:1: sasl.password_file: cannot read D/secret: there is no such file"), "{out}");
    assert!(out.contains("environment  1 error"), "{out}");
    let (code, out, _) = tree.run(&["config", "show"]);
    assert_eq!(code, 0);
    assert!(out.contains("properties.\"sasl.password_file\" = \"secret\""), "{out}");
}

#[test]
fn no_secret_is_ever_printed() {
    let tree = Tree::new(&format!("{MAIN}{SECRET}"), &[("orders.toml", "topics = [\"orders\"]")]);
    std::fs::write(tree.path("secret"), "hunter2\n").unwrap();
    for arguments in [&["config", "show"][..], &["config", "show", "--json"], &["config", "check"]] {
        let (_, out, err) = tree.run(arguments);
        assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{arguments:?}");
    }
    let literals =
        ["\"sasl.password\" = \"hunter2\"", "\"sasl.password\" = \"hunter2", "\"sasl.password_file\" = [\"hunter2\"]"];
    for literal in literals {
        let tree = Tree::new(&format!("{MAIN}[kafka.main.properties]\n{literal}\n"), &[]);
        let (code, out, err) = tree.run(&["config", "check", "--offline"]);
        assert_eq!(code, 78);
        assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
    }
}

#[test]
fn one_file_can_be_checked_alone() {
    let tree = Tree::new(MAIN, &[("a.toml", "topics = [\"a\"]"), ("b.toml", "topics = 5")]);
    assert_eq!(tree.run(&["config", "check", "--offline", &tree.path("jobs.d/a.toml")]).0, 0);
    assert_eq!(tree.run(&["config", "check", "--offline", &tree.path("jobs.d/b.toml")]).0, 78);
    assert_eq!(binary(&["config", "check", "--offline", &tree.path("main.toml")]).status.code(), Some(78));
}

#[test]
fn the_check_leaves_no_trace() {
    let tree = Tree::good();
    tree.run(&["config", "check", "--offline"]);
    tree.run(&["config", "show"]);
    let entries = std::fs::read_dir(tree.0.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["jobs.d", "main.toml"]);
}

#[test]
fn every_effective_value_is_shown_with_its_place() {
    let tree = Tree::good();
    let (code, out, _) = tree.run(&["config", "show", "--job", "orders"]);
    assert_eq!(code, 0);
    let lines: Vec<String> = out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines[0], "# job orders");
    for expected in [
        "topics = [\"orders\"] # D/jobs.d/orders.toml:1:1",
        "group_id = \"kafka-backup-orders\" # default",
        "flush_bytes = \"64MiB\" # default",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} is not in\n{out}");
    }
    let (code, out, _) = tree.run(&["config", "show", "--json"]);
    assert_eq!((code, json(&out)["values"].as_array().map(Vec::is_empty)), (0, Some(false)));
    assert_eq!(tree.run(&["config", "show", "--job", "nix"]).0, 10);
}

#[rstest]
#[case(&["nonsense"], 2)]
#[case(&["run"], 2)]
#[case(&["-v", "-q", "man", "x"], 2)]
#[case(&["restore", "--storage", "main"], 78)]
#[case(&["restore", "--storage", "main", "--kafka", "nowhere", "--topics", "a"], 78)]
#[case(&["restore", "--storage", "gs://x", "--kafka", "a:1", "--topics", "a"], 78)]
#[case(&["restore", "absent.toml"], 78)]
#[case(&["info", "--storage", "nowhere"], 78)]
#[case(&["run", "nix"], 10)]
#[case(&["run", "./nix.toml"], 78)]
fn exit_codes(#[case] arguments: &[&str], #[case] expected: i32) {
    let (code, out, err) = Tree::good().run(arguments);
    assert_eq!((code, out.as_str()), (expected, ""), "{err}");
    assert!(!err.is_empty());
}

#[test]
fn a_main_file_that_is_asked_for_must_be_there() {
    let output = binary(&["--config", "/nowhere/x.toml", "daemon"]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "error: /nowhere/x.toml: there is no such file\n  hint: check the path\n");
}

#[test]
fn the_variable_names_the_main_file() {
    let tree = Tree::new("nonsense = 1", &[]);
    let output = command().args(["config", "check"]).env("KAFKA_BACKUP_CONFIG", tree.path("main.toml")).output();
    assert_eq!(output.unwrap().status.code(), Some(78));
}

#[test]
fn errors_are_json_on_stderr_where_json_is_asked_for() {
    let (code, out, err) = Tree::good().run(&["run", "nix", "--json"]);
    let document = json(err.lines().last().unwrap());
    assert_eq!((code, out.as_str(), &document["code"]), (10, "", &10.into()));
    assert_eq!(document["message_type"], "exit_error");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = command().args(["completions", "bash"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

/// `config check --offline` of what is shipped.
#[test]
fn shipped_files_are_sound() {
    let main = repository("etc/examples/kafka-backup.toml").to_string_lossy().into_owned();
    let examples = std::fs::read_dir(repository("etc/examples")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = examples.chain([repository("etc/kafka-backup.toml")]).collect();
    assert!(files.len() > 4);
    for file in files {
        let path = file.to_string_lossy();
        let output = binary(&["--config", &main, "config", "check", "--offline", "--deny-warnings", &path]);
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// What is commented out in the main file that is shipped is sound, too, and the defaults in it are the defaults.
#[test]
fn the_comments_of_the_shipped_main_file_are_true() {
    let text = std::fs::read_to_string(repository("etc/kafka-backup.toml")).unwrap();
    let uncommented: Vec<&str> =
        text.lines().map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)).collect();
    let uncommented = uncommented.join("\n").replace("/etc/kafka-backup/jobs.d", "jobs.d");
    let tree = Tree::new(&uncommented, &[]);
    let (code, out, _) = tree.run(&["config", "check", "--offline"]);
    assert_eq!(code, 0, "{out}");

    let values = |tree: &Tree| {
        let document = json(&tree.run(&["config", "show", "--json"]).1);
        let is_main = |value: &&serde_json::Value| value["section"] == "main" && value["key"] != "jobs_dir";
        let values = document["values"].as_array().unwrap().iter().filter(is_main);
        values.map(|value| format!("{} {}", value["key"], value["value"])).collect::<Vec<_>>()
    };
    assert_eq!(values(&tree), values(&Tree::new("", &[])));
}

#[test]
fn manual_pages_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("man");
    stdout(&["man", &dir.to_string_lossy()]);
    let page = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for name in ["kafka-backup.8", "kafka-backup-daemon.1", "kafka-backup-config-check.1", "kafka-backup-restore.1"] {
        let page = page(name);
        for section in [".TH", ".SH NAME", ".SH EXAMPLES", ".SH \"EXIT STATUS\"", ".SH \"SEE ALSO\""] {
            assert!(page.contains(section), "{name} has no {section}");
        }
    }
    for section in [".SH SIGNALS", ".SH ENVIRONMENT", ".SH FILES"] {
        assert!(page("kafka-backup.8").contains(section), "{section}");
    }
    let files = [("toml", "memory.budget"), ("job", "rotate_interval"), ("restore", "in_place")];
    for (file, key) in files {
        let name = if file == "toml" { "kafka-backup.toml.5".to_owned() } else { format!("kafka-backup-{file}.5") };
        let page = page(&name);
        assert!(page.contains(key) && page.contains(".SH KEYS"), "{name}: {key}");
    }
}

/// What bash offers, asked as it asks: a program or command with a dash in its name has commands and options, too.
#[rstest]
#[case(&["pa"], "pause")]
#[case(&["config", ""], "check")]
#[case(&["pause", "--u"], "--until")]
#[case(&["config", "check", "--of"], "--offline")]
#[case(&["support-bundle", "--o"], "--output")]
#[case(&["verify", "--mode", "da"], "data")]
fn bash_completes(#[case] typed: &[&str], #[case] expected: &str) {
    let script = format!(
        "{}\nCOMP_WORDS=(kafka-backup \"$@\"); COMP_CWORD=$#; \
         $(complete -p kafka-backup | sed 's/.*-F \\([^ ]*\\) .*/\\1/') kafka-backup \"${{COMP_WORDS[COMP_CWORD]}}\" \
         \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        stdout(&["completions", "bash"])
    );
    let output = std::process::Command::new("bash").args(["-c", &script, "bash"]).args(typed).output().unwrap();
    let offered = String::from_utf8_lossy(&output.stdout);
    assert!(offered.lines().any(|word| word == expected), "{offered}{}", String::from_utf8_lossy(&output.stderr));
}

#[rstest]
#[case("bash")]
#[case("zsh")]
#[case("fish")]
fn completions_know_the_commands(#[case] shell: &str) {
    assert!(stdout(&["completions", shell]).contains("restore"));
}

#[test]
fn help_says_what_is_there() {
    let help = stdout(&["--help"]);
    for command in ["daemon", "config", "run", "restore", "info", "cat", "demo", "completions", "man"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}");
    }
    assert!(stdout(&["restore", "--help"]).contains("--if-not-empty"));
    assert_eq!(stdout(&["--version"]), format!("kafka-backup {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_unit_and_the_exit_codes_agree() {
    let unit = std::fs::read_to_string(repository("systemd/kafka-backup.service")).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/kafka-backup daemon $KAFKA_BACKUP_OPTS\n"));
    // 2 is wrong use, 78 a wrong configuration: neither gets better by trying again.
    assert!(unit.contains("\nRestartPreventExitStatus=2 78\n"));
}

/// A mistyped path is an error, not an empty backup, and nothing is made there.
#[rstest]
#[case(&["info"])]
#[case(&["cat", "orders/0/orders-0-00000000000000000000.avro"])]
fn a_storage_folder_that_is_not_there_is_no_empty_backup(#[case] arguments: &[&str]) {
    let tree = Tree::good();
    let (code, out, err) = tree.run(arguments);
    assert_eq!(code, 10, "{out}{err}");
    assert!(err.contains("file://D/store") && err.contains("not there"), "{err}");
    assert!(!Path::new(&tree.path("store")).exists());
}
