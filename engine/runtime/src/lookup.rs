//! What must be known of the outside world before an event can be decided: for a push, the commit's true changed paths
//! and its workflow files, from our own mirror and never from what the sender says.

use std::sync::Arc;

use kickwheel_core::{
    event::{PinnedSource, RunRef},
    filter::{ChangedPaths, Facts},
};
use kickwheel_repos::{FetchError, MirrorId, PushRange, Retry};
use kickwheel_schemas::{Millis, payload};
use kickwheel_store::{
    EventKey, Write,
    rows::{EventRow, RepoRow},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    origins,
    registry::{Entry, Registry, compile_commit},
    shared::{DEFAULT_PROJECT, Shared},
};

/// How long an unreachable repository holds up its lane, from the receipt of the event.
const DEADLINE_MS: u64 = 10 * 60 * 1000;
/// Between two tries.
const RETRY_MS: u64 = 2_000;
/// Between two tries where a person has to change something first, a secret for example: often enough to go on soon after
/// that, and seldom enough that no server takes us for somebody who guesses passwords.
const PERSON_RETRY_MS: u64 = 15_000;

/// What was learnt from outside; kept with the decision, so that `explain` sees the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Enrichment {
    /// The true changed paths.
    pub changed: ChangedPaths,
    /// The bound repository that the event concerns.
    pub repo: Option<String>,
    /// The branch, for branch events.
    pub branch: Option<String>,
    /// Whether it is the default branch.
    pub on_default_branch: bool,
    /// The commit that runs for this event use.
    pub source: Option<PinnedSource>,
    /// The workflow files of the pushed commit.
    pub pushed: Option<Vec<Entry>>,
    /// The event that told the same push before, by another channel: nothing is started a second time.
    #[serde(default)]
    pub told_by: Option<EventKey>,
    /// The ref was further on already when this move was told: it counts as older than what came after it.
    #[serde(default)]
    pub late: bool,
    /// The ref whose rights runs for this event have.
    #[serde(default)]
    pub reference: RunRef,
    /// Why they have none, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

impl Enrichment {
    /// For an event that needs nothing from outside.
    pub fn none() -> Self {
        Self {
            changed: ChangedPaths::NotApplicable,
            repo: None,
            branch: None,
            on_default_branch: false,
            source: None,
            pushed: None,
            told_by: None,
            late: false,
            reference: RunRef::Unrecorded,
            doubt: None,
        }
    }

    /// What filters are judged by, beside the event.
    pub fn facts(&self) -> Facts<'_> {
        Facts { changed: &self.changed, repo: self.repo.as_deref() }
    }

    /// The workflow files that apply: the registry's, with the pushed commit's in place of its repository's.
    pub fn entries(&self, registry: &Registry) -> Vec<Entry> {
        match (&self.repo, &self.pushed) {
            (Some(repo), Some(pushed)) => registry.overlaid(repo, pushed),
            _ => registry.entries.clone(),
        }
    }

    /// A push to the default branch brings its files into the registry, once the mirror has confirmed that they are there.
    pub fn registry_change(&self) -> Option<(&str, &[Entry])> {
        match (&self.repo, &self.pushed) {
            (Some(repo), Some(pushed)) if self.on_default_branch && !self.late && self.doubt.is_none() => {
                Some((repo, pushed))
            }
            _ => None,
        }
    }
}

/// What looking came to.
pub enum Looked {
    /// Enough is known, and these plans are to be stored.
    Found(Box<Enrichment>, Vec<Write>),
    /// The outside world does not answer.
    Later {
        /// Why.
        reason: String,
        /// When to look again.
        until: Millis,
    },
    /// It can never be decided.
    Never {
        /// Why, and what to do.
        reason: String,
    },
}

/// Looks up what an event needs.
pub async fn look_up(shared: &Arc<Shared>, row: &EventRow) -> Looked {
    let found = |enrichment| Looked::Found(Box::new(enrichment), Vec::new());
    let text = |name: &str| row.event.data.get(name).and_then(Value::as_str);
    let is_branch = [payload::GIT_BRANCH_CREATED, payload::GIT_BRANCH_UPDATED, payload::GIT_BRANCH_DELETED]
        .contains(&row.event.ty.as_str());
    let is_tag =
        [payload::GIT_TAG_CREATED, payload::GIT_TAG_UPDATED, payload::GIT_TAG_DELETED].contains(&row.event.ty.as_str());
    if !is_branch && !is_tag {
        return found(Enrichment::none());
    }
    let repo = match shared.store.repos(Some(DEFAULT_PROJECT)).await {
        Ok(repos) => repos.into_iter().find(|r| r.url == row.event.source),
        Err(e) => return later(row, format!("repositories cannot be read: {e}"), RETRY_MS),
    };
    let Some(repo) = repo else {
        return Looked::Never {
            reason: format!(
                "no bound repository has the URL {}; bind it with `kickwheel repos add`; what is pushed from then on is decided",
                row.event.source
            ),
        };
    };
    let branch = text("branch").filter(|_| is_branch).map(str::to_owned);
    let named = match (&branch, text("tag").filter(|_| is_tag)) {
        (Some(name), _) => Some(Named::Branch(name.clone())),
        (None, Some(name)) => Some(Named::Tag(name.to_owned())),
        (None, None) => None,
    };
    // What is gone, or has no name, confers no rights.
    let bare = Enrichment { repo: Some(repo.name.clone()), branch, reference: RunRef::Nothing, ..Enrichment::none() };
    let (Some(after), Some(named)) = (text("after"), named) else { return found(bare) };
    push(shared, row, &repo, bare, &named, after).await
}

/// What was pushed.
enum Named {
    Branch(String),
    Tag(String),
}

impl Named {
    /// In full.
    fn reference(&self) -> String {
        match self {
            Self::Branch(name) => format!("refs/heads/{name}"),
            Self::Tag(name) => format!("refs/tags/{name}"),
        }
    }
}

async fn push(
    shared: &Arc<Shared>,
    row: &EventRow,
    repo: &RepoRow,
    bare: Enrichment,
    named: &Named,
    after: &str,
) -> Looked {
    let mirror = match origins::mirror_of(shared, repo).await {
        Ok(mirror) => mirror,
        Err(e) => return not_asked(shared, row, repo, e.to_string(), e.retry()).await,
    };
    match shared.mirrors.fetch(&mirror, &[after.to_owned()]).await {
        Ok(_) => {}
        Err(e @ FetchError::Gone { .. }) => {
            return Looked::Never { reason: format!("{e}; nothing can be run for it") };
        }
        Err(e) => {
            return not_asked(shared, row, repo, e.to_string(), e.retry()).await;
        }
    }
    origins::note(shared, repo, None, None).await;
    match describe_push(shared, row, repo, &mirror, bare, named, after).await {
        Ok((enrichment, plans)) => Looked::Found(Box::new(enrichment), plans),
        Err(reason) => later(row, reason, RETRY_MS),
    }
}

/// The repository could not be asked.
async fn not_asked(shared: &Shared, row: &EventRow, repo: &RepoRow, reason: String, retry: Retry) -> Looked {
    origins::note(shared, repo, None, Some(reason.clone())).await;
    match retry {
        Retry::Now | Retry::Later => later(row, reason, RETRY_MS),
        // A wrong credential, say: nothing is wrong with the push, and whoever mends it has the same time as a server.
        Retry::Stop => later(row, reason, PERSON_RETRY_MS),
    }
}

async fn describe_push(
    shared: &Arc<Shared>,
    row: &EventRow,
    repo: &RepoRow,
    mirror: &MirrorId,
    bare: Enrichment,
    named: &Named,
    after: &str,
) -> Result<(Enrichment, Vec<Write>), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let head = shared.mirrors.head(mirror).await.map_err(|e| text(&e))?;
    let default_branch = head.map(|h| h.branch);
    let changed = match named {
        Named::Branch(branch) => {
            let range = PushRange {
                before: row.event.data.get("before").and_then(Value::as_str).map(str::to_owned),
                after: after.to_owned(),
                branch: branch.clone(),
                default_branch: default_branch.clone(),
            };
            match shared.mirrors.changed_paths(mirror, &range).await.map_err(|e| text(&e))? {
                kickwheel_repos::ChangedPaths::Complete(paths) => ChangedPaths::Complete { paths },
                kickwheel_repos::ChangedPaths::Unknown(reason) => ChangedPaths::Unknown { reason },
            }
        }
        Named::Tag(_) => ChangedPaths::NotApplicable,
    };
    // A tag may be an object of its own, and may name what is no commit: then there is nothing to run from.
    let Some(commit) = shared.mirrors.commit_of(mirror, after).await.map_err(|e| text(&e))? else {
        return Ok((bare, Vec::new()));
    };
    let reference = named.reference();
    let is_there = shared.mirrors.lies_on(mirror, after, &reference).await.map_err(|e| text(&e))?;
    let doubt = (!is_there).then(|| {
        let short: String = commit.chars().take(10).collect();
        format!("{short} does not lie on {reference} in the repository (any more), so it has no rights of that ref")
    });
    let tree = shared.mirrors.tree(mirror, &commit).await.map_err(|e| text(&e))?;
    let files = shared.mirrors.workflow_files(mirror, &commit).await.map_err(|e| text(&e))?;
    let registry = shared.registry();
    let others = registry.entries.iter().filter(|e| e.origin.repo() != Some(repo.name.as_str()));
    let compiled = compile_commit(shared, &repo.name, &commit, &tree, &files, others);
    let on_default_branch = match named {
        Named::Branch(branch) => default_branch.as_ref() == Some(branch),
        Named::Tag(_) => false,
    };
    origins::note(shared, repo, default_branch, None).await;
    let source = PinnedSource { repo: repo.name.clone(), commit, tree };
    let enrichment = Enrichment {
        changed,
        on_default_branch,
        source: Some(source),
        pushed: Some(compiled.entries),
        reference: if is_there { RunRef::Confirmed(reference) } else { RunRef::Nothing },
        doubt,
        ..bare
    };
    Ok((enrichment, compiled.plans))
}

fn later(row: &EventRow, reason: String, retry_ms: u64) -> Looked {
    let now = Millis::now();
    if now.since(row.received_at) > DEADLINE_MS {
        return Looked::Never {
            reason: format!(
                "{reason}; it was tried for {} minutes; when this is mended, start the workflow by hand or push again",
                DEADLINE_MS / 60_000
            ),
        };
    }
    Looked::Later { reason, until: now.plus(retry_ms) }
}
