//! `pull_request` of the family: as GitHub's, but Gogs names branches and repositories beside each other and no commits.

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
    Dialect, Refusal, origin,
};

pub(super) fn translate(
    dialect: &Dialect,
    config: &SourceConfig,
    id: &str,
    payload: &Value,
) -> Result<Option<CloudEvent>, Refusal> {
    let action = body::text(payload, "action")?;
    let merged = body::maybe_bool(payload, "pull_request.merged")?.unwrap_or(false);
    let action = match action {
        "opened" | "reopened" => Action::Opened,
        "synchronized" | "synchronize" => Action::Updated,
        "closed" if merged => Action::Merged,
        "closed" => Action::Closed,
        _ => return Ok(None),
    };
    let number = ["number", "pull_request.number"].iter().find_map(|path| body::at(payload, path)?.as_u64());
    let number = number.ok_or_else(|| Refusal::shape("number", "a whole number"))?;
    let origin = origin(dialect, config, payload)?;
    // Whoever opened it is not whoever caused this.
    let (actor, actor_id) =
        match body::shown(payload, "sender.login").or_else(|| body::shown(payload, "sender.username")) {
            Some(name) => (Some(name.to_owned()), body::id(payload, "sender.id")),
            None => (origin.actor.clone(), origin.actor_id.clone()),
        };
    let time = body::at(payload, "pull_request.updated_at").and_then(forge::moment);
    let origin = Origin { actor, actor_id, time, ..origin };
    let user = ["login", "username"].iter().find_map(|name| body::shown(payload, &format!("pull_request.user.{name}")));
    let request = GitPullRequest {
        repo: origin.repo.clone(),
        provider: dialect.provider.to_owned(),
        number,
        title: forge::title(body::text(payload, "pull_request.title")?),
        author: user.map(str::to_owned),
        author_id: body::id(payload, "pull_request.user.id"),
        actor: origin.actor.clone(),
        actor_id: origin.actor_id.clone(),
        head: side(payload, "head")?,
        base: side(payload, "base")?,
        trusted: same_repository(payload),
        before: None,
        merge_commit: if merged { forge::full_commit(payload, "pull_request.merge_commit_sha") } else { None },
        draft: body::maybe_bool(payload, "pull_request.draft")?.unwrap_or(false),
    };
    Ok(Some(forge::pull_request(&origin, id, action, &format!("refs/pull/{number}/head"), request)))
}

fn side(payload: &Value, side: &str) -> Result<PullRequestSide, Refusal> {
    let flat = format!("pull_request.{side}_branch");
    if let Some(branch) = body::maybe_text(payload, &flat)? {
        let repo = body::maybe_text(payload, &format!("pull_request.{side}_repo.full_name"))?;
        return Ok(PullRequestSide { repo: repo.map(str::to_owned), branch: branch.to_owned(), commit: None });
    }
    let nested = format!("pull_request.{side}");
    Ok(PullRequestSide {
        repo: body::maybe_text(payload, &format!("{nested}.repo.full_name"))?.map(str::to_owned),
        branch: body::text(payload, &format!("{nested}.ref"))?.to_owned(),
        commit: forge::full_commit(payload, &format!("{nested}.sha")),
    })
}

/// By the repository's id, which survives renaming, and the fork when it is gone.
fn same_repository(payload: &Value) -> bool {
    let id = |side: &str| {
        let paths = [format!("{side}.repo_id"), format!("{side}.repo.id"), format!("{side}_repo.id")];
        paths.iter().find_map(|path| body::id(payload, &format!("pull_request.{path}")))
    };
    matches!((id("head"), id("base")), (Some(head), Some(base)) if head == base)
}
