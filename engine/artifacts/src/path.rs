//! Paths inside artifacts and work folders: relative, `/`-separated, and never leading out of their folder.

use crate::ArtifactError;

/// Longest path accepted, in bytes: what Linux takes.
pub const PATH_LIMIT: usize = 4096;

/// Accepts `path` only if joining it to a folder cannot lead out of that folder.
///
/// ```
/// use kickwheel_artifacts::path::check;
/// assert!(check("out/model.bin").is_ok());
/// assert!(check("../model.bin").is_err());
/// ```
pub fn check(path: &str) -> Result<(), ArtifactError> {
    check_bytes(path.as_bytes())
        .map_err(|problem| ArtifactError::Path { path: path.to_owned(), problem: problem.to_owned() })
}

/// The same for a path that need not be UTF-8. The error is what is wrong with it, and what to do.
pub fn check_bytes(path: &[u8]) -> Result<(), &'static str> {
    let has = |wrong: fn(&[u8]) -> bool| path.split(|byte| *byte == b'/').any(wrong);
    if path.is_empty() {
        Err("it is empty; name a file or folder")
    } else if path.len() > PATH_LIMIT {
        Err("it is longer than 4096 bytes")
    } else if path.starts_with(b"/") {
        Err("it is absolute; paths are relative to the work folder")
    } else if path.contains(&0) {
        Err("it contains a NUL byte")
    } else if has(|part| part == b"..") {
        Err("it contains `..`; nothing outside the folder can be named")
    } else if has(|part| part.is_empty() || part == b".") {
        Err("it contains an empty part or `.`; write it without them")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn only_paths_that_stay_inside_are_accepted() {
        for good in ["a", "a/b.csv", "..a/b..", "ä ö/ü", "-rf"] {
            assert!(check(good).is_ok(), "{good:?}");
        }
        for bad in ["", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a/", "a/.", "a\0b", &"x".repeat(4097)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
