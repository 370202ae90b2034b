//! Laying the attempt's secrets out as files in memory, and removing them whatever happens.
//!
//! The sealed document is opened with the attempt's credential and removed. The files lie in a folder of their own below
//! `/dev/shm` (in a container: below a file system in memory made for it), readable by their owner only (and by another user whose the job is), and go when the
//! job has ended. If this runner is killed, whoever notices (the agent, the pool) removes the folder, whose name follows
//! from the attempt's. Never on a disk: a base that is not in memory is an error, not a reason to fall back.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use kickwheel_artifacts::path::check;
use kickwheel_schemas::{
    runner::{JobSpec, JobUser, file},
    sealed::{Sealed, Secrets, memory_folder},
};

use crate::user;

/// Where files in memory are by default.
pub const MEMORY: &str = "/dev/shm";

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of statfs(2).
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// Longest sealed document that is read, in bytes: hex of JSON of the values' limit.
const SEALED_LIMIT: u64 = 16 * 1024 * 1024;

/// Files that are there until this is dropped.
#[derive(Debug)]
pub struct Delivered {
    folder: PathBuf,
    secrets: Secrets,
}

impl Delivered {
    /// `$KICKWHEEL_SECRETS`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What must not be shown.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }
}

impl Drop for Delivered {
    fn drop(&mut self) {
        discard(&self.folder);
    }
}

/// Removes a folder of secrets. What cannot be removed (it is gone already, or another user's) is not ours.
pub fn discard(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
}

/// Lays out what the specification names, or nothing if it names nothing. `folder` is the attempt's; a `user` who is not
/// us may read the files through the attempt's group.
pub fn deliver(
    folder: &Path,
    spec: &JobSpec,
    credential: &str,
    base: &Path,
    user: Option<&JobUser>,
) -> Result<Option<Delivered>, String> {
    if spec.secrets.is_empty() {
        return Ok(None);
    }
    let path = folder.join(file::SECRETS);
    let problem = |error: &dyn std::fmt::Display| format!("read {}: {error}", path.display());
    let length = fs::symlink_metadata(&path).map_err(|error| problem(&error))?.len();
    if length > SEALED_LIMIT {
        return Err(problem(&format!("it has {length} bytes; the limit is {SEALED_LIMIT}")));
    }
    let text = fs::read(&path).map_err(|error| problem(&error))?;
    let sealed: Sealed = serde_json::from_slice(&text).map_err(|error| problem(&error))?;
    let secrets = sealed.open(credential, &spec.attempt).map_err(|error| error.to_string())?;
    if !secrets.files().eq(spec.secrets.keys().map(String::as_str)) {
        return Err(problem(&"it does not hold the secrets that the specification names"));
    }
    // Removed when the guard is, also if laying out fails half-way.
    let delivered = Delivered { folder: memory_folder(base, folder), secrets };
    lay_out(&delivered, base)?;
    if let Some(user) = user {
        let files = delivered.secrets.files().map(|name| (delivered.folder.join(name), 0o440));
        for (path, mode) in files.chain([(delivered.folder.clone(), 0o750)]) {
            user::share(&path, user, mode).map_err(|error| format!("share {}: {error}", path.display()))?;
        }
    }
    fs::remove_file(&path).map_err(|error| format!("remove {}: {error}", path.display()))?;
    Ok(Some(delivered))
}

fn lay_out(delivered: &Delivered, base: &Path) -> Result<(), String> {
    let kind = rustix::fs::statfs(base).map_err(|error| format!("use {} for secrets: {error}", base.display()))?.f_type;
    if !IN_MEMORY.contains(&(kind as u32)) {
        return Err(format!("use {} for secrets: it is not in memory; mount a tmpfs there", base.display()));
    }
    let folder = &delivered.folder;
    // A runner that was killed before its claim may have left one.
    discard(folder);
    fs::DirBuilder::new().mode(0o700).create(folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
    for (name, value) in delivered.secrets.iter() {
        check(name).map_err(|error| error.to_string())?;
        let path = folder.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&path)
            .and_then(|mut file| file.write_all(value))
            .map_err(|error| format!("write {}: {error}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

    use kickwheel_schemas::runner::{Network, PROTOCOL, Program};

    use super::*;

    fn spec() -> JobSpec {
        JobSpec {
            protocol: PROTOCOL,
            attempt: "a#1".to_owned(),
            task: "a".to_owned(),
            program: Program::Exec { argv: Vec::new() },
            env: BTreeMap::new(),
            source: None,
            files: BTreeMap::new(),
            output_paths: BTreeMap::new(),
            output_values: Vec::new(),
            timeout_ms: None,
            grace_ms: 0,
            memory_bytes: None,
            log_limit_bytes: 0,
            traceparent: None,
            network: Network::None,
            read_only_root: false,
            secrets: BTreeMap::from([("token".to_owned(), "api-token".to_owned())]),
            notes: Vec::new(),
        }
    }

    fn seal(folder: &Path, secrets: &Secrets) {
        let sealed = Sealed::seal(secrets, "credential", "a#1", [3; 24]).expect("it is small");
        fs::write(folder.join(file::SECRETS), serde_json::to_vec(&sealed).expect("it has string keys"))
            .expect("it can be written");
    }

    #[test]
    fn files_are_private_and_go_with_the_job() {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        seal(folder.path(), &[("token", "hunter22")].into_iter().collect());
        let delivered = deliver(folder.path(), &spec(), "credential", Path::new(MEMORY), None).expect("it opens");
        let delivered = delivered.expect("there are some");
        let path = delivered.folder().join("token");
        assert_eq!(fs::read(&path).expect("it is there"), b"hunter22");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(delivered.folder())), (0o400, 0o700));
        assert!(!folder.path().join(file::SECRETS).exists(), "the job finds no document");
        let place = delivered.folder().to_owned();
        drop(delivered);
        assert!(!place.exists());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_left() {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let memory = Path::new(MEMORY);
        let refuse = |credential: &str, base: &Path, expected: &str| {
            let error = deliver(folder.path(), &spec(), credential, base, None).expect_err("it is refused");
            assert!(error.contains(expected), "{error}");
            assert!(!memory_folder(base, folder.path()).exists());
        };
        refuse("credential", memory, "No such file");
        seal(folder.path(), &[("other", "hunter22")].into_iter().collect());
        refuse("credential", memory, "does not hold");
        seal(folder.path(), &[("token", "hunter22")].into_iter().collect());
        refuse("guess", memory, "another attempt");
        refuse("credential", Path::new("/proc"), "not in memory");
    }
}
