//! Leases of shards: who may journal for which runs, by the database's clock.
//!
//! Each change of owner raises the shard's epoch; appends name the epoch and are refused when it has moved on. So a
//! lease only says when somebody else may try; the epoch is what keeps the old owner out.

use std::time::Duration;

use serde_json::json;

use crate::db::{Arg, Conn, Result, Row, to_json};

/// A shard that the caller owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardLease {
    /// Which shard, from 0.
    pub shard: u32,
    /// Every append for the shard must name it. It rises with each change of owner.
    pub epoch: i64,
}

/// What is asked of the leases.
#[derive(Clone, Debug)]
pub enum LeaseRequest {
    /// See [`crate::Store::acquire`].
    Acquire {
        /// Who.
        owner: String,
        /// How many at most.
        limit: u32,
        /// For how long.
        lease: Duration,
        /// Whether nobody else lives.
        exclusive: bool,
    },
    /// See [`crate::Store::renew`].
    Renew {
        /// Who.
        owner: String,
        /// For how long from now.
        lease: Duration,
    },
    /// See [`crate::Store::release`].
    Release {
        /// Who.
        owner: String,
    },
}

impl LeaseRequest {
    /// Carries it out inside a transaction.
    pub async fn apply(&self, conn: &mut Conn) -> Result<Vec<ShardLease>> {
        let mut leases = match self {
            Self::Acquire { owner, limit, lease, exclusive } => {
                acquire(conn, owner, *limit, millis(*lease), *exclusive).await?
            }
            Self::Renew { owner, lease } => {
                conn.fetch(
                    "UPDATE shards SET lease_until = {now} + $2 WHERE owner = $1 RETURNING shard, epoch",
                    [owner.into(), millis(*lease).into()],
                )
                .await?
            }
            Self::Release { owner } => {
                let free = "UPDATE shards SET owner = NULL, lease_until = 0 WHERE owner = $1";
                conn.execute(free, [Arg::from(owner)]).await?;
                Vec::new()
            }
        }
        .iter()
        .map(shard_lease)
        .collect::<Result<Vec<_>>>()?;
        leases.sort_unstable();
        Ok(leases)
    }
}

/// A lease's length, as it is added to the database's clock.
pub fn millis(lease: Duration) -> i64 {
    i64::try_from(lease.as_millis()).unwrap_or(i64::MAX / 4)
}

fn shard_lease(row: &Row) -> Result<ShardLease> {
    Ok(ShardLease { shard: row.uint("shard")? as u32, epoch: row.int("epoch")? })
}

async fn acquire(conn: &mut Conn, owner: &str, limit: u32, lease_ms: i64, exclusive: bool) -> Result<Vec<Row>> {
    let free = if exclusive {
        conn.fetch("SELECT shard FROM shards ORDER BY shard LIMIT $1", [Arg::from(limit)]).await?
    } else {
        // Rows that somebody is working on are not free, whatever their lease says; the next round finds them.
        conn.fetch(
            "SELECT shard FROM shards WHERE owner IS NULL OR lease_until < {now} ORDER BY shard LIMIT $1 {skip_locked}",
            [Arg::from(limit)],
        )
        .await?
    };
    let shards = free.iter().map(|row| Ok(json!([row.int("shard")?]))).collect::<Result<Vec<_>>>()?;
    if shards.is_empty() {
        return Ok(Vec::new());
    }
    conn.fetch(
        "UPDATE shards SET epoch = epoch + 1, owner = $2, lease_until = {now} + $3 \
         WHERE shard IN (SELECT CAST(value->>0 AS bigint) FROM {rows}) RETURNING shard, epoch",
        [to_json(&shards).into(), owner.into(), lease_ms.into()],
    )
    .await
}

/// Makes the shards of a new installation; gives how many there are.
pub async fn create_shards(conn: &mut Conn, shards: u32) -> Result<u32> {
    conn.begin().await?;
    let count = conn.fetch_one("SELECT count(*) AS n FROM shards", []).await?;
    let mut existing = count.map_or(Ok(0), |row| row.uint("n"))? as u32;
    if existing == 0 {
        let rows: Vec<_> = (0..shards.max(1)).map(|shard| json!([shard])).collect();
        // Two replicas that open a new database at the same time both mean the same shards.
        conn.execute(
            "INSERT INTO shards (shard, epoch, owner, lease_until, next_shard_seq) \
             SELECT CAST(value->>0 AS bigint), 0, NULL, 0, 1 FROM {rows} WHERE true ON CONFLICT (shard) DO NOTHING",
            [Arg::from(to_json(&rows))],
        )
        .await?;
        existing = shards.max(1);
    }
    conn.commit().await?;
    Ok(existing)
}
