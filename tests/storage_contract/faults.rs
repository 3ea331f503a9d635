//! Faults between us and the server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use kafka_backup::storage::{Body, Create, Kind, Piece};
use rstest::rstest;

use super::*;

/// What the proxy does with the connections it gets.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    /// Closes a connection before anything of the request went on.
    CutBefore,
    /// Passes the request on, waits for the answer and closes the connection instead of passing it back.
    CutAfter,
    /// Passes nothing on and answers nothing.
    Hang,
    /// Changes a byte of the body on its way.
    Corrupt,
}

/// A TCP proxy in front of the server.
struct Between {
    endpoint: String,
    mode: Arc<Mutex<Mode>>,
    connections: Arc<AtomicU64>,
}

impl Between {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let between = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            mode: Arc::new(Mutex::new(Mode::Pass)),
            connections: Arc::default(),
        };
        let (mode, connections) = (between.mode.clone(), between.connections.clone());
        let server = s3_endpoint().trim_start_matches("http://").to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::Relaxed);
                let (server, mode) = (TcpStream::connect(&server).unwrap(), *mode.lock().unwrap());
                std::thread::spawn(move || pass(client, server, mode));
            }
        });
        between
    }

    /// A store behind the proxy, which has no connection yet, so that `mode` holds for its next one.
    fn store(&self, mode: Mode, prefix: &str) -> S3Store {
        *self.mode.lock().unwrap() = mode;
        s3_at(self.endpoint.clone(), shared_bucket(), prefix)
    }
}

fn pass(mut client: TcpStream, mut server: TcpStream, mode: Mode) {
    match mode {
        Mode::CutBefore => return,
        Mode::Hang => return std::thread::sleep(Duration::from_secs(30)),
        Mode::Pass | Mode::CutAfter | Mode::Corrupt => {}
    }
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let (mut buffer, mut total) = ([0; 4096], 0);
        while let Ok(n @ 1..) = from_client.read(&mut buffer) {
            // The head is shorter than this, and the body of the test that wants it much longer.
            if mode == Mode::Corrupt && (total..total + n).contains(&100_000) {
                buffer[100_000 - total] ^= 1;
            }
            total += n;
            if to_server.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        if mode == Mode::CutAfter || client.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// What a create says when something goes wrong on the way, how often it was sent, and what is there afterwards.
#[rstest]
#[case::nothing(Mode::Pass, Ok(Create::Created), true)]
#[case::cut_before(Mode::CutBefore, Err(Kind::Unavailable), false)]
#[case::lost_acknowledgement(Mode::CutAfter, Err(Kind::Unavailable), true)]
#[case::hang(Mode::Hang, Err(Kind::Timeout), false)]
#[case::corrupted(Mode::Corrupt, Err(Kind::Unavailable), false)]
fn create_on_a_bad_way(#[case] mode: Mode, #[case] expected: Result<Create, Kind>, #[case] stored: bool) {
    let (between, prefix) = (Between::new(), unique("fault"));
    let body = Body::from(vec![1_u8; 2_000_000]);
    let created = block_on(between.store(mode, &prefix).create("k", &body, &none()));
    assert_eq!(created.clone().map_err(|e| e.kind), expected, "{created:?}");
    assert_eq!(between.connections.load(Ordering::Relaxed), 1);
    let store = between.store(Mode::Pass, &prefix);
    assert_eq!(block_on(store.head("k")).unwrap().map(|head| head.size), stored.then_some(2_000_000));
    let again = if stored { Create::Exists } else { Create::Created };
    assert_eq!(block_on(store.create("k", &body, &none())).unwrap(), again);
}

/// Connections are kept and used again.
#[test]
fn one_connection_serves_many_requests() {
    let between = Between::new();
    let store = between.store(Mode::Pass, &unique("reuse"));
    block_on(async {
        for n in 0..10 {
            store.create(&format!("k{n}"), &Body::from("x"), &none()).await.unwrap();
            store.head(&format!("k{n}")).await.unwrap();
        }
    });
    assert_eq!(between.connections.load(Ordering::Relaxed), 1);
}

/// Of a body that cannot be read to its end nothing is stored.
#[test]
fn a_spool_file_that_shrank_stores_nothing() {
    let at = s3();
    let spool = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(spool.path(), vec![1; 600_000]).unwrap();
    let mut body = Body::from("start");
    body.push(Piece::File { path: Arc::new(spool.path().to_owned()), range: 0..700_000 });
    let known = Metadata::from([("sha256".to_owned(), "0".repeat(64))]);
    block_on(async {
        let error = at.store.create("k", &body, &known).await.unwrap_err();
        assert_eq!(error.kind, Kind::Other, "{error}");
        assert_eq!(at.store.head("k").await.unwrap(), None);
    });
}
