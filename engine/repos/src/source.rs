//! A commit's source tree: written to a folder, or only named by a digest.
//!
//! The `.kickwheel/` folder at the root is never part of it, so that editing a workflow does not invalidate what tasks
//! computed. Bytes are written as Git stores them: no line-ending or LFS filters, no submodules: they are
//! reported, and whoever asked for the tree says so where the user looks.
//! An export that fails leaves no folder behind; one that is killed does, and whoever chose the folder deletes it.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use git2::{FileMode, Oid, Repository, Tree};
use kickwheel_schemas::{
    Digest,
    tree_path::{folders, stays_inside},
};
use sha2::{Digest as _, Sha256};

use crate::{fetch::MAX_TREE_DEPTH, mirrors::ReadError, select::Selection, workflows::WORKFLOW_DIR};

/// Most entries of a source tree.
pub const MAX_ENTRIES: usize = 1_000_000;
/// How many refused links an error names.
const MAX_NAMED_LINKS: usize = 10;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Symbolic links.
    pub links: u64,
    /// Paths of submodules, which are not written.
    pub submodules: Vec<Vec<u8>>,
}

/// Why a tree was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Fetch, then retry.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Stop: the commit has links that would lead out of the work folder.
    #[error("lay out the source tree: these symbolic links lead out of it: {}; remove them, or exclude them with `source:` globs", .0.join(", "))]
    LinksLeave(Vec<String>),
    /// Stop: the commit is malformed, perhaps on purpose.
    #[error("lay out the source tree: {0}")]
    Hostile(String),
    /// Retry later: our own disk.
    #[error("write {path:?}: {reason}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// What libgit2 said; [`crate::Mirrors::export`] turns it into [`ExportError::Read`].
    #[error("read the source tree: {0}")]
    Git(#[from] git2::Error),
}

/// One entry of the source tree that is no folder.
struct Entry {
    path: Vec<u8>,
    id: Oid,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Executable,
    Link,
    Submodule,
}

impl Kind {
    /// Git's canonical mode.
    fn mode(self) -> &'static str {
        match self {
            Self::File => "100644",
            Self::Executable => "100755",
            Self::Link => "120000",
            Self::Submodule => "160000",
        }
    }
}

pub(crate) fn tree_digest(repo: &Repository, tree: &Tree<'_>, selection: &Selection) -> Result<Digest, git2::Error> {
    let mut hash = Sha256::new();
    for entry in entries(repo, tree, selection)? {
        // Paths hold no NUL, so no two trees give the same sequence.
        hash.update(format!("{} {} ", entry.kind.mode(), entry.id));
        hash.update(&entry.path);
        hash.update([0]);
    }
    Ok(Digest::from_hash(hash.finalize().into()))
}

pub(crate) fn export(
    repo: &Repository,
    tree: &Tree<'_>,
    selection: &Selection,
    dest: &Path,
) -> Result<Exported, ExportError> {
    let entries = entries(repo, tree, selection)?;
    check_names(&entries)?;
    let links = link_targets(repo, &entries)?;
    make_empty(dest)?;
    let written = write(repo, &entries, links, dest);
    if written.is_err() {
        // Best effort: the error that is returned matters more than what is left of the folder.
        let _ = fs::remove_dir_all(dest);
    }
    written
}

fn write(
    repo: &Repository,
    entries: &[Entry],
    link_targets: Vec<Vec<u8>>,
    dest: &Path,
) -> Result<Exported, ExportError> {
    let mut made = HashSet::new();
    let mut exported = Exported::default();
    let mut links = link_targets.into_iter();
    for entry in entries {
        if entry.kind == Kind::Submodule {
            exported.submodules.push(entry.path.clone());
            continue;
        }
        let path = dest.join(OsStr::from_bytes(&entry.path));
        make_folders(dest, &entry.path, &mut made)?;
        match entry.kind {
            Kind::File | Kind::Executable => {
                let blob = repo.find_blob(entry.id)?;
                write_file(&path, blob.content(), entry.kind == Kind::Executable).map_err(|e| failed(&path, &e))?;
                exported.files += 1;
                exported.bytes += blob.content().len() as u64;
            }
            Kind::Link => {
                let target = links.next().expect("there is one target per link, in the same order");
                symlink(OsStr::from_bytes(&target), &path).map_err(|e| failed(&path, &e))?;
                exported.links += 1;
            }
            Kind::Submodule => {}
        }
    }
    Ok(exported)
}

fn failed(path: &Path, error: &io::Error) -> ExportError {
    ExportError::Io { path: path.to_owned(), reason: error.to_string() }
}

/// The selected entries, sorted by path.
fn entries(repo: &Repository, tree: &Tree<'_>, selection: &Selection) -> Result<Vec<Entry>, git2::Error> {
    let mut found = Vec::new();
    collect(repo, tree, &mut Vec::new(), selection, 0, &mut found)?;
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(
    repo: &Repository,
    tree: &Tree<'_>,
    path: &mut Vec<u8>,
    selection: &Selection,
    depth: usize,
    found: &mut Vec<Entry>,
) -> Result<(), git2::Error> {
    if depth > MAX_TREE_DEPTH {
        return Err(git2::Error::from_str("its folders are nested too deeply"));
    }
    let parent_len = path.len();
    for entry in tree {
        if depth == 0 && entry.name_bytes() == WORKFLOW_DIR.as_bytes() {
            continue;
        }
        path.extend_from_slice(entry.name_bytes());
        let mode = entry.filemode();
        if mode == i32::from(FileMode::Tree) {
            path.push(b'/');
            collect(repo, &repo.find_tree(entry.id())?, path, selection, depth + 1, found)?;
        } else if selection.takes(path) || mode == i32::from(FileMode::Commit) && takes_inside(selection, path) {
            if found.len() == MAX_ENTRIES {
                return Err(git2::Error::from_str(&format!("it has more than {MAX_ENTRIES} files")));
            }
            let kind = match mode {
                m if m == i32::from(FileMode::BlobExecutable) => Kind::Executable,
                m if m == i32::from(FileMode::Link) => Kind::Link,
                m if m == i32::from(FileMode::Commit) => Kind::Submodule,
                _ => Kind::File,
            };
            found.push(Entry { path: path.clone(), id: entry.id(), kind });
        }
        path.truncate(parent_len);
    }
    Ok(())
}

/// Whether globs that name what lies in a submodule, as `lib/**` does, ask for it.
pub(crate) fn takes_inside(selection: &Selection, path: &[u8]) -> bool {
    selection.takes(&[path, b"/_"].concat())
}

/// Git's own tools never write such names, but a pushed tree may hold anything.
fn check_names(entries: &[Entry]) -> Result<(), ExportError> {
    for entry in entries {
        for name in entry.path.split(|byte| *byte == b'/') {
            if name.is_empty() || name == b"." || name == b".." || name.eq_ignore_ascii_case(b".git") {
                let path = entry.path.escape_ascii();
                return Err(ExportError::Hostile(format!("the commit holds the forbidden path \"{path}\"")));
            }
        }
    }
    // A path that is both a link and a folder would let the commit write wherever the link leads.
    let twice =
        |path: &[u8]| Err(ExportError::Hostile(format!("the commit holds the path \"{}\" twice", path.escape_ascii())));
    let mut leaves = HashSet::with_capacity(entries.len());
    for entry in entries {
        if !leaves.insert(entry.path.as_slice()) {
            return twice(&entry.path);
        }
    }
    for entry in entries {
        if let Some(folder) = folders(&entry.path).find(|folder| leaves.contains(folder)) {
            return twice(folder);
        }
    }
    Ok(())
}

/// The target of each link, in order; an error if any leads out of the tree.
fn link_targets(repo: &Repository, entries: &[Entry]) -> Result<Vec<Vec<u8>>, ExportError> {
    let mut targets = Vec::new();
    let mut leaving = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == Kind::Link) {
        let target = repo.find_blob(entry.id)?.content().to_vec();
        if !stays_inside(&entry.path, &target) {
            leaving.push(format!("\"{}\" -> \"{}\"", entry.path.escape_ascii(), target.escape_ascii()));
        }
        targets.push(target);
    }
    if leaving.is_empty() {
        return Ok(targets);
    }
    if leaving.len() > MAX_NAMED_LINKS {
        let more = leaving.len() - MAX_NAMED_LINKS;
        leaving.truncate(MAX_NAMED_LINKS);
        leaving.push(format!("and {more} more"));
    }
    Err(ExportError::LinksLeave(leaving))
}

fn make_empty(dest: &Path) -> Result<(), ExportError> {
    fs::create_dir_all(dest).map_err(|e| failed(dest, &e))?;
    let occupied = fs::read_dir(dest).map_err(|e| failed(dest, &e))?.next().is_some();
    if occupied {
        return Err(ExportError::Io { path: dest.to_owned(), reason: "the folder is not empty".into() });
    }
    Ok(())
}

/// Makes the folders above `path`. Each is created exactly once, so a link can never stand in for one.
fn make_folders(dest: &Path, path: &[u8], made: &mut HashSet<Vec<u8>>) -> Result<(), ExportError> {
    for folder in folders(path) {
        if !made.contains(folder) {
            let full = dest.join(OsStr::from_bytes(folder));
            fs::create_dir(&full).map_err(|e| failed(&full, &e))?;
            made.insert(folder.to_vec());
        }
    }
    Ok(())
}

fn write_file(path: &Path, content: &[u8], executable: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(content)?;
    if executable {
        // Set, not asked for on creation: the umask must not decide whether a script runs.
        file.set_permissions(Permissions::from_mode(0o755))?;
    }
    Ok(())
}
