//! Stores and brokers that cannot be reached: a verification and a restore say so by their exit code, which nobody can
//! take for damage, and go on by themselves when it does not last.

use std::net::TcpListener;
use std::time::Duration;

use crate::common::check::await_caught_up;
use crate::common::env::{Env, Output};
use crate::common::kafka::Kafka;
use crate::common::proxy::{Fault, Hits, Proxy};
use crate::common::record::numbered;
use crate::common::stack::Cluster;
use crate::common::{SOON, beside_others, stack, unique, wait_until};

/// An address at which nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn backed_up(env: Env) -> (Kafka, String, Env) {
    let kafka = Kafka::shared();
    let topic = kafka.topic("reachable", 1, &[]);
    kafka.produce(&topic, 0, &numbered(0..120, 300));
    let env = env.job("reachable", &[&topic], "flush_size = 30\n");
    env.back_up("reachable");
    (kafka, topic, env)
}

#[test]
fn who_cannot_be_reached_or_is_busy_is_said_by_the_exit_code() {
    let _turn = beside_others();
    let env = Env::new();
    let (bucket, busy) = (env.bucket.clone(), Proxy::start(stack::s3_endpoint()));
    busy.set(Fault::Status(503), Hits::All);
    let env = env.storage("main", stack::s3_endpoint(), &bucket).storage("busy", &busy.url(), &bucket);
    let env = env.storage("nowhere", &format!("http://{}", nobody()), &bucket);
    let env = env.kafka("main", stack::kafka_bootstrap(), &[]).kafka("nowhere", &nobody(), &[]);
    let (kafka, topic, env) = backed_up(env);
    let target = unique("unreached");
    let mapping = format!("{topic}:{target}");
    let verify = |storage| vec!["verify", "--json", "--mode", "data", "--storage", storage];
    let restore = |storage, kafka| {
        vec!["restore", "--json", "--storage", storage, "--kafka", kafka, "--topics", mapping.as_str()]
    };
    let cases = [
        ("a", 69, verify("nowhere")),
        ("b", 75, verify("busy")),
        ("c", 69, restore("nowhere", "main")),
        ("d", 75, restore("busy", "main")),
        ("e", 69, restore("main", "nowhere")),
    ];
    // All at the same time: each tries for a while.
    let outputs: Vec<(i32, Output)> = std::thread::scope(|scope| {
        let run = |(instance, code, args)| (code, env.kafka_backup_named::<&str>(instance, args));
        let running: Vec<_> = cases.iter().map(|(i, code, args)| scope.spawn(move || run((*i, *code, args)))).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (code, output) in outputs {
        assert_eq!(output.code(), code, "{output:?}");
        let last = output.stderr.lines().last().unwrap_or_default();
        let last: serde_json::Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert_eq!((&last["message_type"], &last["code"]), (&"exit_error".into(), &code.into()), "{last}");
        assert!(!output.stdout.contains("finding"), "nothing is called damaged: {output:?}");
    }
    assert_eq!(kafka.partitions(&target), 0);
}

#[test]
fn what_does_not_last_is_waited_for() {
    let _turn = beside_others();
    let proxy = Proxy::start(stack::s3_endpoint());
    let (kafka, topic, env) = backed_up(Env::new().storage_behind(&proxy));
    let target = unique("waited");
    let mapping = format!("{topic}:{target}");
    let verify = vec!["verify", "--json", "--mode", "data"];
    let restore = vec!["restore", "--json", "--storage", "main", "--kafka", "main", "--topics", &mapping];
    for (fault, args) in [Fault::Status(503), Fault::CutBefore].into_iter().flat_map(|f| [(f, &verify), (f, &restore)])
    {
        let begun = proxy.hit();
        proxy.set(fault, Hits::All);
        let running = env.start(args, "waiting");
        wait_until("requests to meet the fault", SOON, || proxy.hit() >= begun + 3);
        proxy.set(Fault::Pass, Hits::All);
        assert_eq!(running.wait().code(), Some(0), "{args:?}, {fault:?}");
        if args == &restore {
            assert_eq!(kafka.end(&target, 0), 120);
            kafka.delete_topic(&target);
        }
    }
}

/// A node is suspended for longer than its session with the controller, and when it wakes up it names no broker to those who
/// ask just then. Each client of the daemon finds it again: those that read, and the one that asks for topics.
#[test]
fn a_node_that_was_suspended_is_found_again() {
    let _turn = beside_others();
    let cluster = Cluster::start(1);
    let kafka = Kafka::at(&cluster.bootstrap);
    let topics: Vec<_> = (0..4).map(|_| kafka.topic("suspended", 1, &[])).collect();
    let env = Env::new().kafka("main", &cluster.bootstrap, &[]);
    let env = topics.iter().fold(env, |env, topic| env.job(topic, &[topic], "rotate_interval = \"1s\"\n"));
    let daemon = env.daemon().ready();
    for round in 0..4 {
        topics.iter().for_each(|topic| kafka.produce(topic, 0, &numbered(round * 10..round * 10 + 10, 100)));
        topics.iter().for_each(|topic| await_caught_up(&kafka, &env.bucket, topic));
        // The session is 6 s long.
        cluster.suspend_broker(1, Duration::from_secs(9));
    }
    topics.iter().for_each(|topic| kafka.produce(topic, 0, &numbered(40..50, 100)));
    topics.iter().for_each(|topic| await_caught_up(&kafka, &env.bucket, topic));
    assert!(daemon.stop().success());
}
