//! Lists of globs in which `!` excludes and the last match wins.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// A compiled list. `*` stays within one part of a path, `**` does not.
pub struct GlobList {
    set: GlobSet,
    /// For each glob, whether it excludes.
    excludes: Vec<bool>,
}

impl GlobList {
    /// Compiles a list; the error says which glob is malformed, and how.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let mut builder = GlobSetBuilder::new();
        let mut excludes = Vec::new();
        for pattern in patterns {
            let (exclude, glob) = match pattern.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, pattern.as_str()),
            };
            builder.add(compile(glob).map_err(|error| format!("the glob {pattern:?} is malformed: {error}"))?);
            excludes.push(exclude);
        }
        let set = builder.build().map_err(|error| format!("the globs {patterns:?} are too large: {error}"))?;
        Ok(Self { set, excludes })
    }

    /// Whether the list includes `name`, which need not be UTF-8. A list that only excludes begins with everything.
    pub fn includes(&self, name: &[u8]) -> bool {
        let last = self.set.matches(Path::new(OsStr::from_bytes(name))).into_iter().max();
        match last {
            Some(glob) => !self.excludes[glob],
            None => self.excludes.iter().all(|exclude| *exclude),
        }
    }
}

fn compile(glob: &str) -> Result<Glob, String> {
    GlobBuilder::new(glob).literal_separator(true).build().map_err(|error| error.kind().to_string())
}
