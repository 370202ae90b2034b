//! HTTP clients under a policy, asynchronous and blocking.
//!
//! TLS is rustls with ring; trusted are this machine's authorities and those of the settings. A literal address is judged
//! before the request, a name when it is resolved, each redirect before it is followed. Credentials do not travel to
//! another host or port. Proxies of the environment are not used: they would see everything, and resolve names themselves.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::{Certificate, Method, blocking, redirect};
use url::{Host, Url};

use crate::{
    failure::Failure,
    policy::{EntryError, Policy, check_redirect, shown},
    resolve::{Lookup, Names, ResolveError, system_lookup},
};

/// From the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Exceptions, see [`Policy::new`].
    pub allow: Vec<String>,
    /// Authorities that are trusted beside this machine's, each one or more certificates as PEM.
    pub authorities: Vec<Vec<u8>>,
    /// A proxy for every request; its own host must be listed if it is a name that leads to a private address. It
    /// resolves names itself, so that the policy then judges names, literal addresses and redirects only.
    pub proxy: Option<Url>,
    /// For a connection, name resolution and TLS included.
    pub connect_timeout: Duration,
    /// From the last byte that came to the next one.
    pub idle_timeout: Duration,
    /// For a request and its answer. The blocking client has none: what it is for has limits of its own.
    pub total_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            authorities: Vec::new(),
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(120),
        }
    }
}

/// Settings that cannot be used. Stop: a person must correct them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// An exception.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// An authority.
    #[error("read authority {index} of egress.authorities: {reason}; give certificates as PEM")]
    Authority {
        /// Which one, from 1.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// The proxy.
    #[error("read egress.proxy: {reason}; give a URL such as http://proxy.example.org:3128")]
    Proxy {
        /// What is wrong.
        reason: String,
    },
}

/// A policy, and the clients under it. Cheap to clone; clones share their clients.
#[derive(Clone)]
pub struct Egress {
    inner: Arc<Inner>,
}

struct Inner {
    names: Names,
    settings: Settings,
    authorities: Vec<Certificate>,
    proxy: Option<reqwest::Proxy>,
    client: OnceLock<reqwest::Client>,
    blocking: OnceLock<blocking::Client>,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("policy", self.policy()).finish_non_exhaustive()
    }
}

impl Default for Egress {
    /// No exceptions, and this machine's authorities.
    fn default() -> Self {
        Self::new(Settings::default()).expect("the default settings have no entry that could be wrong")
    }
}

impl Egress {
    /// Checks the settings. Clients are made when they are first asked for.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        Self::with_lookup(settings, system_lookup())
    }

    /// The same with another way to resolve names.
    pub fn with_lookup(settings: Settings, lookup: Arc<Lookup>) -> Result<Self, SettingsError> {
        let policy = Arc::new(Policy::new(&settings.allow)?);
        let mut authorities = Vec::new();
        for (index, pem) in settings.authorities.iter().enumerate() {
            let refused = |reason: String| SettingsError::Authority { index: index + 1, reason };
            let parsed = Certificate::from_pem_bundle(pem).map_err(|error| refused(error.to_string()))?;
            if parsed.is_empty() {
                return Err(refused("it holds no certificate".into()));
            }
            authorities.extend(parsed);
        }
        let proxy = match &settings.proxy {
            Some(url) => Some(
                reqwest::Proxy::all(url.clone()).map_err(|error| SettingsError::Proxy { reason: error.to_string() })?,
            ),
            None => None,
        };
        let names = Names { policy, lookup };
        let (client, blocking) = (OnceLock::new(), OnceLock::new());
        Ok(Self { inner: Arc::new(Inner { names, settings, authorities, proxy, client, blocking }) })
    }

    /// What may be asked.
    pub fn policy(&self) -> &Policy {
        &self.inner.names.policy
    }

    /// From the configuration.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The addresses of a host that may be connected to, at least one: for protocols other than HTTP. The caller must
    /// connect to one of them, and not resolve the name again. Blocks.
    pub fn addresses(&self, host: &Host, port: u16) -> Result<Vec<IpAddr>, Failure> {
        self.policy().check_host(host, port)?;
        match host {
            Host::Ipv4(address) => Ok(vec![(*address).into()]),
            Host::Ipv6(address) => Ok(vec![(*address).into()]),
            Host::Domain(name) => self.inner.names.addresses(name).map_err(|error| match error {
                ResolveError::Denied(denied) => denied.into(),
                ResolveError::NotFound { name, reason } => Failure::Unreachable { url: name, reason },
            }),
        }
    }

    /// The asynchronous client.
    pub fn client(&self) -> Result<Client, Failure> {
        let client = match self.inner.client.get() {
            Some(client) => client,
            None => {
                let built =
                    self.builder().timeout(self.inner.settings.total_timeout).build().map_err(|e| unusable(&e))?;
                // If another thread was faster, its client is as good.
                self.inner.client.get_or_init(|| built)
            }
        };
        Ok(Client { policy: Arc::clone(&self.inner.names.policy), client: client.clone() })
    }

    /// The blocking client. Neither to be made nor used on a thread that runs asynchronous tasks.
    pub fn blocking(&self) -> Result<BlockingClient, Failure> {
        let client = match self.inner.blocking.get() {
            Some(client) => client,
            None => {
                let builder = blocking::ClientBuilder::from(self.builder()).timeout(self.inner.settings.idle_timeout);
                let built = builder.build().map_err(|error| unusable(&error))?;
                self.inner.blocking.get_or_init(|| built)
            }
        };
        Ok(BlockingClient { policy: Arc::clone(&self.inner.names.policy), client: client.clone() })
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        // Fails if there is one already, which is as good: the whole program uses ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = &self.inner;
        let policy = Arc::clone(&inner.names.policy);
        let followed = redirect::Policy::custom(move |attempt| {
            let Some(from) = attempt.previous().last() else { return attempt.stop() };
            // The first of `previous` is the request itself.
            match check_redirect(&policy, from, attempt.url(), attempt.previous().len() - 1) {
                Ok(()) => attempt.follow(),
                Err(denied) => attempt.error(denied),
            }
        });
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .dns_resolver(Arc::new(inner.names.clone()))
            .redirect(followed)
            .referer(false)
            .no_proxy()
            .use_rustls_tls()
            .connect_timeout(inner.settings.connect_timeout)
            .read_timeout(inner.settings.idle_timeout);
        for authority in &inner.authorities {
            builder = builder.add_root_certificate(authority.clone());
        }
        match &inner.proxy {
            Some(proxy) => builder.proxy(proxy.clone()),
            None => builder,
        }
    }
}

const USER_AGENT: &str = concat!("kickwheel/", env!("CARGO_PKG_VERSION"));

fn unusable(error: &reqwest::Error) -> Failure {
    Failure::Client { reason: error.to_string() }
}

/// An asynchronous HTTP client under a policy.
#[derive(Clone, Debug)]
pub struct Client {
    policy: Arc<Policy>,
    client: reqwest::Client,
}

impl Client {
    /// A request, if its URL may be asked. Send it with [`Client::send`].
    pub fn request(&self, method: Method, url: &str) -> Result<reqwest::RequestBuilder, Failure> {
        Ok(self.client.request(method, checked(&self.policy, url)?))
    }

    /// Sends a request. Any status is an answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let request = request.build().map_err(|error| unusable(&error))?;
        let asked = shown(request.url());
        self.client.execute(request).await.map_err(|error| Failure::of(&error, &asked))
    }
}

/// A blocking HTTP client under a policy.
#[derive(Clone, Debug)]
pub struct BlockingClient {
    policy: Arc<Policy>,
    client: blocking::Client,
}

impl BlockingClient {
    /// A request, if its URL may be asked. Send it with [`BlockingClient::send`].
    pub fn request(&self, method: Method, url: &str) -> Result<blocking::RequestBuilder, Failure> {
        Ok(self.client.request(method, checked(&self.policy, url)?))
    }

    /// Sends a request. Any status is an answer. Each read of its body waits at most the idle time-out.
    pub fn send(&self, request: blocking::RequestBuilder) -> Result<blocking::Response, Failure> {
        let request = request.build().map_err(|error| unusable(&error))?;
        let asked = shown(request.url());
        self.client.execute(request).map_err(|error| Failure::of(&error, &asked))
    }
}

fn checked(policy: &Policy, url: &str) -> Result<Url, Failure> {
    let url = Url::parse(url).map_err(|error| Failure::Url { url: url.to_owned(), reason: error.to_string() })?;
    policy.check_url(&url)?;
    Ok(url)
}

/// The body of an answer, if it has at most `limit_bytes` bytes. What the answer says of its own length is not believed.
pub async fn read_limited(mut response: reqwest::Response, limit_bytes: usize) -> Result<Vec<u8>, Failure> {
    let url = shown(response.url());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::of(&error, &url))? {
        if body.len() + chunk.len() > limit_bytes {
            return Err(Failure::TooLarge { url, limit_bytes });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
