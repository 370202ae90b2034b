//! The store's face.

use std::{collections::BTreeSet, time::Duration};

use kickwheel_schemas::{Digest, Millis, RunId};

use crate::{
    EventKey, OpenError, Options, ReadError, ShardLease, Write, WriteError, Written,
    rows::{
        AssetKind, AssetRow, AssetVersionRow, CacheRecordRow, CacheRow, Counts, EventFilter, EventRow, InboxRow,
        JournalRow, PlanRow, RefHead, RegistryRow, RepoRow, ReportRow, RunFilter, RunRow, SnapshotRow, StoredDecision,
        TransitionRow, WatchRow,
    },
};

/// Which database is behind a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

/// Whether writes are possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The last write went well.
    Ok,
    /// The database takes no writes now; the store tries again by itself.
    Paused {
        /// What the database said.
        reason: String,
        /// Since when.
        since: Millis,
    },
}

/// The durable store. Cheap to clone; all clones share one writer and one pool of readers.
#[derive(Clone, Debug)]
pub struct Store {}

impl Store {
    /// Opens a file path, `sqlite://PATH` or `postgres://…` with the default options, and migrates it.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        Self::open_with(url, Options::default()).await
    }
    /// Opens and migrates.
    pub async fn open_with(url: &str, options: Options) -> Result<Self, OpenError> {
        todo!()
    }
    /// Which database is behind it.
    pub fn member(&self) -> Member {
        todo!()
    }
    /// How many shards this installation has.
    pub fn shards(&self) -> u32 {
        todo!()
    }
    /// Writes one unit: all of it, in order, or nothing. Answers after the commit is on disk, one [`Written`] per write.
    /// A caller that stops waiting does not undo it.
    pub async fn write(&self, unit: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        todo!()
    }
    /// Takes up to `limit` shards that are free, expired, or `owner`'s already, raising their epochs. `exclusive` takes
    /// all of them whoever had them: only for a caller that has proved that no other engine lives.
    pub async fn acquire(
        &self,
        owner: &str,
        limit: u32,
        lease: Duration,
        exclusive: bool,
    ) -> Result<Vec<ShardLease>, WriteError> {
        todo!()
    }
    /// Extends the leases of `owner`; gives those that it still has.
    pub async fn renew(&self, owner: &str, lease: Duration) -> Result<Vec<ShardLease>, WriteError> {
        todo!()
    }
    /// Gives up all shards of `owner`.
    pub async fn release(&self, owner: &str) -> Result<(), WriteError> {
        todo!()
    }
    /// Whether writes are possible.
    pub fn health(&self) -> Health {
        todo!()
    }
    /// Follows [`Store::health`].
    pub fn watch_health(&self) -> tokio::sync::watch::Receiver<Health> {
        todo!()
    }
    /// Writes what is queued, then closes every connection. Later writes are `Unavailable`.
    pub async fn close(&self) {
        todo!()
    }
    /// The run, if there is one.
    pub async fn run(&self, run: RunId) -> Result<Option<RunRow>, ReadError> {
        todo!()
    }
    /// Up to two runs whose ids begin with `prefix`: one means that it is unique.
    pub async fn runs_by_prefix(&self, prefix: &str) -> Result<Vec<RunRow>, ReadError> {
        todo!()
    }
    /// Runs, newest first.
    pub async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, ReadError> {
        todo!()
    }
    /// The run that an event started for a workflow in a generation.
    pub async fn run_of(
        &self,
        project: &str,
        workflow: &str,
        event_source: &str,
        event_id: &str,
        generation: u32,
    ) -> Result<Option<RunId>, ReadError> {
        todo!()
    }
    /// The highest generation in which an event started a workflow.
    pub async fn last_generation(
        &self,
        project: &str,
        workflow: &str,
        event_source: &str,
        event_id: &str,
    ) -> Result<Option<u32>, ReadError> {
        todo!()
    }
    /// Runs that an event started, oldest first.
    pub async fn runs_of_event(&self, key: EventKey) -> Result<Vec<RunId>, ReadError> {
        todo!()
    }
    /// A run's events from `from_seq` on, in order, whether sealed or not.
    pub async fn journal(&self, run: RunId, from_seq: u64) -> Result<Vec<JournalRow>, ReadError> {
        todo!()
    }
    /// A run's snapshot.
    pub async fn snapshot(&self, run: RunId) -> Result<Option<SnapshotRow>, ReadError> {
        todo!()
    }
    /// Runs of a shard that somebody has to act for: open commands, a timer, or inbox rows. Oldest first.
    pub async fn open_runs(&self, shard: u32) -> Result<Vec<RunRow>, ReadError> {
        todo!()
    }
    /// Runs of a shard whose timer is due at `now`.
    pub async fn due_wakes(&self, shard: u32, now: Millis, limit: u32) -> Result<Vec<RunRow>, ReadError> {
        todo!()
    }
    /// Runs that have ended and are not sealed, those that ended first first.
    pub async fn unsealed_finished(&self, limit: u32) -> Result<Vec<RunRow>, ReadError> {
        todo!()
    }
    /// Inputs that wait for runs of a shard, oldest first.
    pub async fn inbox(&self, shard: u32, limit: u32) -> Result<Vec<InboxRow>, ReadError> {
        todo!()
    }
    /// Inputs that wait for one run, oldest first.
    pub async fn inbox_of(&self, shard: u32, run: RunId) -> Result<Vec<InboxRow>, ReadError> {
        todo!()
    }
    /// The first undecided event of each lane that is not parked beyond `now`; those that are due longest first.
    pub async fn undecided(&self, now: Millis, limit: u32) -> Result<Vec<EventRow>, ReadError> {
        todo!()
    }
    /// When the next parked lane is due, for those that are parked beyond `now`.
    pub async fn next_due(&self, now: Millis) -> Result<Option<Millis>, ReadError> {
        todo!()
    }
    /// The event, if there is one.
    pub async fn event(&self, key: EventKey) -> Result<Option<EventRow>, ReadError> {
        todo!()
    }
    /// Up to two events whose keys begin with `prefix`: one means that it is unique.
    pub async fn events_by_prefix(&self, prefix: &str) -> Result<Vec<EventRow>, ReadError> {
        todo!()
    }
    /// The key under which an identity was accepted, as long as it is remembered.
    pub async fn event_by_identity(
        &self,
        project: &str,
        source: &str,
        id: &str,
    ) -> Result<Option<EventKey>, ReadError> {
        todo!()
    }
    /// Events, newest first.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<EventRow>, ReadError> {
        todo!()
    }
    /// What was decided about an event, except *filtered*.
    pub async fn decisions(&self, key: EventKey) -> Result<Vec<StoredDecision>, ReadError> {
        todo!()
    }
    /// Where a ref stood after its last recorded move; none when no move was ever recorded.
    pub async fn ref_head(&self, project: &str, repo: &str, ref_name: &str) -> Result<Option<RefHead>, ReadError> {
        todo!()
    }
    /// The newest transitions of a ref, newest first.
    pub async fn transitions(
        &self,
        project: &str,
        repo: &str,
        ref_name: &str,
        limit: u32,
    ) -> Result<Vec<TransitionRow>, ReadError> {
        todo!()
    }
    /// A compiled workflow.
    pub async fn plan(&self, project: &str, plan_digest: &Digest) -> Result<Option<PlanRow>, ReadError> {
        todo!()
    }
    /// Every version of a workflow that was ever compiled, newest first.
    pub async fn plan_versions(&self, project: &str, name: &str) -> Result<Vec<PlanRow>, ReadError> {
        todo!()
    }
    /// A revision of a project's registry, or the newest.
    pub async fn registry(&self, project: &str, revision: Option<i64>) -> Result<Option<RegistryRow>, ReadError> {
        todo!()
    }
    /// Names of the paused workflows of a project.
    pub async fn paused(&self, project: &str) -> Result<BTreeSet<String>, ReadError> {
        todo!()
    }
    /// Bound repositories by name; of all projects if none is given.
    pub async fn repos(&self, project: Option<&str>) -> Result<Vec<RepoRow>, ReadError> {
        todo!()
    }
    /// A bound repository.
    pub async fn repo(&self, project: &str, name: &str) -> Result<Option<RepoRow>, ReadError> {
        todo!()
    }
    /// Watched datasets by name; of all projects if none is given.
    pub async fn watches(&self, project: Option<&str>) -> Result<Vec<WatchRow>, ReadError> {
        todo!()
    }
    /// A named model or dataset with its versions.
    pub async fn asset(&self, project: &str, kind: AssetKind, name: &str) -> Result<Option<AssetRow>, ReadError> {
        todo!()
    }
    /// All models or datasets of a project by name, each with its newest version only.
    pub async fn assets(&self, project: &str, kind: AssetKind) -> Result<Vec<AssetRow>, ReadError> {
        todo!()
    }
    /// One version, or the newest.
    pub async fn asset_version(
        &self,
        project: &str,
        kind: AssetKind,
        name: &str,
        version: Option<u64>,
    ) -> Result<Option<AssetVersionRow>, ReadError> {
        todo!()
    }
    /// The version that a stage of a model points at.
    pub async fn stage(&self, project: &str, name: &str, stage: &str) -> Result<Option<AssetVersionRow>, ReadError> {
        todo!()
    }
    /// A result kept under a content key.
    pub async fn cache_get(&self, project: &str, scope: &str, key: &str) -> Result<Option<CacheRow>, ReadError> {
        todo!()
    }
    /// How a task's content key was made up.
    pub async fn cache_record(&self, task: &str) -> Result<Option<CacheRecordRow>, ReadError> {
        todo!()
    }
    /// Records of the same step from runs before `before`, newest first: what a miss can be compared with.
    pub async fn earlier_cache_records(
        &self,
        project: &str,
        workflow: &str,
        step: &str,
        before: RunId,
        limit: u32,
    ) -> Result<Vec<CacheRecordRow>, ReadError> {
        todo!()
    }
    /// Reports that are due at `now`, those that are due longest first.
    pub async fn reports_due(&self, now: Millis, limit: u32) -> Result<Vec<ReportRow>, ReadError> {
        todo!()
    }
    /// When the next report is due.
    pub async fn next_report(&self) -> Result<Option<Millis>, ReadError> {
        todo!()
    }
    /// A value of the whole installation.
    pub async fn meta(&self, key: &str) -> Result<Option<String>, ReadError> {
        todo!()
    }
    /// Numbers for metrics.
    pub async fn counts(&self) -> Result<Counts, ReadError> {
        todo!()
    }
}
