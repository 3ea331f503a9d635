//! Who may ask: basic authentication against a file of users and bcrypt hashes, as `htpasswd -B` writes it.
//!
//! The file is read again when it changes; where it cannot be read then, the users known so far stay. A hash is made to
//! be slow, and scrapers come every few seconds, so what was found right once is remembered by its SHA-256. Somebody who
//! is not in the file costs as much time as somebody who is: who the users are cannot be told from outside.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use super::file_stamp::FileStamp;
use crate::error::{Error, Exit, Result};

/// Right answers that are remembered.
const REMEMBERED: usize = 64;
/// A hash that no password has, for names that are not in the file: as slow as the usual ones of `htpasswd -B -C 10`.
const NOBODY: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

/// Users by name, with the hashes of their passwords.
type Users = BTreeMap<String, String>;

/// The users of a file.
#[derive(Debug)]
pub struct Auth {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    stamp: Option<FileStamp>,
    users: Users,
    /// Hashes of user, password and bcrypt hash that were found to belong together.
    right: HashSet<[u8; 32]>,
}

impl Auth {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Exit::Config`]: it cannot be read, or a line of it is not `USER:HASH`.
    pub fn load(path: &Path) -> Result<Self> {
        let stamp = FileStamp::of(path);
        let users = read(path)?;
        Ok(Self { path: path.to_owned(), known: Mutex::new(Known { stamp, users, right: HashSet::new() }) })
    }

    /// Whether the value of an `Authorization` header names a user and the right password. Slow: not for a thread that
    /// others wait for.
    pub fn permits(&self, authorization: &str) -> bool {
        let Some((user, password)) = credentials(authorization) else { return false };
        let (hash, answer) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.refresh(&self.path);
            let hash = known.users.get(&user).cloned();
            let answer = hash.as_ref().map(|hash| digest(&user, &password, hash));
            if answer.is_some_and(|answer| known.right.contains(&answer)) {
                return true;
            }
            (hash, answer)
        };
        // Outside of the lock: it takes tens of milliseconds.
        let right = bcrypt::verify(&password, hash.as_deref().unwrap_or(NOBODY)).unwrap_or(false);
        if let (true, Some(answer)) = (right, answer) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.right.len() >= REMEMBERED {
                known.right.clear();
            }
            known.right.insert(answer);
        }
        right && hash.is_some()
    }
}

impl Known {
    fn refresh(&mut self, path: &Path) {
        let stamp = FileStamp::of(path);
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        match read(path) {
            Ok(users) => {
                self.users = users;
                self.right.clear();
                tracing::info!(file = %path.display(), "http users read again");
            }
            Err(error) => tracing::error!(error = %error, "http users stay as they were"),
        }
    }
}

fn digest(user: &str, password: &str, hash: &str) -> [u8; 32] {
    let mut sha = Sha256::new();
    for part in [user, password, hash] {
        sha.update((part.len() as u64).to_le_bytes());
        sha.update(part);
    }
    sha.finalize().into()
}

/// User and password of a header `Basic BASE64(user:password)`.
fn credentials(authorization: &str) -> Option<(String, String)> {
    let (scheme, token) = authorization.split_once(' ')?;
    let text = BASE64_STANDARD.decode(token.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(text).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn read(path: &Path) -> Result<Users> {
    let wrong = |line: usize, why: &str| {
        let place = if line == 0 { String::new() } else { format!(":{line}") };
        Error::new(Exit::Config, format!("http.basic_auth_file {}{place}: {why}", path.display()))
            .hint(format!("write it with: htpasswd -B -c {} USER", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(0, &e.to_string()))?;
    let mut users = Users::new();
    for (at, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((user, hash)) = line.split_once(':').filter(|(user, _)| !user.is_empty()) else {
            return Err(wrong(at, "not USER:HASH"));
        };
        if hash.parse::<bcrypt::HashParts>().is_err() {
            return Err(wrong(at, "not a bcrypt hash"));
        }
        if users.insert(user.to_owned(), hash.to_owned()).is_some() {
            return Err(wrong(at, "this user stands there twice"));
        }
    }
    if users.is_empty() { Err(wrong(0, "names nobody")) } else { Ok(users) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn hash(password: &str) -> String {
        bcrypt::hash(password, 4).unwrap()
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
    }

    #[test]
    fn only_the_right_password_of_a_user_is_let_in() {
        let file = file(&format!("# who may\n\nalice:{}\nbob:{}\n", hash("a:b"), hash("")));
        let auth = Auth::load(file.path()).unwrap();
        for _ in 0..2 {
            assert!(auth.permits(&basic("alice", "a:b")));
            assert!(auth.permits(&basic("bob", "")));
            assert!(!auth.permits(&basic("alice", "a")));
            assert!(!auth.permits(&basic("bob", "a:b")));
            assert!(!auth.permits(&basic("carol", "a:b")));
        }
        let token = BASE64_STANDARD.encode("alice:a:b");
        assert!(auth.permits(&format!("basic {token}")));
        for header in ["", "Basic", "Basic !", &format!("Bearer {token}"), &format!("Basic {token}x")] {
            assert!(!auth.permits(header), "{header}");
        }
    }

    #[test]
    fn a_changed_file_holds_at_once_and_a_broken_one_changes_nothing() {
        let file = file(&format!("alice:{}\n", hash("old")));
        let auth = Auth::load(file.path()).unwrap();
        assert!(auth.permits(&basic("alice", "old")));
        std::fs::write(file.path(), format!("alice:{}\n", hash("new password"))).unwrap();
        assert!(!auth.permits(&basic("alice", "old")) && auth.permits(&basic("alice", "new password")));
        std::fs::write(file.path(), "alice\n").unwrap();
        assert!(auth.permits(&basic("alice", "new password")));
        std::fs::remove_file(file.path()).unwrap();
        assert!(auth.permits(&basic("alice", "new password")));
    }

    #[rstest]
    #[case("", "names nobody")]
    #[case("alice\n", ":1: not USER:HASH")]
    #[case("# x\n:$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n", ":2: not USER:HASH")]
    #[case("alice:secret\n", ":1: not a bcrypt hash")]
    #[case("alice:$apr1$x$y\n", ":1: not a bcrypt hash")]
    fn what_is_wrong_is_named(#[case] text: &str, #[case] expected: &str) {
        let error = Auth::load(file(text).path()).unwrap_err();
        assert_eq!(error.exit, Exit::Config);
        let said = error.to_string();
        assert!(said.contains(expected) && !said.contains("secret"), "{said}");
    }

    #[test]
    fn nobodys_hash_is_one() {
        assert!(NOBODY.parse::<bcrypt::HashParts>().is_ok());
        assert!(!bcrypt::verify("", NOBODY).unwrap());
    }
}
