//! What may be asked of other machines, and by which client.
//!
//! One policy covers everything that reaches out: mirrors, pollers, callbacks, and plugins that were granted a host.
//! [`policy`] decides, without I/O; [`address`] knows what kind of place an address is; [`client`] makes HTTP clients that
//! cannot be talked out of the decision: by a redirect, by a name that leads somewhere else the second time, or by a proxy
//! of the environment. [`failure`] is what comes back when a request does not.
//!
//! Deliberately absent: what is asked for, by whom and how often; credentials beyond not carrying them to another host;
//! and protocols other than HTTP, whose callers resolve names by [`Egress::addresses`] and connect to what it returns.

pub mod address;
pub mod client;
pub mod failure;
pub mod policy;
pub mod resolve;

pub use address::{Class, classify};
pub use client::{BlockingClient, Client, Egress, Settings, SettingsError, read_limited};
pub use failure::Failure;
pub use policy::{Denied, EntryError, Policy, SETTING};
pub use reqwest;
pub use resolve::Lookup;
