//! The door against a real engine, by subject. No job is run here: what a run does is the runtime's to test.

mod access;
mod door;
mod house;
mod openapi;
mod providers;
mod quarantine;
mod senders;
mod tls;
