//! Who may speak: local programs that name this server and hold its token.
//!
//! Loopback alone keeps nobody out: any page in a browser on this machine can send requests here, and by DNS rebinding
//! even read the answers. So `Host` must name this listener, a page's `Origin` must be this listener's own, and everything
//! but the bare health needs the token. `Host` and `Origin` are checked first and for every path, so that a foreign page
//! learns nothing at all, not even that a token is missing.

use std::{net::SocketAddr, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq as _;

use crate::{refusal::Refusal, routes::Door};

/// Time until a response's headers must be there. Long polls end well before it; streams begin before it.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// The only names under which a listener on loopback may be addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    names: Vec<String>,
    port: u16,
}

impl Hosts {
    /// Those of a listener: `localhost`, both loopback addresses, and the address itself (`127.0.0.2`, say), all with its
    /// port.
    pub fn of(address: SocketAddr) -> Self {
        let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), "[::1]".to_owned()];
        let own = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        if !names.contains(&own) {
            names.push(own);
        }
        Self { names, port: address.port() }
    }

    /// Whether `host[:port]` is this listener. Without a port, HTTP's own is meant.
    fn contains(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port.parse::<u16>().ok()),
            _ => (host.as_str(), Some(80)),
        };
        port == Some(self.port) && self.names.iter().any(|n| n == name)
    }

    fn is_origin(&self, origin: &str) -> bool {
        origin.strip_prefix("http://").is_some_and(|host| self.contains(host))
    }

    /// Refuses what names another host, or comes from a page of another origin.
    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next().and_then(|v| v.to_str().ok());
        let authority_fits = uri.authority().is_none_or(|a| self.contains(a.as_str()));
        if hosts.next().is_some() || !authority_fits || !host.is_some_and(|h| self.contains(h)) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "foreign_host",
                format!(
                    "the `Host` header must name this server as 127.0.0.1, localhost or [::1] with port {}",
                    self.port
                ),
            ));
        }
        for origin in headers.get_all(header::ORIGIN) {
            if !origin.to_str().is_ok_and(|o| self.is_origin(o)) {
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

/// Whether the request carries the token. Compared in constant time, so that answering times tell nothing about it.
pub fn is_authorized(headers: &HeaderMap, token: &str) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let value = value.as_bytes();
    let Some((scheme, given)) = value.split_at_checked("Bearer ".len()) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty() && bool::from(given.ct_eq(token.as_bytes()))
}

/// The same for all requests without, or with a wrong, token.
pub fn unauthorized() -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "send `Authorization: Bearer <token>`; the token is in the file `token` of the data folder. The command line \
         finds it by itself: `kickwheel runs ls`",
    )
}

/// Around everything: foreign hosts and origins, a limit on time, and headers that keep browsers from guessing.
pub async fn fence(State(door): State<Door>, request: Request, next: Next) -> Response {
    let mut response = match door.hosts().check(request.uri(), request.headers()) {
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

/// Around everything that needs the token, unknown routes included: without it nobody learns which routes there are.
pub async fn lock(State(door): State<Door>, request: Request, next: Next) -> Response {
    if !is_authorized(request.headers(), door.token()) {
        return unauthorized().into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::of("127.0.0.1:7070".parse().expect("an address"))
    }

    fn check_host(host: &str, ours: bool) {
        assert_eq!(hosts().contains(host), ours, "{host}");
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
    fn without_a_port_only_a_listener_on_port_80_is_meant() {
        let hosts = Hosts::of("[::1]:80".parse().expect("an address"));
        assert!(hosts.contains("localhost") && hosts.contains("[::1]") && hosts.contains("[::1]:80"));
    }

    #[test]
    fn an_origin_is_ours_only_over_http_with_our_port() {
        assert!(hosts().is_origin("http://localhost:7070"));
        assert!(!hosts().is_origin("https://localhost:7070"));
        assert!(!hosts().is_origin("http://localhost:3000"));
        assert!(!hosts().is_origin("null"));
    }

    fn check_token(header: Option<&'static str>, accepted: bool) {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        assert_eq!(is_authorized(&headers, "abc"), accepted, "{header:?}");
    }

    #[test]
    fn only_the_whole_token_as_bearer_opens() {
        check_token(Some("Bearer abc"), true);
        check_token(Some("bearer abc"), true);
        check_token(Some("Bearer ab"), false);
        check_token(Some("Bearer abcd"), false);
        check_token(Some("Bearer "), false);
        check_token(Some("Basic abc"), false);
        check_token(Some("abc"), false);
        check_token(None, false);
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer "));
        assert!(!is_authorized(&headers, ""));
    }
}
