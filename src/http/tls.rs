//! HTTP over TLS. Certificates are renewed by others while we run, so every handshake looks whether the files have
//! changed; where the new ones are of no use, the old ones stay.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::ssl::{SslAcceptor, SslAcceptorBuilder, SslContext, SslFiletype, SslMethod, SslVerifyMode};

use super::file_stamp::FileStamp;
use crate::config::HttpTls;
use crate::error::{Error, Exit, Result};

/// An acceptor of the files as they are, which follows their changes.
///
/// # Errors
/// [`Exit::Config`]: a file cannot be read, is not what it should be, or the key is another certificate's.
pub fn acceptor(tls: &HttpTls) -> Result<SslAcceptorBuilder> {
    let stamps = stamps(tls);
    let mut builder = build(tls)?;
    let current = Arc::new(Mutex::new(Current { stamps, context: None }));
    let tls = tls.clone();
    // It is called in every handshake, whether the client names a host or not.
    builder.set_servername_callback(move |ssl, _| {
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        current.refresh(&tls);
        if let Some(context) = &current.context
            && let Err(error) = ssl.set_ssl_context(context)
        {
            tracing::error!(error = %error, "the new certificate cannot be used");
        }
        Ok(())
    });
    Ok(builder)
}

type Stamps = [Option<FileStamp>; 3];

fn stamps(tls: &HttpTls) -> Stamps {
    [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()].map(|path| FileStamp::of(path?))
}

/// What the files hold that were read last.
struct Current {
    stamps: Stamps,
    /// `None`: still what the acceptor was built with.
    context: Option<SslContext>,
}

impl Current {
    fn refresh(&mut self, tls: &HttpTls) {
        let stamps = stamps(tls);
        if stamps == self.stamps {
            return;
        }
        self.stamps = stamps;
        match build(tls) {
            Ok(builder) => {
                self.context = Some(builder.build().into_context());
                tracing::info!(file = %tls.cert.display(), "http certificate read again");
            }
            // Also between the writing of one file and of the other: the next handshake finds both.
            Err(error) => tracing::error!(error = %error, "the http certificate stays as it was"),
        }
    }
}

fn build(tls: &HttpTls) -> Result<SslAcceptorBuilder> {
    let failed = |key: &str, path: &Path, error: ErrorStack| {
        let why = error.errors().first().and_then(|e| e.reason()).unwrap_or("it cannot be used").to_owned();
        Error::new(Exit::Config, format!("{key} {}: {why}", path.display()))
            .hint("both files must be PEM, and the key that of the certificate")
    };
    let readable = |key: &str, path: &Path| {
        let opened = std::fs::File::open(path);
        opened.map(drop).map_err(|e| {
            Error::new(Exit::Config, format!("{key} {}: {e}", path.display()))
                .hint("check the path, its owner and mode")
        })
    };
    readable("http.tls_cert_file", &tls.cert)?;
    readable("http.tls_key_file", &tls.key)?;
    let start = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server());
    let mut builder = start.map_err(|e| Error::new(Exit::Failed, "OpenSSL").because(e))?;
    let cert = builder.set_certificate_chain_file(&tls.cert);
    cert.map_err(|e| failed("http.tls_cert_file", &tls.cert, e))?;
    let key = builder.set_private_key_file(&tls.key, SslFiletype::PEM).and_then(|()| builder.check_private_key());
    key.map_err(|e| failed("http.tls_key_file", &tls.key, e))?;
    if let Some(ca) = &tls.client_ca {
        readable("http.tls_client_ca_file", ca)?;
        let names = openssl::x509::X509Name::load_client_ca_file(ca);
        let loaded = builder.set_ca_file(ca).and(names).map(|names| builder.set_client_ca_list(names));
        loaded.map_err(|e| failed("http.tls_client_ca_file", ca, e))?;
        builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        // Sessions of clients are resumed only with such a name; without one every second handshake fails.
        let named = builder.set_session_id_context(b"kafka-backup");
        named.map_err(|e| Error::new(Exit::Failed, "OpenSSL").because(e))?;
    }
    Ok(builder)
}
