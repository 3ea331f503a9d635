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
    let text = String::from_utf8_lossy(&text);
    if args.shell == Shell::Bash { print(&mended(&text)) } else { print(&text) }
}

/// clap_complete calls a program with a dash in its name by one name where it finds the command that is typed, and by
/// another where it looks up its options, so that bash would complete nothing behind a command.
fn mended(text: &str) -> String {
    text.replace("kafka__subcmd__backup", "kafka__backup")
}
