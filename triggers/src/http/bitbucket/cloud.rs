//! Bitbucket Cloud: `repo:push` and `pullrequest:*`.
//!
//! Format: Atlassian's "Event payloads". At most five commits of a change are listed, the newest first, and after a force
//! push they may reach back to the root: they are no count. People are named by `uuid`; `username` is gone. Commits of
//! pull requests are abbreviated, so they are unknown until the mirror is asked.

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
pub const PROVIDER: &str = "bitbucket-cloud";

/// The events of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    verify(config, headers, bytes)?;
    let payload = body::json(bytes)?;
    body::object(&payload)?;
    let id = body::delivery_id(headers, "x-request-uuid", bytes);
    let action = match headers.get("x-event-key") {
        Some("repo:push") => return pushes(config, &id, &payload),
        Some("pullrequest:created") => Action::Opened,
        Some("pullrequest:updated") => Action::Updated,
        Some("pullrequest:fulfilled") => Action::Merged,
        Some("pullrequest:rejected") => Action::Closed,
        Some(other) if !other.is_empty() => return Ok(Vec::new()),
        _ if payload.get("push").is_some() => return pushes(config, &id, &payload),
        _ => match by_state(&payload) {
            Some(action) => action,
            None => return Ok(Vec::new()),
        },
    };
    Ok(vec![request(config, &id, action, &payload)?])
}

/// What a pull request without a header can only be.
fn by_state(payload: &Value) -> Option<Action> {
    if payload.get("comment").is_some() || payload.get("approval").is_some() {
        return None;
    }
    let shown = |name: &str| body::shown(payload, &format!("pullrequest.{name}"));
    Some(match shown("state")? {
        "OPEN" if shown("created_on") == shown("updated_on") => Action::Opened,
        "OPEN" => Action::Updated,
        "MERGED" => Action::Merged,
        "DECLINED" | "SUPERSEDED" => Action::Closed,
        _ => return None,
    })
}

fn origin(config: &SourceConfig, payload: &Value) -> Result<Origin, Refusal> {
    let name =
        ["username", "nickname", "display_name"].iter().find_map(|n| body::shown(payload, &format!("actor.{n}")));
    Ok(Origin {
        provider: PROVIDER,
        source: Origin::source(config, payload, &["repository.links.html.href", "repository.links.self.href"])?,
        repo: Origin::repo(config, payload, "repository.full_name")?,
        default_branch: Origin::default_branch(config, payload, &["repository.mainbranch.name"]),
        actor: name.map(str::to_owned),
        actor_id: ["actor.uuid", "actor.account_id"].iter().find_map(|path| body::id(payload, path)),
        time: None,
    })
}

fn pushes(config: &SourceConfig, id: &str, payload: &Value) -> Result<Vec<CloudEvent>, Refusal> {
    let changes = body::list(payload, "push.changes")?;
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let origin = origin(config, payload)?;
    let mut events = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        events.extend(push(&origin, &numbered(id, index, changes.len()), change)?);
    }
    Ok(events)
}

fn push(origin: &Origin, id: &str, change: &Value) -> Result<Option<CloudEvent>, Refusal> {
    let (old, new) = (body::at(change, "old"), body::at(change, "new"));
    let Some(named) = new.or(old) else { return Ok(None) };
    let kind = match body::text(named, "type")? {
        "branch" | "named_branch" => "heads",
        "tag" | "annotated_tag" => "tags",
        _ => return Ok(None),
    };
    let full = format!("refs/{kind}/{}", body::text(named, "name")?);
    let commit = |side: Option<_>| match side {
        Some(side) => announced_id(side, "target.hash"),
        None => Ok(None),
    };
    let (before, after) = (commit(old)?, commit(new)?);
    let forced = body::maybe_bool(change, "forced")?;
    let truncated = body::maybe_bool(change, "truncated")?;
    let commits = body::list(change, "commits")?;
    let author = ["author.user.nickname", "author.user.username", "author.user.display_name", "author.raw"];
    let counted = truncated == Some(false) && forced == Some(false) && before.is_some() && after.is_some();
    let push = Push {
        full: &full,
        before,
        after,
        forced,
        commits: commits
            .iter()
            .take(MAX_COMMITS)
            .map(|commit| forge::commit(commit, "hash", &author))
            .collect::<Result<_, _>>()?,
        commit_count: counted.then_some(commits.len() as u64),
        base_ref: None,
        lists: Lists::Never("Cloud payload never has file lists"),
    };
    let time = new.and_then(|new| body::at(new, "target.date")).and_then(forge::moment);
    push.event(&Origin { time, ..origin.clone() }, id)
}

fn request(config: &SourceConfig, id: &str, action: Action, payload: &Value) -> Result<CloudEvent, Refusal> {
    let of = |name: &str| format!("pullrequest.{name}");
    let number = body::at(payload, &of("id")).and_then(Value::as_u64);
    let number = number.ok_or_else(|| Refusal::shape(&of("id"), "a whole number"))?;
    let time = body::at(payload, &of("updated_on")).and_then(forge::moment);
    let origin = Origin { time, ..origin(config, payload)? };
    let author = ["username", "nickname", "display_name"];
    let side = |side: &str| -> Result<PullRequestSide, Refusal> {
        Ok(PullRequestSide {
            repo: body::maybe_text(payload, &of(&format!("{side}.repository.full_name")))?.map(str::to_owned),
            branch: body::text(payload, &of(&format!("{side}.branch.name")))?.to_owned(),
            commit: forge::full_commit(payload, &of(&format!("{side}.commit.hash"))),
        })
    };
    let repository = |side: &str| body::id(payload, &of(&format!("{side}.repository.uuid")));
    let request = GitPullRequest {
        repo: origin.repo.clone(),
        provider: PROVIDER.to_owned(),
        number,
        title: forge::title(body::text(payload, &of("title"))?),
        author: author.iter().find_map(|name| body::shown(payload, &of(&format!("author.{name}")))).map(str::to_owned),
        author_id: ["author.uuid", "author.account_id"].iter().find_map(|name| body::id(payload, &of(name))),
        actor: origin.actor.clone(),
        actor_id: origin.actor_id.clone(),
        head: side("source")?,
        base: side("destination")?,
        trusted: matches!((repository("source"), repository("destination")), (Some(a), Some(b)) if a == b),
        before: None,
        merge_commit: if action == Action::Merged {
            forge::full_commit(payload, &of("merge_commit.hash"))
        } else {
            None
        },
        draft: body::maybe_bool(payload, &of("draft"))?.unwrap_or(false),
    };
    Ok(forge::pull_request(&origin, id, action, &format!("refs/pull-requests/{number}/from"), request))
}
