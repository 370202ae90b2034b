//! Digests that stand for texts of any length in keys.
//!
//! `source`, `id` and `subject` may each be 2 KiB long, which no index of Postgres takes; their digest can always be a
//! key, and it costs a hot table less.

use sha2::{Digest as _, Sha256};

/// Hex digits kept of the SHA-256: 160 bits, so that nobody finds two texts with the same key.
const DIGITS: usize = 40;

/// A key for several texts. Each is preceded by its length, so that no two lists run together.
fn key_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let mut hex = hex::encode(hash.finalize());
    hex.truncate(DIGITS);
    hex
}

/// The key of a lane: all events of one source and subject within a project.
pub fn lane_key(project: &str, source: &str, subject: Option<&str>) -> String {
    match subject {
        Some(subject) => key_of(&["lane", project, source, subject]),
        None => key_of(&["lane", project, source]),
    }
}

/// The key of an event's identity.
pub fn event_identity(project: &str, source: &str, id: &str) -> String {
    key_of(&["event", project, source, id])
}

/// The key of what makes a run unique, but for its generation.
pub fn run_identity(project: &str, workflow: &str, event_source: &str, event_id: &str) -> String {
    key_of(&["run", project, workflow, event_source, event_id])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_do_not_run_together() {
        assert_ne!(event_identity("p", "ab", "c"), event_identity("p", "a", "bc"));
        assert_ne!(lane_key("p", "s", None), lane_key("p", "s", Some("")));
    }
}
