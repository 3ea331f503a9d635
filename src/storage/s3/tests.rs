//! The store against a hand-made server that answers as scripted and remembers what it was asked.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use rstest::rstest;
use tokio::runtime::Runtime;

use super::*;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Then {
    /// Answers: status, further headers, body.
    Answer(&'static str, &'static str, &'static str),
    /// Closes the connection without an answer.
    Cut,
    /// Never answers.
    Hang,
    /// Sends half of an answer and closes the connection.
    Half,
}
use Then::{Answer, Cut, Half, Hang};

const STORED: Then = Answer("200 OK", "etag: \"e\"\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "");

/// A server on a port of its own. A script that has run out answers "500".
struct Server {
    url: String,
    script: Arc<Mutex<VecDeque<Then>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(script: &[Then]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            script: Arc::new(Mutex::new(script.iter().copied().collect())),
            requests: Arc::default(),
        };
        let (script, requests) = (server.script.clone(), server.requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, requests) = (script.clone(), requests.clone());
                std::thread::spawn(move || serve(stream, &script, &requests));
            }
        });
        server
    }

    fn store(&self) -> S3Store {
        open(|place| *place = s3("b", "", Some(&self.url), None))
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, script: &Mutex<VecDeque<Then>>, requests: &Mutex<Vec<String>>) {
    while let Some(request) = read_request(&mut stream) {
        let head = request.starts_with("HEAD");
        requests.lock().unwrap().push(request);
        let then = script.lock().unwrap().pop_front().unwrap_or(Answer("500 Script Over", "", ""));
        let answer = match then {
            Answer(status, headers, body) => {
                let body = if head { "" } else { body };
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
            }
            Half => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\netag: \"e\"\r\n\r\n<half".to_owned(),
            Cut => return,
            Hang => return std::thread::sleep(Duration::from_secs(60)),
        };
        stream.write_all(answer.as_bytes()).unwrap();
        if matches!(then, Half) {
            return;
        }
    }
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let mut request = String::from_utf8(bytes).unwrap();
    let length = request.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    request.push_str(&String::from_utf8_lossy(&body));
    Some(request)
}

fn s3(bucket: &str, prefix: &str, endpoint: Option<&str>, proxy: Option<&str>) -> Place {
    Place::S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        region: Some("eu-central-1".to_owned()),
        profile: None,
        proxy_url: proxy.map(str::to_owned),
        endpoint: endpoint.map(str::to_owned),
        path_style: proxy.is_none(),
    }
}

fn open(change: impl FnOnce(&mut Place)) -> S3Store {
    try_open(change).unwrap()
}

fn try_open(change: impl FnOnce(&mut Place)) -> Result<S3Store, StoreError> {
    let mut config = StorageConfig { name: "test".to_owned(), place: s3("b", "", None, None), single_writer: false };
    change(&mut config.place);
    let limits = Limits { connect: Duration::from_secs(2), silence: Duration::from_millis(300), ..Limits::default() };
    let options = Options { limits, credentials: Some(("AKID".to_owned(), "SECRETSECRET".to_owned())) };
    S3Store::open_with(&config, options, RUNTIME.handle().clone())
}

fn create(store: &S3Store) -> Result<Create, StoreError> {
    block_on(store.create("t/0/t-0-1.avro", &Body::from("bytes"), &Metadata::new()))
}

/// Waits on this thread, outside of any runtime, which must work.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

const DENIED: Then = Answer("403 Forbidden", "", "<Error><Code>AccessDenied</Code><Message>no</Message></Error>");
const EXPIRED: Then = Answer("400 Bad Request", "", "<Error><Code>ExpiredToken</Code></Error>");
const SLOW_DOWN: Then = Answer("503 Slow Down", "", "<Error><Code>SlowDown</Code></Error>");

/// A create is sent once and only once, but for refused credentials, which are loaded anew and tried once more.
#[rstest]
#[case::created(&[STORED], Ok(Create::Created), 1)]
#[case::exists(&[Answer("412 Precondition Failed", "", "")], Ok(Create::Exists), 1)]
#[case::conflict(&[Answer("409 Conflict", "", "")], Err(Kind::Conflict), 1)]
#[case::slow_down(&[SLOW_DOWN], Err(Kind::Throttle), 1)]
#[case::unavailable(&[Answer("503 Service Unavailable", "", "")], Err(Kind::Unavailable), 1)]
#[case::server_error(&[Answer("500 Oops", "", "")], Err(Kind::Unavailable), 1)]
#[case::no_bucket(&[Answer("404 Not Found", "", "<Error><Code>NoSuchBucket</Code></Error>")], Err(Kind::NoBucket), 1)]
#[case::refused(&[DENIED, DENIED], Err(Kind::Auth), 2)]
#[case::refused_then_stored(&[DENIED, STORED], Ok(Create::Created), 2)]
#[case::expired_then_stored(&[EXPIRED, STORED], Ok(Create::Created), 2)]
#[case::lost_acknowledgement(&[Cut], Err(Kind::Unavailable), 1)]
#[case::half_an_answer(&[Half], Err(Kind::Unavailable), 1)]
#[case::hang(&[Hang], Err(Kind::Timeout), 1)]
#[case::no_s3(&[Answer("200 OK", "", "<html>please log in</html>")], Err(Kind::Unavailable), 1)]
fn create_outcomes(#[case] script: &[Then], #[case] expected: Result<Create, Kind>, #[case] requests: usize) {
    let server = Server::new(script);
    assert_eq!(create(&server.store()).map_err(|e| e.kind), expected);
    assert_eq!(server.requests().len(), requests);
}

#[test]
fn a_create_says_what_it_is() {
    let server = Server::new(&[STORED]);
    let metadata = Metadata::from([("records".to_owned(), "7".to_owned())]);
    block_on(server.store().create("t/0/x.avro", &Body::from("bytes"), &metadata)).unwrap();
    let request = server.requests().remove(0);
    for part in [
        "PUT /b/t/0/x.avro HTTP/1.1",
        "if-none-match: *",
        "content-type: application/avro",
        "content-length: 5",
        "x-amz-meta-records: 7",
        "x-amz-content-sha256: 277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9",
        "\r\n\r\nbytes",
    ] {
        assert!(request.contains(part), "{part} is not in {request}");
    }
}

/// Calls that change nothing survive a connection that the server had given up.
#[rstest]
#[case::once(&[Cut, STORED], Ok(true), 2)]
#[case::twice(&[Cut, Cut], Err(Kind::Unavailable), 2)]
#[case::without_a_time(&[Answer("200 OK", "etag: \"e\"\r\n", "")], Err(Kind::Unavailable), 1)]
#[case::missing(&[Answer("404 Not Found", "", ""), STORED], Ok(false), 2)]
#[case::no_bucket(&[Answer("404 Not Found", "", ""), Answer("404 Not Found", "", "")], Err(Kind::NoBucket), 2)]
#[case::unknown_bucket(&[Answer("404 Not Found", "", ""), SLOW_DOWN], Err(Kind::Unavailable), 2)]
#[case::refused_is_not_missing(&[DENIED, DENIED], Err(Kind::Auth), 2)]
#[case::failure_is_not_missing(&[Answer("500 Oops", "", "")], Err(Kind::Unavailable), 1)]
#[case::hang(&[Hang], Err(Kind::Timeout), 1)]
fn head_outcomes(#[case] script: &[Then], #[case] expected: Result<bool, Kind>, #[case] requests: usize) {
    let server = Server::new(script);
    let found = block_on(server.store().head("k"));
    assert_eq!(found.map(|head| head.is_some()).map_err(|e| e.kind), expected);
    assert_eq!(server.requests().len(), requests);
}

#[rstest]
#[case::missing(&[Answer("404 Not Found", "", "<Error><Code>NoSuchKey</Code></Error>")], Ok(None))]
#[case::no_bucket(&[Answer("404 Not Found", "", "<Error><Code>NoSuchBucket</Code></Error>")], Err(Kind::NoBucket))]
#[case::half(&[Half, Half], Err(Kind::Unavailable))]
#[case::whole(&[Answer("200 OK", "etag: \"e\"\r\n", "text")], Ok(Some("text")))]
fn get_outcomes(#[case] script: &[Then], #[case] expected: Result<Option<&str>, Kind>) {
    let got = block_on(Server::new(script).store().get("k")).map_err(|e| e.kind);
    assert_eq!(
        got.map(|bytes| bytes.map(|b| String::from_utf8(b.to_vec()).unwrap())),
        expected.map(|t| t.map(Into::into))
    );
}

/// An answer that is no listing must not read as "nothing there".
#[rstest]
#[case::empty("")]
#[case::page("<html><body>hello</body></html>")]
#[case::no_xml("hello")]
#[case::unfinished("<ListBucketResult><IsTruncated>false</IsTruncated>")]
fn a_listing_is_a_listing(#[case] body: &'static str) {
    let server = Server::new(&[Answer("200 OK", "", body)]);
    let error = block_on(server.store().list("", None, 10)).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
}

#[test]
fn errors_name_the_call_and_no_secret() {
    let server = Server::new(&[DENIED, DENIED]);
    let error = create(&server.store()).unwrap_err();
    assert_eq!(error.to_string(), "create s3://b/t/0/t-0-1.avro: 403 AccessDenied: no");
    let request = server.requests().remove(0);
    assert!(request.contains("Credential=AKID/") && !request.contains("SECRETSECRET"));
}

#[test]
fn nobody_listens() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = open(|place| *place = s3("b", "", Some(&format!("http://{unused}")), None));
    assert_eq!(create(&store).unwrap_err().kind, Kind::Unavailable);
}

#[test]
fn a_spool_file_that_vanished_is_named() {
    let server = Server::new(&[STORED]);
    let mut body = Body::from("x");
    body.push(crate::storage::Piece::File { path: Arc::new("/nowhere/spool-1".into()), range: 0..10 });
    let metadata = Metadata::from([("sha256".to_owned(), "00".to_owned())]);
    let error = block_on(server.store().create("k", &body, &metadata)).unwrap_err();
    assert_eq!(error.kind, Kind::Other);
    assert!(error.message.contains("/nowhere/spool-1"), "{error}");
}

/// Through a proxy, `http` is asked for with the whole URL; here also the bucket in the host name.
#[test]
fn plain_requests_go_to_the_proxy_with_their_url() {
    let proxy = Server::new(&[STORED]);
    let store = open(|place| *place = s3("b", "p", Some("http://s3.example.test:81/"), Some(&proxy.url)));
    assert_eq!(create(&store).unwrap(), Create::Created);
    let request = proxy.requests().remove(0);
    assert!(request.starts_with("PUT http://b.s3.example.test:81/p/t/0/t-0-1.avro HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: b.s3.example.test:81\r\n"), "{request}");
}

/// Through a proxy, TLS is spoken to the server itself, in a tunnel.
#[test]
fn tls_goes_through_a_tunnel() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let seen = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let request = read_request(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
        let mut hello = vec![0; 5];
        stream.read_exact(&mut hello).unwrap();
        let mut rest = vec![0; u16::from_be_bytes([hello[3], hello[4]]).into()];
        stream.read_exact(&mut rest).unwrap();
        (request, hello, String::from_utf8_lossy(&rest).into_owned())
    });
    let store = open(|place| *place = s3("b", "", None, Some(&proxy)));
    assert_eq!(create(&store).unwrap_err().kind, Kind::Unavailable);
    let (request, hello, rest) = seen.join().unwrap();
    assert!(request.starts_with("CONNECT b.s3.eu-central-1.amazonaws.com:443 HTTP/1.1\r\n"), "{request}");
    assert_eq!(hello[0], 0x16, "a TLS handshake");
    assert!(rest.contains("b.s3.eu-central-1.amazonaws.com"), "the server's name, not the proxy's");
}

#[test]
fn a_proxy_that_refuses_is_named() {
    let proxy = Server::new(&[Answer("407 Proxy Authentication Required", "", "")]);
    let error = create(&open(|place| *place = s3("b", "", None, Some(&proxy.url)))).unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains(&proxy.url) && error.message.contains("407"), "{error}");
}

#[rstest]
#[case::no_scheme(Some("s3.example.com"), None)]
#[case::scheme(Some("ftp://s3.example.com"), None)]
#[case::tls_proxy(None, Some("https://proxy:3128"))]
#[case::password(None, Some("http://user:hunter2@proxy:3128"))]
fn unusable_urls_are_refused(#[case] endpoint: Option<&str>, #[case] proxy: Option<&str>) {
    let Err(error) = try_open(|place| *place = s3("b", "", endpoint, proxy)) else { panic!("accepted") };
    assert!(!error.to_string().contains("hunter2"));
}

#[rstest]
#[case("Name", "x")]
#[case("a_b", "x")]
#[case("name", "")]
#[case("name", "ü")]
#[case("name", "a  b")]
#[case("name", " a")]
#[case("name", "a\nb")]
fn metadata_that_would_not_come_back_is_refused(#[case] name: &str, #[case] value: &str) {
    assert!(check_metadata(&Metadata::from([(name.to_owned(), value.to_owned())])).is_err());
}

#[test]
fn ordinary_metadata_is_accepted() {
    let metadata = Metadata::from([("max-timestamp".to_owned(), "a b/c=+;\"~".to_owned())]);
    assert_eq!(check_metadata(&metadata), Ok(()));
}

// ---- the AWS default chain: each case in a process of its own, which may have an environment of its own -------------

/// The process under test: one create, without fixed credentials.
#[test]
#[ignore = "started by the tests below"]
fn chain_process() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::stderr).init();
    tracing::trace!("the log is on");
    let mut config = StorageConfig { name: "test".to_owned(), place: s3("b", "", None, None), single_writer: false };
    let endpoint = std::env::var("TEST_ENDPOINT").unwrap();
    let profile = std::env::var("TEST_PROFILE").ok();
    config.place = Place::S3 {
        bucket: "b".to_owned(),
        prefix: String::new(),
        region: None,
        profile,
        proxy_url: None,
        endpoint: Some(endpoint),
        path_style: true,
    };
    let result = create(&S3Store::open(&config, RUNTIME.handle().clone()).unwrap());
    println!("RESULT {:?}", result.map_err(|e| (e.kind, e.message)));
}

/// Runs [`chain_process`] and returns what came of it. Whatever is secret in these tests begins with `hidden-`, and
/// nothing of it may appear, however much is logged.
fn chain(server: &Server, env: &[(&str, &str)]) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "storage::s3::tests::chain_process", "--ignored", "--nocapture"]);
    command.env_clear().env("TEST_ENDPOINT", &server.url).envs(env.iter().copied());
    let output = command.output().unwrap();
    let (text, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let leak = text.lines().chain(log.lines()).find(|line| line.contains("hidden-"));
    assert_eq!(leak, None);
    assert!(log.contains("the log is on"));
    let start = text.find("RESULT ").unwrap_or_else(|| panic!("{text}"));
    text[start + 7..].lines().next().unwrap().to_owned()
}

const NO_METADATA: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

#[test]
fn credentials_from_the_environment() {
    let server = Server::new(&[STORED]);
    let env = [
        ("AWS_ACCESS_KEY_ID", "ENVKEY"),
        ("AWS_SECRET_ACCESS_KEY", "hidden-1"),
        ("AWS_SESSION_TOKEN", "hidden-2"),
        ("AWS_REGION", "eu-north-1"),
    ];
    assert_eq!(chain(&server, &env), "Ok(Created)");
    let request = server.requests().remove(0);
    assert!(request.contains("Credential=ENVKEY/") && request.contains("/eu-north-1/s3/"), "{request}");
    assert!(request.contains("x-amz-security-token: hidden-2"), "{request}");
}

#[test]
fn credentials_of_a_profile_and_of_a_process() {
    let server = Server::new(&[STORED, STORED]);
    let dir = tempfile::tempdir().unwrap();
    let (secrets, config) = (dir.path().join("credentials"), dir.path().join("config"));
    std::fs::write(&secrets, "[backup]\naws_access_key_id = PROFILEKEY\naws_secret_access_key = hidden-3\n").unwrap();
    let process =
        r#"{"Version": 1, "AccessKeyId": "PROCESSKEY", "SecretAccessKey": "hidden-4", "SessionToken": "hidden-5"}"#;
    std::fs::write(dir.path().join("answer"), process).unwrap();
    let program = format!("/bin/cat {}", dir.path().join("answer").display());
    let text = format!("[profile backup]\nregion = eu-west-3\n[profile other]\ncredential_process = {program}\n");
    std::fs::write(&config, text).unwrap();
    let env = |profile| {
        [
            ("AWS_SHARED_CREDENTIALS_FILE", secrets.to_str().unwrap()),
            ("AWS_CONFIG_FILE", config.to_str().unwrap()),
            ("TEST_PROFILE", profile),
            NO_METADATA,
        ]
    };
    assert_eq!(chain(&server, &env("backup")), "Ok(Created)");
    assert_eq!(chain(&server, &env("other")), "Ok(Created)");
    let requests = server.requests();
    assert!(requests[0].contains("Credential=PROFILEKEY/") && requests[0].contains("/eu-west-3/s3/"));
    assert!(requests[1].contains("Credential=PROCESSKEY/") && requests[1].contains("/us-east-1/s3/"));
}

const KEYS: &str = r#"{"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
    "AccessKeyId": "GIVENKEY", "SecretAccessKey": "hidden-6", "Token": "hidden-7", "Expiration": "2099-01-01T00:00:00Z"}"#;

#[test]
fn credentials_of_an_instance_by_metadata_version_2() {
    let server = Server::new(&[STORED]);
    let metadata = Server::new(&[
        Answer("200 OK", "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n", "hidden-8"),
        Answer("200 OK", "", "role"),
        Answer("200 OK", "content-type: application/json\r\n", KEYS),
    ]);
    let env = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url.as_str())];
    assert_eq!(chain(&server, &env), "Ok(Created)", "{:?}", metadata.requests());
    assert!(metadata.requests()[0].starts_with("PUT /latest/api/token"), "{:?}", metadata.requests());
    assert!(metadata.requests()[1].contains("x-aws-ec2-metadata-token: hidden-8"));
    assert!(server.requests()[0].contains("x-amz-security-token: hidden-7"));
}

#[test]
fn credentials_of_a_container() {
    let server = Server::new(&[STORED]);
    let agent = Server::new(&[Answer("200 OK", "", KEYS)]);
    let uri = format!("{}/keys", agent.url);
    assert_eq!(chain(&server, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri), NO_METADATA]), "Ok(Created)");
    assert!(server.requests()[0].contains("Credential=GIVENKEY/"));
}

#[test]
fn credentials_for_a_web_identity() {
    let server = Server::new(&[STORED]);
    let answer = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
        <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ROLEKEY</AccessKeyId>\
        <SecretAccessKey>hidden-9</SecretAccessKey><SessionToken>hidden-10</SessionToken>\
        <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
        </AssumeRoleWithWebIdentityResponse>";
    let tokens = Server::new(&[Answer("200 OK", "content-type: text/xml\r\n", answer)]);
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "hidden-11").unwrap();
    let env = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup"),
        ("AWS_ROLE_SESSION_NAME", "kafka-backup"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ENDPOINT_URL_STS", tokens.url.as_str()),
        NO_METADATA,
    ];
    assert_eq!(chain(&server, &env), "Ok(Created)", "{:?}", tokens.requests());
    let asked = tokens.requests().remove(0);
    assert!(asked.contains("Action=AssumeRoleWithWebIdentity") && asked.contains("hidden-11"), "{asked}");
    let request = server.requests().remove(0);
    assert!(
        request.contains("Credential=ROLEKEY/") && request.contains("x-amz-security-token: hidden-10"),
        "{request}"
    );
}

#[test]
fn no_credentials_at_all() {
    let server = Server::new(&[]);
    let result = chain(&server, &[NO_METADATA, ("HOME", "/nowhere")]);
    assert!(result.starts_with("Err((Auth, \"no credentials: "), "{result}");
    assert_eq!(server.requests().len(), 0);
}

#[rstest]
#[case::amazon("b", None, false)]
#[case::a_dot("b.c", None, true)]
#[case::a_name("b", Some("https://minio.example:9000"), false)]
#[case::localhost("b", Some("http://localhost:9000"), false)]
#[case::an_address("b", Some("http://127.0.0.1:9000"), true)]
#[case::without_a_port("b", Some("https://10.0.0.7/"), true)]
#[case::the_longer_kind("b", Some("http://[::1]:9000"), true)]
fn buckets_that_cannot_be_part_of_the_host(#[case] bucket: &str, #[case] endpoint: Option<&str>, #[case] only: bool) {
    assert_eq!(only_in_path(bucket, endpoint), only);
}
