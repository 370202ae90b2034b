//! Runs as the API shows them, for the tests of this module.

use std::collections::BTreeMap;

use kickwheel_schemas::{
    Millis,
    api::{RunDetail, RunPhase, RunSummary, StepView, TaskView},
};
use serde_json::json;

/// When the sample runs began.
pub const BEGAN: Millis = Millis(1_700_000_000_000);

/// How far the sample run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunSample {
    Queued,
    Training,
    Failed,
    Succeeded,
}

fn at(ms: u64) -> Option<String> {
    Some(BEGAN.plus(ms).to_rfc3339())
}

fn task(step: &str, index: u32, state: &str) -> TaskView {
    TaskView {
        id: format!("0190a1b2-0000-7000-8000-000000000001/{step}[{index}]"),
        index,
        state: state.to_owned(),
        attempt: u32::from(state != "ready"),
        matrix: BTreeMap::new(),
        outputs: BTreeMap::new(),
        metrics: BTreeMap::new(),
        progress: None,
        reason: None,
        cached_from: None,
        pid: None,
        started_at: None,
        ended_at: None,
    }
}

fn step(name: &str, phase: &str, state: &str, array: bool, tasks: Vec<TaskView>) -> StepView {
    StepView {
        name: name.to_owned(),
        phase: phase.to_owned(),
        state: state.to_owned(),
        needs: Vec::new(),
        reason: None,
        array,
        tasks,
    }
}

fn trial(index: u32, state: &str, loss: f64) -> TaskView {
    let mut trial = task("train", index, state);
    trial.matrix = BTreeMap::from([("lr".to_owned(), json!(0.1 / f64::from(index + 1)))]);
    trial.metrics = BTreeMap::from([("val_loss".to_owned(), loss)]);
    trial.started_at = at(3000 + u64::from(index) * 100);
    trial
}

/// One run at different times: prepare (one cached), train (a matrix), gate, and a cleanup.
pub fn run(sample: RunSample) -> RunDetail {
    let (state, steps) = match sample {
        RunSample::Queued => (RunPhase::Queued, queued()),
        RunSample::Training => (RunPhase::Running, training()),
        RunSample::Failed => (RunPhase::Failed, failed()),
        RunSample::Succeeded => (RunPhase::Succeeded, succeeded()),
    };
    RunDetail {
        summary: RunSummary {
            id: "0190a1b2-0000-7000-8000-000000000001".to_owned(),
            state,
            workflow: "churn-retrain".to_owned(),
            workflow_version: "sha256:00".to_owned(),
            project: "default".to_owned(),
            branch: Some("main".to_owned()),
            commit: Some("4f2a9c0e".to_owned()),
            cause: "push of 4f2a9c0 to main of churn".to_owned(),
            event_source: "file:///srv/churn.git".to_owned(),
            event_id: "e1".to_owned(),
            generation: 0,
            created_at: BEGAN.to_rfc3339(),
            ended_at: if state.is_terminal() { at(12_340) } else { None },
        },
        inputs: BTreeMap::new(),
        decision: "src/train.py matches paths".to_owned(),
        cancel: None,
        steps,
        images: BTreeMap::new(),
        first_task_ms: Some(230),
    }
}

fn queued() -> Vec<StepView> {
    vec![
        step("prepare", "main", "waiting", false, Vec::new()),
        step("train", "main", "waiting", true, Vec::new()),
        step("gate", "main", "waiting", false, Vec::new()),
        step("cleanup", "finally", "waiting", false, Vec::new()),
    ]
}

fn prepared() -> StepView {
    let mut cached = task("prepare", 0, "succeeded");
    cached.cached_from = Some("018f-old/prepare[0]".to_owned());
    cached.ended_at = at(500);
    step("prepare", "main", "succeeded", false, vec![cached])
}

fn training() -> Vec<StepView> {
    let mut done = trial(0, "succeeded", 0.08);
    done.ended_at = at(9000);
    let mut halfway = trial(1, "running", 0.311_23);
    halfway.progress = Some(0.5);
    let mut full = task("train", 2, "ready");
    full.reason = Some("pool local is full: 2 of 2 cpu used".to_owned());
    let mut steps = queued();
    steps[0] = prepared();
    steps[1] = step("train", "main", "running", true, vec![done, halfway, full]);
    steps
}

fn failed() -> Vec<StepView> {
    let mut steps = training();
    let tasks = &mut steps[1].tasks;
    tasks[1].state = "failed".to_owned();
    tasks[1].attempt = 2;
    tasks[1].reason = Some("exit code 1".to_owned());
    tasks[1].ended_at = at(11_000);
    tasks[2] = trial(2, "succeeded", 1.5e-7);
    tasks[2].ended_at = at(10_000);
    steps[1].state = "failed".to_owned();
    steps[2].state = "skipped".to_owned();
    steps[2].reason = Some("train failed".to_owned());
    let mut cleanup = task("cleanup", 0, "succeeded");
    cleanup.ended_at = at(12_000);
    steps[3] = step("cleanup", "finally", "succeeded", false, vec![cleanup]);
    steps
}

fn succeeded() -> Vec<StepView> {
    let mut steps = failed();
    steps[1].state = "succeeded".to_owned();
    steps[1].tasks[1] = trial(1, "succeeded", 0.09);
    steps[1].tasks[1].ended_at = at(11_000);
    let mut gate = task("gate", 0, "succeeded");
    gate.outputs = BTreeMap::from([("better".to_owned(), json!(true)), ("why".to_owned(), json!("0.08 < none"))]);
    gate.ended_at = at(11_500);
    steps[2] = step("gate", "main", "succeeded", false, vec![gate]);
    steps
}
