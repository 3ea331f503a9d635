//! `cat`: the records of one object, for a person.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Context, help, runtime, storage_or_only};
use crate::config::{Config, StorageConfig};
use crate::error::{Exit, Result};
use crate::inspect::cat::{self, Object};
use crate::restore::gather;
use crate::storage;

/// Show the records of one object
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup cat orders/0/orders-0-00000000000000000000.avro\n  \
       kafka-backup cat s3://bucket/prefix/orders/0/orders-0-00000000000000000000.avro --json\n  \
       kafka-backup cat ./orders-0-00000000000000000000.avro"
))]
pub struct Args {
    /// A key in the store, a URL (s3://, file://), or a local file
    #[arg(value_name = "OBJECT|URL")]
    pub object: String,
    /// Which store a key is in: a name from the main file, or a URL [default: main, or the only one]
    #[arg(long, value_name = "NAME|URL")]
    pub storage: Option<String>,
    /// Print JSON, one record a line
    #[arg(long)]
    pub json: bool,
}

/// Where an object is.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// In a store, under this key.
    Stored(Arc<StorageConfig>, String),
    /// A file of its own.
    Local(PathBuf),
}

impl Args {
    /// The object that is meant: a URL, a file that is there, or else a key.
    ///
    /// # Errors
    /// The URL or the store is not one.
    pub fn target(&self, config: &Config) -> Result<Target> {
        let object = self.object.as_str();
        if let Some(path) = object.strip_prefix("file://") {
            return Ok(Target::Local(path.into()));
        }
        if let Some(rest) = object.strip_prefix("s3://") {
            let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
            let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
            let store = config.store(&format!("s3://{bucket}?{query}"), object)?;
            return Ok(Target::Stored(store, key.to_owned()));
        }
        if self.storage.is_none() && Path::new(object).is_file() {
            return Ok(Target::Local(object.into()));
        }
        Ok(Target::Stored(storage_or_only(config, self.storage.as_deref())?, object.to_owned()))
    }
}

/// Shows the records of an object.
///
/// # Errors
/// The object cannot be read.
pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let config = context.load_main()?;
    let runtime = runtime()?;
    let object = match args.target(&config)? {
        Target::Local(path) => Object::File(path),
        Target::Stored(store, key) => {
            let store = storage::open_existing(&store, runtime.handle().clone()).map_err(gather::failed)?;
            Object::Stored(store, key)
        }
    };
    runtime.block_on(cat::run(object, args.json))
}
