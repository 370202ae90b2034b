//! The log: on stderr, for people or as JSON. Only `serve` logs by default; other commands speak for themselves.

use tracing_subscriber::{EnvFilter, fmt};

use crate::args::{Command, Global, LogFormat};

/// What `serve` logs when nothing is said. wasmtime and sqlx are chatty below warnings.
const SERVE: &str = "info,sqlx=warn,wasmtime=warn,cranelift=warn";
/// What the other commands log when nothing is said.
const QUIET: &str = "error";

/// Sets up the log for the whole process.
pub fn start(global: &Global, command: &Command) {
    let default = if matches!(command, Command::Serve(_)) { SERVE } else { QUIET };
    let asked = global.log.clone().or_else(|| std::env::var("RUST_LOG").ok().filter(|v| !v.is_empty()));
    let filter = asked.unwrap_or_else(|| default.to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|e| {
        eprintln!("warning: the log filter {filter:?} cannot be read ({e}); logging {default:?}");
        EnvFilter::new(default)
    });
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match global.log_format {
        LogFormat::Human => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().with_current_span(true).init(),
    }
}
