//! What makes an event start a workflow.
//!
//! A decision is pure: the event, what the repositories' mirror says about changed paths, and the filter give a
//! [`Verdict`] that names the first clause which failed and the value it saw. `explain` computes it again from the same
//! stored facts, so nothing has to be kept for the events that started nothing.

mod globs;
mod inputs;

pub use globs::GlobList;
use indexmap::IndexMap;
pub use inputs::{InputError, check_input, inputs_for};
use kickwheel_schemas::{CloudEvent, payload};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    cron::{MissedPolicy, tick_source},
    expr::{Expr, Scope, Template},
};

/// One entry below `on:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventFilter {
    /// `id:`, a name for people.
    pub id: Option<String>,
    /// What it looks for.
    pub kind: FilterKind,
    /// `where:`, narrows further; reads `event`.
    pub condition: Option<Expr>,
    /// `with:`, gives inputs from the event.
    pub with: IndexMap<String, Template>,
}

/// The kinds of filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FilterKind {
    /// `git.push`: a branch was created or updated.
    GitPush {
        /// Names of repositories; empty: any of the project.
        repos: Vec<String>,
        /// Globs, `!` excludes, the last match wins; empty: any branch.
        branches: Vec<String>,
        /// Globs over changed paths, `!` excludes, the last match wins per path; empty: no path filter.
        paths: Vec<String>,
    },
    /// `dataset.changed`: a version with changed data was published.
    DatasetChanged {
        /// Names; empty: any of the project.
        datasets: Vec<String>,
    },
    /// `manual`: started by a person.
    Manual,
    /// `event: {type, where}`.
    Event {
        /// The event types.
        types: Vec<String>,
        /// `self: true`: also events that a run of this very workflow caused. Without it they start nothing, so that a
        /// workflow does not chase its own tail; only the runtime knows what caused an event, so it looks at this.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        own_runs: bool,
    },
    /// `cron`: a schedule was due.
    Cron {
        /// Name of the trigger, see [`crate::cron::name_cron_triggers`].
        trigger: String,
        /// The cron expression.
        schedule: String,
        /// The IANA name of its zone.
        timezone: String,
        /// What becomes of ticks that were not fired in time.
        missed: MissedPolicy,
        /// How late a tick may start.
        deadline_ms: Option<u64>,
    },
}

/// What is known about an event beside itself.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// What the mirror says about changed paths.
    pub changed: &'f ChangedPaths,
    /// The name under which the event's repository was added. The event itself carries the provider's name, which stands
    /// in where none is bound.
    pub repo: Option<&'f str>,
}

impl<'f> Facts<'f> {
    /// Nothing is bound.
    pub fn unbound(changed: &'f ChangedPaths) -> Self {
        Self { changed, repo: None }
    }
}

/// What is known about the paths that a push changed. Paths are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "known", rename_all = "snake_case")]
pub enum ChangedPaths {
    /// Not a push.
    NotApplicable,
    /// The complete list.
    Complete {
        /// Each path as bytes.
        paths: Vec<Vec<u8>>,
    },
    /// The list could not be had.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// What one event means for one filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Every clause holds. `unknown` names clauses that could not be decided and therefore start the run.
    Matches {
        /// For people, empty when all is known.
        unknown: Vec<String>,
    },
    /// A clause failed.
    Filtered {
        /// The clause: `type`, `repo`, `branches`, `paths`, `dataset`, `trigger`, `where`.
        clause: String,
        /// What the filter wants.
        wanted: String,
        /// What the event has.
        seen: String,
    },
}

/// Judges one filter. A `where` that cannot be evaluated is *unknown*: it starts the run and says why.
pub fn judge(filter: &EventFilter, event: &CloudEvent, facts: &Facts<'_>) -> Verdict {
    let mut unknown = Vec::new();
    // The order of the clauses is part of what `explain` promises: the cheap and literal ones come first.
    let filtered = match &filter.kind {
        FilterKind::GitPush { repos, branches, paths } => {
            clause_type(&[payload::GIT_BRANCH_CREATED, payload::GIT_BRANCH_UPDATED], event)
                .or_else(|| clause_name("repo", repos, facts.repo.or_else(|| data_text("repo", event))))
                .or_else(|| clause_branches(branches, event, &mut unknown))
                .or_else(|| clause_paths(paths, facts.changed, &mut unknown))
        }
        FilterKind::DatasetChanged { datasets } => clause_type(&[payload::DATASET_VERSION_PUBLISHED], event)
            .or_else(|| clause_data_changed(event))
            .or_else(|| clause_name("dataset", datasets, data_text("dataset", event))),
        FilterKind::Manual => clause_type(&[payload::MANUAL], event),
        FilterKind::Event { types, own_runs: _ } => clause_type(types, event),
        FilterKind::Cron { trigger, .. } => {
            clause_type(&[payload::CRON_TICK], event).or_else(|| clause_trigger(trigger, event))
        }
    };
    let filtered = filtered.or_else(|| clause_where(filter.condition.as_ref()?, event, &mut unknown));
    filtered.unwrap_or(Verdict::Matches { unknown })
}

/// What one event means for all filters of a workflow.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkflowVerdict {
    /// It starts.
    Starts {
        /// The first filter that matches.
        filter: usize,
        /// Clauses that could not be decided, see [`Verdict::Matches`].
        unknown: Vec<String>,
    },
    /// It does not, and this is what each filter says, in order: all are [`Verdict::Filtered`].
    Filtered(Vec<Verdict>),
}

/// Judges every filter of a workflow; any one suffices. One that matches outright is preferred to one that starts the run
/// only because something is unknown.
pub fn judge_all(filters: &[EventFilter], event: &CloudEvent, facts: &Facts<'_>) -> WorkflowVerdict {
    let verdicts: Vec<Verdict> = filters.iter().map(|filter| judge(filter, event, facts)).collect();
    let first = |wanted: fn(&[String]) -> bool| {
        verdicts.iter().enumerate().find_map(|(filter, verdict)| match verdict {
            Verdict::Matches { unknown } if wanted(unknown) => {
                Some(WorkflowVerdict::Starts { filter, unknown: unknown.clone() })
            }
            Verdict::Matches { .. } | Verdict::Filtered { .. } => None,
        })
    };
    first(|unknown| unknown.is_empty())
        .or_else(|| first(|unknown| !unknown.is_empty()))
        .unwrap_or(WorkflowVerdict::Filtered(verdicts))
}

/// The scope in which `where:` and `with:` are evaluated.
pub(crate) fn event_scope(event: &CloudEvent) -> Scope {
    let event = serde_json::to_value(event).expect("a CloudEvent has string keys only");
    Scope::from([("event".to_owned(), without_nulls(event))])
}

/// The event as expressions see it: a member that is null is not there, so that `has()` is true exactly for what can be
/// used. Senders write *unknown* in both ways.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn filtered(clause: &str, wanted: impl Into<String>, seen: impl Into<String>) -> Option<Verdict> {
    Some(Verdict::Filtered { clause: clause.to_owned(), wanted: wanted.into(), seen: seen.into() })
}

fn clause_type(types: &[impl AsRef<str>], event: &CloudEvent) -> Option<Verdict> {
    if types.iter().any(|ty| ty.as_ref() == event.ty) {
        return None;
    }
    let wanted: Vec<&str> = types.iter().map(AsRef::as_ref).collect();
    filtered("type", wanted.join(" or "), &event.ty)
}

fn data_text<'e>(field: &str, event: &'e CloudEvent) -> Option<&'e str> {
    event.data.get(field).and_then(Value::as_str)
}

/// A list of names, one of which must be the one that is seen; an empty list means any.
fn clause_name(clause: &str, names: &[String], seen: Option<&str>) -> Option<Verdict> {
    if names.is_empty() || seen.is_some_and(|seen| names.iter().any(|name| name == seen)) {
        return None;
    }
    filtered(clause, names.join(" or "), seen.unwrap_or(NOTHING))
}

/// By the source, which only the engine gives to a tick's event, and not by what `data` says.
fn clause_trigger(trigger: &str, event: &CloudEvent) -> Option<Verdict> {
    if event.source == tick_source(trigger) {
        return None;
    }
    filtered("trigger", trigger, event.source.strip_prefix(&tick_source("")).unwrap_or(&event.source))
}

/// What is shown for a field that the event does not have.
const NOTHING: &str = "(none)";

/// No branches mean any, except those that a merge queue makes for a moment: these must be named.
fn clause_branches(branches: &[String], event: &CloudEvent, unknown: &mut Vec<String>) -> Option<Verdict> {
    let branch = data_text("branch", event);
    let queued = branch.is_some_and(|branch| branch.starts_with(payload::MERGE_QUEUE_BRANCHES));
    let wanted = || if branches.is_empty() { "any but a merge queue's own".to_owned() } else { branches.join(", ") };
    let included = match (branches.is_empty(), queued) {
        (true, queued) => !queued,
        (false, true) => {
            let named: Vec<String> = branches.iter().filter(|glob| speaks_of_merge_queues(glob)).cloned().collect();
            let includes = named.iter().any(|glob| !glob.starts_with('!'));
            includes && includes_branch(&named, branch, unknown)?
        }
        (false, false) => includes_branch(branches, branch, unknown)?,
    };
    if included { None } else { filtered("branches", wanted(), branch.unwrap_or(NOTHING)) }
}

/// Whether a glob has a say about a merge queue's branches: it names them, or it excludes.
fn speaks_of_merge_queues(glob: &str) -> bool {
    glob.starts_with('!') || glob.starts_with(payload::MERGE_QUEUE_BRANCHES)
}

/// None when the globs cannot be used, which is then unknown.
fn includes_branch(globs: &[String], branch: Option<&str>, unknown: &mut Vec<String>) -> Option<bool> {
    let globs = compiled("branches", globs, unknown)?;
    Some(branch.is_some_and(|branch| globs.includes(branch.as_bytes())))
}

fn clause_paths(patterns: &[String], changed: &ChangedPaths, unknown: &mut Vec<String>) -> Option<Verdict> {
    if patterns.is_empty() {
        return None;
    }
    let globs = compiled("paths", patterns, unknown)?;
    match changed {
        ChangedPaths::Unknown { reason } => {
            unknown.push(format!("paths: {reason}"));
            None
        }
        ChangedPaths::NotApplicable => {
            unknown.push("paths: the changed paths of this event are not known".to_owned());
            None
        }
        ChangedPaths::Complete { paths } if paths.iter().any(|path| globs.includes(path)) => None,
        ChangedPaths::Complete { paths } => filtered("paths", patterns.join(", "), shown_paths(paths)),
    }
}

/// The globs of a clause. The checker of workflow files refuses malformed ones; should one come this far, the clause is
/// unknown.
fn compiled(clause: &str, patterns: &[String], unknown: &mut Vec<String>) -> Option<GlobList> {
    GlobList::new(patterns).map_err(|message| unknown.push(format!("{clause}: {message}"))).ok()
}

/// Most changed paths that a verdict names.
pub const MAX_PATHS_SHOWN: usize = 20;

fn shown_paths(paths: &[Vec<u8>]) -> String {
    if paths.is_empty() {
        return "(no changed path)".to_owned();
    }
    let mut shown: Vec<String> =
        paths.iter().take(MAX_PATHS_SHOWN).map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    if paths.len() > MAX_PATHS_SHOWN {
        shown.push(format!("and {} more", paths.len() - MAX_PATHS_SHOWN));
    }
    shown.join(", ")
}

fn clause_data_changed(event: &CloudEvent) -> Option<Verdict> {
    match event.data.get("data_changed").and_then(Value::as_bool) {
        Some(true) => None,
        Some(false) | None => filtered("dataset", "a version with changed data", "only metadata changed"),
    }
}

fn clause_where(condition: &Expr, event: &CloudEvent, unknown: &mut Vec<String>) -> Option<Verdict> {
    let scope = event_scope(event);
    match condition.evaluate_bool(&scope) {
        Ok(true) => None,
        Ok(false) => filtered("where", condition.source(), shown_operands(condition, &scope, event)),
        Err(error) => {
            unknown.push(format!("where: failed to {error}"));
            None
        }
    }
}

/// The values that a false condition read, so that nobody has to guess: `event.data.branch = "dev"`.
fn shown_operands(condition: &Expr, scope: &Scope, event: &CloudEvent) -> String {
    let shown: Vec<String> = condition
        .paths("event")
        .into_iter()
        .take(MAX_PATHS_SHOWN)
        .map(|path| {
            let value = path.iter().try_fold(&scope["event"], |value, name| value.get(name));
            let value = value.map_or_else(|| NOTHING.to_owned(), |value| shorten(&value.to_string()));
            format!("event.{} = {value}", path.join("."))
        })
        .collect();
    if shown.is_empty() { event.subject.clone().unwrap_or_else(|| NOTHING.to_owned()) } else { shown.join(", ") }
}

/// Longest value that a verdict quotes, in characters.
const MAX_VALUE_SHOWN: usize = 200;

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_VALUE_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
