//! Polling: what the pollers ask of the engine, and how a ref's move that only a poll has seen becomes an event.
//!
//! A poll is *reconciliation*: it finds what no hook and no webhook has told. Each repository has a *position*: for refs
//! that no recorded transition speaks of, where they stood when the repository was bound or last told of by a poll. The
//! unit that makes a poll's events durable moves the position, by compare-and-set, and the events' ids are made of its
//! version: so neither a crash nor a second engine tells a move twice. Which differences are moves is said by
//! `triggers::poll`, which is pure; whether somebody else told the same move, by `crate::pushes`.
//!
//! Deliberately absent: the waiting, and changed paths, which are looked up when the event is decided.

use std::{collections::BTreeMap, time::Duration};

use kickwheel_repos::{Origin, Retry, hook_state};
use kickwheel_schemas::{CloudEvent, Millis};
use kickwheel_store::{
    Write, WriteError, fault,
    rows::{RefHead, RepoRow},
    write::PutTriggerState,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Engine, read_failed, write_failed};
use crate::{
    ApiError, bus, origins, pushes,
    shared::{DEFAULT_PROJECT, Shared},
    twin,
};

/// How often a repository is looked at that nothing of ours tells about pushes.
const EVERY: Duration = Duration::from_secs(60);
/// The same for one whose post-receive hook is ours.
const EVERY_WITH_HOOK: Duration = Duration::from_secs(300);
/// Shortest interval that can be set, in milliseconds.
pub const MIN_POLL_MS: u64 = 1_000;
/// Longest interval that can be set, in milliseconds.
pub const MAX_POLL_MS: u64 = 24 * 3600 * 1000;

/// Name of a repository's position among the states of triggers; no trigger's name has a slash.
pub(super) fn position_name(repo: &str) -> String {
    format!("poll/{repo}")
}

/// A bound repository that is to be looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct PolledRepo {
    row: RepoRow,
    /// How often.
    pub every: Duration,
}

impl PolledRepo {
    /// The name that filters use.
    pub fn name(&self) -> &str {
        &self.row.name
    }

    /// As configured.
    pub fn url(&self) -> &str {
        &self.row.url
    }

    /// The default branch, when known.
    pub fn default_branch(&self) -> Option<&str> {
        self.row.default_branch.as_deref()
    }

    /// Whether this is asked in the same way as `other`: nothing but the notes about it has changed.
    pub fn is_asked_like(&self, other: &Self) -> bool {
        let how = |repo: &Self| {
            (repo.row.url.clone(), repo.row.secret.clone(), repo.row.access.clone(), repo.row.poll_ms, repo.every)
        };
        how(self) == how(other)
    }
}

/// Where a ref stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRef {
    /// What it pointed at, full hex; none: it was not there.
    pub commit: Option<String>,
    /// The newest transition that was recorded of it then; 0: none. A newer one says more than this.
    pub transition: u64,
}

/// What is kept of a repository between two looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollState {
    /// When it was looked at first: ids of events differ from those of an earlier binding.
    pub started: Millis,
    /// Refs of which no transition is recorded, or of which a poll has told since.
    pub refs: BTreeMap<String, SeenRef>,
}

impl PollState {
    /// All refs as they are now, so that only later moves count.
    pub(super) fn beginning(refs: impl Iterator<Item = (String, String)>, recorded: &[(String, RefHead)]) -> Self {
        let mut seen: BTreeMap<String, SeenRef> = recorded
            .iter()
            .map(|(name, head)| (name.clone(), SeenRef { commit: None, transition: head.transition }))
            .collect();
        for (name, commit) in refs {
            let transition = seen.get(&name).map_or(0, |s| s.transition);
            seen.insert(name, SeenRef { commit: Some(commit), transition });
        }
        Self { started: Millis::now(), refs: seen }
    }

    pub(super) fn as_write(&self, repo: &str, expected_version: u64) -> Write {
        Write::PutTriggerState(PutTriggerState {
            project: DEFAULT_PROJECT.to_owned(),
            trigger: position_name(repo),
            expected_version,
            state: serde_json::to_value(self).expect("states have string keys only"),
        })
    }
}

/// What is known of a repository's refs before its origin is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollPosition {
    /// What the next write expects; 0: nothing is kept yet.
    pub version: u64,
    /// What is kept; none before the first look.
    pub state: Option<PollState>,
    /// Where the recorded transitions have left each ref.
    pub recorded: BTreeMap<String, SeenRef>,
}

/// What an origin lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The default branch.
    pub default_branch: Option<String>,
    /// Full name to what it points at: for an annotated tag the tag object.
    pub refs: BTreeMap<String, String>,
}

/// An origin could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlisted {
    /// Why, and what to do.
    pub reason: String,
    /// It will not be different before a person has changed something.
    pub is_final: bool,
}

impl Engine {
    /// Returns when a repository was bound, changed or unbound.
    pub async fn repos_changed(&self) {
        self.shared.repos_changed.notified().await;
    }

    /// The repositories that are to be looked at.
    pub async fn polled_repos(&self) -> Result<Vec<PolledRepo>, ApiError> {
        let rows = self.shared.store.repos(Some(DEFAULT_PROJECT)).await.map_err(read_failed)?;
        let polled = |row: RepoRow| Some(PolledRepo { every: poll_every(&self.shared, &row)?, row });
        Ok(rows.into_iter().filter_map(polled).collect())
    }

    /// What is known of its refs. To be read *before* the origin is asked: then whatever is recorded later is younger
    /// than what the origin said.
    pub async fn poll_position(&self, repo: &PolledRepo) -> Result<PollPosition, ApiError> {
        let store = &self.shared.store;
        let kept = store.trigger_state(DEFAULT_PROJECT, &position_name(repo.name())).await.map_err(read_failed)?;
        let recorded = store.ref_heads(DEFAULT_PROJECT, repo.name()).await.map_err(read_failed)?;
        let seen =
            |(name, head): (String, RefHead)| (name, SeenRef { commit: head.commit, transition: head.transition });
        Ok(PollPosition {
            version: kept.as_ref().map_or(0, |kept| kept.version),
            state: kept.and_then(|kept| serde_json::from_value(kept.state).ok()),
            recorded: recorded.into_iter().map(seen).collect(),
        })
    }

    /// Asks its origin, and keeps what went wrong, or that nothing did, where `repos ls` shows it.
    pub async fn list_origin(&self, repo: &PolledRepo) -> Result<Listed, Unlisted> {
        let listed = self.ask(repo).await;
        match &listed {
            Ok(listed) => origins::note(&self.shared, &repo.row, listed.default_branch.clone(), None).await,
            Err(unlisted) => origins::note(&self.shared, &repo.row, None, Some(unlisted.reason.clone())).await,
        }
        listed
    }

    async fn ask(&self, repo: &PolledRepo) -> Result<Listed, Unlisted> {
        let unlisted = |reason: String, retry: Retry| Unlisted {
            reason,
            is_final: match retry {
                Retry::Now | Retry::Later => false,
                Retry::Stop => true,
            },
        };
        let mirror = origins::mirror_of(&self.shared, &repo.row).await;
        let mirror = mirror.map_err(|e| unlisted(e.to_string(), e.retry()))?;
        let heads = self.shared.mirrors.ls_remote(&mirror).await;
        let heads = heads.map_err(|e| unlisted(e.to_string(), e.retry()))?;
        let refs = heads.refs.into_iter().map(|r| (r.name, r.target)).collect();
        Ok(Listed { default_branch: heads.default_branch, refs })
    }

    /// Makes the events of a look durable and moves the position, all or nothing. Each event comes with the newest
    /// transition of its ref that was known. False when somebody else was faster: look again.
    pub async fn tell_polled(
        &self,
        repo: &PolledRepo,
        expected_version: u64,
        next: &PollState,
        events: Vec<(CloudEvent, u64)>,
    ) -> Result<bool, ApiError> {
        self.refuse_when_draining()?;
        let (at, told) = (Millis::now(), events.len());
        let cause = |(mut event, known): (CloudEvent, u64)| {
            event.extensions.insert(twin::KNOWN_TRANSITION.to_owned(), Value::from(known));
            bus::cause(&self.shared, DEFAULT_PROJECT, pushes::POLL, event, at)
        };
        let mut unit: Vec<Write> = events.into_iter().map(cause).collect();
        unit.push(next.as_write(repo.name(), expected_version));
        fault::point("poll.tell.before");
        match self.shared.store.write(unit).await {
            Ok(written) => {
                fault::point("poll.tell.after");
                if told > 0 {
                    bus::caused(&self.shared, &written);
                    tracing::info!(repo = repo.name(), events = told, "moved, and nobody but the poll has told");
                }
                Ok(true)
            }
            Err(WriteError::Stale { .. }) => Ok(false),
            Err(e) => Err(write_failed(e)),
        }
    }
}

/// How often a repository is polled; none: never.
pub(super) fn poll_every(shared: &Shared, row: &RepoRow) -> Option<Duration> {
    match row.poll_ms {
        Some(0) => None,
        Some(ms) => Some(Duration::from_millis(ms.clamp(MIN_POLL_MS, MAX_POLL_MS))),
        None if tells(shared, row) => Some(EVERY_WITH_HOOK),
        None => Some(EVERY),
    }
}

/// Whether the repository has a hook that tells us about pushes. It is looked at each time: a hook may be removed by hand.
pub(super) fn tells(shared: &Shared, row: &RepoRow) -> bool {
    Origin::parse(&row.url)
        .ok()
        .and_then(|origin| hook_state(origin.local_path()?).ok())
        .is_some_and(|state| state.tells(&row.name, &shared.folder.path("")))
}
