//! A watched folder that cannot be read as it is, and how that is told where people look.

use std::{fs, os::unix::fs::symlink};

use kickwheel_tests::{
    harness::{Engine, on_each_database},
    wait::until,
};
use serde_json::{Value, json};

/// The dataset once it looks like this.
fn dataset(engine: &Engine, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    until(&format!("the dataset {what}"), || Some(engine.api().get("datasets/raw")).filter(|found| is(found)))
}

fn says(found: &Value, state: &str, reason: &str) -> bool {
    found["state"] == state && found["reason"].as_str().is_some_and(|r| r.contains(reason))
}

/// What these checks say about it; nothing when all is well.
fn check_of(health: &Value) -> Option<Value> {
    health["checks"].as_array()?.iter().find(|c| c["id"] == "dataset raw").cloned()
}

#[test]
fn a_link_in_a_watched_folder_is_left_out_and_told_until_it_is_gone() {
    on_each_database(|database| {
        let engine = Engine::start(database);
        let folder = engine.folder().join("raw");
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::write(folder.join("a.csv"), "a\n").expect("a file can be written");
        symlink("a.csv", folder.join("b.csv")).expect("a link can be made");
        engine.api().post("datasets", &json!({"name": "raw", "path": folder, "settle_ms": 100}));
        let seen = dataset(&engine, "has its first version and says what is left out", |found| {
            found["versions"][0]["version"] == 1 && says(found, "watched", "b.csv")
        });
        assert_eq!(seen["versions"][0]["artifact"]["folder"], true, "{seen:#}");

        let doctor = engine.api().get("doctor");
        let check = check_of(&doctor).unwrap_or_else(|| panic!("doctor says nothing: {doctor:#}"));
        assert_eq!(check["state"], "warning", "{check:#}");
        assert!(check["message"].as_str().is_some_and(|m| m.contains("b.csv")), "{check:#}");
        assert!(check["help"].as_str().is_some_and(|h| !h.is_empty()), "{check:#}");
        let shown = String::from_utf8_lossy(&engine.cli(&["datasets", "ls"]).stdout).into_owned();
        assert!(shown.contains("REASON") && shown.contains("b.csv"), "{shown}");
        let shown = String::from_utf8_lossy(&engine.cli(&["datasets", "get", "raw"]).stdout).into_owned();
        assert!(shown.contains("b.csv"), "{shown}");

        fs::remove_file(folder.join("b.csv")).expect("the link can be removed");
        dataset(&engine, "is well again", |found| found["state"] == "watched" && found["reason"].is_null());
        assert_eq!(check_of(&engine.api().get("doctor")), None);

        // To leave out what was there would publish a loss: that stops the dataset instead.
        fs::rename(folder.join("a.csv"), engine.folder().join("moved.csv")).expect("the file can be moved");
        symlink(engine.folder().join("moved.csv"), folder.join("a.csv")).expect("a link can be made");
        fs::write(folder.join("c.csv"), "c\n").expect("a file can be written");
        let stopped = dataset(&engine, "says that a file became a link", |found| says(found, "unreadable", "a.csv"));
        assert_eq!(stopped["versions"].as_array().map(Vec::len), Some(1), "{stopped:#}");
        fs::remove_file(folder.join("a.csv")).expect("the link can be removed");
        fs::write(folder.join("a.csv"), "a\n").expect("a file can be written");
        dataset(&engine, "goes on", |found| found["versions"][0]["version"] == 2 && found["reason"].is_null());
    });
}

#[test]
fn a_watched_folder_that_is_gone_is_told_until_it_is_back() {
    on_each_database(|database| {
        let engine = Engine::start(database);
        let (folder, away) = (engine.folder().join("raw"), engine.folder().join("away"));
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::write(folder.join("a.csv"), "a\n").expect("a file can be written");
        engine.api().post("datasets", &json!({"name": "raw", "path": folder, "settle_ms": 100}));
        dataset(&engine, "has its first version", |found| found["versions"][0]["version"] == 1);
        fs::rename(&folder, &away).expect("the folder can be moved");
        dataset(&engine, "cannot be read", |found| says(found, "unreadable", "No such file"));
        for question in ["doctor", "health"] {
            let health = engine.api().get(question);
            let check = check_of(&health).unwrap_or_else(|| panic!("{question} says nothing: {health:#}"));
            assert_eq!(check["state"], "warning", "{check:#}");
            let help = check["help"].as_str().unwrap_or_default();
            assert!(help.contains("kickwheel datasets rm raw"), "{check:#}");
        }
        fs::rename(&away, &folder).expect("the folder can be moved back");
        dataset(&engine, "is well again", |found| found["state"] == "watched" && found["reason"].is_null());
        assert_eq!(check_of(&engine.api().get("health")), None);
        // Nor does anything stay behind of a dataset that is watched no longer.
        fs::rename(&folder, &away).expect("the folder can be moved");
        dataset(&engine, "cannot be read", |found| found["state"] == "unreadable");
        engine.api().delete("datasets/raw");
        until("nothing is said about it", || check_of(&engine.api().get("health")).is_none().then_some(()));
    });
}
