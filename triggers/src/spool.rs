//! The spool of the post-receive hooks: files in `spool/git/` of the data folder, one per push.
//!
//! A hook writes its file, durably, before `git push` returns, whether the engine runs or not. Here the files are read in
//! the order of their names, which begin with the time; a file goes only when every event in it is durable. Reading a file
//! twice is harmless, since the events' ids come from the file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kickwheel_runtime::{ApiError, Engine};
use kickwheel_schemas::api::PostReceive;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::git::{BoundRepo, translate_post_receive};

/// The spool is looked at this often when no hook nudges.
const SLOW_POLL: Duration = Duration::from_secs(1);
/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Below the data folder.
pub const SPOOL: &str = "spool/git";
/// Below the spool: what cannot be understood, with the reason beside it.
pub const REFUSED: &str = "refused";

/// Why a file stays or goes.
enum Trouble {
    /// The engine or the disk will take it later.
    Later(String),
    /// It will never be understood.
    Never(String),
}

/// Reads the spool until the engine stops.
pub async fn read_for_ever(engine: Engine, nudge: Arc<Notify>) {
    let (folder, stopped) = (engine.config().data.join(SPOOL), engine.stopped());
    if let Err(e) = fs::create_dir_all(&folder) {
        warn!("the hooks' spool {} cannot be made: {e}", folder.display());
    }
    loop {
        for file in waiting(&folder) {
            match take(&engine, &file).await {
                Ok(()) => remove(&file),
                Err(Trouble::Later(reason)) => {
                    info!("{} waits: {reason}", file.display());
                    // Order matters: what was pushed later must not overtake it.
                    break;
                }
                Err(Trouble::Never(reason)) => set_aside(&file, &reason),
            }
            if stopped.is_cancelled() {
                return;
            }
        }
        tokio::select! {
            () = nudge.notified() => {}
            () = tokio::time::sleep(SLOW_POLL) => {}
            () = stopped.cancelled() => return,
        }
    }
}

/// Finished files, oldest first. A hook writes under a name with a leading dot and renames.
fn waiting(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .filter(|p| p.file_name().is_some_and(|n| !n.to_string_lossy().starts_with('.')))
        .collect();
    files.sort();
    files
}

async fn take(engine: &Engine, file: &Path) -> Result<(), Trouble> {
    let later = |e: io::Error| Trouble::Later(e.to_string());
    let size = fs::metadata(file).map_err(later)?.len();
    if size > MAX_FILE_BYTES {
        return Err(Trouble::Never(format!("it has {size} bytes, the limit is {MAX_FILE_BYTES}")));
    }
    let text = fs::read(file).map_err(later)?;
    let push: PostReceive = serde_json::from_slice(&text).map_err(|e| Trouble::Never(format!("it is no push: {e}")))?;
    let repos = engine.repos().await.map_err(from_api)?;
    let Some(repo) = repos.items.into_iter().find(|r| r.id == push.repo) else {
        return Err(Trouble::Never(format!(
            "no repository is bound as {:?}; bind it with `kickwheel repos add` and move the file back",
            push.repo
        )));
    };
    let bound = BoundRepo { name: repo.id, url: repo.url, default_branch: repo.default_branch };
    let events = translate_post_receive(&push, &bound).map_err(|e| Trouble::Never(format!("failed to {e}")))?;
    for event in events {
        engine.accept(engine.default_project(), "hook", event).await.map_err(from_api)?;
    }
    Ok(())
}

fn from_api(e: ApiError) -> Trouble {
    match e {
        ApiError::Unavailable { detail, .. } | ApiError::Conflict { detail, .. } => Trouble::Later(detail),
        ApiError::Invalid { detail, .. } | ApiError::NotFound { detail, .. } | ApiError::Forbidden { detail, .. } => {
            Trouble::Never(detail)
        }
    }
}

fn remove(file: &Path) {
    if let Err(e) = fs::remove_file(file) {
        // It will be read again; its events are duplicates then.
        warn!("{} cannot be removed: {e}", file.display());
    }
}

/// Nothing is dropped: the file and the reason stay where a person can look at them.
fn set_aside(file: &Path, reason: &str) {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return };
    let refused = folder.join(REFUSED);
    let mut note = name.to_owned();
    note.push(".reason");
    let moved = fs::create_dir_all(&refused)
        .and_then(|()| fs::write(refused.join(note), reason))
        .and_then(|()| fs::rename(file, refused.join(name)));
    match moved {
        Ok(()) => warn!("a push was set aside as {}: {reason}", refused.join(name).display()),
        Err(e) => warn!("{} cannot be set aside: {e}; {reason}", file.display()),
    }
}
