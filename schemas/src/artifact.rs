//! Content-addressed bytes and how they are referred to.
//!
//! A [`Digest`] names bytes; it grants nothing (every access is checked against the project elsewhere). Where to look
//! next: [`crate::manifest`], for many files as one artifact.

use std::{fmt, str::FromStr};

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
    /// What names the bytes. For a folder, the digest of its [`crate::Manifest`].
    pub digest: Digest,
    /// Length in bytes; for a folder the sum over its files.
    pub size: u64,
    /// Where the bytes lay when they were stored, relative to the work folder or to the dataset.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// True when `digest` names a [`crate::Manifest`] rather than the bytes of one file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folder: bool,
}
