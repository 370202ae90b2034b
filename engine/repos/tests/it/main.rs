//! Tests against repositories made by the real `git`. One binary, so that it links once; see [`fixture`] first.

mod changes;
mod fetch;
mod fixture;
mod hook;
mod notes;
mod source;
