//! The memory limit of a job, by one of two mechanisms.
//!
//! `cgroup`: the kernel counts every page and kills at the limit. Exact, but it needs a delegated hierarchy, or a container
//! that has the limit already.
//! `rss-watch`: everywhere else the runner sums the resident memory of the job's processes every [`WATCH_INTERVAL`] and
//! kills all of them when it exceeds the limit. A job that grows faster than that is caught late, so the machine needs
//! some headroom. Pages that several processes share are counted once, as proportional set size; because that figure is
//! slow to get, it is only asked for when the plain sum is over the limit.

use std::{fs, time::Duration};

use kickwheel_schemas::runner::JobSpec;

use crate::{cgroup::Cgroup, options::Memory, process};

/// Between two looks at the resident memory of a limited job.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// The limit's mechanism, as `JobEnd::OutOfMemory` names it.
pub const BY_CGROUP: &str = "cgroup";

/// The other one.
pub const BY_WATCH: &str = "rss-watch";

/// How a job's memory is limited.
#[derive(Debug)]
pub enum Limit {
    /// Not at all.
    None,
    /// By the kernel.
    Cgroup(Cgroup),
    /// By looking, in bytes.
    Watch(u64),
}

impl Limit {
    /// For the attempt called `name`. A delegated hierarchy that cannot be used is an error, never a reason to fall back.
    pub fn of(spec: &JobSpec, memory: &Memory, name: &str) -> Result<Self, String> {
        match (spec.memory_bytes, memory) {
            (None, _) => Ok(Self::None),
            (Some(limit), Memory::Delegated(parent)) => Cgroup::create(parent, name, limit).map(Self::Cgroup),
            (Some(limit), Memory::Watch) => Ok(Self::Watch(limit)),
            // A container that hides its group still has its limit; its engine then says what the kernel killed.
            (Some(_), Memory::Container) => Ok(Cgroup::of_container().map_or(Self::None, Self::Cgroup)),
        }
    }

    /// Whether the watch finds the limit exceeded, given the plain sum of resident memory.
    pub fn is_exceeded(&self, resident: u64) -> bool {
        match self {
            Self::None | Self::Cgroup(_) => false,
            Self::Watch(limit) => resident > *limit && proportional_bytes() > *limit,
        }
    }
}

/// Resident memory of everything below this process, in bytes; shared pages count for each process.
pub fn resident_bytes() -> u64 {
    process::descendants().into_iter().filter_map(|pid| kilobytes(pid, "status", "VmRSS:")).sum::<u64>() * 1024
}

/// The same with shared pages divided among those that share them; a process that does not tell counts in full.
fn proportional_bytes() -> u64 {
    let of = |pid| kilobytes(pid, "smaps_rollup", "Pss:").or_else(|| kilobytes(pid, "status", "VmRSS:"));
    process::descendants().into_iter().filter_map(of).sum::<u64>() * 1024
}

/// A figure that `/proc/<pid>/<file>` gives in kB, none if the process has ended or does not tell.
fn kilobytes(pid: u32, file: &str, label: &str) -> Option<u64> {
    let text = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| line.strip_prefix(label)?.trim().strip_suffix(" kB")?.parse().ok())
}
