//! Where a docker pool keeps what, and which of it a job can write to.
//!
//! ```text
//!   attempts/<name>/    mounted into the container and the job's: specification, claim, heartbeat, log, result, outputs
//!   kept/<name>/        the engine's alone: specification, request, image, inputs, cancel request, and how it ended
//! ```
//!
//! What is decided on is read from `kept` or carries a MAC; what the job can write is read with the care of
//! [`kickwheel_artifacts::beneath`]. An attempt exists as soon as `kept/<name>/spec.json` does.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use kickwheel_artifacts::{Attempts, Document, attempt::DOCUMENT_LIMIT, beneath};
use kickwheel_schemas::{
    AttemptKey,
    runner::{JobResult, JobSpec, RunnerExit, file},
};
use serde::{Deserialize, Serialize};

use super::container::OUTPUTS;
use crate::{PoolError, Request};

/// The pool's own note: what the attempt asked for, and the image's id when it was started.
const PLAN_FILE: &str = "plan.json";

/// Longest document other than a result that is read from a job's folder, in bytes. It is read at every look.
const SMALL_LIMIT: u64 = 64 * 1024;

/// The folders of a pool.
#[derive(Debug)]
pub struct Places {
    attempts: Attempts,
    kept: Attempts,
}

/// What a container is made of besides the specification.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// What was asked for.
    pub request: Request,
    /// The image's id.
    pub image: String,
}

/// Whom the container's processes run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Places {
    /// Below `folder`, which is made if it is absent.
    pub fn open(folder: &Path) -> Result<Self, PoolError> {
        let kept = folder.join("kept");
        fs::create_dir_all(&kept).map_err(PoolError::io(&kept))?;
        // Nobody else looks into what jobs of several projects leave.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(PoolError::io(folder))?;
        Ok(Self { attempts: Attempts::local(folder)?, kept: Attempts::open(&kept)? })
    }

    /// The folder that the container sees.
    pub fn attempt(&self, key: &AttemptKey) -> PathBuf {
        self.attempts.folder().join(key.file_name())
    }

    /// The folder that it does not.
    pub fn kept(&self, key: &AttemptKey) -> PathBuf {
        self.kept.folder().join(key.file_name())
    }

    /// The store of its inputs.
    pub fn inputs(&self, key: &AttemptKey) -> PathBuf {
        self.kept(key).join("inputs")
    }

    /// Documents that no job can write to.
    pub fn kept_documents(&self) -> &Attempts {
        &self.kept
    }

    /// Whether the attempt was ever started here.
    pub fn exists(&self, key: &AttemptKey) -> bool {
        self.kept(key).join(file::SPEC).exists()
    }

    /// An empty folder for the container, and the plan. What an engine that died before the specification left goes.
    pub async fn prepare(&self, key: &AttemptKey, spec: &JobSpec, plan: &Plan) -> Result<(), PoolError> {
        for folder in [self.attempt(key), self.kept(key)] {
            remove(&folder)?;
            fs::create_dir(&folder).map_err(PoolError::io(&folder))?;
        }
        let plan = serde_json::to_vec(plan).expect("a plan has string keys only");
        let path = self.kept(key).join(PLAN_FILE);
        fs::write(&path, plan).map_err(PoolError::io(path))?;
        let _ = self.attempts.put(&key.file_name(), spec).await?;
        Ok(())
    }

    /// Gives the container's folder to its user. Both folders survive a loss of power from here on: with the claim lost,
    /// the job would run again.
    pub fn hand_over(&self, key: &AttemptKey, user: User) -> Result<(), PoolError> {
        let folder = self.attempt(key);
        if rustix::process::geteuid().is_root() {
            let entries = fs::read_dir(&folder).map_err(PoolError::io(&folder))?;
            for path in entries.map(|entry| entry.map(|entry| entry.path())).chain([Ok(folder.clone())]) {
                let path = path.map_err(PoolError::io(&folder))?;
                chown(&path, Some(user.uid), Some(user.gid)).map_err(PoolError::io(&path))?;
            }
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(PoolError::io(&folder))?;
        let all = self.attempts.folder();
        File::open(all).and_then(|all| all.sync_all()).map_err(PoolError::io(all))
    }

    /// The note made when it was started.
    pub fn plan(&self, key: &AttemptKey) -> Plan {
        fs::read(self.kept(key).join(PLAN_FILE))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// A document that the job could have written: nonsense is none, and so is what cannot be opened as a file.
    pub fn untrusted<D: Document>(&self, key: &AttemptKey) -> Option<D> {
        let limit = if D::NAME == file::RESULT { DOCUMENT_LIMIT } else { SMALL_LIMIT };
        match beneath::read(&self.attempt(key).join(D::NAME), limit, None) {
            Ok(bytes) => serde_json::from_slice(&bytes?).ok(),
            Err(error) => {
                tracing::warn!(attempt = %key, document = D::NAME, %error, "a document is ignored");
                None
            }
        }
    }

    /// Whether the job's folder has something of that name.
    pub fn has(&self, key: &AttemptKey, name: &str) -> bool {
        fs::symlink_metadata(self.attempt(key).join(name)).is_ok()
    }

    /// Attempts that exist.
    pub fn all(&self) -> Result<Vec<AttemptKey>, PoolError> {
        let folder = self.kept.folder();
        let mut keys = Vec::new();
        for entry in fs::read_dir(folder).map_err(PoolError::io(folder))? {
            let name = entry.map_err(PoolError::io(folder))?.file_name();
            let Some(Ok(key)) = name.to_str().map(AttemptKey::from_file_name) else { continue };
            if self.exists(&key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// How long ago the outcome was kept; none if it has not ended.
    pub fn ended_for(&self, key: &AttemptKey) -> Option<Duration> {
        let kept = self.kept(key);
        let at = [JobResult::NAME, RunnerExit::NAME]
            .iter()
            .find_map(|name| fs::metadata(kept.join(name)).and_then(|metadata| metadata.modified()).ok())?;
        Some(SystemTime::now().duration_since(at).unwrap_or_default())
    }

    /// Frees what is not needed once the outcome is kept.
    pub fn discard_stores(&self, key: &AttemptKey) -> Result<(), PoolError> {
        remove(&self.inputs(key))?;
        remove(&self.attempt(key).join(OUTPUTS))
    }

    /// Removes everything. The specification goes first: half of an attempt must not look like one that never ran.
    pub fn remove(&self, key: &AttemptKey) -> Result<(), PoolError> {
        let spec = self.kept(key).join(file::SPEC);
        match fs::remove_file(&spec) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(PoolError::io(spec)(error)),
            Ok(()) | Err(_) => {}
        }
        remove(&self.attempt(key))?;
        remove(&self.kept(key))
    }
}

/// Removes a folder with everything in it, or what else has its name. Never follows a link.
fn remove(path: &Path) -> Result<(), PoolError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PoolError::io(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
