//! Reads the tables that the checker looks at, from either database, as texts.
//!
//! Everything is read at once and in full: a checked database is that of a test.

use std::{collections::BTreeMap, str::FromStr as _};

use sqlx::{AssertSqlSafe, Column as _, Connection as _, Executor as _, Row as _};

use crate::api::block_on;

/// A row: column to text.
#[derive(Debug)]
pub struct Row(BTreeMap<String, Option<String>>);

impl Row {
    /// A column that is never null.
    pub fn text(&self, column: &str) -> &str {
        self.get(column).unwrap_or_else(|| panic!("{column} of {self:?} is null"))
    }

    /// A column that may be null.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.get(column).unwrap_or_else(|| panic!("{column} was not read")).as_deref()
    }

    /// A number that is never null.
    pub fn number(&self, column: &str) -> i64 {
        self.text(column).parse().unwrap_or_else(|_| panic!("{column} of {self:?} is no number"))
    }
}

/// The tables.
pub struct Opened {
    pub events: Vec<Row>,
    pub undecided: Vec<Row>,
    pub decisions: Vec<Row>,
    pub runs: Vec<Row>,
    pub journal: Vec<Row>,
    pub sealed: Vec<Row>,
    pub inbox: Vec<Row>,
    pub spool: Vec<Row>,
    pub plans: Vec<Row>,
}

impl Opened {
    /// Reads all of them. `url` is `sqlite://FILE` or `postgres://…`.
    pub fn read(url: &str) -> Self {
        let mut snapshot = Snapshot::begin(url);
        let mut read = |table: &str, columns: &[&str], order: &str| snapshot.rows(table, columns, order);
        let opened = Self {
            events: read("events", &["event_key", "source", "channel", "state", "reason", "body"], "event_key"),
            undecided: read("undecided", &["lane", "position", "event_key"], "lane, position"),
            decisions: read("decisions", &["event_key", "workflow", "decision", "run"], "event_key, workflow"),
            runs: read(
                "runs",
                &[
                    "run",
                    "workflow",
                    "plan_digest",
                    "event_source",
                    "event_id",
                    "generation",
                    "state",
                    "open_commands",
                    "wake_at",
                    "ended_at",
                    "next_seq",
                ],
                "run",
            ),
            journal: read("journal", &["run", "seq", "event"], "run, seq"),
            sealed: read("sealed", &["run", "events", "body"], "run"),
            inbox: read("inbox", &["run", "input_id"], "run, input_id"),
            spool: read("spool", &["position", "channel"], "position"),
            plans: read("plans", &["plan_digest", "compiled"], "plan_digest"),
        };
        snapshot.end();
        opened
    }
}

/// One state of a database, whatever is written meanwhile: an engine at rest may still seal journals.
enum Snapshot {
    Sqlite(sqlx::SqliteConnection),
    Postgres(sqlx::PgConnection),
}

impl Snapshot {
    fn begin(url: &str) -> Self {
        let begun: Result<Self, sqlx::Error> = block_on(async {
            if url.starts_with("sqlite:") {
                let options = sqlx::sqlite::SqliteConnectOptions::from_str(url)?.read_only(true);
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
                connection.execute("BEGIN").await?;
                Ok(Self::Sqlite(connection))
            } else {
                let mut connection = sqlx::PgConnection::connect(url).await?;
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                Ok(Self::Postgres(connection))
            }
        });
        begun.unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    /// Hangs up, and waits for it: a copy of a database is made only when nobody is connected.
    fn end(self) {
        let closed: Result<(), sqlx::Error> = block_on(async {
            match self {
                Self::Sqlite(connection) => connection.close().await,
                Self::Postgres(connection) => connection.close().await,
            }
        });
        // Whatever went wrong with hanging up, everything has been read.
        drop(closed);
    }

    fn rows(&mut self, table: &str, columns: &[&str], order: &str) -> Vec<Row> {
        let is_sqlite = matches!(self, Self::Sqlite(_));
        let selected: Vec<String> = columns
            .iter()
            .map(|column| match (*column, table, is_sqlite) {
                ("body", "sealed", true) => "lower(hex(body)) AS body".to_owned(),
                ("body", "sealed", false) => "encode(body, 'hex') AS body".to_owned(),
                _ => format!("CAST({column} AS text) AS {column}"),
            })
            .collect();
        // The columns that give the order are the table's own: the selected ones are texts, among which 10 comes before 2.
        let order: Vec<String> = order.split(", ").map(|column| format!("{table}.{column}")).collect();
        let sql = format!("SELECT {} FROM {table} ORDER BY {}", selected.join(", "), order.join(", "));
        let rows: Result<Vec<Row>, sqlx::Error> = block_on(async {
            match self {
                Self::Sqlite(connection) => {
                    let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(connection).await?;
                    rows.iter().map(|r| texts(r.columns().iter().map(|c| (c.name(), r.try_get(c.ordinal()))))).collect()
                }
                Self::Postgres(connection) => {
                    let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(connection).await?;
                    rows.iter().map(|r| texts(r.columns().iter().map(|c| (c.name(), r.try_get(c.ordinal()))))).collect()
                }
            }
        });
        rows.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }
}

fn texts<'a>(
    columns: impl Iterator<Item = (&'a str, Result<Option<String>, sqlx::Error>)>,
) -> Result<Row, sqlx::Error> {
    columns.map(|(name, value)| Ok((name.to_owned(), value?))).collect::<Result<_, _>>().map(Row)
}

/// Rows of a table.
pub fn count(url: &str, table: &str) -> usize {
    let mut snapshot = Snapshot::begin(url);
    let count = snapshot.rows(table, &["project"], "project").len();
    snapshot.end();
    count
}
