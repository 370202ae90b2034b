//! What can be wrong when a store is opened.

use kickwheel_store::{OpenError, Store};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

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
