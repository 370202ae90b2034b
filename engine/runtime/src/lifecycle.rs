//! What a run's journal tells the outside: its facts as CloudEvents for `kickwheel.runs`.
//!
//! Pure and deterministic: the same row of the journal always gives the same events with the same ids, so relaying twice
//! is harmless. Where CDEvents has a type for it, its form is used: version 0.5 of its specification, with the events
//! `pipelinerun.queued`, `.started` and `.finished`, `taskrun.finished` and `artifact.published`, each 0.3.0. The rest of
//! the journal is our own business and stays inside.
//!
//! Next: `relay`, which reads journals and produces these.

use std::collections::BTreeMap;

use kickwheel_core::{
    Event,
    event::{Failure, FailureKind, RunOutcome, TaskEnd, TaskOutput},
    plan::{OutputDecl, Plan, Step},
};
use kickwheel_schemas::{CloudEvent, Digest, Millis, RunId, TaskKey, plugin::Effect};
use serde_json::{Value, json};

/// The version of the CDEvents specification whose context these events have.
const CDEVENTS: &str = "0.5.0";
/// The longest error text in an event, in characters.
const MAX_ERROR_CHARS: usize = 1_000;

/// What is the same in all events of a run.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The run.
    pub run: RunId,
    /// Its project.
    pub project: &'a str,
    /// Its workflow.
    pub workflow: &'a str,
    /// What it executes.
    pub plan: &'a Plan,
    /// Where a person can look at it, if that will be there tomorrow.
    pub url: Option<&'a str>,
}

/// The events of one journal row; `seq` is the row's number within the run.
pub fn lifecycle(subject: &Subject<'_>, seq: u64, event: &Event) -> Vec<CloudEvent> {
    let mut told = Told { subject, seq, events: Vec::new() };
    let run = subject.run.to_string();
    match event {
        Event::RunStarted { context: _, at } => {
            let content = json!({"pipelineName": subject.workflow});
            told.tell("pipelinerun.queued.0.3.0", &run, *at, content.clone());
            told.tell("pipelinerun.started.0.3.0", &run, *at, content);
        }
        Event::TaskFinished { step, index, attempt: _, end, at } => {
            let Some(declared) = subject.plan.steps.get(*step) else { return Vec::new() };
            told.task_finished(declared, *index, end, *at);
        }
        Event::RunFinished { outcome, at } => {
            let outcome = match outcome {
                RunOutcome::Succeeded => "success",
                RunOutcome::Failed => "failure",
                RunOutcome::Cancelled => "cancel",
            };
            let content = json!({"pipelineName": subject.workflow, "outcome": outcome});
            told.tell("pipelinerun.finished.0.3.0", &run, *at, content);
        }
        Event::PhaseEntered { .. }
        | Event::StepExpanded { .. }
        | Event::StepSkipped { .. }
        | Event::StepFailed { .. }
        | Event::TaskStarted { .. }
        | Event::TaskRetried { .. }
        | Event::TaskDue { .. }
        | Event::StepFinished { .. }
        | Event::CancelRequested { .. }
        | Event::GraceEnded { .. }
        | Event::ImagePinned { .. } => {}
    }
    told.events
}

struct Told<'a> {
    subject: &'a Subject<'a>,
    seq: u64,
    events: Vec<CloudEvent>,
}

impl Told<'_> {
    fn tell(&mut self, kind: &str, id: &str, at: Millis, mut content: Value) {
        // An artifact's event has no such field.
        if let (Some(url), false) = (self.subject.url, kind.starts_with("artifact.")) {
            content["uri"] = json!(url);
        }
        let ty = format!("dev.cdevents.{kind}");
        let source = format!("/kickwheel/{}", self.subject.project);
        let event_id = format!("{}:{}:{}", self.subject.run, self.seq, self.events.len());
        let time = at.to_rfc3339();
        let data = json!({
            "context": {"specversion": CDEVENTS, "id": event_id, "source": source, "type": ty, "timestamp": time},
            "subject": {"id": id, "source": source, "content": content},
        });
        // The run is the subject of all of them, so that whoever orders by subject sees a run in its order.
        let mut event = CloudEvent::new(source, event_id, ty, data).with_subject(self.subject.run.to_string());
        event.time = Some(time);
        self.events.push(event);
    }

    fn task_finished(&mut self, step: &Step, index: u32, end: &TaskEnd, at: Millis) {
        let task = TaskKey { run: self.subject.run, step: step.name.clone(), index }.to_string();
        let run = json!({"id": self.subject.run.to_string(), "source": format!("/kickwheel/{}", self.subject.project)});
        let mut content = json!({"taskName": step.name, "pipelineRun": run});
        let (outcome, error) = match end {
            TaskEnd::Succeeded(_) => ("success", None),
            TaskEnd::Failed(failure) => (outcome_of(failure), Some(&failure.message)),
            TaskEnd::Cancelled => ("cancel", None),
        };
        content["outcome"] = json!(outcome);
        if let Some(message) = error {
            content["errors"] = json!(message.chars().take(MAX_ERROR_CHARS).collect::<String>());
        }
        self.tell("taskrun.finished.0.3.0", &task, at, content);
        if let TaskEnd::Succeeded(output) = end {
            for (name, digest) in published(step, output) {
                self.tell("artifact.published.0.3.0", &package_url(&name, &digest), at, json!({}));
            }
        }
    }
}

/// A failure of the user's code is a `failure`; one of ours or of the set-up an `error`.
fn outcome_of(failure: &Failure) -> &'static str {
    match failure.kind {
        FailureKind::Exit
        | FailureKind::Signal
        | FailureKind::TimedOut
        | FailureKind::OutOfMemory
        | FailureKind::BadOutput
        | FailureKind::Plugin => "failure",
        FailureKind::Expression | FailureKind::Conflict | FailureKind::Platform | FailureKind::Unplaceable => "error",
    }
}

/// Named artifacts that came into being with a task: registered models, published datasets. What was taken from the cache
/// was published before.
fn published(step: &Step, output: &TaskOutput) -> BTreeMap<String, Digest> {
    let mut found = BTreeMap::new();
    for effect in &output.effects {
        match effect {
            Effect::RegisterModel { name, artifact, .. } => _ = found.insert(name.clone(), artifact.digest.clone()),
        }
    }
    for (name, declared) in &step.outputs {
        let OutputDecl::Path { dataset: Some(dataset), .. } = declared else { continue };
        let digest = output.outputs.get(name).and_then(|v| v.get("digest")).and_then(Value::as_str);
        if let Some(digest) = digest.and_then(|d| d.parse().ok()) {
            found.insert(dataset.clone(), digest);
        }
    }
    found
}

/// A package URL, which is how CDEvents names artifacts. Source of the format: the purl specification, type `generic`.
fn package_url(name: &str, digest: &Digest) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("pkg:generic/{escaped}@sha256:{}", digest.hex())
}

#[cfg(test)]
mod tests;
