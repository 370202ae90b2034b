//! Tells a story of a run in three ways: live, folded from every prefix of its journal, and crashed after every line
//! between "persisted" and "acted".

use kickwheel_core::{
    Command, Event, Input, Plan, RunState, apply, decide,
    decide::Ending,
    event::{Failure, FailureKind, RetryCause, RunOutcome, TaskEnd, TaskOutput, is_legal},
    outstanding,
    plan::Phase,
};
use kickwheel_schemas::Millis;
use serde_json::Value;

use crate::plans::context;

/// One thing that happens, what is decided, and what is owed after it.
pub struct Line {
    at: i64,
    what: What,
    events: Vec<&'static str>,
    owed: Vec<&'static str>,
}

/// An input, its step still named.
pub enum What {
    Start,
    Wake,
    Cancel,
    Image { name: &'static str, digest: &'static str },
    Started { task: &'static str },
    Ended { task: &'static str, ending: Ending },
}

/// A line of a story. An empty list of events says that nothing must happen.
pub fn line(
    at: i64,
    what: What,
    events: impl IntoIterator<Item = &'static str>,
    owed: impl IntoIterator<Item = &'static str>,
) -> Line {
    Line { at, what, events: events.into_iter().collect(), owed: owed.into_iter().collect() }
}

/// What an image's name stands for now.
pub fn found(name: &'static str, digest: &'static str) -> What {
    What::Image { name, digest }
}

/// User code of `step[index]#attempt` has begun.
pub fn started(task: &'static str) -> What {
    What::Started { task }
}

/// `step[index]#attempt` succeeded with nothing to show.
pub fn succeeds(task: &'static str) -> What {
    gives(task, TaskOutput::default())
}

pub fn gives(task: &'static str, output: TaskOutput) -> What {
    What::Ended { task, ending: Ending::Succeeded { output, changed: Vec::new() } }
}

/// It succeeded, but what it saw had changed.
pub fn conflicts(task: &'static str) -> What {
    conflicts_with(task, TaskOutput::default())
}

pub fn conflicts_with(task: &'static str, output: TaskOutput) -> What {
    What::Ended { task, ending: Ending::Succeeded { output, changed: vec!["stage moved".to_owned()] } }
}

/// It failed with an exit code.
pub fn fails(task: &'static str) -> What {
    fails_as(task, FailureKind::Exit)
}

pub fn fails_as(task: &'static str, kind: FailureKind) -> What {
    What::Ended { task, ending: Ending::Failed(Failure { kind, message: "it said so".to_owned() }) }
}

pub fn lost(task: &'static str) -> What {
    What::Ended { task, ending: Ending::Lost { message: "its node is gone".to_owned() } }
}

pub fn cancelled(task: &'static str) -> What {
    What::Ended { task, ending: Ending::Cancelled }
}

/// Tells the story and panics where it goes another way.
pub fn tell(plan: &Plan, story: &[Line]) {
    let journal = live(plan, story);
    folded_from_every_prefix(plan, &journal);
    for crash in 0..story.len() {
        crashed_after(plan, story, crash);
    }
}

fn live(plan: &Plan, story: &[Line]) -> Vec<Event> {
    let mut state = RunState::new(plan.steps.len());
    let mut journal = Vec::new();
    for (number, line) in story.iter().enumerate() {
        journal.extend(play(plan, &mut state, line, number));
    }
    assert!(state.is_finished() || !outstanding(plan, &state).is_empty(), "the story leaves the run stuck");
    journal
}

/// Decides one line, compares, and applies.
fn play(plan: &Plan, state: &mut RunState, line: &Line, number: usize) -> Vec<Event> {
    let events = decide(plan, state, Millis(line.at), input(plan, &line.what));
    let told: Vec<String> = events.iter().map(|event| tell_event(plan, event)).collect();
    assert_eq!(told, line.events, "events of line {number}");
    for event in &events {
        assert!(is_legal(state, plan, event), "line {number} decides an illegal event: {event:?}");
        let seq = state.seq;
        apply(state, plan, event);
        assert_eq!(state.seq, seq + 1, "an event has one sequence number");
    }
    assert_eq!(tell_owed(plan, state), line.owed, "commands after line {number}");
    events
}

fn tell_owed(plan: &Plan, state: &RunState) -> Vec<String> {
    outstanding(plan, state).iter().map(|command| tell_command(plan, command)).collect()
}

/// As recovery does: from the journal's stored form and nothing else.
fn fold(plan: &Plan, journal: &[Event]) -> RunState {
    let stored = serde_json::to_string(journal).expect("events serialise");
    let journal: Vec<Event> = serde_json::from_str(&stored).expect("and come back");
    let mut state = RunState::new(plan.steps.len());
    for event in &journal {
        apply(&mut state, plan, event);
    }
    state
}

fn folded_from_every_prefix(plan: &Plan, journal: &[Event]) {
    let mut live = RunState::new(plan.steps.len());
    for len in 0..=journal.len() {
        let folded = fold(plan, &journal[..len]);
        assert_eq!(folded, live, "the fold of the first {len} events");
        assert_eq!(outstanding(plan, &folded), outstanding(plan, &live), "commands after the first {len} events");
        let snapshot = serde_json::to_string(&live).expect("states serialise");
        assert_eq!(serde_json::from_str::<RunState>(&snapshot).expect("and come back"), live);
        if let Some(event) = journal.get(len) {
            apply(&mut live, plan, event);
        }
    }
}

/// The engine dies after it has stored line `crash`; what follows must be told the same from the journal.
fn crashed_after(plan: &Plan, story: &[Line], crash: usize) {
    let mut state = RunState::new(plan.steps.len());
    let mut journal = Vec::new();
    for (number, line) in story.iter().enumerate() {
        journal.extend(play(plan, &mut state, line, number));
        if number == crash {
            state = fold(plan, &journal);
            assert_eq!(tell_owed(plan, &state), line.owed, "recovery performs what was not acted upon");
        }
    }
    assert_eq!(state, fold(plan, &journal), "after a crash behind line {crash}");
}

fn input(plan: &Plan, what: &What) -> Input {
    match what {
        What::Start => Input::Start(Box::new(context())),
        What::Wake => Input::Wake,
        What::Cancel => Input::Cancel { by: "ada".to_owned(), reason: "enough".to_owned() },
        What::Image { name, digest } => Input::ImageFound { image: (*name).to_owned(), digest: (*digest).to_owned() },
        What::Started { task } => {
            let (step, index, attempt) = attempt_named(plan, task);
            Input::Started { step, index, attempt }
        }
        What::Ended { task, ending } => {
            let (step, index, attempt) = attempt_named(plan, task);
            Input::Ended { step, index, attempt, ending: ending.clone() }
        }
    }
}

/// `train[2]#1`; a name that no step has is out of range on purpose.
fn attempt_named(plan: &Plan, task: &str) -> (usize, u32, u32) {
    let parts: Option<_> = (|| {
        let (step, rest) = task.split_once('[')?;
        let (index, attempt) = rest.split_once("]#")?;
        Some((step, index.parse().ok()?, attempt.parse().ok()?))
    })();
    let (step, index, attempt) = parts.unwrap_or_else(|| panic!("{task:?} is not of the form step[index]#attempt"));
    (plan.step(step).map_or(usize::MAX, |(index, _)| index), index, attempt)
}

/// An event in a few words. Times appear only where they are decided rather than passed through.
pub fn tell_event(plan: &Plan, event: &Event) -> String {
    let name = |step: &usize| plan.steps[*step].name.clone();
    match event {
        Event::RunStarted { .. } => "run started".to_owned(),
        Event::PhaseEntered { phase, .. } => format!("phase {}", tell_phase(*phase)),
        Event::StepExpanded { step, tasks, .. } => format!("{} expanded to {}", name(step), tasks.len()),
        Event::StepSkipped { step, reason, .. } => format!("{} skipped: {reason}", name(step)),
        Event::StepFailed { step, failure, .. } => format!("{} failed: {}", name(step), failure.message),
        Event::TaskStarted { step, index, attempt, .. } => format!("{}[{index}]#{attempt} started", name(step)),
        Event::TaskFinished { step, index, attempt, end, .. } => {
            let end = match end {
                TaskEnd::Succeeded(output) if output.effects.is_empty() => "succeeded".to_owned(),
                TaskEnd::Succeeded(output) => format!("succeeded with {} effects", output.effects.len()),
                TaskEnd::Failed(failure) => format!("failed: {}", failure.message),
                TaskEnd::Cancelled => "cancelled".to_owned(),
            };
            format!("{}[{index}]#{attempt} {end}", name(step))
        }
        Event::TaskRetried { step, index, attempt, cause, not_before, .. } => {
            let cause = match cause {
                RetryCause::User => "user",
                RetryCause::Platform => "platform",
                RetryCause::Conflict => "conflict",
            };
            format!("{}[{index}]#{attempt} retried for {cause} at {}", name(step), not_before.0)
        }
        Event::TaskDue { step, index, attempt, .. } => format!("{}[{index}]#{attempt} due", name(step)),
        Event::StepFinished { step, succeeded, .. } => {
            format!("{} finished {}", name(step), if *succeeded { "well" } else { "badly" })
        }
        Event::CancelRequested { .. } => "cancel requested".to_owned(),
        Event::GraceEnded { .. } => "grace ended".to_owned(),
        Event::ImagePinned { image, digest, .. } => format!("{image} is {digest}"),
        Event::RunFinished { outcome, .. } => match outcome {
            RunOutcome::Succeeded => "run succeeded".to_owned(),
            RunOutcome::Failed => "run failed".to_owned(),
            RunOutcome::Cancelled => "run cancelled".to_owned(),
        },
    }
}

fn tell_phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Main => "main",
        Phase::OnFailure => "on_failure",
        Phase::Finally => "finally",
    }
}

fn tell_command(plan: &Plan, command: &Command) -> String {
    match command {
        Command::Execute { step, index, attempt } => format!("execute {}[{index}]#{attempt}", plan.steps[*step].name),
        Command::Stop { step, index, attempt } => format!("stop {}[{index}]#{attempt}", plan.steps[*step].name),
        Command::WakeAt(at) => format!("wake at {}", at.0),
    }
}

/// A result with these outputs.
pub fn outputs(outputs: Value) -> TaskOutput {
    let Value::Object(outputs) = outputs else { panic!("outputs are a map") };
    TaskOutput { outputs: outputs.into_iter().collect(), ..TaskOutput::default() }
}
