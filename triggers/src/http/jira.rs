//! Jira: Cloud, Data Center, an app's dynamic webhooks, Automation's web requests and the post-function of a workflow.
//!
//! Formats: Atlassian's "Webhooks" of Cloud and of Data Center; Automation's "Send web request"; "Trigger a webhook". What a
//! delivery is about is said by `webhookEvent`, with or without `jira:` before it; the last two have none and are known by
//! their shape. One change of an issue is one event. A comment is told twice (as itself, and as a change of its issue): both
//! become the same event with the same id, made of the comment's. A body may be left out by the sender's settings: that
//! means nothing. Whatever our own account does is dropped, so that nobody answers himself.
//!
//! Proof: `X-Hub-Signature` with the method it names; else a JSON Web Token, Basic, or the secret in a header or the URL.

mod changelog;
mod comment;
mod issue;

use kickwheel_schemas::CloudEvent;
use serde_json::Value;

use super::{Headers, Refusal, SourceConfig, body, forge, shared_secret, signature};
use issue::Verb;

/// `source` of events where none is configured and the payload has no link.
pub const SOURCE: &str = "/hooks/jira";
/// The id that is the same for each retry.
const IDENTIFIER: &str = "x-atlassian-webhook-identifier";
/// Of the signature.
const SIGNATURE: &str = "X-Hub-Signature";

/// The events of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    verify(config, headers, bytes)?;
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let payload = body::json(bytes)?;
    body::object(&payload)?;
    let delivery = Delivery { config, id: body::delivery_id(headers, IDENTIFIER, bytes), payload: &payload };
    let told = delivery.told()?;
    let ours = |told: &Told| config.own_account.is_some() && told.actor == config.own_account;
    Ok(told.filter(|told| !ours(told)).map(|told| told.event).into_iter().collect())
}

fn verify(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(secrets) = config.verification.secrets() else { return Ok(()) };
    if headers.get(SIGNATURE).is_some() {
        return signature::verify_websub(SIGNATURE, config.verification.takes_sha1(), &secrets, headers, bytes);
    }
    shared_secret::verify(config, headers)
}

/// A verified delivery.
struct Delivery<'d> {
    config: &'d SourceConfig,
    id: String,
    payload: &'d Value,
}

/// An event, with who caused it.
struct Told {
    event: CloudEvent,
    actor: Option<String>,
}

impl Delivery<'_> {
    fn told(&self) -> Result<Option<Told>, Refusal> {
        let payload = self.payload;
        let Some(name) = body::maybe_text(payload, "webhookEvent")? else { return self.nameless() };
        let told = match name.strip_prefix("jira:").unwrap_or(name) {
            "issue_created" => issue::told(self, Verb::Created)?,
            "issue_deleted" => issue::told(self, Verb::Deleted)?,
            "issue_updated" => match comment::twin(payload)? {
                Some(verb) => comment::told(self, verb)?,
                None => issue::told(self, Verb::Changed)?,
            },
            "comment_created" => comment::told(self, comment::Verb::Created)?,
            "comment_updated" => comment::told(self, comment::Verb::Updated)?,
            "comment_deleted" => comment::told(self, comment::Verb::Deleted)?,
            // Only some tell which issue it is about, and what of it changed.
            "worklog_created" | "worklog_updated" | "worklog_deleted"
                if body::at(payload, "issue").is_some() && !body::list(payload, "changelog.items")?.is_empty() =>
            {
                issue::told(self, Verb::Changed)?
            }
            _ => return Ok(None),
        };
        Ok(Some(told))
    }

    /// Without a name there is an issue, at least.
    fn nameless(&self) -> Result<Option<Told>, Refusal> {
        let payload = self.payload;
        if body::at(payload, "issue").is_some() {
            let verb = if body::at(payload, "transition").is_some() { Verb::PostFunction } else { Verb::Changed };
            return issue::told(self, verb).map(Some);
        }
        if body::at(payload, "id").is_some()
            && body::at(payload, "key").is_some()
            && body::at(payload, "fields").is_some()
        {
            return issue::told(self, Verb::Changed).map(Some);
        }
        let reason = "the payload has neither a `webhookEvent` nor an issue, so what it is about is unknown";
        Err(Refusal::kept("shape_invalid", reason))
    }

    /// The issue: a member of the payload, else the payload itself.
    fn issue(&self) -> &Value {
        body::at(self.payload, "issue").unwrap_or(self.payload)
    }

    /// The site's URL: what is before `/rest/` in any link to itself.
    fn site(&self) -> String {
        if let Some(source) = &self.config.source {
            return source.clone();
        }
        let links = ["issue.self", "comment.self", "self", "user.self"];
        let found = links.iter().find_map(|path| {
            let (site, _) = body::shown(self.payload, path)?.split_once("/rest/")?;
            url::Url::parse(site).ok()?.host_str()?;
            Some(site.to_owned())
        });
        found.unwrap_or_else(|| SOURCE.to_owned())
    }

    fn time(&self) -> Option<String> {
        body::at(self.payload, "timestamp").and_then(forge::moment)
    }
}

/// The stable name of a person: the account's id, or the user's name where there are none.
fn person(payload: &Value, path: &str) -> Option<String> {
    let names = ["accountId", "name", "key", "displayName"];
    names.iter().find_map(|name| body::shown(payload, &format!("{path}.{name}"))).map(str::to_owned)
}
