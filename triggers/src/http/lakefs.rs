//! lakeFS's webhooks: what actions of a repository tell.
//!
//! Format: lakeFS's `EventInfo`. Hooks `pre-*` may veto, and nothing has changed yet: they are answered and mean nothing.
//! Only `post-*` is a fact. lakeFS signs nothing: a hook's `headers` or `query_params` show the secret. The branch or tag is
//! part of the source, `lakefs://REPOSITORY/REF`, so that each has a lane of its own.

use kickwheel_schemas::CloudEvent;
use serde_json::Value;

use super::{
    Headers, Refusal, SourceConfig, body, forge, shared_secret,
    versions::{self, Told},
};

/// The event of a delivery, if it is one.
pub fn translate(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<Vec<CloudEvent>, Refusal> {
    shared_secret::verify(config, headers)?;
    let payload = body::json(bytes)?;
    body::object(&payload)?;
    let Some(ty) = body::maybe_text(&payload, "event_type")? else { return Ok(Vec::new()) };
    let (told, operation, reference) = match ty {
        "post-commit" => (Told::Version { previous: None }, "commit", "branch_id"),
        "post-merge" => (Told::Version { previous: None }, "merge", "branch_id"),
        "post-revert" => (Told::Version { previous: None }, "revert", "branch_id"),
        "post-cherry-pick" => (Told::Version { previous: None }, "cherry-pick", "branch_id"),
        "post-create-branch" => (Told::Ref, "create-branch", "branch_id"),
        "post-create-tag" => (Told::Ref, "create-tag", "tag_id"),
        _ => return Ok(Vec::new()),
    };
    let repository = body::text(&payload, "repository_id")?;
    let uri = format!("lakefs://{repository}/{}", body::text(&payload, reference)?);
    // A new branch may be told without the commit that it begins with: then its source is what there is.
    let version = match body::maybe_text(&payload, "commit_id")? {
        Some(commit) => commit,
        None => body::text(&payload, if matches!(told, Told::Ref) { "source_ref" } else { "commit_id" })?,
    };
    let mut event = versions::event(config, (uri, &body::digest_id(bytes)), repository, told, version, operation);
    event.time =
        body::at(&payload, "event_time").filter(|time| matches!(time, Value::String(_))).and_then(forge::moment);
    Ok(vec![event])
}
