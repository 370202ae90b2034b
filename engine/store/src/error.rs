//! Why an operation of the store failed, split by what the caller does next.

use std::path::PathBuf;

use sqlx::{error::DatabaseError, sqlite::SqliteError};

use crate::sqlite::SqliteFailure;

/// Why a unit of writes was refused. Unless it is [`WriteError::Unknown`], nothing of the unit was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The shard's epoch moved on: another owner has it. Stop acting for this shard.
    #[error("write for shard {shard}: its lease was taken over; stop acting for it")]
    Fenced {
        /// The shard that was lost.
        shard: u32,
    },
    /// An effect expected something of a named model or dataset that is no longer so. A decided outcome: resolve again.
    #[error("carry out effects: {}", what.join("; "))]
    Conflict {
        /// One sentence for each expectation that failed.
        what: Vec<String>,
    },
    /// The caller's picture is old: another event is first in the lane, another sequence number is next, the run exists
    /// already. Read again.
    #[error("write on an old picture: {what}")]
    Stale {
        /// What is the case instead.
        what: String,
    },
    /// The database cannot take writes now (full, locked, unreachable). Nothing was written: keep it and try later.
    #[error("write to the database now: {reason}")]
    Unavailable {
        /// What the database said.
        reason: String,
    },
    /// The connection broke while a commit was under way: written or not, nobody knows. Read before trying again.
    #[error("learn whether a commit was done: {reason}; read the rows concerned before trying again")]
    Unknown {
        /// What the connection said.
        reason: String,
    },
    /// The unit itself can never be written.
    #[error("write what was given: {message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The database cannot be read now: try later.
    #[error("read from the database now: {reason}")]
    Unavailable {
        /// What the database said.
        reason: String,
    },
    /// What is stored cannot be understood by this version: stop, and say so.
    #[error("understand a stored row: {message}")]
    Corrupt {
        /// Which value, and what is wrong with it.
        message: String,
    },
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is of no kind that we know.
    #[error("understand the database {url:?}: give a file path, sqlite://PATH or postgres://USER@HOST/NAME")]
    Url {
        /// As it was given, without a password.
        url: String,
    },
    /// The folder of the SQLite file is not there.
    #[error("open the database {}: its folder does not exist; create it first", path.display())]
    Folder {
        /// The database file.
        path: PathBuf,
    },
    /// The file exists and is something else.
    #[error("open {}: the file is not a SQLite database; move it away or give another path", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// A newer Kickwheel has been here.
    #[error(
        "open a database of version {found}: this binary knows versions up to {known}; use the Kickwheel that wrote it, \
         or a newer one"
    )]
    Newer {
        /// The version in the database.
        found: i64,
        /// The newest migration that we have.
        known: i64,
    },
    /// The server said no: wrong user, password or database name.
    #[error("log in to the database server: {message}; check user, password and database name")]
    Refused {
        /// What the server said.
        message: String,
    },
    /// The server or file cannot be reached or written now.
    #[error("reach the database: {message}")]
    Unreachable {
        /// What went wrong.
        message: String,
    },
    /// A migration failed; the database is as it was before.
    #[error("migrate the database to version {number}: {message}")]
    Migration {
        /// Which migration.
        number: i64,
        /// What the database said.
        message: String,
    },
}

/// What a failed statement means for the transaction that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The database refused what was given: the unit's own fault.
    Data(String),
    /// The database has no room left, but its connection lives; a smaller unit may still fit.
    Full(String),
    /// The database cannot do it now; the connection may be broken.
    Away(String),
    /// Two transactions met; done again, it will work.
    Collision(String),
}

/// SQLite's primary result codes (`sqlite3.h`) that say something about the database and not about the statement.
mod sqlite_code {
    pub const BUSY: i32 = 5;
    pub const LOCKED: i32 = 6;
    pub const NOMEM: i32 = 7;
    pub const READONLY: i32 = 8;
    pub const INTERRUPT: i32 = 9;
    pub const IOERR: i32 = 10;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const CANTOPEN: i32 = 14;
    pub const PROTOCOL: i32 = 15;
    pub const NOTADB: i32 = 26;
}

impl Cause {
    /// Sorts an error of a statement.
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        let text = error.to_string();
        match error {
            sqlx::Error::Database(e) => match sqlite_code(&**e) {
                Some(code) => of_sqlite(code & 0xff, text),
                None => of_postgres(&e.code().unwrap_or_default(), text),
            },
            sqlx::Error::Encode(_)
            | sqlx::Error::InvalidArgument(_)
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::RowNotFound
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. } => Self::Data(text),
            // The enum is open; what is left is about connections.
            _ => Self::Away(text),
        }
    }
}

/// The extended result code of an error of SQLite, from a reader or the writer; none for another database's.
pub(crate) fn sqlite_code(error: &dyn DatabaseError) -> Option<i32> {
    let of_writer = error.try_downcast_ref::<SqliteFailure>().map(SqliteFailure::extended_code);
    let of_reader = || {
        error.try_downcast_ref::<SqliteError>()?;
        error.code()?.parse().ok()
    };
    of_writer.or_else(of_reader)
}

fn of_sqlite(primary: i32, text: String) -> Cause {
    use sqlite_code as code;
    match primary {
        code::FULL => Cause::Full(text),
        code::BUSY
        | code::LOCKED
        | code::NOMEM
        | code::READONLY
        | code::INTERRUPT
        | code::IOERR
        | code::CORRUPT
        | code::CANTOPEN
        | code::PROTOCOL
        | code::NOTADB => Cause::Away(text),
        _ => Cause::Data(text),
    }
}

/// Sorts by SQLSTATE (Postgres, appendix A).
fn of_postgres(code: &str, text: String) -> Cause {
    match code {
        // Serialization failure, deadlock.
        "40001" | "40P01" => Cause::Collision(text),
        // Disk full. Others of class 53 and 55P03 (lock not available) are about load.
        "53100" => Cause::Full(text),
        // A read-only server (a standby after a failover), a transaction ended for idling, a cancelled statement.
        "25006" | "25P03" | "55P03" => Cause::Away(text),
        _ => match code.get(..2) {
            Some("08" | "53" | "57" | "58" | "XX") => Cause::Away(text),
            _ => Cause::Data(text),
        },
    }
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        match Cause::of(&error) {
            Cause::Data(message) => Self::Corrupt { message },
            Cause::Full(reason) | Cause::Away(reason) | Cause::Collision(reason) => Self::Unavailable { reason },
        }
    }
}
