//! Connections: TCP, through an HTTP proxy where one is configured, with TLS by the system's trust store.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::Uri;
use hyper::client::HttpConnector;
use hyper::client::connect::{Connected, Connection};
use hyper::service::Service;
use hyper_tls::HttpsConnector;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Idle connections are given up before servers do: AWS closes them after about 20 s, others later.
const IDLE: Duration = Duration::from_secs(15);

/// The longest answer to `CONNECT` that is read.
const MAX_PROXY_ANSWER: usize = 16 * 1024;

/// The connector of all our HTTP clients.
pub type Connector = HttpsConnector<Dialer>;

/// A pooled HTTP/1.1 client.
pub fn client<B>(dialer: Dialer) -> Result<hyper::Client<Connector, B>, native_tls::Error>
where
    B: hyper::body::HttpBody + Send,
    B::Data: Send,
{
    Ok(hyper::Client::builder().pool_idle_timeout(IDLE).build(HttpsConnector::from((dialer, tls()?.into()))))
}

/// The system's trust store, once it is read, takes more than a megabyte. So clients that are made at about the same time
/// share it, as those of all jobs are when a daemon starts; who comes later reads it anew, with what was changed in it.
const SHARED_FOR: Duration = Duration::from_secs(60);

fn tls() -> Result<native_tls::TlsConnector, native_tls::Error> {
    static SHARED: Mutex<Option<(Instant, native_tls::TlsConnector)>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((read, tls)) = &*shared
        && read.elapsed() < SHARED_FOR
    {
        return Ok(tls.clone());
    }
    let tls = native_tls::TlsConnector::new()?;
    *shared = Some((Instant::now(), tls.clone()));
    Ok(tls)
}

/// Opens TCP connections, directly or through a proxy: by `CONNECT` for `https`, and for `http` by handing the proxy
/// requests with the whole URL (hyper does so on a connection marked as proxied).
#[derive(Clone)]
pub struct Dialer {
    tcp: HttpConnector,
    proxy: Option<Uri>,
    /// `http` goes directly even so.
    tunnels_only: bool,
}

impl Dialer {
    /// A dialer that gives up on an address after `timeout`.
    pub fn new(proxy: Option<Uri>, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        tcp.set_connect_timeout(Some(timeout));
        Self { tcp, proxy, tunnels_only: false }
    }

    /// The same for endpoints that hand out credentials: those without TLS (instance metadata, container agents) are
    /// on this machine or on a link-local address, where no proxy could reach them.
    pub fn for_credentials(mut self) -> Self {
        self.tunnels_only = true;
        self
    }
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let secure = target.scheme_str() == Some("https");
        let proxy = self.proxy.clone().filter(|_| secure || !self.tunnels_only);
        let dial = self.tcp.call(proxy.clone().unwrap_or_else(|| target.clone()));
        Box::pin(async move {
            let mut tcp = dial.await?;
            if let Some(proxy) = &proxy
                && secure
            {
                let failed = |e: io::Error| format!("proxy {proxy}: {e}");
                open_tunnel(&mut tcp, &target).await.map_err(failed)?;
            }
            Ok(Stream { tcp, proxied: proxy.is_some() && !secure })
        })
    }
}

/// Asks the proxy at the other end of `tcp` for a tunnel to `target` (RFC 9110, section 9.3.6).
async fn open_tunnel(tcp: &mut TcpStream, target: &Uri) -> io::Result<()> {
    let (host, port) = (target.host().unwrap_or_default(), target.port_u16().unwrap_or(443));
    let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte, because whatever follows the empty line belongs to the tunnel already. It is a few hundred bytes
    // once per connection.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MAX_PROXY_ANSWER {
            return Err(io::Error::other("its answer to CONNECT does not end"));
        }
        answer.push(tcp.read_u8().await?);
    }
    let line = String::from_utf8_lossy(answer.split(|b| *b == b'\r').next().unwrap_or_default()).into_owned();
    match line.split(' ').nth(1) {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!("refused to connect to {host}:{port}: {line}"))),
    }
}

/// A TCP connection, which knows whether a proxy reads the requests on it.
pub struct Stream {
    tcp: TcpStream,
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.tcp.connected().proxy(self.proxied)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}
