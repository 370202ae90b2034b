//! Paths and link targets of a tree: bytes on disk and in Git, text in a [`Manifest`](crate::Manifest).
//!
//! A path that is UTF-8 is written as it is. In any other, each byte that is part of no character is written as NUL and
//! two lower-case hex digits: NUL occurs in no path, so nothing else looks like that, and a reader that does not know it
//! refuses the NUL instead of using another name. Whether a path may be laid out is not decided here; the artifact store
//! checks that.

use std::borrow::Cow;

/// The text for `path`.
pub fn to_text(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\0{byte:02x}"));
        }
    }
    text
}

/// The path that a text stands for; none if [`to_text`] never writes it.
pub fn to_bytes(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains('\0') {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut parts = text.split('\0');
    let mut path = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.as_bytes().split_at_checked(2)?;
        path.extend(hex::decode(digits).ok()?);
        path.extend_from_slice(rest);
    }
    // One path, one text: an escape that hides a slash or a dot is no escape.
    (to_text(&path) == text).then_some(Cow::Owned(path))
}

/// The folders above a path, outermost first.
pub fn folders(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| &path[..index])
}

/// Whether a symbolic link at `path` can only lead to places in its tree.
///
/// `..` is allowed only at the front: there it climbs real folders, which can be counted. Behind a name it could climb
/// from wherever another link led, which cannot.
pub fn stays_inside(path: &[u8], target: &[u8]) -> bool {
    if target.is_empty() || target.starts_with(b"/") || target.contains(&0) {
        return false;
    }
    let depth = folders(path).count();
    let mut climbed = 0;
    let mut named = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if named => return false,
            b".." => climbed += 1,
            _ => named = true,
        }
    }
    climbed <= depth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_one_text_and_comes_back() {
        let check = |path: &[u8], text: &str| {
            assert_eq!(to_text(path), text);
            assert_eq!(to_bytes(text).as_deref(), Some(path), "{text:?}");
        };
        check(b"src/a.py", "src/a.py");
        check("ä ö".as_bytes(), "ä ö");
        check(b"odd\xff\n", "odd\0ff\n");
        check(b"\xc3/\x80ff", "\0c3/\u{0}80ff");
        for never in ["\0", "a\0f", "\x002f", "a\x002e.", "\0FF", "\0zz", "\0c3\0a4"] {
            assert_eq!(to_bytes(never), None, "{never:?}");
        }
    }

    #[test]
    fn a_link_may_climb_real_folders_only() {
        let check = |path: &[u8], target: &[u8], inside: bool| {
            assert_eq!(stays_inside(path, target), inside, "{} -> {}", path.escape_ascii(), target.escape_ascii());
        };
        check(b"a", b"b", true);
        check(b"a/b/c", b"../../d/e", true);
        check(b"a/b/c", b"../..", true);
        check(b"a/b/c", b"./.././x", true);
        check(b"a/b/c", b"../../..", false);
        check(b"a", b"..", false);
        check(b"a", b"/etc/passwd", false);
        check(b"a", b"", false);
        // `s` may itself be a link to the root of the tree.
        check(b"deep/dir/t", b"s/../x", false);
    }
}
