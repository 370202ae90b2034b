//! Hugging Face's webhooks: new commits of a repository of the Hub.
//!
//! Format: the Hub's "Webhooks" page. Which refs moved is in `updatedRefs`: the main branch is a version, another ref that is
//! new is told as such, and one that moved means nothing to a dataset. Scopes grow narrower over time: one that is unknown is
//! an update of the scope above it. The secret is shown in `X-Webhook-Secret`, or in the URL.

use kickwheel_schemas::CloudEvent;
use serde_json::Value;

use super::{
    Headers, Refusal, SourceConfig, body,
    forge::numbered,
    shared_secret,
    versions::{self, Told},
};

/// The branch whose commits are the versions.
const MAIN: &str = "refs/heads/main";
/// Most refs of one delivery.
const MAX_REFS: usize = 1_000;

/// The events of a delivery.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    shared_secret::verify(config, headers)?;
    let payload = body::json(bytes)?;
    body::object(&payload)?;
    let Some(scope) = body::maybe_text(&payload, "event.scope")? else { return Ok(Vec::new()) };
    if scope != "repo" && !scope.starts_with("repo.") {
        return Ok(Vec::new());
    }
    let action = body::text(&payload, "event.action")?;
    let content = scope == "repo.content" || scope.starts_with("repo.content.");
    // Of a scope that is not known, only this can be said.
    let action = if matches!(scope, "repo" | "repo.content") { action } else { "update" };
    let id = body::delivery_id(headers, "webhook-id", bytes);
    let refs = body::list(&payload, "updatedRefs")?;
    if refs.len() > MAX_REFS {
        let reason = format!("{} refs are too many, at most {MAX_REFS} are taken at once", refs.len());
        return Err(Refusal::new(413, "body_too_large", reason));
    }
    if refs.is_empty() {
        // Older deliveries do not name refs.
        if !content || action != "update" {
            return Ok(Vec::new());
        }
        let Some(head) = body::maybe_text(&payload, "repo.headSha")? else { return Ok(Vec::new()) };
        let (name, uri) = repository(&payload)?;
        return Ok(vec![versions::event(config, (uri, &id), &name, Told::Version { previous: None }, head, action)]);
    }
    let (name, uri) = repository(&payload)?;
    let mut events = Vec::new();
    for (index, moved) in refs.iter().enumerate() {
        let (old, new) = (body::maybe_text(moved, "oldSha")?, body::maybe_text(moved, "newSha")?);
        let reference = body::text(moved, "ref")?;
        // What is gone, or where it was, is no version.
        let Some(new) = new.filter(|new| old != Some(new)) else { continue };
        let told = match old {
            old if reference == MAIN => Told::Version { previous: old.map(str::to_owned) },
            None => Told::Ref,
            Some(_) => continue,
        };
        events.push(versions::event(
            config,
            (uri.clone(), &numbered(&id, index, refs.len())),
            &name,
            told,
            new,
            action,
        ));
    }
    Ok(events)
}

/// The repository's name and its page.
fn repository(payload: &Value) -> Result<(String, String), Refusal> {
    let name = body::text(payload, "repo.name")?;
    let page = body::shown(payload, "repo.url.web").map(str::to_owned).unwrap_or_else(|| {
        let folder = match body::shown(payload, "repo.type") {
            Some("dataset") => "datasets/",
            Some("space") => "spaces/",
            _ => "",
        };
        format!("https://huggingface.co/{folder}{name}")
    });
    Ok((name.to_owned(), page))
}
