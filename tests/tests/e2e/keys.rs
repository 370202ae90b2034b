//! Two engines of one database that were given one key for the secrets, one of which changes it.

use std::{fs, path::Path, thread};

use kickwheel_tests::{
    cluster::no_server,
    harness::{Database, Engine, Setup, skip},
    wait::until,
};
use serde_json::Value;

fn set(engine: &Engine, name: &str, value: &str) -> Result<(), String> {
    let file = engine.folder().join(name);
    fs::write(&file, value).expect("a file can be written");
    let said = engine.cli(&["secrets", "set", name, "--from-file", &file.to_string_lossy()]);
    if said.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said.stderr).into_owned()) }
}

fn setup(key: &Path, url: Option<String>) -> Setup {
    let arguments = vec!["--secrets-key-file".to_owned(), key.to_string_lossy().into_owned()];
    Setup { arguments, url, ..Setup::default() }
}

fn secrets_check(engine: &Engine) -> Value {
    let doctor = engine.api().get("doctor");
    let checks = doctor["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["id"] == "secrets").expect("there is one").clone()
}

#[test]
fn an_engine_that_takes_over_with_the_old_key_seals_nothing_until_it_gets_the_new_one() {
    if let Some(reason) = no_server() {
        return skip(&reason);
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let key = folder.path().join("shared.key");
    fs::write(&key, "11".repeat(32)).expect("a file can be written");
    let mut first = Engine::with(Database::Postgres, setup(&key, None));
    set(&first, "one", "sesame").expect("it is kept");
    // The second one has read the key, and waits for the leases of the first.
    let mut second = Engine::prepare(Database::Postgres, setup(&key, Some(first.database_url())));
    let log = second.folder().join("log");
    let waiting = thread::spawn(move || {
        second.restart();
        second
    });
    until("it waits", || {
        fs::read_to_string(&log).is_ok_and(|said| said.contains("waiting for the leases")).then_some(())
    });
    let changed = first.cli_json(&["secrets", "rekey"]);
    let key_id = changed["key_id"].as_str().expect("it says which").to_owned();
    let new = fs::read_to_string(first.data().join("secrets.key.next")).expect("it is there");
    first.kill9();
    let second = waiting.join().expect("it comes up");

    let refused = set(&second, "two", "open").expect_err("it would be sealed with a key that nobody has any more");
    assert!(refused.contains(&key_id) && refused.contains("secrets rekey"), "{refused}");
    assert_eq!(secrets_check(&second)["state"], "failed");
    // Where both look, and without another start.
    fs::write(&key, new).expect("a file can be written");
    set(&second, "two", "open").expect("it is kept");
    assert_eq!(secrets_check(&second)["state"], "ok");
    let kept = second.cli_json(&["secrets", "ls"]);
    let kept = kept["items"].as_array().expect("a list");
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|secret| secret["key_id"] == key_id.as_str()), "{kept:?}");
}
