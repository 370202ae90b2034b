//! What the cross-crate tests share: the real engine as a process, Git repositories, a forge's webhooks, database clusters, Kafka, and a checker.
//!
//! Nothing here imports a crate of the engine: the tests see only what a user sees (the binary, its API, its files) and,
//! in [`checker`], the rows of the database, read by SQL of its own. Where to look next: [`harness`] for how a test reads,
//! `tests/tests` for the tests.

pub mod api;
pub mod checker;
pub mod cluster;
pub mod forge;
pub mod harness;
pub mod kafka;
pub mod process;
pub mod repo;
pub mod wait;
