//! Schedules: each rule about clocks that change as a case, and croner as the oracle for random ones.
//!
//! croner decides two things otherwise, and there the comparison leaves out the days around a change of the clock:
//! it takes a list of single times (`0 2,14 * * *`) for one that repeats, so it runs twice in an overlap and is lost in a
//! gap; and it loses what falls into a gap for every schedule that repeats, also when it runs in certain hours only
//! (`*/15 2 * * *`), where a whole day's ticks would be gone.

use std::{str::FromStr as _, sync::LazyLock};

use chrono::{DateTime, Offset as _, TimeZone as _};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds};
use kickwheel_core::cron::{FieldName, MissedPolicy, Schedule, ScheduleError, Tick, missed};
use kickwheel_schemas::Millis;
use proptest::prelude::*;

fn at(text: &str) -> Millis {
    Millis(DateTime::parse_from_rfc3339(text).expect("RFC 3339").timestamp_millis())
}

fn schedule(expression: &str, zone: &str) -> Schedule {
    Schedule::parse(expression, zone).unwrap_or_else(|error| panic!("failed to {error}"))
}

fn due(schedule: &Schedule, from: Millis, count: usize) -> Vec<Millis> {
    std::iter::successors(schedule.next_after(from), |at| schedule.next_after(*at)).take(count).collect()
}

/// The first due times after `from`, as the wall shows them in the zone.
#[track_caller]
fn check(expression: &str, zone: &str, from: &str, expected: &[&str]) {
    let tz: Tz = zone.parse().expect("a zone");
    let shown: Vec<String> = due(&schedule(expression, zone), at(from), expected.len())
        .iter()
        .map(|at| tz.timestamp_millis_opt(at.0).single().expect("an instant").format("%m-%d %H:%M:%S%z").to_string())
        .collect();
    assert_eq!(shown, expected, "{expression} {zone}");
}

#[test]
fn fields_mean_what_posix_says() {
    let check = |expression, expected: &[&str]| check(expression, "UTC", "2026-11-01T00:00:00Z", expected);
    check("0 3 * * MON", &["11-02 03:00:00+0000", "11-09 03:00:00+0000"]);
    check("0 9 * * 1", &["11-02 09:00:00+0000"]);
    check("0 9 * * 0", &["11-01 09:00:00+0000", "11-08 09:00:00+0000"]);
    check("0 9 * * 7", &["11-01 09:00:00+0000", "11-08 09:00:00+0000"]);
    check("0 9 * * 5-7", &["11-01 09:00:00+0000", "11-06 09:00:00+0000", "11-07 09:00:00+0000"]);
    check("0 9 * * sat-sun", &["11-01 09:00:00+0000", "11-07 09:00:00+0000"]);
    check("0 9 * * Mon,wednesday", &["11-02 09:00:00+0000", "11-04 09:00:00+0000"]);
    check("0 9 * * 1-5/2", &["11-02 09:00:00+0000", "11-04 09:00:00+0000", "11-06 09:00:00+0000"]);
    check("0 0 13 * 5", &["11-06 00:00:00+0000", "11-13 00:00:00+0000", "11-20 00:00:00+0000"]);
    check("0 0 13 * ?", &["11-13 00:00:00+0000", "12-13 00:00:00+0000"]);
    check("0 0 ? FEB,6 MON", &["02-01 00:00:00+0000"]);
    check("  5/20   1  * *\t* ", &["11-01 01:05:00+0000", "11-01 01:25:00+0000", "11-01 01:45:00+0000"]);
    check("*/30 59 23 * * *", &["11-01 23:59:00+0000", "11-01 23:59:30+0000", "11-02 23:59:00+0000"]);
    check("@daily", &["11-02 00:00:00+0000"]);
    check("@midnight", &["11-02 00:00:00+0000"]);
    check("@Weekly", &["11-08 00:00:00+0000"]);
    check("@monthly", &["12-01 00:00:00+0000"]);
    check("@annually", &["01-01 00:00:00+0000"]);
    check("@yearly", &["01-01 00:00:00+0000"]);
    check("@hourly", &["11-01 01:00:00+0000"]);
    check("0 0 29 2 *", &["02-29 00:00:00+0000", "02-29 00:00:00+0000"]);
}

#[test]
fn a_due_time_is_never_given_twice() {
    let every_second = schedule("* * * * * *", "UTC");
    assert_eq!(every_second.next_after(Millis(-1)), Some(Millis(0)));
    assert_eq!(every_second.next_after(Millis(0)), Some(Millis(1000)));
    assert_eq!(every_second.next_after(Millis(999)), Some(Millis(1000)));
}

#[test]
fn in_the_spring_gap_a_lost_time_is_due_once_right_after_it() {
    let berlin = |expression, expected: &[&str]| check(expression, "Europe/Berlin", "2026-03-28T23:30:00Z", expected);
    berlin("30 2 * * *", &["03-29 03:00:00+0200", "03-30 02:30:00+0200"]);
    berlin("0,30 2 * * *", &["03-29 03:00:00+0200", "03-30 02:00:00+0200"]);
    berlin("30 2,3 * * *", &["03-29 03:00:00+0200", "03-29 03:30:00+0200", "03-30 02:30:00+0200"]);
    berlin("0 2,3 * * *", &["03-29 03:00:00+0200", "03-30 02:00:00+0200"]);
    berlin("*/15 2 * * *", &["03-29 03:00:00+0200", "03-30 02:00:00+0200"]);
    berlin("0 */2 * * *", &["03-29 03:00:00+0200", "03-29 04:00:00+0200"]);
    // In every hour: nothing is lost.
    berlin("*/30 * * * *", &["03-29 01:00:00+0100", "03-29 01:30:00+0100", "03-29 03:00:00+0200"]);
    berlin("45 * * * *", &["03-29 00:45:00+0100", "03-29 01:45:00+0100", "03-29 03:45:00+0200"]);
    berlin("30 2 29 3 *", &["03-29 03:00:00+0200", "03-29 02:30:00+0200"]);
    // Half an hour, and at midnight, and a whole day.
    check("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", &["10-04 02:30:00+1100"]);
    check("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", &["11-04 01:00:00-0200", "11-05 00:00:00-0200"]);
    check("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", &["12-29 12:00:00-1000", "12-31 00:00:00+1400"]);
}

#[test]
fn the_gaps_end_is_found_from_every_moment_around_it() {
    let lost = schedule("30 2 * * *", "Europe/Berlin");
    let end = at("2026-03-29T01:00:00Z");
    for before in [1, 999, 1000, 1001, 3_600_000] {
        assert_eq!(lost.next_after(Millis(end.0 - before)), Some(end), "{before} ms before");
    }
    assert_eq!(lost.next_after(end), Some(at("2026-03-30T00:30:00Z")));
}

#[test]
fn in_the_autumn_overlap_a_fixed_time_is_due_once_and_an_interval_twice() {
    let berlin = |expression, expected: &[&str]| check(expression, "Europe/Berlin", "2026-10-24T23:30:00Z", expected);
    berlin("30 2 * * *", &["10-25 02:30:00+0200", "10-26 02:30:00+0100"]);
    berlin("0,30 2 * * *", &["10-25 02:00:00+0200", "10-25 02:30:00+0200", "10-26 02:00:00+0100"]);
    berlin("0 2,14 * * *", &["10-25 02:00:00+0200", "10-25 14:00:00+0100"]);
    berlin(
        "*/30 * * * *",
        &[
            "10-25 02:00:00+0200",
            "10-25 02:30:00+0200",
            "10-25 02:00:00+0100",
            "10-25 02:30:00+0100",
            "10-25 03:00:00+0100",
        ],
    );
    berlin("0 * * * *", &["10-25 02:00:00+0200", "10-25 02:00:00+0100", "10-25 03:00:00+0100"]);
    berlin("30 1-2 * * *", &["10-25 02:30:00+0200", "10-25 02:30:00+0100", "10-26 01:30:00+0100"]);
    check(
        "*/15 * * * *",
        "Australia/Lord_Howe",
        "2026-04-04T14:29:00Z",
        &[
            "04-05 01:30:00+1100",
            "04-05 01:45:00+1100",
            "04-05 01:30:00+1030",
            "04-05 01:45:00+1030",
            "04-05 02:00:00+1030",
        ],
    );
}

#[test]
fn what_is_no_schedule_is_refused_with_its_field() {
    let refused = |expression: &str| Schedule::parse(expression, "UTC").expect_err(expression);
    for (expression, field, text) in [
        ("60 * * * *", FieldName::Minute, "60"),
        ("* 24 * * *", FieldName::Hour, "24"),
        ("* * 0 * *", FieldName::DayOfMonth, "0"),
        ("* * 32 * *", FieldName::DayOfMonth, "32"),
        ("* * * 13 *", FieldName::Month, "13"),
        ("* * * FOO *", FieldName::Month, "FOO"),
        ("* * * * 8", FieldName::DayOfWeek, "8"),
        ("* * * * 5-1", FieldName::DayOfWeek, "5-1"),
        ("* * * * MON-FOO", FieldName::DayOfWeek, "MON-FOO"),
        ("* * * * 5L", FieldName::DayOfWeek, "5L"),
        ("* * L * *", FieldName::DayOfMonth, "L"),
        ("*/0 * * * *", FieldName::Minute, "*/0"),
        ("*/61 * * * *", FieldName::Minute, "*/61"),
        ("* * * * */0", FieldName::DayOfWeek, "*/0"),
        ("1* * * * *", FieldName::Minute, "1*"),
        ("? * * * *", FieldName::Minute, "?"),
        (", * * * *", FieldName::Minute, ","),
        ("1,,2 * * * *", FieldName::Minute, "1,,2"),
        ("1-2-3 * * * *", FieldName::Minute, "1-2-3"),
        ("-1 * * * *", FieldName::Minute, "-1"),
        ("30-10 * * * *", FieldName::Minute, "30-10"),
        ("99999999999999999999 * * * *", FieldName::Minute, "99999999999999999999"),
        ("* * * * 1/99999999999999999999", FieldName::DayOfWeek, "1/99999999999999999999"),
        ("60 * * * * *", FieldName::Second, "60"),
        ("ü * * * *", FieldName::Minute, "ü"),
    ] {
        let ScheduleError::Field { field: found, text: shown, at, .. } = refused(expression) else {
            panic!("{expression} is refused for another reason")
        };
        assert_eq!((found, shown.as_str(), &expression[at]), (field, text, text), "{expression}");
    }
    for (expression, fields) in [("", 0), ("* * * *", 4), ("* * * * * * *", 7)] {
        assert!(matches!(refused(expression), ScheduleError::FieldCount { found, .. } if found == fields));
    }
    for name in ["@reboot", "@every 5m", "@"] {
        assert!(matches!(refused(name), ScheduleError::Nickname { .. }), "{name}");
    }
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30,31 FEB ?"] {
        assert!(matches!(refused(never), ScheduleError::Impossible { .. }), "{never}");
    }
    assert!(matches!(refused(&"*".repeat(300)), ScheduleError::TooLong { bytes: 300 }));
    let nearest = |zone: &str| match Schedule::parse("@daily", zone) {
        Err(ScheduleError::Zone { nearest, .. }) => nearest,
        other => panic!("{zone}: {other:?}"),
    };
    assert_eq!(nearest("Europe/Berln").as_deref(), Some("Europe/Berlin"));
    assert_eq!(nearest("new york").as_deref(), Some("America/New_York"));
    assert_eq!(nearest("xyzzy"), None);
}

#[test]
fn the_end_of_time_is_no_due_time() {
    for zone in ["UTC", "Europe/Berlin"] {
        let daily = schedule("@daily", zone);
        for extreme in [i64::MAX, i64::MAX - 1, i64::MIN, 8_210_266_876_799_000, -8_334_601_228_800_000] {
            let _ = daily.next_after(Millis(extreme));
        }
        assert_eq!(daily.next_after(Millis(i64::MAX)), None);
    }
}

#[test]
fn missed_ticks_are_told_made_up_or_left_out() {
    let hourly = schedule("0 * * * *", "UTC");
    let (since, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T05:00:10Z"));
    let tick = |hour: u64, missed| Tick {
        scheduled_at: since.plus(hour * 3_600_000),
        late_by_ms: (5 - hour) * 3_600_000 + 10_000,
        missed,
    };
    let check = |now, policy, deadline, fire: &[Tick], skipped| {
        let ticks = hourly.missed(since, now, policy, deadline);
        assert_eq!((ticks.fire.as_slice(), ticks.skipped, ticks.more), (fire, skipped, false), "{policy:?}");
        ticks.cursor
    };
    let five = tick(5, 0).scheduled_at;
    assert_eq!(check(now, MissedPolicy::Latest, None, &[tick(5, 4)], 0), five);
    assert_eq!(check(now, MissedPolicy::Latest, Some(10_000), &[tick(5, 4)], 0), five);
    assert_eq!(check(now, MissedPolicy::Latest, Some(9_999), &[], 5), five);
    assert_eq!(check(now, MissedPolicy::None, None, &[tick(5, 4)], 0), five);
    assert_eq!(check(now, MissedPolicy::None, Some(5_000), &[], 5), five);
    assert_eq!(check(five.plus(missed::ON_TIME_MS + 1), MissedPolicy::None, None, &[], 5), five);
    let all: Vec<Tick> = (1..=5).map(|hour| tick(hour, 0)).collect();
    assert_eq!(check(now, MissedPolicy::All, None, &all, 0), five);
    assert_eq!(check(now, MissedPolicy::All, Some(3_610_000), &[tick(4, 3), tick(5, 0)], 0), five);
    assert_eq!(check(now, MissedPolicy::All, Some(3_609_999), &[tick(5, 4)], 0), five);
    assert_eq!(check(now, MissedPolicy::All, Some(9), &[], 5), five);
    for policy in [MissedPolicy::Latest, MissedPolicy::All, MissedPolicy::None] {
        assert_eq!(check(at("2026-01-01T00:59:59.999Z"), policy, None, &[], 0), since, "nothing is due yet");
        assert_eq!(check(at("2025-01-01T00:00:00Z"), policy, None, &[], 0), since, "the clock went back");
    }
}

#[test]
fn very_many_missed_ticks_are_counted_and_given_in_portions() {
    let every_second = schedule("* * * * * *", "Europe/Berlin");
    let (since, now) = (at("2016-01-01T00:00:00Z"), at("2026-01-01T00:00:00.500Z"));
    let ticks = every_second.missed(since, now, MissedPolicy::Latest, None);
    let seconds = u64::try_from((now.0 - since.0) / 1000).expect("positive");
    assert_eq!(ticks.fire, [Tick { scheduled_at: Millis(now.0 - 500), late_by_ms: 500, missed: seconds - 1 }]);
    let portion = every_second.missed(since, now, MissedPolicy::All, None);
    assert!(portion.more && portion.fire.len() == missed::MAX_TICKS_AT_ONCE);
    assert_eq!(portion.cursor, since.plus(1000 * missed::MAX_TICKS_AT_ONCE as u64));
}

const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Sao_Paulo",
    "UTC",
    "Africa/Casablanca",
    "America/St_Johns",
];

/// 2012 to 2022: Sao Paulo had summer time until 2019, Casablanca has had a pause for Ramadan all along.
const YEARS: std::ops::Range<i64> = 1_325_376_000..1_640_995_200;
const DAY: i64 = 24 * 3600;

/// The hours in which a zone's offset changes, ten years of them.
static CHANGES: LazyLock<Vec<Vec<i64>>> = LazyLock::new(|| {
    let offset = |tz: Tz, at: i64| tz.timestamp_opt(at, 0).single().expect("an instant").offset().fix();
    ZONES
        .iter()
        .map(|zone| {
            let tz: Tz = zone.parse().expect("a zone");
            let hours = YEARS.step_by(3600).filter(|at| offset(tz, *at) != offset(tz, at + 3600));
            hours.collect()
        })
        .collect()
});

/// Values of a field as texts: single, list, range, `*`, steps.
fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    let value = low..=high;
    prop_oneof![
        4 => value.clone().prop_map(|v| v.to_string()),
        3 => Just("*".to_owned()),
        1 => prop::collection::vec(value.clone(), 2..4).prop_map(|list| {
            list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }),
        2 => (1..high).prop_map(|step| format!("*/{step}")),
        1 => (value.clone(), value.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (value.clone(), value, 1..high).prop_map(|(a, b, n)| format!("{}-{}/{n}", a.min(b), a.max(b))),
    ]
}

fn weekday() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("*".to_owned()),
        2 => (0..=7_u32).prop_map(|v| v.to_string()),
        1 => prop::sample::select(vec!["MON", "tue", "Wed", "SUN", "MON-FRI", "TUE,SAT", "THU-SAT/2"]).prop_map(str::to_owned),
        1 => (0..=7_u32, 0..=7_u32).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (1..=7_u32).prop_map(|n| format!("*/{n}")),
    ]
}

fn expression() -> impl Strategy<Value = [String; 6]> {
    let second = prop_oneof![3 => Just("0".to_owned()), 1 => field(0, 59)];
    let day = prop_oneof![3 => Just("*".to_owned()), 2 => field(1, 31)];
    let month = prop_oneof![3 => Just("*".to_owned()), 1 => field(1, 12)];
    (second, field(0, 59), field(0, 23), day, month, weekday()).prop_map(|(s, m, h, d, mo, w)| [s, m, h, d, mo, w])
}

fn is_single(field: &str) -> bool {
    field.bytes().all(|b| b.is_ascii_digit())
}

/// Whether croner must agree on every instant, those of changed clocks included.
fn is_common_ground(fields: &[String; 6]) -> bool {
    let single = fields[..3].iter().all(|field| is_single(field));
    let every_hour = matches!(fields[2].as_str(), "*" | "*/1" | "0-23" | "0-23/1");
    single || every_hour
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 1 << 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn croner_agrees(
        fields in expression(),
        zone in 0..ZONES.len(),
        anywhere in YEARS,
        change in any::<prop::sample::Index>(),
        around in prop::option::weighted(0.6, -4 * 3600..2 * 3600_i64),
    ) {
        let expression = fields.join(" ");
        let changes = &CHANGES[zone];
        let start = match around {
            Some(offset) if !changes.is_empty() => changes[change.index(changes.len())] + offset,
            _ => anywhere,
        };
        let schedule = match Schedule::parse(&expression, ZONES[zone]) {
            Ok(schedule) => schedule,
            Err(ScheduleError::Impossible { .. }) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(format!("failed to {error}"))),
        };
        // Ten years at most, and 40 due times.
        let horizon = start + 3653 * DAY;
        let ours: Vec<i64> = due(&schedule, Millis(start * 1000), 40)
            .into_iter()
            .map(|at| at.0 / 1000)
            .take_while(|at| *at <= horizon)
            .collect();
        let end = if ours.len() == 40 { ours[39] } else { horizon };
        let tz: Tz = ZONES[zone].parse().expect("a zone");
        let oracle = CronParser::builder().seconds(Seconds::Required).sloppy_ranges(true).build();
        let oracle = oracle.parse(&expression).map_err(|e| TestCaseError::fail(format!("{expression}: {e}")))?;
        let theirs: Vec<i64> = oracle
            .iter_after(tz.timestamp_opt(start, 0).single().expect("an instant"))
            .map(|at| at.timestamp())
            .take_while(|at| *at <= end)
            .collect();
        let ordinary = |at: &i64| {
            is_common_ground(&fields) || !changes.iter().any(|change| (change - 2 * DAY..change + 2 * DAY).contains(at))
        };
        // Where croner is lost on its way through the years it ends early; ours then only may go on.
        let ours: Vec<i64> = ours.into_iter().filter(ordinary).collect();
        let theirs: Vec<i64> = theirs.into_iter().filter(ordinary).collect();
        prop_assert_eq!(ours, theirs, "{} {} from {}", expression, ZONES[zone], start);
    }

    #[test]
    fn counting_and_looking_back_agree_with_walking(
        fields in expression(),
        zone in 0..ZONES.len(),
        change in any::<prop::sample::Index>(),
        offset in -3 * DAY..DAY,
        length in 0..5 * DAY,
    ) {
        // Not every second of days: walking is what this test can afford.
        prop_assume!(fields[0] == "0");
        let changes = &CHANGES[zone];
        let start = if changes.is_empty() { YEARS.start } else { changes[change.index(changes.len())] } + offset;
        let Ok(schedule) = Schedule::parse(&fields.join(" "), ZONES[zone]) else { return Ok(()) };
        let (since, now) = (Millis(start * 1000), Millis((start + length) * 1000));
        let walked: Vec<Millis> = std::iter::successors(schedule.next_after(since), |at| schedule.next_after(*at))
            .take_while(|at| *at <= now)
            .collect();
        prop_assert!(walked.is_sorted_by(|a, b| a < b));
        let ticks = schedule.missed(since, now, MissedPolicy::Latest, None);
        prop_assert_eq!(ticks.cursor, walked.last().copied().unwrap_or(since));
        prop_assert_eq!(ticks.fire.iter().map(|tick| tick.missed + 1).sum::<u64>(), walked.len() as u64);
        let mut all: Vec<Millis> = Vec::new();
        let mut cursor = since;
        loop {
            let ticks = schedule.missed(cursor, now, MissedPolicy::All, None);
            all.extend(ticks.fire.iter().map(|tick| tick.scheduled_at));
            cursor = ticks.cursor;
            if !ticks.more {
                break;
            }
        }
        prop_assert_eq!(all, walked);
    }

    #[test]
    fn no_text_is_read_with_a_panic(text in "\\PC{0,40}", fields in prop::collection::vec("[0-9A-Za-z*?/,#-]{1,6}", 5..7)) {
        let _ = Schedule::parse(&text, &text);
        let text = fields.join(" ");
        if let Ok(schedule) = Schedule::parse(&text, "Europe/Berlin") {
            prop_assert!(schedule.next_after(Millis(0)).is_some(), "{} is never due", text);
        }
    }
}

#[test]
fn the_oracle_reads_what_we_read() {
    // A guard for the property above: were the oracle unable to read five fields, it would compare nothing.
    let cron = croner::Cron::from_str("30 2 * * MON-FRI").expect("croner reads it");
    let berlin = Tz::Europe__Berlin.timestamp_opt(1_774_738_800, 0).single().expect("an instant");
    assert!(cron.find_next_occurrence(&berlin, false).is_ok());
}
