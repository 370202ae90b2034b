//! Compiling CEL, with limits.
//!
//! A workflow file is written by anybody who may push, and the engine must survive it. The parser and the evaluator both
//! recurse, so depth is bounded here: brackets before parsing, the syntax tree after it, and the parser gets a stack of
//! its own because its appetite depends on the grammar rather than on us. The time of an evaluation is bounded by how
//! deeply comprehensions nest.

use std::{
    panic::{self, AssertUnwindSafe},
    thread,
};

use cel::{
    ExecutionError, Program, Value,
    common::ast::{Expr as Ast, IdedExpr},
};

use super::{Bindings, ParseFault, references, scan};

/// Longest source of one expression, in bytes.
pub const MAX_SOURCE_BYTES: usize = 4 * 1024;

/// Deepest nesting of brackets.
pub const MAX_BRACKETS: usize = 32;

/// Deepest syntax tree: of `a + b + c` it has one level per operator.
pub const MAX_DEPTH: usize = 64;

/// Deepest nesting of `map`, `filter`, `exists` and their like: each level multiplies the work of the one around it. One
/// after another, as in `a.filter(…).map(…)`, they do not nest.
pub const MAX_COMPREHENSIONS: usize = 2;

/// Up to this depth an expression is evaluated on its caller's stack. A level can take 60 KiB in an unoptimised build, and
/// callers have 2 MiB.
const SHALLOW: usize = 12;

/// Twice what the parser, which stops at a depth of its own, was seen to use in an unoptimised build; more than a tree of
/// [`MAX_DEPTH`] takes to evaluate. Only what is used is ever touched.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// A compiled expression, and what is worth knowing of it before it is evaluated.
pub(super) struct Compiled {
    pub program: Program,
    /// Names of free variables, in order of appearance.
    pub variables: Vec<String>,
    depth: usize,
}

impl Compiled {
    /// Evaluates it.
    pub fn execute(&self, bindings: &Bindings) -> Result<Value, ExecutionError> {
        let execute = || self.program.execute(&bindings.context());
        if self.depth > SHALLOW {
            return on_deep_stack(execute).map_err(ExecutionError::InternalError)?;
        }
        // Nothing is changed by an evaluation, so nothing can be left half changed by a panic.
        panic::catch_unwind(AssertUnwindSafe(execute))
            .unwrap_or_else(|_panic| Err(ExecutionError::InternalError(GAVE_UP.to_owned())))
    }
}

/// Parses and checks the limits.
pub(super) fn compile(source: &str) -> Result<Compiled, ParseFault> {
    if source.trim().is_empty() {
        return Err(ParseFault::nowhere("it is empty"));
    }
    if source.len() > MAX_SOURCE_BYTES {
        let len = source.len();
        return Err(ParseFault::nowhere(format!("it is {len} bytes long; at most {MAX_SOURCE_BYTES} are allowed")));
    }
    let brackets = scan::bracket_depth(source);
    if brackets > MAX_BRACKETS {
        return Err(ParseFault::nowhere(format!(
            "its brackets nest {brackets} deep; at most {MAX_BRACKETS} are allowed"
        )));
    }
    let program = on_deep_stack(|| parse(source)).map_err(ParseFault::nowhere)??;
    let depth = Shape::of(program.expression()).depth;
    let variables = references::variables(program.expression());
    Ok(Compiled { program, variables, depth })
}

/// The recursive part: parsing, and taking a tree apart that is too deep.
fn parse(source: &str) -> Result<Program, ParseFault> {
    let program = Program::compile(source).map_err(|errors| ParseFault::from_parser(source, &errors))?;
    let Shape { depth, comprehensions } = Shape::of(program.expression());
    if depth > MAX_DEPTH {
        return Err(ParseFault::nowhere(format!(
            "it nests {depth} levels deep (every operator in a chain is one); at most {MAX_DEPTH} are allowed"
        )));
    }
    if comprehensions > MAX_COMPREHENSIONS {
        return Err(ParseFault::nowhere(format!(
            "its map, filter, all or exists nest {comprehensions} deep; at most {MAX_COMPREHENSIONS} are allowed"
        )));
    }
    Ok(program)
}

/// What is said when the CEL crate panics.
const GAVE_UP: &str = "the CEL library gave up on it; write it more simply";

/// Runs `body` with room for recursion; a panic of the CEL crate becomes a message instead of the engine's end.
fn on_deep_stack<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("cel".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, body)
            .map_err(|error| format!("no thread could be started for it: {error}"))?;
        thread.join().map_err(|_panic| GAVE_UP.to_owned())
    })
}

/// How far a tree nests.
struct Shape {
    depth: usize,
    comprehensions: usize,
}

impl Shape {
    /// Walks without recursion: the tree may be deeper than any stack.
    fn of(root: &IdedExpr) -> Self {
        let mut shape = Self { depth: 0, comprehensions: 0 };
        let mut open = vec![(root, 1, 0)];
        while let Some((node, depth, outer)) = open.pop() {
            shape.depth = shape.depth.max(depth);
            let range = match &node.expr {
                Ast::Comprehension(comprehension) => Some(&comprehension.iter_range),
                _ => None,
            };
            let inside = outer + usize::from(range.is_some());
            shape.comprehensions = shape.comprehensions.max(inside);
            references::for_each_child(node, |child| {
                // The range is evaluated once, before the loop.
                let once = range.is_some_and(|range| std::ptr::eq(range, child));
                open.push((child, depth + 1, if once { outer } else { inside }));
            });
        }
        shape
    }
}
