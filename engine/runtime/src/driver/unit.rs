//! What one transaction says about a run: decided events, and every row that they imply.
//!
//! A unit is filled by deciding messages against the state in memory, perhaps followed by a chain of pure calls, and then
//! turned into writes. It does no I/O itself, but for the calls of that chain, whose results nobody sees before the commit.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use kickwheel_core::{
    Event, Input, RunState,
    command::{Command, outstanding},
    decide::{accepted_effects, decide},
    event::{TaskEnd, apply},
    state::{RunStatus, TaskStatus},
};
use kickwheel_schemas::{AttemptKey, Millis, TaskKey, api::RunPhase, plugin::Effect};
use kickwheel_store::{
    Write,
    write::{Append, InboxDone, RegisterModel, RunProgress, Snapshot},
};

use super::{Loaded, Message};
use crate::{
    chain::{self, Told},
    perform, report,
    shared::{DEFAULT_PROJECT, Shared},
};

/// A chain of pure calls runs ahead of its commit for at most this long.
const PURE_BATCH: Duration = Duration::from_millis(5);
/// A snapshot is taken each time that a run's journal passes a multiple of so many events, so that folding stays short.
const SNAPSHOT_EVERY: u64 = 256;

/// What one transaction says about a run.
#[derive(Default)]
pub struct Unit {
    /// Decided and applied events, in order.
    pub events: Vec<Event>,
    effects: Vec<Write>,
    extra: Vec<Write>,
    inbox_done: Vec<String>,
    /// Events that this unit causes.
    told: Vec<Told>,
}

impl Unit {
    /// Decides a message against the state and applies what is decided.
    pub fn decide(&mut self, loaded: &mut Loaded, now: Millis, message: &Message) {
        let cancelled = loaded.state.cancel.is_some();
        let at = message.at.unwrap_or(now);
        let events = decide(&loaded.workflow.plan, &loaded.state, at, message.input.clone());
        for event in &events {
            apply(&mut loaded.state, &loaded.workflow.plan, event);
        }
        self.inbox_done.extend(message.inbox.clone());
        if events.is_empty() {
            return;
        }
        let accepted = events.iter().any(|e| matches!(e, Event::TaskFinished { end: TaskEnd::Succeeded(_), .. }));
        if accepted || matches!(message.input, Input::Ended { .. }) {
            self.extra.extend(
                message
                    .extra
                    .iter()
                    .filter(|w| accepted || !matches!(w, Write::CachePut(_) | Write::CacheReplace(_)))
                    .cloned(),
            );
        }
        if accepted && !cancelled {
            for publication in &message.publish {
                self.effects.push(Write::PublishDataset(publication.put.clone()));
                self.told.push(chain::dataset_published(loaded, publication));
            }
        }
        let task = ended_task(loaded, &message.input);
        for effect in accepted_effects(&events) {
            self.effects.push(effect_write(effect, task.clone(), now));
            self.told.extend(task.as_ref().and_then(|task| chain::model_promoted(loaded, effect, task)));
        }
        self.events.extend(events);
    }

    /// The unit of writes. Effects come first, so that a conflict is met before anything else is done.
    pub fn into_writes(self, shared: &Shared, loaded: &Loaded, first_seq: u64, epoch: i64, now: Millis) -> Vec<Write> {
        if self.events.is_empty() {
            let (shard, run) = (loaded.row.shard, loaded.row.run);
            let done = self.inbox_done.into_iter();
            return done.map(|input_id| Write::InboxDone(InboxDone { shard, run, input_id })).collect();
        }
        let mut told = self.told;
        if loaded.state.is_finished() && shared.runs_are_awaited.load(Ordering::Relaxed) {
            told.extend(chain::run_finished(loaded));
        }
        let mut writes = self.effects;
        writes.extend(told.into_iter().map(|told| told.write(shared, now)));
        writes.push(Write::Append(Append {
            shard: loaded.row.shard,
            epoch,
            run: loaded.row.run,
            first_seq,
            events: self
                .events
                .iter()
                .map(|e| serde_json::to_string(e).expect("events have string keys only"))
                .collect(),
            at: now,
            progress: progress(loaded),
            inbox_done: self.inbox_done,
        }));
        writes.extend(self.extra);
        if !loaded.state.is_finished() && first_seq / SNAPSHOT_EVERY != loaded.state.seq / SNAPSHOT_EVERY {
            writes.push(Write::Snapshot(Snapshot {
                shard: loaded.row.shard,
                run: loaded.row.run,
                seq: loaded.state.seq,
                body: serde_json::to_vec(&loaded.state).expect("states have string keys only"),
            }));
        }
        if loaded.state.is_finished() {
            writes.extend(report::of_run(loaded, now));
        }
        writes
    }
}

fn ended_task(loaded: &Loaded, input: &Input) -> Option<String> {
    let Input::Ended { step, index, .. } = input else { return None };
    let step = loaded.workflow.plan.steps.get(*step)?;
    Some(TaskKey { run: loaded.row.run, step: step.name.clone(), index: *index }.to_string())
}

fn effect_write(effect: &Effect, task: Option<String>, at: Millis) -> Write {
    match effect {
        Effect::RegisterModel { name, artifact, metrics, stage, expected_version } => {
            Write::RegisterModel(RegisterModel {
                project: DEFAULT_PROJECT.to_owned(),
                name: name.clone(),
                artifact: artifact.clone(),
                metrics: metrics.clone(),
                task,
                stage: stage.clone(),
                expected_version: *expected_version,
                at,
            })
        }
    }
}

/// Where a run stands, for its row.
pub fn progress(loaded: &Loaded) -> RunProgress {
    let commands = outstanding(&loaded.workflow.plan, &loaded.state);
    let wake_at = commands.iter().find_map(|c| match c {
        Command::WakeAt(at) => Some(*at),
        Command::Execute { .. } | Command::Stop { .. } => None,
    });
    let open = commands.len() - usize::from(wake_at.is_some());
    RunProgress {
        state: phase(&loaded.state, open),
        open: u32::try_from(open).unwrap_or(u32::MAX),
        wake_at,
        ended_at: loaded.state.ended_at,
    }
}

fn phase(state: &RunState, open: usize) -> RunPhase {
    use kickwheel_core::event::RunOutcome;
    match state.status {
        RunStatus::New => RunPhase::Queued,
        RunStatus::Finished { outcome } => match outcome {
            RunOutcome::Succeeded => RunPhase::Succeeded,
            RunOutcome::Failed => RunPhase::Failed,
            RunOutcome::Cancelled => RunPhase::Cancelled,
        },
        RunStatus::Active { .. } if open == 0 => RunPhase::Waiting,
        RunStatus::Active { .. } => {
            let begun = state
                .steps
                .iter()
                .flat_map(|s| s.tasks())
                .any(|t| !matches!(t.status, TaskStatus::Ready { .. }) || t.attempt > 1);
            if begun { RunPhase::Running } else { RunPhase::Queued }
        }
    }
}

/// Runs pure plugin calls ahead of the commit, as long as nothing else is owed. Nothing that they produce is revealed
/// before the unit is written. Returns messages that must be decided alone.
pub async fn follow_pure_chain(
    shared: &Arc<Shared>,
    loaded: &mut Loaded,
    unit: &mut Unit,
    now: Millis,
) -> Vec<Message> {
    let begun = Instant::now();
    let mut apart = Vec::new();
    while shared.config.pure_batching && apart.is_empty() && begun.elapsed() < PURE_BATCH && !loaded.state.is_finished()
    {
        let commands = outstanding(&loaded.workflow.plan, &loaded.state);
        let [Command::Execute { step, index, attempt }] = commands[..] else { break };
        let task = &loaded.state.steps[step].tasks()[index as usize];
        let work = &task.spec.work;
        if task.attempt != attempt || !perform::is_pure(shared, work) || !perform::is_loaded(shared, work) {
            break;
        }
        let name = loaded.workflow.plan.steps[step].name.clone();
        let key = AttemptKey { task: TaskKey { run: loaded.row.run, step: name, index }, attempt };
        let left = PURE_BATCH.saturating_sub(begun.elapsed());
        // A call that takes longer is dropped here and performed again after the commit, which must not wait for it.
        let Ok(ending) = tokio::time::timeout(left, perform::call_now(shared, &key, work)).await else { break };
        let message = Message::plain(Input::Ended { step, index, attempt, ending });
        if message.has_effects() {
            apart.push(message);
        } else {
            unit.decide(loaded, now, &message);
        }
    }
    apart
}
