//! A database that is locked, gone, or loses its connections: writes pause, nothing is half done, and the store goes on
//! by itself.

use std::time::{Duration, Instant};

use kickwheel_store::{Health, Options, Store, Write, WriteError, Written, write};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use crate::fixture::{self, DEADLINE, Fixture, Kind, append, events_of, started};

fn set(value: &str) -> Vec<Write> {
    vec![Write::SetMeta(write::SetMeta { key: "k".into(), value: value.into() })]
}

#[track_caller]
fn assert_unavailable(result: &Result<Vec<Written>, WriteError>) {
    assert!(matches!(result, Err(WriteError::Unavailable { .. })), "{result:?}");
}

async fn until_ok(store: &Store) {
    let mut health = store.watch_health();
    let resumed = health.wait_for(|health| *health == Health::Ok);
    let waited = tokio::time::timeout(DEADLINE, resumed).await.is_ok();
    assert!(waited, "still {:?}", store.health());
}

#[tokio::test]
async fn a_locked_file_pauses_writes_and_never_reads() {
    let fixture = Fixture::new(&Kind::Sqlite).await;
    let options = Options { busy_timeout: Duration::from_millis(20), ..Options::default() };
    let store = fixture.open_with(options).await;
    store.write(set("before")).await.unwrap();
    let mut other = SqliteConnection::connect(&fixture.url).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let refused = store.write(set("during")).await;
    assert_unavailable(&refused);
    assert!(matches!(store.health(), Health::Paused { reason, .. } if reason.contains("locked")));
    assert_eq!(store.meta("k").await.unwrap().as_deref(), Some("before"));
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    until_ok(&store).await;
    store.write(set("after")).await.unwrap();
    assert_eq!(store.meta("k").await.unwrap().as_deref(), Some("after"));
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_not_written_to() {
    let fixture = Fixture::new(&Kind::Sqlite).await;
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    let path = fixture.url.strip_prefix("sqlite://").unwrap().to_owned();
    // The file itself last when it comes back, so that it is never seen without its log.
    let moved = |from: &str, to: &str, ends: [&str; 3]| {
        for end in ends {
            match std::fs::rename(format!("{from}{end}"), format!("{to}{end}")) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.unwrap(),
            }
        }
    };
    let aside = format!("{path}.aside");
    moved(&path, &aside, ["", "-shm", "-wal"]);
    let second = || vec![Write::Append(append(lease, run, 1, &["second"]))];
    assert_unavailable(&store.write(second()).await);
    assert!(!std::path::Path::new(&path).exists(), "no new database takes the place of ours");
    // Nor is another database written to.
    let foreign = Store::open(&path).await.unwrap();
    let mut health = store.watch_health();
    let noticed =
        health.wait_for(|h| matches!(h, Health::Paused { reason, .. } if reason.contains("another database")));
    tokio::time::timeout(DEADLINE, noticed).await.expect("notices in time").unwrap();
    assert_unavailable(&store.write(second()).await);
    foreign.close().await;
    moved(&path, &format!("{path}.foreign"), ["", "-shm", "-wal"]);
    moved(&aside, &path, ["-wal", "-shm", ""]);
    until_ok(&store).await;
    store.write(second()).await.unwrap();
    store.close().await;
    let again = fixture.open().await;
    assert_eq!(events_of(&again, run).await, ["first", "second"]);
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let Some(kind) = fixture::postgres() else { return };
    let fixture = Fixture::new(&kind).await;
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    assert_eq!(events_of(&store, run).await, ["first"]);
    let mut admin = PgConnection::connect(&fixture.url).await.unwrap();
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    sqlx::query(others).execute(&mut admin).await.unwrap();
    let second = || vec![Write::Append(append(lease, run, 1, &["second"]))];
    // The connection broke before the transaction began, so the answer is certain.
    assert_unavailable(&store.write(second()).await);
    assert!(matches!(store.health(), Health::Paused { .. }));
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = store.write(second()).await {
        assert!(matches!(error, WriteError::Unavailable { .. }), "{error:?}");
        assert!(Instant::now() < deadline, "{error}");
        until_ok(&store).await;
    }
    assert_eq!(events_of(&store, run).await, ["first", "second"]);
    fixture.remove().await;
}

#[tokio::test]
async fn a_transaction_that_was_cut_off_is_undone() {
    let Some(kind) = fixture::postgres() else { return };
    let fixture = Fixture::new(&kind).await;
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    // Somebody holds the row that the append needs, so that the transaction is caught in the middle.
    let mut admin = PgConnection::connect(&fixture.url).await.unwrap();
    let mut lock = PgConnection::connect(&fixture.url).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE runs SET cause = cause").execute(&mut lock).await.unwrap();
    let writing = tokio::spawn({
        let store = store.clone();
        async move { store.write(vec![Write::Append(append(lease, run, 1, &["second"]))]).await }
    });
    let waiting = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + DEADLINE;
    while sqlx::query(waiting).fetch_all(&mut admin).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the append never waited for the lock");
        tokio::task::yield_now().await;
    }
    assert_unavailable(&writing.await.unwrap());
    sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
    until_ok(&store).await;
    assert_eq!(events_of(&store, run).await, ["first"]);
    fixture.remove().await;
}
