//! Folders as artifacts: a [`Manifest`] blob that lists the files, each a blob of its own.
//!
//! Kept of a file: its path, bytes and whether it is executable. Not kept: owners, times, other permission bits and empty
//! folders. Symbolic links and special files are refused rather than followed: what they point to may lie outside, may
//! differ elsewhere, and a link that silently becomes a copy (or vanishes) surprises later.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kickwheel_schemas::{ArtifactRef, Digest, Manifest, ManifestEntry};
use rustix::{
    fs::{AtFlags, Dir, FileType, statat},
    io::Errno,
};

use crate::{Access, ArtifactError, Artifacts, beneath, path::check, store::blocking};

/// Most files in one folder artifact.
pub const FOLDER_FILES_LIMIT: usize = 1_000_000;

/// Longest manifest that is read, in bytes.
pub const MANIFEST_LIMIT: u64 = 512 * 1024 * 1024;

/// Files stored or fetched at the same time: hides the latency of synchronising, without holding many open.
const FILES_AT_ONCE: usize = 16;

/// One file of a tree that is not on disk, for example of a Git commit.
#[derive(Clone, Debug)]
pub struct TreeFile {
    /// Relative, `/`-separated.
    pub path: String,
    /// Its content.
    pub bytes: Bytes,
    /// Whether it may be executed.
    pub executable: bool,
}

impl Artifacts {
    /// Stores every file below `folder` whose relative path `keep` accepts. Also for a `folder` that is a single file's
    /// parent: an empty selection gives an empty manifest.
    pub async fn put_folder(
        &self,
        folder: &Path,
        keep: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<ArtifactRef, ArtifactError> {
        let root = File::open(folder).map_err(ArtifactError::io(folder))?;
        self.put_opened_folder(root.into(), folder, None, keep).await
    }

    /// The same for a folder that is open: for who must decide how it is opened. `origin` is its path, for messages. No
    /// link below it is followed whatever happens meanwhile; with `owner`, a file that is another user's is refused.
    pub async fn put_opened_folder(
        &self,
        root: OwnedFd,
        origin: &Path,
        owner: Option<u32>,
        keep: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<ArtifactRef, ArtifactError> {
        let root = Arc::new(root);
        let (open, path) = (Arc::clone(&root), origin.to_owned());
        let found = blocking(move || list_files(&open, &path, keep)).await?;
        let root = &root;
        let entries: Vec<ManifestEntry> = futures::stream::iter(found)
            .map(|found| async move {
                let location = origin.join(&found.path);
                let (open, path, at) = (Arc::clone(root), found.path.clone(), location.clone());
                let file = blocking(move || open_listed(&open, &path, owner).map_err(|e| refused(&at, e))).await?;
                let stored = self.put_opened(file, &location).await?;
                Ok::<_, ArtifactError>(ManifestEntry {
                    path: found.path,
                    digest: stored.digest,
                    size: stored.size,
                    executable: found.executable,
                })
            })
            .buffer_unordered(FILES_AT_ONCE)
            .try_collect()
            .await?;
        self.put_manifest(&Manifest::new(entries)).await
    }

    /// Stores a tree that comes as a stream of files in any order, holding a few of them in memory.
    pub async fn put_tree<E: From<ArtifactError>>(
        &self,
        files: impl Stream<Item = Result<TreeFile, E>>,
    ) -> Result<ArtifactRef, E> {
        let entries: Vec<ManifestEntry> = files
            .map_ok(|file| async move {
                check(&file.path)?;
                let stored = self.put_bytes(file.bytes).await?;
                Ok::<_, E>(ManifestEntry {
                    path: file.path,
                    digest: stored.digest,
                    size: stored.size,
                    executable: file.executable,
                })
            })
            .try_buffer_unordered(FILES_AT_ONCE)
            .try_collect()
            .await?;
        Ok(self.put_manifest(&Manifest::new(entries)).await?)
    }

    /// Stores a manifest whose files are stored already.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<ArtifactRef, ArtifactError> {
        check_manifest(manifest, "a manifest to be stored")?;
        let stored = self.put_bytes(manifest.to_bytes()).await?;
        Ok(ArtifactRef { digest: stored.digest, size: manifest.size(), path: String::new(), folder: true })
    }

    /// The listing of a folder artifact. Its paths are safe to join to a folder.
    pub async fn manifest(&self, digest: &Digest) -> Result<Manifest, ArtifactError> {
        let bytes = self.get_bytes(digest, MANIFEST_LIMIT).await?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| ArtifactError::Malformed {
            name: format!("artifact {digest} as a folder"),
            problem: error.to_string(),
        })?;
        check_manifest(&manifest, digest.as_str())?;
        Ok(manifest)
    }

    /// Lays out a file or folder artifact at `dest`. Folders above are made; a folder may be laid into an existing one,
    /// but no file is ever replaced.
    pub async fn fetch(&self, artifact: &ArtifactRef, dest: &Path, access: Access) -> Result<(), ArtifactError> {
        if !artifact.folder {
            let parent = dest.parent().unwrap_or(Path::new("/")).to_owned();
            blocking(move || fs::create_dir_all(&parent).map_err(ArtifactError::io(parent))).await?;
            return self.fetch_file(&artifact.digest, dest, access, false).await;
        }
        let manifest = self.manifest(&artifact.digest).await?;
        let folders: std::collections::BTreeSet<PathBuf> =
            manifest.files.iter().filter_map(|file| dest.join(&file.path).parent().map(Path::to_owned)).collect();
        let root = dest.to_owned();
        blocking(move || {
            fs::create_dir_all(&root).map_err(ArtifactError::io(root))?;
            folders.iter().try_for_each(|folder| fs::create_dir_all(folder).map_err(ArtifactError::io(folder)))
        })
        .await?;
        futures::stream::iter(manifest.files)
            .map(|file| async move {
                self.fetch_file(&file.digest, &dest.join(&file.path), access, file.executable).await
            })
            .buffer_unordered(FILES_AT_ONCE)
            .try_collect()
            .await
    }
}

fn check_manifest(manifest: &Manifest, name: &str) -> Result<(), ArtifactError> {
    let malformed = |problem: String| Err(ArtifactError::Malformed { name: name.to_owned(), problem });
    if manifest.files.len() > FOLDER_FILES_LIMIT {
        return malformed(format!("it lists {} files; the limit is {FOLDER_FILES_LIMIT}", manifest.files.len()));
    }
    for pair in manifest.files.windows(2) {
        if pair[0].path >= pair[1].path {
            return malformed(format!("{:?} and {:?} are not in ascending order", pair[0].path, pair[1].path));
        }
    }
    manifest.files.iter().try_for_each(|file| check(&file.path))
}

struct Found {
    path: String,
    executable: bool,
}

fn list_files(root: &OwnedFd, origin: &Path, keep: impl Fn(&str) -> bool) -> Result<Vec<Found>, ArtifactError> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(prefix) = folders.pop() {
        let place = origin.join(&prefix);
        let components: Vec<&str> = prefix.split_terminator('/').collect();
        let folder = beneath::folder_at(root, &components).map_err(|e| refused(&place, e))?;
        for entry in Dir::read_from(&folder).map_err(io::Error::from).map_err(ArtifactError::io(&place))? {
            let entry = entry.map_err(io::Error::from).map_err(ArtifactError::io(&place))?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let shown = entry.file_name().to_string_lossy().into_owned();
            let refuse = |problem: &str| ArtifactError::Path {
                path: place.join(&shown).display().to_string(),
                problem: problem.to_owned(),
            };
            let name = entry.file_name().to_str().map_err(|_| refuse("its name is not UTF-8; rename it"))?;
            let path = format!("{prefix}{name}");
            let status = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(io::Error::from)
                .map_err(ArtifactError::io(place.join(name)))?;
            let kind = FileType::from_raw_mode(status.st_mode);
            if kind == FileType::Directory {
                folders.push(format!("{path}/"));
                continue;
            }
            if !keep(&path) {
                continue;
            }
            if kind == FileType::Symlink {
                return Err(refuse("it is a symbolic link; write a regular file or folder there"));
            }
            if kind != FileType::RegularFile {
                return Err(refuse("it is neither a regular file nor a folder"));
            }
            found.push(Found { path, executable: status.st_mode & 0o111 != 0 });
            if found.len() > FOLDER_FILES_LIMIT {
                return Err(refuse("its folder holds more than 1000000 files"));
            }
        }
    }
    Ok(found)
}

fn open_listed(root: &OwnedFd, path: &str, owner: Option<u32>) -> io::Result<File> {
    let components: Vec<&str> = path.split('/').collect();
    beneath::owned(beneath::open_at(root, &components)?, owner)
}

/// What was listed a moment ago and cannot be opened as what it was.
fn refused(location: &Path, error: io::Error) -> ArtifactError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ArtifactError::Changed(location.to_owned()),
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => ArtifactError::Changed(location.to_owned()),
        io::ErrorKind::PermissionDenied => {
            ArtifactError::Path { path: location.display().to_string(), problem: error.to_string() }
        }
        _ => ArtifactError::io(location)(error),
    }
}
