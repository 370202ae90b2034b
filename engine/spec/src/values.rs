//! Small values of the language: names, durations, sizes, paths, globs.
//!
//! Each function says in a lower-case fragment what is wrong with a text; where it stands is the caller's business.

use globset::GlobBuilder;

/// Longest name of a workflow, step or output.
pub(crate) const MAX_NAME_CHARS: usize = 63;
/// Longest name of a dataset.
pub(crate) const MAX_DATASET_CHARS: usize = 200;
/// Longest duration: ten years, far beyond any use and far below any overflow.
pub(crate) const MAX_DURATION_MS: u64 = 10 * 366 * 24 * 3_600_000;

/// Whether a text can name a workflow, a step or an output: a letter, then letters, digits, `-` and `_`.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_CHARS
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether a text can be read in an expression as `inputs.<text>`, or name a variable of the environment.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.len() <= MAX_NAME_CHARS
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a text can name a dataset: parts of letters, digits, `.`, `-` and `_`, separated by `/`.
pub(crate) fn is_dataset_name(text: &str) -> bool {
    text.len() <= MAX_DATASET_CHARS
        && text.split('/').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        })
}

/// Milliseconds of `10s`, `5m`, `2h`, `3d`, `500ms`, `1m30s`.
pub(crate) fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no duration; write for example `90s`, `5m`, `2h`, `1h30m` or `500ms`");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total = number
            .checked_mul(unit_ms)
            .and_then(|ms| total.checked_add(ms))
            .filter(|&ms| ms <= MAX_DURATION_MS)
            .ok_or_else(|| format!("the duration `{text}` is longer than ten years"))?;
        rest = after;
    }
    Ok(total)
}

/// Bytes of `2Gi`, `512Mi`, `1.5G`, `100K`, `4096`.
pub(crate) fn size_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write for example `512Mi`, `2Gi`, `1.5G` or a number of bytes");
    let text = text.trim();
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * factor as f64;
    // Beyond this a float no longer holds every whole number, and no machine has the memory.
    if bytes.is_finite() && bytes < (1_u64 << 53) as f64 {
        Ok(bytes as u64)
    } else {
        Err(format!("`{text}` is too large"))
    }
}

/// Why a path cannot name something in the work folder.
pub(crate) fn path_problem(path: &str) -> Option<&'static str> {
    if path.trim().is_empty() {
        Some("is empty")
    } else if path.starts_with('/') {
        Some("is absolute")
    } else if path.contains('\\') {
        Some("holds a backslash")
    } else if path.contains('\0') {
        Some("holds a zero byte")
    } else if path.split('/').any(|part| part == "..") {
        Some("leaves the work folder")
    } else if path.trim_end_matches('/').split('/').any(|part| part.is_empty() || part == ".") {
        Some("holds an empty or `.` part")
    } else {
        None
    }
}

/// Why a glob cannot be used, its leading `!` taken off.
pub(crate) fn glob_problem(glob: &str) -> Option<String> {
    if glob.is_empty() {
        return Some("is empty".into());
    }
    if glob.starts_with('/') {
        return Some("begins with `/`, but paths and branches are relative".into());
    }
    GlobBuilder::new(glob).literal_separator(true).build().err().map(|error| error.kind().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_their_parts() {
        for (text, ms) in [
            ("10s", 10_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("3d", 259_200_000),
            ("500ms", 500),
            ("1m30s", 90_000),
        ] {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "5", "s", "-5s", "1.5h", "5 m", "5min", "99999999999999999999s", "99999999d"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [("2Gi", 2 << 30), ("512Mi", 512 << 20), ("1.5K", 1500), ("7", 7), ("1Ti", 1 << 40)] {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "Gi", "-1Gi", "2gb", "2 Gi", "1.2.3G", "9999999999T"] {
            assert!(size_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_stay_in_the_work_folder() {
        for path in ["a", "out/model.bin", "out/", "a..b", ".hidden"] {
            assert_eq!(path_problem(path), None, "{path}");
        }
        for path in ["", "/a", "../a", "a/../b", "a//b", "./a", "a\\b", "a\0", "/"] {
            assert!(path_problem(path).is_some(), "{path:?}");
        }
    }

    #[test]
    fn names_are_letters_digits_dashes_and_underscores() {
        assert!(is_name("train-big_1") && !is_name("1a") && !is_name("a.b") && !is_name("") && !is_name("ä"));
        assert!(is_name(&"a".repeat(MAX_NAME_CHARS)) && !is_name(&"a".repeat(MAX_NAME_CHARS + 1)));
        assert!(is_identifier("_a1") && !is_identifier("a-b"));
        assert!(is_dataset_name("churn/raw.v2") && !is_dataset_name("churn//raw") && !is_dataset_name("/raw"));
        assert!(!is_dataset_name("../raw") && !is_dataset_name(""));
    }

    #[test]
    fn globs_must_parse() {
        assert_eq!(glob_problem("src/**/*.{rs,py}"), None);
        assert!(glob_problem("src/[a").is_some() && glob_problem("").is_some() && glob_problem("/src/**").is_some());
    }
}
