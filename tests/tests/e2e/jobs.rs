//! What becomes of jobs: success, failure, limits, cancelling, skipping, and the steps that follow a failure.

use kickwheel_tests::{
    harness::{Engine, on_each_database},
    wait::until,
};
use serde_json::{Value, json};

fn check(yaml: &str, state: &str, look: impl Fn(&Engine) + Sync) {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.submit(yaml).wait_for(state);
        look(&engine);
    });
}

fn step_states(engine: &Engine) -> Vec<(String, String)> {
    let run = engine.run();
    let steps = run["steps"].as_array().expect("a run has steps");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    steps.iter().map(|s| (text(&s["name"]), text(&s["state"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn a_matrix_feeds_a_plugin_whose_choice_is_kept() {
    let yaml = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  train:
    matrix: {loss: [0.4, 0.2, 0.3]}
    env: {LOSS: "${{ matrix.loss }}"}
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      echo "{\"name\": \"loss\", \"value\": $LOSS}" >> "$KICKWHEEL_METRICS"
      echo "$LOSS" > out.txt
    outputs: {model: {path: out.txt}}
  choose:
    uses: best-of
    with: {candidates: "${{ steps.train.tasks }}", metric: loss}
  gate:
    uses: metrics-gate
    with: {candidate: "${{ steps.choose.outputs.best }}", baseline: "model:wheel@production", metric: loss}
  promote:
    if: steps.gate.outputs.better
    uses: model-promote
    with:
      model: "${{ steps.choose.outputs.best.outputs.model }}"
      metrics: "${{ steps.choose.outputs.best }}"
      name: wheel
      stage: production
"#;
    check(yaml, "succeeded", |engine| {
        assert_eq!(engine.ledger_lines().len(), 3);
        let model = engine.api().get("models/wheel");
        assert_eq!(model["stages"], json!({"production": 1}), "{model:#}");
        assert_eq!(model["versions"][0]["metrics"]["loss"], 0.2, "{model:#}");
        assert_eq!(model["versions"][0]["artifact"]["digest"], engine.task("train", 1)["outputs"]["model"]["digest"]);
    });
}

#[test]
fn a_failure_spends_its_retries_then_runs_what_follows_a_failure() {
    let yaml = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  breaks:
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      exit 3
    retry: {max: 1, backoff: {initial: 100ms}}
  after: {needs: [breaks], run: echo never}
  aside: {run: echo fine}
on_failure:
  tell: {run: echo it failed}
finally:
  tidy: {run: echo the end}
"#;
    check(yaml, "failed", |engine| {
        assert_eq!(engine.ledger_lines().len(), 2, "one retry");
        let task = engine.task("breaks", 0);
        assert_eq!(task["attempt"], 2);
        assert!(task["reason"].as_str().is_some_and(|r| r.contains("code 3")), "{task:#}");
        let expected = [
            ("breaks", "failed"),
            ("after", "skipped"),
            ("aside", "succeeded"),
            ("tell", "succeeded"),
            ("tidy", "succeeded"),
        ];
        assert_eq!(step_states(engine), pairs(&expected));
    });
}

#[test]
fn a_false_condition_skips_and_finally_still_runs() {
    let yaml = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
inputs: {deep: {type: boolean, default: false}}
steps:
  shallow: {run: echo shallow}
  deep: {if: inputs.deep, run: echo deep}
  deeper: {needs: [deep], run: echo deeper}
on_failure:
  tell: {run: echo never}
finally:
  tidy: {run: echo always}
"#;
    check(yaml, "succeeded", |engine| {
        let expected = [
            ("shallow", "succeeded"),
            ("deep", "skipped"),
            ("deeper", "skipped"),
            ("tell", "skipped"),
            ("tidy", "succeeded"),
        ];
        let states = step_states(engine);
        // A step of a phase that was never entered may say that it waits; it must not have run.
        let named = |name: &str| states.iter().find(|(n, _)| n == name).map(|(_, s)| s.clone());
        for (name, state) in expected.iter().filter(|(name, _)| *name != "tell") {
            assert_eq!(named(name).as_deref(), Some(*state), "{name} of {states:?}");
        }
        assert_ne!(named("tell").as_deref(), Some("succeeded"));
    });
}

#[test]
fn a_job_that_takes_too_long_is_ended_and_says_so() {
    let yaml = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  slow: {run: "exec sleep 100", timeout: 500ms}
"#;
    check(yaml, "failed", |engine| {
        let task = engine.task("slow", 0);
        assert!(task["reason"].as_str().is_some_and(|r| r.contains("0.5 s")), "{task:#}");
    });
}

#[test]
fn a_job_that_takes_too_much_memory_is_ended_and_says_so() {
    let yaml = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  greedy:
    run: exec python3 -c 'import time; a = bytearray(300 << 20); time.sleep(60)'
    resources: {memory: 64Mi}
"#;
    check(yaml, "failed", |engine| {
        let task = engine.task("greedy", 0);
        assert!(task["reason"].as_str().is_some_and(|r| r.contains("memory")), "{task:#}");
    });
}

#[test]
fn cancelling_gives_a_job_its_grace_and_nothing_is_published() {
    let yaml = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  long:
    run: |
      trap 'echo graceful > {folder}/trapped; exit 0' TERM
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      echo data > out.txt
      while true; do sleep 0.05; done
    outputs: {data: {path: out.txt, dataset: wheel/data}}
  after: {needs: [long], run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.submit(yaml).wait_for_ledger(1);
        let run = engine.run_id();
        engine.api().post(&format!("runs/{run}/cancel"), &json!({"reason": "enough"}));
        engine.wait_for("cancelled");
        assert!(engine.folder().join("trapped").exists(), "the job was not asked before it was killed");
        assert_eq!(engine.ledger_lines().len(), 1, "nothing started after the cancel");
        let ended = engine.run();
        assert!(ended["cancel"].as_str().is_some_and(|c| c.contains("enough")));
        let states: Vec<_> = ended["steps"].as_array().into_iter().flatten().map(|s| s["state"].clone()).collect();
        assert_eq!(states, [json!("cancelled"), json!("skipped")], "nothing of it failed: {ended:#}");
        assert_eq!(engine.cli_json(&["runs", "get", &run])["steps"][0]["state"], "cancelled");
        let datasets = engine.api().get("datasets");
        assert_eq!(datasets["items"], json!([]), "nothing is published after a cancel");
        // Cancelling once more changes nothing.
        let again = engine.api().try_post(&format!("runs/{run}/cancel"), &json!({})).expect("answered");
        assert!(again.status < 500, "{again:?}");
        assert_eq!(engine.run()["state"], "cancelled");
    });
}

#[test]
fn logs_are_there_while_a_job_runs_and_afterwards() {
    let yaml = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  talk:
    run: |
      echo first
      while [ ! -e {folder}/gate ]; do sleep 0.05; done
      echo last
"#;
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.submit(yaml);
        let path = format!("runs/{}/logs?step=talk", engine.run_id());
        let log = || engine.api().try_get(&path).ok().and_then(|a| a.body.as_str().map(str::to_owned));
        until("the log is there while the job runs", || log().filter(|text| text.contains("first")));
        assert!(!log().unwrap_or_default().contains("last"));
        engine.open_gate("gate").wait_for("succeeded");
        let run = engine.run_id();
        let shown = engine.cli(&["logs", &run, "talk"]);
        assert!(shown.status.success());
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("first") && shown.contains("last"), "{shown}");
    });
}
