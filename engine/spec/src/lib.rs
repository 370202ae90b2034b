//! From the text of a workflow file to what the engine executes, and every mistake on the way.
//!
//! ```text
//!   compile(text, plugins) -> Compiled { workflow, diagnostics, name }
//!
//!   raw          YAML -> a tree in which every value knows its bytes
//!   workflow     the tree -> drafts: keys, types, names; expressions are only collected
//!   expression   the collected expressions, against the shapes of what they may read
//!   graph        needs -> an order without a cycle
//! ```
//!
//! A mistake never hides another one: each stage goes on with what it has, and a value that could not be understood is
//! afterwards treated as anything. Only a text that is no YAML at all ends the work at once.
//!
//! Deliberately absent: I/O, rendering (the CLI and the UI do that from [`Diagnostic`]), and any decision about events
//! or runs (`kickwheel-core`). Which plugins exist comes in as a [`PluginCatalog`].

mod diagnostic;
mod expression;
mod graph;
mod keys;
mod plugins;
mod raw;
pub mod schema;
mod values;
mod workflow;

#[cfg(test)]
mod tests;

pub use diagnostic::{Code, Diagnostic, Severity};
pub use plugins::{PluginCatalog, PluginInfo};
pub use workflow::{Compiled, compile};
