//! Triggers and where they stand.

use super::{Applied, Tx, stale};
use crate::{
    db::Arg,
    write::{PutTrigger, PutTriggerState, RemoveNamed, SetTriggerPaused},
};

/// Makes or changes a trigger.
pub async fn put_trigger(tx: &mut Tx<'_>, put: &PutTrigger) -> Applied<()> {
    let key = || [Arg::from(&put.project), Arg::from(&put.name)];
    let before = tx
        .conn
        .fetch_one("SELECT kind FROM triggers WHERE project = $1 AND name = $2 {for_update}", key())
        .await?
        .map(|row| row.text("kind"))
        .transpose()?;
    if before.is_some_and(|kind| kind != put.kind) {
        // The new kind would misread it.
        tx.conn.execute("DELETE FROM trigger_state WHERE project = $1 AND name = $2", key()).await?;
    }
    let mut args = key().to_vec();
    args.extend([Arg::from(&put.kind), Arg::json(&put.config), put.at.into()]);
    tx.conn
        .execute(
            "INSERT INTO triggers (project, name, kind, config, paused, created_at) VALUES ($1, $2, $3, $4, 0, $5) \
             ON CONFLICT (project, name) DO UPDATE SET kind = excluded.kind, config = excluded.config",
            args,
        )
        .await?;
    Ok(())
}

/// Removes a trigger with its state.
pub async fn remove_trigger(tx: &mut Tx<'_>, named: &RemoveNamed) -> Applied<()> {
    let key = || [Arg::from(&named.project), Arg::from(&named.name)];
    tx.conn.execute("DELETE FROM triggers WHERE project = $1 AND name = $2", key()).await?;
    tx.conn.execute("DELETE FROM trigger_state WHERE project = $1 AND name = $2", key()).await?;
    Ok(())
}

/// Pauses or resumes a trigger.
pub async fn set_trigger_paused(tx: &mut Tx<'_>, set: &SetTriggerPaused) -> Applied<()> {
    let found = tx
        .conn
        .execute(
            "UPDATE triggers SET paused = $3 WHERE project = $1 AND name = $2",
            [(&set.project).into(), (&set.name).into(), set.paused.into()],
        )
        .await?;
    if found == 0 {
        return Err(stale(format!("there is no trigger {:?}", set.name)));
    }
    Ok(())
}

/// Moves a state on, if it is the expected one.
pub async fn put_trigger_state(tx: &mut Tx<'_>, put: &PutTriggerState) -> Applied<()> {
    let key = || [Arg::from(&put.project), Arg::from(&put.trigger)];
    let mut args = key().to_vec();
    args.push(Arg::json(&put.state));
    let moved = if put.expected_version == 0 {
        let sql = "INSERT INTO trigger_state (project, name, version, state) VALUES ($1, $2, 1, $3) \
                   ON CONFLICT (project, name) DO NOTHING";
        tx.conn.execute(sql, args).await?
    } else {
        args.push(put.expected_version.into());
        let sql = "UPDATE trigger_state SET version = version + 1, state = $3 \
                   WHERE project = $1 AND name = $2 AND version = $4";
        tx.conn.execute(sql, args).await?
    };
    if moved > 0 {
        return Ok(());
    }
    let now = tx
        .conn
        .fetch_one("SELECT version FROM trigger_state WHERE project = $1 AND name = $2", key())
        .await?
        .map_or(Ok(0), |row| row.uint("version"))?;
    Err(stale(format!("the state of {:?} has version {now}, not {}", put.trigger, put.expected_version)))
}
