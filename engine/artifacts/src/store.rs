//! Blobs: bytes stored under their SHA-256, at `blobs/sha256/<first two digits>/<64 digits>`.
//!
//! A put returns only after the bytes, their folder entry and every folder above that it made are on disk, because the
//! digest goes into a journal entry that promises their existence. `LocalFileSystem` does not synchronise by default, so
//! it is opened with `with_fsync`. Files of any size pass through in pieces of [`PART_BYTES`].
//!
//! A file is hashed before it is uploaded, and again while it is: reading twice costs less than storing under a temporary
//! name and renaming, which object stores do not have, and what is there already is not sent again.
//!
//! What a job gets is always a copy. A hard link would let it change the blob, and read-only bits do not hold root back.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use kickwheel_schemas::{ArtifactRef, Digest};
use object_store::{
    GetOptions, GetResultPayload, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    local::LocalFileSystem, path::Path as ObjectPath,
};
use sha2::{Digest as _, Sha256};

use crate::ArtifactError;

/// Files are read, hashed, sent and fetched in pieces of this many bytes.
pub const PART_BYTES: usize = 8 * 1024 * 1024;

/// Hashing more bytes than this leaves the caller's thread.
const INLINE_HASH_BYTES: usize = 256 * 1024;

/// The bytes of a blob in pieces. The last item is [`ArtifactError::Corrupt`] if they were not what the digest promised.
pub type ByteStream = BoxStream<'static, Result<Bytes, ArtifactError>>;

/// Whether a file that is laid out may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Mode 0444 (0555 if executable). Keeps honest programs from writing; root is not held back.
    ReadOnly,
    /// Mode 0644 (0755 if executable).
    Writable,
}

/// A content-addressed store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: Arc<LocalFileSystem>,
    root: PathBuf,
}

impl Artifacts {
    /// A store in the folder `root`, which is made if it is absent.
    pub fn local(root: impl Into<PathBuf>) -> Result<Self, ArtifactError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(ArtifactError::io(&root))?;
        let root = root.canonicalize().map_err(ArtifactError::io(&root))?;
        let store = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), root })
    }

    /// The folder of the store: what a runner on this machine is given to open it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Stores bytes that are in memory. The reference has an empty path.
    pub async fn put_bytes(&self, bytes: impl Into<Bytes>) -> Result<ArtifactRef, ArtifactError> {
        let bytes = bytes.into();
        let digest = if bytes.len() > INLINE_HASH_BYTES {
            let copy = bytes.clone();
            blocking(move || Ok(Digest::of(&copy))).await?
        } else {
            Digest::of(&bytes)
        };
        let size = bytes.len() as u64;
        if !self.is_durable(&digest).await? {
            self.create(&digest, bytes).await?;
        }
        Ok(ArtifactRef { digest, size, path: String::new(), folder: false })
    }

    /// Stores a regular file of any size. The reference has an empty path. Fails with [`ArtifactError::Changed`] if the
    /// file is written to meanwhile, and refuses symbolic links and special files.
    pub async fn put_file(&self, file: &Path) -> Result<ArtifactRef, ArtifactError> {
        let path = file.to_owned();
        let (source, first) = blocking(move || hash_opened(open_regular(&path)?, &path)).await?;
        self.store_hashed(source, first, file).await
    }

    /// Stores a regular file that is open for reading, at its beginning: for who must decide how it is opened. `origin` is
    /// for messages. Otherwise as [`Artifacts::put_file`].
    pub async fn put_opened(&self, file: File, origin: &Path) -> Result<ArtifactRef, ArtifactError> {
        let path = origin.to_owned();
        let (source, first) = blocking(move || hash_opened(file, &path)).await?;
        self.store_hashed(source, first, origin).await
    }

    async fn store_hashed(&self, source: File, first: Hashed, file: &Path) -> Result<ArtifactRef, ArtifactError> {
        let (digest, size) = match first {
            Hashed::Small { bytes, digest } => {
                let size = bytes.len() as u64;
                if !self.is_durable(&digest).await? {
                    self.create(&digest, bytes).await?;
                }
                (digest, size)
            }
            Hashed::Large { digest, size } => {
                if !self.is_durable(&digest).await? {
                    self.upload(&digest, size, source, file).await?;
                }
                (digest, size)
            }
        };
        Ok(ArtifactRef { digest, size, path: String::new(), folder: false })
    }

    /// The whole blob, if it has at most `limit` bytes.
    pub async fn get_bytes(&self, digest: &Digest, limit: u64) -> Result<Bytes, ArtifactError> {
        let got = self.open(digest).await?;
        if got.meta.size > limit {
            return Err(ArtifactError::TooLarge { digest: digest.clone(), size: got.meta.size, limit });
        }
        let bytes = got.bytes().await?;
        let found = if bytes.len() > INLINE_HASH_BYTES {
            let copy = bytes.clone();
            blocking(move || Ok(Digest::of(&copy))).await?
        } else {
            Digest::of(&bytes)
        };
        verify(digest, found)?;
        Ok(bytes)
    }

    /// The blob in pieces, verified at its end.
    pub async fn read(&self, digest: &Digest) -> Result<ByteStream, ArtifactError> {
        let mut pieces = self.open(digest).await?.into_stream();
        let digest = digest.clone();
        let mut hash = Some(Sha256::new());
        let stream = futures::stream::poll_fn(move |context| {
            use std::task::Poll;
            let Some(running) = hash.as_mut() else { return Poll::Ready(None) };
            match futures::ready!(pieces.poll_next_unpin(context)) {
                Some(Ok(piece)) => {
                    running.update(&piece);
                    Poll::Ready(Some(Ok(piece)))
                }
                Some(Err(error)) => {
                    hash = None;
                    Poll::Ready(Some(Err(error.into())))
                }
                None => {
                    let found = Digest::from_hash(hash.take().expect("checked above").finalize().into());
                    Poll::Ready(verify(&digest, found).err().map(Err))
                }
            }
        });
        Ok(stream.boxed())
    }

    /// Copies one file's bytes to `dest`, whose folder exists and which does not, and verifies them on the way. What was
    /// written is removed again if they are wrong. Not synchronised: work folders are disposable.
    pub async fn fetch_file(
        &self,
        digest: &Digest,
        dest: &Path,
        access: Access,
        executable: bool,
    ) -> Result<(), ArtifactError> {
        let got = self.open(digest).await?;
        let mode = match (access, executable) {
            (Access::ReadOnly, false) => 0o444,
            (Access::ReadOnly, true) => 0o555,
            (Access::Writable, false) => 0o644,
            (Access::Writable, true) => 0o755,
        };
        let target = dest.to_owned();
        let mut file = blocking(move || {
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&target).map_err(ArtifactError::io(target))
        })
        .await?;
        let result = match got.payload {
            // The pieces of a local file are copied in one go on a thread for blocking work: the store's own stream
            // would change threads every few kilobytes.
            GetResultPayload::File(source, path) => {
                blocking(move || copy_and_hash(source, &path, &mut file)).await.and_then(|found| verify(digest, found))
            }
            GetResultPayload::Stream(mut pieces) => {
                let mut hash = Sha256::new();
                let mut outcome = Ok(());
                while let Some(piece) = pieces.next().await {
                    outcome = piece.map_err(ArtifactError::from).and_then(|piece| {
                        hash.update(&piece);
                        file.write_all(&piece).map_err(ArtifactError::io(dest))
                    });
                    if outcome.is_err() {
                        break;
                    }
                }
                outcome.and_then(|()| verify(digest, Digest::from_hash(hash.finalize().into())))
            }
        };
        if result.is_err() {
            // The error that matters is the one at hand; a leftover is removed with its work folder.
            let _ = fs::remove_file(dest);
        }
        result
    }

    /// Length of the blob in bytes, or none if it is not stored.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, ArtifactError> {
        match self.store.head(&location(digest)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the blob is stored.
    pub async fn exists(&self, digest: &Digest) -> Result<bool, ArtifactError> {
        Ok(self.size(digest).await?.is_some())
    }

    async fn open(&self, digest: &Digest) -> Result<object_store::GetResult, ArtifactError> {
        match self.store.get_opts(&location(digest), GetOptions::default()).await {
            Ok(got) => Ok(got),
            Err(object_store::Error::NotFound { .. }) => Err(ArtifactError::Missing(digest.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the blob is there *and* would survive a loss of power. Another process may have linked it a moment ago and
    /// not yet synchronised its folder, so this one does it too before it promises anything.
    async fn is_durable(&self, digest: &Digest) -> Result<bool, ArtifactError> {
        if !self.exists(digest).await? {
            return Ok(false);
        }
        let blob = self.root.join(location(digest).as_ref());
        blocking(move || {
            let folder = blob.parent().expect("a blob lies in a folder");
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(ArtifactError::io(folder))
        })
        .await?;
        Ok(true)
    }

    async fn create(&self, digest: &Digest, bytes: Bytes) -> Result<(), ArtifactError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&location(digest), PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(()),
            // Somebody stored the same bytes meanwhile.
            Err(object_store::Error::AlreadyExists { .. }) => self.is_durable(digest).await.map(|_| ()),
            Err(error) => Err(error.into()),
        }
    }

    async fn upload(&self, digest: &Digest, size: u64, mut source: File, origin: &Path) -> Result<(), ArtifactError> {
        let mut upload = self.store.put_multipart(&location(digest)).await?;
        let mut hash = Sha256::new();
        let mut sent = 0;
        let outcome = async {
            while sent < size {
                let part;
                let path = origin.to_owned();
                (source, hash, part) = blocking(move || {
                    let part = read_part(&mut source).map_err(ArtifactError::io(path))?;
                    hash.update(&part);
                    Ok((source, hash, part))
                })
                .await?;
                if part.is_empty() {
                    break;
                }
                sent += part.len() as u64;
                upload.put_part(PutPayload::from_bytes(part)).await?;
            }
            let found = Digest::from_hash(hash.finalize().into());
            if found != *digest {
                return Err(ArtifactError::Changed(origin.to_owned()));
            }
            upload.complete().await?;
            Ok(())
        }
        .await;
        if outcome.is_err() {
            // Best effort: parts of an upload that nobody completes are invisible and expire with the store's own rules.
            let _ = upload.abort().await;
        }
        outcome
    }
}

/// Where a blob lies below the root of its store.
pub fn location(digest: &Digest) -> ObjectPath {
    let hex = digest.hex();
    ObjectPath::from(format!("blobs/sha256/{}/{hex}", &hex[..2]))
}

fn verify(digest: &Digest, found: Digest) -> Result<(), ArtifactError> {
    if *digest == found { Ok(()) } else { Err(ArtifactError::Corrupt { digest: digest.clone(), found }) }
}

enum Hashed {
    Small { bytes: Bytes, digest: Digest },
    Large { digest: Digest, size: u64 },
}

fn open_regular(path: &Path) -> Result<File, ArtifactError> {
    let refuse =
        |problem: &str| Err(ArtifactError::Path { path: path.display().to_string(), problem: problem.to_owned() });
    let kind = fs::symlink_metadata(path).map_err(ArtifactError::io(path))?.file_type();
    if kind.is_symlink() {
        return refuse("it is a symbolic link; write a regular file or folder there");
    }
    if !kind.is_file() {
        return refuse("it is neither a regular file nor a folder");
    }
    File::open(path).map_err(ArtifactError::io(path))
}

/// Hashes an open file; a small one is also kept, a large one is rewound.
fn hash_opened(mut file: File, path: &Path) -> Result<(File, Hashed), ArtifactError> {
    use std::io::Seek as _;
    let first = read_part(&mut file).map_err(ArtifactError::io(path))?;
    if first.len() < PART_BYTES {
        let digest = Digest::of(&first);
        return Ok((file, Hashed::Small { bytes: first, digest }));
    }
    let mut hash = Sha256::new();
    hash.update(&first);
    drop(first);
    let mut size = PART_BYTES as u64;
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        let read = read_some(&mut file, &mut buffer).map_err(ArtifactError::io(path))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
    file.rewind().map_err(ArtifactError::io(path))?;
    Ok((file, Hashed::Large { digest: Digest::from_hash(hash.finalize().into()), size }))
}

fn read_part(file: &mut File) -> io::Result<Bytes> {
    let mut part = Vec::new();
    file.take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok(part.into())
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn copy_and_hash(mut source: File, path: &Path, dest: &mut File) -> Result<Digest, ArtifactError> {
    let length = source.metadata().map_err(ArtifactError::io(path))?.len();
    let mut buffer = vec![0; length.clamp(1, 1024 * 1024) as usize];
    let mut hash = Sha256::new();
    loop {
        let read = read_some(&mut source, &mut buffer).map_err(ArtifactError::io(path))?;
        if read == 0 {
            return Ok(Digest::from_hash(hash.finalize().into()));
        }
        hash.update(&buffer[..read]);
        dest.write_all(&buffer[..read]).map_err(ArtifactError::io(path))?;
    }
}

/// Runs blocking work on the runtime's threads for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // A panic is passed on; cancellation happens only when the runtime shuts down, where nobody reads the answer.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ArtifactError::Io { path: PathBuf::new(), source: io::Error::other("shutting down") }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_changed_between_hashing_and_sending_is_not_stored() {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let store = Artifacts::local(folder.path().join("store")).expect("a store can be made");
        let path = folder.path().join("file");
        fs::write(&path, "after").expect("it can be written");
        let (before, source) = (Digest::of(b"before"), File::open(&path).expect("it is there"));
        let sent = store.upload(&before, 5, source, &path).await;
        assert!(matches!(sent, Err(ArtifactError::Changed(_))), "{sent:?}");
        assert!(!store.exists(&before).await.expect("it can be asked"));
    }
}
