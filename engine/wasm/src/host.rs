//! Loading a plugin and calling it, from start to end.
//!
//! A call waits for one of a fixed number of places, gets a fresh instance from the pool, runs on the caller's task, and
//! leaves nothing behind. It yields to the async runtime at every tick of the epoch, so that a long call does not hold a
//! thread of it. Time that a call waits for its place does not count against its time limit.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use kickwheel_schemas::{
    Digest,
    plugin::{PluginCall, PluginManifest, PluginReturn},
};
use tokio::sync::Semaphore;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, UpdateDeadline,
    component::{Component, HasSelf, Linker},
};

use crate::{
    CacheConfig, CallFailure, HostError, LoadError, LogLine,
    cache::Cache,
    failure::{Breach, classify},
    output,
    sandbox::{Sandbox, TABLE_ELEMENTS, bindings},
    ticker::{TICK, Ticker},
};

/// Core instances that one component may consist of. Guests linked from many libraries, such as Python's, need dozens.
const CORE_INSTANCES_PER_COMPONENT: u32 = 60;
/// Memories that one component may have.
const MEMORIES_PER_COMPONENT: u32 = 20;
/// Tables that one component may have.
const TABLES_PER_COMPONENT: u32 = 60;
/// Memories set aside per concurrent call. Nearly every component has one, each takes 4 GiB of address space.
const MEMORIES_PER_CALL: u32 = 2;
/// Bytes of bookkeeping that one core instance may take in the pool.
const INSTANCE_BYTES: usize = 8 << 20;
/// Bytes of a pooled memory that are cleared by hand instead of being given back to the system: cheaper for small plugins.
const KEEP_RESIDENT_BYTES: usize = 128 << 10;
/// Bytes of a call stack's end that are likewise kept.
const STACK_KEEP_RESIDENT_BYTES: usize = 16 << 10;
/// Most bytes that the host copies out of a guest in one go, unless its output limit is higher.
const COPY_BYTES: usize = 16 << 20;

/// The longest time limit, so that no deadline lies beyond what clocks can hold.
const MAX_TIME: Duration = Duration::from_hours(24);

/// How a [`Host`] is set up.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Where compiled plugins are kept; none compiles at every start.
    pub cache: Option<CacheConfig>,
    /// Calls that may run at once, at least 1; further ones wait.
    pub max_concurrent: usize,
    /// The highest memory limit that a call may be given, in bytes.
    pub max_memory_bytes: u64,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self { cache: None, max_concurrent: 64, max_memory_bytes: 256 << 20 }
    }
}

/// What one call may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// About one unit per instruction. The limit that counts: unlike time, it is the same on every machine.
    pub fuel: u64,
    /// All memories of the component together.
    pub memory_bytes: u64,
    /// By the clock, from the moment that the call has its place. At most a day.
    pub time: Duration,
    /// Length of the returned JSON text, and of a returned error.
    pub output_bytes: usize,
    /// Length of all log lines together.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 10_000_000_000,
            memory_bytes: 64 << 20,
            time: Duration::from_secs(30),
            output_bytes: 1 << 20,
            log_bytes: 256 << 10,
        }
    }
}

/// Runs plugins. Cheap to clone; all clones share one engine, pool and bound.
#[derive(Clone)]
pub struct Host(Arc<Shared>);

struct Shared {
    engine: Engine,
    linker: Linker<Sandbox>,
    cache: Option<Cache>,
    places: Semaphore,
    ticker: Ticker,
    max_memory_bytes: u64,
}

/// A loaded plugin. Cheap to clone; keep it, since loading is what costs.
#[derive(Clone)]
pub struct Plugin(Arc<Loaded>);

struct Loaded {
    digest: Digest,
    manifest: PluginManifest,
    origin: Origin,
    pre: bindings::PluginPre<Sandbox>,
}

/// Where a plugin's machine code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was compiled now.
    Compiled,
    /// It lay in the cache.
    Cache,
}

/// How a call went.
#[derive(Clone, Debug, PartialEq)]
pub struct CallReport {
    /// What the plugin returned, or why it did not.
    pub result: Result<PluginReturn, CallFailure>,
    /// What it logged until then, also when it failed.
    pub logs: Vec<LogLine>,
    /// Units of fuel that it used: the same for the same call on every machine.
    pub fuel_used: u64,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("free_places", &self.0.places.available_permits()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.0.manifest.name)
            .field("digest", &self.0.digest)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// Digest of the component.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// What it takes and gives.
    pub fn manifest(&self) -> &PluginManifest {
        &self.0.manifest
    }

    /// Whether it had to be compiled.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }
}

impl Host {
    /// A host with its pool and its ticker thread.
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let max_concurrent = config.max_concurrent.max(1);
        let config = HostConfig { max_concurrent, ..config };
        let failed = |message| HostError::Engine { max_concurrent, message };
        let engine = Engine::new(&engine_config(&config)).map_err(|error| failed(format!("{error:#}")))?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)
            .and_then(|()| bindings::Plugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |sandbox| sandbox))
            .map_err(|error| failed(format!("{error:#}")))?;
        let ticker = Ticker::start(&engine).map_err(|error| failed(error.to_string()))?;
        let cache = config.cache.map(|cache| Cache::open(cache, &engine)).transpose()?;
        let places = Semaphore::new(max_concurrent);
        let max_memory_bytes = config.max_memory_bytes;
        Ok(Self(Arc::new(Shared { engine, linker, cache, places, ticker, max_memory_bytes })))
    }

    /// Makes a component ready to be called: from the cache, or by compiling it.
    ///
    /// Blocks while it compiles, from milliseconds to tens of seconds by the component's size: within async code, use a
    /// blocking thread.
    pub fn load(&self, component: &[u8], manifest: PluginManifest) -> Result<Plugin, LoadError> {
        let Shared { engine, linker, cache, .. } = &*self.0;
        let digest = Digest::of(component);
        let cached = cache.as_ref().and_then(|cache| cache.get(engine, &digest));
        let (origin, compiled) = match cached {
            Some(compiled) => (Origin::Cache, compiled),
            None => {
                let compiled = Component::from_binary(engine, component).map_err(|error| LoadError::Compile {
                    name: manifest.name.clone(),
                    size: component.len(),
                    message: format!("{error:#}"),
                })?;
                if let Some(cache) = cache {
                    cache.put(&digest, &compiled);
                }
                (Origin::Compiled, compiled)
            }
        };
        let pre = linker
            .instantiate_pre(&compiled)
            .and_then(bindings::PluginPre::new)
            .map_err(|error| LoadError::World { name: manifest.name.clone(), message: format!("{error:#}") })?;
        tracing::debug!(plugin = manifest.name, %digest, ?origin, "loaded plugin");
        Ok(Plugin(Arc::new(Loaded { digest, manifest, origin, pre })))
    }

    /// Calls a plugin. A failed call is data; dropping the future ends the guest. Needs a tokio runtime with timers.
    pub async fn call(&self, plugin: &Plugin, call: &PluginCall, limits: &Limits) -> CallReport {
        let refused = |failure| CallReport { result: Err(failure), logs: Vec::new(), fuel_used: 0 };
        if !Engine::same(&self.0.engine, plugin.0.pre.engine()) {
            return refused(CallFailure::Unavailable { message: "it was loaded by another host".to_owned() });
        }
        if let Err(failure) = output::check_arguments(&plugin.0.manifest, &call.with) {
            return refused(failure);
        }
        let argument = serde_json::to_string(call).expect("a call has text keys only");
        let limits = Limits {
            memory_bytes: limits.memory_bytes.min(self.0.max_memory_bytes),
            time: limits.time.min(MAX_TIME),
            ..limits.clone()
        };

        let _place = self.0.places.acquire().await.expect("the semaphore is never closed");
        let _ticking = self.0.ticker.running();
        let mut store = self.store(&limits);
        // The guest's own deadline is met at a tick while it computes; the timer is for one that waits inside WASI.
        let ended = tokio::time::timeout(limits.time + 2 * TICK, run(&mut store, &plugin.0.pre, &argument)).await;
        let fuel_left = store.get_fuel().expect("the engine counts fuel");
        CallReport {
            result: match ended {
                Err(_elapsed) => Err(CallFailure::TimedOut { limit: limits.time }),
                Ok(Err(error)) => Err(classify(&error, &limits)),
                Ok(Ok(Err(message))) => Err(CallFailure::Plugin { message: shortened(message, limits.output_bytes) }),
                Ok(Ok(Ok(text))) => output::read(&plugin.0.manifest, &text, &limits),
            },
            logs: store.data().log.take(),
            fuel_used: limits.fuel - fuel_left,
        }
    }

    fn store(&self, limits: &Limits) -> Store<Sandbox> {
        let mut store = Store::new(&self.0.engine, Sandbox::new(limits));
        store.limiter(|sandbox| sandbox);
        store.set_fuel(limits.fuel).expect("the engine counts fuel");
        store.set_hostcall_fuel(COPY_BYTES.max(limits.output_bytes));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            if Instant::now() >= store.data().deadline {
                return Err(Breach::Time.into());
            }
            // tokio's own yield lets it look at its timers and sockets before the guest goes on.
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        store
    }
}

async fn run(
    store: &mut Store<Sandbox>,
    pre: &bindings::PluginPre<Sandbox>,
    argument: &str,
) -> wasmtime::Result<Result<String, String>> {
    let instance = pre.instantiate_async(&mut *store).await?;
    instance.call_run(store, argument).await
}

fn shortened(mut message: String, limit: usize) -> String {
    message.truncate(message.floor_char_boundary(limit));
    message
}

fn engine_config(config: &HostConfig) -> Config {
    let calls = u32::try_from(config.max_concurrent).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(calls)
        .total_stacks(calls)
        .total_memories(calls.saturating_mul(MEMORIES_PER_CALL).max(MEMORIES_PER_COMPONENT))
        .total_core_instances(calls.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_tables(calls.saturating_mul(TABLES_PER_COMPONENT))
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_component_instance_size(INSTANCE_BYTES)
        .max_memory_size(usize::try_from(config.max_memory_bytes).unwrap_or(usize::MAX))
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .async_stack_keep_resident(STACK_KEEP_RESIDENT_BYTES);
    let mut engine = Config::new();
    engine
        .wasm_component_model(true)
        .consume_fuel(true)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    engine
}
