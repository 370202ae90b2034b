//! What the pool asks of `/proc`: does a runner still live, and what did a dead one leave behind?
//!
//! A process id alone names nothing, since ids are used again. With the start time and the boot it does.

use std::{
    fs,
    path::Path,
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

/// Kills what a dead runner left and waits until it is gone.
pub fn end_leftovers(attempt: &str, heartbeat: Option<&Heartbeat>, group: Option<&Path>) -> Result<(), PoolError> {
    let marker = format!("KICKWHEEL_ATTEMPT={attempt}");
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        let left = leftovers(&marker, heartbeat, group);
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(PoolError::Leftovers { attempt: attempt.to_owned(), pids: left });
        }
        for pid in left {
            kill(pid, &marker, heartbeat, group);
        }
        std::thread::sleep(KILL_INTERVAL);
    }
    if let Some(group) = group {
        // Absent when the job had no memory limit.
        let _ = fs::remove_dir(group);
    }
    Ok(())
}

fn leftovers(marker: &str, heartbeat: Option<&Heartbeat>, group: Option<&Path>) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let members = members(group);
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| belongs(*pid, marker, heartbeat, &members))
        .collect()
}

fn kill(pid: u32, marker: &str, heartbeat: Option<&Heartbeat>, group: Option<&Path>) {
    if let Some(raw) = Pid::from_raw(pid as i32)
        && let Ok(process) = pidfd_open(raw, PidfdFlags::empty())
        && belongs(pid, marker, heartbeat, &members(group))
    {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}

/// Whether a live process is part of the attempt: by its environment, as the program itself, or by its group.
fn belongs(pid: u32, marker: &str, heartbeat: Option<&Heartbeat>, members: &[u32]) -> bool {
    if !stat(pid).is_some_and(|stat| stat.is_alive()) {
        return false;
    }
    // Another user's environment cannot be read, and another user's process is none of ours.
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
        || heartbeat.is_some_and(|beat| beat.child_pid == pid && is_same(pid, beat.child_start_ticks))
        || members.contains(&pid)
}

fn members(group: Option<&Path>) -> Vec<u32> {
    let text = group.and_then(|group| fs::read_to_string(group.join("cgroup.procs")).ok()).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn is_same(pid: u32, start_ticks: u64) -> bool {
    stat(pid).is_some_and(|stat| stat.is_alive() && stat.start_ticks == start_ticks)
}

fn stat(pid: u32) -> Option<ProcessStat> {
    ProcessStat::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}
