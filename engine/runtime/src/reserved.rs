//! What nobody outside may claim: our own types and our own sources.
//!
//! An event is known by its source and its id, whoever sent it, so whoever could send under a source of ours could take
//! the identity of a tick or of a push before it happens, and the true one would then be dropped as seen before. Every
//! door for foreign events asks here: the CloudEvents webhook, `/events` and the `kafka` triggers, also when something
//! that was kept is edited or replayed. Only a provider's preset and the engine itself make what is refused here.
//!
//! [`refuse_reserved`] is pure: which sources are configured (bound repositories, watched datasets) comes in with the
//! question. [`Configured`] remembers them for a moment, so that asking for each event costs no query.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kickwheel_schemas::{CloudEvent, payload::OUR_TYPES};
use kickwheel_store::{ReadError, Store};

use crate::shared::DEFAULT_PROJECT;

/// What begins the sources of events that are made here: by schedules, by runs, by people who start a workflow, by
/// webhook triggers under their own names, and of topics' plain records.
pub const OUR_SOURCES: [&str; 5] = ["/cron/", "/kickwheel/", "/manual/", "/hooks/", "kafka:"];

/// Why an event from outside is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reserved {
    /// Its type is ours.
    #[error(
        "events of the type {ty:?} are made here only, by a provider's trigger or by the engine itself; give it a type of your own"
    )]
    Type {
        /// As sent.
        ty: String,
    },
    /// Its source begins like those of events that are made here.
    #[error("sources that begin with {prefix:?} are ours, and {origin:?} does; give it a source of your own")]
    Source {
        /// As sent.
        origin: String,
        /// What is ours about it.
        prefix: &'static str,
    },
    /// Its source is a bound repository or a watched dataset.
    #[error(
        "the source {origin:?} is a repository or a dataset that is configured here, and only its own trigger speaks for it; \
         give it a source of your own"
    )]
    Configured {
        /// As sent.
        origin: String,
    },
}

impl Reserved {
    /// The stable code, explained in `docs/errors.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Type { .. } => "type_reserved",
            Self::Source { .. } | Self::Configured { .. } => "source_reserved",
        }
    }
}

/// Refuses what an event from outside may not claim. `is_configured` says whether a source is that of something bound or
/// watched here; who cannot know it yet says no, and asks again where it is known.
pub fn refuse_reserved(event: &CloudEvent, is_configured: impl Fn(&str) -> bool) -> Result<(), Reserved> {
    refuse_reserved_type(&event.ty)?;
    let origin = || event.source.clone();
    if let Some(prefix) = OUR_SOURCES.into_iter().find(|prefix| event.source.starts_with(prefix)) {
        return Err(Reserved::Source { origin: origin(), prefix });
    }
    if is_configured(&event.source) { Err(Reserved::Configured { origin: origin() }) } else { Ok(()) }
}

/// The part of it that concerns the type alone: for senders whose source is not their own choice.
pub fn refuse_reserved_type(ty: &str) -> Result<(), Reserved> {
    if ty.starts_with(OUR_TYPES) { Err(Reserved::Type { ty: ty.to_owned() }) } else { Ok(()) }
}

/// How long what was read of the configuration is believed, when another engine may have changed it.
const BELIEVED: Duration = Duration::from_secs(1);

/// The sources that belong to what is configured here.
#[derive(Debug, Default)]
pub struct Configured(Mutex<Option<(Arc<BTreeSet<String>>, Instant)>>);

impl Configured {
    /// All of them, as of a moment ago. While the database is away what was read last holds, so that events still reach
    /// a bus that is there.
    pub async fn sources(&self, store: &Store) -> Result<Arc<BTreeSet<String>>, ReadError> {
        let known = self.0.lock().expect("no holder of this lock panics").clone();
        if let Some((sources, read)) = &known
            && read.elapsed() < BELIEVED
        {
            return Ok(Arc::clone(sources));
        }
        match read(store).await {
            Ok(sources) => {
                let sources = Arc::new(sources);
                *self.0.lock().expect("no holder of this lock panics") = Some((Arc::clone(&sources), Instant::now()));
                Ok(sources)
            }
            Err(e) => known.map(|(sources, _)| sources).ok_or(e),
        }
    }

    /// Something was bound or watched here: it counts at once.
    pub fn changed(&self) {
        *self.0.lock().expect("no holder of this lock panics") = None;
    }
}

async fn read(store: &Store) -> Result<BTreeSet<String>, ReadError> {
    let repos = store.repos(Some(DEFAULT_PROJECT)).await?.into_iter().map(|row| row.url);
    let watches = store.watches(Some(DEFAULT_PROJECT)).await?.into_iter().map(|row| watched_source(&row.path));
    Ok(repos.chain(watches).collect())
}

/// The source of a watched dataset's events.
pub fn watched_source(path: &str) -> String {
    format!("file://{path}")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn check(source: &str, ty: &str, expected: Option<&str>) {
        let event = CloudEvent::new(source, "1", ty, Value::Null);
        let answer = refuse_reserved(&event, |source| source == "https://git.example/churn.git");
        assert_eq!(answer.err().map(|reserved| reserved.code()), expected, "{source} {ty}");
    }

    #[test]
    fn nobody_outside_speaks_as_we_do() {
        check("/shop", "com.example.order", None);
        check("/shop", "dev.kickwheel.git.branch.updated", Some("type_reserved"));
        for ours in ["/cron/nightly", "/kickwheel/default", "/manual/default", "/hooks/billing", "kafka:orders"] {
            check(ours, "com.example.order", Some("source_reserved"));
        }
        check("/cronies", "com.example.order", None);
        check("https://git.example/churn.git", "com.example.order", Some("source_reserved"));
        check("https://git.example/churn", "com.example.order", None);
    }
}
