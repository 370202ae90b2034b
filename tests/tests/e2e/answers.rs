//! What the command line answers to questions that have no result, and to an event that is no news.

use std::{fs, process::Output};

use kickwheel_tests::{
    harness::{Engine, on_each_database},
    wait::until,
};
use serde_json::json;

const YAML: &str = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  long: {run: 'while [ ! -e {folder}/gate ]; do sleep 0.05; done'}
  choose:
    uses: best-of
    with: {candidates: [{metrics: {m: 1}}], metric: m}
  late: {needs: [long], run: 'true'}
"#;

/// The exit code, and what was said on stderr.
fn refused(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn cache_why_says_which_of_the_reasons_it_is() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.submit(YAML);
        let run = engine.run_id();
        until("the job runs and the call has ended", || {
            (engine.task("long", 0)["state"] == "running" && engine.task("choose", 0)["state"] == "succeeded")
                .then_some(())
        });
        let check = |task: &str, exit: i32, words: &[&str]| {
            let (code, said) = refused(&engine.cli(&["cache", "why", task]));
            assert_eq!(code, Some(exit), "{task}: {said}");
            assert!(words.iter().all(|word| said.contains(word)), "{task}: {said}");
        };
        check(&format!("{run}/long"), 3, &["no_cache_record", "has not ended"]);
        check(&format!("{run}/choose[0]"), 3, &["no_cache_record", "plugin call", "never cached"]);
        check(&format!("{run}/lnog"), 3, &["step_not_found", "long, choose, late"]);
        check(&format!("{run}/long[7]"), 3, &["task_not_found", "no task 7"]);
        check(&format!("{run}/late"), 3, &["task_not_found", "has not begun"]);
        check("nonsense", 2, &["bad_task", "RUN/STEP"]);
        check(&format!("{run}/long[x]"), 2, &["bad_task"]);
        engine.open_gate("gate").wait_for("succeeded");
        assert!(engine.cli(&["cache", "why", &format!("{run}/long")]).status.success());
    });
}

#[test]
fn an_event_that_is_sent_again_is_told_with_the_one_that_it_is() {
    on_each_database(|database| {
        let engine = Engine::start(database);
        let file = engine.folder().join("event.json");
        let event =
            json!({"specversion": "1.0", "id": "order-1", "source": "/shop", "type": "com.example.order", "data": {}});
        fs::write(&file, event.to_string()).expect("a file can be written");
        let send = || {
            let sent = engine.cli(&["events", "send", &file.to_string_lossy()]);
            assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
            String::from_utf8_lossy(&sent.stdout).into_owned()
        };
        let first = send();
        let key = first.strip_prefix("event ").and_then(|rest| rest.strip_suffix(" is recorded\n"));
        let key = key.unwrap_or_else(|| panic!("it is not told as recorded: {first}")).to_owned();
        let again = send();
        assert!(again.contains("seen before") && again.contains(&key) && !again.contains("is recorded"), "{again}");
        let answer = engine.cli_json(&["events", "send", &file.to_string_lossy()]);
        assert_eq!((&answer["id"], &answer["duplicate"]), (&json!(key), &json!(true)));
    });
}
