//! Loading: all files, all findings, one configuration.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Map, Value, ValueKind};

use super::cluster::{self, Cluster};
use super::draft::Draft;
use super::finding::{Complaint, ConfigErrors, Finding, Findings, Origin, Severity};
use super::job::{self, Shared};
use super::key::Key;
use super::layers::{Layer, View, What};
use super::source::{self, named, origin};
use super::{
    Config, Heartbeat, HttpProtection, HttpTls, LogFormat, MAIN_FILE, StorageConfig, keys, kind, rules, store,
};

/// Which jobs are loaded with the main file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jobs {
    /// Those in its `jobs_dir`.
    All,
    /// None.
    None,
    /// The one in this file.
    One(PathBuf),
}

/// A configuration, what was found in it, and where its values came from.
#[derive(Debug)]
pub struct Inspection {
    /// `None` where there are errors.
    pub config: Option<Config>,
    /// Errors and warnings, in the order of files and lines.
    pub findings: Vec<Finding>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// The ids of the jobs whose files could be read as such.
    pub jobs: Vec<String>,
    /// Every effective value; secrets only as the place they are read from.
    pub values: Vec<Shown>,
}

/// An effective value.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The table or the job it belongs to: `main`, `kafka.NAME`, `storage.NAME`, `job ID`.
    pub section: String,
    /// Its name.
    pub key: String,
    /// What holds.
    pub value: serde_json::Value,
    /// Where it was given.
    pub origin: Origin,
}

impl Inspection {
    /// The configuration, or everything that is wrong with it.
    pub fn into_result(self) -> Result<Config, ConfigErrors> {
        self.config.ok_or(ConfigErrors(self.findings))
    }
}

/// Loads the main file (default: [`MAIN_FILE`], which may be absent) and all jobs.
///
/// # Errors
/// Everything that is wrong, over all files.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    inspect(path, &Jobs::All).into_result()
}

/// Loads the main file without its jobs, for commands that need clusters and stores only.
///
/// # Errors
/// As [`load`].
pub fn load_main(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    inspect(path, &Jobs::None).into_result()
}

/// Loads the main file and the job in `file` alone, wherever that is.
///
/// # Errors
/// As [`load`].
pub fn load_job_file(main: Option<&Path>, file: &Path) -> Result<Config, ConfigErrors> {
    inspect(main, &Jobs::One(file.to_owned())).into_result()
}

/// Loads and keeps what was found, too.
pub fn inspect(main: Option<&Path>, jobs: &Jobs) -> Inspection {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    inspect_with(main, jobs, std::env::vars_os().filter_map(text))
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A main file.
    Main,
    /// The file of a job.
    Job,
    /// The file of a restore.
    Restore,
}

/// What the file at `path` is, by the keys it holds; a main file where they do not tell.
pub fn kind_of_file(path: &Path) -> FileKind {
    let table = source::read(path, &mut Findings::default()).unwrap_or_default();
    let text = |key: &str| table.get(key).is_some_and(|value| matches!(value.kind, ValueKind::String(_)));
    // How many keys are in the one table of keys and not in the other.
    let only = |a: &'static [Key], b: &'static [Key]| {
        table.keys().filter(|key| keys::find(a, key).is_some() && keys::find(b, key).is_none()).count()
    };
    if !text("kafka") && !text("storage") && only(keys::JOB, keys::MAIN) + only(keys::RESTORE, keys::MAIN) == 0 {
        FileKind::Main
    } else if only(keys::RESTORE, keys::JOB) > only(keys::JOB, keys::RESTORE) {
        FileKind::Restore
    } else {
        FileKind::Job
    }
}

pub(super) fn inspect_with(
    main: Option<&Path>,
    jobs: &Jobs,
    variables: impl Iterator<Item = (String, String)>,
) -> Inspection {
    let mut loader = Loader { findings: Findings::default(), files: Vec::new(), jobs: Vec::new(), values: Vec::new() };
    let config = loader.load(main, jobs, Layer::variables(variables));
    let Loader { findings, files, jobs, values } = loader;
    let findings = findings.sorted();
    let fatal = findings.iter().any(|finding| finding.severity == Severity::Error);
    let config = (!fatal).then(|| Config { warnings: findings.clone(), ..config });
    Inspection { config, findings, files, jobs, values }
}

struct Loader {
    findings: Findings,
    files: Vec<PathBuf>,
    jobs: Vec<String>,
    values: Vec<Shown>,
}

type Table = Map<String, Value>;

impl Loader {
    /// A configuration, which is of use only if there are no errors among the findings.
    fn load(&mut self, main: Option<&Path>, jobs: &Jobs, variables: Table) -> Config {
        let path = main.unwrap_or(Path::new(MAIN_FILE));
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut layer = self.main_file(&path, main.is_some());
        let [kafka, storage, defaults] = ["kafka", "storage", "defaults"].map(|key| table_of(layer.take(key)));
        let explicit_jobs_dir = layer.get("jobs_dir").is_some();
        let variables = Layer::sift(&variables, What::Main, &mut self.findings);
        let mut view = View::new(What::Main, Layer::merge([Layer::defaults(What::Main), layer, variables]));
        let mut config = self.globals(&path, &mut view);
        self.show("main", view.entries());

        let clusters = self.clusters(&kafka);
        let stores = self.stores(&storage);
        let defaults = Layer::sift(&defaults, What::Job, &mut self.findings);
        let shared = Shared { main: &path, defaults: &defaults, clusters: &clusters, stores: &stores };
        let files = self.job_files(jobs, &config, explicit_jobs_dir, &view);
        let drafts: Vec<Draft> = files.iter().filter_map(|file| self.job(file, &shared)).collect();
        self.jobs = drafts.iter().map(|draft| draft.job.id.clone()).collect();
        rules::check(&drafts, &mut self.findings);
        drafts.iter().for_each(|draft| self.show_job(draft));

        self.unused(&clusters, &drafts, &mut config);
        config.kafka = clusters.into_iter().filter_map(|(name, built)| Some((name, built?.config))).collect();
        config.storage = stores.into_iter().filter_map(|(name, built)| Some((name, built?))).collect();
        config.jobs = drafts.into_iter().map(|draft| draft.job).collect();
        config
    }

    fn main_file(&mut self, path: &Path, explicit: bool) -> Layer {
        if !explicit && matches!(path.try_exists(), Ok(false)) {
            return Layer::default();
        }
        self.files.push(path.to_owned());
        let table = source::read(path, &mut self.findings).unwrap_or_default();
        Layer::sift(&table, What::Main, &mut self.findings)
    }

    /// Everything of the main file but its tables of clusters, stores and jobs.
    fn globals(&mut self, path: &Path, view: &mut View) -> Config {
        let state_dir = self.path(view, "state_dir");
        if view.text("spool.dir").is_empty() {
            view.set("spool.dir", named("default", state_dir.join("spool").to_string_lossy().into_owned()));
        }
        let control_socket = self.path(view, "control.socket");
        // sun_path of unix(7), with its final zero.
        if control_socket.as_os_str().as_bytes().len() > 107 {
            let complaint =
                Complaint::new("is longer than a socket's path may be (107 bytes)", "choose a shorter path");
            self.findings.syntax(&view.origin("control.socket"), "control.socket", complaint);
        }
        Config {
            path: path.to_owned(),
            jobs_dir: self.path(view, "jobs_dir"),
            drain_timeout: view.value("drain_timeout", kind::span),
            strict_reload: view.value("strict_reload", kind::flag),
            watch: view.value("watch", kind::flag),
            watch_settle: view.value("watch_settle", kind::span),
            memory_budget: view.value("memory.budget", kind::size),
            http_listen: view.value("http.listen", kind::address),
            http: self.http_protection(view),
            heartbeat: self.heartbeat(view),
            max_partition_series: view.value("metrics.max_partition_series", kind::count),
            control_socket,
            log_level: view.text("log.level"),
            log_format: match view.text("log.format").as_str() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                "journald" => LogFormat::Journald,
                _ => LogFormat::Auto,
            },
            spool_dir: PathBuf::from(view.text("spool.dir")),
            spool_max: view.value("spool.max", kind::size),
            state_dir,
            kafka: BTreeMap::new(),
            storage: BTreeMap::new(),
            jobs: Vec::new(),
            warnings: Vec::new(),
            unusable: BTreeMap::new(),
        }
    }

    fn heartbeat(&mut self, view: &View) -> Option<Heartbeat> {
        let key = "heartbeat.url_file";
        let url_file = Some(PathBuf::from(view.text(key))).filter(|path| !path.as_os_str().is_empty())?;
        let heartbeat = Heartbeat { url_file, interval: view.value("heartbeat.interval", kind::span) };
        let (at, url_file) = (view.origin(key), &heartbeat.url_file);
        if cluster::is_exposed(url_file) {
            self.findings.environment(Severity::Warning, &at, key, cluster::exposed(url_file));
        }
        Some(heartbeat)
    }

    fn http_protection(&mut self, view: &View) -> HttpProtection {
        let file = |key: &str| Some(PathBuf::from(view.text(key))).filter(|path| !path.as_os_str().is_empty());
        let [cert, key, client_ca] =
            ["http.tls_cert_file", "http.tls_key_file", "http.tls_client_ca_file"].map(|key| (key, file(key)));
        let mut lonely = |(given, _): (&str, _), missing: &str| {
            let complaint = Complaint::new(format!("is given without {missing}"), format!("set {missing}, too"));
            self.findings.semantics(&view.origin(given), given, complaint);
        };
        let tls = match (cert, key) {
            ((_, Some(cert)), (_, Some(key))) => Some(HttpTls { cert, key, client_ca: client_ca.1 }),
            (cert @ (_, Some(_)), (missing, None)) => {
                lonely(cert, missing);
                None
            }
            ((missing, None), key @ (_, Some(_))) => {
                lonely(key, missing);
                None
            }
            ((missing, None), (_, None)) if client_ca.1.is_some() => {
                lonely(client_ca, missing);
                None
            }
            _ => None,
        };
        let basic_auth_file = file("http.basic_auth_file");
        for (key, path) in [
            ("http.tls_key_file", tls.as_ref().map(|tls| &tls.key)),
            ("http.basic_auth_file", basic_auth_file.as_ref()),
        ] {
            if let Some(path) = path.filter(|path| cluster::is_exposed(path)) {
                self.findings.environment(Severity::Warning, &view.origin(key), key, cluster::exposed(path));
            }
        }
        HttpProtection { tls, basic_auth_file }
    }

    fn path(&mut self, view: &View, key: &str) -> PathBuf {
        let path = PathBuf::from(view.text(key));
        if path.as_os_str().is_empty() {
            let complaint = Complaint::new("is empty", "write a path, or remove the key to have the default");
            self.findings.syntax(&view.origin(key), key, complaint);
        }
        path
    }

    fn clusters(&mut self, tables: &Table) -> BTreeMap<String, Option<Cluster>> {
        let mut clusters = BTreeMap::new();
        for (name, at, table) in self.tables("kafka", tables) {
            let built = cluster::build(name, &at, table, &mut self.findings);
            self.show_table(&format!("kafka.{name}"), "", table);
            clusters.insert(name.to_owned(), built);
        }
        clusters
    }

    fn stores(&mut self, tables: &Table) -> BTreeMap<String, Option<Arc<StorageConfig>>> {
        let mut stores = BTreeMap::new();
        for (name, at, table) in self.tables("storage", tables) {
            let built = store::build(name, &at, table, &mut self.findings);
            if built.is_some() {
                self.show(&format!("storage.{name}"), store::view(table).entries());
            }
            stores.insert(name.to_owned(), built);
        }
        stores
    }

    /// The tables in a table of tables, by name.
    fn tables<'t>(&mut self, key: &str, tables: &'t Table) -> Vec<(&'t str, Origin, &'t Table)> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let mut found = Vec::new();
        for (name, value) in tables.iter().collect::<BTreeMap<_, _>>() {
            let at = origin(value);
            match &value.kind {
                ValueKind::Table(table) if !name.is_empty() && name.chars().all(allowed) => {
                    found.push((name.as_str(), at, table));
                }
                ValueKind::Table(_) => {
                    let complaint = Complaint::new(format!("{name:?} cannot be a name"), "use a-z A-Z 0-9 . _ -");
                    self.findings.syntax(&at, key, complaint);
                }
                _ => {
                    let complaint = Complaint::new("is not a table", format!("write it under [{key}.NAME]"));
                    self.findings.syntax(&at, &format!("{key}.{name}"), complaint);
                }
            }
        }
        found
    }

    fn job_files(&mut self, jobs: &Jobs, config: &Config, explicit: bool, view: &View) -> Vec<PathBuf> {
        let folder = match jobs {
            Jobs::None => return Vec::new(),
            Jobs::One(file) => return vec![std::path::absolute(file).unwrap_or_else(|_| file.clone())],
            Jobs::All => &config.jobs_dir,
        };
        match source::job_files(folder) {
            Ok(files) => files,
            // Without jobs there is nothing to do, but nothing wrong either.
            Err(error) if error.kind() == ErrorKind::NotFound && !explicit => Vec::new(),
            Err(error) => {
                let what = format!("cannot read {}: {error}", folder.display());
                let complaint = Complaint::new(what, "create the folder, or check the path and its mode");
                self.findings.syntax(&view.origin("jobs_dir"), "jobs_dir", complaint);
                Vec::new()
            }
        }
    }

    fn job(&mut self, file: &Path, shared: &Shared<'_>) -> Option<Draft> {
        self.files.push(file.to_owned());
        let id = job::id(file, &mut self.findings);
        let table = source::read_job(file, &mut self.findings)?;
        let layer = Layer::sift(&table, What::Job, &mut self.findings);
        job::build(&id?, file, layer, shared, &mut self.findings)
    }

    /// Secrets of clusters that no job uses do not stop the others; using the cluster later does.
    fn unused(&mut self, clusters: &BTreeMap<String, Option<Cluster>>, drafts: &[Draft], config: &mut Config) {
        for (name, cluster) in clusters {
            let Some(cluster) = cluster else { continue };
            let used = drafts.iter().any(|draft| draft.job.kafka.name == *name);
            if used || cluster.unreadable.is_empty() {
                continue;
            }
            let as_warning = |finding: &Finding| Finding { severity: Severity::Warning, ..finding.clone() };
            self.findings.0.extend(cluster.unreadable.iter().map(as_warning));
            if cluster.unreadable.iter().any(|finding| finding.severity == Severity::Error) {
                config.unusable.insert(name.clone(), cluster.unreadable.clone());
            }
        }
    }

    fn show<'v>(&mut self, section: &str, entries: impl Iterator<Item = (&'static str, &'v Value)>) {
        let shown = |(key, value): (&str, &Value)| Shown {
            section: section.to_owned(),
            key: key.to_owned(),
            value: json(value),
            origin: origin(value),
        };
        self.values.extend(entries.map(shown));
    }

    fn show_job(&mut self, draft: &Draft) {
        let section = format!("job {}", draft.job.id);
        for (key, value) in &draft.references {
            match &value.kind {
                ValueKind::Table(table) => self.show_table(&section, &format!("{key}."), table),
                _ => self.show(&section, std::iter::once((*key, value))),
            }
        }
        self.show(&section, draft.view.entries());
    }

    /// Shows a table as it was given. What it may hold of secrets are references; a literal one is an error, and a
    /// configuration with errors is not shown.
    fn show_table(&mut self, section: &str, prefix: &str, table: &Table) {
        for (key, value) in table.iter().collect::<BTreeMap<_, _>>() {
            let key = format!("{prefix}{key}");
            match &value.kind {
                ValueKind::Table(inner) => self.show_table(section, &format!("{key}."), inner),
                _ => self.values.push(Shown {
                    section: section.to_owned(),
                    key,
                    value: json(value),
                    origin: origin(value),
                }),
            }
        }
    }
}

fn table_of(value: Option<Value>) -> Table {
    match value.map(|value| value.kind) {
        Some(ValueKind::Table(table)) => table,
        _ => Table::new(),
    }
}

fn json(value: &Value) -> serde_json::Value {
    match &value.kind {
        ValueKind::Boolean(flag) => (*flag).into(),
        ValueKind::I64(number) => (*number).into(),
        ValueKind::Float(number) => (*number).into(),
        ValueKind::Array(array) => array.iter().map(json).collect::<Vec<_>>().into(),
        ValueKind::Nil => serde_json::Value::Null,
        other => other.to_string().into(),
    }
}
