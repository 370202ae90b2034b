//! What makes an event start a workflow.
//!
//! A decision is pure: the event, what the repositories' mirror says about changed paths, and the filter give a
//! [`Verdict`] that names the first clause which failed and the value it saw. `explain` computes it again from the same
//! stored facts, so nothing has to be kept for the events that started nothing.

use indexmap::IndexMap;
use kickwheel_schemas::CloudEvent;
use serde::{Deserialize, Serialize};

use crate::expr::{Expr, Template};

/// One entry below `on:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventFilter {
    /// `id:`, a name for people.
    pub id: Option<String>,
    /// What it looks for.
    pub kind: FilterKind,
    /// `where:`, narrows further; reads `event`.
    pub condition: Option<Expr>,
    /// `with:`, gives inputs from the event.
    pub with: IndexMap<String, Template>,
}

/// The kinds of filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FilterKind {
    /// `git.push`: a branch was created or updated.
    GitPush {
        /// Names of repositories; empty: any of the project.
        repos: Vec<String>,
        /// Globs, `!` excludes, the last match wins; empty: any branch.
        branches: Vec<String>,
        /// Globs over changed paths, `!` excludes, the last match wins per path; empty: no path filter.
        paths: Vec<String>,
    },
    /// `dataset.changed`: a version with changed data was published.
    DatasetChanged {
        /// Names; empty: any of the project.
        datasets: Vec<String>,
    },
    /// `manual`: started by a person.
    Manual,
    /// `event: {type, where}`.
    Event {
        /// The event types.
        types: Vec<String>,
    },
}

/// What is known about the paths that a push changed. Paths are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "known", rename_all = "snake_case")]
pub enum ChangedPaths {
    /// Not a push.
    NotApplicable,
    /// The complete list.
    Complete {
        /// Each path as bytes.
        paths: Vec<Vec<u8>>,
    },
    /// The list could not be had.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// What one event means for one filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Every clause holds. `unknown` names clauses that could not be decided and therefore start the run.
    Matches {
        /// For people, empty when all is known.
        unknown: Vec<String>,
    },
    /// A clause failed.
    Filtered {
        /// The clause: `type`, `repo`, `branches`, `paths`, `dataset`, `where`.
        clause: String,
        /// What the filter wants.
        wanted: String,
        /// What the event has.
        seen: String,
    },
}

/// Judges one filter. A `where` that cannot be evaluated is *unknown*: it starts the run and says why.
pub fn judge(filter: &EventFilter, event: &CloudEvent, changed: &ChangedPaths) -> Verdict {
    let _ = (filter, event, changed);
    todo!()
}
