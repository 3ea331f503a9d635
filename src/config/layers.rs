//! Layers of values, from defaults to what was typed last: each is sifted against its table of keys, then the `config`
//! crate lays them over one another.

use std::collections::BTreeMap;

use config::{Map, Source, Value, ValueKind};

use super::finding::{Complaint, Findings, Origin};
use super::key::{Fallback, Key, Kind};
use super::keys::{self, JOB, MAIN};
use super::source::{self, named, origin};

/// What a file or a table is, as far as refusals name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Main,
    Job,
    Kafka,
    Storage,
    Restore,
}

impl What {
    fn keys(self) -> &'static [Key] {
        match self {
            Self::Main => MAIN,
            Self::Job => JOB,
            Self::Kafka => keys::KAFKA,
            Self::Storage => keys::STORAGE,
            Self::Restore => keys::RESTORE,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Main => "the main file",
            Self::Job => "a job",
            Self::Kafka => "a cluster",
            Self::Storage => "a store",
            Self::Restore => "a restore",
        }
    }
}

/// Known keys with values of the right kind, by their full names. A value that was refused is there as `Nil`: given,
/// but of no use.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer(BTreeMap<String, Value>);

impl Layer {
    /// The defaults of all keys.
    pub fn defaults(what: What) -> Self {
        let value = |key: &Key| match key.default {
            Fallback::Is(text) => Some((key.name.to_owned(), named("default", key.kind.typed(text)))),
            _ => None,
        };
        Self(what.keys().iter().filter_map(value).collect())
    }

    /// The keys of the main file given in environment variables, each with a value of the kind its key takes, as far as
    /// the text is one.
    pub fn variables(variables: impl Iterator<Item = (String, String)>) -> Map<String, Value> {
        let typed = |(name, value): (String, Value)| {
            let typed = match (keys::find(MAIN, &name), &value.kind) {
                (Some(key), ValueKind::String(text)) => named(&origin(&value).to_string(), key.kind.typed(text)),
                _ => value,
            };
            (name, typed)
        };
        source::environment(variables).into_iter().map(typed).collect()
    }

    /// A layer with one value.
    pub fn one(key: &str, value: Value) -> Self {
        Self(BTreeMap::from([(key.to_owned(), value)]))
    }

    /// What is known and sound in `table`; what is not is in the findings.
    pub fn sift(table: &Map<String, Value>, what: What, findings: &mut Findings) -> Self {
        let mut layer = Self::default();
        layer.sift_into("", table, what, findings);
        layer
    }

    fn sift_into(&mut self, prefix: &str, table: &Map<String, Value>, what: What, findings: &mut Findings) {
        for (name, value) in table {
            let name = format!("{prefix}{name}");
            let at = origin(value);
            let Some(key) = keys::find(what.keys(), &name) else {
                let group = format!("{name}.");
                match &value.kind {
                    ValueKind::Table(inner) if what.keys().iter().any(|key| key.name.starts_with(&group)) => {
                        self.sift_into(&group, inner, what, findings);
                    }
                    _ => findings.syntax(&at, &name, unknown(&name, what)),
                }
                continue;
            };
            if self.0.contains_key(&name) {
                findings.syntax(&at, &name, Complaint::new("is given twice", "remove one of them"));
            }
            let kept = match key.kind.check(value) {
                Ok(()) => absolute(key, value),
                Err(complaint) => {
                    findings.syntax(&at, &name, complaint);
                    Value::new(Some(&at.to_string()), ValueKind::Nil)
                }
            };
            self.0.insert(name, kept);
        }
    }

    /// Takes a value out; a table that names a cluster or a store is not merged key by key but as a whole.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// A value of this layer alone.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Lays `layers` over one another, the last one on top.
    pub fn merge(layers: impl IntoIterator<Item = Self>) -> Self {
        let builder = layers.into_iter().fold(config::Config::builder(), |builder, layer| builder.add_source(layer));
        let merged = builder.build().and_then(|config| config.collect());
        let merged = merged.expect("building fails only where a source does"); // layers are in memory
        let mut flat = Self::default();
        flatten("", merged, &mut flat.0);
        flat
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    // The crate reads the names as paths: `memory.budget` becomes a table. Names are known ones, so there is no
    // `a[4000000000]` among them, which would be read as the index of a list to allocate.
    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone().into_iter().collect())
    }
}

fn flatten(prefix: &str, table: Map<String, Value>, into: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        match value.kind {
            ValueKind::Table(inner) => flatten(&format!("{prefix}{name}."), inner, into),
            _ => drop(into.insert(format!("{prefix}{name}"), value)),
        }
    }
}

fn unknown(name: &str, what: What) -> Complaint {
    // Only variables have such names; in a file these are tables.
    let is_in_a_table = |key: &Key| {
        matches!(key.kind, Kind::Tables(_) | Kind::Keys(_))
            && name.strip_prefix(key.name).is_some_and(|n| n.starts_with('.'))
    };
    if what == What::Main && what.keys().iter().any(is_in_a_table) {
        let what = "what is in the tables of the main file cannot be given in a variable";
        return Complaint::new(what.to_owned(), "write it into the main file");
    }
    let elsewhere = |other: What, remedy: &str| {
        keys::find(other.keys(), name)
            .map(|_| Complaint::new(format!("is a key of {}, not of {}", other.words(), what.words()), remedy))
    };
    let complaint = match what {
        What::Main => elsewhere(What::Job, "put it into [defaults], for all jobs, or into the file of a job"),
        What::Job => elsewhere(What::Main, "put it into the main file")
            .or_else(|| elsewhere(What::Restore, "put it into a file for kafka-backup restore")),
        _ => None,
    };
    let names = || what.keys().iter().map(|key| key.name);
    complaint.unwrap_or_else(|| match keys::meant(name, names()) {
        Some(meant) => Complaint::new(format!("unknown key of {}", what.words()), format!("did you mean {meant}?")),
        None => {
            let known = names().collect::<Vec<_>>().join(", ");
            Complaint::new(format!("unknown key of {}", what.words()), format!("the keys are {known}"))
        }
    })
}

/// A path is taken relative to the file it stands in, whoever asks for it later.
fn absolute(key: &Key, value: &Value) -> Value {
    match (&key.kind, &value.kind) {
        (Kind::Path, ValueKind::String(path)) if !path.is_empty() => {
            let at = origin(value);
            let path = at.folder().join(path);
            let path = std::path::absolute(&path).unwrap_or(path);
            Value::new(Some(&at.to_string()), path.to_string_lossy().into_owned())
        }
        _ => value.clone(),
    }
}

/// Reads the values of a merged layer. Every value has passed its check, or has been replaced by its default here, so
/// that reading goes on and all mistakes are reported at once; a configuration with mistakes is never used.
#[derive(Debug)]
pub(super) struct View {
    what: What,
    layer: Layer,
}

impl View {
    /// A view on all keys of `what`.
    pub fn new(what: What, layer: Layer) -> Self {
        Self { what, layer }
    }

    /// Whether the key was given or has a default, be it of use or not.
    pub fn given(&self, key: &str) -> bool {
        self.layer.0.contains_key(key)
    }

    /// Whether the key was given with a value that was refused.
    pub fn is_refused(&self, key: &str) -> bool {
        self.layer.0.get(key).is_some_and(|value| value.kind == ValueKind::Nil)
    }

    /// Where the key was given.
    pub fn origin(&self, key: &str) -> Origin {
        self.layer.0.get(key).map_or_else(|| Origin::Named("default".to_owned()), origin)
    }

    /// Fills in a default that depends on other values.
    pub fn set(&mut self, key: &str, value: Value) {
        self.layer.0.insert(key.to_owned(), value);
    }

    /// The value of a key that has no default; `None`: not given, or refused.
    pub fn maybe<'v, T>(&'v self, key: &str, read: impl Fn(&'v Value) -> Result<T, Complaint>) -> Option<T> {
        debug_assert!(keys::find(self.what.keys(), key).is_some(), "{key} is not in the table of keys");
        self.layer.0.get(key).and_then(|value| read(value).ok())
    }

    /// The value of a key that has a default.
    pub fn value<T>(&self, key: &str, read: impl Fn(&Value) -> Result<T, Complaint>) -> T {
        self.maybe(key, &read).unwrap_or_else(|| {
            let default = Layer::defaults(self.what).take(key);
            let read = default.and_then(|value| read(&value).ok());
            read.expect("keys read this way have a default that passes its check") // a unit test holds the table to it
        })
    }

    /// The text of a key that has a default.
    pub fn text(&self, key: &str) -> String {
        self.value(key, |value| super::kind::text(value, "\"...\"").map(str::to_owned))
    }

    /// The text of a key that has none.
    pub fn maybe_text(&self, key: &str) -> Option<&str> {
        self.maybe(key, |value| super::kind::text(value, "\"...\""))
    }

    /// All keys in the order of the table, with their values.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.what.keys().iter().filter_map(|key| Some((key.name, self.layer.0.get(key.name)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::kind;
    use crate::config::source::parse;

    fn sift(text: &str, what: What) -> (Layer, Vec<String>) {
        let mut findings = Findings::default();
        let table = parse(Path::new("/d/f.toml"), text.to_owned(), &mut findings).unwrap();
        let layer = Layer::sift(&table, what, &mut findings);
        (layer, findings.sorted().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_last_layer_wins_and_says_where_it_came_from() {
        let (defaults, _) = sift("flush_size = 5\ncodec = \"null\"", What::Job);
        let (job, _) = sift("\nflush_size = 7", What::Job);
        let view = View::new(What::Job, Layer::merge([Layer::defaults(What::Job), defaults, job]));
        assert_eq!(view.value("flush_size", kind::count), 7);
        assert_eq!(view.origin("flush_size").to_string(), "/d/f.toml:2:1");
        assert_eq!(view.text("codec"), "null");
        assert_eq!(view.origin("codec").to_string(), "/d/f.toml:2:1");
        assert_eq!(view.value("tasks_max", kind::count), 1);
        assert_eq!(view.origin("tasks_max").to_string(), "default");
    }

    #[test]
    fn a_refused_value_is_given_but_of_no_use() {
        let (job, findings) = sift("flush_bytes = 64", What::Job);
        assert_eq!(findings.len(), 1);
        let view = View::new(What::Job, Layer::merge([Layer::defaults(What::Job), job]));
        assert!(view.given("flush_bytes"));
        assert_eq!(view.value("flush_bytes", kind::size), 64 << 20);
    }

    #[test]
    fn dotted_keys_and_tables_are_the_same() {
        for text in ["memory.budget = \"1GiB\"", "[memory]\nbudget = \"1GiB\"", "\"memory.budget\" = \"1GiB\""] {
            let (layer, findings) = sift(text, What::Main);
            assert_eq!(findings, Vec::<String>::new());
            let view = View::new(What::Main, Layer::merge([Layer::defaults(What::Main), layer]));
            assert_eq!(view.value("memory.budget", kind::size), 1 << 30);
        }
        let (_, findings) = sift("memory.budget = \"1GiB\"\n\"memory.budget\" = \"2GiB\"", What::Main);
        assert!(findings[0].contains("memory.budget: is given twice"), "{findings:?}");
    }

    #[test]
    fn paths_are_relative_to_their_file() {
        let (layer, _) = sift("state_dir = \"var\"\njobs_dir = \"/jobs\"", What::Main);
        assert_eq!(layer.get("state_dir").map(|v| v.kind.to_string()), Some("/d/var".to_owned()));
        assert_eq!(layer.get("jobs_dir").map(|v| v.kind.to_string()), Some("/jobs".to_owned()));
    }
}
