//! The part of `demo` that shows a compacted topic: two instances, and one turn.

use std::path::Path;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::demo_output::{objects, say};
use crate::compacted::Ordered;
use crate::config::Config;
use crate::error::{Error, Exit, Result};
use crate::pipeline::shown::TurnStatus;
use crate::process::Process;
use crate::supervisor::{OpenJob, Runner};

/// The topic, as it would be compacted by Kafka.
pub const TOPIC: &str = "customers";
/// Its partitions.
pub const PARTITIONS: i32 = 2;
/// Where the two instances tell each other what they do.
pub const COORDINATION: &str = "_compacted_log_backup_coordination";
/// How long a step may take before the demonstration has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The files of the two jobs.
pub fn jobs() -> [(&'static str, String); 2] {
    [("a", "ACTIVATE"), ("b", "PASSIVATE")].map(|(instance, status)| {
        let name = if instance == "a" { "jobs.d/customers-a.toml" } else { "jobs.d/customers-b.toml" };
        let text = format!(
            "type = \"compacted\"\nkafka = \"demo\"\nstorage = \"demo\"\ntopics = [\"{TOPIC}\"]\n\
             instance = \"{instance}\"\ninitial_status = \"{status}\"\nlength_hours = 0.01\n"
        );
        (name, text)
    })
}

/// Lets instance a make a snapshot and b take over from it.
///
/// # Errors
/// What went wrong.
pub fn show(config: &Config, bucket: &Path) -> Result<()> {
    let io = super::runtime()?;
    let shown = System::new().block_on(turn(config, bucket, &io));
    io.shutdown_timeout(Duration::from_secs(2));
    shown
}

async fn turn(config: &Config, bucket: &Path, io: &tokio::runtime::Runtime) -> Result<()> {
    let missing = || Error::new(Exit::Failed, "the demo's own configuration has no such job");
    let (a, b) = (config.job("customers-a").ok_or_else(missing)?, config.job("customers-b").ok_or_else(missing)?);
    let process = Process::start(config, &[a.clone(), b.clone()], io.handle().clone())?;
    let a = process.open(a, false).await?;
    say("   Instance a reads the topic from its beginning into a folder of its own and takes TERM 1.")?;
    reached(&a, "TERM 1", |turn| turn.term >= 1 && turn.owner == "a").await?;
    folder(bucket)?;
    let b = process.open(b, false).await?;
    reached(&b, "the passive instance", |turn| turn.term >= 1 && turn.phase == "resting").await?;
    say("   `kafka-backup swap customers-b`: instance b does the same, takes TERM 2, and a clears its folder.")?;
    if let Runner::Pair(pair) = &b.runner {
        let refused = pair.swap().await.into_values().find(Ordered::is_refused);
        if let Some(Ordered { text, .. }) = refused {
            return Err(Error::new(Exit::Failed, text));
        }
    }
    reached(&b, "TERM 2", |turn| turn.term >= 2 && turn.owner == "b").await?;
    reached(&a, "the cleared folder", |turn| turn.term >= 2 && turn.phase == "resting").await?;
    folder(bucket)?;
    let ended = a.end(PATIENCE).await & b.end(PATIENCE).await;
    process.stop();
    if ended { Ok(()) } else { Err(Error::new(Exit::Failed, "the instances did not end")) }
}

async fn reached(job: &OpenJob, what: &str, is: impl Fn(&TurnStatus) -> bool) -> Result<()> {
    let began = Instant::now();
    while !job.status.turns().get(TOPIC).is_some_and(&is) {
        if began.elapsed() > PATIENCE {
            let why = format!("{:?}, {:?}", job.status.turns(), job.status.problems());
            return Err(Error::new(Exit::Failed, format!("{what} takes too long: {why}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Says what lies in the folder of the topic.
fn folder(bucket: &Path) -> Result<()> {
    for (path, bytes) in objects(bucket)? {
        if path.starts_with(&format!("{TOPIC}/")) || path.contains(&format!("/{TOPIC}/TERM-")) {
            say(&format!("   {path}  ({bytes} bytes)"))?;
        }
    }
    Ok(())
}
