//! Stored journals and states: what was written once is read for ever.

use kickwheel_core::{
    Event, RunState, RunStatus, apply,
    event::{RunOutcome, RunRef},
    state::{StepState, TaskStatus},
};
use serde_json::json;

use crate::plans::{plan, step};

/// A journal with one event of each kind, as it is stored. Never edited: a change that cannot read it needs an upcast.
const GOLDEN: &str = include_str!("golden_journal.json");

/// The event that came later, as it is stored.
const GOLDEN_IMAGE: &str =
    r#"{"type": "image_pinned", "image": "python:3.12", "digest": "sha256:aa", "at": 1700000000000}"#;

fn golden_image() -> Event {
    serde_json::from_str(GOLDEN_IMAGE).expect("it is read")
}

fn golden() -> Vec<Event> {
    serde_json::from_str(GOLDEN).expect("the golden journal is read")
}

#[test]
fn the_golden_journal_folds() {
    let plan = plan([
        step("train").axis("n", json!([1, 2])).retry(1),
        step("gate").needs(&["train"]).condition("always()").plugin(json!({})),
        step("broken").env("X", json!("${{ inputs.nope }}")),
        step("unwanted").condition("false"),
        step("clean").finally(),
    ]);
    let mut state = RunState::new(plan.steps.len());
    for event in golden() {
        apply(&mut state, &plan, &event);
    }
    assert_eq!(state.seq, golden().len() as u64);
    assert_eq!(state.status, RunStatus::Finished { outcome: RunOutcome::Cancelled });
    let StepState::Failed { tasks, failure: None } = &state.steps[0] else { panic!("train: {:?}", state.steps[0]) };
    assert!(matches!(tasks[0].status, TaskStatus::Failed { .. }));
    assert_eq!((tasks[0].attempt, tasks[0].user_failures, tasks[0].platform_failures), (3, 1, 1));
    assert!(matches!(tasks[1].status, TaskStatus::Cancelled { .. }));
    let StepState::Succeeded { tasks } = &state.steps[1] else { panic!("gate: {:?}", state.steps[1]) };
    let TaskStatus::Succeeded { output, .. } = &tasks[0].status else { panic!("the gate succeeded") };
    assert_eq!((&output.outputs["better"], output.effects.len(), tasks[0].conflicts), (&json!(true), 1, 1));
    assert!(matches!(&state.steps[2], StepState::Failed { failure: Some(_), .. }));
    assert_eq!(state.steps[3], StepState::Skipped { reason: "its condition is false: false".to_owned() });
    assert_eq!(state.cancel.as_ref().map(|cancel| cancel.by.as_str()), Some("ada"));
}

#[test]
fn the_golden_journal_is_written_as_it_was_read() {
    let stored: serde_json::Value = serde_json::from_str(GOLDEN).expect("it is JSON");
    assert_eq!(serde_json::to_value(golden()).expect("events serialise"), stored);
    let stored: serde_json::Value = serde_json::from_str(GOLDEN_IMAGE).expect("it is JSON");
    assert_eq!(serde_json::to_value(golden_image()).expect("events serialise"), stored);
}

#[test]
fn the_golden_journal_has_every_kind_of_event() {
    let kind = |event: &Event| match event {
        Event::RunStarted { .. } => 0,
        Event::PhaseEntered { .. } => 1,
        Event::StepExpanded { .. } => 2,
        Event::StepSkipped { .. } => 3,
        Event::StepFailed { .. } => 4,
        Event::TaskStarted { .. } => 5,
        Event::TaskFinished { .. } => 6,
        Event::TaskRetried { .. } => 7,
        Event::TaskDue { .. } => 8,
        Event::StepFinished { .. } => 9,
        Event::CancelRequested { .. } => 10,
        Event::GraceEnded { .. } => 11,
        Event::RunFinished { .. } => 12,
        Event::ImagePinned { .. } => 13,
    };
    let mut kinds: Vec<i32> = golden().iter().chain([&golden_image()]).map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, (0..14).collect::<Vec<_>>());
}

#[test]
fn a_snapshot_from_before_images_were_pinned_is_read() {
    let plan = plan([step("a")]);
    let mut state = RunState::new(1);
    apply(&mut state, &plan, &golden()[0]);
    let mut stored = serde_json::to_value(&state).expect("states serialise");
    assert!(stored.as_object_mut().expect("it is an object").remove("images").is_some());
    assert_eq!(serde_json::from_value::<RunState>(stored).expect("it is read"), state);
    apply(&mut state, &plan, &golden_image());
    assert_eq!(state.images["python:3.12"], "sha256:aa");
}

#[test]
fn the_ref_of_a_run_is_read_as_it_was_written_and_is_unknown_for_older_runs() {
    let read = |stored: serde_json::Value| serde_json::from_value::<RunRef>(stored).expect("it is read");
    for reference in [RunRef::Nothing, RunRef::Confirmed("refs/tags/v1".to_owned())] {
        let stored = serde_json::to_value(&reference).expect("it serialises");
        assert_eq!(read(stored), reference);
    }
    let Some(Event::RunStarted { context, .. }) = golden().into_iter().next() else { panic!("it begins so") };
    assert_eq!(context.reference, RunRef::Unrecorded);
}

#[test]
fn an_unknown_event_is_an_error_and_never_skipped() {
    assert!(serde_json::from_value::<Event>(json!({"type": "run_paused", "at": 1})).is_err());
}

#[test]
fn an_event_that_does_not_fit_changes_nothing_but_the_sequence_number() {
    let plan = plan([step("a")]);
    let golden = golden();
    // Every event, on a run that has not begun and on one that has ended, but the one that fits.
    let fresh = RunState::new(1);
    let mut ended = fresh.clone();
    apply(&mut ended, &plan, &golden[0]);
    apply(&mut ended, &plan, golden.last().expect("the golden journal is not empty"));
    assert!(ended.is_finished());
    for before in [&fresh, &ended] {
        for event in golden.iter().skip(usize::from(before == &fresh)) {
            let mut after = before.clone();
            apply(&mut after, &plan, event);
            assert_eq!(after, RunState { seq: before.seq + 1, ..before.clone() }, "{event:?}");
        }
    }
}
