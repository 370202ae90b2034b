//! The driver: the only place where store, mirrors, pools, plugins and artifacts meet.
//!
//! [`Engine`] is what the server, the triggers and the CLI's one-shot runs hold. Inside, in the order in which an event
//! travels: [`ingest`] accepts and decides it, [`driver`] turns runs (decide, persist, act), [`perform`] executes what is
//! outstanding, [`view`] answers questions.
//!
//! Deliberately absent: HTTP, terminal output, foreign formats, and any decision about a run's future (that is core's).

pub mod engine;
pub mod error;

pub use engine::{AdhocError, AssetKind, Config, Engine, LogQuery, RunQuery, RunSelector};
pub use error::{ApiError, StartError};
