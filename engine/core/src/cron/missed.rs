//! Which ticks are due now, when some may have been missed.
//!
//! A trigger keeps a cursor: the last due time that was dealt with. What lies between it and now is fired or left out as
//! the schedule's policy says; the caller moves the cursor in the transaction that records the ticks, so that a restart
//! neither loses nor repeats one.

use chrono::{TimeDelta, Timelike};
use kickwheel_schemas::Millis;
use serde::{Deserialize, Serialize};

use super::Schedule;

/// What becomes of ticks that could not be fired in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedPolicy {
    /// Only the latest, which says how many were missed before it.
    #[default]
    Latest,
    /// Each, oldest first.
    All,
    /// Only one that is on time; see [`ON_TIME_MS`].
    None,
}

/// With [`MissedPolicy::None`] and no deadline, how late a tick may be and still count as on time: longer than a pause of
/// the process or the database, shorter than the finest schedule of five fields.
pub const ON_TIME_MS: u64 = 30_000;

/// Most ticks that are given at once; [`Ticks::more`] says that more are due.
pub const MAX_TICKS_AT_ONCE: usize = 1_000;

/// One due time that is to be fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// When it was due; part of the event's identity.
    pub scheduled_at: Millis,
    /// How long ago that was.
    pub late_by_ms: u64,
    /// How many due times right before it were left out.
    pub missed: u64,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// To be fired, oldest first.
    pub fire: Vec<Tick>,
    /// Due times left out after the last one that is fired, or at all if none is.
    pub skipped: u64,
    /// There were more than [`MAX_TICKS_AT_ONCE`]: ask again from the new cursor.
    pub more: bool,
    /// The last due time that this deals with; the old cursor when nothing was due.
    pub cursor: Millis,
}

impl Schedule {
    /// What is due in `(since, now]`. `deadline_ms` is how late a tick may start; later ones are left out.
    pub fn missed(&self, since: Millis, now: Millis, policy: MissedPolicy, deadline_ms: Option<u64>) -> Ticks {
        let nothing = Ticks { fire: Vec::new(), skipped: 0, more: false, cursor: since };
        let Some(latest) = self.latest(since, now) else { return nothing };
        match policy {
            MissedPolicy::Latest => self.only(latest, since, now, deadline_ms),
            MissedPolicy::None => self.only(latest, since, now, Some(deadline_ms.unwrap_or(ON_TIME_MS))),
            MissedPolicy::All => self.each(latest, since, now, deadline_ms),
        }
    }

    fn only(&self, latest: Millis, since: Millis, now: Millis, deadline_ms: Option<u64>) -> Ticks {
        let count = self.count(since, latest);
        let late_by_ms = now.since(latest);
        let in_time = deadline_ms.is_none_or(|deadline| late_by_ms <= deadline);
        let fire = if in_time {
            vec![Tick { scheduled_at: latest, late_by_ms, missed: count.saturating_sub(1) }]
        } else {
            Vec::new()
        };
        Ticks { fire, skipped: if in_time { 0 } else { count }, more: false, cursor: latest }
    }

    fn each(&self, latest: Millis, since: Millis, now: Millis, deadline_ms: Option<u64>) -> Ticks {
        // The moment just before the oldest tick that is still in time.
        let oldest = deadline_ms.map_or(since, |deadline| {
            let deadline = i64::try_from(deadline).unwrap_or(i64::MAX);
            Millis(now.0.saturating_sub(deadline).saturating_sub(1)).max(since)
        });
        let skipped = self.count(since, oldest);
        let mut fire: Vec<Tick> = Vec::new();
        let mut at = oldest;
        while let Some(due) = self.next_after(at).filter(|due| *due <= latest) {
            if fire.len() == MAX_TICKS_AT_ONCE {
                return Ticks { cursor: at, fire, skipped: 0, more: true };
            }
            let missed = if fire.is_empty() { skipped } else { 0 };
            fire.push(Tick { scheduled_at: due, late_by_ms: now.since(due), missed });
            at = due;
        }
        let skipped = if fire.is_empty() { skipped } else { 0 };
        Ticks { fire, skipped, more: false, cursor: latest }
    }

    /// The last due time in `(since, now]`. `next_after` never goes back, so the place from which the next due time lies
    /// beyond `now` can be found by halving.
    pub fn latest(&self, since: Millis, now: Millis) -> Option<Millis> {
        let due_from = |from: i64| self.next_after(Millis(from)).filter(|due| *due <= now);
        let mut found = due_from(since.0)?;
        let (mut low, mut high) = (found.0, now.0);
        while low < high {
            let middle = low + (high - low) / 2;
            match due_from(middle) {
                Some(due) => {
                    found = due;
                    low = due.0;
                }
                None => high = middle,
            }
        }
        Some(found)
    }

    /// How many due times lie in `(since, until]`. Whole days and hours without a change of the clock are counted by
    /// arithmetic.
    fn count(&self, since: Millis, until: Millis) -> u64 {
        let mut count = 0_u64;
        let mut at = since;
        while let Some(due) = self.next_after(at).filter(|due| *due <= until) {
            let times = self.times();
            let plain = self
                .plain_span(due, DAY_SECONDS, until)
                .map(|end| (end, times.count()))
                .or_else(|| self.plain_span(due, HOUR_SECONDS, until).map(|end| (end, times.count_in_hour())));
            let (end, more) = plain.unwrap_or((due, 1));
            count += more;
            at = end;
        }
        count
    }

    /// If `due` is the first due time of a day or hour that has its full length and is over by `until`: its last instant.
    fn plain_span(&self, due: Millis, seconds: u32, until: Millis) -> Option<Millis> {
        let at = due.0.div_euclid(1000);
        let wall = self.local(at)?;
        let passed = wall.time().num_seconds_from_midnight() % seconds;
        let begin = at - i64::from(passed);
        let end = begin + i64::from(seconds);
        // The wall shows its first and its last second just so long apart: no clock was changed in between.
        let plain = self.local(begin)? == wall - TimeDelta::seconds(passed.into())
            && self.local(end - 1)? == wall + TimeDelta::seconds((seconds - 1 - passed).into());
        // A time made up for a gap is due although the fields do not name it.
        let first = self.times().first().num_seconds_from_midnight() % seconds == passed && self.fields.includes(wall);
        let last = Millis(end.checked_mul(1000)? - 1);
        (plain && first && last <= until).then_some(last)
    }
}

const HOUR_SECONDS: u32 = 3600;
const DAY_SECONDS: u32 = 24 * HOUR_SECONDS;
