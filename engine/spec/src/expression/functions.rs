//! The functions that expressions may call: CEL's standard ones and ours.

use super::types::Type;

/// How a function is called and what it gives.
pub(super) struct Signature {
    pub name: &'static str,
    /// Called on a value: `text.contains("x")`.
    pub on_value: bool,
    /// Numbers of arguments, the value it is called on not counted.
    pub arguments: &'static [usize],
    pub gives: Type,
}

const fn global(name: &'static str, arguments: &'static [usize], gives: Type) -> Signature {
    Signature { name, on_value: false, arguments, gives }
}

const fn method(name: &'static str, arguments: &'static [usize], gives: Type) -> Signature {
    Signature { name, on_value: true, arguments, gives }
}

/// CEL's standard functions. A test calls each one, so that the list cannot name what does not exist.
pub(super) const STANDARD: &[Signature] = &[
    global("bool", &[1], Type::Boolean),
    global("bytes", &[1], Type::Any),
    global("double", &[1], Type::Double),
    global("duration", &[1], Type::Any),
    global("dyn", &[1], Type::Any),
    global("int", &[1], Type::Integer),
    global("matches", &[2], Type::Boolean),
    global("size", &[1], Type::Integer),
    global("string", &[1], Type::Text),
    global("timestamp", &[1], Type::Any),
    global("type", &[1], Type::Any),
    global("uint", &[1], Type::Any),
    method("contains", &[1], Type::Boolean),
    method("endsWith", &[1], Type::Boolean),
    method("getDate", &[0, 1], Type::Integer),
    method("getDayOfMonth", &[0, 1], Type::Integer),
    method("getDayOfWeek", &[0, 1], Type::Integer),
    method("getDayOfYear", &[0, 1], Type::Integer),
    method("getFullYear", &[0, 1], Type::Integer),
    method("getHours", &[0, 1], Type::Integer),
    method("getMilliseconds", &[0, 1], Type::Integer),
    method("getMinutes", &[0, 1], Type::Integer),
    method("getMonth", &[0, 1], Type::Integer),
    method("getSeconds", &[0, 1], Type::Integer),
    method("matches", &[1], Type::Boolean),
    method("size", &[0], Type::Integer),
    method("startsWith", &[1], Type::Boolean),
];

/// Macros, which the parser has already replaced where they were used rightly: what is left of them is a mistake.
pub(super) const MACROS: &[(&str, bool, &str)] = &[
    ("has", false, "write `has(value.field)`"),
    ("all", true, "write `list.all(item, condition)`"),
    ("exists", true, "write `list.exists(item, condition)`"),
    ("exists_one", true, "write `list.exists_one(item, condition)`"),
    ("existsOne", true, "write `list.existsOne(item, condition)`"),
    ("filter", true, "write `list.filter(item, condition)`"),
    ("map", true, "write `list.map(item, value)`"),
];

/// Names that stand for types, for `type(x) == int`.
pub(super) const TYPE_NAMES: &[&str] =
    &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
