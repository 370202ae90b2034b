//! The paths that a push is said to have changed: every one of them, or why the list is not complete.

use std::collections::BTreeSet;

use kickwheel_schemas::payload::AnnouncedPaths;
use serde_json::Value;

use super::{
    super::{Refusal, body},
    push::Change,
};

/// Most bytes of paths that an event announces.
const MAX_PATHS_BYTES: usize = 128 * 1024;

/// Where a forge lists changed paths.
pub(in super::super) enum Lists<'p> {
    /// Nowhere, and why.
    Never(&'static str),
    /// In its commits, as `added`, `removed` and `modified`.
    Commits {
        commits: &'p [Value],
        /// Why commits may be missing.
        cut: Option<String>,
        /// Most files of a commit that are listed, where the forge says nothing of the rest.
        max_files: Option<usize>,
        /// Whether a list that is null is an empty one, as a Go program writes it.
        null_is_empty: bool,
    },
}

/// Every path that the listed commits name, or why that is not all.
pub(super) fn announced(change: Change<'_>, forced: bool, lists: &Lists<'_>) -> Result<AnnouncedPaths, Refusal> {
    let incomplete = |reason: String| Ok(AnnouncedPaths::incomplete(reason));
    if change == Change::Deleted {
        return Ok(AnnouncedPaths::Complete(Vec::new()));
    }
    let (commits, cut, max_files, null_is_empty) = match lists {
        Lists::Never(reason) => return incomplete((*reason).to_owned()),
        Lists::Commits { commits, cut, max_files, null_is_empty } => (*commits, cut, *max_files, *null_is_empty),
    };
    let Change::Updated { after } = change else {
        return incomplete("before is null: a new branch is compared with its merge-base".to_owned());
    };
    if let Some(cut) = cut {
        return incomplete(cut.clone());
    }
    let (Some(first), Some(last)) = (commits.first(), commits.last()) else {
        return incomplete("commits[] empty although trees differ".to_owned());
    };
    if forced {
        return incomplete("forced: commits[] does not say what was taken away".to_owned());
    }
    // Some list the newest first.
    if [first, last].iter().all(|commit| body::at(commit, "id").and_then(Value::as_str) != Some(after)) {
        return incomplete("commits[] does not end with after".to_owned());
    }
    let mut paths: BTreeSet<&str> = BTreeSet::new();
    for commit in commits {
        let mut files = 0;
        for name in ["added", "removed", "modified"] {
            let listed = match commit.get(name) {
                Some(Value::Array(listed)) => listed.as_slice(),
                Some(Value::Null) if null_is_empty => &[],
                None | Some(Value::Null) => return incomplete(format!("commits[] has no list {name}")),
                Some(_) => return Err(Refusal::shape(&format!("commits.{name}"), "a list")),
            };
            files += listed.len();
            for path in listed {
                let wrong = || Refusal::shape(&format!("commits.{name}"), "a list of texts");
                paths.insert(path.as_str().ok_or_else(wrong)?);
            }
        }
        if let Some(most) = max_files.filter(|most| files >= *most) {
            return incomplete(format!("the files of a commit may end at {most} of them"));
        }
    }
    if paths.iter().map(|path| path.len() + 3).sum::<usize>() > MAX_PATHS_BYTES {
        return incomplete(format!("{} paths are more than an event holds", paths.len()));
    }
    Ok(AnnouncedPaths::Complete(paths.into_iter().map(str::to_owned).collect()))
}
