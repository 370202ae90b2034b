//! The cron trigger: the clock, and the waiting, of the engine's schedules.
//!
//! When a tick is due, and that it becomes an event exactly once, is the engine's (`kickwheel_runtime::engine::cron`); here
//! it is asked at the right moments: when the next tick is due, and when other schedules are in force. The longest sleep
//! is short, so that a clock that was set, or a trigger that another engine was told of, is noticed soon.

use std::time::Duration;

use kickwheel_runtime::{CronMemory, Engine};
use kickwheel_schemas::Millis;
use tracing::warn;

/// Longest sleep.
const SLOW_POLL: Duration = Duration::from_secs(2);
/// Shortest sleep, should a tick be due that cannot be made durable.
const PAUSE: Duration = Duration::from_millis(20);

/// Ticks until the engine stops.
pub async fn tick_for_ever(engine: Engine) {
    let stopped = engine.stopped();
    let mut memory = CronMemory::default();
    let mut trouble: Option<String> = None;
    loop {
        let wait = match engine.turn_schedules(&mut memory, Millis::now()).await {
            Ok(next) => {
                trouble = None;
                until(next, Millis::now())
            }
            Err(e) => {
                // What is in memory may not be what is stored any more.
                memory = CronMemory::default();
                let reason = e.to_string();
                if trouble.as_ref() != Some(&reason) {
                    warn!("ticks wait: {reason}");
                }
                trouble = Some(reason);
                SLOW_POLL
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = engine.schedules_changed() => {}
            () = stopped.cancelled() => return,
        }
    }
}

/// How long to sleep at `now` when something is due at `next`.
fn until(next: Option<Millis>, now: Millis) -> Duration {
    next.map_or(SLOW_POLL, |at| Duration::from_millis(at.since(now)).clamp(PAUSE, SLOW_POLL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_until_the_next_tick_but_never_long() {
        let now = Millis(1_000_000);
        assert_eq!(until(Some(now.plus(700)), now), Duration::from_millis(700));
        assert_eq!(until(Some(now.plus(3_600_000)), now), SLOW_POLL);
        assert_eq!(until(Some(Millis(0)), now), PAUSE);
        assert_eq!(until(None, now), SLOW_POLL);
    }
}
