//! Triggers: where events come from.
//!
//! Two kinds of modules: pure ones that say what something means ([`git`], [`dataset`], [`http`]), and loops around them
//! that look and hand over ([`spool`] for what post-receive hooks wrote, [`poll`] for what no hook told of, [`watch`] for
//! folders and files, [`mod@cron`] for schedules). A loop forgets nothing before the engine has made it durable, and may be
//! killed at any point: what it had not handed over, it finds again.
//!
//! Deliberately absent: deciding what an event starts, and the HTTP door (`engine/server`).

pub mod cron;
pub mod dataset;
pub mod git;
pub mod http;
pub mod poll;
pub mod spool;
pub mod watch;

use std::sync::Arc;

use kickwheel_runtime::Engine;
use tokio::{sync::Notify, task::JoinHandle};

/// The running triggers. They end with the engine.
#[derive(Debug)]
pub struct Triggers {
    hook: Arc<Notify>,
    loops: Vec<JoinHandle<()>>,
}

impl Triggers {
    /// Starts the triggers that need a loop.
    pub fn start(engine: &Engine) -> Self {
        let hook = Arc::new(Notify::new());
        let loops = vec![
            tokio::spawn(spool::read_for_ever(engine.clone(), Arc::clone(&hook))),
            tokio::spawn(watch::watch_for_ever(engine.clone())),
            tokio::spawn(poll::poll_for_ever(engine.clone())),
            tokio::spawn(cron::tick_for_ever(engine.clone())),
        ];
        Self { hook, loops }
    }

    /// Says that a hook wrote to the spool. Cheap; without it the spool is looked at a little later.
    pub fn nudge(&self) {
        self.hook.notify_one();
    }

    /// A way to nudge that outlives this borrow.
    pub fn nudger(&self) -> Arc<Notify> {
        Arc::clone(&self.hook)
    }

    /// Waits for the loops to end, which they do once the engine stops.
    pub async fn join(self) {
        for handle in self.loops {
            if let Err(e) = handle.await {
                tracing::error!("a trigger ended badly: {e}");
            }
        }
    }
}
