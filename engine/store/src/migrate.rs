//! Migrations: numbered scripts, the same numbers and names for both databases, applied in order when a store is opened.
//!
//! A script is never edited once it was released. Each is applied in a transaction of its own together with its line in
//! `schema_version`, so that a crash leaves either all of it or nothing.

use kickwheel_schemas::Millis;

use crate::{
    OpenError,
    db::{Arg, Conn},
    store::Member,
};

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// From 1, without gaps.
    pub number: i64,
    /// The file's name without number and ending.
    pub name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

/// All that this binary knows, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "first_tables",
        sqlite: include_str!("../migrations/sqlite/0001_first_tables.sql"),
        postgres: include_str!("../migrations/postgres/0001_first_tables.sql"),
    },
    Migration {
        number: 2,
        name: "door_and_bus",
        sqlite: include_str!("../migrations/sqlite/0002_door_and_bus.sql"),
        postgres: include_str!("../migrations/postgres/0002_door_and_bus.sql"),
    },
    Migration {
        number: 3,
        name: "repo_access",
        sqlite: include_str!("../migrations/sqlite/0003_repo_access.sql"),
        postgres: include_str!("../migrations/postgres/0003_repo_access.sql"),
    },
];

/// Serialises migrating replicas on Postgres (an arbitrary number, the same in every version), however long it takes.
const LOCK: &str = "SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock(7203815)";

/// Brings the schema up to date, or refuses a database that is newer than we are.
pub async fn migrate(conn: &mut Conn) -> Result<(), OpenError> {
    let failed = |number: i64| move |e: sqlx::Error| OpenError::Migration { number, message: e.to_string() };
    let known = MIGRATIONS.last().map_or(0, |m| m.number);
    loop {
        conn.begin().await.map_err(failed(0))?;
        match step(conn, known).await {
            Ok(true) => {
                conn.commit().await.map_err(failed(0))?;
                return Ok(());
            }
            Ok(false) => conn.commit().await.map_err(failed(0))?,
            Err(error) => {
                // The error that matters is the first one.
                let _ = conn.script("ROLLBACK").await;
                return Err(error);
            }
        }
    }
}

/// Applies the next migration, if there is one; true when there was none.
async fn step(conn: &mut Conn, known: i64) -> Result<bool, OpenError> {
    let failed = |number: i64| move |e: sqlx::Error| OpenError::Migration { number, message: e.to_string() };
    if conn.member() == Member::Postgres {
        conn.script(LOCK).await.map_err(failed(0))?;
    }
    conn.script(
        "CREATE TABLE IF NOT EXISTS schema_version (number bigint NOT NULL PRIMARY KEY, name text NOT NULL, at bigint NOT NULL)",
    )
    .await
    .map_err(failed(0))?;
    let found = conn
        .fetch_one("SELECT CAST(coalesce(max(number), 0) AS bigint) AS number FROM schema_version", [])
        .await
        .and_then(|row| row.map_or(Ok(0), |row| row.int("number")))
        .map_err(failed(0))?;
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    let Some(next) = MIGRATIONS.iter().find(|m| m.number > found) else {
        return Ok(true);
    };
    let script = match conn.member() {
        Member::Sqlite => next.sqlite,
        Member::Postgres => next.postgres,
    };
    conn.script(script).await.map_err(failed(next.number))?;
    let line: [Arg; 3] = [next.number.into(), next.name.into(), Millis::now().into()];
    conn.execute("INSERT INTO schema_version (number, name, at) VALUES ($1, $2, $3)", line)
        .await
        .map_err(failed(next.number))?;
    Ok(false)
}
