//! Metrics and health over TLS and with users, asked with curl as a scraper would.

use std::path::Path;
use std::process::Command;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};

use crate::common::env::Env;
use crate::common::{beside_others, wait_until};

/// A key and a certificate for 127.0.0.1 that vouches for itself, as `NAME.key` and `NAME.crt` in `folder`.
fn certificate(folder: &Path, name: &str) {
    let key: PKey<Private> = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut subject = X509Name::builder().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(64, openssl::bn::MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    let host = SubjectAlternativeName::new().ip("127.0.0.1").build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(host).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let write = |end: &str, pem: Vec<u8>| {
        // As renewal tools do: the new file takes the place of the old one at once.
        let path = folder.join(format!("{name}.{end}"));
        std::fs::write(path.with_extension("new"), pem).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    };
    write("key", key.private_key_to_pem_pkcs8().unwrap());
    write("crt", builder.build().to_pem().unwrap());
}

/// What curl gets: the status of the answer, 0 when there is none, and its body.
fn curl(args: &[&str]) -> (u32, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "20", "--write-out", "\n%{http_code}"]).args(args);
    let output = command.output().expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("the status is the last line");
    (status.parse().expect("a number"), body.to_owned())
}

#[test]
fn only_users_of_the_file_may_ask() {
    let _turn = beside_others();
    let env = Env::new();
    let users = env.path("users");
    let env = env.set(&format!("http.basic_auth_file = {users:?}"));
    let write = |password: &str| {
        std::fs::write(&users, format!("scraper:{}\n", bcrypt::hash(password, 4).unwrap())).unwrap();
    };
    write("first");
    let daemon = env.daemon();
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", daemon.port());
    wait_until("it answers", crate::common::SOON, || curl(&[&url("/-/healthy")]).0 == 401);
    assert_eq!(curl(&["--user", "scraper:first", &url("/-/healthy")]).0, 200);
    assert!(curl(&["--user", "scraper:first", &url("/metrics")]).1.contains("kafka_backup_build_info"));
    for path in ["/metrics", "/-/status", "/-/ready", "/nowhere"] {
        assert_eq!(curl(&[&url(path)]).0, 401, "{path}");
        assert_eq!(curl(&["--user", "scraper:second", &url(path)]).0, 401, "{path}");
        assert_eq!(curl(&["--user", "other:first", &url(path)]).0, 401, "{path}");
    }
    write("second");
    assert_eq!(curl(&["--user", "scraper:first", &url("/metrics")]).0, 401, "the file holds, not what was read");
    assert_eq!(curl(&["--user", "scraper:second", &url("/metrics")]).0, 200);
    assert!(!daemon.log().contains("second"), "no password in the log");
}

#[test]
fn tls_with_client_certificates_that_are_renewed_while_it_runs() {
    let _turn = beside_others();
    let env = Env::new();
    let folder = env.path("tls");
    std::fs::create_dir_all(&folder).unwrap();
    ["server", "client", "stranger"].iter().for_each(|name| certificate(&folder, name));
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let env = env.set(&format!(
        "http.tls_cert_file = {:?}\nhttp.tls_key_file = {:?}\nhttp.tls_client_ca_file = {:?}",
        file("server.crt"),
        file("server.key"),
        file("client.crt"),
    ));
    let daemon = env.daemon();
    let url = format!("https://127.0.0.1:{}/metrics", daemon.port());
    let ask = |who: &str| {
        let [ca, cert, key] = ["server.crt", &format!("{who}.crt"), &format!("{who}.key")].map(file);
        curl(&["--cacert", &ca, "--cert", &cert, "--key", &key, &url])
    };
    wait_until("it answers", crate::common::SOON, || ask("client").0 == 200);
    assert_eq!(ask("stranger").0, 0, "another certificate");
    assert_eq!(curl(&["--cacert", &file("server.crt"), &url]).0, 0, "no certificate");
    assert_eq!(curl(&[&url.replace("https", "http")]).0, 0, "no TLS");

    certificate(&folder, "server");
    assert_eq!(ask("client").0, 200, "the renewed certificate is served");
    std::fs::write(folder.join("server.key"), "rubbish").unwrap();
    assert_eq!(ask("client").0, 200, "what was read last stays");
    assert!(daemon.log().contains("stays as it was"));
}

#[test]
fn files_of_no_use_are_named_before_the_start() {
    let _turn = beside_others();
    let env = Env::new();
    let folder = env.path("tls");
    std::fs::create_dir_all(&folder).unwrap();
    ["a", "b"].iter().for_each(|name| certificate(&folder, name));
    let set = |key: &str, path: &str| format!("{key} = {:?}\n", folder.join(path));
    let both = format!("{}{}", set("http.tls_cert_file", "a.crt"), set("http.tls_key_file", "b.key"));
    let env = env.set(&both);
    let check = env.kafka_backup(&["config", "check", "--skip-remote"]);
    assert_eq!(check.code(), 78, "{}", check.stdout);
    assert!(check.stdout.contains("http.tls_key_file") && check.stdout.contains("b.key"), "{}", check.stdout);
    let refused = env.daemon();
    assert_eq!(refused.wait().code(), Some(78), "the key is another certificate's");

    let env = Env::new().set(&set("http.tls_cert_file", "a.crt"));
    let check = env.kafka_backup(&["config", "check", "--offline"]);
    assert_eq!(check.code(), 78, "{}", check.stdout);
    assert!(check.stdout.contains("http.tls_cert_file: is given without http.tls_key_file"), "{}", check.stdout);
}
