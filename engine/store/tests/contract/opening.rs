//! What can be wrong when a store is opened.

use std::str::FromStr as _;

use kickwheel_store::{OpenError, Store};
use sqlx::{Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::fixture::{self, Fixture, Kind};

const NEWER: &str = "INSERT INTO schema_version (number, name, at) VALUES (9999, 'future', 0)";

#[tokio::test]
async fn a_newer_database_is_refused() {
    for kind in [Some(Kind::Sqlite), fixture::postgres()].into_iter().flatten() {
        let fixture = Fixture::new(&kind).await;
        fixture.open().await.close().await;
        match kind {
            Kind::Sqlite => {
                let mut conn = SqliteConnection::connect(&fixture.url).await.unwrap();
                sqlx::query(NEWER).execute(&mut conn).await.unwrap();
                conn.close().await.unwrap();
            }
            Kind::Postgres { .. } => {
                let mut conn = PgConnection::connect(&fixture.url).await.unwrap();
                sqlx::query(NEWER).execute(&mut conn).await.unwrap();
            }
        }
        let refused = Store::open(&fixture.url).await;
        assert!(matches!(refused, Err(OpenError::Newer { found: 9999, .. })), "{refused:?}");
        fixture.remove().await;
    }
}

/// What the first version left behind: its tables, its line, and a bound repository.
const FIRST: [&str; 3] = [
    "CREATE TABLE schema_version (number bigint NOT NULL PRIMARY KEY, name text NOT NULL, at bigint NOT NULL)",
    "INSERT INTO schema_version (number, name, at) VALUES (1, 'first_tables', 0)",
    "INSERT INTO repos (project, name, url, default_branch, hook, reason) VALUES ('demo', 'churn', '/srv', NULL, 1, NULL)",
];

#[tokio::test]
async fn an_older_database_is_migrated_with_its_rows() {
    for kind in [Some(Kind::Sqlite), fixture::postgres()].into_iter().flatten() {
        let fixture = Fixture::new(&kind).await;
        let [table, line, repo] = FIRST;
        match kind {
            Kind::Sqlite => {
                let tables = include_str!("../../migrations/sqlite/0001_first_tables.sql");
                let options = SqliteConnectOptions::from_str(&fixture.url).unwrap().create_if_missing(true);
                let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
                for sql in [tables, table, line, repo] {
                    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
                }
                conn.close().await.unwrap();
            }
            Kind::Postgres { .. } => {
                let tables = include_str!("../../migrations/postgres/0001_first_tables.sql");
                let mut conn = PgConnection::connect(&fixture.url).await.unwrap();
                for sql in [tables, table, line, repo] {
                    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap();
                }
            }
        }
        let store = fixture.open().await;
        let repo = store.repo("demo", "churn").await.unwrap().unwrap();
        assert_eq!((repo.url.as_str(), repo.hook, repo.secret, repo.poll_ms), ("/srv", true, None, None));
        assert_eq!(store.triggers(None).await.unwrap(), []);
        store.bus_mode().await.unwrap();
        fixture.remove().await;
    }
}

#[tokio::test]
async fn a_missing_folder_and_a_foreign_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere/kickwheel.db");
    let refused = Store::open(missing.to_str().unwrap()).await;
    assert!(matches!(&refused, Err(OpenError::Folder { path }) if *path == missing), "{refused:?}");
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "this is no database at all").unwrap();
    for other in [text.as_path(), folder.path()] {
        let refused = Store::open(other.to_str().unwrap()).await;
        assert!(matches!(&refused, Err(OpenError::NotADatabase { path }) if path == other), "{refused:?}");
    }
    assert_eq!(std::fs::read(&text).unwrap(), b"this is no database at all");
    for url in ["", "sqlite://", "sqlite::memory:", "mysql://host/db"] {
        let refused = Store::open(url).await;
        assert!(matches!(refused, Err(OpenError::Url { .. })), "{url}: {refused:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_says_no_is_told_apart() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = Store::open(&format!("postgres://nobody@{closed}/nothing")).await;
    assert!(matches!(refused, Err(OpenError::Unreachable { .. })), "{refused:?}");
    let Some(kind) = fixture::postgres() else { return };
    let fixture = Fixture::new(&kind).await;
    let refused = Store::open(&format!("{}_missing", fixture.url)).await;
    assert!(matches!(refused, Err(OpenError::Refused { .. })), "{refused:?}");
    fixture.remove().await;
}
