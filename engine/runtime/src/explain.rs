//! Why an event did or did not start a workflow; why a task was or was not taken from the cache.
//!
//! Decisions that started nothing are not stored: they are computed again from what was stored with the event, by the
//! registry's revision that decided it.

use std::{collections::BTreeMap, sync::Arc};

use kickwheel_core::{
    filter::{ChangedPaths, Verdict, judge},
    plan::Workflow,
};
use kickwheel_schemas::{
    TaskKey,
    api::{CacheDifference, CacheWhy, DecisionView, Explanation},
};
use kickwheel_store::{
    EventKey, ReadError,
    rows::{CacheRecordRow, EventRow},
    write::CacheResult,
};
use serde_json::Value;

use crate::{
    ingest::{describe, first_match, is_addressed},
    lookup::Enrichment,
    registry::{self, Entry},
    shared::{DEFAULT_PROJECT, Shared},
    view,
};

/// Earlier tasks of the same step that a miss is compared with.
const COMPARED: u32 = 50;

/// What one event meant, for one workflow or for all.
pub async fn event(shared: &Arc<Shared>, row: &EventRow, only: Option<&str>) -> Result<Explanation, ReadError> {
    let runs = shared.store.runs_of_event(row.key).await?;
    let enrichment: Enrichment = serde_json::from_value(row.enrichment.clone()).unwrap_or_else(|_| Enrichment::none());
    let registry = registry::load(shared, row.registry_revision).await?;
    let stored = shared.store.decisions(row.key).await?;
    let mut decisions = Vec::new();
    for entry in enrichment.entries(&registry) {
        if only.is_some_and(|name| name != entry.name) {
            continue;
        }
        if let Some(first) = enrichment.told_by {
            decisions.push(told_before(&entry, first));
            continue;
        }
        let view = match stored.iter().find(|d| d.workflow == entry.name && entry.plan.is_some()) {
            Some(stored) => DecisionView {
                workflow: entry.name.clone(),
                decision: stored.decision.clone(),
                clause: stored.clause.clone(),
                wanted: None,
                seen: None,
                reason: stored.reason.clone(),
                run: stored.run.map(|r| r.to_string()),
            },
            None => again(shared, row, &enrichment, &entry).await?,
        };
        decisions.push(view);
    }
    let (changed_paths, changed_paths_unknown) = match &enrichment.changed {
        ChangedPaths::NotApplicable => (None, None),
        ChangedPaths::Complete { paths } => {
            (Some(paths.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect()), None)
        }
        ChangedPaths::Unknown { reason } => (None, Some(reason.clone())),
    };
    let event = view::event(row, runs.iter().map(ToString::to_string).collect());
    Ok(Explanation { event, changed_paths, changed_paths_unknown, decisions })
}

/// Another channel told the same push before; what that meant is told by its event.
fn told_before(entry: &Entry, first: EventKey) -> DecisionView {
    DecisionView {
        workflow: entry.name.clone(),
        decision: "duplicate".to_owned(),
        clause: None,
        wanted: None,
        seen: None,
        reason: format!("the same push was told before; `kickwheel explain {first}` says what it meant"),
        run: None,
    }
}

async fn again(
    shared: &Arc<Shared>,
    row: &EventRow,
    enrichment: &Enrichment,
    entry: &Entry,
) -> Result<DecisionView, ReadError> {
    let view = |decision: &str, reason: String| DecisionView {
        workflow: entry.name.clone(),
        decision: decision.to_owned(),
        clause: None,
        wanted: None,
        seen: None,
        reason,
        run: None,
    };
    let Some(plan) = &entry.plan else {
        let first = entry.first_mistake().map(|d| format!(": {}:{}: {}", d.file, d.line, d.message));
        return Ok(view("broken", format!("its file has mistakes{}", first.unwrap_or_default())));
    };
    let workflow = shared.workflow(plan).await?;
    if !is_addressed(&row.event, &workflow) {
        return Ok(view("filtered", "the event starts another workflow by its name".to_owned()));
    }
    if first_match(&row.event, enrichment, &workflow).is_some() {
        return Ok(view("undecided", "it matches; the event is not decided yet".to_owned()));
    }
    Ok(nearest(&row.event, enrichment, entry, &workflow))
}

/// Of several filters, the one that came furthest is the one that a person wants to hear about.
fn nearest(
    event: &kickwheel_schemas::CloudEvent,
    enrichment: &Enrichment,
    entry: &Entry,
    workflow: &Workflow,
) -> DecisionView {
    const ORDER: [&str; 7] = ["type", "repo", "dataset", "trigger", "branches", "paths", "where"];
    let rank = |clause: &str| ORDER.iter().position(|c| *c == clause).unwrap_or(0);
    let mut best: Option<(usize, DecisionView)> = None;
    for filter in &workflow.on {
        let Verdict::Filtered { clause, wanted, seen } = judge(filter, event, &enrichment.facts()) else { continue };
        let place = rank(&clause);
        if best.as_ref().is_none_or(|(b, _)| place > *b) {
            let reason = format!("{}: `{clause}` wants {wanted}, seen: {seen}", describe(&filter.kind));
            let view = DecisionView {
                workflow: entry.name.clone(),
                decision: "filtered".to_owned(),
                clause: Some(clause),
                wanted: Some(wanted),
                seen: Some(seen),
                reason,
                run: None,
            };
            best = Some((place, view));
        }
    }
    best.map_or_else(
        || DecisionView {
            workflow: entry.name.clone(),
            decision: "filtered".to_owned(),
            clause: None,
            wanted: None,
            seen: None,
            reason: "the workflow has no `on`".to_owned(),
            run: None,
        },
        |(_, view)| view,
    )
}

/// Why a task was or was not taken from the cache. None when nothing is known about it.
pub async fn cache(shared: &Arc<Shared>, task: &TaskKey) -> Result<Option<CacheWhy>, ReadError> {
    let name = task.to_string();
    let Some(record) = shared.store.cache_record(&name).await? else { return Ok(None) };
    let Some(row) = shared.store.run(task.run).await? else { return Ok(None) };
    let result = record.result.as_str().to_owned();
    let key = record.key.clone();
    let plain = |compared_with: Option<String>, reason: String| CacheWhy {
        task: name.clone(),
        result: result.clone(),
        key: key.clone(),
        compared_with,
        differs: Vec::new(),
        reason,
    };
    match record.result {
        CacheResult::Hit => {
            let from = origin_of(shared, task).await?;
            let reason = format!("the key is unchanged since {}", from.as_deref().unwrap_or("an earlier task"));
            return Ok(Some(plain(from, reason)));
        }
        CacheResult::Off => return Ok(Some(plain(None, "the step has no `cache: true`".to_owned()))),
        CacheResult::Miss => {}
    }
    let earlier =
        shared.store.earlier_cache_records(DEFAULT_PROJECT, &row.workflow, &task.step, task.run, COMPARED).await?;
    let nearest =
        earlier.into_iter().map(|other| (differences(&other, &record), other)).min_by_key(|(differs, _)| differs.len());
    Ok(Some(match nearest {
        None => plain(None, "no earlier run has executed this step".to_owned()),
        Some((differs, other)) if differs.is_empty() => plain(
            Some(other.task),
            "the same key was computed before, but that result was not kept or is gone".to_owned(),
        ),
        Some((differs, other)) => {
            let parts: Vec<&str> = differs.iter().map(|d| d.part.as_str()).collect();
            let reason = format!("compared with {}, these parts differ: {}", other.task, parts.join(", "));
            CacheWhy { differs, ..plain(Some(other.task), reason) }
        }
    }))
}

async fn origin_of(shared: &Arc<Shared>, task: &TaskKey) -> Result<Option<String>, ReadError> {
    use kickwheel_core::state::TaskStatus;
    let Some(loaded) = crate::driver::peek(shared, task.run).await? else { return Ok(None) };
    let Some((index, _)) = loaded.workflow.plan.step(&task.step) else { return Ok(None) };
    let status = loaded.state.steps[index].tasks().get(task.index as usize).map(|t| &t.status);
    Ok(match status {
        Some(TaskStatus::Succeeded { output, .. }) => output.cached_from.clone(),
        _ => None,
    })
}

fn differences(before: &CacheRecordRow, now: &CacheRecordRow) -> Vec<CacheDifference> {
    let read = |parts: &Value| serde_json::from_value::<BTreeMap<String, String>>(parts.clone()).unwrap_or_default();
    let (before, now) = (read(&before.parts), read(&now.parts));
    let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| before.get(*name) != now.get(*name))
        .map(|name| CacheDifference {
            part: name.clone(),
            before: before.get(name).cloned().unwrap_or_else(|| "(absent)".to_owned()),
            now: now.get(name).cloned().unwrap_or_else(|| "(absent)".to_owned()),
        })
        .collect()
}
