//! Whatever is typed.

use proptest::prelude::*;

use super::*;

/// Text that looks enough like a configuration to get past the parser.
fn toml() -> impl Strategy<Value = String> {
    let names: Vec<&str> = [keys::MAIN, keys::JOB, keys::KAFKA, keys::STORAGE, keys::RESTORE]
        .iter()
        .flat_map(|keys| keys.iter().map(|key| key.name))
        .chain([
            "x",
            "\"a[9999999999]\"",
            "kafka.main",
            "kafka.main.properties",
            "storage.main.type",
            "\"\"",
            "defaults.codec",
        ])
        .collect();
    let values = [
        "\"main\"",
        "\"\"",
        "1",
        "-1",
        "1.5",
        "true",
        "[]",
        "[\"a\"]",
        "[1]",
        "{}",
        "{ a = 1 }",
        "\"64MiB\"",
        "\"1h\"",
        "\"0\"",
        "\"compacted\"",
        "2026-11-01T00:00:00Z",
        "\"é\"",
        "{ bootstrap_servers = [\"a:1\"] }",
        "nan",
        "\"999999999999999EiB\"",
        "\"99999999999999999999d\"",
        "\"deflate\"",
        "\"(\"",
    ];
    let line = (prop::sample::select(names), prop::sample::select(values.to_vec()), any::<bool>()).prop_map(
        |(name, value, table)| if table && value == "{}" { format!("[{name}]") } else { format!("{name} = {value}") },
    );
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_panics_the_loader(main in prop_oneof![any::<String>(), toml()], job in prop_oneof![any::<String>(), toml()]) {
        let tree = Tree::new(&main, &[]);
        let file = tree.0.path().join("jobs.d/j.toml");
        std::fs::write(&file, job).unwrap();
        let path = tree.0.path().join("main.toml");
        let inspection = inspect_with(Some(&path), &Jobs::One(file), std::iter::empty());
        prop_assert_eq!(inspection.config.is_none(), inspection.findings.iter().any(|f| f.severity == Severity::Error));
        let config = Tree::new(MAIN, &[]).config();
        let _ = RestoreRequest::load(&config, Some(&path), &RestoreFlags::default());
        let _ = config.store(&main, "--storage");
        let _ = config.cluster(&main, "--kafka");
    }

    #[test]
    fn sizes_read_back_what_was_shown(bytes in any::<u64>()) {
        let text = kind::size_text(bytes);
        prop_assert_eq!(kind::size(&::config::Value::new(None, text)).unwrap(), bytes);
    }
}
