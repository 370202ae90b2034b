//! Why a request brought no answer, told apart by what can be done about it.
//!
//! An answer with an error status is an answer: whoever asked knows what it means.

use std::{error::Error, io};

use crate::policy::Denied;

/// Why a request brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Stop: the policy forbids it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Stop: this is no URL.
    #[error("read the URL {url:?}: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Stop: the certificate cannot be trusted.
    #[error(
        "trust {url}: {reason}; if it is right, add the authority that signed its certificate to egress.authorities, as PEM"
    )]
    Untrusted {
        /// What was asked.
        url: String,
        /// What TLS said.
        reason: String,
    },
    /// Retry later: no answer in time.
    #[error("get an answer from {url} in time")]
    TimedOut {
        /// What was asked.
        url: String,
    },
    /// Retry later: no connection, or one that broke.
    #[error("reach {url}: {reason}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What the system or the protocol said.
        reason: String,
    },
    /// Stop: the answer is larger than is taken.
    #[error("read the answer of {url}: it is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
        /// How much is taken.
        limit_bytes: usize,
    },
    /// Stop: the client cannot be made from the settings.
    #[error("set up the HTTP client: {reason}; check egress.authorities, egress.proxy and this machine's certificates")]
    Client {
        /// What the library said.
        reason: String,
    },
}

impl Failure {
    /// Tells the failures of the HTTP library apart. `url` is what was asked, as it may be shown.
    pub fn of(error: &reqwest::Error, url: &str) -> Self {
        let mut last = String::new();
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(denied) = error.downcast_ref::<Denied>() {
                return denied.clone().into();
            }
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Self::of_tls(tls, url);
            }
            last = error.to_string();
            // An I/O error that wraps another one shows that one's source, not the one itself.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            cause = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        if error.is_timeout() {
            return Self::TimedOut { url: url.to_owned() };
        }
        Self::Unreachable { url: url.to_owned(), reason: last }
    }

    fn of_tls(error: &rustls::Error, url: &str) -> Self {
        let url = url.to_owned();
        match error {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                Self::Untrusted { url, reason: error.to_string() }
            }
            // The rest is a conversation that went wrong, which the next one may not.
            other => Self::Unreachable { url, reason: format!("TLS: {other}") },
        }
    }
}
