//! A connection that breaks during the commit: the store says that it does not know, and both outcomes are possible.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kickwheel_store::{Store, Write, WriteError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::fixture::{self, Fixture, LEASE, append, events_of, started};

/// Where the proxy cuts a connection, once it is armed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The server never hears of the commit.
    BeforeCommit,
    /// The server commits, and its answer is lost.
    AfterCommit,
}

/// Passes bytes on to the server until it is armed and a commit comes by.
async fn proxy(server: String, cut: Cut, armed: Arc<AtomicBool>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let upstream = TcpStream::connect(&server).await.unwrap();
            // An error is the end of this connection, which is what happens here.
            tokio::spawn(pass(client, upstream, cut, armed.clone()));
        }
    });
    address
}

async fn pass(mut client: TcpStream, mut server: TcpStream, cut: Cut, armed: Arc<AtomicBool>) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            n = client.read(&mut up) => {
                let n = n?;
                if n == 0 {
                    return Ok(());
                }
                let commit = up[..n].windows(6).any(|bytes| bytes == b"COMMIT");
                let cutting = commit && armed.swap(false, Ordering::SeqCst);
                if cutting && cut == Cut::BeforeCommit {
                    return Ok(());
                }
                server.write_all(&up[..n]).await?;
                if cutting {
                    let answered = server.read(&mut down).await?;
                    assert!(answered > 0, "the server answers a commit");
                    return Ok(());
                }
            }
            n = server.read(&mut down) => {
                let n = n?;
                if n == 0 {
                    return Ok(());
                }
                client.write_all(&down[..n]).await?;
            }
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_unknown() {
    let Some(kind) = fixture::postgres() else { return };
    for (cut, expected) in [(Cut::BeforeCommit, &["first"][..]), (Cut::AfterCommit, &["first", "second"])] {
        let fixture = Fixture::new(&kind).await;
        let (scheme, rest) = fixture.url.split_once("://").unwrap();
        let (authority, database) = rest.split_once('/').unwrap();
        let (login, server) = authority.rsplit_once('@').unwrap_or(("postgres", authority));
        let server = if server.contains(':') { server.to_owned() } else { format!("{server}:5432") };
        let armed = Arc::new(AtomicBool::new(false));
        let address = proxy(server, cut, armed.clone()).await;
        let store = Store::open(&format!("{scheme}://{login}@{address}/{database}")).await.unwrap();
        let lease = store.acquire("test", 1, LEASE, true).await.unwrap()[0];
        let run = started(&store, lease, "e").await;
        armed.store(true, Ordering::SeqCst);
        let second = vec![Write::Append(append(lease, run, 1, &["second"]))];
        let answer = store.write(second).await;
        assert!(matches!(answer, Err(WriteError::Unknown { .. })), "{answer:?}");
        // The caller reads before it tries again.
        let direct = fixture.open().await;
        assert_eq!(events_of(&direct, run).await, expected);
        fixture.remove().await;
    }
}
