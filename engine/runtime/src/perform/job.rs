//! Jobs: looked up in the cache, admitted, handed to the pool, followed to their end.

use std::{sync::Arc, time::Duration};

use kickwheel_core::{
    Input,
    decide::Ending,
    event::{Failure, FailureKind, RunRef, TaskOutput, Work},
    plan::{OutputDecl, Resources},
};
use kickwheel_pool::{Observed, Request, StartError};
use kickwheel_schemas::{
    ArtifactRef, Manifest, ManifestEntry, Millis, RunId,
    runner::{JobEnd, JobResult},
    sealed::Secrets,
};
use kickwheel_store::{
    ReadError, Write, fault,
    rows::AssetKind,
    write::{CachePut, CacheRecord, CacheReplace, CacheResult, PublishDataset},
};
use tracing::{debug, info, warn};

use super::{
    Attempt, content_key,
    job_spec::job_spec,
    source::{SourceError, SourceTree, source_tree},
};
use crate::{
    admission::Ticket,
    driver::{Message, Publication, look, send},
    pools::{Place, image_of},
    secrets::OpenError,
    shared::{Counters, DEFAULT_PROJECT, Shared},
};

/// From SIGTERM to SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// A job is looked at this often even when nothing is announced.
const SLOW_POLL: Duration = Duration::from_secs(1);
/// First wait after the pool could not be asked; doubles up to [`POOL_RETRY_MAX`].
const POOL_RETRY: Duration = Duration::from_millis(100);
/// Longest wait between tries.
const POOL_RETRY_MAX: Duration = Duration::from_secs(5);

/// How long an image's digest may take to be in the journal before the task looks again.
const PIN_PATIENCE: Duration = Duration::from_secs(2);

/// The trusted scope: runs of the project's own repositories.
const TRUSTED: &str = "trusted";

/// What the attempt depends on, computed before anything else.
struct Prepared {
    parts: content_key::Parts,
    key: String,
    source: Option<SourceTree>,
    /// What the image's name stands for in this run.
    image: Option<String>,
}

/// Performs an attempt to its end. None when the engine stops meanwhile: the job goes on, and is adopted at the next start.
///
/// The pool is asked first: an attempt that it knows is followed to its end, whatever has become of the configuration,
/// the source or the cache since it was started.
pub async fn perform(shared: &Arc<Shared>, attempt: &Attempt, ticket: Ticket) -> Option<Message> {
    let Work::Job { resources, .. } = &attempt.spec.work else {
        return Some(ended(attempt, Ending::Lost { message: "a plugin call was taken for a job".to_owned() }));
    };
    let known = observe(shared, attempt).await?;
    if known != Observed::Unknown {
        drop(ticket);
        info!(observed = state_name(&known), "adopt");
        let slot = place(shared, attempt).admission.adopt(resources);
        let observed = follow(shared, attempt).await?;
        drop(slot);
        let prepared = match prepare_patiently(shared, attempt).await? {
            Ok(prepared) => Some(prepared),
            Err(reason) => {
                warn!("the result of an adopted job is not kept in the cache: {reason}");
                None
            }
        };
        return conclude(shared, attempt, prepared.as_ref(), observed).await;
    }
    if attempt.stop.is_cancelled() {
        return Some(ended(attempt, Ending::Cancelled));
    }
    if let Some(reason) = shared.pools.unplaceable(&attempt.spec.work, resources) {
        return Some(failed(attempt, FailureKind::Unplaceable, reason));
    }
    let prepared = match prepare_patiently(shared, attempt).await? {
        Ok(prepared) => prepared,
        Err(reason) => return Some(failed(attempt, FailureKind::Platform, reason)),
    };
    if let Some(message) = from_cache(shared, attempt, &prepared).await {
        return Some(message);
    }
    let slot = tokio::select! {
        slot = place(shared, attempt).admission.admit(ticket, resources) => slot,
        () = attempt.stop.cancelled() => return Some(ended(attempt, Ending::Cancelled)),
        () = shared.stop.cancelled() => return None,
    };
    fault::point("job.start.before");
    if let Err(message) = start(shared, attempt, &prepared, resources).await {
        return message;
    }
    fault::point("job.start.after");
    let observed = follow(shared, attempt).await?;
    drop(slot);
    fault::point("job.conclude.before");
    let message = conclude(shared, attempt, Some(&prepared), observed).await?;
    fault::point("job.conclude.after");
    Some(message)
}

/// Prepares, again and again while the disk or the repository does not answer: nothing of that is the task's fault. The
/// inner error is for good; none when the engine stops or the task is cancelled.
async fn prepare_patiently(shared: &Arc<Shared>, attempt: &Attempt) -> Option<Result<Prepared, String>> {
    let mut wait = POOL_RETRY;
    loop {
        match prepare(shared, attempt).await {
            Ok(prepared) => return Some(Ok(prepared)),
            Err(SourceError::Permanent(reason)) => return Some(Err(reason)),
            Err(SourceError::Transient(reason)) => warn!("the source is not there yet: {reason}"),
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = attempt.stop.cancelled() => return Some(Err(format!("{} was cancelled before its source was there", attempt.key()))),
            () = shared.stop.cancelled() => return None,
        }
        wait = (wait * 2).min(POOL_RETRY_MAX);
    }
}

/// The pool that runs the attempt.
fn place<'s>(shared: &'s Shared, attempt: &Attempt) -> &'s Place {
    shared.pools.of(&attempt.spec.work)
}

fn state_name(observed: &Observed) -> &'static str {
    match observed {
        Observed::Unknown => "unknown",
        Observed::Pending => "pending",
        Observed::Running { .. } => "running",
        Observed::Ended(_) => "ended",
        Observed::Lost { .. } => "lost",
    }
}

async fn prepare(shared: &Arc<Shared>, attempt: &Attempt) -> Result<Prepared, SourceError> {
    let step = attempt.declared();
    let source = match &attempt.source {
        Some(source) => Some(source_tree(shared, source, &step.source).await?),
        None => None,
    };
    let spec = &attempt.spec;
    let image = match image_of(&spec.work) {
        Some(name) => Some(pinned_image(shared, attempt, name).await?),
        None => None,
    };
    let environment = image.clone().unwrap_or_else(|| place(shared, attempt).pool.environment());
    let parts =
        content_key::parts(step, &spec.work, &spec.matrix, &environment, source.as_ref().map(|tree| &tree.artifact));
    let key = content_key::key(&parts);
    Ok(Prepared { parts, key, source, image })
}

/// What an image's name stands for in this run. Whoever needs it first looks, and goes on when the answer is in the
/// journal: so every task and attempt has the same, also after the tag has moved.
async fn pinned_image(shared: &Arc<Shared>, attempt: &Attempt, name: &str) -> Result<String, SourceError> {
    if let Some(digest) = &attempt.image {
        return Ok(digest.clone());
    }
    let mut news = shared.news.subscribe();
    let run = attempt.row.run;
    if let Some(digest) = recorded_image(shared, run, name).await? {
        return Ok(digest);
    }
    let digest = place(shared, attempt).pool.resolve_image(name).await.map_err(|e| match e {
        StartError::Image { .. } | StartError::Unplaceable(_) => SourceError::Permanent(format!("failed to {e}")),
        StartError::Full(_) | StartError::Failed(_) => SourceError::Transient(e.to_string()),
    })?;
    send(shared, run, Message::plain(Input::ImageFound { image: name.to_owned(), digest }));
    let recorded = async {
        loop {
            news.borrow_and_update();
            if let Some(digest) = recorded_image(shared, run, name).await? {
                return Ok(digest);
            }
            // The sender is ours.
            let _ = news.changed().await;
        }
    };
    match tokio::time::timeout(PIN_PATIENCE, recorded).await {
        Ok(recorded) => recorded,
        Err(_) => Err(SourceError::Transient(format!("what the image {name:?} stands for is not recorded yet"))),
    }
}

async fn recorded_image(shared: &Arc<Shared>, run: RunId, name: &str) -> Result<Option<String>, SourceError> {
    let found = look(shared, run, |loaded| loaded.state.images.get(name).cloned()).await;
    Ok(found.map_err(|e| SourceError::Transient(e.to_string()))?.flatten())
}

/// Asks the pool until it answers. None when the engine stops.
async fn observe(shared: &Arc<Shared>, attempt: &Attempt) -> Option<Observed> {
    let mut wait = POOL_RETRY;
    loop {
        match place(shared, attempt).pool.observe(&attempt.key()).await {
            Ok(observed) => return Some(observed),
            Err(e) => warn!("the pool cannot be asked: {e}"),
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.stop.cancelled() => return None,
        }
        wait = (wait * 2).min(POOL_RETRY_MAX);
    }
}

/// The scopes in which this attempt may look, in order.
fn scopes(attempt: &Attempt) -> Vec<String> {
    let step = attempt.declared();
    let mut scopes = Vec::new();
    if step.cache {
        scopes.push(TRUSTED.to_owned());
    }
    if attempt.row.generation > 0 {
        scopes.push(retry_scope(attempt));
    }
    scopes
}

/// Results of runs of one workflow for one event: read only when that event is run again, so that a retry repeats
/// nothing that succeeded, whether or not its steps use the cache.
fn retry_scope(attempt: &Attempt) -> String {
    let row = &attempt.row;
    format!("retry:{}:{}", row.workflow, row.event_key)
}

async fn from_cache(shared: &Arc<Shared>, attempt: &Attempt, prepared: &Prepared) -> Option<Message> {
    for scope in scopes(attempt) {
        let row = match shared.store.cache_get(DEFAULT_PROJECT, &scope, &prepared.key).await {
            Ok(Some(row)) => row,
            Ok(None) => continue,
            Err(e) => {
                debug!("the cache cannot be asked: {e}");
                return None;
            }
        };
        let mut output: TaskOutput = match serde_json::from_value(row.output) {
            Ok(output) => output,
            Err(e) => {
                warn!("a cached result cannot be read: {e}");
                continue;
            }
        };
        if !artifacts_exist(shared, &output).await {
            info!(from = row.task, "a cached result is passed over: its artifacts are gone");
            continue;
        }
        Counters::count(&shared.counters.cache_hits);
        output.cached_from = Some(row.task);
        let publish = publications(shared, attempt, &output).await?;
        let extra = vec![record(attempt, prepared, CacheResult::Hit)];
        let ending = Ending::Succeeded { output, changed: Vec::new() };
        return Some(Message { extra, publish, ..ended(attempt, ending) });
    }
    None
}

async fn artifacts_exist(shared: &Arc<Shared>, output: &TaskOutput) -> bool {
    for value in output.outputs.values() {
        let Ok(artifact) = serde_json::from_value::<ArtifactRef>(value.clone()) else { continue };
        if !shared.artifacts.exists(&artifact.digest).await.unwrap_or(false) {
            return false;
        }
    }
    true
}

/// Hands the job to the pool. The error is what to report instead, or none when the engine stops.
async fn start(
    shared: &Arc<Shared>,
    attempt: &Attempt,
    prepared: &Prepared,
    resources: &Resources,
) -> Result<(), Option<Message>> {
    let spec = job_spec(attempt, prepared.source.as_ref());
    let request = Request {
        cpu_milli: resources.cpu_milli,
        memory_bytes: resources.memory_bytes,
        gpu: resources.gpu,
        image: prepared.image.clone(),
    };
    let secrets = match open_secrets(shared, attempt).await? {
        Ok(secrets) => secrets,
        Err(reason) => return Err(Some(failed(attempt, FailureKind::Unplaceable, reason))),
    };
    let mut wait = POOL_RETRY;
    loop {
        match place(shared, attempt).pool.start(&attempt.key(), &spec, &request, &secrets).await {
            Ok(()) => {
                Counters::count(&shared.counters.jobs_started);
                return Ok(());
            }
            Err(StartError::Unplaceable(reason)) => {
                return Err(Some(failed(attempt, FailureKind::Unplaceable, reason)));
            }
            Err(e @ StartError::Image { .. }) => {
                return Err(Some(failed(attempt, FailureKind::Unplaceable, format!("failed to {e}"))));
            }
            Err(e @ (StartError::Full(_) | StartError::Failed(_))) => debug!("the pool does not take it yet: {e}"),
        }
        wait = pause(shared, attempt, wait).await?;
    }
}

/// Opens the secrets that the step names, as far as its run may see them. The inner error is for good; the outer one as
/// for [`start`].
async fn open_secrets(shared: &Arc<Shared>, attempt: &Attempt) -> Result<Result<Secrets, String>, Option<Message>> {
    let mut secrets = Secrets::new();
    let declared = &attempt.declared().secrets;
    if declared.is_empty() {
        return Ok(Ok(secrets));
    }
    let mut wait = POOL_RETRY;
    let reference = loop {
        match reference_of(shared, attempt).await {
            Ok(reference) => break reference,
            // No answer is not the answer "none", which would refuse a protected secret for good.
            Err(e) => warn!("the step cannot be told which ref the run is of, and waits: {e}"),
        }
        wait = pause(shared, attempt, wait).await?;
    };
    for (file, name) in declared {
        loop {
            let opened = shared.secrets.open(&shared.store, DEFAULT_PROJECT, name, reference.as_deref()).await;
            match opened {
                Ok(value) => break secrets.insert(file.clone(), value.to_vec()),
                Err(OpenError::Unavailable { .. }) => {}
                Err(
                    e @ (OpenError::Missing { .. }
                    | OpenError::Ref { .. }
                    | OpenError::Key { .. }
                    | OpenError::Damaged { .. }),
                ) => return Ok(Err(format!("failed to {e}"))),
            }
            wait = pause(shared, attempt, wait).await?;
        }
    }
    Ok(Ok(secrets))
}

/// Waits before the next try, and says how long to wait the time after. The error as for [`start`].
async fn pause(shared: &Shared, attempt: &Attempt, wait: Duration) -> Result<Duration, Option<Message>> {
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok((wait * 2).min(POOL_RETRY_MAX)),
        () = attempt.stop.cancelled() => Err(Some(ended(attempt, Ending::Cancelled))),
        () = shared.stop.cancelled() => Err(None),
    }
}

/// The ref whose rights a run has: the pushed one, if the mirror has confirmed it; else the default branch of the
/// repository that its workflow is from.
async fn reference_of(shared: &Arc<Shared>, attempt: &Attempt) -> Result<Option<String>, ReadError> {
    match &attempt.reference {
        RunRef::Confirmed(reference) => return Ok(Some(reference.clone())),
        RunRef::Nothing => return Ok(None),
        RunRef::Unrecorded => {}
    }
    let branch = match (&attempt.row.branch, &attempt.source) {
        (Some(branch), _) => Some(branch.clone()),
        (None, Some(source)) if !source.repo.is_empty() => {
            shared.store.repo(DEFAULT_PROJECT, &source.repo).await?.and_then(|repo| repo.default_branch)
        }
        (None, _) => None,
    };
    Ok(branch.map(|branch| format!("refs/heads/{branch}")))
}

/// Follows a started attempt to its end, reporting once that user code began. None when the engine stops.
async fn follow(shared: &Arc<Shared>, attempt: &Attempt) -> Option<Observed> {
    let (key, mut begun, mut asked) = (attempt.key(), false, false);
    let mut changes = place(shared, attempt).pool.changes();
    loop {
        let observed = observe(shared, attempt).await?;
        match &observed {
            Observed::Ended(result) => {
                // Too short to be seen running: when it began is in its result.
                if !begun && result.started_at < result.ended_at {
                    report_start(shared, attempt, Some(result.started_at));
                }
                return Some(observed);
            }
            Observed::Lost { .. } => return Some(observed),
            Observed::Unknown => return Some(Observed::Lost { reason: "the pool forgot the attempt".to_owned() }),
            Observed::Running { .. } if !begun => {
                begun = true;
                report_start(shared, attempt, None);
            }
            Observed::Running { .. } | Observed::Pending => {}
        }
        if attempt.stop.is_cancelled() && !asked {
            match place(shared, attempt).pool.cancel(&key, GRACE).await {
                Ok(()) => asked = true,
                Err(e) => warn!("the pool cannot be asked to stop it: {e}"),
            }
        }
        let changed = async { while changes.next().await != key {} };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(SLOW_POLL) => {}
            () = attempt.stop.cancelled(), if !asked => {}
            () = shared.stop.cancelled() => return None,
        }
    }
}

fn report_start(shared: &Arc<Shared>, attempt: &Attempt, at: Option<Millis>) {
    let input = Input::Started { step: attempt.step, index: attempt.index, attempt: attempt.number };
    send(shared, attempt.row.run, Message { at, ..Message::plain(input) });
}

/// Turns what the pool says about the end into a message for the core.
/// None when the engine stops first.
async fn conclude(
    shared: &Arc<Shared>,
    attempt: &Attempt,
    prepared: Option<&Prepared>,
    observed: Observed,
) -> Option<Message> {
    let result = match observed {
        Observed::Ended(result) => *result,
        Observed::Lost { reason } => return Some(ended(attempt, Ending::Lost { message: reason })),
        Observed::Unknown | Observed::Pending | Observed::Running { .. } => {
            return Some(ended(attempt, Ending::Lost { message: "it was followed to no end".to_owned() }));
        }
    };
    let ending = ending(attempt, result);
    let mut message = ended(attempt, ending);
    let step = attempt.declared();
    let Some(prepared) = prepared else { return with_publications(shared, attempt, message).await };
    message.extra.push(record(attempt, prepared, if step.cache { CacheResult::Miss } else { CacheResult::Off }));
    if let Input::Ended { ending: Ending::Succeeded { output, .. }, .. } = &message.input {
        let output_json = serde_json::to_value(output).expect("outputs have string keys only");
        let mut scopes = vec![retry_scope(attempt)];
        if step.cache {
            scopes.push(TRUSTED.to_owned());
        }
        for scope in scopes {
            let gone = lost_entry(shared, &scope, &prepared.key).await;
            let put = CachePut {
                project: DEFAULT_PROJECT.to_owned(),
                scope,
                key: prepared.key.clone(),
                task: attempt.task(),
                output: output_json.clone(),
                at: Millis::now(),
            };
            message.extra.push(match gone {
                Some(expected_task) => Write::CacheReplace(CacheReplace { put, expected_task }),
                None => Write::CachePut(put),
            });
        }
    }
    with_publications(shared, attempt, message).await
}

/// The task whose result stands under a key although its bytes are gone: it is replaced by the new one.
async fn lost_entry(shared: &Arc<Shared>, scope: &str, key: &str) -> Option<String> {
    let row = shared.store.cache_get(DEFAULT_PROJECT, scope, key).await.ok().flatten()?;
    let output: TaskOutput = serde_json::from_value(row.output).ok()?;
    (!artifacts_exist(shared, &output).await).then_some(row.task)
}

/// None when the engine stops before what is to be published is stored.
async fn with_publications(shared: &Arc<Shared>, attempt: &Attempt, mut message: Message) -> Option<Message> {
    if let Input::Ended { ending: Ending::Succeeded { output, .. }, .. } = &message.input {
        message.publish = publications(shared, attempt, output).await?;
    }
    Some(message)
}

fn ending(attempt: &Attempt, result: JobResult) -> Ending {
    let fail = |kind, message: String| Ending::Failed(Failure { kind, message });
    let step = attempt.declared();
    match result.end {
        JobEnd::Succeeded => {
            let mut outputs = result.values;
            for (name, artifact) in result.artifacts {
                outputs.insert(name, serde_json::to_value(artifact).expect("artifacts have string keys only"));
            }
            Ending::Succeeded {
                output: TaskOutput { outputs, metrics: result.metrics, ..TaskOutput::default() },
                changed: Vec::new(),
            }
        }
        JobEnd::Exited { code } => fail(FailureKind::Exit, format!("the program ended with code {code}; see its log")),
        JobEnd::Signalled { signal } => fail(FailureKind::Signal, format!("signal {signal} ended the program")),
        JobEnd::TimedOut => {
            let limit = step.timeout_ms.unwrap_or(0);
            fail(FailureKind::TimedOut, format!("it had not ended after {} s; raise `timeout`", limit as f64 / 1000.0))
        }
        JobEnd::OutOfMemory { mechanism } => {
            let (limit, peak) = (memory_limit(attempt), result.peak_rss_bytes);
            fail(
                FailureKind::OutOfMemory,
                format!(
                    "it used {peak} bytes of memory and may use {limit} (noticed by {mechanism}); raise resources.memory"
                ),
            )
        }
        JobEnd::BadOutput { message } => fail(FailureKind::BadOutput, message),
        JobEnd::Cancelled => Ending::Cancelled,
        JobEnd::Setup { message } => Ending::Lost { message },
    }
}

fn memory_limit(attempt: &Attempt) -> u64 {
    match &attempt.spec.work {
        Work::Job { resources, .. } => resources.memory_bytes.unwrap_or(0),
        Work::Call { .. } => 0,
    }
}

/// Datasets that the outputs publish. A single file becomes a dataset of one file.
async fn publications(shared: &Arc<Shared>, attempt: &Attempt, output: &TaskOutput) -> Option<Vec<Publication>> {
    let step = attempt.declared();
    let mut publish = Vec::new();
    for (name, declaration) in &step.outputs {
        let OutputDecl::Path { dataset: Some(dataset), .. } = declaration else { continue };
        let Some(value) = output.outputs.get(name) else { continue };
        let Ok(artifact) = serde_json::from_value::<ArtifactRef>(value.clone()) else { continue };
        let artifact = if artifact.folder { artifact } else { one_file(shared, artifact).await? };
        let (added, removed) = difference(shared, dataset, &artifact).await;
        let put = PublishDataset {
            project: DEFAULT_PROJECT.to_owned(),
            name: dataset.clone(),
            artifact,
            task: Some(attempt.task().to_string()),
            expected_previous: None,
            at: Millis::now(),
        };
        publish.push(Publication { put, added, removed });
    }
    Some(publish)
}

/// What is new and what is gone, compared with the newest version. Only told to others, so a listing that cannot be read
/// leaves it empty and the version is published all the same.
async fn difference(shared: &Arc<Shared>, dataset: &str, artifact: &ArtifactRef) -> (Vec<String>, Vec<String>) {
    let newest = shared.store.asset_version(DEFAULT_PROJECT, AssetKind::Dataset, dataset, None).await.ok().flatten();
    let before = match &newest {
        Some(row) => shared.artifacts.manifest(&row.artifact.digest).await.ok(),
        None => Some(Manifest::default()),
    };
    match (before, shared.artifacts.manifest(&artifact.digest).await.ok()) {
        (Some(before), Some(now)) => before.difference(&now),
        (_, _) => (Vec::new(), Vec::new()),
    }
}

/// The listing of a single file, stored: the task has succeeded, so what is missing is only room on our own disk, and that
/// is waited for. None when the engine stops first.
async fn one_file(shared: &Arc<Shared>, artifact: ArtifactRef) -> Option<ArtifactRef> {
    let name = artifact.path.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("data").to_owned();
    let entry = ManifestEntry { path: name, digest: artifact.digest, size: artifact.size, executable: false };
    let listing = Manifest::new(vec![entry]);
    let mut wait = POOL_RETRY;
    loop {
        match shared.artifacts.put_manifest(&listing).await {
            Ok(manifest) => return Some(manifest),
            Err(e) => warn!("the listing of a published file is not stored yet: {e}"),
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.stop.cancelled() => return None,
        }
        wait = (wait * 2).min(POOL_RETRY_MAX);
    }
}

fn record(attempt: &Attempt, prepared: &Prepared, result: CacheResult) -> Write {
    Write::CacheRecord(CacheRecord {
        project: DEFAULT_PROJECT.to_owned(),
        workflow: attempt.row.workflow.clone(),
        task: attempt.task(),
        key: Some(prepared.key.clone()),
        parts: serde_json::to_value(&prepared.parts).expect("parts have string keys only"),
        result,
        at: Millis::now(),
    })
}

fn ended(attempt: &Attempt, ending: Ending) -> Message {
    let (step, index, attempt) = (attempt.step, attempt.index, attempt.number);
    Message::plain(Input::Ended { step, index, attempt, ending })
}

fn failed(attempt: &Attempt, kind: FailureKind, message: String) -> Message {
    ended(attempt, Ending::Failed(Failure { kind, message }))
}
