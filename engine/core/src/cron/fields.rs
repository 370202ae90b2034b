//! The fields of an expression as sets, read by the `cron` crate one at a time.
//!
//! That crate splits fields by optional blanks, so `1*` would be two of them and shift all others: each field is therefore
//! checked for its form first, and given alone, which also tells which one is wrong. Days of the week are turned into
//! names, about whose meaning nobody disagrees.

use std::{ops::Range, str::FromStr};

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use cron::TimeUnitSpec;

use super::{FieldName, MAX_EXPRESSION_BYTES, ScheduleError};

/// An expression as sets: bit *n* stands for the value *n*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    times: Times,
    days: u64,
    months: u64,
    /// 0 is Sunday.
    weekdays: u64,
    /// Both day fields are restricted: either suffices.
    either_day: bool,
    /// Something other than single values among seconds, minutes and hours.
    repeats: bool,
}

/// The times of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    seconds: u64,
    minutes: u64,
    hours: u64,
}

/// Days of each month, a leap year's.
const LONGEST: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
const ALL_HOURS: u64 = (1 << 24) - 1;
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Fields {
    pub(super) fn parse(expression: &str) -> Result<Self, ScheduleError> {
        if expression.len() > MAX_EXPRESSION_BYTES {
            return Err(ScheduleError::TooLong { bytes: expression.len() });
        }
        let expanded = expand(expression)?;
        let parts = parts(expanded);
        let no_second = Part { text: "0", at: 0..0 };
        let (second, [minute, hour, day, month, weekday]) = match parts.as_slice() {
            [minute, hour, day, month, weekday] => (&no_second, [minute, hour, day, month, weekday]),
            [second, minute, hour, day, month, weekday] => (second, [minute, hour, day, month, weekday]),
            _ => {
                return Err(ScheduleError::FieldCount { expression: expression.to_owned(), found: parts.len() });
            }
        };
        let (seconds, second_repeats) = read(FieldName::Second, second)?;
        let (minutes, minute_repeats) = read(FieldName::Minute, minute)?;
        let (hours, hour_repeats) = read(FieldName::Hour, hour)?;
        let (days, _) = read(FieldName::DayOfMonth, day)?;
        let (months, _) = read(FieldName::Month, month)?;
        let (weekdays, _) = read(FieldName::DayOfWeek, weekday)?;
        let fields = Self {
            times: Times { seconds, minutes, hours },
            days,
            months,
            weekdays,
            either_day: day.is_restricted() && weekday.is_restricted(),
            repeats: second_repeats || minute_repeats || hour_repeats,
        };
        // A day of the week exists in every month; only days of months alone can name none.
        let exists = |month: &u32| (1..=LONGEST[*month as usize - 1]).any(|day| has(days, day));
        if !weekday.is_restricted() && !(1..=12).filter(|month| has(months, *month)).any(|month| exists(&month)) {
            return Err(ScheduleError::Impossible { expression: expression.to_owned() });
        }
        Ok(fields)
    }

    pub(super) fn times(&self) -> Times {
        self.times
    }

    pub(super) fn repeats_within_day(&self) -> bool {
        self.repeats
    }

    pub(super) fn runs_every_hour(&self) -> bool {
        self.times.hours == ALL_HOURS
    }

    pub(super) fn includes_month(&self, month: u32) -> bool {
        has(self.months, month)
    }

    /// Whether the fields name this very time.
    pub(super) fn includes(&self, wall: NaiveDateTime) -> bool {
        let (time, times) = (wall.time(), self.times);
        has(times.hours, time.hour())
            && has(times.minutes, time.minute())
            && has(times.seconds, time.second())
            && self.includes_date(wall.date())
    }

    pub(super) fn includes_date(&self, date: NaiveDate) -> bool {
        let by_day = has(self.days, date.day());
        let by_weekday = has(self.weekdays, date.weekday().num_days_from_sunday());
        let day = if self.either_day { by_day || by_weekday } else { by_day && by_weekday };
        day && self.includes_month(date.month())
    }
}

impl Times {
    /// How many there are in a day.
    pub(super) fn count(self) -> u64 {
        [self.seconds, self.minutes, self.hours].iter().map(|set| u64::from(set.count_ones())).product()
    }

    /// How many there are in an hour that is named.
    pub(super) fn count_in_hour(self) -> u64 {
        u64::from(self.seconds.count_ones()) * u64::from(self.minutes.count_ones())
    }

    pub(super) fn first(self) -> NaiveTime {
        time(lowest(self.hours), lowest(self.minutes), lowest(self.seconds))
    }

    /// The first time of the same day that is not before `from`.
    pub(super) fn next_from(self, from: NaiveTime) -> Option<NaiveTime> {
        let hour = next(self.hours, from.hour())?;
        if hour > from.hour() {
            return Some(time(hour, lowest(self.minutes), lowest(self.seconds)));
        }
        if let Some(minute) = next(self.minutes, from.minute()) {
            if minute > from.minute() {
                return Some(time(hour, minute, lowest(self.seconds)));
            }
            if let Some(second) = next(self.seconds, from.second()) {
                return Some(time(hour, minute, second));
            }
            if let Some(minute) = next(self.minutes, minute + 1) {
                return Some(time(hour, minute, lowest(self.seconds)));
            }
        }
        let hour = next(self.hours, hour + 1)?;
        Some(time(hour, lowest(self.minutes), lowest(self.seconds)))
    }
}

fn has(set: u64, value: u32) -> bool {
    set >> value & 1 == 1
}

/// The smallest member from `from` on.
fn next(set: u64, from: u32) -> Option<u32> {
    let rest = set.checked_shr(from)?;
    (rest != 0).then(|| from + rest.trailing_zeros())
}

fn lowest(set: u64) -> u32 {
    set.trailing_zeros()
}

fn time(hour: u32, minute: u32, second: u32) -> NaiveTime {
    NaiveTime::from_hms_opt(hour, minute, second).expect("the crate refuses values outside of their fields")
}

/// One field of the text.
#[derive(Clone, Debug)]
struct Part<'t> {
    text: &'t str,
    at: Range<usize>,
}

impl Part<'_> {
    /// As POSIX has it: only a lone asterisk leaves a day field open.
    fn is_restricted(&self) -> bool {
        !matches!(self.text, "*" | "?")
    }

    fn wrong(&self, field: FieldName, reason: impl Into<String>) -> ScheduleError {
        ScheduleError::Field { field, text: self.text.to_owned(), reason: reason.into(), at: self.at.clone() }
    }
}

/// What a name that begins with `@` stands for; other expressions as they are.
fn expand(expression: &str) -> Result<&str, ScheduleError> {
    let trimmed = expression.trim();
    if !trimmed.starts_with('@') {
        return Ok(expression);
    }
    Ok(match trimmed.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * SUN",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => return Err(ScheduleError::Nickname { name: trimmed.to_owned() }),
    })
}

fn parts(expression: &str) -> Vec<Part<'_>> {
    let start = |part: &str| part.as_ptr() as usize - expression.as_ptr() as usize;
    expression.split_ascii_whitespace().map(|text| Part { text, at: start(text)..start(text) + text.len() }).collect()
}

/// One entry of a comma-separated field: `*`, `5`, `MON`, `1-5`, each perhaps with `/2`.
struct Item<'t> {
    from: &'t str,
    to: Option<&'t str>,
    step: Option<&'t str>,
}

impl<'t> Item<'t> {
    fn parse(text: &'t str, wildcards: &[&str]) -> Option<Self> {
        let (base, step) = match text.split_once('/') {
            Some((base, step)) => (base, Some(step)),
            None => (text, None),
        };
        let (from, to) = match base.split_once('-') {
            Some((from, to)) => (from, Some(to)),
            None => (base, None),
        };
        let word = |text: &str| {
            !text.is_empty()
                && (text.bytes().all(|b| b.is_ascii_digit()) || text.bytes().all(|b| b.is_ascii_alphabetic()))
        };
        let well_formed = match to {
            Some(to) => word(from) && word(to),
            None => wildcards.contains(&from) || word(from),
        };
        let step_fits = step.is_none_or(|step| !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()));
        (well_formed && step_fits).then_some(Self { from, to, step })
    }

    /// More than one value, by its form.
    fn repeats(&self) -> bool {
        self.step.is_some() || self.to.is_some_and(|to| to != self.from) || matches!(self.from, "*" | "?")
    }
}

/// The values of a field, and whether it names more than single ones.
fn read(field: FieldName, part: &Part<'_>) -> Result<(u64, bool), ScheduleError> {
    let wildcards: &[&str] = match field {
        FieldName::DayOfMonth | FieldName::DayOfWeek => &["*", "?"],
        FieldName::Second | FieldName::Minute | FieldName::Hour | FieldName::Month => &["*"],
    };
    let mut items = Vec::new();
    for text in part.text.split(',') {
        let item = Item::parse(text, wildcards)
            .ok_or_else(|| part.wrong(field, format!("{text:?} is none of `*`, `5`, `1-5`, `*/15`, `1-30/2`")))?;
        items.push(item);
    }
    let text = match field {
        FieldName::DayOfWeek => weekday_names(&items, part)?,
        FieldName::Second | FieldName::Minute | FieldName::Hour | FieldName::DayOfMonth | FieldName::Month => {
            part.text.to_owned()
        }
    };
    let alone = match field {
        FieldName::Second => format!("{text} * * * * *"),
        FieldName::Minute => format!("* {text} * * * *"),
        FieldName::Hour => format!("* * {text} * * *"),
        FieldName::DayOfMonth => format!("* * * {text} * *"),
        FieldName::Month => format!("* * * * {text} *"),
        FieldName::DayOfWeek => format!("* * * * * {text}"),
    };
    let schedule = cron::Schedule::from_str(&alone).map_err(|_| part.wrong(field, range_of(field)))?;
    let set = match field {
        FieldName::Second => bits(schedule.seconds()),
        FieldName::Minute => bits(schedule.minutes()),
        FieldName::Hour => bits(schedule.hours()),
        FieldName::DayOfMonth => bits(schedule.days_of_month()),
        FieldName::Month => bits(schedule.months()),
        // The crate counts from 1 for Sunday.
        FieldName::DayOfWeek => bits(schedule.days_of_week()) >> 1,
    };
    Ok((set, items.iter().any(Item::repeats)))
}

fn bits(values: &impl TimeUnitSpec) -> u64 {
    values.iter().fold(0, |set, value| set | 1 << value)
}

/// What a field takes, for messages.
fn range_of(field: FieldName) -> &'static str {
    match field {
        FieldName::Second | FieldName::Minute => "values are 0 to 59, ranges ascend, steps are 1 to 59",
        FieldName::Hour => "values are 0 to 23, ranges ascend, steps are 1 to 23",
        FieldName::DayOfMonth => "values are 1 to 31, ranges ascend, steps are 1 to 31",
        FieldName::Month => "values are 1 to 12 or JAN to DEC, ranges ascend, steps are 1 to 12",
        FieldName::DayOfWeek => "values are 0 to 7 (0 and 7 are Sunday) or SUN to SAT, ranges ascend, steps are 1 to 7",
    }
}

/// Days of the week as a list of names: `1-5/2` is `MON,WED,FRI`. A range may end with Sunday.
fn weekday_names(items: &[Item<'_>], part: &Part<'_>) -> Result<String, ScheduleError> {
    let wrong = || part.wrong(FieldName::DayOfWeek, range_of(FieldName::DayOfWeek));
    let mut names: Vec<&str> = Vec::new();
    for item in items {
        let wild = matches!(item.from, "*" | "?");
        let from = if wild { 0 } else { weekday(item.from).ok_or_else(wrong)? };
        let to = match item.to {
            Some(to) => match weekday(to).ok_or_else(wrong)? {
                // `SAT-SUN` goes on to the Sunday after.
                0 if from > 0 => 7,
                to => to,
            },
            None if wild || item.step.is_some() => 6.max(from),
            None => from,
        };
        let step = item.step.map_or(Ok(1), |step| step.parse::<usize>()).map_err(|_| wrong())?;
        if from > to || !(1..=7).contains(&step) {
            return Err(wrong());
        }
        names.extend((from..=to).step_by(step).map(|day| WEEKDAYS[day % 7]));
    }
    Ok(names.join(","))
}

/// 0 to 7.
fn weekday(word: &str) -> Option<usize> {
    if word.bytes().all(|b| b.is_ascii_digit()) {
        return word.parse().ok().filter(|day| *day <= 7);
    }
    let word = word.to_ascii_uppercase();
    const FULL: [&str; 7] = ["SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"];
    WEEKDAYS.iter().position(|name| *name == word).or_else(|| FULL.iter().position(|name| *name == word))
}
