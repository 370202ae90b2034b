//! `--input name=value`: what a typed word means for a declared input.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::exit::Failure;

/// Reads each `name=value`. `declared` gives the type of an input, if it is known: a text stays what was typed (`007`),
/// anything else is read as JSON where it is JSON. The engine checks types; here nothing is refused but a missing `=`.
pub fn read(given: &[String], declared: impl Fn(&str) -> Option<String>) -> Result<BTreeMap<String, Value>, Failure> {
    let mut inputs = BTreeMap::new();
    for text in given {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Failure::usage(format!("--input {text:?} has no value"))
                .help("write it as name=value, for example --input epochs=10"));
        };
        let value = typed(value, declared(name).as_deref());
        if inputs.insert(name.to_owned(), value).is_some() {
            return Err(Failure::usage(format!("the input {name:?} is given twice")));
        }
    }
    Ok(inputs)
}

fn typed(text: &str, ty: Option<&str>) -> Value {
    let parsed = serde_json::from_str::<Value>(text).ok();
    match ty {
        Some("string") => Value::from(text),
        Some(_) => parsed.unwrap_or_else(|| Value::from(text)),
        // Of an unknown type only a plain scalar is surely not meant as text.
        None => parsed.filter(|v| v.is_number() || v.is_boolean()).unwrap_or_else(|| Value::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(text: &str, ty: Option<&str>, value: Value) {
        let inputs = read(&[format!("x={text}")], |_| ty.map(str::to_owned));
        assert_eq!(inputs, Ok(BTreeMap::from([("x".to_owned(), value)])), "{text}");
    }

    #[test]
    fn values_follow_the_declared_type() {
        check("7", Some("string"), json!("7"));
        check("7", Some("integer"), json!(7));
        check("[1, 2]", Some("list"), json!([1, 2]));
        check("many", Some("integer"), json!("many"));
        check("7", None, json!(7));
        check("007", None, json!("007"));
        check("[1]", None, json!("[1]"));
        check("a=b", None, json!("a=b"));
        check("", None, json!(""));
    }

    #[test]
    fn a_word_without_value_and_a_repeated_name_are_usage_errors() {
        assert!(read(&["x".to_owned()], |_| None).is_err());
        assert!(read(&["=1".to_owned()], |_| None).is_err());
        assert!(read(&["x=1".to_owned(), "x=2".to_owned()], |_| None).is_err());
    }
}
