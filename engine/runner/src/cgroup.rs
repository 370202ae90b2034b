//! A control group with a memory limit for one job: below a folder that was delegated to us, or the container's own.
//!
//! Groups are only made where the administrator said so (`--cgroup`): making them wherever the file system allows it would
//! interfere with whoever manages the hierarchy, above all systemd. Version 1 (memory controller) and version 2 work.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often removing an emptied group is tried: the kernel takes a moment after the last process.
const REMOVE_ATTEMPTS: u32 = 100;

/// Between two of these.
const REMOVE_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The group of one job.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    version: Version,
    owner: Owner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It was made for the job, and goes with it.
    Us,
    /// It is there to be read.
    Container,
}

impl Cgroup {
    /// The group of the container that this program runs in, if it can be seen: container engines mount it there, read-only.
    pub fn of_container() -> Option<Self> {
        let at = |folder: &str, file: &str, version| {
            let folder = PathBuf::from(folder);
            folder.join(file).exists().then_some(Self { folder, version, owner: Owner::Container })
        };
        at("/sys/fs/cgroup/memory", "memory.oom_control", Version::One)
            .or_else(|| at("/sys/fs/cgroup", "memory.events", Version::Two))
    }

    /// Makes a group that may use `limit` bytes of memory.
    pub fn create(parent: &Path, name: &str, limit: u64) -> Result<Self, String> {
        let version = if parent.join("cgroup.controllers").exists() {
            Version::Two
        } else if parent.join("memory.limit_in_bytes").exists() {
            Version::One
        } else {
            return Err(format!("use {} as a cgroup: it has no memory controller", parent.display()));
        };
        if version == Version::Two && !enabled(parent) {
            let control = parent.join("cgroup.subtree_control");
            fs::write(&control, "+memory")
                .map_err(|error| format!("enable memory in {}: {error}", control.display()))?;
        }
        let folder = parent.join(name);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("make the cgroup {}: {error}", folder.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let group = Self { folder, version, owner: Owner::Us };
        let limit = limit.to_string();
        let settings: &[(&str, &str, bool)] = match version {
            Version::One => &[("memory.limit_in_bytes", &limit, true), ("memory.memsw.limit_in_bytes", &limit, false)],
            Version::Two => {
                &[("memory.max", &limit, true), ("memory.swap.max", "0", false), ("memory.oom.group", "1", false)]
            }
        };
        for (file, value, required) in settings {
            let path = group.folder.join(file);
            match fs::write(&path, value) {
                Err(error) if *required => return Err(format!("write {}: {error}", path.display())),
                // A kernel without swap accounting has no such file, and then nothing to limit.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(group)
    }

    /// What a process writes `0` into to join; none for the container's, which it is born into.
    pub fn entrance(&self) -> Result<Option<File>, String> {
        match self.owner {
            Owner::Us => {}
            Owner::Container => return Ok(None),
        }
        let path = self.folder.join("cgroup.procs");
        OpenOptions::new()
            .write(true)
            .open(&path)
            .map(Some)
            .map_err(|error| format!("open {}: {error}", path.display()))
    }

    /// Whether the kernel has killed a process for exceeding the limit.
    pub fn has_killed(&self) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }

    /// Highest use so far, in bytes.
    pub fn peak(&self) -> Option<u64> {
        let file = match self.version {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        };
        fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok()
    }

    /// Removes the group once its processes have ended.
    pub async fn remove(self) -> Result<(), String> {
        match self.owner {
            Owner::Us => {}
            Owner::Container => return Ok(()),
        }
        let mut attempt = 0;
        loop {
            match fs::remove_dir(&self.folder) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if attempt == REMOVE_ATTEMPTS => {
                    return Err(format!("remove the cgroup {}: {error}", self.folder.display()));
                }
                Err(_) => tokio::time::sleep(REMOVE_INTERVAL).await,
            }
            attempt += 1;
        }
    }
}

fn enabled(parent: &Path) -> bool {
    fs::read_to_string(parent.join("cgroup.subtree_control"))
        .is_ok_and(|text| text.split_ascii_whitespace().any(|controller| controller == "memory"))
}
