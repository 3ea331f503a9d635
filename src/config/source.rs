//! What was typed: TOML files and environment variables as `config` values whose origin says file, line and column.
//!
//! Nothing is judged here but the TOML syntax. Places come from `toml_edit` (the `config` crate itself keeps only the
//! name of a file); they travel through the merging of layers as the values' own [`Value::origin`].

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};
use toml_edit::{Document, Item};

use super::finding::{Complaint, Findings, Origin};

/// A file larger than this is no configuration.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The origin of a value; values of ours always have one.
pub(super) fn origin(value: &Value) -> Origin {
    value.origin().map_or_else(|| Origin::Named("default".to_owned()), Origin::parse)
}

/// A value given somewhere else than in a file.
pub(super) fn named(origin: &str, kind: impl Into<ValueKind>) -> Value {
    Value::new(Some(&origin.to_owned()), kind)
}

/// Reads a TOML file. `None`: it could not be used, and the findings say why.
pub(super) fn read(path: &Path, findings: &mut Findings) -> Option<Map<String, Value>> {
    let whole = Origin::file(path);
    let text = match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            let what = format!("has {} bytes, which no configuration has", metadata.len());
            findings.syntax(&whole, "", Complaint::new(what, "check that this is the right file"));
            return None;
        }
        _ => std::fs::read_to_string(path),
    };
    match text {
        Ok(text) => parse(path, text, findings),
        Err(error) => {
            let (what, remedy) = match error.kind() {
                ErrorKind::NotFound => ("there is no such file".to_owned(), "check the path"),
                ErrorKind::PermissionDenied => {
                    ("it may not be read".to_owned(), "run as root or as the user of the daemon, or check its mode")
                }
                ErrorKind::InvalidData => ("it is not UTF-8".to_owned(), "save it as UTF-8 text"),
                _ => (format!("it cannot be read: {error}"), "check the file"),
            };
            findings.syntax(&whole, "", Complaint::new(what, remedy));
            None
        }
    }
}

/// Reads a job file. Others may be pipes, from a shell for example, but these are read again and again: nobody may be
/// there to write to a pipe, and a device has no end.
pub(super) fn read_job(path: &Path, findings: &mut Findings) -> Option<Map<String, Value>> {
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let complaint = Complaint::new("is neither a file nor a link to one".to_owned(), "write a regular file");
        findings.syntax(&Origin::file(path), "", complaint);
        return None;
    }
    read(path, findings)
}

/// Reads TOML text as if it stood in `path`.
pub(super) fn parse(path: &Path, text: String, findings: &mut Findings) -> Option<Map<String, Value>> {
    let places = Places::new(path, &text);
    match Document::parse(text.as_str()) {
        Ok(document) => match places.item(document.as_item(), &Origin::file(path)).kind {
            ValueKind::Table(table) => Some(table),
            _ => Some(Map::new()),
        },
        Err(error) => {
            let origin = error.span().map_or_else(|| Origin::file(path), |span| places.at(&span));
            // The message alone: the full text of the error quotes the line, which may hold a secret.
            let what = error.message().trim_end().replace('\n', ", ");
            findings.syntax(&origin, "", Complaint::new(format!("not TOML: {what}"), "see https://toml.io/en/v1.0.0"));
            None
        }
    }
}

/// Turns spans into lines and columns.
struct Places<'a> {
    path: &'a Path,
    text: &'a str,
    /// Where the lines begin.
    lines: Vec<usize>,
    /// How many characters there are before each block of [`BLOCK`] bytes: one line may hold very many values, and
    /// counting from its beginning for each of them would take minutes.
    characters: Vec<usize>,
}

/// Bytes.
const BLOCK: usize = 64;

/// Every byte of UTF-8 that does not continue a character begins one.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

impl<'a> Places<'a> {
    fn new(path: &'a Path, text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let sum = |before: &mut usize, block: &[u8]| {
            let so_far = *before;
            *before += characters(block);
            Some(so_far)
        };
        let mut characters: Vec<usize> = text.as_bytes().chunks(BLOCK).scan(0, sum).collect();
        characters.push(text.chars().count());
        Self { path, text, lines, characters }
    }

    fn at(&self, span: &Range<usize>) -> Origin {
        let at = span.start.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= at);
        let column = self.characters_before(at) - self.characters_before(self.lines[line - 1]) + 1;
        Origin::File { path: self.path.to_owned(), line, column }
    }

    fn characters_before(&self, at: usize) -> usize {
        let block = at / BLOCK;
        self.characters[block] + characters(&self.text.as_bytes()[block * BLOCK..at])
    }

    /// The values of a table; each has the place of its key.
    fn table<'i>(
        &self,
        entries: impl Iterator<Item = (&'i str, &'i Item, Option<Range<usize>>)>,
    ) -> Map<String, Value> {
        let value = |(key, item, span): (&str, &Item, Option<Range<usize>>)| {
            let span = span.or_else(|| item.span()).unwrap_or(0..0);
            (key.to_owned(), self.item(item, &self.at(&span)))
        };
        entries.map(value).collect()
    }

    fn item(&self, item: &Item, origin: &Origin) -> Value {
        let kind = match item {
            Item::None => ValueKind::Nil,
            Item::Value(value) => return self.value(value, origin),
            Item::Table(table) => {
                let entries =
                    table.iter().map(|(key, item)| (key, item, table.key(key).and_then(toml_edit::Key::span)));
                ValueKind::Table(self.table(entries))
            }
            Item::ArrayOfTables(tables) => {
                let table = |table: &toml_edit::Table| self.item(&Item::Table(table.clone()), origin);
                ValueKind::Array(tables.iter().map(table).collect())
            }
        };
        Value::new(Some(&origin.to_string()), kind)
    }

    fn value(&self, value: &toml_edit::Value, origin: &Origin) -> Value {
        use toml_edit::Value as Toml;
        let kind = match value {
            Toml::String(text) => ValueKind::String(text.value().clone()),
            Toml::Integer(number) => ValueKind::I64(*number.value()),
            Toml::Float(number) => ValueKind::Float(*number.value()),
            Toml::Boolean(flag) => ValueKind::Boolean(*flag.value()),
            Toml::Datetime(time) => ValueKind::String(time.value().to_string()),
            Toml::Array(array) => {
                let element = |value: &Toml| {
                    let place = value.span().map_or_else(|| origin.clone(), |span| self.at(&span));
                    self.value(value, &place)
                };
                ValueKind::Array(array.iter().map(element).collect())
            }
            Toml::InlineTable(table) => {
                let entry = |(key, value): (&str, &Toml)| {
                    let span = table.key(key).and_then(toml_edit::Key::span);
                    let place = span.map_or_else(|| origin.clone(), |span| self.at(&span));
                    (key.to_owned(), self.value(value, &place))
                };
                ValueKind::Table(table.iter().map(entry).collect())
            }
        };
        Value::new(Some(&origin.to_string()), kind)
    }
}

/// In front of the names of environment variables that stand for keys of the main file: `KAFKA_BACKUP__MEMORY__BUDGET`
/// is `memory.budget`.
pub(super) const VARIABLES: &str = "KAFKA_BACKUP__";

/// The keys given in environment variables, all as text.
pub(super) fn environment(variables: impl Iterator<Item = (String, String)>) -> Map<String, Value> {
    let key = |(name, value): (String, String)| {
        let key = name.strip_prefix(VARIABLES)?.to_lowercase().replace("__", ".");
        Some((key, named(&format!("environment variable {name}"), value)))
    };
    variables.filter_map(key).collect()
}

/// The job files of a folder, in the order of their names: `*.toml`, not recursive, without what editors and package
/// managers leave behind. A folder with such a name is among them, to be refused: somebody meant something by it.
pub fn job_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(is_job_file) {
            files.insert(path.file_name().map(OsStr::to_owned), path);
        }
    }
    Ok(files.into_values().collect())
}

fn is_job_file(name: &OsStr) -> bool {
    // A name that is not UTF-8 is a job file too: one whose name is then refused, not silently left out.
    let name = name.to_string_lossy();
    let left_behind = [".dpkg-", ".ucf-", ".rpmnew", ".rpmsave"].iter().any(|part| name.contains(part));
    name.ends_with(".toml") && !name.starts_with('.') && !left_behind
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("orders.toml", true)]
    #[case("Orders-1.eu.toml", true)]
    #[case(".orders.toml", false)]
    #[case("orders.toml~", false)]
    #[case("orders.toml.dpkg-old", false)]
    #[case("orders.dpkg-dist.toml", false)]
    #[case("orders.toml.rpmnew", false)]
    #[case("orders.toml.rpmsave", false)]
    #[case("orders.toml.ucf-dist", false)]
    #[case("orders.conf", false)]
    fn job_files_by_name(#[case] name: &str, #[case] is: bool) {
        assert_eq!(is_job_file(OsStr::new(name)), is);
    }

    fn origins(value: &Value, path: &str, into: &mut Vec<String>) {
        into.push(format!("{path} {}", value.origin().unwrap_or("-")));
        match &value.kind {
            ValueKind::Table(table) => {
                let sorted: BTreeMap<_, _> = table.iter().collect();
                sorted.iter().for_each(|(key, value)| origins(value, &format!("{path}/{key}"), into));
            }
            ValueKind::Array(array) => {
                array.iter().enumerate().for_each(|(i, value)| origins(value, &format!("{path}/{i}"), into));
            }
            _ => {}
        }
    }

    #[test]
    fn every_value_knows_its_place() {
        let text = "memory.budget = \"1GiB\"\n\n[kafka.main]\nbootstrap_servers = [\n  \"a:1\",\n  \"b:2\",\n]\nproperties = { \"é\" = 1, b = 2 }\n";
        let table = parse(Path::new("f.toml"), text.to_owned(), &mut Findings::default()).unwrap();
        let mut found = Vec::new();
        table.iter().collect::<BTreeMap<_, _>>().iter().for_each(|(key, value)| origins(value, key, &mut found));
        let expected = [
            "kafka f.toml:3:2",
            "kafka/main f.toml:3:8",
            "kafka/main/bootstrap_servers f.toml:4:1",
            "kafka/main/bootstrap_servers/0 f.toml:5:3",
            "kafka/main/bootstrap_servers/1 f.toml:6:3",
            "kafka/main/properties f.toml:8:1",
            "kafka/main/properties/b f.toml:8:25",
            "kafka/main/properties/é f.toml:8:16",
            "memory f.toml:1:1",
            "memory/budget f.toml:1:8",
        ];
        assert_eq!(found, expected);
    }

    /// As many as fit into a file: who counted from the beginning of the line for each would take a minute.
    #[test]
    fn very_many_values_on_one_line_have_their_places_at_once() {
        let text = format!("a = [{}]", "\"é\",".repeat(400_000));
        let began = std::time::Instant::now();
        let table = parse(Path::new("f.toml"), text, &mut Findings::default()).unwrap();
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
        let ValueKind::Array(values) = &table["a"].kind else { panic!("{table:?}") };
        assert_eq!(values[399_999].origin(), Some(&*format!("f.toml:1:{}", 6 + 399_999 * 4)));
    }

    proptest::proptest! {
        #[test]
        fn a_column_is_how_many_characters_are_before_it(text in "[aé€😀\n]{0,300}", at in 0_usize..400) {
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let before = &text[..at];
            let begins = before.rfind('\n').map_or(0, |newline| newline + 1);
            let expected =
                Origin::File { path: "f".into(), line: before.matches('\n').count() + 1, column: before[begins..].chars().count() + 1 };
            proptest::prop_assert_eq!(Places::new(Path::new("f"), &text).at(&(at..at)), expected);
        }
    }

    #[test]
    fn variables_become_keys() {
        let variables = [("KAFKA_BACKUP__MEMORY__BUDGET", "1GiB"), ("KAFKA_BACKUP_CONFIG", "x"), ("PATH", "y")];
        let table = environment(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        assert_eq!(table.keys().collect::<Vec<_>>(), ["memory.budget"]);
        assert_eq!(table["memory.budget"].origin(), Some("environment variable KAFKA_BACKUP__MEMORY__BUDGET"));
    }
}
