//! The pure heart of Kickwheel: what a workflow is, what a run's state is, and what happens next.
//!
//! ```text
//!   decide(&Plan, &RunState, at, Input) -> Vec<Event>      the only place where a run's future is chosen
//!   apply(&mut RunState, &Plan, &Event)                    total: every event that was ever journaled folds
//!   outstanding(&Plan, &RunState) -> Vec<Command>          what the outside world still owes this run
//! ```
//!
//! A caller decides, persists the events, applies them, and performs what is outstanding. Recovery folds the journal and
//! performs the same `outstanding`: there is no second path.
//!
//! Deliberately absent: clocks, randomness, I/O, tokio, SQL, WASM. Time and ids come in with the input.
//!
//! Read in this order: [`plan`], [`state`], [`event`], [`mod@decide`]; then [`expr`] for `${{ }}`, [`filter`] for what
//! makes an event start a workflow, and [`cron`] for when a schedule is due. How a run unfolds is told as stories in `tests/core/scenarios.rs`.

pub mod command;
pub mod cron;
pub mod decide;
pub mod event;
pub mod expr;
pub mod filter;
pub mod plan;
pub mod planted;
pub mod state;

pub use command::{Command, outstanding};
pub use decide::{Input, decide};
pub use event::{Event, apply};
pub use plan::Plan;
pub use state::{RunState, RunStatus};
