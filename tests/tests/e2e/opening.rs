//! The door to others: a sender's signed webhook becomes a run, secrets survive a change of their key that is killed, and
//! tokens outlive a restart.

use std::fs;

use kickwheel_tests::{
    api::{Api, block_on, http},
    harness::{Engine, on_each_database},
    wait::until,
};
use serde_json::{Value, json};

const TURN: &str = "version: 1\nname: turn\non: {event: {type: com.example.order}}\nsteps: {a: {run: \"true\"}}\n";

fn order(id: &str) -> String {
    json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "com.example.order", "data": {}}).to_string()
}

/// Keeps a secret by the command line.
fn keep(engine: &Engine, name: &str, value: &str) {
    let file = engine.folder().join(format!("{name}.txt"));
    fs::write(&file, format!("{value}\n")).expect("a file can be made");
    let output = engine.cli(&["secrets", "set", name, "--from-file", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The status with which a webhook of the trigger `shop` is answered.
fn deliver(api: &Api, secret: &str, body: String) -> u16 {
    block_on(async {
        let sent = http()
            .post(format!("{}/hooks/shop", api.url))
            .header("host", "kick.tunnel.example")
            .header("content-type", "application/cloudevents+json")
            .bearer_auth(secret)
            .body(body)
            .send();
        sent.await.expect("it answers").status().as_u16()
    })
}

#[test]
fn a_signed_webhook_starts_a_run_and_an_unsigned_one_does_not() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.apply(TURN);
        keep(&engine, "shop", "sesame");
        let made = engine.cli_json(&["triggers", "add", "shop", "--kind", "cloudevents", "--secret", "shop"]);
        assert_eq!(made["url"], format!("{}/hooks/shop", engine.api().url));
        assert_eq!(deliver(engine.api(), "guess", order("o0")), 401);
        assert_eq!(deliver(engine.api(), "sesame", order("o1")), 202);
        engine.about("o1").wait_for("succeeded");
        assert_eq!(deliver(engine.api(), "sesame", order("o1")), 202, "a repeated delivery");
        assert_eq!(deliver(engine.api(), "sesame", "{".to_owned()), 400);
        assert_eq!(engine.runs().len(), 1);

        let held = engine.cli_json(&["events", "quarantine", "ls"]);
        let id = held["items"][0]["id"].as_str().expect("it was kept").to_owned();
        let mended = engine.folder().join("mended.json");
        fs::write(&mended, order("o2")).expect("a file can be made");
        let edit = ["events", "quarantine", "edit", &id, "--body", mended.to_str().expect("UTF-8")];
        assert_eq!(engine.cli_json(&edit)["state"], "replayed");
        engine.about("o2+edit1").wait_for("succeeded");
        let counts = engine.cli_json(&["triggers", "ls"])["items"][0]["requests"].clone();
        assert_eq!(counts, json!({"accepted": 2, "json_invalid": 1, "signature_wrong": 1}));
    });
}

/// The keys that secrets are sealed with.
fn keys(engine: &Engine) -> Vec<Value> {
    let items = engine.cli_json(&["secrets", "ls"])["items"].clone();
    let mut keys: Vec<Value> = items.as_array().expect("a list").iter().map(|s| s["key_id"].clone()).collect();
    keys.dedup();
    keys
}

#[test]
fn a_change_of_the_secrets_key_that_is_killed_anywhere_is_finished_by_the_next_start() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        for n in 0..4 {
            keep(&engine, &format!("s{n}"), &format!("value-{n}"));
        }
        keep(&engine, "shop", "sesame");
        engine.cli_json(&["triggers", "add", "shop", "--kind", "cloudevents", "--secret", "shop"]);
        for (round, fault) in
            ["secrets.rekey.kept:1", "secrets.rekey.begun:1", "secrets.rekey.one:1", "secrets.rekey.one:4"]
                .into_iter()
                .enumerate()
        {
            let before = keys(&engine);
            assert_eq!(before.len(), 1, "{before:?}");
            engine.kill9().restart_with_fault(Some(fault));
            let output = engine.cli(&["secrets", "rekey"]);
            assert_ne!(output.status.code(), Some(0), "{fault}: nobody was there to answer");
            engine.wait_for_death().restart();
            // Whichever key each is sealed with by now: every secret opens at once.
            assert_eq!(deliver(engine.api(), "sesame", order(&format!("r{round}"))), 202, "{fault}");
            let after = until("all secrets have one key", || {
                let done = !engine.data().join("secrets.key.old").exists();
                Some(keys(&engine)).filter(|keys| done && keys.len() == 1)
            });
            assert_eq!(after == before, fault == "secrets.rekey.kept:1", "{fault}");
            let listed = engine.cli_json(&["secrets", "ls"]);
            let items = listed["items"].as_array().expect("a list");
            assert!(items.len() == 5 && items.iter().all(|s| s["state"] == "active"), "{fault}: {listed}");
        }
    });
}

#[test]
fn tokens_outlive_a_restart_and_a_revoked_one_stays_so() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        let created = engine.cli(&["tokens", "create", "ci", "--role", "viewer", "--expires", "30d"]);
        let token = String::from_utf8(created.stdout).expect("text").trim().to_owned();
        assert!(token.starts_with("kw_"), "{token}");
        let bearer = format!("Bearer {token}");
        let look = |engine: &Engine| engine.api().bare("/api/v1/runs", &[("authorization", &bearer)]).status;
        assert_eq!(look(&engine), 200);
        engine.kill9().restart();
        assert_eq!(look(&engine), 200);
        assert_eq!(engine.cli(&["tokens", "revoke", "ci"]).status.code(), Some(0));
        assert_eq!(look(&engine), 401);
        engine.kill9().restart();
        assert_eq!(look(&engine), 401);
        assert!(!engine.log().contains(&token), "it is never logged");
    });
}
