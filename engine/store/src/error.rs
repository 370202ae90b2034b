//! Why an operation of the store failed, split by what the caller does next.

use std::path::PathBuf;

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
