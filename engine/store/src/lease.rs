//! Leases of shards: who may journal for which runs, by the database's clock.

/// A shard that the caller owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardLease {
    /// Which shard, from 0.
    pub shard: u32,
    /// Every append for the shard must name it. It rises with each change of owner.
    pub epoch: i64,
}
