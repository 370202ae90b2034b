//! Chaining: events that runs cause, and how far that may go.
//!
//! An event that a run caused carries the names of the workflows that led to it. A workflow that is among them is not
//! started by it unless its filter says `self: true`, and a chain ends at [`MAX_DEPTH`].

use kickwheel_core::{
    filter::{EventFilter, FilterKind},
    plan::Workflow,
};
use kickwheel_schemas::{CloudEvent, Millis, payload, plugin::Effect};
use kickwheel_store::{Write, rows::AssetKind, write::Announce};
use serde_json::{Value, json};

use crate::{
    bus::{CHAIN, cause},
    driver::{Loaded, Publication},
    shared::{DEFAULT_PROJECT, Shared},
};

/// The longest chain of runs of which each was caused by the one before.
pub const MAX_DEPTH: usize = 16;

/// The workflows that led to an event, the first first. Empty for what came from outside.
pub fn led_by(event: &Value) -> Vec<String> {
    let text = event.get(CHAIN).and_then(Value::as_str).unwrap_or_default();
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Why an event must not start a workflow, if so.
pub fn refusal(event: &CloudEvent, workflow: &str, filter: &EventFilter) -> Option<String> {
    let text = event.extensions.get(CHAIN).and_then(Value::as_str)?;
    let led: Vec<&str> = text.split(',').filter(|name| !name.is_empty()).collect();
    if led.len() >= MAX_DEPTH {
        return Some(format!("the chain of runs is {} long, and {MAX_DEPTH} is the limit: {text}", led.len()));
    }
    (led.contains(&workflow) && !allows_self(filter)).then(|| {
        format!("it would start itself (the chain is {text}); write `self: true` in its filter if that is meant")
    })
}

/// Makes `event` one that this run caused.
pub fn caused_by(loaded: &Loaded, mut event: CloudEvent) -> CloudEvent {
    let cause = loaded.state.context.as_ref().map_or(&Value::Null, |c| &c.event);
    let mut led = led_by(cause);
    led.push(loaded.row.workflow.clone());
    event.extensions.insert(CHAIN.to_owned(), Value::from(led.join(",")));
    event.traceparent = cause.get("traceparent").and_then(Value::as_str).map(str::to_owned);
    event
}

/// The source of events that runs of a project cause.
pub fn source(project: &str) -> String {
    format!("/kickwheel/{project}")
}

/// What a finished run tells other workflows.
pub fn run_finished(loaded: &Loaded) -> Option<Told> {
    let row = &loaded.row;
    let progress = crate::driver::progress(loaded);
    let ended = progress.ended_at?;
    let repo = loaded.state.context.as_ref().and_then(|c| c.source.as_ref()).map(|s| s.repo.clone());
    let data = json!({
        "run": row.run.to_string(),
        "workflow": row.workflow,
        "state": progress.state.as_str(),
        "project": row.project,
        "repo": repo.filter(|r| !r.is_empty()),
        "branch": row.branch,
        "commit": row.commit,
        "started_at": row.created_at.to_rfc3339(),
        "ended_at": ended.to_rfc3339(),
        "duration_ms": ended.since(row.created_at),
        "cause": {"source": row.event_source, "id": row.event_id, "type": cause_type(loaded)},
    });
    let mut event = CloudEvent::new(source(&row.project), format!("{}:finished", row.run), payload::RUN_FINISHED, data)
        .with_subject(row.workflow.clone());
    event.time = Some(ended.to_rfc3339());
    Some(Told { event: caused_by(loaded, event), asset: None })
}

/// What a published dataset tells. The number of the version is put in where it is given.
pub fn dataset_published(loaded: &Loaded, publication: &Publication) -> Told {
    let (put, task) = (&publication.put, publication.put.task.clone().unwrap_or_default());
    let data = json!({
        "dataset": put.name,
        "version": null,
        "previous": null,
        "digest": put.artifact.digest,
        "data_changed": true,
        "added": publication.added,
        "removed": publication.removed,
    });
    let id = format!("{task}:{}", put.name);
    let event = CloudEvent::new(source(&loaded.row.project), id, payload::DATASET_VERSION_PUBLISHED, data)
        .with_subject(put.name.clone());
    Told { event: caused_by(loaded, event), asset: Some((AssetKind::Dataset, put.name.clone(), task)) }
}

/// What a promoted model tells; registering alone promotes nothing.
pub fn model_promoted(loaded: &Loaded, effect: &Effect, task: &str) -> Option<Told> {
    let Effect::RegisterModel { name, artifact, metrics, stage, expected_version } = effect;
    let data = json!({
        "model": name,
        "version": null,
        "digest": artifact.digest,
        "stage": stage.as_ref()?,
        "previous": expected_version,
        "metrics": metrics,
        "run": loaded.row.run.to_string(),
    });
    let event = CloudEvent::new(source(&loaded.row.project), format!("{task}:{name}"), payload::MODEL_PROMOTED, data)
        .with_subject(name.clone());
    Some(Told { event: caused_by(loaded, event), asset: Some((AssetKind::Model, name.clone(), task.to_owned())) })
}

/// An event that a run causes, before it is written.
pub struct Told {
    event: CloudEvent,
    /// The version that it is about: kind, name, and the task that made it.
    asset: Option<(AssetKind, String, String)>,
}

impl Told {
    /// The write that makes it durable with what caused it.
    pub fn write(mut self, shared: &Shared, at: Millis) -> Write {
        self.event.time.get_or_insert_with(|| at.to_rfc3339());
        let event = cause(shared, DEFAULT_PROJECT, "chain", self.event, at);
        match self.asset {
            None => event,
            Some((kind, name, task)) => Write::Announce(Box::new(Announce { kind, name, task, event })),
        }
    }
}

fn cause_type(loaded: &Loaded) -> Value {
    loaded.state.context.as_ref().and_then(|c| c.event.get("type")).cloned().unwrap_or(Value::Null)
}

/// Whether a workflow may be started by events of this type.
pub fn listens(workflow: &Workflow, ty: &str) -> bool {
    workflow.on.iter().any(|filter| match &filter.kind {
        FilterKind::Event { types, own_runs: _ } => types.iter().any(|t| t == ty),
        FilterKind::DatasetChanged { .. } => ty == payload::DATASET_VERSION_PUBLISHED,
        FilterKind::Cron { .. } => ty == payload::CRON_TICK,
        FilterKind::Manual | FilterKind::GitPush { .. } => false,
    })
}

fn allows_self(filter: &EventFilter) -> bool {
    matches!(filter.kind, FilterKind::Event { own_runs: true, .. })
}
