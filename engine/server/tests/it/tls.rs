//! The socket with TLS: who is answered, a certificate that changes under it, and addresses that others can reach.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use kickwheel_server::{BindError, Exposure, Tls, TlsFiles, bind, check_tokens, serve};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Notify, oneshot},
};

use crate::house::{House, PATIENCE, TOKEN, config};

type Pair = rcgen::CertifiedKey<rcgen::KeyPair>;

fn pair() -> Pair {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate")
}

fn write(folder: &Path, pair: &Pair) {
    fs::write(folder.join("cert.pem"), pair.cert.pem()).expect("written");
    fs::write(folder.join("key.pem"), pair.signing_key.serialize_pem()).expect("written");
}

/// A client that trusts this certificate and no other.
fn client(pair: &Pair) -> reqwest::Client {
    // reqwest comes without cryptography of its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = reqwest::Certificate::from_pem(pair.cert.pem().as_bytes()).expect("a certificate");
    reqwest::Client::builder()
        .no_proxy()
        .tls_built_in_root_certs(false)
        .add_root_certificate(authority)
        .build()
        .expect("a client")
}

async fn health(pair: &Pair, address: SocketAddr) -> Result<serde_json::Value, reqwest::Error> {
    let url = format!("https://localhost:{}/api/v1/doctor", address.port());
    let answer = client(pair).get(url).bearer_auth(TOKEN).timeout(PATIENCE).send().await?;
    answer.json().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_taken_and_a_bad_one_is_told_and_not_taken() {
    let house = House::build().await;
    let folder = tempfile::tempdir().expect("a folder");
    let files = TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let first = pair();
    write(folder.path(), &first);
    let tls = Tls::load(files).expect("it fits");
    let listener = bind("127.0.0.1:0", Exposure::default()).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let setup = kickwheel_server::ServerConfig { tls: Some(Arc::clone(&tls)), ..config(&Arc::new(Notify::new())) };
    let server = tokio::spawn(serve(house.engine.clone(), listener, setup, async {
        let _ = stopped.await;
    }));

    let told = health(&first, address).await.expect("it is trusted").to_string();
    assert!(told.contains("is in force"), "{told}");
    assert!(health(&pair(), address).await.is_err(), "a stranger's certificate is not this one");
    // Without TLS nobody is answered.
    let mut plain = TcpStream::connect(address).await.expect("it listens");
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it reads");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("it closes");
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");

    fs::write(folder.path().join("cert.pem"), pair().cert.pem()).expect("written");
    until(|| tls.problem().is_some()).await;
    let told = health(&first, address).await.expect("the old one is kept").to_string();
    assert!(told.contains("the changed certificate is not taken"), "{told}");

    let second = pair();
    write(folder.path(), &second);
    let taken = async {
        while health(&second, address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("the new one is taken");
    assert!(health(&first, address).await.is_err(), "the old one is not used any more");

    stop.send(()).expect("it runs");
    tokio::time::timeout(PATIENCE, server).await.expect("it ends").expect("without panic").expect("and without error");
    house.engine.shutdown(PATIENCE).await;
}

async fn until(condition: impl Fn() -> bool) {
    let held = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, held).await.expect("it comes true");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_reach_a_server_only_where_a_token_is_accepted() {
    let house = House::build().await;
    let open: SocketAddr = "0.0.0.0:7070".parse().expect("an address");
    let loopback: SocketAddr = "127.0.0.1:7070".parse().expect("an address");
    check_tokens(&house.engine, loopback).await.expect("nobody else gets there");
    let error = check_tokens(&house.engine, open).await.expect_err("there is none");
    assert!(matches!(error, BindError::NoTokens { .. }), "{error:?}");
    house.post("/api/v1/tokens", &json!({"name": "a", "role": "viewer"})).await;
    check_tokens(&house.engine, open).await.expect("there is one");
    house.engine.shutdown(PATIENCE).await;
}
