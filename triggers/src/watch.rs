//! The dataset trigger: watched folders and files become versions of datasets.
//!
//! Each watched path is listed regularly. A listing that has settled is hashed into the artifact store; if its bytes are
//! new, the version, its event and the watcher's state are written in one transaction.
//!
//! Links are not followed: what they point to may lie anywhere, and change without a sign. They are left out, which is
//! told; but a file of the newest version that has become a link stops the dataset, because leaving it out would publish a
//! loss that nobody meant. How each look went is told to the engine, which shows it until a look goes well.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use kickwheel_runtime::{Engine, WatchRow, WatchTrouble};
use kickwheel_schemas::{Manifest, ManifestEntry, Millis};
use tracing::{info, warn};

use crate::dataset::{Seen, WatchDecision, WatchState, Watched, is_ignored, observe};

/// Between two listings of a path.
const POLL: Duration = Duration::from_millis(500);
/// Most names that a reason lists.
const NAMED: usize = 3;
/// Most files of one dataset.
const MAX_FILES: usize = 1_000_000;

/// Watches until the engine stops.
pub async fn watch_for_ever(engine: Engine) {
    let stopped = engine.stopped();
    let mut states: BTreeMap<String, (WatchRow, WatchState)> = BTreeMap::new();
    let mut troubled: BTreeMap<String, WatchTrouble> = BTreeMap::new();
    loop {
        if let Ok(rows) = engine.watches().await {
            states.retain(|name, _| rows.iter().any(|r| &r.name == name));
            troubled.retain(|name, _| {
                let watched = rows.iter().any(|r| &r.name == name);
                if !watched {
                    engine.watch_was(name, None);
                }
                watched
            });
            for row in rows {
                let name = row.name.clone();
                let known = states.remove(&name).filter(|(r, _)| r.path == row.path && r.settle_ms == row.settle_ms);
                let mut state = known.map_or_else(|| state_of(&row), |(_, state)| state);
                let trouble = match look(&engine, &row, &mut state).await {
                    Ok(left_out) => left_out.map(WatchTrouble::Partial),
                    Err(reason) => Some(WatchTrouble::Stopped(reason)),
                };
                engine.watch_was(&name, trouble.clone());
                note(&name, trouble, &mut troubled);
                states.insert(name, (row, state));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = stopped.cancelled() => return,
        }
    }
}

/// Logs what is met once per reason, not at every look.
fn note(dataset: &str, trouble: Option<WatchTrouble>, troubled: &mut BTreeMap<String, WatchTrouble>) {
    let Some(trouble) = trouble else {
        if troubled.remove(dataset).is_some() {
            info!(dataset, "it is well again");
        }
        return;
    };
    if troubled.get(dataset) == Some(&trouble) {
        return;
    }
    match &trouble {
        WatchTrouble::Stopped(reason) => warn!(dataset, "it cannot be looked at: {reason}"),
        WatchTrouble::Partial(reason) => warn!(dataset, "{reason}"),
    }
    troubled.insert(dataset.to_owned(), trouble);
}

fn state_of(row: &WatchRow) -> WatchState {
    let watched = if Path::new(&row.path).is_file() { Watched::File } else { Watched::Folder };
    serde_json::from_value(row.state.clone()).unwrap_or_else(|_| WatchState::new(watched, row.settle_ms))
}

/// Looks once, and says what was left out.
async fn look(engine: &Engine, row: &WatchRow, state: &mut WatchState) -> Result<Option<String>, String> {
    let root = PathBuf::from(&row.path);
    let listed = list_off_thread(root.clone()).await?;
    let left_out = told(&listed.left_out);
    let WatchDecision::Stable { listing } = observe(state, listed.files, Millis::now()) else { return Ok(left_out) };
    if !listed.left_out.is_empty()
        && let Some((version, _, manifest)) = engine.newest_manifest(&row.name).await.map_err(|e| e.to_string())?
        && let Some(lost) = lost(&manifest, &listed.left_out)
    {
        return Err(format!(
            "{lost} is a file in version {version}, and now lies behind a link, which is not followed"
        ));
    }
    let mut entries = Vec::with_capacity(listing.len());
    for file in &listing {
        let stored = engine.artifacts().put_file(&location(&root, &file.path)).await.map_err(|e| e.to_string())?;
        entries.push(ManifestEntry {
            path: file.path.clone(),
            digest: stored.digest,
            size: stored.size,
            executable: false,
        });
    }
    if list_off_thread(root).await?.files != listing {
        // Somebody wrote while we read: what was hashed may never have been there as a whole.
        return Ok(left_out);
    }
    let manifest = Manifest::new(entries);
    let newest = engine.newest_manifest(&row.name).await.map_err(|e| e.to_string())?;
    let (previous, before) = match newest {
        Some((version, digest, _)) if digest == manifest.digest() => {
            state.mark_published(&listing);
            let kept = WatchRow { state: as_json(state), ..row.clone() };
            engine.keep_watch(kept).await.map_err(|e| e.to_string())?;
            info!(dataset = row.name, version, "touched, but its bytes are those of the newest version");
            return Ok(left_out);
        }
        Some((version, _, manifest)) => (Some(version), manifest),
        None => (None, Manifest::default()),
    };
    let artifact = engine.artifacts().put_manifest(&manifest).await.map_err(|e| e.to_string())?;
    let mut next = state.clone();
    next.mark_published(&listing);
    let kept = WatchRow { state: as_json(&next), ..row.clone() };
    if engine
        .publish_watched(&kept, artifact, previous, before.difference(&manifest))
        .await
        .map_err(|e| e.to_string())?
    {
        info!(dataset = row.name, version = previous.unwrap_or(0) + 1, files = manifest.files.len(), "published");
        *state = next;
    }
    Ok(left_out)
}

/// What is left out, in words.
fn told(left_out: &BTreeSet<String>) -> Option<String> {
    left_out.first()?;
    let mut names = left_out.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if left_out.len() > NAMED {
        names.push_str(&format!(" and {} more", left_out.len() - NAMED));
    }
    Some(format!("left out, because links are not followed and only files have bytes: {names}"))
}

/// A file of the manifest that is left out now, or lies below a folder that is.
fn lost<'m>(manifest: &'m Manifest, left_out: &BTreeSet<String>) -> Option<&'m str> {
    let is_left_out = |path: &str| {
        let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        folders.chain([path]).any(|name| left_out.contains(name))
    };
    manifest.files.iter().map(|file| file.path.as_str()).find(|path| is_left_out(path))
}

fn as_json(state: &WatchState) -> serde_json::Value {
    serde_json::to_value(state).expect("watch states have string keys only")
}

/// Where a listed file lies: the watched path itself when that is a file.
fn location(root: &Path, path: &str) -> PathBuf {
    if root.is_file() { root.to_owned() } else { root.join(path) }
}

/// What lies at a watched path.
#[derive(Debug, Default)]
struct Listed {
    /// All files, sorted by path.
    files: Vec<Seen>,
    /// Links and what is neither a file nor a folder. Names that are ignored anyway are not among them.
    left_out: BTreeSet<String>,
}

async fn list_off_thread(root: PathBuf) -> Result<Listed, String> {
    let listed = tokio::task::spawn_blocking(move || list(&root).map_err(|e| format!("{}: {e}", root.display())));
    listed.await.map_err(|e| e.to_string())?
}

/// All files below `root`; for a file, that file.
fn list(root: &Path) -> io::Result<Listed> {
    let meta = fs::metadata(root)?;
    let mut found = Listed::default();
    if meta.is_file() {
        let name = root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        found.files.push(seen(name, &meta));
        return Ok(found);
    }
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let unreadable = |e: io::Error| match prefix.as_str() {
            "" => e,
            below => io::Error::other(format!("{below}: {e}")),
        };
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(io::Error::other(format!(
                    "the name of {} is not UTF-8; rename it",
                    entry.path().display()
                )));
            };
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if is_ignored(&path) {
                continue;
            }
            // It may be gone again; then it is not there.
            let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
            if meta.is_dir() {
                folders.push((entry.path(), path));
            } else if meta.is_file() {
                found.files.push(seen(path, &meta));
            } else {
                found.left_out.insert(path);
            }
            if found.files.len() + found.left_out.len() > MAX_FILES {
                return Err(io::Error::other(format!("it has more than {MAX_FILES} files; watch a smaller folder")));
            }
        }
    }
    found.files.sort();
    Ok(found)
}

fn seen(path: String, meta: &fs::Metadata) -> Seen {
    let modified = meta.modified().ok().and_then(|m| m.duration_since(SystemTime::UNIX_EPOCH).ok());
    Seen {
        path,
        size: meta.len(),
        mtime_ns: modified.and_then(|d| i64::try_from(d.as_nanos()).ok()).unwrap_or(0),
        inode: meta.ino(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_sorted_and_leaves_unfinished_files_out() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("sub")).expect("it can be written");
        for name in ["b.csv", "a.csv", "sub/c.csv", ".hidden", "d.csv.part"] {
            fs::write(dir.path().join(name), name).expect("it can be written");
        }
        let listed = list(dir.path()).expect("it can be read");
        let paths: Vec<String> = listed.files.into_iter().map(|s| s.path).collect();
        assert_eq!(paths, ["a.csv", "b.csv", "sub/c.csv"]);
        assert_eq!(told(&listed.left_out), None);
    }

    #[test]
    fn links_are_left_out_and_named() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("sub")).expect("it can be written");
        fs::write(dir.path().join("a.csv"), "a").expect("it can be written");
        // To a file, to a folder that holds the link itself, to nothing; and one whose name is ignored anyway.
        for (to, name) in
            [("a.csv", "b.csv"), ("..", "sub/up"), ("nowhere", "c.csv"), ("a.csv", "d.tmp"), ("a.csv", "e")]
        {
            symlink(to, dir.path().join(name)).expect("it can be linked");
        }
        let listed = list(dir.path()).expect("it can be read");
        let paths: Vec<&str> = listed.files.iter().map(|s| s.path.as_str()).collect();
        assert_eq!(paths, ["a.csv"]);
        let reason = told(&listed.left_out).expect("there are some");
        assert!(reason.ends_with(": b.csv, c.csv, e and 1 more"), "{reason}");
    }

    #[test]
    fn a_file_that_became_a_link_is_a_loss() {
        let entry = |path: &str| ManifestEntry {
            path: path.to_owned(),
            digest: kickwheel_schemas::Digest::of(b"x"),
            size: 1,
            executable: false,
        };
        let manifest = Manifest::new(vec![entry("a.csv"), entry("sub/deep/b.csv")]);
        let check = |left_out: &str, expected: Option<&str>| {
            assert_eq!(lost(&manifest, &BTreeSet::from([left_out.to_owned()])), expected, "{left_out}");
        };
        check("a.csv", Some("a.csv"));
        check("sub", Some("sub/deep/b.csv"));
        check("sub/deep", Some("sub/deep/b.csv"));
        check("sub/dee", None);
        check("b.csv", None);
    }

    #[test]
    fn a_missing_folder_is_an_error_and_not_an_empty_listing() {
        assert!(list(Path::new("/nowhere/at/all")).is_err());
    }
}
