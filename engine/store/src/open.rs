//! Opening a store: which database, how its sessions are set up, and what can be wrong with it.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use sqlx::{
    Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use crate::{
    OpenError,
    db::{Arg, Conn, Readers},
    sqlite::{Sqlite, SqliteFile},
};

/// How many shards a new installation gets.
pub const DEFAULT_SHARDS: u32 = 4;
/// How long a lease lasts, unless told otherwise; the sessions' time-outs follow from it.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(15);
/// Connections for reads. More would not help two cores, and each costs memory.
const READERS: u32 = 4;
/// How long a read waits for a connection before it is `Unavailable`.
const READER_WAIT: Duration = Duration::from_secs(5);
/// How long connecting to a server may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Pages of 4 KiB in the write-ahead log before a commit copies them into the database file: rarely enough that the
/// copying does not show, small enough that recovery reads 16 MiB at most.
const CHECKPOINT_PAGES: &str = "4000";
/// Prepared statements kept per connection: more than there are.
const STATEMENTS: usize = 256;
/// What a SQLite file begins with (its documentation, "Database File Format", 1.3).
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What can be chosen when opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Shards of a *new* installation; an existing one keeps what it has.
    pub shards: u32,
    /// The lease that will be asked for. Statements on Postgres are ended below half of it.
    pub lease: Duration,
    /// How long a write waits for a locked SQLite file before it is `Unavailable`.
    pub busy_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { shards: DEFAULT_SHARDS, lease: DEFAULT_LEASE, busy_timeout: Duration::from_secs(5) }
    }
}

/// Where the database is, with everything needed to connect again.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    at: At,
    /// Written into a database when it is made. A connection that finds another one is in the wrong place.
    installation: Option<String>,
}

#[derive(Clone, Debug)]
enum At {
    Sqlite(Box<SqliteFile>),
    Postgres(Box<PgConnectOptions>),
}

/// Name of the row of `meta` that holds the installation's id.
const INSTALLATION: &str = "installation";

impl Target {
    /// Understands a path, `sqlite://PATH` or `postgres://…`.
    pub(crate) fn parse(url: &str, options: &Options) -> Result<Self, OpenError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let unknown = |_| OpenError::Url { url: without_password(url) };
            let base = PgConnectOptions::from_str(url).map_err(unknown)?;
            return Ok(Self { at: At::Postgres(Box::new(postgres(base, options))), installation: None });
        }
        let path = match url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
            Some(path) => path,
            None if url.contains("://") => return Err(OpenError::Url { url: without_password(url) }),
            None => url,
        };
        if path.is_empty() || path.starts_with(":memory:") {
            return Err(OpenError::Url { url: url.to_owned() });
        }
        let path = PathBuf::from(path);
        check_file(&path)?;
        Ok(Self { at: At::Sqlite(Box::new(sqlite(&path, options))), installation: None })
    }

    /// Connects the writer.
    pub(crate) async fn connect(&self) -> Result<Conn, sqlx::Error> {
        let mut conn = match &self.at {
            At::Sqlite(file) => Conn::Sqlite(Sqlite::open(file)?),
            At::Postgres(options) => {
                let connecting = PgConnection::connect_with(options);
                let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the server did not answer in time");
                let conn = tokio::time::timeout(CONNECT_LIMIT, connecting).await.map_err(|_| late())?;
                Conn::Postgres(conn?)
            }
        };
        if self.installation.is_none() {
            return Ok(conn);
        }
        let found = installation(&mut conn).await;
        if matches!(&found, Ok(found) if *found == self.installation) {
            return Ok(conn);
        }
        // Before anybody is told: who closes a SQLite file last removes its log by name, and once ours is put back that
        // would be our log.
        conn.close().await;
        found?;
        let other = "another database has taken the place of ours; put ours back or restart";
        Err(sqlx::Error::Io(std::io::Error::other(other)))
    }

    /// After the first connection: from now on no file is created any more, and only this database will do.
    pub(crate) async fn opened(mut self, conn: &mut Conn) -> Result<Self, sqlx::Error> {
        let fresh: [Arg; 2] = [INSTALLATION.into(), Arg::show(uuid::Uuid::now_v7())];
        conn.execute("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING", fresh).await?;
        self.installation = installation(conn).await?;
        if let At::Sqlite(file) = &mut self.at {
            file.create = false;
        }
        Ok(self)
    }

    /// What tells the file of a SQLite database from any other; none for a server.
    pub(crate) fn file_identity(&self) -> Option<std::io::Result<FileIdentity>> {
        match &self.at {
            At::Sqlite(file) => Some(FileIdentity::of(&file.path)),
            At::Postgres(_) => None,
        }
    }

    /// Connections for reads; none is opened yet.
    pub(crate) fn readers(&self) -> Readers {
        match &self.at {
            At::Sqlite(file) => {
                let mut options = SqliteConnectOptions::new()
                    .filename(&file.path)
                    .busy_timeout(file.busy_timeout)
                    .statement_cache_capacity(file.statements);
                for (name, value) in file.pragmas {
                    options = options.pragma(*name, *value);
                }
                let options = options.pragma("query_only", "on");
                let pool = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(READER_WAIT);
                Readers::Sqlite(pool.test_before_acquire(false).connect_lazy_with(options))
            }
            At::Postgres(options) => {
                let pool = PgPoolOptions::new().max_connections(READERS).acquire_timeout(READER_WAIT);
                Readers::Postgres(pool.connect_lazy_with(options.as_ref().clone()))
            }
        }
    }

    /// Says what a failed first connection means.
    pub(crate) fn explain(&self, error: &sqlx::Error) -> OpenError {
        let message = error.to_string();
        let Some(database) = error.as_database_error() else {
            return OpenError::Unreachable { message };
        };
        let code = database.code().unwrap_or_default();
        match &self.at {
            // SQLITE_NOTADB.
            At::Sqlite(file) if code == "26" => OpenError::NotADatabase { path: file.path.clone() },
            // Class 28: invalid authorization; 3D000: no such database.
            At::Postgres(_) if code.starts_with("28") || code == "3D000" => {
                OpenError::Refused { message: database.message().to_owned() }
            }
            At::Sqlite(_) | At::Postgres(_) => OpenError::Unreachable { message },
        }
    }
}

/// Device and inode of a file. SQLite goes on writing to a file that somebody has deleted or moved away, and all of it
/// would be lost: so the writer compares before each transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    fn of(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

async fn installation(conn: &mut Conn) -> Result<Option<String>, sqlx::Error> {
    let row = conn.fetch_one("SELECT value FROM meta WHERE key = $1", [Arg::from(INSTALLATION)]).await?;
    row.map(|row| row.text("value")).transpose()
}

/// Durability before anything: the log is synced at each commit. One connection writes; `BEGIN IMMEDIATE` keeps other
/// processes out meanwhile.
const PRAGMAS: &[(&str, &str)] = &[
    ("journal_mode", "WAL"),
    ("synchronous", "FULL"),
    ("foreign_keys", "ON"),
    ("wal_autocheckpoint", CHECKPOINT_PAGES),
    ("temp_store", "memory"),
];

fn sqlite(path: &Path, options: &Options) -> SqliteFile {
    SqliteFile {
        path: path.to_owned(),
        create: true,
        busy_timeout: options.busy_timeout,
        pragmas: PRAGMAS,
        statements: STATEMENTS,
    }
}

/// A replica that freezes inside a transaction must not hold up a take-over: the server ends its statement, its
/// transaction and its connection before half the lease is over.
fn postgres(base: PgConnectOptions, options: &Options) -> PgConnectOptions {
    let limit_ms = (options.lease.as_millis() * 2 / 5).max(1);
    base.application_name("kickwheel").statement_cache_capacity(STATEMENTS).options([
        ("statement_timeout", limit_ms.to_string()),
        ("idle_in_transaction_session_timeout", limit_ms.to_string()),
        ("tcp_user_timeout", limit_ms.to_string()),
        ("synchronous_commit", "on".to_owned()),
    ])
}

fn check_file(path: &Path) -> Result<(), OpenError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(OpenError::Folder { path: path.to_owned() });
    }
    if path.is_dir() {
        return Err(OpenError::NotADatabase { path: path.to_owned() });
    }
    let Ok(mut file) = std::fs::File::open(path) else {
        // Not there yet, or unreadable: connecting says which.
        return Ok(());
    };
    let mut head = Vec::with_capacity(SQLITE_MAGIC.len());
    let unreadable = |e: std::io::Error| OpenError::Unreachable { message: format!("{}: {e}", path.display()) };
    file.by_ref().take(SQLITE_MAGIC.len() as u64).read_to_end(&mut head).map_err(unreadable)?;
    if head.is_empty() || head == SQLITE_MAGIC {
        Ok(())
    } else {
        Err(OpenError::NotADatabase { path: path.to_owned() })
    }
}

/// For messages: what stands between `:` and `@` of the authority is left out.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.split_once('@') {
        Some((login, host)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_no_password() {
        assert_eq!(without_password("mysql://me:secret@host/db"), "mysql://me:***@host/db");
        assert_eq!(without_password("ftp://host/db"), "ftp://host/db");
    }

    #[test]
    fn unknown_schemes_are_refused() {
        let refused = Target::parse("mysql://me:secret@host/db", &Options::default());
        assert!(matches!(refused, Err(OpenError::Url { url }) if url == "mysql://me:***@host/db"));
    }
}
