//! What the pool asks of `/proc`: does a runner still live, and what did a dead one leave behind?
//!
//! A process id alone names nothing, since ids are used again. With the start time and the boot it does.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use kickwheel_schemas::runner::{Claim, Heartbeat, ProcessStat};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::PoolError;

/// How long killed processes may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks whether they have.
const KILL_INTERVAL: Duration = Duration::from_millis(5);

/// The id that this boot of the machine has; empty if the kernel does not tell, which then matches no claim.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Whether the very process that made the claim still lives.
pub fn is_alive(claim: &Claim) -> bool {
    claim.boot == boot_id() && is_same(claim.pid, claim.start_ticks)
}

/// Sends SIGTERM to the runner that made the claim, if it lives. The descriptor is taken before the check, so the process
/// that is signalled is the one that was checked.
pub fn terminate(claim: &Claim) {
    if claim.boot == boot_id()
        && let Some(pid) = Pid::from_raw(claim.pid as i32)
        && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
        && is_same(claim.pid, claim.start_ticks)
    {
        // An error means that it has ended since.
        let _ = pidfd_send_signal(process, Signal::TERM);
    }
}

/// By what the processes of an attempt are known when its runner is dead.
#[derive(Debug)]
pub struct Traces {
    attempt: String,
    /// In their environment.
    marker: String,
    heartbeat: Option<Heartbeat>,
    cgroup: Option<PathBuf>,
    /// The attempt's own Unix group, when the job is another user's.
    group: Option<u32>,
}

impl Traces {
    /// Of the attempt. A `group` is the attempt's alone.
    pub fn of(attempt: &str, heartbeat: Option<Heartbeat>, cgroup: Option<PathBuf>, group: Option<u32>) -> Self {
        let marker = format!("KICKWHEEL_ATTEMPT={attempt}");
        Self { attempt: attempt.to_owned(), marker, heartbeat, cgroup, group }
    }

    /// Whether a live process is part of the attempt: by its environment, as the program itself, or by its groups.
    fn lead_to(&self, pid: u32, members: &[u32]) -> bool {
        if !stat(pid).is_some_and(|stat| stat.is_alive()) {
            return false;
        }
        // Another user's environment cannot be read, and another user's process is none of ours.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == self.marker.as_bytes())
            || self.heartbeat.as_ref().is_some_and(|beat| beat.child_pid == pid && is_same(pid, beat.child_start_ticks))
            || members.contains(&pid)
            || self.group.is_some_and(|group| first_group(pid) == Some(group))
    }

    fn leftovers(&self) -> Vec<u32> {
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let members = self.members();
        processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| self.lead_to(*pid, &members))
            .collect()
    }

    fn kill(&self, pid: u32) {
        if let Some(raw) = Pid::from_raw(pid as i32)
            && let Ok(process) = pidfd_open(raw, PidfdFlags::empty())
            && self.lead_to(pid, &self.members())
        {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    fn members(&self) -> Vec<u32> {
        let group = self.cgroup.as_ref();
        let text = group.and_then(|group| fs::read_to_string(group.join("cgroup.procs")).ok()).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// Kills what a dead runner left and waits until it is gone.
pub fn end_leftovers(traces: &Traces) -> Result<(), PoolError> {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let left = traces.leftovers();
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(PoolError::Leftovers { attempt: traces.attempt.clone(), pids: left });
        }
        for pid in left {
            traces.kill(pid);
        }
        std::thread::sleep(KILL_INTERVAL);
    }
    if let Some(group) = &traces.cgroup {
        // Absent when the job had no memory limit.
        let _ = fs::remove_dir(group);
    }
    Ok(())
}

/// The real group of a process: of who it was, whatever program with other rights it executes.
fn first_group(pid: u32) -> Option<u32> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix("Gid:"))?.split_whitespace().next()?.parse().ok()
}

fn is_same(pid: u32, start_ticks: u64) -> bool {
    stat(pid).is_some_and(|stat| stat.is_alive() && stat.start_ticks == start_ticks)
}

fn stat(pid: u32) -> Option<ProcessStat> {
    ProcessStat::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}
