//! Why a request is not taken.

use kickwheel_runtime::reserved::Reserved;

/// What the sender is told, and what is kept. The body is never part of a reason: it may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("take the request: {reason} ({code}, {status})")]
pub struct Refusal {
    /// The HTTP status; below 500, since the fault lies with the request.
    pub status: u16,
    /// Stable, explained in `docs/errors.md`.
    pub code: &'static str,
    /// For people.
    pub reason: String,
    /// Whether the request is kept in quarantine, where it can be read, mended and replayed: only what has proved where
    /// it comes from.
    pub quarantine: bool,
}

impl From<Reserved> for Refusal {
    fn from(reserved: Reserved) -> Self {
        Self::new(403, reserved.code(), reserved.to_string())
    }
}

impl Refusal {
    /// One that keeps nothing.
    pub fn new(status: u16, code: &'static str, reason: impl Into<String>) -> Self {
        Self { status, code, reason: reason.into(), quarantine: false }
    }

    /// The sender did not prove who it is.
    pub(super) fn unauthorized(code: &'static str, reason: impl Into<String>) -> Self {
        Self::new(401, code, reason)
    }

    /// A body that cannot be understood: refused and kept.
    pub(super) fn kept(code: &'static str, reason: impl Into<String>) -> Self {
        Self { quarantine: true, ..Self::new(400, code, reason) }
    }

    /// A payload in which something is missing or of another type.
    pub(super) fn shape(path: &str, wanted: &str) -> Self {
        Self::kept("shape_invalid", format!("the payload's `{path}` must be {wanted}"))
    }
}
