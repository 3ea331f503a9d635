//! Metrics and health over HTTP: reading only, on a thread and a runtime of their own, so that they answer whatever
//! the jobs are doing.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::{App, HttpResponse, HttpServer, web};

use crate::error::{Error, Exit, Result};
use crate::scrape;
use crate::supervisor::Process;

/// What the endpoints look at.
#[derive(Clone)]
struct Shown {
    process: Process,
    ready: Arc<AtomicBool>,
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

/// Binds `listen` and serves from then on. A failed bind fails the start: monitoring must not be silently absent.
pub fn serve(listen: std::net::SocketAddr, process: Process, ready: &Ready) -> Result<()> {
    let listener = TcpListener::bind(listen).map_err(|e| {
        Error::new(Exit::Failed, format!("http.listen {listen}"))
            .because(e)
            .hint("another process has this port; choose another http.listen, or \"\" to switch it off")
    })?;
    let shown = Shown { process, ready: ready.0.clone() };
    let serve = move || {
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(shown.clone()))
                .route("/metrics", web::get().to(metrics))
                .route("/-/healthy", web::get().to(healthy))
                .route("/-/ready", web::get().to(is_ready))
                .route("/-/status", web::get().to(status))
        });
        let server = server.workers(1).disable_signals().listen(listener);
        let run = async move { server?.run().await };
        if let Err(error) = actix_web::rt::System::new().block_on(run) {
            tracing::error!(error = %error, "http server ended");
        }
    };
    std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(serve)
        .map_err(|e| Error::new(Exit::Failed, "cannot start a thread").because(e))?;
    tracing::info!(%listen, "http listens");
    Ok(())
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
    HttpResponse::Ok().content_type("application/json").body(scrape::status_json(&shown.process).to_string())
}
