//! What is not done twice: the cache, and running a failed run again.

use std::fs;

use kickwheel_tests::harness::{Engine, on_each_database};
use serde_json::json;

#[test]
fn an_unchanged_task_comes_from_the_cache_and_a_changed_one_says_what_differs() {
    let yaml = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  prepare:
    env: {DEPTH: "1"}
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      echo "$DEPTH" > out.txt
    outputs: {data: {path: out.txt}}
    cache: true
"#;
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.apply(yaml).kick("one").wait_for("succeeded");
        let made = format!("{}/prepare[0]", engine.run_id());
        engine.kick("two").wait_for("succeeded");
        assert_eq!(engine.ledger_lines().len(), 1);
        assert_eq!(engine.task("prepare", 0)["cached_from"], made.as_str());
        engine.apply(&yaml.replace("\"1\"", "\"2\"")).kick("three").wait_for("succeeded");
        assert_eq!(engine.ledger_lines().len(), 2);
        let why = engine.cli_json(&["cache", "why", &format!("{}/prepare[0]", engine.run_id())]);
        assert_eq!(why["result"], "miss", "{why:#}");
        let parts: Vec<_> = why["differs"].as_array().into_iter().flatten().map(|d| d["part"].clone()).collect();
        assert_eq!(parts, [json!("env.DEPTH")], "{why:#}");
    });
}

#[test]
fn a_retried_run_repeats_only_what_had_not_succeeded() {
    let yaml = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  good: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
  fragile:
    needs: [good]
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      test -e {folder}/mended
"#;
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.submit(yaml).wait_for("failed");
        let failed = engine.run_id();
        fs::write(engine.folder().join("mended"), "").expect("a file can be made");
        let again = engine.cli(&["runs", "retry", &failed]);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        // The newest run of the event is listed first.
        assert_ne!(engine.run_id(), failed);
        engine.wait_for("succeeded");
        assert_eq!(engine.run()["generation"], 1);
        let lines = engine.ledger_lines();
        assert_eq!(lines.iter().filter(|l| l.contains("/good[0]")).count(), 1, "{lines:?}");
        assert_eq!(lines.iter().filter(|l| l.contains("/fragile[0]")).count(), 2, "{lines:?}");
    });
}

#[test]
fn an_event_that_is_sent_twice_starts_one_run() {
    let yaml = "version: 1\nname: wheel\non: {event: {type: dev.example.kick}}\nsteps: {turn: {run: 'true'}}\n";
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.apply(yaml).kick("one").kick("one").wait_for("succeeded");
        engine.kick("one").kick("two").wait_for("succeeded");
        assert_eq!(engine.runs().len(), 2);
    });
}
