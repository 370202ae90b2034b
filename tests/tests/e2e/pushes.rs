//! From a push or a changed dataset to runs, and what is told about those that did not start.

use std::fs;

use kickwheel_tests::{
    forge::{Forge, Push},
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
        let forge = Forge::set_up(&engine, "liar", "wheel");
        let lie = |before: &str, after: &str, path: &str| {
            let push = Push { reference: "refs/heads/main", before: Some(before), after: Some(after) };
            let commits = json!([{"id": after, "message": "a lie", "added": [path], "removed": [], "modified": []}]);
            forge.tell(&engine, &format!("lie-{after}"), push, &commits).expect("it answers").good();
        };
        let docs = repo.push(&[("docs/read.md", "words\n")]);
        lie(&first, &docs, "src/data.txt");
        let explained = decision(&engine, &docs, "wheel");
        assert_eq!(explained["decision"]["decision"], "filtered", "{explained:#}");
        assert_eq!(explained["paths"], json!(["docs/read.md"]));
        let code = repo.push(&[("src/data.txt", "two\n")]);
        lie(&docs, &code, "docs/read.md");
        engine.pushed(&code).wait_for("succeeded");
        assert_eq!(engine.runs().len(), 2);
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

#[test]
fn the_trace_of_an_event_reaches_its_jobs() {
    const YAML: &str = r#"
version: 1
name: traced
on: {event: {type: dev.example.traced}}
steps:
  turn: {run: 'echo "${TRACEPARENT:-}" >> {folder}/traces'}
"#;
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.apply(YAML);
        let event = json!({
            "specversion": "1.0", "id": "traced", "source": "/tests", "type": "dev.example.traced",
            "traceparent": format!("00-{TRACE}-00f067aa0ba902b7-01"),
        });
        engine.api().post("events", &event);
        engine.about("traced").wait_for("succeeded");
        let traces = fs::read_to_string(engine.folder().join("traces")).expect("the job wrote it");
        assert_eq!(traces.matches(TRACE).count(), 1, "{traces:?}");
    });
}

/// Shows a job what it gets of a protected secret.
const GUARDED: &str = r#"
version: 1
name: guarded
on:
  git.push: {repo: wheel, branches: [main, side]}
  event: {type: dev.kickwheel.git.tag.created}
steps:
  turn:
    secrets: {deploy: deploy}
    run: 'cp "$KICKWHEEL_SECRETS/deploy" {folder}/seen'
"#;

#[test]
fn only_a_commit_that_the_mirror_finds_on_a_ref_has_that_refs_rights() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel");
        let value = engine.folder().join("value");
        fs::write(&value, "sesame").expect("a file can be written");
        let refs = ["--ref", "refs/heads/main", "--ref", "refs/tags/v*"];
        let file = value.to_string_lossy();
        let set = [&["secrets", "set", "deploy", "--from-file", &file], &refs[..]].concat();
        let said = engine.cli(&set);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let workflow = engine.fill(GUARDED);
        let first = repo.push(&[(".kickwheel/guarded.yaml", &workflow)]);
        engine.pushed(&first).wait_for("succeeded");

        // A branch of its own sees nothing, and neither does whoever says of its commit that it is on main.
        git(&repo.work, &["checkout", "-q", "-b", "side"]);
        let side = repo.commit(&[("data.txt", "side")]);
        git(&repo.work, &["push", "-q", "origin", "side"]);
        engine.pushed(&side).wait_for("failed");
        let forge = Forge::set_up(&engine, "liar", "wheel");
        let lie = Push { reference: "refs/heads/main", before: Some(&first), after: Some(&side) };
        forge.tell(&engine, "lie", lie, &json!([])).expect("it answers").good();
        engine.about("lie").wait_for("failed");
        let explained = engine.run()["decision"].to_string();
        assert!(explained.contains("does not lie on refs/heads/main"), "{explained}");
        let workflows = engine.api().get("workflows");
        assert_eq!(workflows["items"][0]["commit"], json!(first), "nor does it get into the registry");

        // A tag is a ref like any other: what it names is what runs, with what is kept for it.
        for (tag, state) in [("v1", "succeeded"), ("draft", "failed")] {
            fs::remove_file(engine.folder().join("seen")).ok();
            git(&repo.work, &["tag", "-a", "-m", "a tag", tag]);
            git(&repo.work, &["push", "-q", "origin", tag]);
            let event = until(&format!("{tag} is told"), || {
                let runs = engine.runs();
                let run = runs
                    .iter()
                    .find(|run| run["cause"].as_str().is_some_and(|c| c.contains(&format!("tag {tag} "))))?;
                assert_eq!(run["commit"], json!(side));
                run["event_id"].as_str().map(str::to_owned)
            });
            engine.about(&event).wait_for(state);
            assert_eq!(engine.folder().join("seen").exists(), tag == "v1");
        }
    });
}
