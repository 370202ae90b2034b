//! Why a repository could not be asked, split by what the caller does about it.

use std::time::Duration;

use kickwheel_egress::{Denied, Failure};

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// At once: the repository changed while it was read.
    Now,
    /// After a while: it may mend itself.
    Later,
    /// Not before a person changed something; trying again only annoys the server.
    Stop,
}

/// Why a fetch failed, split by what the caller does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Retry later: the origin cannot be read now.
    #[error("fetch {url:?}: {reason}; check that the repository is there and readable by the user that runs kickwheel")]
    Unreachable {
        /// As configured.
        url: String,
        /// What libgit2, the system or the server said.
        reason: String,
    },
    /// Retry later: the server did not answer, or not quickly enough.
    #[error("fetch {url:?}: no answer within {} s; check that the server is up and can be reached from here", limit.as_secs())]
    TimedOut {
        /// As configured.
        url: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Retry now: a branch was moved between its being listed and its being fetched.
    #[error("fetch {url:?}: it changed meanwhile ({reason}); the next try sees it as it is now")]
    Changed {
        /// As configured.
        url: String,
        /// What the server said.
        reason: String,
    },
    /// Stop: the commit is not in the repository (any more), or the server does not hand out commits that no branch
    /// leads to. Branches and tags *were* brought up to date.
    #[error("fetch commit {commit} from {url:?}: the repository does not have it; it may have been force-pushed away")]
    Gone {
        /// As configured.
        url: String,
        /// As it was asked for.
        commit: String,
    },
    /// Stop: a repository of a kind that cannot be read.
    #[error("fetch {url:?}: {reason}")]
    Unsupported {
        /// As configured.
        url: String,
        /// What it is, and what would be supported.
        reason: String,
    },
    /// Stop: the egress policy forbids it.
    #[error("fetch {url:?}: not allowed to {denied}")]
    Denied {
        /// As configured.
        url: String,
        /// What was denied, why, and which setting allows it.
        denied: Denied,
    },
    /// Stop: credentials are missing, wrong, or not to be sent there.
    #[error("fetch {url:?}: {reason}")]
    Credentials {
        /// As configured.
        url: String,
        /// What is wrong with them, and what to do.
        reason: String,
    },
    /// Stop: the server does not prove that it is the one.
    #[error("fetch {url:?}: {reason}")]
    Untrusted {
        /// As configured.
        url: String,
        /// What it showed, and what to do.
        reason: String,
    },
    /// Stop: the server knows no such repository, or hides it.
    #[error(
        "fetch {url:?}: the server has no such repository, or hides it from who has no access; check the URL and the credentials"
    )]
    NotFound {
        /// As configured.
        url: String,
    },
    /// Stop: it leads elsewhere, and not in a way that can be followed.
    #[error("fetch {url:?}: it redirects to {to}: {reason}")]
    Redirected {
        /// As configured.
        url: String,
        /// Where it leads.
        to: String,
        /// Why that is not followed, and what to do.
        reason: String,
    },
    /// Stop: more than is taken.
    #[error("fetch {url:?}: {reason}")]
    TooLarge {
        /// As configured.
        url: String,
        /// What is too large, and the limit.
        reason: String,
    },
    /// Retry later: our own disk.
    #[error("write the mirror of {url:?}: {reason}; check that the data folder is writable and has space")]
    Mirror {
        /// As configured.
        url: String,
        /// What libgit2 said.
        reason: String,
    },
}

impl FetchError {
    /// When to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Changed { .. } => Retry::Now,
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Mirror { .. } => Retry::Later,
            Self::Gone { .. }
            | Self::Unsupported { .. }
            | Self::Denied { .. }
            | Self::Credentials { .. }
            | Self::Untrusted { .. }
            | Self::NotFound { .. }
            | Self::Redirected { .. }
            | Self::TooLarge { .. } => Retry::Stop,
        }
    }

    /// A request without an answer, for the repository configured as `url`.
    pub(crate) fn of(failure: Failure, url: &str, limit: Duration) -> Self {
        let url = url.to_owned();
        match failure {
            Failure::Denied(denied) => Self::Denied { url, denied },
            Failure::Untrusted { .. } => Self::Untrusted { url, reason: failure.to_string() },
            Failure::TimedOut { .. } => Self::TimedOut { url, limit },
            Failure::Unreachable { reason, .. } => Self::Unreachable { url, reason },
            Failure::TooLarge { .. } => Self::TooLarge { url, reason: failure.to_string() },
            Failure::Url { .. } | Failure::Client { .. } => Self::Unsupported { url, reason: failure.to_string() },
        }
    }
}
