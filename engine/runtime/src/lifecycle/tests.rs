//! Each kind of event against the CDEvents SDK, which refuses unknown fields and wrong values.

use kickwheel_core::event::{RunContext, RunRef};
use kickwheel_schemas::ArtifactRef;
use kickwheel_spec::{PluginCatalog, compile};

use super::*;

const YAML: &str = "\
version: 1
name: churn
on: {manual: {}}
steps:
  prepare:
    run: 'true'
    outputs: {features: {path: out.csv, dataset: churn/features}}
";

fn tell(seq: u64, event: &Event) -> Vec<CloudEvent> {
    let compiled = compile(YAML, &PluginCatalog::default());
    let workflow = compiled.workflow.expect("the workflow has no mistakes");
    let run = RunId::new(Millis(1), [3; 10]);
    let subject =
        Subject { run, project: "default", workflow: "churn", plan: &workflow.plan, url: Some("http://h/runs/1") };
    lifecycle(&subject, seq, event)
}

/// The types told, after each has been read by the SDK.
fn check(event: &Event, types: &[&str]) -> Vec<CloudEvent> {
    let told = tell(4, event);
    for event in &told {
        let read: Result<cdevents_sdk::CDEvent, _> = serde_json::from_value(event.data.clone());
        let read = read.unwrap_or_else(|e| panic!("{}: {e}\n{}", event.ty, event.data));
        assert_eq!(read.ty(), event.ty);
        event.check().expect("a complete CloudEvent");
    }
    let got: Vec<&str> = told.iter().map(|e| e.ty.as_str()).collect();
    let wanted: Vec<String> = types.iter().map(|t| format!("dev.cdevents.{t}.0.3.0")).collect();
    assert_eq!(got, wanted);
    told
}

fn finished(end: TaskEnd) -> Event {
    Event::TaskFinished { step: 0, index: 0, attempt: 1, end, at: Millis(9) }
}

fn failed(kind: FailureKind) -> TaskEnd {
    TaskEnd::Failed(Failure { kind, message: "exit code 3".to_owned() })
}

#[test]
fn a_run_is_queued_and_started_and_finished() {
    let context = RunContext {
        run: String::new(),
        project: String::new(),
        event: Value::Null,
        inputs: BTreeMap::new(),
        datasets: BTreeMap::new(),
        source: None,
        url: String::new(),
        reference: RunRef::Unrecorded,
    };
    let began = Event::RunStarted { context: Box::new(context), at: Millis(5) };
    check(&began, &["pipelinerun.queued", "pipelinerun.started"]);
    for (outcome, word) in
        [(RunOutcome::Succeeded, "success"), (RunOutcome::Failed, "failure"), (RunOutcome::Cancelled, "cancel")]
    {
        let told = check(&Event::RunFinished { outcome, at: Millis(9) }, &["pipelinerun.finished"]);
        assert_eq!(told[0].data["subject"]["content"]["outcome"], word);
    }
}

#[test]
fn a_task_tells_how_it_ended_and_what_it_published() {
    let artifact =
        |text: &str| ArtifactRef { digest: Digest::of(text.as_bytes()), size: 1, path: "p".into(), folder: false };
    let features = serde_json::to_value(artifact("features")).expect("an artifact is JSON");
    let output = TaskOutput {
        outputs: BTreeMap::from([("features".to_owned(), features)]),
        effects: vec![Effect::RegisterModel {
            name: "churn é".to_owned(),
            artifact: artifact("model"),
            metrics: BTreeMap::new(),
            stage: None,
            expected_version: None,
        }],
        ..TaskOutput::none()
    };
    let told =
        check(&finished(TaskEnd::Succeeded(output)), &["taskrun.finished", "artifact.published", "artifact.published"]);
    assert_eq!(told[2].data["subject"]["id"], package_url("churn/features", &Digest::of(b"features")));
    assert!(
        told[1].data["subject"]["id"].as_str().is_some_and(|id| id.starts_with("pkg:generic/churn%20%C3%A9@sha256:"))
    );
    for (end, word) in [
        (failed(FailureKind::Exit), "failure"),
        (failed(FailureKind::Unplaceable), "error"),
        (TaskEnd::Cancelled, "cancel"),
    ] {
        let told = check(&finished(end), &["taskrun.finished"]);
        assert_eq!(told[0].data["subject"]["content"]["outcome"], word);
    }
}

#[test]
fn what_is_our_own_business_is_not_told() {
    check(&Event::TaskStarted { step: 0, index: 0, attempt: 1, at: Millis(1) }, &[]);
    check(&Event::StepFinished { step: 0, succeeded: true, at: Millis(1) }, &[]);
}

#[test]
fn the_same_row_tells_the_same_ids_and_another_row_tells_others() {
    let event = Event::RunFinished { outcome: RunOutcome::Succeeded, at: Millis(9) };
    assert_eq!(tell(4, &event), tell(4, &event));
    assert_ne!(tell(4, &event)[0].id, tell(5, &event)[0].id);
}
