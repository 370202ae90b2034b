//! The commands, by what they are about. Each asks the API (or does its one local thing) and shows the answer.

pub mod artifacts;
pub mod assets;
pub mod bus;
mod cache;
pub mod events;
pub mod explain;
pub mod hook;
pub mod logs;
pub mod quarantine;
pub mod repos;
pub mod run;
pub mod runs;
pub mod secrets;
pub mod serve;
pub mod state;
pub mod tokens;
pub mod translate;
pub mod triggers;
pub mod validate;
pub mod workflows;

use crate::{
    args::{Command, Global},
    client::Client,
    exit::Outcome,
    output::Look,
};

/// What every command is given.
pub struct Session {
    /// The options of every command.
    pub global: Global,
    /// How to write.
    pub look: Look,
}

impl Session {
    /// The server, found but not yet spoken to.
    pub fn client(&self) -> Result<Client, crate::exit::Failure> {
        Client::find(&self.global)
    }
}

/// Does what the command line says.
pub async fn perform(session: &Session, command: Command) -> Outcome {
    match command {
        Command::Serve(serve) => serve::serve(session, *serve).await,
        Command::Run(run) => run::run(session, run).await,
        Command::Validate { files } => validate::validate(session, &files),
        Command::Explain { event, workflow } => explain::explain(session, &event, workflow).await,
        Command::Runs(runs) => runs::runs(session, runs).await,
        Command::Logs(logs) => logs::logs(session, logs).await,
        Command::Cache(cache) => cache::cache(session, cache).await,
        Command::Events(events) => events::events(session, events).await,
        Command::Workflows(workflows) => workflows::workflows(session, workflows).await,
        Command::Models(models) => assets::models(session, models).await,
        Command::Datasets(datasets) => assets::datasets(session, datasets).await,
        Command::Artifacts(artifacts) => artifacts::artifacts(session, artifacts).await,
        Command::Bus(bus) => bus::bus(session, bus).await,
        Command::Repos(repos) => repos::repos(session, repos).await,
        Command::Triggers(triggers) => triggers::triggers(session, triggers).await,
        Command::Secrets(secrets) => secrets::secrets(session, secrets).await,
        Command::Tokens(tokens) => tokens::tokens(session, tokens).await,
        Command::Projects(projects) => repos::projects(session, projects).await,
        Command::Doctor => state::doctor(session).await,
        Command::Health => state::health(session).await,
        Command::Hook(hook) => hook::hook(session, hook).await,
    }
}
