//! Secrets on their way to a runner: sealed into the attempt's folder, for the holder of its credential.
//!
//! The same on every pool. How they are opened, laid out in memory and masked is the runner's business; how they are kept
//! at rest the engine's.

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use kickwheel_schemas::{
    AttemptKey,
    runner::{JobSpec, file},
    sealed::{NONCE_BYTES, Sealed, Secrets},
};

use crate::{PoolError, StartError};

/// Where a runner on this machine lays them out.
pub const MEMORY: &str = "/dev/shm";

/// Refuses values that are not those which the specification names, before anything is written.
pub fn check(spec: &JobSpec, secrets: &Secrets) -> Result<(), StartError> {
    if let Some(name) =
        spec.secrets.keys().find(|name| name.contains('/') || kickwheel_artifacts::path::check(name).is_err())
    {
        return Err(StartError::Unplaceable(format!(
            "{name:?} cannot be the name of a secret's file; use one plain name"
        )));
    }
    if spec.secrets.keys().map(String::as_str).eq(secrets.files()) {
        return Ok(());
    }
    let missing: Vec<_> = spec.secrets.keys().filter(|name| !secrets.files().any(|file| file == *name)).collect();
    Err(StartError::Unplaceable(format!(
        "its specification names secrets whose values were not given, or the reverse: {missing:?}"
    )))
}

/// Writes the sealed document, or nothing if there are no secrets.
pub fn write(folder: &Path, key: &AttemptKey, credential: &str, secrets: &Secrets) -> Result<(), StartError> {
    if secrets.is_empty() {
        return Ok(());
    }
    let sealed = Sealed::seal(secrets, credential, &key.to_string(), rand::random::<[u8; NONCE_BYTES]>())
        .map_err(|error| StartError::Unplaceable(format!("failed to {error}")))?;
    let bytes = serde_json::to_vec(&sealed).expect("protocol types have string keys only");
    write_private(&folder.join(file::SECRETS), &bytes)?;
    Ok(())
}

/// Writes a file that only its owner reads.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PoolError> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(PoolError::io(path))
}
