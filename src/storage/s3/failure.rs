//! What went wrong with a request, named so that the caller knows what to do.

use std::time::{Duration, SystemTime};

use hyper::HeaderMap;
use time::format_description::well_known::Rfc2822;

use crate::storage::Kind;

/// S3 refuses requests whose time is further off than this.
const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

/// The longest message of a server that is passed on, in characters.
const MAX_MESSAGE: usize = 300;

/// A request that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub kind: Kind,
    /// The HTTP status; 0 when there was no answer.
    pub status: u16,
    /// S3's word for it; empty where the server gave none.
    pub code: String,
    /// The connection was lost without an answer, which is what an idle connection closed by the server looks like.
    pub dropped: bool,
    /// What to tell people.
    pub message: String,
}

impl Failure {
    /// A failure without an answer of the server.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, status: 0, code: String::new(), dropped: false, message: message.into() }
    }

    /// What an answer other than success says.
    /// `reads`: it was asked for an object or a listing.
    pub fn from_answer(status: u16, headers: &HeaderMap<String>, body: &[u8], reads: bool, now: SystemTime) -> Self {
        let text = String::from_utf8_lossy(body);
        let code = element(&text, "Code").unwrap_or_default();
        let kind = match kind(status, &code) {
            // HEAD has no body to say so in; the server's clock does.
            Kind::Auth if clock_is_off(headers, now) => Kind::ClockSkew,
            kind => kind,
        };
        let mut message = format!("{status} {code}").trim_end().to_owned();
        let details = [element(&text, "Message"), hint(status, &code, reads, headers)];
        for detail in details.into_iter().flatten().filter(|detail| !detail.is_empty()) {
            let line: String = detail.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect();
            message = format!("{message}: {line}");
        }
        if let Some(id) = headers.get("x-amz-request-id") {
            message = format!("{message} (request id {id})");
        }
        Self { kind, status, code, dropped: false, message }
    }

    /// What an error of the HTTP client says.
    pub fn from_hyper(error: &hyper::Error) -> Self {
        let what = if error.is_connect() { "" } else { "connection lost: " };
        let message = format!("{what}{}", causes(error));
        let dropped = !error.is_connect() && !error.is_user() && !error.is_parse();
        Self { dropped, ..Self::new(Kind::Unavailable, message) }
    }

    /// A failure to read a piece of the body that was being sent.
    pub fn from_io(error: &std::io::Error) -> Self {
        let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        Self::new(if full { Kind::Disk } else { Kind::Other }, format!("the bytes to send cannot be read: {error}"))
    }
}

/// The kind of an answer, by the status and S3's error code (empty for HEAD, whose answers have no body).
fn kind(status: u16, code: &str) -> Kind {
    match (status, code) {
        (_, "RequestTimeTooSkewed" | "RequestInTheFuture") => Kind::ClockSkew,
        (_, "ExpiredToken" | "ExpiredTokenException" | "InvalidToken" | "TokenRefreshRequired") => Kind::Auth,
        (_, "NoSuchBucket") => Kind::NoBucket,
        (_, "SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequests") => {
            Kind::Throttle
        }
        // The server gave up waiting for our bytes.
        (_, "RequestTimeout") => Kind::Timeout,
        // The bytes that arrived are not those that were sent: worth sending again.
        (400, "XAmzContentSHA256Mismatch" | "BadDigest" | "IncompleteBody") => Kind::Unavailable,
        (401 | 403 | 407, _) => Kind::Auth,
        (404, _) => Kind::NotFound,
        (408, _) => Kind::Timeout,
        (409, _) => Kind::Conflict,
        (429, _) => Kind::Throttle,
        // A new AWS bucket answers so for some minutes, until its name is known everywhere.
        (307, _) => Kind::Unavailable,
        (501, _) => Kind::Other,
        (500.., _) => Kind::Unavailable,
        _ => Kind::Other,
    }
}

/// An error and its causes on one line. Those of the HTTP client and of the credential chain name places, not secrets.
pub fn causes(error: &dyn std::error::Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// What the server's words alone do not tell.
fn hint(status: u16, code: &str, reads: bool, headers: &HeaderMap<String>) -> Option<String> {
    match (status, headers.get("x-amz-bucket-region")) {
        (301 | 400, Some(region)) => Some(format!("the bucket is in region {region}")),
        (403, _) if reads && (code.is_empty() || code == "AccessDenied") => {
            Some("a missing key looks like this too when s3:ListBucket is not granted".to_owned())
        }
        (501, _) => Some("the server does not implement this request".to_owned()),
        _ => None,
    }
}

/// Whether the server's clock, by its `Date`, is too far from ours for a signature to be accepted.
fn clock_is_off(headers: &HeaderMap<String>, now: SystemTime) -> bool {
    let Some(date) = headers.get("date").and_then(|d| time::OffsetDateTime::parse(d, &Rfc2822).ok()) else {
        return false;
    };
    (time::OffsetDateTime::from(now) - date).unsigned_abs() > MAX_SKEW
}

/// The text of the first element `name` of an error document, which is flat.
fn element(xml: &str, name: &str) -> Option<String> {
    let after = xml.split_once(&format!("<{name}>"))?.1;
    let text = after.split_once(&format!("</{name}>"))?.0.trim();
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(entities.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(403, "AccessDenied", Kind::Auth)]
    #[case(401, "", Kind::Auth)]
    #[case(400, "ExpiredToken", Kind::Auth)]
    #[case(403, "RequestTimeTooSkewed", Kind::ClockSkew)]
    #[case(404, "NoSuchBucket", Kind::NoBucket)]
    #[case(404, "NoSuchKey", Kind::NotFound)]
    #[case(404, "", Kind::NotFound)]
    #[case(409, "ConditionalRequestConflict", Kind::Conflict)]
    #[case(429, "", Kind::Throttle)]
    #[case(503, "SlowDown", Kind::Throttle)]
    #[case(503, "ServiceUnavailable", Kind::Unavailable)]
    #[case(503, "", Kind::Unavailable)]
    #[case(500, "InternalError", Kind::Unavailable)]
    #[case(502, "", Kind::Unavailable)]
    #[case(400, "RequestTimeout", Kind::Timeout)]
    #[case(400, "XAmzContentSHA256Mismatch", Kind::Unavailable)]
    #[case(400, "InvalidArgument", Kind::Other)]
    #[case(501, "NotImplemented", Kind::Other)]
    #[case(301, "PermanentRedirect", Kind::Other)]
    fn kinds(#[case] status: u16, #[case] code: &str, #[case] expected: Kind) {
        assert_eq!(kind(status, code), expected);
    }

    #[test]
    fn the_servers_words_are_passed_on_in_one_line() {
        let body =
            b"<?xml version=\"1.0\"?><Error><Code>InvalidArgument</Code><Message>a &lt;b&gt;\n&amp;lt;</Message>\
                     <RequestId>x</RequestId></Error>";
        let mut headers = HeaderMap::default();
        headers.insert("x-amz-request-id", "tx1".to_owned());
        let failure = Failure::from_answer(400, &headers, body, true, SystemTime::now());
        assert_eq!(failure.message, "400 InvalidArgument: a <b> &lt; (request id tx1)");
    }

    #[rstest]
    #[case("Sun, 06 Nov 1994 08:49:37 GMT", true)]
    #[case("not a date", false)]
    fn a_clock_that_is_off_is_told_from_a_refusal(#[case] date: &str, #[case] off: bool) {
        let mut headers = HeaderMap::default();
        headers.insert("date", date.to_owned());
        let failure = Failure::from_answer(403, &headers, b"", true, SystemTime::now());
        assert_eq!(failure.kind, if off { Kind::ClockSkew } else { Kind::Auth });
    }

    /// What is written is never missing.
    #[rstest]
    #[case::read(true)]
    #[case::written(false)]
    fn a_refusal_may_hide_a_missing_key_only_where_one_is_read(#[case] reads: bool) {
        let failure = Failure::from_answer(403, &HeaderMap::default(), b"", reads, SystemTime::now());
        assert_eq!(failure.message.contains("a missing key looks like this"), reads, "{}", failure.message);
    }
}
