//! Files without mistakes, and the plans that come of them.

use kickwheel_core::{
    cron::MissedPolicy,
    filter::FilterKind,
    plan::{Action, Phase, Workflow},
};

use super::{check, compiled};

const KITCHEN_SINK: &str = r#"version: 1
name: kitchen-sink
on:
  git.push:
    - {id: main, repo: churn, branches: [main, "release/*"], paths: ["src/**", "!**/*.md"], with: {note: "by ${{ event.data.branch }}"}}
    - {repo: [other], where: 'has(event.data.actor) && event.data.actor != "bot"'}
  dataset.changed: {dataset: churn/raw, where: "${{ size(event.data.added) > 0 }}"}
  event: {type: com.example.ping, with: {epochs: 3}}
  manual: true
inputs:
  note: {type: string, default: "", description: For people.}
  epochs: {type: integer, default: 10, minimum: 1, maximum: 100}
  rates: {type: list, default: [0.1, 0.01]}
  mode: {type: string, default: fast, choices: [fast, slow]}
env:
  MODE: "${{ inputs.mode }}"
  PRICE: "$${{ not an expression }}"
steps:
  report:
    needs: gate
    run: cat note.txt
    if: steps.gate.outputs.better && inputs.note != ""
    env: {NOTE: "${{ inputs.note }}", MODE: plain}
  prepare:
    image: python:3.12
    run: |
      python src/prepare.py --out out/features.csv
    resources: {cpu: 500m, memory: 2Gi, gpu: 1}
    files: {raw: "dataset:churn/raw"}
    outputs:
      features: {path: out/features.csv, dataset: churn/features}
      rows: {value: true}
      columns: value
      folder: out/
    cache: true
    source: ["src/**", requirements.txt]
  train:
    image: trainer
    command: [python, src/train.py, "--epochs=${{ inputs.epochs }}", 5, 1.50]
    matrix:
      rate: ${{ inputs.rates }}
      model: [{kind: tree, depth: 3}, {kind: line}]
    env: {RATE: "${{ matrix.rate }}", KIND: "${{ matrix.model.kind }}", DEPTH: "${{ has(matrix.model.depth) ? matrix.model.depth : 0 }}"}
    files:
      features.csv: ${{ steps.prepare.outputs.features }}
      extra: ${{ datasets["churn/extra"].files[0] }}
    outputs: {model: out/model.bin}
    retry: {max: 2, backoff: {initial: 10s, factor: 3, max: 5m}}
    timeout: 1h30m
  best:
    uses: best-of
    with: {candidates: "${{ steps.train.tasks }}", metric: val_loss}
    retry: 1
  gate:
    uses: metrics-gate
    with: {candidate: "${{ steps.best.outputs.best }}", baseline: "model:churn@production", metric: val_loss}
on_failure:
  tell:
    run: ./tell.sh
    if: failed()
    env: {STATE: "${{ steps.train.state }}", WHAT: "${{ run.failed_steps[0] }}"}
finally:
  clean:
    run: ./clean.sh
    if: ${{ always() }}
"#;

fn workflow(source: &str) -> Workflow {
    check(source, &[]);
    compiled(source).workflow.expect("a workflow comes without errors")
}

#[test]
fn the_kitchen_sink_compiles_to_this_plan() {
    let workflow = workflow(KITCHEN_SINK);
    insta::assert_snapshot!(serde_json::to_string_pretty(&workflow).expect("a workflow has string keys only"));
}

#[test]
fn a_plan_survives_being_stored() {
    let workflow = workflow(KITCHEN_SINK);
    let stored = serde_json::to_string(&workflow).expect("a workflow has string keys only");
    let loaded: Workflow = serde_json::from_str(&stored).expect("what was stored can be read");
    assert_eq!(loaded, workflow);
    assert_eq!(loaded.plan.digest(), workflow.plan.digest());
}

#[test]
fn the_same_text_has_the_same_digest_and_another_plan_another() {
    let digest = |source: &str| workflow(source).plan.digest();
    assert_eq!(digest(KITCHEN_SINK), digest(KITCHEN_SINK));
    assert_ne!(digest(KITCHEN_SINK), digest(&KITCHEN_SINK.replace("factor: 3", "factor: 2")));
    assert_eq!(
        digest(KITCHEN_SINK),
        digest(&KITCHEN_SINK.replace("id: main", "id: other")),
        "`on` is no part of a plan"
    );
}

#[test]
fn steps_come_after_their_needs_in_the_order_of_the_file_and_of_the_phases() {
    let plan = workflow(
        "version: 1\nname: w\n\
         finally: {z: {run: x}}\n\
         on_failure: {y: {run: x}}\n\
         steps:\n  d: {run: x, needs: [c]}\n  b: {run: x}\n  c: {run: x, env: {A: '${{ steps.e.state }}'}}\n  e: {run: x}\n",
    )
    .plan;
    let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["b", "e", "c", "d", "y", "z"]);
    let needs: Vec<&[usize]> = plan.steps.iter().map(|step| step.needs.as_slice()).collect();
    assert_eq!(needs, [&[][..], &[], &[1], &[2], &[], &[]]);
    let phases: Vec<Phase> = plan.steps.iter().map(|step| step.phase).collect();
    assert!(phases.is_sorted());
}

#[test]
fn reading_a_main_step_in_a_later_phase_is_no_need() {
    let plan = workflow(
        "version: 1\nname: w\nsteps: {a: {run: x}}\nfinally: {z: {run: x, env: {A: '${{ steps.a.state }}'}}}\n",
    )
    .plan;
    assert!(plan.steps[1].needs.is_empty());
}

#[test]
fn datasets_are_collected_from_files_and_expressions() {
    let plan = workflow(
        "version: 1\nname: w\nsteps:\n  a:\n    run: x\n    files: {raw: 'dataset:b/raw'}\n    if: datasets[\"a\"].version > 1\n",
    )
    .plan;
    assert_eq!(plan.datasets, ["a", "b/raw"]);
}

#[test]
fn triggers_may_be_named_alone_or_left_out() {
    for (on, expected) in [
        ("on: manual\n", vec![FilterKind::Manual]),
        ("", vec![FilterKind::Manual]),
        ("on: {manual: }\n", vec![FilterKind::Manual]),
        ("on: {manual: {id: by-hand}}\n", vec![FilterKind::Manual]),
        (
            "on: [manual, git.push]\n",
            vec![
                FilterKind::Manual,
                FilterKind::GitPush { repos: Vec::new(), branches: Vec::new(), paths: Vec::new() },
            ],
        ),
        ("on: {dataset.changed: [{dataset: a}]}\n", vec![FilterKind::DatasetChanged { datasets: vec!["a".into()] }]),
    ] {
        let workflow = workflow(&format!("version: 1\nname: w\n{on}steps: {{a: {{run: x}}}}\n"));
        let kinds: Vec<FilterKind> = workflow.on.into_iter().map(|filter| filter.kind).collect();
        assert_eq!(kinds, expected, "{on}");
    }
}

#[test]
fn cron_filters_name_their_triggers() {
    let workflow = workflow(
        "version: 1\nname: w\non:\n  cron:\n    - {schedule: '0 3 * * MON', timezone: Europe/Berlin, missed: all, deadline: 1h}\n    - {schedule: '@daily', id: night}\nsteps: {a: {run: x}}\n",
    );
    let triggers = kickwheel_core::cron::cron_triggers(&workflow);
    let seen: Vec<_> = triggers.iter().map(|t| (t.name, t.schedule, t.timezone, t.missed, t.deadline_ms)).collect();
    assert_eq!(
        seen,
        [
            ("w:0", "0 3 * * MON", "Europe/Berlin", MissedPolicy::All, Some(3_600_000)),
            ("w:night", "@daily", "UTC", MissedPolicy::Latest, None)
        ]
    );
}

#[test]
fn a_workflow_may_declare_that_it_triggers_itself() {
    let event = |keys: &str| {
        let text = format!("version: 1\nname: w\non: {{event: {{type: a.b{keys}}}}}\nsteps: {{a: {{run: x}}}}\n");
        workflow(&text).on.remove(0).kind
    };
    assert_eq!(event(""), FilterKind::Event { types: vec!["a.b".into()], own_runs: false });
    assert_eq!(event(", self: true"), FilterKind::Event { types: vec!["a.b".into()], own_runs: true });
}

#[test]
fn the_retraining_of_a_model_compiles() {
    let workflow = workflow(
        r#"version: 1
name: digits-retrain
on:
  git.push: {repo: digits, branches: [main], paths: ["src/**", ".kickwheel/**"]}
  dataset.changed: {dataset: digits/raw}
  manual: {}
steps:
  prepare:
    run: python3 src/prepare.py raw.csv out/part.csv
    matrix: {file: "${{ datasets[\"digits/raw\"].files }}"}
    files: {"raw.csv": "${{ matrix.file }}"}
    env: {NAME: "${{ matrix.file.path }}"}
    outputs: {part: out/part.csv}
    source: [src/prepare.py]
    cache: true
  train:
    needs: [prepare]
    run: python3 src/train.py
    matrix:
      setting: [{rate: 0.1, hidden: 16}, {rate: 0.05, hidden: 32}, {rate: 0.01, hidden: 32}, {rate: 0.1, hidden: 64}]
    env: {RATE: "${{ matrix.setting.rate }}", HIDDEN: "${{ matrix.setting.hidden }}"}
    files: {first.csv: "${{ steps.prepare.outputs.part[0] }}"}
    outputs: {model: out/model.json}
  best:
    uses: best-of
    with: {candidates: "${{ steps.train.tasks }}", metric: accuracy, goal: maximize}
  gate:
    uses: metrics-gate
    with: {candidate: "${{ steps.best.outputs.best }}", baseline: "model:digits@production", metric: accuracy}
  promote:
    if: steps.gate.outputs.better
    uses: model-promote
    with: {model: "${{ steps.best.outputs.best.outputs.model }}", name: digits, stage: production}
"#,
    );
    let needs: Vec<(&str, Vec<&str>)> = workflow
        .plan
        .steps
        .iter()
        .map(|step| {
            let needs = step.needs.iter().map(|need| workflow.plan.steps[*need].name.as_str()).collect();
            (step.name.as_str(), needs)
        })
        .collect();
    assert_eq!(
        needs,
        [
            ("prepare", vec![]),
            ("train", vec!["prepare"]),
            ("best", vec!["train"]),
            ("gate", vec!["best"]),
            ("promote", vec!["best", "gate"]),
        ]
    );
    assert_eq!(workflow.plan.datasets, ["digits/raw"]);
    let Action::Plugin { references, .. } = &workflow.plan.steps[3].action else { panic!("gate is a plugin") };
    assert_eq!(references, &["baseline"]);
}

/// The examples in `workflows/` are what people copy first.
#[test]
fn every_example_compiles() {
    fn files(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("the examples can be listed") {
            let path = entry.expect("the examples can be listed").path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    files(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows"), &mut found);
    assert!(!found.is_empty());
    for path in found {
        let source = std::fs::read_to_string(&path).expect("an example can be read");
        assert_eq!(compiled(&source).diagnostics, [], "{}", path.display());
    }
}
