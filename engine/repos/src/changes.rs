//! Which paths a push changed, computed from trees.
//!
//! The two trees are compared as they are; they need no common history. Renames are not detected, so a moved file counts
//! under its old and its new path. What the sender announced plays no part.

use git2::{DiffOptions, ErrorCode, Oid, Repository, Tree};

use crate::{fetch, mirrors::full_id};

/// Most paths of one push that are listed; more are *unknown*, so that no event grows without bound.
pub const MAX_CHANGED_PATHS: usize = 50_000;
/// Most bytes of all these paths together.
pub const MAX_CHANGED_PATH_BYTES: usize = 8 * 1024 * 1024;

/// What moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRange {
    /// Full hex id; `None` when the branch was created.
    pub before: Option<String>,
    /// Full hex id.
    pub after: String,
    /// The branch, without `refs/heads/`.
    pub branch: String,
    /// The repository's default branch; `None`: the mirror's own answer.
    pub default_branch: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangedPaths {
    /// Every path that was added, changed or removed, sorted, without duplicates.
    Complete(Vec<Vec<u8>>),
    /// It cannot be known, and why.
    Unknown(String),
}

/// An answer, or the commits that the mirror lacks for one.
pub(crate) enum Comparison {
    Known(ChangedPaths),
    Missing(Vec<String>),
}

/// See [`crate::Mirrors::lies_on`].
pub(crate) fn lies_on(mirror: &Repository, commit: &str, reference: &str) -> Result<bool, git2::Error> {
    let Some(named) = full_id(commit) else { return Ok(false) };
    let found = match mirror.find_reference(reference) {
        Ok(found) => found,
        Err(e) if matches!(e.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => return Ok(false),
        Err(e) => return Err(e),
    };
    // A ref may name what is no commit at all; then no commit lies on it.
    let (Ok(tip), Ok(commit)) =
        (found.peel_to_commit(), mirror.find_object(named, None).and_then(|object| object.peel_to_commit()))
    else {
        return Ok(false);
    };
    if tip.id() == commit.id() {
        return Ok(true);
    }
    // A tag is one commit, and what came before it was never tagged.
    if !reference.starts_with("refs/heads/") {
        return Ok(false);
    }
    mirror.graph_descendant_of(tip.id(), commit.id())
}

/// Which of the pairs are (ancestor or the same, commit).
pub(crate) fn ancestry(mirror: &Repository, pairs: &[(String, String)]) -> Result<Vec<bool>, git2::Error> {
    let mut answers = Vec::with_capacity(pairs.len());
    for (older, newer) in pairs {
        let (Some(older), Some(newer)) = (full_id(older), full_id(newer)) else {
            answers.push(false);
            continue;
        };
        answers.push(
            older == newer
                || match mirror.graph_descendant_of(newer, older) {
                    Ok(descends) => descends,
                    Err(e) if e.code() == ErrorCode::NotFound => false,
                    Err(e) => return Err(e),
                },
        );
    }
    Ok(answers)
}

/// Compares within the mirror.
///
/// Without a `before`, a new branch is compared with its merge base with the default branch; the default branch itself,
/// and one without common history, with the empty tree.
pub(crate) fn compare(mirror: &Repository, range: &PushRange) -> Result<Comparison, git2::Error> {
    let unknown = |reason: String| Ok(Comparison::Known(ChangedPaths::Unknown(reason)));
    let mut missing = Vec::new();
    let mut trees = Vec::new();
    for text in range.before.iter().chain([&range.after]) {
        let Some(id) = full_id(text) else {
            return unknown(format!("{text:?} is no id of a SHA-1 repository, the only kind that can be read"));
        };
        match tree_of(mirror, id)? {
            Some(found) => trees.push((id, found)),
            None => missing.push(text.clone()),
        }
    }
    if !missing.is_empty() {
        return Ok(Comparison::Missing(missing));
    }
    let (after_id, after) = trees.pop().expect("`after` was looked up last and is not missing");
    let before = match trees.pop() {
        Some((_, tree)) => Some(tree),
        None => branch_point(mirror, range, after_id)?,
    };
    changed(mirror, before.as_ref(), &after).map(Comparison::Known)
}

fn tree_of(mirror: &Repository, id: Oid) -> Result<Option<Tree<'_>>, git2::Error> {
    match mirror.find_object(id, None) {
        Ok(object) => object.peel_to_tree().map(Some),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The tree that a new branch is compared with; `None` is the empty tree.
fn branch_point<'m>(mirror: &'m Repository, range: &PushRange, after: Oid) -> Result<Option<Tree<'m>>, git2::Error> {
    let default = match &range.default_branch {
        Some(name) => Some(name.clone()),
        None => fetch::head(mirror)?.map(|head| head.branch),
    };
    let Some(default) = default.filter(|name| *name != range.branch) else {
        return Ok(None);
    };
    let head = match mirror.refname_to_id(&format!("refs/heads/{default}")) {
        Ok(id) => id,
        Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => return Ok(None),
        Err(error) => return Err(error),
    };
    match mirror.merge_base(after, head) {
        Ok(base) => mirror.find_commit(base)?.tree().map(Some),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn changed(mirror: &Repository, before: Option<&Tree<'_>>, after: &Tree<'_>) -> Result<ChangedPaths, git2::Error> {
    let mut options = DiffOptions::new();
    options.ignore_submodules(false).include_typechange(true);
    let diff = mirror.diff_tree_to_tree(before, Some(after), Some(&mut options))?;
    let mut paths = Vec::with_capacity(diff.deltas().len());
    let mut bytes = 0;
    for delta in diff.deltas() {
        for path in [delta.old_file().path_bytes(), delta.new_file().path_bytes()].into_iter().flatten() {
            if paths.last().is_some_and(|last: &Vec<u8>| last == path) {
                continue;
            }
            bytes += path.len();
            paths.push(path.to_vec());
        }
        if paths.len() > MAX_CHANGED_PATHS || bytes > MAX_CHANGED_PATH_BYTES {
            return Ok(ChangedPaths::Unknown(format!(
                "it changed more than {MAX_CHANGED_PATHS} paths or {MAX_CHANGED_PATH_BYTES} bytes of paths"
            )));
        }
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(ChangedPaths::Complete(paths))
}
