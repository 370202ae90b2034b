//! The store's face: opening, writing, leases and health. Reads are in `read`, by subject.

use std::{sync::Arc, time::Duration};

use kickwheel_schemas::Millis;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    OpenError, Options, PartitionLease, ShardLease, Write, WriteError, Written,
    db::Readers,
    lease::{LeaseRequest, create_shards},
    migrate::migrate,
    open::Target,
    partition::PartitionRequest,
    writer::{Job, QUEUE, Unit, Writer},
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
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    member: Member,
    shards: u32,
    jobs: mpsc::Sender<Job>,
    readers: Readers,
    health: watch::Receiver<Health>,
}

impl Store {
    /// Opens a file path, `sqlite://PATH` or `postgres://…` with the default options, and migrates it.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        Self::open_with(url, Options::default()).await
    }

    /// Opens and migrates. Must be called inside a tokio runtime, which then runs the writer.
    pub async fn open_with(url: &str, options: Options) -> Result<Self, OpenError> {
        let target = Target::parse(url, &options)?;
        let mut conn = target.connect().await.map_err(|e| target.explain(&e))?;
        migrate(&mut conn).await?;
        let shards = create_shards(&mut conn, options.shards).await.map_err(|e| target.explain(&e))?;
        let target = target.opened(&mut conn).await.map_err(|e| OpenError::Unreachable { message: e.to_string() })?;
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let (tell, health) = watch::channel(Health::Ok);
        let (member, readers) = (conn.member(), target.readers());
        let started = Writer::new(target, conn, tell).start(waiting);
        started.map_err(|e| OpenError::Unreachable { message: format!("its writer has no thread: {e}") })?;
        Ok(Self { shared: Arc::new(Shared { member, shards, jobs, readers, health }) })
    }

    /// Which database is behind it.
    pub fn member(&self) -> Member {
        self.shared.member
    }

    /// How many shards this installation has.
    pub fn shards(&self) -> u32 {
        self.shared.shards
    }

    pub(crate) fn readers(&self) -> &Readers {
        &self.shared.readers
    }

    /// Writes one unit: all of it, in order, or nothing. Answers after the commit is on disk, one [`Written`] per write.
    /// Units that one caller sends one after the other are written in that order, also without waiting in between.
    /// A caller that stops waiting does not undo it.
    pub async fn write(&self, unit: Vec<Write>) -> Result<Vec<Written>, WriteError> {
        self.ask(|reply| Job::Unit(Unit { writes: unit, reply })).await
    }

    /// Takes up to `limit` shards that are free or whose lease has ended, raising their epochs; gives those that it took.
    /// `exclusive` takes shards whoever has them: only for a caller that has proved that no other engine lives.
    pub async fn acquire(
        &self,
        owner: &str,
        limit: u32,
        lease: Duration,
        exclusive: bool,
    ) -> Result<Vec<ShardLease>, WriteError> {
        self.lease(LeaseRequest::Acquire { owner: owner.to_owned(), limit, lease, exclusive }).await
    }

    /// Extends the leases of `owner`; gives those that it still has.
    pub async fn renew(&self, owner: &str, lease: Duration) -> Result<Vec<ShardLease>, WriteError> {
        self.lease(LeaseRequest::Renew { owner: owner.to_owned(), lease }).await
    }

    /// Gives up all shards of `owner`.
    pub async fn release(&self, owner: &str) -> Result<(), WriteError> {
        self.lease(LeaseRequest::Release { owner: owner.to_owned() }).await.map(drop)
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Vec<ShardLease>, WriteError> {
        self.ask(|reply| Job::Lease(request, reply)).await
    }

    /// Takes up to `limit` partitions of a topic that are free or whose lease has ended, raising their epochs; gives those
    /// that it took, with where to read on. Stopped ones are never taken. `exclusive` as for [`Store::acquire`].
    pub async fn acquire_partitions(
        &self,
        topic: &str,
        owner: &str,
        limit: u32,
        lease: Duration,
        exclusive: bool,
    ) -> Result<Vec<PartitionLease>, WriteError> {
        let (topic, owner) = (topic.to_owned(), owner.to_owned());
        self.lease_partitions(PartitionRequest::Acquire { topic, owner, limit, lease, exclusive }).await
    }

    /// Extends the leases of `owner` on partitions of all topics; gives those that it still has.
    pub async fn renew_partitions(&self, owner: &str, lease: Duration) -> Result<Vec<PartitionLease>, WriteError> {
        self.lease_partitions(PartitionRequest::Renew { owner: owner.to_owned(), lease }).await
    }

    /// Gives up all partitions of `owner`.
    pub async fn release_partitions(&self, owner: &str) -> Result<(), WriteError> {
        self.lease_partitions(PartitionRequest::Release { owner: owner.to_owned() }).await.map(drop)
    }

    async fn lease_partitions(&self, request: PartitionRequest) -> Result<Vec<PartitionLease>, WriteError> {
        self.ask(|reply| Job::Partitions(request, reply)).await
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, WriteError>>) -> Job) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        let closed = || WriteError::Unavailable { reason: "the store is closed".to_owned() };
        self.shared.jobs.send(job(reply)).await.map_err(|_| closed())?;
        // No answer: the writer went away after it took the job, because its runtime is shutting down.
        let gone = |_| WriteError::Unknown { reason: "the store was closed meanwhile".to_owned() };
        answer.await.map_err(gone)?
    }

    /// Whether writes are possible.
    pub fn health(&self) -> Health {
        self.shared.health.borrow().clone()
    }

    /// Follows [`Store::health`].
    pub fn watch_health(&self) -> watch::Receiver<Health> {
        self.shared.health.clone()
    }

    /// Writes what is queued, then closes every connection. Later writes are `Unavailable`.
    pub async fn close(&self) {
        self.shared.readers.close().await;
        let (reply, closed) = oneshot::channel();
        if self.shared.jobs.send(Job::Close(reply)).await.is_ok() {
            // An error means that it is closed already.
            let _ = closed.await;
        }
    }

    /// Runs a statement on the writer's connection, for tests of what that connection meets.
    #[cfg(test)]
    pub(crate) async fn raw(&self, sql: &'static str) {
        let (reply, done) = oneshot::channel();
        self.shared.jobs.send(Job::Raw(sql, reply)).await.expect("open");
        done.await.expect("answered");
    }
}
