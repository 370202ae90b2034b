//! Opening the parts, recovering, and coming to rest.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kickwheel_artifacts::Artifacts;
use kickwheel_egress::Egress;
use kickwheel_pool::{Capacity, DockerConfig, DockerPool, LocalConfig, LocalPool, Pool};
use kickwheel_repos::Mirrors;
use kickwheel_schemas::Millis;
use kickwheel_spec::{PluginCatalog, PluginInfo};
use kickwheel_store::{
    Member, Options, ReadError, Store, Write,
    write::{ForgetSeen, Seal},
};
use kickwheel_wasm::{CacheConfig, Host, HostConfig, builtin_catalog};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use super::{Config, Engine};
use crate::{
    bus::{self, Bus},
    driver,
    error::StartError,
    folder::{DataFolder, random_hex},
    ingest,
    pools::{Place, Pools},
    registry, relay, report,
    reserved::Configured,
    secrets::{self, Secrets},
    shared::{Counters, Shared},
};

/// Identities of events are remembered this long.
const SEEN_MS: u64 = 30 * 24 * 3600 * 1000;
/// What a pool keeps of an ended attempt beside its folder (a container, say) goes after this long.
const ENDED_JOBS_KEPT: Duration = Duration::from_hours(1);
/// Between two rounds of housekeeping.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Finished runs sealed in one round.
const SEAL_LIMIT: u32 = 512;
/// Of these, so many in one transaction: others wait for it.
const SEALED_TOGETHER: usize = 16;
/// Between two rounds of sealing.
const SEAL_EVERY: Duration = Duration::from_secs(2);
/// Inboxes are looked at this often: whoever writes to one also nudges us, so this is for the nudge that was lost.
const INBOX_POLL: Duration = Duration::from_secs(2);
/// Inbox rows taken in one look.
const INBOX_LIMIT: u32 = 500;

/// Opens everything, takes the shards, recovers open runs and begins to work.
pub async fn start(config: Config) -> Result<Engine, StartError> {
    let folder = DataFolder::open(&config.data)?;
    let shared = Arc::new(open(config, folder).await?);
    take_shards(&shared).await?;
    let found = registry::load(&shared, None).await.map_err(|e| part("registry", &e))?;
    registry::install(&shared, Arc::new(found)).await;
    let carried_on = adopt_open_runs(&shared).await.map_err(|e| part("open runs", &e))?;
    if carried_on > 0 {
        info!(runs = carried_on, "carrying on");
    }
    shared.tasks.spawn(ingest::decider(Arc::clone(&shared)));
    shared.tasks.spawn(report::reporter(Arc::clone(&shared)));
    shared.tasks.spawn(keep_leases(Arc::clone(&shared)));
    shared.tasks.spawn(housekeeping(Arc::clone(&shared)));
    shared.tasks.spawn(inboxes(Arc::clone(&shared)));
    shared.tasks.spawn(secrets::finish_change(Arc::clone(&shared)));
    shared.tasks.spawn(bus::drain_spool(Arc::clone(&shared)));
    shared.tasks.spawn(bus::keep_partitions(Arc::clone(&shared), owner(&shared)?));
    shared.tasks.spawn(relay::relay(Arc::clone(&shared)));
    shared.tasks.spawn(seal_finished(Arc::clone(&shared)));
    Ok(Engine { shared })
}

fn part(name: &'static str, e: &dyn std::fmt::Display) -> StartError {
    StartError::Part { part: name, message: e.to_string() }
}

async fn open(config: Config, folder: DataFolder) -> Result<Shared, StartError> {
    let key =
        hex::decode(folder.kept_text("key", random_hex::<32>)?).map_err(|e| part("key of the data folder", &e))?;
    let temporary = folder.path("tmp");
    // What a killed engine left half-made there belongs to nobody.
    let _ = std::fs::remove_dir_all(&temporary);
    std::fs::create_dir_all(&temporary).map_err(|e| part("data folder", &e))?;
    let url = config.database.clone().unwrap_or_else(|| folder.path("kickwheel.db").display().to_string());
    let options = Options { lease: config.lease, ..Options::default() };
    let store = Store::open_with(&url, options).await.map_err(|e| part("database", &e))?;
    let artifacts = Artifacts::local(folder.path("artifacts")).map_err(|e| part("artifact store", &e))?;
    let bus = Bus::open(&config.bus).map_err(|e| part("bus", &e))?;
    if let Bus::Kafka(bus) = &bus {
        bus.spool_after(store.last_spooled().await.map_err(|e| part("spool", &e))?.as_deref());
    }
    let egress = Egress::new(config.egress.clone()).map_err(|e| part("egress policy", &e))?;
    let mirrors = Mirrors::open_with(folder.path("mirrors"), egress).map_err(|e| part("mirrors", &e))?;
    let mut capacity = Capacity::of_this_machine();
    if let Some(cpu_milli) = config.local_cpu_milli {
        capacity.cpu_milli = cpu_milli;
    }
    let mut local =
        LocalConfig::new(folder.path("pool/local"), folder.path("artifacts"), config.runner.clone(), key.clone());
    local.capacity = capacity;
    local.job_user.clone_from(&config.job_user);
    let local = Pool::Local(LocalPool::open(local).await.map_err(|e| part("local pool", &e))?);
    let docker = match &config.docker {
        None => None,
        Some(address) => {
            let mut docker = DockerConfig::new(
                folder.path("pool/docker"),
                folder.path("artifacts"),
                config.runner.clone(),
                key.clone(),
            );
            docker.address.clone_from(address);
            docker.capacity = capacity;
            let pool = DockerPool::open(docker).await.map_err(|e| part("docker pool", &e))?;
            Some(Place::new("docker", Pool::Docker(pool)))
        }
    };
    let host_processes = config.host_processes;
    let wasm = open_sandbox(&folder, &key)?;
    let catalog = builtin_catalog()
        .into_iter()
        .map(|(name, (digest, manifest))| (name, PluginInfo { digest, manifest }))
        .collect();
    let secrets = Secrets::load(&folder.path(""), config.secrets_key.clone()).map_err(|e| part("secrets", &e))?;
    Ok(Shared {
        config,
        configured: Configured::default(),
        secrets,
        folder,
        store,
        artifacts,
        pools: Pools { local: Place::new("local", local), docker, host_processes },
        wasm,
        plugins: Mutex::default(),
        catalog: PluginCatalog(catalog),
        bus,
        mirrors,
        registry: RwLock::default(),
        runs_are_awaited: AtomicBool::new(true),
        paused: tokio::sync::RwLock::default(),
        registry_change: tokio::sync::Mutex::new(()),
        leases: RwLock::new(BTreeMap::new()),
        cells: Mutex::default(),
        set_aside: Mutex::default(),
        watch_troubles: Mutex::default(),
        workflows: Mutex::default(),
        sources: Mutex::default(),
        stream_troubles: Mutex::default(),
        decider: Notify::new(),
        streams_changed: Notify::new(),
        schedules_changed: Notify::new(),
        repos_changed: Notify::new(),
        reporter: Notify::new(),
        news: watch::channel(0).0,
        draining: AtomicBool::new(false),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
        counters: Counters::default(),
    })
}

fn open_sandbox(folder: &DataFolder, key: &[u8]) -> Result<Host, StartError> {
    let key: [u8; 32] = key.try_into().map_err(|_| StartError::Part {
        part: "key of the data folder",
        message: "it must be 64 hex digits; restore it from a backup, or move it away to have a new one made"
            .to_owned(),
    })?;
    let cache = Some(CacheConfig { dir: folder.path("wasm-cache"), key });
    Host::new(HostConfig { cache, ..HostConfig::default() }).map_err(|e| part("plugin sandbox", &e))
}

/// Takes the shards. The lock on the data folder proves that no other engine uses its SQLite file; on Postgres, leases of
/// other data folders are waited out, while our own (their owner is kept in the folder) are taken over at once.
async fn take_shards(shared: &Arc<Shared>) -> Result<(), StartError> {
    let owner = owner(shared)?;
    let exclusive = match shared.store.member() {
        Member::Sqlite => true,
        Member::Postgres => false,
    };
    let (lease, shards) = (shared.config.lease, shared.store.shards());
    // The lock on the folder proves that whoever held leases under the owner kept in it is dead, or is ourselves.
    shared.store.release(&owner).await.map_err(|e| part("leases", &e))?;
    let deadline = Instant::now() + lease * 3;
    loop {
        let taken = shared.store.acquire(&owner, shards, lease, exclusive).await.map_err(|e| part("leases", &e))?;
        let held = {
            let mut leases = shared.leases.write().expect("no holder of this lock panics");
            leases.extend(taken.iter().map(|l| (l.shard, l.epoch)));
            leases.len()
        };
        if held == shards as usize {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(StartError::Part {
                part: "leases",
                message: format!(
                    "another engine holds {} of {shards} shards of this database; stop it, or give this one a database \
                     of its own",
                    shards as usize - held
                ),
            });
        }
        info!("waiting for the leases of another engine to end");
        tokio::time::sleep(lease / 5).await;
    }
}

fn owner(shared: &Shared) -> Result<String, StartError> {
    shared.folder.kept_text("owner", random_hex::<8>)
}

/// Takes up every open run of our shards that is not in memory: all of them at a start; later those whose creation was
/// committed without our learning of it, and those of shards that came back to us.
async fn adopt_open_runs(shared: &Arc<Shared>) -> Result<usize, ReadError> {
    let shards: Vec<u32> = shared.leases.read().expect("no holder of this lock panics").keys().copied().collect();
    let mut count = 0;
    for shard in shards {
        for row in shared.store.open_runs(shard).await? {
            if shared.is_cared_for(row.run) {
                continue;
            }
            count += 1;
            match driver::recover(shared, row.run).await {
                Ok(()) => {}
                Err(e @ ReadError::Unavailable { .. }) => return Err(e),
                Err(ReadError::Corrupt { message }) => {
                    // One run that cannot be understood must not keep the others from going on.
                    error!(run = %row.run, "set aside: {message}");
                    shared.set_aside(row.run, message);
                }
            }
        }
    }
    Ok(count)
}

/// Renews the leases while the engine lives. An engine that could not renew stops acting before the lease ends by its own
/// clock: the epochs go, so every write is refused here before the database would refuse it.
async fn keep_leases(shared: Arc<Shared>) {
    let Ok(owner) = owner(&shared) else { return };
    let lease = shared.config.lease;
    let mut renewed = boot_time();
    loop {
        tokio::select! {
            () = tokio::time::sleep(lease / 3) => {}
            () = shared.stop.cancelled() => return,
        }
        let asked = boot_time();
        match shared.store.renew(&owner, lease).await {
            Ok(held) => {
                renewed = asked;
                let mut leases = shared.leases.write().expect("no holder of this lock panics");
                let before = leases.len();
                *leases = held.iter().map(|l| (l.shard, l.epoch)).collect();
                if leases.len() < before {
                    error!("another engine took over {} shards; they are left alone", before - leases.len());
                }
            }
            Err(e) => warn!("the leases are not renewed: {e}"),
        }
        match shared.store.member() {
            Member::Sqlite => {}
            Member::Postgres => {
                if boot_time().saturating_sub(renewed) > lease.mul_f64(0.8) {
                    shared.leases.write().expect("no holder of this lock panics").clear();
                    error!("the leases could not be renewed in time; nothing is done until the database answers");
                }
                take_free_shards(&shared, &owner).await;
            }
        }
    }
}

/// Takes shards that nobody holds, if we lack any: after an outage, or when another engine has gone.
async fn take_free_shards(shared: &Arc<Shared>, owner: &str) {
    let held = shared.leases.read().expect("no holder of this lock panics").len();
    let shards = shared.store.shards();
    if held >= shards as usize {
        return;
    }
    match shared.store.acquire(owner, shards, shared.config.lease, false).await {
        Ok(taken) => {
            // Whoever held them meanwhile may have paused something.
            *shared.paused.write().await = None;
            let mut leases = shared.leases.write().expect("no holder of this lock panics");
            leases.extend(taken.iter().map(|l| (l.shard, l.epoch)));
        }
        Err(e) => warn!("shards that are free are not taken yet: {e}"),
    }
}

/// Time since boot, suspension included: a machine that slept must not believe that its lease is young.
fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

async fn housekeeping(shared: Arc<Shared>) {
    loop {
        let before = Millis(Millis::now().0 - i64::try_from(SEEN_MS).unwrap_or(0));
        let forget = Write::ForgetSeen(ForgetSeen { before });
        if let Err(e) = shared.store.write(vec![forget]).await {
            tracing::debug!("housekeeping waits: {e}");
        }
        for place in shared.pools.all() {
            match place.pool.sweep(ENDED_JOBS_KEPT).await {
                Ok(0) => {}
                Ok(swept) => tracing::debug!(pool = place.name, swept, "what ended long ago is removed"),
                Err(e) => tracing::debug!(pool = place.name, "what ended long ago stays for now: {e}"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(HOUSEKEEPING) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Moves the journals of finished runs into one row each, a while after their end: nobody waits for that, so it must not
/// stand in the way of the next run's commit.
async fn seal_finished(shared: Arc<Shared>) {
    loop {
        let relayed = shared.bus.relays();
        let found = if relayed {
            shared.store.unsealed_relayed(SEAL_LIMIT).await
        } else {
            shared.store.unsealed_finished(SEAL_LIMIT).await
        };
        let rows = found.unwrap_or_default();
        let full = rows.len() == SEAL_LIMIT as usize;
        for some in rows.chunks(SEALED_TOGETHER) {
            let unit = some.iter().map(|r| Write::Seal(Seal { shard: r.shard, run: r.run, relayed })).collect();
            if let Err(e) = shared.store.write(unit).await {
                tracing::debug!("journals are not sealed yet: {e}");
                break;
            }
        }
        let wait = if full { Duration::from_millis(1) } else { SEAL_EVERY };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn inboxes(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INBOX_POLL) => {}
            () = shared.stop.cancelled() => return,
        }
        match adopt_open_runs(&shared).await {
            Ok(0) => {}
            Ok(runs) => info!(runs, "taken up: nobody was acting for them"),
            Err(e) => tracing::debug!("open runs cannot be read: {e}"),
        }
        let shards: Vec<u32> = shared.leases.read().expect("no holder of this lock panics").keys().copied().collect();
        for shard in shards {
            for row in shared.store.inbox(shard, INBOX_LIMIT).await.unwrap_or_default() {
                driver::deliver(&shared, row);
            }
        }
    }
}

/// Comes to rest: nothing new is taken, background work ends, the store writes what is queued, leases are given back.
pub async fn shutdown(shared: &Arc<Shared>, deadline: Duration) {
    shared.draining.store(true, Ordering::Relaxed);
    shared.stop.cancel();
    shared.tasks.close();
    if tokio::time::timeout(deadline, shared.tasks.wait()).await.is_err() {
        warn!("not everything came to rest in {deadline:?}; what is open is taken up at the next start");
    }
    if let Ok(owner) = owner(shared)
        && let Err(e) = shared.store.release(&owner).await
    {
        warn!("the leases are not given back: {e}");
    }
    shared.store.close().await;
}
