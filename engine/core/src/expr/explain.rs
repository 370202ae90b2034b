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
        let message = first.msg.strip_prefix("Syntax error: ").unwrap_or(&first.msg);
        // The grammar's list of everything that could have come instead is long and helps nobody.
        let message = message.split(" expecting ").next().unwrap_or(message);
        if message.contains("Recursion") {
            return Self { message: "it nests too deeply; write it more simply".to_owned(), offset };
        }
        Self { message: message.to_owned(), offset }
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
            [left, right] if is_operator(overload.function()) => arithmetic(overload.function(), left, right),
            types => format!("`{}` does not take ({})", overload.function(), types.join(", ")),
        },
        ExecutionError::IndexOutOfBounds(index) => format!("index {} is out of bounds", plain(index)),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number becomes too large for 64 bits".to_owned(),
        ExecutionError::InternalError(message) | ExecutionError::FunctionError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

fn is_operator(function: &str) -> bool {
    function.starts_with('_') || function.starts_with('@')
}

fn arithmetic(operator: &str, left: &str, right: &str) -> String {
    let symbol = operator.trim_matches(['_', '@']);
    let numeric = |ty: &str| matches!(ty, "int" | "uint" | "double" | "float");
    let hint = if left != right && numeric(left) && numeric(right) {
        "; arithmetic does not mix whole and other numbers: convert one with `double(…)` or `int(…)`"
    } else if [left, right].contains(&"null_type") || [left, right].contains(&"null") {
        "; one side is null: test it first, or give a default"
    } else {
        ""
    };
    format!("`{symbol}` does not take {left} and {right}{hint}")
}

fn plain(value: &cel::Value) -> String {
    match value {
        cel::Value::Int(int) => int.to_string(),
        cel::Value::UInt(uint) => uint.to_string(),
        other => format!("{other:?}"),
    }
}
