//! The sandbox that WASM plugins run in.
//!
//! [`Host`] loads components of the world in `schemas/wit` and calls them: pooled and async, bounded in fuel, time,
//! memory, output and logs, with a fixed clock and constant randomness, without files, network, environment or
//! arguments. So a call is a pure function of its arguments, and may be repeated or run ahead of a commit.
//!
//! What is deliberately absent: resolving references, carrying out effects and deciding about retries (the runtime's and
//! the core's), and any lookup of plugins by name beyond the [built-in](mod@builtin) ones.
//!
//! Where to look next: [`host`] for a call from start to end, `sandbox` for what a guest can see, [`cache`] for why
//! compiled code from disk may be trusted, [`failure`] for how calls end badly.

pub mod builtin;
pub mod cache;
pub mod failure;
pub mod host;
pub mod logs;
mod output;
mod sandbox;
mod ticker;

pub use builtin::{Builtin, builtin, builtin_catalog};
pub use cache::CacheConfig;
pub use failure::{CallFailure, HostError, LoadError};
pub use host::{CallReport, Host, HostConfig, Limits, Origin, Plugin};
pub use logs::{LogLevel, LogLine};
