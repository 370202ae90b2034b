//! The typed layer over both databases: connections, arguments, rows, and the few places where their SQL differs.
//!
//! Statements are written once, with `$1` placeholders, which SQLite takes too. What differs is written as a named
//! fragment in braces and filled in by [`Member::render`]. Deliberately absent: knowledge of any table.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use kickwheel_schemas::Millis;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _, SqlitePool,
    postgres::{PgArguments, PgRow},
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::{
    ReadError,
    sqlite::{Sqlite, SqliteValues},
    store::Member,
};

/// What a statement of this layer fails with.
pub type Result<T> = std::result::Result<T, sqlx::Error>;

/// The named fragments in which the databases differ.
const FRAGMENTS: &[Fragment] = &[
    // The rows of the JSON array of arrays in $1; `value->>0` picks a column on both.
    Fragment { name: "{rows}", sqlite: "json_each($1)", postgres: "jsonb_array_elements(CAST($1 AS jsonb))" },
    // SQLite has one writer, so its rows need no locks.
    Fragment { name: "{for_share}", sqlite: "", postgres: "FOR SHARE" },
    Fragment { name: "{for_update}", sqlite: "", postgres: "FOR UPDATE" },
    Fragment { name: "{skip_locked}", sqlite: "", postgres: "FOR UPDATE SKIP LOCKED" },
    // Milliseconds by the database's clock.
    Fragment {
        name: "{now}",
        sqlite: "CAST(unixepoch('subsec') * 1000 AS bigint)",
        postgres: "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)",
    },
];

struct Fragment {
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

impl Member {
    /// Fills in the fragments. A text without any is not copied.
    fn render(self, sql: &'static str) -> Cow<'static, str> {
        if !sql.contains('{') {
            return Cow::Borrowed(sql);
        }
        let mut text = sql.to_owned();
        for fragment in FRAGMENTS {
            let with = match self {
                Self::Sqlite => fragment.sqlite,
                Self::Postgres => fragment.postgres,
            };
            text = text.replace(fragment.name, with);
        }
        Cow::Owned(text)
    }
}

/// A value bound to a placeholder. Null is typed, because Postgres wants to know.
#[derive(Clone, Debug)]
pub enum Arg {
    /// A number, also a truth value (0 or 1) and a time.
    Int(Option<i64>),
    /// A text, also JSON.
    Text(Option<String>),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Arg {
    /// The display form of an identifier.
    pub fn show(value: impl Display) -> Self {
        Self::Text(Some(value.to_string()))
    }

    /// The JSON of a value.
    pub fn json(value: &impl Serialize) -> Self {
        Self::Text(Some(to_json(value)))
    }
}

/// The JSON of one of our row types.
pub fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("row types have string keys only")
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}
impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}
impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Int(Some(value as i64))
    }
}
impl From<bool> for Arg {
    fn from(value: bool) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}
impl From<Millis> for Arg {
    fn from(value: Millis) -> Self {
        Self::Int(Some(value.0))
    }
}
impl From<Option<Millis>> for Arg {
    fn from(value: Option<Millis>) -> Self {
        Self::Int(value.map(|v| v.0))
    }
}
impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}
impl From<&String> for Arg {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}
impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}
impl From<&Option<String>> for Arg {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}

/// One connection, for writing. To a file each call blocks its thread, which is therefore the writer's own.
#[derive(Debug)]
pub enum Conn {
    /// To a file.
    Sqlite(Sqlite),
    /// To a server.
    Postgres(PgConnection),
}

fn sqlite_query(sql: Cow<'static, str>, args: Vec<Arg>) -> Query<'static, sqlx::Sqlite, SqliteArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for arg in args {
        query = match arg {
            Arg::Int(value) => query.bind(value),
            Arg::Text(value) => query.bind(value),
            Arg::Blob(value) => query.bind(value),
        };
    }
    query
}

fn postgres_query(sql: Cow<'static, str>, args: Vec<Arg>) -> Query<'static, sqlx::Postgres, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for arg in args {
        query = match arg {
            Arg::Int(value) => query.bind(value),
            Arg::Text(value) => query.bind(value),
            Arg::Blob(value) => query.bind(value),
        };
    }
    query
}

impl Conn {
    /// Which database it talks to.
    pub fn member(&self) -> Member {
        match self {
            Self::Sqlite(_) => Member::Sqlite,
            Self::Postgres(_) => Member::Postgres,
        }
    }

    /// Runs a statement; gives the number of rows it changed.
    pub async fn execute(&mut self, sql: &'static str, args: impl Into<Vec<Arg>>) -> Result<u64> {
        let text = self.member().render(sql);
        match self {
            Self::Sqlite(c) => c.execute(&text, &args.into()),
            Self::Postgres(c) => Ok(postgres_query(text, args.into()).execute(c).await?.rows_affected()),
        }
    }

    /// Runs a statement; gives its rows.
    pub async fn fetch(&mut self, sql: &'static str, args: impl Into<Vec<Arg>>) -> Result<Vec<Row>> {
        let text = self.member().render(sql);
        match self {
            Self::Sqlite(c) => Ok(c.rows(&text, &args.into())?.into_iter().map(Row::Values).collect()),
            Self::Postgres(c) => Ok(Row::all_postgres(postgres_query(text, args.into()).fetch_all(c).await?)),
        }
    }

    /// Runs a statement; gives its first row.
    pub async fn fetch_one(&mut self, sql: &'static str, args: impl Into<Vec<Arg>>) -> Result<Option<Row>> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    /// Runs a text of several statements without arguments: a migration, `BEGIN`, `COMMIT`.
    pub async fn script(&mut self, sql: &'static str) -> Result<()> {
        match self {
            Self::Sqlite(c) => c.script(sql),
            Self::Postgres(c) => sqlx::raw_sql(sql).execute(c).await.map(drop),
        }
    }

    /// Begins a write transaction. On SQLite it takes the write lock at once: a later upgrade could fail at any
    /// statement, and waiting would not help it.
    pub async fn begin(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(_) => self.execute("BEGIN IMMEDIATE", []).await.map(drop),
            Self::Postgres(_) => self.script("BEGIN").await,
        }
    }

    /// Commits.
    pub async fn commit(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(_) => self.execute("COMMIT", []).await.map(drop),
            Self::Postgres(_) => self.script("COMMIT").await,
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        // A connection that cannot be closed politely is gone anyway.
        match self {
            Self::Sqlite(c) => c.close(),
            Self::Postgres(c) => _ = c.close().await,
        }
    }
}

/// Connections for reads.
#[derive(Clone, Debug)]
pub enum Readers {
    /// To a file, unable to write.
    Sqlite(SqlitePool),
    /// To a server.
    Postgres(PgPool),
}

impl Readers {
    /// Reads rows.
    pub async fn fetch(
        &self,
        sql: &'static str,
        args: impl Into<Vec<Arg>>,
    ) -> std::result::Result<Vec<Row>, ReadError> {
        let member = match self {
            Self::Sqlite(_) => Member::Sqlite,
            Self::Postgres(_) => Member::Postgres,
        };
        self.fetch_text(member.render(sql), args.into()).await
    }

    /// Reads rows by a statement that was put together from constant parts.
    pub async fn fetch_text(&self, sql: Cow<'static, str>, args: Vec<Arg>) -> std::result::Result<Vec<Row>, ReadError> {
        let rows = match self {
            Self::Sqlite(pool) => sqlite_query(sql, args).fetch_all(pool).await.map(Row::all_sqlite),
            Self::Postgres(pool) => postgres_query(sql, args).fetch_all(pool).await.map(Row::all_postgres),
        };
        Ok(rows?)
    }

    /// Reads the first row.
    pub async fn fetch_one(
        &self,
        sql: &'static str,
        args: impl Into<Vec<Arg>>,
    ) -> std::result::Result<Option<Row>, ReadError> {
        Ok(self.fetch(sql, args).await?.into_iter().next())
    }

    /// Closes all of them.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// One row; columns are got by name.
#[derive(Debug)]
pub enum Row {
    /// From a file, by a reader.
    Sqlite(SqliteRow),
    /// From a file, by the writer.
    Values(SqliteValues),
    /// From a server.
    Postgres(PgRow),
}

impl Row {
    fn all_sqlite(rows: Vec<SqliteRow>) -> Vec<Self> {
        rows.into_iter().map(Self::Sqlite).collect()
    }

    fn all_postgres(rows: Vec<PgRow>) -> Vec<Self> {
        rows.into_iter().map(Self::Postgres).collect()
    }

    /// A number.
    pub fn int(&self, column: &str) -> Result<i64> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Values(row) => row.opt_int(column)?.ok_or_else(|| undecodable(column, &"it is null")),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// A number or null.
    pub fn opt_int(&self, column: &str) -> Result<Option<i64>> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Values(row) => row.opt_int(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// A text.
    pub fn text(&self, column: &str) -> Result<String> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Values(row) => row.opt_text(column)?.ok_or_else(|| undecodable(column, &"it is null")),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// A text or null.
    pub fn opt_text(&self, column: &str) -> Result<Option<String>> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Values(row) => row.opt_text(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// Bytes.
    pub fn blob(&self, column: &str) -> Result<Vec<u8>> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Values(row) => row.opt_blob(column)?.ok_or_else(|| undecodable(column, &"it is null")),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// A count or other number that is never negative.
    pub fn uint(&self, column: &str) -> Result<u64> {
        Ok(self.int(column)?.max(0) as u64)
    }

    /// A truth value.
    pub fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.int(column)? != 0)
    }

    /// A time.
    pub fn millis(&self, column: &str) -> Result<Millis> {
        self.int(column).map(Millis)
    }

    /// A time or null.
    pub fn opt_millis(&self, column: &str) -> Result<Option<Millis>> {
        Ok(self.opt_int(column)?.map(Millis))
    }

    /// A text that is an identifier of ours.
    pub fn parse<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        let text = self.text(column)?;
        text.parse().map_err(|e: T::Err| undecodable(column, &e))
    }

    /// A text that is JSON.
    pub fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        serde_json::from_str(&self.text(column)?).map_err(|e| undecodable(column, &e))
    }
}

/// An error that says which column does not hold what it should.
pub fn undecodable(column: &str, what: &dyn Display) -> sqlx::Error {
    sqlx::Error::Decode(format!("column {column}: {what}").into())
}
