//! What `/proc` tells about processes, and how a job's whole tree is found, ended and reaped.
//!
//! The runner is the subreaper of everything that it starts, so a process cannot leave its tree by daemonising: an orphan
//! becomes the runner's own child. That turns "is anything left?" into "have I any child?", which `wait` answers exactly.

use std::fs;

use kickwheel_schemas::runner::ProcessStat;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process, wait, waitpid},
};

/// Linux shows times in `/proc` in hundredths of a second, whatever the kernel's own clock does (`USER_HZ`).
const MS_PER_TICK: u64 = 10;

/// The state of a process, or none if there is no such process.
pub fn stat(pid: u32) -> Option<ProcessStat> {
    ProcessStat::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}

/// The id that this boot of the machine has: process ids and start times mean something only together with it.
pub fn boot_id() -> Result<String, String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))?;
    Ok(text.trim().to_owned())
}

/// Everything below this process, in no particular order. A process that is born meanwhile may be missing.
pub fn descendants() -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = children(std::process::id());
    while let Some(pid) = open.pop() {
        open.extend(children(pid));
        found.push(pid);
    }
    found
}

/// Children of a process, those of each of its threads. A kernel without `CONFIG_PROC_CHILDREN` has no such file; then
/// every process is asked for its parent.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
            // The thread lives and the file does not exist: this kernel has none.
            Err(_) if thread.path().exists() => return children_by_parent(pid),
            // The thread has ended.
            Err(_) => {}
        }
    }
    found
}

fn children_by_parent(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent))
        .collect()
}

/// Whether this process still has children, after reaping those that ended. Not to be used while the main child's exit
/// status is still wanted.
pub fn reap_all() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Reaps orphans that became our children and ended, except `main`.
pub fn reap_orphans(main: u32) {
    for pid in children(std::process::id()) {
        if pid != main
            && let Some(pid) = Pid::from_raw(pid as i32)
        {
            // It may live (none) or be gone already (an error); both are fine.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Kills everything below this process.
pub fn kill_descendants() {
    for pid in descendants() {
        if let Some(pid) = Pid::from_raw(pid as i32) {
            // It cannot be somebody else's: until we reap it, its id is taken. A grandchild's may be reused between the
            // listing and here only if its parent reaps it and the machine goes through all ids meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Milliseconds of user and system time that our reaped children took. In steps of a clock tick.
pub fn children_cpu_ms() -> u64 {
    stat(std::process::id()).map_or(0, |stat| stat.children_ticks * MS_PER_TICK)
}
