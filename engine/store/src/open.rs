//! Opening a store: which database, how its sessions are set up, and what can be wrong with it.

use std::time::Duration;

/// How many shards a new installation gets.
pub const DEFAULT_SHARDS: u32 = 4;
/// How long a lease lasts, unless told otherwise; the sessions' time-outs follow from it.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(15);

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
