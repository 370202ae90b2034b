//! What can go wrong for a caller of the engine, split by what the caller does about it.

/// An operation of [`crate::Engine`] was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// No such thing. HTTP 404.
    #[error("{detail}")]
    NotFound {
        /// Stable code, explained in `docs/errors.md`.
        code: &'static str,
        /// What was looked for and what to do.
        detail: String,
    },
    /// The request itself is wrong. HTTP 400.
    #[error("{detail}")]
    Invalid {
        /// Stable code, explained in `docs/errors.md`.
        code: &'static str,
        /// What is wrong and what to do.
        detail: String,
    },
    /// Who asks may not do that. HTTP 403.
    #[error("{detail}")]
    Forbidden {
        /// Stable code, explained in `docs/errors.md`.
        code: &'static str,
        /// What is not allowed, and who may or what to do instead.
        detail: String,
    },
    /// It does not fit the present state. HTTP 409.
    #[error("{detail}")]
    Conflict {
        /// Stable code, explained in `docs/errors.md`.
        code: &'static str,
        /// What is in the way and what to do.
        detail: String,
    },
    /// The engine is paused (its database is full, locked or away) or draining. HTTP 503, try again later.
    #[error("{detail}")]
    Unavailable {
        /// Stable code, explained in `docs/errors.md`.
        code: &'static str,
        /// Why and what to do.
        detail: String,
    },
}

/// The engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process uses the data folder.
    #[error("start in {folder}: another kickwheel (pid {pid}) uses this data folder; stop it or choose another --data")]
    Locked {
        /// The data folder.
        folder: String,
        /// The other process, as its lock file says.
        pid: String,
    },
    /// A part could not be opened.
    #[error("open the {part}: {message}")]
    Part {
        /// For example `database`.
        part: &'static str,
        /// Why and what to do.
        message: String,
    },
}
