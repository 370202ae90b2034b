//! What each write does to the tables.
//!
//! [`apply_unit`] carries out one unit inside the writer's transaction. Appends and plain inserts are gathered and go into
//! the tables together, across units, because they are nearly all there is to do under load; any other write that
//! touches what is gathered sends it first, so that the order of writes to a run or a lane is kept.
//!
//! Deliberately absent: transactions, savepoints and retries, which are the `writer`'s.

mod access;
mod assets;
mod bus;
mod catalog;
mod deferred;
mod events;
mod journal;
mod quarantine;
mod triggers;

use kickwheel_schemas::RunId;

pub use journal::{Gathered, ShardSeqs};

use crate::{Write, WriteError, Written, db::Conn, rows::AssetKind, write::Announce};

/// Why a unit could not be applied.
#[derive(Debug)]
pub enum Refusal {
    /// The unit is refused for what it says.
    Unit(WriteError),
    /// A statement failed; what that means is for the writer to find out.
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Self::Unit(error)
    }
}

fn stale(what: impl Into<String>) -> Refusal {
    Refusal::Unit(WriteError::Stale { what: what.into() })
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::Unit(WriteError::Invalid { message: message.into() })
}

/// The result of one step of a unit.
pub type Applied<T> = Result<T, Refusal>;

/// The writer's transaction, as the writes see it.
#[derive(Debug)]
pub struct Tx<'a> {
    /// The connection, inside a transaction.
    pub conn: &'a mut Conn,
    /// Places in commit order that are reserved already.
    pub seqs: &'a mut ShardSeqs,
    /// What is not yet in the tables.
    pub gathered: Gathered,
}

/// Applies one unit. Some of it may still be gathered when it returns: [`flush`] before the commit.
pub async fn apply_unit(tx: &mut Tx<'_>, unit: &[Write]) -> Applied<Vec<Written>> {
    let mut written = Vec::with_capacity(unit.len());
    let mut rest = unit;
    while let Some((write, after)) = rest.split_first() {
        rest = after;
        if tx.gathered.is_large() || touched_run(write).is_some_and(|run| tx.gathered.holds(run)) {
            flush(tx).await?;
        }
        if let (Write::Accept(accept), Some(Write::Decide(decide))) = (write, rest.first())
            && accept.key == decide.key
        {
            written.push(events::accept_decided(tx, accept, decide).await?);
            written.push(Written::Done);
            rest = &rest[1..];
            continue;
        }
        match apply(tx, write).await {
            Ok(answer) => written.push(answer),
            Err(Refusal::Unit(WriteError::Conflict { what })) => {
                return Err(assets::all_conflicts(tx, what, rest).await?.into());
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(written)
}

/// Sends what is gathered.
pub async fn flush(tx: &mut Tx<'_>) -> Applied<()> {
    journal::flush(tx).await
}

/// The run whose gathered appends must be in the tables before this write. Appends themselves are gathered in order.
fn touched_run(write: &Write) -> Option<RunId> {
    match write {
        Write::CreateRun(w) => Some(w.run),
        Write::Inbox(w) => Some(w.run),
        Write::InboxDone(w) => Some(w.run),
        Write::Snapshot(w) => Some(w.run),
        Write::Seal(w) => Some(w.run),
        Write::Append(_)
        | Write::Accept(_)
        | Write::Decide(_)
        | Write::Park(_)
        | Write::Quarantine(_)
        | Write::MoveRef(_)
        | Write::ReportRef(_)
        | Write::RegisterModel(_)
        | Write::PublishDataset(_)
        | Write::Announce(_)
        | Write::CachePut(_)
        | Write::CacheReplace(_)
        | Write::CacheRecord(_)
        | Write::PutPlan(_)
        | Write::PutRegistry(_)
        | Write::SetPaused(_)
        | Write::PutRepo(_)
        | Write::NoteRepo(_)
        | Write::RemoveRepo(_)
        | Write::PutWatch(_)
        | Write::RemoveWatch(_)
        | Write::Report(_)
        | Write::ReportDone(_)
        | Write::ReportRetry(_)
        | Write::SetMeta(_)
        | Write::ForgetSeen(_)
        | Write::PutTrigger(_)
        | Write::RemoveTrigger(_)
        | Write::SetTriggerPaused(_)
        | Write::PutTriggerState(_)
        | Write::UseKey(_)
        | Write::PutSecret(_)
        | Write::RemoveSecret(_)
        | Write::PutToken(_)
        | Write::RevokeToken(_)
        | Write::Spool(_)
        | Write::SetBusMode(_)
        | Write::Unspool(_)
        | Write::AddPartitions(_)
        | Write::MoveOffset(_)
        | Write::StopPartition(_)
        | Write::ResetPartition(_)
        | Write::RemovePartitions(_)
        | Write::MoveRelay(_)
        | Write::PutQuarantine(_)
        | Write::ResolveQuarantine(_)
        | Write::Requeue(_)
        | Write::DropEvent(_) => None,
    }
}

/// Puts the version's number into the event, and makes that durable.
async fn announce(tx: &mut Tx<'_>, announce: &Announce) -> Applied<Written> {
    let mut write = announce.event.clone();
    let (project, event) = match &mut write {
        Write::Accept(accept) => (accept.project.clone(), &mut accept.event),
        Write::Spool(spool) => (spool.project.clone(), &mut spool.event),
        _ => return Err(invalid("an announcement is made by accepting or by spooling an event")),
    };
    let made = assets::made_by(tx, &project, announce.kind, &announce.name, &announce.task).await?;
    let Some(version) = made else { return Ok(Written::Done) };
    event.data["version"] = version.into();
    if announce.kind == AssetKind::Dataset {
        event.data["previous"] = (version > 1).then_some(version - 1).into();
    }
    Box::pin(apply(tx, &write)).await
}

async fn apply(tx: &mut Tx<'_>, write: &Write) -> Applied<Written> {
    match write {
        Write::Append(w) => journal::append(tx, w).await?,
        Write::CreateRun(w) => journal::create_run(tx, w).await?,
        Write::Inbox(w) => journal::inbox(tx, w).await?,
        Write::InboxDone(w) => journal::inbox_done(tx, w).await?,
        Write::Snapshot(w) => journal::snapshot(tx, w).await?,
        Write::Seal(w) => return journal::seal(tx, *w).await,
        Write::Accept(w) => return events::accept(tx, w).await,
        Write::Decide(w) => events::decide(tx, w).await?,
        Write::Park(w) => events::park(tx, w).await?,
        Write::Quarantine(w) => events::quarantine(tx, w).await?,
        Write::MoveRef(w) => return events::move_ref(tx, w).await,
        Write::ReportRef(w) => events::report_ref(tx, w).await?,
        Write::ForgetSeen(w) => events::forget_seen(tx, *w).await?,
        Write::RegisterModel(w) => return assets::register_model(tx, w).await,
        Write::PublishDataset(w) => return assets::publish_dataset(tx, w).await,
        Write::Announce(w) => return announce(tx, w).await,
        Write::CachePut(w) => catalog::cache_put(tx, w).await?,
        Write::CacheReplace(w) => catalog::cache_replace(tx, w).await?,
        Write::CacheRecord(w) => catalog::cache_record(tx, w).await?,
        Write::PutPlan(w) => catalog::put_plan(tx, w).await?,
        Write::PutRegistry(w) => catalog::put_registry(tx, w).await?,
        Write::SetPaused(w) => catalog::set_paused(tx, w).await?,
        Write::PutRepo(w) => catalog::put_repo(tx, w).await?,
        Write::NoteRepo(w) => catalog::note_repo(tx, w).await?,
        Write::RemoveRepo(w) => catalog::remove_repo(tx, w).await?,
        Write::PutWatch(w) => catalog::put_watch(tx, w).await?,
        Write::RemoveWatch(w) => catalog::remove_watch(tx, w).await?,
        Write::Report(w) => catalog::report(tx, w).await?,
        Write::ReportDone(w) => catalog::report_done(tx, *w).await?,
        Write::ReportRetry(w) => catalog::report_retry(tx, w).await?,
        Write::SetMeta(w) => catalog::set_meta(tx, w).await?,
        Write::PutTrigger(w) => triggers::put_trigger(tx, w).await?,
        Write::RemoveTrigger(w) => triggers::remove_trigger(tx, w).await?,
        Write::SetTriggerPaused(w) => triggers::set_trigger_paused(tx, w).await?,
        Write::PutTriggerState(w) => triggers::put_trigger_state(tx, w).await?,
        Write::UseKey(w) => access::use_key(tx, w).await?,
        Write::PutSecret(w) => access::put_secret(tx, w).await?,
        Write::RemoveSecret(w) => access::remove_secret(tx, w).await?,
        Write::PutToken(w) => access::put_token(tx, w).await?,
        Write::RevokeToken(w) => access::revoke_token(tx, w).await?,
        Write::Spool(w) => bus::spool(tx, w).await?,
        Write::SetBusMode(w) => bus::set_bus_mode(tx, *w).await?,
        Write::Unspool(w) => bus::unspool(tx, w).await?,
        Write::AddPartitions(w) => bus::add_partitions(tx, w).await?,
        Write::MoveOffset(w) => bus::move_offset(tx, w).await?,
        Write::StopPartition(w) => bus::stop_partition(tx, w).await?,
        Write::ResetPartition(w) => bus::reset_partition(tx, w).await?,
        Write::RemovePartitions(w) => bus::remove_partitions(tx, w).await?,
        Write::MoveRelay(w) => bus::move_relay(tx, *w).await?,
        Write::PutQuarantine(w) => quarantine::put(tx, w).await?,
        Write::ResolveQuarantine(w) => quarantine::resolve(tx, w).await?,
        Write::Requeue(w) => quarantine::requeue(tx, *w).await?,
        Write::DropEvent(w) => quarantine::drop_event(tx, w).await?,
    }
    Ok(Written::Done)
}
