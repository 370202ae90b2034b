//! The clients against real servers on loopback, with TLS and a test authority; see [`server`] first.

mod clients;
mod server;
