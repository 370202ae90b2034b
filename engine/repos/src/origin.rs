//! Which repositories can be reached, and how.
//!
//! An [`Origin`] is a configured URL, parsed once: a repository on this machine (an absolute path or `file://`), one behind
//! `https://` or `http://`, or one behind ssh, in both of git's spellings. Nothing is opened here; [`crate::fetch`] and
//! [`crate::remote`] do that. Secrets are never part of a URL: see [`crate::access`].

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use url::{Host, Url};

/// Where a bound repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A bare or normal repository on this machine.
    Local(PathBuf),
    /// Behind git's smart HTTP protocol. Without user, password, query and fragment.
    Http(Url),
    /// Behind ssh.
    Ssh(SshOrigin),
}

/// A repository behind ssh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshOrigin {
    /// Whom to log in as.
    pub user: String,
    /// The server.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// What the server's git is asked for.
    pub path: String,
}

const SSH_PORT: u16 = 22;
const SSH_USER: &str = "git";

/// Why a URL cannot be bound. Stop: only another URL helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// A URL of a kind that this release does not reach.
    #[error(
        "reach {url:?}: {scheme} is not supported; give an absolute path, or an https://, http://, ssh:// or file:// URL"
    )]
    Unsupported {
        /// As configured.
        url: String,
        /// What we took it for, for example `git`.
        scheme: String,
    },
    /// A relative path: its meaning would depend on where the server was started.
    #[error("reach {0:?}: a relative path; give an absolute path or a URL")]
    Relative(String),
    /// A `file://` URL that names no path here.
    #[error("read {0:?} as a file:// URL: write file:///absolute/path, with %XX escapes where needed")]
    Malformed(String),
    /// A URL of a kind that is reached, but not a usable one.
    #[error("read {url:?}: {reason}")]
    Unusable {
        /// Without secrets.
        url: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
}

impl Origin {
    /// Parses a configured URL or path.
    pub fn parse(url: &str) -> Result<Self, OriginError> {
        if let Some(rest) = url.strip_prefix("file://") {
            return Self::from_file_url(url, rest);
        }
        if url.starts_with('/') {
            return Ok(Self::Local(PathBuf::from(url)));
        }
        if let Some((scheme, _)) = url.split_once("://") {
            return match scheme {
                "http" | "https" => Self::from_http_url(url),
                "ssh" => Self::from_ssh_url(url),
                other => Err(OriginError::Unsupported { url: url.into(), scheme: other.into() }),
            };
        }
        // `host:path` and `user@host:path` are how git writes ssh without a scheme.
        match url.split_once(':') {
            Some((host, path)) if !host.is_empty() && !host.contains('/') => {
                let (user, host) = host.rsplit_once('@').unwrap_or((SSH_USER, host));
                let host = Host::parse(host).map_err(|error| unusable(url, &error.to_string()))?;
                ssh(url, user, host, SSH_PORT, path)
            }
            _ => Err(OriginError::Relative(url.into())),
        }
    }

    /// The folder of a repository on this machine.
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Http(_) | Self::Ssh(_) => None,
        }
    }

    fn from_http_url(text: &str) -> Result<Self, OriginError> {
        let url = Url::parse(text).map_err(|error| unusable(text, &error.to_string()))?;
        let shown = kickwheel_egress::policy::shown(&url);
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unusable(&shown, "take the user and password out of it and configure them as a secret"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(unusable(&shown, "take out what follows `?` or `#`: git has no use for it"));
        }
        Ok(Self::Http(url))
    }

    fn from_ssh_url(text: &str) -> Result<Self, OriginError> {
        let url = Url::parse(text).map_err(|error| unusable(text, &error.to_string()))?;
        let shown = kickwheel_egress::policy::shown(&url);
        if url.password().is_some() {
            return Err(unusable(&shown, "take the password out of it and configure a deploy key as a secret"));
        }
        let host = url.host_str().unwrap_or_default();
        // This parser takes no special care of hosts in URLs with other schemes than http.
        let host = Host::parse(host).map_err(|error| unusable(&shown, &error.to_string()))?;
        let user = if url.username().is_empty() { SSH_USER } else { url.username() };
        let path = percent_decoded(url.path()).and_then(|path| String::from_utf8(path).ok());
        let path = path.ok_or_else(|| unusable(&shown, "its path is not UTF-8"))?;
        // `~` is what makes the server look in a home folder, and only without the slash.
        let path = if path.starts_with("/~") { &path[1..] } else { &path };
        ssh(&shown, user, host, url.port().unwrap_or(SSH_PORT), path)
    }

    fn from_file_url(url: &str, rest: &str) -> Result<Self, OriginError> {
        let malformed = || OriginError::Malformed(url.to_owned());
        let path = rest.strip_prefix("localhost").filter(|p| p.starts_with('/')).unwrap_or(rest);
        if !path.starts_with('/') {
            return Err(malformed());
        }
        let bytes = percent_decoded(path).ok_or_else(malformed)?;
        if bytes.contains(&0) {
            return Err(malformed());
        }
        Ok(Self::Local(PathBuf::from(OsString::from_vec(bytes))))
    }
}

/// Everything here ends up as a word of a command line, so nothing may be taken for an option.
fn ssh(url: &str, user: &str, host: Host, port: u16, path: &str) -> Result<Origin, OriginError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if user.starts_with('-') || user.is_empty() || !user.chars().all(plain) {
        return Err(unusable(url, "its user may have letters, digits, `-`, `_` and `.`"));
    }
    if let Host::Domain(name) = &host
        && (name.starts_with('-') || !name.chars().all(plain))
    {
        return Err(unusable(url, "its host is no name"));
    }
    if path.trim_matches('/').is_empty() || path.starts_with('-') || path.contains(['\0', '\n', '\r']) {
        return Err(unusable(url, "it names no repository on the server"));
    }
    Ok(Origin::Ssh(SshOrigin { user: user.to_owned(), host, port, path: path.to_owned() }))
}

fn unusable(url: &str, reason: &str) -> OriginError {
    OriginError::Unusable { url: url.to_owned(), reason: reason.to_owned() }
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let pair = [bytes.next()?, bytes.next()?];
        decoded.push(hex::decode(pair).ok()?[0]);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Result<&[u8], &str>) {
        use std::os::unix::ffi::OsStrExt as _;
        match (Origin::parse(url), expected) {
            (Ok(origin), Ok(path)) => {
                assert_eq!(origin.local_path().map(|path| path.as_os_str().as_bytes()), Some(path), "{url}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{url}: {error}"),
            (seen, _) => panic!("{url}: {seen:?}"),
        }
    }

    #[test]
    fn paths_and_file_urls_are_local() {
        check("/srv/git/churn.git", Ok(b"/srv/git/churn.git"));
        check("/srv/a:b/it's.git", Ok(b"/srv/a:b/it's.git"));
        check("file:///srv/git/churn.git", Ok(b"/srv/git/churn.git"));
        check("file://localhost/srv/churn.git", Ok(b"/srv/churn.git"));
        check("file:///srv/a%20b%FF.git", Ok(b"/srv/a b\xff.git"));
    }

    #[test]
    fn every_other_url_says_what_is_supported() {
        check("git://example.org/x.git", Err("git is not supported"));
        check("kickwheel://1/", Err("kickwheel is not supported"));
        check("churn.git", Err("relative path"));
        check("./a:b", Err("relative path"));
        check("file://other/srv/x.git", Err("file:///absolute/path"));
        check("file:///srv/%2", Err("file:///absolute/path"));
        check("file:///srv/%00", Err("file:///absolute/path"));
    }

    #[test]
    fn http_urls_hold_no_secrets() {
        let origin = Origin::parse("https://Example.org:8443/a/b.git").expect("a URL");
        assert_eq!(origin, Origin::Http("https://example.org:8443/a/b.git".parse().expect("a URL")));
        assert_eq!(origin.local_path(), None);
        check("https://ada:secret@example.org/x.git", Err("configure them as a secret"));
        let error = Origin::parse("https://ada:hidden@example.org/x.git").expect_err("a password");
        assert!(!error.to_string().contains("hidden"), "{error}");
        check("https://example.org/x.git?a=b", Err("take out what follows"));
        check("https://", Err("empty host"));
    }

    #[test]
    fn ssh_is_read_in_both_spellings() {
        let check = |text: &str, user: &str, host: &str, port: u16, path: &str| {
            let host = Host::parse(host).expect("a host");
            let expected = SshOrigin { user: user.into(), host, port, path: path.into() };
            assert_eq!(Origin::parse(text), Ok(Origin::Ssh(expected)), "{text}");
        };
        check("git@example.org:team/x.git", "git", "example.org", 22, "team/x.git");
        check("example.org:x.git", "git", "example.org", 22, "x.git");
        check("ssh://ada@example.org:2222/srv/a%20b.git", "ada", "example.org", 2222, "/srv/a b.git");
        check("ssh://example.org/~ada/x.git", "git", "example.org", 22, "~ada/x.git");
        check("ssh://git@[::1]:2222/x.git", "git", "[::1]", 2222, "/x.git");
        check("ssh://git@0x7f.1/x.git", "git", "127.0.0.1", 22, "/x.git");
    }

    #[test]
    fn nothing_in_an_ssh_url_is_taken_for_an_option() {
        check("ssh://-oProxyCommand=x/y", Err("its host is no name"));
        check("-oProxyCommand=x:y", Err("its host is no name"));
        check("ssh://-x@example.org/y", Err("its user may have"));
        check("git@example.org:-x", Err("names no repository"));
        check("git@example.org:", Err("names no repository"));
        check("ssh://example.org/", Err("names no repository"));
        check("ssh://git:secret@example.org/x", Err("deploy key"));
    }
}
