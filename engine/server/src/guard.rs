//! Who may speak: programs that name this server, and pages of its own.
//!
//! Loopback alone keeps nobody out: any page in a browser on this machine can send requests here, and by DNS rebinding
//! even read the answers. So `Host` must name this server and a page's `Origin` must be its own. Both are checked first and
//! for every path, so that a foreign page learns nothing at all, not even that a token is missing. What a proxy says
//! about a request counts only where the proxy's address is trusted.
//!
//! Not here: tokens ([`crate::access`]) and webhooks, which are signed and name us as they like ([`crate::hooks`]).

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ipnet::IpNet;

use crate::{refusal::Refusal, routes::Door};

/// Time until a response's headers must be there. Long polls end well before it; streams begin before it.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The address of ours that it reached.
    pub local: SocketAddr,
    /// Whether it came by TLS.
    pub tls: bool,
}

/// The names under which this server may be addressed, and whose word about that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    names: Vec<String>,
    port: u16,
    /// Given by the operator: with any port, as a proxy may listen on another.
    public: Vec<String>,
    proxies: Vec<IpNet>,
}

/// A request as its sender saw it.
struct Seen<'r> {
    host: Option<&'r str>,
    https: bool,
}

impl Hosts {
    /// Those of a listener: `localhost`, both loopback addresses, and the address itself (`127.0.0.2`, say), all with its
    /// port.
    pub fn of(address: SocketAddr) -> Self {
        let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), "[::1]".to_owned()];
        let own = literal(address.ip());
        if !names.contains(&own) && !address.ip().is_unspecified() {
            names.push(own);
        }
        Self { names, port: address.port(), public: Vec::new(), proxies: Vec::new() }
    }

    /// And these, with any port.
    pub fn named(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.public.extend(names.into_iter().map(|name| name.to_ascii_lowercase()));
        self
    }

    /// What these say about a request is believed.
    pub fn behind(mut self, proxies: impl IntoIterator<Item = IpNet>) -> Self {
        self.proxies.extend(proxies);
        self
    }

    /// Whether that is a proxy whose word counts.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|net| net.contains(&address))
    }

    /// Whether `host[:port]` is this server. Without a port, the scheme's own is meant.
    fn contains(&self, host: &str, https: bool, local: Option<SocketAddr>) -> bool {
        let host = host.to_ascii_lowercase();
        let default = if https { 443 } else { 80 };
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port.parse::<u16>().ok()),
            _ => (host.as_str(), Some(default)),
        };
        let Some(port) = port else { return false };
        self.public.iter().any(|n| n == name)
            || (port == self.port && self.names.iter().any(|n| n == name))
            // An address, unlike a name, cannot be made to lead here by somebody else.
            || local.is_some_and(|local| port == local.port() && literal(local.ip().to_canonical()) == name)
    }

    fn is_origin(&self, origin: &str, https: bool, local: Option<SocketAddr>) -> bool {
        let scheme = if https { "https://" } else { "http://" };
        origin.strip_prefix(scheme).is_some_and(|host| self.contains(host, https, local))
    }

    fn seen<'r>(&self, headers: &'r HeaderMap, peer: Option<&Peer>) -> Seen<'r> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|v| v.to_str().ok()).filter(|_| hosts.next().is_none());
        let mut seen = Seen { host, https: peer.is_some_and(|p| p.tls) };
        if peer.is_some_and(|p| self.trusts(p.address)) {
            let first = |name: &str| Some(headers.get(name)?.to_str().ok()?.split(',').next()?.trim());
            seen.host = first("x-forwarded-host").or(seen.host);
            seen.https = first("x-forwarded-proto").map_or(seen.https, |proto| proto.eq_ignore_ascii_case("https"));
        }
        seen
    }

    /// The address that a request comes from: the other end, or whom a trusted proxy names in front of itself.
    pub fn client(&self, headers: &HeaderMap, peer: Option<&Peer>) -> IpAddr {
        let Some(peer) = peer else { return IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        if !self.trusts(peer.address) {
            return peer.address;
        }
        // Each proxy writes down whom it was reached by, at the end; what stands before the last stranger is hearsay.
        let lists = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
        let named = hops.iter().rev().map_while(|hop| hop.parse::<IpAddr>().ok());
        named.into_iter().find(|address| !self.trusts(*address)).unwrap_or(peer.address)
    }

    /// Refuses what names another host, or comes from a page of another origin.
    fn check(&self, uri: &Uri, headers: &HeaderMap, peer: Option<&Peer>) -> Result<(), Refusal> {
        let (seen, local) = (self.seen(headers, peer), peer.map(|p| p.local));
        let authority_fits = uri.authority().is_none_or(|a| self.contains(a.as_str(), seen.https, local));
        if !authority_fits || !seen.host.is_some_and(|h| self.contains(h, seen.https, local)) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "foreign_host",
                format!(
                    "the `Host` header must name this server as 127.0.0.1, localhost or [::1] with port {}, or by a name \
                     that `serve` was given with --host or --public-url",
                    self.port
                ),
            ));
        }
        self.check_origin(headers, peer)
    }

    /// Refuses what comes from a page of another origin.
    pub fn check_origin(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<(), Refusal> {
        let (seen, local) = (self.seen(headers, peer), peer.map(|p| p.local));
        for origin in headers.get_all(header::ORIGIN) {
            if !origin.to_str().is_ok_and(|o| self.is_origin(o, seen.https, local)) {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "foreign_origin",
                    "requests from pages of another origin are refused; use the command line or a program of your own",
                ));
            }
        }
        Ok(())
    }
}

fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Around everything but webhooks: foreign hosts and origins, and a limit on time.
pub async fn fence(State(door): State<Door>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    match door.hosts().check(request.uri(), request.headers(), peer) {
        Err(refusal) => refusal.into_response(),
        Ok(()) => match tokio::time::timeout(RESPONSE_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "timed_out",
                format!("no answer within {} s; ask `kickwheel doctor` why and try again", RESPONSE_TIMEOUT.as_secs()),
            )
            .into_response(),
        },
    }
}

/// Around everything: who must come through a proxy does, and headers that keep browsers from guessing.
pub async fn wrap(State(door): State<Door>, request: Request, next: Next) -> Response {
    let around = door.must_come_through_proxy()
        && request
            .extensions()
            .get::<Peer>()
            .is_some_and(|p| !p.address.is_loopback() && !door.hosts().trusts(p.address));
    let mut response = if around {
        Refusal::new(
            StatusCode::FORBIDDEN,
            "not_through_proxy",
            "this server speaks no TLS itself: reach it through the proxy in front of it",
        )
        .into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::of("127.0.0.1:7070".parse().expect("an address"))
    }

    fn check_host(host: &str, ours: bool) {
        assert_eq!(hosts().contains(host, false, None), ours, "{host}");
    }

    #[test]
    fn only_loopback_names_with_the_right_port_are_ours() {
        check_host("127.0.0.1:7070", true);
        check_host("localhost:7070", true);
        check_host("LocalHost:7070", true);
        check_host("[::1]:7070", true);
        check_host("127.0.0.1", false);
        check_host("127.0.0.1:7071", false);
        check_host("[::1]", false);
        check_host("localhost.evil.example:7070", false);
        check_host("evil.example:7070", false);
        check_host("127.0.0.1:7070:7070", false);
        check_host("", false);
    }

    #[test]
    fn without_a_port_only_a_listener_on_the_schemes_own_port_is_meant() {
        let hosts = Hosts::of("[::1]:80".parse().expect("an address"));
        assert!(hosts.contains("localhost", false, None) && hosts.contains("[::1]:80", false, None));
        assert!(!hosts.contains("localhost", true, None));
        let hosts = Hosts::of("[::1]:443".parse().expect("an address"));
        assert!(hosts.contains("localhost", true, None) && !hosts.contains("localhost", false, None));
    }

    #[test]
    fn an_origin_is_ours_only_over_our_scheme_with_our_port() {
        assert!(hosts().is_origin("http://localhost:7070", false, None));
        assert!(!hosts().is_origin("https://localhost:7070", false, None));
        assert!(hosts().is_origin("https://localhost:7070", true, None));
        assert!(!hosts().is_origin("http://localhost:3000", false, None));
        assert!(!hosts().is_origin("null", false, None));
    }

    #[test]
    fn names_of_the_operators_and_the_address_that_was_reached_are_ours() {
        let hosts = Hosts::of("0.0.0.0:7070".parse().expect("an address")).named(["Kick.Example".to_owned()]);
        let local = Some("192.0.2.7:7070".parse().expect("an address"));
        assert!(hosts.contains("kick.example", true, None) && hosts.contains("kick.example:8443", true, None));
        assert!(hosts.contains("192.0.2.7:7070", false, local) && !hosts.contains("192.0.2.8:7070", false, local));
        assert!(!hosts.contains("0.0.0.0:7070", false, local));
        assert!(!hosts.contains("notkick.example", true, local));
    }

    fn forwarded(from: &str) -> Result<(), Refusal> {
        let hosts = Hosts::of("0.0.0.0:7070".parse().expect("an address"))
            .named(["kick.example".to_owned()])
            .behind(["192.0.2.0/28".parse().expect("a net")]);
        let peer = Peer {
            address: from.parse().expect("an address"),
            local: "198.51.100.1:7070".parse().expect("an address"),
            tls: false,
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("backend.internal:7070"));
        headers.insert("x-forwarded-host", HeaderValue::from_static("kick.example"));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://kick.example"));
        hosts.check(&Uri::from_static("/"), &headers, Some(&peer))
    }

    #[test]
    fn who_sends_is_who_the_last_trusted_proxy_saw() {
        let hosts =
            Hosts::of("0.0.0.0:7070".parse().expect("an address")).behind(["192.0.2.0/28".parse().expect("a net")]);
        let client = |from: &str, forwarded: &[&'static str]| {
            let local = "198.51.100.1:7070".parse().expect("an address");
            let peer = Peer { address: from.parse().expect("an address"), local, tls: false };
            let mut headers = HeaderMap::new();
            for list in forwarded {
                headers.append("x-forwarded-for", HeaderValue::from_static(list));
            }
            hosts.client(&headers, Some(&peer)).to_string()
        };
        assert_eq!(client("203.0.113.5", &["198.51.100.9"]), "203.0.113.5", "anybody can say that");
        assert_eq!(client("192.0.2.3", &["10.0.0.1, 198.51.100.9"]), "198.51.100.9");
        assert_eq!(client("192.0.2.3", &["198.51.100.9", "192.0.2.4"]), "198.51.100.9", "two proxies of ours");
        assert_eq!(client("192.0.2.3", &["198.51.100.9, nonsense"]), "192.0.2.3");
        assert_eq!(client("192.0.2.3", &[]), "192.0.2.3");
    }

    #[test]
    fn what_is_forwarded_counts_only_from_a_trusted_proxy() {
        assert_eq!(forwarded("192.0.2.3"), Ok(()));
        assert_eq!(forwarded("::ffff:192.0.2.3"), Ok(()));
        assert_eq!(forwarded("192.0.2.77").expect_err("no proxy of ours").0.code, "foreign_host");
    }
}
