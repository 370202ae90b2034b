//! What the expressions of a step may read, and nothing they do not: a step of ten thousand tasks is turned into a value
//! only for those that name it.

use serde_json::{Map, Value, json};

use super::draft::Draft;
use crate::{
    event::TaskOutput,
    expr::{Bindings, Expr},
    filter::without_nulls,
    plan::{Action, Phase, Step, StepIndex},
    state::{StepState, TaskState, TaskStatus},
};

/// The values for one step, shared by all its expressions and tasks.
pub(super) struct StepScope {
    pub bindings: Bindings,
}

impl StepScope {
    pub fn of(draft: &Draft<'_>, step: StepIndex) -> Self {
        let expressions = expressions(&draft.plan.steps[step]);
        let mut bindings = Bindings::default();
        let reads = |variable: &str| expressions.iter().any(|expr| !expr.members(variable).is_empty());
        if reads("event") {
            bindings.bind("event", &without_nulls(draft.context.event.clone()));
        }
        if reads("inputs") {
            bindings.bind("inputs", &json!(draft.context.inputs));
        }
        if reads("datasets") {
            bindings.bind("datasets", &json!(draft.context.datasets));
        }
        if reads("run") {
            bindings.bind("run", &run(draft));
        }
        if reads("steps") {
            bindings.bind("steps", &steps(draft, &expressions));
        }
        Self { bindings }
    }
}

/// Every expression of a step.
fn expressions(step: &Step) -> Vec<&Expr> {
    let axes = step.matrix.iter().flat_map(|matrix| matrix.axes.values());
    let action: Vec<_> = match &step.action {
        Action::Script { .. } => Vec::new(),
        Action::Container { command, .. } => command.iter().collect(),
        Action::Plugin { with, .. } => with.values().collect(),
    };
    let templates = axes.chain(step.env.values()).chain(step.files.values()).chain(action);
    let condition = step.condition.iter().map(|condition| &condition.expr);
    condition.chain(templates.flat_map(|template| template.expressions())).collect()
}

/// `run`: who and where, and for the phases after the main one, how that went.
fn run(draft: &Draft<'_>) -> Value {
    let context = draft.context;
    let mut run = json!({
        "id": context.run,
        "project": context.project,
        "workflow": draft.plan.workflow,
        "url": context.url,
    });
    if let Some(Phase::OnFailure | Phase::Finally) = draft.phase() {
        let failed: Vec<&str> =
            draft.failed_steps(&[Phase::Main]).map(|step| draft.plan.steps[step].name.as_str()).collect();
        let state = match (draft.is_cancelled(), failed.is_empty()) {
            (true, _) => "cancelled",
            (false, false) => "failed",
            (false, true) => "succeeded",
        };
        run["state"] = json!(state);
        run["failed_steps"] = json!(failed);
    }
    run
}

/// `steps`: those that are named and have ended.
fn steps(draft: &Draft<'_>, expressions: &[&Expr]) -> Value {
    let mut read = Map::new();
    for expr in expressions {
        let members = expr.members("steps");
        for (index, step) in draft.plan.steps.iter().enumerate() {
            let named = members.whole || members.names.contains(&step.name);
            if named
                && !read.contains_key(&step.name)
                && let Some(value) = step_value(step, draft.step(index))
            {
                read.insert(step.name.clone(), value);
            }
        }
    }
    Value::Object(read)
}

/// `steps.NAME`; none while it has not ended.
fn step_value(step: &Step, state: &StepState) -> Option<Value> {
    let state_name = match state {
        StepState::Waiting | StepState::Active { .. } => return None,
        StepState::Succeeded { .. } => "succeeded",
        StepState::Failed { .. } if state.is_cancelled() => "cancelled",
        StepState::Failed { .. } => "failed",
        StepState::Skipped { .. } => "skipped",
    };
    let tasks = state.tasks();
    // A step that did not come to have tasks has no outputs to read, rather than lists of none.
    let expanded = match state {
        StepState::Skipped { .. } | StepState::Failed { failure: Some(_), .. } => false,
        StepState::Waiting | StepState::Active { .. } | StepState::Succeeded { .. } | StepState::Failed { .. } => true,
    };
    let (outputs, metrics) = match (&step.matrix, tasks) {
        (None, [task]) => (json!(output_of(task).outputs), json!(output_of(task).metrics)),
        (Some(_), tasks) if expanded => (aligned_outputs(step, tasks), aligned_metrics(tasks)),
        (None | Some(_), _) => (json!({}), json!({})),
    };
    let tasks: Vec<Value> = tasks.iter().enumerate().map(|(index, task)| task_value(index, task)).collect();
    Some(json!({"state": state_name, "outputs": outputs, "metrics": metrics, "tasks": tasks}))
}

fn task_value(index: usize, task: &TaskState) -> Value {
    let state = match task.status {
        TaskStatus::Ready { .. } => "queued",
        TaskStatus::Running { .. } => "running",
        TaskStatus::Backoff { .. } => "waiting",
        TaskStatus::Succeeded { .. } => "succeeded",
        TaskStatus::Failed { .. } => "failed",
        TaskStatus::Cancelled { .. } => "cancelled",
    };
    let TaskOutput { outputs, metrics, .. } = output_of(task);
    json!({"index": index, "matrix": task.spec.matrix, "state": state, "outputs": outputs, "metrics": metrics})
}

/// What it produced: nothing unless it succeeded.
fn output_of(task: &TaskState) -> &TaskOutput {
    static NOTHING: TaskOutput = TaskOutput::none();
    match &task.status {
        TaskStatus::Succeeded { output, .. } => output,
        TaskStatus::Ready { .. }
        | TaskStatus::Running { .. }
        | TaskStatus::Backoff { .. }
        | TaskStatus::Failed { .. }
        | TaskStatus::Cancelled { .. } => &NOTHING,
    }
}

/// Every declared output as a list with one item per task, null where there is none.
fn aligned_outputs(step: &Step, tasks: &[TaskState]) -> Value {
    let declared: Vec<&String> = match &step.action {
        Action::Script { .. } | Action::Container { .. } => step.outputs.keys().collect(),
        Action::Plugin { outputs, .. } => outputs.iter().chain(step.outputs.keys()).collect(),
    };
    let mut lists = Map::new();
    for name in declared {
        let list = tasks.iter().map(|task| output_of(task).outputs.get(name).cloned().unwrap_or(Value::Null));
        lists.insert(name.clone(), list.collect());
    }
    Value::Object(lists)
}

/// Every metric that any task has, likewise.
fn aligned_metrics(tasks: &[TaskState]) -> Value {
    let mut lists = Map::new();
    for name in tasks.iter().flat_map(|task| output_of(task).metrics.keys()) {
        if !lists.contains_key(name) {
            let list = tasks.iter().map(|task| json!(output_of(task).metrics.get(name)));
            lists.insert(name.clone(), list.collect());
        }
    }
    Value::Object(lists)
}
