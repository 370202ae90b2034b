//! The canonical listing of many files as one artifact: its JSON, sorted by path, is itself stored and hashed.
//!
//! Stored manifests are kept for ever, so their form is a promise. `files` lists everything; an entry with a `link` is a
//! symbolic link and has neither digest nor size. A reader from before there were links misses the digest and refuses the
//! whole manifest, which is better than a tree without its links; a manifest without links is what it always was, to the
//! byte. Paths are text as in [`crate::tree_path`]. Whether paths and targets may be laid out is checked by the artifact
//! store, not here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeStruct as _};

use crate::Digest;

/// The listing of a folder or dataset version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Sorted by `path`, without duplicates.
    pub files: Vec<ManifestEntry>,
    /// Symbolic links, sorted by `path`. Datasets have none.
    pub links: Vec<ManifestLink>,
}

/// One file of a [`Manifest`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestEntry {
    /// Relative, `/`-separated, never starting with `/` nor containing `..`.
    pub path: String,
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
    /// Whether it may be executed as a program.
    pub executable: bool,
}

/// One symbolic link of a [`Manifest`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestLink {
    /// As [`ManifestEntry::path`].
    pub path: String,
    /// What the link says, relative to its own folder and never leading out of the manifest's.
    pub target: String,
}

impl Manifest {
    /// A manifest of `files`, put in canonical order.
    pub fn new(files: Vec<ManifestEntry>) -> Self {
        Self::with_links(files, Vec::new())
    }

    /// A manifest of `files` and `links`, put in canonical order.
    pub fn with_links(mut files: Vec<ManifestEntry>, mut links: Vec<ManifestLink>) -> Self {
        files.sort();
        files.dedup_by(|a, b| a.path == b.path);
        links.sort();
        links.dedup_by(|a, b| a.path == b.path);
        Self { files, links }
    }

    /// The canonical bytes: what is stored and hashed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has string keys only")
    }

    /// Digest of the canonical bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Sum of the files' lengths, in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// Paths that `newer` has and this one lacks or has with other bytes or another target, and paths that are gone
    /// there. Both sorted.
    pub fn difference(&self, newer: &Self) -> (Vec<String>, Vec<String>) {
        let (before, after) = (self.contents(), newer.contents());
        let added = after.iter().filter(|(path, is)| before.get(*path) != Some(*is));
        let removed: BTreeSet<&str> = before.keys().filter(|path| !after.contains_key(*path)).copied().collect();
        (added.map(|(path, _)| (*path).to_owned()).collect(), removed.into_iter().map(str::to_owned).collect())
    }

    fn contents(&self) -> BTreeMap<&str, Content<'_>> {
        let files = self.files.iter().map(|file| (file.path.as_str(), Content::File(&file.digest)));
        let links = self.links.iter().map(|link| (link.path.as_str(), Content::Link(&link.target)));
        files.chain(links).collect()
    }
}

#[derive(PartialEq, Eq)]
enum Content<'m> {
    File(&'m Digest),
    Link(&'m str),
}

/// An entry as it is stored. The order of the fields is part of every digest.
#[derive(Serialize)]
struct Written<'m> {
    path: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'m Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    executable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'m str>,
}

#[derive(Deserialize)]
struct Read {
    files: Vec<ReadEntry>,
}

#[derive(Deserialize)]
struct ReadEntry {
    path: String,
    digest: Option<Digest>,
    size: Option<u64>,
    #[serde(default)]
    executable: bool,
    link: Option<String>,
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let files = self.files.iter().map(|file| Written {
            path: &file.path,
            digest: Some(&file.digest),
            size: Some(file.size),
            executable: file.executable,
            link: None,
        });
        let links = self.links.iter().map(|link| Written {
            path: &link.path,
            digest: None,
            size: None,
            executable: false,
            link: Some(&link.target),
        });
        let mut entries: Vec<Written<'_>> = files.chain(links).collect();
        if !self.links.is_empty() {
            entries.sort_by_key(|entry| entry.path);
        }
        let mut manifest = serializer.serialize_struct("Manifest", 1)?;
        manifest.serialize_field("files", &entries)?;
        manifest.end()
    }
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Read::deserialize(deserializer)?;
        let mut manifest = Self { files: Vec::with_capacity(read.files.len()), links: Vec::new() };
        for ReadEntry { path, digest, size, executable, link } in read.files {
            match (digest, size, link) {
                (Some(digest), Some(size), None) => {
                    manifest.files.push(ManifestEntry { path, digest, size, executable });
                }
                (None, None, Some(target)) if !executable => manifest.links.push(ManifestLink { path, target }),
                (_, _, _) => return Err(D::Error::custom(format!("{path:?} is neither a file nor a link"))),
            }
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(files: &[(&str, &str)], links: &[(&str, &str)]) -> Manifest {
        let entry = |(path, content): &(&str, &str)| ManifestEntry {
            path: (*path).into(),
            digest: Digest::of(content.as_bytes()),
            size: content.len() as u64,
            executable: path.ends_with(".sh"),
        };
        let link = |(path, target): &(&str, &str)| ManifestLink { path: (*path).into(), target: (*target).into() };
        Manifest::with_links(files.iter().map(entry).collect(), links.iter().map(link).collect())
    }

    #[test]
    fn a_difference_names_new_changed_and_gone_paths() {
        let old = manifest(&[("changed", "1"), ("gone", "1"), ("same", "1"), ("z-gone", "1")], &[("l", "same")]);
        let new = manifest(&[("a-new", "1"), ("changed", "2"), ("h-new", "1"), ("same", "1")], &[("l", "a-new")]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(old.difference(&new), (names(&["a-new", "changed", "h-new", "l"]), names(&["gone", "z-gone"])));
        assert_eq!(old.difference(&old), (vec![], vec![]));
        assert_eq!(Manifest::default().difference(&old), (names(&["changed", "gone", "l", "same", "z-gone"]), vec![]));
    }

    #[test]
    fn the_stored_form_is_kept_and_links_stand_between_files() {
        let check = |manifest: &Manifest, stored: &str| {
            assert_eq!(String::from_utf8(manifest.to_bytes()).expect("JSON is UTF-8"), stored);
            assert_eq!(serde_json::from_str::<Manifest>(stored).expect("it is a manifest"), *manifest);
        };
        let one = Digest::of(b"1");
        // As it was written before there were links.
        check(
            &manifest(&[("a", "1"), ("c.sh", "1")], &[]),
            &format!(
                r#"{{"files":[{{"path":"a","digest":"{one}","size":1}},{{"path":"c.sh","digest":"{one}","size":1,"executable":true}}]}}"#
            ),
        );
        check(
            &manifest(&[("a", "1"), ("c", "1")], &[("b", "a")]),
            &format!(
                r#"{{"files":[{{"path":"a","digest":"{one}","size":1}},{{"path":"b","link":"a"}},{{"path":"c","digest":"{one}","size":1}}]}}"#
            ),
        );
        for wrong in [
            r#"{"files":[{"path":"a"}]}"#.to_owned(),
            r#"{"files":[{"path":"a","size":1,"link":"b"}]}"#.to_owned(),
            r#"{"files":[{"path":"a","executable":true,"link":"b"}]}"#.to_owned(),
            format!(r#"{{"files":[{{"path":"a","digest":"{one}","size":1,"link":"b"}}]}}"#),
            format!(r#"{{"files":[{{"path":"a","digest":"{one}"}}]}}"#),
        ] {
            assert!(serde_json::from_str::<Manifest>(&wrong).is_err(), "{wrong}");
        }
    }
}
