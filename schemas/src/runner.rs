//! The protocol between the engine, a pool and the runner that wraps every job.
//!
//! Everything durable goes through the *attempt folder* (an object prefix `attempts/<attempt file name>/`): `spec.json`
//! written by the engine, `claim.json` put by the runner only if absent, `heartbeat.json`, `log` and at last
//! `result.json`. The result object, not the pool's memory, is the truth. Claims and results carry a MAC made with the
//! attempt's credential, so that nobody but the holder can forge one.

use std::collections::BTreeMap;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;

use crate::{ArtifactRef, Millis};

/// Version of this protocol; a runner refuses a specification with another major version.
pub const PROTOCOL: u32 = 1;

/// How the user's program is started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Program {
    /// A script for `/bin/sh -eu`, in a process on the pool's machine.
    Script {
        /// The text, exactly as the workflow has it.
        script: String,
    },
    /// A program and its arguments.
    Exec {
        /// `argv`; not empty.
        argv: Vec<String>,
    },
}

/// What one attempt is to do. Holds no secret values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// [`crate::AttemptKey`] in its text form.
    pub attempt: String,
    /// `run/step[index]`, given to the job as `KICKWHEEL_TASK`.
    pub task: String,
    /// What is started.
    pub program: Program,
    /// Added to a small fixed environment (PATH, HOME, LANG).
    pub env: BTreeMap<String, String>,
    /// The pinned source tree as a folder artifact, laid out in the work folder as files that cannot be written; absent
    /// for a run without source.
    pub source: Option<ArtifactRef>,
    /// Relative paths below the work folder, and what is laid there (read-only) before the start.
    pub files: BTreeMap<String, ArtifactRef>,
    /// Declared outputs that are paths.
    pub output_paths: BTreeMap<String, String>,
    /// Declared outputs that are values written to `$KICKWHEEL_OUTPUT`.
    pub output_values: Vec<String>,
    /// The user's time-out in milliseconds; then SIGTERM, the grace, SIGKILL.
    pub timeout_ms: Option<u64>,
    /// From SIGTERM to SIGKILL.
    pub grace_ms: u64,
    /// Resident memory of the whole session, in bytes; exceeding it ends the job as out-of-memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of log that are kept; what comes after is dropped with a notice.
    pub log_limit_bytes: u64,
    /// From the event that caused the run, as `TRACEPARENT`.
    pub traceparent: Option<String>,
    /// Which network a container has; a process of the machine has the machine's.
    #[serde(default)]
    pub network: Network,
    /// Whether a container's own file system cannot be written to. The attempt's folder and `/dev/shm` still can.
    #[serde(default)]
    pub read_only_root: bool,
    /// The name of a file below `$KICKWHEEL_SECRETS`, and which secret is laid there. The values travel apart from this,
    /// sealed ([`crate::sealed`]).
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// What the user should know before the program starts: sentences for the log.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The network of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The loopback device only.
    #[default]
    None,
    /// The pool's usual one, from which other machines can be reached.
    Outbound,
}

/// Put by the runner, only if absent, before any user code. A loser exits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// [`JobSpec::attempt`].
    pub attempt: String,
    /// Random, tells two runners of one attempt apart.
    pub nonce: String,
    /// The runner's process id on its machine.
    pub pid: u32,
    /// Start time of that process in clock ticks since boot (`/proc/<pid>/stat`, field 22): with `pid` it names a process.
    pub start_ticks: u64,
    /// Boot id of the machine.
    pub boot: String,
    /// When it was claimed.
    pub at: Millis,
    /// [`mac`] over the other fields.
    pub mac: String,
}

/// Overwritten every few seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When it was written.
    pub at: Millis,
    /// Process id of the user's program, 0 before it is started.
    pub child_pid: u32,
    /// Start time of that process, as in [`Claim::start_ticks`].
    pub child_start_ticks: u64,
    /// Resident memory of the session in bytes.
    pub rss_bytes: u64,
    /// Fraction done in 0..=1 when the job reports one (metric `progress`).
    pub progress: Option<f64>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobEnd {
    /// Exit code 0 and every declared output present.
    Succeeded,
    /// The program ended with another code.
    Exited {
        /// 1..=255.
        code: i32,
    },
    /// A signal that we did not send ended it.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// [`JobSpec::timeout_ms`] passed.
    TimedOut,
    /// [`JobSpec::memory_bytes`] was exceeded.
    OutOfMemory {
        /// How it was noticed: `cgroup`, `rss-watch`, or `docker` where the runner was killed with its container.
        mechanism: String,
    },
    /// The engine asked for it.
    Cancelled,
    /// Exit code 0, but a declared output is missing or malformed.
    BadOutput {
        /// What is wrong.
        message: String,
    },
    /// The job could not be set up (an input missing, disk full): the platform's failure, not the user's.
    Setup {
        /// What is wrong.
        message: String,
    },
}

/// Written once, at the end: the truth about the attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// [`JobSpec::attempt`].
    pub attempt: String,
    /// [`Claim::nonce`] of the runner that wrote it.
    pub nonce: String,
    /// How it ended.
    pub end: JobEnd,
    /// Values from `$KICKWHEEL_OUTPUT`.
    pub values: BTreeMap<String, Value>,
    /// Stored outputs; content-addressed already, but referred to by nobody until the engine accepts the result.
    pub artifacts: BTreeMap<String, ArtifactRef>,
    /// The last value of each metric.
    pub metrics: BTreeMap<String, f64>,
    /// When user code was started; equal to `ended_at` when it never was.
    pub started_at: Millis,
    /// When it ended.
    pub ended_at: Millis,
    /// User and system time of the job, in milliseconds.
    pub cpu_ms: u64,
    /// Highest resident memory seen, in bytes.
    pub peak_rss_bytes: u64,
    /// [`mac`] over the other fields.
    pub mac: String,
}

/// Written by the engine to ask for the end of an attempt; a runner that finds it before user code runs none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// From SIGTERM to SIGKILL.
    pub grace_ms: u64,
    /// When it was asked.
    pub at: Millis,
}

/// Written by the agent when a runner process ended without leaving a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerExit {
    /// Process id that the runner had.
    pub pid: u32,
    /// How it ended, for people.
    pub message: String,
    /// When the agent saw it.
    pub at: Millis,
}

/// Another Unix user, as whom the program of an attempt runs; its runner stays what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobUser {
    /// Given to the job as `USER` and `LOGNAME`.
    pub name: String,
    /// Not 0.
    pub uid: u32,
    /// Every group that it is in, its own one first.
    pub groups: Vec<u32>,
    /// A group that nobody else is in while the attempt lives. Of it are the job's processes and what they may read, so
    /// that two jobs of one user are strangers to each other.
    pub group: u32,
    /// A folder that this user can reach, for the folder which the job sees.
    pub folder: String,
}

/// What an agent is told about a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerStart {
    /// [`crate::AttemptKey::file_name`]; the folder and its specification exist.
    pub attempt: String,
    /// The runner binary.
    pub runner: String,
    /// Root folder of the artifact store.
    pub artifacts: String,
    /// A delegated cgroup folder for memory limits, when there is one.
    pub cgroup: Option<String>,
}

/// What the engine asks of the local pool's agent: one JSON object per line over its Unix socket, one answer each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum AgentRequest {
    /// Start a runner for this attempt unless this agent's runner of it still lives.
    Start(RunnerStart),
    /// The same, whose job is another user's. A request of its own: an agent that does not know of users refuses it,
    /// where it would pass over a field.
    StartAs {
        /// What is started.
        #[serde(flatten)]
        start: RunnerStart,
        /// Whose the job is.
        user: JobUser,
    },
    /// Say who is there.
    Status,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum AgentReply {
    /// A runner of the attempt lives.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// To [`AgentRequest::Status`].
    Status {
        /// [`PROTOCOL`].
        protocol: u32,
        /// The agent's process id.
        pid: u32,
        /// Attempts whose runners it waits for.
        running: Vec<String>,
    },
    /// The request was not performed.
    Refused {
        /// Why.
        message: String,
    },
}

/// Names of the files in an attempt folder.
pub mod file {
    /// [`super::JobSpec`].
    pub const SPEC: &str = "spec.json";
    /// The attempt's credential as text; removed by the runner that has read it.
    pub const CREDENTIAL: &str = "credential";
    /// [`crate::sealed::Sealed`]; removed by the runner that has opened it.
    pub const SECRETS: &str = "secrets.sealed";
    /// [`super::Claim`].
    pub const CLAIM: &str = "claim.json";
    /// [`super::Heartbeat`].
    pub const HEARTBEAT: &str = "heartbeat.json";
    /// Standard output and standard error of the job, as one stream of bytes.
    pub const LOG: &str = "log";
    /// [`super::JobResult`].
    pub const RESULT: &str = "result.json";
    /// [`super::CancelRequest`].
    pub const CANCEL: &str = "cancel.json";
    /// [`super::RunnerExit`].
    pub const EXIT: &str = "exit.json";
    /// The job's working folder.
    pub const WORK: &str = "work";
}

/// What `/proc/<pid>/stat` says about a process, as far as both sides of this protocol need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// `R`, `S`, `D`, `Z` and so on.
    pub state: char,
    /// Its parent's process id.
    pub parent: u32,
    /// Its session's id.
    pub session: u32,
    /// User and system time of its waited-for children, in clock ticks.
    pub children_ticks: u64,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessStat {
    /// Parses the file's text; none if it is no such text. The command's name, field 2, may itself hold blanks and
    /// parentheses, so fields are counted from the last one (proc(5)).
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(4)?).ok()?,
            session: u32::try_from(number(6)?).ok()?,
            children_ticks: number(16)? + number(17)?,
            start_ticks: number(22)?,
        })
    }

    /// Whether it can still do something: a zombie cannot.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The MAC of a claim or result: HMAC-SHA256, in hex, with the attempt's credential as key, over the JSON of `body` with
/// an empty `mac` field.
pub fn mac(credential: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(credential).expect("HMAC takes keys of any length");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// The credential of one attempt: derived from the data folder's key, so that nothing has to be stored to check it.
pub fn credential(key: &[u8], attempt: &str) -> String {
    mac(key, format!("attempt:{attempt}").as_bytes())
}

/// A document that carries a MAC over its other fields.
pub trait Signed: Serialize + Clone {
    /// Replaces the MAC and returns the old one.
    fn replace_mac(&mut self, mac: String) -> String;

    /// The same document, signed with the attempt's credential.
    fn signed(mut self, credential: &str) -> Self {
        self.replace_mac(String::new());
        let body = serde_json::to_vec(&self).expect("protocol types have string keys only");
        self.replace_mac(mac(credential.as_bytes(), &body));
        self
    }

    /// Whether the MAC is the one that the holder of `credential` makes; compared in constant time.
    fn is_authentic(&self, credential: &str) -> bool {
        use subtle::ConstantTimeEq as _;
        let mut copy = self.clone();
        let given = copy.replace_mac(String::new());
        let body = serde_json::to_vec(&copy).expect("protocol types have string keys only");
        mac(credential.as_bytes(), &body).as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl Signed for Claim {
    fn replace_mac(&mut self, mac: String) -> String {
        std::mem::replace(&mut self.mac, mac)
    }
}

impl Signed for JobResult {
    fn replace_mac(&mut self, mac: String) -> String {
        std::mem::replace(&mut self.mac, mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        let (attempt, nonce, boot) = ("a#1".to_owned(), "n".to_owned(), "b".to_owned());
        Claim { attempt, nonce, pid: 1, start_ticks: 2, boot, at: Millis(3), mac: String::new() }
    }

    #[test]
    fn only_the_holder_of_the_credential_signs_and_only_what_was_signed_is_authentic() {
        let signed = claim().signed("secret");
        assert!(signed.is_authentic("secret"));
        assert!(!signed.is_authentic("other"));
        assert!(!Claim { pid: 9, ..signed }.is_authentic("secret"));
        assert!(!claim().is_authentic("secret"));
    }

    #[test]
    fn an_agents_requests_keep_their_form() {
        let start =
            RunnerStart { attempt: "a".to_owned(), runner: "r".to_owned(), artifacts: "s".to_owned(), cgroup: None };
        let user = JobUser { name: "j".to_owned(), uid: 1, groups: vec![2, 3], group: 4, folder: "f".to_owned() };
        let check = |request: AgentRequest, expected: &str| {
            assert_eq!(serde_json::to_string(&request).expect("it has string keys"), expected);
            assert_eq!(serde_json::from_str::<AgentRequest>(expected).expect("it is one"), request);
        };
        check(
            AgentRequest::Start(start.clone()),
            r#"{"op":"start","attempt":"a","runner":"r","artifacts":"s","cgroup":null}"#,
        );
        check(
            AgentRequest::StartAs { start, user },
            r#"{"op":"start_as","attempt":"a","runner":"r","artifacts":"s","cgroup":null,"user":{"name":"j","uid":1,"groups":[2,3],"group":4,"folder":"f"}}"#,
        );
        check(AgentRequest::Status, r#"{"op":"status"}"#);
    }

    #[test]
    fn a_command_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text = "42 (a ) b) (c) S 1 42 43 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 1000 10 18446744073709551615";
        let expected = ProcessStat { state: 'S', parent: 1, session: 43, children_ticks: 15, start_ticks: 987 };
        assert_eq!(ProcessStat::parse(text), Some(expected));
        assert_eq!(ProcessStat::parse("42 (a"), None);
    }
}
