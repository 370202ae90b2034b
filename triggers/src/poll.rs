//! The poller: finds pushes that no hook and no webhook has told of.
//!
//! Each bound repository's branches and tags are listed regularly and compared with what is recorded ([`compare`], pure).
//! A difference becomes an event only after a grace, so that hooks and webhooks, which know more (who pushed, the states
//! in between), come first; what they tell later is found to be the same push by the recorded transitions. An origin that
//! does not answer is asked less and less often, and one that cannot answer before a person has changed something, such
//! as its credentials, hardly at all; the reason is shown with the repository.
//!
//! Nothing here is stored but the position of each repository (`kickwheel_runtime::engine::polling`): what else is in memory is
//! found out again after a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kickwheel_runtime::{Engine, PollPosition, PollState, PolledRepo, SeenRef};
use kickwheel_schemas::{CloudEvent, Millis, api::PostReceive};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::git::{BoundRepo, translate_post_receive};

/// The bound repositories are read this often when nobody says that they have changed.
const ROWS_EVERY: Duration = Duration::from_secs(5);
/// Repositories that are asked side by side.
const AT_ONCE: usize = 8;
/// Longest time between two looks at an origin that does not answer.
const BACKOFF_MAX: Duration = Duration::from_secs(600);
/// Between two looks at an origin that cannot answer before a person has changed something.
const FINAL_EVERY: Duration = Duration::from_secs(900);
/// After the database refused.
const PAUSE: Duration = Duration::from_secs(1);
/// Moves that are told at once; the others are told right after them.
const MAX_MOVES: usize = 500;
/// Stands for *absent* in the lines that Git's hooks get.
const ZEROS: &str = "0000000000000000000000000000000000000000";

/// A difference that waits for somebody else to tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    /// Where the ref should stand, and the newest transition that says so: another one means that somebody has told.
    expected: (Option<String>, u64),
    since: Millis,
}

/// Differences by ref.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patience(BTreeMap<String, Waiting>);

/// A ref that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// In full.
    pub name: String,
    /// Where it stood; none: nowhere.
    pub before: Option<String>,
    /// Where it stands; none: it is gone.
    pub after: Option<String>,
    /// The newest transition of it that is recorded; 0: none.
    pub known: u64,
}

/// What a look came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Moves to tell of now.
    pub moves: Vec<Move>,
    /// What is to be kept with them; none when nothing has to be.
    pub next: Option<PollState>,
    /// When to look again at the latest, from now; none: when it is due anyway.
    pub again: Option<Duration>,
}

/// Compares what an origin lists with what is known of it. At the first look at a repository, refs of which nothing is
/// recorded are taken as they are: binding a repository starts nothing for its old branches.
pub fn compare(
    position: &PollPosition,
    listed: &BTreeMap<String, String>,
    patience: &mut Patience,
    now: Millis,
    grace: Duration,
) -> Look {
    let is_first = position.state.is_none();
    let mut next = position.state.clone().unwrap_or_else(|| PollState { started: now, refs: BTreeMap::new() });
    if is_first {
        let unknown = listed.iter().filter(|(name, _)| !position.recorded.contains_key(*name));
        next.refs.extend(
            unknown.map(|(name, commit)| (name.clone(), SeenRef { commit: Some(commit.clone()), transition: 0 })),
        );
    }
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let (mut moves, mut again) = (Vec::new(), None);
    let names: BTreeSet<&String> = listed.keys().chain(position.recorded.keys()).chain(next.refs.keys()).collect();
    let mut still = Patience::default();
    for name in names {
        let known = position.recorded.get(name);
        let expected = expected(known, next.refs.get(name));
        let after = listed.get(name);
        if after == expected.as_ref() || (after.is_none() && may_be_bytes(name)) {
            continue;
        }
        let known = known.map_or(0, |seen| seen.transition);
        let key = (expected.clone(), known);
        let since = patience.0.get(name).filter(|w| w.expected == key).map_or(now, |w| w.since);
        let waited = now.since(since);
        if waited >= grace_ms && moves.len() < MAX_MOVES {
            moves.push(Move { name: name.clone(), before: expected, after: after.cloned(), known });
        } else {
            let left = Duration::from_millis(grace_ms.saturating_sub(waited));
            again = Some(again.map_or(left, |other: Duration| other.min(left)));
            still.0.insert(name.clone(), Waiting { expected: key, since });
        }
    }
    *patience = still;
    for told in &moves {
        next.refs.insert(told.name.clone(), SeenRef { commit: told.after.clone(), transition: told.known });
    }
    // A newer transition says all that is to be said about a ref.
    next.refs.retain(|name, seen| position.recorded.get(name).is_none_or(|r| r.transition <= seen.transition));
    let next = (is_first || !moves.is_empty()).then_some(next);
    Look { moves, next, again }
}

/// Where a ref should stand: the younger of what is recorded and what a poll has told or found at first.
fn expected(recorded: Option<&SeenRef>, seen: Option<&SeenRef>) -> Option<String> {
    match (recorded, seen) {
        (Some(recorded), Some(seen)) if recorded.transition <= seen.transition => seen.commit.clone(),
        (Some(recorded), _) => recorded.commit.clone(),
        (None, Some(seen)) => seen.commit.clone(),
        (None, None) => None,
    }
}

/// Whether a recorded name may stand for one that is not UTF-8 (see [`crate::git`]): lists leave those out, so that it is
/// missing there says nothing.
fn may_be_bytes(name: &str) -> bool {
    name.as_bytes()
        .windows(3)
        .any(|w| w[0] == b'%' && matches!(w[1], b'8' | b'9' | b'A'..=b'F') && matches!(w[2], b'0'..=b'9' | b'A'..=b'F'))
}

/// The moves as events: those that the repository's own hook would have made, with ids that depend on nothing but the
/// position that was moved on. Each with the newest transition that was known.
pub fn translate(repo: &BoundRepo, position: &PollPosition, look: &Look, now: Millis) -> Vec<(CloudEvent, u64)> {
    let Some(next) = &look.next else { return Vec::new() };
    let delivery = format!("poll-{}-{}", next.started.0, position.version);
    let line = |id: &Option<String>| id.clone().unwrap_or_else(|| ZEROS.to_owned());
    let push = |index: usize, moved: &Move| PostReceive {
        delivery: format!("{delivery}-{index}"),
        repo: repo.name.clone(),
        lines_hex: vec![to_hex(&format!("{} {} {}", line(&moved.before), line(&moved.after), moved.name))],
        push_options: Vec::new(),
        actor: None,
        traceparent: None,
        time: now.to_rfc3339(),
    };
    let mut events = Vec::new();
    for (index, moved) in look.moves.iter().enumerate() {
        match translate_post_receive(&push(index, moved), repo) {
            Ok(translated) => events.extend(translated.into_iter().map(|event| (event, moved.known))),
            Err(e) => warn!(repo = repo.name, "a move is left out: failed to {e}"),
        }
    }
    events
}

fn to_hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// What is in memory of a repository.
struct Watched {
    repo: PolledRepo,
    due: Instant,
    failures: u32,
    patience: Patience,
    /// It is being looked at.
    is_busy: bool,
}

/// What a look at a repository came to, for the loop.
struct Looked {
    name: String,
    patience: Patience,
    outcome: Outcome,
}

enum Outcome {
    /// Look again when it is due, or earlier.
    Fine { again: Option<Duration> },
    /// The origin does not answer.
    Away { is_final: bool },
    /// The database does not.
    Paused,
}

/// Polls until the engine stops.
pub async fn poll_for_ever(engine: Engine) {
    let stopped = engine.stopped();
    let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
    let mut looks: JoinSet<Looked> = JoinSet::new();
    loop {
        if engine.leads() {
            match engine.polled_repos().await {
                Ok(repos) => refresh(&mut watched, repos),
                Err(e) => debug!("repositories cannot be read: {e}"),
            }
            start_looks(&engine, &mut watched, &mut looks);
        } else {
            watched.clear();
        }
        let now = Instant::now();
        let due = watched.values().filter(|w| !w.is_busy).map(|w| w.due.saturating_duration_since(now)).min();
        let full = looks.len() >= AT_ONCE;
        let wait = due.filter(|_| !full).map_or(ROWS_EVERY, |due| due.min(ROWS_EVERY));
        tokio::select! {
            Some(ended) = looks.join_next(), if !looks.is_empty() => match ended {
                Ok(looked) => settle(&mut watched, looked),
                // Its repository stays marked as busy only until it is read anew.
                Err(e) => {
                    warn!("a look ended badly: {e}");
                    watched.clear();
                }
            },
            () = engine.repos_changed() => {
                // Somebody has changed something, so what was hopeless may not be any more.
                for w in watched.values_mut().filter(|w| w.failures > 0) {
                    w.due = Instant::now();
                }
            }
            () = tokio::time::sleep(wait) => {}
            () = stopped.cancelled() => return,
        }
    }
}

/// Takes over which repositories there are. One that is new, or is asked otherwise now, is looked at at once.
fn refresh(watched: &mut BTreeMap<String, Watched>, repos: Vec<PolledRepo>) {
    watched.retain(|name, _| repos.iter().any(|repo| repo.name() == name));
    for repo in repos {
        match watched.get_mut(repo.name()) {
            Some(known) if known.repo.is_asked_like(&repo) => known.repo = repo,
            Some(known) => {
                (known.repo, known.due, known.failures) = (repo, Instant::now(), 0);
            }
            None => {
                let name = repo.name().to_owned();
                let (due, patience) = (Instant::now(), Patience::default());
                watched.insert(name, Watched { repo, due, failures: 0, patience, is_busy: false });
            }
        }
    }
}

fn start_looks(engine: &Engine, watched: &mut BTreeMap<String, Watched>, looks: &mut JoinSet<Looked>) {
    let now = Instant::now();
    let mut due: Vec<&mut Watched> = watched.values_mut().filter(|w| !w.is_busy && w.due <= now).collect();
    due.sort_by_key(|w| w.due);
    for w in due {
        if looks.len() >= AT_ONCE {
            return;
        }
        w.is_busy = true;
        let (engine, repo, mut patience) = (engine.clone(), w.repo.clone(), std::mem::take(&mut w.patience));
        looks.spawn(async move {
            let outcome = look(&engine, &repo, &mut patience).await;
            Looked { name: repo.name().to_owned(), patience, outcome }
        });
    }
}

fn settle(watched: &mut BTreeMap<String, Watched>, looked: Looked) {
    let Some(w) = watched.get_mut(&looked.name) else { return };
    (w.is_busy, w.patience) = (false, looked.patience);
    let wait = match looked.outcome {
        Outcome::Fine { again } => {
            w.failures = 0;
            again.map_or(w.repo.every, |again| again.min(w.repo.every))
        }
        Outcome::Away { is_final } => {
            w.failures = w.failures.saturating_add(1);
            backoff(w.repo.every, w.failures, is_final)
        }
        Outcome::Paused => PAUSE,
    };
    w.due = Instant::now() + wait;
}

/// How long to leave an origin alone after so many failures in a row.
fn backoff(every: Duration, failures: u32, is_final: bool) -> Duration {
    if is_final {
        return FINAL_EVERY.max(every);
    }
    let doubled = every.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MAX.max(every))
}

async fn look(engine: &Engine, repo: &PolledRepo, patience: &mut Patience) -> Outcome {
    // The position comes first: what is recorded after it is younger than what the origin says.
    let position = match engine.poll_position(repo).await {
        Ok(position) => position,
        Err(e) => {
            debug!(repo = repo.name(), "its position cannot be read: {e}");
            return Outcome::Paused;
        }
    };
    let listed = match engine.list_origin(repo).await {
        Ok(listed) => listed,
        Err(unlisted) => {
            debug!(repo = repo.name(), "it cannot be looked at: {}", unlisted.reason);
            return Outcome::Away { is_final: unlisted.is_final };
        }
    };
    let now = Millis::now();
    let found = compare(&position, &listed.refs, patience, now, engine.config().poll_grace);
    let Some(next) = &found.next else { return Outcome::Fine { again: found.again } };
    let bound = BoundRepo {
        name: repo.name().to_owned(),
        url: repo.url().to_owned(),
        default_branch: listed.default_branch.or_else(|| repo.default_branch().map(str::to_owned)),
    };
    let events = translate(&bound, &position, &found, now);
    match engine.tell_polled(repo, position.version, next, events).await {
        Ok(true) => Outcome::Fine { again: found.again },
        Ok(false) => Outcome::Fine { again: Some(Duration::ZERO) },
        Err(e) => {
            debug!(repo = repo.name(), "its moves are not told yet: {e}");
            Outcome::Paused
        }
    }
}

#[cfg(test)]
mod tests;
