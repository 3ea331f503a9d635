//! The program against a real Kafka and a real S3: one binary, because each one links librdkafka and OpenSSL.
//!
//! Every test has topics, buckets and consumer groups of its own, so that they run beside each other. `make test`
//! starts the servers once; `cargo test --test integration` by itself starts and stops its own.

#[path = "../common/mod.rs"]
mod common;

mod adopted;
mod check;
mod compacted;
mod compacted_broker;
mod compacted_credentials;
mod compacted_kills;
mod compacted_operations;
mod compacted_proofs;
mod compacted_refusals;
mod compacted_restore;
mod control;
mod crash;
mod demo;
mod denied;
mod faults;
mod footprint;
mod frozen;
mod groups;
mod harness;
mod heartbeat;
mod http;
mod limits;
mod live;
mod metrics;
mod packages;
mod protected;
mod rebalance;
mod reload;
mod reload_members;
mod reload_targets;
mod reload_watch;
mod restore;
mod restore_target;
mod resume;
mod retention;
mod roundtrip;
mod sandbox;
mod support_bundle;
mod systemd;
mod unreachable;
mod verify;
