//! The durable store: every row that must survive, on SQLite or on Postgres.
//!
//! ```text
//!   Store::write(Vec<Write>)      one atomic unit; concurrent units share a transaction and one commit (group commit)
//!   Store::run, events, ...       reads, on connections of their own; they never wait for the writer
//!   Store::acquire, renew, ...    leases of shards and partitions, by the database's clock
//! ```
//!
//! Both databases run the same statements, written once; what differs are a few named fragments in `db`. A unit that is
//! refused leaves nothing behind, and an answer is given only after the commit is on disk.
//!
//! Deliberately absent: any decision about runs or events (that is `kickwheel-core` and the runtime), artifact bytes, and
//! notifications: who writes also tells whom it concerns.
//!
//! Where to look next: [`Write`] for what can be changed, [`rows`] for what can be read, `writer` for group commit and
//! pausing, `apply` for what each write does, `migrations/` for the tables.

mod apply;
mod db;
mod error;
mod event_key;
pub mod fault;
mod key;
mod lease;
mod migrate;
mod open;
mod partition;
mod read;
mod sqlite;
mod store;
mod writer;

pub mod rows;
pub mod write;

pub use error::{OpenError, ReadError, WriteError};
pub use event_key::EventKey;
pub use lease::ShardLease;
pub use open::{DEFAULT_LEASE, DEFAULT_SHARDS, Options};
pub use partition::PartitionLease;
pub use store::{Health, Member, Store};
pub use write::{Write, Written};

#[cfg(test)]
mod tests;
