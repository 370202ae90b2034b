//! The socket: which address may be taken, TLS, limits on what a connection may cost, and an orderly end.
//!
//! hyper is driven directly rather than through `axum::serve`, which has no settings for the size of a request's head,
//! the time it may take, or the number of connections.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use ipnet::IpNet;
use kickwheel_runtime::Engine;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, lookup_host},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    guard::Peer,
    hooks::reading::network,
    routes::{Door, router},
    tls::Tls,
};

/// Connections at a time; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 512;
/// Of these, so many from one address, or from one network of IPv6: nobody alone keeps everybody else out. Trusted proxies
/// send for many and are not counted.
pub const MAX_CONNECTIONS_FROM_ONE: usize = 128;
/// From so many connections on, nobody may take long to say what is wanted.
const CROWDED: usize = MAX_CONNECTIONS / 2;
/// Time for a request's head to arrive then: senders give up after ten seconds, and others must come to their turn.
const CROWDED_HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of a request's line and headers.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Number of headers of a request.
pub const MAX_HEADERS: usize = 64;
/// Time for a request's head to arrive, an idle connection's wait for its next request included.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait after a failed `accept`, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for the handshake of TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Names under which it may be addressed, beside those of the listener.
    pub hosts: Vec<String>,
    /// Proxies whose `X-Forwarded-…` headers are believed.
    pub proxies: Vec<IpNet>,
    /// The certificate; none: plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

/// What the operator did before others may reach the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// It speaks TLS, or names the proxies that do.
    pub secured: bool,
    /// Steps without an image run as processes of this machine, and as the engine's own user.
    pub host_processes_as_us: bool,
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
    /// Others could reach it and read what is said.
    #[error(
        "listen on {address}: it is not a loopback address, and nothing protects what is said there; give --tls-cert and \
         --tls-key, or name the proxy in front with --trusted-proxy, or listen on 127.0.0.1:{port}"
    )]
    Unprotected {
        /// The address that was resolved.
        address: IpAddr,
        /// Its port.
        port: u16,
    },
    /// Whoever may start runs could read the engine's keys.
    #[error(
        "listen on {address}: it is not a loopback address, and steps would run as the engine's own user, who can read its \
         keys; name another Unix user for them with --job-user, or give --host-processes off, and each step an image"
    )]
    HostProcesses {
        /// The address that was resolved.
        address: IpAddr,
    },
    /// Nobody but the data folder's owner could use it.
    #[error(
        "listen on {address}: it is not a loopback address, and there is no API token that is accepted; start on \
         127.0.0.1, make one with `kickwheel tokens create`, and start again"
    )]
    NoTokens {
        /// The address that was resolved.
        address: IpAddr,
    },
    /// The tokens cannot be read.
    #[error("listen on {address}: the tokens cannot be read: {message}")]
    TokensUnknown {
        /// The address that was resolved.
        address: IpAddr,
        /// Why.
        message: String,
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

/// A listener on `address`, which must be a loopback one unless `exposure` allows others. Port 0 takes a free port.
pub async fn bind(address: &str, exposure: Exposure) -> Result<TcpListener, BindError> {
    let unresolved = |message: String| BindError::Address { address: address.to_owned(), message };
    let resolved: Vec<SocketAddr> = lookup_host(address).await.map_err(|e| unresolved(e.to_string()))?.collect();
    // Every address must be loopback, not only the one that is taken: a name that also leads elsewhere is a mistake.
    if let Some(foreign) = resolved.iter().find(|a| !a.ip().is_loopback()) {
        if !exposure.secured {
            return Err(BindError::Unprotected { address: foreign.ip(), port: foreign.port() });
        }
        if exposure.host_processes_as_us {
            return Err(BindError::HostProcesses { address: foreign.ip() });
        }
    }
    let first = *resolved.first().ok_or_else(|| unresolved("it has no address".to_owned()))?;
    TcpListener::bind(first).await.map_err(|source| BindError::Listen { address: first, source })
}

/// Whether somebody could use a server on that address: any on loopback, else there must be a token that is accepted.
pub async fn check_tokens(engine: &Engine, address: SocketAddr) -> Result<(), BindError> {
    let address = address.ip();
    if address.is_loopback() {
        return Ok(());
    }
    match engine.live_tokens().await {
        Ok(0) => Err(BindError::NoTokens { address }),
        Ok(_) => Ok(()),
        Err(e) => Err(BindError::TokensUnknown { address, message: e.to_string() }),
    }
}

/// Serves until `shutdown` is ready, then takes no new connection, ends long polls and log streams, and waits for the
/// requests under way, at most [`ServerConfig::drain`].
pub async fn serve(
    engine: Engine,
    listener: TcpListener,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let (drain, tls) = (config.drain, config.tls.clone());
    let ending = CancellationToken::new();
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.look_for_ever(ending.clone()));
    }
    let crowd = Crowd { proxies: config.proxies.clone(), ..Crowd::default() };
    let router = router(Door::new(engine, config, address, tls.clone(), ending.clone()));
    let mut connections = accept_until(listener, &router, tls.as_deref(), &ending, &Arc::new(crowd), shutdown).await;
    ending.cancel();
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, all_ended).await.is_err() {
        tracing::warn!(left = connections.len(), "closing connections that did not end in time");
        connections.shutdown().await;
    }
    Ok(())
}

/// Who holds connections.
#[derive(Debug, Default)]
struct Crowd {
    proxies: Vec<IpNet>,
    held: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of an address; dropped with it.
struct Guest {
    crowd: Arc<Crowd>,
    network: Option<IpAddr>,
}

impl Crowd {
    /// None when that address holds as many as one may.
    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        if self.proxies.iter().any(|proxy| proxy.contains(&address.to_canonical())) {
            return Some(Guest { crowd: Arc::clone(self), network: None });
        }
        let network = network(address);
        let mut held = self.held.lock().expect("no holder of this lock panics");
        let count = held.entry(network).or_default();
        if *count >= MAX_CONNECTIONS_FROM_ONE {
            return None;
        }
        *count += 1;
        Some(Guest { crowd: Arc::clone(self), network: Some(network) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut held = self.crowd.held.lock().expect("no holder of this lock panics");
        if let Some(count) = held.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                held.remove(&network);
            }
        }
    }
}

async fn accept_until(
    listener: TcpListener,
    router: &Router,
    tls: Option<&Tls>,
    ending: &CancellationToken,
    crowd: &Arc<Crowd>,
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
            Ok((stream, peer)) => {
                let Some(guest) = crowd.admit(peer.ip()) else {
                    tracing::debug!(address = %peer.ip(), "closed: it holds as many connections as one may");
                    continue;
                };
                let acceptor = tls.map(Tls::acceptor);
                let patience = if permits.available_permits() < CROWDED { CROWDED_HEAD_TIMEOUT } else { HEAD_TIMEOUT };
                let seat = Seat { _permit: permit, _guest: guest, patience };
                connections.spawn(greet(stream, acceptor, router.clone(), ending.clone(), seat));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What a connection holds while it lasts.
struct Seat {
    _permit: OwnedSemaphorePermit,
    _guest: Guest,
    /// Time for the head of a request.
    patience: Duration,
}

/// Speaks TLS first where there is any. A peer that does not, or that takes its time, is let go.
async fn greet(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    ending: CancellationToken,
    seat: Seat,
) {
    // Small answers: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let (Ok(address), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let peer = Peer { address: address.ip(), local, tls: acceptor.is_some() };
    let router = router.layer(Extension(peer));
    let Some(acceptor) = acceptor else {
        return converse(stream, router, ending, seat.patience).await;
    };
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => greeted,
        () = ending.cancelled() => return,
    };
    match greeted {
        Ok(Ok(stream)) => converse(stream, router, ending, seat.patience).await,
        Ok(Err(error)) => tracing::debug!(%error, "no TLS came about"),
        Err(_) => tracing::debug!("a handshake took too long"),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    ending: CancellationToken,
    patience: Duration,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
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

    #[test]
    fn one_address_takes_no_more_than_its_part() {
        let crowd = Arc::new(Crowd { proxies: vec!["10.0.0.0/8".parse().expect("a network")], ..Crowd::default() });
        let stranger: IpAddr = "192.0.2.1".parse().expect("an address");
        let mut guests: Vec<_> = (0..MAX_CONNECTIONS_FROM_ONE).map(|_| crowd.admit(stranger)).collect();
        assert!(guests.iter().all(Option::is_some));
        assert!(crowd.admit(stranger).is_none());
        assert!(crowd.admit("192.0.2.2".parse().expect("an address")).is_some());
        let through_a_proxy = (0..MAX_CONNECTIONS).map(|_| crowd.admit("10.1.2.3".parse().expect("an address")));
        assert!(through_a_proxy.collect::<Vec<_>>().iter().all(Option::is_some));
        guests.pop();
        assert!(crowd.admit(stranger).is_some());
        guests.clear();
        assert!(crowd.held.lock().expect("nobody panicked").is_empty());
    }

    #[tokio::test]
    async fn a_free_port_on_loopback_is_taken() {
        let listener = bind("127.0.0.1:0", Exposure::default()).await.expect("a free port");
        assert_ne!(listener.local_addr().expect("bound").port(), 0);
    }

    #[tokio::test]
    async fn any_other_address_is_refused_until_it_is_protected() {
        let open = |secured, host_processes_as_us| Exposure { secured, host_processes_as_us };
        let error = bind("0.0.0.0:7070", open(false, false)).await.expect_err("not protected");
        assert!(matches!(error, BindError::Unprotected { port: 7070, .. }), "{error:?}");
        assert!(error.to_string().contains("127.0.0.1:7070"), "{error}");
        let error = bind("0.0.0.0:0", open(true, true)).await.expect_err("its steps could read its keys");
        assert!(matches!(error, BindError::HostProcesses { .. }), "{error:?}");
        bind("0.0.0.0:0", open(true, false)).await.expect("protected");
        assert!(matches!(bind("192.0.2.1:1", open(false, false)).await, Err(BindError::Unprotected { .. })));
    }

    #[tokio::test]
    async fn a_text_that_is_no_address_says_how_one_looks() {
        let error = bind("7070", Exposure::default()).await.expect_err("no address");
        assert!(error.to_string().contains("HOST:PORT"), "{error}");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind("127.0.0.1:0", Exposure::default()).await.expect("a free port");
        let address = first.local_addr().expect("bound").to_string();
        let error = bind(&address, Exposure::default()).await.expect_err("taken");
        assert!(error.to_string().contains(&address), "{error}");
    }
}
