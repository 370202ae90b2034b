//! What the forges have in common: a ref that moved, a pull request, and the twin of a push.
//!
//! Each forge's module reads its own payload into a [`Push`] or a `GitPullRequest`; here these become events, so that a
//! workflow sees one shape whoever hosts the repository. Deliberately absent: headers and signatures, which differ.

mod paths;
mod pull_request;
mod push;

use chrono::DateTime;
use kickwheel_schemas::{CloudEvent, Millis, payload::Commit};
use serde_json::{Value, json};

use super::{Refusal, SourceConfig, body};

pub(super) use paths::Lists;
pub(super) use pull_request::{Action, full_commit, pull_request, title};
pub(super) use push::{Push, announced_id};

/// Most characters of a commit's first line and of an author's name that are kept.
const MAX_SHOWN_CHARS: usize = 200;

/// Whose repository a delivery is about, and who caused it.
#[derive(Clone)]
pub(super) struct Origin {
    /// The provider's name in `data`.
    pub provider: &'static str,
    /// `source` of its events.
    pub source: String,
    /// `owner/name`.
    pub repo: String,
    pub default_branch: Option<String>,
    pub actor: Option<String>,
    pub actor_id: Option<String>,
    /// When it happened, RFC 3339.
    pub time: Option<String>,
}

impl Origin {
    /// The configured URL, else the first of these that the payload has.
    pub fn source(config: &SourceConfig, payload: &Value, paths: &[&str]) -> Result<String, Refusal> {
        if let Some(source) = &config.source {
            return Ok(source.clone());
        }
        let named = paths.iter().find_map(|path| body::shown(payload, path));
        named.map(str::to_owned).ok_or_else(|| Refusal::shape(paths[0], "a text"))
    }

    /// The name at a place of the payload, else the configured one.
    pub fn repo(config: &SourceConfig, payload: &Value, path: &str) -> Result<String, Refusal> {
        match body::maybe_text(payload, path)? {
            Some(name) => Ok(name.to_owned()),
            None => config.repo.clone().ok_or_else(|| Refusal::shape(path, "a text")),
        }
    }

    /// The default branch at one of these places, else the configured one.
    pub fn default_branch(config: &SourceConfig, payload: &Value, paths: &[&str]) -> Option<String> {
        let named = paths.iter().find_map(|path| body::shown(payload, path)).map(str::to_owned);
        named.or_else(|| config.default_branch.clone())
    }

    /// An event of this repository.
    pub fn event(&self, id: &str, ty: &str, subject: &str, data: Value) -> CloudEvent {
        let mut event = CloudEvent::new(&self.source, id, ty, data).with_subject(subject);
        event.time.clone_from(&self.time);
        event
    }

    /// A `create` or `delete` of the forges that repeat with it what a push says: a short ref and no commits. It becomes an
    /// event of a type of its own, which is recorded in the ref's lane and starts nothing a second time.
    pub fn twin(&self, id: &str, ty: &str, payload: &Value) -> Result<CloudEvent, Refusal> {
        let name = body::text(payload, "ref")?;
        let ref_type = body::text(payload, "ref_type")?;
        let subject = match ref_type {
            "branch" => format!("refs/heads/{name}"),
            "tag" => format!("refs/tags/{name}"),
            _ => return Err(Refusal::shape("ref_type", "`branch` or `tag`")),
        };
        let data = json!({
            "repo": self.repo,
            "provider": self.provider,
            "ref": subject,
            "ref_type": ref_type,
            "default_branch": self.default_branch,
            "actor": self.actor,
            "actor_id": self.actor_id,
        });
        Ok(self.event(id, ty, &subject, data))
    }
}

/// The first line of a text, shortened: for people only.
pub(super) fn shorten(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(MAX_SHOWN_CHARS).collect()
}

/// A listed commit: its id is at `id`, its author's name at the first of `authors` that is there.
pub(super) fn commit(commit: &Value, id: &str, authors: &[&str]) -> Result<Commit, Refusal> {
    let found = body::at(commit, id).and_then(Value::as_str);
    let found = found.filter(|id| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    Ok(Commit {
        id: found.ok_or_else(|| Refusal::shape(&format!("commits.{id}"), "a full commit"))?.to_owned(),
        message: body::shown(commit, "message").map(shorten).unwrap_or_default(),
        author: authors.iter().find_map(|path| body::shown(commit, path)).map(shorten),
    })
}

/// The id of one of the events of a delivery: the delivery's own where it can hold no other.
pub(super) fn numbered(id: &str, index: usize, count: usize) -> String {
    if count > 1 { format!("{id}#{index}") } else { id.to_owned() }
}

/// A time as senders write it: RFC 3339, its offset with or without a colon, or seconds or milliseconds since 1970.
pub(super) fn moment(value: &Value) -> Option<String> {
    /// Numbers above this are milliseconds: as seconds they would be after the year 5000.
    const LARGEST_SECONDS: u64 = 100_000_000_000;
    let at = match value {
        Value::Number(number) => {
            let number = number.as_i64()?;
            Millis(if number.unsigned_abs() > LARGEST_SECONDS { number } else { number.checked_mul(1000)? })
        }
        Value::String(text) => {
            let at = DateTime::parse_from_rfc3339(text)
                .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"))
                .or_else(|_| DateTime::parse_from_str(&text.replace(" UTC", " +0000"), "%Y-%m-%d %H:%M:%S%.f %z"));
            Millis(at.ok()?.timestamp_millis())
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    // What no calendar has would be shown as the first moment of 1970.
    DateTime::from_timestamp_millis(at.0)?;
    let text = at.to_rfc3339();
    // Years beyond four digits are no RFC 3339.
    DateTime::parse_from_rfc3339(&text).is_ok().then_some(text)
}
