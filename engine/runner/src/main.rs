//! `kickwheel-runner`: the small static program that wraps every job, and the local pool's agent that starts it.
//!
//! ```text
//!   kickwheel-runner run --attempt-dir DIR --artifacts ROOT [OPTION...]     one attempt, from claim to result
//!   kickwheel-runner agent --dir DIR [--detach]                             the local pool's agent
//!   kickwheel-runner check-user --job-user JSON                             can jobs be that user's?
//! ```
//!
//! Everything durable goes through the attempt's folder (`kickwheel_schemas::runner`), so neither of the two has to live
//! for the other, nor the engine for either. Deliberately absent: any decision. A runner does not retry, knows no run and
//! no workflow, and talks to nobody but its folder and the artifact store.
//!
//! Read in this order: [`attempt`] is the story of one attempt; [`claim`], [`setup`], [`exec`] and [`outputs`] are its
//! chapters, [`secrets`] and [`mask`] what keeps values out of sight, [`user`] what keeps the job of
//! another user out of ours; [`memory`], [`process`], [`log`] and [`metrics`] are what the execution stands on; [`agent`] is the other
//! program.

mod agent;
mod attempt;
mod cgroup;
mod claim;
mod exec;
mod log;
mod mask;
mod memory;
mod metrics;
mod options;
mod outputs;
mod process;
mod secrets;
mod setup;
mod spawn;
mod user;

use std::process::ExitCode;

use options::{AgentMode, Command};

fn main() -> ExitCode {
    let command = match options::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("kickwheel-runner: {problem}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Help => {
            println!("{}", options::USAGE);
            Ok(())
        }
        Command::Version => {
            println!("kickwheel-runner {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Run(options) => in_runtime(attempt::run(options)),
        Command::CheckUser(user) => user::check(&user),
        Command::Agent(options) => match options.mode {
            AgentMode::Detach => agent::detach(&options),
            AgentMode::Foreground | AgentMode::Detached => in_runtime(agent::serve(options)),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("kickwheel-runner: failed to {message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs on this very thread. It has to be the main thread: the kernel sends a job its parent-death signal when the
/// *thread* that started it ends, and only the main thread lives as long as the process.
fn in_runtime(work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start the runtime: {error}"))?;
    let result = runtime.block_on(work);
    // Nothing that still blocks on a thread is worth waiting for: what matters is on disk.
    runtime.shutdown_background();
    result
}
