//! The writer's connection to a SQLite file: each statement is a plain call on the writer's own thread.
//!
//! sqlx runs SQLite on a thread of its own and hands over each statement and each answer. For reads, which come one by
//! one, that is right. A transaction of the writer is a dozen statements, and a dozen times two hand-overs cost more than
//! the statements and their commit together. So the writer, which has a thread to itself, calls the library directly, and
//! nothing but [`crate::db::Conn`] knows. Errors look like sqlx's own, code and text, to whoever sorts them.

use std::{
    borrow::Cow,
    error::Error as StdError,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{
    CachedStatement, Connection, OpenFlags, ToSql,
    types::{ToSqlOutput, Value, ValueRef},
};
use sqlx::error::{DatabaseError, ErrorKind};

use crate::db::{Arg, Result};

/// Where the file is, and how a connection is set up.
#[derive(Clone, Debug)]
pub struct SqliteFile {
    /// Its path.
    pub path: PathBuf,
    /// Whether it is made when it is not there.
    pub create: bool,
    /// How long a statement waits for the lock of another process.
    pub busy_timeout: Duration,
    /// `PRAGMA name = value`, in this order.
    pub pragmas: &'static [(&'static str, &'static str)],
    /// Prepared statements that are kept.
    pub statements: usize,
}

/// An open connection.
#[derive(Debug)]
pub struct Sqlite(Connection);

/// A row, taken out of the statement that gave it.
#[derive(Debug)]
pub struct SqliteValues {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

impl Sqlite {
    /// Opens the file.
    pub fn open(file: &SqliteFile) -> Result<Self> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, file.create);
        let conn = Connection::open_with_flags(&file.path, flags).map_err(|e| failed(e, &file.path))?;
        conn.busy_timeout(file.busy_timeout).map_err(|e| failed(e, &file.path))?;
        conn.set_prepared_statement_cache_capacity(file.statements);
        let mut opened = Self(conn);
        for (name, value) in file.pragmas {
            // Some answer with a row, others do not.
            opened.rows(&format!("PRAGMA {name} = {value}"), &[])?;
        }
        Ok(opened)
    }

    /// Runs a statement to its end; gives the number of rows that it changed.
    pub fn execute(&mut self, sql: &str, args: &[Arg]) -> Result<u64> {
        let run = || -> rusqlite::Result<u64> {
            let mut statement = self.prepare(sql, args)?;
            let mut rows = statement.raw_query();
            while rows.next()?.is_some() {}
            Ok(self.0.changes())
        };
        run().map_err(lift)
    }

    /// Runs a statement to its end; gives its rows.
    pub fn rows(&mut self, sql: &str, args: &[Arg]) -> Result<Vec<SqliteValues>> {
        let run = || -> rusqlite::Result<Vec<SqliteValues>> {
            let mut statement = self.prepare(sql, args)?;
            let columns: Arc<[String]> = statement.column_names().into_iter().map(str::to_owned).collect();
            let mut rows = statement.raw_query();
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let values = (0..columns.len()).map(|index| row.get(index)).collect::<rusqlite::Result<_>>()?;
                found.push(SqliteValues { columns: Arc::clone(&columns), values });
            }
            Ok(found)
        };
        run().map_err(lift)
    }

    /// Runs a text of several statements.
    pub fn script(&mut self, sql: &str) -> Result<()> {
        self.0.execute_batch(sql).map_err(lift)
    }

    /// Says goodbye.
    pub fn close(self) {
        // A connection that cannot be closed politely is gone anyway.
        let _ = self.0.close();
    }

    /// `$3` is the third argument wherever it stands: SQLite itself numbers names in the order in which they come.
    fn prepare(&self, sql: &str, args: &[Arg]) -> rusqlite::Result<CachedStatement<'_>> {
        let mut statement = self.0.prepare_cached(sql)?;
        for index in 1..=statement.parameter_count() {
            let number = statement.parameter_name(index).and_then(|name| name.get(1..)?.parse::<usize>().ok());
            let arg = number.and_then(|number| args.get(number.checked_sub(1)?));
            let arg = arg.ok_or(rusqlite::Error::InvalidParameterCount(args.len(), index))?;
            statement.raw_bind_parameter(index, arg)?;
        }
        Ok(statement)
    }
}

impl ToSql for Arg {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Int(Some(number)) => ValueRef::Integer(*number),
            Self::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
            Self::Int(None) | Self::Text(None) => ValueRef::Null,
        }))
    }
}

impl SqliteValues {
    fn value(&self, column: &str) -> Result<&Value> {
        let index = self.columns.iter().position(|name| name == column);
        index.map(|index| &self.values[index]).ok_or_else(|| sqlx::Error::ColumnNotFound(column.to_owned()))
    }

    fn mistaken(column: &str, found: &Value) -> sqlx::Error {
        let what = format!("it holds a value of type {}", found.data_type());
        sqlx::Error::ColumnDecode { index: column.to_owned(), source: what.into() }
    }

    /// A number or null.
    pub fn opt_int(&self, column: &str) -> Result<Option<i64>> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Integer(number) => Ok(Some(*number)),
            other @ (Value::Real(_) | Value::Text(_) | Value::Blob(_)) => Err(Self::mistaken(column, other)),
        }
    }

    /// A text or null.
    pub fn opt_text(&self, column: &str) -> Result<Option<String>> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.clone())),
            other @ (Value::Integer(_) | Value::Real(_) | Value::Blob(_)) => Err(Self::mistaken(column, other)),
        }
    }

    /// Bytes or null.
    pub fn opt_blob(&self, column: &str) -> Result<Option<Vec<u8>>> {
        match self.value(column)? {
            Value::Null => Ok(None),
            Value::Blob(bytes) => Ok(Some(bytes.clone())),
            other @ (Value::Integer(_) | Value::Real(_) | Value::Text(_)) => Err(Self::mistaken(column, other)),
        }
    }
}

/// What SQLite refused, with its extended result code.
#[derive(Debug)]
pub struct SqliteFailure {
    code: i32,
    message: String,
}

impl SqliteFailure {
    /// The extended result code (`sqlite3.h`).
    pub fn extended_code(&self) -> i32 {
        self.code
    }
}

impl fmt::Display for SqliteFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(code: {}) {}", self.code, self.message)
    }
}

impl StdError for SqliteFailure {}

impl DatabaseError for SqliteFailure {
    fn message(&self) -> &str {
        &self.message
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(self.code.to_string().into())
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        // Nobody here asks; the codes say more.
        ErrorKind::Other
    }
}

fn lift(error: rusqlite::Error) -> sqlx::Error {
    let code = error.sqlite_error().map(|e| e.extended_code);
    match code {
        Some(code) => {
            let message = match error {
                rusqlite::Error::SqliteFailure(_, Some(message)) => message,
                other => other.to_string(),
            };
            sqlx::Error::Database(Box::new(SqliteFailure { code, message }))
        }
        // What is left is about arguments and values: a statement of ours is wrong.
        None => sqlx::Error::Decode(error.into()),
    }
}

fn failed(error: rusqlite::Error, path: &Path) -> sqlx::Error {
    match lift(error) {
        sqlx::Error::Database(e) => match e.try_downcast::<SqliteFailure>() {
            Ok(failure) if !failure.message.contains(&*path.to_string_lossy()) => {
                let message = format!("{}: {}", path.display(), failure.message);
                sqlx::Error::Database(Box::new(SqliteFailure { code: failure.code, message }))
            }
            Ok(failure) => sqlx::Error::Database(failure),
            Err(other) => sqlx::Error::Database(other),
        },
        other => other,
    }
}
