//! The job as another Unix user: what is handed over to it, and how its program becomes that user.
//!
//! The runner itself stays what it is. So the claim, heartbeats, the log, the result and the credential lie where the job
//! cannot reach them, and the runner can end whatever the job starts. What the job sees is a folder of its own outside of
//! the data folder: `<folder>/<attempt>` belongs to us and to the attempt's own group; what is in it belongs to the user.
//!
//! Each attempt has a group that nobody else is in, as the *first* group of its processes: without it, all jobs of one
//! user could read each other's folders, secrets and memory, since the kernel asks for the same user *and* group before
//! one process may look into another. What it does not do: keep two jobs of one user from sending each other signals.
//!
//! Where to look next: [`crate::spawn`] for when the program changes; `local/user.rs` of the pool for where the user and
//! the group come from.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown, lchown},
    path::{Path, PathBuf},
};

use kickwheel_schemas::runner::JobUser;
use rustix::{
    io::Errno,
    process::{Gid, Uid, geteuid},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set, clear_ambient_capability_set,
        set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

/// What a runner needs whose job is another user's: to become it, to hand folders over, to read and remove what the job
/// made, to end it, and to see what it left.
const NEEDED: [(CapabilitySet, &str); 7] = [
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
];

/// A user with its groups in the kernel's form: nothing has to be allocated between fork and exec.
#[derive(Clone, Debug)]
pub struct Identity {
    uid: Uid,
    group: Gid,
    groups: Vec<Gid>,
}

impl Identity {
    /// Of the user, in the attempt's group.
    pub fn of(user: &JobUser) -> Self {
        let groups = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        Self { uid: Uid::from_raw(user.uid), group: Gid::from_raw(user.group), groups }
    }

    /// Makes the calling thread this user, for good. Only makes system calls.
    pub fn assume(&self) -> Result<(), Errno> {
        set_thread_groups(&self.groups)?;
        set_thread_res_gid(self.group, self.group, self.group)?;
        // A kernel that knows no ambient capabilities has none to clear.
        let _ = clear_ambient_capability_set();
        set_thread_res_uid(self.uid, self.uid, self.uid)?;
        // The kernel takes them only from who was root.
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
        set_no_new_privs(true)
    }
}

/// Makes the calling process the user and looks whether it reaches its folder. Says what is missing.
pub fn check(user: &JobUser) -> Result<(), String> {
    let missing = missing();
    if !missing.is_empty() {
        return Err(format!(
            "run jobs as {}: it is not root and lacks {}; start it as root, or give it these as ambient capabilities",
            user.name,
            missing.join(", ")
        ));
    }
    Identity::of(user).assume().map_err(|error| {
        format!("become user {} ({}) in group {}: {error}; are these ids mapped here?", user.name, user.uid, user.group)
    })?;
    std::env::set_current_dir(&user.folder).map_err(|error| {
        format!("enter {} as user {}: {error}; give it a folder that it can reach", user.folder, user.name)
    })
}

fn missing() -> Vec<&'static str> {
    let Ok(own) = capabilities(None) else { return vec!["capget(2)"] };
    // Root's programs have what root has; others pass on only what is ambient.
    let passes_on = |one| geteuid().is_root() || capability_is_in_ambient_set(one).unwrap_or(false);
    NEEDED.iter().filter(|(one, _)| !own.effective.contains(*one) || !passes_on(*one)).map(|(_, name)| *name).collect()
}

/// Where the job's own folder lies.
pub fn folder(user: &JobUser, attempt: &str) -> PathBuf {
    Path::new(&user.folder).join(attempt)
}

/// Makes the job's folder, for us alone until it is handed over.
pub fn make_folder(folder: &Path) -> Result<(), String> {
    fs::DirBuilder::new().mode(0o700).create(folder).map_err(|error| format!("make {}: {error}", folder.display()))
}

/// Gives everything in the job's folder to the user and opens the folder to the attempt's group. The folder itself stays
/// ours, so that nobody else who is the same user can enter.
pub fn hand_over(folder: &Path, user: &JobUser) -> Result<(), String> {
    let give = || -> io::Result<()> {
        let mut open = vec![folder.to_owned()];
        while let Some(inside) = open.pop() {
            for entry in fs::read_dir(inside)? {
                let entry = entry?;
                lchown(entry.path(), Some(user.uid), Some(user.group))?;
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                }
            }
        }
        share(folder, user, 0o770)
    };
    give().map_err(|error| format!("hand {} over to user {}: {error}", folder.display(), user.name))
}

/// Lets the attempt's group have something that stays ours.
pub fn share(path: &Path, user: &JobUser, mode: u32) -> io::Result<()> {
    chown(path, None, Some(user.group))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
