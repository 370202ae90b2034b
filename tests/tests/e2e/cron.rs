//! Schedules: every tick is an event once, however often the engine dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use chrono::DateTime;
use kickwheel_tests::{
    harness::{Engine, Setup, on_each_bus, on_each_database},
    repo::Repo,
    wait::until,
};
use serde_json::{Value, json};

const EACH: &str = r#"
version: 1
name: each
on:
  cron: {schedule: "* * * * * *", missed: all}
steps:
  tick: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;

const LATEST: &str = r#"
version: 1
name: latest
on:
  cron: {schedule: "* * * * * *", timezone: Europe/Berlin}
steps:
  tick: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;

const LISTENER: &str = r#"
version: 1
name: listener
on:
  event: {type: dev.kickwheel.cron.tick, where: 'event.data.trigger == "beat"'}
steps:
  tick: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;

/// The ticks of a schedule that are decided: second to how many were missed right before it.
fn ticks(engine: &Engine, workflow: &str) -> BTreeMap<i64, u64> {
    let events = engine.api().get("events?limit=1000");
    let mut ticks = BTreeMap::new();
    for item in events["items"].as_array().expect("a list").iter().filter(|e| e["state"] == "decided") {
        let event = &item["event"];
        if event["type"] != "dev.kickwheel.cron.tick" || event["subject"] != workflow {
            continue;
        }
        let text = event["data"]["scheduled_at"].as_str().expect("a time");
        assert_eq!(event["id"], format!("{workflow}@{text}").as_str());
        let second = DateTime::parse_from_rfc3339(text).expect("a time").timestamp();
        let before = ticks.insert(second, event["data"]["missed"].as_u64().expect("a number"));
        assert_eq!(before, None, "{text} ticks twice");
    }
    ticks
}

/// Waits for so many more ticks of both.
fn wait_for_ticks(engine: &Engine, more: usize) {
    let began: Vec<usize> = ["each", "latest"].iter().map(|w| ticks(engine, w).len()).collect();
    until(&format!("{more} more ticks are decided"), || {
        let now = ["each", "latest"].iter().map(|w| ticks(engine, w).len());
        now.zip(&began).all(|(now, began)| now >= began + more).then_some(())
    });
}

#[test]
fn each_tick_is_one_run_through_kills_at_any_moment() {
    on_each_bus(|database, topics| {
        let mut engine = Engine::with(database, Setup::default().on_bus(topics));
        engine.apply(EACH);
        let latest = engine.fill(LATEST);
        engine.api().post("workflows", &json!({"file": "latest.yaml", "yaml": latest}));
        wait_for_ticks(&engine, 3);
        engine.kill9().restart();
        wait_for_ticks(&engine, 2);
        engine.kill9();
        for fault in ["cron.fire.before:1", "cron.fire.after:1", "cron.fire.before:4", "cron.fire.after:5"] {
            if engine.try_restart(Some(fault)).is_ok() {
                engine.wait_for_death();
            }
        }
        // The engine may come and go within one second: ticks are missed only when it stays away for longer.
        let died = Instant::now();
        until("two ticks were due while it was down", || (died.elapsed() > Duration::from_millis(2_500)).then_some(()));
        engine.restart();
        wait_for_ticks(&engine, 2);
        for workflow in ["each", "latest"] {
            engine.api().post(&format!("workflows/{workflow}/pause"), &json!({}));
        }
        let runs = until("all runs have succeeded", || {
            let runs = engine.runs();
            runs.iter().all(|run| run["state"] == "succeeded").then_some(runs)
        });
        let caused: Vec<&str> = runs.iter().filter_map(|run| run["event_id"].as_str()).collect();
        assert_eq!(caused.len(), caused.iter().collect::<BTreeSet<_>>().len(), "a tick started two runs");
        let each: Vec<i64> = ticks(&engine, "each").into_keys().collect();
        assert!(each.windows(2).all(|w| w[1] == w[0] + 1), "none is lost: {each:?}");
        let latest: Vec<(i64, u64)> = ticks(&engine, "latest").into_iter().collect();
        for pair in latest.windows(2) {
            let left_out = u64::try_from(pair[1].0 - pair[0].0 - 1).expect("they ascend");
            assert_eq!(pair[1].1, left_out, "it says how many were missed: {latest:?}");
        }
        assert!(latest.iter().any(|(_, missed)| *missed > 0), "some were missed while it was down");
        let lines = engine.ledger_lines();
        assert_eq!(lines.len(), lines.iter().collect::<BTreeSet<_>>().len(), "an attempt ran twice");
    });
}

#[test]
fn a_paused_workflow_ticks_not_and_a_changed_one_begins_now() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.apply(LATEST);
        until("it ticks", || (!ticks(&engine, "latest").is_empty()).then_some(()));
        engine.api().post("workflows/latest/pause", &json!({}));
        engine.kill9().restart();
        let paused = until("nothing is undecided", || {
            let events = engine.api().get("events?limit=1000");
            let open = events["items"].as_array()?.iter().any(|e| e["state"] == "undecided");
            (!open).then(|| ticks(&engine, "latest"))
        });
        // The schedule of every other second restarts: what was due before the change is not made up for.
        let changed = LATEST.replace("* * * * * *", "*/2 * * * * *");
        engine.apply(&changed);
        engine.api().post("workflows/latest/resume", &json!({}));
        let ticked = until("it ticks again", || {
            let now = ticks(&engine, "latest");
            let new: Vec<(i64, u64)> = now.into_iter().filter(|(at, _)| !paused.contains_key(at)).collect();
            (new.len() >= 2).then_some(new)
        });
        assert!(ticked.iter().all(|(at, _)| at % 2 == 0), "{ticked:?}");
        assert_eq!(ticked[1].0 - ticked[0].0 - 2, 2 * i64::try_from(ticked[1].1).expect("few"), "{ticked:?}");
        let run: Value = engine.runs().remove(0);
        assert_eq!(run["workflow"], "latest");
    });
}

#[test]
fn while_its_file_is_broken_a_schedule_waits_and_then_makes_up_for_it() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel");
        let file = |text: &str| repo.push(&[(".kickwheel/each.yaml", &engine.fill(text))]);
        let state = |wanted: &str| {
            until(&format!("the workflow is {wanted}"), || {
                let workflows = engine.api().get("workflows");
                workflows["items"].as_array()?.iter().any(|w| w["state"] == wanted).then_some(())
            });
        };
        file(EACH);
        until("it ticks", || (ticks(&engine, "each").len() >= 2).then_some(()));
        // Once its name can still be read, and once nothing can.
        for broken in ["version: 1\nname: each\non: {cron: {schedule: nonsense}}\nsteps: {}\n", "- ]"] {
            file(broken);
            state("broken");
            let (broke, before) = (Instant::now(), ticks(&engine, "each").len());
            until("ticks were due", || (broke.elapsed() > Duration::from_millis(2_500)).then_some(()));
            file(EACH);
            state("active");
            until("it ticks again", || (ticks(&engine, "each").len() >= before + 4).then_some(()));
        }
        engine.api().post("workflows/each/pause", &json!({}));
        let each: Vec<i64> = ticks(&engine, "each").into_keys().collect();
        assert!(each.windows(2).all(|w| w[1] == w[0] + 1), "none is lost: {each:?}");
    });
}

#[test]
fn a_trigger_ticks_for_whoever_listens_until_it_is_removed() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.apply(LISTENER);
        let cli = |engine: &Engine, arguments: &[&str]| {
            let said = engine.cli(arguments);
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        };
        let add = ["triggers", "add", "beat", "--kind", "cron", "--schedule", "* * * * * *", "--missed", "all"];
        cli(&engine, &add);
        until("it ticks", || (ticks(&engine, "beat").len() >= 2).then_some(()));
        engine.kill9().restart();
        let before = ticks(&engine, "beat").len();
        until("it ticks on", || (ticks(&engine, "beat").len() >= before + 2).then_some(()));
        cli(&engine, &["triggers", "rm", "beat"]);
        let removed = until("nothing is undecided", || {
            let events = engine.api().get("events?limit=1000");
            let open = events["items"].as_array()?.iter().any(|e| e["state"] == "undecided");
            (!open).then(|| ticks(&engine, "beat"))
        });
        let seconds: Vec<i64> = removed.keys().copied().collect();
        assert!(seconds.windows(2).all(|w| w[1] == w[0] + 1), "none is lost: {seconds:?}");
        let runs = until("all runs have succeeded", || {
            let runs = engine.runs();
            runs.iter().all(|run| run["state"] == "succeeded").then_some(runs)
        });
        let caused: BTreeSet<&str> = runs.iter().filter_map(|run| run["event_id"].as_str()).collect();
        assert_eq!(caused.len(), runs.len(), "a tick started two runs");
    });
}
