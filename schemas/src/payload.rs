//! Our own event types and their normalised payloads.
//!
//! Constants name the types; the structs are what `data` holds. [`crate::catalog`] describes the same fields to the
//! expression checker, and a test keeps the two in step.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A branch came into being.
pub const GIT_BRANCH_CREATED: &str = "dev.kickwheel.git.branch.created";
/// A branch moved.
pub const GIT_BRANCH_UPDATED: &str = "dev.kickwheel.git.branch.updated";
/// A branch is gone.
pub const GIT_BRANCH_DELETED: &str = "dev.kickwheel.git.branch.deleted";
/// A tag came into being.
pub const GIT_TAG_CREATED: &str = "dev.kickwheel.git.tag.created";
/// A tag was moved.
pub const GIT_TAG_UPDATED: &str = "dev.kickwheel.git.tag.updated";
/// A tag is gone.
pub const GIT_TAG_DELETED: &str = "dev.kickwheel.git.tag.deleted";
/// A dataset has a new version.
pub const DATASET_VERSION_PUBLISHED: &str = "dev.kickwheel.dataset.version.published";
/// Somebody started a workflow by hand.
pub const MANUAL: &str = "dev.kickwheel.manual.started";

/// `data` of every `git.branch.*` and `git.tag.*` event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GitRefChange {
    /// The name under which the repository was added (`kickwheel repos add … --name`), or the provider's `owner/name`.
    pub repo: String,
    /// Which sender: `git` for post-receive.
    pub provider: String,
    /// Set for branch events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Set for tag events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Full hex commit; null when the ref was created.
    pub before: Option<String>,
    /// Full hex commit; null when the ref was deleted.
    pub after: Option<String>,
    /// Whether the sender says that history was rewritten; null when unknown.
    pub forced: Option<bool>,
    /// Who pushed; null when unknown.
    pub actor: Option<String>,
    /// The provider's stable id of that person.
    pub actor_id: Option<String>,
    /// Number of commits when known.
    pub commit_count: Option<u64>,
    /// The repository's default branch when known.
    pub default_branch: Option<String>,
    /// What the sender announced: never trusted for filters, the mirror's own answer counts. Null when not announced.
    pub changed_paths: Option<Vec<String>>,
    /// `git push -o`: options given by the person who pushed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub push_options: Vec<String>,
}

/// `data` of `dataset.version.published`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatasetVersion {
    /// The dataset's name, for example `churn/raw`.
    pub dataset: String,
    /// Counts from 1 within the dataset.
    pub version: u64,
    /// The version before, null for the first.
    pub previous: Option<u64>,
    /// Digest of the version's manifest.
    pub digest: Digest,
    /// False when only metadata changed.
    pub data_changed: bool,
    /// Paths that are new or have other bytes.
    pub added: Vec<String>,
    /// Paths that are gone.
    pub removed: Vec<String>,
}
