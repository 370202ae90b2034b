//! Gitea, Forgejo and Gogs: one family, whose payloads are GitHub's with differences.
//!
//! Format: each project's `modules/structs` (`HookPush`, `PushPayload`) and webhook documentation. They send each other's
//! headers and GitHub's as well, so the trigger says which it is, and its own headers are looked at first. A request of a
//! sender without a secret carries the signature's headers, but empty. `commits` are cut at a setting of the server, the
//! newest first. A deleted branch is told by `delete` alone, without its commit: it is recorded as a twin, and the poller
//! tells what became of the ref.

mod pull_request;

use kickwheel_schemas::{CloudEvent, payload::MAX_COMMITS};
use serde_json::Value;

use super::{
    Headers, Refusal, SourceConfig, body,
    forge::{self, Lists, Origin, Push, announced_id},
    signature,
};

/// Without a total, a list of so many commits may have been cut: the least that one of the family cuts at.
const MAYBE_CUT_COMMITS: usize = 5;

/// What differs in the family.
#[derive(Debug)]
pub struct Dialect {
    /// The provider's name in `data`.
    pub provider: &'static str,
    /// Type of the event for `create`, the twin of a push.
    pub create: &'static str,
    /// Type of the event for `delete`, the twin of a push.
    pub delete: &'static str,
    /// Whose headers are looked at, the first one first.
    prefixes: &'static [&'static str],
}

/// Gitea.
pub const GITEA: Dialect = Dialect {
    provider: "gitea",
    create: "com.gitea.create",
    delete: "com.gitea.delete",
    prefixes: &["x-gitea-", "x-gogs-", "x-github-"],
};

/// Forgejo.
pub const FORGEJO: Dialect = Dialect {
    provider: "forgejo",
    create: "org.forgejo.create",
    delete: "org.forgejo.delete",
    prefixes: &["x-forgejo-", "x-gitea-", "x-gogs-", "x-github-"],
};

/// Gogs.
pub const GOGS: Dialect = Dialect {
    provider: "gogs",
    create: "io.gogs.create",
    delete: "io.gogs.delete",
    prefixes: &["x-gogs-", "x-github-"],
};

/// The events of a delivery.
pub fn translate(
    dialect: &Dialect,
    config: &SourceConfig,
    headers: &Headers,
    bytes: &[u8],
) -> Result<Vec<CloudEvent>, Refusal> {
    verify(dialect, config, headers, bytes)?;
    let payload = body::json_or_form(headers, bytes)?;
    body::object(&payload)?;
    let header = |name: &str| {
        let mut named = dialect.prefixes.iter().map(|prefix| headers.get(&format!("{prefix}{name}")));
        named.find_map(|value| value.filter(|value| !value.is_empty()))
    };
    let kind = header("event").map_or_else(|| Kind::from_shape(&payload), Kind::from_name);
    let id = header("delivery").map_or_else(|| body::digest_id(bytes), str::to_owned);
    let event = match kind {
        Kind::Push => push(&origin(dialect, config, &payload)?, &id, &payload)?,
        Kind::PullRequest => pull_request::translate(dialect, config, &id, &payload)?,
        Kind::Create => Some(origin(dialect, config, &payload)?.twin(&id, dialect.create, &payload)?),
        Kind::Delete => Some(origin(dialect, config, &payload)?.twin(&id, dialect.delete, &payload)?),
        Kind::Other => None,
    };
    Ok(event.into_iter().collect())
}

/// Verifies the first signature of the family that is there: bare hex digits, or GitHub's form of the same.
fn verify(dialect: &Dialect, config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(secrets) = config.verification.secrets() else { return Ok(()) };
    let bare = dialect.prefixes.iter().filter(|prefix| **prefix != "x-github-");
    for name in bare.map(|prefix| format!("{prefix}signature")) {
        if headers.get(&name).is_some() {
            return signature::verify_hex(&name, &secrets, headers, bytes);
        }
    }
    signature::verify_hub("X-Hub-Signature-256", None, &secrets, headers, bytes)
}

/// What a delivery is about.
enum Kind {
    Push,
    PullRequest,
    Create,
    Delete,
    Other,
}

impl Kind {
    fn from_name(name: &str) -> Self {
        match name {
            "push" => Self::Push,
            "pull_request" | "pull_request_sync" => Self::PullRequest,
            "create" => Self::Create,
            "delete" => Self::Delete,
            _ => Self::Other,
        }
    }

    /// By the members that only this kind has, where no header says it.
    fn from_shape(payload: &Value) -> Self {
        let has = |name: &str| payload.get(name).is_some();
        if has("ref") && has("before") && has("after") {
            Self::Push
        } else if has("pull_request") && has("action") && has("number") && !has("review") && !has("comment") {
            Self::PullRequest
        } else if has("ref") && has("ref_type") {
            if has("sha") || has("default_branch") { Self::Create } else { Self::Delete }
        } else {
            Self::Other
        }
    }
}

fn origin(dialect: &Dialect, config: &SourceConfig, payload: &Value) -> Result<Origin, Refusal> {
    let person = ["pusher", "sender"].into_iter().find_map(|who| {
        let name = ["login", "username", "name"].iter().find_map(|name| body::shown(payload, &format!("{who}.{name}")));
        name.map(|name| (name.to_owned(), body::id(payload, &format!("{who}.id"))))
    });
    let (actor, actor_id) = person.map_or((None, None), |(name, id)| (Some(name), id));
    Ok(Origin {
        provider: dialect.provider,
        source: Origin::source(config, payload, &["repository.clone_url", "repository.html_url", "repository.url"])?,
        repo: Origin::repo(config, payload, "repository.full_name")?,
        default_branch: Origin::default_branch(config, payload, &["repository.default_branch", "default_branch"]),
        actor,
        actor_id,
        time: None,
    })
}

fn push(origin: &Origin, id: &str, payload: &Value) -> Result<Option<CloudEvent>, Refusal> {
    let commits = body::list(payload, "commits")?;
    let total = body::maybe_count(payload, "total_commits")?;
    let listed = commits.len();
    let cut = match total {
        Some(total) if total > listed as u64 => Some(format!("total_commits {total} > {listed} listed")),
        None if listed >= MAYBE_CUT_COMMITS => Some(format!("no total_commits: commits[] may end at {listed} of them")),
        Some(_) | None => None,
    };
    let author = ["author.username", "author.name"];
    let push = Push {
        full: body::text(payload, "ref")?,
        before: announced_id(payload, "before")?,
        after: announced_id(payload, "after")?,
        // They do not say.
        forced: None,
        commits: commits
            .iter()
            .take(MAX_COMMITS)
            .map(|commit| forge::commit(commit, "id", &author))
            .collect::<Result<_, _>>()?,
        commit_count: total.or_else(|| cut.is_none().then_some(listed as u64)),
        base_ref: None,
        lists: Lists::Commits { commits, cut, max_files: None, null_is_empty: true },
    };
    push.event(origin, id)
}
