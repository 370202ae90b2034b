//! When a schedule is due: cron expressions in a time zone.
//!
//! The `cron` crate reads the fields; everything that decides is ours, because that crate, used directly, numbers days of
//! the week from 1 for Sunday, joins the two day fields by *and*, knows no five fields, and loses or doubles ticks when
//! clocks change. Here instead:
//!
//! - five fields, or six with seconds in front; `@daily` and its like; Sunday is 0 and 7; POSIX: when day-of-month and
//!   day-of-week are both restricted, either suffices;
//! - **spring gap**: a tick whose wall-clock time does not exist is due once, at the first instant after the gap. A
//!   schedule that runs in *every* hour loses nothing by the gap, so nothing is made up for it;
//! - **autumn overlap**: a wall-clock time that comes twice is due the first time only, unless the schedule repeats within
//!   the day (`*`, a step or a range among seconds, minutes and hours): then it is due on every wall-clock match.
//!
//! Deliberately absent: the clock. Both [`Schedule::next_after`] and [`Schedule::missed`] are told what time it is.
//! Look next at [`mod@trigger`] for what a workflow's `on.cron` becomes, and at [`mod@missed`] for ticks that were not fired.

mod fields;
pub mod missed;
pub mod trigger;

use std::ops::Range;

use chrono::{DateTime, Datelike, Days, MappedLocalTime, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};
use kickwheel_schemas::Millis;

use fields::{Fields, Times};
pub use missed::{MissedPolicy, Tick, Ticks};
pub use trigger::{CronTrigger, cron_triggers, name_cron_triggers, tick_event, tick_source};

/// Longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 256;

/// How far ahead a date is looked for. The rarest date there is, 29 February, is at most eight years away (around 2100).
const MAX_YEARS_AHEAD: i32 = 9;

/// Zone of a schedule that names none.
pub const DEFAULT_ZONE: &str = "UTC";

/// Why a text is no schedule. Stop: it never will be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// More bytes than [`MAX_EXPRESSION_BYTES`].
    #[error("read a schedule of {bytes} bytes: the limit is {MAX_EXPRESSION_BYTES}")]
    TooLong {
        /// How many there are.
        bytes: usize,
    },
    /// Neither five nor six fields.
    #[error(
        "read the schedule {expression:?}: it has {found} fields, but needs five (minute, hour, day of month, month, day of week), or six with seconds in front"
    )]
    FieldCount {
        /// As given.
        expression: String,
        /// How many there are.
        found: usize,
    },
    /// A name after `@` that does not exist.
    #[error(
        "read the schedule {name:?}: there are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly"
    )]
    Nickname {
        /// As given.
        name: String,
    },
    /// One field cannot be read.
    #[error("read {text:?} as the {field} of a schedule: {reason}")]
    Field {
        /// Which one.
        field: FieldName,
        /// What it holds.
        text: String,
        /// What is wrong with it.
        reason: String,
        /// Where in the expression it stands, in bytes.
        at: Range<usize>,
    },
    /// No month that is named has a day that is named.
    #[error("find a date for the schedule {expression:?}: no such day exists in its months")]
    Impossible {
        /// As given.
        expression: String,
    },
    /// The time zone database has no such name.
    #[error("find the time zone {zone:?}{}", nearest.as_ref().map_or_else(|| ": write an IANA name such as `Europe/Berlin`".to_owned(), |near| format!("; did you mean {near:?}?")))]
    Zone {
        /// As given.
        zone: String,
        /// The name most like it.
        nearest: Option<String>,
    },
}

/// The fields of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldName {
    /// 0 to 59.
    Second,
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31.
    DayOfMonth,
    /// 1 to 12, or names.
    Month,
    /// 0 to 7, or names; 0 and 7 are Sunday.
    DayOfWeek,
}

impl std::fmt::Display for FieldName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of month",
            Self::Month => "month",
            Self::DayOfWeek => "day of week",
        })
    }
}

/// A time zone by its IANA name.
pub fn zone(name: &str) -> Result<Tz, ScheduleError> {
    name.parse().map_err(|_| ScheduleError::Zone { zone: name.to_owned(), nearest: nearest_zone(name) })
}

/// Least similarity, from 0 to 1, at which a zone is offered instead of an unknown one.
const SIMILAR: f64 = 0.75;

/// The zone that was probably meant. A city alone is the common slip, so the last part of a name counts as well.
fn nearest_zone(name: &str) -> Option<String> {
    let wanted = name.trim().to_lowercase().replace(' ', "_");
    let similarity = |zone: &Tz| {
        let known = zone.name().to_lowercase();
        let city = known.rsplit('/').next().unwrap_or(&known);
        strsim::normalized_damerau_levenshtein(&wanted, &known)
            .max(strsim::normalized_damerau_levenshtein(&wanted, city) * 0.99)
    };
    let (best, score) = TZ_VARIANTS
        .iter()
        .map(|zone| (zone.name(), similarity(zone)))
        .max_by(|(_, left), (_, right)| left.total_cmp(right))?;
    (score >= SIMILAR).then(|| best.to_owned())
}

/// A schedule in its time zone. Due times are whole seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    fields: Fields,
    zone: Tz,
}

/// Which of the two instants of a repeated wall-clock time.
#[derive(Clone, Copy)]
enum Half {
    Earlier,
    Later,
}

impl Schedule {
    /// Reads an expression and the name of its zone.
    pub fn parse(expression: &str, timezone: &str) -> Result<Self, ScheduleError> {
        Ok(Self { fields: Fields::parse(expression)?, zone: zone(timezone)? })
    }

    /// The first due time after `after`. None where there is none within [`MAX_YEARS_AHEAD`] or within representable time.
    pub fn next_after(&self, after: Millis) -> Option<Millis> {
        let at = after.0.div_euclid(1000).checked_add(1)?;
        self.first_from(at)?.checked_mul(1000).map(Millis)
    }

    /// The first due second from `at` on. Two walks over wall-clock time: one in which a repeated time means its first
    /// instant, and, only from within an overlap and for schedules that repeat, one in which it means the second. Each
    /// meets its instants in ascending order, so the first one that is not before `at` is the answer of the walk.
    fn first_from(&self, at: i64) -> Option<i64> {
        // One second earlier, so that a gap which ends at `at` lies ahead of the walk.
        let earlier = self.walk(self.local(at.checked_sub(1)?)?, at, Half::Earlier);
        if !self.fields.repeats_within_day() {
            return earlier;
        }
        let here = self.local(at)?;
        let later = match self.zone.from_local_datetime(&here) {
            MappedLocalTime::Ambiguous(one, other) => {
                let overlap = TimeDelta::seconds((one.timestamp() - other.timestamp()).abs());
                self.walk(here.checked_sub_signed(overlap)?, at, Half::Later)
            }
            MappedLocalTime::Single(_) | MappedLocalTime::None => None,
        };
        match (earlier, later) {
            (Some(earlier), Some(later)) => Some(earlier.min(later)),
            (found, None) | (None, found) => found,
        }
    }

    fn walk(&self, from: NaiveDateTime, at: i64, half: Half) -> Option<i64> {
        let last_year = from.year().checked_add(MAX_YEARS_AHEAD)?;
        let mut wall = from;
        loop {
            wall = self.next_wall(wall, last_year)?;
            let instant = match self.zone.from_local_datetime(&wall) {
                MappedLocalTime::Single(one) => one.timestamp(),
                MappedLocalTime::Ambiguous(one, other) => match half {
                    Half::Earlier => one.timestamp().min(other.timestamp()),
                    Half::Later => one.timestamp().max(other.timestamp()),
                },
                MappedLocalTime::None => {
                    let end = GapInfo::new(&wall, &self.zone)?.end?;
                    if !self.fields.runs_every_hour() && end.timestamp() >= at {
                        return Some(end.timestamp());
                    }
                    wall = end.naive_local();
                    continue;
                }
            };
            if instant >= at {
                return Some(instant);
            }
            wall = wall.checked_add_signed(TimeDelta::seconds(1))?;
        }
    }

    /// The first wall-clock time from `from` on that the fields name, whether or not it exists in the zone.
    fn next_wall(&self, from: NaiveDateTime, last_year: i32) -> Option<NaiveDateTime> {
        if self.fields.includes_date(from.date())
            && let Some(time) = self.fields.times().next_from(from.time())
        {
            return Some(from.date().and_time(time));
        }
        let date = self.next_date(from.date().checked_add_days(Days::new(1))?, last_year)?;
        Some(date.and_time(self.fields.times().first()))
    }

    fn next_date(&self, from: NaiveDate, last_year: i32) -> Option<NaiveDate> {
        let mut date = from;
        while date.year() <= last_year {
            if !self.fields.includes_month(date.month()) {
                date = first_of_next_month(date)?;
            } else if self.fields.includes_date(date) {
                return Some(date);
            } else {
                date = date.checked_add_days(Days::new(1))?;
            }
        }
        None
    }

    /// What the wall shows at a second. chrono's own conversion panics at the ends of representable time.
    fn local(&self, at: i64) -> Option<NaiveDateTime> {
        let utc = DateTime::from_timestamp(at, 0)?.naive_utc();
        utc.checked_add_offset(self.zone.offset_from_utc_datetime(&utc).fix())
    }

    fn times(&self) -> Times {
        self.fields.times()
    }
}

fn first_of_next_month(date: NaiveDate) -> Option<NaiveDate> {
    let first = date.with_day(1)?;
    first.checked_add_months(chrono::Months::new(1))
}
