//! From a push or a changed dataset to runs, and what is told about those that did not start.

use std::fs;

use kickwheel_tests::{
    harness::{Engine, on_each_database},
    repo::{Repo, git},
    wait::until,
};
use serde_json::{Value, json};

const WORKFLOW: &str = r#"
version: 1
name: wheel
on:
  git.push: {repo: wheel, branches: [main], paths: ["src/**", ".kickwheel/**"]}
steps:
  turn:
    matrix: {n: [1, 2]}
    env: {N: "${{ matrix.n }}"}
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      echo "${TRACEPARENT:-}" >> {folder}/traces
      cat src/data.txt
      echo "{\"name\": \"loss\", \"value\": 0.$N}" >> "$KICKWHEEL_METRICS"
  choose:
    uses: best-of
    with: {candidates: "${{ steps.turn.tasks }}", metric: loss}
"#;

fn decision(engine: &Engine, commit: &str, workflow: &str) -> Value {
    let event = until(&format!("the push of {commit} is decided"), || {
        let events = engine.api().get("events?limit=100");
        let event = events["items"].as_array()?.iter().find(|e| e["event"]["data"]["after"] == commit)?.clone();
        (event["state"] == "decided").then_some(event)
    });
    let id = event["id"].as_str().expect("an event has a key");
    let explained = engine.api().get(&format!("explain?event={id}"));
    let decisions = explained["decisions"].as_array().expect("it explains each workflow").clone();
    let found = decisions.into_iter().find(|d| d["workflow"] == workflow);
    json!({"decision": found.unwrap_or_default(), "paths": explained["changed_paths"], "event": event})
}

#[test]
fn a_push_runs_the_workflow_that_it_carries_and_gets_a_note() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel");
        let workflow = engine.fill(WORKFLOW);
        let commit = repo.push(&[(".kickwheel/wheel.yaml", &workflow), ("src/data.txt", "one\n")]);
        engine.pushed(&commit).wait_for("succeeded");
        assert_eq!(engine.ledger_lines().len(), 2);
        let note = until("the commit has a note", || repo.note(&commit));
        assert!(note.contains("wheel") && note.contains("succeeded"), "{note}");
        let explained = engine.cli(&["explain"]);
        assert!(explained.status.success(), "{}", String::from_utf8_lossy(&explained.stderr));
        assert_eq!(engine.runs().len(), 1);
    });
}

#[test]
fn a_push_of_other_paths_starts_nothing_and_says_why() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel");
        let workflow = engine.fill(WORKFLOW);
        let first = repo.push(&[(".kickwheel/wheel.yaml", &workflow), ("src/data.txt", "one\n")]);
        engine.pushed(&first).wait_for("succeeded");
        let docs = repo.push(&[("docs/read.md", "words\n")]);
        let explained = decision(&engine, &docs, "wheel");
        assert_eq!(explained["decision"]["decision"], "filtered", "{explained:#}");
        assert!(explained["decision"]["clause"].as_str().is_some_and(|c| c.contains("paths")), "{explained:#}");
        assert_eq!(explained["paths"], json!(["docs/read.md"]));
        assert_eq!(engine.runs().len(), 1, "nothing was started");
    });
}

#[test]
fn a_push_whose_announced_paths_lie_is_judged_by_the_mirror() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel");
        let workflow = engine.fill(WORKFLOW);
        let first = repo.push(&[(".kickwheel/wheel.yaml", &workflow), ("src/data.txt", "one\n")]);
        engine.pushed(&first).wait_for("succeeded");
        // The hook is taken away, so that this push is reported by the lying sender only.
        fs::remove_dir_all(repo.bare.join("hooks")).expect("there are hooks");
        let docs = repo.push(&[("docs/read.md", "words\n")]);
        let bound = engine.api().get("repos");
        let source = bound["items"][0]["url"].as_str().expect("a bound repository has a URL").to_owned();
        let lie = |before: &str, after: &str, paths: Value| {
            json!({
                "specversion": "1.0", "id": format!("lie-{after}"), "source": source, "subject": "refs/heads/main",
                "type": "dev.kickwheel.git.branch.updated",
                "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "data": {
                    "repo": "wheel", "provider": "git", "branch": "main", "before": before, "after": after,
                    "forced": false, "actor": null, "actor_id": null, "commit_count": 1, "default_branch": "main",
                    "changed_paths": paths,
                },
            })
        };
        engine.api().post("events", &lie(&first, &docs, json!(["src/data.txt"])));
        let explained = decision(&engine, &docs, "wheel");
        assert_eq!(explained["decision"]["decision"], "filtered", "{explained:#}");
        assert_eq!(explained["paths"], json!(["docs/read.md"]));
        let code = repo.push(&[("src/data.txt", "two\n")]);
        engine.api().post("events", &lie(&docs, &code, json!(["docs/read.md"])));
        engine.pushed(&code).wait_for("succeeded");
        assert_eq!(engine.runs().len(), 2);
        let traces = fs::read_to_string(engine.folder().join("traces")).expect("jobs wrote it");
        assert_eq!(traces.matches("4bf92f3577b34da6a3ce929d0e0e4736").count(), 2, "{traces:?}");
    });
}

#[test]
fn the_files_of_a_branch_count_for_its_own_pushes_only() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel");
        let workflow = engine.fill(WORKFLOW);
        let first = repo.push(&[(".kickwheel/wheel.yaml", &workflow), ("src/data.txt", "one\n")]);
        engine.pushed(&first).wait_for("succeeded");
        git(&repo.work, &["checkout", "-q", "-b", "try"]);
        let changed = workflow.replace("branches: [main]", "branches: [try]").replace("name: wheel", "name: trial");
        let commit = repo.commit(&[(".kickwheel/trial.yaml", &changed)]);
        git(&repo.work, &["push", "-q", "origin", "try"]);
        engine.pushed(&commit).wait_for("succeeded");
        assert_eq!(engine.run()["workflow"], "trial");
        let names = engine.api().get("workflows");
        let names: Vec<_> = names["items"].as_array().into_iter().flatten().map(|w| w["id"].clone()).collect();
        assert_eq!(names, [json!("wheel")], "a branch does not change the registry");
    });
}

#[test]
fn a_new_file_in_a_watched_folder_starts_a_run_with_its_version_pinned() {
    let yaml = r#"
version: 1
name: wheel
on: {dataset.changed: {dataset: raw}}
steps:
  prepare:
    matrix: {file: '${{ datasets["raw"].files }}'}
    files: {raw.txt: "${{ matrix.file }}"}
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      cat raw.txt > out.txt
    outputs: {data: {path: out.txt}}
    cache: true
"#;
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.apply(yaml);
        let folder = engine.folder().join("raw");
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::write(folder.join("a.txt"), "a\n").expect("a file can be written");
        engine.api().post("datasets", &json!({"name": "raw", "path": folder, "settle_ms": 100}));
        let first = |engine: &Engine, n: usize| {
            until(&format!("{n} runs were started"), || {
                let runs = engine.runs();
                (runs.len() == n).then(|| runs[0]["event_id"].as_str().map(str::to_owned)).flatten()
            })
        };
        let event = first(&engine, 1);
        engine.about(&event).wait_for("succeeded");
        fs::write(folder.join("b.txt"), "b\n").expect("a file can be written");
        let event = first(&engine, 2);
        engine.about(&event).wait_for("succeeded");
        assert_eq!(engine.ledger_lines().len(), 2, "the file that was there is not prepared again");
        assert!(engine.task("prepare", 0)["cached_from"].is_string());
        assert!(engine.task("prepare", 1)["cached_from"].is_null());
        let why = engine.cli_json(&["cache", "why", &format!("{}/prepare[0]", engine.run_id())]);
        assert_eq!(why["result"], "hit", "{why:#}");
        let dataset = engine.api().get("datasets/raw");
        assert_eq!(dataset["versions"].as_array().map(Vec::len), Some(2), "{dataset:#}");
    });
}
