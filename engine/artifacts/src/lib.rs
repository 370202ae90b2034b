//! Where bytes live: content-addressed artifacts, and the small documents of an attempt.
//!
//! [`Artifacts`] stores files and folders under their SHA-256 and checks it again whenever they are read. [`Attempts`]
//! stores what the engine and a runner tell each other about one attempt; claims and results are conditional puts. Both
//! stand on `object_store`, with a folder behind it for now.
//!
//! Deliberately absent: names, versions and who may read what (a digest grants nothing; access is checked where projects
//! are known), and any notion of "published": a stored blob is just bytes until an accepted event refers to it.
//!
//! Where to look next: [`store`] for blobs, [`folder`] for trees of files, [`attempt`] for claims and results,
//! [`beneath`] for reading where a job may have laid traps.

pub mod attempt;
pub mod beneath;
pub mod error;
pub mod folder;
pub mod path;
pub mod store;

pub use attempt::{Attempts, Document, Put};
pub use error::ArtifactError;
pub use folder::{Names, TreeFile};
pub use store::{Access, Artifacts, ByteStream};
