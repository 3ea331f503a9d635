//! `verify`: is the backup what it must be?

use std::sync::Arc;

use clap::ValueEnum;

use super::{Context, help, runtime, storage_or_only};
use crate::config::{Config, Job, Lifecycle, Retention};
use crate::error::{Error, Exit, Result};
use crate::inspect::verify::{self, Verify};
use crate::model::verify::subset::Subset;
use crate::model::verify::{Expiry, ExpiryOf, Mode};
use crate::restore::gather;
use crate::restore::stop::Stop;
use crate::storage;

/// Check that the backup is what it must be, from storage alone
///
/// Needs neither Kafka nor the daemon, and credentials that only read are enough. Each finding names the object, what
/// is wrong with it, which offsets are affected and what to do next. Ends with 4 when there is damage.
///
/// The result is kept in the bucket under _kafka_backup/status/, from where the daemon shows it as metrics, unless the
/// credentials only read or only one topic was looked at.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup verify                                    names and metadata of everything\n  \
       kafka-backup verify --mode data --subset 1/7           a seventh of the bytes: everything in a week of days\n  \
       kafka-backup verify --storage s3://bucket/prefix --topic orders --mode data --json"
))]
pub struct Args {
    /// Which store: a name from the main file, or a URL [default: main, or the only one]
    #[arg(long, value_name = "NAME|URL")]
    pub storage: Option<String>,
    /// Only this topic
    #[arg(long)]
    pub topic: Option<String>,
    /// Only the topics that this job backs up, as the bucket says
    #[arg(long)]
    pub job: Option<String>,
    /// How deep to look: list (names and sizes), manifest (and what each object says of itself, and whether each begins
    /// where the one before ended), data (and download, decompress, decode and compare every byte) [default: manifest,
    /// or data with --subset]
    #[arg(long, value_enum, value_name = "list|manifest|data", hide_possible_values = true)]
    pub mode: Option<ModeFlag>,
    /// Read the bytes of a part only: a share n/t (the same objects each time; all t shares together are everything), a
    /// percentage, or a size, these two by chance
    #[arg(long, value_name = "1/7|10%|1GiB")]
    pub subset: Option<Subset>,
    /// Do not write the result into the bucket
    #[arg(long)]
    pub no_record: bool,
    /// Print JSON, one object a line, the last one a summary
    #[arg(long)]
    pub json: bool,
}

/// How deep to look, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeFlag {
    /// Names and sizes.
    List,
    /// And what each object says of itself.
    Manifest,
    /// And every byte.
    Data,
}

impl Args {
    /// How deep to look.
    ///
    /// # Errors
    /// [`Exit::Usage`]: a part of the bytes, where no bytes are read.
    pub fn depth(&self) -> Result<Mode> {
        match (self.mode, self.subset) {
            (Some(ModeFlag::List | ModeFlag::Manifest), Some(_)) => {
                Err(Error::new(Exit::Usage, "--subset says which bytes are read, and this mode reads none")
                    .hint("add --mode data, or leave --subset out"))
            }
            (Some(ModeFlag::List), None) => Ok(Mode::List),
            (Some(ModeFlag::Manifest) | None, None) => Ok(Mode::Manifest),
            (Some(ModeFlag::Data) | None, _) => Ok(Mode::Data),
        }
    }
}

/// Verifies.
///
/// # Errors
/// It could not be done.
pub fn run(args: Args, context: &Context) -> Result<Exit> {
    let mode = args.depth()?;
    let config = context.load_leniently()?;
    let place = storage_or_only(&config, args.storage.as_deref())?;
    let stop = Stop::on_signals()?;
    let runtime = runtime()?;
    let store = storage::open_existing(&place, runtime.handle().clone()).map_err(gather::failed)?;
    let verify = Verify {
        store,
        topic: args.topic,
        job: args.job,
        mode,
        subset: args.subset,
        expiry: expiry(Arc::new(config), place.place.clone()),
        record: !args.no_record,
        json: args.json,
    };
    runtime.block_on(verify::run(verify, stop))
}

/// Whether the oldest objects of a topic may be gone, as far as the configuration tells: not, where a job here looks after
/// its retention in this very place. What has expired under its eyes stands in the topic's retention record.
pub(super) fn expiry(config: Arc<Config>, place: crate::config::Place) -> ExpiryOf {
    Arc::new(move |topic| {
        let mut jobs = config.jobs.iter().filter(|job| job.storage.place == place && job.topics.takes(topic));
        if jobs.any(|job| looks_after(job)) { Expiry::Never } else { Expiry::Possible }
    })
}

/// Whether what expires of a job's topics does so under its eyes.
pub(super) fn looks_after(job: &Job) -> bool {
    job.retention == Retention::Keep || job.lifecycle != Lifecycle::Off
}
