//! GitLab's webhooks of projects and groups, and its system hooks.
//!
//! Format: GitLab's "Webhook events" and "System hooks". What a delivery is about is said by its body: `object_kind`, or
//! `event_name` for system hooks. A sender that signs as Standard Webhooks says is judged by that alone; `X-Gitlab-Token`,
//! the secret in plain, counts only where there is no signature. `Idempotency-Key` is the delivery's id, since
//! `X-Gitlab-Webhook-UUID` is another one each time. GitLab does not say whether a push was forced, nor what a merge
//! request's target branch points at. More refs at once than GitLab's limit send nothing at all: the poller finds them.

mod merge_request;

use kickwheel_schemas::{CloudEvent, payload::MAX_COMMITS};
use serde_json::Value;

use super::{
    Headers, Refusal, SourceConfig, body,
    forge::{self, Lists, Origin, Push, announced_id},
    signature::{self, KeyForm, STANDARD_HEADERS},
};

/// The provider's name in `data`.
pub const PROVIDER: &str = "gitlab";

/// The events of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    verify(config, headers, bytes)?;
    let payload = body::json(bytes)?;
    body::object(&payload)?;
    let id = ["idempotency-key", STANDARD_HEADERS.id]
        .iter()
        .find_map(|name| headers.get(name).filter(|id| !id.is_empty()))
        .map_or_else(|| body::digest_id(bytes), str::to_owned);
    let kind = ["object_kind", "event_name"].iter().find_map(|path| body::shown(&payload, path));
    let kind = kind.or_else(|| match headers.get("x-gitlab-event") {
        Some("Push Hook") => Some("push"),
        Some("Tag Push Hook") => Some("tag_push"),
        Some("Merge Request Hook") => Some("merge_request"),
        _ => None,
    });
    let event = match kind {
        Some("push" | "tag_push") => push(config, &id, &payload)?,
        Some("merge_request") => merge_request::translate(config, &id, &payload)?,
        _ => None,
    };
    Ok(event.into_iter().collect())
}

fn verify(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(secrets) = config.verification.secrets() else { return Ok(()) };
    if headers.get(STANDARD_HEADERS.signature).is_some() {
        return signature::verify_standard(STANDARD_HEADERS, KeyForm::Encoded, &secrets, headers, bytes, config.now);
    }
    signature::verify_token("X-Gitlab-Token", "", &secrets, headers)
}

fn origin(config: &SourceConfig, payload: &Value, actor: Option<&str>, id: Option<String>) -> Result<Origin, Refusal> {
    let urls = ["project.git_http_url", "project.http_url", "repository.git_http_url", "project.web_url"];
    Ok(Origin {
        provider: PROVIDER,
        source: Origin::source(config, payload, &urls)?,
        repo: Origin::repo(config, payload, "project.path_with_namespace")?,
        default_branch: Origin::default_branch(config, payload, &["project.default_branch"]),
        actor: actor.map(str::to_owned),
        actor_id: id,
        time: None,
    })
}

fn push(config: &SourceConfig, id: &str, payload: &Value) -> Result<Option<CloudEvent>, Refusal> {
    let actor = ["user_username", "user_name"].iter().find_map(|path| body::shown(payload, path));
    let origin = origin(config, payload, actor, body::id(payload, "user_id"))?;
    let commits = body::list(payload, "commits")?;
    let total = body::maybe_count(payload, "total_commits_count")?;
    let listed = commits.len();
    let cut = match total {
        Some(total) if total > listed as u64 => Some(format!("total_commits_count {total} > {listed} listed")),
        Some(_) => None,
        None => Some("no total_commits_count: commits may be missing".to_owned()),
    };
    // GitLab lists the oldest first.
    let newest = &commits[listed.saturating_sub(MAX_COMMITS)..];
    let push = Push {
        full: body::text(payload, "ref")?,
        before: announced_id(payload, "before")?,
        after: announced_id(payload, "after")?,
        forced: None,
        commits: newest.iter().map(|commit| forge::commit(commit, "id", &["author.name"])).collect::<Result<_, _>>()?,
        commit_count: total,
        base_ref: None,
        lists: Lists::Commits { commits, cut, max_files: None, null_is_empty: false },
    };
    push.event(&origin, id)
}
