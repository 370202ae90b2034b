//! The spool, the partitions that are read, and what the relay sends.

use super::bounded;
use crate::{
    ReadError, Store,
    db::{Arg, Result, Row, undecodable},
    rows::{BusModeRow, PartitionRow, RelayRow, SpoolDepth, SpoolRow},
    write::BusMode,
};

const MODES: [BusMode; 2] = [BusMode::Direct, BusMode::Spool];

fn spool_row(row: &Row) -> Result<SpoolRow> {
    Ok(SpoolRow {
        key: row.text("position")?,
        project: row.text("project")?,
        channel: row.text("channel")?,
        event: row.json("event")?,
        at: row.millis("at")?,
        ingress: row.flag("ingress")?,
    })
}

fn mode_row(row: &Row) -> Result<BusModeRow> {
    let mode = row.text("mode")?;
    let mode = MODES
        .into_iter()
        .find(|known| known.as_str() == mode)
        .ok_or_else(|| undecodable("bus_mode.mode", &format!("{mode:?} is not known")))?;
    Ok(BusModeRow { mode, since: row.millis("since")? })
}

/// The number of a partition, as it is stored.
pub fn partition_of(row: &Row) -> Result<i32> {
    i32::try_from(row.int("partition")?).map_err(|e| undecodable("bus_partitions.partition", &e))
}

fn partition_row(row: &Row) -> Result<PartitionRow> {
    Ok(PartitionRow {
        topic: row.text("topic")?,
        partition: partition_of(row)?,
        topic_id: row.text("topic_id")?,
        next_offset: row.int("next_offset")?,
        epoch: row.int("epoch")?,
        owner: row.opt_text("owner")?,
        lease_until: row.millis("lease_until")?,
        stopped_reason: row.opt_text("stopped_reason")?,
    })
}

impl Store {
    /// What is in the spool, oldest first.
    pub async fn spooled(&self, limit: u32) -> std::result::Result<Vec<SpoolRow>, ReadError> {
        let sql = "SELECT position, project, channel, event, at, ingress FROM spool ORDER BY position LIMIT $1";
        let rows = self.readers().fetch(sql, [Arg::from(bounded(limit))]).await?;
        Ok(rows.iter().map(spool_row).collect::<Result<_>>()?)
    }

    /// The place of the newest row of the spool.
    pub async fn last_spooled(&self) -> std::result::Result<Option<String>, ReadError> {
        let rows = self.readers().fetch("SELECT position FROM spool ORDER BY position DESC LIMIT 1", []).await?;
        Ok(rows.first().map(|row| row.text("position")).transpose()?)
    }

    /// How much is in the spool.
    pub async fn spool_depth(&self) -> std::result::Result<SpoolDepth, ReadError> {
        let sql = "SELECT (SELECT count(*) FROM spool) AS events, \
                   (SELECT count(*) FROM spool WHERE ingress = 1) AS ingress, \
                   (SELECT at FROM spool ORDER BY position LIMIT 1) AS oldest_at";
        let Some(row) = self.readers().fetch_one(sql, []).await? else { return Ok(SpoolDepth::default()) };
        Ok(SpoolDepth {
            events: row.uint("events")?,
            ingress: row.uint("ingress")?,
            oldest_at: row.opt_millis("oldest_at")?,
        })
    }

    /// Which way ingress takes.
    pub async fn bus_mode(&self) -> std::result::Result<BusModeRow, ReadError> {
        let row = self.readers().fetch_one("SELECT mode, since FROM bus_mode WHERE id = 1", []).await?;
        let gone = || ReadError::Corrupt { message: "the row of the bus mode is gone".to_owned() };
        Ok(mode_row(&row.ok_or_else(gone)?)?)
    }

    /// Partitions by topic and number; of all topics if none is given.
    pub async fn partitions(&self, topic: Option<&str>) -> std::result::Result<Vec<PartitionRow>, ReadError> {
        let sql = "SELECT topic, partition, topic_id, next_offset, epoch, owner, lease_until, stopped_reason \
                   FROM bus_partitions WHERE $1 = '' OR topic = $1 ORDER BY topic, partition";
        let rows = self.readers().fetch(sql, [Arg::from(topic.unwrap_or_default())]).await?;
        Ok(rows.iter().map(partition_row).collect::<Result<_>>()?)
    }

    /// Events of a shard's runs behind a place in commit order, in that order. Those of sealed runs are left out: they
    /// were sealed because they had been relayed, or because nothing was.
    pub async fn journal_after(
        &self,
        shard: u32,
        shard_seq: i64,
        limit: u32,
    ) -> std::result::Result<Vec<RelayRow>, ReadError> {
        let sql = "SELECT shard_seq, run, seq, at, event FROM journal WHERE shard = $1 AND shard_seq > $2 \
                   ORDER BY shard_seq LIMIT $3";
        let decode = |row: &Row| {
            Ok(RelayRow {
                shard_seq: row.int("shard_seq")?,
                run: row.parse("run")?,
                seq: row.uint("seq")?,
                at: row.millis("at")?,
                event: row.text("event")?,
            })
        };
        let rows = self.readers().fetch(sql, [shard.into(), shard_seq.into(), bounded(limit).into()]).await?;
        Ok(rows.iter().map(decode).collect::<Result<_>>()?)
    }

    /// The last place of a shard that was relayed; 0: none was.
    pub async fn relay_cursor(&self, shard: u32) -> std::result::Result<i64, ReadError> {
        let sql = "SELECT shard_seq FROM relay_cursors WHERE shard = $1";
        let row = self.readers().fetch_one(sql, [Arg::from(shard)]).await?;
        Ok(row.map_or(Ok(0), |row| row.int("shard_seq"))?)
    }
}
