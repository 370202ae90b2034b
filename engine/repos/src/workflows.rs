//! The workflow files of a commit: `.kickwheel/*.yaml` and `*.yml`, not deeper.
//!
//! They are only found here; `engine/spec` reads them. A file that cannot be taken (too large, a symbolic link, …) is
//! reported beside the others and never hides them.

use git2::{Commit, ObjectType, Repository, Tree};

/// The folder, at the root of the tree.
pub const WORKFLOW_DIR: &str = ".kickwheel";
/// Longest workflow file, in bytes.
pub const MAX_FILE_BYTES: usize = 512 * 1024;
/// Most workflow files of one commit; the first ones by name are taken.
pub const MAX_FILES: usize = 200;

/// What a commit has below `.kickwheel/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkflowFiles {
    /// Sorted by path.
    pub files: Vec<WorkflowFile>,
    /// Those that look like workflow files and cannot be taken.
    pub refused: Vec<RefusedFile>,
}

/// One workflow file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowFile {
    /// From the root of the tree, for example `.kickwheel/train.yaml`.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Git's id of the content, full hex.
    pub blob: String,
}

/// A file that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFile {
    /// From the root of the tree, lossily as text.
    pub path: String,
    /// A sentence that says why and what to do.
    pub reason: String,
}

pub(crate) fn workflow_files(repo: &Repository, commit: &Commit<'_>) -> Result<WorkflowFiles, git2::Error> {
    let tree = commit.tree()?;
    let mut found = WorkflowFiles::default();
    let Some(entry) = tree.get_name(WORKFLOW_DIR) else {
        return Ok(found);
    };
    if entry.kind() != Some(ObjectType::Tree) {
        found.refused.push(RefusedFile {
            path: WORKFLOW_DIR.into(),
            reason: "it is not a folder; make it one and put the workflow files there".into(),
        });
        return Ok(found);
    }
    collect(repo, &repo.find_tree(entry.id())?, &mut found)?;
    Ok(found)
}

fn collect(repo: &Repository, folder: &Tree<'_>, found: &mut WorkflowFiles) -> Result<(), git2::Error> {
    for entry in folder {
        let name = entry.name_bytes();
        if !(name.ends_with(b".yaml") || name.ends_with(b".yml")) {
            continue;
        }
        let path = format!("{WORKFLOW_DIR}/{}", String::from_utf8_lossy(name));
        match read(repo, &entry, found.files.len())? {
            Ok(bytes) => found.files.push(WorkflowFile { path, bytes, blob: entry.id().to_string() }),
            Err(reason) => found.refused.push(RefusedFile { path, reason }),
        }
    }
    Ok(())
}

/// The bytes of one file, or why it is not taken.
fn read(repo: &Repository, entry: &git2::TreeEntry<'_>, taken: usize) -> Result<Result<Vec<u8>, String>, git2::Error> {
    if std::str::from_utf8(entry.name_bytes()).is_err() {
        return Ok(Err("its name is not UTF-8; rename it".into()));
    }
    if entry.kind() != Some(ObjectType::Blob) || entry.filemode() == i32::from(git2::FileMode::Link) {
        return Ok(Err("it is not a regular file; put the file itself there".into()));
    }
    if taken == MAX_FILES {
        return Ok(Err(format!("there are more than {MAX_FILES} workflow files; remove some or join them")));
    }
    // The header first: a huge object must not be read into memory only to be refused.
    let (size, _) = repo.odb()?.read_header(entry.id())?;
    if size > MAX_FILE_BYTES {
        return Ok(Err(format!("it has {size} bytes, the limit is {MAX_FILE_BYTES}; split it")));
    }
    Ok(Ok(repo.find_blob(entry.id())?.content().to_vec()))
}
