//! `kickwheel`: the one binary. Parses the command line, performs the command, tells what went wrong, and exits with the
//! code that [`exit`] documents.
//!
//! Where to look next: [`args`] for what can be typed, [`commands`] for what each command does, [`client`] for how the
//! server is found and spoken to, [`progress`] for how a run is watched.
//!
//! Deliberately absent: decisions about events and runs. A command asks the API; only `run` and `serve` hold an engine.

mod args;
mod check;
mod client;
mod commands;
mod exit;
mod inputs;
mod output;
mod places;
mod progress;
mod runner_binary;
mod signals;
mod times;
mod trace;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;

use crate::{args::Cli, commands::Session, exit::Failure, output::Look};

fn main() -> ExitCode {
    let cli = Cli::parse();
    trace::start(&cli.global, &cli.command);
    let session = Session { look: Look::of(&cli.global), global: cli.global };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("threads can be started; without any nothing could be done");
    let outcome = runtime.block_on(commands::perform(&session, cli.command));
    // What still runs in the background (a follower of a log, a drained server's last connection) must not hold us up.
    runtime.shutdown_background();
    match outcome {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => {
            tell(&session, &failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// On stderr: what is wrong and what to do; as JSON when that is wanted.
fn tell(session: &Session, failure: &Failure) {
    if session.look.json {
        let problem = serde_json::json!({
            "code": failure.code,
            "detail": failure.message,
            "help": failure.help,
            "exit": failure.exit.code(),
        });
        eprintln!("{problem}");
        return;
    }
    let color = std::io::stderr().is_terminal() && !session.global.no_color && std::env::var_os("NO_COLOR").is_none();
    let look = Look { color, ..Look::PLAIN };
    eprintln!("{} {failure}", look.paint(output::Paint::Bad, "error:"));
    if let Some(help) = &failure.help {
        eprintln!("{} {help}", look.paint(output::Paint::Busy, " help:"));
    }
}
