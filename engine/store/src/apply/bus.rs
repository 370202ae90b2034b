//! The way to the bus and back: the spool with its mode, offsets of partitions, and the relay's cursors.
//!
//! Ingress is either all on its way to the bus or all on its way into the spool, so that nothing overtakes: each spooled
//! event holds the mode's row until its commit, and turning back to direct waits for that row before it looks whether
//! the spool is empty.

use super::{Applied, Refusal, Tx, invalid, stale};
use crate::{
    WriteError,
    db::Arg,
    write::{
        AddPartitions, BusMode, MoveOffset, MoveRelay, RemovePartitions, ResetPartition, SetBusMode, Spool,
        StopPartition, Unspool,
    },
};

/// Puts an event into the spool.
pub async fn spool(tx: &mut Tx<'_>, spool: &Spool) -> Applied<()> {
    spool.event.check().map_err(|e| invalid(e.to_string()))?;
    if spool.ingress {
        let row = tx.conn.fetch_one("SELECT mode FROM bus_mode WHERE id = 1 {for_share}", []).await?;
        let mode = row.ok_or_else(|| invalid("the row of the bus mode is gone"))?.text("mode")?;
        if mode != BusMode::Spool.as_str() {
            return Err(stale(format!("ingress goes to the bus now: the mode is {mode}")));
        }
    }
    tx.conn
        .execute(
            "INSERT INTO spool (position, project, channel, event, at, ingress) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (position) DO NOTHING",
            [
                (&spool.key).into(),
                (&spool.project).into(),
                (&spool.channel).into(),
                Arg::json(&spool.event),
                spool.at.into(),
                spool.ingress.into(),
            ],
        )
        .await?;
    Ok(())
}

/// Says which way ingress takes.
pub async fn set_bus_mode(tx: &mut Tx<'_>, set: SetBusMode) -> Applied<()> {
    let row = tx.conn.fetch_one("SELECT mode FROM bus_mode WHERE id = 1 {for_update}", []).await?;
    let mode = row.ok_or_else(|| invalid("the row of the bus mode is gone"))?.text("mode")?;
    if mode == set.mode.as_str() {
        return Ok(());
    }
    if set.mode == BusMode::Direct {
        let left = tx.conn.fetch_one("SELECT position FROM spool WHERE ingress = 1 LIMIT 1", []).await?;
        if left.is_some() {
            return Err(stale("the spool still holds ingress"));
        }
    }
    tx.conn
        .execute("UPDATE bus_mode SET mode = $1, since = $2 WHERE id = 1", [set.mode.as_str().into(), set.at.into()])
        .await?;
    Ok(())
}

/// Takes events out of the spool.
pub async fn unspool(tx: &mut Tx<'_>, unspool: &Unspool) -> Applied<()> {
    let keys: Vec<[&String; 1]> = unspool.keys.iter().map(|key| [key]).collect();
    tx.conn.execute("DELETE FROM spool WHERE position IN (SELECT value->>0 FROM {rows})", [Arg::json(&keys)]).await?;
    Ok(())
}

/// Gets to know partitions.
pub async fn add_partitions(tx: &mut Tx<'_>, add: &AddPartitions) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO bus_partitions (topic, partition, topic_id, next_offset, epoch, owner, lease_until) \
             SELECT $2, CAST(value->>0 AS bigint), $3, CAST(value->>1 AS bigint), 0, NULL, 0 FROM {rows} WHERE true \
             ON CONFLICT (topic, partition) DO NOTHING",
            [Arg::json(&add.partitions), (&add.topic).into(), (&add.topic_id).into()],
        )
        .await?;
    Ok(())
}

/// Moves a partition's offset on.
pub async fn move_offset(tx: &mut Tx<'_>, moved: &MoveOffset) -> Applied<()> {
    let MoveOffset { topic, partition, epoch, from, to } = moved;
    if to < from {
        return Err(invalid(format!("{topic}/{partition} would go back from offset {from} to {to}")));
    }
    let changed = tx
        .conn
        .execute(
            "UPDATE bus_partitions SET next_offset = $5 WHERE topic = $1 AND partition = $2 AND epoch = $3 \
             AND next_offset = $4 AND stopped_reason IS NULL",
            [topic.into(), i64::from(*partition).into(), (*epoch).into(), (*from).into(), (*to).into()],
        )
        .await?;
    if changed == 0 {
        return Err(lost_race(tx, topic, *partition, *epoch, Some(*from)).await?);
    }
    Ok(())
}

/// Stops reading a partition, and gives it up.
pub async fn stop_partition(tx: &mut Tx<'_>, stop: &StopPartition) -> Applied<()> {
    let StopPartition { topic, partition, epoch, reason } = stop;
    let changed = tx
        .conn
        .execute(
            "UPDATE bus_partitions SET stopped_reason = $4, owner = NULL, lease_until = 0 \
             WHERE topic = $1 AND partition = $2 AND epoch = $3",
            [topic.into(), i64::from(*partition).into(), (*epoch).into(), reason.into()],
        )
        .await?;
    if changed == 0 {
        return Err(lost_race(tx, topic, *partition, *epoch, None).await?);
    }
    Ok(())
}

/// What is the case instead of what the caller expected of a partition.
async fn lost_race(
    tx: &mut Tx<'_>,
    topic: &str,
    partition: i32,
    epoch: i64,
    offset: Option<i64>,
) -> Result<Refusal, Refusal> {
    let row = tx
        .conn
        .fetch_one(
            "SELECT epoch, next_offset, stopped_reason FROM bus_partitions WHERE topic = $1 AND partition = $2",
            [topic.into(), i64::from(partition).into()],
        )
        .await?;
    let Some(row) = row else {
        return Ok(stale(format!("partition {topic}/{partition} is not known")));
    };
    let now = row.int("epoch")?;
    if now != epoch {
        return Ok(stale(format!("partition {topic}/{partition} was taken over: its epoch is {now}, not {epoch}")));
    }
    if let Some(reason) = row.opt_text("stopped_reason")? {
        return Ok(stale(format!("partition {topic}/{partition} is stopped: {reason}")));
    }
    let (stands_at, given) = (row.int("next_offset")?, offset.unwrap_or_default());
    Ok(stale(format!("partition {topic}/{partition} stands at offset {stands_at}, not {given}")))
}

/// Says where a partition is read on, whoever owns it.
pub async fn reset_partition(tx: &mut Tx<'_>, reset: &ResetPartition) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO bus_partitions (topic, partition, topic_id, next_offset, epoch, owner, lease_until) \
             VALUES ($1, $2, $3, $4, 1, NULL, 0) ON CONFLICT (topic, partition) DO UPDATE SET \
             topic_id = excluded.topic_id, next_offset = excluded.next_offset, epoch = bus_partitions.epoch + 1, \
             owner = NULL, lease_until = 0, stopped_reason = NULL",
            [
                (&reset.topic).into(),
                i64::from(reset.partition).into(),
                (&reset.topic_id).into(),
                reset.next_offset.into(),
            ],
        )
        .await?;
    Ok(())
}

/// Forgets all partitions of a topic.
pub async fn remove_partitions(tx: &mut Tx<'_>, remove: &RemovePartitions) -> Applied<()> {
    tx.conn.execute("DELETE FROM bus_partitions WHERE topic = $1", [Arg::from(&remove.topic)]).await?;
    Ok(())
}

/// Moves a shard's relay cursor on.
pub async fn move_relay(tx: &mut Tx<'_>, moved: MoveRelay) -> Applied<()> {
    let MoveRelay { shard, epoch, from, to } = moved;
    if to < from {
        return Err(invalid(format!("the relay of shard {shard} would go back from {from} to {to}")));
    }
    let row = tx.conn.fetch_one("SELECT epoch FROM shards WHERE shard = $1 {for_share}", [Arg::from(shard)]).await?;
    if row.map(|row| row.int("epoch")).transpose()? != Some(epoch) {
        return Err(WriteError::Fenced { shard }.into());
    }
    tx.conn
        .execute(
            "INSERT INTO relay_cursors (shard, shard_seq) VALUES ($1, 0) ON CONFLICT (shard) DO NOTHING",
            [Arg::from(shard)],
        )
        .await?;
    let changed = tx
        .conn
        .execute(
            "UPDATE relay_cursors SET shard_seq = $3 WHERE shard = $1 AND shard_seq = $2",
            [Arg::from(shard), from.into(), to.into()],
        )
        .await?;
    if changed == 0 {
        return Err(stale(format!("the relay of shard {shard} does not stand at {from}")));
    }
    Ok(())
}
