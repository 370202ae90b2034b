//! A push, as the post-receive hook saw it, as CloudEvents.
//!
//! Pure: what the hook wrote and how the repository is bound give the events, always the same ones. What the push changed
//! is not asked here; the mirror answers that when the event is decided. Source of the format: git's `githooks(5)`,
//! "post-receive": one line `<old> <new> <ref>` per ref, an id of zeros standing for *absent*.
//!
//! One event per branch or tag; other refs (notes, pull requests, …) give none. `source` is the **configured** URL,
//! `subject` the full ref, `id` is `<delivery>#<line>`, counted from 0, so that reading a delivery twice repeats the ids.
//!
//! Refs are bytes, attributes are text: in a ref that is not UTF-8, each byte that belongs to no character is written as
//! `%XX`. Two refs could meet in one text that way (`caf\xe9` and one that is literally called `caf%E9`); they would then
//! share a lane, which orders more than is needed and loses nothing.

use kickwheel_schemas::{
    CloudEvent,
    api::PostReceive,
    payload::{self, GitRefChange},
};

/// How a repository is bound to its project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundRepo {
    /// The name that filters use.
    pub name: String,
    /// As configured: the events' `source`.
    pub url: String,
    /// The default branch when it is known.
    pub default_branch: Option<String>,
}

/// Why a delivery is not understood. Stop: the same file will never be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// The hook writes lines in hex; this is none.
    #[error("read line {line} of delivery {delivery:?}: {text:?} is not hex")]
    NotHex {
        /// The delivery's id.
        delivery: String,
        /// Counted from 0.
        line: usize,
        /// As it is in the file.
        text: String,
    },
    /// Not `<old> <new> <ref>`.
    #[error("read line {line} of delivery {delivery:?}: \"{text}\" is not `<old> <new> <ref>` with full ids")]
    Malformed {
        /// The delivery's id.
        delivery: String,
        /// Counted from 0.
        line: usize,
        /// The line, with every odd byte escaped.
        text: String,
    },
    /// More refs than one delivery may have.
    #[error("read delivery {delivery:?}: it has {lines} lines, the limit is {MAX_LINES}; push fewer refs at once")]
    TooMany {
        /// The delivery's id.
        delivery: String,
        /// How many there are.
        lines: usize,
    },
}

/// Most refs of one push.
pub const MAX_LINES: usize = 20_000;

/// The provider's name in `data` for what comes from a plain post-receive hook.
pub const PROVIDER: &str = "git";

/// The events of one push. One line that cannot be read refuses the whole delivery: a part of it would look complete.
pub fn translate_post_receive(push: &PostReceive, repo: &BoundRepo) -> Result<Vec<CloudEvent>, TranslateError> {
    if push.lines_hex.len() > MAX_LINES {
        return Err(TranslateError::TooMany { delivery: push.delivery.clone(), lines: push.lines_hex.len() });
    }
    let mut events = Vec::new();
    for (line, text) in push.lines_hex.iter().enumerate() {
        let bytes = from_hex(text).ok_or_else(|| TranslateError::NotHex {
            delivery: push.delivery.clone(),
            line,
            text: text.clone(),
        })?;
        let change = parse(&bytes).ok_or_else(|| TranslateError::Malformed {
            delivery: push.delivery.clone(),
            line,
            text: bytes.escape_ascii().to_string(),
        })?;
        events.extend(event(push, repo, line, &change));
    }
    Ok(events)
}

/// One line, parsed.
struct RefLine<'a> {
    before: Option<&'a str>,
    after: Option<&'a str>,
    name: &'a [u8],
}

fn parse(line: &[u8]) -> Option<RefLine<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (before, after, name) = (object_id(parts.next()?)?, object_id(parts.next()?)?, parts.next()?);
    let named = name.strip_prefix(b"refs/").is_some_and(|rest| rest.contains(&b'/') && !rest.ends_with(b"/"));
    let clean = !name.iter().any(|byte| byte.is_ascii_control() || *byte == b' ');
    if before.len() != after.len() || !named || !clean {
        return None;
    }
    let present = |id: &'_ str| !id.bytes().all(|byte| byte == b'0');
    Some(RefLine { before: Some(before).filter(|id| present(id)), after: Some(after).filter(|id| present(id)), name })
}

/// A full id: 40 hex digits, or 64 in a SHA-256 repository.
fn object_id(bytes: &[u8]) -> Option<&str> {
    let hex = bytes.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    if hex && matches!(bytes.len(), 40 | 64) { std::str::from_utf8(bytes).ok() } else { None }
}

fn event(push: &PostReceive, repo: &BoundRepo, line: usize, change: &RefLine<'_>) -> Option<CloudEvent> {
    let branch = change.name.strip_prefix(b"refs/heads/").map(text_of);
    let tag = change.name.strip_prefix(b"refs/tags/").map(text_of);
    let is_branch = match (&branch, &tag) {
        (Some(_), _) => true,
        (None, Some(_)) => false,
        (None, None) => return None,
    };
    let ty = match (change.before, change.after, is_branch) {
        // Neither existed before nor exists now: a refused or pointless deletion.
        (None, None, _) => return None,
        (None, Some(_), true) => payload::GIT_BRANCH_CREATED,
        (None, Some(_), false) => payload::GIT_TAG_CREATED,
        (Some(_), None, true) => payload::GIT_BRANCH_DELETED,
        (Some(_), None, false) => payload::GIT_TAG_DELETED,
        (Some(before), Some(after), _) if before == after => return None,
        (Some(_), Some(_), true) => payload::GIT_BRANCH_UPDATED,
        (Some(_), Some(_), false) => payload::GIT_TAG_UPDATED,
    };
    let merge_queue = branch.as_ref().is_some_and(|branch| branch.starts_with(payload::MERGE_QUEUE_BRANCHES));
    let data = GitRefChange {
        repo: repo.name.clone(),
        provider: PROVIDER.into(),
        branch,
        tag,
        before: change.before.map(str::to_owned),
        after: change.after.map(str::to_owned),
        forced: None,
        actor: push.actor.clone(),
        actor_id: None,
        commits: Vec::new(),
        commit_count: None,
        base_ref: None,
        default_branch: repo.default_branch.clone(),
        merge_queue,
        changed_paths: None,
        push_options: push.push_options.clone(),
    };
    let data = serde_json::to_value(data).expect("the payload has string keys only");
    let id = format!("{}#{line}", push.delivery);
    let mut event = CloudEvent::new(&repo.url, id, ty, data).with_subject(text_of(change.name));
    event.time = Some(push.time.clone());
    event.traceparent.clone_from(&push.traceparent);
    Some(event)
}

/// Bytes as text, see the header.
fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests;
