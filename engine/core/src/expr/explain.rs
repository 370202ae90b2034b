//! What the CEL crate's errors mean to whoever wrote the expression.

use cel::{ExecutionError, ParseErrors};

use super::functions;

/// Where and why an expression does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFault {
    /// For people.
    pub message: String,
    /// Byte offset into the source, when it lies at one place.
    pub offset: Option<usize>,
}

impl ParseFault {
    pub(super) fn nowhere(message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: None }
    }

    /// The first error: those after it are mostly its consequences.
    pub(super) fn from_parser(source: &str, errors: &ParseErrors) -> Self {
        let Some(first) = errors.errors.first() else { return Self::nowhere("it is no CEL expression") };
        let (line, column) = first.pos;
        let offset = byte_offset(source, line, column);
        Self { message: in_plain_words(&first.msg), offset }
    }
}

/// What the parser's jargon means.
fn in_plain_words(jargon: &str) -> String {
    // The grammar's list of everything that could have come instead is long and helps nobody.
    let jargon = jargon.strip_prefix("Syntax error: ").unwrap_or(jargon);
    let jargon = jargon.split(" expecting ").next().unwrap_or(jargon);
    let input = |prefix: &str| {
        let quoted = jargon.strip_prefix(prefix)?.trim();
        Some(quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(quoted).trim().to_owned())
    };
    if let Some(unknown) = input("token recognition error at: ") {
        return match unknown.chars().next() {
            Some('\'' | '"') => format!("the text that begins with {unknown} is not closed"),
            Some('=') => "`=` is no operator; compare with `==`".to_owned(),
            Some('&') => "`&` is no operator; write `&&`".to_owned(),
            Some('|') => "`|` is no operator; write `||`".to_owned(),
            Some(_) | None => format!("`{unknown}` has no meaning in an expression"),
        };
    }
    let unexpected = ["mismatched input ", "extraneous input ", "no viable alternative at input "];
    match unexpected.into_iter().find_map(input) {
        Some(end) if end == "<EOF>" => "it ends too early".to_owned(),
        Some(text) => format!("`{text}` is not expected here"),
        None if jargon.contains("Recursion") => "it nests too deeply; write it more simply".to_owned(),
        None if jargon.contains("`_?_:_`") => "`a ? b : c` is not complete".to_owned(),
        None => jargon.to_owned(),
    }
}

/// The parser counts lines and columns (in characters) from 1.
fn byte_offset(source: &str, line: isize, column: isize) -> Option<usize> {
    let (line, column) = (usize::try_from(line).ok()?.checked_sub(1)?, usize::try_from(column).ok()?.checked_sub(1)?);
    let start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = source.get(start..)?;
    Some(start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at))
}

/// Why evaluating failed, as a fragment with what to do.
pub(super) fn execution(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => {
            format!("there is no `{key}`; test with `has(…)` first, or give a default: `has(x.{key}) ? x.{key} : …`")
        }
        ExecutionError::UndeclaredReference(name) if functions::functions().iter().any(|f| f.name == name.as_str()) => {
            format!("`{name}()` can only be used in a step's `if`")
        }
        ExecutionError::UndeclaredReference(name) => format!("`{name}` is not known here"),
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            arithmetic(operator, &left.type_of().to_string(), &right.type_of().to_string())
        }
        ExecutionError::NoSuchOverload(overload) => match overload.argument_types() {
            [operand, _] if symbol(overload.function()) == "." => format!("a value of type {operand} has no fields"),
            [left, right] if is_operator(overload.function()) => arithmetic(overload.function(), left, right),
            types => format!("`{}` does not take ({})", symbol(overload.function()), types.join(", ")),
        },
        ExecutionError::IndexOutOfBounds(index) => format!("index {} is out of bounds", plain(index)),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number becomes too large for 64 bits".to_owned(),
        ExecutionError::UnexpectedType { got, want } => format!("it has a value of type {got} where {want} is needed"),
        ExecutionError::InternalError(message) | ExecutionError::FunctionError { message, .. } => {
            message.split_whitespace().collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

fn is_operator(function: &str) -> bool {
    function.starts_with('_') || function.starts_with('@')
}

/// The CEL crate names operators and types in two ways each.
fn arithmetic(operator: &str, left: &str, right: &str) -> String {
    let symbol = symbol(operator);
    let cel_name = |ty| if ty == "float" { "double" } else { ty };
    let (left, right) = (cel_name(left), cel_name(right));
    let numeric = |ty: &str| matches!(ty, "int" | "uint" | "double");
    let hint = if left != right && numeric(left) && numeric(right) {
        "; arithmetic does not mix whole and other numbers: convert one with `double(…)` or `int(…)`"
    } else if [left, right].contains(&"null_type") || [left, right].contains(&"null") {
        "; one side is null: test it first, or give a default"
    } else {
        ""
    };
    format!("`{symbol}` does not take {left} and {right}{hint}")
}

fn symbol(operator: &str) -> &str {
    match operator.trim_matches(['_', '@']) {
        "add" => "+",
        "sub" => "-",
        "mul" => "*",
        "div" => "/",
        "rem" => "%",
        other => other,
    }
}

fn plain(value: &cel::Value) -> String {
    match value {
        cel::Value::Int(int) => int.to_string(),
        cel::Value::UInt(uint) => uint.to_string(),
        other => format!("{other:?}"),
    }
}
