//! Bodies about the bus: what it carries events by, what waits, and which partitions are read.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A partition that is read, as `kickwheel bus ls` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartitionView {
    /// `<stream>/<partition>`.
    pub id: String,
    /// `reading`, `free` (no engine has it now) or `stopped`.
    pub state: String,
    /// The stream: our topic's name, or `trigger/<project>/<name>/<topic>`.
    pub stream: String,
    /// Number of the partition.
    pub partition: i32,
    /// The offset that is read next.
    pub next_offset: i64,
    /// The topic's id that the offset belongs to.
    pub topic_id: String,
    /// Why it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How the bus is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BusView {
    /// `embedded` or `kafka`.
    pub kind: String,
    /// `direct`, or `spool` while what comes in is kept in the database.
    pub mode: String,
    /// Events that wait in the database for Kafka.
    pub spooled: u64,
    /// What does not work now.
    pub trouble: Vec<String>,
    /// Every partition that is read.
    pub items: Vec<PartitionView>,
}

/// Where a stopped partition, or one that is to be read again, goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResetBus {
    /// The stream, as [`PartitionView::stream`] says it.
    pub stream: String,
    /// One partition; none: all that are stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// `earliest`, `latest`, or an offset.
    pub to: String,
}
