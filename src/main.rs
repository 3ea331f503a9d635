//! Arguments, run, exit code.

fn main() -> std::process::ExitCode {
    kafka_backup::cli::main()
}
