//! Taking a result's outputs out of the container's own store into the real one.
//!
//! The store lies in a folder that the job can write to, so its bytes prove nothing but their digest: every blob is opened
//! without following links, hashed, and compared with what the signed result says. Only then is the result taken.

use std::{fs::File, io, path::Path};

use kickwheel_artifacts::{ArtifactError, Artifacts, Names, beneath, folder::check_manifest, store::location};
use kickwheel_schemas::{ArtifactRef, Digest, Manifest, runner::JobResult};

use super::container::OUTPUTS;
use crate::PoolError;

/// Longest manifest that is read into memory, in bytes.
const MANIFEST_LIMIT: u64 = 512 << 20;

/// Outputs that are not taken.
#[derive(Debug)]
pub enum ImportError {
    /// They are not what the result says; the user's failure.
    Bad(String),
    /// Try again later.
    Pool(PoolError),
}

/// Imports everything that the result refers to, at most `limit` bytes.
pub async fn import(artifacts: &Artifacts, attempt: &Path, result: &JobResult, limit: u64) -> Result<(), ImportError> {
    let mut left = limit;
    for (name, artifact) in &result.artifacts {
        one(artifacts, attempt, artifact, &mut left).await.map_err(|error| match error {
            ImportError::Bad(problem) => ImportError::Bad(format!("output `{name}`: {problem}")),
            ImportError::Pool(error) => ImportError::Pool(error),
        })?;
    }
    Ok(())
}

async fn one(artifacts: &Artifacts, attempt: &Path, artifact: &ArtifactRef, left: &mut u64) -> Result<(), ImportError> {
    if !artifact.folder {
        return blob(artifacts, attempt, &artifact.digest, Some(artifact.size), left).await;
    }
    let manifest = read_manifest(attempt, &artifact.digest)?;
    check_manifest(&manifest, "its listing", Names::Text).map_err(|error| ImportError::Bad(error.to_string()))?;
    for entry in &manifest.files {
        blob(artifacts, attempt, &entry.digest, Some(entry.size), left).await?;
    }
    // The listing comes last: who finds it finds everything that it lists.
    blob(artifacts, attempt, &artifact.digest, None, left).await
}

async fn blob(
    artifacts: &Artifacts,
    attempt: &Path,
    digest: &Digest,
    size: Option<u64>,
    left: &mut u64,
) -> Result<(), ImportError> {
    let (file, length) = open(attempt, digest)?;
    if size.is_some_and(|size| size != length) {
        return Err(ImportError::Bad(format!("{digest} has {length} bytes and should have {}", size.unwrap_or(0))));
    }
    *left = left.checked_sub(length).ok_or_else(|| {
        ImportError::Bad("the outputs together are larger than the pool's limit; store less, or raise it".to_owned())
    })?;
    let stored = match artifacts.put_opened(file, Path::new(digest.as_str())).await {
        Ok(stored) => stored,
        Err(error) if error.is_transient() => return Err(ImportError::Pool(error.into())),
        Err(error) => return Err(ImportError::Bad(error.to_string())),
    };
    if stored.digest == *digest { Ok(()) } else { Err(damaged(digest)) }
}

fn damaged(digest: &Digest) -> ImportError {
    ImportError::Bad(format!("its bytes {digest} were changed after they had been stored"))
}

fn open(attempt: &Path, digest: &Digest) -> Result<(File, u64), ImportError> {
    let place = location(digest);
    let place: &str = place.as_ref();
    let components: Vec<&str> = std::iter::once(OUTPUTS).chain(place.split('/')).collect();
    let opened = beneath::open_below(attempt, &components).and_then(|file| {
        let length = file.metadata()?.len();
        Ok((file, length))
    });
    opened.map_err(|error| match error.kind() {
        // Only these are ours: no descriptor left, no memory.
        io::ErrorKind::OutOfMemory => ImportError::Pool(PoolError::io(attempt)(error)),
        _ if matches!(error.raw_os_error(), Some(23 | 24 | 5)) => ImportError::Pool(PoolError::io(attempt)(error)),
        _ => ImportError::Bad(format!("its bytes {digest} cannot be read where they were stored: {error}")),
    })
}

fn read_manifest(attempt: &Path, digest: &Digest) -> Result<Manifest, ImportError> {
    use std::io::Read as _;
    let (file, length) = open(attempt, digest)?;
    if length > MANIFEST_LIMIT {
        return Err(ImportError::Bad(format!("its listing has {length} bytes; the limit is {MANIFEST_LIMIT}")));
    }
    let mut bytes = Vec::new();
    file.take(MANIFEST_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|error| ImportError::Pool(PoolError::io(attempt)(error)))?;
    if Digest::of(&bytes) != *digest {
        return Err(damaged(digest));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        ImportError::Bad(ArtifactError::Malformed { name: digest.to_string(), problem: error.to_string() }.to_string())
    })
}
