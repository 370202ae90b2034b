//! Which paths of a source tree are taken: a list of globs over bytes.
//!
//! `*` and `?` do not cross `/`, `**` does; `!` excludes; the last glob that matches a path decides. An empty list takes
//! everything, and so does, for what it does not exclude, a list of exclusions only.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Compiled globs.
#[derive(Clone, Debug)]
pub struct Selection {
    set: GlobSet,
    /// Per glob: whether a match takes the path.
    takes: Vec<bool>,
    by_default: bool,
}

/// A glob that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the glob {glob:?}: {reason}")]
pub struct SelectionError {
    /// As written.
    pub glob: String,
    /// What is wrong.
    pub reason: String,
}

impl Selection {
    /// Takes every path.
    pub fn all() -> Self {
        Self { set: GlobSet::empty(), takes: Vec::new(), by_default: true }
    }

    /// Compiles `globs`.
    pub fn new<G: AsRef<str>>(globs: &[G]) -> Result<Self, SelectionError> {
        let mut builder = GlobSetBuilder::new();
        let mut takes = Vec::with_capacity(globs.len());
        for glob in globs {
            let text = glob.as_ref();
            let (pattern, take) = text.strip_prefix('!').map_or((text, true), |rest| (rest, false));
            let failed = |reason: String| SelectionError { glob: text.to_owned(), reason };
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .build()
                .map_err(|error| failed(error.kind().to_string()))?;
            builder.add(glob);
            takes.push(take);
        }
        let set = builder
            .build()
            .map_err(|error| SelectionError { glob: String::new(), reason: error.kind().to_string() })?;
        let by_default = !takes.contains(&true);
        Ok(Self { set, takes, by_default })
    }

    /// Whether `path` is taken.
    pub fn takes(&self, path: &[u8]) -> bool {
        // Matches come in ascending order of their glob.
        let last = self.set.matches(Path::new(OsStr::from_bytes(path))).last().copied();
        last.map_or(self.by_default, |index| self.takes[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(globs: &[&str], path: &[u8], taken: bool) {
        let selection = Selection::new(globs).expect("the globs of these tests are valid");
        assert_eq!(selection.takes(path), taken, "{globs:?} on {}", path.escape_ascii());
    }

    #[test]
    fn the_last_matching_glob_decides() {
        check(&[], b"a/b", true);
        check(&["src/**"], b"src/deep/a.py", true);
        check(&["src/**"], b"docs/a.py", false);
        check(&["src/**", "!**/*.md"], b"src/a.md", false);
        check(&["src/**", "!**/*.md", "src/keep.md"], b"src/keep.md", true);
        check(&["!docs/**"], b"docs/a", false);
        check(&["!docs/**"], b"src/a", true);
    }

    #[test]
    fn a_star_stays_within_one_folder() {
        check(&["*.py"], b"a.py", true);
        check(&["*.py"], b"src/a.py", false);
        check(&["src/?"], b"src/a", true);
        check(&["src?a"], b"src/a", false);
    }

    #[test]
    fn paths_are_bytes() {
        check(&["data/*"], b"data/\xff\n\t", true);
        check(&["data/?"], b"data/\xff", true);
    }

    #[test]
    fn a_bad_glob_is_named() {
        let error = Selection::new(&["ok", "a[b"]).expect_err("the bracket is open");
        assert_eq!(error.glob, "a[b");
    }
}
