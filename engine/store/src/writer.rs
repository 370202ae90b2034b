//! The one writer: group commit, refusals, pausing and resuming.
//!
//! Everything that is written goes through one task with one connection. It takes all units that are waiting, runs them
//! in one transaction, commits once, and then answers all of them: while a commit is on its way to the disk, the next
//! batch gathers by itself. The common case has no savepoints; when something in a batch is refused, the batch is rolled
//! back and done again with a savepoint per unit, so that only the unit concerned is refused.
//!
//! When the database is away, units are answered `Unavailable` at once and the store is paused. While it is paused, the
//! writer probes by itself with growing waits, so that it also recovers when nobody writes.
//!
//! On SQLite it has a thread to itself, where each statement is a plain call; on Postgres it is a task among others.

use std::time::Duration;

use kickwheel_schemas::Millis;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    Write, WriteError, Written,
    apply::{self, Applied, Gathered, Refusal, ShardSeqs, Tx},
    db::Conn,
    error::{Cause, sqlite_code},
    fault,
    lease::{LeaseRequest, ShardLease},
    open::{FileIdentity, Target},
    partition::{PartitionLease, PartitionRequest},
    store::{Health, Member},
};

/// Units in one transaction at most.
const BATCH_UNITS: usize = 512;
/// Units that may wait; who comes later waits for a place.
pub const QUEUE: usize = 8 * BATCH_UNITS;
/// How often a batch is done again because another transaction collided with it.
const COLLISIONS: u32 = 3;
/// The first wait before a database that went away is tried again.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const BACKOFF_LAST: Duration = Duration::from_secs(5);
/// How long saying goodbye to a server may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Length of what a probe writes: enough that a full disk shows.
const PROBE_BYTES: usize = 16 * 1024;

/// What a unit is answered.
pub type Answer = Result<Vec<Written>, WriteError>;

/// What the writer is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Write a unit.
    Unit(Unit),
    /// Change leases of shards.
    Lease(LeaseRequest, oneshot::Sender<Result<Vec<ShardLease>, WriteError>>),
    /// Change leases of partitions.
    Partitions(PartitionRequest, oneshot::Sender<Result<Vec<PartitionLease>, WriteError>>),
    /// Finish what came before, then stop.
    Close(oneshot::Sender<()>),
    /// Run a statement outside any transaction, for tests of what this connection meets.
    #[cfg(test)]
    Raw(&'static str, oneshot::Sender<()>),
}

/// A unit that waits for its answer.
#[derive(Debug)]
pub struct Unit {
    /// What is to be written.
    pub writes: Vec<Write>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// The writer's own state.
#[derive(Debug)]
pub struct Writer {
    target: Target,
    conn: Option<Conn>,
    /// The file that the connection writes to.
    file: Option<FileIdentity>,
    seqs: ShardSeqs,
    health: watch::Sender<Health>,
    backoff: Backoff,
}

/// When a database that is away may be tried again.
#[derive(Debug)]
struct Backoff {
    wait: Duration,
    not_before: Instant,
}

/// How the attempt to write a batch in one transaction ended.
enum Outcome {
    /// Committed; one answer per unit.
    Answered(Vec<Answer>),
    /// Something in it was refused, and nothing is written: units have to be told apart.
    Mixed,
    /// No room for all of it, and nothing is written: smaller ones may fit.
    Full(String),
    /// Another transaction was in the way; nothing is written.
    Collision(String),
    /// The database is away; nothing is written.
    Away(String),
    /// The connection broke during the commit.
    Unknown(String),
}

impl Writer {
    /// Begins to work, where its kind of database has it.
    pub fn start(self, jobs: mpsc::Receiver<Job>) -> std::io::Result<()> {
        match self.conn.as_ref().map(Conn::member) {
            Some(Member::Sqlite) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
                std::thread::Builder::new()
                    .name("kickwheel-writer".to_owned())
                    .spawn(move || runtime.block_on(self.run(jobs)))?;
            }
            Some(Member::Postgres) | None => _ = tokio::spawn(self.run(jobs)),
        }
        Ok(())
    }

    /// A writer on an open connection.
    pub fn new(target: Target, conn: Conn, health: watch::Sender<Health>) -> Self {
        let backoff = Backoff { wait: BACKOFF_FIRST, not_before: Instant::now() };
        let file = target.file_identity().and_then(Result::ok);
        Self { target, conn: Some(conn), file, seqs: ShardSeqs::default(), health, backoff }
    }

    /// Works until it is closed or nobody can ask any more.
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut taken = Vec::with_capacity(BATCH_UNITS);
        loop {
            let paused = matches!(*self.health.borrow(), Health::Paused { .. });
            let probe_at = self.backoff.not_before;
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(probe_at), if paused => self.probe().await,
                count = jobs.recv_many(&mut taken, BATCH_UNITS) => {
                    if count == 0 {
                        break;
                    }
                    gather(&mut jobs, &mut taken).await;
                    if let Some(closed) = self.work(&mut taken).await {
                        jobs.close();
                        self.close().await;
                        // Nobody waiting for it is fine.
                        let _ = closed.send(());
                        return;
                    }
                }
            }
        }
        self.close().await;
    }

    /// Lets go of the connection. A server that is away is not waited for.
    async fn close(&mut self) {
        self.seqs.clear();
        if let Some(conn) = self.conn.take() {
            let _ = tokio::time::timeout(CLOSE_LIMIT, conn.close()).await;
        }
    }

    /// Does jobs in their order, neighbouring units together.
    async fn work(&mut self, jobs: &mut Vec<Job>) -> Option<oneshot::Sender<()>> {
        let mut units = Vec::with_capacity(jobs.len());
        for job in jobs.drain(..) {
            match job {
                Job::Unit(unit) => units.push(unit),
                Job::Lease(request, reply) => {
                    self.write_batch(std::mem::take(&mut units)).await;
                    let answer = self.lease(&request).await;
                    let _ = reply.send(answer);
                }
                Job::Partitions(request, reply) => {
                    self.write_batch(std::mem::take(&mut units)).await;
                    let answer = self.lease_partitions(&request).await;
                    let _ = reply.send(answer);
                }
                Job::Close(closed) => {
                    self.write_batch(std::mem::take(&mut units)).await;
                    return Some(closed);
                }
                #[cfg(test)]
                Job::Raw(sql, reply) => {
                    self.write_batch(std::mem::take(&mut units)).await;
                    let conn = self.conn.as_mut().expect("tests ask while connected");
                    conn.script(sql).await.expect("tests give statements that work");
                    let _ = reply.send(());
                }
            }
        }
        self.write_batch(units).await;
        None
    }

    /// Writes units and answers them.
    async fn write_batch(&mut self, units: Vec<Unit>) {
        if units.is_empty() {
            return;
        }
        let (writes, replies): (Vec<_>, Vec<_>) = units.into_iter().map(|unit| (unit.writes, unit.reply)).unzip();
        let answers = self.answers(&writes).await;
        for (reply, answer) in replies.into_iter().zip(answers) {
            // Who stopped waiting does not want to know.
            let _ = reply.send(answer);
        }
    }

    async fn answers(&mut self, units: &[Vec<Write>]) -> Vec<Answer> {
        let all = |error: WriteError| units.iter().map(|_| Err(error.clone())).collect();
        let mut collisions = 0;
        let mut savepoints = false;
        loop {
            if let Err(reason) = self.connect().await {
                return all(WriteError::Unavailable { reason });
            }
            match self.attempt(units, savepoints).await {
                Outcome::Answered(answers) => {
                    self.resumed();
                    return answers;
                }
                Outcome::Mixed if !savepoints => savepoints = true,
                Outcome::Mixed => {
                    return all(WriteError::Unavailable {
                        reason: "the transaction could not be told apart".to_owned(),
                    });
                }
                Outcome::Collision(_) if collisions < COLLISIONS => collisions += 1,
                Outcome::Full(reason) if units.len() > 1 => return self.one_by_one(units, reason).await,
                Outcome::Full(reason) | Outcome::Collision(reason) => {
                    self.paused(&reason);
                    return all(WriteError::Unavailable { reason });
                }
                Outcome::Away(reason) => {
                    self.lost(&reason).await;
                    return all(WriteError::Unavailable { reason });
                }
                Outcome::Unknown(reason) => {
                    self.lost(&reason).await;
                    return all(WriteError::Unknown { reason });
                }
            }
        }
    }

    /// When there is no room for all, one large unit must not keep out the small ones.
    async fn one_by_one(&mut self, units: &[Vec<Write>], reason: String) -> Vec<Answer> {
        self.paused(&reason);
        let mut answers = Vec::with_capacity(units.len());
        for unit in units {
            let mut answer = Box::pin(self.answers(std::slice::from_ref(unit))).await;
            answers.push(answer.pop().expect("one unit has one answer"));
        }
        answers
    }

    /// One transaction over all units.
    async fn attempt(&mut self, units: &[Vec<Write>], savepoints: bool) -> Outcome {
        let conn = self.conn.as_mut().expect("connected before");
        if let Err(error) = conn.begin().await {
            // Nothing was begun, so nothing is written, whatever the error was.
            return Outcome::Away(error.to_string());
        }
        let mut tx = Tx { conn, seqs: &mut self.seqs, gathered: Gathered::default() };
        let applied = if savepoints { each_apart(&mut tx, units).await } else { all_together(&mut tx, units).await };
        let outcome = match applied {
            Ok(answers) => {
                fault::point("store.commit.before");
                match tx.conn.commit().await {
                    Ok(()) => {
                        fault::point("store.commit.after");
                        return Outcome::Answered(answers);
                    }
                    Err(error) => commit_failed(&error),
                }
            }
            Err(Refusal::Unit(_)) => Outcome::Mixed,
            Err(Refusal::Database(error)) => match Cause::of(&error) {
                Cause::Data(_) => Outcome::Mixed,
                Cause::Full(reason) => Outcome::Full(reason),
                Cause::Away(reason) => Outcome::Away(reason),
                Cause::Collision(reason) => Outcome::Collision(reason),
            },
        };
        self.seqs.clear();
        self.rollback().await;
        outcome
    }

    /// Leaves no transaction open. SQLite ends it by itself after some errors; then there is nothing to roll back.
    async fn rollback(&mut self) {
        let Some(conn) = self.conn.as_mut() else { return };
        if let Err(error) = conn.script("ROLLBACK").await
            && !error.to_string().contains("no transaction is active")
        {
            self.close().await;
        }
    }

    async fn connect(&mut self) -> Result<(), String> {
        self.check_file().await;
        if self.conn.is_some() {
            return Ok(());
        }
        if Instant::now() < self.backoff.not_before
            && let Health::Paused { reason, .. } = &*self.health.borrow()
        {
            return Err(reason.clone());
        }
        match self.target.connect().await {
            Ok(conn) => {
                self.conn = Some(conn);
                self.file = self.target.file_identity().and_then(Result::ok);
                self.seqs.clear();
                Ok(())
            }
            Err(error) => {
                let reason = error.to_string();
                self.paused(&reason);
                Err(reason)
            }
        }
    }

    /// Lets go of a connection whose file is no longer where it was.
    async fn check_file(&mut self) {
        let Some(now) = self.target.file_identity() else { return };
        if self.conn.is_some() && now.ok() != self.file {
            self.close().await;
        }
    }

    async fn lease(&mut self, request: &LeaseRequest) -> Result<Vec<ShardLease>, WriteError> {
        let applied = request.apply(self.begin_alone().await?).await;
        self.end_alone(applied).await
    }

    async fn lease_partitions(&mut self, request: &PartitionRequest) -> Result<Vec<PartitionLease>, WriteError> {
        let applied = request.apply(self.begin_alone().await?).await;
        self.end_alone(applied).await
    }

    /// Begins a transaction that holds no units.
    async fn begin_alone(&mut self) -> Result<&mut Conn, WriteError> {
        self.connect().await.map_err(|reason| WriteError::Unavailable { reason })?;
        let conn = self.conn.as_mut().expect("connected before");
        if let Err(error) = conn.begin().await {
            let reason = error.to_string();
            self.lost(&reason).await;
            return Err(WriteError::Unavailable { reason });
        }
        Ok(self.conn.as_mut().expect("connected before"))
    }

    /// Commits it, or leaves nothing behind.
    async fn end_alone<T>(&mut self, applied: Result<T, sqlx::Error>) -> Result<T, WriteError> {
        let conn = self.conn.as_mut().expect("began on it");
        let failed = match applied {
            Ok(answer) => match conn.commit().await {
                Ok(()) => {
                    self.resumed();
                    return Ok(answer);
                }
                Err(error) => commit_failed(&error),
            },
            Err(error) => Outcome::Away(error.to_string()),
        };
        self.rollback().await;
        Err(match failed {
            Outcome::Unknown(reason) => {
                self.lost(&reason).await;
                WriteError::Unknown { reason }
            }
            Outcome::Full(reason) | Outcome::Collision(reason) | Outcome::Away(reason) => {
                self.lost(&reason).await;
                WriteError::Unavailable { reason }
            }
            Outcome::Answered(_) | Outcome::Mixed => {
                WriteError::Invalid { message: "the leases could not be changed".to_owned() }
            }
        })
    }

    /// Tries whether writes work again: writes as much as a small unit would.
    async fn probe(&mut self) {
        let value = "0".repeat(PROBE_BYTES);
        let probe = vec![vec![Write::SetMeta(crate::write::SetMeta { key: "probe".to_owned(), value })]];
        // The answer shows in the health.
        let _ = self.answers(&probe).await;
    }

    fn paused(&mut self, reason: &str) {
        self.backoff.not_before = Instant::now() + self.backoff.wait;
        self.backoff.wait = (self.backoff.wait * 2).min(BACKOFF_LAST);
        self.health.send_if_modified(|health| {
            let since = match health {
                Health::Ok => Millis::now(),
                Health::Paused { since, .. } => *since,
            };
            let now = Health::Paused { reason: reason.to_owned(), since };
            let changed = *health != now;
            if changed {
                tracing::warn!(reason, "the database takes no writes; pausing");
                *health = now;
            }
            changed
        });
    }

    async fn lost(&mut self, reason: &str) {
        self.close().await;
        self.paused(reason);
    }

    fn resumed(&mut self) {
        self.backoff.wait = BACKOFF_FIRST;
        self.health.send_if_modified(|health| {
            let changed = *health != Health::Ok;
            if changed {
                tracing::info!("the database takes writes again");
                *health = Health::Ok;
            }
            changed
        });
    }
}

/// Lets those who were answered just now ask again before the next commit begins, as long as more and more do: else the
/// first of them would have a commit to itself, and all others would wait for it.
async fn gather(jobs: &mut mpsc::Receiver<Job>, taken: &mut Vec<Job>) {
    let mut before = 0;
    while taken.len() > before && taken.len() < BATCH_UNITS {
        before = taken.len();
        tokio::task::yield_now().await;
        while taken.len() < BATCH_UNITS
            && let Ok(job) = jobs.try_recv()
        {
            taken.push(job);
        }
    }
}

/// What a failed commit means. A server that *answered* with an error has rolled back. If the answer never came, or
/// SQLite could not sync its log, the commit may have happened.
fn commit_failed(error: &sqlx::Error) -> Outcome {
    if error.as_database_error().is_none() {
        return Outcome::Unknown(error.to_string());
    }
    match Cause::of(error) {
        Cause::Data(_) => Outcome::Mixed,
        Cause::Full(reason) => Outcome::Full(reason),
        Cause::Collision(reason) => Outcome::Collision(reason),
        Cause::Away(reason) if is_busy(error) => Outcome::Away(reason),
        Cause::Away(reason) => Outcome::Unknown(reason),
    }
}

/// SQLite could not get the lock that a commit needs: nothing was written.
fn is_busy(error: &sqlx::Error) -> bool {
    const SQLITE_BUSY: i32 = 5;
    error.as_database_error().and_then(sqlite_code).is_some_and(|code| code & 0xff == SQLITE_BUSY)
}

/// All units without savepoints: any refusal refuses the attempt.
async fn all_together(tx: &mut Tx<'_>, units: &[Vec<Write>]) -> Applied<Vec<Answer>> {
    let mut answers = Vec::with_capacity(units.len());
    for unit in units {
        answers.push(Ok(apply::apply_unit(tx, unit).await?));
    }
    apply::flush(tx).await?;
    Ok(answers)
}

/// Each unit in a savepoint of its own; those that are refused leave nothing behind.
async fn each_apart(tx: &mut Tx<'_>, units: &[Vec<Write>]) -> Applied<Vec<Answer>> {
    let mut answers = Vec::with_capacity(units.len());
    for unit in units {
        tx.conn.execute("SAVEPOINT unit", []).await?;
        let applied = match apply::apply_unit(tx, unit).await {
            Ok(written) => apply::flush(tx).await.map(|()| written),
            Err(refusal) => Err(refusal),
        };
        let answer = match applied {
            Ok(written) => Ok(written),
            Err(refusal) => {
                let error = match refusal {
                    Refusal::Unit(error) => error,
                    Refusal::Database(error) => match Cause::of(&error) {
                        Cause::Data(message) => WriteError::Invalid { message },
                        Cause::Full(_) | Cause::Away(_) | Cause::Collision(_) => return Err(error.into()),
                    },
                };
                tx.gathered = Gathered::default();
                tx.seqs.clear();
                tx.conn.execute("ROLLBACK TO SAVEPOINT unit", []).await?;
                Err(error)
            }
        };
        tx.conn.execute("RELEASE SAVEPOINT unit", []).await?;
        answers.push(answer);
    }
    Ok(answers)
}
