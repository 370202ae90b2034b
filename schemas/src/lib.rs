//! Wire types of Kickwheel: what crosses a process boundary or is read by somebody else's program.
//!
//! CloudEvents and our event payloads, the runner's protocol, what a plugin receives and returns, and the HTTP API's
//! bodies. Nothing here decides anything and nothing here does I/O. Domain types live in `kickwheel-core` and are
//! converted to and from these explicitly, so that each side can change without breaking the other.
//!
//! Where to look next: [`cloudevent`] for what travels on the bus, [`catalog`] for the fields each event type promises
//! to expressions, [`runner`] for jobs and [`sealed`] for how
//! secrets reach them, [`plugin`] for WASM steps, [`api`] for HTTP.

pub mod api;
pub mod artifact;
pub mod catalog;
pub mod cloudevent;
pub mod ids;
pub mod manifest;
pub mod payload;
pub mod plugin;
pub mod runner;
pub mod sealed;
pub mod tree_path;

pub use artifact::{ArtifactRef, Digest};
pub use cloudevent::CloudEvent;
pub use ids::{AttemptKey, Millis, RunId, TaskKey};
pub use manifest::{Manifest, ManifestEntry, ManifestLink};
