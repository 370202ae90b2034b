//! Why artifacts and attempt documents cannot be stored or read. Split by what the caller can do about it.

use std::{io, path::PathBuf};

use kickwheel_schemas::Digest;

/// A failed operation on the store. Only [`ArtifactError::is_transient`] ones are worth repeating.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The store holds no such bytes. Repeating does not help; the data was removed or never stored here.
    #[error("find artifact {0} in the store; it was removed or belongs to another store")]
    Missing(Digest),
    /// The stored bytes are not those that their name promises.
    #[error("read artifact {digest}: its bytes hash to {found}; the store is damaged, restore the blob from a backup")]
    Corrupt {
        /// What was asked for.
        digest: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// More bytes than the caller is prepared to hold in memory.
    #[error("read artifact {digest} into memory: it has {size} bytes and the limit is {limit}")]
    TooLarge {
        /// What was asked for.
        digest: Digest,
        /// Its length.
        size: u64,
        /// The caller's limit.
        limit: u64,
    },
    /// A path that must not be stored or laid out.
    #[error("use the path {path:?}: {problem}")]
    Path {
        /// As it was given.
        path: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Symbolic links that are not kept: what they lead to is no part of the folder. Each with its target.
    #[error("keep symbolic links that lead out of their folder: {}; put what they lead to in their place, or leave them out", .0.join(", "))]
    LinksLeave(Vec<String>),
    /// The source file was written to while it was being stored.
    #[error("store {0:?}: it changed while it was read; close it before the job ends")]
    Changed(PathBuf),
    /// A document of an attempt, or a manifest, that cannot be understood.
    #[error("understand {name}: {problem}")]
    Malformed {
        /// Which object.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file system refused something outside the store, or a folder of it.
    #[error("access {path:?}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store itself failed.
    #[error("use the object store: {0}")]
    Store(#[from] object_store::Error),
}

impl ArtifactError {
    /// Whether the same call may succeed later without anybody changing its input: a full disk, a lost connection.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Store(_) => true,
            Self::Missing(_)
            | Self::Corrupt { .. }
            | Self::TooLarge { .. }
            | Self::Path { .. }
            | Self::LinksLeave(_)
            | Self::Changed(_)
            | Self::Malformed { .. } => false,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
