//! With which credentials a repository is asked, and under which policy.
//!
//! Secrets come from the caller, live in memory, and are shown by nothing here. Only a deploy key ever touches a disk:
//! `ssh` reads it from a file, which [`crate::transport`] makes for the time of one connection.

use std::{fmt, path::PathBuf};

use kickwheel_egress::Egress;

/// What proves to a server who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// For http: a user with a password or token.
    Basic {
        /// The user; with many servers any word will do beside a token.
        user: String,
        /// The password or token.
        password: String,
    },
    /// For http: a token on its own.
    Bearer {
        /// The token.
        token: String,
    },
    /// For ssh.
    DeployKey {
        /// A private key without passphrase, as `ssh-keygen` writes it.
        private_key: String,
        /// Which servers are the right ones.
        known_hosts: KnownHosts,
    },
}

/// Which ssh servers are the right ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownHosts {
    /// Lines of a `known_hosts` file.
    Listed(String),
    /// The key that the server shows first is kept beside the mirror, and any other is refused from then on.
    AcceptNew,
}

impl Credentials {
    /// What they are, for messages.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Basic { .. } => "a user and password",
            Self::Bearer { .. } => "a token",
            Self::DeployKey { .. } => "a deploy key",
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// How one repository is asked.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub credentials: Option<Credentials>,
    pub egress: Egress,
    /// Where accepted host keys are kept.
    pub accepted_hosts: PathBuf,
    /// Where files with deploy keys are made.
    pub keys: PathBuf,
}
