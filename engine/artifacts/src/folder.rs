//! Folders as artifacts: a [`Manifest`] blob that lists the files, each a blob of its own.
//!
//! Kept of a file: its path, bytes and whether it is executable. Kept of a symbolic link: its path and its target, if that
//! stays inside the folder. Not kept: owners, times, other permission bits and empty folders. A link that leads out is
//! refused rather than followed: what it points to may differ elsewhere, and a link that silently becomes a copy (or
//! vanishes) surprises later. So are special files.
//!
//! Laying out makes folders and files first, never through a link, and links last: no link of a tree decides where
//! another of its files is written.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::symlink},
    },
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kickwheel_schemas::{
    ArtifactRef, Digest, Manifest, ManifestEntry, ManifestLink,
    tree_path::{folders, stays_inside, to_bytes, to_text},
};
use rustix::{
    fs::{AtFlags, Dir, FileType, readlinkat, statat},
    io::Errno,
};

use crate::{
    Access, ArtifactError, Artifacts, beneath,
    path::{check, check_bytes},
    store::blocking,
};

/// Most files and links in one folder artifact.
pub const FOLDER_FILES_LIMIT: usize = 1_000_000;

/// Longest manifest that is read, in bytes.
pub const MANIFEST_LIMIT: u64 = 512 * 1024 * 1024;

/// Files stored or fetched at the same time: hides the latency of synchronising, without holding many open.
const FILES_AT_ONCE: usize = 16;

/// Most links that an error names.
const MAX_NAMED_LINKS: usize = 10;

/// Which names the files of a folder may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// UTF-8 only: the paths of outputs become those of datasets, which stand in events and expressions.
    Text,
    /// Whatever the file system takes: nobody but jobs sees the paths of a source tree.
    Bytes,
}

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
    /// Stores everything below `folder`.
    pub async fn put_folder(&self, folder: &Path) -> Result<ArtifactRef, ArtifactError> {
        let root: OwnedFd = File::open(folder).map_err(ArtifactError::io(folder))?.into();
        let root = Arc::new(root);
        let (open, path) = (Arc::clone(&root), folder.to_owned());
        let found = blocking(move || list_files(&open, &path, Names::Bytes)).await?;
        self.put_found(&root, folder, None, found).await
    }

    /// Stores those of `paths` below `folder` that are files or links now. What is not there any more, or is a folder, a
    /// socket or another special file, is passed over; so is what lies behind a link.
    pub async fn put_listed(&self, folder: &Path, paths: Vec<Vec<u8>>) -> Result<ArtifactRef, ArtifactError> {
        let root: OwnedFd = File::open(folder).map_err(ArtifactError::io(folder))?.into();
        let root = Arc::new(root);
        let (open, origin) = (Arc::clone(&root), folder.to_owned());
        let found = blocking(move || look_at(&open, &origin, paths)).await?;
        self.put_found(&root, folder, None, found).await
    }

    /// Stores everything below a folder that a job has written and that is open: for who must decide how it is opened.
    /// `origin` is its path, for messages. No link below it is followed whatever happens meanwhile; with `owner`, a file
    /// that is another user's is refused. Names must be UTF-8.
    pub async fn put_opened_folder(
        &self,
        root: OwnedFd,
        origin: &Path,
        owner: Option<u32>,
    ) -> Result<ArtifactRef, ArtifactError> {
        let root = Arc::new(root);
        let (open, path) = (Arc::clone(&root), origin.to_owned());
        let found = blocking(move || list_files(&open, &path, Names::Text)).await?;
        self.put_found(&root, origin, owner, found).await
    }

    async fn put_found(
        &self,
        root: &Arc<OwnedFd>,
        origin: &Path,
        owner: Option<u32>,
        found: Vec<Found>,
    ) -> Result<ArtifactRef, ArtifactError> {
        let (links, files) = divide(found)?;
        let entries: Vec<ManifestEntry> = futures::stream::iter(files)
            .map(|FoundFile { path, executable }| async move {
                let location = origin.join(OsStr::from_bytes(&path));
                let (open, text, at) = (Arc::clone(root), to_text(&path), location.clone());
                let file = blocking(move || open_listed(&open, &path, owner).map_err(|e| refused(&at, e))).await?;
                let stored = self.put_opened(file, &location).await?;
                Ok::<_, ArtifactError>(ManifestEntry {
                    path: text,
                    digest: stored.digest,
                    size: stored.size,
                    executable,
                })
            })
            .buffer_unordered(FILES_AT_ONCE)
            .try_collect()
            .await?;
        self.put_manifest(&Manifest::with_links(entries, links)).await
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
        check_manifest(manifest, "a manifest to be stored", Names::Bytes)?;
        let stored = self.put_bytes(manifest.to_bytes()).await?;
        Ok(ArtifactRef { digest: stored.digest, size: manifest.size(), path: String::new(), folder: true })
    }

    /// The listing of a folder artifact. Its paths, as bytes, are safe to join to a folder, and no link leads out of it.
    pub async fn manifest(&self, digest: &Digest) -> Result<Manifest, ArtifactError> {
        let bytes = self.get_bytes(digest, MANIFEST_LIMIT).await?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| ArtifactError::Malformed {
            name: format!("artifact {digest} as a folder"),
            problem: error.to_string(),
        })?;
        check_manifest(&manifest, digest.as_str(), Names::Bytes)?;
        Ok(manifest)
    }

    /// Lays out a file or folder artifact at `dest`. Folders above are made; a folder may be laid into an existing one,
    /// but no file is ever replaced, and nothing below `dest` is laid through a link.
    pub async fn fetch(&self, artifact: &ArtifactRef, dest: &Path, access: Access) -> Result<(), ArtifactError> {
        if !artifact.folder {
            let parent = dest.parent().unwrap_or(Path::new("/")).to_owned();
            blocking(move || fs::create_dir_all(&parent).map_err(ArtifactError::io(parent))).await?;
            return self.fetch_file(&artifact.digest, dest, access, false).await;
        }
        let Manifest { files, links } = self.manifest(&artifact.digest).await?;
        let place = |text: &str| to_bytes(text).expect("a manifest that was read has been checked").into_owned();
        let files: Vec<(Vec<u8>, ManifestEntry)> = files.into_iter().map(|file| (place(&file.path), file)).collect();
        let links: Vec<(Vec<u8>, Vec<u8>)> =
            links.into_iter().map(|link| (place(&link.path), place(&link.target))).collect();
        let paths = files.iter().map(|(path, _)| path).chain(links.iter().map(|(path, _)| path));
        let parents: BTreeSet<Vec<u8>> = paths.filter_map(|path| folders(path).last().map(<[u8]>::to_vec)).collect();
        let root = dest.to_owned();
        blocking(move || {
            fs::create_dir_all(&root).map_err(ArtifactError::io(&root))?;
            let open = File::open(&root).map_err(ArtifactError::io(&root))?;
            parents.iter().try_for_each(|path| make_folders(&open, path))
        })
        .await?;
        futures::stream::iter(files)
            .map(|(path, file)| async move {
                let dest = dest.join(OsStr::from_bytes(&path));
                self.fetch_file(&file.digest, &dest, access, file.executable).await
            })
            .buffer_unordered(FILES_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let root = dest.to_owned();
        blocking(move || {
            links.iter().try_for_each(|(path, target)| {
                let link = root.join(OsStr::from_bytes(path));
                symlink(OsStr::from_bytes(target), &link).map_err(ArtifactError::io(link))
            })
        })
        .await
    }
}

/// Makes the folder at `path` below one that is open, as far as it is absent. What is laid out there next lies where its
/// path says: a link on the way is refused.
pub fn make_folders(root: &File, path: &[u8]) -> Result<(), ArtifactError> {
    beneath::make_folders(root, &components(path)).map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => ArtifactError::Path {
            path: shown(path),
            problem: "a symbolic link or a file is in its way, and nothing is laid through a link; choose another path"
                .to_owned(),
        },
        _ => ArtifactError::io(Path::new(OsStr::from_bytes(path)))(error),
    })
}

/// Refuses a listing whose entries could not be laid out as they stand, each in its own place inside the folder.
pub fn check_manifest(manifest: &Manifest, name: &str, names: Names) -> Result<(), ArtifactError> {
    let malformed = |problem: String| Err(ArtifactError::Malformed { name: name.to_owned(), problem });
    let Manifest { files, links } = manifest;
    if files.len() + links.len() > FOLDER_FILES_LIMIT {
        let count = files.len() + links.len();
        return malformed(format!("it lists {count} files; the limit is {FOLDER_FILES_LIMIT}"));
    }
    let disorder = files.windows(2).map(|pair| (&pair[0].path, &pair[1].path));
    let mut disorder = disorder.chain(links.windows(2).map(|pair| (&pair[0].path, &pair[1].path)));
    if let Some((first, second)) = disorder.find(|(first, second)| first >= second) {
        return malformed(format!("{first:?} and {second:?} are not in ascending order"));
    }
    let taken: BTreeSet<&[u8]> = links.iter().map(|link| link.path.as_bytes()).collect();
    for path in files.iter().map(|file| &file.path) {
        check_path(path, names)?;
        if taken.contains(path.as_bytes()) {
            return malformed(format!("{path:?} is a file and a link"));
        }
    }
    for path in files.iter().map(|file| &file.path).chain(links.iter().map(|link| &link.path)) {
        if !taken.is_empty() && folders(path.as_bytes()).any(|folder| taken.contains(folder)) {
            return malformed(format!("{path:?} lies behind a link"));
        }
    }
    for link in links {
        let path = check_path(&link.path, names)?;
        match to_bytes(&link.target) {
            Some(target) if stays_inside(&path, &target) && (names == Names::Bytes || !link.target.contains('\0')) => {}
            Some(_) | None => {
                return malformed(format!("the link {:?} leads out of it, to {:?}", link.path, link.target));
            }
        }
    }
    Ok(())
}

/// The bytes of a listed path.
fn check_path(text: &str, names: Names) -> Result<Vec<u8>, ArtifactError> {
    if names == Names::Text {
        check(text)?;
    }
    let refuse = |problem: &str| ArtifactError::Path { path: text.to_owned(), problem: problem.to_owned() };
    let path = to_bytes(text).ok_or_else(|| refuse("it contains a NUL byte"))?.into_owned();
    check_bytes(&path).map_err(refuse)?;
    Ok(path)
}

struct Found {
    path: Vec<u8>,
    kind: Kind,
}

struct FoundFile {
    path: Vec<u8>,
    executable: bool,
}

enum Kind {
    File { executable: bool },
    Link { target: Vec<u8> },
}

/// A path for people: as text if it is, else with what is not as escapes.
fn shown(path: &[u8]) -> String {
    str::from_utf8(path).map_or_else(|_| path.escape_ascii().to_string(), str::to_owned)
}

fn components(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect()
}

/// Links on one side, files and whether they are executable on the other. Names every link that leads out.
fn divide(found: Vec<Found>) -> Result<(Vec<ManifestLink>, Vec<FoundFile>), ArtifactError> {
    let (mut links, mut files, mut leaving) = (Vec::new(), Vec::new(), Vec::new());
    for Found { path, kind } in found {
        match kind {
            Kind::File { executable } => files.push(FoundFile { path, executable }),
            Kind::Link { target } if stays_inside(&path, &target) => {
                links.push(ManifestLink { path: to_text(&path), target: to_text(&target) });
            }
            Kind::Link { target } => leaving.push(format!("\"{}\" -> \"{}\"", shown(&path), shown(&target))),
        }
    }
    if leaving.is_empty() { Ok((links, files)) } else { Err(ArtifactError::LinksLeave(named(leaving))) }
}

fn named(mut links: Vec<String>) -> Vec<String> {
    links.sort();
    if links.len() > MAX_NAMED_LINKS {
        let more = links.len() - MAX_NAMED_LINKS;
        links.truncate(MAX_NAMED_LINKS);
        links.push(format!("and {more} more"));
    }
    links
}

fn list_files(root: &OwnedFd, origin: &Path, names: Names) -> Result<Vec<Found>, ArtifactError> {
    let mut found = Vec::new();
    let mut open = vec![Vec::<u8>::new()];
    while let Some(prefix) = open.pop() {
        let place = origin.join(OsStr::from_bytes(&prefix));
        let folder = beneath::folder_at(root, &components(&prefix)).map_err(|e| refused(&place, e))?;
        for entry in Dir::read_from(&folder).map_err(io::Error::from).map_err(ArtifactError::io(&place))? {
            let entry = entry.map_err(io::Error::from).map_err(ArtifactError::io(&place))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path = [prefix.as_slice(), name].concat();
            let refuse = |problem: &str| ArtifactError::Path { path: shown(&path), problem: problem.to_owned() };
            if names == Names::Text && str::from_utf8(name).is_err() {
                return Err(refuse("its name is not UTF-8; rename it"));
            }
            match look(&folder, name).map_err(ArtifactError::io(place.join(OsStr::from_bytes(name))))? {
                Look::Folder => open.push([path.as_slice(), b"/"].concat()),
                Look::Special => return Err(refuse("it is neither a regular file nor a folder")),
                Look::Kept(Kind::Link { target }) if names == Names::Text && str::from_utf8(&target).is_err() => {
                    return Err(refuse("what it links to has a name that is not UTF-8; rename that"));
                }
                Look::Kept(_) if found.len() == FOLDER_FILES_LIMIT => {
                    return Err(refuse("its folder holds more than 1000000 files"));
                }
                Look::Kept(kind) => found.push(Found { path, kind }),
            }
        }
    }
    Ok(found)
}

/// What of `paths` is there.
fn look_at(root: &OwnedFd, origin: &Path, paths: Vec<Vec<u8>>) -> Result<Vec<Found>, ArtifactError> {
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        let parts = components(&path);
        let Some((name, above)) = parts.split_last() else { continue };
        let looked = beneath::folder_at(root, above).and_then(|folder| look(&folder, name));
        match looked {
            Ok(Look::Kept(kind)) => found.push(Found { path, kind }),
            Ok(Look::Folder | Look::Special) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(ArtifactError::io(origin.join(OsStr::from_bytes(&path)))(error)),
        }
    }
    Ok(found)
}

enum Look {
    Kept(Kind),
    Folder,
    Special,
}

fn look(folder: &OwnedFd, name: &[u8]) -> io::Result<Look> {
    let status = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => Look::Folder,
        FileType::RegularFile => Look::Kept(Kind::File { executable: status.st_mode & 0o111 != 0 }),
        FileType::Symlink => Look::Kept(Kind::Link { target: readlinkat(folder, name, Vec::new())?.into_bytes() }),
        _ => Look::Special,
    })
}

fn open_listed(root: &OwnedFd, path: &[u8], owner: Option<u32>) -> io::Result<File> {
    beneath::owned(beneath::open_at(root, &components(path))?, owner)
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
