//! Creating a run: its pinned inputs, its row and its first events, as writes for one transaction.

use std::{collections::BTreeMap, sync::Arc};

use kickwheel_core::{
    Input, RunState,
    event::{PinnedDataset, PinnedSource, RunContext, RunRef},
    plan::Workflow,
};
use kickwheel_schemas::{ArtifactRef, CloudEvent, Millis, RunId, api::RunPhase, payload};
use kickwheel_store::{
    EventKey, Write, WriteError,
    rows::{AssetKind, RunRow},
    write::CreateRun,
};
use serde_json::Value;

use crate::{
    driver::{Loaded, Message, Unit, follow_pure_chain},
    registry::{Entry, EntryOrigin},
    shared::{DEFAULT_PROJECT, Shared, entropy, shard_of},
};

/// A run that is to be started, with everything that a person or a filter has decided.
pub struct Prepared {
    /// Our key of the causing event.
    pub event_key: EventKey,
    /// The causing event.
    pub event: CloudEvent,
    /// The workflow file.
    pub entry: Entry,
    /// The same, compiled.
    pub workflow: Arc<Workflow>,
    /// The commit of the event; none: that of the workflow file.
    pub source: Option<PinnedSource>,
    /// The branch, for a push.
    pub branch: Option<String>,
    /// The ref whose rights it has.
    pub reference: RunRef,
    /// A value for each declared input.
    pub inputs: BTreeMap<String, Value>,
    /// Why it is started.
    pub reason: String,
    /// How often this event was made to start this workflow before.
    pub generation: u32,
}

/// A run that has been decided in memory and not been written yet.
pub struct Launch {
    /// Its state after the first turn.
    pub loaded: Loaded,
    /// What makes it durable.
    pub writes: Vec<Write>,
}

impl Launch {
    /// Pins what the run reads, and decides its start.
    pub async fn new(shared: &Arc<Shared>, prepared: Prepared) -> Result<Self, WriteError> {
        let datasets = pin_datasets(shared, &prepared).await?;
        let source = prepared.source.clone().or_else(|| match &prepared.entry.origin {
            EntryOrigin::Repo { repo, commit, tree, path: _ } => {
                Some(PinnedSource { repo: repo.clone(), commit: commit.clone(), tree: tree.clone() })
            }
            EntryOrigin::Applied { .. } => None,
        });
        Self::with_context(shared, prepared, source, datasets).await
    }

    /// The same with what another run has pinned: for a retry.
    pub async fn with_context(
        shared: &Arc<Shared>,
        prepared: Prepared,
        source: Option<PinnedSource>,
        datasets: BTreeMap<String, Option<PinnedDataset>>,
    ) -> Result<Self, WriteError> {
        let at = Millis::now();
        let run = RunId::new(at, entropy());
        let shard = shard_of(run, shared.store.shards());
        let epoch = shared.epoch(shard).ok_or(WriteError::Fenced { shard })?;
        let plan_digest = prepared.entry.plan.clone().ok_or_else(|| WriteError::Invalid {
            message: format!("workflow {} has mistakes and cannot be run", prepared.entry.name),
        })?;
        let create = CreateRun {
            run,
            shard,
            project: DEFAULT_PROJECT.to_owned(),
            workflow: prepared.workflow.name.clone(),
            plan_digest,
            source_digest: prepared.entry.source.clone(),
            event_source: prepared.event.source.clone(),
            event_id: prepared.event.id.clone(),
            event_key: prepared.event_key,
            generation: prepared.generation,
            branch: prepared.branch,
            commit: source.as_ref().map(|s| s.commit.clone()).filter(|c| !c.is_empty()),
            cause: cause(&prepared.event),
            decision: prepared.reason,
            created_at: at,
        };
        let context = RunContext {
            run: run.to_string(),
            project: DEFAULT_PROJECT.to_owned(),
            event: serde_json::to_value(&prepared.event).expect("events have string keys only"),
            inputs: prepared.inputs,
            datasets,
            source,
            url: format!("{}/runs/{run}", shared.config.base_url),
            reference: prepared.reference,
        };
        let steps = prepared.workflow.plan.steps.len();
        let mut loaded =
            Loaded { row: Arc::new(row_of(&create)), workflow: prepared.workflow, state: RunState::new(steps) };
        let mut unit = Unit::default();
        unit.decide(&mut loaded, at, &Message::plain(Input::Start(Box::new(context))));
        // A chained call with effects is simply performed again after the commit: it is pure until it is accepted.
        let _ = follow_pure_chain(shared, &mut loaded, &mut unit, at).await;
        let mut writes = vec![Write::CreateRun(create)];
        writes.extend(unit.into_writes(shared, &loaded, 0, epoch, at));
        Ok(Self { loaded, writes })
    }
}

fn row_of(create: &CreateRun) -> RunRow {
    RunRow {
        run: create.run,
        shard: create.shard,
        project: create.project.clone(),
        workflow: create.workflow.clone(),
        plan_digest: create.plan_digest.clone(),
        source_digest: create.source_digest.clone(),
        event_source: create.event_source.clone(),
        event_id: create.event_id.clone(),
        event_key: create.event_key,
        generation: create.generation,
        branch: create.branch.clone(),
        commit: create.commit.clone(),
        cause: create.cause.clone(),
        decision: create.decision.clone(),
        created_at: create.created_at,
        state: RunPhase::Queued,
        open: 0,
        wake_at: None,
        ended_at: None,
        next_seq: 0,
        sealed: false,
    }
}

/// What caused a run, in one line.
fn cause(event: &CloudEvent) -> String {
    let text = |name: &str| event.data.get(name).and_then(Value::as_str).unwrap_or_default();
    match event.ty.as_str() {
        payload::GIT_BRANCH_CREATED | payload::GIT_BRANCH_UPDATED => {
            let commit: String = text("after").chars().take(10).collect();
            format!("push of {commit} to {} of {}", text("branch"), text("repo"))
        }
        payload::GIT_TAG_CREATED | payload::GIT_TAG_UPDATED => format!("tag {} of {}", text("tag"), text("repo")),
        payload::DATASET_VERSION_PUBLISHED => {
            format!("version {} of dataset {}", event.data.get("version").unwrap_or(&Value::Null), text("dataset"))
        }
        payload::RUN_FINISHED => {
            format!("end of run {} of {} ({})", short(text("run")), text("workflow"), text("state"))
        }
        payload::MODEL_PROMOTED => format!(
            "version {} of model {} became {}",
            event.data.get("version").unwrap_or(&Value::Null),
            text("model"),
            text("stage")
        ),
        payload::CRON_TICK => format!("schedule {}, due {}", text("trigger"), text("scheduled_at")),
        payload::MANUAL => match text("actor") {
            "" => "started by hand".to_owned(),
            actor => format!("started by {actor}"),
        },
        other => format!("event {other}"),
    }
}

/// The part of a run's id that people read.
fn short(run: &str) -> String {
    run.chars().take(13).collect()
}

/// The version of each dataset that the plan names: the event's own, else the newest.
async fn pin_datasets(
    shared: &Arc<Shared>,
    prepared: &Prepared,
) -> Result<BTreeMap<String, Option<PinnedDataset>>, WriteError> {
    let mut pinned = BTreeMap::new();
    for name in &prepared.workflow.plan.datasets {
        let of_event = prepared.event.ty == payload::DATASET_VERSION_PUBLISHED
            && prepared.event.data.get("dataset").and_then(Value::as_str) == Some(name);
        let version = prepared.event.data.get("version").and_then(Value::as_u64).filter(|_| of_event);
        let row = shared
            .store
            .asset_version(DEFAULT_PROJECT, AssetKind::Dataset, name, version)
            .await
            .map_err(|e| WriteError::Unavailable { reason: e.to_string() })?;
        let value = match row {
            None => None,
            Some(row) => {
                let manifest = shared.artifacts.manifest(&row.artifact.digest).await.map_err(|e| {
                    let reason = format!("version {} of dataset {name}: {e}", row.version);
                    if e.is_transient() {
                        WriteError::Unavailable { reason }
                    } else {
                        WriteError::Invalid { message: reason }
                    }
                })?;
                let files = manifest
                    .files
                    .into_iter()
                    .map(|f| ArtifactRef { digest: f.digest, size: f.size, path: f.path, folder: false })
                    .collect();
                let (digest, size) = (row.artifact.digest, row.artifact.size);
                Some(PinnedDataset { name: name.clone(), version: row.version, digest, size, files })
            }
        };
        pinned.insert(name.clone(), value);
    }
    Ok(pinned)
}
