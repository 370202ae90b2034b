//! Habits of the house, written as tests over `cargo metadata` and the tree, so that nobody has to remember them.
//!
//! `layers` guards who may import whom, `packages` what may come in from outside, `sources` how files look, `docs` that
//! what is written is still true, `deploy` the systemd units. Nothing here runs the engine.

mod deploy;
mod docs;
mod layers;
mod packages;
mod sources;
mod tree;
