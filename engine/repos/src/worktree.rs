//! What of a folder on disk is source: the files that `kickwheel run` takes, uncommitted changes included.
//!
//! In a Git work tree Git decides, so that a run and a push see the same: tracked files, wherever they lie, and untracked
//! ones that no `.gitignore` (or `.git/info/exclude`, or the user's own list) ignores. Elsewhere everything is source but
//! what [`LEFT_OUT`] and [`MARKERS`] name. In both, `.kickwheel/` at the root and the data folders of engines are not.
//!
//! Only names are listed here: the artifact store looks at what they are now, passes over sockets and other special files,
//! and judges links.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use git2::{ErrorCode, FileMode, Repository, Status, StatusOptions, StatusShow};
use kickwheel_schemas::tree_path::folders;

use crate::{
    mirrors::trust_repositories_of_others,
    select::Selection,
    source::{MAX_ENTRIES, takes_inside},
    workflows::WORKFLOW_DIR,
};

/// Most bytes of files that Git does not track: what is larger is data rather than source.
pub const MAX_UNTRACKED_BYTES: u64 = 2 << 30;

/// Folders that are left out, at any level, where Git does not decide.
pub const LEFT_OUT: [&str; 4] = [".git", ".venv", "__pycache__", "node_modules"];

/// A folder with such a file is a virtual environment of Python, or a cache that says so itself (as those of Cargo, pytest
/// and mypy do), and is left out where Git does not decide.
pub const MARKERS: [&str; 2] = ["pyvenv.cfg", "CACHEDIR.TAG"];

/// What lies in a data folder, beside other things. See `DataFolder` of the runtime.
const DATA_FOLDER: [&str; 3] = ["lock", "artifacts", "mirrors"];

/// What is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkTree {
    /// Sorted, relative to the folder. Some may be gone, or no regular files.
    pub paths: Vec<Vec<u8>>,
    /// Submodules and other repositories inside: a commit has no files of them, and nor has this.
    pub submodules: Vec<Vec<u8>>,
}

/// Why a folder cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum WorkTreeError {
    /// Its `.git` is of no use.
    #[error("ask Git which files are source: {0}; is its `.git` damaged?")]
    Git(#[from] git2::Error),
    /// Something in it cannot be read.
    #[error("read {path:?}: {reason}")]
    Io {
        /// Relative to the folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// More than source ever is.
    #[error(
        "take more than {} MiB of files that Git does not track (the largest is {largest:?} with {} MiB); name data in \
         `.gitignore`, narrow the steps with `source:` globs, or make it a dataset",
        MAX_UNTRACKED_BYTES >> 20,
        bytes >> 20
    )]
    TooLarge {
        /// Relative to the folder.
        largest: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// More than a tree may have.
    #[error(
        "take more than {MAX_ENTRIES} files; name what is no source in `.gitignore`, or start it in a smaller folder"
    )]
    TooMany,
}

/// Lists what of `folder` is source and is taken by one of `wanted` (by anything, if that is empty). Nothing below one of
/// `never`, which are canonical, is part of it. Blocks.
pub fn list(folder: &Path, never: &[PathBuf], wanted: &[Selection]) -> Result<WorkTree, WorkTreeError> {
    let root = folder.canonicalize().map_err(|e| failed(b"", &e))?;
    let mut places = Places { root: &root, never, wanted, data: HashMap::new() };
    // As Git itself does: a `.git` that is none of its own is an error, not another kind of folder.
    let mut tree =
        if fs::symlink_metadata(root.join(".git")).is_ok() { by_git(&mut places)? } else { by_walking(&mut places)? };
    tree.paths.sort_unstable();
    tree.paths.dedup();
    tree.submodules.sort_unstable();
    tree.submodules.dedup();
    if tree.paths.len() > MAX_ENTRIES { Err(WorkTreeError::TooMany) } else { Ok(tree) }
}

struct Places<'p> {
    root: &'p Path,
    never: &'p [PathBuf],
    wanted: &'p [Selection],
    /// Folders that were looked at, and whether an engine keeps its data there.
    data: HashMap<Vec<u8>, bool>,
}

impl Places<'_> {
    fn full(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }

    fn takes(&mut self, path: &[u8]) -> bool {
        let inside = path.strip_prefix(WORKFLOW_DIR.as_bytes());
        if inside.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")) {
            return false;
        }
        if !self.wanted.is_empty() && !self.wanted.iter().any(|selection| selection.takes(path)) {
            return false;
        }
        !folders(path).any(|folder| self.is_data(folder))
    }

    fn misses(&mut self, repository: &[u8]) -> bool {
        let taken = |selection: &Selection| selection.takes(repository) || takes_inside(selection, repository);
        (self.wanted.is_empty() || self.wanted.iter().any(taken)) && !self.is_data(repository)
    }

    fn is_data(&mut self, folder: &[u8]) -> bool {
        if let Some(known) = self.data.get(folder) {
            return *known;
        }
        let full = self.full(folder);
        let is = self.never.contains(&full) || DATA_FOLDER.iter().all(|name| full.join(name).exists());
        self.data.insert(folder.to_vec(), is);
        is
    }
}

fn by_git(places: &mut Places<'_>) -> Result<WorkTree, WorkTreeError> {
    trust_repositories_of_others();
    let repo = match Repository::open(places.root) {
        Err(error) if error.code() == ErrorCode::NotFound => {
            return Err(git2::Error::from_str("the folder has a `.git` that is no repository").into());
        }
        opened => opened?,
    };
    let mut tree = WorkTree::default();
    for entry in repo.index()?.iter() {
        if entry.mode == u32::from(FileMode::Commit) {
            if places.misses(&entry.path) {
                tree.submodules.push(entry.path);
            }
        } else if places.takes(&entry.path) {
            tree.paths.push(entry.path);
        }
    }
    let mut options = StatusOptions::new();
    options
        .show(StatusShow::Workdir)
        .include_untracked(true)
        .recurse_untracked_dirs(true)
        .include_ignored(false)
        .exclude_submodules(true);
    let mut size = Size::default();
    for entry in repo.statuses(Some(&mut options))?.iter() {
        if !entry.status().contains(Status::WT_NEW) {
            continue;
        }
        let path = entry.path_bytes();
        if let Some(repository) = path.strip_suffix(b"/") {
            // Git does not look into other repositories, and would add this one as a submodule.
            if places.misses(repository) {
                tree.submodules.push(repository.to_vec());
            }
        } else if places.takes(path) {
            size.add(path, &places.full(path))?;
            tree.paths.push(path.to_vec());
        }
    }
    Ok(tree)
}

fn by_walking(places: &mut Places<'_>) -> Result<WorkTree, WorkTreeError> {
    let mut tree = WorkTree::default();
    let mut size = Size::default();
    let mut open = vec![Vec::<u8>::new()];
    while let Some(prefix) = open.pop() {
        for entry in fs::read_dir(places.full(&prefix)).map_err(|e| failed(&prefix, &e))? {
            let entry = entry.map_err(|e| failed(&prefix, &e))?;
            let name = entry.file_name();
            let path = [prefix.as_slice(), name.as_bytes()].concat();
            let kind = entry.file_type().map_err(|e| failed(&path, &e))?;
            if kind.is_dir() {
                let left_out = LEFT_OUT.iter().any(|left_out| name == *left_out)
                    || MARKERS.iter().any(|marker| entry.path().join(marker).is_file())
                    || path == WORKFLOW_DIR.as_bytes()
                    || places.is_data(&path);
                if !left_out {
                    open.push([path.as_slice(), b"/"].concat());
                }
            } else if (kind.is_file() || kind.is_symlink()) && places.takes(&path) {
                size.add(&path, &entry.path())?;
                tree.paths.push(path);
                if tree.paths.len() > MAX_ENTRIES {
                    return Err(WorkTreeError::TooMany);
                }
            }
        }
    }
    Ok(tree)
}

/// What has been added up so far.
#[derive(Default)]
struct Size {
    bytes: u64,
    largest: (u64, Vec<u8>),
}

impl Size {
    fn add(&mut self, path: &[u8], full: &Path) -> Result<(), WorkTreeError> {
        // What is gone again takes no room.
        let bytes = fs::symlink_metadata(full).ok().filter(fs::Metadata::is_file).map_or(0, |meta| meta.size());
        if bytes > self.largest.0 {
            self.largest = (bytes, path.to_vec());
        }
        self.bytes += bytes;
        if self.bytes <= MAX_UNTRACKED_BYTES {
            return Ok(());
        }
        let (bytes, path) = std::mem::take(&mut self.largest);
        Err(WorkTreeError::TooLarge { largest: OsStr::from_bytes(&path).into(), bytes })
    }
}

fn failed(path: &[u8], error: &io::Error) -> WorkTreeError {
    WorkTreeError::Io { path: OsStr::from_bytes(path).into(), reason: error.to_string() }
}
