//! `pull_request`: opened, other commits, merged, closed.
//!
//! Whose change it is decides whether it is *trusted*: one that comes from a branch of the repository itself was pushed by
//! somebody who may write there. A fork's is not, whoever opened it, because others may push to the fork.

use kickwheel_schemas::{
    CloudEvent,
    payload::{GitPullRequest, PullRequestSide},
};
use serde_json::Value;

use super::{
    super::{
        SourceConfig, body,
        forge::{self, Action, Origin},
    },
    PROVIDER, Refusal, origin,
};

pub(super) fn translate(config: &SourceConfig, id: &str, payload: &Value) -> Result<Option<CloudEvent>, Refusal> {
    let action = body::text(payload, "action")?;
    let merged = body::maybe_bool(payload, "pull_request.merged")?.unwrap_or(false);
    let action = match action {
        "opened" | "reopened" => Action::Opened,
        "synchronize" => Action::Updated,
        "closed" if merged => Action::Merged,
        "closed" => Action::Closed,
        // A label, a reviewer, a title: none of the commits changed.
        _ => return Ok(None),
    };
    let number = ["number", "pull_request.number"].iter().find_map(|path| body::at(payload, path)?.as_u64());
    let number = number.ok_or_else(|| Refusal::shape("number", "a whole number"))?;
    let time = body::at(payload, "pull_request.updated_at").and_then(forge::moment);
    let origin = Origin { time, ..origin(config, payload)? };
    let request = GitPullRequest {
        repo: origin.repo.clone(),
        provider: PROVIDER.to_owned(),
        number,
        title: forge::title(body::text(payload, "pull_request.title")?),
        author: body::shown(payload, "pull_request.user.login").map(str::to_owned),
        author_id: body::id(payload, "pull_request.user.id"),
        actor: origin.actor.clone(),
        actor_id: origin.actor_id.clone(),
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
    Ok(Some(forge::pull_request(&origin, id, action, &format!("refs/pull/{number}/head"), request)))
}

fn side(payload: &Value, path: &str) -> Result<PullRequestSide, Refusal> {
    body::text(payload, &format!("{path}.sha"))?;
    let commit = forge::full_commit(payload, &format!("{path}.sha"));
    Ok(PullRequestSide {
        repo: body::maybe_text(payload, &format!("{path}.repo.full_name"))?.map(str::to_owned),
        branch: body::text(payload, &format!("{path}.ref"))?.to_owned(),
        commit: Some(commit.ok_or_else(|| Refusal::shape(&format!("{path}.sha"), "a full commit"))?),
    })
}

/// By the repository's id, which survives renaming. A fork that is gone is null, and not the same as anything.
fn same_repository(payload: &Value) -> bool {
    let id = |side: &str| body::id(payload, &format!("pull_request.{side}.repo.id"));
    matches!((id("head"), id("base")), (Some(head), Some(base)) if head == base)
}
