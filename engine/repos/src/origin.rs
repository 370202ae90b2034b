//! Which repositories can be reached, and how.
//!
//! An [`Origin`] is a configured URL, parsed once. This release reaches repositories on this machine only: an absolute
//! path or `file://`. Nothing is opened here; [`crate::fetch`] does that.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// Where a bound repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A bare or normal repository on this machine.
    Local(PathBuf),
}

/// Why a URL cannot be bound. Stop: only another URL helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// A URL of a kind that this release does not reach.
    #[error(
        "reach {url:?}: {scheme} is not supported; give an absolute path or a file:// URL of a repository on this machine"
    )]
    Unsupported {
        /// As configured.
        url: String,
        /// What we took it for, for example `https`.
        scheme: String,
    },
    /// A relative path: its meaning would depend on where the server was started.
    #[error("reach {0:?}: a relative path; give an absolute path or a file:// URL")]
    Relative(String),
    /// A `file://` URL that names no path here.
    #[error("read {0:?} as a file:// URL: write file:///absolute/path, with %XX escapes where needed")]
    Malformed(String),
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
            return Err(OriginError::Unsupported { url: url.into(), scheme: scheme.into() });
        }
        // `host:path` and `user@host:path` are how git writes ssh without a scheme.
        match url.split_once(':') {
            Some((host, _)) if !host.is_empty() && !host.contains('/') => {
                Err(OriginError::Unsupported { url: url.into(), scheme: "ssh".into() })
            }
            _ => Err(OriginError::Relative(url.into())),
        }
    }

    /// The folder of the repository.
    pub fn path(&self) -> &Path {
        match self {
            Self::Local(path) => path,
        }
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
            (Ok(origin), Ok(path)) => assert_eq!(origin.path().as_os_str().as_bytes(), path, "{url}"),
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
        check("https://example.org/x.git", Err("https is not supported; give an absolute path or a file:// URL"));
        check("git://example.org/x.git", Err("git is not supported"));
        check("git@example.org:x.git", Err("ssh is not supported"));
        check("churn.git", Err("relative path"));
        check("./a:b", Err("relative path"));
        check("file://other/srv/x.git", Err("file:///absolute/path"));
        check("file:///srv/%2", Err("file:///absolute/path"));
        check("file:///srv/%00", Err("file:///absolute/path"));
    }
}
