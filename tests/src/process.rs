//! Processes as the kernel shows them: identity by pid and start time, and ending those that a test has started.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

/// A process that cannot be confused with a later one of the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its pid.
    pub pid: u32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// The identity of a living process; none when it is gone or a zombie.
pub fn identity(pid: u32) -> Option<Identity> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold blanks and parentheses: what follows the last one is regular.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Field 3 of proc(5) is the state, field 22 the start time.
    (fields.first() != Some(&"Z"))
        .then(|| fields.get(19)?.parse().ok())
        .flatten()
        .map(|start_ticks| Identity { pid, start_ticks })
}

/// Sends a signal; a process that is gone is fine.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends, one by one and by pid, all processes whose command line or environment names a folder: the agent and the runners
/// of a test's pool, and what they started. The folder is the test's own temporary one, so nobody else names it.
pub fn end_all_of(folder: &Path) {
    let marker = folder.as_os_str().as_encoded_bytes();
    let names = |file: &str| fs::read(file).is_ok_and(|bytes| bytes.windows(marker.len()).any(|w| w == marker));
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid != std::process::id()
            && (names(&format!("/proc/{pid}/cmdline")) || names(&format!("/proc/{pid}/environ")))
        {
            signal(pid, Signal::KILL);
        }
    }
}
