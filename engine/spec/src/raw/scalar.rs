//! Which plain scalar is a number, a truth value or nothing: the core schema of YAML 1.2 (section 10.3.2).
//!
//! So `yes`, `on` and `012` are no booleans and no octal numbers here, whatever older YAML said.

use super::Kind;

/// The kind of a plain scalar: nothing for a text, an error for a number that we cannot hold.
pub(super) fn resolve(text: &str) -> Result<Option<Kind>, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Some(Kind::Null)),
        "true" | "True" | "TRUE" => return Ok(Some(Kind::Bool(true))),
        "false" | "False" | "FALSE" => return Ok(Some(Kind::Bool(false))),
        _ => {}
    }
    if is_not_finite(text) {
        return Err(format!("`{text}` is no number that can be used"));
    }
    let too_large = |_| format!("the whole number `{text}` does not fit into 64 bits");
    if let Some(digits) = text.strip_prefix("0x").filter(|d| all(d, |b| b.is_ascii_hexdigit())) {
        return i64::from_str_radix(digits, 16).map(|n| Some(Kind::Int(n))).map_err(too_large);
    }
    if let Some(digits) = text.strip_prefix("0o").filter(|d| all(d, |b| (b'0'..=b'7').contains(&b))) {
        return i64::from_str_radix(digits, 8).map(|n| Some(Kind::Int(n))).map_err(too_large);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if all(unsigned, |b| b.is_ascii_digit()) {
        return text.parse().map(|n| Some(Kind::Int(n))).map_err(too_large);
    }
    if !is_float(unsigned) {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Some(Kind::Float(value))),
        Ok(_) => Err(format!("the number `{text}` is too large")),
        Err(_) => Ok(None),
    }
}

fn all(digits: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !digits.is_empty() && digits.bytes().all(allowed)
}

fn is_not_finite(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| all(text, |b| b.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        None => digits(mantissa),
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
    };
    mantissa_fits && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}
