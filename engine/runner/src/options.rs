//! The command line. Written by hand: two commands, and every dependency is carried into each container.

use std::path::PathBuf;

use kickwheel_schemas::runner::JobUser;

use crate::secrets::MEMORY;

/// Shown for `--help` and after a mistake.
pub const USAGE: &str = "usage:
  kickwheel-runner run --attempt-dir DIR --artifacts ROOT [--outputs ROOT] [--secrets DIR]
                       [--cgroup DIR | --container] [--job-user JSON]
      Claim and execute one attempt, write its result into DIR. Inputs are read from the store at
      --artifacts, outputs are stored there or at --outputs. Secrets are laid out below --secrets,
      a file system in memory (/dev/shm). --container: this program and the job are all that runs
      in the container, whose memory limit is the job's. --job-user: the job is another user's,
      with a folder below the one that is named there.
  kickwheel-runner agent --dir DIR [--detach]
      Start runners for the local pool in DIR, as asked over DIR/agent.sock. With --detach,
      go into the background and return when the socket answers.
  kickwheel-runner check-user --job-user JSON
      Try whether jobs can be that user's, and whether it reaches its folder.";

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Print [`USAGE`].
    Help,
    /// Print the version.
    Version,
    /// Wrap one job.
    Run(Run),
    /// Be the agent.
    Agent(Agent),
    /// Try to be another user.
    CheckUser(JobUser),
}

/// Options of `run`.
#[derive(Debug, PartialEq)]
pub struct Run {
    /// The attempt's folder, named by its key.
    pub attempt: PathBuf,
    /// Root folder of the artifact store.
    pub artifacts: PathBuf,
    /// Root folder of the store for outputs; the same one if absent.
    pub outputs: Option<PathBuf>,
    /// A folder in memory, below which secrets are laid out.
    pub secrets: PathBuf,
    /// How the job's memory can be limited.
    pub memory: Memory,
    /// Whose the job is, when it is not ours.
    pub user: Option<JobUser>,
}

/// What there is to limit memory with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing: it is watched.
    Watch,
    /// A delegated cgroup folder in which groups may be made.
    Delegated(PathBuf),
    /// The container has the limit.
    Container,
}

/// Options of `agent`.
#[derive(Debug, PartialEq)]
pub struct Agent {
    /// The pool's folder.
    pub folder: PathBuf,
    /// How it lives.
    pub mode: AgentMode,
}

/// How the agent lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentMode {
    /// As the caller's child; what a service manager wants.
    Foreground,
    /// Start the agent in the background and return when it answers.
    Detach,
    /// Be the agent in the background, in a session of its own. Used by `Detach` only.
    Detached,
}

/// Reads the arguments that follow the program's name.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter();
    let command = arguments.next().unwrap_or_default();
    let (mut attempt, mut artifacts, mut cgroup, mut folder) = (None, None, None, None);
    let (mut outputs, mut secrets, mut container) = (None, None, false);
    let mut user = None;
    let mut mode = AgentMode::Foreground;
    match command.as_str() {
        "--help" | "-h" | "help" => return Ok(Command::Help),
        "--version" | "-V" => return Ok(Command::Version),
        "run" | "agent" | "check-user" => {}
        other => return Err(format!("unknown command {other:?}")),
    }
    while let Some(argument) = arguments.next() {
        let slot = match (command.as_str(), argument.as_str()) {
            ("run", "--attempt-dir") => &mut attempt,
            ("run", "--artifacts") => &mut artifacts,
            ("run", "--outputs") => &mut outputs,
            ("run", "--secrets") => &mut secrets,
            ("run", "--cgroup") => &mut cgroup,
            ("run" | "check-user", "--job-user") => {
                let text = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
                let read = serde_json::from_str(&text).map_err(|error| format!("{argument} is no user: {error}"))?;
                user = Some(read);
                continue;
            }
            ("run", "--container") => {
                container = true;
                continue;
            }
            ("agent", "--dir") => &mut folder,
            ("agent", "--detach") => {
                mode = AgentMode::Detach;
                continue;
            }
            ("agent", "--detached") => {
                mode = AgentMode::Detached;
                continue;
            }
            _ => return Err(format!("unknown option {argument:?} of {command}")),
        };
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        *slot = Some(PathBuf::from(value));
    }
    let required = |value: Option<PathBuf>, name: &str| value.ok_or_else(|| format!("{command} needs {name}"));
    if command == "run" {
        let attempt = required(attempt, "--attempt-dir")?;
        let artifacts = required(artifacts, "--artifacts")?;
        let secrets = secrets.unwrap_or_else(|| MEMORY.into());
        let memory = match (cgroup, container) {
            (Some(_), true) => return Err("--cgroup and --container exclude each other".to_owned()),
            (Some(folder), false) => Memory::Delegated(folder),
            (None, true) => Memory::Container,
            (None, false) => Memory::Watch,
        };
        if user.is_some() && memory == Memory::Container {
            return Err("--job-user and --container exclude each other".to_owned());
        }
        Ok(Command::Run(Run { attempt, artifacts, outputs, secrets, memory, user }))
    } else if command == "check-user" {
        user.map(Command::CheckUser).ok_or_else(|| format!("{command} needs --job-user"))
    } else {
        Ok(Command::Agent(Agent { folder: required(folder, "--dir")?, mode }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Command, String> {
        parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_may_come_in_any_order() {
        let expected = Run {
            attempt: "a".into(),
            artifacts: "b".into(),
            outputs: Some("o".into()),
            secrets: MEMORY.into(),
            memory: Memory::Delegated("c".into()),
            user: None,
        };
        assert_eq!(words("run --cgroup c --artifacts b --outputs o --attempt-dir a"), Ok(Command::Run(expected)));
        let Ok(Command::Run(run)) = words("run --container --artifacts b --secrets s --attempt-dir a") else {
            panic!("they are all known")
        };
        assert_eq!((run.memory, run.secrets), (Memory::Container, "s".into()));
        let text = r#"{"name":"j","uid":1,"groups":[2],"group":3,"folder":"f"}"#;
        let user = JobUser { name: "j".to_owned(), uid: 1, groups: vec![2], group: 3, folder: "f".to_owned() };
        assert_eq!(words(&format!("check-user --job-user {text}")), Ok(Command::CheckUser(user.clone())));
        let Ok(Command::Run(run)) = words(&format!("run --job-user {text} --artifacts b --attempt-dir a")) else {
            panic!("they are all known")
        };
        assert_eq!(run.user, Some(user));
        assert_eq!(
            words("agent --detach --dir d"),
            Ok(Command::Agent(Agent { folder: "d".into(), mode: AgentMode::Detach }))
        );
    }

    #[test]
    fn a_missing_or_unknown_option_is_a_mistake() {
        for bad in [
            "",
            "walk",
            "run",
            "run --attempt-dir a",
            "run --attempt-dir a --artifacts b --cgroup c --container",
            "run --attempt-dir",
            "agent",
            "agent --artifacts a --dir d",
            "check-user",
            "run --attempt-dir a --artifacts b --job-user nobody",
        ] {
            assert!(words(bad).is_err(), "{bad:?}");
        }
    }
}
