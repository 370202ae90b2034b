//! What every part of the engine holds on to: the adapters, the leases, and the runs in memory.
//!
//! Only state that several modules need lives here; each module documents what it keeps for itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use kickwheel_artifacts::Artifacts;
use kickwheel_core::plan::Workflow;
use kickwheel_repos::Mirrors;
use kickwheel_schemas::{Digest, RunId, plugin::PluginManifest};
use kickwheel_spec::PluginCatalog;
use kickwheel_store::{ReadError, Store};
use kickwheel_wasm::{Host, LoadError, Plugin, builtin};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    bus::Bus, driver::Cell, engine::Config, folder::DataFolder, pools::Pools, registry::Registry, reserved::Configured,
    secrets::Secrets,
};

/// The project that everything belongs to when none is named. More projects come with their grants.
pub const DEFAULT_PROJECT: &str = "default";

/// Compiled workflows kept in memory; beyond it the cache starts anew.
const MAX_CACHED_WORKFLOWS: usize = 1_000;

/// The insides of an [`crate::Engine`].
pub struct Shared {
    /// As started.
    pub config: Config,
    /// Locked for as long as this lives.
    pub folder: DataFolder,
    /// The database.
    pub store: Store,
    /// The blobs.
    pub artifacts: Artifacts,
    /// Where jobs run.
    pub pools: Pools,
    /// The plugins' sandbox.
    pub wasm: Host,
    /// Loaded plugins by digest; each is loaded when it is first called.
    pub plugins: Mutex<HashMap<Digest, Plugin>>,
    /// The same, as the workflow checker wants them.
    pub catalog: PluginCatalog,
    /// Secrets, and the key that seals them.
    pub secrets: Secrets,
    /// The ordered log that carries events.
    pub bus: Bus,
    /// The bare mirrors.
    pub mirrors: Mirrors,
    /// The registry in force.
    pub registry: RwLock<Arc<Registry>>,
    /// Whether any workflow is started by the end of a run.
    pub runs_are_awaited: AtomicBool,
    /// Names of the paused workflows, once they have been read; see [`Shared::paused`].
    pub paused: tokio::sync::RwLock<Option<Arc<BTreeSet<String>>>>,
    /// One change of the registry at a time.
    pub registry_change: tokio::sync::Mutex<()>,
    /// Shard to epoch, while the lease holds.
    pub leases: RwLock<BTreeMap<u32, i64>>,
    /// Runs in memory.
    pub cells: Mutex<HashMap<RunId, Arc<Cell>>>,
    /// Runs that cannot be understood or written, and why; `doctor` shows them.
    pub set_aside: Mutex<BTreeMap<RunId, String>>,
    /// What the watcher of datasets met last, by their names; nothing for those that are well.
    pub watch_troubles: Mutex<BTreeMap<String, WatchTrouble>>,
    /// Compiled workflows by digest.
    pub workflows: Mutex<HashMap<Digest, Arc<Workflow>>>,
    /// Source trees that are in the artifact store already.
    pub sources: Mutex<HashMap<String, crate::perform::SourceTree>>,
    /// Sources that nobody outside may claim.
    pub configured: Configured,
    /// Why topics of others are not read now, by the name of the stream; for `doctor`.
    pub stream_troubles: Mutex<BTreeMap<String, String>>,
    /// Wakes the decider.
    pub decider: Notify,
    /// Wakes whoever keeps the leases of partitions: other topics are to be read.
    pub streams_changed: Notify,
    /// Wakes the cron trigger: other schedules are in force.
    pub schedules_changed: Notify,
    /// Wakes the poller: a repository was bound, changed or unbound.
    pub repos_changed: Notify,
    /// Wakes the reporter.
    pub reporter: Notify,
    /// Rises with each commit that changed a run or decided an event; for whoever waits for news.
    pub news: watch::Sender<u64>,
    /// Takes nothing new.
    pub draining: AtomicBool,
    /// Ends every loop.
    pub stop: CancellationToken,
    /// Everything that runs in the background.
    pub tasks: TaskTracker,
    /// Counters for `/metrics`.
    pub counters: Counters,
}

/// Why a watched dataset is not wholly what its folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchTrouble {
    /// It cannot be looked at, so there are no new versions.
    Stopped(String),
    /// Versions are made, but something in it is left out.
    Partial(String),
}

impl WatchTrouble {
    /// In words.
    pub fn reason(&self) -> &str {
        match self {
            Self::Stopped(reason) | Self::Partial(reason) => reason,
        }
    }
}

/// Monotonic counters since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events accepted.
    pub events_accepted: AtomicU64,
    /// Events that were duplicates.
    pub events_duplicate: AtomicU64,
    /// Runs created.
    pub runs_created: AtomicU64,
    /// Runs ended.
    pub runs_ended: AtomicU64,
    /// Attempts handed to a pool.
    pub jobs_started: AtomicU64,
    /// Plugin calls.
    pub plugin_calls: AtomicU64,
    /// Tasks taken from the cache.
    pub cache_hits: AtomicU64,
    /// Writes that found the database away.
    pub write_pauses: AtomicU64,
}

impl Counters {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Leaves a run alone until a person has looked at it, or until the next start.
    pub fn set_aside(&self, run: RunId, reason: String) {
        self.set_aside.lock().expect("no holder of this lock panics").insert(run, reason);
    }

    /// Whether a run is in memory, or is left alone.
    pub fn is_cared_for(&self, run: RunId) -> bool {
        self.cells.lock().expect("no holder of this lock panics").contains_key(&run)
            || self.set_aside.lock().expect("no holder of this lock panics").contains_key(&run)
    }

    /// Notes, or forgets, why a topic of others is not read now. Says it once per reason.
    pub fn note_stream(&self, name: &str, reason: Option<String>) {
        let mut troubles = self.stream_troubles.lock().expect("no holder of this lock panics");
        match reason {
            None => _ = troubles.remove(name),
            Some(reason) => {
                if troubles.get(name) != Some(&reason) {
                    tracing::warn!(stream = name, "it is not read: {reason}");
                }
                troubles.insert(name.to_owned(), reason);
            }
        }
    }

    /// Tells whoever waits that something changed.
    pub fn announce(&self) {
        self.news.send_modify(|n| *n += 1);
    }

    /// The epoch under which we own a shard, if we do.
    pub fn epoch(&self, shard: u32) -> Option<i64> {
        self.leases.read().expect("no holder of this lock panics").get(&shard).copied()
    }

    /// The registry in force.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.read().expect("no holder of this lock panics"))
    }

    /// Names of the paused workflows. Only the owner of the shards changes them, so that they need not be read from the
    /// store for each event; whoever writes them holds the lock meanwhile, and empties it.
    pub async fn paused(&self) -> Result<Arc<BTreeSet<String>>, ReadError> {
        if let Some(known) = &*self.paused.read().await {
            return Ok(Arc::clone(known));
        }
        let mut known = self.paused.write().await;
        let found = Arc::new(self.store.paused(DEFAULT_PROJECT).await?);
        *known = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The compiled workflow of that digest, from memory or from the store.
    pub async fn workflow(&self, digest: &Digest) -> Result<Arc<Workflow>, ReadError> {
        if let Some(found) = self.workflows.lock().expect("no holder of this lock panics").get(digest) {
            return Ok(Arc::clone(found));
        }
        let row = self.store.plan(DEFAULT_PROJECT, digest).await?.ok_or_else(|| ReadError::Corrupt {
            message: format!("plan {digest} is named by a row but is not in the table of plans"),
        })?;
        let workflow: Workflow = serde_json::from_value(row.compiled).map_err(|e| ReadError::Corrupt {
            message: format!("plan {digest} of workflow {}: {e}; it may be of a newer version", row.name),
        })?;
        Ok(self.remember(digest.clone(), workflow))
    }

    /// What a plugin of this binary declares.
    pub fn manifest(&self, digest: &Digest) -> Option<&PluginManifest> {
        self.catalog.0.values().find(|p| p.digest == *digest).map(|p| &p.manifest)
    }

    /// The plugin of that digest, loaded. Compiling one that is not in the cache takes a moment, so nobody pays for those
    /// that are never called. None when it is not in this binary.
    pub async fn plugin(&self, digest: &Digest) -> Option<Result<Plugin, LoadError>> {
        if let Some(known) = self.plugins.lock().expect("no holder of this lock panics").get(digest) {
            return Some(Ok(known.clone()));
        }
        let shipped = builtin().iter().find(|p| p.digest() == *digest)?;
        let host = self.wasm.clone();
        let loading = tokio::task::spawn_blocking(move || host.load(shipped.component, shipped.manifest()));
        let loaded = loading.await.expect("loading a plugin does not panic");
        if let Ok(plugin) = &loaded {
            self.plugins.lock().expect("no holder of this lock panics").insert(digest.clone(), plugin.clone());
        }
        Some(loaded)
    }

    /// Keeps a compiled workflow in memory.
    pub fn remember(&self, digest: Digest, workflow: Workflow) -> Arc<Workflow> {
        let workflow = Arc::new(workflow);
        let mut cache = self.workflows.lock().expect("no holder of this lock panics");
        if cache.len() >= MAX_CACHED_WORKFLOWS {
            cache.clear();
        }
        cache.insert(digest, Arc::clone(&workflow));
        workflow
    }
}

/// The shard of a run: the low bits of its random part, so that runs of one moment spread evenly.
pub fn shard_of(run: RunId, shards: u32) -> u32 {
    let bytes = run.0.as_bytes();
    u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) % shards.max(1)
}

/// Ten random bytes, for ids.
pub fn entropy() -> [u8; 10] {
    rand::random()
}
