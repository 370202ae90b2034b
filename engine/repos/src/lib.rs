//! Git: bare mirrors of bound repositories, and everything the engine reads from or writes to a repository.
//!
//! What a push *says* it changed is never believed; [`Mirrors`] fetches the repository and answers from its trees: the
//! [changed paths](changes), the [workflow files](workflows) of a commit, its [source tree](source). It also writes a
//! run's result back as a [note](notes) and installs the [post-receive hook](hook) that tells us about pushes.
//!
//! Deliberately absent: what a push means (that is `triggers` and the core), the store, and the network. Only
//! repositories on this machine (a path or `file://`) can be reached in this release; [`origin`] says so for any other
//! URL, and is where further transports will be added.
//!
//! Paths inside a repository are bytes throughout. Blocking libgit2 calls run on tokio's blocking threads; see
//! [`mirrors`] for the locking.

pub mod changes;
pub mod fetch;
pub mod hook;
pub mod mirrors;
pub mod notes;
pub mod origin;
pub mod select;
pub mod source;
pub mod workflows;

pub use changes::{ChangedPaths, PushRange};
pub use fetch::{FetchError, Fetched};
pub use hook::{Binding, HookError, HookState, hook_state, install_hook, remove_hook};
pub use mirrors::{Head, MirrorError, MirrorId, Mirrors, NamedRef, ReadError};
pub use notes::NoteError;
pub use origin::{Origin, OriginError};
pub use select::{Selection, SelectionError};
pub use source::{ExportError, Exported};
pub use workflows::{RefusedFile, WorkflowFile, WorkflowFiles};
