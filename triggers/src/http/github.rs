//! GitHub's webhooks: pushes, pull requests, and what says the same a second time.
//!
//! Format: GitHub's "Webhook events and payloads". A push is one ref. `create` and `delete` repeat what a push says,
//! without the commits: they become events of their own types, `com.github.create` and `.delete`, which are recorded in
//! the ref's lane and which no `git.push` filter takes. A ping, and every event we have no use for, is nothing.

mod pull_request;
mod push;

use kickwheel_schemas::CloudEvent;
use serde_json::{Value, json};

use super::{Headers, Refusal, SourceConfig, Verification, body, signature};

/// The provider's name in `data`.
pub const PROVIDER: &str = "github";
/// Type of the event for `create`, the twin of a push.
pub const CREATE: &str = "com.github.create";
/// Type of the event for `delete`, the twin of a push.
pub const DELETE: &str = "com.github.delete";

/// The events of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    verify(&config.verification, headers, bytes)?;
    let payload = body::json_or_form(headers, bytes)?;
    if !payload.is_object() {
        return Err(Refusal::kept("shape_invalid", "the payload must be a JSON object"));
    }
    let kind = match headers.get("x-github-event") {
        Some(name) if !name.is_empty() => Kind::from_name(name),
        _ => Kind::from_shape(&payload),
    };
    let delivery = Delivery { config, payload: &payload, id: body::delivery_id(headers, "x-github-delivery", bytes) };
    let event = match kind {
        Kind::Push => push::translate(&delivery)?,
        Kind::PullRequest => pull_request::translate(&delivery)?,
        Kind::Create => Some(twin(&delivery, CREATE)?),
        Kind::Delete => Some(twin(&delivery, DELETE)?),
        Kind::Other => None,
    };
    Ok(event.into_iter().collect())
}

/// Verifies `X-Hub-Signature-256`.
fn verify(verification: &Verification, headers: &Headers, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(secrets) = verification.secrets() else { return Ok(()) };
    let legacy = match verification {
        Verification::Secret { legacy_sha1: true, .. } => Some("X-Hub-Signature"),
        Verification::Secret { legacy_sha1: false, .. } | Verification::Unsigned => None,
    };
    signature::verify_hub("X-Hub-Signature-256", legacy, &secrets, headers, bytes)
}

/// A verified delivery.
struct Delivery<'d> {
    config: &'d SourceConfig,
    payload: &'d Value,
    /// GitHub's GUID is one per event, shared by its redeliveries and by all hooks that hear of it.
    id: String,
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

impl Delivery<'_> {
    /// The configured URL, else the one to clone from, else the page.
    fn source(&self) -> Result<String, Refusal> {
        if let Some(source) = &self.config.source {
            return Ok(source.clone());
        }
        let named =
            ["repository.clone_url", "repository.html_url"].iter().find_map(|path| body::shown(self.payload, path));
        named.map(str::to_owned).ok_or_else(|| Refusal::shape("repository.clone_url", "a text"))
    }

    /// `owner/name`.
    fn repo(&self) -> Result<String, Refusal> {
        match body::maybe_text(self.payload, "repository.full_name")? {
            Some(name) => Ok(name.to_owned()),
            None => self.config.repo.clone().ok_or_else(|| Refusal::shape("repository.full_name", "a text")),
        }
    }

    fn default_branch(&self) -> Option<String> {
        let named = ["repository.default_branch", "repository.master_branch"];
        let named = named.iter().find_map(|path| body::shown(self.payload, path)).map(str::to_owned);
        named.or_else(|| self.config.default_branch.clone())
    }

    /// Who did it. A merge queue names a person `none`.
    fn actor(&self) -> Option<String> {
        let named = ["sender.login", "pusher.name"].iter().find_map(|path| body::shown(self.payload, path));
        named.filter(|name| *name != "none").map(str::to_owned)
    }

    fn actor_id(&self) -> Option<String> {
        body::id(self.payload, "sender.id")
    }

    fn event(&self, ty: &str, subject: &str, data: Value) -> Result<CloudEvent, Refusal> {
        Ok(CloudEvent::new(self.source()?, &self.id, ty, data).with_subject(subject))
    }
}

/// `create` and `delete`: a short ref and no commits.
fn twin(delivery: &Delivery<'_>, ty: &str) -> Result<CloudEvent, Refusal> {
    let name = body::text(delivery.payload, "ref")?;
    let ref_type = body::text(delivery.payload, "ref_type")?;
    let subject = match ref_type {
        "branch" => format!("refs/heads/{name}"),
        "tag" => format!("refs/tags/{name}"),
        _ => return Err(Refusal::shape("ref_type", "`branch` or `tag`")),
    };
    let data = json!({
        "repo": delivery.repo()?,
        "provider": PROVIDER,
        "ref": subject,
        "ref_type": ref_type,
        "default_branch": delivery.default_branch(),
        "actor": delivery.actor(),
        "actor_id": delivery.actor_id(),
    });
    delivery.event(ty, &subject, data)
}
