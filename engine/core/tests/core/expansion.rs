//! Steps into tasks: what each task is to do, with every expression evaluated.

use std::time::{Duration, Instant};

use kickwheel_core::{
    Event, Input, Plan, RunState, apply, decide,
    decide::Ending,
    event::{Failure, FailureKind, TaskOutput, TaskSpec, Work},
    plan::MAX_TASKS_PER_STEP,
};
use kickwheel_schemas::{Digest, Millis};
use serde_json::{Value, json};

use crate::{
    harness::outputs,
    plans::{Draft, context, plan, step},
};

/// Starts a plan and lets each of these tasks end in turn: the state after it, and every event.
fn play(plan: &Plan, endings: Vec<(&str, u32, Ending)>) -> (RunState, Vec<Event>) {
    let mut state = RunState::new(plan.steps.len());
    let mut journal = Vec::new();
    let mut happens = |state: &mut RunState, input| {
        let events = decide(plan, state, Millis(0), input);
        for event in &events {
            apply(state, plan, event);
        }
        journal.extend(events);
    };
    happens(&mut state, Input::Start(Box::new(context())));
    for (name, index, ending) in endings {
        let (step, _) = plan.step(name).expect("the step exists");
        happens(&mut state, Input::Ended { step, index, attempt: 1, ending });
    }
    (state, journal)
}

fn expanded(plan: &Plan, endings: Vec<(&str, u32, Ending)>, name: &str) -> Result<Vec<TaskSpec>, Failure> {
    let (wanted, _) = plan.step(name).expect("the step exists");
    play(plan, endings)
        .1
        .into_iter()
        .find_map(|event| match event {
            Event::StepExpanded { step, tasks, .. } if step == wanted => Some(Ok(tasks)),
            Event::StepFailed { step, failure, .. } if step == wanted => Some(Err(failure)),
            _ => None,
        })
        .expect("the step was decided")
}

fn succeeded(output: TaskOutput) -> Ending {
    Ending::Succeeded { output, changed: Vec::new() }
}

/// The work of the only step's tasks as JSON, or its failure's message.
fn works(draft: Draft) -> Result<Vec<Value>, String> {
    let plan = plan([draft]);
    let name = plan.steps[0].name.clone();
    expanded(&plan, vec![], &name)
        .map(|tasks| tasks.iter().map(|task| serde_json::to_value(&task.work).expect("work serialises")).collect())
        .map_err(|failure| {
            assert_eq!(failure.kind, FailureKind::Expression);
            failure.message
        })
}

#[test]
fn environment_is_text() {
    let draft = step("a")
        .env("TEXT", json!("x ${{ inputs.epochs }}"))
        .env("WHOLE", json!("${{ inputs.epochs }}"))
        .env("HALF", json!(0.5))
        .env("YES", json!("${{ event.data.branch == 'main' }}"))
        .env("URL", json!("${{ run.project }}/${{ run.workflow }}/${{ run.id }} ${{ run.url }}"));
    let works = works(draft).expect("all have values");
    assert_eq!(
        works[0]["env"],
        json!({
            "TEXT": "x 10", "WHOLE": "10", "HALF": "0.5", "YES": "true",
            "URL": "default/churn/run-1 http://127.0.0.1/runs/run-1",
        })
    );
    assert_eq!(
        works_error(step("a").env("LIST", json!("${{ inputs.none }}"))),
        "use `inputs.none`: it gives a list, but a text, number or boolean is needed (in `env.LIST`)"
    );
}

fn works_error(draft: Draft) -> String {
    works(draft).expect_err("it has no value")
}

#[test]
fn the_last_axis_varies_fastest() {
    let draft = step("a")
        .axis("x", json!([1, 2]))
        .axis("y", json!("${{ ['p', 'q'] }}"))
        .env("XY", json!("${{ matrix.x }}${{ matrix.y }}"));
    let envs: Vec<Value> =
        works(draft).expect("all have values").iter().map(|work| work["env"]["XY"].clone()).collect();
    assert_eq!(envs, ["1p", "1q", "2p", "2q"]);
}

#[test]
fn a_matrix_has_limits() {
    let half = json!(vec![0; 101]);
    assert_eq!(
        works_error(step("a").axis("x", half.clone()).axis("y", half)),
        format!(
            "expand the matrix (x: 101, y: 101): it gives more than {MAX_TASKS_PER_STEP} tasks, the most that one step \
             may have"
        )
    );
    assert_eq!(
        works_error(step("a").axis("x", json!("${{ inputs.epochs }}"))),
        "use `matrix.x`: it gives a whole number, but a list is needed"
    );
    let most = works(step("a").axis("x", json!(vec![0; MAX_TASKS_PER_STEP]))).expect("the limit itself is allowed");
    assert_eq!(most.len(), MAX_TASKS_PER_STEP);
}

#[test]
fn files_are_artifacts_or_pinned_datasets() {
    let artifact = |path: &str| json!({"digest": Digest::of(path.as_bytes()), "size": 10, "path": path});
    let draft = step("a")
        .axis("file", json!("${{ datasets['raw'].files }}"))
        .file("in.csv", json!("${{ matrix.file }}"))
        .file("all", json!("dataset:raw"));
    let works = works(draft).expect("all have values");
    let folder = json!({"digest": Digest::of(b"manifest"), "size": 20, "folder": true});
    assert_eq!(works[0]["files"], json!({"in.csv": artifact("a.csv"), "all": folder}));
    assert_eq!(works[1]["files"]["in.csv"], artifact("b.csv"));

    let error = |value: Value| works_error(step("a").file("x", value));
    assert_eq!(
        error(json!("dataset:unborn")),
        "use `files.x`: the dataset \"unborn\" had no version when the run was decided; publish one first"
    );
    assert!(error(json!("dataset:other")).contains("was not pinned"));
    assert!(error(json!("raw")).starts_with("use `files.x`: it gives the text \"raw\", but an artifact"));
    assert!(error(json!("${{ event.data }}")).starts_with("use `files.x`: its value is no artifact (missing field"));
    assert!(error(json!("${{ datasets.unborn }}")).starts_with("use `datasets.unborn`: it is null"));
    assert!(error(json!(7)).starts_with("use `files.x`: it gives a whole number"));
}

#[test]
fn a_list_of_artifacts_becomes_a_folder_in_the_order_of_the_list() {
    let draft = step("a").file("in", json!("${{ datasets.raw.files }}")).file("more", json!(["dataset:raw"]));
    let files = works(draft).expect("all have values").remove(0)["files"].take();
    let paths: Vec<&String> = files.as_object().expect("files are a map").keys().collect();
    assert_eq!(paths, ["in/0000-a.csv", "in/0001-b.csv", "more/0000"]);
    assert_eq!(files["in/0001-b.csv"]["path"], "b.csv");
    assert!(works_error(step("a").file("in", json!("${{ [1] }}"))).starts_with("use `files.in[0]`: it gives a whole"));
}

#[test]
fn commands_and_arguments_are_evaluated() {
    let container =
        works(step("a").container(json!(["train", "--epochs", "${{ inputs.epochs }}"]))).expect("it has values");
    assert_eq!(container[0]["program"], json!({"kind": "argv", "argv": ["train", "--epochs", "10"]}));
    assert_eq!(container[0]["image"], "python:3.12");
    assert!(works_error(step("a").container(json!(["${{ event.data }}"]))).ends_with("(in `command[0]`)"));

    let call = works(step("a").plugin(json!({
        "baseline": "model:churn@production",
        "n": {"deep": ["${{ inputs.epochs }}", 1.5, null, true]},
    })))
    .expect("it has values");
    assert_eq!(
        call[0],
        json!({
            "kind": "call", "plugin": "metrics-gate", "digest": Digest::of(b"component"),
            "with": {"baseline": "model:churn@production", "n": {"deep": [10, 1.5, null, true]}},
            "references": ["baseline"],
        })
    );
    assert!(works_error(step("a").plugin(json!({"x": "${{ inputs.nope }}"}))).ends_with("(in `with.x`)"));
}

#[test]
fn steps_are_read_as_values_once_they_have_ended() {
    let plan = plan([
        step("one").output("x"),
        step("many").axis("n", json!([5, 6])).output("y").condition("true"),
        step("skipped").condition("false").output("z"),
        step("reads").needs(&["one", "many", "skipped"]).condition("always()").plugin(json!({
            "one": "${{ steps.one }}",
            "many": "${{ steps['many'] }}",
            "skipped": "${{ steps.skipped }}",
        })),
    ]);
    let mut one = outputs(json!({"x": 1}));
    one.metrics.insert("loss".to_owned(), 0.5);
    let mut many = outputs(json!({"y": [true]}));
    many.metrics.insert("loss".to_owned(), 2.0);
    let failure = Failure { kind: FailureKind::Exit, message: "exit code 1".to_owned() };
    let endings = vec![("one", 0, succeeded(one)), ("many", 1, succeeded(many)), ("many", 0, Ending::Failed(failure))];
    let tasks = expanded(&plan, endings, "reads").expect("everything has a value");
    let Work::Call { with, .. } = &tasks[0].work else { panic!("it is a call") };
    let one_task =
        json!({"index": 0, "matrix": {}, "state": "succeeded", "outputs": {"x": 1}, "metrics": {"loss": 0.5}});
    assert_eq!(
        with["one"],
        json!({"state": "succeeded", "outputs": {"x": 1}, "metrics": {"loss": 0.5}, "tasks": [one_task]})
    );
    assert_eq!(
        with["many"],
        json!({
            "state": "failed",
            "outputs": {"y": [null, [true]]},
            "metrics": {"loss": [null, 2.0]},
            "tasks": [
                {"index": 0, "matrix": {"n": 5}, "state": "failed", "outputs": {}, "metrics": {}},
                {"index": 1, "matrix": {"n": 6}, "state": "succeeded", "outputs": {"y": [true]}, "metrics": {"loss": 2.0}},
            ],
        })
    );
    assert_eq!(with["skipped"], json!({"state": "skipped", "outputs": {}, "metrics": {}, "tasks": []}));
}

#[test]
fn a_sweep_of_ten_thousand_tasks_is_decided_task_by_task() {
    // A decision that copied the run would make ten thousand times ten thousand copies here: minutes rather than seconds.
    let begun = Instant::now();
    let plan = plan([
        step("a").axis("n", json!(vec![0; MAX_TASKS_PER_STEP])).output("x").env("URL", json!("${{ run.url }}")),
        step("b").needs(&["a"]).env("N", json!("${{ size(steps.a.outputs.x) }}")),
    ]);
    let all =
        (0..MAX_TASKS_PER_STEP as u32).map(|index| ("a", index, succeeded(outputs(json!({"x": index}))))).collect();
    let (state, journal) = play(&plan, all);
    assert_eq!(journal.len(), 1 + 1 + MAX_TASKS_PER_STEP + 1 + 1);
    let Work::Job { env, .. } = &state.steps[1].tasks()[0].spec.work else { panic!("it is a job") };
    assert_eq!(env["N"], MAX_TASKS_PER_STEP.to_string());
    assert!(begun.elapsed() < Duration::from_secs(40), "it took {:?}", begun.elapsed());
}
