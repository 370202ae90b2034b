//! The documents of an attempt: `attempts/<attempt file name>/<name>.json`.
//!
//! Some are put only if absent and survive a loss of power (a claim, a result: they decide races and are the truth);
//! others are overwritten and may be lost (a heartbeat). Which is which is part of each type, see [`Document`]. Signing
//! and checking MACs is left to the caller, who knows the credential.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use kickwheel_schemas::runner::{CancelRequest, Claim, Heartbeat, JobResult, JobSpec, RunnerExit, file};
use object_store::{
    GetOptions, ObjectStore as _, PutMode, PutOptions, PutPayload, local::LocalFileSystem, path::Path as ObjectPath,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{ArtifactError, store::blocking};

/// Longest document that is read, in bytes.
pub const DOCUMENT_LIMIT: u64 = 64 * 1024 * 1024;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Only if absent, and on disk before the put returns.
    OnceDurably,
    /// Replaces what is there, atomically; may be lost with the power.
    Again,
}

/// A JSON document of an attempt.
pub trait Document: Serialize + DeserializeOwned + Send + 'static {
    /// Its name in the attempt's folder.
    const NAME: &'static str;
    /// How it is written.
    const WRITING: Writing;
}

impl Document for JobSpec {
    const NAME: &'static str = file::SPEC;
    // Not synchronised: it is needed only until the claim, whose own synchronisation follows it, and an engine that finds
    // no claim writes it again.
    const WRITING: Writing = Writing::Again;
}
impl Document for Claim {
    const NAME: &'static str = file::CLAIM;
    const WRITING: Writing = Writing::OnceDurably;
}
impl Document for Heartbeat {
    const NAME: &'static str = file::HEARTBEAT;
    const WRITING: Writing = Writing::Again;
}
impl Document for JobResult {
    const NAME: &'static str = file::RESULT;
    const WRITING: Writing = Writing::OnceDurably;
}
impl Document for CancelRequest {
    const NAME: &'static str = file::CANCEL;
    const WRITING: Writing = Writing::OnceDurably;
}
impl Document for RunnerExit {
    const NAME: &'static str = file::EXIT;
    const WRITING: Writing = Writing::Again;
}

/// What a put did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Put {
    /// The document is stored.
    Stored,
    /// There was one already, which stays.
    Existed,
}

/// The attempts below one root. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Attempts {
    durable: Arc<LocalFileSystem>,
    quick: Arc<LocalFileSystem>,
    folder: PathBuf,
}

impl Attempts {
    /// Attempts in `root/attempts`, which is made, durably, if it is absent.
    pub fn local(root: &Path) -> Result<Self, ArtifactError> {
        let folder = root.join("attempts");
        if !folder.is_dir() {
            fs::create_dir_all(&folder).map_err(ArtifactError::io(&folder))?;
            File::open(root).and_then(|root| root.sync_all()).map_err(ArtifactError::io(root))?;
        }
        Self::open(&folder)
    }

    /// Attempts in `folder`, which exists.
    pub fn open(folder: &Path) -> Result<Self, ArtifactError> {
        let folder = folder.canonicalize().map_err(ArtifactError::io(folder))?;
        Ok(Self {
            durable: Arc::new(LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true)),
            quick: Arc::new(LocalFileSystem::new_with_prefix(&folder)?),
            folder,
        })
    }

    /// The folder that holds one folder per attempt.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Claims an attempt, whose folder exists, before user code. Also makes the attempt's folder itself durable: if it vanished with the power,
    /// the attempt would seem never to have begun and would run again.
    pub async fn claim(&self, attempt: &str, claim: &Claim) -> Result<Put, ArtifactError> {
        let folder = self.folder.clone();
        // Both at once: a journaling file system commits them together.
        let sync =
            blocking(move || File::open(&folder).and_then(|open| open.sync_all()).map_err(ArtifactError::io(folder)));
        let (put, synced) = futures::join!(self.put(attempt, claim), sync);
        synced.and(put)
    }

    /// Writes a document as its type says.
    pub async fn put<D: Document>(&self, attempt: &str, document: &D) -> Result<Put, ArtifactError> {
        let bytes = serde_json::to_vec(document).expect("protocol types have string keys only");
        let (store, mode) = match D::WRITING {
            Writing::OnceDurably => (&self.durable, PutMode::Create),
            Writing::Again => (&self.quick, PutMode::Overwrite),
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        match store.put_opts(&location::<D>(attempt)?, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(Put::Stored),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Existed),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a document, or none if it was not written.
    pub async fn get<D: Document>(&self, attempt: &str) -> Result<Option<D>, ArtifactError> {
        let got = match self.quick.get_opts(&location::<D>(attempt)?, GetOptions::default()).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let malformed = |problem: String| ArtifactError::Malformed { name: format!("{attempt}/{}", D::NAME), problem };
        if got.meta.size > DOCUMENT_LIMIT {
            return Err(malformed(format!("it has {} bytes; the limit is {DOCUMENT_LIMIT}", got.meta.size)));
        }
        let bytes = got.bytes().await?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| malformed(error.to_string()))
    }
}

fn location<D: Document>(attempt: &str) -> Result<ObjectPath, ArtifactError> {
    crate::path::check(attempt)?;
    if attempt.contains('/') {
        let problem = "an attempt is one name, without `/`".to_owned();
        return Err(ArtifactError::Path { path: attempt.to_owned(), problem });
    }
    Ok(ObjectPath::from(format!("{attempt}/{}", D::NAME)))
}
