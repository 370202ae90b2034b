//! The data folder: where everything of one engine lives, and the lock that proves that no other process uses it.
//!
//! The lock is an advisory `flock` that the kernel drops with the process, however it dies: so a folder whose lock can be
//! taken has no living engine, and its shards may be taken over at once.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::error::StartError;

/// An open, locked data folder.
#[derive(Debug)]
pub struct DataFolder {
    root: PathBuf,
    /// Held for its lock only.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is absent and locks it.
    pub fn open(root: &Path) -> Result<Self, StartError> {
        let part = |e: io::Error| StartError::Part {
            part: "data folder",
            message: format!("{}: {e}; give a folder that can be written with --data", root.display()),
        };
        fs::create_dir_all(root).map_err(part)?;
        let root = root.canonicalize().map_err(part)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(part)?;
        let path = root.join("lock");
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(part)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                lock.read_to_string(&mut pid).map_err(part)?;
                return Err(StartError::Locked { folder: root.display().to_string(), pid: pid.trim().to_owned() });
            }
            Err(errno) => return Err(part(errno.into())),
        }
        lock.set_len(0).map_err(part)?;
        lock.write_all(std::process::id().to_string().as_bytes()).map_err(part)?;
        Ok(Self { root, _lock: lock })
    }

    /// A path below the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The text kept in file `name`, readable by its owner only; made from `fresh` when there is none yet. Durable before
    /// it is returned: a key that a later start could not find again would orphan whatever was signed with it.
    pub fn kept_text(&self, name: &str, fresh: impl FnOnce() -> String) -> Result<String, StartError> {
        kept_text(&self.root, name, fresh).map_err(|e| StartError::Part {
            part: "data folder",
            message: format!("{}/{name}: {e}", self.root.display()),
        })
    }
}

fn kept_text(root: &Path, name: &str, fresh: impl FnOnce() -> String) -> io::Result<String> {
    let path = root.join(name);
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let text = fresh();
    let temporary = root.join(format!(".{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(root)?.sync_all()?;
    Ok(text)
}

/// `N` random bytes in hex.
pub fn random_hex<const N: usize>() -> String {
    hex::encode(rand::random::<[u8; N]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_folder_is_refused_and_names_the_holder() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let first = DataFolder::open(dir.path()).expect("the folder is free");
        match DataFolder::open(dir.path()) {
            Err(StartError::Locked { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
            other => panic!("expected a refusal, got {other:?}"),
        }
        drop(first);
        DataFolder::open(dir.path()).expect("the lock went with its holder");
    }

    #[test]
    fn a_kept_text_is_the_same_at_every_start() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = DataFolder::open(dir.path()).expect("the folder is free");
        let first = folder.kept_text("key", random_hex::<32>).expect("it can be written");
        assert_eq!(folder.kept_text("key", random_hex::<32>).expect("it can be read"), first);
        assert_eq!(first.len(), 64);
    }
}
