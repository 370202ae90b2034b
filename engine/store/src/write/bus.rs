//! The way to the bus and back: the spool, the partitions that are read, and the relay of the journal.

use kickwheel_schemas::{CloudEvent, Millis};

/// See [`super::Write::Spool`].
#[derive(Clone, Debug, PartialEq)]
pub struct Spool {
    /// Where it stands in the spool: the spool is read in the order of the keys' bytes, so they must be ordered by time,
    /// and within one process by the order of the calls.
    pub key: String,
    /// The project.
    pub project: String,
    /// How it came, as [`super::Accept::channel`] will say.
    pub channel: String,
    /// The event.
    pub event: CloudEvent,
    /// When.
    pub at: Millis,
    /// It came from outside, and is here only because the bus is away. False for events that we cause ourselves, which
    /// always pass through the spool.
    pub ingress: bool,
}

/// Which way ingress takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusMode {
    /// To the bus.
    Direct,
    /// Into the spool, until it is drained.
    Spool,
}

impl BusMode {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Spool => "spool",
        }
    }
}

/// See [`super::Write::SetBusMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetBusMode {
    /// The way from now on.
    pub mode: BusMode,
    /// When.
    pub at: Millis,
}

/// See [`super::Write::Unspool`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unspool {
    /// Rows that the bus has acknowledged. Unknown ones are ignored.
    pub keys: Vec<String>,
}

/// See [`super::Write::AddPartitions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddPartitions {
    /// The topic. Where several readers of one topic each keep an offset of their own, the caller gives each a name here.
    pub topic: String,
    /// The topic's id, as the broker says it.
    pub topic_id: String,
    /// Partitions with the offset from which each is read.
    pub partitions: Vec<(i32, i64)>,
}

/// See [`super::Write::MoveOffset`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The epoch under which the caller owns it.
    pub epoch: i64,
    /// Offset of the first record of the batch, or where the partition stood before a gap.
    pub from: i64,
    /// The offset to read next.
    pub to: i64,
}

/// See [`super::Write::StopPartition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The epoch under which the caller owns it.
    pub epoch: i64,
    /// What is wrong, for people.
    pub reason: String,
}

/// See [`super::Write::ResetPartition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The topic's id from now on.
    pub topic_id: String,
    /// The offset to read next.
    pub next_offset: i64,
}

/// See [`super::Write::RemovePartitions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovePartitions {
    /// The topic.
    pub topic: String,
}

/// See [`super::Write::MoveRelay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveRelay {
    /// The shard.
    pub shard: u32,
    /// The epoch under which the caller owns it.
    pub epoch: i64,
    /// Where the cursor must stand; 0: nothing was relayed.
    pub from: i64,
    /// The last place in commit order that was relayed.
    pub to: i64,
}
