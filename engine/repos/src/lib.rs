//! Git: bare mirrors of bound repositories, and everything the engine reads from or writes to a repository.
//!
//! What a push *says* it changed is never believed; [`Mirrors`] fetches the repository and answers from its trees: the
//! [changed paths](changes), the [workflow files](workflows) of a commit, its [source tree](source), and
//! says what of a folder on disk [is source](worktree). It also writes a
//! run's result back as a [note](notes) and installs the [post-receive hook](hook) that tells us about pushes.
//!
//! An [`origin`] is on this machine, or behind https, http or ssh. Other machines are asked through a [`transport`] of
//! ours, under one egress policy (`kickwheel-egress`) and with the [credentials](access) that the caller gives; without
//! fetching, [`Mirrors::ls_remote`] tells where its branches are.
//!
//! Deliberately absent: what a push means (that is `triggers` and the core), the store, and where secrets come from.
//!
//! Paths inside a repository are bytes throughout. Blocking libgit2 calls run on tokio's blocking threads; see
//! [`mirrors`] for the locking.

pub mod access;
pub mod advert;
pub mod changes;
pub mod failure;
pub mod fetch;
pub mod hook;
pub mod mirrors;
pub mod notes;
pub mod origin;
mod remote;
pub mod select;
pub mod source;
mod transport;
pub mod workflows;
pub mod worktree;

pub use access::{Credentials, KnownHosts};
pub use advert::{Heads, RemoteRef};
pub use changes::{ChangedPaths, PushRange};
pub use failure::{FetchError, Retry};
pub use fetch::Fetched;
pub use hook::{Binding, HookError, HookState, hook_state, install_hook, remove_hook};
pub use mirrors::{Head, MirrorError, MirrorId, Mirrors, NamedRef, ReadError};
pub use notes::{NoteError, Subject};
pub use origin::{Origin, OriginError, SshOrigin};
pub use select::{Selection, SelectionError};
pub use source::{ExportError, Exported};
pub use workflows::{RefusedFile, WorkflowFile, WorkflowFiles};
