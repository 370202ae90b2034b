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
    moved: Receiver<()>,
}

/// Follows a run, if it is in memory.
pub fn watch(shared: &Shared, run: RunId) -> Option<Watch> {
    let cell = shared.cells.lock().expect("no holder of this lock panics").get(&run).cloned()?;
    let moved = cell.moved.subscribe();
    Some(Watch { cell, moved })
}

impl Watch {
    /// Its state after the latest commit; none while nobody knows whether the latest one happened.
    pub async fn state(&mut self) -> Option<Loaded> {
        // Marked before it is read, so that what comes after the reading is news.
        self.moved.mark_unchanged();
        self.cell.loaded.lock().await.clone()
    }

    /// Returns when the run has moved since its state was last read, or was let go of.
    pub async fn moved(&mut self) {
        self.moved.changed().await.expect("the cell that is held here holds the other end");
    }

    /// Whether this process still moves the run.
    pub fn is_current(&self, shared: &Shared) -> bool {
        let cells = shared.cells.lock().expect("no holder of this lock panics");
        cells.get(&self.cell.run).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell))
    }
}
