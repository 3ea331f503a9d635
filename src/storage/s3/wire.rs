//! One request from rusoto to the server and back: address, signature, time limits, metrics, and the two repetitions
//! that are no retries (refused credentials, a stale connection).
//!
//! rusoto builds requests and reads answers. It is given no credentials, because its signer can sign a body that is
//! streamed only as "unsigned": here every request is signed by `aws-sigv4`, a body by its SHA-256, which the server
//! compares with what it received.

use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningInstructions, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use hyper::body::HttpBody;
use hyper::{HeaderMap, Request};
use rusoto_core::request::{DispatchSignedRequest, DispatchSignedRequestFuture, HttpResponse};
use rusoto_core::signature::SignedRequest;
use rusoto_core::{ByteStream, HttpDispatchError, Region};
use tokio::sync::OnceCell;

use super::connect::Connector;
use super::credentials::Cache;
use super::failure::Failure;
use crate::metrics;
use crate::storage::buffer::Buffer;
use crate::storage::payload::{self, Chunk};
use crate::storage::{Body, Kind};

/// SHA-256 of no bytes.
const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The most bytes that an announced length is given room for at once: no request of ours asks for more.
const ROOM_MAX: u64 = 16 * 1024 * 1024;

const USER_AGENT: &str = concat!("kafka-backup/", env!("CARGO_PKG_VERSION"));

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until a TCP connection stands, per address.
    pub connect: Duration,
    /// Without a byte moving in either direction.
    pub silence: Duration,
    /// Bytes per second below which a request counts as stuck, after it had twice `silence` to begin with. What it may
    /// take grows with its size by this and by nothing else.
    pub slowest: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(30), slowest: 64 * 1024 }
    }
}

impl Limits {
    /// The longest that moving `bytes` may take.
    fn whole(&self, bytes: u64) -> Duration {
        self.silence * 2 + Duration::from_secs(bytes / self.slowest.max(1))
    }
}

/// The way to one bucket.
pub struct Wire {
    /// Pooled connections.
    pub client: hyper::Client<Connector, hyper::Body>,
    /// Who we are.
    pub credentials: Cache,
    /// The bucket.
    pub bucket: String,
    /// The bucket's name stands in the path, not in the host name.
    pub path_style: bool,
    /// As configured.
    pub region: Option<String>,
    /// As configured, without a slash at its end.
    pub endpoint: Option<String>,
    /// Found out at the first request: it may need the network.
    pub resolved: OnceCell<Region>,
    /// How long a request may take.
    pub limits: Limits,
}

/// An answer of success, read to its end.
pub struct Answer {
    status: hyper::StatusCode,
    headers: HeaderMap<String>,
    /// All of it.
    pub body: Bytes,
}

/// What is to be sent.
#[derive(Clone)]
pub struct Payload {
    /// The bytes.
    pub body: Body,
    /// Their SHA-256 in hex.
    pub sha256: String,
    /// Only if nothing is there.
    pub if_none_match: bool,
}

/// One call of the store, which rusoto takes for its HTTP client. The failure of the request is left in `failure`,
/// because rusoto's own error is a text.
pub struct Call {
    /// The way.
    pub wire: Arc<Wire>,
    /// Name of the operation in metrics.
    pub operation: &'static str,
    /// The request changes nothing, so it may be sent again when a connection is lost.
    pub reads: bool,
    /// The body, which rusoto does not see.
    pub payload: Option<Payload>,
    /// Why the request failed.
    pub failure: Arc<OnceLock<Failure>>,
}

impl DispatchSignedRequest for Call {
    fn dispatch(&self, request: SignedRequest, _: Option<Duration>) -> DispatchSignedRequestFuture {
        let (wire, operation, reads) = (self.wire.clone(), self.operation, self.reads);
        let (payload, slot) = (self.payload.clone(), self.failure.clone());
        Box::pin(async move {
            let result = wire.execute(operation, reads, request, payload).await;
            // Listings are the only answers that rusoto parses.
            let checked = result.and_then(|answer| if operation == "list" { well_formed(answer) } else { Ok(answer) });
            let answer = checked.map_err(|failure| {
                let text = HttpDispatchError::new(failure.message.clone());
                let _ = slot.set(failure); // one request per call
                text
            })?;
            let body = ByteStream::new(stream::once(async { Ok(answer.body) }));
            Ok(HttpResponse { status: answer.status, headers: answer.headers, body })
        })
    }
}

impl Wire {
    /// The region, with the endpoint where there is one.
    pub async fn region(&self) -> Result<Region, Failure> {
        self.resolved.get_or_try_init(|| self.find_region()).await.cloned()
    }

    async fn find_region(&self) -> Result<Region, Failure> {
        let name = match &self.region {
            Some(name) => Some(name.clone()),
            None => self.credentials.chain().region(self.endpoint.is_some()).await,
        };
        match (name, &self.endpoint) {
            (name, Some(endpoint)) => {
                let name = name.unwrap_or_else(|| "us-east-1".to_owned());
                Ok(Region::Custom { name, endpoint: endpoint.clone() })
            }
            // Regions newer than rusoto are named by the same rule.
            (Some(name), None) => Ok(Region::from_str(&name).unwrap_or_else(|_| {
                let endpoint = format!("https://s3.{name}.amazonaws.com");
                Region::Custom { name, endpoint }
            })),
            (None, None) => {
                let why = "no region: set `region` of the storage, AWS_REGION, or `region` of the profile";
                Err(Failure::new(Kind::Other, why))
            }
        }
    }

    /// Makes one request: signed, within its limits, counted. `reads`: it changes nothing, and may be sent twice.
    pub async fn execute(
        &self,
        operation: &'static str,
        reads: bool,
        mut request: SignedRequest,
        payload: Option<Payload>,
    ) -> Result<Answer, Failure> {
        self.address(&mut request, payload.as_ref());
        let (mut renewed, mut redialled) = (false, false);
        loop {
            let credentials = self.credentials.current(request.region.name()).await?;
            let signed = signed(&request, payload.as_ref(), &credentials)?;
            let began = Instant::now();
            let result = self.exchange(signed, payload.as_ref()).await;
            let code = match &result {
                Ok(answer) => answer.status.as_str().to_owned(),
                Err(Failure { status: 0, kind: Kind::Timeout, .. }) => "timeout".to_owned(),
                Err(Failure { status: 0, .. }) => "connect".to_owned(),
                Err(failure) => failure.status.to_string(),
            };
            metrics::s3_request(operation, &code, began.elapsed().as_secs_f64());
            match &result {
                Err(failure) if failure.kind == Kind::Auth && !renewed => {
                    renewed = true;
                    self.credentials.forget(&credentials).await;
                }
                // An idle connection that the server had closed. Never for a request that writes: whether it arrived
                // is not known, and the caller finds out.
                Err(failure) if failure.dropped && reads && !redialled => redialled = true,
                _ => return result,
            }
        }
    }

    /// Gives a request of rusoto, which knows path style only, its final address and the headers of its body.
    fn address(&self, request: &mut SignedRequest, payload: Option<&Payload>) {
        if !self.path_style {
            let host = format!("{}.{}", self.bucket, request.hostname());
            request.set_hostname(Some(host));
            let path = request.path.strip_prefix('/').and_then(|path| path.strip_prefix(&self.bucket));
            request.path = path.filter(|path| !path.is_empty()).unwrap_or("/").to_owned();
        }
        request.complement();
        if let Some(payload) = payload {
            request.remove_header("content-length");
            request.add_header("content-length", &payload.body.len().to_string());
            if payload.if_none_match {
                request.add_header("if-none-match", "*");
            }
        }
    }

    /// Sends a request and reads the answer to its end, while bytes move.
    async fn exchange(&self, mut request: Request<hyper::Body>, payload: Option<&Payload>) -> Result<Answer, Failure> {
        let progress = Arc::new(Progress::default());
        let reads = matches!(*request.method(), hyper::Method::GET | hyper::Method::HEAD);
        if let Some(payload) = payload {
            *request.body_mut() = hyper::Body::wrap_stream(read(&payload.body, progress.clone()));
        }
        let exchange = async {
            let mut response = self.client.request(request).await?;
            // The whole body in one allocation, as far as the server may be believed.
            let expected = response.body().size_hint().lower().min(ROOM_MAX);
            let mut body = Buffer::with_room(expected as usize);
            while let Some(chunk) = response.data().await {
                let chunk = chunk?;
                progress.moved(chunk.len());
                body.extend_from_slice(&chunk);
            }
            Ok(response.map(|_| body.freeze()))
        };
        let result = tokio::select! {
            result = exchange => result.map_err(|error: hyper::Error| Failure::from_hyper(&error)),
            failure = self.stuck(&progress) => Err(failure),
        };
        if let Some(error) = progress.unreadable.get() {
            return Err(Failure::from_io(error));
        }
        answer(result?, reads)
    }

    /// Ends when nothing, or too little, has moved.
    async fn stuck(&self, progress: &Progress) -> Failure {
        let began = Instant::now();
        loop {
            let before = progress.bytes.load(Ordering::Relaxed);
            tokio::time::sleep(self.limits.silence).await;
            let moved = progress.bytes.load(Ordering::Relaxed);
            if moved == before || began.elapsed() > self.limits.whole(moved) {
                let waited = began.elapsed().as_secs_f64();
                return Failure::new(Kind::Timeout, format!("no answer after {waited:.0} s, {moved} bytes moved"));
            }
        }
    }
}

/// How far a request has come.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    unreadable: OnceLock<io::Error>,
}

impl Progress {
    fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The bytes of a body, read as the connection takes them.
fn read(
    body: &Body,
    progress: Arc<Progress>,
) -> impl stream::Stream<Item = Result<Bytes, &'static str>> + Send + use<> {
    stream::iter(payload::chunks(body)).then(move |chunk| {
        let progress = progress.clone();
        async move {
            let read = match chunk {
                Chunk::Memory(bytes) => Ok(bytes),
                file => tokio::task::spawn_blocking(|| file.read()).await.unwrap_or_else(|e| Err(e.into())),
            };
            match read {
                Ok(bytes) => {
                    progress.moved(bytes.len());
                    Ok(bytes)
                }
                Err(error) => {
                    let _ = progress.unreadable.set(error); // the first one ends the stream
                    Err("unreadable")
                }
            }
        }
        .boxed()
    })
}

/// Refuses an answer that is not XML to its end: rusoto's parser would look for that end for ever, at full load.
fn well_formed(answer: Answer) -> Result<Answer, Failure> {
    let broken = |why: &dyn std::fmt::Display| {
        Failure::new(Kind::Unavailable, format!("answer is not a listing: {}", why.to_string().replace('\n', " ")))
    };
    if answer.body.is_empty() {
        return Err(broken(&"it is empty"));
    }
    for event in xml::EventReader::new(answer.body.as_ref()) {
        event.map_err(|e| broken(&e))?;
    }
    Ok(answer)
}

/// Success, or what the server says instead.
fn answer(response: hyper::Response<Bytes>, reads: bool) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    let mut headers = HeaderMap::default();
    for (name, value) in &parts.headers {
        headers.append(name, String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    if parts.status.is_success() {
        return Ok(Answer { status: parts.status, headers, body });
    }
    Err(Failure::from_answer(parts.status.as_u16(), &headers, &body, reads, SystemTime::now()))
}

/// The request as it goes over the wire, signed (without a body yet). Nothing here is ever logged: rusoto's own
/// conversion would write the signature and the session token to the debug log.
fn signed(
    request: &SignedRequest,
    payload: Option<&Payload>,
    credentials: &Credentials,
) -> Result<Request<hyper::Body>, Failure> {
    let invalid = |e: &dyn std::error::Error| Failure::new(Kind::Other, format!("request cannot be built: {e}"));
    let mut uri = format!("{}://{}{}", request.scheme(), request.hostname(), request.canonical_uri());
    if !request.canonical_query_string().is_empty() {
        uri = format!("{uri}?{}", request.canonical_query_string());
    }
    let mut headers = Vec::new();
    for (name, values) in request.headers() {
        for value in values {
            headers.push((name.as_str(), std::str::from_utf8(value).map_err(|e| invalid(&e))?));
        }
    }
    let added = signature(request, &uri, &headers, payload, credentials).map_err(|e| invalid(e.as_ref()))?;
    let mut builder = Request::builder().method(request.method()).uri(uri).header("user-agent", USER_AGENT);
    for (name, value) in headers.into_iter().chain(added.headers()) {
        builder = builder.header(name, value);
    }
    builder.body(hyper::Body::empty()).map_err(|e| invalid(&e))
}

/// The headers that authenticate a request.
fn signature(
    request: &SignedRequest,
    uri: &str,
    headers: &[(&str, &str)],
    payload: Option<&Payload>,
    credentials: &Credentials,
) -> Result<SigningInstructions, Box<dyn std::error::Error + Send + Sync>> {
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    // S3 differs from other services in these two.
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(request.region.name())
        .name("s3")
        .time(SystemTime::now())
        .settings(settings)
        .build()?
        .into();
    let hash = payload.map_or(SHA256_OF_NOTHING, |payload| payload.sha256.as_str());
    let body = SignableBody::Precomputed(hash.to_owned());
    let signable = SignableRequest::new(request.method(), uri, headers.iter().copied(), body)?;
    Ok(sign(signable, &params)?.into_parts().0)
}
