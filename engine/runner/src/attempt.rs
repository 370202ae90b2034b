//! One attempt, from claim to result.
//!
//! ```text
//!   specification → claim (a loser leaves) → cancelled already? → set-up → user code → outputs → result → tidy up
//! ```
//!
//! Every way through ends in exactly one result, except three: a lost claim, a runner that is killed, and one that somebody
//! other than the engine tells to end (the machine goes down). The pool reports the latter two as lost.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kickwheel_artifacts::{Artifacts, Attempts, Put};
use kickwheel_schemas::{
    Millis,
    runner::{CancelRequest, Heartbeat, JobEnd, JobResult, JobSpec, JobUser, PROTOCOL, RunnerExit, Signed as _, file},
};
use rustix::{
    fs::Mode,
    process::{DumpableBehavior, getpid, set_child_subreaper, set_dumpable_behavior, setsid, umask},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    claim::{self, Claimed},
    exec::{self, Ended, Execution, discard},
    log::Log,
    metrics::Metrics,
    options,
    outputs::{self, OutputsError, STORE_PATIENCE, STORE_RETRY},
    process, secrets,
    setup::{self, Layout},
    user,
};

/// Between two looks for a cancel request during set-up.
const CANCEL_INTERVAL: Duration = Duration::from_millis(200);

/// What is executed, and where its documents are.
pub struct Attempt {
    /// All attempts of the pool.
    pub attempts: Attempts,
    /// The name of this one's folder.
    pub name: String,
    /// What is to be done.
    pub spec: JobSpec,
    /// How its memory can be limited.
    pub memory: options::Memory,
    /// A folder in memory, below which its secrets are laid out.
    pub secrets: PathBuf,
    /// Opens them, and signs the result.
    pub credential: String,
    /// Whose the job is, when it is not ours.
    pub user: Option<JobUser>,
}

/// Where inputs come from and where outputs go: one store, except in a container.
struct Stores {
    inputs: Artifacts,
    outputs: Artifacts,
}

impl Stores {
    fn open(inputs: &Path, outputs: Option<&Path>) -> Result<Self, String> {
        let inputs = Artifacts::local(inputs).map_err(|error| error.to_string())?;
        let outputs = match outputs {
            Some(outputs) => Artifacts::local(outputs).map_err(|error| error.to_string())?,
            None => inputs.clone(),
        };
        Ok(Self { inputs, outputs })
    }
}

/// What will be written, before it is signed.
struct Draft {
    end: JobEnd,
    outputs: outputs::Outputs,
    metrics: BTreeMap<String, f64>,
    started_at: Millis,
    ended_at: Millis,
    peak_rss_bytes: u64,
}

/// Claims and performs the attempt. `Ok` means that there is a result or that another runner has it.
pub async fn run(options: options::Run) -> Result<(), String> {
    detach()?;
    // From here on a SIGTERM is a message, not the end.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| format!("receive signals: {error}"))?;
    let folder =
        options.attempt.canonicalize().map_err(|error| format!("open {}: {error}", options.attempt.display()))?;
    let name = folder.file_name().and_then(|name| name.to_str()).ok_or("read the attempt folder's name")?.to_owned();
    let parent = folder.parent().ok_or("find the folder of all attempts")?;
    let attempts = Attempts::open(parent).map_err(|error| error.to_string())?;
    let spec: JobSpec = attempts
        .get(&name)
        .await
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("find {}: the engine has written none", folder.join(file::SPEC).display()))?;
    if spec.protocol != PROTOCOL {
        return Err(format!(
            "speak protocol {}: this runner speaks {PROTOCOL}; install the engine's own",
            spec.protocol
        ));
    }
    let Some(claimed) = claim::take(&attempts, &name, &spec).await? else { return Ok(()) };
    let Claimed { credential, nonce } = claimed;
    let options::Run { memory, secrets, user, .. } = options;
    let visible = user.as_ref().map_or_else(|| folder.clone(), |user| user::folder(user, &name));
    let attempt = Attempt { attempts, name, spec, memory, secrets, credential, user };
    let layout = Layout::of(&visible);
    let log = Log::open(&folder.join(file::LOG)).map_err(|error| format!("open the log: {error}"));
    let stores = Stores::open(&options.artifacts, options.outputs.as_deref());
    let outcome = match (log, stores) {
        (Ok(log), Ok(stores)) => perform(&attempt, &layout, &log, &stores, &mut terminate).await,
        (Err(problem), _) | (_, Err(problem)) => Ok(Draft::unstarted(JobEnd::Setup { message: problem })),
    };
    let draft = match outcome {
        Ok(draft) => draft,
        Err(Interrupted) => {
            let message = "it was told to end by a signal that the engine did not send".to_owned();
            let exit = RunnerExit { pid: std::process::id(), message: message.clone(), at: Millis::now() };
            // It only explains; the missing result is what counts.
            let _ = attempt.attempts.put(&attempt.name, &exit).await;
            return Err(format!("finish the attempt: {message}"));
        }
    };
    let keep_work = draft.end != JobEnd::Succeeded;
    write_result(&attempt, nonce, draft).await?;
    discard(&layout.temporary);
    // A failed task's folder is kept for whoever wants to look into it, until the attempt is removed.
    if !keep_work {
        discard(&layout.work);
    }
    Ok(())
}

/// Ties to whoever started us are cut, and everything that we will start is tied to us.
fn detach() -> Result<(), String> {
    // Fails only for a process that leads a group already, which is as good.
    let _ = setsid();
    umask(Mode::from_raw_mode(0o022));
    set_child_subreaper(Some(getpid())).map_err(|error| format!("become a subreaper: {error}"))?;
    // A job of the same user could otherwise read the credential out of our memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| format!("protect its memory: {error}"))
}

/// Somebody other than the engine told us to end.
struct Interrupted;

async fn perform(
    attempt: &Attempt,
    layout: &Layout,
    log: &Log,
    stores: &Stores,
    terminate: &mut Signal,
) -> Result<Draft, Interrupted> {
    let spec = &attempt.spec;
    if is_cancelled(attempt).await {
        return Ok(Draft::unstarted(JobEnd::Cancelled));
    }
    for note in &spec.notes {
        log.note(note);
    }
    if spec.source.is_some() || !spec.files.is_empty() {
        // Laying out can take long: show that somebody is at it.
        let nothing = Heartbeat { at: Millis::now(), child_pid: 0, child_start_ticks: 0, rss_bytes: 0, progress: None };
        let _ = attempt.attempts.put(&attempt.name, &nothing).await;
    }
    let laid_out = tokio::select! {
        laid_out = setup::lay_out(layout, spec, &stores.inputs, attempt.user.as_ref()) => laid_out,
        () = cancelled(attempt) => return Ok(Draft::unstarted(JobEnd::Cancelled)),
        _ = terminate.recv() => {
            if is_cancelled(attempt).await {
                return Ok(Draft::unstarted(JobEnd::Cancelled));
            }
            return Err(Interrupted);
        }
    };
    // Gone when this function returns, however it does.
    let secrets = laid_out.and_then(|()| {
        let folder = attempt.attempts.folder().join(&attempt.name);
        secrets::deliver(&folder, spec, &attempt.credential, &attempt.secrets, attempt.user.as_ref())
    });
    let secrets = match secrets {
        Ok(secrets) => secrets,
        Err(message) => {
            log.note(&format!("failed to {message}"));
            return Ok(Draft::unstarted(JobEnd::Setup { message }));
        }
    };
    let owner = attempt.user.as_ref().map(|user| user.uid);
    let mut metrics = Metrics::new(layout.metrics.clone(), owner);
    let execution = match exec::execute(attempt, layout, log, secrets.as_ref(), &mut metrics, terminate).await {
        Ok(execution) => execution,
        Err(message) => return Ok(Draft::unstarted(JobEnd::Setup { message })),
    };
    let Execution { end, started_at, ended_at, peak_rss_bytes } = execution;
    let end = match end {
        Ended::Job(end) => end,
        Ended::Interrupted => return Err(Interrupted),
    };
    let (metrics, malformed) = metrics.finish();
    if malformed > 0 {
        log.note(&format!("{malformed} lines of $KICKWHEEL_METRICS are no {{\"name\": …, \"value\": number}}"));
    }
    let mut draft = Draft { end, outputs: outputs::Outputs::default(), metrics, started_at, ended_at, peak_rss_bytes };
    if draft.end == JobEnd::Succeeded {
        match outputs::collect(layout, spec, &stores.outputs, owner).await {
            Ok(outputs) => draft.outputs = outputs,
            Err(OutputsError::Bad(message)) => draft.end = JobEnd::BadOutput { message },
            Err(OutputsError::Store(message)) => draft.end = JobEnd::Setup { message },
        }
        if let JobEnd::BadOutput { message } | JobEnd::Setup { message } = &draft.end {
            log.note(message);
        }
        for name in &draft.outputs.undeclared {
            log.note(&format!("the value `{name}` is ignored; declare it under `outputs`"));
        }
    }
    Ok(draft)
}

impl Draft {
    /// User code never ran.
    fn unstarted(end: JobEnd) -> Self {
        let now = Millis::now();
        let (outputs, metrics) = (outputs::Outputs::default(), BTreeMap::new());
        Self { end, outputs, metrics, started_at: now, ended_at: now, peak_rss_bytes: 0 }
    }
}

async fn is_cancelled(attempt: &Attempt) -> bool {
    // A request that cannot be read yet is found by the next look.
    matches!(attempt.attempts.get::<CancelRequest>(&attempt.name).await, Ok(Some(_)))
}

async fn cancelled(attempt: &Attempt) {
    let path = attempt.attempts.folder().join(&attempt.name).join(file::CANCEL);
    loop {
        tokio::time::sleep(CANCEL_INTERVAL).await;
        if fs::exists(&path).unwrap_or(false) {
            return;
        }
    }
}

/// Writes the result, waiting for a full disk to be freed: work of hours should not be lost for a few hundred bytes.
async fn write_result(attempt: &Attempt, nonce: String, draft: Draft) -> Result<(), String> {
    let result = JobResult {
        attempt: attempt.spec.attempt.clone(),
        nonce,
        end: draft.end,
        values: draft.outputs.values,
        artifacts: draft.outputs.artifacts,
        metrics: draft.metrics,
        started_at: draft.started_at,
        ended_at: draft.ended_at,
        cpu_ms: process::children_cpu_ms(),
        peak_rss_bytes: draft.peak_rss_bytes,
        mac: String::new(),
    }
    .signed(&attempt.credential);
    let deadline = Instant::now() + STORE_PATIENCE;
    loop {
        match attempt.attempts.put(&attempt.name, &result).await {
            Ok(Put::Stored) => return Ok(()),
            Ok(Put::Existed) => return Err("write the result: there is one already, which is not ours".to_owned()),
            Err(error) if !error.is_transient() || Instant::now() > deadline => {
                return Err(format!("write the result: {error}"));
            }
            Err(_) => tokio::time::sleep(STORE_RETRY).await,
        }
    }
}
