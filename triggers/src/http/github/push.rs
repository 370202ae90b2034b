//! `push`: one ref that came into being, moved or went.

use std::collections::BTreeSet;

use chrono::DateTime;
use kickwheel_schemas::{
    CloudEvent, Millis,
    payload::{self, AnnouncedPaths, Commit, GitRefChange, MAX_COMMITS, MERGE_QUEUE_BRANCHES},
};
use serde_json::Value;

use super::{super::body, Delivery, PROVIDER, Refusal};

/// GitHub lists at most so many commits of a push, and says nothing of the rest.
const LISTED_COMMITS: usize = 2048;
/// GitHub lists at most so many files of a commit, and says nothing of the rest.
const LISTED_FILES: usize = 3000;
/// Most bytes of paths that an event announces.
const MAX_PATHS_BYTES: usize = 128 * 1024;
/// Most characters of a commit's first line and of an author's name that are kept.
const MAX_SHOWN_CHARS: usize = 200;

/// What a push did to its ref.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change<'p> {
    Created { after: &'p str },
    Updated { before: &'p str, after: &'p str },
    Deleted { before: &'p str },
}

/// The kind of ref, with its name.
enum Named<'p> {
    Branch(&'p str),
    Tag(&'p str),
}

pub(super) fn translate(delivery: &Delivery<'_>) -> Result<Option<CloudEvent>, Refusal> {
    let payload = delivery.payload;
    let full = body::text(payload, "ref")?;
    let (before, after) = (commit(payload, "before")?, commit(payload, "after")?);
    let commits = body::list(payload, "commits")?;
    let forced = body::maybe_bool(payload, "forced")?;
    let base_ref = body::maybe_text(payload, "base_ref")?.map(str::to_owned);
    let repo = delivery.repo()?;
    let Some(named) = named(full)? else { return Ok(None) };
    let change = match (before, after) {
        (None, Some(after)) => Change::Created { after },
        (Some(before), Some(after)) if before != after => Change::Updated { before, after },
        (Some(before), None) => Change::Deleted { before },
        // Nothing moved.
        (Some(_), Some(_)) | (None, None) => return Ok(None),
    };
    let (branch, tag) = match named {
        Named::Branch(name) => (Some(name.to_owned()), None),
        Named::Tag(name) => (None, Some(name.to_owned())),
    };
    let data = GitRefChange {
        repo,
        provider: PROVIDER.to_owned(),
        merge_queue: branch.as_ref().is_some_and(|branch| branch.starts_with(MERGE_QUEUE_BRANCHES)),
        changed_paths: match named {
            Named::Branch(_) => Some(announced(change, forced == Some(true), commits)?),
            Named::Tag(_) => None,
        },
        branch,
        tag,
        before: before.map(str::to_owned),
        after: after.map(str::to_owned),
        forced,
        actor: delivery.actor(),
        actor_id: delivery.actor_id(),
        commits: newest(commits)?,
        commit_count: Some(commits.len() as u64),
        base_ref,
        default_branch: delivery.default_branch(),
        push_options: Vec::new(),
    };
    let data = serde_json::to_value(data).expect("the payload has string keys only");
    let mut event = delivery.event(event_type(change, &named), full, data)?;
    event.time = pushed_at(payload);
    Ok(Some(event))
}

fn event_type(change: Change<'_>, named: &Named<'_>) -> &'static str {
    match (change, named) {
        (Change::Created { .. }, Named::Branch(_)) => payload::GIT_BRANCH_CREATED,
        (Change::Updated { .. }, Named::Branch(_)) => payload::GIT_BRANCH_UPDATED,
        (Change::Deleted { .. }, Named::Branch(_)) => payload::GIT_BRANCH_DELETED,
        (Change::Created { .. }, Named::Tag(_)) => payload::GIT_TAG_CREATED,
        (Change::Updated { .. }, Named::Tag(_)) => payload::GIT_TAG_UPDATED,
        (Change::Deleted { .. }, Named::Tag(_)) => payload::GIT_TAG_DELETED,
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
fn commit<'v>(payload: &'v Value, path: &str) -> Result<Option<&'v str>, Refusal> {
    let id = body::text(payload, path)?;
    let digits = id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !digits || !matches!(id.len(), 40 | 64) {
        return Err(Refusal::shape(path, "a full commit of 40 or 64 lower-case hex digits"));
    }
    Ok(Some(id).filter(|id| id.bytes().any(|byte| byte != b'0')))
}

/// GitHub lists the oldest first.
fn newest(commits: &[Value]) -> Result<Vec<Commit>, Refusal> {
    let shorten =
        |text: &str| text.lines().next().unwrap_or_default().chars().take(MAX_SHOWN_CHARS).collect::<String>();
    commits[commits.len().saturating_sub(MAX_COMMITS)..]
        .iter()
        .map(|commit| {
            let id = body::at(commit, "id").and_then(Value::as_str);
            let id = id.filter(|id| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
            Ok(Commit {
                id: id.ok_or_else(|| Refusal::shape("commits.id", "a full commit"))?.to_owned(),
                message: body::shown(commit, "message").map(shorten).unwrap_or_default(),
                author: ["author.username", "author.name"]
                    .iter()
                    .find_map(|path| body::shown(commit, path))
                    .map(shorten),
            })
        })
        .collect()
}

/// Every path that the listed commits name, or why that is not all.
fn announced(change: Change<'_>, forced: bool, commits: &[Value]) -> Result<AnnouncedPaths, Refusal> {
    let after = match change {
        Change::Deleted { .. } => return Ok(AnnouncedPaths::Complete(Vec::new())),
        Change::Created { .. } => {
            return Ok(AnnouncedPaths::incomplete("before is null: a new branch is compared with its merge-base"));
        }
        Change::Updated { after, .. } => after,
    };
    let incomplete = |reason: String| Ok(AnnouncedPaths::incomplete(reason));
    let Some(last) = commits.last() else {
        return incomplete("commits[] empty although trees differ".to_owned());
    };
    if forced {
        return incomplete("forced: commits[] does not say what was taken away".to_owned());
    }
    if commits.len() >= LISTED_COMMITS {
        return incomplete(format!("commits[] may end at {LISTED_COMMITS} of them"));
    }
    if body::at(last, "id").and_then(Value::as_str) != Some(after) {
        return incomplete("commits[] does not end with after".to_owned());
    }
    let mut paths: BTreeSet<&str> = BTreeSet::new();
    for commit in commits {
        let mut files = 0;
        for name in ["added", "removed", "modified"] {
            let Some(listed) = body::at(commit, name) else {
                return incomplete(format!("commits[] has no list {name}"));
            };
            let listed = listed.as_array().ok_or_else(|| Refusal::shape(&format!("commits.{name}"), "a list"))?;
            files += listed.len();
            for path in listed {
                paths.insert(
                    path.as_str().ok_or_else(|| Refusal::shape(&format!("commits.{name}"), "a list of texts"))?,
                );
            }
        }
        if files >= LISTED_FILES {
            return incomplete(format!("the files of a commit may end at {LISTED_FILES} of them"));
        }
    }
    if paths.iter().map(|path| path.len() + 3).sum::<usize>() > MAX_PATHS_BYTES {
        return incomplete(format!("{} paths are more than an event holds", paths.len()));
    }
    Ok(AnnouncedPaths::Complete(paths.into_iter().map(str::to_owned).collect()))
}

/// When it was pushed: seconds in a push, a text elsewhere.
fn pushed_at(payload: &Value) -> Option<String> {
    match body::at(payload, "repository.pushed_at")? {
        Value::Number(seconds) => Some(Millis(seconds.as_i64()?.checked_mul(1000)?).to_rfc3339()),
        Value::String(text) => {
            DateTime::parse_from_rfc3339(text).ok().map(|at| Millis(at.timestamp_millis()).to_rfc3339())
        }
        _ => None,
    }
}
