//! The dataset trigger: watched folders and files become versions of datasets.
//!
//! Each watched path is listed regularly. A listing that has settled is hashed into the artifact store; if its bytes are
//! new, the version, its event and the watcher's state are written in one transaction.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use kickwheel_runtime::{Engine, WatchRow};
use kickwheel_schemas::{Manifest, ManifestEntry, Millis};
use tracing::{info, warn};

use crate::dataset::{Seen, WatchDecision, WatchState, Watched, is_ignored, observe};

/// Between two listings of a path.
const POLL: Duration = Duration::from_millis(500);
/// Most files of one dataset.
const MAX_FILES: usize = 1_000_000;

/// Watches until the engine stops.
pub async fn watch_for_ever(engine: Engine) {
    let stopped = engine.stopped();
    let mut states: BTreeMap<String, (WatchRow, WatchState)> = BTreeMap::new();
    let mut troubled: BTreeMap<String, String> = BTreeMap::new();
    loop {
        if let Ok(rows) = engine.watches().await {
            states.retain(|name, _| rows.iter().any(|r| &r.name == name));
            for row in rows {
                let name = row.name.clone();
                let known = states.remove(&name).filter(|(r, _)| r.path == row.path && r.settle_ms == row.settle_ms);
                let mut state = known.map_or_else(|| state_of(&row), |(_, state)| state);
                match look(&engine, &row, &mut state).await {
                    Ok(()) => _ = troubled.remove(&name),
                    Err(e) => {
                        // Said once per reason, not at every look.
                        if troubled.insert(name.clone(), e.clone()).as_ref() != Some(&e) {
                            warn!(dataset = name, "it cannot be looked at: {e}");
                        }
                    }
                }
                states.insert(name, (row, state));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = stopped.cancelled() => return,
        }
    }
}

fn state_of(row: &WatchRow) -> WatchState {
    let watched = if Path::new(&row.path).is_file() { Watched::File } else { Watched::Folder };
    serde_json::from_value(row.state.clone()).unwrap_or_else(|_| WatchState::new(watched, row.settle_ms))
}

async fn look(engine: &Engine, row: &WatchRow, state: &mut WatchState) -> Result<(), String> {
    let root = PathBuf::from(&row.path);
    let listing = list_off_thread(root.clone()).await?;
    let WatchDecision::Stable { listing } = observe(state, listing, Millis::now()) else { return Ok(()) };
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
    if list_off_thread(root).await? != listing {
        // Somebody wrote while we read: what was hashed may never have been there as a whole.
        return Ok(());
    }
    let manifest = Manifest::new(entries);
    let newest = engine.newest_manifest(&row.name).await.map_err(|e| e.to_string())?;
    let (previous, before) = match newest {
        Some((version, digest, _)) if digest == manifest.digest() => {
            state.mark_published(&listing);
            let kept = WatchRow { state: as_json(state), ..row.clone() };
            engine.keep_watch(kept).await.map_err(|e| e.to_string())?;
            info!(dataset = row.name, version, "touched, but its bytes are those of the newest version");
            return Ok(());
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
    Ok(())
}

fn as_json(state: &WatchState) -> serde_json::Value {
    serde_json::to_value(state).expect("watch states have string keys only")
}

/// Where a listed file lies: the watched path itself when that is a file.
fn location(root: &Path, path: &str) -> PathBuf {
    if root.is_file() { root.to_owned() } else { root.join(path) }
}

async fn list_off_thread(root: PathBuf) -> Result<Vec<Seen>, String> {
    let listed = tokio::task::spawn_blocking(move || list(&root).map_err(|e| format!("{}: {e}", root.display())));
    listed.await.map_err(|e| e.to_string())?
}

/// All files below `root`, sorted by path; for a file, that file.
fn list(root: &Path) -> io::Result<Vec<Seen>> {
    let meta = fs::metadata(root)?;
    let mut found = Vec::new();
    if meta.is_file() {
        let name = root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        found.push(seen(name, &meta));
        return Ok(found);
    }
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(io::Error::other(format!(
                    "the name of {} is not UTF-8; rename it",
                    entry.path().display()
                )));
            };
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let Ok(meta) = fs::metadata(entry.path()) else { continue };
            if meta.is_dir() {
                folders.push((entry.path(), path));
            } else if meta.is_file() {
                found.push(seen(path, &meta));
            }
            if found.len() > MAX_FILES {
                return Err(io::Error::other(format!("it has more than {MAX_FILES} files; watch a smaller folder")));
            }
        }
    }
    found.retain(|f| !is_ignored(&f.path));
    found.sort();
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
        let paths: Vec<String> = list(dir.path()).expect("it can be read").into_iter().map(|s| s.path).collect();
        assert_eq!(paths, ["a.csv", "b.csv", "sub/c.csv"]);
    }

    #[test]
    fn a_missing_folder_is_an_error_and_not_an_empty_listing() {
        assert!(list(Path::new("/nowhere/at/all")).is_err());
    }
}
