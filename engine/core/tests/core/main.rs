//! Tests of the core as its callers see it: plans, inputs, events, commands.
//!
//! Read `scenarios` first: each is a story of one run. `properties` tells random ones. `planted_bugs` proves that both
//! would notice if the core were wrong.

mod cron;
mod expansion;
mod expressions;
mod filters;
mod harness;
mod inputs;
mod journal;
mod plans;
#[cfg(feature = "planted-bugs")]
mod planted_bugs;
mod properties;
mod scenarios;
mod templates;
