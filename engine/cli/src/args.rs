//! The command line: every command, option and its help. Nothing is done here; see `commands`.

// The comments here are help texts for the terminal, not Markdown.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kickwheel_runtime::bus::BusConfig;
use kickwheel_triggers::http::Provider;

use crate::exit;

/// Event-driven workflows for machine-learning and data teams.
#[derive(Debug, Parser)]
#[command(name = "kickwheel", version, after_long_help = exit::HELP, max_term_width = 110)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// The server's URL [default: what `<data>/endpoint` says]
    #[arg(long, global = true, env = "KICKWHEEL_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// File that holds the server's token [default: <data>/token]
    #[arg(long, global = true, env = "KICKWHEEL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The data folder [default: $XDG_DATA_HOME/kickwheel or ~/.local/share/kickwheel]
    #[arg(long, global = true, env = "KICKWHEEL_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print JSON instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
    /// No colour; NO_COLOR in the environment does the same
    #[arg(long, global = true)]
    pub no_color: bool,
    /// What to log on stderr: a level or a filter as in RUST_LOG
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// How to log
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Form of the log on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: engine, triggers and API
    Serve(Serve),
    /// Run a workflow file once, here and now, on the uncommitted working tree
    Run(Run),
    /// Check workflow files and show every mistake
    Validate {
        /// Workflow files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say what an event meant for each workflow, and why
    Explain {
        /// An event's id, a run's id, or `latest`
        #[arg(default_value = "latest")]
        event: String,
        /// Only this workflow
        #[arg(long)]
        workflow: Option<String>,
    },
    /// Runs: list, look at, watch, cancel, retry
    #[command(subcommand)]
    Runs(Runs),
    /// Logs of a task, a step, or a whole run
    Logs(Logs),
    /// Why a task was, or was not, taken from the cache
    #[command(subcommand)]
    Cache(Cache),
    /// Events that were received
    #[command(subcommand)]
    Events(Events),
    /// Workflows of the registry
    #[command(subcommand)]
    Workflows(Workflows),
    /// Models with their versions and stages
    #[command(subcommand)]
    Models(Models),
    /// Datasets with their versions
    #[command(subcommand)]
    Datasets(Datasets),
    /// Stored bytes
    #[command(subcommand)]
    Artifacts(Artifacts),
    /// Repositories whose pushes start workflows
    #[command(subcommand)]
    Repos(Repos),
    /// Sources of events
    #[command(subcommand)]
    Triggers(Triggers),
    /// What carries events: what waits, and what is read
    #[command(subcommand)]
    Bus(Bus),
    /// Projects
    #[command(subcommand)]
    Projects(Projects),
    /// Check everything thoroughly and say what to do
    Doctor,
    /// Ask whether the server is up and working
    Health,
    /// What Git's hooks call
    #[command(subcommand, hide = true)]
    Hook(Hook),
}

/// `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Loopback address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "HOST:PORT")]
    pub listen: String,
    /// `postgres://…` [default: SQLite in the data folder]
    #[arg(long, env = "KICKWHEEL_DATABASE", hide_env_values = true, value_name = "URL")]
    pub database: Option<String>,
    /// The log that carries events: `embedded`, or `kafka://HOST:PORT[,HOST:PORT...][/PREFIX][?property=value]`
    #[arg(long, env = "KICKWHEEL_BUS", hide_env_values = true, default_value = "embedded", value_name = "URL")]
    pub bus: BusConfig,
    /// Run steps with an `image` in containers of this Docker Engine (or Podman)
    #[arg(long, env = "KICKWHEEL_DOCKER", value_name = "SOCKET", num_args = 0..=1,
        default_missing_value = "unix:///var/run/docker.sock")]
    pub docker: Option<String>,
    /// CPUs that tasks may use together, such as 4 or 1.5 [default: all]
    #[arg(long, value_name = "N", value_parser = cpu)]
    pub cpu: Option<u64>,
    /// How long this engine owns its shards without a sign of life
    #[arg(long, default_value = "15s", value_name = "TIME", value_parser = crate::times::duration)]
    pub lease: std::time::Duration,
    /// Other machines that may be asked although they are not public (egress.allow): a name, *.name, name:port, an
    /// address or a network; may be given several times
    #[arg(long, env = "KICKWHEEL_EGRESS_ALLOW", value_name = "ENTRY", value_delimiter = ',')]
    pub egress_allow: Vec<String>,
    /// PEM file with authorities to trust beside this machine's (egress.authorities); may be given several times
    #[arg(long, env = "KICKWHEEL_EGRESS_AUTHORITY", value_name = "FILE", value_delimiter = ',')]
    pub egress_authority: Vec<PathBuf>,
    /// Proxy for everything that is asked of other machines over http (egress.proxy) [default: none]
    #[arg(long, env = "KICKWHEEL_EGRESS_PROXY", hide_env_values = true, value_name = "URL")]
    pub egress_proxy: Option<reqwest::Url>,
    /// How long polling leaves it to hooks and webhooks to tell of a push
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = crate::times::duration)]
    pub poll_grace: std::time::Duration,
    /// Commit every plugin call of a chain by itself instead of letting pure calls run ahead of the commit
    #[arg(long, env = "KICKWHEEL_NO_PURE_BATCHING")]
    pub no_pure_batching: bool,
    /// How long to let things end after SIGTERM
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = crate::times::duration)]
    pub drain: std::time::Duration,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The workflow file
    pub file: PathBuf,
    /// Value of an input, as `name=value`
    #[arg(long = "input", short = 'i', value_name = "NAME=VALUE")]
    pub inputs: Vec<String>,
    /// CPUs that tasks may use together [default: all]
    #[arg(long, value_name = "N", value_parser = cpu)]
    pub cpu: Option<u64>,
}

/// `runs`.
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// List runs, newest first
    Ls {
        /// Which ones
        #[command(flatten)]
        filter: RunFilter,
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one run with its steps and tasks
    Get {
        /// The run's id, or the beginning of it
        id: String,
        /// Follow it to its end; the exit code tells the result
        #[arg(long, short)]
        watch: bool,
    },
    /// End runs
    Cancel {
        /// Which ones
        #[command(flatten)]
        select: Select,
        /// Why, for those who look later
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Start runs again for the same event; what has not changed comes from the cache
    Retry {
        /// Which ones
        #[command(flatten)]
        select: Select,
    },
}

/// Which runs.
#[derive(Clone, Debug, Default, Args)]
pub struct RunFilter {
    /// Of this workflow
    #[arg(long)]
    pub workflow: Option<String>,
    /// In any of these states: queued, running, waiting, succeeded, failed, cancelled
    #[arg(long, value_delimiter = ',', value_parser = phase)]
    pub state: Vec<String>,
    /// Of this branch
    #[arg(long)]
    pub branch: Option<String>,
    /// Created since: `2h`, `3d`, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Created before, in the same forms
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// Runs by id, or all that a filter finds.
#[derive(Debug, Args)]
pub struct Select {
    /// Ids of runs, or the beginnings of them
    pub ids: Vec<String>,
    /// Which ones, when no id is given
    #[command(flatten)]
    pub filter: RunFilter,
    /// Do not ask before doing it to all that the filter finds
    #[arg(long, short)]
    pub yes: bool,
    /// All runs to which it can be done, when neither id nor filter is given
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The run's id, or the beginning of it; `RUN/STEP[INDEX]` also names the task
    pub run: String,
    /// Step, or task as `STEP[INDEX]` [default: all tasks]
    #[arg(value_name = "STEP")]
    pub task: Option<String>,
    /// The step, given as an option
    #[arg(long, conflicts_with = "task")]
    pub step: Option<String>,
    /// Index of the task in its step
    #[arg(long)]
    pub index: Option<u32>,
    /// Go on until the tasks have ended
    #[arg(long, short)]
    pub follow: bool,
    /// Which attempt [default: the last]
    #[arg(long)]
    pub attempt: Option<u32>,
}

/// `cache`.
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Why a task was, or was not, taken from the cache
    Why {
        /// RUN/STEP[INDEX]
        task: String,
    },
}

/// `events`.
#[derive(Debug, Subcommand)]
pub enum Events {
    /// List events, newest first
    Ls {
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one event
    Get {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Send one CloudEvent (structured JSON) from a file, or from stdin as `-`
    Send {
        /// The file
        file: PathBuf,
    },
}

/// `workflows`.
#[derive(Debug, Subcommand)]
pub enum Workflows {
    /// List workflows, broken files included
    Ls,
    /// Show one workflow
    Get {
        /// Its name
        name: String,
    },
    /// Put workflow files into the registry
    Apply {
        /// Workflow files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Let events start nothing
    Pause {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Let events start it again
    Resume {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Start a workflow by hand
    Start {
        /// Its name
        name: String,
        /// Value of an input, as `name=value`
        #[arg(long = "input", short = 'i', value_name = "NAME=VALUE")]
        inputs: Vec<String>,
        /// Follow the run to its end; the exit code tells the result
        #[arg(long, short)]
        watch: bool,
    },
}

/// `models`.
#[derive(Debug, Subcommand)]
pub enum Models {
    /// List models
    Ls,
    /// Show one model with its versions
    Get {
        /// Its name
        name: String,
    },
}

/// `datasets`.
#[derive(Debug, Subcommand)]
pub enum Datasets {
    /// List datasets
    Ls,
    /// Show one dataset with its versions
    Get {
        /// Its name
        name: String,
    },
    /// Watch a folder or file: each settled change is a new version
    Add {
        /// The dataset's name, such as churn/raw
        name: String,
        /// Folder or file
        path: PathBuf,
        /// How long nothing may have changed before a version is published
        #[arg(long, default_value = "2s", value_name = "TIME", value_parser = crate::times::duration)]
        settle: std::time::Duration,
    },
    /// Watch it no longer; its versions stay
    Rm {
        /// Its name
        name: String,
    },
}

/// `artifacts`.
#[derive(Debug, Subcommand)]
pub enum Artifacts {
    /// Fetch the bytes and check their hash; for a folder, its manifest
    Get {
        /// sha256:…
        digest: String,
        /// Where to [default: stdout]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// `repos`.
#[derive(Debug, Subcommand)]
pub enum Repos {
    /// Bind a repository: its pushes are events, its `.kickwheel/` files are workflows
    Add {
        /// URL, or path of a local repository, which gets our post-receive hook
        url: String,
        /// The name that filters use
        #[arg(long)]
        name: String,
        /// Secret that its server asks for: a password or token behind https, a private key behind ssh
        #[arg(long, value_name = "NAME")]
        secret: Option<String>,
        /// Whom to log in as behind https [default: any, as beside a token]
        #[arg(long, value_name = "USER")]
        username: Option<String>,
        /// File with the keys of the ssh server, as in ~/.ssh/known_hosts
        #[arg(long, value_name = "FILE")]
        known_hosts: Option<PathBuf>,
        /// Take the key that the ssh server shows first for the right one
        #[arg(long, conflicts_with = "known_hosts")]
        accept_new_host_key: bool,
        /// How often to look for pushes that nobody told of, such as 60s, or `off` [default: 60s; 5m beside our hook]
        #[arg(long, value_name = "TIME", value_parser = poll)]
        poll: Option<u64>,
    },
    /// List bound repositories
    Ls,
    /// Unbind a repository and remove the hook
    Rm {
        /// Its name
        name: String,
    },
}

/// `triggers`.
#[derive(Debug, Subcommand)]
pub enum Triggers {
    /// Say what a request of a provider would become, without a server: its CloudEvents, one JSON object per line
    Translate(Translate),
}

/// `triggers translate`.
#[derive(Debug, Args)]
pub struct Translate {
    /// Who sent it: github, cloudevents, standard-webhooks
    #[arg(long)]
    pub provider: Provider,
    /// File with the request's headers, a JSON object [default: none, so the body is judged alone]
    #[arg(long, value_name = "FILE")]
    pub headers: Option<PathBuf>,
    /// File with the request's body, or stdin as `-`
    #[arg(long, value_name = "FILE")]
    pub body: PathBuf,
    /// The shared secret; without it nothing is verified
    #[arg(long, value_name = "SECRET")]
    pub secret: Option<String>,
}

/// `bus`.
#[derive(Debug, Subcommand)]
pub enum Bus {
    /// Show what waits for Kafka, and every partition that is read
    Ls,
    /// Say where stopped partitions are read on
    Reset {
        /// The stream, as `bus ls` shows it
        stream: String,
        /// One partition [default: all that are stopped]
        #[arg(long)]
        partition: Option<i32>,
        /// `earliest`, `latest`, or an offset
        #[arg(long)]
        to: String,
    },
}

/// `projects`.
#[derive(Debug, Subcommand)]
pub enum Projects {
    /// List projects
    Ls,
}

/// `hook`.
#[derive(Debug, Subcommand)]
pub enum Hook {
    /// Record a push: reads Git's lines from stdin
    PostReceive {
        /// Name of the bound repository
        #[arg(long)]
        repo: String,
    },
}

fn cpu(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(cpus) if cpus >= 0.001 && cpus <= f64::from(u32::MAX) => Ok((cpus * 1000.0).round() as u64),
        _ => Err("a number of CPUs above 0, such as 4 or 1.5".to_owned()),
    }
}

/// In milliseconds; 0 stands for never.
fn poll(text: &str) -> Result<u64, String> {
    if text == "off" {
        return Ok(0);
    }
    match crate::times::duration(text) {
        Ok(every) if !every.is_zero() => Ok(every.as_millis() as u64),
        Ok(_) => Err("write `off` for a repository that is not to be polled".to_owned()),
        Err(e) => Err(format!("{e}, or `off`")),
    }
}

fn phase(text: &str) -> Result<String, String> {
    const PHASES: [&str; 6] = ["queued", "running", "waiting", "succeeded", "failed", "cancelled"];
    if PHASES.contains(&text) { Ok(text.to_owned()) } else { Err(format!("one of {}", PHASES.join(", "))) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_are_taken_after_the_command_too() {
        let cli =
            Cli::try_parse_from(["kickwheel", "runs", "ls", "--state", "failed,running", "--json", "--data", "/d"])
                .expect("it parses");
        assert!(cli.global.json);
        assert_eq!(cli.global.data, Some(PathBuf::from("/d")));
        let Command::Runs(Runs::Ls { filter, limit: 50 }) = cli.command else { panic!("{:?}", cli.command) };
        assert_eq!(filter.state, ["failed", "running"]);
    }

    #[test]
    fn a_state_that_no_run_can_have_is_a_usage_error() {
        let error = Cli::try_parse_from(["kickwheel", "runs", "ls", "--state", "done"]).expect_err("refused");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn all_and_ids_exclude_each_other() {
        assert!(Cli::try_parse_from(["kickwheel", "runs", "cancel", "abc", "--all"]).is_err());
    }

    #[test]
    fn polling_is_a_time_or_off() {
        assert_eq!((poll("60s"), poll("off")), (Ok(60_000), Ok(0)));
        assert!(poll("0s").is_err() && poll("often").is_err());
    }

    #[test]
    fn cpus_become_thousandths() {
        assert_eq!(cpu("1.5"), Ok(1500));
        assert!(cpu("0").is_err() && cpu("many").is_err() && cpu("NaN").is_err());
    }
}
