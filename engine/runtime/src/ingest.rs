//! From event to runs: accept, look outside if need be, decide, start.
//!
//! *Accept* makes an event durable with its place in its lane. The decider takes the first undecided event of each lane;
//! different lanes proceed side by side, and one that waits for the outside world holds up its own lane only. *Decide* is
//! one transaction: what the event meant, the runs that it starts and their first events. So an event is either
//! undecided, and will be looked at again, or decided with all its runs.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use kickwheel_core::{
    filter::{FilterKind, Verdict, inputs_for, judge},
    plan::Workflow,
};
use kickwheel_schemas::{CloudEvent, Millis, RunId, payload};
use kickwheel_store::{
    EventKey, Write, WriteError, Written, fault,
    rows::EventRow,
    write::{Accept, Decide, DecisionRow, MoveRef, Park, Quarantine, Report},
};
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use crate::{
    chain, driver,
    launch::{Launch, Prepared},
    lookup::{Enrichment, Looked, look_up},
    pushes,
    registry::{self, Entry},
    report::ReportBody,
    shared::{Counters, DEFAULT_PROJECT, Shared, entropy},
    twin,
};

/// Lanes that are decided side by side.
const LANES_AT_ONCE: usize = 64;
/// The decider looks for work this often even when nobody wakes it.
const SLOW_POLL: Duration = Duration::from_secs(1);
/// After a decision on an old picture.
const STALE_PAUSE: Duration = Duration::from_millis(50);
/// After the database refused a decision.
const PAUSE: Duration = Duration::from_millis(500);
/// Largest event that is taken, as JSON.
pub const MAX_EVENT_BYTES: usize = 512 * 1024;

/// Makes an event durable and wakes the decider.
pub async fn accept(
    shared: &Arc<Shared>,
    project: &str,
    channel: &str,
    event: CloudEvent,
) -> Result<(EventKey, bool), WriteError> {
    let at = Millis::now();
    let write = accept_write(EventKey::new(at, entropy()), project, channel, event, at);
    fault::point("ingest.accept.before");
    let written = shared.store.write(vec![write]).await?;
    fault::point("ingest.accept.after");
    Ok(accepted(shared, &written))
}

/// Notes what came of an [`Accept`] and wakes the decider.
pub fn accepted(shared: &Shared, written: &[Written]) -> (EventKey, bool) {
    let receipt = noted(shared, written);
    shared.decider.notify_one();
    receipt
}

/// Notes what came of an [`Accept`] whose event is decided by the same unit: there is nothing for the decider.
pub fn noted(shared: &Shared, written: &[Written]) -> (EventKey, bool) {
    let found = written.iter().find_map(|w| match w {
        Written::Accepted { key, duplicate } => Some((*key, *duplicate)),
        Written::Done | Written::NotYet | Written::Version { .. } => None,
    });
    let (key, duplicate) = found.expect("the store answers an accept with its key");
    let counter = if duplicate { &shared.counters.events_duplicate } else { &shared.counters.events_accepted };
    Counters::count(counter);
    (key, duplicate)
}

/// The write that accepts an event.
pub fn accept_write(key: EventKey, project: &str, channel: &str, event: CloudEvent, at: Millis) -> Write {
    Write::Accept(Accept { key, project: project.to_owned(), event, received_at: at, channel: channel.to_owned() })
}

/// Decides until the engine stops.
pub async fn decider(shared: Arc<Shared>) {
    let (done, mut ended) = mpsc::unbounded_channel::<EventKey>();
    let mut busy: HashSet<EventKey> = HashSet::new();
    loop {
        while let Ok(key) = ended.try_recv() {
            busy.remove(&key);
        }
        let mut found = false;
        if busy.len() < LANES_AT_ONCE {
            match shared.store.undecided(Millis::now(), u32::try_from(LANES_AT_ONCE * 2).unwrap_or(u32::MAX)).await {
                Ok(rows) => {
                    for row in rows {
                        if busy.len() >= LANES_AT_ONCE || !busy.insert(row.key) {
                            continue;
                        }
                        found = true;
                        let done = Done { key: row.key, tell: done.clone() };
                        let shared2 = Arc::clone(&shared);
                        shared.tasks.spawn(async move {
                            let _done = done;
                            decide_one(&shared2, row).await;
                        });
                    }
                }
                Err(e) => debug!("events cannot be read: {e}"),
            }
        }
        if found {
            continue;
        }
        let due = shared.store.next_due(Millis::now()).await.ok().flatten();
        let wait = due.map_or(SLOW_POLL, |at| Duration::from_millis(at.since(Millis::now())).min(SLOW_POLL));
        tokio::select! {
            () = shared.decider.notified() => {}
            key = ended.recv() => if let Some(key) = key { busy.remove(&key); },
            () = tokio::time::sleep(wait.max(Duration::from_millis(5))) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Tells the decider that a lane is free again, also when deciding it panicked.
struct Done {
    key: EventKey,
    tell: mpsc::UnboundedSender<EventKey>,
}

impl Drop for Done {
    fn drop(&mut self) {
        // The receiver lives as long as the decider does; after that nobody counts.
        let _ = self.tell.send(self.key);
    }
}

async fn decide_one(shared: &Arc<Shared>, row: EventRow) {
    let key = row.key;
    fault::point("ingest.decide.before");
    match decide(shared, row).await {
        Ok(()) => shared.announce(),
        Err(WriteError::Stale { what }) => {
            debug!(event = %key, "decided on an old picture, so once more: {what}");
            tokio::time::sleep(STALE_PAUSE).await;
        }
        Err(e @ (WriteError::Unavailable { .. } | WriteError::Unknown { .. } | WriteError::Fenced { .. })) => {
            warn!(event = %key, "not decided yet: {e}");
            Counters::count(&shared.counters.write_pauses);
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shared.stop.cancelled() => {}
            }
        }
        Err(e @ (WriteError::Invalid { .. } | WriteError::Conflict { .. })) => {
            error!(event = %key, "quarantined: {e}");
            quarantine(shared, key, e.to_string()).await;
        }
    }
}

async fn quarantine(shared: &Shared, key: EventKey, reason: String) {
    let write = Write::Quarantine(Quarantine { key, reason, at: Millis::now() });
    if let Err(e) = shared.store.write(vec![write]).await {
        warn!(event = %key, "not quarantined yet: {e}");
    }
}

/// Decides the first event of a lane.
async fn decide(shared: &Arc<Shared>, row: EventRow) -> Result<(), WriteError> {
    let (enrichment, plans) = match look_up(shared, &row).await {
        Looked::Found(enrichment, plans) => (enrichment, plans),
        Looked::Later { reason, until } => {
            info!(event = %row.key, "parked: {reason}");
            shared.store.write(vec![Write::Park(Park { key: row.key, reason, until })]).await?;
            return Ok(());
        }
        Looked::Never { reason } => {
            warn!(event = %row.key, "quarantined: {reason}");
            quarantine(shared, row.key, reason).await;
            return Ok(());
        }
    };
    let mut enrichment = enrichment;
    match twin::look(shared, &row, &enrichment).await.map_err(unavailable)? {
        pushes::Verdict::New => {}
        pushes::Verdict::Late => enrichment.late = true,
        pushes::Verdict::Duplicate { reported, of } => {
            return told_before(shared, &row, *enrichment, reported, of).await;
        }
    }
    let mut unit = plans;
    if let Some((repo, entries)) = enrichment.registry_change() {
        registry::update(shared, std::mem::take(&mut unit), |present| present.overlaid(repo, entries)).await?;
    }
    let registry = shared.registry();
    let entries = enrichment.entries(&registry);
    let mut outcomes = Vec::new();
    let mut launches = Vec::new();
    let paused = shared.paused().await.map_err(unavailable)?;
    for (entry, workflow) in registry::workflows(shared, &entries).await.map_err(unavailable)? {
        match outcome(&row.event, &enrichment, &entry, &workflow, paused.contains(&entry.name)) {
            Outcome::Filtered => {}
            Outcome::Noted(decision) => outcomes.push(decision),
            Outcome::Start { reason, inputs } => {
                let prepared = Prepared {
                    event_key: row.key,
                    event: row.event.clone(),
                    entry,
                    workflow,
                    source: enrichment.source.clone(),
                    branch: enrichment.branch.clone(),
                    reference: enrichment.reference.clone(),
                    inputs,
                    reason: reason.clone(),
                    generation: 0,
                };
                let launch = Launch::new(shared, prepared).await?;
                outcomes.push(DecisionRow {
                    workflow: launch.loaded.row.workflow.clone(),
                    decision: "started".to_owned(),
                    reason,
                    clause: None,
                    run: Some(launch.loaded.row.run),
                });
                launches.push(launch);
            }
        }
    }
    unit.push(Write::Decide(Decide {
        key: row.key,
        enrichment: serde_json::to_value(&enrichment).expect("enrichments have string keys only"),
        registry_revision: registry.revision,
        outcomes,
        at: Millis::now(),
    }));
    unit.extend(move_ref(&row, &enrichment));
    unit.extend(report_broken(&row, &enrichment));
    for launch in &mut launches {
        unit.append(&mut launch.writes);
    }
    shared.store.write(unit).await?;
    fault::point("ingest.start.before");
    for launch in launches {
        started(shared, launch).await;
    }
    shared.reporter.notify_one();
    Ok(())
}

/// Another channel has told this push before: it starts nothing, and says so.
async fn told_before(
    shared: &Arc<Shared>,
    row: &EventRow,
    enrichment: Enrichment,
    reported: Vec<u64>,
    of: EventKey,
) -> Result<(), WriteError> {
    info!(event = %row.key, first = %of, "the same push was told before");
    let enrichment = Enrichment { told_by: Some(of), ..enrichment };
    let mut unit = twin::report(row, &enrichment, reported);
    unit.push(Write::Decide(Decide {
        key: row.key,
        enrichment: serde_json::to_value(&enrichment).expect("enrichments have string keys only"),
        registry_revision: shared.registry().revision,
        outcomes: Vec::new(),
        at: Millis::now(),
    }));
    Counters::count(&shared.counters.events_duplicate);
    shared.store.write(unit).await.map(drop)
}

/// Takes a run whose creation is durable into memory.
pub async fn started(shared: &Arc<Shared>, launch: Launch) {
    let run = launch.loaded.row.run;
    info!(%run, workflow = launch.loaded.row.workflow, "run started");
    Counters::count(&shared.counters.runs_created);
    if launch.loaded.state.is_finished() {
        driver::finished(shared, &launch.loaded);
    }
    driver::adopt(shared, run, launch.loaded).await;
}

fn unavailable(e: kickwheel_store::ReadError) -> WriteError {
    match e {
        kickwheel_store::ReadError::Unavailable { reason } => WriteError::Unavailable { reason },
        kickwheel_store::ReadError::Corrupt { message } => WriteError::Invalid { message },
    }
}

/// What an event means for one workflow.
enum Outcome {
    /// Recomputed when somebody asks.
    Filtered,
    /// Worth a row, but no run.
    Noted(DecisionRow),
    /// A run.
    Start { reason: String, inputs: BTreeMap<String, Value> },
}

fn outcome(event: &CloudEvent, enrichment: &Enrichment, entry: &Entry, workflow: &Workflow, paused: bool) -> Outcome {
    let Some((index, unknown)) = first_match(event, enrichment, workflow) else { return Outcome::Filtered };
    let noted = |decision: &str, reason: String| {
        Outcome::Noted(DecisionRow {
            workflow: entry.name.clone(),
            decision: decision.to_owned(),
            reason,
            clause: None,
            run: None,
        })
    };
    if let Some(reason) = chain::refusal(event, &workflow.name, &workflow.on[index]) {
        return noted("refused", reason);
    }
    if paused {
        return noted("paused", "the workflow is paused; resume it with `kickwheel workflows resume`".to_owned());
    }
    let filter = &workflow.on[index];
    let given = given_inputs(event);
    match inputs_for(&workflow.plan.inputs, &filter.with, event, &given) {
        Ok(inputs) => {
            let named = filter.id.as_deref().map(|id| format!(" ({id})")).unwrap_or_default();
            let mut reason = format!("{}{named} matches", describe(&filter.kind));
            if enrichment.late {
                reason = format!("{reason}; late: the ref was further on already");
            }
            if let Some(doubt) = &enrichment.doubt {
                reason = format!("{reason}; {doubt}");
            }
            if !unknown.is_empty() {
                reason = format!("{reason}; started although this is unknown: {}", unknown.join("; "));
            }
            Outcome::Start { reason, inputs }
        }
        Err(errors) => {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            noted("refused", format!("its inputs do not fit: {}", all.join("; ")))
        }
    }
}

/// The first filter that matches, and what is unknown about it.
pub fn first_match(event: &CloudEvent, enrichment: &Enrichment, workflow: &Workflow) -> Option<(usize, Vec<String>)> {
    if !is_addressed(event, workflow) {
        return None;
    }
    workflow.on.iter().enumerate().find_map(|(i, filter)| match judge(filter, event, &enrichment.facts()) {
        Verdict::Matches { unknown } => Some((i, unknown)),
        Verdict::Filtered { .. } => None,
    })
}

/// A manual start names its workflow; every other event is for all.
pub fn is_addressed(event: &CloudEvent, workflow: &Workflow) -> bool {
    event.ty != payload::MANUAL || event.data.get("workflow").and_then(Value::as_str) == Some(&workflow.name)
}

/// Inputs that a person gave with a manual start.
pub fn given_inputs(event: &CloudEvent) -> BTreeMap<String, Value> {
    if event.ty != payload::MANUAL {
        return BTreeMap::new();
    }
    event.data.get("inputs").and_then(|v| serde_json::from_value(v.clone()).ok()).unwrap_or_default()
}

/// The filter's kind, as it is written below `on:`.
pub fn describe(kind: &FilterKind) -> &'static str {
    match kind {
        FilterKind::GitPush { .. } => "git.push",
        FilterKind::DatasetChanged { .. } => "dataset.changed",
        FilterKind::Manual => "manual",
        FilterKind::Event { .. } => "event",
        FilterKind::Cron { .. } => "cron",
    }
}

fn move_ref(row: &EventRow, enrichment: &Enrichment) -> Option<Write> {
    let repo = enrichment.repo.clone()?;
    let text = |name: &str| row.event.data.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Write::MoveRef(MoveRef {
        project: DEFAULT_PROJECT.to_owned(),
        repo,
        ref_name: row.event.subject.clone()?,
        before: text("before"),
        after: text("after"),
        channel: row.channel.clone(),
        event: row.key,
        moves_head: !enrichment.late,
        at: Millis::now(),
    }))
}

/// Broken workflow files are told where the person who pushed looks: in a note on the commit.
fn report_broken(row: &EventRow, enrichment: &Enrichment) -> Option<Write> {
    let broken: Vec<_> =
        enrichment.pushed.iter().flatten().filter(|e| e.plan.is_none()).flat_map(|e| e.diagnostics.clone()).collect();
    let source = enrichment.source.as_ref()?;
    if broken.is_empty() {
        return None;
    }
    let body = ReportBody::Broken { repo: source.repo.clone(), commit: source.commit.clone(), diagnostics: broken };
    Some(Write::Report(Report {
        project: DEFAULT_PROJECT.to_owned(),
        run: RunId(row.key.0),
        due_at: Millis::now(),
        body: serde_json::to_value(body).expect("reports have string keys only"),
    }))
}
