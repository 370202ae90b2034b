//! A run's source tree as an artifact: imported once per tree and selection.

use std::{path::Path, sync::Arc};

use kickwheel_artifacts::ArtifactError;
use kickwheel_core::event::PinnedSource;
use kickwheel_repos::{ExportError, Retry, Selection};
use kickwheel_schemas::{ArtifactRef, Digest, Manifest};

use crate::{
    origins,
    shared::{DEFAULT_PROJECT, Shared},
};

/// Trees remembered in memory; beyond it the memory starts anew.
const MAX_REMEMBERED: usize = 4_096;

/// Why a source tree cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It will not be different next time.
    #[error("{0}")]
    Permanent(String),
    /// Worth another try.
    #[error("{0}")]
    Transient(String),
}

impl From<ArtifactError> for SourceError {
    fn from(e: ArtifactError) -> Self {
        if e.is_transient() { Self::Transient(e.to_string()) } else { Self::Permanent(e.to_string()) }
    }
}

/// The part of a pinned source tree that `globs` select, without `.kickwheel/`.
pub async fn source_artifact(
    shared: &Arc<Shared>,
    source: &PinnedSource,
    globs: &[String],
) -> Result<ArtifactRef, SourceError> {
    let name = format!("{} {}", source.tree, globs.join("\n"));
    if let Some(known) = remembered(shared, &name) {
        return Ok(known);
    }
    let selection = Selection::new(globs).map_err(|e| SourceError::Permanent(e.to_string()))?;
    let artifact = if source.repo.is_empty() {
        narrow(shared, &source.tree, &selection).await?
    } else {
        import(shared, source, &selection).await?
    };
    remember(shared, name, artifact.clone());
    Ok(artifact)
}

async fn import(
    shared: &Arc<Shared>,
    source: &PinnedSource,
    selection: &Selection,
) -> Result<ArtifactRef, SourceError> {
    let transient = |e: &dyn std::fmt::Display| SourceError::Transient(e.to_string());
    let row = shared.store.repo(DEFAULT_PROJECT, &source.repo).await.map_err(|e| transient(&e))?.ok_or_else(|| {
        SourceError::Permanent(format!(
            "repository {} is bound no more; add it again with `kickwheel repos add`",
            source.repo
        ))
    })?;
    let mirror = origins::mirror_of(shared, &row).await.map_err(|e| match e.retry() {
        Retry::Now | Retry::Later => transient(&e),
        Retry::Stop => SourceError::Permanent(e.to_string()),
    })?;
    let folder = tempfile::tempdir_in(shared.folder.path("tmp")).map_err(|e| transient(&e))?;
    let dest = folder.path().join("tree");
    shared.mirrors.export(&mirror, &source.commit, selection, &dest).await.map_err(|e| match e {
        ExportError::Read(_) | ExportError::Io { .. } | ExportError::Git(_) => transient(&e),
        ExportError::LinksLeave(_) | ExportError::Hostile(_) => {
            SourceError::Permanent(format!("the source of {} cannot be laid out: {e}", source.commit))
        }
    })?;
    Ok(shared.artifacts.put_folder(&dest, |_| true).await?)
}

/// An uploaded working tree is in the store as a whole; its tree is named by the digest of its listing.
async fn narrow(shared: &Arc<Shared>, tree: &str, selection: &Selection) -> Result<ArtifactRef, SourceError> {
    let digest: Digest = tree.parse().map_err(|e| SourceError::Permanent(format!("{e}")))?;
    let manifest = shared.artifacts.manifest(&digest).await?;
    let files = manifest.files.into_iter().filter(|f| selection.takes(f.path.as_bytes())).collect();
    Ok(shared.artifacts.put_manifest(&Manifest::new(files)).await?)
}

fn remembered(shared: &Shared, name: &str) -> Option<ArtifactRef> {
    shared.sources.lock().expect("no holder of this lock panics").get(name).cloned()
}

fn remember(shared: &Shared, name: String, artifact: ArtifactRef) {
    let mut sources = shared.sources.lock().expect("no holder of this lock panics");
    if sources.len() >= MAX_REMEMBERED {
        sources.clear();
    }
    sources.insert(name, artifact);
}

/// Stores an uncommitted working tree, without `.git`, `.kickwheel` and what Git ignores at the top (caches, virtual
/// environments).
pub async fn worktree_artifact(shared: &Arc<Shared>, folder: &Path) -> Result<ArtifactRef, SourceError> {
    Ok(shared.artifacts.put_folder(folder, |path| !is_left_out(path)).await?)
}

fn is_left_out(path: &str) -> bool {
    path.split('/')
        .any(|part| matches!(part, ".git" | ".kickwheel" | "__pycache__" | ".venv" | "node_modules" | "target"))
}
