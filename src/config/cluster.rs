//! Clusters: brokers and librdkafka properties, with secrets read from where they are kept.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Map, Value, ValueKind};

use super::finding::{Complaint, Finding, Findings, Origin, Severity};
use super::kind;
use super::layers::{Layer, View, What};
use super::source::origin;
use super::{KafkaConfig, Property};

/// librdkafka's properties that are secrets (those it marks sensitive and that are more than a path or a name).
const SECRETS: &[&str] = &[
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// Properties that decide whether a backup is exact, and how much memory it takes. They are the program's own.
const OWNED: &[(&str, &str, &str)] = &[
    ("auto.offset.reset", "any other value than the program's own silently skips or rewinds", REMOVE),
    ("bootstrap.servers", "has a key of its own", "write bootstrap_servers = [\"host:port\"] beside the properties"),
    ("check.crcs", "a backup always checks what it reads", REMOVE),
    ("enable.auto.commit", "offsets are committed only for what is safe in the store", REMOVE),
    ("enable.auto.offset.store", "offsets are committed only for what is safe in the store", REMOVE),
    ("enable.idempotence", "a restore decides this so that no record is written twice", REMOVE),
    ("enable.partition.eof", "the end of a partition is recognised by it", REMOVE),
    ("allow.auto.create.topics", "a topic that is asked for must not come to be by asking", REMOVE),
    ("group.id", "belongs to a job", "write group_id in the job"),
    ("group.instance.id", "belongs to a job", "write group_instance_id in the job"),
    ("isolation.level", "belongs to a job", "write isolation in the job"),
    ("metadata.broker.list", "has a key of its own", "write bootstrap_servers = [\"host:port\"] beside the properties"),
    ("queued.max.messages.kbytes", "the queues are sized from memory.budget", "set memory.budget in the main file"),
    ("queued.min.messages", "the queues are sized from memory.budget", "set memory.budget in the main file"),
    ("transactional.id", "the program writes no transactions of its own with it", REMOVE),
];

const REMOVE: &str = "remove it";

/// A secret is never larger: keys in PEM form have a few KiB.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A cluster, and what keeps it from being used: secrets that could not be read. Clusters that no job uses may have
/// such findings without harm.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    pub config: Arc<KafkaConfig>,
    pub unreadable: Vec<Finding>,
}

/// Builds the cluster `name` from its table, which stands at `at`. `None`: it cannot be used, and the findings say why.
pub(super) fn build(name: &str, at: &Origin, table: &Map<String, Value>, findings: &mut Findings) -> Option<Cluster> {
    let before = findings.0.len();
    let mut layer = Layer::sift(table, What::Kafka, findings);
    let given = layer.take("properties");
    let view = View::new(What::Kafka, layer);
    if !view.given("bootstrap_servers") {
        let remedy = "write bootstrap_servers = [\"host:port\"]";
        findings.semantics(at, "bootstrap_servers", Complaint::new("is missing", remedy));
    }
    let servers = view.maybe("bootstrap_servers", kind::texts).unwrap_or_default();
    if servers.is_empty() && view.maybe("bootstrap_servers", kind::texts).is_some() {
        let complaint = Complaint::new("is empty", "write at least one \"host:port\"");
        findings.semantics(&view.origin("bootstrap_servers"), "bootstrap_servers", complaint);
    }
    for (server, value) in &servers {
        if let Err(complaint) = broker(server) {
            findings.syntax(&origin(value), "bootstrap_servers", complaint);
        }
    }
    let mut properties = Properties::default();
    if let Some(Value { kind: ValueKind::Table(table), .. }) = given {
        properties.read("", &table, findings);
    }
    for (key, why) in crate::kafka::settings::check_properties(&properties.values) {
        let at = properties.origins.get(&key).unwrap_or(at);
        findings.syntax(at, &key, Complaint::new(why, "see librdkafka's CONFIGURATION.md"));
    }
    let bootstrap_servers = servers.into_iter().map(|(server, _)| server).collect();
    let config = KafkaConfig { name: name.to_owned(), bootstrap_servers, properties: properties.values };
    let fatal = findings.0[before..].iter().any(|finding| finding.severity == Severity::Error);
    (!fatal).then(|| Cluster { config: Arc::new(config), unreadable: properties.unreadable.sorted() })
}

/// A cluster given as `host:port[,host:port]`.
pub(super) fn from_servers(servers: &str) -> Result<KafkaConfig, Complaint> {
    let bootstrap_servers: Vec<_> = servers.split(',').map(|server| server.trim().to_owned()).collect();
    bootstrap_servers.iter().try_for_each(|server| broker(server))?;
    Ok(KafkaConfig { name: servers.to_owned(), bootstrap_servers, properties: BTreeMap::new() })
}

/// Checks `host:port`.
fn broker(text: &str) -> Result<(), Complaint> {
    let refused = |remedy: &str| Err(Complaint::new(format!("{text:?} is not host:port"), remedy));
    if text.contains("://") {
        return refused("leave out what is before the host; the protocol is the property \"security.protocol\"");
    }
    if text.contains(',') {
        return refused("write each broker as a text of its own: [\"a:9092\", \"b:9092\"]");
    }
    let Some((host, port)) = text.rsplit_once(':') else { return refused("add the port, for example :9092") };
    let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if bare_ipv6 {
        return refused("write an IPv6 address in brackets, for example \"[::1]:9092\"");
    }
    let host_is_sound = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    match port.parse::<u16>() {
        Ok(1..) if host_is_sound => Ok(()),
        _ => refused("write for example \"broker1:9092\""),
    }
}

/// librdkafka properties, as they come together.
#[derive(Default)]
struct Properties {
    values: BTreeMap<String, Property>,
    origins: BTreeMap<String, Origin>,
    unreadable: Findings,
}

/// Where a secret is kept.
enum Keep<'a> {
    File(&'a str),
    Credential(&'a str),
}

impl Properties {
    /// Reads a table. `security.protocol` without quotes is a table in TOML, and the same property to us.
    fn read(&mut self, prefix: &str, table: &Map<String, Value>, findings: &mut Findings) {
        let sorted: BTreeMap<_, _> = table.iter().collect();
        for (name, value) in sorted {
            let name = format!("{prefix}{name}");
            match &value.kind {
                ValueKind::Table(inner) => self.read(&format!("{name}."), inner, findings),
                _ => {
                    if let Err(complaint) = self.one(&name, value) {
                        findings.syntax(&origin(value), &name, complaint);
                    }
                }
            }
        }
    }

    fn one(&mut self, name: &str, value: &Value) -> Result<(), Complaint> {
        if let Some((_, why, remedy)) = OWNED.iter().find(|(owned, ..)| *owned == name) {
            return Err(Complaint::new(format!("may not be set here: {why}"), *remedy));
        }
        if SECRETS.contains(&name) {
            let remedy = format!(
                "put it into a file that only the daemon can read, and write \"{name}_file\" = \
                 \"/etc/kafka-backup/secrets/...\", or \"{name}_credential\" with a systemd credential"
            );
            return Err(Complaint::new("a secret may not stand in a configuration file", remedy));
        }
        for (suffix, keep) in [("_file", Keep::File as fn(_) -> _), ("_credential", Keep::Credential)] {
            if let Some(secret) = name.strip_suffix(suffix).filter(|name| SECRETS.contains(name)) {
                let text = kind::text(value, "\"...\"")?;
                return self.secret(secret, name, keep(text), &origin(value));
            }
        }
        let text = match &value.kind {
            ValueKind::String(text) => text.clone(),
            ValueKind::I64(number) => number.to_string(),
            ValueKind::Float(number) => number.to_string(),
            ValueKind::Boolean(flag) => flag.to_string(),
            _ => return Err(Complaint::new("a property is one value", "write a text, a number, true or false")),
        };
        self.add(name, text, None, &origin(value))
    }

    fn add(&mut self, name: &str, value: String, secret_from: Option<PathBuf>, at: &Origin) -> Result<(), Complaint> {
        if value.contains('\0') {
            return Err(Complaint::new("holds a zero byte", "check the value"));
        }
        self.origins.insert(name.to_owned(), at.clone());
        match self.values.insert(name.to_owned(), Property { value, secret_from }) {
            None => Ok(()),
            Some(_) => Err(Complaint::new(format!("{name} is given twice"), "remove one of them")),
        }
    }

    /// Reads a secret. What this machine cannot read is kept apart from what is wrong with the file: a configuration
    /// can be checked where its secrets are not.
    fn secret(&mut self, name: &str, key: &str, keep: Keep<'_>, at: &Origin) -> Result<(), Complaint> {
        let path = match keep {
            Keep::File("") => return Err(Complaint::new("is empty", "write the path of a file")),
            Keep::File(path) => at.folder().join(path),
            Keep::Credential(name) if name.is_empty() || name.contains('/') || name == ".." => {
                let remedy = "write the name given in LoadCredential= of the unit";
                return Err(Complaint::new(format!("{name:?} is not the name of a credential"), remedy));
            }
            Keep::Credential(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(folder) => Path::new(&folder).join(name),
                None => {
                    let remedy = "systemd sets it for a unit with LoadCredential=; elsewhere use the _file form";
                    let complaint = Complaint::new("there is no $CREDENTIALS_DIRECTORY", remedy);
                    self.unreadable.environment(Severity::Error, at, key, complaint);
                    return Ok(());
                }
            },
        };
        match read_secret(&path) {
            Ok((secret, exposed)) => {
                if exposed {
                    self.unreadable.environment(Severity::Warning, at, key, self::exposed(&path));
                }
                self.add(name, secret, Some(path), at)
            }
            Err(complaint) => {
                self.unreadable.environment(Severity::Error, at, key, complaint);
                Ok(())
            }
        }
    }
}

/// Everybody can read a file that should be secret.
pub(super) fn exposed(path: &Path) -> Complaint {
    Complaint::new(format!("{} can be read by everybody", path.display()), format!("chmod o= {}", path.display()))
}

/// Whether everybody can read a file.
pub(super) fn is_exposed(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// A secret, and whether everybody can read it.
fn read_secret(path: &Path) -> Result<(String, bool), Complaint> {
    let failed = |error: std::io::Error| {
        let (why, remedy) = match error.kind() {
            ErrorKind::NotFound => ("there is no such file".to_owned(), "create it, or check the path"),
            ErrorKind::PermissionDenied => (
                "it may not be read".to_owned(),
                "run as root or as the user of the daemon, or check its owner and mode",
            ),
            ErrorKind::InvalidData => ("it is not UTF-8".to_owned(), "check that this is the right file"),
            _ => (error.to_string(), "check the file"),
        };
        Complaint::new(format!("cannot read {}: {why}", path.display()), remedy)
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > SECRET_BYTES_MAX {
        let what = format!("cannot read {}: it is not a file with a secret", path.display());
        return Err(Complaint::new(what, "check that this is the right file"));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    // Editors and `echo` end a file with a newline; no secret does.
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(Complaint::new(format!("{} is empty", path.display()), "write the secret into it"));
    }
    Ok((secret.to_owned(), metadata.permissions().mode() & 0o004 != 0))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::source::parse;

    fn cluster(folder: &Path, text: &str) -> (Option<Cluster>, Vec<String>) {
        let mut findings = Findings::default();
        let path = folder.join("f.toml");
        let table = parse(&path, text.to_owned(), &mut findings).unwrap();
        let cluster = build("main", &Origin::file(&path), &table, &mut findings);
        let shown = |finding: &Finding| finding.to_string().replace(&*folder.to_string_lossy(), "DIR");
        let mut all = findings.sorted();
        all.extend(cluster.iter().flat_map(|cluster| cluster.unreadable.clone()));
        (cluster, all.iter().map(shown).collect())
    }

    #[rstest]
    #[case("", "DIR/f.toml: bootstrap_servers: is missing\n  hint: write bootstrap_servers = [\"host:port\"]")]
    #[case(
        "bootstrap_servers = []",
        "DIR/f.toml:1:1: bootstrap_servers: is empty\n  hint: write at least one \"host:port\""
    )]
    #[case(
        "bootstrap_servers = [\"a:1\", \"b\"]",
        "DIR/f.toml:1:29: bootstrap_servers: \"b\" is not host:port\n  hint: add the port, for example :9092"
    )]
    #[case(
        "bootstrap_servers = [\"SSL://a:1\"]",
        "DIR/f.toml:1:22: bootstrap_servers: \"SSL://a:1\" is not host:port\n  hint: leave out what is before the host; the protocol is the property \"security.protocol\""
    )]
    #[case(
        "bootstrap_servers = [\"::1:9092\"]",
        "DIR/f.toml:1:22: bootstrap_servers: \"::1:9092\" is not host:port\n  hint: write an IPv6 address in brackets, for example \"[::1]:9092\""
    )]
    #[case(
        "bootstrap_servers = [\"a:1,b:1\"]",
        "DIR/f.toml:1:22: bootstrap_servers: \"a:1,b:1\" is not host:port\n  hint: write each broker as a text of its own: [\"a:9092\", \"b:9092\"]"
    )]
    #[case(
        "bootstrap_servers = [\"a:0\"]",
        "DIR/f.toml:1:22: bootstrap_servers: \"a:0\" is not host:port\n  hint: write for example \"broker1:9092\""
    )]
    #[case(
        "bootstrap_servers = \"a:1\"",
        "DIR/f.toml:1:1: bootstrap_servers: must be a list, not a text\n  hint: write a list of texts: [\"...\", \"...\"]"
    )]
    #[case(
        "bootstrap_server = [\"a:1\"]\nbootstrap_servers = [\"a:1\"]",
        "DIR/f.toml:1:1: bootstrap_server: unknown key of a cluster\n  hint: did you mean bootstrap_servers?"
    )]
    fn broken_clusters(#[case] text: &str, #[case] expected: &str) {
        let (cluster, findings) = cluster(Path::new("/c"), text);
        assert!(cluster.is_none());
        assert_eq!(findings, [expected.replace("/c", "DIR")]);
    }

    #[rstest]
    #[case(
        "\"group.id\" = \"x\"",
        "group.id: may not be set here: belongs to a job\n  hint: write group_id in the job"
    )]
    #[case("group.id = \"x\"", "group.id: may not be set here: belongs to a job\n  hint: write group_id in the job")]
    #[case(
        "\"auto.offset.reset\" = \"earliest\"",
        "auto.offset.reset: may not be set here: any other value than the program's own silently skips or rewinds\n  hint: remove it"
    )]
    #[case(
        "\"sasl.password\" = \"hunter2\"",
        "sasl.password: a secret may not stand in a configuration file\n  hint: put it into a file that only the daemon can read, and write \"sasl.password_file\" = \"/etc/kafka-backup/secrets/...\", or \"sasl.password_credential\" with a systemd credential"
    )]
    #[case("\"client.id\" = [1]", "client.id: a property is one value\n  hint: write a text, a number, true or false")]
    #[case(
        "\"sasl.password_credential\" = \"../x\"",
        "sasl.password_credential: \"../x\" is not the name of a credential\n  hint: write the name given in LoadCredential= of the unit"
    )]
    fn refused_properties(#[case] property: &str, #[case] expected: &str) {
        let (cluster, findings) =
            cluster(Path::new("/c"), &format!("bootstrap_servers = [\"a:1\"]\n[properties]\n{property}"));
        assert!(cluster.is_none());
        assert_eq!(findings.len(), 1);
        assert!(findings[0].starts_with("DIR/f.toml:3:") && findings[0].ends_with(expected), "{findings:?}");
        assert!(!findings[0].contains("hunter2"));
    }

    #[test]
    fn properties_are_texts_however_they_are_written() {
        let text = "bootstrap_servers = [\"a:1\"]\n[properties]\n\"socket.keepalive.enable\" = true\nsecurity.protocol = \"SSL\"\n\"metadata.max.age.ms\" = 5";
        let (cluster, findings) = cluster(Path::new("/c"), text);
        assert_eq!(findings, Vec::<String>::new());
        let properties = &cluster.unwrap().config.properties;
        let values: Vec<_> = properties.iter().map(|(key, property)| (key.as_str(), property.value.as_str())).collect();
        let expected =
            [("metadata.max.age.ms", "5"), ("security.protocol", "SSL"), ("socket.keepalive.enable", "true")];
        assert_eq!(values, expected);
    }

    #[test]
    fn secrets_are_read_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("password");
        std::fs::write(&secret, "hunter2\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
        let text = "bootstrap_servers = [\"a:1\"]\n[properties]\n\"sasl.password_file\" = \"password\"";
        let (built, findings) = cluster(folder.path(), text);
        assert_eq!(findings, Vec::<String>::new());
        let config = built.unwrap().config;
        assert_eq!(config.properties["sasl.password"].value, "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));

        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (_, findings) = cluster(folder.path(), text);
        let expected =
            "DIR/f.toml:3:1: sasl.password_file: DIR/password can be read by everybody\n  hint: chmod o= DIR/password";
        assert_eq!(findings, [expected]);

        std::fs::write(&secret, "\n").unwrap();
        let (_, findings) = cluster(folder.path(), text);
        assert_eq!(
            findings,
            ["DIR/f.toml:3:1: sasl.password_file: DIR/password is empty\n  hint: write the secret into it"]
        );

        std::fs::remove_file(&secret).unwrap();
        let (built, findings) = cluster(folder.path(), text);
        let expected = "DIR/f.toml:3:1: sasl.password_file: cannot read DIR/password: there is no such file\n  hint: create it, or check the path";
        assert_eq!(findings, [expected]);
        assert_eq!(built.unwrap().unreadable.len(), 1);
    }
}
