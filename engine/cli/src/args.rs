//! The command line: every command, option and its help. Nothing is done here; see `commands`.
//!
//! One long file on purpose: it is a table, read from top to bottom like the help that is made of it.

// The comments here are help texts for the terminal, not Markdown.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kickwheel_runtime::bus::BusConfig;
use kickwheel_schemas::api::{KafkaStart, MissedTicks, Role, TriggerKind};
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
// Under a heading of their own, so that a command's own options stand first in its help.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
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
    /// PEM file of an authority that may have signed the server's certificate, beside the system's
    #[arg(long, global = true, env = "KICKWHEEL_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
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
    Serve(Box<Serve>),
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
    /// Where events come from: webhooks, topics, schedules
    #[command(subcommand)]
    Triggers(Triggers),
    /// Values that are kept encrypted
    #[command(subcommand)]
    Secrets(Secrets),
    /// Who may use the API
    #[command(subcommand)]
    Tokens(Tokens),
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
    /// Address to listen on; port 0 takes a free one. Any but loopback needs TLS or a trusted proxy, an API token, and
    /// no host processes of the engine's own user
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
    /// PEM file with the certificate, and those between it and an authority: speak TLS. Read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Addresses of the proxy in front, such as 10.0.0.0/24: its X-Forwarded headers are believed. Can be given again
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub trusted_proxy: Vec<ipnet::IpNet>,
    /// URL under which others reach this server: for links, and as a name that it answers to
    #[arg(long, value_name = "URL", value_parser = public_url)]
    pub public_url: Option<reqwest::Url>,
    /// Another name that this server answers to. Can be given again
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// Whether steps without an image may run as processes of this machine
    #[arg(long, value_enum, default_value_t = OnOff::On)]
    pub host_processes: OnOff,
    /// Unix user that such processes run as; needs root [default: the engine's own]
    #[arg(long, value_name = "NAME")]
    pub job_user: Option<String>,
    /// Folder that this user can reach, for what its jobs see [default: beside the data folder, with -jobs appended]
    #[arg(long, value_name = "DIR", requires = "job_user")]
    pub job_folder: Option<PathBuf>,
    /// File with the key that encrypts secrets, 64 hex digits; KICKWHEEL_SECRETS_KEY gives the key itself [default:
    /// secrets.key in the data folder, made when it is needed]
    #[arg(long, value_name = "FILE")]
    pub secrets_key_file: Option<PathBuf>,
    /// How long to let things end after SIGTERM
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = crate::times::duration)]
    pub drain: std::time::Duration,
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Yes.
    On,
    /// No.
    Off,
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
    /// What could not become an event, or could not be decided
    #[command(subcommand)]
    Quarantine(Quarantine),
}

/// `events quarantine`.
#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// List what is held, newest first
    Ls {
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Also inputs that somebody has dealt with
        #[arg(long)]
        all: bool,
    },
    /// Show one with its headers and its body
    Show {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Take it in with another body, as a new event that names its cause
    Edit {
        /// Its id, or the beginning of it
        id: String,
        /// File with the body as it should have been; of an event, the whole event as JSON. `-` is stdin
        #[arg(long, value_name = "FILE")]
        body: PathBuf,
    },
    /// Take it in as it is: what was in the way is there no more
    Replay {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Give it up
    Drop {
        /// Its id, or the beginning of it
        id: String,
        /// Why, for those who look later
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// `triggers`.
#[derive(Debug, Subcommand)]
pub enum Triggers {
    /// Make a trigger, or change the one of that name
    Add(Box<NewTrigger>),
    /// List triggers, and what became of what they were sent
    Ls,
    /// Show one trigger, and what has to be done at the sender's
    Get {
        /// Its name
        name: String,
    },
    /// Remove a trigger
    Rm {
        /// Its name
        name: String,
    },
    /// Take nothing in through it
    Pause {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Take things in again
    Resume {
        /// Names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Say what a request of a provider would become, without a server: its CloudEvents, one JSON object per line
    Translate(Translate),
}

/// `triggers add`.
#[derive(Debug, Args)]
pub struct NewTrigger {
    /// Its name; for webhooks the last part of the URL
    pub name: String,
    /// github, gitlab, gitea, forgejo, gogs, bitbucket-cloud, bitbucket-dc, jira, s3, minio, gcs, azure, lakefs,
    /// huggingface, mlflow, cloudevents, standard-webhooks, kafka or cron
    #[arg(long, value_parser = kind)]
    pub kind: TriggerKind,
    /// Webhooks of a forge, from github to bitbucket-dc: the bound repository
    #[arg(long, value_name = "NAME")]
    pub repo: Option<String>,
    /// s3, minio, gcs, azure, lakefs, huggingface: the dataset that it is about [default: the sender's own name]
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// jira: the site's URL [default: the one that a delivery links to]
    #[arg(long, value_name = "URL")]
    pub site: Option<String>,
    /// jira: our own account there, whose doings are not told
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Webhooks: the secret that signs; given twice, the new one and then the one before it
    #[arg(long = "secret", value_name = "NAME")]
    pub secrets: Vec<String>,
    /// Webhooks: take requests that nobody signed. Whoever knows the URL can then send events
    #[arg(long)]
    pub unsigned: bool,
    /// Webhooks: largest body [default: 5 MiB]
    #[arg(long, value_name = "N")]
    pub max_bytes: Option<u64>,
    /// Webhooks: how many requests, such as 5/s or 100/m [default: 100/s]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub rate: Option<u32>,
    /// cron: five fields, six with seconds in front, or @daily and its like
    #[arg(long)]
    pub schedule: Option<String>,
    /// cron: IANA name of the zone [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// cron: what becomes of ticks that were not fired in time: latest, all or none [default: latest]
    #[arg(long, value_parser = missed)]
    pub missed: Option<MissedTicks>,
    /// cron: how late a tick may be
    #[arg(long, value_name = "TIME", value_parser = crate::times::duration)]
    pub deadline: Option<std::time::Duration>,
    /// kafka: HOST:PORT, several parted by commas [default: those of the engine's own bus]
    #[arg(long)]
    pub brokers: Option<String>,
    /// kafka: the topic
    #[arg(long)]
    pub topic: Option<String>,
    /// kafka: where reading begins: earliest or latest [default: latest]
    #[arg(long, value_parser = start)]
    pub from: Option<KafkaStart>,
    /// kafka: type of the events that records become which are no CloudEvents [default: such a record is quarantined]
    #[arg(long, value_name = "TYPE")]
    pub record_type: Option<String>,
    /// kafka: property of librdkafka that is no secret
    #[arg(long = "property", value_name = "NAME=VALUE")]
    pub properties: Vec<String>,
    /// kafka: property of librdkafka whose value is a secret
    #[arg(long = "secret-property", value_name = "NAME=SECRET")]
    pub secret_properties: Vec<String>,
}

/// `secrets`.
#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Keep a value, from stdin or a file
    Set {
        /// Its name
        name: String,
        /// File with the value [default: stdin]
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
        /// Only runs of these full refs may see it, such as refs/heads/main or refs/tags/v*. Can be given again [default:
        /// every run of the project]
        #[arg(long = "ref", value_name = "PATTERN")]
        refs: Vec<String>,
    },
    /// List names, never values
    Ls,
    /// Forget a secret
    Rm {
        /// Its name
        name: String,
    },
    /// Encrypt all secrets with another key
    Rekey {
        /// File with the new key, 64 hex digits [default: a new one is made]
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
    },
}

/// `tokens`.
#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Make a token and print it, once
    Create {
        /// What it is for
        name: String,
        /// What its bearer may do: viewer (look), operator (start, cancel, retry, replay), approver, or admin (everything)
        #[arg(long, value_parser = role)]
        role: Role,
        /// Only in this project [default: in all]
        #[arg(long)]
        project: Option<String>,
        /// How long it is accepted, such as 30d [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = crate::times::duration)]
        expires: Option<std::time::Duration>,
    },
    /// List tokens, also those that are over
    Ls,
    /// End a token
    Revoke {
        /// Its id, or its name
        name: String,
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

/// `triggers translate`.
#[derive(Debug, Args)]
pub struct Translate {
    /// Who sent it: github, gitlab, gitea, forgejo, gogs, bitbucket-cloud, bitbucket-dc, jira, s3, minio, gcs, azure,
    /// lakefs, huggingface, mlflow, cloudevents, standard-webhooks or generic
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
    /// The query of the request's URL, where some senders show the secret
    #[arg(long, value_name = "TEXT")]
    pub query: Option<String>,
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

fn one_of<T>(text: &str, known: &[(&str, T)]) -> Result<T, String>
where
    T: Copy,
{
    let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| format!("one of {}", names()))
}

fn kind(text: &str) -> Result<TriggerKind, String> {
    one_of(text, &TriggerKind::ALL.map(|kind| (kind.as_str(), kind)))
}

fn role(text: &str) -> Result<Role, String> {
    one_of(text, &Role::ALL.map(|role| (role.as_str(), role)))
}

fn missed(text: &str) -> Result<MissedTicks, String> {
    one_of(text, &[("latest", MissedTicks::Latest), ("all", MissedTicks::All), ("none", MissedTicks::None)])
}

fn start(text: &str) -> Result<KafkaStart, String> {
    one_of(text, &[("earliest", KafkaStart::Earliest), ("latest", KafkaStart::Latest)])
}

/// Requests per minute.
fn rate(text: &str) -> Result<u32, String> {
    let wrong = || "a number per second or minute, such as 5/s or 100/m".to_owned();
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let per_minute = match unit {
        "s" => number.checked_mul(60),
        "m" => Some(number),
        _ => None,
    };
    per_minute.filter(|n| *n > 0).ok_or_else(wrong)
}

fn network(text: &str) -> Result<ipnet::IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "an address or a network, such as 10.0.0.0/24".to_owned())
}

fn public_url(text: &str) -> Result<reqwest::Url, String> {
    let url = reqwest::Url::parse(text).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
    url.filter(|u| u.path() == "/" && u.query().is_none())
        .ok_or_else(|| "a URL without a path, such as https://kick.example".to_owned())
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
    fn a_commands_own_options_stand_before_those_of_every_command() {
        let mut command = Cli::command();
        command.build();
        let ls = command.find_subcommand_mut("runs").and_then(|runs| runs.find_subcommand_mut("ls"));
        let help = ls.expect("there is `runs ls`").render_long_help().to_string();
        let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("no {text:?} in {help}"));
        let global = at("Global options:");
        assert!(at("--limit") < global && at("--state") < global, "{help}");
        for option in
            ["--server", "--token-file", "--data", "--ca-file", "--json", "--no-color", "--log", "--log-format"]
        {
            assert!(at(&format!("      {option}")) > global, "{option} is not below its heading: {help}");
        }
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
