//! GitHub's webhooks: pushes, pull requests, and what says the same a second time.
//!
//! Format: GitHub's "Webhook events and payloads". A push is one ref. `create` and `delete` repeat what a push says,
//! without the commits: they become events of their own types, `com.github.create` and `.delete`, which are recorded in
//! the ref's lane and which no `git.push` filter takes. A ping, and every event we have no use for, is nothing.

mod pull_request;

use kickwheel_schemas::{CloudEvent, payload::MAX_COMMITS};
use serde_json::Value;

use super::{
    Headers, Refusal, SourceConfig, Verification, body,
    forge::{self, Lists, Origin, Push, announced_id},
    signature,
};

/// The provider's name in `data`.
pub const PROVIDER: &str = "github";
/// Type of the event for `create`, the twin of a push.
pub const CREATE: &str = "com.github.create";
/// Type of the event for `delete`, the twin of a push.
pub const DELETE: &str = "com.github.delete";

/// GitHub lists at most so many commits of a push, and says nothing of the rest.
const LISTED_COMMITS: usize = 2048;
/// GitHub lists at most so many files of a commit, and says nothing of the rest.
const LISTED_FILES: usize = 3000;

/// The events of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    verify(&config.verification, headers, bytes)?;
    let payload = body::json_or_form(headers, bytes)?;
    body::object(&payload)?;
    let kind = match headers.get("x-github-event") {
        Some(name) if !name.is_empty() => Kind::from_name(name),
        _ => Kind::from_shape(&payload),
    };
    // GitHub's GUID is one per event, shared by its redeliveries and by all hooks that hear of it.
    let id = body::delivery_id(headers, "x-github-delivery", bytes);
    let event = match kind {
        Kind::Push => push(&origin(config, &payload)?, &id, &payload)?,
        Kind::PullRequest => pull_request::translate(config, &id, &payload)?,
        Kind::Create => Some(origin(config, &payload)?.twin(&id, CREATE, &payload)?),
        Kind::Delete => Some(origin(config, &payload)?.twin(&id, DELETE, &payload)?),
        Kind::Other => None,
    };
    Ok(event.into_iter().collect())
}

/// Verifies `X-Hub-Signature-256`.
fn verify(verification: &Verification, headers: &Headers, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(secrets) = verification.secrets() else { return Ok(()) };
    let legacy = verification.takes_sha1().then_some("X-Hub-Signature");
    signature::verify_hub("X-Hub-Signature-256", legacy, &secrets, headers, bytes)
}

/// What a delivery is about.
enum Kind {
    Push,
    PullRequest,
    Create,
    Delete,
    Other,
}

impl Kind {
    fn from_name(name: &str) -> Self {
        match name {
            "push" => Self::Push,
            "pull_request" => Self::PullRequest,
            "create" => Self::Create,
            "delete" => Self::Delete,
            _ => Self::Other,
        }
    }

    /// By the members that only this kind has, where no header says it.
    fn from_shape(payload: &Value) -> Self {
        let has = |name: &str| payload.get(name).is_some();
        if has("ref") && has("before") && has("after") {
            Self::Push
        } else if has("pull_request") && has("action") && has("number") && !has("review") && !has("comment") {
            Self::PullRequest
        } else if has("ref") && has("ref_type") {
            // A deletion does not say which branch is the main one.
            if has("master_branch") { Self::Create } else { Self::Delete }
        } else {
            Self::Other
        }
    }
}

fn origin(config: &SourceConfig, payload: &Value) -> Result<Origin, Refusal> {
    // A merge queue names a person `none`.
    let actor = ["sender.login", "pusher.name"].iter().find_map(|path| body::shown(payload, path));
    Ok(Origin {
        provider: PROVIDER,
        source: Origin::source(config, payload, &["repository.clone_url", "repository.html_url"])?,
        repo: Origin::repo(config, payload, "repository.full_name")?,
        default_branch: Origin::default_branch(
            config,
            payload,
            &["repository.default_branch", "repository.master_branch"],
        ),
        actor: actor.filter(|name| *name != "none").map(str::to_owned),
        actor_id: body::id(payload, "sender.id"),
        time: body::at(payload, "repository.pushed_at").and_then(forge::moment),
    })
}

fn push(origin: &Origin, id: &str, payload: &Value) -> Result<Option<CloudEvent>, Refusal> {
    let commits = body::list(payload, "commits")?;
    let author = ["author.username", "author.name"];
    // GitHub lists the oldest first.
    let newest = &commits[commits.len().saturating_sub(MAX_COMMITS)..];
    let push = Push {
        full: body::text(payload, "ref")?,
        before: announced_id(payload, "before")?,
        after: announced_id(payload, "after")?,
        forced: body::maybe_bool(payload, "forced")?,
        commits: newest.iter().map(|commit| forge::commit(commit, "id", &author)).collect::<Result<_, _>>()?,
        commit_count: Some(commits.len() as u64),
        base_ref: body::maybe_text(payload, "base_ref")?.map(str::to_owned),
        lists: Lists::Commits {
            commits,
            cut: (commits.len() >= LISTED_COMMITS).then(|| format!("commits[] may end at {LISTED_COMMITS} of them")),
            max_files: Some(LISTED_FILES),
            null_is_empty: false,
        },
    };
    push.event(origin, id)
}
