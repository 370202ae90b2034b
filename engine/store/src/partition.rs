//! Leases of partitions: who reads which, by the database's clock. They work as those of shards do (`lease`); on top of
//! it they tell where to read on, and a partition that was stopped is nobody's.

use std::time::Duration;

use serde_json::json;

use crate::{
    db::{Arg, Conn, Result, Row, to_json},
    lease::millis,
    read::partition_of,
};

/// A partition that the caller reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionLease {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Every move of its offset must name it. It rises with each change of owner.
    pub epoch: i64,
    /// The topic's id when its offset was stored.
    pub topic_id: String,
    /// The offset to read next.
    pub next_offset: i64,
}

/// What is asked of the leases.
#[derive(Clone, Debug)]
pub enum PartitionRequest {
    /// See [`crate::Store::acquire_partitions`].
    Acquire {
        /// Of which topic.
        topic: String,
        /// Who.
        owner: String,
        /// How many at most.
        limit: u32,
        /// For how long.
        lease: Duration,
        /// Whether nobody else lives.
        exclusive: bool,
    },
    /// See [`crate::Store::renew_partitions`].
    Renew {
        /// Who.
        owner: String,
        /// For how long from now.
        lease: Duration,
    },
    /// See [`crate::Store::release_partitions`].
    Release {
        /// Who.
        owner: String,
    },
}

impl PartitionRequest {
    /// Carries it out inside a transaction.
    pub async fn apply(&self, conn: &mut Conn) -> Result<Vec<PartitionLease>> {
        let mut leases = match self {
            Self::Acquire { topic, owner, limit, lease, exclusive } => {
                let free = free(conn, topic, *limit, *exclusive).await?;
                take(conn, topic, &free, owner, millis(*lease)).await?
            }
            Self::Renew { owner, lease } => {
                conn.fetch(
                    "UPDATE bus_partitions SET lease_until = {now} + $2 WHERE owner = $1 \
                     RETURNING topic, partition, epoch, topic_id, next_offset",
                    [owner.into(), millis(*lease).into()],
                )
                .await?
            }
            Self::Release { owner } => {
                let free = "UPDATE bus_partitions SET owner = NULL, lease_until = 0 WHERE owner = $1";
                conn.execute(free, [Arg::from(owner)]).await?;
                Vec::new()
            }
        }
        .iter()
        .map(partition_lease)
        .collect::<Result<Vec<_>>>()?;
        leases.sort_unstable();
        Ok(leases)
    }
}

fn partition_lease(row: &Row) -> Result<PartitionLease> {
    Ok(PartitionLease {
        topic: row.text("topic")?,
        partition: partition_of(row)?,
        epoch: row.int("epoch")?,
        topic_id: row.text("topic_id")?,
        next_offset: row.int("next_offset")?,
    })
}

async fn free(conn: &mut Conn, topic: &str, limit: u32, exclusive: bool) -> Result<Vec<Row>> {
    let args: [Arg; 2] = [topic.into(), limit.into()];
    if exclusive {
        let sql = "SELECT partition FROM bus_partitions WHERE topic = $1 AND stopped_reason IS NULL \
                   ORDER BY partition LIMIT $2";
        return conn.fetch(sql, args).await;
    }
    // Rows that somebody is working on are not free, whatever their lease says; the next round finds them.
    let sql = "SELECT partition FROM bus_partitions WHERE topic = $1 AND stopped_reason IS NULL \
               AND (owner IS NULL OR lease_until < {now}) ORDER BY partition LIMIT $2 {skip_locked}";
    conn.fetch(sql, args).await
}

async fn take(conn: &mut Conn, topic: &str, free: &[Row], owner: &str, lease_ms: i64) -> Result<Vec<Row>> {
    let partitions = free.iter().map(|row| Ok(json!([row.int("partition")?]))).collect::<Result<Vec<_>>>()?;
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    conn.fetch(
        "UPDATE bus_partitions SET epoch = epoch + 1, owner = $3, lease_until = {now} + $4 WHERE topic = $2 \
         AND stopped_reason IS NULL AND partition IN (SELECT CAST(value->>0 AS bigint) FROM {rows}) \
         RETURNING topic, partition, epoch, topic_id, next_offset",
        [to_json(&partitions).into(), topic.into(), owner.into(), lease_ms.into()],
    )
    .await
}
