//! Executing the user's program and staying with it: heartbeat, time-out, cancel, memory, and nothing left at the end.
//!
//! One loop on one thread. Stopping is SIGTERM to the program's process group, then a grace, then SIGKILL to everything
//! below the runner. The grace belongs to the whole group: a shell dies of SIGTERM at once while the training program that
//! it started still writes its checkpoint. A program that ends by itself leaves nothing behind either: what it started and
//! did not wait for is killed, because nobody would ever count or limit it.

use std::{fs, io, os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use kickwheel_schemas::{
    Millis,
    runner::{CancelRequest, Heartbeat, JobEnd, file},
};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::Child,
    signal::unix::Signal as Terminate,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until},
};

use crate::{
    attempt::Attempt,
    log::Log,
    mask::Masker,
    memory::{self, Limit},
    metrics::Metrics,
    process,
    secrets::Delivered,
    setup::Layout,
    spawn::{is_not_assumed, spawn},
};

/// Between two heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks for a cancel request, for the case that the signal which announces it is lost.
const TICK: Duration = Duration::from_millis(200);

/// When the first heartbeat is written and memory is first looked at. A job that ends sooner goes without.
const FIRST_TICK: Duration = Duration::from_millis(10);

/// Between two looks whether the rest of a stopping job has ended.
const REST_INTERVAL: Duration = Duration::from_millis(5);

/// How long killed processes are waited for. One that hangs in the kernel is left, with a remark in the log.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What became of the program.
pub struct Execution {
    /// Its end.
    pub end: Ended,
    /// When it was started.
    pub started_at: Millis,
    /// When the last of its processes had ended.
    pub ended_at: Millis,
    /// In bytes.
    pub peak_rss_bytes: u64,
}

/// How the program ended.
pub enum Ended {
    /// To be reported.
    Job(JobEnd),
    /// The runner itself was told to go, by somebody who is not the engine: the machine is being shut down.
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    TimedOut,
    Cancelled,
    OutOfMemory,
    Interrupted,
}

#[derive(Clone, Copy)]
struct Stopping {
    why: Why,
    kill_at: Instant,
}

struct Supervision<'a> {
    attempt: &'a Attempt,
    log: &'a Log,
    limit: Limit,
    metrics: &'a mut Metrics,
    main: u32,
    main_ticks: u64,
    peak: u64,
    beat_at: Instant,
    stopping: Option<Stopping>,
}

/// Runs the program to its end. An error is the platform's: it could not be started at all.
pub async fn execute(
    attempt: &Attempt,
    layout: &Layout,
    log: &Log,
    secrets: Option<&Delivered>,
    metrics: &mut Metrics,
    terminate: &mut Terminate,
) -> Result<Execution, String> {
    let limit = Limit::of(&attempt.spec, &attempt.memory, &attempt.name)?;
    let entrance = match &limit {
        Limit::Cgroup(group) => group.entrance()?,
        Limit::None | Limit::Watch(_) => None,
    };
    let started_at = Millis::now();
    let (mut child, pipe) = match spawn(attempt, layout, secrets.map(Delivered::folder), entrance) {
        Ok(started) => started,
        Err(error) => {
            if let Limit::Cgroup(group) = limit {
                group.remove().await?;
            }
            if is_not_assumed(&error) {
                let name = attempt.user.as_ref().map_or("", |user| &user.name);
                return Err(format!("run the program as user {name}: the kernel refuses"));
            }
            let code = match error.kind() {
                io::ErrorKind::NotFound => 127,
                io::ErrorKind::PermissionDenied => 126,
                _ => return Err(format!("start the program: {error}")),
            };
            log.note(&format!("the program cannot be started: {error}"));
            let end = Ended::Job(JobEnd::Exited { code });
            return Ok(Execution { end, started_at, ended_at: Millis::now(), peak_rss_bytes: 0 });
        }
    };
    let main = child.id().expect("it has not been waited for");
    // The child is not reaped yet, so its entry is there even if it has ended already.
    let main_ticks = process::stat(main).map_or(0, |stat| stat.start_ticks);
    let masker = secrets.map(|delivered| Masker::new(delivered.secrets())).unwrap_or_default();
    let pump =
        log.pump(pipe, attempt.spec.log_limit_bytes, masker).map_err(|error| format!("read the log: {error}"))?;
    let mut supervision = Supervision {
        attempt,
        log,
        limit,
        metrics,
        main,
        main_ticks,
        peak: 0,
        beat_at: Instant::now(),
        stopping: None,
    };
    let status = supervision.stay(&mut child, terminate).await;
    supervision.end_rest().await;
    let ended_at = Millis::now();
    pump.finish().await;
    let (end, peak_rss_bytes) = supervision.conclude(status?).await;
    Ok(Execution { end, started_at, ended_at, peak_rss_bytes })
}

impl Supervision<'_> {
    /// Returns when the program has ended and, if it was being stopped, its group too or the grace is over.
    async fn stay(&mut self, child: &mut Child, terminate: &mut Terminate) -> Result<ExitStatus, String> {
        let timeout_at = self.attempt.spec.timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        let period = match self.limit {
            Limit::Watch(_) => memory::WATCH_INTERVAL,
            Limit::None | Limit::Cgroup(_) => TICK,
        };
        let mut tick = interval_at(Instant::now() + FIRST_TICK, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut exit: Option<ExitStatus> = None;
        loop {
            if let Some(status) = exit
                && (self.stopping.is_none_or(|stopping| stopping.kill_at <= Instant::now()) || !process::reap_all())
            {
                return Ok(status);
            }
            let kill_at = self.stopping.map(|stopping| stopping.kill_at);
            tokio::select! {
                status = child.wait(), if exit.is_none() => {
                    exit = Some(status.map_err(|error| format!("wait for the program: {error}"))?);
                }
                _ = terminate.recv() => self.on_terminate().await,
                () = sleep_until(timeout_at.unwrap_or_else(Instant::now)),
                    if timeout_at.is_some() && self.stopping.is_none() && exit.is_none() =>
                {
                    self.log.note("the time-out has passed; the job is stopped");
                    self.stop(Why::TimedOut, Duration::from_millis(self.attempt.spec.grace_ms));
                }
                () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => self.kill(),
                () = sleep(REST_INTERVAL), if exit.is_some() => {}
                _ = tick.tick() => self.on_tick(exit.is_some()).await,
            }
        }
    }

    /// Kills and reaps what is left, so that nothing of the job lives when its result is written.
    async fn end_rest(&self) {
        let deadline = Instant::now() + KILL_PATIENCE;
        while process::reap_all() {
            process::kill_descendants();
            if Instant::now() > deadline {
                self.log.note("some processes of the job hang in the kernel and could not be killed");
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn conclude(self, status: ExitStatus) -> (Ended, u64) {
        let (killed_by_cgroup, mut peak) = match &self.limit {
            Limit::Cgroup(group) => (group.has_killed(), group.peak().unwrap_or(0)),
            Limit::None | Limit::Watch(_) => (false, 0),
        };
        peak = peak.max(self.peak);
        if let Limit::Cgroup(group) = self.limit
            && let Err(problem) = group.remove().await
        {
            self.log.note(&format!("failed to {problem}"));
        }
        let out_of_memory = |mechanism: &str| JobEnd::OutOfMemory { mechanism: mechanism.to_owned() };
        let end = match self.stopping.map(|stopping| stopping.why) {
            Some(Why::Interrupted) => return (Ended::Interrupted, peak),
            Some(Why::TimedOut) => JobEnd::TimedOut,
            Some(Why::Cancelled) => JobEnd::Cancelled,
            Some(Why::OutOfMemory) => out_of_memory(memory::BY_WATCH),
            // A program that lives with the loss of a part of it has not failed.
            None if killed_by_cgroup && !status.success() => out_of_memory(memory::BY_CGROUP),
            None => match (status.code(), status.signal()) {
                (Some(0), _) => JobEnd::Succeeded,
                (Some(code), _) => JobEnd::Exited { code },
                (None, Some(signal)) => JobEnd::Signalled { signal },
                (None, None) => JobEnd::Exited { code: status.into_raw() },
            },
        };
        (Ended::Job(end), peak)
    }

    async fn on_tick(&mut self, has_exited: bool) {
        if self.stopping.is_none() && self.cancel_path().exists() {
            self.on_terminate().await;
        }
        let resident = memory::resident_bytes();
        self.peak = self.peak.max(resident);
        if self.limit.is_exceeded(resident) {
            if self.stopping.is_none() {
                let note = format!("the job uses {resident} bytes of memory, more than its limit; it is killed");
                self.log.note(&note);
                self.stopping = Some(Stopping { why: Why::OutOfMemory, kill_at: Instant::now() });
            }
            // A job that is being stopped for another reason loses its grace, but ends for that reason.
            self.kill();
        }
        if Instant::now() >= self.beat_at {
            if !has_exited {
                process::reap_orphans(self.main);
            }
            self.metrics.refresh();
            self.beat(resident).await;
        }
    }

    /// SIGTERM means: look whether the engine asks for the end. Without such a request, somebody else wants us gone.
    async fn on_terminate(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        match self.attempt.attempts.get::<CancelRequest>(&self.attempt.name).await {
            Ok(Some(request)) => {
                self.log.note("a cancel was requested; the job is stopped");
                self.stop(Why::Cancelled, Duration::from_millis(request.grace_ms));
            }
            Ok(None) => {
                self.log.note("the runner was told to end; the job is stopped");
                self.stop(Why::Interrupted, Duration::from_millis(self.attempt.spec.grace_ms));
            }
            // It cannot be read now; the next tick tries again.
            Err(_) => {}
        }
    }

    fn stop(&mut self, why: Why, grace: Duration) {
        self.stopping = Some(Stopping { why, kill_at: Instant::now() + grace });
        if let Some(group) = Pid::from_raw(self.main as i32) {
            // An error means that the whole group has ended.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }

    /// Kills everything, and again until the program's end is seen: a process may be born while its tree is listed.
    fn kill(&mut self) {
        process::kill_descendants();
        if let Some(stopping) = &mut self.stopping {
            stopping.kill_at = Instant::now() + REST_INTERVAL;
        }
    }

    async fn beat(&mut self, rss_bytes: u64) {
        self.beat_at = Instant::now() + HEARTBEAT_INTERVAL;
        let heartbeat = Heartbeat {
            at: Millis::now(),
            child_pid: self.main,
            child_start_ticks: self.main_ticks,
            rss_bytes,
            progress: self.metrics.progress(),
        };
        // A heartbeat that cannot be written (a full disk) must not end the job; the next one may succeed.
        let _ = self.attempt.attempts.put(&self.attempt.name, &heartbeat).await;
    }

    fn cancel_path(&self) -> std::path::PathBuf {
        self.attempt.attempts.folder().join(&self.attempt.name).join(file::CANCEL)
    }
}

/// Removes a folder that is no longer needed. Only space is at stake, and the attempt's removal tries again.
pub fn discard(folder: &std::path::Path) {
    let _ = fs::remove_dir_all(folder);
}
