//! Names to addresses, with what the policy forbids taken out.
//!
//! There is no cache: the answer that was checked is the one that is connected to, and the next connection asks again.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::policy::{Denied, Policy};

/// Asks for the addresses of a name. May block.
pub type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The system's own lookup.
pub fn system_lookup() -> Arc<Lookup> {
    Arc::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
}

/// Why a name gave no address that may be connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("find the address of {name}: {reason}")]
    NotFound { name: String, reason: String },
}

/// Resolves names under a policy.
#[derive(Clone)]
pub(crate) struct Names {
    pub(crate) policy: Arc<Policy>,
    pub(crate) lookup: Arc<Lookup>,
}

impl Names {
    /// The addresses of `name` that may be connected to: at least one. Blocks.
    pub(crate) fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let not_found = |reason: String| ResolveError::NotFound { name: name.to_owned(), reason };
        let found = (self.lookup)(name).map_err(|error| not_found(error.to_string()))?;
        let mut denied = None;
        let mut open = Vec::with_capacity(found.len());
        for address in found {
            match self.policy.check_address(name, address) {
                Ok(()) => open.push(address),
                Err(error) => denied = denied.or(Some(error)),
            }
        }
        match denied {
            Some(denied) if open.is_empty() => Err(denied.into()),
            None if open.is_empty() => Err(not_found("it has none".into())),
            Some(_) | None => Ok(open),
        }
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let resolved = tokio::task::spawn_blocking(move || names.addresses(name.as_str())).await?;
            match resolved {
                // Port 0 stands for the one of the URL.
                Ok(found) => Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs),
                // Unwrapped, so that whoever walks the chain of causes finds it by its type.
                Err(ResolveError::Denied(denied)) => Err(denied.into()),
                Err(other @ ResolveError::NotFound { .. }) => Err(other.into()),
            }
        })
    }
}
