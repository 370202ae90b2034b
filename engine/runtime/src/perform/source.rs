//! A run's source tree as an artifact: imported once per tree and selection. What of a folder on disk is source is decided
//! in `kickwheel-repos`.

use std::{path::Path, sync::Arc};

use kickwheel_artifacts::ArtifactError;
use kickwheel_core::{
    event::PinnedSource,
    plan::{Action, Plan},
};
use kickwheel_repos::{ExportError, Retry, Selection, worktree};
use kickwheel_schemas::{ArtifactRef, Digest, Manifest, tree_path};

use crate::{
    origins,
    shared::{DEFAULT_PROJECT, Shared},
};

/// Trees remembered in memory; beyond it the memory starts anew.
const MAX_REMEMBERED: usize = 4_096;
/// Submodules that a note names.
const MAX_NAMED_SUBMODULES: usize = 10;

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

/// A source tree that is in the store.
#[derive(Clone, Debug)]
pub struct SourceTree {
    /// As a folder.
    pub artifact: ArtifactRef,
    /// Submodules in its place, for people: their files are not part of it.
    pub submodules: Arc<[String]>,
}

impl SourceTree {
    fn new(artifact: ArtifactRef, submodules: &[Vec<u8>]) -> Self {
        Self { artifact, submodules: submodules.iter().map(|path| path.escape_ascii().to_string()).collect() }
    }

    /// What the tree lacks, and what to do about it: a job that misses files says only that they are not there.
    pub fn lack(&self) -> Option<String> {
        if self.submodules.is_empty() {
            return None;
        }
        let mut names: Vec<String> =
            self.submodules.iter().take(MAX_NAMED_SUBMODULES).map(|name| format!("`{name}`")).collect();
        let more = self.submodules.len().saturating_sub(MAX_NAMED_SUBMODULES);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        Some(format!(
            "the source tree has no files of submodules ({}); clone them in the step, keep the files in this repository, \
             or narrow `source:` if they are not needed",
            names.join(", ")
        ))
    }
}

/// The part of a pinned source tree that `globs` select, without `.kickwheel/`.
pub async fn source_tree(
    shared: &Arc<Shared>,
    source: &PinnedSource,
    globs: &[String],
) -> Result<SourceTree, SourceError> {
    let name = format!("{} {}", source.tree, globs.join("\n"));
    if let Some(known) = remembered(shared, &name) {
        return Ok(known);
    }
    let selection = selection(globs)?;
    let tree = if source.repo.is_empty() {
        narrow(shared, &source.tree, &selection).await?
    } else {
        import(shared, source, &selection).await?
    };
    remember(shared, name, tree.clone());
    Ok(tree)
}

fn selection(globs: &[String]) -> Result<Selection, SourceError> {
    Selection::new(globs).map_err(|e| SourceError::Permanent(e.to_string()))
}

async fn import(shared: &Arc<Shared>, source: &PinnedSource, selection: &Selection) -> Result<SourceTree, SourceError> {
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
    let exported = shared.mirrors.export(&mirror, &source.commit, selection, &dest).await.map_err(|e| match e {
        ExportError::Read(_) | ExportError::Io { .. } | ExportError::Git(_) => transient(&e),
        ExportError::LinksLeave(_) | ExportError::Hostile(_) => {
            SourceError::Permanent(format!("the source of {} cannot be laid out: {e}", source.commit))
        }
    })?;
    Ok(SourceTree::new(shared.artifacts.put_folder(&dest).await?, &exported.submodules))
}

/// A working tree is in the store as a whole; its tree is named by the digest of its listing.
async fn narrow(shared: &Arc<Shared>, tree: &str, selection: &Selection) -> Result<SourceTree, SourceError> {
    let digest: Digest = tree.parse().map_err(|e| SourceError::Permanent(format!("{e}")))?;
    let Manifest { files, links } = shared.artifacts.manifest(&digest).await?;
    let takes = |text: &str| tree_path::to_bytes(text).is_some_and(|path| selection.takes(&path));
    let files = files.into_iter().filter(|file| takes(&file.path)).collect();
    let links = links.into_iter().filter(|link| takes(&link.path)).collect();
    let artifact = shared.artifacts.put_manifest(&Manifest::with_links(files, links)).await?;
    let submodules = remembered(shared, &as_a_whole(tree)).map(|whole| whole.submodules).unwrap_or_default();
    Ok(SourceTree { artifact, submodules })
}

/// The name under which a whole working tree is remembered; no selection of it has the same.
fn as_a_whole(tree: &str) -> String {
    format!("{tree} as a whole")
}

fn remembered(shared: &Shared, name: &str) -> Option<SourceTree> {
    shared.sources.lock().expect("no holder of this lock panics").get(name).cloned()
}

fn remember(shared: &Shared, name: String, tree: SourceTree) {
    let mut sources = shared.sources.lock().expect("no holder of this lock panics");
    if sources.len() >= MAX_REMEMBERED {
        sources.clear();
    }
    sources.insert(name, tree);
}

/// Stores of an uncommitted working tree what is source and what one of `plan`'s jobs takes.
pub async fn worktree_artifact(shared: &Arc<Shared>, folder: &Path, plan: &Plan) -> Result<ArtifactRef, SourceError> {
    let jobs = plan.steps.iter().filter(|step| !matches!(step.action, Action::Plugin { .. }));
    let wanted = jobs.map(|step| selection(&step.source)).collect::<Result<Vec<_>, _>>()?;
    if wanted.is_empty() {
        return Ok(shared.artifacts.put_manifest(&Manifest::default()).await?);
    }
    let (root, never) = (folder.to_owned(), vec![shared.folder.path("")]);
    let listed = tokio::task::spawn_blocking(move || worktree::list(&root, &never, &wanted)).await;
    let tree = listed
        .map_err(|e| SourceError::Transient(e.to_string()))?
        .map_err(|e| SourceError::Permanent(format!("failed to {e}")))?;
    let artifact = shared.artifacts.put_listed(folder, tree.paths).await.map_err(|e| match e {
        ArtifactError::LinksLeave(links) => SourceError::Permanent(format!(
            "these symbolic links lead out of it: {}; remove them, name them in `.gitignore`, or exclude them with \
             `source:` globs",
            links.join(", ")
        )),
        other => other.into(),
    })?;
    let whole = SourceTree::new(artifact.clone(), &tree.submodules);
    remember(shared, as_a_whole(artifact.digest.as_str()), whole);
    Ok(artifact)
}
