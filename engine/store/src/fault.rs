//! Fault points: named places in the code at which a test may have this very process killed.
//!
//! `KICKWHEEL_FAULT=name:count` kills the process with SIGKILL at the count-th passage (from 1) of the point called
//! `name`: no destructor runs, no buffer is flushed, exactly as when the machine goes. It lives in the store because that
//! is the lowest crate that has windows of its own; the runtime passes its points here too.
//!
//! A release build compiles [`point`] to nothing and never reads the variable. What it deliberately does not do: errors,
//! delays, or anything else that a real crash would not do.
//!
//! The points, in the order in which an event meets them:
//!
//! ```text
//!   ingest.accept.before   the sender has been heard, nothing is written
//!   ingest.accept.after    the event is durable, the sender has no answer
//!   ingest.decide.before   the event was taken from its lane, nothing is decided
//!   store.commit.before    a transaction is complete but for its commit
//!   store.commit.after     it is committed, nobody has been told
//!   ingest.start.before    runs are durable, nothing of them is performed
//!   driver.act.before      a turn is durable, nothing of it is performed
//!   driver.act.after       a turn is durable and its commands were handed out
//!   job.start.before       a job is admitted, the pool has not heard of it
//!   job.start.after        the pool has it, nobody follows it
//!   job.conclude.before    a job has ended, its result is not read
//!   job.conclude.after     the result was read, the run does not know it
//!   report.tell.before     a report is due, nobody was told
//!   report.tell.after      it was told, the store does not know it
//!   cron.fire.before       ticks are due, nothing of them is written
//!   cron.fire.after        they are durable and the cursor has moved, nobody has been woken
//!   poll.tell.before       a poll has found moves, nothing of them is written
//!   poll.tell.after        they are durable and the position has moved, nobody has been woken
//!   secrets.rekey.kept     the old key is kept, the new one is not in force
//!   secrets.rekey.begun    the new key is in force, nothing is sealed with it
//!   secrets.rekey.one      another secret is sealed with it
//! ```
//!
//! Where to look next: `tests/tests/faults` kills at each of them.

/// Kills this process if a test asked for it here.
#[inline]
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    /// What the environment asks for, read once.
    static ARMED: LazyLock<Option<Armed>> =
        LazyLock::new(|| std::env::var("KICKWHEEL_FAULT").ok().map(|text| Armed::parse(&text)));

    struct Armed {
        name: String,
        count: u64,
        passed: AtomicU64,
    }

    impl Armed {
        /// A typing mistake must end the process too: a test whose fault is never met would prove nothing.
        fn parse(text: &str) -> Self {
            let parsed = text.rsplit_once(':').and_then(|(name, count)| Some((name, count.parse().ok()?)));
            let Some((name, count)) = parsed else { panic!("KICKWHEEL_FAULT={text:?}: write name:count") };
            Self { name: name.to_owned(), count, passed: AtomicU64::new(0) }
        }
    }

    pub fn pass(name: &str) {
        let Some(armed) = ARMED.as_ref().filter(|a| a.name == name) else { return };
        if armed.passed.fetch_add(1, Ordering::Relaxed) + 1 != armed.count {
            return;
        }
        // Should the signal fail, the process must not go on as if nothing had been asked.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}
