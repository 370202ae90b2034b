//! A ref that came into being, moved or went.

use kickwheel_schemas::{
    CloudEvent,
    payload::{self, Commit, GitRefChange, MAX_COMMITS, MERGE_QUEUE_BRANCHES},
};
use serde_json::Value;

use super::{
    super::{Refusal, body},
    Lists, Origin, paths,
};

/// One ref's change as a forge tells it.
pub(in super::super) struct Push<'p> {
    /// The full ref.
    pub full: &'p str,
    /// None when it was created.
    pub before: Option<&'p str>,
    /// None when it was deleted.
    pub after: Option<&'p str>,
    pub forced: Option<bool>,
    /// The commits that are shown, in the sender's order, at most [`MAX_COMMITS`].
    pub commits: Vec<Commit>,
    pub commit_count: Option<u64>,
    pub base_ref: Option<String>,
    /// Where the changed paths are listed.
    pub lists: Lists<'p>,
}

/// What a push did to its ref.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change<'p> {
    Created,
    Updated { after: &'p str },
    Deleted,
}

/// The kind of ref, with its name.
enum Named<'p> {
    Branch(&'p str),
    Tag(&'p str),
}

impl Push<'_> {
    /// The event, if the ref is a branch or a tag and moved at all.
    pub fn event(self, origin: &Origin, id: &str) -> Result<Option<CloudEvent>, Refusal> {
        let Some(named) = named(self.full)? else { return Ok(None) };
        let change = match (self.before, self.after) {
            (None, Some(_)) => Change::Created,
            (Some(before), Some(after)) if before != after => Change::Updated { after },
            (Some(_), None) => Change::Deleted,
            // Nothing moved.
            (Some(_), Some(_)) | (None, None) => return Ok(None),
        };
        let (branch, tag) = match named {
            Named::Branch(name) => (Some(name.to_owned()), None),
            Named::Tag(name) => (None, Some(name.to_owned())),
        };
        let changed_paths = match named {
            Named::Branch(_) => Some(paths::announced(change, self.forced == Some(true), &self.lists)?),
            Named::Tag(_) => None,
        };
        debug_assert!(self.commits.len() <= MAX_COMMITS, "what is shown is bounded");
        let data = GitRefChange {
            repo: origin.repo.clone(),
            provider: origin.provider.to_owned(),
            merge_queue: branch.as_ref().is_some_and(|branch| branch.starts_with(MERGE_QUEUE_BRANCHES)),
            changed_paths,
            branch,
            tag,
            before: self.before.map(str::to_owned),
            after: self.after.map(str::to_owned),
            forced: self.forced,
            actor: origin.actor.clone(),
            actor_id: origin.actor_id.clone(),
            commits: self.commits,
            commit_count: self.commit_count,
            base_ref: self.base_ref,
            default_branch: origin.default_branch.clone(),
            push_options: Vec::new(),
        };
        let data = serde_json::to_value(data).expect("the payload has string keys only");
        Ok(Some(origin.event(id, event_type(change, &named), self.full, data)))
    }
}

fn event_type(change: Change<'_>, named: &Named<'_>) -> &'static str {
    match (change, named) {
        (Change::Created, Named::Branch(_)) => payload::GIT_BRANCH_CREATED,
        (Change::Updated { .. }, Named::Branch(_)) => payload::GIT_BRANCH_UPDATED,
        (Change::Deleted, Named::Branch(_)) => payload::GIT_BRANCH_DELETED,
        (Change::Created, Named::Tag(_)) => payload::GIT_TAG_CREATED,
        (Change::Updated { .. }, Named::Tag(_)) => payload::GIT_TAG_UPDATED,
        (Change::Deleted, Named::Tag(_)) => payload::GIT_TAG_DELETED,
    }
}

/// The ref's kind and name. Only the prefix is taken off: names have slashes in them. Other refs mean nothing to us.
fn named(full: &str) -> Result<Option<Named<'_>>, Refusal> {
    let wrong = || Refusal::shape("ref", "a full ref such as `refs/heads/main`");
    // As git-check-ref-format(1) has it, as far as it matters for what we do with names.
    if full.chars().any(|c| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\')) {
        return Err(wrong());
    }
    let rest = full.strip_prefix("refs/").ok_or_else(wrong)?;
    let (kind, name) = rest.split_once('/').ok_or_else(wrong)?;
    if name.is_empty() || name.starts_with('/') || name.ends_with('/') || name.contains("..") || name.contains("//") {
        return Err(wrong());
    }
    Ok(match kind {
        "heads" => Some(Named::Branch(name)),
        "tags" => Some(Named::Tag(name)),
        _ => None,
    })
}

/// A full id of 40 digits, or 64 in a SHA-256 repository; zeros stand for *absent*.
pub(in super::super) fn announced_id<'v>(payload: &'v Value, path: &str) -> Result<Option<&'v str>, Refusal> {
    let id = body::text(payload, path)?;
    let digits = id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !digits || !matches!(id.len(), 40 | 64) {
        return Err(Refusal::shape(path, "a full commit of 40 or 64 lower-case hex digits"));
    }
    Ok(Some(id).filter(|id| id.bytes().any(|byte| byte != b'0')))
}
