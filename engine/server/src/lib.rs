//! The door: HTTP on loopback, `/api/v1`, in front of an [`Engine`](kickwheel_runtime::Engine).
//!
//! [`bind`] takes a loopback address, [`serve`] answers until it is told to stop. A request passes, in this order,
//! [`guard`] (foreign `Host` and `Origin`, then the token), the route table in [`routes`], and a handler in [`api`] that
//! asks the engine one question. Every error, whoever noticed it, is a [`Problem`](kickwheel_schemas::api::Problem): see
//! [`refusal`].
//!
//! Deliberately absent: decisions of any kind, state of its own, a page (there is none yet), TLS and users (it listens on
//! loopback only, and one token opens everything).

pub mod api;
pub mod extract;
pub mod guard;
pub mod listen;
pub mod refusal;
pub mod routes;

pub use listen::{BindError, ServerConfig, bind, serve};
pub use routes::router;
