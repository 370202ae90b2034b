//! A pull request, whatever a forge calls it.

use kickwheel_schemas::{
    CloudEvent,
    payload::{self, GitPullRequest},
};
use serde_json::Value;

use super::{super::body, Origin};

/// Most characters of a title that are kept.
const MAX_TITLE_CHARS: usize = 500;

/// What happened to a pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Action {
    Opened,
    Updated,
    Merged,
    Closed,
}

/// The event; `subject` is the ref that the forge keeps the request's head under.
pub(in super::super) fn pull_request(
    origin: &Origin,
    id: &str,
    action: Action,
    subject: &str,
    request: GitPullRequest,
) -> CloudEvent {
    let ty = match action {
        Action::Opened => payload::GIT_PULL_REQUEST_OPENED,
        Action::Updated => payload::GIT_PULL_REQUEST_UPDATED,
        Action::Merged => payload::GIT_PULL_REQUEST_MERGED,
        Action::Closed => payload::GIT_PULL_REQUEST_CLOSED,
    };
    let data = serde_json::to_value(request).expect("the payload has string keys only");
    origin.event(id, ty, subject, data)
}

/// A title, shortened.
pub(in super::super) fn title(text: &str) -> String {
    text.chars().take(MAX_TITLE_CHARS).collect()
}

/// A commit in full; an abbreviated one, or none, is unknown.
pub(in super::super) fn full_commit(value: &Value, path: &str) -> Option<String> {
    let id = body::shown(value, path)?;
    let full = matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (full && id.bytes().any(|byte| byte != b'0')).then(|| id.to_owned())
}
