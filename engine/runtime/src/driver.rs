//! Turns: how a run moves. Decide, persist, act.
//!
//! A run in memory is a [`Cell`]: its state, a queue of messages and what is being performed for it. Whoever has news puts
//! a message into the queue; a turn takes all messages that are there, lets the core decide them, writes the events with
//! everything that they imply as one unit, and only then performs what is outstanding. Different runs' turns proceed side
//! by side, and the store commits their units together.
//!
//! When a unit could not be written, the state in memory is thrown away and folded again from the journal: there is no
//! undo. What is deliberately absent: any choice about what happens next, which is the core's alone.

mod unit;
mod watch;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use kickwheel_core::{
    Event, Input, RunState,
    command::{Command, outstanding},
    decide::Ending,
    event::apply,
    plan::{StepIndex, Workflow},
    state::TaskStatus,
};
use kickwheel_schemas::{Millis, RunId};
use kickwheel_store::{ReadError, Write, WriteError, fault, rows::RunRow, write::PublishDataset};
use tokio::sync::{Mutex as AsyncMutex, watch::Sender};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    perform, report,
    shared::{Counters, Shared},
};

pub use self::{
    unit::{Unit, follow_pure_chain, progress},
    watch::{Sight, watch},
};

/// First wait after the database refused a unit; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest wait between tries.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Attempts of one run that are performed at once, those that wait for admission included. An array step of ten thousand
/// tasks so costs the memory of this many, and does not fill the line of a pool before anybody else comes.
const MAX_PERFORMING: usize = 512;
/// Beyond every sequence number.
const OVER: u64 = u64::MAX;

/// News for a run.
#[derive(Debug)]
pub struct Message {
    /// What the core is asked to decide.
    pub input: Input,
    /// When it happened, where that is known better than by when it is decided.
    pub at: Option<Millis>,
    /// The inbox row that it came from.
    pub inbox: Option<String>,
    /// Written with the decision, if it decides anything.
    pub extra: Vec<Write>,
    /// Datasets to publish if the task is accepted before any cancel.
    pub publish: Vec<Publication>,
}

/// A version of a dataset that a task made.
#[derive(Clone, Debug)]
pub struct Publication {
    /// What is to be written.
    pub put: PublishDataset,
    /// Paths that are new or have other bytes, compared with the newest version when the task had ended.
    pub added: Vec<String>,
    /// Paths that are gone.
    pub removed: Vec<String>,
}

impl Message {
    /// A message that implies no rows of its own.
    pub fn plain(input: Input) -> Self {
        Self { input, at: None, inbox: None, extra: Vec::new(), publish: Vec::new() }
    }

    fn has_effects(&self) -> bool {
        let Input::Ended { ending: Ending::Succeeded { output, changed }, .. } = &self.input else { return false };
        changed.is_empty() && (!output.effects.is_empty() || !self.publish.is_empty())
    }
}

/// A run in memory.
pub struct Cell {
    /// Which run.
    pub run: RunId,
    loaded: AsyncMutex<Option<Loaded>>,
    queue: Mutex<Queue>,
    /// What is being performed, by attempt: cancel the token to stop it.
    pub performing: Mutex<HashMap<(StepIndex, u32, u32), CancellationToken>>,
    timer: Mutex<Option<(Millis, CancellationToken)>>,
    /// The sequence number after this run's latest commit; [`OVER`] when nothing more will come from here.
    moved: Sender<u64>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    scheduled: bool,
}

/// The folded state of a run, with what is needed to move it.
#[derive(Clone)]
pub struct Loaded {
    /// Its row as it was when it was folded.
    pub row: Arc<RunRow>,
    /// What it executes.
    pub workflow: Arc<Workflow>,
    /// The fold of its journal.
    pub state: RunState,
}

impl Cell {
    fn new(run: RunId, loaded: Option<Loaded>) -> Self {
        Self {
            run,
            loaded: AsyncMutex::new(loaded),
            queue: Mutex::default(),
            performing: Mutex::default(),
            timer: Mutex::default(),
            moved: Sender::new(0),
        }
    }

    /// Whether a turn must be started for what is in the queue now.
    fn push(&self, message: Message) -> bool {
        let mut queue = self.queue.lock().expect("no holder of this lock panics");
        // An inbox row may be delivered by whoever wrote it and by the poll; once in the queue is enough.
        if message.inbox.is_none() || !queue.messages.iter().any(|m| m.inbox == message.inbox) {
            queue.messages.push_back(message);
        }
        !std::mem::replace(&mut queue.scheduled, true)
    }

    fn take(&self) -> Vec<Message> {
        let mut queue = self.queue.lock().expect("no holder of this lock panics");
        if queue.messages.is_empty() {
            queue.scheduled = false;
        }
        queue.messages.drain(..).collect()
    }

    fn put_back(&self, messages: Vec<Message>) {
        let mut queue = self.queue.lock().expect("no holder of this lock panics");
        for message in messages.into_iter().rev() {
            queue.messages.push_front(message);
        }
    }
}

/// Hands a message to a run, loading it if it is not in memory.
pub fn send(shared: &Arc<Shared>, run: RunId, message: Message) {
    let cell = cell(shared, run, None);
    if cell.push(message) {
        spawn_turn(shared, cell);
    }
}

/// Takes a run that was just created into memory and performs what is outstanding.
pub async fn adopt(shared: &Arc<Shared>, run: RunId, loaded: Loaded) {
    if loaded.state.is_finished() {
        return;
    }
    let cell = cell(shared, run, Some(loaded.clone()));
    act(shared, &cell, &loaded);
}

/// Loads an open run after a start and performs what is outstanding: the same path as live operation.
pub async fn recover(shared: &Arc<Shared>, run: RunId) -> Result<(), ReadError> {
    let Some(loaded) = load(shared, run).await? else { return Ok(()) };
    let cell = cell(shared, run, Some(loaded.clone()));
    act(shared, &cell, &loaded);
    for row in shared.store.inbox_of(loaded.row.shard, run).await? {
        deliver(shared, row);
    }
    Ok(())
}

/// Hands an inbox row to its run.
pub fn deliver(shared: &Arc<Shared>, row: kickwheel_store::rows::InboxRow) {
    match serde_json::from_value::<InboxInput>(row.body) {
        Ok(InboxInput::Cancel { by, reason }) => {
            let message = Message { inbox: Some(row.input_id), ..Message::plain(Input::Cancel { by, reason }) };
            send(shared, row.run, message);
        }
        Err(e) => error!(run = %row.run, input = row.input_id, "an inbox row cannot be read: {e}"),
    }
}

/// What others may leave in a run's inbox.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(tag = "input", rename_all = "snake_case")]
pub enum InboxInput {
    /// A person asks for the end.
    Cancel {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
}

/// The state of a run: from memory if it is there, else folded from the store.
pub async fn peek(shared: &Arc<Shared>, run: RunId) -> Result<Option<Loaded>, ReadError> {
    look(shared, run, Loaded::clone).await
}

/// Something of the state of a run, which is not copied for it.
pub async fn look<T>(
    shared: &Arc<Shared>,
    run: RunId,
    take: impl FnOnce(&Loaded) -> T,
) -> Result<Option<T>, ReadError> {
    let cell = shared.cells.lock().expect("no holder of this lock panics").get(&run).cloned();
    if let Some(cell) = cell
        && let Some(loaded) = cell.loaded.lock().await.as_ref()
    {
        return Ok(Some(take(loaded)));
    }
    Ok(load(shared, run).await?.as_ref().map(take))
}

/// Folds a run from its journal.
pub async fn load(shared: &Arc<Shared>, run: RunId) -> Result<Option<Loaded>, ReadError> {
    let Some(row) = shared.store.run(run).await? else { return Ok(None) };
    let workflow = shared.workflow(&row.plan_digest).await?;
    let mut state = snapshot(shared, run, workflow.plan.steps.len()).await?;
    for entry in shared.store.journal(run, state.seq).await? {
        let event: Event = serde_json::from_str(&entry.event).map_err(|e| ReadError::Corrupt {
            message: format!("event {} of run {run}: {e}; it was written by a newer version or damaged", entry.seq),
        })?;
        apply(&mut state, &workflow.plan, &event);
    }
    Ok(Some(Loaded { row: Arc::new(row), workflow, state }))
}

/// The latest snapshot, or the beginning. A snapshot that cannot be read is as good as none: the journal has it all.
async fn snapshot(shared: &Arc<Shared>, run: RunId, steps: usize) -> Result<RunState, ReadError> {
    let Some(row) = shared.store.snapshot(run).await? else { return Ok(RunState::new(steps)) };
    match serde_json::from_slice::<RunState>(&row.body) {
        Ok(state) if state.seq == row.seq && state.steps.len() == steps => Ok(state),
        Ok(_) | Err(_) => Ok(RunState::new(steps)),
    }
}

fn cell(shared: &Arc<Shared>, run: RunId, loaded: Option<Loaded>) -> Arc<Cell> {
    let mut cells = shared.cells.lock().expect("no holder of this lock panics");
    Arc::clone(cells.entry(run).or_insert_with(|| Arc::new(Cell::new(run, loaded))))
}

fn spawn_turn(shared: &Arc<Shared>, cell: Arc<Cell>) {
    let shared2 = Arc::clone(shared);
    shared.tasks.spawn(async move { turns(&shared2, &cell).await });
}

/// What became of an attempt to write a turn.
enum Refused {
    /// Try the same messages again after a while.
    Later(Vec<Message>),
    /// Somebody else owns the shard, or (with the reason) the run can no longer be understood: let go of it.
    LetGo(Option<String>),
}

async fn turns(shared: &Arc<Shared>, cell: &Arc<Cell>) {
    let mut wait = RETRY_FIRST;
    let mut slot = cell.loaded.lock().await;
    loop {
        let messages = cell.take();
        if messages.is_empty() {
            return;
        }
        match turn(shared, cell, &mut slot, messages).await {
            Ok(()) => {
                wait = RETRY_FIRST;
                if slot.as_ref().is_some_and(|l| l.state.is_finished()) {
                    shared.cells.lock().expect("no holder of this lock panics").remove(&cell.run);
                    return;
                }
            }
            Err(Refused::Later(messages)) => {
                *slot = None;
                cell.put_back(messages);
                Counters::count(&shared.counters.write_pauses);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shared.stop.cancelled() => return,
                }
                wait = (wait * 2).min(RETRY_MAX);
            }
            Err(Refused::LetGo(reason)) => {
                if let Some(reason) = reason {
                    shared.set_aside(cell.run, reason);
                }
                let mut cells = shared.cells.lock().expect("no holder of this lock panics");
                if let Some(cell) = cells.remove(&cell.run) {
                    cell.moved.send_replace(OVER);
                    for (_, stop) in cell.performing.lock().expect("no holder of this lock panics").drain() {
                        drop(stop);
                    }
                }
                return;
            }
        }
    }
}

/// One turn: messages with effects are decided alone, so that a conflict concerns exactly one of them.
async fn turn(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    slot: &mut Option<Loaded>,
    messages: Vec<Message>,
) -> Result<(), Refused> {
    let mut pending: VecDeque<Message> = messages.into();
    while !pending.is_empty() {
        let alone = pending.front().is_some_and(Message::has_effects);
        let count = if alone { 1 } else { pending.iter().take_while(|m| !m.has_effects()).count() };
        let mut batch: Vec<Message> = pending.drain(..count).collect();
        let chained = loop {
            match write_batch(shared, cell, slot, &batch).await {
                Ok(chained) => break chained,
                Err(WriteError::Conflict { what }) if alone => {
                    *slot = None;
                    debug!(run = %cell.run, ?what, "the world changed since the plugin looked");
                    let message = batch.first_mut().expect("a batch with effects holds one message");
                    if let Input::Ended { ending: Ending::Succeeded { changed, .. }, .. } = &mut message.input {
                        *changed = what;
                    }
                }
                Err(WriteError::Stale { what }) => {
                    // Our picture of the run is old: somebody wrote, or an unknown commit was one after all.
                    warn!(run = %cell.run, "fold again: {what}");
                    *slot = None;
                    batch.extend(pending);
                    return Err(Refused::Later(batch));
                }
                Err(WriteError::Unavailable { reason } | WriteError::Unknown { reason }) => {
                    warn!(run = %cell.run, "paused: {reason}");
                    batch.extend(pending);
                    return Err(Refused::Later(batch));
                }
                Err(e @ WriteError::Fenced { .. }) => {
                    warn!(run = %cell.run, "let go of the run: {e}");
                    return Err(Refused::LetGo(None));
                }
                Err(e @ (WriteError::Invalid { .. } | WriteError::Conflict { .. })) => {
                    error!(run = %cell.run, "set aside: {e}");
                    return Err(Refused::LetGo(Some(e.to_string())));
                }
            }
        };
        for message in chained.into_iter().rev() {
            pending.push_front(message);
        }
    }
    Ok(())
}

/// Decides a batch, follows chains of pure calls, writes, applies and acts. Gives back messages of chained calls that
/// have effects: they are decided in a batch of their own.
async fn write_batch(
    shared: &Arc<Shared>,
    cell: &Arc<Cell>,
    slot: &mut Option<Loaded>,
    batch: &[Message],
) -> Result<Vec<Message>, WriteError> {
    if slot.is_none() {
        *slot = load(shared, cell.run).await.map_err(as_unavailable)?;
    }
    let Some(loaded) = slot else {
        return Err(WriteError::Invalid { message: format!("run {} is not in the store", cell.run) });
    };
    let Some(epoch) = shared.epoch(loaded.row.shard) else {
        return Err(WriteError::Fenced { shard: loaded.row.shard });
    };
    let first_seq = loaded.state.seq;
    let now = Millis::now();
    let mut unit = Unit::default();
    for message in batch {
        unit.decide(loaded, now, message);
    }
    let chained = follow_pure_chain(shared, loaded, &mut unit, now).await;
    let writes = unit.into_writes(shared, loaded, first_seq, epoch, now);
    if !writes.is_empty()
        && let Err(e) = shared.store.write(writes).await
    {
        // The state in memory has run ahead of the journal: it is worth nothing now.
        *slot = None;
        return Err(e);
    }
    // Also when nothing was decided: after a commit of unknown outcome the state was folded again, and what it owes may
    // never have been performed.
    fault::point("driver.act.before");
    shared.announce();
    cell.moved.send_replace(if loaded.state.is_finished() { OVER } else { loaded.state.seq });
    if loaded.state.is_finished() {
        finished(shared, loaded);
    }
    act(shared, cell, loaded);
    fault::point("driver.act.after");
    Ok(chained)
}

fn as_unavailable(e: ReadError) -> WriteError {
    match e {
        ReadError::Unavailable { reason } => WriteError::Unavailable { reason },
        ReadError::Corrupt { message } => WriteError::Invalid { message },
    }
}

/// Performs what is outstanding and not being performed yet.
fn act(shared: &Arc<Shared>, cell: &Arc<Cell>, loaded: &Loaded) {
    prune(cell, loaded);
    let mut wake = None;
    for command in outstanding(&loaded.workflow.plan, &loaded.state) {
        match command {
            Command::Execute { step, index, attempt } => execute(shared, cell, loaded, (step, index, attempt), false),
            Command::Stop { step, index, attempt } => execute(shared, cell, loaded, (step, index, attempt), true),
            Command::WakeAt(at) => wake = Some(at),
        }
    }
    set_timer(shared, cell, wake);
}

fn execute(shared: &Arc<Shared>, cell: &Arc<Cell>, loaded: &Loaded, attempt: (StepIndex, u32, u32), stopped: bool) {
    let mut performing = cell.performing.lock().expect("no holder of this lock panics");
    if let Some(stop) = performing.get(&attempt) {
        if stopped {
            stop.cancel();
        }
        return;
    }
    if performing.len() >= MAX_PERFORMING {
        // Each end of one makes a turn, which comes here again.
        return;
    }
    let stop = CancellationToken::new();
    if stopped {
        stop.cancel();
    }
    performing.insert(attempt, stop.clone());
    drop(performing);
    perform::spawn(shared, loaded, attempt, stop);
}

/// Forgets what is no longer outstanding.
fn prune(cell: &Arc<Cell>, loaded: &Loaded) {
    let mut performing = cell.performing.lock().expect("no holder of this lock panics");
    performing.retain(|(step, index, attempt), _| {
        loaded.state.steps.get(*step).and_then(|s| s.tasks().get(*index as usize)).is_some_and(|t| {
            t.attempt == *attempt && matches!(t.status, TaskStatus::Ready { .. } | TaskStatus::Running { .. })
        })
    });
}

fn set_timer(shared: &Arc<Shared>, cell: &Arc<Cell>, wake: Option<Millis>) {
    let mut timer = cell.timer.lock().expect("no holder of this lock panics");
    if timer.as_ref().map(|(at, _)| *at) == wake {
        return;
    }
    if let Some((_, old)) = timer.take() {
        old.cancel();
    }
    let Some(at) = wake else { return };
    let token = shared.stop.child_token();
    *timer = Some((at, token.clone()));
    let (shared2, cell2) = (Arc::clone(shared), Arc::clone(cell));
    shared.tasks.spawn(async move {
        let wait = Duration::from_millis(at.since(Millis::now()).max(1));
        tokio::select! {
            () = tokio::time::sleep(wait) => {
                // A timer that went off is no timer: should the clock have been set back, the turn sets it again.
                *cell2.timer.lock().expect("no holder of this lock panics") = None;
                send(&shared2, cell2.run, Message::plain(Input::Wake));
            }
            () = token.cancelled() => {}
        }
    });
}

/// Notes the end of a run that is in the journal.
pub fn finished(shared: &Arc<Shared>, loaded: &Loaded) {
    Counters::count(&shared.counters.runs_ended);
    info!(run = %loaded.row.run, workflow = loaded.row.workflow, status = ?loaded.state.status, "run ended");
    if report::is_owed(loaded) {
        shared.reporter.notify_one();
    }
}
