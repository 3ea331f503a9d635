//! Stores: buckets and folders, from tables and from URLs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{Map, Value, ValueKind};

use super::finding::{Complaint, Findings, Origin, Severity};
use super::kind;
use super::layers::{Layer, View, What};
use super::source::named;
use super::{Place, StorageConfig};
use crate::model::key::SYSTEM;

/// Keys that mean something for one type of store only.
const S3_ONLY: &[&str] = &["bucket", "region", "profile", "proxy_url", "endpoint", "path_style"];

/// Builds the store `name` from its table, which stands at `at`. `None`: it cannot be used, and the findings say why.
pub(super) fn build(
    name: &str,
    at: &Origin,
    table: &Map<String, Value>,
    findings: &mut Findings,
) -> Option<Arc<StorageConfig>> {
    let before = findings.0.len();
    let layer = Layer::sift(table, What::Storage, findings);
    let given: Vec<&str> = S3_ONLY.iter().chain(&["path"]).copied().filter(|key| layer.get(key).is_some()).collect();
    let view = View::new(What::Storage, Layer::merge([Layer::defaults(What::Storage), layer]));
    let is_file = view.text("type") == "file";
    for key in given.iter().filter(|key| (**key == "path") != is_file) {
        let (is, other) = if is_file { ("file", "s3") } else { ("s3", "file") };
        let complaint = Complaint::new(
            format!("means nothing for type = \"{is}\""),
            format!("remove it, or write type = \"{other}\""),
        );
        findings.semantics(&view.origin(key), key, complaint);
    }
    let place = if is_file { folder(&view, at, findings) } else { bucket(&view, at, findings) };
    let config = StorageConfig { name: name.to_owned(), place, single_writer: view.value("single_writer", kind::flag) };
    let fatal = findings.0[before..].iter().any(|finding| finding.severity == Severity::Error);
    (!fatal).then(|| Arc::new(config))
}

/// The effective values of a sound table.
pub(super) fn view(table: &Map<String, Value>) -> View {
    let mut layer =
        Layer::merge([Layer::defaults(What::Storage), Layer::sift(table, What::Storage, &mut Findings::default())]);
    if layer.get("type").is_some_and(|value| value.kind.to_string() == "file") {
        S3_ONLY.iter().for_each(|key| drop(layer.take(key)));
    }
    View::new(What::Storage, layer)
}

fn folder(view: &View, at: &Origin, findings: &mut Findings) -> Place {
    if view.maybe_text("path").is_none_or(str::is_empty) && !view.is_refused("path") {
        findings.semantics(at, "path", Complaint::new("is missing", "write path = \"/srv/kafka-backup\""));
    }
    let path = PathBuf::from(view.maybe_text("path").unwrap_or_default());
    Place::File { path, prefix: prefix(view, findings) }
}

fn bucket(view: &View, at: &Origin, findings: &mut Findings) -> Place {
    let bucket = view.maybe_text("bucket").unwrap_or_default().to_owned();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !view.given("bucket") || (bucket.is_empty() && !view.is_refused("bucket")) {
        findings.semantics(at, "bucket", Complaint::new("is missing", "write bucket = \"NAME\""));
    } else if bucket.contains('@') {
        // What stands in front of it may be a key, and is not repeated.
        let remedy = "remove user and password: credentials come from the AWS default chain";
        let complaint = Complaint::new("a secret may not stand in a configuration or a URL", remedy);
        findings.syntax(&view.origin("bucket"), "bucket", complaint);
    } else if !bucket.chars().all(allowed) {
        let remedy = "write the name alone; folders go into prefix, the server into endpoint";
        let complaint = Complaint::new(format!("{bucket:?} is not the name of a bucket"), remedy);
        findings.syntax(&view.origin("bucket"), "bucket", complaint);
    }
    let mut optional = |key: &str, judge: fn(&str) -> Result<(), Complaint>| {
        let text = view.maybe_text(key).filter(|text| !text.is_empty())?;
        if let Err(complaint) = judge(text) {
            findings.syntax(&view.origin(key), key, complaint);
        }
        Some(text.to_owned())
    };
    Place::S3 {
        bucket,
        region: optional("region", |_| Ok(())),
        profile: optional("profile", |_| Ok(())),
        proxy_url: optional("proxy_url", |url| server(url, &["http://"])),
        endpoint: optional("endpoint", |url| server(url, &["http://", "https://"])),
        path_style: view.value("path_style", kind::flag),
        prefix: prefix(view, findings),
    }
}

/// Checks the URL of a server.
fn server(url: &str, schemes: &[&str]) -> Result<(), Complaint> {
    let example = format!("write for example \"{}host:port\"", schemes[0]);
    let Some(rest) = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        return Err(Complaint::new(format!("does not begin with {}", schemes.join(" or ")), example));
    };
    if rest.contains('@') {
        return Err(Complaint::new("a secret may not stand in a configuration file", "remove user and password"));
    }
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || rest.contains(|c: char| c.is_whitespace() || c == '?' || c == '#') {
        return Err(Complaint::new(format!("{url:?} is not the URL of a server"), example));
    }
    Ok(())
}

/// The prefix without slashes at its ends.
fn prefix(view: &View, findings: &mut Findings) -> String {
    let text = view.text("prefix");
    let prefix = text.trim_matches('/');
    let sound = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    if !prefix.is_empty() && !prefix.split('/').all(sound) {
        let remedy = "write folders separated by single slashes, none of them \".\" or \"..\"";
        findings.syntax(&view.origin("prefix"), "prefix", Complaint::new(format!("{text:?} is not a prefix"), remedy));
    } else if prefix.split('/').any(|part| part == SYSTEM) {
        let what = format!("{SYSTEM:?} is where the backup keeps its own records");
        findings.syntax(&view.origin("prefix"), "prefix", Complaint::new(what, "choose another folder"));
    }
    prefix.to_owned()
}

/// A store given as `s3://bucket/prefix?endpoint=..&region=..&path_style=true&profile=..` or `file:///path`. `at` is
/// where the URL was given.
pub(super) fn from_url(url: &str, at: &Origin, findings: &mut Findings) -> Option<Arc<StorageConfig>> {
    match url_table(url, &at.to_string()) {
        Ok(table) => build(url, at, &table, findings),
        Err(complaint) => {
            findings.syntax(at, "", complaint);
            None
        }
    }
}

fn url_table(url: &str, at: &str) -> Result<Map<String, Value>, Complaint> {
    let mut table = Map::new();
    let mut set = |key: &str, kind: ValueKind| table.insert(key.to_owned(), named(at, kind));
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    if let Some(path) = place.strip_prefix("file://") {
        set("type", "file".into());
        set("path", unescape(path)?.into());
    } else if let Some(place) = place.strip_prefix("s3://") {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        set("bucket", bucket.into());
        set("prefix", unescape(prefix)?.into());
    } else {
        let remedy = "write s3://BUCKET/PREFIX?endpoint=URL&region=R, file:///PATH, or a name from the main file";
        return Err(Complaint::new(format!("{place:?} is not the URL of a store"), remedy));
    }
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        match unescape(value)?.as_str() {
            flag @ ("true" | "false") => set(key, ValueKind::Boolean(flag == "true")),
            text => set(key, text.into()),
        };
    }
    Ok(table)
}

/// Undoes `%20`.
fn unescape(text: &str) -> Result<String, Complaint> {
    let refused = || Complaint::new(format!("{text:?} is not written as in a URL"), "write % as %25");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(refused)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| refused())?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| refused())
}

/// Whether both are in one bucket, under whatever prefix.
pub(super) fn same_bucket(a: &StorageConfig, b: &StorageConfig) -> bool {
    match (&a.place, &b.place) {
        (Place::S3 { bucket: a, endpoint: ea, .. }, Place::S3 { bucket: b, endpoint: eb, .. }) => a == b && ea == eb,
        _ => false,
    }
}

/// Whether two stores would write to the same names.
pub(super) fn same_place(a: &StorageConfig, b: &StorageConfig) -> bool {
    match (&a.place, &b.place) {
        (
            Place::S3 { bucket: a, prefix: pa, endpoint: ea, .. },
            Place::S3 { bucket: b, prefix: pb, endpoint: eb, .. },
        ) => a == b && pa == pb && ea == eb,
        (Place::File { path: a, prefix: pa }, Place::File { path: b, prefix: pb }) => a.join(pa) == b.join(pb),
        _ => false,
    }
}

/// Where `inner` lies within `outer`, as `FOLDER` or `FOLDER/...`; `None` when it does not, or is the same place.
pub(super) fn within(inner: &StorageConfig, outer: &StorageConfig) -> Option<String> {
    let rest = match (&inner.place, &outer.place) {
        (
            Place::S3 { bucket: a, prefix: pa, endpoint: ea, .. },
            Place::S3 { bucket: b, prefix: pb, endpoint: eb, .. },
        ) if a == b && ea == eb => Path::new(pa).strip_prefix(pb).ok()?.to_owned(),
        (Place::File { path: a, prefix: pa }, Place::File { path: b, prefix: pb }) => {
            a.join(pa).strip_prefix(b.join(pb)).ok()?.to_owned()
        }
        _ => return None,
    };
    Some(rest.to_string_lossy().into_owned()).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::source::parse;

    fn store(text: &str) -> (Option<Arc<StorageConfig>>, Vec<String>) {
        let mut findings = Findings::default();
        let table = parse(Path::new("/d/f.toml"), text.to_owned(), &mut findings).unwrap();
        let store = build("main", &Origin::file(Path::new("/d/f.toml")), &table, &mut findings);
        (store, findings.sorted().iter().map(ToString::to_string).collect())
    }

    #[rstest]
    #[case("", "/d/f.toml: bucket: is missing\n  hint: write bucket = \"NAME\"")]
    #[case("bucket = \"\"", "/d/f.toml: bucket: is missing\n  hint: write bucket = \"NAME\"")]
    #[case(
        "bucket = 5",
        "/d/f.toml:1:1: bucket: must be a text, not a whole number\n  hint: write it in quotes: \"...\""
    )]
    #[case(
        "bucket = \"s3://a/b\"",
        "/d/f.toml:1:1: bucket: \"s3://a/b\" is not the name of a bucket\n  hint: write the name alone; folders go into prefix, the server into endpoint"
    )]
    #[case("type = \"file\"", "/d/f.toml: path: is missing\n  hint: write path = \"/srv/kafka-backup\"")]
    #[case(
        "bucket = \"b\"\npath = \"/x\"",
        "/d/f.toml:2:1: path: means nothing for type = \"s3\"\n  hint: remove it, or write type = \"file\""
    )]
    #[case(
        "type = \"file\"\npath = \"/x\"\nregion = \"r\"",
        "/d/f.toml:3:1: region: means nothing for type = \"file\"\n  hint: remove it, or write type = \"s3\""
    )]
    #[case(
        "bucket = \"b\"\nendpoint = \"s3.example.com\"",
        "/d/f.toml:2:1: endpoint: does not begin with http:// or https://\n  hint: write for example \"http://host:port\""
    )]
    #[case(
        "bucket = \"b\"\nproxy_url = \"http://u:p@h:1\"",
        "/d/f.toml:2:1: proxy_url: a secret may not stand in a configuration file\n  hint: remove user and password"
    )]
    #[case(
        "bucket = \"b\"\nprefix = \"a//b\"",
        "/d/f.toml:2:1: prefix: \"a//b\" is not a prefix\n  hint: write folders separated by single slashes, none of them \".\" or \"..\""
    )]
    #[case(
        "bucket = \"b\"\nprefix = \"../b\"",
        "/d/f.toml:2:1: prefix: \"../b\" is not a prefix\n  hint: write folders separated by single slashes, none of them \".\" or \"..\""
    )]
    #[case(
        "bucket = \"b\"\nprefix = \"_kafka_backup/x\"",
        "/d/f.toml:2:1: prefix: \"_kafka_backup\" is where the backup keeps its own records\n  hint: choose another folder"
    )]
    #[case(
        "bucket = \"b\"\ntype = \"gcs\"",
        "/d/f.toml:2:1: type: \"gcs\" is not a choice\n  hint: choose one of \"s3\", \"file\""
    )]
    #[case(
        "bucket = \"b\"\nsecret_key = \"x\"",
        "/d/f.toml:2:1: secret_key: unknown key of a store\n  hint: the keys are type, bucket, prefix, region, profile, proxy_url, endpoint, path_style, path, single_writer"
    )]
    fn broken_stores(#[case] text: &str, #[case] expected: &str) {
        let (store, findings) = store(text);
        assert!(store.is_none());
        assert_eq!(findings, [expected]);
    }

    #[test]
    fn prefixes_lose_their_outer_slashes_and_paths_are_relative_to_the_file() {
        let (built, _) = store("bucket = \"b\"\nprefix = \"/a/b/\"");
        assert!(matches!(&built.unwrap().place, Place::S3 { prefix, .. } if prefix == "a/b"));
        let (built, _) = store("type = \"file\"\npath = \"x\"");
        assert!(matches!(&built.unwrap().place, Place::File { path, .. } if path == Path::new("/d/x")));
    }

    #[test]
    fn a_url_says_the_same_as_a_table() {
        let mut findings = Findings::default();
        let url = "s3://b/a/c%20d?endpoint=http://h:1&region=r&path_style=true&profile=p&single_writer=true";
        let store = from_url(url, &Origin::Named("--storage".into()), &mut findings).unwrap();
        let place = Place::S3 {
            bucket: "b".into(),
            prefix: "a/c d".into(),
            region: Some("r".into()),
            profile: Some("p".into()),
            proxy_url: None,
            endpoint: Some("http://h:1".into()),
            path_style: true,
        };
        assert_eq!(*store, StorageConfig { name: url.into(), place, single_writer: true });
        let store = from_url("file:///srv/x", &Origin::Named("--storage".into()), &mut findings).unwrap();
        assert_eq!(store.place, Place::File { path: "/srv/x".into(), prefix: String::new() });
    }

    #[rstest]
    #[case(
        "gs://b",
        "--storage: \"gs://b\" is not the URL of a store\n  hint: write s3://BUCKET/PREFIX?endpoint=URL&region=R, file:///PATH, or a name from the main file"
    )]
    #[case("s3://b?regin=x", "--storage: regin: unknown key of a store\n  hint: did you mean region?")]
    #[case(
        "s3://AKIA:hunter2@b/x",
        "--storage: bucket: a secret may not stand in a configuration or a URL\n  hint: remove user and password: credentials come from the AWS default chain"
    )]
    #[case("s3:///x", "--storage: bucket: is missing\n  hint: write bucket = \"NAME\"")]
    #[case("s3://b/%zz", "--storage: \"%zz\" is not written as in a URL\n  hint: write % as %25")]
    fn broken_urls(#[case] url: &str, #[case] expected: &str) {
        let mut findings = Findings::default();
        assert!(from_url(url, &Origin::Named("--storage".into()), &mut findings).is_none());
        assert_eq!(findings.sorted().iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }
}
