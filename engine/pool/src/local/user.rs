//! Another Unix user for the jobs of this machine: who it is, which folder it reaches, and each attempt's own group.
//!
//! Jobs of the engine's own user could read its keys. What the runner does about it is in its `user` module; here the
//! user is looked up (by `id`, which asks whatever the machine keeps its users in), tried once before anything depends on
//! it, and noted with each attempt, so that an attempt stays its user's when the engine is started otherwise.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kickwheel_schemas::{AttemptKey, Digest, runner::JobUser};

use crate::{OpenError, PoolError, delivery};

/// The note about an attempt's user, in its folder.
const NOTE: &str = "user.json";

/// The first of the groups that attempts get. Distributions, systemd and container engines leave these numbers alone.
pub const FIRST_GROUP: u32 = 0x7000_0000;

/// How many there are.
const GROUPS: u32 = 0x1000_0000;

/// Whose the jobs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherUser {
    /// The user's name.
    pub name: String,
    /// A folder that this user can reach and nobody but us can write to; made if it is absent. Below it are the folders
    /// that jobs see.
    pub folder: PathBuf,
}

/// A user that was looked up and tried.
#[derive(Clone, Debug)]
pub struct Known {
    name: String,
    uid: u32,
    groups: Vec<u32>,
    folder: String,
}

impl Known {
    /// Looks the user up, makes the folder, and has `runner` try to be that user there.
    pub fn open(user: &OtherUser, runner: &Path) -> Result<Self, OpenError> {
        let refused = |problem: String| OpenError::JobUser { name: user.name.clone(), problem };
        let uid = ids(&user.name, "-u").map_err(refused)?[0];
        let first = ids(&user.name, "-g").map_err(refused)?[0];
        let all = ids(&user.name, "-G").map_err(refused)?;
        let groups = std::iter::once(first).chain(all.into_iter().filter(|group| *group != first)).collect();
        if uid == 0 || uid == rustix::process::geteuid().as_raw() {
            return Err(refused("it is root, or the engine's own user, who can read the engine's keys".to_owned()));
        }
        let folder = make_folder(&user.folder).map_err(refused)?;
        let known = Self { name: user.name.clone(), uid, groups, folder };
        known.try_out(runner).map_err(refused)?;
        Ok(known)
    }

    /// This user, for one attempt.
    pub fn of(&self, key: &AttemptKey) -> JobUser {
        let Self { name, uid, groups, folder } = self.clone();
        JobUser { name, uid, groups, group: group_of(key), folder }
    }

    fn try_out(&self, runner: &Path) -> Result<(), String> {
        let Self { name, uid, groups, folder } = self.clone();
        let user = JobUser { name, uid, groups, group: FIRST_GROUP, folder };
        let user = serde_json::to_string(&user).expect("protocol types have string keys only");
        let output = Command::new(runner)
            .args(["check-user", "--job-user", &user])
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{} cannot be started: {error}", runner.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(said.lines().next().unwrap_or_default().trim_start_matches("kickwheel-runner: ").to_owned())
    }
}

/// What `id` says.
fn ids(name: &str, option: &str) -> Result<Vec<u32>, String> {
    let output = Command::new("id")
        .args([option, "--", name])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("`id` cannot be started: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found: Option<Vec<u32>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    match found {
        Some(found) if output.status.success() && !found.is_empty() => Ok(found),
        _ => Err(format!("{}; make it with `useradd --system`", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// The folder of all attempts below `folder`, through which the user can pass and where nobody else makes anything.
fn make_folder(folder: &Path) -> Result<String, String> {
    let problem = |error: std::io::Error| format!("its folder {} cannot be used: {error}", folder.display());
    if !folder.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(problem)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(problem)?;
    }
    let folder = folder.canonicalize().map_err(problem)?;
    let attempts = folder.join("attempts");
    match fs::create_dir(&attempts) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(problem(error)),
        Ok(()) | Err(_) => {}
    }
    let (above, own) = (fs::metadata(&folder).map_err(problem)?, fs::symlink_metadata(&attempts).map_err(problem)?);
    if above.mode() & 0o022 != 0 || !own.is_dir() || own.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!(
            "others could put their own folders into {}; name a folder that only the engine's user can write to",
            folder.display()
        ));
    }
    fs::set_permissions(&attempts, fs::Permissions::from_mode(0o711)).map_err(problem)?;
    attempts.to_str().map(str::to_owned).ok_or_else(|| format!("its folder {} is not UTF-8", attempts.display()))
}

/// The attempt's own group. It follows from the key, so that nothing is handed out that could be forgotten.
fn group_of(key: &AttemptKey) -> u32 {
    let digest = Digest::of(key.to_string().as_bytes());
    let number = u32::from_str_radix(&digest.hex()[..8], 16).expect("a digest has hex digits");
    // The first one is for trying.
    FIRST_GROUP + 1 + number % (GROUPS - 1)
}

/// Where a job of this user sees its files.
pub fn folder(user: &JobUser, key: &AttemptKey) -> PathBuf {
    Path::new(&user.folder).join(key.file_name())
}

/// Notes whose the attempt is.
pub fn note(attempt: &Path, user: &JobUser) -> Result<(), PoolError> {
    let bytes = serde_json::to_vec(user).expect("protocol types have string keys only");
    delivery::write_private(&attempt.join(NOTE), &bytes)
}

/// Whose the attempt is; none if it is ours. A note that cannot be read is an error: nobody's job is made root's.
pub fn noted(attempt: &Path) -> Result<Option<JobUser>, PoolError> {
    let path = attempt.join(NOTE);
    match fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| PoolError::io(path)(std::io::Error::other(error)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PoolError::io(path)(error)),
    }
}
