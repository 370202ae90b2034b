//! What can be changed: the closed set of writes.
//!
//! Each variant of [`Write`] carries a plain struct. A `Vec<Write>` is one unit: all of it is written, in order, or
//! nothing. What each does to the tables is in `apply`.
//!
//! Where to look next: the submodules, for what concerns assets, triggers, access, the bus and quarantine.

mod access;
mod assets;
mod bus;
mod quarantine;
mod triggers;

use kickwheel_schemas::{CloudEvent, Digest, Millis, RunId, api::RunPhase};
use serde_json::Value;

pub use access::{KEY_IN_FORCE, PutSecret, PutToken, RevokeToken, SecretStamp, UseKey};
pub use assets::{Announce, CachePut, CacheRecord, CacheReplace, CacheResult, PublishDataset, RegisterModel};
pub use bus::{
    AddPartitions, BusMode, MoveOffset, MoveRelay, RemovePartitions, ResetPartition, SetBusMode, Spool, StopPartition,
    Unspool,
};
pub use quarantine::{DropEvent, PutQuarantine, Requeue, Resolution, ResolveQuarantine};
pub use triggers::{PutTrigger, PutTriggerState, SetTriggerPaused};

use crate::EventKey;

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Makes an event durable, with its place in its lane. Answered by [`Written::Accepted`].
    Accept(Accept),
    /// Says what the first undecided event of a lane came to. Another event being first is `Stale`.
    Decide(Decide),
    /// Sets the first undecided event of a lane aside until a time; only its own lane waits.
    Park(Park),
    /// Takes the first undecided event of a lane out for people to look at; the lane goes on.
    Quarantine(Quarantine),
    /// Records that a ref moved. Answered by [`Written::Version`] with the number of the transition.
    MoveRef(MoveRef),
    /// Adds a channel to those that reported a transition.
    ReportRef(ReportRef),
    /// Creates a run; its first events follow as [`Write::Append`] in the same unit. If the event has started this
    /// workflow in this generation already, the unit is refused as `Stale`, and the text holds the run's id.
    CreateRun(CreateRun),
    /// Appends to a run's journal under the shard's epoch.
    Append(Append),
    /// Leaves an input for a run, whoever owns its shard. Inserting the same `input_id` again changes nothing.
    Inbox(Inbox),
    /// Takes away inputs that change nothing, such as the cancel of a run that had ended meanwhile.
    InboxDone(InboxDone),
    /// Replaces a run's snapshot. Snapshots are disposable.
    Snapshot(Snapshot),
    /// Moves the journal of a finished run into one compressed row. Sealing twice changes nothing. Answered by
    /// [`Written::NotYet`] if the relay has still to read it.
    Seal(Seal),
    /// Registers a version of a model and may move a stage. Answered by [`Written::Version`].
    RegisterModel(RegisterModel),
    /// Publishes a version of a dataset. Answered by [`Written::Version`].
    PublishDataset(PublishDataset),
    /// Tells of the version that a task has made of a model or dataset earlier in this unit, with an event that is accepted
    /// or spooled; the version's number is put into it. Nothing if the task has made none.
    Announce(Box<Announce>),
    /// Remembers a task's output under its content key. The first writer wins.
    CachePut(CachePut),
    /// Remembers a task's output in place of another whose bytes are gone. If yet another task's is there by now, that
    /// one stays: somebody was faster.
    CacheReplace(CacheReplace),
    /// Remembers how a task's content key was made up and whether it hit.
    CacheRecord(CacheRecord),
    /// Keeps a compiled workflow. The first writer wins: plans are named by their digest.
    PutPlan(PutPlan),
    /// Adds a revision of a project's registry. A revision other than the next is `Stale`.
    PutRegistry(PutRegistry),
    /// Pauses or resumes a workflow.
    SetPaused(SetPaused),
    /// Binds a repository or changes what is known of it.
    PutRepo(PutRepo),
    /// Notes what was learnt of a bound repository by asking for it. Nothing if it is bound no more, or to another URL.
    NoteRepo(NoteRepo),
    /// Unbinds a repository.
    RemoveRepo(RemoveNamed),
    /// Watches a path as a dataset, or stores the watcher's state.
    PutWatch(PutWatch),
    /// Stops watching.
    RemoveWatch(RemoveNamed),
    /// Leaves a run's result to be reported outside (a Git note). One report per run; a later one replaces it.
    Report(Report),
    /// The report was delivered.
    ReportDone(ReportDone),
    /// The report could not be delivered.
    ReportRetry(ReportRetry),
    /// Sets a value of the whole installation.
    SetMeta(SetMeta),
    /// Forgets identities of events that were seen before a time, at most [`FORGET_LIMIT`] of them.
    ForgetSeen(ForgetSeen),
    /// Makes a trigger, or changes it. Whether it is paused stays; its state goes if it is of another kind now.
    PutTrigger(PutTrigger),
    /// Removes a trigger and its state.
    RemoveTrigger(RemoveNamed),
    /// Pauses or resumes a trigger. `Stale` if there is none.
    SetTriggerPaused(SetTriggerPaused),
    /// Moves a trigger's state on: a cron cursor, what a poller saw last. Another version than expected is `Stale`. There
    /// need be no trigger of that name: `on.cron` of a workflow has a cursor too.
    PutTriggerState(PutTriggerState),
    /// Says which key seals secrets from now on, for all engines of this database. `Stale` if another one than expected was
    /// in force; saying it twice changes nothing.
    UseKey(UseKey),
    /// Makes a secret, or replaces it. `Stale` if it is sealed with another key than the one in force.
    PutSecret(PutSecret),
    /// Removes a secret.
    RemoveSecret(RemoveNamed),
    /// Makes a token. The same one again changes nothing; an id or a hash that another token has is `Stale`.
    PutToken(PutToken),
    /// Ends a token before its time; the first revocation stays. `Stale` if there is no such token.
    RevokeToken(RevokeToken),
    /// Puts an event into the spool. Ingress is `Stale` while the mode is `direct`, unless an earlier write of the unit
    /// sets it. Inserting the same key again changes nothing.
    Spool(Spool),
    /// Says which way ingress takes. `Stale` if it is to be direct while ingress is left in the spool.
    SetBusMode(SetBusMode),
    /// Takes events out of the spool.
    Unspool(Unspool),
    /// Gets to know partitions of a topic. Those that are known stay as they are.
    AddPartitions(AddPartitions),
    /// Moves a partition's offset on, in the unit of what was read from there. Another epoch, another offset than
    /// expected, or a stopped partition is `Stale`: read its row again, and seek to it if it is still ours.
    MoveOffset(MoveOffset),
    /// Stops reading a partition until somebody resets it, and gives it up. Another epoch is `Stale`.
    StopPartition(StopPartition),
    /// Says where a partition is read on, whoever owns it: raises the epoch, frees it, and clears why it was stopped. A
    /// partition that is not known is added.
    ResetPartition(ResetPartition),
    /// Forgets all partitions of a topic.
    RemovePartitions(RemovePartitions),
    /// Moves a shard's relay cursor on, under the shard's epoch. A cursor that stands elsewhere is `Stale`.
    MoveRelay(MoveRelay),
    /// Keeps input that could not become an event. Inserting the same id again changes nothing.
    PutQuarantine(PutQuarantine),
    /// Says what was done about a quarantined input. `Stale` if it is not held any more.
    ResolveQuarantine(ResolveQuarantine),
    /// Puts a quarantined event back to the end of its lane, undecided. `Stale` if it is not quarantined.
    Requeue(Requeue),
    /// Gives a quarantined event up. `Stale` if it is not quarantined.
    DropEvent(DropEvent),
}

/// How many identities one [`Write::ForgetSeen`] removes at most, so that it never holds up the writer.
pub const FORGET_LIMIT: i64 = 5_000;

/// The answer to one [`Write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is done.
    Done,
    /// It has to wait for something else first; nothing was changed. Ask again later.
    NotYet,
    /// The event is durable.
    Accepted {
        /// Its key: that of the first receipt, if this one is a duplicate.
        key: EventKey,
        /// The same `source` and `id` were seen before; nothing was written.
        duplicate: bool,
    },
    /// A numbered thing: version of a model or dataset, transition of a ref.
    Version {
        /// Counts from 1.
        version: u64,
        /// It was there before: same task, or same digest as the newest.
        unchanged: bool,
    },
}

/// See [`Write::Accept`].
#[derive(Clone, Debug, PartialEq)]
pub struct Accept {
    /// Chosen by the caller.
    pub key: EventKey,
    /// The project.
    pub project: String,
    /// The event; its lane is `source` + `subject` within the project.
    pub event: CloudEvent,
    /// When it was received.
    pub received_at: Millis,
    /// How it came: `hook`, `webhook`, `poll`, `dataset`, `manual`, …
    pub channel: String,
}

/// See [`Write::Decide`].
#[derive(Clone, Debug, PartialEq)]
pub struct Decide {
    /// The event.
    pub key: EventKey,
    /// What was learnt from outside in order to decide (changed paths and the like), so that `explain` sees the same.
    pub enrichment: Value,
    /// The registry's revision that it was decided by.
    pub registry_revision: i64,
    /// Everything but *filtered*, which is recomputed when somebody asks.
    pub outcomes: Vec<DecisionRow>,
    /// When.
    pub at: Millis,
}

/// What an event meant for one workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionRow {
    /// The workflow's name.
    pub workflow: String,
    /// `started`, `duplicate`, `paused`, `broken`, …
    pub decision: String,
    /// One sentence for people.
    pub reason: String,
    /// The clause that decided.
    pub clause: Option<String>,
    /// The run that was started.
    pub run: Option<RunId>,
}

/// See [`Write::Park`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Park {
    /// The event.
    pub key: EventKey,
    /// What it waits for.
    pub reason: String,
    /// When to look again.
    pub until: Millis,
}

/// See [`Write::Quarantine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The event.
    pub key: EventKey,
    /// What is wrong with it.
    pub reason: String,
    /// When.
    pub at: Millis,
}

/// See [`Write::MoveRef`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveRef {
    /// The project.
    pub project: String,
    /// The repository's name.
    pub repo: String,
    /// The full ref.
    pub ref_name: String,
    /// Commit before; none when the ref was created.
    pub before: Option<String>,
    /// Commit after; none when the ref was deleted.
    pub after: Option<String>,
    /// The channel that reported it first.
    pub channel: String,
    /// The event that reported it.
    pub event: EventKey,
    /// False for a late one: it is recorded, but the head stays.
    pub moves_head: bool,
    /// When.
    pub at: Millis,
}

/// See [`Write::ReportRef`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRef {
    /// The project.
    pub project: String,
    /// The repository's name.
    pub repo: String,
    /// The full ref.
    pub ref_name: String,
    /// Number of the transition.
    pub transition: u64,
    /// The channel that has reported it now.
    pub channel: String,
}

/// See [`Write::CreateRun`]. It begins as `queued` with one open command, so that recovery finds it whatever follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRun {
    /// The run's id.
    pub run: RunId,
    /// The shard it belongs to for good.
    pub shard: u32,
    /// The project.
    pub project: String,
    /// The workflow's name.
    pub workflow: String,
    /// Names the compiled plan.
    pub plan_digest: Digest,
    /// Names the workflow file's content.
    pub source_digest: Digest,
    /// The causing event's `source`.
    pub event_source: String,
    /// The causing event's `id`.
    pub event_id: String,
    /// Our key of the causing event.
    pub event_key: EventKey,
    /// 0 at first, higher for replays and retries.
    pub generation: u32,
    /// Branch, when a push caused it.
    pub branch: Option<String>,
    /// Commit, when it has a source.
    pub commit: Option<String>,
    /// What caused it, in one line.
    pub cause: String,
    /// Why it was started.
    pub decision: String,
    /// When it was decided.
    pub created_at: Millis,
}

/// See [`Write::Append`].
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// The run's shard.
    pub shard: u32,
    /// The epoch under which the caller owns the shard.
    pub epoch: i64,
    /// The run.
    pub run: RunId,
    /// Sequence number of the first of `events`, from 0. Any other than the next is `Stale`.
    pub first_seq: u64,
    /// Serialised events. May be empty, to change only what stands beside the journal.
    pub events: Vec<String>,
    /// When.
    pub at: Millis,
    /// Where the run stands after them.
    pub progress: RunProgress,
    /// Inputs that these events deal with; their inbox rows go.
    pub inbox_done: Vec<String>,
}

/// Where a run stands: what recovery and listings need without folding the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunProgress {
    /// For people and filters.
    pub state: RunPhase,
    /// Commands that are outstanding, timers not counted.
    pub open: u32,
    /// The earliest timer.
    pub wake_at: Option<Millis>,
    /// Set when it has ended.
    pub ended_at: Option<Millis>,
}

/// See [`Write::Inbox`].
#[derive(Clone, Debug, PartialEq)]
pub struct Inbox {
    /// The run's shard.
    pub shard: u32,
    /// The run.
    pub run: RunId,
    /// Unique within the run.
    pub input_id: String,
    /// The input.
    pub body: Value,
    /// When.
    pub at: Millis,
}

/// See [`Write::InboxDone`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxDone {
    /// The run's shard.
    pub shard: u32,
    /// The run.
    pub run: RunId,
    /// Which input.
    pub input_id: String,
}

/// See [`Write::Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The run's shard.
    pub shard: u32,
    /// The run.
    pub run: RunId,
    /// Events folded into it.
    pub seq: u64,
    /// The serialised state.
    pub body: Vec<u8>,
}

/// See [`Write::Seal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The run's shard.
    pub shard: u32,
    /// The run; it must have ended.
    pub run: RunId,
    /// The journal is relayed to the bus: leave the run alone until the shard's cursor has passed its newest event.
    pub relayed: bool,
}

/// See [`Write::PutPlan`].
#[derive(Clone, Debug, PartialEq)]
pub struct PutPlan {
    /// The project.
    pub project: String,
    /// Names the compiled plan.
    pub plan_digest: Digest,
    /// Names the file's content.
    pub source_digest: Digest,
    /// The workflow's name.
    pub name: String,
    /// The file.
    pub yaml: String,
    /// The compiled plan.
    pub compiled: Value,
    /// When.
    pub at: Millis,
}

/// See [`Write::PutRegistry`].
#[derive(Clone, Debug, PartialEq)]
pub struct PutRegistry {
    /// The project.
    pub project: String,
    /// From 1, without gaps.
    pub revision: i64,
    /// The whole registry.
    pub body: Value,
    /// When.
    pub at: Millis,
}

/// See [`Write::SetPaused`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetPaused {
    /// The project.
    pub project: String,
    /// The workflow's name.
    pub workflow: String,
    /// Whether it is paused from now on.
    pub paused: bool,
    /// When.
    pub at: Millis,
}

/// See [`Write::PutRepo`].
#[derive(Clone, Debug, PartialEq)]
pub struct PutRepo {
    /// The project.
    pub project: String,
    /// The name that filters use.
    pub name: String,
    /// URL or path.
    pub url: String,
    /// The default branch, when known.
    pub default_branch: Option<String>,
    /// Whether our post-receive hook is installed there.
    pub hook: bool,
    /// Why the last fetch failed; none when it worked.
    pub reason: Option<String>,
    /// Name of the secret that holds its credentials.
    pub secret: Option<String>,
    /// How often its heads are looked at, in milliseconds; 0: never; none: as often as its kind has it.
    pub poll_ms: Option<u64>,
    /// How its server is asked, beside the secret: a JSON object.
    pub access: Value,
}

/// See [`Write::NoteRepo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteRepo {
    /// The project.
    pub project: String,
    /// Its name.
    pub name: String,
    /// The URL that was asked.
    pub url: String,
    /// The default branch; none: not learnt, what is known stays.
    pub default_branch: Option<String>,
    /// What went wrong; none: nothing.
    pub reason: Option<String>,
}

/// See [`Write::RemoveRepo`], [`Write::RemoveWatch`], [`Write::RemoveTrigger`] and [`Write::RemoveSecret`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveNamed {
    /// The project.
    pub project: String,
    /// The name.
    pub name: String,
}

/// See [`Write::PutWatch`].
#[derive(Clone, Debug, PartialEq)]
pub struct PutWatch {
    /// The project.
    pub project: String,
    /// The dataset's name.
    pub name: String,
    /// Absolute path of the folder or file.
    pub path: String,
    /// It must have been unchanged this long, in milliseconds.
    pub settle_ms: u64,
    /// The watcher's own state.
    pub state: Value,
}

/// See [`Write::Report`].
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The project.
    pub project: String,
    /// The run.
    pub run: RunId,
    /// When to try first.
    pub due_at: Millis,
    /// What is to be reported where.
    pub body: Value,
}

/// See [`Write::ReportDone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportDone {
    /// The run.
    pub run: RunId,
    /// As it was read; a report that has replaced it meanwhile stays.
    pub due_at: Millis,
}

/// See [`Write::ReportRetry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRetry {
    /// The run.
    pub run: RunId,
    /// When to try again.
    pub due_at: Millis,
    /// What went wrong.
    pub reason: String,
}

/// See [`Write::SetMeta`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetMeta {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// See [`Write::ForgetSeen`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForgetSeen {
    /// Identities seen before this time go.
    pub before: Millis,
}
