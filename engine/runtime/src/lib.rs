//! The driver: the only place where store, mirrors, pools, plugins and artifacts meet.
//!
//! [`Engine`] is what the server, the triggers and the CLI's one-shot runs hold. Inside, in the order in which an event
//! travels: `ingest` accepts and decides it (`lookup` asks the mirrors, `registry` knows the workflows, `launch` creates
//! runs), `driver` turns runs (decide, persist, act), `perform` executes what is outstanding (`admission` says when),
//! `report` tells the result, `relay` the journal, `explain` and `view` answer questions. `bus` is the log between those
//! who make events and the decider.
//!
//! Deliberately absent: HTTP, terminal output, foreign formats, and any decision about a run's future (that is core's).

mod admission;
pub mod bus;
mod chain;
mod driver;
pub mod engine;
pub mod error;
mod explain;
mod folder;
mod ingest;
mod launch;
mod lifecycle;
mod lookup;
mod origins;
mod perform;
mod pools;
mod pushes;
mod registry;
mod relay;
mod report;
pub mod reserved;
pub mod secrets;
mod shared;
mod twin;
mod view;

pub use engine::{
    AdhocError, AssetKind, Config, Engine, LogQuery, POLL_GRACE, RunQuery, RunSelector,
    access::Bearer,
    cron::CronMemory,
    polling::{Listed, PollPosition, PollState, PolledRepo, SeenRef, Unlisted},
    quarantine::{Held, HeldInput},
    triggers::{BoundRepo, Trigger},
};
pub use error::{ApiError, StartError};
pub use kickwheel_egress::Settings as EgressSettings;
pub use kickwheel_pool::OtherUser;
pub use kickwheel_store::rows::WatchRow;
pub use shared::WatchTrouble;
