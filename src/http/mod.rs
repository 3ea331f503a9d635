//! Metrics and health over HTTP: reading only, on a thread and a runtime of their own, so that they answer whatever
//! the jobs are doing. Over TLS and with basic authentication where the configuration has them.

mod auth;
mod file_stamp;
mod tls;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpResponse, HttpServer, web};

use self::auth::Auth;
use crate::config::HttpProtection;
use crate::control::document::StatusDocument;
use crate::error::{Error, Exit, Result};
use crate::process::Process;
use crate::scrape;

/// What the endpoints look at.
#[derive(Clone)]
struct Shown {
    process: Process,
    ready: Arc<AtomicBool>,
    auth: Option<Arc<Auth>>,
}

/// Says whether the daemon is ready; not so before its jobs are started and while it stops.
#[derive(Debug, Clone, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// Sets what `/-/ready` answers.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }
}

/// What is wrong with the files that protect HTTP, each with the name of the first key it concerns.
pub fn check(protection: &HttpProtection) -> Vec<(&'static str, Error)> {
    let tls = protection.tls.as_ref().and_then(|tls| Some(("http.tls_cert_file", tls::acceptor(tls).err()?)));
    let auth = protection.basic_auth_file.as_ref();
    let auth = auth.and_then(|path| Some(("http.basic_auth_file", Auth::load(path).err()?)));
    tls.into_iter().chain(auth).collect()
}

/// Binds `listen` and serves from then on. A failed bind fails the start: monitoring must not be silently absent.
///
/// # Errors
/// The port is taken, or [`Exit::Config`] for a file that protects it.
pub fn serve(listen: std::net::SocketAddr, protection: &HttpProtection, process: Process, ready: &Ready) -> Result<()> {
    let acceptor = protection.tls.as_ref().map(tls::acceptor).transpose()?;
    let auth = protection.basic_auth_file.as_deref().map(Auth::load).transpose()?.map(Arc::new);
    let listener = TcpListener::bind(listen).map_err(|e| {
        let remedy = remedy(e.kind());
        Error::new(Exit::Failed, format!("http.listen {listen}")).because(e).hint(remedy)
    })?;
    let shown = Shown { process, ready: ready.0.clone(), auth };
    let (tls, users) = (acceptor.is_some(), shown.auth.is_some());
    let serve = move || {
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(shown.clone()))
                .wrap(from_fn(permitted))
                .route("/metrics", web::get().to(metrics))
                .route("/-/healthy", web::get().to(healthy))
                .route("/-/ready", web::get().to(is_ready))
                .route("/-/status", web::get().to(status))
        });
        let server = server.workers(1).disable_signals();
        let server = match acceptor {
            Some(acceptor) => server.listen_openssl(listener, acceptor),
            None => server.listen(listener),
        };
        let run = async move { server?.run().await };
        if let Err(error) = actix_web::rt::System::new().block_on(run) {
            tracing::error!(error = %error, "http server ended");
        }
    };
    std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(serve)
        .map_err(|e| Error::new(Exit::Failed, "cannot start a thread").because(e))?;
    tracing::info!(%listen, tls, users, "http listens");
    Ok(())
}

/// What helps where a port cannot be had.
fn remedy(why: std::io::ErrorKind) -> &'static str {
    match why {
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; choose another http.listen, for example \"0.0.0.0:9748\" for all it has"
        }
        std::io::ErrorKind::PermissionDenied => {
            "this user may not listen on a port below 1024; choose a higher one as http.listen"
        }
        _ => "another process has this port; choose another http.listen, or \"\" to switch it off",
    }
}

/// Lets a request through whose user is permitted, and every one where there are no users.
async fn permitted<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> actix_web::Result<ServiceResponse<EitherBody<B>>> {
    let auth = request.app_data::<web::Data<Shown>>().and_then(|shown| shown.auth.clone());
    let permitted = match auth {
        None => true,
        Some(auth) => {
            let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let value = value.unwrap_or_default().to_owned();
            web::block(move || auth.permits(&value)).await?
        }
    };
    if permitted {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let ask = (header::WWW_AUTHENTICATE, "Basic realm=\"kafka-backup\", charset=\"UTF-8\"");
    let refusal = HttpResponse::Unauthorized().insert_header(ask).body("unauthorized\n");
    Ok(request.into_response(refusal).map_into_right_body())
}

async fn metrics(shown: web::Data<Shown>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(scrape::metrics_text(&shown.process))
}

async fn healthy() -> HttpResponse {
    HttpResponse::Ok().body("healthy\n")
}

async fn is_ready(shown: web::Data<Shown>) -> HttpResponse {
    if shown.ready.load(Ordering::Acquire) {
        HttpResponse::Ok().body("ready\n")
    } else {
        HttpResponse::ServiceUnavailable().body("not ready\n")
    }
}

async fn status(shown: web::Data<Shown>) -> HttpResponse {
    HttpResponse::Ok().json(StatusDocument::of(&shown.process))
}
