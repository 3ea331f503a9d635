//! The command's end of the socket.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::protocol::{self, ANSWER_BYTES_MAX, Answer, Request};
use crate::error::{Error, Exit, Result};

/// How long a daemon may take to answer what it does not wait for itself.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Asks the daemon at `socket` and waits for its answer for at most `patience`; what it notes meanwhile goes to `note`.
///
/// # Errors
/// What the daemon says; [`Exit::Unavailable`] where there is none, [`Exit::Busy`] where it takes longer,
/// [`Exit::Auth`] where the socket may not be opened.
pub fn ask<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
    patience: Duration,
    note: impl FnMut(&str),
) -> Result<T> {
    let stream = UnixStream::connect(socket).map_err(|e| not_there(socket, e))?;
    ask_through(stream, socket, request, patience, note)
}

fn ask_through<T: DeserializeOwned>(
    mut stream: UnixStream,
    socket: &Path,
    request: &Request,
    patience: Duration,
    mut note: impl FnMut(&str),
) -> Result<T> {
    let broken = |e: std::io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => late(patience),
        _ => Error::new(Exit::Unavailable, format!("the daemon at {} broke off", socket.display())).because(e),
    };
    let mut line = serde_json::to_vec(request).map_err(|e| Error::new(Exit::Failed, "request").because(e))?;
    line.push(b'\n');
    let until = Instant::now() + patience;
    stream.set_write_timeout(Some(patience.max(MOMENT))).map_err(broken)?;
    match stream.write_all(&line) {
        // Turned away before it was asked: why stands in the answer.
        Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
        written => written.map_err(broken)?,
    }
    let mut answers = BufReader::new(stream.try_clone().map_err(broken)?).take(ANSWER_BYTES_MAX);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(MOMENT))).map_err(broken)?;
        let mut line = Vec::new();
        answers.read_until(b'\n', &mut line).map_err(broken)?;
        if line.is_empty() {
            let what = format!("the daemon at {} ended before it had answered", socket.display());
            return Err(Error::new(Exit::Unavailable, what).hint("look at its log"));
        }
        match serde_json::from_slice(&line).map_err(not_understood)? {
            Answer::Note { text } => note(&text),
            Answer::Done { value } => return serde_json::from_value(value).map_err(not_understood),
            Answer::Failed { exit, what, hint } => return Err(protocol::error(exit, what, hint)),
        }
    }
}

/// A timeout of nothing would be none at all.
const MOMENT: Duration = Duration::from_millis(1);

fn not_there(socket: &Path, error: std::io::Error) -> Error {
    let at = socket.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Error::new(Exit::Unavailable, format!("no daemon listens at {at}"))
                .hint("systemctl start kafka-backup; for a daemon with another configuration give --config")
        }
        ErrorKind::PermissionDenied => Error::new(Exit::Auth, format!("{at} may not be opened"))
            .hint("run it with sudo, or join the group of the daemon to look"),
        _ => Error::new(Exit::Unavailable, format!("the daemon at {at} cannot be reached")).because(error),
    }
}

fn late(patience: Duration) -> Error {
    Error::new(Exit::Busy, format!("no answer within {} s", patience.as_secs_f64().ceil()))
        .hint("what was asked for may still happen; kafka-backup status says how everything is")
}

fn not_understood(error: serde_json::Error) -> Error {
    Error::new(Exit::Failed, "the daemon's answer is not understood")
        .because(error)
        .hint("are command and daemon of the same version? restart the daemon after an upgrade")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_of_one_that_left(said: &[u8]) -> Error {
        let (client, mut daemon) = UnixStream::pair().unwrap();
        daemon.write_all(said).unwrap();
        drop(daemon);
        let socket = Path::new("control.sock");
        ask_through::<()>(client, socket, &Request::Status { job: None }, PATIENCE, |_| {}).unwrap_err()
    }

    #[test]
    fn who_is_turned_away_before_it_has_asked_is_told_why() {
        let mut said = serde_json::to_vec(&Answer::from(Error::new(Exit::Busy, "32 others are looking"))).unwrap();
        said.push(b'\n');
        let told = asked_of_one_that_left(&said);
        assert_eq!((told.exit, told.to_string()), (Exit::Busy, "32 others are looking".to_owned()));
    }

    #[test]
    fn a_daemon_that_leaves_without_a_word_is_not_there() {
        assert_eq!(asked_of_one_that_left(b"").exit, Exit::Unavailable);
    }
}
