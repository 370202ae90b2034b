//! What somebody has to look at: raw inputs, and events that were taken out of their lanes.

use super::{Applied, Tx, events, stale};
use crate::{
    EventKey,
    db::Arg,
    write::{DropEvent, PutQuarantine, Requeue, ResolveQuarantine},
};

/// Keeps input that could not become an event.
pub async fn put(tx: &mut Tx<'_>, put: &PutQuarantine) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO quarantine (id, project, origin, reason, headers, body, received_at, state) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'held') ON CONFLICT (id) DO NOTHING",
            [
                Arg::show(put.id),
                (&put.project).into(),
                (&put.origin).into(),
                (&put.reason).into(),
                Arg::json(&put.headers),
                Arg::Blob(put.body.clone()),
                put.received_at.into(),
            ],
        )
        .await?;
    Ok(())
}

/// Says what was done about an input.
pub async fn resolve(tx: &mut Tx<'_>, resolve: &ResolveQuarantine) -> Applied<()> {
    let changed = tx
        .conn
        .execute(
            "UPDATE quarantine SET state = $2, resolution = $3, resolved_at = $4 WHERE id = $1 AND state = 'held'",
            [Arg::show(resolve.id), resolve.resolution.as_str().into(), (&resolve.note).into(), resolve.at.into()],
        )
        .await?;
    if changed > 0 {
        return Ok(());
    }
    let row = tx.conn.fetch_one("SELECT state FROM quarantine WHERE id = $1", [Arg::show(resolve.id)]).await?;
    Err(match row {
        Some(row) => stale(format!("input {} is {} already", resolve.id, row.text("state")?)),
        None => stale(format!("there is no input {} in quarantine", resolve.id)),
    })
}

/// Puts a quarantined event back to the end of its lane.
pub async fn requeue(tx: &mut Tx<'_>, requeue: Requeue) -> Applied<()> {
    let event = lock_quarantined(tx, requeue.key).await?;
    let position = events::take_position(tx, &event.lane, &event.project, requeue.at).await?;
    let key = Arg::show(requeue.key);
    tx.conn
        .execute(
            "INSERT INTO undecided (lane, position, project, event_key) VALUES ($1, $2, $3, $4)",
            [event.lane.into(), position.into(), event.project.into(), key.clone()],
        )
        .await?;
    tx.conn
        .execute(
            "UPDATE events SET state = 'undecided', position = $2, reason = NULL, decided_at = NULL \
             WHERE event_key = $1",
            [key, position.into()],
        )
        .await?;
    Ok(())
}

/// Gives a quarantined event up.
pub async fn drop_event(tx: &mut Tx<'_>, drop: &DropEvent) -> Applied<()> {
    lock_quarantined(tx, drop.key).await?;
    tx.conn
        .execute(
            "UPDATE events SET state = 'dropped', reason = $2, decided_at = $3 WHERE event_key = $1",
            [Arg::show(drop.key), (&drop.reason).into(), drop.at.into()],
        )
        .await?;
    Ok(())
}

/// An event that is quarantined and locked.
struct Quarantined {
    project: String,
    lane: String,
}

async fn lock_quarantined(tx: &mut Tx<'_>, key: EventKey) -> Applied<Quarantined> {
    if tx.gathered.deferred.holds_events() {
        super::flush(tx).await?;
    }
    let row = tx
        .conn
        .fetch_one("SELECT project, lane, state FROM events WHERE event_key = $1 {for_update}", [Arg::show(key)])
        .await?
        .ok_or_else(|| stale(format!("event {key} is not stored")))?;
    let state = row.text("state")?;
    if state != "quarantined" {
        return Err(stale(format!("event {key} is {state}, not quarantined")));
    }
    Ok(Quarantined { project: row.text("project")?, lane: row.text("lane")? })
}
