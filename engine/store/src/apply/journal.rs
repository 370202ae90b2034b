//! Runs: creation, appends under the shard's epoch, inbox, snapshots and sealing.
//!
//! Appends of a whole batch become three statements: check and lock the epochs, insert the events in commit order, and
//! move the runs' rows on, which checks that each append continues its journal. A run's events are spread over the
//! journal, between those of others; they are read along a chain that begins at the run's row. Sorted by run instead,
//! each append would write a page of its own, and twice as much would have to reach the disk.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
};

use kickwheel_schemas::{Millis, RunId};
use serde::Serialize;

use super::{Applied, Tx, deferred::Deferred, invalid, stale};
use crate::{
    WriteError, Written,
    db::{Arg, Conn},
    key,
    read::{JOURNAL, sealed},
    write::{Append, CreateRun, Inbox, InboxDone, RunProgress, Seal, Snapshot},
};

/// Places in a shard's commit order that are reserved at a time: one row is written per so many events, and at most so
/// many places are lost when the engine stops.
const SEQ_BLOCK: i64 = 4_096;

/// Gathered bytes after which they are sent, so that no statement grows without bound.
const GATHER_BYTES: usize = 4 << 20;

/// Places in the commit order of each shard, reserved from its row and handed out from memory. They rise with each
/// commit of the shard's owner; gaps mean nothing.
#[derive(Debug, Default)]
pub struct ShardSeqs {
    blocks: HashMap<(u32, i64), std::ops::Range<i64>>,
}

impl ShardSeqs {
    /// Forgets what is reserved: the reservation may have been rolled back.
    pub fn clear(&mut self) {
        self.blocks.clear();
    }

    /// The first of `count` consecutive places.
    async fn take(&mut self, conn: &mut Conn, shard: u32, epoch: i64, count: i64) -> Applied<i64> {
        let block = self.blocks.entry((shard, epoch)).or_insert(0..0);
        if block.end - block.start < count {
            let size = count.max(SEQ_BLOCK);
            let row = conn
                .fetch_one(
                    "UPDATE shards SET next_shard_seq = next_shard_seq + $3 WHERE shard = $1 AND epoch = $2 \
                     RETURNING next_shard_seq",
                    [shard.into(), epoch.into(), size.into()],
                )
                .await?
                .ok_or(WriteError::Fenced { shard })?;
            let end = row.int("next_shard_seq")?;
            *block = end - size..end;
        }
        let first = block.start;
        block.start += count;
        Ok(first)
    }
}

/// Appends that wait to be sent together.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Rows that go into the tables before the appends.
    pub deferred: Deferred,
    runs: HashMap<RunId, GatheredRun>,
    /// Runs in the order in which they came, so that a batch is written the same way each time.
    order: Vec<RunId>,
    bytes: usize,
}

#[derive(Debug)]
struct GatheredRun {
    shard: u32,
    epoch: i64,
    first_seq: u64,
    events: Vec<(Millis, String)>,
    progress: RunProgress,
    inbox_done: Vec<String>,
}

impl GatheredRun {
    fn next_seq(&self) -> u64 {
        self.first_seq + self.events.len() as u64
    }
}

impl Gathered {
    /// Whether anything of this run is waiting.
    pub fn holds(&self, run: RunId) -> bool {
        self.runs.contains_key(&run) || self.deferred.holds_run(run)
    }

    /// Whether it is time to send what is gathered.
    pub fn is_large(&self) -> bool {
        self.bytes + self.deferred.bytes > GATHER_BYTES
    }
}

/// Gathers an append.
pub async fn append(tx: &mut Tx<'_>, append: &Append) -> Applied<()> {
    // Two epochs of one shard cannot both be right, and the statement tells them apart per run.
    if tx.gathered.runs.get(&append.run).is_some_and(|g| (g.shard, g.epoch) != (append.shard, append.epoch)) {
        flush(tx).await?;
    }
    let gathered = &mut tx.gathered;
    let waiting = gathered.runs.entry(append.run).or_insert_with(|| {
        gathered.order.push(append.run);
        GatheredRun {
            shard: append.shard,
            epoch: append.epoch,
            first_seq: append.first_seq,
            events: Vec::new(),
            progress: append.progress,
            inbox_done: Vec::new(),
        }
    });
    if waiting.next_seq() != append.first_seq {
        return Err(wrong_seq(append.run, append.first_seq, waiting.next_seq()));
    }
    waiting.events.extend(append.events.iter().map(|event| (append.at, event.clone())));
    waiting.progress = append.progress;
    waiting.inbox_done.extend(append.inbox_done.iter().cloned());
    gathered.bytes += append.events.iter().map(String::len).sum::<usize>();
    Ok(())
}

fn wrong_seq(run: impl Display, given: u64, next: u64) -> super::Refusal {
    stale(format!("run {run} goes on with event {next}, not {given}"))
}

/// A run's row after its appends, as the statements take it: shard, run, first and next sequence number, place of the
/// last event if there is a new one, state, open commands, and the times of wake, recovery and end.
#[derive(Serialize)]
struct MovedRun<'a>(u32, &'a str, u64, u64, Option<i64>, &'static str, u32, Option<i64>, Option<i64>, Option<i64>);

/// Sends what is gathered.
pub async fn flush(tx: &mut Tx<'_>) -> Applied<()> {
    let mut gathered = std::mem::take(&mut tx.gathered);
    gathered.deferred.flush(tx.conn).await?;
    if gathered.order.is_empty() {
        return Ok(());
    }
    check_epochs(tx, &gathered).await?;
    let ids: Vec<String> = gathered.order.iter().map(RunId::to_string).collect();
    let (mut live, mut ended, mut events, mut done) = (vec![], vec![], vec![], vec![]);
    for (run, id) in gathered.order.iter().zip(&ids) {
        let g = &gathered.runs[run];
        let p = &g.progress;
        let count = g.events.len() as i64;
        let first = tx.seqs.take(tx.conn, g.shard, g.epoch, count).await?;
        let moved = MovedRun(
            g.shard,
            id,
            g.first_seq,
            g.next_seq(),
            (count > 0).then_some(first + count - 1),
            p.state.as_str(),
            p.open,
            p.wake_at.map(|at| at.0),
            recover_at(p),
            p.ended_at.map(|at| at.0),
        );
        let group = if p.ended_at.is_some() { &mut ended } else { &mut live };
        group.push(moved);
        for (n, (at, event)) in g.events.iter().enumerate() {
            let place = first + n as i64;
            let previous = (n > 0).then_some(place - 1);
            events.push((g.shard, place, id, g.first_seq + n as u64, previous, at.0, event));
        }
        done.extend(g.inbox_done.iter().map(|input| [Arg::from(g.shard), Arg::from(id), Arg::from(input)]));
    }
    if !events.is_empty() {
        // Before the runs' rows move on: they lead to the event before the first one here.
        tx.conn
            .execute(
                "INSERT INTO journal (shard, shard_seq, run, seq, previous, at, event) SELECT x.shard, x.shard_seq, x.run, \
                 x.seq, coalesce(x.previous, (SELECT last_event FROM runs WHERE runs.shard = x.shard AND runs.run = x.run)), \
                 x.at, x.event FROM (SELECT CAST(value->>0 AS bigint) AS shard, CAST(value->>1 AS bigint) AS shard_seq, \
                 value->>2 AS run, CAST(value->>3 AS bigint) AS seq, CAST(value->>4 AS bigint) AS previous, \
                 CAST(value->>5 AS bigint) AS at, value->>6 AS event FROM {rows}) AS x",
                [Arg::json(&events)],
            )
            .await?;
    }
    // Ended runs apart: only they touch the indexes over ended_at.
    move_on(
        tx,
        "UPDATE runs SET next_seq = x.next_seq, last_event = coalesce(x.last_event, runs.last_event), state = x.state, \
         open_commands = x.open_commands, wake_at = x.wake_at, recover_at = x.recover_at FROM \
         (SELECT CAST(value->>0 AS bigint) AS shard, value->>1 AS run, CAST(value->>2 AS bigint) AS first_seq, \
         CAST(value->>3 AS bigint) AS next_seq, CAST(value->>4 AS bigint) AS last_event, value->>5 AS state, \
         CAST(value->>6 AS bigint) AS open_commands, CAST(value->>7 AS bigint) AS wake_at, \
         CAST(value->>8 AS bigint) AS recover_at FROM {rows}) AS x \
         WHERE runs.shard = x.shard AND runs.run = x.run AND runs.next_seq = x.first_seq AND runs.sealed = 0",
        live,
    )
    .await?;
    move_on(
        tx,
        "UPDATE runs SET next_seq = x.next_seq, last_event = coalesce(x.last_event, runs.last_event), state = x.state, \
         open_commands = x.open_commands, wake_at = x.wake_at, recover_at = x.recover_at, ended_at = x.ended_at FROM \
         (SELECT CAST(value->>0 AS bigint) AS shard, value->>1 AS run, CAST(value->>2 AS bigint) AS first_seq, \
         CAST(value->>3 AS bigint) AS next_seq, CAST(value->>4 AS bigint) AS last_event, value->>5 AS state, \
         CAST(value->>6 AS bigint) AS open_commands, CAST(value->>7 AS bigint) AS wake_at, \
         CAST(value->>8 AS bigint) AS recover_at, CAST(value->>9 AS bigint) AS ended_at FROM {rows}) AS x \
         WHERE runs.shard = x.shard AND runs.run = x.run AND runs.next_seq = x.first_seq AND runs.sealed = 0",
        ended,
    )
    .await?;
    // One by one: a list of triples makes SQLite look at the whole inbox of the shard.
    for input in done {
        tx.conn.execute("DELETE FROM inbox WHERE shard = $1 AND run = $2 AND input_id = $3", input).await?;
    }
    Ok(())
}

/// When recovery has to look at a run: at once while commands are open, else when its timer is due.
fn recover_at(progress: &RunProgress) -> Option<i64> {
    if progress.open > 0 { Some(0) } else { progress.wake_at.map(|at| at.0) }
}

/// Locks the epochs against a take-over until the commit, and refuses those that have moved on.
async fn check_epochs(tx: &mut Tx<'_>, gathered: &Gathered) -> Applied<()> {
    let expected: BTreeMap<u32, i64> = gathered.runs.values().map(|g| (g.shard, g.epoch)).collect();
    let shards: Vec<[u32; 1]> = expected.keys().map(|shard| [*shard]).collect();
    let rows = tx
        .conn
        .fetch(
            "SELECT shard, epoch FROM shards WHERE shard IN (SELECT CAST(value->>0 AS bigint) FROM {rows}) {for_share}",
            [Arg::json(&shards)],
        )
        .await?;
    let mut actual = BTreeMap::new();
    for row in rows {
        actual.insert(row.uint("shard")? as u32, row.int("epoch")?);
    }
    match gathered.runs.values().find(|g| actual.get(&g.shard) != Some(&g.epoch)) {
        Some(lost) => Err(WriteError::Fenced { shard: lost.shard }.into()),
        None => Ok(()),
    }
}

/// Moves runs' rows on; each must stand where its append begins.
async fn move_on(tx: &mut Tx<'_>, sql: &'static str, rows: Vec<MovedRun<'_>>) -> Applied<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let moved = tx.conn.execute(sql, [Arg::json(&rows)]).await?;
    if moved == rows.len() as u64 {
        return Ok(());
    }
    // Rare: find out which, for the message. A row that did move stands behind its last event now.
    for MovedRun(shard, run, first, next, ..) in rows {
        let found = tx
            .conn
            .fetch_one("SELECT next_seq, sealed FROM runs WHERE shard = $1 AND run = $2", [shard.into(), run.into()])
            .await?;
        let Some(found) = found else {
            return Err(stale(format!("run {run} does not exist in shard {shard}")));
        };
        if found.flag("sealed")? {
            return Err(stale(format!("run {run} has ended and is sealed")));
        }
        let stands_at = found.uint("next_seq")?;
        if moved == 0 || stands_at != next {
            return Err(wrong_seq(run, first, stands_at));
        }
    }
    Err(stale("the journal of one of the unit's runs has gone on"))
}

/// Creates a run, once per workflow, event and generation.
pub async fn create_run(tx: &mut Tx<'_>, run: &CreateRun) -> Applied<()> {
    let identity = key::run_identity(&run.project, &run.workflow, &run.event_source, &run.event_id);
    let fresh = tx
        .conn
        .execute(
            "INSERT INTO run_identity (identity, generation, project, shard, run) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (identity, generation) DO NOTHING",
            [
                identity.as_str().into(),
                run.generation.into(),
                (&run.project).into(),
                run.shard.into(),
                Arg::show(run.run),
            ],
        )
        .await?;
    if fresh == 0 {
        let row = tx
            .conn
            .fetch_one(
                "SELECT run FROM run_identity WHERE identity = $1 AND generation = $2",
                [identity.into(), run.generation.into()],
            )
            .await?;
        let existing = row.map(|row| row.text("run")).transpose()?.unwrap_or_default();
        return Err(stale(format!("run {existing} was started for this event already")));
    }
    tx.gathered.deferred.run(run);
    Ok(())
}

/// Takes away an input that changes nothing.
pub async fn inbox_done(tx: &mut Tx<'_>, done: &InboxDone) -> Applied<()> {
    tx.conn
        .execute(
            "DELETE FROM inbox WHERE shard = $1 AND run = $2 AND input_id = $3",
            [done.shard.into(), Arg::show(done.run), (&done.input_id).into()],
        )
        .await?;
    Ok(())
}

/// Leaves an input for a run.
pub async fn inbox(tx: &mut Tx<'_>, input: &Inbox) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO inbox (shard, run, input_id, at, body) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (shard, run, input_id) DO NOTHING",
            [
                input.shard.into(),
                Arg::show(input.run),
                (&input.input_id).into(),
                input.at.into(),
                Arg::json(&input.body),
            ],
        )
        .await?;
    Ok(())
}

/// Replaces a run's snapshot, unless a later one is there.
pub async fn snapshot(tx: &mut Tx<'_>, snapshot: &Snapshot) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO snapshots (shard, run, seq, body) VALUES ($1, $2, $3, $4) ON CONFLICT (shard, run) \
             DO UPDATE SET seq = excluded.seq, body = excluded.body WHERE snapshots.seq <= excluded.seq",
            [snapshot.shard.into(), Arg::show(snapshot.run), snapshot.seq.into(), Arg::Blob(snapshot.body.clone())],
        )
        .await?;
    Ok(())
}

/// Moves the journal of an ended run into one compressed row.
pub async fn seal(tx: &mut Tx<'_>, seal: Seal) -> Applied<Written> {
    let name = || [Arg::from(seal.shard), Arg::show(seal.run)];
    let row = tx
        .conn
        .fetch_one(
            "SELECT ended_at, next_seq, last_event, sealed FROM runs WHERE shard = $1 AND run = $2 {for_update}",
            name(),
        )
        .await?
        .ok_or_else(|| invalid(format!("run {} does not exist in shard {}", seal.run, seal.shard)))?;
    if row.flag("sealed")? {
        return Ok(Written::Done);
    }
    if row.opt_int("ended_at")?.is_none() {
        return Err(invalid(format!("run {} has not ended and cannot be sealed", seal.run)));
    }
    let newest = row.opt_int("last_event")?;
    if seal.relayed && newest > Some(relay_cursor(tx, seal.shard).await?) {
        return Ok(Written::NotYet);
    }
    let chain = [seal.shard.into(), Arg::Int(newest), Arg::from(0_u64)];
    let links = tx.conn.fetch(JOURNAL, chain).await?;
    let events = links.iter().map(sealed::journal_row).collect::<Result<Vec<_>, _>>()?;
    let count = row.uint("next_seq")?;
    if !sealed::is_whole(&events, 0, count) {
        let found = events.len();
        return Err(invalid(format!("the journal of run {} has {found} events that fit, of {count}", seal.run)));
    }
    let places = links.iter().map(|row| Ok([row.int("shard_seq")?])).collect::<Result<Vec<_>, sqlx::Error>>()?;
    let mut args = name().to_vec();
    args.push(count.into());
    args.push(Arg::Blob(sealed::pack(&events)));
    tx.conn.execute("INSERT INTO sealed (shard, run, events, body) VALUES ($1, $2, $3, $4)", args).await?;
    tx.conn
        .execute(
            "DELETE FROM journal WHERE shard = $2 AND shard_seq IN (SELECT CAST(value->>0 AS bigint) FROM {rows})",
            [Arg::json(&places), seal.shard.into()],
        )
        .await?;
    tx.conn.execute("DELETE FROM snapshots WHERE shard = $1 AND run = $2", name()).await?;
    tx.conn.execute("UPDATE runs SET sealed = 1 WHERE shard = $1 AND run = $2", name()).await?;
    Ok(Written::Done)
}

/// The last place of a shard that was relayed. It only ever moves on, so reading it without a lock is safe.
async fn relay_cursor(tx: &mut Tx<'_>, shard: u32) -> Applied<i64> {
    let row = tx.conn.fetch_one("SELECT shard_seq FROM relay_cursors WHERE shard = $1", [Arg::from(shard)]).await?;
    Ok(row.map_or(Ok(0), |row| row.int("shard_seq"))?)
}
