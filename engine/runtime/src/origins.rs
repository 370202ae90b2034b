//! A bound repository as it is asked: its mirror, with the credentials that its secret holds.
//!
//! The one place where bindings and secrets meet. What a secret holds depends on the origin: behind https a password or
//! token, behind ssh a private key, whose server is known by the host keys of the binding. Pure but for opening the
//! secret; the policy for addresses is the mirrors' own (`kickwheel-egress`).
//!
//! Deliberately absent: asking. Where to look next: `kickwheel_repos`, and `lookup` for who asks.

use kickwheel_repos::{Credentials, KnownHosts, MirrorError, MirrorId, Origin, Retry};
use kickwheel_store::{Write, rows::RepoRow, write::NoteRepo};
use serde::{Deserialize, Serialize};

use crate::{secrets::OpenError, shared::Shared};

/// Whom to log in as with a token when the binding does not say: many servers take any word beside a token, and GitHub's
/// installation tokens want this one.
const TOKEN_USER: &str = "x-access-token";

/// Largest list of host keys of one binding, in bytes.
const MAX_KNOWN_HOSTS_BYTES: usize = 64 * 1024;

/// How the reason begins when the hook could not be installed: it is no word about the repository's being reachable.
pub const NO_HOOK: &str = "the hook is not installed";

/// How a repository's server is asked, beside the secret; kept with the binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RepoAccess {
    /// Whom to log in as; http only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Lines of a `known_hosts` file; ssh only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<String>,
    /// The key that the server shows first is the right one; ssh only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub accept_new_host_key: bool,
}

/// Why a repository cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Its URL, or our own disk.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// Its secret.
    #[error(transparent)]
    Secret(#[from] OpenError),
    /// Stop: the secret does not hold what such an origin needs.
    #[error("use the secret {name:?} for {url:?}: {reason}")]
    Unfit {
        /// The secret.
        name: String,
        /// As configured.
        url: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Stop: what is stored of the binding cannot be read.
    #[error("read how {url:?} is asked: {reason}; bind it anew with `kickwheel repos add`")]
    Access {
        /// As configured.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

impl AskError {
    /// When to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Mirror(MirrorError::Create { .. }) | Self::Secret(OpenError::Unavailable { .. }) => Retry::Later,
            Self::Mirror(MirrorError::Origin(_))
            | Self::Secret(
                OpenError::Missing { .. } | OpenError::Ref { .. } | OpenError::Key { .. } | OpenError::Damaged { .. },
            )
            | Self::Unfit { .. }
            | Self::Access { .. } => Retry::Stop,
        }
    }
}

/// The mirror of a bound repository, whose origin is asked with the binding's credentials.
pub async fn mirror_of(shared: &Shared, row: &RepoRow) -> Result<MirrorId, AskError> {
    let mirror = shared.mirrors.mirror(&row.project, &row.name, &row.url).await?;
    let Some(name) = &row.secret else { return Ok(mirror) };
    let access = access_of(row)?;
    let value = shared.secrets.open_for_engine(&shared.store, &row.project, name).await?;
    let credentials = credentials(mirror.origin(), &access, &value).map_err(|reason| AskError::Unfit {
        name: name.clone(),
        url: row.url.clone(),
        reason,
    })?;
    Ok(mirror.with_credentials(credentials))
}

fn access_of(row: &RepoRow) -> Result<RepoAccess, AskError> {
    serde_json::from_value(row.access.clone())
        .map_err(|e| AskError::Access { url: row.url.clone(), reason: e.to_string() })
}

fn credentials(origin: &Origin, access: &RepoAccess, value: &[u8]) -> Result<Option<Credentials>, String> {
    let text = std::str::from_utf8(value).map_err(|_| "it is no text; set it again".to_owned())?;
    match origin {
        Origin::Local(_) => Ok(None),
        Origin::Http(_) => {
            let password = text.trim_end_matches(['\r', '\n']);
            if password.is_empty() || password.chars().any(char::is_control) {
                return Err("it holds no password or token: one line is wanted; set it again".to_owned());
            }
            let user = access.username.as_deref().unwrap_or(TOKEN_USER);
            Ok(Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() }))
        }
        Origin::Ssh(_) => {
            if !text.trim_start().starts_with("-----BEGIN ") {
                return Err("it holds no private key as `ssh-keygen` writes it; set it again from the file".to_owned());
            }
            let known_hosts = match &access.known_hosts {
                Some(lines) => KnownHosts::Listed(lines.clone()),
                None => KnownHosts::AcceptNew,
            };
            // Where a secret is typed or pasted, its last line end is easily lost, and `ssh` does not read such a key.
            let private_key = format!("{}\n", text.trim());
            Ok(Some(Credentials::DeployKey { private_key, known_hosts }))
        }
    }
}

/// Whether a binding says what its origin needs and nothing else. The reason is for whoever makes it.
pub fn check(origin: &Origin, secret: Option<&str>, access: &RepoAccess) -> Result<(), String> {
    let refuse = |reason: &str| Err(reason.to_owned());
    let host_keys = access.known_hosts.is_some() || access.accept_new_host_key;
    match origin {
        Origin::Local(_) if secret.is_some() || access.username.is_some() || host_keys => {
            refuse("a repository on this machine is read from its folder: it takes no secret, user or host keys")
        }
        Origin::Http(_) if host_keys => refuse(
            "host keys are for ssh; behind https an authority is trusted, see `kickwheel serve --egress-authority`",
        ),
        Origin::Http(_) if access.username.is_some() && secret.is_none() => {
            refuse("a user needs a password or token: name the secret that holds it with --secret")
        }
        Origin::Http(_) => match &access.username {
            Some(user) if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) => {
                refuse("the name of the user is empty, or holds a colon or control characters")
            }
            Some(_) | None => Ok(()),
        },
        Origin::Ssh(_) if access.username.is_some() => {
            refuse("behind ssh the user is a part of the URL: ssh://USER@HOST/PATH")
        }
        Origin::Ssh(_) if secret.is_none() => refuse(
            "ssh needs a deploy key: keep its private half with `kickwheel secrets set NAME` and give --secret NAME",
        ),
        Origin::Ssh(_) => match (&access.known_hosts, access.accept_new_host_key) {
            (None, false) => refuse(
                "say which server is the right one: --known-hosts FILE with its keys, or --accept-new-host-key to take \
                 the one that it shows first",
            ),
            (Some(_), true) => refuse("give either --known-hosts or --accept-new-host-key"),
            (Some(lines), false) if lines.len() > MAX_KNOWN_HOSTS_BYTES => {
                Err(format!("the host keys have {} bytes; at most {MAX_KNOWN_HOSTS_BYTES} are kept", lines.len()))
            }
            (Some(lines), false) if lines.trim().is_empty() => refuse("the file with the host keys is empty"),
            (Some(_), false) | (None, true) => Ok(()),
        },
        Origin::Local(_) => Ok(()),
    }
}

/// Keeps what was learnt by asking where `repos ls` shows it. Only for people, so a failure to keep it is no failure of
/// whoever asked. That a hook is missing is not forgotten because the repository can be reached.
pub async fn note(shared: &Shared, row: &RepoRow, default_branch: Option<String>, reason: Option<String>) {
    let no_hook = row.reason.as_deref().is_some_and(|r| r.starts_with(NO_HOOK));
    let reason = if no_hook && reason.is_none() { row.reason.clone() } else { reason };
    if reason == row.reason && (default_branch.is_none() || default_branch == row.default_branch) {
        return;
    }
    let note =
        NoteRepo { project: row.project.clone(), name: row.name.clone(), url: row.url.clone(), default_branch, reason };
    if let Err(e) = shared.store.write(vec![Write::NoteRepo(note)]).await {
        tracing::debug!(repo = row.name, "its state is not kept: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::parse(url).expect("a URL")
    }

    fn access(username: Option<&str>, known_hosts: Option<&str>, accept_new_host_key: bool) -> RepoAccess {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        RepoAccess { username: owned(username), known_hosts: owned(known_hosts), accept_new_host_key }
    }

    fn check(url: &str, secret: Option<&str>, access: &RepoAccess, mistake: Option<&str>) {
        match (super::check(&origin(url), secret, access), mistake) {
            (Ok(()), None) => {}
            (Err(e), Some(part)) if e.contains(part) => {}
            (result, _) => panic!("{url}: {result:?}, expected {mistake:?}"),
        }
    }

    #[test]
    fn a_binding_says_what_its_origin_needs_and_nothing_else() {
        let none = RepoAccess::default();
        check("/srv/x.git", None, &none, None);
        check("/srv/x.git", Some("s"), &none, Some("on this machine"));
        check("https://h/x.git", None, &none, None);
        check("https://h/x.git", Some("s"), &access(Some("ada"), None, false), None);
        check("https://h/x.git", None, &access(Some("ada"), None, false), Some("--secret"));
        check("https://h/x.git", Some("s"), &access(Some("a:b"), None, false), Some("colon"));
        check("https://h/x.git", Some("s"), &access(None, Some("h ssh-ed25519 A"), false), Some("--egress-authority"));
        check("git@h:x.git", None, &none, Some("deploy key"));
        check("git@h:x.git", Some("s"), &none, Some("--accept-new-host-key"));
        check("git@h:x.git", Some("s"), &access(None, Some("h ssh-ed25519 A"), false), None);
        check("git@h:x.git", Some("s"), &access(None, None, true), None);
        check("git@h:x.git", Some("s"), &access(None, Some("h ssh-ed25519 A"), true), Some("either"));
        check("git@h:x.git", Some("s"), &access(Some("ada"), None, true), Some("part of the URL"));
    }

    #[test]
    fn what_a_secret_holds_depends_on_the_origin() {
        let http = credentials(&origin("https://h/x.git"), &RepoAccess::default(), b"token\n");
        let basic = |user: &str| Credentials::Basic { user: user.to_owned(), password: "token".to_owned() };
        assert_eq!(http, Ok(Some(basic(TOKEN_USER))));
        let named = credentials(&origin("https://h/x.git"), &access(Some("ada"), None, false), b"token");
        assert_eq!(named, Ok(Some(basic("ada"))));
        assert!(credentials(&origin("https://h/x.git"), &RepoAccess::default(), b"a\nb").is_err());
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----";
        let ssh = credentials(&origin("git@h:x.git"), &access(None, None, true), key.as_bytes());
        let expected = Credentials::DeployKey { private_key: format!("{key}\n"), known_hosts: KnownHosts::AcceptNew };
        assert_eq!(ssh, Ok(Some(expected)));
        assert!(credentials(&origin("git@h:x.git"), &access(None, None, true), b"token").is_err());
        assert_eq!(credentials(&origin("/srv/x.git"), &RepoAccess::default(), b"token"), Ok(None));
    }
}
