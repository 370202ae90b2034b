//! What the clients do and refuse.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use kickwheel_egress::{Class, Denied, Egress, Failure, Lookup, Settings, read_limited, reqwest::Method};

use crate::server::{Authority, Server, ok, redirect};

const HERE: &str = "127.0.0.1";

fn settings(allow: &[&str]) -> Settings {
    Settings { allow: allow.iter().map(|entry| (*entry).to_owned()).collect(), ..Settings::default() }
}

fn egress(allow: &[&str]) -> Egress {
    Egress::new(settings(allow)).expect("good settings")
}

/// Names that lead where the test says, each lookup taking the next answer, the last one for ever.
fn names(table: &[(&str, &[&str])]) -> Arc<Lookup> {
    let table: Vec<(String, Mutex<VecDeque<IpAddr>>)> = table
        .iter()
        .map(|(name, answers)| {
            let answers = answers.iter().map(|answer| answer.parse().expect("an address")).collect();
            ((*name).to_owned(), Mutex::new(answers))
        })
        .collect();
    Arc::new(move |name| {
        let (_, answers) = table.iter().find(|(known, _)| known == name).ok_or(std::io::ErrorKind::NotFound)?;
        let mut answers = answers.lock().expect("not poisoned");
        let next = *answers.front().expect("at least one answer");
        if answers.len() > 1 {
            answers.pop_front();
        }
        Ok(vec![next])
    })
}

async fn get(egress: &Egress, url: &str) -> Result<String, Failure> {
    let client = egress.client()?;
    let response = client.send(client.request(Method::GET, url)?).await?;
    let body = read_limited(response, 1_000).await?;
    Ok(String::from_utf8(body).expect("text"))
}

/// The same through the blocking client.
async fn get_blocking(egress: &Egress, url: &str) -> Result<String, Failure> {
    let (egress, url) = (egress.clone(), url.to_owned());
    let work = move || {
        let client = egress.blocking()?;
        let response = client.send(client.request(Method::GET, &url)?)?;
        Ok(response.text().expect("a body"))
    };
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

fn is_denied(seen: Result<String, Failure>, class: Class) {
    match seen {
        Err(Failure::Denied(Denied::Address { class: seen, .. })) => assert_eq!(seen, class),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn this_machine_is_asked_only_if_it_is_listed() {
    let server = Server::http(|_| ok("hello")).await;
    let url = format!("http://127.0.0.1:{}/", server.port());
    let by_name = format!("http://localhost:{}/", server.port());
    for url in [&url, &by_name] {
        is_denied(get(&egress(&[]), url).await, Class::Loopback);
        is_denied(get_blocking(&egress(&[]), url).await, Class::Loopback);
    }
    assert_eq!(server.asked(), [] as [&str; 0], "nothing was sent");
    assert_eq!(get(&egress(&["127.0.0.0/8"]), &url).await, Ok("hello".into()));
    assert_eq!(get(&egress(&[HERE]), &by_name).await, Ok("hello".into()));
    assert_eq!(get(&egress(&["localhost"]), &by_name).await, Ok("hello".into()));
    assert_eq!(get_blocking(&egress(&["localhost"]), &by_name).await, Ok("hello".into()));
    assert_eq!(get(&egress(&[&format!("localhost:{}", server.port())]), &by_name).await, Ok("hello".into()));
    let other_port = get(&egress(&["localhost:1"]), &by_name).await;
    assert!(matches!(other_port, Err(Failure::Denied(Denied::Port { .. }))), "{other_port:?}");
}

#[tokio::test]
async fn a_redirect_into_this_machine_is_refused() {
    let inner = Server::http(|_| ok("secret")).await;
    let to = format!("http://127.0.0.1:{}/", inner.port());
    let to_name = format!("http://inner.example:{}/", inner.port());
    for to in [to, to_name] {
        let outer = Server::http(move |_| redirect(&to)).await;
        let names = names(&[("outer.example", &[HERE]), ("inner.example", &[HERE])]);
        let egress = Egress::with_lookup(settings(&["outer.example"]), names).expect("good settings");
        let url = format!("http://outer.example:{}/", outer.port());
        is_denied(get(&egress, &url).await, Class::Loopback);
        is_denied(get_blocking(&egress, &url).await, Class::Loopback);
        assert_eq!(outer.asked().len(), 2);
    }
    assert_eq!(inner.asked(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_the_second_time_is_refused_then() {
    let server = Server::http(|_| ok("hello")).await;
    // 127.0.0.2 is this machine too, so the first answer reaches the server, and so would the second.
    let elsewhere = tokio::net::TcpListener::bind(("127.0.0.2", 0)).await.expect("a free port");
    let listed = elsewhere.local_addr().expect("bound");
    let names = names(&[("fickle.example", &["127.0.0.2", HERE])]);
    let egress = Egress::with_lookup(settings(&["127.0.0.2"]), names).expect("good settings");
    let first = tokio::spawn({
        let egress = egress.clone();
        async move { get(&egress, &format!("http://fickle.example:{}/", listed.port())).await }
    });
    let (connection, _) = elsewhere.accept().await.expect("the listed address is connected to");
    drop(connection);
    assert!(matches!(first.await.expect("no panic"), Err(Failure::Unreachable { .. })));
    is_denied(get(&egress, &format!("http://fickle.example:{}/", server.port())).await, Class::Loopback);
    assert_eq!(server.asked(), [] as [&str; 0]);
}

#[tokio::test]
async fn credentials_stay_with_their_host_and_tls() {
    let authority = Authority::new();
    let other = Server::http(|_| ok("other")).await;
    let to_other = format!("http://other.example:{}/", other.port());
    let first = Server::http({
        let to = to_other.clone();
        move |_| redirect(&to)
    })
    .await;
    let secure = Server::https(&authority, &["secure.example"], move |_| redirect(&to_other)).await;
    let names = names(&[("first.example", &[HERE]), ("other.example", &[HERE]), ("secure.example", &[HERE])]);
    let settings = Settings { authorities: vec![authority.pem()], ..settings(&[HERE]) };
    let egress = Egress::with_lookup(settings, names).expect("good settings");
    let client = egress.client().expect("a client");
    let request = client.request(Method::GET, &format!("http://first.example:{}/", first.port())).expect("listed");
    let response = client.send(request.basic_auth("ada", Some("secret"))).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(first.asked()[0].contains("authorization: Basic"));
    assert!(!other.asked()[0].contains("authorization"), "{}", other.asked()[0]);
    let left = get(&egress, &format!("https://secure.example:{}/", secure.port())).await;
    assert!(matches!(left, Err(Failure::Denied(Denied::Downgrade { .. }))), "{left:?}");
    assert_eq!(other.asked().len(), 1);
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::http(|_| redirect("/again")).await;
    let seen = get(&egress(&[HERE]), &format!("http://127.0.0.1:{}/", server.port())).await;
    assert!(matches!(seen, Err(Failure::Denied(Denied::TooManyRedirects { .. }))), "{seen:?}");
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn only_configured_authorities_are_trusted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::https(&ours, &["localhost"], |_| ok("hello")).await;
    let url = format!("https://localhost:{}/", server.port());
    for authorities in [vec![], vec![theirs.pem()]] {
        let egress = Egress::new(Settings { authorities, ..settings(&[HERE]) }).expect("good settings");
        for seen in [get(&egress, &url).await, get_blocking(&egress, &url).await] {
            assert!(matches!(&seen, Err(Failure::Untrusted { .. })), "{seen:?}");
        }
    }
    let trusting = Settings { authorities: vec![[theirs.pem(), ours.pem()].concat()], ..settings(&[HERE]) };
    let egress = Egress::new(trusting).expect("good settings");
    assert_eq!(get(&egress, &url).await, Ok("hello".into()));
    // The right authority, for another name.
    let seen = get(&egress, &format!("https://127.0.0.1:{}/", server.port())).await;
    assert!(matches!(seen, Err(Failure::Untrusted { .. })), "{seen:?}");
    let refused = Egress::new(Settings { authorities: vec![b"no pem".to_vec()], ..Settings::default() });
    assert!(refused.expect_err("no certificate").to_string().contains("authority 1"));
}

#[tokio::test]
async fn an_answer_has_a_limit_whatever_it_says() {
    let sized = Server::http(|_| ok(&"x".repeat(1_001))).await;
    let endless = Server::http(|_| format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100_000))).await;
    for server in [sized, endless] {
        let seen = get(&egress(&[HERE]), &format!("http://127.0.0.1:{}/", server.port())).await;
        assert!(matches!(seen, Err(Failure::TooLarge { limit_bytes: 1_000, .. })), "{seen:?}");
    }
    let fits = Server::http(|_| ok(&"x".repeat(1_000))).await;
    let seen = get(&egress(&[HERE]), &format!("http://127.0.0.1:{}/", fits.port())).await;
    assert_eq!(seen.map(|body| body.len()), Ok(1_000));
}

#[tokio::test]
async fn silence_and_absence_are_told_apart() {
    // Accepts connections, in the system's queue, and never answers.
    let silent = tokio::net::TcpListener::bind((HERE, 0)).await.expect("a free port");
    let brief = Duration::from_millis(200);
    let impatient = Settings { idle_timeout: brief, total_timeout: brief, ..settings(&[HERE]) };
    let egress = Egress::new(impatient).expect("good settings");
    let port = silent.local_addr().expect("bound").port();
    let url = format!("http://127.0.0.1:{port}/");
    for seen in [get(&egress, &url).await, get_blocking(&egress, &url).await] {
        assert!(matches!(&seen, Err(Failure::TimedOut { .. })), "{seen:?}");
    }
    drop(silent);
    let seen = get(&egress, &url).await;
    assert!(matches!(&seen, Err(Failure::Unreachable { .. })), "{seen:?}");
    let seen = get(&egress, "http://nowhere.invalid/").await;
    assert!(matches!(&seen, Err(Failure::Unreachable { .. })), "{seen:?}");
}
