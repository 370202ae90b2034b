//! Noticing changes: which attempts are live, and who is told when one of them moves on.
//!
//! The kernel says when a document appears in a live attempt's folder (inotify), which takes well under a millisecond and
//! works however engine, agent, container and runner came and went. A slow sweep covers what leaves no document behind: a
//! runner killed when nobody was there to see it, an attempt that no runner ever claimed, and a queue of the kernel's that
//! ran over. Nothing here is remembered that the folders do not say; the list of live attempts is only where to look.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use kickwheel_schemas::{AttemptKey, runner::file};
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::{io::unix::AsyncFd, sync::Notify, time::MissedTickBehavior};

use crate::{Capacity, Observed, PoolError, Request, StartError};

/// A pool whose attempts are watched.
pub trait Watched: Send + Sync + 'static {
    /// Between two looks at every live attempt.
    const SWEEP_INTERVAL: Duration;

    /// Where its live attempts are listed.
    fn watch(&self) -> &Arc<Watch>;

    /// What is known about an attempt now.
    fn observe(&self, key: &AttemptKey) -> impl Future<Output = Result<Observed, PoolError>> + Send;

    /// Asks again for the start of an attempt that nobody may be at.
    fn revive(&self, key: &AttemptKey) -> impl Future<Output = Result<(), PoolError>> + Send;
}

/// Bytes of kernel events fetched at once.
const EVENTS_BYTES: usize = 16 * 1024;

/// The live attempts and those who want to hear of them.
#[derive(Debug)]
pub struct Watch {
    kernel: AsyncFd<OwnedFd>,
    state: Mutex<State>,
}

/// The task that looks. It ends with the pool.
#[derive(Debug)]
pub struct Task(tokio::task::JoinHandle<()>);

#[derive(Debug, Default)]
struct State {
    live: BTreeMap<AttemptKey, Live>,
    by_watch: HashMap<i32, AttemptKey>,
    subscribers: Vec<Weak<Subscriber>>,
}

#[derive(Debug)]
struct Live {
    watch: i32,
    request: Request,
    /// Whether it was seen running, so that heartbeats tell nothing new.
    started: bool,
    since: Instant,
}

#[derive(Debug, Default)]
struct Subscriber {
    changed: Mutex<BTreeSet<AttemptKey>>,
    wake: Notify,
}

/// Tells which attempts are worth observing again. What is not fetched is kept, once per attempt.
#[derive(Debug)]
pub struct Changes {
    subscriber: Arc<Subscriber>,
}

impl Changes {
    /// The next attempt that has moved on. Cancel-safe.
    pub async fn next(&mut self) -> AttemptKey {
        loop {
            let first = lock(&self.subscriber.changed).pop_first();
            if let Some(key) = first {
                return key;
            }
            self.subscriber.wake.notified().await;
        }
    }
}

impl Watch {
    /// Watches nothing yet. Needs a running tokio runtime.
    pub fn new() -> Result<Self, PoolError> {
        let kernel = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|error| PoolError::io("inotify")(error.into()))?;
        #[expect(unsafe_code, reason = "tokio has no safe way to wait for a descriptor of this kind")]
        // SAFETY: an `OwnedFd` is one and the same open descriptor until it is dropped.
        let kernel = unsafe { AsyncFd::register(kernel) }.map_err(|error| PoolError::io("inotify")(error.into()))?;
        Ok(Self { kernel, state: Mutex::default() })
    }

    /// Takes an attempt among the live ones. Doing it again changes nothing.
    pub fn add(&self, key: &AttemptKey, request: Request, folder: &Path) -> Result<(), PoolError> {
        let mut state = lock(&self.state);
        if state.live.contains_key(key) {
            return Ok(());
        }
        let wanted = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let watch =
            inotify::add_watch(&self.kernel, folder, wanted).map_err(|error| PoolError::io(folder)(error.into()))?;
        state.by_watch.insert(watch, key.clone());
        state.live.insert(key.clone(), Live { watch, request, started: false, since: Instant::now() });
        Ok(())
    }

    /// The attempt has ended.
    pub fn forget(&self, key: &AttemptKey) {
        let mut state = lock(&self.state);
        if let Some(live) = state.live.remove(key) {
            state.by_watch.remove(&live.watch);
            // An error means that the folder is gone, and its watch with it.
            let _ = inotify::remove_watch(&self.kernel, live.watch);
            // Whoever noticed it first, everybody hears of it.
            notify(&mut state, key);
        }
    }

    /// Keys of all live attempts.
    pub fn live(&self) -> Vec<AttemptKey> {
        lock(&self.state).live.keys().cloned().collect()
    }

    /// What they ask for.
    pub fn occupied(&self) -> Capacity {
        lock(&self.state).live.values().fold(Capacity::default(), |sum, live| sum.plus(&live.request))
    }

    /// A new listener.
    pub fn subscribe(&self) -> Changes {
        let subscriber = Arc::new(Subscriber::default());
        lock(&self.state).subscribers.push(Arc::downgrade(&subscriber));
        Changes { subscriber }
    }

    /// Waits for events of the kernel; which attempts they are about, and whether only about a heartbeat. None: some
    /// events were lost.
    async fn events(&self) -> Option<BTreeMap<AttemptKey, bool>> {
        loop {
            let Ok(mut ready) = self.kernel.readable().await else { return None };
            let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
            let mut reader = inotify::Reader::new(&self.kernel, &mut buffer);
            let mut found: BTreeMap<AttemptKey, bool> = BTreeMap::new();
            loop {
                match reader.next() {
                    Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => return None,
                    Ok(event) => {
                        let beat = match event.file_name().map(|name| name.to_bytes()) {
                            Some(name) if name == file::HEARTBEAT.as_bytes() => true,
                            Some(name) if name == file::RESULT.as_bytes() || name == file::EXIT.as_bytes() => false,
                            Some(_) | None => continue,
                        };
                        if let Some(key) = lock(&self.state).by_watch.get(&event.wd()) {
                            let only_beat = found.entry(key.clone()).or_insert(true);
                            *only_beat &= beat;
                        }
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(_) => return None,
                }
            }
            ready.clear_ready();
            if !found.is_empty() {
                return Some(found);
            }
        }
    }

    fn has_started(&self, key: &AttemptKey) -> bool {
        lock(&self.state).live.get(key).is_none_or(|live| live.started)
    }

    fn set_started(&self, key: &AttemptKey) {
        let mut state = lock(&self.state);
        if let Some(live) = state.live.get_mut(key)
            && !live.started
        {
            live.started = true;
            notify(&mut state, key);
        }
    }

    fn age(&self, key: &AttemptKey) -> Duration {
        lock(&self.state).live.get(key).map(|live| live.since.elapsed()).unwrap_or_default()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to look. The task holds the pool only while it looks at an attempt, so that dropping the pool ends it.
pub fn begin<P: Watched>(pool: &Arc<P>) -> Task {
    let (watch, pool) = (Arc::clone(pool.watch()), Arc::downgrade(pool));
    Task(tokio::spawn(async move {
        let mut sweep = tokio::time::interval(P::SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let events = tokio::select! {
                events = watch.events() => events,
                _ = sweep.tick() => None,
            };
            let Some(pool) = pool.upgrade() else { return };
            match events {
                Some(events) => {
                    for (key, only_beat) in events {
                        if !only_beat || !watch.has_started(&key) {
                            look_again(&*pool, &key).await;
                        }
                    }
                }
                None => {
                    for key in watch.live() {
                        look_again(&*pool, &key).await;
                    }
                }
            }
        }
    }))
}

impl Task {
    /// A task of another kind that ends with its pool.
    pub fn of(task: tokio::task::JoinHandle<()>) -> Self {
        Self(task)
    }
}

/// Waits for an attempt's end, or returns at once if it is unknown.
pub async fn wait<P: Watched>(pool: &P, key: &AttemptKey) -> Result<Observed, PoolError> {
    let mut changes = pool.watch().subscribe();
    loop {
        let observed = pool.observe(key).await?;
        if observed.is_final() || observed == Observed::Unknown {
            return Ok(observed);
        }
        // The time-out is for an attempt that nobody watches because another process started it.
        let _ = tokio::time::timeout(P::SWEEP_INTERVAL, async { while changes.next().await != *key {} }).await;
    }
}

/// What live attempts ask for together, each of them looked at again.
pub async fn occupied<P: Watched>(pool: &P) -> Result<Capacity, PoolError> {
    for key in pool.watch().live() {
        pool.observe(&key).await?;
    }
    Ok(pool.watch().occupied())
}

/// Refuses what does not fit beside the live attempts into the `whole` pool.
pub async fn admit<P: Watched>(pool: &P, request: &Request, whole: Capacity) -> Result<(), StartError> {
    if pool.watch().occupied().plus(request).excess_over(whole).is_none() {
        return Ok(());
    }
    // An attempt may have ended a moment ago; look before refusing.
    match occupied(pool).await?.plus(request).excess_over(whole) {
        None => Ok(()),
        Some(excess) => Err(StartError::Full(excess)),
    }
}

/// Looks at one attempt and tells listeners what is new. Problems are met again by the next sweep, and by whoever
/// observes the attempt.
pub async fn look_again<P: Watched>(pool: &P, key: &AttemptKey) {
    let watch = pool.watch();
    match pool.observe(key).await {
        Ok(Observed::Running { .. }) => watch.set_started(key),
        Ok(Observed::Pending) => {
            // Nobody may be at it: who was to start a runner may have died between hearing of it and doing so.
            if watch.age(key) > P::SWEEP_INTERVAL
                && let Err(error) = pool.revive(key).await
            {
                tracing::warn!(attempt = %key, %error, "failed to start a waiting attempt; trying again");
            }
        }
        Ok(Observed::Ended(_) | Observed::Lost { .. }) => {}
        Ok(Observed::Unknown) => watch.forget(key),
        Err(error) => tracing::warn!(attempt = %key, %error, "failed to observe an attempt; trying again"),
    }
}

fn notify(state: &mut State, key: &AttemptKey) {
    state.subscribers.retain(|subscriber| {
        let Some(subscriber) = subscriber.upgrade() else { return false };
        lock(&subscriber.changed).insert(key.clone());
        subscriber.wake.notify_one();
        true
    });
}

/// Nothing panics while these are held, and what they guard is whole after every statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
