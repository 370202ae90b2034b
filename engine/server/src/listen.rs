//! The socket: a loopback address, limits on what a connection may cost, and an orderly end.
//!
//! hyper is driven directly rather than through `axum::serve`, which has no settings for the size of a request's head,
//! the time it may take, or the number of connections.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use kickwheel_runtime::Engine;
use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    guard::Hosts,
    routes::{Door, router},
};

/// Connections at a time; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 512;
/// Bytes of a request's line and headers.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Number of headers of a request.
pub const MAX_HEADERS: usize = 64;
/// Time for a request's head to arrive, an idle connection's wait for its next request included.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait after a failed `accept`, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server needs beside the engine.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Opens everything; not empty.
    pub token: String,
    /// Told when a repository's hook has written to the spool.
    pub hook_nudge: Arc<Notify>,
    /// The program that a repository's hook calls: the running one.
    pub binary: PathBuf,
    /// How long requests may take to end once the server is told to stop.
    pub drain: Duration,
}

/// No socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The text is no address of this machine.
    #[error("resolve the listen address {address:?}: {message}; give it as HOST:PORT, for example 127.0.0.1:7070")]
    Address {
        /// As given.
        address: String,
        /// Why.
        message: String,
    },
    /// Others could reach it.
    #[error(
        "listen on {address}: it is not a loopback address, and the API is served without TLS or users; listen on \
         127.0.0.1:{port}, and reach it from elsewhere through an SSH tunnel"
    )]
    NotLoopback {
        /// The address that was resolved.
        address: IpAddr,
        /// Its port.
        port: u16,
    },
    /// The system refused.
    #[error("listen on {address}: {source}; stop what uses this port or choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A listener on `address`, which must be a loopback one. Port 0 takes a free port.
pub async fn bind(address: &str) -> Result<TcpListener, BindError> {
    let unresolved = |message: String| BindError::Address { address: address.to_owned(), message };
    let resolved: Vec<SocketAddr> = lookup_host(address).await.map_err(|e| unresolved(e.to_string()))?.collect();
    // Every address must be loopback, not only the one that is taken: a name that also leads elsewhere is a mistake.
    if let Some(foreign) = resolved.iter().find(|a| !a.ip().is_loopback()) {
        return Err(BindError::NotLoopback { address: foreign.ip(), port: foreign.port() });
    }
    let first = *resolved.first().ok_or_else(|| unresolved("it has no address".to_owned()))?;
    TcpListener::bind(first).await.map_err(|source| BindError::Listen { address: first, source })
}

/// Serves until `shutdown` is ready, then takes no new connection, ends long polls and log streams, and waits for the
/// requests under way, at most [`ServerConfig::drain`].
pub async fn serve(
    engine: Engine,
    listener: TcpListener,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let hosts = Hosts::of(listener.local_addr()?);
    let drain = config.drain;
    let ending = CancellationToken::new();
    let router = router(Door::new(engine, config, hosts, ending.clone()));
    let mut connections = accept_until(listener, &router, &ending, shutdown).await;
    ending.cancel();
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, all_ended).await.is_err() {
        tracing::warn!(left = connections.len(), "closing connections that did not end in time");
        connections.shutdown().await;
    }
    Ok(())
}

async fn accept_until(
    listener: TcpListener,
    router: &Router,
    ending: &CancellationToken,
    shutdown: impl Future<Output = ()>,
) -> JoinSet<()> {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut shutdown => return connections,
            next = next => next,
        };
        // Ended connections are collected here, so that the set does not grow with every request ever served.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, router.clone(), ending.clone(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, router: Router, ending: CancellationToken, _permit: OwnedSemaphorePermit) {
    // Small answers to a local client: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_free_port_on_loopback_is_taken() {
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        assert_ne!(listener.local_addr().expect("bound").port(), 0);
    }

    #[tokio::test]
    async fn any_other_address_is_refused_with_what_to_do() {
        let error = bind("0.0.0.0:7070").await.expect_err("not loopback");
        assert!(matches!(error, BindError::NotLoopback { port: 7070, .. }), "{error:?}");
        assert!(error.to_string().contains("127.0.0.1:7070"), "{error}");
        assert!(matches!(bind("192.0.2.1:1").await, Err(BindError::NotLoopback { .. })));
    }

    #[tokio::test]
    async fn a_text_that_is_no_address_says_how_one_looks() {
        let error = bind("7070").await.expect_err("no address");
        assert!(error.to_string().contains("HOST:PORT"), "{error}");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind("127.0.0.1:0").await.expect("a free port");
        let address = first.local_addr().expect("bound").to_string();
        let error = bind(&address).await.expect_err("taken");
        assert!(error.to_string().contains(&address), "{error}");
    }
}
