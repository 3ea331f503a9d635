//! `info`: what is backed up, from storage alone.

use std::sync::Arc;

use super::{Context, help, runtime, storage_or_only};
use crate::config::{Config, StorageConfig};
use crate::error::{Exit, Result};
use crate::inspect::info::{self, Info};
use crate::restore::gather;
use crate::storage;

/// Show what is backed up, from storage alone
///
/// Needs neither Kafka nor the daemon: topics, partitions, offsets, times, sizes and gaps are read from the store.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup info\n  kafka-backup info --storage s3://bucket/prefix --topic orders --json"
))]
pub struct Args {
    /// Which store: a name from the main file, or a URL [default: main, or the only one]
    #[arg(long, value_name = "NAME|URL")]
    pub storage: Option<String>,
    /// Only this topic
    #[arg(long)]
    pub topic: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// The store that is meant.
    ///
    /// # Errors
    /// There is none, or it is not clear which.
    pub fn store(&self, config: &Config) -> Result<Arc<StorageConfig>> {
        storage_or_only(config, self.storage.as_deref())
    }
}

/// Shows what is in a store.
///
/// # Errors
/// The store cannot be read.
pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.load_leniently()?;
    let runtime = runtime()?;
    let place = args.store(&config)?;
    let store = storage::open_existing(&place, runtime.handle().clone()).map_err(gather::failed)?;
    let expiry = super::verify::expiry(Arc::new(config), place.place.clone());
    runtime.block_on(info::run(Info { store, topic: args.topic, expiry, json: args.json }))
}
