//! Our own event types and their normalised payloads.
//!
//! Constants name the types; the structs are what `data` holds. [`crate::catalog`] describes the same fields to the
//! expression checker, and a test keeps the two in step.

use std::collections::BTreeMap;

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
/// A pull request was opened, or opened again.
pub const GIT_PULL_REQUEST_OPENED: &str = "dev.kickwheel.git.pull_request.opened";
/// A pull request has other commits.
pub const GIT_PULL_REQUEST_UPDATED: &str = "dev.kickwheel.git.pull_request.updated";
/// A pull request was merged.
pub const GIT_PULL_REQUEST_MERGED: &str = "dev.kickwheel.git.pull_request.merged";
/// A pull request was closed without being merged.
pub const GIT_PULL_REQUEST_CLOSED: &str = "dev.kickwheel.git.pull_request.closed";
/// An issue was made.
pub const JIRA_ISSUE_CREATED: &str = "dev.kickwheel.jira.issue.created";
/// An issue was changed in any other way than those below.
pub const JIRA_ISSUE_UPDATED: &str = "dev.kickwheel.jira.issue.updated";
/// An issue has another status.
pub const JIRA_ISSUE_TRANSITIONED: &str = "dev.kickwheel.jira.issue.transitioned";
/// An issue is in another project, under another key.
pub const JIRA_ISSUE_MOVED: &str = "dev.kickwheel.jira.issue.moved";
/// An issue is gone.
pub const JIRA_ISSUE_DELETED: &str = "dev.kickwheel.jira.issue.deleted";
/// Somebody commented on an issue.
pub const JIRA_COMMENT_CREATED: &str = "dev.kickwheel.jira.comment.created";
/// A comment was edited.
pub const JIRA_COMMENT_UPDATED: &str = "dev.kickwheel.jira.comment.updated";
/// A comment is gone.
pub const JIRA_COMMENT_DELETED: &str = "dev.kickwheel.jira.comment.deleted";
/// An object of a bucket was written.
pub const DATASET_OBJECT_CREATED: &str = "dev.kickwheel.dataset.object.created";
/// An object of a bucket is gone.
pub const DATASET_OBJECT_DELETED: &str = "dev.kickwheel.dataset.object.deleted";
/// A dataset has a new branch or tag.
pub const DATASET_REF_CREATED: &str = "dev.kickwheel.dataset.ref.created";
/// A dataset has a new version.
pub const DATASET_VERSION_PUBLISHED: &str = "dev.kickwheel.dataset.version.published";
/// Somebody started a workflow by hand.
pub const MANUAL: &str = "dev.kickwheel.manual.started";
/// A schedule was due.
pub const CRON_TICK: &str = "dev.kickwheel.cron.tick";
/// A run ended.
pub const RUN_FINISHED: &str = "dev.kickwheel.run.finished";
/// A stage of a model points at another version.
pub const MODEL_PROMOTED: &str = "dev.kickwheel.model.promoted";

/// Prefix of the event types that only we define: nobody outside may send them.
pub const OUR_TYPES: &str = "dev.kickwheel.";

/// Branches below this are made by a merge queue for a moment (GitHub's, which writes it so).
pub const MERGE_QUEUE_BRANCHES: &str = "gh-readonly-queue/";

/// Most commits that [`GitRefChange::commits`] lists.
pub const MAX_COMMITS: usize = 20;

/// `data` of every `git.branch.*` and `git.tag.*` event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GitRefChange {
    /// The provider's `owner/name`. For plain Git, which has none, the name under which the repository was added.
    pub repo: String,
    /// Which sender: `git` for post-receive, `github`, …
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
    /// The newest commits that the sender listed, in its order, at most [`MAX_COMMITS`].
    #[serde(default)]
    pub commits: Vec<Commit>,
    /// Number of commits when known.
    pub commit_count: Option<u64>,
    /// The ref from which a new one was made, in full, when the sender says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ref: Option<String>,
    /// The repository's default branch when known.
    pub default_branch: Option<String>,
    /// Whether a merge queue made the branch for a moment.
    #[serde(default)]
    pub merge_queue: bool,
    /// What the sender announced: never trusted for filters, the mirror's own answer counts. Null when not announced,
    /// and for tags, for which no path filter is evaluated.
    pub changed_paths: Option<AnnouncedPaths>,
    /// `git push -o`: options given by the person who pushed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub push_options: Vec<String>,
}

/// A commit as a sender lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Full hex.
    pub id: String,
    /// First line of its message.
    pub message: String,
    /// The author's name; null when unknown.
    pub author: Option<String>,
}

/// The paths that a sender says a push changed: all of them, or not all and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AnnouncedPaths {
    /// Every path, sorted.
    Complete(Vec<String>),
    /// The list is cut off, or there is none.
    Incomplete {
        /// Always false.
        complete: bool,
        /// Why.
        reason: String,
        /// What completes it, in a mirror of the repository.
        action: String,
    },
}

impl AnnouncedPaths {
    /// A list that is not complete.
    pub fn incomplete(reason: impl Into<String>) -> Self {
        let action = "git diff --name-status -z before after".to_owned();
        Self::Incomplete { complete: false, reason: reason.into(), action }
    }
}

/// `data` of every `git.pull_request.*` event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GitPullRequest {
    /// The provider's `owner/name` of the repository that it is to be merged into.
    pub repo: String,
    /// Which sender: `github`, …
    pub provider: String,
    /// Its number in the repository.
    pub number: u64,
    /// Its title; written by its author, so never to be trusted.
    pub title: String,
    /// Who opened it; null when unknown.
    pub author: Option<String>,
    /// The provider's stable id of that person.
    pub author_id: Option<String>,
    /// Who caused this event; null when unknown.
    pub actor: Option<String>,
    /// The provider's stable id of that person.
    pub actor_id: Option<String>,
    /// What is to be merged.
    pub head: PullRequestSide,
    /// Into what.
    pub base: PullRequestSide,
    /// Whether the change comes from within the repository and from one who may write to it. An outsider's is not run
    /// without approval.
    pub trusted: bool,
    /// The head before this update, full hex; null when unknown.
    pub before: Option<String>,
    /// The merge's commit, full hex; null unless merged.
    pub merge_commit: Option<String>,
    /// Whether it is marked as not ready.
    pub draft: bool,
}

/// One side of a pull request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestSide {
    /// The provider's `owner/name`; null when a fork is gone.
    pub repo: Option<String>,
    /// The branch.
    pub branch: String,
    /// Full hex commit; null where the sender does not say, or abbreviates it.
    pub commit: Option<String>,
}

/// `data` of every `jira.issue.*` event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JiraIssue {
    /// The site: its URL, which is also the event's source.
    pub site: String,
    /// Survives a move.
    pub issue_id: String,
    /// Such as `ML-7`.
    pub issue_key: Option<String>,
    /// The project's key; null when unknown.
    pub project: Option<String>,
    /// Name of the issue's type; null when unknown.
    pub issue_type: Option<String>,
    /// Name of the status before; null unless the status changed.
    pub status_from: Option<String>,
    /// Name of the status after; null unless the status changed.
    pub status_to: Option<String>,
    /// Id of the status before; null unless it is known.
    pub status_from_id: Option<String>,
    /// Id of the status after; null unless it is known.
    pub status_to_id: Option<String>,
    /// Name of the new resolution; null unless one was set.
    pub resolution_to: Option<String>,
    /// Jira's id of the change; null when it gives none.
    pub changelog_id: Option<String>,
    /// The fields that changed, by their ids; Data Center gives names only.
    pub fields: Vec<String>,
    /// Labels that were added.
    pub labels_added: Vec<String>,
    /// Labels that were taken off.
    pub labels_removed: Vec<String>,
    /// Account id of who did it, or the user's name where there are no account ids; null when unknown.
    pub actor: Option<String>,
    /// Only of `moved`.
    #[serde(flatten)]
    pub moved: Option<JiraMove>,
}

/// What `jira.issue.moved` has beyond the other events of an issue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JiraMove {
    /// The key before; null when it is not said.
    pub key_from: Option<String>,
    /// The key after; null when it is not said.
    pub key_to: Option<String>,
    /// Name of the project before; null when it is not said.
    pub project_from: Option<String>,
    /// Name of the project after; null when it is not said.
    pub project_to: Option<String>,
}

/// `data` of every `jira.comment.*` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JiraComment {
    /// The issue that it is about.
    pub issue_id: String,
    /// Its key; null where the sender names the issue by its id only.
    pub issue_key: Option<String>,
    /// Unique within the site.
    pub comment_id: String,
    /// What it says, as text; null when unknown. Written by anybody, so never to be trusted.
    pub body: Option<String>,
    /// Account id of who did it, or the user's name where there are no account ids; null when unknown.
    pub actor: Option<String>,
}

/// `data` of every `dataset.object.*` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetObject {
    /// The dataset, when the trigger names one.
    pub dataset: Option<String>,
    /// The bucket, or container.
    pub bucket: String,
    /// The object's key, decoded.
    pub key: String,
    /// In bytes; null when the object is gone, or the sender does not say.
    pub size: Option<u64>,
    /// As the store writes it; null when the object is gone.
    pub etag: Option<String>,
    /// Orders the events of one key; null when the store gives none.
    pub sequencer: Option<String>,
    /// Whether only a marker hides the object, whose older versions are still there.
    pub delete_marker: bool,
}

/// `data` of `cron.tick`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronTick {
    /// The trigger's name.
    pub trigger: String,
    /// When it was due, RFC 3339 in UTC.
    pub scheduled_at: String,
    /// How long after that it was fired, in milliseconds.
    pub late_by: u64,
    /// How many due times right before it were left out.
    pub missed: u64,
}

/// What made a run start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The event's source.
    pub source: String,
    /// The event's id.
    pub id: String,
    /// The event's type.
    #[serde(rename = "type")]
    pub ty: String,
}

/// `data` of `run.finished`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFinished {
    /// The run's id.
    pub run: String,
    /// Its workflow.
    pub workflow: String,
    /// `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// Its project.
    pub project: String,
    /// Name of the bound repository whose source it ran; null when it had none.
    pub repo: Option<String>,
    /// The branch; null when no branch is known.
    pub branch: Option<String>,
    /// Full hex commit; null when it had no source.
    pub commit: Option<String>,
    /// RFC 3339 in UTC.
    pub started_at: String,
    /// RFC 3339 in UTC.
    pub ended_at: String,
    /// From its start to its end.
    pub duration_ms: u64,
    /// The event that started it.
    pub cause: Cause,
}

/// `data` of `model.promoted`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelPromoted {
    /// The model's name.
    pub model: String,
    /// The version that the stage points at now.
    pub version: u64,
    /// Digest of that version.
    pub digest: Digest,
    /// The stage, for example `production`.
    pub stage: String,
    /// The version that the stage pointed at before; null when it pointed at none.
    pub previous: Option<u64>,
    /// Numbers by their names.
    pub metrics: BTreeMap<String, f64>,
    /// The run that did it; null when a person did.
    pub run: Option<String>,
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

/// `data` of `dataset.version.published` and `dataset.ref.created` where another system keeps the dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignVersion {
    /// The dataset, as the trigger names it, else as the sender does.
    pub dataset: String,
    /// The sender's name of the version, such as a commit.
    pub version: String,
    /// The version before; null when the sender does not say.
    pub previous: Option<String>,
    /// What the sender did, in its words; null when it does not say.
    pub operation: Option<String>,
    /// False when only metadata changed.
    pub data_changed: bool,
    /// Paths that are new or have other bytes; empty where the sender does not say.
    pub added: Vec<String>,
    /// Paths that are gone; empty where the sender does not say.
    pub removed: Vec<String>,
}
