//! Admission to a pool: first come, first served, within the declared capacity.
//!
//! A slot is a value that the executing task holds; it is given back when the task lets go of it, however it ends, so no
//! counter can drift. What it deliberately does not do: fairness, priorities, other pools.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use kickwheel_core::plan::Resources;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Memory is admitted in steps of this many bytes, because permits are 32-bit.
const MEMORY_UNIT: u64 = 1 << 20;

/// The capacity of one pool.
#[derive(Debug)]
pub struct Admission {
    name: &'static str,
    cpu: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    cpu_milli: u64,
    memory_bytes: u64,
    /// Who waits, in the order in which they became due.
    line: Arc<Line>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: Mutex<Waiting>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    numbers: BTreeSet<u64>,
    next: u64,
}

/// A place in the line, taken when a task becomes due; given up when dropped. Only the head of the line is served, so a
/// big task is not overtaken for ever by small ones.
#[derive(Debug)]
pub struct Ticket {
    number: u64,
    line: Arc<Line>,
}

impl Ticket {
    fn is_first(&self) -> bool {
        self.line.waiting.lock().expect("no holder of this lock panics").numbers.first() == Some(&self.number)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.line.waiting.lock().expect("no holder of this lock panics").numbers.remove(&self.number);
        self.line.moved.notify_waiters();
    }
}

/// The right to run; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    _cpu: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

impl Admission {
    /// A pool with this much to give.
    pub fn new(name: &'static str, cpu_milli: u64, memory_bytes: u64) -> Self {
        let units = usize::try_from(memory_bytes / MEMORY_UNIT).unwrap_or(Semaphore::MAX_PERMITS);
        let cpu = usize::try_from(cpu_milli).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            name,
            cpu: Arc::new(Semaphore::new(cpu.min(Semaphore::MAX_PERMITS))),
            memory: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
            cpu_milli,
            memory_bytes,
            line: Arc::default(),
        }
    }

    /// Why such a task can never run here, if so.
    pub fn impossible(&self, wanted: &Resources) -> Option<String> {
        if wanted.gpu > 0 {
            return Some(format!("it asks for {} GPUs and the {} pool has none", wanted.gpu, self.name));
        }
        if wanted.cpu_milli > self.cpu_milli {
            let (asked, has) = (wanted.cpu_milli as f64 / 1000.0, self.cpu_milli as f64 / 1000.0);
            let name = self.name;
            return Some(format!("it asks for {asked} cpu and the {name} pool has {has}; lower resources.cpu"));
        }
        match wanted.memory_bytes {
            Some(asked) if asked > self.memory_bytes => Some(format!(
                "it asks for {asked} bytes of memory and the {} pool has {}; lower resources.memory",
                self.name, self.memory_bytes
            )),
            _ => None,
        }
    }

    /// The next place in the line.
    pub fn ticket(&self) -> Ticket {
        let mut waiting = self.line.waiting.lock().expect("no holder of this lock panics");
        let number = waiting.next;
        waiting.next += 1;
        waiting.numbers.insert(number);
        Ticket { number, line: Arc::clone(&self.line) }
    }

    /// Waits for its turn and its resources.
    pub async fn admit(&self, ticket: Ticket, wanted: &Resources) -> Slot {
        loop {
            let moved = self.line.moved.notified();
            tokio::pin!(moved);
            // Registered before the look, so that a move in between is not missed.
            moved.as_mut().enable();
            if ticket.is_first() {
                break;
            }
            moved.await;
        }
        self.take(wanted).await
    }

    /// For a job that already runs: takes its share if that is free, and never waits. Should it not be free, because
    /// less was declared since, the job runs all the same.
    pub fn adopt(&self, wanted: &Resources) -> Option<Slot> {
        let (cpu, memory) = self.permits(wanted);
        let cpu = Arc::clone(&self.cpu).try_acquire_many_owned(cpu).ok()?;
        let memory = Arc::clone(&self.memory).try_acquire_many_owned(memory).ok()?;
        Some(Slot { _cpu: cpu, _memory: memory })
    }

    fn permits(&self, wanted: &Resources) -> (u32, u32) {
        let cpu = u32::try_from(wanted.cpu_milli.min(self.cpu_milli)).unwrap_or(u32::MAX);
        let units = wanted.memory_bytes.unwrap_or(0).min(self.memory_bytes).div_ceil(MEMORY_UNIT);
        let memory = u32::try_from(units.min(self.memory_bytes / MEMORY_UNIT)).unwrap_or(u32::MAX);
        (cpu, memory)
    }

    async fn take(&self, wanted: &Resources) -> Slot {
        let (cpu, memory) = self.permits(wanted);
        Slot { _cpu: acquire(&self.cpu, cpu).await, _memory: acquire(&self.memory, memory).await }
    }

    #[cfg(test)]
    fn free_cpu_milli(&self) -> usize {
        self.cpu.available_permits()
    }
}

async fn acquire(from: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    Arc::clone(from).acquire_many_owned(permits).await.expect("the semaphore is never closed")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ask(cpu_milli: u64) -> Resources {
        Resources { cpu_milli, memory_bytes: None, gpu: 0 }
    }

    #[tokio::test]
    async fn a_big_task_at_the_head_is_not_overtaken() {
        let pool = Arc::new(Admission::new("local", 2000, 1 << 30));
        let running = pool.admit(pool.ticket(), &ask(1000)).await;
        let ticket = pool.ticket();
        let big = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.admit(ticket, &ask(2000)).await }
        });
        let small = tokio::time::timeout(Duration::from_millis(50), pool.admit(pool.ticket(), &ask(1000))).await;
        assert!(small.is_err(), "the small task must wait behind the big one");
        drop(running);
        let held = big.await.expect("the waiter does not panic");
        assert_eq!(pool.free_cpu_milli(), 0);
        drop(held);
        assert_eq!(pool.free_cpu_milli(), 2000);
    }

    #[tokio::test]
    async fn who_was_due_first_is_served_first_and_a_place_given_up_holds_up_nobody() {
        let pool = Admission::new("local", 1000, 1 << 30);
        let (first, second, third) = (pool.ticket(), pool.ticket(), pool.ticket());
        let early = tokio::time::timeout(Duration::from_millis(20), pool.admit(third, &ask(1000))).await;
        assert!(early.is_err(), "the third must wait for the first two");
        drop(first);
        pool.admit(second, &ask(1000)).await;
    }

    #[test]
    fn what_can_never_fit_is_said_at_once() {
        let pool = Admission::new("local", 2000, 1 << 30);
        assert_eq!(pool.impossible(&ask(2000)), None);
        assert!(pool.impossible(&ask(2001)).is_some());
        assert!(pool.impossible(&Resources { gpu: 1, ..ask(1) }).is_some());
        assert!(pool.impossible(&Resources { memory_bytes: Some(2 << 30), ..ask(1) }).is_some());
    }
}
