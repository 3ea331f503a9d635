//! The daemon's end of the socket. It has a thread and a runtime of its own, so that a daemon whose jobs are busy still
//! answers.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::protocol::{Access, Answer, REQUEST_BYTES_MAX, Request};
use super::requests::{self, Daemon};
use crate::error::{Error, Exit, Result};

/// How long a client may take to send its request, or to take a line of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clients served at the same time; the others wait.
const CLIENTS_MAX: usize = 64;
/// Of these, clients that may only look; more of them are turned away, so that they do not keep out who may act.
const LOOKERS_MAX: usize = 32;
/// Read and written by the daemon's user and group.
const MODE: u32 = 0o660;

/// The socket, bound; removed when dropped.
#[derive(Debug)]
pub struct Socket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds `path`. A socket that a dead daemon has left behind is taken over, one that answers is not.
    ///
    /// # Errors
    /// [`Exit::Locked`] where another daemon listens there; [`Exit::Failed`] where it cannot be bound.
    pub fn bind(path: &Path) -> Result<Self> {
        let what = || format!("control.socket {}", path.display());
        let failed = |e: std::io::Error| {
            Error::new(Exit::Failed, what())
                .because(e)
                .hint("choose a control.socket in a folder this user may write to")
        };
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(Error::new(Exit::Locked, format!("{}: another daemon listens there", what()))
                .hint("stop it, or give this one another control.socket"));
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(Error::new(
                    Exit::Failed,
                    format!("{}: something else is there, which is no socket", what()),
                )
                .hint("choose another control.socket, or move away what is there"));
            }
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
        let socket = Self { listener, path: path.to_owned() };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE)).map_err(failed)?;
        socket.listener.set_nonblocking(true).map_err(failed)?;
        Ok(socket)
    }

    /// Answers from now on, for as long as the process lives.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn serve(&self, daemon: Daemon) -> Result<()> {
        let failed = |e: std::io::Error| Error::new(Exit::Failed, "cannot serve the control socket").because(e);
        let listener = self.listener.try_clone().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let serve = move || {
            runtime.block_on(async {
                match UnixListener::from_std(listener) {
                    Ok(listener) => accept(listener, Arc::new(daemon)).await,
                    Err(error) => tracing::error!(error = %error, "the control socket is not served"),
                }
            });
        };
        std::thread::Builder::new().name("control".to_owned()).spawn(serve).map_err(failed)?;
        tracing::info!(socket = %self.path.display(), "control listens");
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, daemon: Arc<Daemon>) {
    let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
    let lookers = Arc::new(Semaphore::new(LOOKERS_MAX));
    loop {
        let Ok(client) = clients.clone().acquire_owned().await else { return }; // never closed
        match listener.accept().await {
            Ok((stream, _)) => {
                let (daemon, lookers) = (daemon.clone(), lookers.clone());
                tokio::spawn(async move {
                    serve(stream, &daemon, &lookers).await;
                    drop(client);
                });
            }
            Err(error) => {
                // Too many open files, most likely: it may pass.
                tracing::warn!(error = %error, "a control client was not accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// One client, one request.
async fn serve(mut stream: UnixStream, daemon: &Daemon, lookers: &Semaphore) {
    let peer = match stream.peer_cred() {
        Ok(peer) => peer,
        Err(error) => return tracing::warn!(error = %error, "a control client without credentials"),
    };
    let (read, mut write) = stream.split();
    let place = if may_act(peer.uid()) { None } else { Some(lookers.try_acquire()) };
    if let Some(Err(_)) = place {
        let busy = Error::new(Exit::Busy, format!("{LOOKERS_MAX} others are looking at this moment"));
        let _ = send(&mut write, &Answer::from(busy.hint("try again"))).await;
        return;
    }
    let request = timeout(PATIENCE, request(read)).await;
    let request = request.unwrap_or_else(|_| Err(Error::new(Exit::Usage, "no request came in time")));
    let request = request.and_then(|request| permit(&request, peer.uid()).map(|()| request));
    let result = match request {
        Err(error) => Err(error),
        Ok(request) => {
            if request.access() == Access::Change {
                tracing::info!(uid = peer.uid(), pid = peer.pid(), ?request, "control request");
            }
            let (notes, mut noted) = mpsc::unbounded_channel();
            let answer = requests::answer(daemon, request, &notes);
            tokio::pin!(answer);
            loop {
                tokio::select! {
                    biased;
                    Some(text) = noted.recv() => {
                        if send(&mut write, &Answer::Note { text }).await.is_none() {
                            return; // nobody waits for it any more
                        }
                    }
                    answer = &mut answer => break answer,
                }
            }
        }
    };
    let last = match result {
        Ok(value) => Answer::Done { value },
        Err(error) => Answer::from(error),
    };
    let _ = send(&mut write, &last).await;
}

async fn request(read: tokio::net::unix::ReadHalf<'_>) -> Result<Request> {
    let mut line = Vec::new();
    let failed = |e: std::io::Error| Error::new(Exit::Usage, "the request cannot be read").because(e);
    // One byte more than allowed tells a request that is too long from one that just fits.
    let mut read = BufReader::new(read).take(REQUEST_BYTES_MAX as u64 + 1);
    read.read_until(b'\n', &mut line).await.map_err(failed)?;
    if line.len() > REQUEST_BYTES_MAX {
        return Err(Error::new(Exit::Usage, format!("the request is longer than {REQUEST_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&line).map_err(|e| {
        Error::new(Exit::Usage, "the request is not understood")
            .because(e)
            .hint("are command and daemon of the same version? restart the daemon after an upgrade")
    })
}

/// Root and the daemon's own user may do everything; whom else the mode of the socket lets in may look.
fn permit(request: &Request, uid: u32) -> Result<()> {
    if request.access() == Access::Read || may_act(uid) {
        return Ok(());
    }
    Err(Error::new(Exit::Auth, format!("user {uid} may look, but change nothing")).hint("run it as root, with sudo"))
}

fn may_act(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

async fn send(write: &mut tokio::net::unix::WriteHalf<'_>, answer: &Answer) -> Option<()> {
    let mut line = serde_json::to_vec(answer).unwrap_or_else(|error| {
        tracing::error!(error = %error, "an answer cannot be written as JSON");
        br#"{"answer":"failed","exit":1,"what":"the answer cannot be written as JSON","hint":null}"#.to_vec()
    });
    line.push(b'\n');
    timeout(PATIENCE, write.write_all(&line)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_do_what() {
        let own = rustix::process::geteuid().as_raw();
        let (status, resume) = (Request::Status { job: None }, Request::Resume { job: "a".to_owned() });
        for uid in [0, own, 12345] {
            assert!(permit(&status, uid).is_ok());
        }
        assert!(permit(&resume, 0).is_ok() && permit(&resume, own).is_ok());
        assert_eq!(permit(&resume, 12345).unwrap_err().exit, Exit::Auth);
    }

    #[test]
    fn a_socket_that_is_in_use_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(Socket::bind(&path).unwrap_err().exit, Exit::Locked);
        drop(socket);
        assert!(!path.exists());
    }

    /// A path that was mistaken for that of a socket: nobody's file is removed.
    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let [file, folder, link] = ["main.toml", "folder", "link"].map(|name| dir.path().join(name));
        std::fs::write(&file, "precious").unwrap();
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &folder, &link] {
            let error = Socket::bind(path).unwrap_err();
            assert_eq!(error.exit, Exit::Failed);
            assert!(error.to_string().contains("is no socket"), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "precious");
        assert!(folder.is_dir());
    }

    #[test]
    fn one_that_was_left_behind_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the file of a dead daemon");
        Socket::bind(&path).unwrap();
    }
}
