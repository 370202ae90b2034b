//! Following one run: whoever waits for news of a run in memory is woken by that run's commits alone.
//!
//! With one signal for all runs, each commit would wake every watcher, and the work would grow with the square of the load.
//! A run that is not in memory has no signal; who waits for it listens to [`Shared::news`].

use std::sync::Arc;

use kickwheel_schemas::RunId;
use tokio::sync::watch::Receiver;

use super::{Cell, Loaded};
use crate::shared::Shared;

/// A run in memory that is being followed. It stays readable after the run has ended and left the memory.
pub struct Watch {
    cell: Arc<Cell>,
    moved: Receiver<u64>,
}

/// How a run that is followed stands.
pub enum Sight {
    /// Nobody knows whether its latest commit happened.
    Unknown,
    /// Where it stood already.
    Same,
    /// Further, or at its end.
    Further(Loaded),
}

/// Follows a run, if it is in memory.
pub fn watch(shared: &Shared, run: RunId) -> Option<Watch> {
    let cell = shared.cells.lock().expect("no holder of this lock panics").get(&run).cloned()?;
    let moved = cell.moved.subscribe();
    Some(Watch { cell, moved })
}

impl Watch {
    /// Its state after the latest commit, if that is beyond `seen`; with `anyway` also if it is not.
    pub async fn look(&self, seen: u64, anyway: bool) -> Sight {
        match self.cell.loaded.lock().await.as_ref() {
            None => Sight::Unknown,
            Some(loaded) if anyway || loaded.state.seq > seen || loaded.state.is_finished() => {
                Sight::Further(loaded.clone())
            }
            Some(_) => Sight::Same,
        }
    }

    /// Returns when the run is beyond `seen` or at its end, or was let go of.
    pub async fn beyond(&mut self, seen: u64) {
        self.moved.wait_for(|seq| *seq > seen).await.expect("the cell that is held here holds the other end");
    }

    /// Whether this process still moves the run.
    pub fn is_current(&self, shared: &Shared) -> bool {
        let cells = shared.cells.lock().expect("no holder of this lock panics");
        cells.get(&self.cell.run).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell))
    }
}
