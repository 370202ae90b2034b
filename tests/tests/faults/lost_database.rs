//! A database that is locked, away, or not there at all: the engine pauses, says so, and carries on.

use std::{fs, path::Path};

use kickwheel_tests::{
    api::block_on,
    checker::{self, Expected},
    cluster::{self, with_database},
    harness::{Database, Engine, Setup, on_each_database, send},
    repo::Repo,
    wait::until,
};
use sqlx::{Connection as _, Executor as _};

use crate::wheel::{Scenario, list};

/// A job that goes on while the database is away.
const GATED: &str = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  long:
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      while [ ! -e {folder}/gate ]; do sleep 0.05; done
  after: {needs: [long], run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;

/// Holds what every writer needs until it is dropped.
enum Lock {
    Sqlite(sqlx::SqliteConnection),
    Postgres(sqlx::PgConnection),
}

impl Lock {
    fn take(url: &str) -> Self {
        block_on(async {
            if url.starts_with("sqlite:") {
                let mut connection = sqlx::SqliteConnection::connect(url).await?;
                connection.execute("PRAGMA busy_timeout = 60000").await?;
                connection.execute("BEGIN EXCLUSIVE").await?;
                Ok::<_, sqlx::Error>(Self::Sqlite(connection))
            } else {
                let mut connection = sqlx::PgConnection::connect(url).await?;
                connection.execute("BEGIN").await?;
                connection
                    .execute("LOCK TABLE meta, shards, lanes, events, runs, journal IN ACCESS EXCLUSIVE MODE")
                    .await?;
                Ok(Self::Postgres(connection))
            }
        })
        .expect("the lock can be had")
    }

    fn release(self) {
        block_on(async {
            match self {
                Self::Sqlite(mut connection) => connection.execute("ROLLBACK").await.map(drop),
                Self::Postgres(mut connection) => connection.execute("ROLLBACK").await.map(drop),
            }
        })
        .expect("the lock can be given back");
    }
}

/// The engine says everywhere that it is paused, and takes nothing that it could not keep.
pub fn is_paused(engine: &mut Engine) {
    until("an event is refused", || send(engine.api(), "refused").ok().filter(|a| a.status == 503));
    engine.wait_for_health("paused");
    let health = engine.api().get("health");
    let check = health["checks"].as_array().and_then(|c| c.iter().find(|c| c["id"] == "database")).cloned();
    let check = check.unwrap_or_else(|| panic!("{health:#}"));
    assert_eq!(check["state"], "failed", "{health:#}");
    assert!(check["help"].is_string() && check["message"].is_string());
    let doctor = engine.cli(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert_eq!(doctor.status.code(), Some(1), "{said}{}", String::from_utf8_lossy(&doctor.stderr));
    assert!(said.contains("takes no writes"), "{said}");
}

/// It has carried on: the run that was under way ends, and a new one too.
pub fn carries_on(engine: &mut Engine) {
    engine.wait_for_health("ok");
    engine.open_gate("gate").wait_for("succeeded");
    engine.kick("refused").wait_for("succeeded");
    assert_eq!(engine.ledger_lines().len(), 4);
    let violations = checker::check(&engine.database_url(), &engine.ledger(), &Expected::new());
    assert!(violations.is_empty(), "{}", list(&violations));
}

#[test]
fn a_locked_database_pauses_the_engine_until_the_lock_is_gone() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.submit(GATED).wait_for_ledger(1);
        let lock = Lock::take(&engine.database_url());
        is_paused(&mut engine);
        lock.release();
        carries_on(&mut engine);
    });
}

#[test]
fn a_result_that_meets_a_locked_database_is_kept() {
    on_each_database(|database| {
        let mut scenario = Scenario::begin(Engine::start(database));
        scenario.send();
        let lock = Lock::take(&scenario.engine.database_url());
        scenario.engine.wait_for_health("paused");
        lock.release();
        scenario.check();
    });
}

/// A job that may see a secret only on the default branch, behind one that waits.
const GUARDED: &str = r#"
version: 1
name: guarded
on: {event: {type: dev.example.kick}}
steps:
  long:
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      while [ ! -e {folder}/gate ]; do sleep 0.05; done
  after:
    needs: [long]
    secrets: {token: deploy}
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      [ "$(cat "$KICKWHEEL_SECRETS/token")" = correct-horse ]
"#;

fn execute(url: &str, sql: &'static str) {
    block_on(async {
        if url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(url).await?;
            connection.execute("PRAGMA busy_timeout = 60000").await?;
            connection.execute(sql).await.map(drop)
        } else {
            sqlx::PgConnection::connect(url).await?.execute(sql).await.map(drop)
        }
    })
    .expect("the database takes it");
}

#[test]
fn a_protected_step_waits_for_a_database_that_cannot_say_which_ref_its_run_is_of() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        let repo = Repo::make(&engine.folder().join("git"), "guarded");
        engine.bind(&repo, "guarded");
        let yaml = engine.fill(GUARDED);
        repo.push(&[(".kickwheel/guarded.yaml", &yaml)]);
        until("the workflow is known", || {
            engine.api().get("workflows")["items"].as_array().filter(|items| items.len() == 1).map(drop)
        });
        let value = engine.folder().join("value");
        fs::write(&value, "correct-horse").expect("a file can be written");
        let value = value.to_str().expect("temporary folders are UTF-8");
        let set = engine.cli(&["secrets", "set", "deploy", "--from-file", value, "--ref", "refs/heads/main"]);
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
        engine.kick("guarded-1").wait_for_ledger(1);
        execute(&engine.database_url(), "ALTER TABLE repos RENAME TO repos_away");
        engine.open_gate("gate");
        until("the step has asked", || {
            let asked = engine.log().contains("cannot be told which ref the run is of");
            (asked || engine.task("after", 0)["state"] == "failed").then_some(())
        });
        execute(&engine.database_url(), "ALTER TABLE repos_away RENAME TO repos");
        engine.wait_for("succeeded");
        assert_eq!((engine.ledger_lines().len(), &engine.task("after", 0)["attempt"]), (2, &serde_json::json!(1)));
    });
}

#[test]
fn a_database_file_that_is_moved_away_pauses_the_engine_until_it_is_back() {
    let mut engine = Engine::start(Database::Sqlite);
    engine.submit(GATED).wait_for_ledger(1);
    let away = engine.folder().join("away");
    fs::create_dir_all(&away).expect("a folder can be made");
    let move_all = |from: &Path, to: &Path| {
        for name in ["kickwheel.db", "kickwheel.db-wal", "kickwheel.db-shm"] {
            if from.join(name).exists() {
                fs::rename(from.join(name), to.join(name)).expect("both are on one disk");
            }
        }
    };
    move_all(engine.data(), &away);
    is_paused(&mut engine);
    for name in ["kickwheel.db", "kickwheel.db-wal", "kickwheel.db-shm"] {
        assert!(!engine.data().join(name).exists(), "{name}: no empty database is put in its place");
    }
    move_all(&away, engine.data());
    carries_on(&mut engine);
}

#[test]
fn a_server_without_the_database_is_told_at_the_start_and_ends_with_a_code() {
    if let Some(reason) = cluster::no_server() {
        return kickwheel_tests::harness::skip(&reason);
    }
    let server = std::env::var(cluster::SERVER).expect("looked above");
    for url in [with_database(&server, "there_is_no_such_database"), "postgres://me@127.0.0.1:1/kickwheel".to_owned()] {
        let mut engine = Engine::prepare(Database::Postgres, Setup { url: Some(url), ..Setup::default() });
        let ended = engine.try_restart(None).expect_err("it cannot start");
        assert_eq!(ended.code(), Some(5), "{}", engine.log());
        assert!(engine.log().contains("database"), "{}", engine.log());
        assert!(!engine.log().contains("panicked"), "{}", engine.log());
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let mut engine = Engine::prepare(Database::Sqlite, Setup::default());
    let file = engine.data().join("kickwheel.db");
    let text = "these are the only notes that I have\n".repeat(200);
    fs::write(&file, &text).expect("a file can be written");
    let ended = engine.try_restart(None).expect_err("it cannot start");
    assert_eq!(ended.code(), Some(5), "{}", engine.log());
    assert!(engine.log().contains("database"), "{}", engine.log());
    assert_eq!(fs::read_to_string(&file).expect("it is still there"), text);
}
