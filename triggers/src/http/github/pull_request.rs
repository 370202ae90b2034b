//! `pull_request`: opened, other commits, merged, closed.
//!
//! Whose change it is decides whether it is *trusted*: one that comes from a branch of the repository itself was pushed by
//! somebody who may write there. A fork's is not, whoever opened it, because others may push to the fork.

use chrono::DateTime;
use kickwheel_schemas::{
    CloudEvent, Millis,
    payload::{self, GitPullRequest, PullRequestSide},
};
use serde_json::Value;

use super::{super::body, Delivery, PROVIDER, Refusal};

/// Most characters of a title that are kept.
const MAX_TITLE_CHARS: usize = 500;

pub(super) fn translate(delivery: &Delivery<'_>) -> Result<Option<CloudEvent>, Refusal> {
    let payload = delivery.payload;
    let action = body::text(payload, "action")?;
    let Some(number) = body::at(payload, "number").or_else(|| body::at(payload, "pull_request.number")) else {
        return Err(Refusal::shape("number", "a whole number"));
    };
    let number = number.as_u64().ok_or_else(|| Refusal::shape("number", "a whole number"))?;
    let merged = body::maybe_bool(payload, "pull_request.merged")?.unwrap_or(false);
    let ty = match action {
        "opened" | "reopened" => payload::GIT_PULL_REQUEST_OPENED,
        "synchronize" => payload::GIT_PULL_REQUEST_UPDATED,
        "closed" if merged => payload::GIT_PULL_REQUEST_MERGED,
        "closed" => payload::GIT_PULL_REQUEST_CLOSED,
        // A label, a reviewer, a title: none of the commits changed.
        _ => return Ok(None),
    };
    let data = GitPullRequest {
        repo: delivery.repo()?,
        provider: PROVIDER.to_owned(),
        number,
        title: body::text(payload, "pull_request.title")?.chars().take(MAX_TITLE_CHARS).collect(),
        author: body::shown(payload, "pull_request.user.login").map(str::to_owned),
        author_id: body::id(payload, "pull_request.user.id"),
        actor: delivery.actor(),
        actor_id: delivery.actor_id(),
        head: side(payload, "pull_request.head")?,
        base: side(payload, "pull_request.base")?,
        trusted: same_repository(payload),
        before: body::maybe_text(payload, "before")?.map(str::to_owned),
        merge_commit: if merged {
            body::maybe_text(payload, "pull_request.merge_commit_sha")?.map(str::to_owned)
        } else {
            // Until then it names a trial merge, which is no commit of the branch.
            None
        },
        draft: body::maybe_bool(payload, "pull_request.draft")?.unwrap_or(false),
    };
    let data = serde_json::to_value(data).expect("the payload has string keys only");
    let mut event = delivery.event(ty, &format!("refs/pull/{number}/head"), data)?;
    event.time = body::shown(payload, "pull_request.updated_at")
        .and_then(|text| DateTime::parse_from_rfc3339(text).ok())
        .map(|at| Millis(at.timestamp_millis()).to_rfc3339());
    Ok(Some(event))
}

fn side(payload: &Value, path: &str) -> Result<PullRequestSide, Refusal> {
    let commit = body::text(payload, &format!("{path}.sha"))?;
    if !matches!(commit.len(), 40 | 64) || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Refusal::shape(&format!("{path}.sha"), "a full commit"));
    }
    Ok(PullRequestSide {
        repo: body::maybe_text(payload, &format!("{path}.repo.full_name"))?.map(str::to_owned),
        branch: body::text(payload, &format!("{path}.ref"))?.to_owned(),
        commit: commit.to_owned(),
    })
}

/// By the repository's id, which survives renaming. A fork that is gone is null, and not the same as anything.
fn same_repository(payload: &Value) -> bool {
    let id = |side: &str| body::id(payload, &format!("pull_request.{side}.repo.id"));
    matches!((id("head"), id("base")), (Some(head), Some(base)) if head == base)
}
