use rstest::rstest;

use super::*;
use crate::model::avro::{Codec, SYNC_BYTES, write_header};

fn folder() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("backup");
    let folder = Folder { root, flushed: Arc::default() };
    folder.make(&folder.root).unwrap();
    (dir, folder)
}

#[rstest]
#[case("../x")]
#[case("/etc/passwd")]
#[case("a//b")]
#[case("a/./b")]
#[case("a/.~b")]
#[case("")]
fn keys_that_are_no_file_names_are_refused(#[case] key: &str) {
    let (_dir, folder) = folder();
    assert_eq!(folder.create(key, &Body::from("x"), None).unwrap_err().kind, Kind::Other);
    assert_eq!(folder.list(key, "", 10).unwrap(), Page::default());
}

#[test]
fn a_body_with_another_hash_than_it_says_leaves_nothing() {
    let (_dir, folder) = folder();
    assert_eq!(folder.create("a/b", &Body::from("x"), Some("00")).unwrap_err().kind, Kind::Other);
    assert_eq!(fs::read_dir(folder.root.join("a")).unwrap().count(), 0);
}

#[test]
fn temporary_files_are_not_listed_and_removed_when_old() {
    let (_dir, folder) = folder();
    folder.create("a/b", &Body::from("x"), None).unwrap();
    let temporary = folder.root.join("a/.~left");
    fs::write(&temporary, "half").unwrap();
    assert_eq!(folder.list("", "", 10).unwrap().entries.len(), 1);
    folder.remove_abandoned(&folder.root, SystemTime::now());
    assert!(temporary.exists());
    folder.remove_abandoned(&folder.root, SystemTime::now() + ABANDONED * 2);
    assert!(!temporary.exists() && folder.root.join("a/b").exists());
}

#[test]
fn a_missing_root_is_no_empty_store() {
    let (_dir, folder) = folder();
    fs::remove_dir_all(&folder.root).unwrap();
    for failed in [
        folder.list("", "", 10).unwrap_err(),
        folder.head("a").unwrap_err(),
        folder.create("a", &Body::from("x"), None).unwrap_err(),
        folder.delete("a").unwrap_err(),
    ] {
        assert_eq!(folder.explain(failed).kind, Kind::NoBucket);
    }
}

#[rstest]
#[case(io::ErrorKind::StorageFull, Kind::Disk)]
#[case(io::ErrorKind::QuotaExceeded, Kind::Disk)]
#[case(io::ErrorKind::PermissionDenied, Kind::Auth)]
#[case(io::ErrorKind::InvalidData, Kind::Other)]
fn kinds_of_io_errors(#[case] error: io::ErrorKind, #[case] kind: Kind) {
    assert_eq!(Failed::from(io::Error::from(error)).kind, kind);
}

/// Most headers fit into what is read first; what cannot be read says nothing.
#[rstest]
#[case::short(100)]
#[case::long(HEADER_BYTES[0] as usize)]
#[case::too_long(HEADER_BYTES[1] as usize)]
fn the_metadata_of_an_object_stands_in_its_header(#[case] bytes: usize) {
    let (_dir, folder) = folder();
    let metadata = Metadata::from([("job".to_owned(), "x".repeat(bytes))]);
    let header = write_header(Codec::Null, &[7; SYNC_BYTES], &metadata);
    folder.create("t/0/a.avro", &Body::from(header.clone()), None).unwrap();
    let expected = if bytes < MAX_HEADER_BYTES { metadata } else { Metadata::new() };
    assert_eq!(folder.head("t/0/a.avro").unwrap().metadata, expected);
    folder.create("t/0/b.avro", &Body::from(header[..header.len() - 1].to_vec()), None).unwrap();
    assert_eq!(folder.head("t/0/b.avro").unwrap().metadata, Metadata::new(), "cut off");
}
