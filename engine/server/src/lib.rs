//! The door: HTTP in front of an [`Engine`](kickwheel_runtime::Engine).
//!
//! [`bind`] takes an address, [`serve`] answers until it is told to stop, with or without TLS ([`tls`]). People's and
//! programs' requests pass, in this order, [`guard`] (foreign `Host` and `Origin`), [`access`] (the token, and what its
//! bearer may), the table in [`routes`], and a handler in [`api`] that asks the engine one question. Senders' requests
//! take another way, [`hooks`]: they are signed. Every error, whoever noticed it, is a
//! [`Problem`](kickwheel_schemas::api::Problem): see [`refusal`]. [`openapi`] describes it all.
//!
//! Deliberately absent: decisions of any kind, what a delivery means (`triggers`), a page (there is none yet), and users
//! (a token stands for whoever holds it).

pub mod access;
pub mod api;
pub mod extract;
pub mod guard;
pub mod hooks;
pub mod listen;
pub mod openapi;
pub mod refusal;
pub mod routes;
pub mod tls;

pub use listen::{BindError, Exposure, ServerConfig, bind, check_tokens, serve};
pub use routes::router;
pub use tls::{Tls, TlsError, TlsFiles};
