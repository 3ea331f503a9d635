//! An HTTP/1.1 proxy in front of S3 that breaks requests on demand.
//!
//! It understands just enough of HTTP to see whole requests: head, `Content-Length`, body. Each request goes upstream
//! on a connection of its own, so that the end of the answer is the end of that connection. The `Host` header stays as
//! the client sent it, which is what the request's signature covers.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// It is answered with this status and never seen by S3.
    Status(u16),
    /// The connection is cut before anything reaches S3.
    CutBefore,
    /// S3 does it, and the connection is cut before the answer reaches the client.
    CutAfter,
    /// Nobody ever answers; the connection stays until the fault is changed.
    Hang,
    /// It passes, but this much later.
    Delay(Duration),
}

/// Which requests a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hits {
    /// All of them.
    All,
    /// Those with this method.
    Method(&'static str),
    /// PUTs of objects with records (`.avro`).
    DataPuts,
    /// Those of them that do not begin at offset 0.
    LaterDataPuts,
    /// PUTs of the records that say whose snapshot of a compacted topic is the newest.
    TermPuts,
    /// Those for the lifecycle document of a bucket.
    Lifecycle,
}

struct Shared {
    upstream: SocketAddr,
    rule: Mutex<(Fault, Hits)>,
    seen: Mutex<BTreeMap<String, u64>>,
    listed: Mutex<Vec<String>>,
    hit: Mutex<u64>,
    /// The lifecycle document, where the proxy keeps it itself.
    kept: Mutex<Option<Option<String>>>,
    closed: AtomicBool,
}

/// A running proxy; gone when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Proxy {
    /// Starts one in front of `upstream` (`http://host:port`).
    pub fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').parse().expect("host:port");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            rule: Mutex::new((Fault::Pass, Hits::All)),
            seen: Mutex::default(),
            listed: Mutex::default(),
            hit: Mutex::default(),
            kept: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if serving.closed.load(Ordering::Relaxed) {
                    return;
                }
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(client));
            }
        });
        Self { shared, address }
    }

    /// What clients use as endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on these requests meet this fault; hanging ones are cut.
    pub fn set(&self, fault: Fault, hits: Hits) {
        *self.shared.rule.lock().unwrap() = (fault, hits);
        *self.shared.hit.lock().unwrap() = 0;
    }

    /// From now on the proxy keeps the lifecycle document itself, byte for byte as it is sent, which the server does not.
    pub fn keep_lifecycle(&self, document: Option<&str>) {
        *self.shared.kept.lock().unwrap() = Some(document.map(str::to_owned));
    }

    /// The lifecycle document that it keeps.
    pub fn lifecycle(&self) -> Option<String> {
        self.shared.kept.lock().unwrap().clone().flatten()
    }

    /// How many requests have met the fault since it was set.
    pub fn hit(&self) -> u64 {
        *self.shared.hit.lock().unwrap()
    }

    /// Requests by method since the start.
    pub fn seen(&self, method: &str) -> u64 {
        self.shared.seen.lock().unwrap().get(method).copied().unwrap_or_default()
    }

    /// The targets of all requests for names since the start.
    pub fn listed(&self) -> Vec<String> {
        self.shared.listed.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.set(Fault::Pass, Hits::All);
        let _ = TcpStream::connect(self.address); // wakes the listener, so that it sees that it is over
    }
}

struct Request {
    method: String,
    target: String,
    /// Head without its `Connection` header and without the empty line.
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Shared {
    /// Serves one connection: one request, because every answer says `Connection: close`. Errors are the peers'
    /// business.
    fn serve(&self, client: TcpStream) {
        let _ = self.serve_request(&client);
        let _ = client.shutdown(Shutdown::Both);
    }

    fn serve_request(&self, client: &TcpStream) -> io::Result<()> {
        let Some(request) = Request::read(&mut BufReader::new(client))? else { return Ok(()) };
        *self.seen.lock().unwrap().entry(request.method.clone()).or_default() += 1;
        if request.target.contains("list-type=2") {
            self.listed.lock().unwrap().push(request.target.clone());
        }
        match self.fault_for(&request) {
            Fault::Pass if self.keeps(&request) => self.answer_lifecycle(&request, client),
            Fault::Pass => self.forward(&request, client),
            Fault::Status(code) => refuse(client, code, &request),
            Fault::CutBefore => Ok(()),
            Fault::CutAfter => self.forward(&request, io::sink()),
            Fault::Hang => {
                self.wait_for_another_rule();
                Ok(())
            }
            Fault::Delay(time) => {
                std::thread::sleep(time);
                self.forward(&request, client)
            }
        }
    }

    fn wait_for_another_rule(&self) {
        let rule = *self.rule.lock().unwrap();
        while *self.rule.lock().unwrap() == rule {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn fault_for(&self, request: &Request) -> Fault {
        let (fault, hits) = *self.rule.lock().unwrap();
        let path = request.target.split('?').next().unwrap_or_default();
        let (put, data) = (request.method == "PUT", path.ends_with(".avro"));
        let first = path.ends_with(&format!("-{:020}.avro", 0));
        let hit = fault != Fault::Pass
            && match hits {
                Hits::All => true,
                Hits::Method(method) => request.method == method,
                Hits::DataPuts => put && data,
                Hits::LaterDataPuts => put && data && !first,
                Hits::TermPuts => put && path.contains("/TERM-"),
                Hits::Lifecycle => request.is_lifecycle(),
            };
        if !hit {
            return Fault::Pass;
        }
        *self.hit.lock().unwrap() += 1;
        fault
    }

    fn keeps(&self, request: &Request) -> bool {
        request.is_lifecycle() && self.kept.lock().unwrap().is_some()
    }

    /// Does with the document what S3 does, but for reading it.
    fn answer_lifecycle(&self, request: &Request, client: impl Write) -> io::Result<()> {
        let mut kept = self.kept.lock().unwrap();
        match request.method.as_str() {
            "PUT" => {
                assert!(
                    request.head.to_ascii_lowercase().windows(12).any(|w| w == b"content-md5:"),
                    "S3 wants a Content-MD5"
                );
                *kept = Some(Some(String::from_utf8(request.body.clone()).map_err(io::Error::other)?));
                answer(client, "200 OK", "")
            }
            "DELETE" => {
                *kept = Some(None);
                answer(client, "204 No Content", "")
            }
            _ => match kept.as_ref().and_then(Option::as_ref) {
                Some(document) => answer(client, "200 OK", document),
                None => answer(client, "404 Not Found", "<Error><Code>NoSuchLifecycleConfiguration</Code></Error>"),
            },
        }
    }

    fn forward(&self, request: &Request, mut client: impl Write) -> io::Result<()> {
        let mut upstream = TcpStream::connect(self.upstream)?;
        upstream.write_all(&request.head)?;
        upstream.write_all(b"Connection: close\r\n\r\n")?;
        upstream.write_all(&request.body)?;
        io::copy(&mut upstream, &mut client)?;
        Ok(())
    }
}

fn answer(mut client: impl Write, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

impl Request {
    fn is_lifecycle(&self) -> bool {
        self.target.split_once('?').is_some_and(|(_, query)| query.starts_with("lifecycle"))
    }

    /// The next request; `None` when the client has closed the connection.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut request = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            head: first.clone().into_bytes(),
            body: Vec::new(),
        };
        let mut length = 0;
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line)?;
            if line == b"\r\n" || line.is_empty() {
                break;
            }
            let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
            if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            assert!(!text.starts_with("transfer-encoding:"), "the proxy does not speak chunked requests");
            if !text.starts_with("connection:") {
                request.head.extend_from_slice(&line);
            }
        }
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body)?;
        Ok(Some(request))
    }
}

/// Answers as S3 does when it refuses.
fn refuse(mut client: impl Write, status: u16, request: &Request) -> io::Result<()> {
    let code = match status {
        403 => "AccessDenied",
        503 => "SlowDown",
        _ => "InternalError",
    };
    let body =
        format!(r#"<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>fault</Message></Error>"#);
    write!(
        client,
        "HTTP/1.1 {status} Fault\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
        body.len(),
        if request.method == "HEAD" { "" } else { &body }
    )
}
