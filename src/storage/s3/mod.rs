//! Amazon S3 and servers that speak its protocol.
//!
//! rusoto models the requests and answers; [`wire`] sends them. Every call runs as a task of its own on the store's
//! runtime, so that it works from any thread and a caller that is busy elsewhere never stalls a connection; a caller
//! that stops waiting ends the task.

mod connect;
mod credentials;
mod failure;
mod lifecycle;
mod wire;

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hyper::Uri;
use rusoto_core::{ByteStream, Client, RusotoError};
use rusoto_s3::{
    DeleteObjectRequest, GetObjectRequest, HeadBucketRequest, HeadObjectRequest, ListObjectsV2Output,
    ListObjectsV2Request, PutObjectRequest, S3, S3Client,
};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use super::{Body, Create, Entry, Head, Kind, Lifecycle, Metadata, Page, Store, StoreError, payload};
use crate::config::{Place, StorageConfig};
use failure::Failure;
pub use wire::Limits;
use wire::{Call, Payload, Wire};

/// The most keys a server lists at once.
const MAX_KEYS: usize = 1000;

/// What a configuration does not say.
#[derive(Clone, Default)]
pub struct Options {
    /// How long requests may take.
    pub limits: Limits,
    /// A key id and its secret to use instead of the AWS default chain: for tests, which must not change their
    /// environment.
    pub credentials: Option<(String, String)>,
}

/// A bucket, or a prefix of one.
pub struct S3Store {
    url: String,
    /// Empty or with a slash at its end.
    prefix: String,
    runtime: Handle,
    wire: Arc<Wire>,
    /// The server has answered for this bucket: a 404 of a HEAD, which has no words, means the key then.
    bucket_seen: AtomicBool,
}

impl S3Store {
    /// A store for `config`, which must be of type `s3`. Makes no request yet.
    pub fn open(config: &StorageConfig, runtime: Handle) -> Result<Self, StoreError> {
        Self::open_with(config, Options::default(), runtime)
    }

    /// The same with what the configuration does not say.
    pub fn open_with(config: &StorageConfig, options: Options, runtime: Handle) -> Result<Self, StoreError> {
        let error = |url: &str, message: String| StoreError {
            operation: "open",
            url: url.to_owned(),
            key: String::new(),
            kind: Kind::Other,
            message,
        };
        let Place::S3 { bucket, prefix, region, profile, proxy_url, endpoint, path_style } = &config.place else {
            return Err(error(&config.name, "not a store of type s3".to_owned()));
        };
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let url = format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned();
        let proxy = proxy_url.as_deref().map(|url| server("proxy_url", url, &["http"])).transpose();
        let proxy = proxy.map_err(|why| error(&url, why))?;
        if let Some(endpoint) = endpoint {
            server("endpoint", endpoint, &["http", "https"]).map_err(|why| error(&url, why))?;
        }
        let dialer = connect::Dialer::new(proxy, options.limits.connect);
        let no_tls = |e| error(&url, format!("TLS cannot be set up: {e}"));
        let chain = credentials::Chain::new(profile.clone(), options.credentials, dialer.clone());
        let wire = Wire {
            client: connect::client(dialer).map_err(no_tls)?,
            credentials: credentials::Cache::new(chain.map_err(no_tls)?),
            path_style: *path_style || only_in_path(bucket, endpoint.as_deref()),
            bucket: bucket.clone(),
            region: region.clone(),
            endpoint: endpoint.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
            resolved: OnceCell::new(),
            limits: options.limits,
        };
        Ok(Self { url, prefix, runtime, wire: Arc::new(wire), bucket_seen: AtomicBool::new(false) })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn error(&self, operation: &'static str, key: &str, failure: Failure) -> StoreError {
        let Failure { kind, message, .. } = failure;
        StoreError { operation, url: self.url.clone(), key: key.to_owned(), kind, message }
    }

    /// Makes one call of rusoto on the store's runtime.
    async fn call<T, E, F, Fut>(&self, operation: &'static str, payload: Option<Payload>, run: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        E: Error + 'static,
        F: FnOnce(S3Client) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, RusotoError<E>>> + Send + 'static,
    {
        let reads = payload.is_none() && operation != "delete";
        let (wire, failure) = (self.wire.clone(), Arc::new(OnceLock::new()));
        let task = async move {
            let region = wire.region().await?;
            let call = Call { wire, operation, reads, payload, failure: failure.clone() };
            let client = S3Client::new_with_client(Client::new_not_signing(call), region);
            run(client).await.map_err(|error| {
                let not_understood = || Failure::new(Kind::Unavailable, format!("answer not understood: {error}"));
                failure.get().cloned().unwrap_or_else(not_understood)
            })
        };
        let result = self.run(task).await;
        if result.is_ok() {
            self.bucket_seen.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Runs a task on the store's runtime, as long as somebody waits for it.
    async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        struct Guard<T>(JoinHandle<T>);
        impl<T> Drop for Guard<T> {
            fn drop(&mut self) {
                self.0.abort();
            }
        }
        let mut guard = Guard(self.runtime.spawn(task));
        let broken = |e| Err(Failure::new(Kind::Other, format!("the request's task ended early: {e}")));
        (&mut guard.0).await.unwrap_or_else(broken)
    }

    /// Sends a body, on condition that nothing is there or without.
    async fn send(&self, key: &str, body: &Body, metadata: &Metadata, only_new: bool) -> Result<(), Failure> {
        check_metadata(metadata)?;
        let operation = if only_new { "create" } else { "put" };
        let sha256 = match metadata.get(payload::SHA256_KEY) {
            Some(known) => known.clone(),
            None => {
                let body = body.clone();
                let hash = async move {
                    let hash = tokio::task::spawn_blocking(move || payload::sha256(&body)).await;
                    hash.unwrap_or_else(|e| Err(e.into())).map_err(|e| Failure::from_io(&e))
                };
                self.run(hash).await?
            }
        };
        let request = PutObjectRequest {
            bucket: self.wire.bucket.clone(),
            key: self.key(key),
            content_type: Some(content_type(key).to_owned()),
            metadata: Some(metadata.clone().into_iter().collect::<HashMap<_, _>>()),
            ..Default::default()
        };
        let payload = Payload { body: body.clone(), sha256, if_none_match: only_new };
        let put = |client: S3Client| async move { client.put_object(request).await };
        match self.call(operation, Some(payload), put).await?.e_tag {
            Some(_) => Ok(()),
            // Whatever said "200" was no S3: a captive portal, a proxy's own page.
            None => Err(Failure::new(Kind::Unavailable, "answer without an entity tag: not taken as stored")),
        }
    }

    /// Distinguishes a missing key from a missing bucket after a HEAD, whose 404 has no words.
    async fn missing(&self) -> Result<(), Failure> {
        if self.bucket_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let request = HeadBucketRequest { bucket: self.wire.bucket.clone(), ..Default::default() };
        match self.call("head_bucket", None, |client| async move { client.head_bucket(request).await }).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.status == 404 => Err(Failure { kind: Kind::NoBucket, ..failure }),
            // Not allowed to ask, which says nothing about the key.
            Err(failure) if failure.kind == Kind::Auth => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn head_object(&self, key: &str) -> Result<Option<Head>, Failure> {
        let request = HeadObjectRequest { bucket: self.wire.bucket.clone(), key: self.key(key), ..Default::default() };
        let head = match self.call("head", None, |client| async move { client.head_object(request).await }).await {
            Ok(head) => head,
            Err(failure) if failure.kind == Kind::NotFound => return self.missing().await.map(|()| None),
            Err(failure) => return Err(failure),
        };
        let written = head.last_modified.and_then(|date| OffsetDateTime::parse(&date, &Rfc2822).ok());
        match (head.content_length.and_then(|n| u64::try_from(n).ok()), head.e_tag, written) {
            (Some(size), Some(etag), Some(written)) => {
                let metadata = head.metadata.unwrap_or_default().into_iter().collect();
                let modified_ms = written.unix_timestamp() * 1000;
                Ok(Some(Head { size, etag: unquoted(&etag), metadata, modified_ms }))
            }
            _ => Err(Failure::new(Kind::Unavailable, "answer without a size, an entity tag or a time")),
        }
    }

    /// The bytes of an object or of a part of it, and its entity tag.
    async fn get_object(&self, key: &str, range: Option<&Range<u64>>) -> Result<(Bytes, String), Failure> {
        let request = GetObjectRequest {
            bucket: self.wire.bucket.clone(),
            key: self.key(key),
            range: range.map(|range| format!("bytes={}-{}", range.start, range.end - 1)),
            ..Default::default()
        };
        let get = |client: S3Client| async move { client.get_object(request).await };
        let object = self.call("get", None, get).await?;
        let etag = unquoted(&object.e_tag.unwrap_or_default());
        if range.is_some() && object.content_range.is_none() {
            return Err(Failure::new(Kind::Other, "the server does not answer range requests"));
        }
        Ok((whole(object.body).await?, etag))
    }

    /// One answer of a listing: entries or folders, and the token with which it goes on, if it does.
    async fn list_part(&self, request: ListObjectsV2Request) -> Result<(ListObjectsV2Output, Option<String>), Failure> {
        let list = |client: S3Client| async move { client.list_objects_v2(request).await };
        let mut output = self.call("list", None, list).await?;
        match (output.is_truncated, output.next_continuation_token.take()) {
            (Some(false), _) => Ok((output, None)),
            (Some(true), Some(token)) => Ok((output, Some(token))),
            (Some(true), None) => Err(Failure::new(Kind::Unavailable, "a listing does not say how it goes on")),
            // A foreign answer would read as an empty listing.
            (None, _) => Err(Failure::new(Kind::Unavailable, "answer is not a listing")),
        }
    }

    /// A server may give fewer keys than asked for although there are more (Ceph does): asks until there are enough.
    async fn list_page(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, Failure> {
        let (mut entries, mut continuation_token) = (Vec::new(), None);
        loop {
            let request = ListObjectsV2Request {
                bucket: self.wire.bucket.clone(),
                prefix: Some(self.key(prefix)),
                start_after: start_after.filter(|_| continuation_token.is_none()).map(|key| self.key(key)),
                max_keys: Some((limit - entries.len()) as i64),
                continuation_token,
                ..Default::default()
            };
            let (output, next) = self.list_part(request).await?;
            for object in output.contents.unwrap_or_default() {
                let broken = || Failure::new(Kind::Unavailable, "a listing has an entry without key, size or time");
                entries.push(entry(&self.prefix, object).ok_or_else(broken)?);
            }
            if next.is_none() || entries.len() >= limit {
                return Ok(Page { entries, more: next.is_some() });
            }
            continuation_token = next;
        }
    }

    async fn all_folders(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let (mut folders, mut continuation_token) = (Vec::new(), None);
        loop {
            let request = ListObjectsV2Request {
                bucket: self.wire.bucket.clone(),
                prefix: Some(self.key(prefix)),
                delimiter: Some("/".to_owned()),
                continuation_token,
                ..Default::default()
            };
            let (output, next) = self.list_part(request).await?;
            let found = output.common_prefixes.unwrap_or_default().into_iter().filter_map(|p| p.prefix);
            folders.extend(found.filter_map(|path| path.strip_prefix(&self.prefix).map(str::to_owned)));
            if next.is_none() {
                return Ok(folders);
            }
            continuation_token = next;
        }
    }
}

#[async_trait]
impl Store for S3Store {
    fn url(&self) -> &str {
        &self.url
    }

    async fn create(&self, key: &str, body: &Body, metadata: &Metadata) -> Result<Create, StoreError> {
        match self.send(key, body, metadata, true).await {
            Ok(()) => Ok(Create::Created),
            Err(failure) if failure.status == 412 => Ok(Create::Exists),
            Err(failure) => Err(self.error("create", key, failure)),
        }
    }

    async fn put(&self, key: &str, body: &Body, metadata: &Metadata) -> Result<(), StoreError> {
        self.send(key, body, metadata, false).await.map_err(|failure| self.error("put", key, failure))
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.head_object(key).await.map_err(|failure| self.error("head", key, failure))
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.get_object(key, None).await {
            Ok((bytes, _)) => Ok(Some(bytes)),
            Err(failure) if failure.kind == Kind::NotFound => Ok(None),
            Err(failure) => Err(self.error("get", key, failure)),
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>, etag: Option<&str>) -> Result<Bytes, StoreError> {
        let error = |failure| self.error("get", key, failure);
        // An empty range cannot be asked for in HTTP.
        let result = match range.is_empty() {
            true => Err(Failure { status: 416, ..Failure::new(Kind::Other, "") }),
            false => self.get_object(key, Some(&range)).await,
        };
        let (bytes, found) = match result {
            // Behind the end, or the object is empty.
            Err(failure) if failure.status == 416 => match self.head_object(key).await.map_err(error)? {
                Some(head) => (Bytes::new(), head.etag),
                None => return Err(error(Failure::new(Kind::NotFound, "no such object"))),
            },
            result => result.map_err(error)?,
        };
        // Compared here and not with `If-Match`, whose quotes not every server reads the same way.
        match etag {
            Some(etag) if etag != found => {
                Err(error(Failure::new(Kind::Changed, format!("the object changed: etag {found}, expected {etag}"))))
            }
            _ => Ok(bytes),
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let page = self.list_page(prefix, start_after, limit.clamp(1, MAX_KEYS)).await;
        page.map_err(|failure| self.error("list", prefix, failure))
    }

    async fn folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.all_folders(prefix).await.map_err(|failure| self.error("list", prefix, failure))
    }

    fn lifecycle(&self) -> Option<&dyn Lifecycle> {
        Some(self)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let request =
            DeleteObjectRequest { bucket: self.wire.bucket.clone(), key: self.key(key), ..Default::default() };
        match self.call("delete", None, |client| async move { client.delete_object(request).await }).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind == Kind::NotFound => Ok(()),
            Err(failure) => Err(self.error("delete", key, failure)),
        }
    }
}

/// One line of a listing, relative to `prefix`.
fn entry(prefix: &str, object: rusoto_s3::Object) -> Option<Entry> {
    let modified = OffsetDateTime::parse(&object.last_modified?, &Rfc3339).ok()?;
    Some(Entry {
        key: object.key?.strip_prefix(prefix)?.to_owned(),
        size: u64::try_from(object.size?).ok()?,
        etag: unquoted(&object.e_tag.unwrap_or_default()),
        modified_ms: i64::try_from(modified.unix_timestamp_nanos() / 1_000_000).ok()?,
    })
}

/// All bytes of an answer; the wire has read them already, so this neither waits nor copies.
async fn whole(body: Option<ByteStream>) -> Result<Bytes, Failure> {
    let Some(mut body) = body else { return Ok(Bytes::new()) };
    let mut chunks = Vec::new();
    while let Some(chunk) = body.next().await {
        chunks.push(chunk.map_err(|e| Failure::new(Kind::Unavailable, e.to_string()))?);
    }
    match <[Bytes; 1]>::try_from(chunks) {
        Ok([bytes]) => Ok(bytes),
        Err(chunks) => Ok(chunks
            .into_iter()
            .fold(BytesMut::new(), |mut all, chunk| {
                all.extend_from_slice(&chunk);
                all
            })
            .freeze()),
    }
}

/// Whether a bucket cannot be named in the host of an endpoint: a dot in its name is a level more than the server's
/// certificate covers, and nothing can stand in front of an address.
fn only_in_path(bucket: &str, endpoint: Option<&str>) -> bool {
    let endpoint = endpoint.and_then(|url| url.parse::<Uri>().ok());
    let host = endpoint.as_ref().and_then(Uri::host).map(|host| host.trim_matches(['[', ']']));
    bucket.contains('.') || host.is_some_and(|host| host.parse::<std::net::IpAddr>().is_ok())
}

/// The URL of a server, with one of these schemes, without credentials.
fn server(name: &str, url: &str, schemes: &[&str]) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|e| format!("{name} {url:?}: {e}"))?;
    let known = uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err(format!("{name}: a URL with credentials is not supported"))
        }
        Some(_) if known => Ok(uri),
        _ => Err(format!("{name} {url:?}: expected {}://HOST[:PORT]", schemes.join(":// or "))),
    }
}

/// Refuses metadata that would not come back as it was sent: header values are ASCII, and signatures are made over
/// values whose runs of spaces are one space.
fn check_metadata(metadata: &Metadata) -> Result<(), Failure> {
    let name_ok = |name: &str| !name.is_empty() && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let value_ok = |value: &str| {
        !value.is_empty()
            && value.bytes().all(|b| (b' '..=b'~').contains(&b))
            && value.trim() == value
            && !value.contains("  ")
    };
    match metadata.iter().find(|(name, value)| !name_ok(name) || !value_ok(value)) {
        Some((name, _)) => Err(Failure::new(Kind::Other, format!("metadata {name:?} cannot be sent as a header"))),
        None => Ok(()),
    }
}

fn content_type(key: &str) -> &'static str {
    match key.rsplit_once('.') {
        Some((_, "avro")) => "application/avro",
        Some((_, "json")) => "application/json",
        _ => "application/octet-stream",
    }
}

fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests;
