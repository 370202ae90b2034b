//! Which hosts and addresses may be asked: a pure decision over a list of exceptions.
//!
//! Public addresses may be asked by everybody; every other kind of [`crate::address`] only if an entry of the list says
//! so. A *name* on the list may resolve to a private address; any other name that does is denied, because whoever holds
//! a name decides where it leads, and may change it between two looks (DNS rebinding). So the caller must connect to the
//! very address that was checked; [`crate::client`] does.
//!
//! No I/O here: names are resolved by the caller.

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

use crate::address::{Class, classify, embedded};

/// The setting that holds the exceptions, named in every message.
pub const SETTING: &str = "egress.allow";

/// Most entries of the list.
pub const MAX_ENTRIES: usize = 1_000;

/// What may be asked. The default has no exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    names: Vec<ListedName>,
    networks: Vec<IpNet>,
    /// Literal addresses that are listed with a port.
    sockets: Vec<(IpAddr, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ListedName {
    pattern: Pattern,
    /// `None`: every port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// With the leading dot, for example `.example.org`.
    Suffix(String),
}

impl Pattern {
    fn takes(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
        }
    }
}

/// An entry of the list that cannot be used. Stop: a person must correct the setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "read the entry {entry:?} of {SETTING}: {reason}; write a name (git.example.org), *.example.org, name:port, an address, or a network (10.1.0.0/16)"
)]
pub struct EntryError {
    /// As written.
    pub entry: String,
    /// What is wrong.
    pub reason: String,
}

/// Something that may not be asked. Stop: only another URL or another setting helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Neither `http` nor `https`.
    #[error("ask {url}: {scheme} is neither http nor https, and nothing else is asked")]
    Scheme {
        /// Without user and password.
        url: String,
        /// The scheme.
        scheme: String,
    },
    /// User or password in the URL, where logs and messages would show them.
    #[error("ask {url}: the URL holds a user or password; take them out and configure them as a secret")]
    UserInfo {
        /// Without them.
        url: String,
    },
    /// No host, or one that is neither a name nor an address.
    #[error("ask {url:?}: it names no host")]
    NoHost {
        /// As given.
        url: String,
    },
    /// An address that is not public and not listed.
    #[error("ask {host}: {address} is {}; {}", class.words(), advice(host, *address, *class))]
    Address {
        /// The name that led there, or the address itself.
        host: String,
        /// Where it leads.
        address: IpAddr,
        /// What that is.
        class: Class,
    },
    /// A host that is listed with other ports only.
    #[error("ask {host}:{port}: {SETTING} lists this host with other ports only ({}); add {host}:{port} if it is meant", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "))]
    Port {
        /// The host.
        host: String,
        /// The port that was asked for.
        port: u16,
        /// The ports that are listed.
        ports: Vec<u16>,
    },
    /// A redirect that leaves TLS.
    #[error(
        "follow the redirect from {from} to {to}: it leaves https for http; configure the URL that it leads to if that is meant"
    )]
    Downgrade {
        /// Where it came from.
        from: String,
        /// Where it leads.
        to: String,
    },
    /// A chain of redirects without an end in sight.
    #[error("follow more than {limit} redirects, the last one to {to}; configure the URL where they end")]
    TooManyRedirects {
        /// Where the next one leads.
        to: String,
        /// How many are followed.
        limit: usize,
    },
}

fn advice(host: &str, address: IpAddr, class: Class) -> String {
    if is_opened_by_name(class) && host.parse::<IpAddr>().is_err() {
        format!("add {host} or {address} to {SETTING} if it is meant")
    } else {
        format!("add {address} to {SETTING} if it is meant")
    }
}

/// Whether a listed *name* may lead there. Metadata services, multicast and the rest must be listed as addresses: nobody
/// who lists a name means them.
fn is_opened_by_name(class: Class) -> bool {
    match class {
        Class::Public | Class::Loopback | Class::Private | Class::LinkLocal | Class::SharedSpace => true,
        Class::Metadata | Class::Multicast | Class::Unspecified | Class::Reserved => false,
    }
}

impl Policy {
    /// A policy with these exceptions: a name (`git.example.org`), all names below one (`*.example.org`), either with a
    /// port (`git.example.org:8443`: this port of it and no other), an address (also with a port, which then opens URLs
    /// with that address and not names that lead there), or a network (`10.1.0.0/16`).
    pub fn new<E: AsRef<str>>(allow: &[E]) -> Result<Self, EntryError> {
        let mut policy = Self::default();
        if allow.len() > MAX_ENTRIES {
            return Err(EntryError {
                entry: allow[MAX_ENTRIES].as_ref().to_owned(),
                reason: format!("there are more than {MAX_ENTRIES}"),
            });
        }
        for entry in allow {
            policy.add(entry.as_ref().trim())?;
        }
        Ok(policy)
    }

    fn add(&mut self, entry: &str) -> Result<(), EntryError> {
        let refused = |reason: &str| EntryError { entry: entry.to_owned(), reason: reason.to_owned() };
        if let Ok(address) = entry.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            self.networks.push(IpNet::from(address));
            return Ok(());
        }
        if entry.contains('/') {
            let network: IpNet = entry.parse().map_err(|_| refused("it is no network"))?;
            self.networks.push(network.trunc());
            return Ok(());
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| refused("its port is no port"))?;
                (host, Some(port))
            }
            None => (entry, None),
        };
        let (name, wild) = host.strip_prefix("*.").map_or((host, false), |rest| (rest, true));
        if name.contains('*') {
            return Err(refused("a `*` stands only at the front, before a dot"));
        }
        match (Host::parse(name), port, wild) {
            (Ok(Host::Ipv4(address)), Some(port), false) => self.sockets.push((address.into(), port)),
            (Ok(Host::Ipv6(address)), Some(port), false) => self.sockets.push((canonical(address.into()), port)),
            (Ok(Host::Domain(name)), port, _) => {
                let name = bare(&name);
                if name.is_empty() {
                    return Err(refused("it names no host"));
                }
                let pattern = if wild { Pattern::Suffix(format!(".{name}")) } else { Pattern::Exact(name) };
                self.names.push(ListedName { pattern, port });
            }
            (Ok(Host::Ipv4(_) | Host::Ipv6(_)) | Err(_), _, _) => {
                return Err(refused("it is neither a name, an address nor a network"));
            }
        }
        Ok(())
    }

    /// Judges a URL before anything is sent: its scheme, its parts, its port, and its host if that is an address. A host
    /// that is a name must be resolved, and each address then judged by [`Policy::check_address`].
    pub fn check_url(&self, url: &Url) -> Result<(), Denied> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Denied::Scheme { url: shown(url), scheme: url.scheme().to_owned() });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Denied::UserInfo { url: shown(url) });
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(Denied::NoHost { url: shown(url) });
        };
        self.check_host(&host, port)
    }

    /// The same for a host that does not come from an http URL.
    pub fn check_host<S: AsRef<str>>(&self, host: &Host<S>, port: u16) -> Result<(), Denied> {
        match host {
            Host::Ipv4(address) => self.check_literal((*address).into(), port),
            Host::Ipv6(address) => self.check_literal((*address).into(), port),
            Host::Domain(name) => {
                let name = bare(name.as_ref());
                let listed: Vec<_> = self.names.iter().filter(|listed| listed.pattern.takes(&name)).collect();
                // A port in the list narrows: what resolves the name does not learn the port, so the rest of the host
                // must not be reachable through the same entry.
                if listed.is_empty() || listed.iter().any(|listed| listed.port.is_none_or(|p| p == port)) {
                    return Ok(());
                }
                let ports = listed.iter().filter_map(|listed| listed.port).collect();
                Err(Denied::Port { host: name, port, ports })
            }
        }
    }

    /// Judges an address that a *name* resolved to.
    pub fn check_address(&self, name: &str, address: IpAddr) -> Result<(), Denied> {
        let class = classify(address);
        let name = bare(name);
        if class == Class::Public || self.is_listed(address, class) {
            return Ok(());
        }
        if is_opened_by_name(class) && self.lists_name(&name) {
            return Ok(());
        }
        Err(Denied::Address { host: name, address, class })
    }

    /// Whether the host is on the list, by name or by address: somebody vouched for the way there.
    pub fn lists<S: AsRef<str>>(&self, host: &Host<S>) -> bool {
        let listed = |address: IpAddr| {
            self.is_listed(address, classify(address)) || self.sockets.iter().any(|(a, _)| *a == canonical(address))
        };
        match host {
            Host::Ipv4(address) => listed((*address).into()),
            Host::Ipv6(address) => listed((*address).into()),
            Host::Domain(name) => self.lists_name(&bare(name.as_ref())),
        }
    }

    fn lists_name(&self, name: &str) -> bool {
        self.names.iter().any(|listed| listed.pattern.takes(name))
    }

    fn check_literal(&self, address: IpAddr, port: u16) -> Result<(), Denied> {
        let class = classify(address);
        let open = class == Class::Public
            || self.is_listed(address, class)
            || self.sockets.contains(&(canonical(address), port));
        if open {
            return Ok(());
        }
        let ports: Vec<u16> =
            self.sockets.iter().filter(|(a, _)| *a == canonical(address)).map(|(_, port)| *port).collect();
        if !ports.is_empty() {
            return Err(Denied::Port { host: address.to_string(), port, ports });
        }
        Err(Denied::Address { host: address.to_string(), address, class })
    }

    /// Whether an address, in any of its forms, is on the list. A metadata service is opened by its own address only,
    /// never by a network around it.
    fn is_listed(&self, address: IpAddr, class: Class) -> bool {
        let forms = [address, canonical(address), inner(address)];
        self.networks.iter().any(|network| {
            let exact = network.prefix_len() == network.max_prefix_len();
            (class != Class::Metadata || exact) && forms.iter().any(|form| network.contains(form))
        })
    }
}

/// Without the form that only maps IPv4 into IPv6.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Where the address leads in the end.
fn inner(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
    }
}

/// A name as it is compared: lower case, without the dot of the root.
fn bare(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// A URL that may be shown: without user, password, query and fragment, which may hold secrets.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// Most redirects of one request.
pub const MAX_REDIRECTS: usize = 5;

/// Judges a redirect; `followed` is how many came before it.
pub fn check_redirect(policy: &Policy, from: &Url, to: &Url, followed: usize) -> Result<(), Denied> {
    if followed >= MAX_REDIRECTS {
        return Err(Denied::TooManyRedirects { to: shown(to), limit: MAX_REDIRECTS });
    }
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(Denied::Downgrade { from: shown(from), to: shown(to) });
    }
    policy.check_url(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect("a URL")
    }

    fn check_url(allow: &[&str], text: &str, expected: Result<(), &str>) {
        let policy = Policy::new(allow).expect("good entries");
        match (policy.check_url(&url(text)), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (seen, _) => panic!("{allow:?} {text}: {seen:?}"),
        }
    }

    fn check_name(allow: &[&str], name: &str, address: &str, expected: bool) {
        let policy = Policy::new(allow).expect("good entries");
        let seen = policy.check_address(name, address.parse().expect("an address"));
        assert_eq!(seen.is_ok(), expected, "{allow:?} {name} {address}: {seen:?}");
    }

    #[test]
    fn literal_addresses_are_judged_in_every_spelling() {
        check_url(&[], "https://1.1.1.1/", Ok(()));
        for host in
            ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "017700000001", "[::1]", "[::ffff:127.0.0.1]", "[::7f00:1]"]
        {
            check_url(&[], &format!("http://{host}/"), Err("an address of this machine"));
        }
        check_url(&[], "http://169.254.169.254/latest", Err("metadata service"));
        check_url(&[], "http://0/", Err("unspecified"));
        check_url(&[], "http://10.0.0.1/", Err("add 10.0.0.1 to egress.allow"));
        check_url(&["10.0.0.0/8"], "http://[64:ff9b::10.0.0.1]/", Ok(()));
        check_url(&["127.0.0.1"], "http://[::ffff:127.0.0.1]/", Ok(()));
    }

    #[test]
    fn only_http_without_credentials_is_asked() {
        check_url(&[], "ftp://example.org/", Err("ftp is neither http nor https"));
        check_url(&[], "file:///etc/passwd", Err("file is neither"));
        check_url(&[], "https://ada:secret@example.org/", Err("configure them as a secret"));
        let denied =
            Policy::default().check_url(&url("https://ada:secret@example.org/?token=x")).expect_err("credentials");
        assert!(!denied.to_string().contains("secret@") && !denied.to_string().contains("token"), "{denied}");
    }

    #[test]
    fn a_name_opens_private_addresses_and_nothing_else_does() {
        check_name(&[], "example.org", "1.1.1.1", true);
        check_name(&[], "example.org", "10.0.0.1", false);
        check_name(&["git.example.org"], "git.example.org", "10.0.0.1", true);
        check_name(&["git.example.org"], "GIT.example.org.", "127.0.0.1", true);
        check_name(&["git.example.org"], "example.org", "10.0.0.1", false);
        check_name(&["git.example.org"], "evil-git.example.org", "10.0.0.1", false);
        check_name(&["*.example.org"], "a.b.example.org", "10.0.0.1", true);
        check_name(&["*.example.org"], "example.org", "10.0.0.1", false);
        check_name(&["*.example.org"], "evilexample.org", "10.0.0.1", false);
        check_name(&["10.1.0.0/16"], "anything.example", "10.1.2.3", true);
        check_name(&["10.1.0.0/16"], "anything.example", "10.2.0.1", false);
        check_name(&["fd12::/16"], "anything.example", "fd12::1", true);
    }

    #[test]
    fn a_metadata_service_is_opened_by_its_own_address_only() {
        check_name(&["git.example.org"], "git.example.org", "169.254.169.254", false);
        check_name(&["169.254.0.0/16", "0.0.0.0/0"], "git.example.org", "169.254.169.254", false);
        check_name(&["169.254.0.0/16"], "git.example.org", "169.254.1.1", true);
        check_name(&["169.254.169.254"], "git.example.org", "169.254.169.254", true);
        check_name(&["git.example.org"], "git.example.org", "224.0.0.1", false);
        check_name(&["git.example.org"], "git.example.org", "0.0.0.0", false);
    }

    #[test]
    fn a_listed_port_is_the_only_one() {
        check_url(&["git.example.org:8443"], "https://git.example.org:8443/", Ok(()));
        check_url(&["git.example.org:8443"], "https://git.example.org/", Err("with other ports only (8443)"));
        check_url(&["git.example.org:8443", "git.example.org:443"], "https://git.example.org/", Ok(()));
        check_url(&["127.0.0.1:80"], "http://127.0.0.1/", Ok(()));
        check_url(&["127.0.0.1:80"], "http://127.0.0.1:81/", Err("with other ports only (80)"));
        check_url(&["[::1]:80"], "http://[::1]/", Ok(()));
        check_name(&["127.0.0.1:80"], "example.org", "127.0.0.1", false);
    }

    #[test]
    fn entries_that_cannot_be_meant_are_refused() {
        let check = |entry: &str, part: &str| {
            let error = Policy::new(&[entry]).expect_err(entry);
            assert!(error.to_string().contains(part), "{entry}: {error}");
        };
        check("", "neither a name");
        check("*", "a `*` stands only");
        check("a.*.org", "a `*` stands only");
        check("10.0.0.0/33", "no network");
        check("git.example.org:http", "no port");
        check("git.example.org:0", "no port");
        check("https://example.org", "no network");
        check("user@example.org", "neither a name");
        check("*.127.0.0.1", "neither a name");
    }

    #[test]
    fn redirects_are_judged_like_requests() {
        let policy = Policy::default();
        let check = |from: &str, to: &str, followed: usize| check_redirect(&policy, &url(from), &url(to), followed);
        assert_eq!(check("http://a.example/", "https://b.example/", 0), Ok(()));
        assert!(matches!(check("https://a.example/", "http://a.example/", 0), Err(Denied::Downgrade { .. })));
        assert!(matches!(check("https://a.example/", "https://10.0.0.1/", 0), Err(Denied::Address { .. })));
        assert!(matches!(check("https://a.example/", "https://x:y@b.example/", 0), Err(Denied::UserInfo { .. })));
        assert!(matches!(check("https://a.example/", "https://a.example/", 5), Err(Denied::TooManyRedirects { .. })));
    }
}
