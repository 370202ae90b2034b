//! `merge_request`: what others call a pull request.

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
    let action = match body::maybe_text(payload, "object_attributes.action")? {
        Some("open" | "reopen") => Action::Opened,
        // Only an update that brings other commits says what was there before.
        Some("update") if body::shown(payload, "object_attributes.oldrev").is_some() => Action::Updated,
        Some("merge") => Action::Merged,
        Some("close") => Action::Closed,
        _ => return Ok(None),
    };
    let of = |name: &str| format!("object_attributes.{name}");
    let number = body::at(payload, &of("iid")).and_then(Value::as_u64);
    let number = number.ok_or_else(|| Refusal::shape(&of("iid"), "a whole number"))?;
    let time = body::at(payload, &of("updated_at")).and_then(forge::moment);
    let actor = ["user.username", "user.name"].iter().find_map(|path| body::shown(payload, path));
    let origin = Origin { time, ..origin(config, payload, actor, body::id(payload, "user.id"))? };
    let author_id = body::id(payload, &of("author_id"));
    let project = |side: &str| body::id(payload, &of(&format!("{side}_project_id")));
    let request = GitPullRequest {
        repo: origin.repo.clone(),
        provider: PROVIDER.to_owned(),
        number,
        title: forge::title(body::text(payload, &of("title"))?),
        // Named only where the person who caused this is the author.
        author: origin.actor.clone().filter(|_| author_id.is_some() && author_id == origin.actor_id),
        author_id,
        actor: origin.actor.clone(),
        actor_id: origin.actor_id.clone(),
        head: PullRequestSide {
            repo: body::maybe_text(payload, &of("source.path_with_namespace"))?.map(str::to_owned),
            branch: body::text(payload, &of("source_branch"))?.to_owned(),
            commit: forge::full_commit(payload, &of("last_commit.id")),
        },
        base: PullRequestSide {
            repo: body::maybe_text(payload, &of("target.path_with_namespace"))?.map(str::to_owned),
            branch: body::text(payload, &of("target_branch"))?.to_owned(),
            commit: None,
        },
        trusted: matches!((project("source"), project("target")), (Some(head), Some(base)) if head == base),
        before: forge::full_commit(payload, &of("oldrev")),
        merge_commit: if action == Action::Merged {
            forge::full_commit(payload, &of("merge_commit_sha"))
        } else {
            None
        },
        draft: ["draft", "work_in_progress"]
            .iter()
            .any(|name| body::at(payload, &of(name)) == Some(&Value::Bool(true))),
    };
    Ok(Some(forge::pull_request(&origin, id, action, &format!("refs/merge-requests/{number}/head"), request)))
}
