//! Bitbucket Data Center: `repo:refs_changed` and `pr:*`.
//!
//! Format: Atlassian's "Event payload" of Bitbucket Data Center. What happened is also said in the body, as `eventKey`. An
//! annotated tag's hash is the tag's own. Whether a push was forced is not said.

use kickwheel_schemas::{
    CloudEvent,
    payload::{GitPullRequest, MAX_COMMITS, PullRequestSide},
};
use serde_json::Value;

use super::{
    super::{
        Headers, Refusal, SourceConfig, body,
        forge::{self, Action, Lists, Origin, Push, announced_id, numbered},
    },
    verify,
};

/// The provider's name in `data`.
pub const PROVIDER: &str = "bitbucket-dc";

/// The events of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    verify(config, headers, bytes)?;
    let payload = body::json(bytes)?;
    body::object(&payload)?;
    let id = body::delivery_id(headers, "x-request-id", bytes);
    let key = headers.get("x-event-key").filter(|key| !key.is_empty());
    let action = match key.or_else(|| body::shown(&payload, "eventKey")) {
        Some("repo:refs_changed") => return pushes(config, &id, &payload),
        Some("pr:opened") => Action::Opened,
        Some("pr:from_ref_updated") => Action::Updated,
        Some("pr:merged") => Action::Merged,
        Some("pr:declined" | "pr:deleted") => Action::Closed,
        None if payload.get("changes").is_some() => return pushes(config, &id, &payload),
        Some(_) | None => return Ok(Vec::new()),
    };
    Ok(vec![request(config, &id, action, &payload)?])
}

/// `KEY/slug` of the repository at a place.
fn name(payload: &Value, path: &str) -> Result<Option<String>, Refusal> {
    if body::at(payload, path).is_none() {
        return Ok(None);
    }
    let part = |name: &str| body::maybe_text(payload, &format!("{path}.{name}"));
    Ok(part("project.key")?.zip(part("slug")?).map(|(key, slug)| format!("{key}/{slug}")))
}

fn origin(config: &SourceConfig, payload: &Value, repository: &str) -> Result<Origin, Refusal> {
    let repo = name(payload, repository)?.or_else(|| config.repo.clone());
    let repo = repo.ok_or_else(|| Refusal::shape(&format!("{repository}.slug"), "a text, beside project.key"))?;
    Ok(Origin {
        provider: PROVIDER,
        source: config.source.clone().unwrap_or_else(|| link(payload, repository, &repo)),
        repo,
        default_branch: config.default_branch.clone(),
        actor: body::shown(payload, "actor.name").map(str::to_owned),
        actor_id: body::id(payload, "actor.id"),
        time: body::at(payload, "date").and_then(forge::moment),
    })
}

/// Where to clone from, else the page; older versions name neither.
fn link(payload: &Value, repository: &str, repo: &str) -> String {
    let links = |kind: &str| {
        body::at(payload, &format!("{repository}.links.{kind}")).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let clone = links("clone").into_iter().find(|link| body::shown(link, "name") == Some("http"));
    let found = clone.or_else(|| links("self").into_iter().next());
    let href = found.and_then(|link| body::shown(&link, "href").map(str::to_owned));
    href.unwrap_or_else(|| format!("/{PROVIDER}/{repo}"))
}

fn pushes(config: &SourceConfig, id: &str, payload: &Value) -> Result<Vec<CloudEvent>, Refusal> {
    let changes = body::list(payload, "changes")?;
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let origin = origin(config, payload, "repository")?;
    // Which of several refs they belong to is not said.
    let commits = if changes.len() == 1 { body::list(payload, "commits")? } else { &[] };
    let mut events = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        events.extend(push(&origin, &numbered(id, index, changes.len()), change, commits)?);
    }
    Ok(events)
}

fn push(origin: &Origin, id: &str, change: &Value, commits: &[Value]) -> Result<Option<CloudEvent>, Refusal> {
    let full = match body::maybe_text(change, "ref.id")? {
        Some(full) => full,
        None => body::text(change, "refId")?,
    };
    let (before, after) = (announced_id(change, "fromHash")?, announced_id(change, "toHash")?);
    let (before, after) = match body::maybe_text(change, "type")? {
        Some("ADD") => (None, after),
        Some("DELETE") => (before, None),
        Some("UPDATE") | None => (before, after),
        Some(_) => return Err(Refusal::shape("changes.type", "ADD, UPDATE or DELETE")),
    };
    let author = ["author.name", "author.displayName"];
    let push = Push {
        full,
        before,
        after,
        forced: None,
        commits: commits
            .iter()
            .take(MAX_COMMITS)
            .map(|commit| forge::commit(commit, "id", &author))
            .collect::<Result<_, _>>()?,
        commit_count: None,
        base_ref: None,
        lists: Lists::Never("DC payload has no file lists"),
    };
    push.event(origin, id)
}

fn request(config: &SourceConfig, id: &str, action: Action, payload: &Value) -> Result<CloudEvent, Refusal> {
    let of = |name: &str| format!("pullRequest.{name}");
    let number = body::at(payload, &of("id")).and_then(Value::as_u64);
    let number = number.ok_or_else(|| Refusal::shape(&of("id"), "a whole number"))?;
    let origin = origin(config, payload, &of("toRef.repository"))?;
    let side = |side: &str| -> Result<PullRequestSide, Refusal> {
        let full = body::text(payload, &of(&format!("{side}.id")))?;
        Ok(PullRequestSide {
            repo: name(payload, &of(&format!("{side}.repository")))?,
            branch: full.strip_prefix("refs/heads/").unwrap_or(full).to_owned(),
            commit: forge::full_commit(payload, &of(&format!("{side}.latestCommit"))),
        })
    };
    let repository = |side: &str| body::id(payload, &of(&format!("{side}.repository.id")));
    let request = GitPullRequest {
        repo: origin.repo.clone(),
        provider: PROVIDER.to_owned(),
        number,
        title: forge::title(body::text(payload, &of("title"))?),
        author: body::shown(payload, &of("author.user.name")).map(str::to_owned),
        author_id: body::id(payload, &of("author.user.id")),
        actor: origin.actor.clone(),
        actor_id: origin.actor_id.clone(),
        head: side("fromRef")?,
        base: side("toRef")?,
        trusted: matches!((repository("fromRef"), repository("toRef")), (Some(a), Some(b)) if a == b),
        before: forge::full_commit(payload, "previousFromHash"),
        merge_commit: if action == Action::Merged {
            forge::full_commit(payload, &of("properties.mergeCommit.id"))
        } else {
            None
        },
        draft: body::maybe_bool(payload, &of("draft"))?.unwrap_or(false),
    };
    Ok(forge::pull_request(&origin, id, action, &format!("refs/pull-requests/{number}/from"), request))
}
