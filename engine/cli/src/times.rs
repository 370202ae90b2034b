//! Times and durations as people type them: `90s`, `2h`, `3d`, or RFC 3339.

use std::time::Duration;

use kickwheel_schemas::Millis;

/// The longest duration that is taken; beyond it, it is a slip of the keyboard.
const MAX_DAYS: u64 = 36_500;

/// `500ms`, `90s`, `15m`, `2h` or `3d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write one like 500ms, 90s, 15m, 2h or 3d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(unit_ms)
        .filter(|ms| *ms <= MAX_DAYS * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is longer than {MAX_DAYS}d"))
}

/// A point in time: so long before `now`, or RFC 3339.
pub fn point(text: &str, now: Millis) -> Result<Millis, String> {
    if let Ok(at) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(Millis(at.timestamp_millis()));
    }
    match duration(text) {
        Ok(ago) => Ok(Millis(now.0 - ago.as_millis() as i64)),
        Err(_) => Err(format!("{text:?} is no time; write how long ago (2h, 3d) or a time like 2026-01-31T12:00:00Z")),
    }
}

/// Short for people: `0.4s`, `12.3s`, `4m 05s`, `2h 03m`, `3d 4h`.
pub fn brief(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{}.{}s", s, ms % 1000 / 100),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// From RFC 3339, as the API writes it.
pub fn read(text: &str) -> Option<Millis> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|at| Millis(at.timestamp_millis()))
}

/// How long ago, for tables; the text itself when it is no time.
pub fn ago(text: &str, now: Millis) -> String {
    read(text).map_or_else(|| text.to_owned(), |at| format!("{} ago", brief(now.since(at))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, ms: Option<u64>) {
        assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn durations_need_a_number_and_a_unit() {
        check("500ms", Some(500));
        check("90s", Some(90_000));
        check("2h", Some(7_200_000));
        check("3d", Some(259_200_000));
        check("2", None);
        check("h", None);
        check("-2h", None);
        check("2 h", None);
        check("99999999999999d", None);
        check("", None);
    }

    #[test]
    fn a_point_is_absolute_or_counted_back_from_now() {
        assert_eq!(point("2h", Millis(7_200_001)), Ok(Millis(1)));
        assert_eq!(point("1970-01-01T00:00:01Z", Millis(0)), Ok(Millis(1000)));
        assert!(point("yesterday", Millis(0)).is_err());
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(
            [400, 12_340, 245_000, 7_380_000, 273_600_000].map(brief),
            ["0.4s", "12.3s", "4m 05s", "2h 03m", "3d 4h"]
        );
    }
}
