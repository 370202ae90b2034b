//! The one thread that advances the engine's epoch while calls are running, and sleeps while none is.
//!
//! Every tick makes each running guest return to the async runtime once, where its deadline is looked at. An engine at
//! rest must cost no CPU, so the thread parks when the last call ends.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use wasmtime::Engine;

/// How long a guest can hold a thread of the runtime before it must yield, and how late a time-out can be noticed.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Counts running calls; the thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    running: Arc<AtomicUsize>,
    thread: Thread,
}

/// A running call.
#[derive(Debug)]
pub(crate) struct Ticking(Arc<AtomicUsize>);

impl Ticker {
    /// Starts the thread.
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        Ok(Self::spawn(engine)?.0)
    }

    fn spawn(engine: &Engine) -> io::Result<(Self, JoinHandle<()>)> {
        let running = Arc::new(AtomicUsize::new(0));
        let (weak_engine, weak_running) = (engine.weak(), Arc::downgrade(&running));
        let handle = thread::Builder::new().name("wasm-ticker".to_owned()).spawn(move || {
            while let Some(running) = weak_running.upgrade() {
                let idle = running.load(Ordering::SeqCst) == 0;
                // Held across the pause, it would keep the thread alive after its host.
                drop(running);
                if idle {
                    thread::park();
                } else {
                    thread::sleep(TICK);
                    let Some(engine) = weak_engine.upgrade() else { return };
                    engine.increment_epoch();
                }
            }
        })?;
        Ok((Self { running, thread: handle.thread().clone() }, handle))
    }

    /// Keeps the epoch advancing until the answer is dropped.
    pub(crate) fn running(&self) -> Ticking {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Ticking(Arc::clone(&self.running))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // Dropping the counter first is what lets the woken thread see that it is over.
        self.running = Arc::new(AtomicUsize::new(0));
        self.thread.unpark();
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn ends(handle: &JoinHandle<()>) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if handle.is_finished() {
                return true;
            }
            thread::yield_now();
        }
        false
    }

    #[test]
    fn the_thread_ends_with_its_host_whether_it_ticked_or_not() {
        let engine = Engine::default();
        let (idle, handle) = Ticker::spawn(&engine).expect("a thread can be started");
        drop(idle);
        assert!(ends(&handle));
        let (busy, handle) = Ticker::spawn(&engine).expect("a thread can be started");
        drop(busy.running());
        drop(busy);
        assert!(ends(&handle));
    }
}
