//! The sign of life for a dead-man's switch: sent while every job is within its target, and only then.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::common::check::await_caught_up;
use crate::common::env::Env;
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::{SOON, beside_others, stack, wait_until};

/// What nobody may see who has not read the file.
const TOKEN: &str = "c0ffee-only-ours";

/// Who misses the heartbeats when they do not come.
struct Switch {
    address: String,
    beats: Arc<AtomicU64>,
    answer: Arc<AtomicU16>,
}

impl Switch {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (beats, answer) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU16::new(200)));
        let (counted, code) = (beats.clone(), answer.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let asked = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                if asked == format!("GET /ping/{TOKEN} HTTP/1.1") {
                    counted.fetch_add(1, Ordering::AcqRel);
                }
                let code = code.load(Ordering::Acquire);
                let _ = write!(&stream, "HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Self { address, beats, answer }
    }

    fn beats(&self) -> u64 {
        self.beats.load(Ordering::Acquire)
    }
}

#[test]
fn a_heartbeat_is_sent_while_all_is_well() {
    let _turn = beside_others();
    let kafka = Kafka::shared();
    let topic = kafka.topic("heartbeat", 1, &[]);
    let (switch, proxy) = (Switch::start(), Proxy::start(stack::s3_endpoint()));
    let env = Env::new();
    let file = env.path("heartbeat-url");
    std::fs::write(&file, format!("http://{}/ping/{TOKEN}\n", switch.address)).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let env = env.set(&format!("heartbeat.url_file = {file:?}\nheartbeat.interval = \"1s\"")).storage_behind(&proxy);
    let daemon = env.daemon().ready();
    let sent = |result: &str| daemon.metric("kafka_backup_heartbeat_sent_total", &[&format!("result=\"{result}\"")]);

    // Nothing is backed up: that is not well.
    wait_until("a heartbeat to be withheld", SOON, || sent("withheld") >= 2.0);
    assert_eq!((switch.beats(), sent("ok")), (0, 0.0));
    let lines = format!("topics = [{topic:?}]\nrotate_interval = \"1s\"\nrpo_target = \"12s\"\n");
    std::fs::write(env.job_file("beats"), lines).unwrap();
    assert_eq!(env.tell(&["reload"]).code(), 0);
    kafka.produce(&topic, 0, &numbered(0..10, 10));
    await_caught_up(&kafka, &env.bucket, &topic);
    let before = switch.beats();
    wait_until("heartbeats to arrive", SOON, || switch.beats() >= before + 3);
    assert!(sent("ok") >= 1.0);

    // Late: silence. The store is there again: heartbeats.
    proxy.set(Fault::Status(503), Hits::DataPuts);
    kafka.produce(&topic, 0, &numbered(10..20, 10));
    wait_until("the job to be over its target", SOON, || env.tell(&["status"]).code() == 4);
    let withheld = sent("withheld");
    wait_until("a heartbeat under way to have arrived", SOON, || sent("withheld") >= withheld + 2.0);
    let before = switch.beats();
    let withheld = sent("withheld");
    wait_until("heartbeats to be withheld", SOON, || sent("withheld") >= withheld + 3.0);
    assert_eq!(switch.beats(), before);
    proxy.set(Fault::Pass, Hits::All);
    wait_until("heartbeats to arrive again", SOON, || switch.beats() > before);

    // The other side is not well: that is counted, said once, and tried again.
    switch.answer.store(500, Ordering::Release);
    wait_until("failures to be counted", SOON, || sent("failed") >= 3.0);
    assert_eq!(daemon.log().matches("the heartbeat did not arrive").count(), 1);
    switch.answer.store(200, Ordering::Release);
    daemon.await_log("heartbeats arrive again");

    // The URL is nobody's business.
    let shown = env.tell(&["config", "show"]).stdout;
    assert!(shown.contains("heartbeat-url") && !shown.contains(TOKEN), "{shown}");
    assert!(!daemon.log().contains(TOKEN));
    std::fs::write(&file, "no URL").unwrap();
    let checked = env.tell(&["config", "check"]);
    assert_eq!(checked.code(), 78, "{checked:?}");
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(said.contains("heartbeat.url_file: ") && said.contains("does not hold one http:// or"), "{said}");
    assert!(daemon.stop().success());
}
