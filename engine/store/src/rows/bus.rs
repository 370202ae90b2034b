//! The spool, the partitions that are read, and what the relay sends.

use kickwheel_schemas::{Millis, RunId};

use crate::write::BusMode;

/// An event on its way to the bus.
pub type SpoolRow = crate::write::Spool;

/// How much is in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolDepth {
    /// Events in it.
    pub events: u64,
    /// Those among them that came from outside.
    pub ingress: u64,
    /// When the one came that has been there longest.
    pub oldest_at: Option<Millis>,
}

/// Which way ingress takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusModeRow {
    /// The way.
    pub mode: BusMode,
    /// Since when; 0 if it never changed.
    pub since: Millis,
}

/// A partition of a topic that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The topic's id when it was first seen or reset.
    pub topic_id: String,
    /// The offset to read next.
    pub next_offset: i64,
    /// It rises with each change of owner and with each reset.
    pub epoch: i64,
    /// Who reads it, or did when the lease ended.
    pub owner: Option<String>,
    /// When the lease ends, by the database's clock.
    pub lease_until: Millis,
    /// Why it is not read until somebody resets it.
    pub stopped_reason: Option<String>,
}

/// An event of some run's journal, in the shard's commit order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRow {
    /// Its place in commit order. Gaps mean nothing.
    pub shard_seq: i64,
    /// The run.
    pub run: RunId,
    /// Its place in the run's journal, from 0.
    pub seq: u64,
    /// When it was appended.
    pub at: Millis,
    /// The serialised event.
    pub event: String,
}
