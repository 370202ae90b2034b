//! Content-addressed bytes and how they are referred to.
//!
//! A [`Digest`] names bytes; it grants nothing (every access is checked against the project elsewhere). A [`Manifest`] is
//! the canonical listing of many files as one artifact: its JSON, files sorted by path, is itself stored and hashed.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

/// SHA-256 of some bytes, written `sha256:<64 lower-case hex digits>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::digest(bytes).into())
    }

    /// From a finished SHA-256.
    pub fn from_hash(hash: [u8; 32]) -> Self {
        Self(format!("sha256:{}", hex::encode(hash)))
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The whole text, algorithm included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(DigestError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// A text that is no digest of the form `sha256:<hex>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read {0:?} as a digest of the form sha256:<64 lower-case hex digits>")]
pub struct DigestError(pub String);

/// A reference to stored bytes, as it appears in outputs, in `files:` and in expressions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactRef {
    /// What names the bytes. For a folder, the digest of its [`Manifest`].
    pub digest: Digest,
    /// Length in bytes; for a folder the sum over its files.
    pub size: u64,
    /// Where the bytes lay when they were stored, relative to the work folder or to the dataset.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// True when `digest` names a [`Manifest`] rather than the bytes of one file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folder: bool,
}

/// The listing of a folder or dataset version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Sorted by `path`, without duplicates.
    pub files: Vec<ManifestEntry>,
}

/// One file of a [`Manifest`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// Relative, `/`-separated, never starting with `/` nor containing `..`.
    pub path: String,
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// Whether it may be executed as a program; absent means no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl Manifest {
    /// A manifest of `files`, put in canonical order.
    pub fn new(mut files: Vec<ManifestEntry>) -> Self {
        files.sort();
        files.dedup_by(|a, b| a.path == b.path);
        Self { files }
    }

    /// The canonical bytes: what is stored and hashed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has string keys only")
    }

    /// Digest of the canonical bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Sum of the files' lengths, in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// Paths that `newer` has and this one lacks or has with other bytes, and paths that are gone there. Both sorted.
    pub fn difference(&self, newer: &Self) -> (Vec<String>, Vec<String>) {
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        let (mut before, mut after) = (self.files.iter().peekable(), newer.files.iter().peekable());
        // Both are sorted by path, so one pass meets each pair.
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return (added, removed),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(was), Some(is)) => was.path.cmp(&is.path),
            };
            let was = if order.is_le() { before.next() } else { None };
            let is = if order.is_ge() { after.next() } else { None };
            match (was, is) {
                (Some(was), None) => removed.push(was.path.clone()),
                (Some(was), Some(is)) if was.digest == is.digest => {}
                (_, Some(is)) => added.push(is.path.clone()),
                (None, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_new_changed_and_gone_paths() {
        let manifest = |files: &[(&str, &str)]| {
            let entry = |(path, content): &(&str, &str)| ManifestEntry {
                path: (*path).into(),
                digest: Digest::of(content.as_bytes()),
                size: content.len() as u64,
                executable: false,
            };
            Manifest::new(files.iter().map(entry).collect())
        };
        let old = manifest(&[("changed", "1"), ("gone", "1"), ("same", "1"), ("z-gone", "1")]);
        let new = manifest(&[("a-new", "1"), ("changed", "2"), ("h-new", "1"), ("same", "1")]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(old.difference(&new), (names(&["a-new", "changed", "h-new"]), names(&["gone", "z-gone"])));
        assert_eq!(old.difference(&old), (vec![], vec![]));
        assert_eq!(Manifest::default().difference(&old), (names(&["changed", "gone", "same", "z-gone"]), vec![]));
    }
}
