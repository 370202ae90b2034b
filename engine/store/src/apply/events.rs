//! Events in their lanes, and the refs that they moved.
//!
//! Accept and decide lock the same row, the lane's; so positions have no gaps, and the first undecided event is known
//! without a search.

use kickwheel_schemas::Millis;
use serde_json::json;

use super::{Applied, Tx, stale};
use crate::{
    EventKey, Written,
    db::{Arg, to_json},
    key,
    write::{Accept, Decide, FORGET_LIMIT, ForgetSeen, MoveRef, Park, Quarantine, ReportRef},
};

/// Takes the event's identity; gives the key of the first receipt, if there was one.
async fn take_identity(tx: &mut Tx<'_>, accept: &Accept) -> Applied<Option<EventKey>> {
    let event = &accept.event;
    event.check().map_err(|e| super::invalid(e.to_string()))?;
    let identity = key::event_identity(&accept.project, &event.source, &event.id);
    let fresh = tx
        .conn
        .execute(
            "INSERT INTO seen (identity, project, event_key, at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (identity) DO NOTHING",
            [identity.as_str().into(), (&accept.project).into(), Arg::show(accept.key), accept.received_at.into()],
        )
        .await?;
    if fresh > 0 {
        return Ok(None);
    }
    let row = tx.conn.fetch_one("SELECT event_key FROM seen WHERE identity = $1", [identity.into()]).await?;
    Ok(Some(row.ok_or_else(|| stale("the identity was being forgotten"))?.parse("event_key")?))
}

/// Takes the place at the end of a lane. If the lane was empty, its new first event is due at once.
pub(super) async fn take_position(tx: &mut Tx<'_>, lane: &str, project: &str, due: Millis) -> Applied<i64> {
    let row = tx
        .conn
        .fetch_one(
            "INSERT INTO lanes (lane, project, next_position, head, due) VALUES ($1, $2, 2, 1, $3) \
             ON CONFLICT (lane) DO UPDATE SET next_position = lanes.next_position + 1, \
             due = CASE WHEN lanes.head = lanes.next_position THEN excluded.due ELSE lanes.due END \
             RETURNING next_position",
            [lane.into(), project.into(), due.into()],
        )
        .await?
        .ok_or_else(|| stale("the lane gave no position"))?;
    Ok(row.int("next_position")? - 1)
}

/// Makes an event durable at the end of its lane.
pub async fn accept(tx: &mut Tx<'_>, accept: &Accept) -> Applied<Written> {
    if let Some(first) = take_identity(tx, accept).await? {
        return Ok(Written::Accepted { key: first, duplicate: true });
    }
    let lane = key::lane_key(&accept.project, &accept.event.source, accept.event.subject.as_deref());
    let position = take_position(tx, &lane, &accept.project, accept.received_at).await?;
    tx.gathered.deferred.event(accept, &lane, position, None);
    Ok(Written::Accepted { key: accept.key, duplicate: false })
}

/// Accepts an event and says at once what it came to: the two in half the statements. Its lane must hold no undecided
/// event, and it must be new; else it is refused as the two would be.
pub async fn accept_decided(tx: &mut Tx<'_>, accept: &Accept, decide: &Decide) -> Applied<Written> {
    let key = accept.key;
    if let Some(first) = take_identity(tx, accept).await? {
        return Err(stale(format!("event {key} is not stored: it is a duplicate of {first}")));
    }
    let lane = key::lane_key(&accept.project, &accept.event.source, accept.event.subject.as_deref());
    let row = tx
        .conn
        .fetch_one(
            "INSERT INTO lanes (lane, project, next_position, head, due) VALUES ($1, $2, 2, 2, $3) \
             ON CONFLICT (lane) DO UPDATE SET next_position = lanes.next_position + 1, head = lanes.head + 1 \
             WHERE lanes.head = lanes.next_position RETURNING next_position",
            [lane.as_str().into(), (&accept.project).into(), decide.at.into()],
        )
        .await?
        .ok_or_else(|| stale(format!("event {key} is not first: an earlier event of its lane is undecided")))?;
    tx.gathered.deferred.event(accept, &lane, row.int("next_position")? - 1, Some(decide));
    tx.gathered.deferred.decisions(&accept.project, decide);
    Ok(Written::Accepted { key, duplicate: false })
}

/// An event that is first in its lane, whose lane is locked.
struct First {
    project: String,
    lane: String,
    position: i64,
}

/// Locks the event's lane, and refuses unless the event is the first undecided one there.
async fn lock_first(tx: &mut Tx<'_>, key: EventKey) -> Applied<First> {
    if tx.gathered.deferred.holds_events() {
        super::flush(tx).await?;
    }
    let row = tx
        .conn
        .fetch_one("SELECT project, lane, position FROM events WHERE event_key = $1", [Arg::show(key)])
        .await?
        .ok_or_else(|| stale(format!("event {key} is not stored")))?;
    let first = First { project: row.text("project")?, lane: row.text("lane")?, position: row.int("position")? };
    let lane = tx
        .conn
        .fetch_one("SELECT head FROM lanes WHERE lane = $1 {for_update}", [first.lane.as_str().into()])
        .await?
        .ok_or_else(|| stale(format!("the lane of event {key} is gone")))?;
    let head = lane.int("head")?;
    if head > first.position {
        return Err(stale(format!("event {key} is not undecided any more")));
    }
    if head < first.position {
        return Err(stale(format!("event {key} is number {} in its lane, and {head} is undecided", first.position)));
    }
    Ok(first)
}

/// Takes the first event out of its lane; the next one is due at once.
async fn advance(tx: &mut Tx<'_>, first: &First, at: Millis) -> Applied<()> {
    tx.conn
        .execute(
            "DELETE FROM undecided WHERE lane = $1 AND position = $2",
            [first.lane.as_str().into(), first.position.into()],
        )
        .await?;
    tx.conn
        .execute("UPDATE lanes SET head = head + 1, due = $2 WHERE lane = $1", [first.lane.as_str().into(), at.into()])
        .await?;
    Ok(())
}

/// Says what an event came to.
pub async fn decide(tx: &mut Tx<'_>, decide: &Decide) -> Applied<()> {
    let first = lock_first(tx, decide.key).await?;
    advance(tx, &first, decide.at).await?;
    tx.conn
        .execute(
            "UPDATE events SET state = 'decided', reason = NULL, enrichment = $2, registry_revision = $3, \
             decided_at = $4 WHERE event_key = $1",
            [Arg::show(decide.key), Arg::json(&decide.enrichment), decide.registry_revision.into(), decide.at.into()],
        )
        .await?;
    tx.gathered.deferred.decisions(&first.project, decide);
    Ok(())
}

/// Sets the first event of a lane aside, and its lane with it.
pub async fn park(tx: &mut Tx<'_>, park: &Park) -> Applied<()> {
    let first = lock_first(tx, park.key).await?;
    tx.conn.execute("UPDATE lanes SET due = $2 WHERE lane = $1", [first.lane.into(), park.until.into()]).await?;
    tx.conn
        .execute("UPDATE events SET reason = $2 WHERE event_key = $1", [Arg::show(park.key), (&park.reason).into()])
        .await?;
    Ok(())
}

/// Takes the first event of a lane out, for people to look at.
pub async fn quarantine(tx: &mut Tx<'_>, quarantine: &Quarantine) -> Applied<()> {
    let first = lock_first(tx, quarantine.key).await?;
    advance(tx, &first, quarantine.at).await?;
    tx.conn
        .execute(
            "UPDATE events SET state = 'quarantined', reason = $2, decided_at = $3 WHERE event_key = $1",
            [Arg::show(quarantine.key), (&quarantine.reason).into(), quarantine.at.into()],
        )
        .await?;
    Ok(())
}

/// Records a move of a ref. The ref's row numbers its transitions, and is locked by being written.
pub async fn move_ref(tx: &mut Tx<'_>, moved: &MoveRef) -> Applied<Written> {
    let sql = if moved.moves_head {
        "INSERT INTO ref_heads (project, repo, ref_name, head, transition) VALUES ($1, $2, $3, $4, 1) \
         ON CONFLICT (project, repo, ref_name) DO UPDATE SET transition = ref_heads.transition + 1, \
         head = excluded.head RETURNING transition"
    } else {
        "INSERT INTO ref_heads (project, repo, ref_name, head, transition) VALUES ($1, $2, $3, $4, 1) \
         ON CONFLICT (project, repo, ref_name) DO UPDATE SET transition = ref_heads.transition + 1 \
         RETURNING transition"
    };
    let name = || [Arg::from(&moved.project), Arg::from(&moved.repo), Arg::from(&moved.ref_name)];
    let mut args = name().to_vec();
    args.push((&moved.after).into());
    let row = tx.conn.fetch_one(sql, args).await?.ok_or_else(|| stale("the ref gave no number"))?;
    let transition = row.int("transition")?;
    let mut args = name().to_vec();
    args.extend([
        transition.into(),
        (&moved.before).into(),
        (&moved.after).into(),
        Arg::from(to_json(&json!([moved.channel]))),
        Arg::show(moved.event),
        moved.moves_head.into(),
        moved.at.into(),
    ]);
    tx.conn
        .execute(
            "INSERT INTO ref_transitions (project, repo, ref_name, transition, before_commit, after_commit, channels, \
             event_key, moved_head, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            args,
        )
        .await?;
    Ok(Written::Version { version: transition as u64, unchanged: false })
}

/// Adds a channel to those that reported a transition.
pub async fn report_ref(tx: &mut Tx<'_>, report: &ReportRef) -> Applied<()> {
    let name = || {
        [Arg::from(&report.project), Arg::from(&report.repo), Arg::from(&report.ref_name), Arg::from(report.transition)]
    };
    let row = tx
        .conn
        .fetch_one(
            "SELECT channels FROM ref_transitions WHERE project = $1 AND repo = $2 AND ref_name = $3 \
             AND transition = $4 {for_update}",
            name(),
        )
        .await?
        .ok_or_else(|| stale(format!("{} has no transition {}", report.ref_name, report.transition)))?;
    let mut channels: Vec<String> = row.json("channels")?;
    if channels.contains(&report.channel) {
        return Ok(());
    }
    channels.push(report.channel.clone());
    let mut args = name().to_vec();
    args.push(Arg::json(&channels));
    tx.conn
        .execute(
            "UPDATE ref_transitions SET channels = $5 WHERE project = $1 AND repo = $2 AND ref_name = $3 \
             AND transition = $4",
            args,
        )
        .await?;
    Ok(())
}

/// Forgets old identities, a limited number at a time.
pub async fn forget_seen(tx: &mut Tx<'_>, forget: ForgetSeen) -> Applied<()> {
    tx.conn
        .execute(
            "DELETE FROM seen WHERE identity IN (SELECT identity FROM seen WHERE at < $1 ORDER BY at LIMIT $2)",
            [forget.before.into(), FORGET_LIMIT.into()],
        )
        .await?;
    Ok(())
}
