//! `completions`: for the shell.

use clap_complete::Shell;

use super::{command, help, print};
use crate::error::Result;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = help(
    "  kafka-backup completions bash > /usr/share/bash-completion/completions/kafka-backup\n  \
       kafka-backup completions fish | source"
))]
pub struct Args {
    /// Which shell
    pub shell: Shell,
}

/// Prints the completions.
///
/// # Errors
/// stdout cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "kafka-backup", &mut text);
    print(&String::from_utf8_lossy(&text))
}
