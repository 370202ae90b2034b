//! Tests against repositories made by the real `git`. One binary, so that it links once; see [`fixture`] first.

mod changes;
mod fetch;
mod fixture;
mod hook;
mod http;
mod http_server;
mod notes;
mod source;
mod ssh;
mod ssh_server;
mod worktree;
